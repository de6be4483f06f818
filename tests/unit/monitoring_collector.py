# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A collector for tests, and what the tests of the traceloop plugin share."""

from __future__ import annotations

import base64
import contextvars
import http.server
import importlib
import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from ansible_collections.llmops.stack.tests.unit.monitoring import MONITORING

sys.path.insert(0, str(MONITORING))

from llmops_monitoring.event import Error, Event
from llmops_monitoring.manifest import Plugin

PROMPT = "What is the capital of France?"
PLUGIN = MONITORING / "plugins/traceloop"
PACKAGE = "llmops_monitoring_plugin_traceloop"


class Collector:
    """OTLP/HTTP on a free port: JSON and, where the packages are, protobuf."""

    def __init__(self) -> None:
        self.spans: list[dict[str, Any]] = []
        self.metrics: dict[str, list[dict[str, Any]]] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.peers: list[tuple[Any, str]] = []
        self.status, self.delay = 200, 0.0
        self.answer = ("", b"")  # content type and body
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                collector.peers.append((self.client_address, self.path))
                collector.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
                time.sleep(collector.delay)
                if collector.status == 200:
                    collector.take(self.path, self.headers["Content-Type"], body)
                self.send_response(collector.status)
                kind, told = collector.answer
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(told)))
                if collector.status in (302, 307):
                    self.send_header("Location", "/elsewhere")
                self.end_headers()
                self.wfile.write(told)

            do_GET = do_POST  # what following a redirect would make of it

            def log_message(self, *_args: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def take(self, path: str, kind: str, body: bytes) -> None:
        data = json.loads(body) if kind == "application/json" else _from_protobuf(path, body)
        for resource in data.get("resourceSpans", []):
            for scope in resource["scopeSpans"]:
                for span in scope["spans"]:
                    self.spans.append(
                        span
                        | {
                            "attributes": _plain(span["attributes"]),
                            "resource": _plain(resource["resource"]["attributes"]),
                        }
                    )
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for resource in data.get("resourceMetrics", []):
            for scope in resource["scopeMetrics"]:
                for metric in scope["metrics"]:
                    for point in (metric.get("histogram") or metric["sum"])["dataPoints"]:
                        plain = {"attributes": _plain(point.get("attributes", [])), "unit": metric["unit"]}
                        # A series that is new begins with a zero; what is told after it counts.
                        found.setdefault(metric["name"], {})[str(plain["attributes"])] = point | plain
        # Cumulative: the last request has it all.
        self.metrics.update({name: list(points.values()) for name, points in found.items()})

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def _from_protobuf(path: str, body: bytes) -> dict[str, Any]:
    from google.protobuf.json_format import MessageToDict
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    message = ExportTraceServiceRequest() if path.endswith("traces") else ExportMetricsServiceRequest()
    message.ParseFromString(body)
    found = MessageToDict(message)
    for resource in found.get("resourceSpans", []):
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:  # the one difference of the two JSONs that matters here
                for key in ("traceId", "spanId", "parentSpanId"):
                    if key in span:
                        span[key] = base64.b64decode(span[key]).hex()
                span["kind"] = {"SPAN_KIND_CLIENT": 3}[span["kind"]]
                if span.get("status", {}).get("code") == "STATUS_CODE_ERROR":
                    span["status"]["code"] = 2
    return found


def _plain(attributes: list[dict[str, Any]]) -> dict[str, Any]:
    def value(given: dict[str, Any]) -> Any:
        ((kind, content),) = given.items()
        if kind == "intValue":
            return int(content)
        return [value(item) for item in content["values"]] if kind == "arrayValue" else content

    return {item["key"]: value(item["value"]) for item in attributes}


def part(name: str) -> Any:
    """One file of the plugin, imported the way the runtime imports it."""
    if PACKAGE not in sys.modules:
        Plugin(PLUGIN).load()
    return importlib.import_module(f"{PACKAGE}.{name}")


def wait(condition: Callable[[], Any], within: float = 5.0) -> Any:
    end = time.monotonic() + within
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)
    return found


def call(main: Any, *, outcome: str = "ok", error: Error | None = None, **fields: Any) -> Event:
    """One whole model call, its hooks in its private context as the runtime runs them."""
    event = Event("chat", "langgenius/ollama/ollama", "deepseek-r1:1.5b")
    event.stream, event.app_id, event.user, event.tenant_id = True, "app-1", "user-1", "tenant-1"
    event.parameters = {"temperature": 0.5, "num_predict": 64, "seed": 7, "mirostat": 1}
    event.server_address, event.server_port = "ollama.example", 11434
    event._prompt = lambda: [("system", "Be brief."), ("user", PROMPT)]
    for name, value in fields.items():
        setattr(event, name, value)
    event.context = contextvars.copy_context()
    event.start()
    event.context.run(main.before_invoke, event)
    if error is None:
        event.first_chunk = event.started + 0.25
        event.usage = {"prompt_tokens": 12, "completion_tokens": 31, "total_tokens": 43}
        event.finish_reason, event.response_model = "stop", event.model
    if event.content:
        event.content.add("Paris.")
    event.ended, event.outcome, event.error = event.started + 1.25, outcome, error
    event.context.run(main.on_error if outcome == "error" else main.after_invoke, event)
    return event
