#!/usr/bin/python3
# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A model registry over the same store as nginx's, in which the model's name chooses the trouble with its weights.

    stalls        half of them, then silence
    breaks        a third, then the connection ends; asked for the rest it goes on
    gives-up      the same with a twentieth: Ollama tries six times, about a minute, and then gives up
    flaky         every other pull, beginning with the first, is refused with 503 after the manifest
    wrong-digest  one bit is another
    slow          500 kB/s
    garbage       HTML instead of a manifest

Every other name is served as it should be.
"""

from __future__ import annotations

import collections
import http.server
import re
import select
import sys
import time
from pathlib import Path
from typing import ClassVar

STORE = Path("/srv/www/models")
WEIGHTS = 1 << 20  # smaller blobs are not weights, and are served well
RATE = 500_000
SHARE = {"breaks": 3, "gives-up": 20}
ROUTE = re.compile(r"/v2/(?P<repository>.+/(?P<model>[^/]+))/(?P<kind>manifests|blobs)/(?P<reference>[^/]+)")
LOGIN = b"<html><body>Please log in to the network.</body></html>\n"


class Registry(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    pulls: ClassVar[collections.Counter[tuple[str, str]]] = collections.Counter()

    def do_GET(self) -> None:
        found = ROUTE.fullmatch(self.path)
        if not found:
            return self.send_error(404)
        model, reference = found["model"], found["reference"]
        if found["kind"] == "manifests":
            return self._manifest(model, STORE / "manifests" / "registry.ollama.ai" / found["repository"] / reference)
        if model == "flaky" and self.pulls[model, self.client_address[0]] % 2:
            return self.send_error(503)
        return self._blob(model, STORE / "blobs" / reference.replace(":", "-"))

    do_HEAD = do_GET

    def _manifest(self, model: str, path: Path) -> None:
        if model == "garbage":
            return self._whole("text/html", LOGIN)
        if not path.is_file():
            return self.send_error(404)
        if self.command == "GET":
            self.pulls[model, self.client_address[0]] += 1
        return self._whole("application/vnd.docker.distribution.manifest.v2+json", path.read_bytes())

    def _whole(self, kind: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def _blob(self, model: str, path: Path) -> None:
        if not path.is_file():
            return self.send_error(404)
        data = path.read_bytes()
        if model == "wrong-digest" and len(data) > WEIGHTS:
            place = len(data) // 2
            data = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first, last = (int(asked[1]), int(asked[2] or len(data) - 1)) if asked else (0, len(data) - 1)
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(last + 1 - first))
        self.send_header("Location", self.path)
        self.end_headers()
        if self.command == "GET":
            self._send(model if len(data) > WEIGHTS else "", data, first, last + 1)
        return None

    def _send(self, model: str, data: bytes, first: int, end: int) -> None:
        stop = {"stalls": len(data) // 2, **{name: first + len(data) // share for name, share in SHARE.items()}}
        reached = min(end, max(first, stop.get(model, end)))
        try:
            for place in range(first, reached, RATE // 10):
                self.wfile.write(data[place : min(reached, place + RATE // 10)])
                if model == "slow":
                    time.sleep(0.1)
        except (BrokenPipeError, ConnectionResetError):
            reached = -1
        if reached != end:
            self.close_connection = True
        if reached != -1 and model == "stalls" and reached != end:
            select.select([self.connection], [], [], 3600)  # until the client has had enough

    def log_message(self, format: str, *args: object) -> None:
        print("8081", self.client_address[0], format % args, file=sys.stdout, flush=True)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


if __name__ == "__main__":
    Server(("", 8081), Registry).serve_forever()
