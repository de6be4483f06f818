# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures of an Ollama server in Prometheus' text format, from beside it: no request to a model passes through here.

What is loaded, and on what, is asked over HTTP at each scrape. Requests, refusals and load times are read from the
server's log, in which Ollama notes every request. Where there is no log to read (`--unit` not given, or no permission),
those figures are not there at all, rather than zero.
"""

from __future__ import annotations

import argparse
import calendar
import collections
import contextlib
import http.client
import http.server
import json
import re
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator
from typing import Any, NoReturn

# What calls a model. Whatever else is asked of the server is neither counted nor can it make series.
PATHS = frozenset(
    f"/{path}"
    for path in (
        *("api/chat", "api/generate", "api/embed", "api/embeddings"),
        *("v1/chat/completions", "v1/completions", "v1/embeddings", "v1/messages", "v1/responses"),
    )
)
BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0)
PATIENCE = 3.0  # seconds for an answer of the server, well below a scrape's ten
LONGEST_ANSWER = 4 << 20
AGAIN_AFTER = 5.0  # seconds before a log that ended is followed again
TWICE_WITHIN = 1.0  # seconds; 0.17 says twice that a runner has started

_REQUEST = re.compile(r"\[GIN\] \S+ - \S+ \|\s*(\d{3}) \|\s*(\S+) \|[^|]*\|\s*[A-Z]+\s+\"([^\"?]*)")
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ns|us|[µμ]s|ms|s|m|h))+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|[µμ]s|ms|s|m|h)")
_STARTED = re.compile(r'msg="(?:llama runner|llama-server|mlx runner) started in (\d+(?:\.\d+)?) seconds"')
_TIMING = re.compile(r"\b(prompt )?eval time =\s*(\d+(?:\.\d+)?) ms /\s*(\d+) (?:tokens|runs)")
_MOMENT = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.\d+)?(?:Z|([+-])(\d\d):(\d\d))")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(text: str) -> float | None:
    """Go's way to write a duration: 936.9ms, 1m23s."""
    if not _DURATION.fullmatch(text):
        return None
    return sum(float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(text))


def moment(text: str) -> float | None:
    """Seconds since the epoch; Python 3.9 reads neither a Z nor nanoseconds."""
    found = _MOMENT.fullmatch(text)
    if not found:
        return None
    *parts, sign, hours, minutes = found.groups()
    away = (int(hours) * 3600 + int(minutes) * 60) * (-1 if sign == "-" else 1) if sign else 0
    return calendar.timegm((*map(int, parts), 0, 0, 0)) - away


class Log:
    """What the lines of the server's log add up to since this program started."""

    def __init__(self, clock: Any = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        # From zero on, so that the first refusal is an increase in the eyes of Prometheus.
        self._requests = collections.Counter({(path, status): 0 for path in PATHS for status in ("200", "503")})
        self._durations: dict[str, list[Any]] = {}
        self._loads, self._load_seconds = 0, 0.0
        self._last_load = (-TWICE_WITHIN, 0.0)
        self._timings: dict[str, list[float]] = {}
        self.readable = False

    def take(self, line: str) -> None:
        with self._lock:
            request, started, timing = _REQUEST.search(line), _STARTED.search(line), _TIMING.search(line)
            if request:
                self._request(*request.groups())
            elif started:
                self._started(float(started.group(1)))
            elif timing:
                total = self._timings.setdefault("prompt" if timing.group(1) else "output", [0.0, 0.0])
                total[0] += float(timing.group(2)) / 1000
                total[1] += int(timing.group(3))

    def _request(self, status: str, duration: str, path: str) -> None:
        if path not in PATHS:
            return
        self._requests[path, status] += 1
        took = seconds(duration)
        if took is not None and status.startswith("2"):  # how fast a refusal was tells nothing
            counts = self._durations.setdefault(path, [[0] * len(BUCKETS), 0, 0.0])
            counts[0] = [count + (took <= bound) for count, bound in zip(counts[0], BUCKETS)]
            counts[1] += 1
            counts[2] += took

    def _started(self, took: float) -> None:
        at, before = self._last_load
        now = self._clock()
        if now - at < TWICE_WITHIN and abs(took - before) < 0.05:
            return
        self._last_load = (now, took)
        self._loads += 1
        self._load_seconds += took

    def lines(self) -> Iterator[str]:
        yield from family("ollama_log_readable", "gauge", "1 where the log is read", [({}, int(self.readable))])
        if not self.readable:
            return
        with self._lock:
            requests, durations = dict(self._requests), {key: list(value) for key, value in self._durations.items()}
            timings = {key: list(value) for key, value in self._timings.items()}
            loads, load_seconds = self._loads, self._load_seconds
        yield from family(
            "ollama_requests_total",
            "counter",
            "Requests to models, by path and status; 503 is a full queue",
            [({"path": path, "status": status}, count) for (path, status), count in sorted(requests.items())],
        )
        points: list[tuple[dict[str, str], float, str]] = []
        for path, (counts, count, total) in sorted(durations.items()):
            points += [({"path": path, "le": number(bound)}, held, "_bucket") for bound, held in zip(BUCKETS, counts)]
            points += [({"path": path, "le": "+Inf"}, count, "_bucket")]
            points += [({"path": path}, total, "_sum"), ({"path": path}, count, "_count")]
        yield from family(
            "ollama_request_duration_seconds", "histogram", "Answered requests, waiting and loading included", points
        )
        yield from family("ollama_model_loads_total", "counter", "Times that a model was loaded", [({}, loads)])
        yield from family(
            "ollama_model_load_seconds_total", "counter", "Seconds spent on loading models", [({}, load_seconds)]
        )
        for kind, word in (("prompt", "reading prompts"), ("output", "writing answers")):
            if kind in timings:  # only llama-server, which Ollama starts since 0.30, says so in the log
                spent, tokens = timings[kind]
                yield from family(f"ollama_{kind}_tokens_total", "counter", f"Tokens of {word}", [({}, tokens)])
                yield from family(
                    f"ollama_{kind}_seconds_total", "counter", f"Seconds of computing spent on {word}", [({}, spent)]
                )


class Server:
    """The Ollama server, asked over HTTP."""

    def __init__(self, url: str, gpu: str) -> None:
        parts = urllib.parse.urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 11434
        self._gpu = gpu

    def _ask(self, path: str) -> dict[str, Any]:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=PATIENCE)
        try:
            connection.request("GET", path, headers={"Connection": "close"})
            response = connection.getresponse()
            body = response.read(LONGEST_ANSWER)
            if response.status != 200:
                raise ValueError(f"HTTP {response.status}")
        finally:
            connection.close()
        found = json.loads(body)
        if not isinstance(found, dict):
            raise ValueError("not an object")
        return found

    def lines(self) -> Iterator[str]:
        expected = int(self._gpu not in ("", "cpu"))
        try:
            version = str(self._ask("/api/version").get("version", ""))
            models = [model for model in self._ask("/api/ps").get("models") or [] if isinstance(model, dict)]
        except (OSError, ValueError, http.client.HTTPException):
            yield from family("ollama_up", "gauge", "1 where the server answers", [({}, 0)])
            return
        yield from family("ollama_up", "gauge", "1 where the server answers", [({}, 1)])
        yield from family("ollama_info", "gauge", "The server's version", [({"version": version}, 1)])
        yield from family("ollama_gpu_expected", "gauge", "1 where models are to be on a GPU", [({}, expected)])
        yield from family("ollama_models_loaded", "gauge", "Models in memory", [({}, len(models))])
        named = [({"model": str(model.get("name", ""))}, model) for model in models]
        sizes = [(labels, count(model.get("size")), count(model.get("size_vram"))) for labels, model in named]
        ends = [(labels, moment(str(model.get("expires_at", "")))) for labels, model in named]
        for name, help_text, points in (
            ("memory_bytes", "Memory that a loaded model takes", [(labels, size) for labels, size, _vram in sizes]),
            ("gpu_memory_bytes", "Part of it on GPUs", [(labels, vram) for labels, _size, vram in sizes]),
            ("gpu_ratio", "Share of it on GPUs", [(labels, vram / size) for labels, size, vram in sizes if size]),
            (
                "context_tokens",
                "Tokens of context that it was loaded for",
                [(labels, count(model["context_length"])) for labels, model in named if "context_length" in model],
            ),
            ("unload_timestamp_seconds", "When it is unloaded if idle", [(labels, end) for labels, end in ends if end]),
        ):
            yield from family(f"ollama_model_{name}", "gauge", help_text, points)


def count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0


def number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def family(name: str, kind: str, help_text: str, points: list[Any]) -> Iterator[str]:
    """One metric: its two head lines and its points (labels, value[, suffix]); nothing where there are no points."""
    if not points:
        return
    yield f"# HELP {name} {help_text}"
    yield f"# TYPE {name} {kind}"
    for labels, value, *suffix in points:
        shown = ",".join(f'{key}="{escaped(text)}"' for key, text in labels.items())
        yield f"{name}{''.join(suffix)}{'{' + shown + '}' if shown else ''} {number(value)}"


def escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def follow(log: Log, argv: list[str], again_after: float = AGAIN_AFTER) -> NoReturn:
    """Feed the log what a program prints; it is started again when it ends, as it does without permission."""
    while True:
        with contextlib.suppress(OSError), _reader(argv) as child:
            lasts = threading.Timer(0.5, _readable, (log, child))
            lasts.start()
            try:
                for line in child.stdout or ():
                    log.take(line.decode("utf-8", "replace"))
            finally:
                lasts.cancel()
                log.readable = False
        time.sleep(again_after)


def _reader(argv: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)


def _readable(log: Log, child: subprocess.Popen[bytes]) -> None:
    log.readable = child.poll() is None


class Listener(socketserver.ThreadingTCPServer):
    # Not http.server's own: that one looks its address up in the DNS before it serves.
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, address: str, port: int, sources: list[Any]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.sources = sources
        super().__init__((address, port), Handler)


class Handler(http.server.BaseHTTPRequestHandler):
    server_version, sys_version = "ollama-metrics", ""
    timeout = 10.0

    def do_GET(self) -> None:
        if self.path.split("?")[0] != "/metrics":
            self.send_error(404, "Ask for /metrics")
            return
        sources: list[Any] = getattr(self.server, "sources")  # noqa: B009 - the base class declares none
        body = "".join(f"{line}\n" for source in sources for line in source.lines()).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """A scrape is no news."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Figures of an Ollama server for Prometheus")
    parser.add_argument("--server", default="http://127.0.0.1:11434", help="address of the Ollama server")
    parser.add_argument("--address", default="127.0.0.1", help="address to serve /metrics at")
    parser.add_argument("--port", default=11435, type=int, help="port to serve /metrics at")
    parser.add_argument("--unit", default="", help="systemd unit whose journal is the server's log")
    parser.add_argument("--gpu", default="", help="what models are to be computed on: nvidia, amd or cpu")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    sources: list[Any] = [Server(options.server, options.gpu)]
    if options.unit:
        log = Log()
        sources.append(log)
        argv = ["journalctl", "--quiet", "--follow", "--lines=0", "--output=cat", f"--unit={options.unit}"]
        threading.Thread(target=follow, args=(log, argv), daemon=True).start()
    with Listener(options.address.strip("[]"), options.port, sources) as listener:
        listener.serve_forever()


if __name__ == "__main__":
    main()
