# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A model server for tests: Ollama's chat, generate and embed, with trouble chosen by the model's name.

    python3 -m standin.fake_ollama 11434

missing: 404, e500: 500, mid: an error line after the first chunk, drop: closed after the first chunk, hang: no answer,
garbage: HTML with status 200, pause: 12 s of silence in the stream, slow: 40 chunks in 20 s,
empty: an answer without text.
"""

from __future__ import annotations

import http.server
import json
import sys
import time
from typing import Any

WORDS = ("Hello", " from", " fake")
COUNTS = {
    "total_duration": 123456789,
    "load_duration": 23456789,
    "prompt_eval_count": 11,
    "prompt_eval_duration": 34567890,
    "eval_count": 3,
    "eval_duration": 45678901,
}
REFUSED = {
    "missing": (404, 'model "missing" not found, try pulling it first'),
    "e500": (500, "llama runner process has terminated: exit status 2"),
}


class Handler(http.server.BaseHTTPRequestHandler):
    # HTTP/1.0: a stream ends with its connection, so that a cut one looks finished.
    protocol_version = "HTTP/1.0"

    def do_GET(self) -> None:
        self._reply(200, {"version": "0.0.0"} if self.path == "/api/version" else {"models": []})

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        model = str(request.get("model", ""))
        if model in REFUSED:
            status, text = REFUSED[model]
            self._reply(status, {"error": text})
        elif model == "hang":
            time.sleep(600)
        elif model == "garbage":
            self._send(200, b"<html><body>proxy login</body></html>", "text/html")
        elif self.path == "/api/embed":
            self._reply(200, {"model": model, "embeddings": [[0.1, 0.2, 0.3] for _ in request["input"]]})
        elif self.path in ("/api/chat", "/api/generate"):
            self._talk(model, bool(request.get("stream", True)))
        else:
            self._reply(404, {"error": "not found"})

    def _talk(self, model: str, stream: bool) -> None:
        words = ("",) if model == "empty" else tuple(f"w{n} " for n in range(40)) if model == "slow" else WORDS
        if not stream:
            time.sleep(10 if model == "slow" else 0)
            self._reply(
                200, {"model": model, **self._text("".join(words)), "done": True, "done_reason": "stop", **COUNTS}
            )
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.end_headers()
        for index, word in enumerate(words):
            self._line({"model": model, **self._text(word), "done": False})
            if model == "mid":
                self._line({"error": "unexpected EOF"})
            if model in ("mid", "drop"):
                return
            time.sleep(0.5 if model == "slow" else 12 if model == "pause" and index == 0 else 0.02)
        self._line({"model": model, **self._text(""), "done": True, "done_reason": "stop", **COUNTS})

    def _text(self, text: str) -> dict[str, Any]:
        return (
            {"response": text} if self.path == "/api/generate" else {"message": {"role": "assistant", "content": text}}
        )

    def _line(self, content: dict[str, Any]) -> None:
        self.wfile.write(json.dumps(content).encode() + b"\n")
        self.wfile.flush()

    def _reply(self, status: int, content: dict[str, Any]) -> None:
        self._send(status, json.dumps(content).encode(), "application/json")

    def _send(self, status: int, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that leaves a stream is part of the game.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def server(port: int) -> Server:
    return Server(("0.0.0.0", port), Handler)


if __name__ == "__main__":
    server(int(sys.argv[1]) if len(sys.argv) > 1 else 11434).serve_forever()
