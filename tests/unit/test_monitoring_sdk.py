# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the traceloop plugin does with OpenTelemetry alone; `make monitoring` runs it with each of tests/otel."""

from __future__ import annotations

import base64
import importlib
import json
import os
import re
import threading
from collections.abc import Callable
from importlib import metadata
from typing import Any

import pytest
from ansible_collections.llmops.stack.tests.unit.monitoring_collector import PACKAGE, Collector, call

pytest.importorskip("opentelemetry.sdk")

from llmops_monitoring.event import Error

pytest_plugins = ["ansible_collections.llmops.stack.tests.unit.monitoring_fixtures"]


def test_the_release_is_the_one_that_was_asked_for() -> None:
    if "LLMOPS_OTEL" in os.environ:
        assert metadata.version("opentelemetry-sdk") == os.environ["LLMOPS_OTEL"]


@pytest.mark.parametrize("sampled", [True, False])
def test_the_call_joins_the_current_trace(collector: Collector, started: Callable[..., Any], sampled: bool) -> None:
    """Of one that Dify does not sample it is the first span: its parent never comes, nor may the daemon's spans."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON

    main = started(TRACELOOP_BASE_URL=collector.url)
    outgoing = importlib.import_module(f"{PACKAGE}.propagate").outgoing
    before = trace.get_tracer_provider()
    with (
        TracerProvider(sampler=ALWAYS_ON if sampled else ALWAYS_OFF)
        .get_tracer("dify")
        .start_as_current_span("request") as request
    ):
        event = call(main)
        assert trace.get_current_span() is request, "the caller's context is as it was"
        inner = event.context.run(trace.get_current_span).get_span_context()
        sent = event.context.run(outgoing.get)
    main.close()
    (span,) = collector.spans
    assert span["traceId"] == f"{request.get_span_context().trace_id:032x}"
    assert span.get("parentSpanId", "") == (f"{request.get_span_context().span_id:016x}" if sampled else "")
    assert span["spanId"] == f"{inner.span_id:016x}"
    assert span["flags"] == 1, "told in any case"
    assert inner.trace_flags.sampled is sampled
    assert sent == f"00-{span['traceId']}-{span['spanId']}-0{int(sampled)}"
    assert trace.get_tracer_provider() is before, "the global provider is Dify's"


def test_the_call_joins_the_request_that_its_thread_only_knows_through_flask(
    collector: Collector, started: Callable[..., Any]
) -> None:
    """Dify before 1.14: the thread copies Flask's request context and not OpenTelemetry's."""
    import flask
    import opentelemetry.instrumentation.flask as instrumentation
    from opentelemetry.sdk.trace import TracerProvider

    main = started(TRACELOOP_BASE_URL=collector.url)
    app = flask.Flask("dify")
    instrumentation.FlaskInstrumentor().instrument_app(app, tracer_provider=TracerProvider())
    seen: list[str] = []

    @app.route("/chat")
    def chat() -> str:
        from opentelemetry import trace

        seen.append(f"{trace.get_current_span().get_span_context().span_id:016x}")
        thread = threading.Thread(target=flask.copy_current_request_context(lambda: call(main)))
        thread.start()
        thread.join()
        return ""

    assert app.test_client().get("/chat").status_code == 200
    main.close()
    assert [span["parentSpanId"] for span in collector.spans] == seen


def test_the_stdlibs_json_is_otlp_to_the_letter(
    collector: Collector, started: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The published message types know every field; only ids differ, which OTLP writes in hex."""
    from google.protobuf.json_format import ParseDict
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    taken: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(collector, "take", lambda path, _kind, body: taken.append((path, json.loads(body))))
    main = started(TRACELOOP_BASE_URL=collector.url, LLMOPS_TRACELOOP_EXPORTER="stdlib")
    call(main)
    call(main, outcome="error", error=Error("ValueError", "", ""))
    main.close()
    for path, body in taken:
        for resource in body.get("resourceSpans", []):
            for span in resource["scopeSpans"][0]["spans"]:
                assert re.fullmatch("[0-9a-f]{32}", span["traceId"]) and re.fullmatch("[0-9a-f]{16}", span["spanId"])
                for key in ("traceId", "spanId"):
                    span[key] = base64.b64encode(bytes.fromhex(span[key])).decode()
        ParseDict(body, ExportTraceServiceRequest() if path.endswith("traces") else ExportMetricsServiceRequest())
    assert {path for path, _ in taken} == {"/v1/traces", "/v1/metrics"}


def test_suppressed_calls_make_no_span(collector: Collector, started: Callable[..., Any]) -> None:
    from opentelemetry import context

    main = started(TRACELOOP_BASE_URL=collector.url)
    token = context.attach(context.set_value("suppress_language_model_instrumentation", True))
    call(main)
    context.detach(token)
    main.close()
    assert collector.spans == []


def test_another_backends_headers_are_not_taken_from_the_environment(
    collector: Collector, started: Callable[..., Any]
) -> None:
    main = started(TRACELOOP_BASE_URL=collector.url, OTEL_EXPORTER_OTLP_HEADERS="authorization=theirs")
    call(main)
    main.close()
    assert collector.requests and "theirs" not in json.dumps(collector.requests)
