# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module against a small registry with ranges and real GGUF files: what is asked, and no more."""

from __future__ import annotations

import hashlib
import json
import pathlib
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils import _http
from ansible_collections.llmops.stack.plugins.module_utils._http import HttpError
from ansible_collections.llmops.stack.plugins.module_utils._http_plain import PlainHttp
from ansible_collections.llmops.stack.tests.unit.servers.ollama_registry import Models, Registry
from ansible_collections.llmops.stack.tests.unit.servers.proxy import running_proxy
from ansible_collections.llmops.stack.tests.unit.servers.scripted import Reply, Request, Scripted

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "world"))

import _gguf

Run = Callable[..., dict[str, Any]]
WEIGHTS = _gguf.talker(_gguf.Talk((" One", " two", " three."), context=8192))
PREFIX = "application/vnd.ollama.image."


@pytest.fixture
def models(tmp_path: pathlib.Path) -> Models:
    made = Models(tmp_path / "store")
    made.put("talk:latest", WEIGHTS)
    return made


@pytest.fixture
def registry(models: Models) -> Iterator[Registry]:
    with Registry(models).running() as running:
        yield running


def add_layer(models: Models, name: str, kind: str, data: bytes) -> None:
    path = models.manifest_path(name)
    manifest = json.loads(path.read_text())
    layer = {"mediaType": PREFIX + kind, "digest": f"sha256:{models.blob(data)}", "size": len(data)}
    path.write_text(json.dumps({**manifest, "layers": [*manifest["layers"], layer]}))


def ask(run_module: Run, registry: Registry, *names: str, **more: Any) -> list[dict[str, Any]]:
    result = run_module("ollama_manifest", names=list(names), registry=registry.host, insecure=True, **more)
    assert result["changed"] is False
    return list(result["models"])


class TestRegistry:
    def test_digest_sizes_and_shape_for_64_kilobytes(self, run_module: Run, registry: Registry, models: Models) -> None:
        (one,) = ask(run_module, registry, "talk")
        raw = models.manifest_path("talk:latest").read_bytes()
        assert (one["name"], one["digest"]) == ("talk:latest", hashlib.sha256(raw).hexdigest())
        assert one["weights"] == len(WEIGHTS) and one["size"] > one["weights"]
        assert [layer["media_type"] for layer in one["layers"][:2]] == [f"{PREFIX}model", f"{PREFIX}template"]
        assert one["shape"]["architecture"] == "llama" and one["shape"]["context_length"] == 8192
        assert one["shape"]["attention.head_count_kv"] == 6 and "error" not in one
        blob = f"/v2/library/talk/blobs/sha256:{models.weights_of('talk:latest').name[7:]}"
        assert registry.requests == [("GET", "/v2/library/talk/manifests/latest"), ("GET", blob)]
        assert registry.sent == 64 * 1024

    def test_also_in_check_mode(self, run_module: Run, registry: Registry) -> None:
        assert ask(run_module, registry, "talk", check=True)[0]["shape"]["block_count"] == 1

    def test_what_else_is_loaded_and_what_its_maker_set(
        self, run_module: Run, registry: Registry, models: Models
    ) -> None:
        add_layer(models, "talk:latest", "projector", b"p" * 500)
        add_layer(models, "talk:latest", "params", b'{"num_ctx": 2048, "stop": ["x"]}')
        (one,) = ask(run_module, registry, "talk")
        assert (one["weights"], one["num_ctx"]) == (len(WEIGHTS) + 500, 2048)

    def test_several_and_what_is_not_there(self, run_module: Run, registry: Registry, models: Models) -> None:
        models.put("other:7b", b"no gguf at all")
        found = ask(run_module, registry, "talk", "gone:1b", "other:7b")
        assert [one["name"] for one in found] == ["talk:latest", "gone:1b", "other:7b"]
        assert found[1]["missing"] is True
        assert found[1]["error"].startswith(
            f"{registry.host} has no model library/gone:1b. Check the name and tag. The mirror {registry.host} has no "
            "model gone:1b. Run playbooks/mirror.yml"
        )
        assert (found[2]["shape"], found[2]["weights"]) == ({}, 14)

    def test_a_vocabulary_in_the_way(self, run_module: Run, registry: Registry, models: Models) -> None:
        """Where no shape was seen before it, more and more is read, each byte once."""
        keys = dict(_gguf._keys(["<unk>"] * 30000, [1] * 30000, 4096, 384).items())
        late = {name: keys.pop(name) for name in list(keys) if name.startswith("llama.")}
        models.put("late:latest", _gguf._file({**keys, **late}, {}) + bytes(2 * 1024**2))
        (one,) = ask(run_module, registry, "late")
        assert one["shape"]["context_length"] == 4096
        assert 64 * 1024 < registry.sent <= 1024**2 and len(registry.asked("/blobs/")) == 2

    def test_content_is_that_of_the_model_and_not_of_its_json(
        self, run_module: Run, registry: Registry, models: Models
    ) -> None:
        models.put("again:latest", WEIGHTS, indent=2)
        models.put("another:latest", WEIGHTS, extra=b"{{ .System }}")
        one, again, another = ask(run_module, registry, "talk", "again", "another")
        assert one["digest"] != again["digest"] and one["content"] == again["content"] != another["content"]

    def test_a_damaged_layer(self, run_module: Run, registry: Registry, models: Models) -> None:
        add_layer(models, "talk:latest", "params", b'{"num_ctx": 2048}')
        registry.spoil = lambda data: data[:-1] + b"!"
        (one,) = ask(run_module, registry, "talk")
        assert "not those that its name promises" in one["error"] and not one["missing"]

    def test_nobody_there(self, run_module: Run) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            host = f"127.0.0.1:{free.getsockname()[1]}"
        (one,) = run_module("ollama_manifest", names=["x"], registry=host, insecure=True)["models"]
        assert one["error"] == f"http://{host} refuses connections." and one["missing"] is False

    def test_tls_is_the_default(self, run_module: Run, registry: Registry) -> None:
        (one,) = run_module("ollama_manifest", names=["talk"], registry=registry.host)["models"]
        assert "TLS handshake" in one["error"]

    @pytest.mark.parametrize("options", [{"names": ["a/b/c/d"]}, {"names": ["x"], "registry": "http://mirror"}])
    def test_what_cannot_be_meant(self, run_module: Run, failed: type[Exception], options: dict[str, Any]) -> None:
        with pytest.raises(failed):
            run_module("ollama_manifest", **options)


class TestElsewhere:
    def test_blobs_on_another_host(self, run_module: Run, registry: Registry) -> None:
        """As a registry of the internet does it."""

        def front(request: Request) -> Reply:
            return Reply(307, headers={"Location": f"http://{registry.host}{request.path}"})

        with Scripted(front).running() as server:
            host = server.url.removeprefix("http://")
            (one,) = run_module("ollama_manifest", names=["talk"], registry=host, insecure=True)["models"]
        assert one["shape"]["block_count"] == 1 and registry.sent == 64 * 1024

    def test_a_server_without_ranges_is_left_early(self, run_module: Run, registry: Registry, models: Models) -> None:
        registry.ranges = False
        models.put("long:latest", WEIGHTS + bytes(40 * 1024**2))
        (one,) = ask(run_module, registry, "long")
        assert one["shape"]["context_length"] == 8192

    def test_a_bundle(self, run_module: Run, models: Models) -> None:
        result = run_module("ollama_manifest", names=["talk", "gone"], bundle=str(models.folder))
        one, gone = result["models"]
        assert one["shape"]["block_count"] == 1 and one["weights"] == len(WEIGHTS)
        assert gone["missing"] and "the model is not in it" in gone["error"]
        models.weights_of("talk:latest").unlink()
        (one,) = run_module("ollama_manifest", names=["talk"], bundle=str(models.folder))["models"]
        assert one["missing"] and "lacks blob" in one["error"]


class TestPlainHttp:
    def test_nothing_but_python(self, run_module: Run, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
        """On a bare host requests is still to be installed."""
        monkeypatch.setattr(_http, "HAS_REQUESTS", False)
        monkeypatch.delattr(_http, "requests")
        assert ask(run_module, registry, "talk")[0]["shape"]["block_count"] == 1

    def test_the_proxy_that_was_given_and_no_other(
        self, run_module: Run, registry: Registry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with running_proxy() as proxy:
            monkeypatch.setenv("http_proxy", proxy.url)
            assert "error" not in ask(run_module, registry, "talk")[0]
            options = {"names": ["talk"], "proxy": proxy.url}
            (one,) = run_module("ollama_manifest", registry="registry.invalid", **options)["models"]
            assert proxy.asked == ["CONNECT registry.invalid:443"] and "through the proxy" in one["error"]
            for spared in ("127.0.0.1", "127.0.0.0/8", "*"):
                run_module("ollama_manifest", registry=registry.host, no_proxy=spared, **options)
            assert len(proxy.asked) == 1

    @pytest.mark.parametrize(
        ("reply", "words"),
        [
            (Reply(hang=True), "does not answer within"),
            (Reply(pieces=["x"] * 100, pause=0.1), "did not finish within"),
            (Reply(pieces=["x"], ending="torn"), "closed the connection"),
        ],
    )
    def test_one_that_never_ends(self, reply: Reply, words: str) -> None:
        with Scripted(lambda _request: reply).running() as server, pytest.raises(HttpError, match=words):
            PlainHttp().request("GET", f"{server.url}/", 0.4)

    def test_no_more_than_was_asked_for(self) -> None:
        with Scripted(lambda _request: Reply(body="x" * 300000)).running() as server:
            assert len(PlainHttp().request("GET", f"{server.url}/", 5, limit=70000).body) == 70000
