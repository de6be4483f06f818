# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Spans with the OpenTelemetry packages of the image, SDK 1.27 to the newest: in Dify's own trace, as protobuf.

Of the SDK only the spans and their encoding: an own provider, never the global one. Its processors, readers and
exporters restart themselves in a forked child, which would then report the parent's figures as well, encode again for
each try, and do not say what they drop.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.metrics.v1 import metrics_pb2 as pb
from opentelemetry.proto.resource.v1.resource_pb2 import Resource as ResourceMessage
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from . import names
from .metrics import Piece

# Flask's instrumentation keeps the request's span here; a thread with a copied request context still sees it.
FLASK_SPAN = "opentelemetry-flask.span_key"
# What other instrumentations set to say: not this call.
SUPPRESS = (
    getattr(otel_context, "_SUPPRESS_INSTRUMENTATION_KEY", ""),
    "suppress_instrumentation",
    "suppress_language_model_instrumentation",
)


class _Handover(SpanProcessor):
    def __init__(self, offer: Callable[[bytes], None]) -> None:
        self._offer = offer

    def on_end(self, span: ReadableSpan) -> None:
        self._offer(encode_spans([span]).SerializeToString())


class Backend:
    """What main.py asks of a backend. `offer` gets each span, encoded; `join` makes a request's body of several."""

    kind = "sdk"
    content_type = "application/x-protobuf"

    def __init__(self, resource: Mapping[str, Any], offer: Callable[[bytes], None]) -> None:
        self._resource = ResourceMessage(attributes=_pairs(resource))
        # Not Resource.create: its detectors read the environment and search entry points for a quarter of a second.
        # All are sampled: a child of a request that Dify did not sample would be lost otherwise.
        provider = TracerProvider(sampler=ALWAYS_ON, resource=Resource(dict(resource)), shutdown_on_exit=False)
        provider.add_span_processor(_Handover(offer))
        self._tracer = provider.get_tracer(names.SCOPE)

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

    def metric(self, piece: Piece) -> bytes:
        name = piece.metric
        times = {"start_time_unix_nano": piece.since, "time_unix_nano": piece.now}
        told = pb.Metric(name=name, unit=names.UNITS[name], description=names.DESCRIPTIONS[name])
        if piece.points:
            told.histogram.aggregation_temporality = pb.AGGREGATION_TEMPORALITY_CUMULATIVE
            told.histogram.data_points.extend(
                pb.HistogramDataPoint(
                    **times,
                    attributes=_pairs(point.attributes),
                    count=sum(point.counts),
                    sum=point.total,
                    min=point.low,
                    max=point.high,
                    bucket_counts=point.counts,
                    explicit_bounds=names.BUCKETS[name],
                )
                for point in piece.points
            )
        else:
            told.sum.aggregation_temporality = pb.AGGREGATION_TEMPORALITY_CUMULATIVE
            told.sum.is_monotonic = True
            told.sum.data_points.add(**times, as_int=piece.value)
        scope = pb.ScopeMetrics(scope=InstrumentationScope(name=names.SCOPE), metrics=[told])
        body = pb.ResourceMetrics(resource=self._resource, scope_metrics=[scope])
        return pb.MetricsData(resource_metrics=[body]).SerializeToString()

    def join(self, _signal: str, parts: list[bytes]) -> bytes:
        """Protobuf messages one after another are one message with the entries of all."""
        return b"".join(parts)


def _pairs(values: Mapping[str, Any]) -> list[Any]:
    kinds = {bool: "bool_value", int: "int_value", float: "double_value"}
    return [
        KeyValue(key=key, value=AnyValue(**{kinds.get(type(value), "string_value"): value}))
        for key, value in values.items()
    ]


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
