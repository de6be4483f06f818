# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module on the small server and on two real ones: the same must come out, and nothing less may count as there."""

from __future__ import annotations

import json
import os
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ansible_collections.llmops.stack.tests.unit.servers.ollama import Fake, Real, binary
from ansible_collections.llmops.stack.tests.unit.servers.ollama_registry import Models, Registry

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "world"))

import _gguf

Server = Any
Run = Callable[..., dict[str, Any]]
SERVERS = ("fake", "0.13.5", "0.17.4")
# Of a server without a GPU that nobody told another one.
CONTEXT = 4096


@pytest.fixture(scope="module", params=SERVERS)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("ollama")
    if request.param == "fake":
        server: Server = Fake(folder)
    else:
        server = Real(binary(request.param), folder)
    with server.running():
        yield server


@pytest.fixture
def server(running: Server) -> Server:
    """With an empty store."""
    for path in [*running.models_dir.rglob("*")][::-1]:
        if path.is_symlink() or path.is_file():
            path.unlink()
        elif path.parent != running.models_dir:
            path.rmdir()
    return running


@pytest.fixture(scope="session")
def weights() -> bytes:
    return _gguf.talker(_gguf.Talk((" One", " two", " three.")))


@pytest.fixture
def source(tmp_path: pathlib.Path, weights: bytes) -> Models:
    models = Models(tmp_path / "source")
    models.put("talk:latest", weights)
    return models


@pytest.fixture
def registry(source: Models) -> Iterator[Registry]:
    with Registry(source).running() as running:
        yield running


@pytest.fixture
def run(run_module: Run, server: Server, registry: Registry) -> Run:
    def call(*names: str, **options: Any) -> dict[str, Any]:
        given = {"url": server.url, "models_dir": str(server.models_dir), "verify": "probe", "stall": 5, **options}
        if "bundle" not in given:
            given.update(registry=registry.host, insecure=True)
        return run_module("ollama_model", names=list(names), **given)

    return call


def here(server: Server) -> Models:
    return Models(server.models_dir)


def listing(server: Server) -> list[str]:
    return sorted(os.listdir(server.models_dir / "blobs"))


class TestPresent:
    def test_check_run_check_run(self, run: Run, server: Server, registry: Registry, source: Models) -> None:
        size = sum(path.stat().st_size for path in source.folder.glob("blobs/*"))
        announced = run("talk", check=True)
        (model,) = announced["models"]
        assert announced["changed"] and (model["action"], model["missing_bytes"]) == ("pulled", size)
        assert not model["verified"] and announced["bytes_transferred"] == 0 and listing(server) == []

        done = run("talk")
        (model,) = done["models"]
        assert done["changed"] and model["action"] == "pulled" and model["verified"] and model["healed"] == []
        assert model["name"] == "talk:latest" and model["size"] == size
        assert model["digest"] == source.put("talk:latest", source.weights_of("talk:latest").read_bytes())
        assert model["probe"]["kind"] == "generate" and model["probe"]["tokens"] >= 1
        assert model["probe"]["tokens_per_second"] > 0 and model["probe"]["load_seconds"] > 0
        assert model["capabilities"] == ["completion"] and model["context_length"] == CONTEXT
        assert done["bytes_transferred"] == size == registry.sent
        assert not here(server).folder.joinpath("manifests", registry.host).exists(), "the mirror's name is gone"

        asked = len(registry.requests)
        for check in (True, False):
            again = run("TALK:latest", "library/talk", check=check)
            assert not again["changed"] and again["models"][0]["verified"] and len(again["models"]) == 1
            assert again["bytes_transferred"] == again["bytes_hashed"] == 0
        assert len(registry.requests) == asked, "nobody is asked for what is there"

    def test_several_share_what_they_share(self, run: Run, registry: Registry, source: Models, weights: bytes) -> None:
        source.put("other:1", weights, extra=b"Say: {{ .Prompt }}")
        size = sum(path.stat().st_size for path in source.folder.glob("blobs/*"))
        assert run("talk", "other:1", check=True)["missing_bytes"] == size
        done = run("talk", "other:1")
        assert [one["verified"] for one in done["models"]] == [True, True]
        assert done["bytes_transferred"] == size == registry.sent == done["bytes_hashed"]

    def test_an_embedding_model(self, run: Run, source: Models) -> None:
        source.put("embed:latest", _gguf.embedder())
        (model,) = run("embed")["models"]
        assert model["verified"] and model["probe"]["kind"] == "embed" and model["probe"]["tokens"] > 0
        assert model["capabilities"] == ["embedding"] and model["context_length"] > 0

    def test_what_a_model_can_do_is_known_without_a_probe(self, run: Run, server: Server, source: Models) -> None:
        source.put("embed:latest", _gguf.embedder())
        would = run("talk", "embed", check=True)["models"]
        assert [(one["capabilities"], one["context_length"]) for one in would] == [([], 0), ([], 0)]
        for verify in ("digest", "none"):
            found = run("talk", "embed", verify=verify)["models"]
            assert [one["capabilities"] for one in found] == [["completion"], ["embedding"]]
            assert [one["context_length"] for one in found] == [0, 0]
        (gone,) = run("talk", state="absent")["models"]
        assert (gone["capabilities"], gone["context_length"]) == ([], 0)

    def test_unknown_model(self, run: Run, server: Server, failed: type[Exception]) -> None:
        with pytest.raises(failed, match=r"nothere:latest: 127.*has no model library/nothere:latest.*Check the name"):
            run("nothere")
        with pytest.raises(failed, match=r"^nothere:latest: "):
            run("talk", "nothere")
        assert run("talk", check=True)["models"][0]["action"] == "none", "the other one was pulled"

    def test_a_registry_that_writes_its_json_otherwise(self, run: Run, source: Models, weights: bytes) -> None:
        source.put("talk:latest", weights, indent=2)
        assert run("talk")["models"][0]["verified"]
        assert not run("talk", state="latest")["changed"], "the same model, whatever its bytes"


class TestDamage:
    """Each is reported, healed, and never called available before that."""

    @pytest.fixture(autouse=True)
    def there(self, run: Run, source: Models) -> None:
        run("talk", bundle=str(source.folder))

    def file(self, server: Server) -> pathlib.Path:
        return here(server).weights_of("talk:latest")

    def healed(self, run: Run, word: str, action: str = "pulled") -> None:
        noticed = run("talk", check=True, verify="digest")
        (model,) = noticed["models"]
        assert noticed["changed"] and not model["verified"] and word in str(model["healed"]), model
        (model,) = run("talk")["models"]
        assert model["verified"] and model["action"] == action and word in str(model["healed"])
        assert not run("talk")["changed"]

    def test_missing_blob(self, run: Run, server: Server) -> None:
        self.file(server).unlink()
        self.healed(run, "is missing")

    def test_truncated_blob(self, run: Run, server: Server) -> None:
        os.truncate(self.file(server), 100_000)
        self.healed(run, "does not have the size")

    def test_flipped_bytes(self, run: Run, server: Server) -> None:
        path = self.file(server)
        data = bytearray(path.read_bytes())
        data[-5000:-4996] = bytes(255 - one for one in data[-5000:-4996])
        path.write_bytes(data)
        assert not run("talk", verify="none")["models"][0]["verified"], "nothing was proved"
        self.healed(run, "does not have the bytes")

    def test_flipped_bytes_with_the_old_time(self, run: Run, server: Server) -> None:
        path = self.file(server)
        stat = path.stat()
        with open(path, "r+b") as file:
            file.seek(200_000)
            file.write(b"\xff\xff\xff\xff")
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert not run("talk")["changed"], "what was hashed is remembered"
        (model,) = run("talk", force_digest=True)["models"]
        assert model["verified"] and "does not have the bytes" in str(model["healed"])

    def test_damaged_template(self, run: Run, server: Server) -> None:
        path = here(server).blob_of("talk:latest", "template")
        path.write_bytes(path.read_bytes()[::-1])
        self.healed(run, "does not have the bytes")

    def test_garbage_manifest(self, run: Run, server: Server) -> None:
        here(server).manifest_path("talk:latest").write_text("{}x")
        self.healed(run, "the manifest is no JSON object")

    def test_dangling_link_of_another_model(self, run: Run, server: Server) -> None:
        path = here(server).manifest_path("other:latest")
        path.parent.mkdir(parents=True)
        path.symlink_to("/nowhere")
        assert "link to nothing" in str(run("talk", check=True)["healed"]) and path.is_symlink()
        done = run("talk")
        assert done["changed"] and "library/other/latest" in str(done["healed"]) and not path.is_symlink()
        assert done["models"][0]["verified"] and not run("talk")["changed"]

    def test_dangling_link_of_its_own(self, run: Run, server: Server) -> None:
        path = here(server).manifest_path("talk:latest")
        path.unlink()
        path.symlink_to("/nowhere")
        self.healed(run, "link to nothing")
        assert path.is_file() and not path.is_symlink()

    def test_the_registry_is_gone(self, run: Run, server: Server, registry: Registry, failed: type[Exception]) -> None:
        os.truncate(self.file(server), 100_000)
        registry.status = 404
        with pytest.raises(failed, match=r"does not have the size.*cannot be fetched again.*has no model"):
            run("talk")
        assert self.file(server).exists(), "nothing is thrown away that cannot be replaced"


class TestLatest:
    def test_follows_the_registry(
        self, run: Run, server: Server, registry: Registry, source: Models, weights: bytes
    ) -> None:
        first = run("talk", state="latest")["models"][0]
        assert first["action"] == "pulled" and not run("talk", state="latest")["changed"]
        digest = source.put("talk:latest", weights, extra=b"Anew: {{ .Prompt }}")
        assert not run("talk")["changed"], "present is content"
        announced = run("talk", state="latest", check=True)
        assert announced["models"][0]["action"] == "updated" and 0 < announced["missing_bytes"] < 1000
        assert announced["diff"] == {"before": {"talk:latest": first["digest"]}, "after": {"talk:latest": digest}}
        done = run("talk", state="latest")
        (model,) = done["models"]
        assert (model["action"], model["digest"], model["verified"]) == ("updated", digest, True)
        assert done["bytes_transferred"] == announced["missing_bytes"]
        asked = len(registry.asked("blobs"))
        for check in (True, False):
            assert not run("talk", state="latest", check=check)["changed"]
        assert len(registry.asked("blobs")) == asked, "only the manifest is asked for"

    def test_damage_that_a_pull_would_take_for_good(
        self, run: Run, server: Server, source: Models, weights: bytes
    ) -> None:
        run("talk", bundle=str(source.folder))
        with open(here(server).weights_of("talk:latest"), "r+b") as file:
            file.write(b"XXXX")
        source.put("talk:latest", weights, extra=b"Anew: {{ .Prompt }}")
        assert run("talk", state="latest")["models"][0]["verified"]

    def test_nobody_to_ask(self, run: Run, registry: Registry, source: Models, failed: type[Exception]) -> None:
        run("talk", bundle=str(source.folder))
        registry.status = 503
        with pytest.raises(failed, match=r"whether it is the latest cannot be said.*HTTP 503.*ollama_registry"):
            run("talk", state="latest")
        assert not run("talk")["changed"]


class TestAbsent:
    def test_check_run_check_run(self, run: Run, server: Server, source: Models) -> None:
        run("talk", bundle=str(source.folder))
        assert run("talk", state="absent", check=True)["models"][0]["action"] == "deleted"
        assert len(listing(server)) == 3
        done = run("TALK", state="absent")
        assert done["changed"] and done["models"][0]["action"] == "deleted" and listing(server) == []
        for check in (True, False):
            assert not run("talk", state="absent", check=check)["changed"]

    @pytest.mark.parametrize("damage", ["garbage", "dangling"])
    def test_what_the_server_cannot_read(self, run: Run, server: Server, source: Models, damage: str) -> None:
        run("talk", bundle=str(source.folder))
        path = here(server).manifest_path("talk:latest")
        path.unlink()
        if damage == "garbage":
            path.write_text("not json")
        else:
            path.symlink_to("/nowhere")
        for check in (True, False):
            assert run("talk", state="absent", check=check)["models"][0]["action"] == "deleted"
        assert not os.path.lexists(path) and not run("talk", state="absent")["changed"]


class TestMirror:
    def test_interrupted_before_the_long_name_was_deleted(
        self, run: Run, server: Server, registry: Registry, source: Models
    ) -> None:
        run("talk", bundle=str(source.folder))
        manifests = here(server).folder / "manifests"
        long = manifests / registry.host / "library/talk/latest"
        long.parent.mkdir(parents=True)
        long.write_bytes(here(server).manifest_path("talk:latest").read_bytes())
        assert "left behind" in str(run("talk", check=True)["models"][0]["healed"]) and long.exists()
        done = run("talk")
        assert done["models"][0]["verified"] and done["models"][0]["action"] == "none" and not long.exists()
        assert not run("talk")["changed"] and len(listing(server)) == 3

    def test_interrupted_before_the_copy(self, run: Run, server: Server, registry: Registry, source: Models) -> None:
        run("talk", bundle=str(source.folder))
        manifests = here(server).folder / "manifests"
        long = manifests / registry.host / "library/talk/latest"
        long.parent.mkdir(parents=True)
        here(server).manifest_path("talk:latest").rename(long)
        done = run("talk")
        assert done["models"][0]["verified"] and done["bytes_transferred"] == 0 and not long.exists()


class TestBundle:
    def test_without_a_registry(self, run: Run, server: Server, registry: Registry, source: Models) -> None:
        options = {"bundle": str(source.folder), "registry": "127.0.0.1:1"}
        announced = run("talk", check=True, **options)["models"][0]
        assert announced["action"] == "imported" and announced["missing_bytes"] > 1_000_000
        (model,) = run("talk", **options)["models"]
        assert model["verified"] and model["action"] == "imported"
        assert (
            here(server).manifest_path("talk:latest").read_bytes() == source.manifest_path("talk:latest").read_bytes()
        )
        assert registry.requests == []
        for state in ("present", "latest"):
            assert not run("talk", state=state, **options)["changed"]

    def test_heals_from_it(self, run: Run, server: Server, source: Models) -> None:
        run("talk", bundle=str(source.folder))
        os.truncate(here(server).weights_of("talk:latest"), 1000)
        (model,) = run("talk", bundle=str(source.folder))["models"]
        assert model["verified"] and model["action"] == "imported" and "size" in str(model["healed"])

    def test_a_damaged_bundle(self, run: Run, server: Server, source: Models, failed: type[Exception]) -> None:
        path = source.weights_of("talk:latest")
        data = path.read_bytes()
        for content, said in ((data[::-1], "is damaged in"), (data[:-1], "has a truncated"), (None, "lacks blob")):
            path.unlink()
            if content is not None:
                path.write_bytes(content)
            else:
                path.with_name("elsewhere").write_bytes(b"")
            with pytest.raises(failed, match=said):
                run("talk", bundle=str(source.folder))
            assert [one for one in server.models_dir.rglob("*") if one.is_file()] == [], "nothing of it was taken"
            path.write_bytes(b"")
        with pytest.raises(failed, match="cannot give it: the model is not in it"):
            run("other", bundle=str(source.folder))


def test_memory_file(run: Run, server: Server, source: Models) -> None:
    run("talk", bundle=str(source.folder))
    path = server.models_dir / ".llmops-verified.json"
    known = json.loads(path.read_text())["blobs"]
    assert sorted(f"sha256-{sha}" for sha in known) == listing(server) and path.stat().st_mode & 0o777 == 0o644
    run("talk", state="absent")
    assert json.loads(path.read_text())["blobs"] == {}


@pytest.mark.parametrize(("name", "capability"), [("talk", "completion"), ("embed", "embedding")])
def test_a_server_that_does_not_say_what_a_model_can_do(
    run_module: Run, tmp_path: pathlib.Path, source: Models, name: str, capability: str
) -> None:
    source.put("embed:latest", _gguf.embedder())
    old = Fake(tmp_path / "old")
    about = {"model_info": {"general.architecture": "bert" if name == "embed" else "llama"}}
    old.script["/api/show"] = lambda _: about
    listed = old.ps
    old.script["/api/ps"] = lambda _: {
        "models": [{"name": 7}, *({"name": one["name"], "context_length": "4k"} for one in listed()["models"])]
    }
    options = {"models_dir": str(old.models_dir), "bundle": str(source.folder), "verify": "probe"}
    with old.running():
        (model,) = run_module("ollama_model", name=name, url=old.url, **options)["models"]
        assert (model["capabilities"], model["context_length"]) == ([capability], 0)
        old.script["/api/show"] = lambda _: {**about, "error": "it is gone"}
        (model,) = run_module("ollama_model", name=name, url=old.url, **{**options, "verify": "none"})["models"]
        assert (model["capabilities"], model["context_length"], "error" in model) == ([], 0, False)
