# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cumulative histograms of one process, as OTLP's JSON writes them.

Ours and not the SDK's: that one collects and encodes all series in one go, tens of milliseconds in which no greenlet
runs. Here they come in pieces.
"""

from __future__ import annotations

import bisect
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from . import names

SERIES = 1000  # distinct sets of attributes per process and metric
PIECE = 4  # points that are encoded in one go
CUMULATIVE = 2
_OVERFLOW = (("otel.metric.overflow", True),)


class _Point:
    __slots__ = ("counts", "high", "low", "total")

    def __init__(self, buckets: int) -> None:
        self.counts = [0] * (buckets + 1)
        self.total, self.low, self.high = 0.0, float("inf"), float("-inf")


class Metrics:
    def __init__(self) -> None:
        self._lock = threading.RLock()  # reentrant: the garbage collector may end a stream in the middle of this code
        self._series: dict[str, dict[tuple[Any, ...], _Point]] = {metric: {} for metric in names.BUCKETS}
        self._since = str(time.time_ns())

    def record(self, metric: str, value: float, attributes: Mapping[str, Any]) -> None:
        bounds, series, key = names.BUCKETS[metric], self._series[metric], tuple(attributes.items())
        with self._lock:
            if key not in series and len(series) >= SERIES:
                key = _OVERFLOW
            point = series.get(key)
            if point is None:
                point = series[key] = _Point(len(bounds))
            point.counts[bisect.bisect_left(bounds, value)] += 1
            point.total += value
            point.low, point.high = min(point.low, value), max(point.high, value)

    def pieces(self, counters: Mapping[str, int]) -> Iterator[list[dict[str, Any]]]:
        """All there is, some points at a time; each piece is a list of OTLP metrics."""
        for metric, series in self._series.items():
            keys = list(series)
            for start in range(0, len(keys), PIECE):
                data = [self._histogram(metric, key, series[key]) for key in keys[start : start + PIECE]]
                yield [_head(metric) | {"histogram": {"aggregationTemporality": CUMULATIVE, "dataPoints": data}}]
        found = []
        for metric, count in counters.items():
            point = {**self._times(), "attributes": [], "asInt": str(count)}
            total = {"aggregationTemporality": CUMULATIVE, "isMonotonic": True, "dataPoints": [point]}
            found.append(_head(metric) | {"sum": total})
        yield found

    def _histogram(self, metric: str, key: tuple[Any, ...], point: _Point) -> dict[str, Any]:
        with self._lock:
            counts, total, low, high = list(point.counts), point.total, point.low, point.high
        return {
            **self._times(),
            "attributes": attributes_of(dict(key)),
            "count": str(sum(counts)),
            "sum": total,
            "min": low,
            "max": high,
            "bucketCounts": [str(count) for count in counts],
            "explicitBounds": list(names.BUCKETS[metric]),
        }

    def _times(self) -> dict[str, str]:
        return {"startTimeUnixNano": self._since, "timeUnixNano": str(time.time_ns())}


def _head(metric: str) -> dict[str, Any]:
    return {"name": metric, "unit": names.UNITS[metric], "description": names.DESCRIPTIONS[metric]}


def attributes_of(values: Mapping[str, Any]) -> list[dict[str, Any]]:
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
