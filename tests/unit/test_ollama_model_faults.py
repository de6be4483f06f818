# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers that fail as told, full disks, files of the wrong user: reported rightly, and never called available."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils import _ollama_model as module
from ansible_collections.llmops.stack.plugins.module_utils import _ollama_pull as pull_module
from ansible_collections.llmops.stack.plugins.module_utils._ollama_item import ModelError, Options
from ansible_collections.llmops.stack.plugins.module_utils._ollama_registry import RegistryError
from ansible_collections.llmops.stack.plugins.module_utils._ollama_store import Store
from ansible_collections.llmops.stack.tests.unit.servers.ollama import Event, Fake, Refused
from ansible_collections.llmops.stack.tests.unit.servers.ollama_registry import Models, Registry

Run = Callable[..., dict[str, Any]]
SERVICE = 65534  # nobody


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pull_module, "PAUSE", 0.01)


@pytest.fixture
def server(tmp_path: pathlib.Path) -> Iterator[Fake]:
    with Fake(tmp_path).running() as running:
        yield running


@pytest.fixture
def source(tmp_path: pathlib.Path) -> Models:
    models = Models(tmp_path / "source")
    models.put("talk:latest", b"weights" * 10_000)
    models.put("other:latest", b"weights" * 10_000, extra=b"other")
    return models


@pytest.fixture
def registry(source: Models) -> Iterator[Registry]:
    with Registry(source).running() as running:
        yield running


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def run(server: Fake, registry: Registry, warnings: list[str]) -> Run:
    def call(*names: str, check: bool = False, **options: Any) -> dict[str, Any]:
        given = {"registry": registry.host, "insecure": True, "verify": "probe", "stall": 1, **options}
        wanted = Options(**{"url": server.url, "models_dir": str(server.models_dir), **given})
        return module.Models(wanted, check, warnings.append).run(names or ("talk",))

    return call


def first(result: dict[str, Any]) -> dict[str, Any]:
    return result["models"][0]


def refused(result: dict[str, Any]) -> str:
    model = first(result)
    assert not model["verified"] and model["action"] == "none", model
    return model["error"]


def pulling(completed: int) -> Event:
    return {"status": "pulling aa", "digest": "sha256:" + "a" * 64, "total": 1000, "completed": completed}


class TestPullsThatFail:
    @pytest.mark.parametrize(
        ("words", "advice"),
        [
            ("pull model manifest: file does not exist", "Check the name and tag"),
            ("open /x/manifests/y: permission denied", "service user may write to"),
            ("write /x/blobs/y: no space left on device", "Make room on the disk"),
            ('Get "https://x": http: server gave HTTP response to HTTPS client', "set insecure"),
            ("http: no Location header in response", "plain container registry"),
            ("pull model manifest: 412: The model requires a newer version of Ollama", "Raise ollama_version"),
        ],
    )
    def test_an_error_line_after_200(self, run: Run, server: Fake, words: str, advice: str) -> None:
        server.pulls = [[{"status": "pulling manifest"}, pulling(500), {"error": words}]]
        said = refused(run())
        assert "was not pulled" in said and words in said and advice in said
        assert len(server.asked("/api/pull")) == 1, "another attempt is in vain"

    def test_taken_up_while_it_gets_on(self, run: Run, server: Fake) -> None:
        broken: Event = {"error": "max retries exceeded: unexpected EOF"}
        server.pulls = [[pulling(count), broken] for count in (100, 300, 900)]
        assert first(run())["verified"] and len(server.asked("/api/pull")) == 4

    def test_gives_up_where_it_gets_no_further(self, run: Run, server: Fake) -> None:
        server.pulls = [[pulling(100), {"error": "unexpected EOF"}] for _attempt in range(9)]
        said = refused(run())
        assert "unexpected EOF" in said and "the next run goes on from there" in said
        assert len(server.asked("/api/pull")) == 3

    def test_a_digest_that_never_fits(self, run: Run, server: Fake) -> None:
        words = f"digest mismatch, file must be downloaded again: want sha256:{'a' * 64}, got sha256:{'b' * 64}"
        server.pulls = [[pulling(1000), {"error": words}] for _attempt in range(9)]
        assert "serves damaged data" in refused(run()) and len(server.asked("/api/pull")) == 2

    @pytest.mark.parametrize("silence", [[None], [{"status": "pulling manifest"}, None], [pulling(10), None]])
    def test_stall(self, run: Run, server: Fake, silence: list[Event | None]) -> None:
        server.pulls = [silence for _attempt in range(9)]
        said = refused(run())
        assert "Nothing has arrived for 1 s" in said and "nearer mirror" in said

    def test_no_stall_while_the_server_checks(self, run: Run, server: Fake, source: Models) -> None:
        def slow(body: dict[str, Any]) -> Iterator[Event]:
            yield {"status": "verifying sha256 digest"}
            server.over.wait(2.5)
            yield from server.pulled(body)

        server.instead = slow
        assert first(run())["verified"]

    def test_deadline(self, run: Run, server: Fake) -> None:
        def trickle(_body: dict[str, Any]) -> Iterator[Event]:
            for count in range(1000):
                yield pulling(count)
                server.over.wait(0.1)

        server.instead = trickle
        assert "takes longer than the deadline allows" in refused(run(deadline=1))

    @pytest.mark.parametrize(
        "lines", [[{"status": "writing manifest"}], [], [{"status": "pulling manifest"}, {"error": {"message": "odd"}}]]
    )
    def test_no_success_is_no_success(self, run: Run, server: Fake, lines: list[Event | None]) -> None:
        server.pulls = [lines for _attempt in range(9)]
        assert "was not pulled" in refused(run())

    def test_success_without_a_model(self, run: Run, server: Fake) -> None:
        server.pulls = [[{"status": "success"}]]
        server.script["/api/copy"] = lambda _body: {}
        server.script["/api/delete"] = lambda _body: {}
        assert "it was pulled, but its manifest" in refused(run())

    def test_success_over_a_damaged_blob(self, run: Run, server: Fake, source: Models) -> None:
        def careless(body: dict[str, Any]) -> Iterator[Event]:
            yield from server.pulled(body)
            for path in server.models_dir.glob("blobs/*"):
                path.write_bytes(path.read_bytes()[::-1])

        server.instead = careless
        result = run()
        assert "also after it was fetched twice" in first(result)["error"] and not first(result)["verified"]
        assert len(server.asked("/api/pull")) == 2

    def test_another_model_than_the_registry_offers(self, run: Run, server: Fake, source: Models) -> None:
        def other(_body: dict[str, Any]) -> Iterator[Event]:
            yield from server.pulled({"model": f"{run_host}/library/other"})
            target = pathlib.Path(server.store.find(module.parse(f"{run_host}/library/talk")).path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.manifest_path("other:latest").read_bytes())

        run_host = ""
        server.instead = other
        with Registry(source).running() as registry:
            run_host = registry.host
            result = run(registry=run_host)
        assert "may reach different registries" in first(result)["error"] and not first(result)["verified"]

    def test_one_fails_and_the_others_go_on(self, run: Run, server: Fake) -> None:
        result = run("nothere", "talk", "other")
        assert [one["verified"] for one in result["models"]] == [False, True, True]
        assert "has no model library/nothere" in first(result)["error"]

    def test_a_damaged_blob_of_several_is_fetched_once(
        self, run: Run, server: Fake, registry: Registry, source: Models
    ) -> None:
        run("talk", "other")
        for bundle in ("", str(source.folder)):
            path = server.models_dir / "blobs" / source.weights_of("talk:latest").name
            path.write_bytes(path.read_bytes()[::-1])
            registry.sent = 0
            result = run("talk", "other", bundle=bundle)
            assert [one["verified"] for one in result["models"]] == [True, True]
            assert registry.sent == result["bytes_transferred"] == (0 if bundle else 70_000)
            assert result["missing_bytes"] == 70_000

    def test_a_model_without_weights(self, run: Run, server: Fake, source: Models) -> None:
        path = source.manifest_path("talk:latest")
        manifest = json.loads(path.read_text())
        path.write_text(json.dumps({**manifest, "layers": manifest["layers"][1:]}))
        assert "names no weights; it runs elsewhere" in refused(run()) and server.asked("/api/pull") == []


class TestProbe:
    @pytest.mark.parametrize(
        ("answer", "said"),
        [
            ({"done": True}, "without a token"),
            ({"done": False, "eval_count": 1}, "without a token"),
            ({"error": "tensor blk.0 exceeds file size"}, "exceeds file size"),
            (Refused(500, "llama-server binary not found (checked: /x)"), "install it again"),
            (Refused(500, "model requires more system memory (9 GiB) than is available"), "use a smaller one"),
            (Refused(404, "model not found"), "does not answer"),
        ],
    )
    def test_no_token_is_no_model(self, run: Run, server: Fake, answer: Any, said: str) -> None:
        def generate(_body: dict[str, Any]) -> Event:
            if isinstance(answer, Refused):
                raise answer
            return answer

        server.script["/api/generate"] = generate
        result = run()
        assert said in first(result)["error"] and not first(result)["verified"] and first(result)["action"] == "pulled"

    def test_its_own_deadline(self, run: Run, server: Fake) -> None:
        server.script["/api/generate"] = lambda _body: {"done": server.over.wait(20)}
        assert "does not answer within 1 s" in first(run(probe_deadline=1))["error"]

    def test_a_busy_server(self, run: Run, server: Fake) -> None:
        busy = [True, True]

        def generate(body: dict[str, Any]) -> Event:
            if busy and busy.pop():
                raise Refused(503, "server busy, please try again.  maximum pending requests exceeded")
            return server.generate(body)

        server.script["/api/generate"] = generate
        assert first(run())["verified"]
        busy[:] = [True] * 100
        assert "overloaded" in first(run(probe_deadline=1.5))["error"]

    @pytest.mark.parametrize("about", [{}, {"general.architecture": "bert"}, {"llama.pooling_type": 3}])
    def test_capabilities_that_old_versions_do_not_tell(
        self, run: Run, server: Fake, source: Models, about: Event
    ) -> None:
        source.put("talk:latest", b"pooling_type")
        server.script["/api/show"] = lambda _body: {"model_info": about}

        def generate(_body: dict[str, Any]) -> Event:
            raise Refused(400, '"talk" does not support generate')

        server.script["/api/generate"] = generate
        assert first(run())["probe"]["kind"] == "embed"
        assert bool(server.asked("/api/generate")) is (about == {})

    def test_an_empty_embedding(self, run: Run, server: Fake, source: Models) -> None:
        source.put("talk:latest", b"pooling_type")
        server.script["/api/embed"] = lambda _body: {"embeddings": [[]]}
        assert "without an embedding" in first(run())["error"]

    def test_what_was_loaded_from_damaged_data_leaves_the_memory(self, run: Run, server: Fake, source: Models) -> None:
        run()
        assert "talk:latest" in server.loaded
        path = server.models_dir / "blobs" / source.weights_of("talk:latest").name
        path.write_bytes(path.read_bytes()[::-1])
        run()
        assert {"model": "talk:latest", "keep_alive": 0} in server.asked("/api/generate")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
class TestFilesOfTheWrongUser:
    @pytest.fixture(autouse=True)
    def service(self, run: Run, server: Fake) -> None:
        run()
        for path in [server.models_dir, *server.models_dir.rglob("*")]:
            os.chown(path, SERVICE, SERVICE)

    @pytest.mark.parametrize(
        ("pattern", "mode"),
        [("blobs/sha256-*", 0o600), ("blobs", 0o700), ("manifests/*/*", 0o700), ("manifests/*/*/*/*", 0o600)],
    )
    def test_unreadable(self, run: Run, server: Fake, pattern: str, mode: int) -> None:
        assert not run()["changed"]
        path = sorted(server.models_dir.glob(pattern))[0]
        os.chown(path, 0, 0)
        path.chmod(mode)
        noticed = run(check=True)
        assert "service user could not read" in str(first(noticed)["healed"]) and not first(noticed)["verified"]
        assert path.stat().st_uid == 0, "check mode changes nothing"
        done = run()
        assert first(done)["verified"] and first(done)["action"] == "none" and done["changed"]
        assert path.stat().st_uid == SERVICE and not run()["changed"]

    def test_readable_for_all_is_fine(self, run: Run, server: Fake) -> None:
        for path in server.models_dir.glob("blobs/*"):
            os.chown(path, 0, 0)
            path.chmod(0o644)
        assert not run()["changed"]

    def test_not_writable_before_a_pull(self, run: Run, server: Fake) -> None:
        folder = server.models_dir / "manifests/registry.ollama.ai/library"
        os.chown(folder, 0, 0)
        done = run("other")
        assert "could not write to manifests/registry.ollama.ai/library" in str(first(done)["healed"])
        assert folder.stat().st_uid == SERVICE

    def test_links_are_not_followed(self, run: Run, server: Fake, tmp_path: pathlib.Path) -> None:
        path = sorted(server.models_dir.glob("blobs/sha256-*"))[0]
        secret = tmp_path / "secret"
        shutil.move(path, secret)
        path.symlink_to(secret)
        os.chown(secret, 0, 0)
        secret.chmod(0o600)
        assert "cannot be handed over" in first(run())["error"]
        assert secret.stat().st_uid == 0 and secret.stat().st_mode & 0o777 == 0o600

    def test_an_import_belongs_to_the_service(self, run: Run, server: Fake, source: Models) -> None:
        shutil.rmtree(server.models_dir / "manifests")
        for path in server.models_dir.glob("blobs/*"):
            path.unlink()
        assert first(run("other", bundle=str(source.folder)))["verified"]
        for path in server.models_dir.rglob("*"):
            if not path.name.startswith(".llmops"):
                found = path.stat()
                assert (found.st_uid, found.st_mode & 0o777) == (SERVICE, 0o755 if path.is_dir() else 0o644), path
        assert not list(server.models_dir.glob(".llmops-import*"))


class TestRoom:
    @pytest.fixture
    def small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Store, "free", lambda _store: 70_300)

    @pytest.mark.usefixtures("small")
    def test_refused_with_figures(self, run: Run, server: Fake) -> None:
        for check in (True, False):
            result = run("talk", "other", check=check)
            assert all("has 0.1 MB free, and the 2 models" in one["error"] for one in result["models"])
        assert server.asked("/api/pull") == [] and not list(server.models_dir.glob("blobs/*"))

    @pytest.mark.usefixtures("small")
    def test_what_fits_alone(self, run: Run) -> None:
        assert first(run())["verified"], "70 013 bytes and a config"

    def test_a_damaged_blob_makes_room_for_the_new_one(self, run: Run, server: Fake, monkeypatch: Any) -> None:
        run()
        path = max(server.models_dir.glob("blobs/*"), key=lambda one: one.stat().st_size)
        path.write_bytes(path.read_bytes()[::-1])
        monkeypatch.setattr(Store, "free", lambda _store: 100)
        assert first(run())["verified"]

    def test_a_full_disk_during_an_import(self, run: Run, server: Fake, source: Models, monkeypatch: Any) -> None:
        def full(*_unused: Any) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("ansible_collections.llmops.stack.plugins.module_utils._ollama_bundle.os.write", full)
        assert "is full. Nothing was left behind" in refused(run(bundle=str(source.folder)))
        assert [one for one in server.models_dir.rglob("*") if one.is_file()] == []

    def test_notes_of_a_full_disk(self, run: Run, server: Fake, source: Models) -> None:
        blob = server.models_dir / "blobs" / source.weights_of("talk:latest").name
        for suffix, text in (("-partial", "x" * 70_000), ("-partial-0", "")):
            blob.with_name(blob.name + suffix).write_text(text)
        run()
        assert not list(server.models_dir.glob("blobs/*-partial*")), "the server would refuse to go on over them"

    def test_what_a_stopped_pull_left_counts(self, run: Run, server: Fake, source: Models) -> None:
        blob = server.models_dir / "blobs" / source.weights_of("talk:latest").name
        whole = first(run(check=True))["missing_bytes"]
        blob.with_name(blob.name + "-partial").write_text("x")
        blob.with_name(blob.name + "-partial-0").write_text(json.dumps({"N": 0, "Size": 70_000, "Completed": 40_000}))
        assert first(run(check=True))["missing_bytes"] == whole - 40_000

    def test_nobody_tells_the_size(
        self, run: Run, server: Fake, registry: Registry, warnings: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[Any] = []

        def unreachable(*given: Any) -> None:
            asked.append(given[2:])
            raise RegistryError("127.0.0.1 refuses connections.")

        monkeypatch.setattr(
            "ansible_collections.llmops.stack.plugins.module_utils._ollama_registry.manifest_of", unreachable
        )
        given = {"proxy": "http://proxy:3128", "no_proxy": "mirror"}
        assert first(run(**given))["verified"], "the server has another way"
        assert asked == [("http://proxy:3128", "mirror")]
        assert "whether the disk has room for it, was not checked" in warnings[0]


class TestLook:
    def test_stopped_service(self, run: Run) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            url = f"http://127.0.0.1:{free.getsockname()[1]}"
        for check in (True, False):
            for state in ("present", "latest", "absent"):
                with pytest.raises(ModelError, match=r"refuses connections. Start it .systemctl start ollama"):
                    run(url=url, check=check, state=state)

    def test_a_bare_host_in_check_mode(self, run: Run, tmp_path: pathlib.Path, warnings: list[str]) -> None:
        options = {"url": "http://127.0.0.1:1", "models_dir": str(tmp_path / "none")}
        result = run(check=True, **options)
        assert first(result)["action"] == "pulled" and first(result)["missing_bytes"] > 70_000
        assert "There is no Ollama here yet" in warnings[0] and not first(result)["verified"]
        with pytest.raises(ModelError, match="does not answer"):
            run(**options)

    def test_no_store(self, run: Run, tmp_path: pathlib.Path) -> None:
        with pytest.raises(ModelError, match=r"there is no store of models at .*OLLAMA_MODELS"):
            run(models_dir=str(tmp_path / "none"))

    def test_the_store_of_another_server(self, run: Run, tmp_path: pathlib.Path) -> None:
        run()
        (tmp_path / "elsewhere").mkdir()
        for state in ("present", "absent"):
            assert "lists it, but there is no manifest of it in" in refused(
                run(models_dir=str(tmp_path / "elsewhere"), state=state)
            )

    def test_a_server_that_does_not_list_it(self, run: Run, server: Fake) -> None:
        run()
        server.script["/api/tags"] = lambda _body: {"models": []}
        assert "does not list it" in refused(run())

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"registry": "http://mirror:80"}, "must be host"),
            ({"registry": "mirror/v2"}, "must be host"),
        ],
    )
    def test_refused_before_anything(self, run: Run, server: Fake, options: dict[str, Any], said: str) -> None:
        with pytest.raises(ModelError, match=said):
            run(**options)
        for name in ("gpt-oss:120b-cloud", "x:cloud", "a b", ""):
            with pytest.raises(ModelError):
                run("talk", name)
        assert server.requests == []


class TestDefer:
    def test_a_pull_is_left_to_another_run(self, run: Run, server: Fake) -> None:
        result = run(defer=True)
        assert result["deferred"] and not result["changed"] and first(result)["missing_bytes"] > 70_000
        assert server.asked("/api/pull") == [] and not first(result)["verified"]
        assert first(run())["verified"]
        again = run(defer=True)
        assert not again["deferred"] and first(again)["verified"], "nothing to do is done at once"

    def test_what_fails_at_once_fails_at_once(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Store, "free", lambda _store: 1)
        result = run(defer=True)
        assert not result["deferred"] and "Make room" in first(result)["error"]

    def test_much_to_read(self, run: Run, server: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
        run()
        (server.models_dir / ".llmops-verified.json").unlink()
        monkeypatch.setattr(module, "_QUIET_BYTES", 1000)
        assert run(defer=True)["deferred"] and first(run())["verified"] and not run(defer=True)["deferred"]

    def test_check_mode_leaves_nothing(self, run: Run) -> None:
        assert not run(defer=True, check=True)["deferred"]

    def test_progress(self, run: Run, server: Fake, tmp_path: pathlib.Path) -> None:
        seen = []

        def watched(body: dict[str, Any]) -> Iterator[Event]:
            for event in server.pulled(body):
                yield event
                server.over.wait(0.3)
                if (tmp_path / "progress").exists():
                    seen.append(json.loads((tmp_path / "progress").read_text()))

        server.instead = watched
        assert first(run(progress_file=str(tmp_path / "progress")))["verified"]
        assert {"model", "phase", "digest", "completed", "total", "percent", "speed", "eta"} == set(seen[-1])
        assert seen[-1]["model"] == "talk:latest" and max(one["percent"] for one in seen) > 98
        assert [one["completed"] for one in seen] == sorted(one["completed"] for one in seen)
