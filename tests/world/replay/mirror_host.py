# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role mirror's own configuration, run by the real programs on loopback: nginx, the registry, the marketplace."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import unittest.mock
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import lookup_loader
from ansible.template import Templar, trust_as_template
from ports import free_port

ROLE = Path(__file__).resolve().parents[3] / "roles" / "mirror"
START_SECONDS = 20.0


def rendered(**given: Any) -> dict[str, str]:
    """The files of /etc/llmops-mirror, by their paths in it."""
    loader = DataLoader()
    variables: dict[str, Any] = {"ansible_managed": "Ansible managed", "ansible_check_mode": False}
    for part in ("defaults", "vars"):
        variables.update(loader.load_from_file(str(ROLE / part / "main.yml"), trusted_as_template=True))
    variables.update({"ansible_search_path": [str(ROLE)], "role_path": str(ROLE), **given})
    find = lookup_loader.get

    def get(name: str, *args: Any, **options: Any) -> Any:
        return find(
            name.removeprefix("ansible.builtin."), *args, **options
        )  # the full names need a whole run around them

    with unittest.mock.patch.object(lookup_loader, "get", get):
        files: dict[str, str] = Templar(loader=loader, variables=variables).template(
            trust_as_template("{{ __mirror_files }}")
        )
    return files


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def data(self) -> Any:
        return json.loads(self.body)


class MirrorHost:
    """`own` are the clients that the configuration takes for the mirror itself: all of 127.0.0.0/8, if not told."""

    def __init__(self, own: str = "127.0.0.0/8", **given: Any) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="llmops-mirror-"))
        self.folder.chmod(0o755)  # nginx reads as another user
        self.home = self.folder / "home"
        self.port, self.registry_port, self.apt_port = free_port(), free_port(), free_port()
        backs = {"__mirror_registry_back": f"127.0.0.1:{free_port()}", "__mirror_apt_back": f"127.0.0.1:{free_port()}"}
        self.apt_back = int(backs["__mirror_apt_back"].rpartition(":")[2])
        places = {"mirror_home": str(self.home), "mirror_bind": "127.0.0.1"}
        ports = {"port": self.port, "registry_port": self.registry_port, "apt_port": self.apt_port}
        self.files = rendered(
            **{**places, **{f"mirror_{name}": port for name, port in ports.items()}, **backs, **given}
        )
        self.processes: list[subprocess.Popen[bytes]] = []
        for path, text in self.files.items():
            text = re.sub(r"/run/llmops-mirror-(\w+)", rf"{self.folder}/\1", text)
            text = re.sub(r"access_log syslog:\S+", f"access_log {self.folder}/access.log", text)
            self.write(f"etc/{path}", text.replace("127.0.0.0/8", own))
        for name in ("web", "market", "home/registry"):
            (self.folder / name).mkdir(parents=True)

    def write(self, path: str, content: str | bytes) -> Path:
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
        return target

    def nginx(self, *arguments: str) -> list[str]:
        return ["/usr/sbin/nginx", "-c", str(self.folder / "etc/nginx.conf"), *arguments]

    def start(self) -> None:
        market = self.folder / "home/www/marketplace/api/v1"
        socket_path = self.folder / "market/socket"
        program = [sys.executable, str(self.folder / "etc/marketplace.py"), "--folder", str(market)]
        self._run([*program, "--socket", str(socket_path)], socket_path.exists)
        socket_path.chmod(0o777)  # on a mirror both are www-data
        registry = shutil.which("docker-registry")
        if registry:
            self._run([registry, "serve", str(self.folder / "etc/registry.yml")], lambda: True)
        self._run(self.nginx("-g", "daemon off;"), lambda: _listens(self.port))

    def _run(self, command: list[str], ready: Callable[[], bool]) -> None:
        with (self.folder / "log").open("ab") as log:
            self.processes.append(subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL))
        until = time.monotonic() + START_SECONDS
        while not ready():
            if self.processes[-1].poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{command[0]} did not start: {(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        for process in reversed(self.processes):
            process.terminate()
            process.wait(timeout=START_SECONDS)
        shutil.rmtree(self.folder)

    def ask(
        self,
        path: str,
        method: str = "GET",
        port: int = 0,
        body: Any = None,
        client: str = "127.0.0.1",
        headers: dict[str, str] | None = None,
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=10, source_address=(client, 0))
        try:
            sent = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method, path, body=sent, headers=headers or {})
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0
