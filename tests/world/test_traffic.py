# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the logs of the upstream are understood as, and that they count every byte."""

from __future__ import annotations

import time
import urllib.request

import _traffic
import pytest
from _engine import docker, published_port, running
from _settings import UPSTREAM

NGINX = '2026-11-26T09:23:06+00:00 172.18.0.4 "GET /v2/library/speak/manifests/latest HTTP/1.1" 200 416'
REGISTRY = (
    '172.18.0.4 - - [26/Nov/2026:09:23:06 +0000] "GET /v2/library/redis/blobs/sha256:00 HTTP/1.1" 206 1048576 '
    '"" "docker/26.1.5 go/go1.24"'
)


@pytest.mark.parametrize(
    ("line", "path", "status", "size"),
    [
        (NGINX, "/v2/library/speak/manifests/latest", 200, 416),
        (REGISTRY, "/v2/library/redis/blobs/sha256:00", 206, 1048576),
    ],
    ids=["nginx", "registry"],
)
def test_a_request(line: str, path: str, status: int, size: int) -> None:
    expected = _traffic.Request(1795684986.0, "172.18.0.4", "GET", path, status, size)
    assert _traffic.parsed(line) == expected


@pytest.mark.parametrize("line", ["", "time=2026-11-26 level=info msg=hello", "1:M 26 Nov 2026 09:23:06 * Ready"])
def test_what_is_no_request(line: str) -> None:
    assert _traffic.parsed(line) is None


def test_who_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_traffic, "address", {"one": "10.0.0.1", "two": "10.0.0.2", "three": "10.0.0.3"}.get)
    log = [
        _traffic.Request(1.0, client, "GET", "/", 200, size)
        for client, size in (("10.0.0.1", 5), ("10.0.0.2", 7), ("10.0.0.1", 1), ("10.0.0.9", 100))
    ]
    found = _traffic.by_node(log, ["one", "two", "three"])
    assert {node: _traffic.bytes_of(requests) for node, requests in found.items()} == {"one": 6, "two": 7, "three": 0}


@pytest.mark.world
@pytest.mark.parametrize(("port", "path"), [(80, "/docker-ce/key.fingerprint"), (5000, "/v2/_catalog")])
def test_every_byte_counts(port: int, path: str) -> None:
    assert running(UPSTREAM), "make world starts it"
    client = docker("inspect", "--format", "{{range .NetworkSettings.Networks}}{{.Gateway}}{{end}}", UPSTREAM).strip()
    before = len([one for one in _traffic.asked(time.time() - 60) if one.path == path and one.client == client])
    with urllib.request.urlopen(f"http://127.0.0.1:{published_port(UPSTREAM, port)}{path}", timeout=10) as answer:
        size = len(answer.read())
    end = time.monotonic() + 5
    while True:
        found = [one for one in _traffic.asked(time.time() - 60) if one.path == path and one.client == client]
        if len(found) > before:
            break
        assert time.monotonic() < end, "the request is not in the log"
        time.sleep(0.2)
    assert found[-1].bytes == size
