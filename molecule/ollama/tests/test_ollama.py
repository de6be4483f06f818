"""Two finished nodes, looked at from outside: what runs, whom it lets in, and what its model is."""

from __future__ import annotations

import hashlib
import json
import shlex
import subprocess
import time
from typing import Any

import pytest

VERSIONS = {"ollama1": "0.32.15", "ollama2": "0.17.4"}
MODEL = "deepseek-r1:1.5b"
STORE = "/usr/share/ollama/.ollama/models"
UNIT = "/etc/systemd/system/ollama.service"
testinfra_hosts = [f"docker://llmops-{name}" for name in VERSIONS]


def control(*command: str) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout.strip()


def name_of(host: Any) -> str:
    return host.check_output("hostname")


def address(node: str) -> str:
    form = '{{(index .NetworkSettings.Networks "llmops-world").IPAddress}}'
    return control("docker", "inspect", "--format", form, f"llmops-{node}")


def ask(asker: tuple[str, ...], where: str, path: str = "/api/version") -> str:
    """The answer as somebody else gets it; empty where the connection is refused."""
    script = (
        "import sys, urllib.request, urllib.error\n"
        "try: print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode())\n"
        "except urllib.error.URLError as error:\n"
        "    if not isinstance(error.reason, ConnectionRefusedError): raise"
    )
    return control("docker", "exec", *asker, "python3", "-c", script, f"http://{where}:11434{path}")


@pytest.fixture
def server(host: Any) -> Any:
    def server(path: str, body: dict[str, Any] | None = None) -> Any:
        data = "None" if body is None else repr(json.dumps(body).encode())
        script = f"import urllib.request as r; print(r.urlopen('http://127.0.0.1:11434{path}', {data}).read().decode())"
        return json.loads(host.check_output(f"python3 -c {shlex.quote(script)}"))

    return server


# -- what is installed and runs ---------------------------------------------------


def test_the_wanted_version_serves(host: Any, server: Any) -> None:
    version = VERSIONS[name_of(host)]
    assert server("/api/version")["version"] == version
    assert host.file("/opt/ollama/current").linked_to == f"/opt/ollama/{version}"
    assert host.file("/usr/local/bin/ollama").linked_to == f"/opt/ollama/{version}/bin/ollama"
    assert host.service("ollama").is_running
    assert host.service("ollama").is_enabled
    assert host.service("ollama-firewall").is_enabled


def test_the_unit_says_who_wrote_it(host: Any) -> None:
    first, rest = host.file(UNIT).content_string.split("\n", 1)
    assert first == f"# llmops.stack {hashlib.sha256(rest.encode()).hexdigest()}"
    assert host.file(UNIT).mode == 0o644
    process = host.check_output("systemctl show --property=MainPID --value ollama")
    environment = host.check_output(f"tr '\\0' '\\n' </proc/{process}/environ")
    assert "HOME=/usr/share/ollama" in environment.splitlines()
    assert "OLLAMA_NO_CLOUD=1" in environment.splitlines()


def test_no_backup_is_left(host: Any) -> None:
    places = "/etc/systemd/system /etc/ollama /opt/ollama"
    assert host.check_output(f"find {places} -maxdepth 2 '(' -name '*~' -o -name '*.llmops-before' ')'") == ""


def test_the_store_belongs_to_the_service(host: Any) -> None:
    assert host.file(STORE).user == "ollama"
    assert host.file(STORE).mode == 0o755
    assert host.check_output(f"find {STORE}/blobs {STORE}/manifests ! -user ollama") == ""
    assert host.user("ollama").shell == "/bin/false"


# -- whom it lets in ----------------------------------------------------------------


def test_a_foreign_host_is_refused(host: Any) -> None:
    assert ask(("llmops-upstream",), address(name_of(host))) == ""


def test_only_who_is_listed_comes_in(host: Any) -> None:
    here, other = name_of(host), "ollama2" if name_of(host) == "ollama1" else "ollama1"
    answer = ask((f"llmops-{other}",), address(here))
    assert bool(answer) is (here == "ollama2"), "ollama2 lets ollama1 in, and not the other way round"


def test_a_container_comes_in(host: Any) -> None:
    if name_of(host) != "ollama2":
        pytest.skip("only ollama2 has an engine")
    form = "{{(index .IPAM.Config 0).Gateway}}"
    host.check_output("docker network create probe")
    try:
        for network in ("bridge", "probe"):
            gateway = host.check_output(f"docker network inspect --format '{form}' {network}")
            script = (
                f"import urllib.request as r; print(r.urlopen('http://{gateway}:11434/api/version').read().decode())"
            )
            # The static busybox cannot look up any address; the network is the container's all the same.
            inside = f"docker run --rm --network={network} --volume=/:/node:ro busybox chroot /node"
            answer = host.check_output(f"{inside} python3 -c {shlex.quote(script)}")
            assert json.loads(answer)["version"] == VERSIONS["ollama2"]
    finally:
        host.check_output("docker network rm probe")


def test_without_the_rules_it_does_not_start(host: Any) -> None:
    host.check_output("mv /etc/ollama/firewall.nft /root/ && systemctl stop ollama-firewall")
    try:
        assert host.run("systemctl restart ollama").rc != 0
        assert not host.socket("tcp://11434").is_listening
    finally:
        host.check_output("mv /root/firewall.nft /etc/ollama/ && systemctl reset-failed ollama")
        host.check_output("systemctl restart ollama-firewall ollama")
    assert ask(("llmops-upstream",), address(name_of(host))) == ""


# -- what it has and computes on ------------------------------------------------------


def test_the_model_is_whole_and_answers(host: Any, server: Any) -> None:
    manifest = f"{STORE}/manifests/registry.ollama.ai/library/{MODEL.replace(':', '/')}"
    content = json.loads(host.file(manifest).content_string)
    for layer in [content["config"], *content["layers"]]:
        name = layer["digest"].replace(":", "-")
        assert host.check_output(f"sha256sum {STORE}/blobs/{name}").split()[0] == layer["digest"].removeprefix(
            "sha256:"
        )
    answer = server("/api/generate", {"model": MODEL, "prompt": "Hello", "stream": False})
    assert answer["done"]
    assert answer["eval_count"] >= 1


def test_where_it_computes(host: Any, server: Any) -> None:
    server("/api/generate", {"model": MODEL, "prompt": "Hello", "stream": False})
    (loaded,) = server("/api/ps")["models"]
    on_gpu = loaded["size_vram"] / loaded["size"]
    assert on_gpu == (1.0 if name_of(host) == "ollama1" else 0.0)


# -- what it says of itself -----------------------------------------------------------------


def figures(host: Any) -> dict[str, float]:
    script = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:11435/metrics').read().decode())"
    lines = host.check_output(f"python3 -c {shlex.quote(script)}").splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line and line[0] != "#")}


def test_figures_are_of_what_the_server_did(host: Any, server: Any) -> None:
    if name_of(host) != "ollama2":
        assert not host.file("/etc/systemd/system/ollama-metrics.service").exists, "it is off by default"
        return
    asked = 'ollama_requests_total{path="/api/generate",status="200"}'
    before = figures(host)
    server("/api/generate", {"model": MODEL, "prompt": "Hello", "stream": False})
    end = time.monotonic() + 10
    while (after := figures(host))[asked] == before[asked] and time.monotonic() < end:
        time.sleep(0.2)
    assert after[asked] == before[asked] + 1
    assert after["ollama_up"] == after[f'ollama_info{{version="{VERSIONS["ollama2"]}"}}'] == 1
    assert after[f'ollama_model_gpu_ratio{{model="{MODEL}"}}'] == after["ollama_gpu_expected"] == 0
    assert after["ollama_model_loads_total"] >= 1


def test_figures_are_served_by_nobody_in_particular_and_here_alone(host: Any) -> None:
    if name_of(host) != "ollama2":
        pytest.skip("only ollama2 serves figures")
    assert host.service("ollama-metrics").is_enabled
    assert host.socket("tcp://127.0.0.1:11435").is_listening
    assert not host.socket("tcp://0.0.0.0:11435").is_listening
    process = host.check_output("systemctl show --property=MainPID --value ollama-metrics")
    assert host.check_output(f"stat -c %u /proc/{process}") not in ("0", str(host.user("ollama").uid))
    capabilities = host.check_output(f"grep CapEff /proc/{process}/status").split()[1]
    assert int(capabilities, 16) == 0


# -- what a host goes through -------------------------------------------------------------


def test_flushed_rules_and_a_reboot(host: Any) -> None:
    """A flush takes the engine's rules for names with it, which a restart of the container brings back."""
    if name_of(host) != "ollama2":
        pytest.skip("a restart would take the GPU of ollama1 away")
    for action in ("start", "reload", "restart", "stop"):
        host.check_output(f"systemctl {action} nftables")
        assert ask(("llmops-upstream",), address("ollama2")) == "", action
    control("docker", "restart", "llmops-ollama2")
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if host.run("systemctl is-active --quiet ollama.service docker.service").rc == 0:
            break
        time.sleep(1)
    assert host.service("ollama").is_running
    assert host.run("nft list table inet llmops_ollama").rc == 0
    assert ask(("llmops-upstream",), address("ollama2")) == ""
