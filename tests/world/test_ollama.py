# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the world makes of Ollama, without a container: archives, models and the stand-in's decisions."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path
from types import ModuleType
from typing import Any

import _gguf
import _gobuild
import _inventory
import _models
import _nodes
import _ollama
import pytest
import world
from _gguf import Talk
from _settings import DEB_ARCH, WORLD, WorldError

PROGRAM = b"\x7fELF of the real one"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    _models.write(folder)
    return folder


def manifests(store: Path) -> dict[str, dict[str, Any]]:
    found = (store / _models.LIBRARY).glob("*/*")
    return {f"{path.parent.name}:{path.name}": json.loads(path.read_text()) for path in found}


def layers(manifest: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {layer["mediaType"].rpartition(".")[2]: layer for layer in manifest["layers"]}


def test_every_blob_is_what_its_manifest_says(store: Path) -> None:
    for name, manifest in manifests(store).items():
        for blob in (manifest["config"], *manifest["layers"]):
            data = (store / "blobs" / blob["digest"].replace(":", "-")).read_bytes()
            assert (len(data), f"sha256:{hashlib.sha256(data).hexdigest()}") == (blob["size"], blob["digest"]), name


def test_the_models_that_others_count_on_are_there(store: Path) -> None:
    found = manifests(store)
    wanted = {"deepseek-r1:1.5b", "all-minilm:latest", "talker:latest", "bulky:latest", "moving:latest", "moving:next"}
    wanted |= {"speak:latest", "lone:latest", *(f"speak:{edition}" for edition in _models.EDITIONS)}
    assert wanted | {f"{fault}:latest" for fault in _models.FAULTS} == set(found)
    assert 150_000_000 < layers(found["bulky:latest"])["model"]["size"] < 170_000_000


def test_no_two_models_share_weights(store: Path) -> None:
    weights = [layers(manifest)["model"]["digest"] for manifest in manifests(store).values()]
    assert len(set(weights)) == len(weights)


def test_a_store_is_the_same_bytes_every_time() -> None:
    assert _gguf.talker(Talk(_models.SENTENCE)) == _gguf.talker(Talk(_models.SENTENCE))
    assert _gguf.embedder() == _gguf.embedder()


def test_ballast_makes_a_file_as_much_heavier_as_it_says() -> None:
    light, heavy = (len(_gguf.talker(Talk(_models.SENTENCE, ballast=size))) for size in (4, 12))
    assert abs(heavy - light - (8 << 20)) < 1 << 16


def test_a_word_that_a_prompt_could_hold_is_refused() -> None:
    with pytest.raises(AssertionError, match="two letters"):
        _gguf.talker(Talk(("Hello", "no")))


def unpacked(packed: bytes, suffix: str) -> dict[str, tarfile.TarInfo]:
    if suffix == ".tgz":
        plain = gzip.decompress(packed)
    else:
        plain = subprocess.run(["zstd", "-dc"], input=packed, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
        return {member.name: member for member in archive.getmembers()}


needs_zstd = pytest.mark.skipif(not shutil.which("zstd"), reason="zstd is not there")


@needs_zstd
@pytest.mark.parametrize("version", _ollama.RELEASES)
def test_an_archive_is_laid_out_like_ollamas(version: str) -> None:
    release = _ollama.RELEASES[version]
    made = _ollama.archives(version, PROGRAM)
    assert f"ollama-linux-{DEB_ARCH}" in made
    for name, files in made.items():
        found = unpacked(_ollama.pack(files, release.suffix), release.suffix)
        assert {member.split("/")[1] for member in found if member != "."} <= {"bin", "lib"}
        assert all((member.uid, member.gid) == (0, 0) for member in found.values())
        base = name == f"ollama-linux-{DEB_ARCH}"
        assert ("./bin/ollama" in found) == base, "an overlay has libraries only"
        assert not base or found["./bin/ollama"].mode == 0o755


@needs_zstd
def test_an_archive_of_ollama_is_the_same_bytes_every_time() -> None:
    for suffix in (".tgz", ".tar.zst"):
        files = _ollama.archives("0.17.4", PROGRAM)[f"ollama-linux-{DEB_ARCH}"]
        assert _ollama.pack(files, suffix) == _ollama.pack(dict(reversed(files.items())), suffix)


def test_a_release_is_real_or_says_who_answers_for_it() -> None:
    def base(version: str) -> dict[str, bytes]:
        return _ollama.archives(version, PROGRAM)[f"ollama-linux-{DEB_ARCH}"]

    for version in ("0.13.5", "0.17.4"):
        assert base(version)["bin/ollama"] == PROGRAM
        assert "lib/ollama/world.json" not in base(version)
    for version in ("0.30.0", "0.32.15"):
        assert base(version)["lib/ollama/world/ollama"] == PROGRAM
        assert json.loads(base(version)["lib/ollama/world.json"]) == {"version": version, "real": "0.17.4"}
    assert json.loads(base("0.18.0")["lib/ollama/world.json"])["real"] == ""
    assert {"lib/ollama/llama-server", "lib/ollama/llama-quantize"} <= set(base("0.32.15"))
    assert "lib/ollama/llama-server" not in base("0.30.0")


@needs_zstd
def test_published_checksums_are_those_of_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ollama, "FOLDER", tmp_path)
    _ollama._publish("0.32.15", PROGRAM)
    lines = (tmp_path / "v0.32.15" / "sha256sum.txt").read_text().splitlines()
    told = {name: digest for digest, name in (line.split("  ./") for line in lines)}
    files = {path.name: path for path in (tmp_path / "v0.32.15").iterdir() if path.name != "sha256sum.txt"}
    assert told == {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}


@needs_zstd
def test_a_release_is_packed_again_only_when_its_program_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "program"
    program.write_bytes(PROGRAM)
    packed: list[str] = []
    monkeypatch.setattr(_ollama, "FOLDER", tmp_path / "www")
    monkeypatch.setattr(_gobuild, "ensure", lambda binary, builder: program)
    publish = _ollama._publish

    def noted(version: str, data: bytes) -> None:
        packed.append(version)
        publish(version, data)

    monkeypatch.setattr(_ollama, "_publish", noted)
    _ollama.ensure(None)
    _ollama.ensure(None)
    assert packed == list(_ollama.RELEASES)
    program.write_bytes(b"another")
    _ollama.ensure(None)
    assert packed[len(_ollama.RELEASES) :] == [version for version in _ollama.RELEASES if version != "0.18.0"]


def test_a_program_with_c_in_it_is_static_and_never_built_by_this_machines_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[str] = []

    def in_container(binary: Any, built: Path, builder: Any) -> None:
        used.append(_gobuild._script(binary, Path("/build/out")))
        built.write_bytes(PROGRAM)

    monkeypatch.setattr(_gobuild, "CACHE", tmp_path)
    monkeypatch.setattr(_gobuild, "_go_here", lambda: True)
    monkeypatch.setattr(_gobuild, "_in_container", in_container)
    assert _gobuild.ensure(_ollama.REAL["0.13.5"], None).name == "ollama-0.13.5"
    assert "-extldflags -static -X" not in used[0]
    assert "version.Version=0.13.5 -linkmode external -extldflags -static'" in used[0]
    assert "CGO_ENABLED=1" in used[0]
    assert "CGO_ENABLED=0" in _gobuild._script(_gobuild.COMPOSE, Path("x"))


def test_the_inventory_names_a_version_that_is_real(monkeypatch: pytest.MonkeyPatch) -> None:
    yaml = pytest.importorskip("yaml")
    monkeypatch.setattr(_nodes, "existing", list)
    assert yaml.safe_load(_inventory.text())["all"]["vars"]["ollama_version"] in _ollama.REAL


@pytest.mark.parametrize(("words", "made"), [([], False), (["--ollama"], True)])
def test_a_bare_world_has_ollama_where_it_is_asked_for(
    words: list[str], made: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setattr(_ollama, "ensure", lambda builder: done.append("archives"))
    monkeypatch.setattr(_models, "ensure", lambda: done.append("models"))
    monkeypatch.setattr(world.Builder, "ensure", lambda self, name: done.append(name))
    monkeypatch.setattr(world, "ensure_binary", lambda binary, builder: done.append(f"early {binary.file_name}"))
    monkeypatch.setattr(world._repos, "ensure", lambda builder: None)
    monkeypatch.setattr(world._repos, "compose_release", lambda builder: None)
    monkeypatch.setattr(world._upstream, "start", lambda builder: None)
    monkeypatch.setattr(world._upstream, "push", lambda table, builder: done.extend(image.tags[0] for image in table))
    monkeypatch.setattr(_nodes, "ensure", lambda nodes, builder: None)
    monkeypatch.setattr(_inventory, "write", lambda: None)
    world.up(world.arguments().parse_args(["up", "--bare", *words]))
    assert ({"archives", "models", "ollama-0.17.4", "ollama/ollama:0.17.4"} <= set(done)) is made
    # Asked for early, it would keep the second worker waiting for the first one's compiler.
    assert "early ollama-0.17.4" not in done


@pytest.fixture(scope="module")
def standin() -> ModuleType:
    spec = importlib.util.spec_from_file_location("standin_ollama", WORLD / "standins" / "ollama.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", ("127.0.0.1", 11434)),
        ("0.0.0.0", ("0.0.0.0", 11434)),
        (" '0.0.0.0:8080' ", ("0.0.0.0", 8080)),
        (":8080", ("127.0.0.1", 8080)),
        ("http://0.0.0.0", ("0.0.0.0", 80)),
        ("https://10.0.0.1/", ("10.0.0.1", 443)),
        ("10.0.0.1:port", ("10.0.0.1", 11434)),
        ("10.0.0.1:99999", ("10.0.0.1", 11434)),
        ("[::1]:8080", ("::1", 8080)),
        ("::", ("::", 11434)),
    ],
)
def test_the_stand_in_reads_its_address(standin: ModuleType, text: str, wanted: tuple[str, int]) -> None:
    assert standin.address({"OLLAMA_HOST": text}) == wanted


@pytest.mark.parametrize(
    ("wanted", "environment", "played"),
    [
        ("nvidia", {}, "nvidia"),
        ("nvidia", {"CUDA_VISIBLE_DEVICES": "-1"}, ""),
        ("nvidia", {"ROCR_VISIBLE_DEVICES": "-1"}, "nvidia"),
        ("amd", {"HIP_VISIBLE_DEVICES": "-1"}, ""),
        ("amd", {"OLLAMA_LLM_LIBRARY": "cpu"}, ""),
        ("", {}, ""),
    ],
)
def test_the_environment_hides_a_played_gpu(
    standin: ModuleType, wanted: str, environment: dict[str, str], played: str
) -> None:
    assert standin.gpu(environment, wanted) == played


@pytest.fixture
def server(standin: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setattr(standin, "SWITCHES", tmp_path / "ollama.json")
    (tmp_path / "ollama.json").write_text('{"gpu": "nvidia"}')
    made = standin.Server({"version": "0.32.15", "real": "0.17.4"}, {"OLLAMA_HOST": "0.0.0.0:8080"})
    made.inner = 40000
    return made


@pytest.mark.parametrize(
    ("real", "shown"),
    [
        (
            'level=INFO msg="Listening on 127.0.0.1:40000 (version 0.17.4)"',
            'level=INFO msg="Listening on [::]:8080 (version 0.32.15)"',
        ),
        (
            'msg="server config" env="map[OLLAMA_HOST:http://127.0.0.1:40000 OLLAMA_KEEP_ALIVE:5m0s]"',
            'msg="server config" env="map[OLLAMA_HOST:http://0.0.0.0:8080 OLLAMA_KEEP_ALIVE:5m0s]"',
        ),
        (
            'msg="vram-based default context" total_vram="0 B" default_num_ctx=4096',
            'msg="vram-based default context" total_vram="16.0 GiB" default_num_ctx=4096',
        ),
    ],
)
def test_the_stand_ins_log_speaks_of_itself(server: Any, real: str, shown: str) -> None:
    assert server.log(real) == shown


def test_a_played_gpu_is_in_the_log_and_in_what_runs(server: Any, tmp_path: Path) -> None:
    line = server.log('time=x msg="inference compute" id=cpu library=cpu total="23.5 GiB"\n')
    assert line.startswith('time=x msg="inference compute" id=GPU-')
    assert " library=CUDA " in line
    assert line.endswith('available="15.6 GiB"\n')
    loaded = {"models": [{"size": 100, "size_vram": 0}]}
    assert server.rewrite("/api/ps", loaded)["models"][0]["size_vram"] == 100
    (tmp_path / "ollama.json").write_text('{"vram_share": 0.25}')
    assert server.rewrite("/api/ps", loaded)["models"][0]["size_vram"] == 25


def test_without_llama_server_no_model_works_from_0_30_on(
    standin: ModuleType, server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(standin, "LIBRARIES", tmp_path)
    assert server.refusal("/api/generate")[0] == 500
    assert "llama-server binary not found" in server.refusal("/v1/chat/completions")[1]
    assert server.refusal("/api/tags") is None
    (tmp_path / "llama-server").touch()
    assert server.refusal("/api/generate") is None


def test_an_unknown_service_is_refused_with_those_of_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world._switch, "running", lambda _: True)
    with pytest.raises(WorldError, match="there are ollama, gpu, api"):
        world._switch.switch("node1", "olama", [])
