# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Spans and metrics with the OpenTelemetry packages of the image: own providers, never the global ones.

Works with SDK 1.27 to the newest. The SDK's batch processor and periodic reader are left out: they restart themselves
in a forked child, which would then report the parent's figures as well, and they do not say what they drop. `Pipeline`
does both jobs.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any

import requests
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from . import names
from .config import Settings
from .pipeline import THREAD, Delivery, verdict

# Flask's instrumentation keeps the request's span here; a thread with a copied request context still sees it.
FLASK_SPAN = "opentelemetry-flask.span_key"
# What other instrumentations set to say: not this call.
SUPPRESS = (
    getattr(otel_context, "_SUPPRESS_INSTRUMENTATION_KEY", ""),
    "suppress_instrumentation",
    "suppress_language_model_instrumentation",
)
TRANSPORT_HEADERS = {
    *("accept", "accept-encoding", "connection", "host", "transfer-encoding", "user-agent"),
    *("content-encoding", "content-length", "content-type"),
}
LOGGERS = tuple(f"opentelemetry.exporter.otlp.proto.http.{name}" for name in ("trace_exporter", "metric_exporter"))


class _Quiet(logging.Filter):
    """Keeps our exporters' complaints out of Dify's log, where they would repeat for as long as a collector is away.

    Dify's own exporter uses the same loggers, in threads of other names. The last complaint is our report's reason.
    """

    def __init__(self, backend: Backend) -> None:
        super().__init__()
        self._backend = backend

    def filter(self, record: logging.LogRecord) -> bool:
        if record.threadName != THREAD:
            return True
        self._backend.complaint = record.getMessage()[:200]
        return False


class _Session(requests.Session):
    """Sends the headers of our settings and no others, follows no redirect, and remembers the last status.

    The exporters add OTEL_EXPORTER_OTLP_HEADERS, and requests adds ~/.netrc: both may hold another backend's key. They
    also count a redirect as success.
    """

    def __init__(self, headers: Mapping[str, str]) -> None:
        super().__init__()
        self._ours = dict(headers)
        self.status = 0

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        for name in [name for name in request.headers if name.lower() not in TRANSPORT_HEADERS]:
            del request.headers[name]
        request.headers.update(self._ours)
        self.status = 0
        response = super().send(request, **{**options, "allow_redirects": False})
        self.status = response.status_code
        return response


class _Handover(SpanProcessor):
    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def on_end(self, span: ReadableSpan) -> None:
        self._backend.offer(span)


class Backend:
    """What main.py asks of a backend; `Pipeline` calls `deliver` and `tick` in its thread."""

    kind = "sdk"

    def __init__(self, settings: Settings, resource: Mapping[str, Any]) -> None:
        # Not Resource.create: its detectors read the environment and search entry points for a quarter of a second.
        sdk_resource = Resource(dict(resource))
        self.offer: Any = None
        self.complaint = ""
        self._quiet = _Quiet(self)
        for logger in LOGGERS:
            _forget(logger)  # in a forked child: the parent's
            logging.getLogger(logger).addFilter(self._quiet)
        # All of them: a child of a request that Dify did not sample would be lost otherwise.
        self._tracers = TracerProvider(sampler=ALWAYS_ON, resource=sdk_resource, shutdown_on_exit=False)
        self._tracers.add_span_processor(_Handover(self))
        self._tracer = self._tracers.get_tracer(names.SCOPE)
        common: dict[str, Any] = {"timeout": max(1, int(settings.timeout))}
        if settings.certificate:
            common["certificate_file"] = settings.certificate
        self._session = _Session(settings.headers)
        self._spans = OTLPSpanExporter(endpoint=settings.traces_url, session=self._session, **common)
        self._counters: dict[str, int] = {}
        self._reader: InMemoryMetricReader | None = None
        self._histograms: dict[str, Any] = {}
        if settings.metrics:
            self._reader = InMemoryMetricReader()
            views = [
                View(instrument_name=name, aggregation=ExplicitBucketHistogramAggregation(boundaries=bounds))
                for name, bounds in names.BUCKETS.items()
            ]
            self._meters = MeterProvider([self._reader], sdk_resource, shutdown_on_exit=False, views=views)
            meter = self._meters.get_meter(names.SCOPE)
            self._histograms = {
                name: meter.create_histogram(name, names.UNITS[name], names.DESCRIPTIONS[name])
                for name in names.BUCKETS
            }
            for name in (names.DROPPED_SPANS, names.EXPORTED_SPANS):
                meter.create_observable_counter(
                    name, [self._observe(name)], names.UNITS[name], names.DESCRIPTIONS[name]
                )
            self._points = OTLPMetricExporter(
                endpoint=settings.metrics_url, session=_Session(settings.metrics_headers), **common
            )

    def _observe(self, name: str) -> Any:
        return lambda _options: [Observation(self._counters.get(name, 0))]

    def prepare(self) -> None:
        """In the thread: what sends spans makes none itself."""
        if SUPPRESS[0]:
            otel_context.attach(otel_context.set_value(SUPPRESS[0], True))

    def suppressed(self) -> bool:
        return any(key and otel_context.get_value(key) for key in SUPPRESS)

    def begin(self, name: str, attributes: dict[str, Any], started: int) -> Span:
        span: Any = self._tracer.start_span(
            name, context=_parent(), kind=trace.SpanKind.CLIENT, attributes=attributes, start_time=started
        )
        return span

    def activate(self, span: Span) -> str:
        """Make it the current span of the call's private context, so that what the call does is its child."""
        otel_context.attach(trace.set_span_in_context(span))
        ids = span.get_span_context()
        return f"00-{ids.trace_id:032x}-{ids.span_id:016x}-01"

    def end(self, span: Span, attributes: dict[str, Any], error: str, ended: int) -> None:
        span.set_attributes(attributes)
        if error:
            span.set_status(trace.Status(trace.StatusCode.ERROR, error))
        span.end(ended)

    def record(self, metric: str, value: float, attributes: dict[str, Any]) -> None:
        if metric in self._histograms:
            self._histograms[metric].record(value, attributes)

    def deliver(self, batch: list[ReadableSpan]) -> Delivery:
        self._session.status = 0
        done = self._spans.export(batch) is SpanExportResult.SUCCESS
        if not self._session.status:  # no answer
            return Delivery.TAKEN if done else Delivery.RETRY
        outcome = verdict(self._session.status)
        self.complaint = "" if outcome is Delivery.TAKEN else f"HTTP {self._session.status}"
        return outcome

    def tick(self, counters: Mapping[str, int]) -> None:
        if self._reader:
            self._counters = dict(counters)
            data = self._reader.get_metrics_data()
            if data and data.resource_metrics:
                self._points.export(data)

    def close(self) -> None:
        """Let an exporter that waits for its next try give up. The private providers hold no thread to stop."""
        self._spans.shutdown()
        if self._reader:
            self._points.shutdown()
        for logger in LOGGERS:
            _forget(logger)


def _forget(logger: str) -> None:
    for known in [item for item in logging.getLogger(logger).filters if type(item).__name__ == _Quiet.__name__]:
        logging.getLogger(logger).removeFilter(known)


def _parent() -> Any:
    """The current context if it has a span, else the request's span where Dify's own tracing made one, else none.

    Dify runs a call in a thread. From 1.14 its context comes along; before, only Flask's request does.
    """
    if trace.get_current_span().get_span_context().is_valid:
        return otel_context.get_current()
    flask = sys.modules.get("flask")
    if flask and flask.has_request_context():
        span = flask.request.environ.get(FLASK_SPAN)
        if span is not None and span.get_span_context().is_valid:
            return trace.set_span_in_context(span)
    return None
