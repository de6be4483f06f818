# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Spans with the OpenTelemetry packages of the image, 1.27 to the newest: in Dify's own trace, and as protobuf.

Only their contexts and message types. The SDK's provider, processors and exporters are left out: they cost a call more
than all the rest of this, restart in a forked child, encode again for each try, and do not say what they drop.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue
from opentelemetry.proto.metrics.v1 import metrics_pb2 as pb
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1 import trace_pb2 as tb

from . import names, plain
from .metrics import Piece

# Flask's instrumentation keeps the request's span here; a thread with a copied request context still sees it.
FLASK_SPAN = "opentelemetry-flask.span_key"
# What other instrumentations set to say: not this call.
SUPPRESS = (
    getattr(otel_context, "_SUPPRESS_INSTRUMENTATION_KEY", ""),
    "suppress_instrumentation",
    "suppress_language_model_instrumentation",
)


class Backend(plain.Backend):
    kind = "sdk"
    content_type = "application/x-protobuf"

    def __init__(self, resource: Mapping[str, Any], offer: Callable[[bytes], None]) -> None:
        super().__init__(resource, offer)
        self._sender = Resource(attributes=_pairs(resource))
        self._scope = InstrumentationScope(name=names.SCOPE)

    def suppressed(self) -> bool:
        return any(key and otel_context.get_value(key) for key in SUPPRESS)

    def begin(self, name: str, attributes: dict[str, Any], started: int) -> plain.Span:
        """Always one, in the request's trace where there is one: also where Dify did not sample that.

        What Dify does not sample nobody sends. The call's span is then the first of that trace, not the child of a span
        that never comes; and what the call sends on says what Dify said, or the daemon's spans alone would follow.
        """
        span, parent = super().begin(name, attributes, started), _parent()
        if parent is not None:
            # No bit but this one: with 1.45's random bit beside it, the daemon's OpenTelemetry in Go refuses it all.
            span.trace_id, span.flags = f"{parent.trace_id:032x}", int(parent.trace_flags.sampled)
            if span.flags:
                span.parent_id = f"{parent.span_id:016x}"
        return span

    def activate(self, span: plain.Span) -> str:
        ids = trace.SpanContext(int(span.trace_id, 16), int(span.span_id, 16), False, trace.TraceFlags(span.flags))
        otel_context.attach(trace.set_span_in_context(trace.NonRecordingSpan(ids)))
        return super().activate(span)

    def span(self, span: plain.Span, error: str, ended: int) -> bytes:
        told = tb.Span(
            trace_id=bytes.fromhex(span.trace_id),
            span_id=bytes.fromhex(span.span_id),
            parent_span_id=bytes.fromhex(span.parent_id),
            name=plain.text(span.name),
            kind=tb.Span.SPAN_KIND_CLIENT,
            flags=plain.SAMPLED,
            start_time_unix_nano=span.started,
            end_time_unix_nano=ended,
            attributes=_pairs(span.attributes),
            status=tb.Status(code=tb.Status.STATUS_CODE_ERROR, message=plain.text(error)) if error else None,
        )
        scope = tb.ScopeSpans(scope=self._scope, spans=[told])
        body = tb.ResourceSpans(resource=self._sender, scope_spans=[scope])
        return tb.TracesData(resource_spans=[body]).SerializeToString()

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
        scope = pb.ScopeMetrics(scope=self._scope, metrics=[told])
        body = pb.ResourceMetrics(resource=self._sender, scope_metrics=[scope])
        return pb.MetricsData(resource_metrics=[body]).SerializeToString()

    def join(self, _signal: str, parts: list[bytes]) -> bytes:
        """Protobuf messages one after another are one message with the entries of all."""
        return b"".join(parts)


_KINDS = {bool: "bool_value", int: "int_value", float: "double_value"}


def _pairs(values: Mapping[str, Any]) -> list[Any]:
    return [KeyValue(key=plain.text(key), value=_value(value)) for key, value in values.items()]


def _value(value: Any) -> Any:
    value = plain.fitting(value)
    if isinstance(value, (list, tuple)):
        return AnyValue(array_value=ArrayValue(values=[_value(item) for item in value]))
    kind = _KINDS.get(type(value))
    return AnyValue(**{kind: value}) if kind else AnyValue(string_value=plain.text(value))


def _parent() -> Any:
    """Of the current span if there is one, else of the request's where Dify's own tracing made one, else none.

    Dify runs a call in a thread. From 1.14 its context comes along; before, only Flask's request does.
    """
    flask = sys.modules.get("flask")
    spans = [trace.get_current_span()]
    if flask and flask.has_request_context():
        spans.append(flask.request.environ.get(FLASK_SPAN))
    return next((ids for span in spans if span is not None and (ids := span.get_span_context()).is_valid), None)
