# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The collector's configuration in the real collector, where the world has built it: what arrives, and what never."""

from __future__ import annotations

import http.server
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.llmops.stack.tests.unit.test_traceloop_plan import WANTED, env, wanted

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "world"))

from _settings import CACHE

PROGRAMS = sorted((CACHE / "bin").glob("otelcol-contrib-*"))
SECRET = "s3cret: {x}, #y"
SAID = "What is the capital of France?"
CALL = {
    "gen_ai.operation.name": "chat",
    "gen_ai.usage.input_tokens": "11",
    "gen_ai.input.messages": SAID,
    "gen_ai.prompt.0.content": SAID,
}
NODE = {"gen_ai.prompt": SAID, "gen_ai.completion": SAID, "node.type": "llm"}

SCOPE = re.findall(
    r'^SCOPE = "(.+)"$',
    (pathlib.Path(__file__).parents[2] / "roles/traceloop/files/monitoring/plugins/traceloop/names.py").read_text(),
    re.MULTILINE,
)[0]

pytestmark = pytest.mark.skipif(not PROGRAMS, reason="no collector built: python3 tests/world/world.py build")


class Backend:
    """Takes OTLP as JSON, or refuses."""

    def __init__(self) -> None:
        self.status, self.taken, self.headers = 200, [], {}  # type: int, list[tuple[str, str]], dict[str, str]
        backend = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                text = self.rfile.read(int(self.headers["Content-Length"])).decode()
                backend.headers = {key.lower(): value for key, value in self.headers.items()}
                if backend.status == 200:
                    backend.taken.append((self.path, text))
                self.send_response(backend.status)
                self.end_headers()

            def log_message(self, *_arguments: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def text(self) -> str:
        return "".join(text for _path, text in self.taken)


class Collector:
    """The real one, with what the role would write, but for places and ports."""

    def __init__(self, folder: pathlib.Path, backend: Backend, **given: Any) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        queue = {"directory": str(folder), "compaction": {"directory": str(folder)}}
        exporter = {"encoding": "json", "compression": "none"}
        moved = {
            "receivers": {"otlp": {"protocols": {"http": {"endpoint": f"127.0.0.1:{self.port}"}}}},
            "extensions": {"file_storage/queue": queue},
            "exporters": {"otlp_http/traces": exporter},
            "service": {"telemetry": {"metrics": {"level": "none"}}},
        }
        url = f"http://127.0.0.1:{backend.server.server_port}"
        found = wanted("otlp", traceloop_base_url=url, traceloop_collector_config=moved, **given)
        self.config, self.log = folder / "config.yaml", folder / "log"
        self.config.write_text(found["files"]["collector/config.yaml"])
        self.env = {**os.environ, **env(found["secret_files"]["collector/collector.env"])}

    def __enter__(self) -> Collector:
        with self.log.open("ab") as log:
            command = [str(PROGRAMS[-1]), "--config", str(self.config)]
            self.process = subprocess.Popen(command, env=self.env, stdout=log, stderr=log)
        end = time.monotonic() + 30
        while b"Everything is ready" not in self.log.read_bytes():
            assert self.process.poll() is None and time.monotonic() < end, self.log.read_text()
            time.sleep(0.05)
        return self

    def __exit__(self, *_exception: Any) -> None:
        self.process.terminate()
        self.process.wait(timeout=30)
        self.log.rename(self.log.with_name("log.before"))

    def send(self, name: str, attributes: dict[str, str], signal: str = "traces", scope: str = "", **more: Any) -> int:
        said = [{"key": key, "value": {"stringValue": value}} for key, value in attributes.items()]
        times = {"startTimeUnixNano": "1700000000000000000", "endTimeUnixNano": "1700000001000000000"}
        span = {"traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "name": name, "kind": 3}
        spans = {"scope": {"name": scope}, "spans": [{**span, **times, "attributes": said, **more}]}
        body = {"resourceSpans": [{"scopeSpans": [spans]}]}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/{signal}",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as exc:
            return exc.code


def until(holds: Any, what: str) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.05)


@pytest.fixture
def backend() -> Iterator[Backend]:
    made = Backend()
    yield made
    made.server.shutdown()


@pytest.mark.parametrize("content", [False, True])
def test_texts_reach_the_backend_if_asked_for_and_the_log_never(
    tmp_path: pathlib.Path, backend: Backend, content: bool
) -> None:
    given = {"traceloop_trace_content": content, "traceloop_dify_otel": True, "traceloop_headers": {"X-Key": SECRET}}
    with Collector(tmp_path, backend, **given) as collector:
        assert collector.send("chat deepseek-r1:1.5b", CALL) == collector.send("LLM", NODE) == 200
        until(lambda: "chat deepseek" in backend.text() and '"LLM"' in backend.text(), "two spans")
        until(lambda: "chat deepseek" in collector.log.read_text(), "the line of the call")
        log = collector.log.read_text()
    assert (SAID in backend.text()) == content
    assert backend.headers["x-key"] == SECRET
    assert "gen_ai.usage.input_tokens=11" in log
    assert SAID not in log and SECRET not in log and "node.type" not in log


FAILED: dict[str, Any] = {
    "status": {"code": 2, "message": f"invoke failed: {SAID}"},
    "events": [
        {
            "name": "exception",
            "timeUnixNano": "1700000000500000000",
            "attributes": [
                {"key": f"exception.{key}", "value": {"stringValue": value}}
                for key, value in {"type": "InvokeError", "message": SAID, "stacktrace": f"in f({SAID!r})"}.items()
            ]
            + [{"key": "gen_ai.prompt", "value": {"stringValue": SAID}}],
        }
    ],
}


@pytest.mark.parametrize("content", [False, True])
def test_what_an_error_tells_of_a_text_is_one(tmp_path: pathlib.Path, backend: Backend, content: bool) -> None:
    with Collector(tmp_path, backend, traceloop_trace_content=content, traceloop_dify_otel=True) as collector:
        assert collector.send("LLM", NODE, scope="dify", **FAILED) == 200
        assert collector.send("chat x", CALL, scope="dify", **FAILED) == 200
        until(lambda: '"LLM"' in backend.text() and "chat x" in backend.text(), "the spans")
        until(lambda: "chat x" in collector.log.read_text(), "the line of the call")
        assert SAID not in collector.log.read_text()
    assert (SAID in backend.text()) == content
    assert "InvokeError" in backend.text() and '"code":2' in backend.text(), "that there was one, and which"


def test_our_own_words_about_an_error_are_none(tmp_path: pathlib.Path, backend: Backend) -> None:
    with Collector(tmp_path, backend, traceloop_dify_otel=True) as collector:
        said = {"code": 2, "message": "the model server refused"}
        collector.send("chat x", CALL, scope=SCOPE, status=said)
        until(lambda: "chat x" in backend.text(), "the span")
    assert "the model server refused" in backend.text()


def test_what_our_own_plugin_sends_is_left_as_it_is(tmp_path: pathlib.Path, backend: Backend) -> None:
    """It sends texts only if asked; so without Dify's own spans nothing has to be taken out on the way."""
    with Collector(tmp_path, backend) as collector:
        collector.send("chat a", {**CALL, "gen_ai.output.type": "json"})
        until(lambda: "chat a" in backend.text(), "the span")
    assert "gen_ai.output.type" in backend.text()


def test_what_a_backend_refuses_outlives_a_restart(tmp_path: pathlib.Path, backend: Backend) -> None:
    backend.status = 503
    with Collector(tmp_path, backend) as collector:
        assert [collector.send(f"chat {number}", CALL) for number in range(3)] == [200] * 3
        until(lambda: "chat 2" in collector.log.read_text(), "the lines of the calls")
    assert backend.taken == []
    backend.status = 200
    with Collector(tmp_path, backend):
        until(lambda: all(f'"chat {number}"' in backend.text() for number in range(3)), "all three spans")
    assert [backend.text().count(f'"chat {number}"') for number in range(3)] == [1, 1, 1]


def test_a_backend_that_takes_no_metrics_gets_none(tmp_path: pathlib.Path, backend: Backend) -> None:
    with Collector(tmp_path, backend, traceloop_metrics=False) as collector:
        assert collector.send("x", {}, signal="metrics") == 404
    with Collector(tmp_path, backend, traceloop_metrics=False, traceloop_dify_otel=True) as collector:
        assert collector.send("x", {}, signal="metrics") == 200, "Dify would complain in its log for ever"
    assert backend.taken == []


@pytest.mark.parametrize("name", WANTED)
@pytest.mark.parametrize("otel", [False, True])
def test_the_collector_accepts_every_configuration(tmp_path: pathlib.Path, name: str, otel: bool) -> None:
    moved = {
        "extensions": {"file_storage/queue": {"directory": str(tmp_path), "compaction": {"directory": str(tmp_path)}}}
    }
    found = wanted(name, traceloop_dify_otel=otel, traceloop_collector_config=moved)
    (tmp_path / "config.yaml").write_text(found["files"]["collector/config.yaml"])
    command = [str(PROGRAMS[-1]), "validate", "--config", str(tmp_path / "config.yaml")]
    said = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert (said.returncode, said.stdout) == (0, "")
