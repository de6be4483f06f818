# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The mirror's marketplace of Dify's plugins, as far as an answer depends on what is in the question.

All else of it are files, which nginx hands out. Dify takes the first plugin of an answer for the one that it asked for,
so a question for some has to be answered with these and no others.

    POST plugins/batch             {"plugin_ids": [...]}: those of them that the mirror has, in that order
    POST plugins/search/advanced   {"query": "..."}: those whose name or label holds every word; also .../basic
    POST stats/plugins/…           {}: nobody counts
"""

from __future__ import annotations

import argparse
import http.server
import json
import os
import socket
import socketserver
import urllib.parse
from typing import Any

PREFIX = "/marketplace/api/v1/"
LONGEST = 1024 * 1024


def plugins(folder: str) -> dict[str, dict[str, Any]]:
    """All that there are, as the marketplace describes them, by their names."""
    try:
        with open(os.path.join(folder, "plugins", "batch.json"), encoding="utf-8") as file:
            found = json.load(file)["data"]["plugins"]
        return {str(one["plugin_id"]): one for one in found}
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # not filled yet


def answer(path: str, question: dict[str, Any], folder: str) -> dict[str, Any] | None:
    """The data of the answer; None where there is nothing of this kind."""
    if path == "plugins/batch":
        there = plugins(folder)
        return {"plugins": [there[name] for name in dict.fromkeys(question.get("plugin_ids") or []) if name in there]}
    if path in ("plugins/search/advanced", "plugins/search/basic"):
        words = str(question.get("query") or "").lower().split()
        hits = [one for name, one in plugins(folder).items() if all(word in _text(name, one) for word in words)]
        return {"plugins": hits, "total": len(hits)}
    return {} if path.startswith("stats/plugins/") else None


def _text(name: str, card: dict[str, Any]) -> str:
    return json.dumps([name, card.get("label"), card.get("brief")], ensure_ascii=False).lower()


class Marketplace(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "llmops-mirror", ""
    timeout = 30.0
    folder = ""

    def do_POST(self) -> None:
        size = self.headers.get("Content-Length") or "0"
        if not size.isdigit() or int(size) > LONGEST:
            self.close_connection = True
            return self._send(413, {"code": -1, "msg": "the question is too long", "data": None})
        try:
            question = json.loads(self.rfile.read(int(size)) or b"{}")
            path = urllib.parse.urlsplit(self.path).path
            found = answer(path[len(PREFIX) :] if path.startswith(PREFIX) else "", question, self.folder)
        except (ValueError, AttributeError, TypeError):
            return self._send(400, {"code": -1, "msg": "the question is not what it should be", "data": None})
        if found is None:
            return self._send(404, {"code": -1, "msg": "the mirror cannot answer this", "data": None})
        self._send(200, {"code": 0, "msg": "success", "data": found})

    def _send(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "nginx"  # a peer at a socket in the file system has no address

    def log_message(self, format: str, *args: Any) -> None:
        """nginx has written down what was asked."""


class Listener(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 128


def main() -> None:
    parser = argparse.ArgumentParser(description="A mirror's marketplace of Dify's plugins")
    parser.add_argument("--folder", required=True, help="where the answers lie that are files")
    parser.add_argument("--socket", required=True, help="where to listen")
    options = parser.parse_args()
    Marketplace.folder = options.folder
    # What an earlier process has left; one that still listens keeps its own socket.
    with socket.socket(socket.AF_UNIX) as other:
        if other.connect_ex(options.socket) != 0 and os.path.exists(options.socket):
            os.unlink(options.socket)
    with Listener(options.socket, Marketplace) as listener:
        listener.serve_forever()


if __name__ == "__main__":
    main()
