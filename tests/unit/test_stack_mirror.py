# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host finds out about its mirror with one request, and what it makes of that."""

from __future__ import annotations

import http.server
import json
import pathlib
import socket
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils._stack_mirror import APT_FILE, apt_text, lacks, refusals
from ansible_collections.llmops.stack.tests.unit.machine import Machine

OFFER = {"role": "llmops.stack.mirror", "apt_port": 3142, "registry_port": 5000, "offline": False}
OWN = {"X-Llmops-Mirror": "yes"}


class Web(http.server.ThreadingHTTPServer):
    """A web server that is asked for what a mirror offers."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status, self.body, self.headers = 200, json.dumps(OFFER).encode(), dict(OWN)
        self.asked: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Web

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Authorization", "")))
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def web() -> Iterator[Web]:
    with Web() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def machine(tmp_path: pathlib.Path) -> Machine:
    return Machine(tmp_path)


def seen(machine: Machine, url: str) -> dict[str, Any]:
    mirror: dict[str, Any] = machine.facts(stack_mirror=url)["mirror"]
    return mirror


class TestApt:
    def test_packages_come_through_the_mirror_and_the_mirror_is_asked_directly(self) -> None:
        text = apt_text("http://mirror.internal", OFFER)
        assert 'Acquire::http::Proxy "http://mirror.internal:3142";' in text
        assert 'Acquire::http::Proxy::mirror.internal "DIRECT";' in text
        assert 'Acquire::https::Proxy "DIRECT";' in text
        assert "Check-Valid-Until" not in text

    def test_old_indices_are_taken_from_a_mirror_without_a_way_out(self) -> None:
        assert 'Acquire::Check-Valid-Until "false";' in apt_text("http://mirror.internal", {**OFFER, "offline": True})

    def test_a_login_of_the_mirror_is_in_no_file_that_all_may_read(self) -> None:
        assert "secret" not in apt_text("http://me:secret@mirror.internal:8080/", OFFER)

    def test_an_address_of_numbers(self) -> None:
        text = apt_text("http://[fd00::1]", OFFER)
        assert 'Acquire::http::Proxy "http://[fd00::1]:3142";' in text
        assert "DIRECT" in text and "Proxy::fd00" not in text

    @pytest.mark.parametrize("port", [0, None, "3142", True, 70000, -1])
    def test_what_is_no_port_is_no_cache(self, port: Any) -> None:
        assert apt_text("http://mirror.internal", {**OFFER, "apt_port": port}) == ""

    def test_apt_reads_it(self, tmp_path: pathlib.Path) -> None:
        path = tmp_path / "apt.conf"
        path.write_text(apt_text("http://mirror.internal", {**OFFER, "offline": True}))
        try:
            done = subprocess.run(["apt-config", "-c", str(path), "dump"], capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip("apt is not installed")
        assert (done.returncode, done.stderr) == (0, "")
        assert 'Acquire::http::Proxy::mirror.internal "DIRECT";' in done.stdout
        assert 'Acquire::http::Proxy "http://mirror.internal:3142";' in done.stdout


class TestFacts:
    def test_a_mirror_of_the_role(self, machine: Machine, web: Web) -> None:
        found = seen(machine, f"{web.url}/")
        assert (found["url"], found["error"], found["here"]) == (web.url, "", False)
        assert found["apt"]["due"] is True
        assert "127.0.0.1:3142" in found["apt"]["wanted"]
        assert web.asked == [("/llmops-mirror.json", "")]
        machine.write(APT_FILE, found["apt"]["wanted"])
        assert seen(machine, web.url)["apt"]["due"] is False

    @pytest.mark.parametrize("body", [b"<html>welcome</html>", b"[1]", b'{"apt_port": 3142}', b"\xff", b""])
    def test_a_web_server_with_the_same_folders_has_no_cache(self, machine: Machine, web: Web, body: bytes) -> None:
        web.body, web.headers = body, {}
        found = seen(machine, web.url)
        assert (found["error"], found["apt"]["wanted"], found["apt"]["due"]) == ("", "", False)

    @pytest.mark.parametrize("status", [301, 403, 404])
    def test_any_answer_is_one(self, machine: Machine, web: Web, status: int) -> None:
        web.status, web.headers = status, {}
        assert seen(machine, web.url)["error"] == ""

    def test_a_host_that_is_not_let_in(self, machine: Machine, web: Web) -> None:
        web.status = 403
        assert "mirror_allow" in seen(machine, web.url)["error"]

    def test_a_mirror_that_is_out_of_order(self, machine: Machine, web: Web) -> None:
        web.status = 502
        assert "answers HTTP 502" in seen(machine, web.url)["error"]

    def test_nobody_there(self, machine: Machine) -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{sock.getsockname()[1]}"
            assert f"{url} refuses connections" in seen(machine, url)["error"]

    def test_one_that_accepts_and_is_silent(self, machine: Machine) -> None:
        with socket.create_server(("127.0.0.1", 0)) as sock:
            found = machine.facts(stack_mirror=f"http://127.0.0.1:{sock.getsockname()[1]}", deadline=0.3)["mirror"]
        assert "does not answer within 0.3 s" in found["error"]

    def test_no_http(self, machine: Machine) -> None:
        def babble() -> None:
            client, _address = sock.accept()
            with client:
                client.recv(4096)
                client.sendall(b"220 mail.example.org ESMTP\r\n")

        with socket.create_server(("127.0.0.1", 0)) as sock:
            threading.Thread(target=babble, daemon=True).start()
            assert "does not speak HTTP" in seen(machine, f"http://127.0.0.1:{sock.getsockname()[1]}")["error"]

    @pytest.mark.parametrize(
        "url", ["mirror.internal", "ftp://mirror.internal", "http://", "//mirror", "http://[::1", "http://mirror:x"]
    )
    def test_what_is_no_address(self, machine: Machine, url: str) -> None:
        found = seen(machine, url)
        assert found["wrong"] is True
        assert "such as http://mirror.internal" in found["error"]

    def test_a_login_is_sent_and_never_told(self, machine: Machine, web: Web) -> None:
        web.status = 503
        found = machine.facts(stack_mirror=web.url.replace("//", "//me:p%40ss@"))["mirror"]
        assert web.asked == [("/llmops-mirror.json", "Basic bWU6cEBzcw==")]
        assert "p%40ss" not in str(found) and "p@ss" not in str(found)

    def test_apt_asks_its_own_sources_again_when_the_mirror_is_gone_from_the_inventory(self, machine: Machine) -> None:
        machine.write(APT_FILE, apt_text("http://mirror.internal", OFFER))
        found = seen(machine, "")
        assert (found["apt"]["wanted"], found["apt"]["due"], found["error"]) == ("", True, "")

    def test_nothing_is_changed_on_the_word_of_nobody(self, machine: Machine) -> None:
        machine.write(APT_FILE, apt_text("http://127.0.0.1:9", OFFER))
        assert seen(machine, "http://127.0.0.1:9")["apt"]["due"] is False

    def test_the_mirror_itself_gets_its_packages_elsewhere_as_long_as_there_is_an_elsewhere(
        self, machine: Machine, web: Web
    ) -> None:
        machine.write("etc/llmops-mirror/nginx.conf", "")
        found = seen(machine, web.url)
        assert (found["here"], found["apt"]["wanted"]) == (True, "")
        web.body = json.dumps({**OFFER, "offline": True}).encode()
        assert "3142" in seen(machine, web.url)["apt"]["wanted"]

    def test_a_host_without_apt(self, machine: Machine, web: Web) -> None:
        machine.write("etc/os-release", 'ID=rocky\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.4"\n')
        assert seen(machine, web.url)["apt"] == {"path": APT_FILE, "wanted": "", "due": False}


class TestSentences:
    def test_only_who_needs_it_refuses(self) -> None:
        facts = {"mirror": {"error": "It is down.", "wrong": False}}
        assert refusals(facts) == ["It is down."]
        assert refusals(facts, needed=False) == []
        assert refusals({"mirror": {"error": "", "wrong": False}}) == refusals({}) == []

    def test_an_address_that_is_none_is_refused_by_everybody(self) -> None:
        assert refusals({"mirror": {"error": "No address.", "wrong": True}}, needed=False) == ["No address."]

    def test_what_it_lacks(self) -> None:
        said = lacks("http://me:secret@mirror.internal:8080/github/x", "model speak:latest")
        assert said.startswith(
            "The mirror http://***@mirror.internal:8080 has no model speak:latest. Run playbooks/mirror"
        )
        assert lacks("mirror.internal", "such release").startswith("The mirror mirror.internal has no such release.")
        assert lacks("", "anything") == ""
