# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a mirror answers to those who fetch from it, by the role's own configuration of nginx and the registry."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socketserver
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from mirror_host import MirrorHost, rendered

pytestmark = pytest.mark.skipif(not os.path.exists("/usr/sbin/nginx"), reason="nginx is not installed")

SUM = hashlib.sha256(b"a package").hexdigest()
IDENTIFIER = f"langgenius/ollama:0.2.0@{SUM}"
API = "/marketplace/api/v1"
MANIFEST = '{"schemaVersion": 2}'


def card(name: str) -> dict[str, Any]:
    return {"plugin_id": name, "label": {"en_US": name.split("/")[1].capitalize()}, "latest_version": "1"}


def filled(host: MirrorHost) -> MirrorHost:
    """With one of everything, laid out as it is filled."""
    names = ["acme/search", "langgenius/ollama", "langgenius/openai"]
    answers = {
        "plugins/batch": {"code": 0, "msg": "success", "data": {"plugins": [card(name) for name in names]}},
        "plugins/langgenius/ollama": {"code": 0, "msg": "success", "data": {"plugin": card(names[1])}},
        "plugins/langgenius/ollama/versions": {"code": 0, "data": {"versions": [{"unique_identifier": IDENTIFIER}]}},
    }
    for path, content in answers.items():
        host.write(f"home/www{API}/{path}.json", json.dumps(content))
    host.write(f"home/www{API}/dist/plugins/manifest.json", "{}")
    host.write(f"home/www/marketplace/packages/{SUM}.difypkg", "a package")
    host.write("home/www/github/langgenius/dify/archive/refs/tags/1.12.1.tar.gz", "an archive" * 100)
    host.write("home/www/docker-ce/linux/debian/gpg", "a key")
    host.write("home/www/pypi/simple/dify-plugin/index.html", "<a href='../../w/x.whl'>x.whl</a>")
    host.write("home/models/manifests/registry.ollama.ai/library/speak/latest", MANIFEST)
    host.write(f"home/models/blobs/sha256-{SUM}", b"0123456789" * 10)
    return host


@pytest.fixture(scope="module")
def mirror() -> Iterator[MirrorHost]:
    host = filled(MirrorHost())
    host.start()
    yield host
    host.stop()


@pytest.fixture(scope="module")
def guarded() -> Iterator[MirrorHost]:
    """127.0.0.7 is let in, and nobody is the mirror itself but who asks from the address that it is asked at."""
    host = filled(MirrorHost(own="127.9.9.9", mirror_allow=["127.0.0.7", "10.0.0.0/24"]))
    host.start()
    yield host
    host.stop()


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"mirror_allow": ["10.1.0.0/16", "192.168.3.4", "2001:db8::/32"]},
        {"mirror_apt_port": 0},
        {"mirror_bind": "::"},
    ],
)
def test_nginx_takes_the_configuration(given: dict[str, Any]) -> None:
    host = MirrorHost(**given)
    try:
        done = subprocess.run(host.nginx("-t"), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "warn" not in done.stderr.replace('[warn] the "user" directive', "")
    finally:
        host.stop()


def test_what_is_no_network_is_refused_by_nginx_before_it_is_put_in_place() -> None:
    host = MirrorHost(mirror_allow=["10.0.0.0/24; return 200"])
    try:
        assert subprocess.run(host.nginx("-t"), capture_output=True, check=False).returncode != 0
    finally:
        host.stop()


class TestFiles:
    def test_a_mirror_says_what_it_offers(self, mirror: MirrorHost) -> None:
        answer = mirror.ask("/llmops-mirror.json")
        assert answer.data["role"] == "llmops.stack.mirror"
        assert answer.data["apt_port"] == mirror.apt_port
        assert answer.data["offline"] is False

    def test_archives_come_whole_and_in_parts(self, mirror: MirrorHost) -> None:
        path = "/github/langgenius/dify/archive/refs/tags/1.12.1.tar.gz"
        whole = mirror.ask(path)
        assert (whole.status, len(whole.body)) == (200, 1000)
        part = mirror.ask(path, headers={"Range": "bytes=990-", "If-Range": whole.headers["ETag"]})
        assert (part.status, part.body) == (206, b"an archive")
        assert mirror.ask("/docker-ce/linux/debian/gpg").body == b"a key"

    def test_what_is_not_there_comes_with_the_next_step(self, mirror: MirrorHost) -> None:
        for path in ("/github/langgenius/dify/archive/refs/tags/1.13.0.tar.gz", "/pypi/simple/numpy/", "/docker-ce/"):
            answer = mirror.ask(path)
            assert (answer.status, b"playbooks/mirror.yml" in answer.body) == (404, True), path

    def test_only_its_folder_is_served(self, mirror: MirrorHost) -> None:
        for path in ("/../models/blobs/x", "/%2e%2e/registry", "/..%2f..%2fetc/nginx.conf", "/etc/passwd"):
            assert mirror.ask(path).status in (400, 404), path

    def test_nobody_writes(self, mirror: MirrorHost) -> None:
        for method in ("PUT", "DELETE", "MKCOL", "POST"):
            assert mirror.ask("/docker-ce/linux/debian/gpg", method).status == 405

    def test_the_index_of_wheels(self, mirror: MirrorHost) -> None:
        assert b"x.whl" in mirror.ask("/pypi/simple/dify-plugin/").body
        moved = mirror.ask("/pypi/simple/dify-plugin")
        assert (moved.status, moved.headers["Location"]) == (301, "/pypi/simple/dify-plugin/")


class TestModels:
    def test_a_manifest_under_the_names_that_ollama_asks_for(self, mirror: MirrorHost) -> None:
        answer = mirror.ask("/v2/library/speak/manifests/latest")
        assert (answer.status, answer.body.decode()) == (200, MANIFEST)
        assert answer.headers["Content-Type"] == "application/vnd.docker.distribution.manifest.v2+json"
        assert mirror.ask("/v2/library/other/manifests/latest").status == 404

    def test_a_blob_says_where_it_lies_and_comes_in_parts(self, mirror: MirrorHost) -> None:
        path = f"/v2/library/speak/blobs/sha256:{SUM}"
        for method, headers, status, length in (
            ("HEAD", {}, 200, "100"),
            ("GET", {}, 200, "100"),
            ("GET", {"Range": "bytes=50-59"}, 206, "10"),
        ):
            answer = mirror.ask(path, method, headers=headers)
            assert (answer.status, answer.headers["Content-Length"]) == (status, length)
            assert answer.headers["Location"] == path
        assert mirror.ask(f"/v2/library/speak/blobs/sha256:{'0' * 64}").status == 404


class TestMarketplace:
    @pytest.mark.parametrize(
        "quoted", [IDENTIFIER, urllib.parse.quote(IDENTIFIER), urllib.parse.quote_plus(IDENTIFIER)]
    )
    def test_a_package_by_its_identifier_as_every_release_writes_it(self, mirror: MirrorHost, quoted: str) -> None:
        assert mirror.ask(f"{API}/plugins/download?unique_identifier={quoted}").body == b"a package"

    def test_a_package_that_is_not_there(self, mirror: MirrorHost) -> None:
        for identifier in (IDENTIFIER[:-1] + "x", f"acme/other:1@{'0' * 64}", "../../../etc/passwd", ""):
            answer = mirror.ask(f"{API}/plugins/download?unique_identifier={identifier}")
            assert (answer.status, "playbooks/mirror.yml" in answer.data["msg"]) == (404, True)

    def test_answers_that_are_files(self, mirror: MirrorHost) -> None:
        listed = mirror.ask(f"{API}/plugins/langgenius/ollama/versions?page=1&page_size=100")
        assert listed.data["data"]["versions"][0]["unique_identifier"] == IDENTIFIER
        assert listed.headers["Content-Type"] == "application/json"
        assert mirror.ask(f"{API}/plugins/langgenius/ollama").data["data"]["plugin"]["plugin_id"] == "langgenius/ollama"
        assert mirror.ask(f"{API}/dist/plugins/manifest.json").data == {}
        assert mirror.ask(f"{API}/plugins/langgenius/gemini").status == 404

    def test_a_question_for_some_is_answered_with_these(self, mirror: MirrorHost) -> None:
        asked = ["langgenius/openai", "langgenius/gemini", "acme/search"]
        answer = mirror.ask(f"{API}/plugins/batch", "POST", body={"plugin_ids": asked})
        assert [one["plugin_id"] for one in answer.data["data"]["plugins"]] == ["langgenius/openai", "acme/search"]
        assert answer.data["code"] == 0

    def test_a_search_and_a_count(self, mirror: MirrorHost) -> None:
        found = mirror.ask(f"{API}/plugins/search/advanced", "POST", body={"query": "OLLAMA"}).data["data"]
        assert ([one["plugin_id"] for one in found["plugins"]], found["total"]) == (["langgenius/ollama"], 1)
        counted = mirror.ask(f"{API}/stats/plugins/install_count", "POST", body={"unique_identifier": IDENTIFIER})
        assert (counted.status, counted.data["data"]) == (200, {})

    @pytest.mark.parametrize(
        ("path", "body", "status"),
        [
            ("plugins/batch", b"no JSON", 400),
            ("plugins/batch", b"[1]", 400),
            ("plugins/batch", b'{"plugin_ids": 3}', 400),
            ("plugins/other", b"{}", 404),
            ("plugins/batch", b" " * 2_000_000, 413),
        ],
    )
    def test_questions_that_are_none(self, mirror: MirrorHost, path: str, body: bytes, status: int) -> None:
        assert mirror.ask(f"{API}/{path}", "POST", body=body).status == status


@pytest.mark.skipif(not shutil.which("docker-registry"), reason="docker-registry is not installed")
class TestImages:
    def put(self, mirror: MirrorHost, client: str = "127.0.0.1") -> str:
        """What skopeo does, in short: a layer and a manifest; returns the manifest's digest."""
        layer = b"a layer"
        digest = f"sha256:{hashlib.sha256(layer).hexdigest()}"
        begun = mirror.ask("/v2/library/some/blobs/uploads/", "POST", mirror.registry_port, client=client)
        assert begun.status == 202, begun
        place = urllib.parse.urlsplit(begun.headers["Location"])
        assert place.port == mirror.registry_port
        path = f"{place.path}?{place.query}&digest={urllib.parse.quote(digest)}"
        assert mirror.ask(path, "PUT", mirror.registry_port, layer, client).status == 201
        kind = "application/vnd.docker.distribution.manifest.v2+json"
        part = {"mediaType": "application/octet-stream", "size": len(layer), "digest": digest}
        manifest = json.dumps({"schemaVersion": 2, "mediaType": kind, "config": part, "layers": [part]}).encode()
        answer = mirror.ask(
            "/v2/library/some/manifests/1", "PUT", mirror.registry_port, manifest, client, {"Content-Type": kind}
        )
        assert answer.status == 201, answer
        return answer.headers["Docker-Content-Digest"]

    def test_the_mirror_puts_and_everybody_gets(self, mirror: MirrorHost) -> None:
        deadline = time.monotonic() + 20
        while mirror.ask("/v2/", port=mirror.registry_port).status != 200 and time.monotonic() < deadline:
            time.sleep(0.1)
        digest = self.put(mirror)
        # As an engine asks a mirror of Docker Hub.
        kinds = {"Accept": "application/vnd.docker.distribution.manifest.v2+json"}
        got = mirror.ask("/v2/library/some/manifests/1?ns=docker.io", "HEAD", mirror.registry_port, headers=kinds)
        assert (got.status, got.headers["Docker-Content-Digest"]) == (200, digest)
        assert mirror.ask(f"/v2/library/some/manifests/{digest}", "DELETE", mirror.registry_port).status == 202

    def test_nobody_else_writes(self, guarded: MirrorHost) -> None:
        for method, path in (
            ("POST", "/v2/library/some/blobs/uploads/"),
            ("DELETE", f"/v2/library/some/manifests/sha256:{SUM}"),
        ):
            assert guarded.ask(path, method, guarded.registry_port, client="127.0.0.7").status == 405


class TestWhoIsLetIn:
    def test_those_that_are_named(self, guarded: MirrorHost) -> None:
        for port in (guarded.port, guarded.registry_port, guarded.apt_port):
            refused = guarded.ask("/", port=port, client="127.0.0.8")
            # The mark by which a host knows that it is the mirror that refuses it.
            assert (refused.status, refused.headers["X-Llmops-Mirror"]) == (403, "yes")
        assert guarded.ask("/docker-ce/linux/debian/gpg", client="127.0.0.7").status == 200

    def test_the_mirror_by_its_own_name(self, guarded: MirrorHost) -> None:
        assert guarded.ask("/docker-ce/linux/debian/gpg", client="127.0.0.1").status == 200


class Cache(BaseHTTPRequestHandler):
    """Stands where apt-cacher-ng does and says what it was asked."""

    def do_GET(self) -> None:
        body = self.path.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def cache(mirror: MirrorHost) -> Iterator[None]:
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    with socketserver.ThreadingTCPServer(("127.0.0.1", mirror.apt_back), Cache) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield
        server.shutdown()


@pytest.mark.usefixtures("cache")
class TestDistributionPackages:
    def ask(self, mirror: MirrorHost, url: str, method: str = "GET") -> tuple[int, str]:
        host = urllib.parse.urlsplit(url).netloc
        answer = mirror.ask(url, method, mirror.apt_port, headers={"Host": host})
        return answer.status, answer.body.decode()

    def test_a_request_to_a_proxy_reaches_the_cache(self, mirror: MirrorHost) -> None:
        asked = self.ask(mirror, "http://deb.example.org/debian/pool/g/g%2b%2b_1_amd64.deb")
        assert asked == (200, "/deb.example.org/debian/pool/g/g%2b%2b_1_amd64.deb")
        assert self.ask(mirror, "http://deb.example.org:80/debian/x")[1] == "/deb.example.org/debian/x"

    @pytest.mark.parametrize(
        "host", ["localhost", "127.0.0.1", "127.1", "169.254.169.254", "0.0.0.0", "[::1]", "db:5432"]
    )
    def test_it_is_no_way_into_the_mirror_or_its_network(self, mirror: MirrorHost, host: str) -> None:
        assert self.ask(mirror, f"http://{host}/x")[0] == 403

    def test_it_only_fetches(self, mirror: MirrorHost) -> None:
        assert self.ask(mirror, "http://deb.example.org/debian/x", "POST")[0] == 403


def test_a_mirror_without_a_way_out_asks_nobody_and_says_so() -> None:
    files = rendered(mirror_offline=True)
    assert "\nOfflinemode: 1\n" in files["apt/acng.conf"]
    assert '"offline": true' in files["nginx.conf"]
    assert "\nOfflinemode: 0\n" in rendered()["apt/acng.conf"]
