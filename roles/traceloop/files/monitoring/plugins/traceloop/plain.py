# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Spans with the standard library alone, as OTLP's JSON. For images without OpenTelemetry."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from typing import Any

from . import names
from .metrics import Piece

CLIENT, ERROR, CUMULATIVE, SAMPLED = 3, 2, 2, 1
WHOLE = range(-(2**63), 2**63)  # what OTLP has an integer for
KEYS = {"traces": b"resourceSpans", "metrics": b"resourceMetrics"}


class Span:
    """One span of a trace of its own, or of another's."""

    __slots__ = ("attributes", "flags", "name", "parent_id", "span_id", "started", "trace_id")

    def __init__(self, name: str, attributes: dict[str, Any], started: int) -> None:
        self.name, self.attributes, self.started = name, attributes, started
        self.trace_id, self.span_id, self.parent_id = os.urandom(16).hex(), os.urandom(8).hex(), ""
        self.flags = SAMPLED  # for what the call itself sends on; the span is told in any case


class Backend:
    """What main.py asks of a backend. `offer` gets each span, encoded; `join` makes a request's body of several."""

    kind = "stdlib"
    content_type = "application/json"

    def __init__(self, resource: Mapping[str, Any], offer: Callable[[bytes], None]) -> None:
        self._resource = {"attributes": _pairs(resource)}
        self._offer = offer

    def suppressed(self) -> bool:
        return False

    def begin(self, name: str, attributes: dict[str, Any], started: int) -> Span:
        return Span(name, attributes, started)

    def activate(self, span: Span) -> str:
        """Make it the current span of the call's private context; what is sent along as `traceparent`."""
        return f"00-{span.trace_id}-{span.span_id}-{span.flags:02x}"

    def end(self, span: Span, attributes: dict[str, Any], error: str, ended: int) -> None:
        span.attributes.update(attributes)
        self._offer(self.span(span, error, ended))

    def span(self, span: Span, error: str, ended: int) -> bytes:
        told = {
            "traceId": span.trace_id,
            "spanId": span.span_id,
            "name": text(span.name),
            "kind": CLIENT,
            "flags": SAMPLED,
            "startTimeUnixNano": str(span.started),
            "endTimeUnixNano": str(ended),
            "attributes": _pairs(span.attributes),
            "status": {"code": ERROR, "message": text(error)} if error else {},
        }
        return self._encode({"scopeSpans": [{"scope": {"name": names.SCOPE}, "spans": [told]}]})

    def metric(self, piece: Piece) -> bytes:
        name = piece.metric
        told: dict[str, Any] = {"name": name, "unit": names.UNITS[name], "description": names.DESCRIPTIONS[name]}
        times = {"startTimeUnixNano": str(piece.since), "timeUnixNano": str(piece.now)}
        if piece.points:
            histograms = [
                {
                    **times,
                    "attributes": _pairs(point.attributes),
                    "count": str(sum(point.counts)),
                    "sum": point.total,
                    "min": point.low,
                    "max": point.high,
                    "bucketCounts": [str(count) for count in point.counts],
                    "explicitBounds": names.BUCKETS[name],
                }
                for point in piece.points
            ]
            told["histogram"] = {"aggregationTemporality": CUMULATIVE, "dataPoints": histograms}
        else:
            number = {**times, "attributes": [], "asInt": str(piece.value)}
            told["sum"] = {"aggregationTemporality": CUMULATIVE, "isMonotonic": True, "dataPoints": [number]}
        return self._encode({"scopeMetrics": [{"scope": {"name": names.SCOPE}, "metrics": [told]}]})

    def _encode(self, scopes: dict[str, Any]) -> bytes:
        return json.dumps({"resource": self._resource, **scopes}, separators=(",", ":")).encode()

    def join(self, signal: str, parts: list[bytes]) -> bytes:
        return b'{"%s":[%s]}' % (KEYS[signal], b",".join(parts))


def text(value: Any) -> str:
    """What UTF-8 can say of it: a model may stop in the middle of a character, and half of a pair is none."""
    return str(value).encode("utf-8", "replace").decode()


def fitting(value: Any) -> Any:
    """The number where OTLP has room for it, and else its text: a caller may ask for a seed of 2**70."""
    if isinstance(value, int) and value not in WHOLE:
        return hex(value)  # decimal refuses thousands of digits
    return value if not isinstance(value, float) or math.isfinite(value) else str(value)


def _pairs(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": text(key), "value": _value(value)} for key, value in values.items()]


def _value(value: Any) -> dict[str, Any]:
    value = fitting(value)
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, (list, tuple)):
        return {"arrayValue": {"values": [_value(item) for item in value]}}
    return {"stringValue": text(value)}
