# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A marketplace with versions of one plugin, and, on the same address, a GitHub with releases."""

from __future__ import annotations

import http.server
import json
import threading
import urllib.parse
from typing import Any

from standin import daemon_package


def version_of(identifier: str) -> str:
    return identifier.split(":")[1].split("@")[0]


class Market:
    """`packages` by identifier, the newest last; `files` by path; `status` is what everything is answered with."""

    def __init__(self, plugin: str) -> None:
        self.plugin = plugin
        self.packages: dict[str, bytes] = {}
        self.files: dict[str, bytes] = {}
        self.status = 200
        self.asked: list[str] = []
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def offer(self, *packages: bytes) -> None:
        self.packages = {daemon_package.read(data).identifier: data for data in packages}

    def release(self, repo: str, tag: str, name: str, package: bytes) -> None:
        self.files[f"/{repo}/releases/download/{tag}/{name}"] = package

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def get(self, path: str) -> bytes | None:
        path, _mark, query = path.partition("?")
        if path.endswith("/versions"):
            listed = [{"unique_identifier": one, "version": version_of(one)} for one in self.packages]
            return json.dumps({"code": 0, "data": {"versions": listed}}).encode()
        wanted = urllib.parse.parse_qs(query).get("unique_identifier", [""])[0]
        return self.files.get(path, self.packages.get(wanted))

    def newest(self) -> bytes:
        author, name = self.plugin.split("/")
        entries = [
            {"org": author, "name": name, "latest_version": version_of(one), "latest_package_identifier": one}
            for one in list(self.packages)[-1:]
        ]
        return json.dumps({"code": 0, "data": {"plugins": entries}}).encode()

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        market = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._send(market.get(self.path))

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self._send(market.newest())

            def _send(self, body: bytes | None) -> None:
                market.asked.append(self.path)
                if body is None or market.status != 200:
                    self.send_error(404 if market.status == 200 else market.status)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *unused: Any) -> None:
                pass

        return Handler
