# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest of a registry: what is had, what is missing, and what cannot be asked."""

from __future__ import annotations

import hashlib
import pathlib
import socket
from collections.abc import Iterator

import pytest
from ansible_collections.llmops.stack.plugins.module_utils._ollama_names import Name
from ansible_collections.llmops.stack.plugins.module_utils._ollama_registry import (
    RegistryError,
    check_host,
    manifest_of,
)
from ansible_collections.llmops.stack.tests.unit.servers.ollama_registry import Models, Registry
from ansible_collections.llmops.stack.tests.unit.servers.proxy import running_proxy
from ansible_collections.llmops.stack.tests.unit.servers.scripted import Reply, Request, Scripted


@pytest.fixture
def registry(tmp_path: pathlib.Path) -> Iterator[Registry]:
    models = Models(tmp_path)
    models.put("talk:latest", b"weights")
    with Registry(models).running() as running:
        yield running


def name(host: str, model: str = "talk") -> Name:
    return Name(host, "library", model, "latest")


def test_the_digest_is_that_of_the_bytes(registry: Registry) -> None:
    raw = registry.models.manifest_path("talk:latest").read_bytes()
    found = manifest_of(name(registry.host), insecure=True)
    assert found.sha == hashlib.sha256(raw).hexdigest() and len(found.blobs) == 3
    assert registry.requests == [("GET", "/v2/library/talk/manifests/latest")]


def test_missing_is_known_and_trouble_is_not(registry: Registry) -> None:
    with pytest.raises(RegistryError, match="has no model library/other:latest") as caught:
        manifest_of(name(registry.host, "other"), insecure=True)
    assert caught.value.missing
    for status in (401, 403, 500):
        registry.status = status
        with pytest.raises(RegistryError, match=f"HTTP {status}") as caught:
            manifest_of(name(registry.host), insecure=True)
        assert not caught.value.missing


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        host = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(RegistryError, match="refuses connections") as caught:
        manifest_of(name(host), insecure=True)
    assert not caught.value.missing


def test_tls_is_asked_for(registry: Registry) -> None:
    with pytest.raises(RegistryError, match="TLS handshake"):
        manifest_of(name(registry.host), insecure=False)


def test_redirects(registry: Registry) -> None:
    def elsewhere(request: Request) -> Reply:
        return Reply(307, headers={"Location": f"http://{registry.host}{request.path}"})

    with Scripted(elsewhere).running() as front:
        assert manifest_of(name(front.url[len("http://") :]), insecure=True).blobs
    with Scripted(lambda _request: Reply(302, headers={"Location": "/again"})).running() as ring:
        with pytest.raises(RegistryError, match="HTTP 302"):
            manifest_of(name(ring.url[len("http://") :]), insecure=True)
        assert len(ring.requests) == 4


@pytest.mark.parametrize("body", ["<html>", "{}", '{"layers": []}'])
def test_not_a_manifest(body: str) -> None:
    with (
        Scripted(lambda _request: Reply(200, body)).running() as server,
        pytest.raises(RegistryError, match="sends as"),
    ):
        manifest_of(name(server.url[len("http://") :]), insecure=True)


@pytest.mark.parametrize("host", ["http://x", "x/y", "x:y", "", "user@x", "x:123456"])
def test_hosts_that_cannot_stand_before_a_name(host: str) -> None:
    with pytest.raises(ValueError, match="must be host"):
        check_host(host)
    check_host("mirror.example.com:8080")


def test_through_a_proxy() -> None:
    with running_proxy() as proxy:
        with pytest.raises(RegistryError, match="through the proxy"):
            manifest_of(name("registry.invalid"), False, proxy.url, "127.0.0.1")
        assert proxy.asked == ["CONNECT registry.invalid:443"]
        with pytest.raises(RegistryError, match="refuses connections"):
            manifest_of(name("127.0.0.1:1"), False, proxy.url, "127.0.0.1")
        assert len(proxy.asked) == 1
