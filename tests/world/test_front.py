# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real nginx with the templates of real releases is closed, opened, pointed elsewhere and held."""

from __future__ import annotations

import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import images
import pytest
import requests
from _build import Builder
from _engine import docker
from _settings import RELEASES, WORLD
from ansible_collections.llmops.stack.plugins.module_utils._dify_compose import Project
from ansible_collections.llmops.stack.plugins.module_utils._dify_connections import drain
from ansible_collections.llmops.stack.plugins.module_utils._dify_front import Front, FrontError

pytestmark = [
    pytest.mark.world,
    pytest.mark.skipif(not images.known_tags(), reason=f"no release data in {RELEASES}"),
]
KNOWN = images.known_tags()
# The oldest templates and the newest; what a release before 1.0 lacks is not asked for.
TAGS = [KNOWN[0], KNOWN[-1]] if KNOWN else []
SETTINGS = {
    "NGINX_SERVER_NAME": "_",
    "NGINX_PORT": "80",
    "NGINX_WORKER_PROCESSES": "2",
    "NGINX_CLIENT_MAX_BODY_SIZE": "15M",
    "NGINX_KEEPALIVE_TIMEOUT": "65",
    "NGINX_PROXY_READ_TIMEOUT": "60s",
    "NGINX_PROXY_SEND_TIMEOUT": "60s",
    "NGINX_HTTPS_ENABLED": "false",
    "NGINX_ENABLE_CERTBOT_CHALLENGE": "false",
    "NGINX_SOCKET_IO_UPSTREAM": "api_websocket:5001",
}
# A web server that says who it is, and on another path waits until it may.
SERVER = r"""mkdir -p /www/cgi-bin /www/console/api
echo "$0" >/www/index.html; echo "$0" >/www/console/api/setup
cat >/www/cgi-bin/slow <<END
#!/bin/sh
until [ -e /www/go ]; do sleep 0.1; done
printf 'Content-Type: text/plain\r\n\r\n%s' $0
END
chmod +x /www/cgi-bin/slow
for port in 3000 5001 5002; do httpd -p $port -h /www; done
exec sleep 3600"""


class Installation(Project):
    """nginx of a release with small servers behind it."""

    def __init__(self, home: Path, tag: str, known: dict[str, str]) -> None:
        super().__init__(str(home), f"llmops-test-{uuid.uuid4().hex[:8]}")
        self.known = known
        self.names: list[str] = []
        stock = RELEASES / tag / "docker" / "nginx"
        self.nginx = home / "nginx"
        shutil.copytree(stock, self.nginx)
        docker("network", "create", f"{self.name}_default")
        self.serve("web", "first", "plugin_daemon")
        self.serve("api", "first")
        self.start_nginx()

    def _run(self, service: str, name: str, *options: str) -> None:
        labels = {"com.docker.compose.project": self.name, "com.docker.compose.service": service}
        given = [part for pair in labels.items() for part in ("--label", "=".join(pair))]
        self.names.append(name)
        docker("run", "-d", "--name", name, *given, "--network", f"{self.name}_default", *options)

    def serve(self, service: str, says: str, *aliases: str) -> str:
        name = f"{self.name}-{service}-{says}"
        known = [part for alias in (service, *aliases) for part in ("--network-alias", alias)]
        self._run(service, name, *known, self.known["busybox"], "sh", "-c", SERVER, says)
        return name

    def start_nginx(self) -> None:
        mounts = [
            (self.nginx / "nginx.conf.template", "/etc/nginx/nginx.conf.template"),
            (self.nginx / "proxy.conf.template", "/etc/nginx/proxy.conf.template"),
            (self.nginx / "https.conf.template", "/etc/nginx/https.conf.template"),
            (self.nginx / "conf.d", "/etc/nginx/conf.d"),
            (WORLD / "entrypoints" / "nginx.sh", "/entry.sh"),
        ]
        options = [part for source, target in mounts for part in ("-v", f"{source}:{target}")]
        options += [part for pair in SETTINGS.items() for part in ("-e", "=".join(pair))]
        self._run("nginx", f"{self.name}-nginx-1", *options, self.known["nginx"], "sh", "/entry.sh")
        self.listens()

    def may_go_on(self, name: str) -> None:
        docker("exec", name, "touch", "/www/go")

    def listens(self) -> None:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            try:
                self.ask("/")
                return
            except requests.RequestException:
                time.sleep(0.2)
        raise AssertionError(docker("logs", f"{self.name}-nginx-1"))

    def ask(self, path: str, method: str = "GET", **headers: str) -> requests.Response:
        return requests.request(method, f"http://{self.address('nginx')}{path}", headers=headers, timeout=30)

    def gone(self) -> None:
        for name in self.names:
            docker("rm", "-f", "-v", name, check=False)
        docker("network", "rm", f"{self.name}_default", check=False)


@pytest.fixture(scope="module")
def server_images() -> dict[str, str]:
    builder = Builder(images.table())
    return {name: builder.ensure(name) for name in ("nginx", "busybox")}


@pytest.fixture(params=TAGS)
def project(request: pytest.FixtureRequest, tmp_path: Path, server_images: dict[str, str]) -> Iterator[Installation]:
    made = Installation(tmp_path, request.param, server_images)
    yield made
    made.gone()


@pytest.fixture
def front(project: Installation) -> Front:
    return Front(project)


def test_closed_to_everybody_but_who_has_the_key(project: Installation, front: Front) -> None:
    assert not front.is_closed()
    assert front.headers() == {}
    with ThreadPoolExecutor() as pool:
        begun_before = pool.submit(project.ask, "/cgi-bin/slow")
        time.sleep(0.5)
        front.close()
        page = project.ask("/", "POST")
        project.may_go_on(f"{project.name}-web-first")
        assert begun_before.result().text == "first", "what was begun is finished"
    assert (page.status_code, page.headers["Retry-After"]) == (503, "15")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert page.headers["Cache-Control"] == "no-store"
    page.encoding = "utf-8"
    assert "Dify is being upgraded" in page.text
    assert "正在升级" in page.text
    for path in ("/v1/chat-messages", "/console/api/setup", "/files/x"):
        told = project.ask(path, "POST")
        assert (told.status_code, told.json()["code"]) == (503, "service_unavailable")
    assert project.ask("/console/api/setup", **front.headers()).text == "first\n"
    assert project.ask("/", **dict.fromkeys(front.headers(), "0" * 32)).status_code == 503
    front.close()  # again: nothing happens, the key is the same
    key = front.token
    front.reload()
    assert front.is_closed()
    assert front.token == key
    assert project.ask("/").status_code == 503
    front.open()
    front.open()
    assert project.ask("/").text == "first\n"
    assert not front.is_closed()
    assert front.token == ""
    assert "llmops" not in docker("exec", f"{project.name}-nginx-1", "ls", "/etc/nginx")


def test_a_full_disk_leaves_what_is_served_and_says_so(project: Installation, front: Front) -> None:
    """What is written there says that no space is left, as a full disk does."""
    main = "/etc/nginx/nginx.conf"
    before = docker("exec", f"{project.name}-nginx-1", "cat", main)

    def fill(path: str) -> None:
        docker("exec", f"{project.name}-nginx-1", "ln", "-s", "/dev/full", f"{path}.new")

    fill(main)
    with pytest.raises(FrontError, match="No space left"):
        front.close()
    assert not front.is_closed()
    assert project.ask("/").text == "first\n"
    assert docker("exec", f"{project.name}-nginx-1", "cat", main) == before
    front.close()
    fill(main)
    with pytest.raises(FrontError, match="No space left"):
        front.open()
    assert front.is_closed()
    assert project.ask("/").status_code == 503
    front.open()
    assert project.ask("/").text == "first\n"
    assert docker("exec", f"{project.name}-nginx-1", "cat", main) == before


def test_one_that_is_started_anew_is_open_and_that_is_seen(project: Installation, front: Front) -> None:
    front.close()
    docker("restart", "-t", "1", f"{project.name}-nginx-1")
    project.listens()
    assert project.ask("/").status_code == 200
    assert not front.is_closed()
    front.close()
    assert project.ask("/").status_code == 503


def test_pointed_at_another_container(project: Installation, front: Front) -> None:
    first = f"{project.name}-web-first"
    with ThreadPoolExecutor() as pool:
        begun_before = pool.submit(project.ask, "/cgi-bin/slow")
        time.sleep(0.5)
        second = project.serve("web", "second")
        time.sleep(0.5)
        front.point("web", project.address(second))
        assert {project.ask("/").text for _count in range(20)} == {"second\n"}
        assert not drain(project.docker, first, 3000, 0.2)
        assert not front.settled()
        project.may_go_on(first)
        assert drain(project.docker, first, 3000, 20, also=front.settled)
        assert begun_before.result().text == "first"
    assert front.pointed() == {"web": project.address(second)}
    docker("rm", "-f", second)
    front.reload()  # nobody told nginx that this container is gone
    assert front.pointed() == {}
    assert project.ask("/").text == "first\n"
    front.point("web", project.address(first))
    front.unpoint("web")
    front.unpoint("web")
    assert project.ask("/").text == "first\n"


def test_a_service_that_is_away_does_not_hide_the_others(project: Installation, front: Front) -> None:
    docker("rm", "-f", f"{project.name}-api-first")
    front.reload()
    assert front.missing() == ["api"]
    assert project.ask("/").text == "first\n"
    assert project.ask("/console/api/setup").status_code == 502
    front.close()
    assert project.ask("/").status_code == 503
    project.serve("api", "second")
    time.sleep(0.5)
    front.reload()
    assert front.missing() == []
    assert project.ask("/console/api/setup", **front.headers()).text == "second\n"


def test_an_nginx_that_could_not_start_is_revived(project: Installation, front: Front) -> None:
    docker("rm", "-f", f"{project.name}-api-first")
    docker("restart", "-t", "1", f"{project.name}-nginx-1")
    assert not front.is_closed()
    with pytest.raises(FrontError):
        front.close()
    project.serve("api", "second")
    front.reload()
    project.listens()
    assert project.ask("/console/api/setup").text == "second\n"


def test_held_for_a_moment(project: Installation, front: Front) -> None:
    """A new request waits, and one in flight goes on: what is behind nginx gets quiet, and can be replaced."""
    web = f"{project.name}-web-first"
    with ThreadPoolExecutor() as pool:
        begun_before = pool.submit(project.ask, "/cgi-bin/slow")
        time.sleep(0.5)
        with front.hold(60) as held:
            assert held
            waiting = pool.submit(project.ask, "/")
            time.sleep(1)
            assert not drain(project.docker, web, 3000, 0.2)
            project.may_go_on(web)
            assert begun_before.result().text == "first"
            assert drain(project.docker, web, 3000, 20)
            assert not waiting.done()
        assert waiting.result().text == "first\n"
    front.reload()
    assert project.ask("/").text == "first\n"


def test_it_wakes_when_whoever_put_it_to_sleep_is_gone(project: Installation, front: Front) -> None:
    def sleep_and_die() -> Any:
        return front.hold(2).__enter__()

    thread = threading.Thread(target=sleep_and_die)
    thread.start()
    thread.join()
    assert project.ask("/").text == "first\n"


def test_files_that_are_gone_are_no_reason_to_serve_nothing(project: Installation, front: Front) -> None:
    """The folder of a release that was removed under a running nginx."""
    docker("exec", f"{project.name}-nginx-1", "sh", "-c", "rm /etc/nginx/conf.d/*.conf")
    with pytest.raises(FrontError, match="restart nginx"):
        front.close()
    with pytest.raises(FrontError, match="restart nginx"):
        front.reload()
    assert project.ask("/").text == "first\n"
