# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Spans and metrics with the standard library alone: OTLP as JSON over http.client.

For images without OpenTelemetry's OTLP/HTTP exporter (Dify before 1.3).
"""

from __future__ import annotations

import bisect
import http.client
import json
import os
import ssl
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

from . import names
from .config import Settings
from .pipeline import Delivery, verdict

SERIES = 1000  # distinct sets of attributes per process and metric
CLIENT, ERROR, CUMULATIVE = 3, 2, 2


class Span:
    """One span of a trace of its own."""

    __slots__ = ("attributes", "ended", "error", "name", "span_id", "started", "trace_id")

    def __init__(self, name: str, attributes: dict[str, Any], started: int) -> None:
        self.name, self.attributes, self.started = name, attributes, started
        self.trace_id, self.span_id = os.urandom(16).hex(), os.urandom(8).hex()
        self.ended, self.error = 0, ""


class Backend:
    """What main.py asks of a backend; `Pipeline` calls `deliver` and `tick` in its thread."""

    kind = "stdlib"

    def __init__(self, settings: Settings, resource: Mapping[str, Any]) -> None:
        self._settings = settings
        self._resource = {"attributes": _attributes(resource)}
        self._metrics = Metrics()
        self.offer: Any = None
        self.complaint = ""

    def prepare(self) -> None:
        """Nothing to set up in the thread."""

    def suppressed(self) -> bool:
        return False

    def begin(self, name: str, attributes: dict[str, Any], started: int) -> Span:
        return Span(name, attributes, started)

    def activate(self, span: Span) -> str:
        return f"00-{span.trace_id}-{span.span_id}-01"

    def end(self, span: Span, attributes: dict[str, Any], error: str, ended: int) -> None:
        span.attributes.update(attributes)
        span.error, span.ended = error, ended
        self.offer(span)

    def record(self, metric: str, value: float, attributes: dict[str, Any]) -> None:
        self._metrics.record(metric, value, attributes)

    def deliver(self, batch: list[Span]) -> Delivery:
        scope = {"scope": {"name": names.SCOPE}, "spans": [_span(span) for span in batch]}
        body = {"resourceSpans": [{"resource": self._resource, "scopeSpans": [scope]}]}
        outcome, self.complaint = post(self._settings.traces_url, self._settings.headers, body, self._settings)
        return outcome

    def tick(self, counters: Mapping[str, int]) -> None:
        metrics = self._metrics.collect(counters)
        if metrics:
            scope = {"scope": {"name": names.SCOPE}, "metrics": metrics}
            body = {"resourceMetrics": [{"resource": self._resource, "scopeMetrics": [scope]}]}
            post(self._settings.metrics_url, self._settings.metrics_headers, body, self._settings)

    def close(self) -> None:
        """Nothing is held open between two posts."""


class Metrics:
    """Cumulative histograms."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._series: dict[str, dict[tuple[Any, ...], list[Any]]] = {}
        self._since = time.time_ns()

    def record(self, metric: str, value: float, attributes: dict[str, Any]) -> None:
        bounds = names.BUCKETS[metric]
        key = tuple(sorted(attributes.items()))
        with self._lock:
            series = self._series.setdefault(metric, {})
            if key not in series and len(series) >= SERIES:
                key = (("otel.metric.overflow", True),)
            point = series.setdefault(key, [[0] * (len(bounds) + 1), 0.0, value, value])
            point[0][bisect.bisect_left(bounds, value)] += 1
            point[1] += value
            point[2], point[3] = min(point[2], value), max(point[3], value)

    def collect(self, counters: Mapping[str, int]) -> list[dict[str, Any]]:
        now = {"startTimeUnixNano": str(self._since), "timeUnixNano": str(time.time_ns())}
        with self._lock:
            copies = {
                metric: [(key, list(point[0]), *point[1:]) for key, point in series.items()]
                for metric, series in self._series.items()
            }
        found = []
        for metric, points in copies.items():
            data = [
                {
                    **now,
                    "attributes": _attributes(dict(key)),
                    "count": str(sum(counts)),
                    "sum": total,
                    "min": low,
                    "max": high,
                    "bucketCounts": [str(count) for count in counts],
                    "explicitBounds": list(names.BUCKETS[metric]),
                }
                for key, counts, total, low, high in points
            ]
            found.append(_head(metric) | {"histogram": {"aggregationTemporality": CUMULATIVE, "dataPoints": data}})
        for metric, count in counters.items():
            data = [{**now, "attributes": [], "asInt": str(count)}]
            total_sum = {"aggregationTemporality": CUMULATIVE, "isMonotonic": True, "dataPoints": data}
            found.append(_head(metric) | {"sum": total_sum})
        return found


def _head(metric: str) -> dict[str, Any]:
    return {"name": metric, "unit": names.UNITS[metric], "description": names.DESCRIPTIONS[metric]}


def _span(span: Span) -> dict[str, Any]:
    return {
        "traceId": span.trace_id,
        "spanId": span.span_id,
        "name": span.name,
        "kind": CLIENT,
        "flags": 1,
        "startTimeUnixNano": str(span.started),
        "endTimeUnixNano": str(span.ended),
        "attributes": _attributes(span.attributes),
        "status": {"code": ERROR, "message": span.error} if span.error else {},
    }


def _attributes(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in values.items()]


def _value(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, (list, tuple)):
        return {"arrayValue": {"values": [_value(item) for item in value]}}
    return {"stringValue": str(value)}


def post(url: str, headers: Mapping[str, str], body: Any, settings: Settings) -> tuple[Delivery, str]:
    """One POST, and what was wrong with it."""
    data = json.dumps(body, separators=(",", ":")).encode()
    connection, target = _connection(url, settings)
    try:
        connection.request("POST", target, data, {"Content-Type": "application/json", "Connection": "close", **headers})
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return Delivery.RETRY, type(error).__name__
    finally:
        connection.close()
    outcome = verdict(status)
    return outcome, "" if outcome is Delivery.TAKEN else f"HTTP {status}"


def _connection(url: str, settings: Settings) -> tuple[http.client.HTTPConnection, str]:
    parts = urllib.parse.urlsplit(url)
    host, secure = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    proxy = None if urllib.request.proxy_bypass(host) else urllib.request.getproxies().get(parts.scheme)
    via = urllib.parse.urlsplit(proxy if "//" in proxy else f"//{proxy}") if proxy else None
    peer, peer_port = (via.hostname or "", via.port or 80) if via else (host, port)
    if secure:
        context = ssl.create_default_context(cafile=settings.certificate or None)
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            peer, peer_port, timeout=settings.timeout, context=context
        )
        if via:
            connection.set_tunnel(host, port)
        return connection, target
    connection = http.client.HTTPConnection(peer, peer_port, timeout=settings.timeout)
    return connection, url if via else target
