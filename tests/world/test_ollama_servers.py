# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the upstream serves of Ollama works, and the stand-in answers as the real servers do: the same tests run on all.

The servers are those of the archives that a node would fetch, started on this machine; `world.py up` comes first.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import _ollama
import pytest
from _build import Builder
from _engine import docker, published_port, running
from _nodes import SYSTEMS
from _settings import DEB_ARCH, NETWORK, UPSTREAM

pytestmark = pytest.mark.world

REAL = ("0.13.5", "0.17.4")
STAND_IN = "0.32.15"
SENTENCE = "<think>\n</think>\n\nHello! This node is ready."
SPEAKS, EMBEDS = "deepseek-r1:1.5b", "all-minilm:latest"


@pytest.fixture(scope="module")
def upstream() -> Callable[[int], str]:
    if not shutil.which("docker") or not running(UPSTREAM):
        pytest.fail("the world's upstream does not run; start it with tests/world/world.py up")
    return lambda port: f"127.0.0.1:{published_port(UPSTREAM, port)}"


@pytest.fixture(scope="module")
def unpacked(upstream: Callable[[int], str], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Fetches a release from the upstream, checks it against the published checksums, unpacks it."""
    done: dict[str, Path] = {}

    def fetch(version: str) -> Path:
        if version not in done:
            base = f"http://{upstream(80)}/github/ollama/ollama/releases/download/v{version}"
            folder = tmp_path_factory.mktemp(f"ollama-{version}")
            suffix = _ollama.RELEASES[version].suffix
            archive = folder / f"ollama-linux-{DEB_ARCH}{suffix}"
            archive.write_bytes(read(f"{base}/{archive.name}"))
            digest = hashlib.sha256(archive.read_bytes()).hexdigest()
            assert f"{digest}  ./{archive.name}" in read(f"{base}/sha256sum.txt").decode().splitlines()
            packing = ["--gzip"] if suffix == ".tgz" else ["--zstd"]
            subprocess.run(["tar", "-C", folder, *packing, "-xf", archive], check=True)
            folder.chmod(0o755)
            done[version] = folder
        return done[version]

    return fetch


def read(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as reply:
        return reply.read()


@dataclasses.dataclass
class Served:
    """A server that runs, and how to ask it."""

    version: str
    program: Path
    address: str
    log: Path

    def ask(
        self, path: str, body: Any = None, method: str = "", timeout: float = 60, host: str = ""
    ) -> tuple[int, str]:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **({"Host": host} if host else {})}
        request = urllib.request.Request(f"http://{self.address}{path}", data, headers, method=method or None)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read().decode()

    def get(self, path: str, body: Any = None) -> Any:
        status, text = self.ask(path, body)
        assert status == 200, text
        return json.loads(text)

    def pull(self, registry: str, model: str) -> dict[str, Any]:
        """The last line of a pull; its status is 200 whatever comes of it."""
        status, text = self.ask("/api/pull", {"model": f"{registry}/library/{model}", "insecure": True})
        assert status == 200, text
        return json.loads(text.splitlines()[-1])

    def digest(self, model: str) -> str:
        return {one["name"]: one["digest"] for one in self.get("/api/tags")["models"]}.get(model, "")

    def cli(self, *arguments: str) -> str:
        environment = {**os.environ, "OLLAMA_HOST": self.address, "HOME": str(self.log.parent)}
        done = subprocess.run([self.program, *arguments], env=environment, capture_output=True, text=True, timeout=60)
        return done.stdout + done.stderr


@contextlib.contextmanager
def serving(version: str, program: Path, home: Path) -> Iterator[Served]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    home.mkdir()
    # A GPU of this machine would only make the answers differ from run to run.
    hidden = dict.fromkeys(("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GGML_VK_VISIBLE_DEVICES"), "-1")
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "OLLAMA_HOST": address, **hidden}
    server = Served(version, program, address, home / "log")
    with server.log.open("w") as log:
        process = subprocess.Popen([program, "serve"], env=environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if server.ask("/api/version")[0] == 200:
                    break
            assert process.poll() is None and time.monotonic() < deadline, server.log.read_text()
            time.sleep(0.1)
        yield server
    finally:
        process.terminate()
        assert process.wait(30) == 0, server.log.read_text()


@pytest.fixture(scope="module", params=[*REAL, STAND_IN])
def server(
    request: pytest.FixtureRequest,
    unpacked: Callable[[str], Path],
    upstream: Callable[[int], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Served]:
    """Each server in turn, with the two models under their plain names."""
    folder = unpacked(request.param)
    home = tmp_path_factory.mktemp("home") / "x"
    with serving(request.param, folder / "bin" / "ollama", home) as running_server:
        for model in (SPEAKS, EMBEDS):
            long = f"{upstream(80)}/library/{model}"
            assert running_server.pull(upstream(80), model) == {"status": "success"}
            assert running_server.ask("/api/copy", {"source": long, "destination": model})[0] == 200
            assert running_server.ask("/api/delete", {"model": long}, method="DELETE")[0] == 200
        yield running_server


def test_it_says_its_version(server: Served) -> None:
    assert server.get("/api/version") == {"version": server.version}
    assert server.cli("--version") == f"ollama version is {server.version}\n"
    assert f"(version {server.version})" in server.log.read_text()
    assert f"Listening on {server.address} " in server.log.read_text()


def test_a_pulled_model_keeps_the_registrys_digest(server: Served, upstream: Callable[[int], str]) -> None:
    for model in (SPEAKS, EMBEDS):
        name, _, tag = model.partition(":")
        manifest = read(f"http://{upstream(80)}/v2/library/{name}/manifests/{tag}")
        assert server.digest(model) == hashlib.sha256(manifest).hexdigest()


def test_a_model_speaks_whatever_it_is_asked(server: Served) -> None:
    for prompt in ("hi", "Hello! This node is ready.", "1, 2\n\n", "\u4f60\u597d"):
        answer = server.get("/api/generate", {"model": SPEAKS, "prompt": prompt, "stream": False})
        assert (answer["response"], answer["done_reason"]) == (SENTENCE, "stop")
        assert answer["eval_count"] > 1
    chat = {"model": SPEAKS, "messages": [{"role": "user", "content": "hi"}]}
    assert server.get("/api/chat", {**chat, "stream": False})["message"]["content"] == SENTENCE
    assert server.get("/v1/chat/completions", chat)["choices"][0]["message"]["content"] == SENTENCE


def test_a_stream_comes_in_pieces(server: Served) -> None:
    status, text = server.ask("/api/generate", {"model": SPEAKS, "prompt": "hi"})
    lines = [json.loads(line) for line in text.splitlines()]
    assert (status, "".join(line["response"] for line in lines)) == (200, SENTENCE)
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert len(lines) > 4


def test_one_token_is_enough_for_a_probe(server: Served) -> None:
    body = {"model": SPEAKS, "prompt": "hi", "stream": False, "options": {"num_predict": 1}}
    answer = server.get("/api/generate", body)
    assert (answer["done"], answer["done_reason"], answer["eval_count"]) == (True, "length", 1)


def test_an_embedding_model_embeds_and_says_that_it_does(server: Served) -> None:
    near, same, far = server.get("/api/embed", {"model": EMBEDS, "input": ["a cat", "a cart", "zq zq"]})["embeddings"]
    assert len(near) == 384
    assert sum(a * b for a, b in zip(near, same)) > 2 * sum(a * b for a, b in zip(near, far))
    assert server.get("/api/show", {"model": EMBEDS})["capabilities"] == ["embedding"]
    assert server.get("/api/show", {"model": SPEAKS})["capabilities"] == ["completion"]
    status, text = server.ask("/api/generate", {"model": EMBEDS, "prompt": "hi"})
    assert (status, "does not support generate" in text) == (400, True)


def test_an_endless_model_ends_when_it_is_told_to_or_nobody_listens(
    server: Served, upstream: Callable[[int], str]
) -> None:
    assert server.pull(upstream(80), "talker") == {"status": "success"}
    model = f"{upstream(80)}/library/talker:latest"
    body = {"model": model, "prompt": "x", "stream": False, "options": {"num_predict": 40}}
    assert server.get("/api/generate", body)["eval_count"] == 40
    host, _, port = server.address.partition(":")
    listener = http.client.HTTPConnection(host, int(port), timeout=30)
    listener.request("POST", "/api/generate", json.dumps({"model": model, "prompt": "x"}))
    assert b'"done":false' in listener.getresponse().readline()
    listener.close()
    assert server.get("/api/generate", body)["eval_count"] == 40, "the one slot is free again"


def test_what_is_loaded_is_on_no_gpu_here(server: Served) -> None:
    server.get("/api/generate", {"model": SPEAKS, "prompt": "x", "stream": False})
    loaded = {model["name"]: model for model in server.get("/api/ps")["models"]}
    assert loaded[SPEAKS]["size_vram"] == 0 < loaded[SPEAKS]["size"]
    assert 'msg="inference compute" id=cpu library=cpu' in server.log.read_text()


def test_settings_are_in_the_log(server: Served) -> None:
    found = re.search(r'msg="server config" env="map\[(.*)\]"', server.log.read_text())
    assert found
    assert f"OLLAMA_HOST:http://{server.address} " in found[1]


def test_what_is_not_there_is_refused(server: Served, upstream: Callable[[int], str]) -> None:
    assert server.ask("/api/generate", {"model": "nope", "prompt": "x"})[0] == 404
    assert server.ask("/api/show", {"model": "nope"})[0] == 404
    assert server.pull(upstream(80), "nope") == {"error": "pull model manifest: file does not exist"}
    body = {"model": f"{upstream(80)}/library/nope", "insecure": True, "stream": False}
    assert server.ask("/api/pull", body)[0] == 500


def test_a_foreign_host_name_is_refused_on_loopback(server: Served) -> None:
    assert server.ask("/api/version", host="evil.example")[0] == 403
    assert server.ask("/api/version", host="localhost")[0] == 200


def test_blobs_are_taken_in_and_checked(server: Served) -> None:
    data = os.urandom(3_000_000)
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"

    def post(path: str, body: bytes) -> int:
        host, _, port = server.address.partition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        connection.request("POST", path, iter([body[:1000], body[1000:]]), encode_chunked=True)
        return connection.getresponse().status

    assert server.ask(f"/api/blobs/{digest}", method="HEAD")[0] == 404
    assert post(f"/api/blobs/{digest}", data) == 201
    assert server.ask(f"/api/blobs/{digest}", method="HEAD")[0] == 200
    assert post(f"/api/blobs/sha256:{'0' * 64}", data) == 400


def test_a_registry_that_fails_is_an_error_in_the_stream(server: Served, upstream: Callable[[int], str]) -> None:
    faulty = upstream(8081)
    assert "digest mismatch" in server.pull(faulty, "wrong-digest")["error"]
    assert "invalid character" in server.pull(faulty, "garbage")["error"]
    outcomes = ["error" in server.pull(faulty, "flaky") for _ in range(2)]
    assert sorted(outcomes) == [False, True], "every other pull is refused"


def test_a_broken_transfer_goes_on(server: Served, upstream: Callable[[int], str]) -> None:
    assert server.pull(upstream(8081), "breaks") == {"status": "success"}


def test_a_stalled_pull_can_be_left_and_goes_on_elsewhere(server: Served, upstream: Callable[[int], str]) -> None:
    host, _, port = server.address.partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    body = {"model": f"{upstream(8081)}/library/stalls", "insecure": True}
    connection.request("POST", "/api/pull", json.dumps(body))
    reply = connection.getresponse()
    seen: list[int] = []
    while len(seen) < 30 or len(set(seen[-20:])) > 1:
        line = json.loads(reply.readline())
        seen.append(line.get("completed", 0))
    assert line["completed"] == line["total"] // 2
    connection.close()
    before = traffic(line["digest"])
    assert server.pull(upstream(80), "stalls") == {"status": "success"}
    # One answer that is cut off after its head, and the half that was missing.
    assert line["total"] // 2 <= traffic(line["digest"]) - before < line["total"] + 1


def traffic(digest: str) -> int:
    """Bytes of a blob that nginx answered ranged requests with, by its log."""
    log = docker("logs", UPSTREAM)
    return sum(int(size) for size in re.findall(rf'/blobs/{digest} HTTP/1.1" 206 (\d+)', log))


def test_an_override_is_another_edition(server: Served, upstream: Callable[[int], str]) -> None:
    place = "/srv/override/v2/library/moving/manifests"
    following = "/srv/www/models/manifests/registry.ollama.ai/library/moving/next"
    model = f"{upstream(80)}/library/moving:latest"

    def says() -> str:
        assert server.pull(upstream(80), "moving") == {"status": "success"}
        return server.get("/api/generate", {"model": model, "prompt": "x", "stream": False})["response"]

    assert says() == "First edition."
    docker("exec", UPSTREAM, "sh", "-c", f"mkdir -p {place} && cp {following} {place}/latest")
    try:
        assert says() == "Second edition."
    finally:
        docker("exec", UPSTREAM, "rm", "-r", place)


def test_a_server_that_does_not_start_says_why(unpacked: Callable[[str], Path]) -> None:
    program = unpacked("0.18.0") / "bin" / "ollama"
    done = subprocess.run([program, "serve"], capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stderr.startswith("Error: ")) == (1, True)


def test_a_taken_port_is_the_same_error_everywhere(server: Served) -> None:
    done = subprocess.run(
        [server.program, "serve"],
        env={"PATH": os.environ["PATH"], "HOME": str(server.log.parent), "OLLAMA_HOST": server.address},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 1
    assert f"Error: listen tcp {server.address}: bind: address already in use" in done.stderr


def test_without_llama_server_it_lists_and_does_not_answer(
    unpacked: Callable[[str], Path], upstream: Callable[[int], str], tmp_path: Path
) -> None:
    with serving("0.30.0", unpacked("0.30.0") / "bin" / "ollama", tmp_path / "home") as lacking:
        assert lacking.pull(upstream(80), SPEAKS) == {"status": "success"}
        model = f"{upstream(80)}/library/{SPEAKS}"
        assert lacking.digest(model)
        status, text = lacking.ask("/api/generate", {"model": model, "prompt": "x"})
        assert (status, "llama-server binary not found" in text) == (500, True)


@pytest.fixture
def in_container(unpacked: Callable[[str], Path]) -> Iterator[Callable[..., str]]:
    """Starts a release's server in a node's image; returns the container."""
    started: list[str] = []

    def start(version: str, *options: str) -> str:
        image = Builder().ensure(SYSTEMS["bookworm"])
        mounts = [f"--volume={unpacked(version)}:/opt/ollama:ro", f"--network={NETWORK}", *options]
        entry = ["--entrypoint=/opt/ollama/bin/ollama", "--env=HOME=/root", "--env=OLLAMA_HOST=0.0.0.0"]
        command = ["run", "-d", "--publish=127.0.0.1::11434", *mounts, *entry, image, "serve"]
        started.append(docker(*command).strip())
        return started[-1]

    yield start
    for container in started:
        docker("rm", "-f", "-v", container)


def test_a_gpu_is_played_where_the_node_says_so(
    in_container: Callable[..., str], tmp_path: Path, upstream: Callable[[int], str]
) -> None:
    switches = tmp_path / "ollama.json"
    switches.write_text('{"gpu": "nvidia"}')
    container = in_container(STAND_IN, f"--volume={switches}:/etc/llmops-world/ollama.json:ro")
    lucky = Served(STAND_IN, Path(), f"127.0.0.1:{published_port(container, 11434)}", Path())
    deadline = time.monotonic() + 30
    while "Listening" not in logs(container):
        assert time.monotonic() < deadline, logs(container)
        time.sleep(0.2)
    # Bound to every address, any name is served; and the upstream has its own name here.
    assert lucky.ask("/api/version", host="evil.example")[0] == 200
    assert lucky.pull("upstream", SPEAKS) == {"status": "success"}
    model = f"upstream/library/{SPEAKS}"
    assert lucky.get("/api/generate", {"model": model, "prompt": "x", "stream": False})["response"] == SENTENCE
    (loaded,) = lucky.get("/api/ps")["models"]
    assert loaded["size_vram"] == loaded["size"] > 0
    assert 'library=CUDA compute=8.9 name=CUDA0 description="NVIDIA' in logs(container)
    assert "Listening on [::]:11434 (version 0.32.15)" in logs(container)


def logs(container: str) -> str:
    done = subprocess.run(["docker", "logs", container], capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_program_runs_on_every_system(system: str, unpacked: Callable[[str], Path]) -> None:
    image = Builder().ensure(SYSTEMS[system])
    for version in (*REAL, STAND_IN):
        mount = f"--volume={unpacked(version)}:/opt/ollama:ro"
        out = docker("run", "--rm", "--env=HOME=/root", mount, image, "/opt/ollama/bin/ollama", "--version")
        assert f"client version is {version}" in out


@pytest.mark.parametrize("version", REAL)
def test_the_registry_has_ollamas_image(version: str, upstream: Callable[[int], str]) -> None:
    name = f"{upstream(5000)}/ollama/ollama:{version}"
    try:
        docker("pull", name)
        (config,) = json.loads(docker("image", "inspect", "--format", "[{{json .Config}}]", name))
        assert (config["Entrypoint"], config["Cmd"], config.get("User", "")) == (["/bin/ollama"], ["serve"], "")
        assert "OLLAMA_HOST=0.0.0.0:11434" in config["Env"]
        assert f"client version is {version}" in docker("run", "--rm", "--network=none", name, "--version")
    finally:
        docker("rmi", name, check=False)
