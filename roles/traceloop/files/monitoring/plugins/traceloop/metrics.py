# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cumulative histograms of one process.

Ours and not the SDK's: that one collects and encodes all series in one go, tens of milliseconds in which no greenlet
runs. Here they come in pieces.
"""

from __future__ import annotations

import bisect
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from . import names

SERIES = 1000  # distinct sets of attributes per process and metric
PIECE = 5  # points that are encoded in one go
_OVERFLOW = (("otel.metric.overflow", True),)


class Point(NamedTuple):
    """One series up to now."""

    attributes: dict[str, Any]
    counts: list[int]  # of each bucket
    total: float
    low: float
    high: float


class Piece(NamedTuple):
    """What one OTLP metric of a request is made of: histogram points, or for a counter its value."""

    metric: str
    since: int
    now: int
    points: list[Point]
    value: int = 0


class Metrics:
    def __init__(self) -> None:
        self._lock = threading.RLock()  # reentrant: the garbage collector may end a stream in the middle of this code
        # The four values of a series: counts, total, low, high.
        self._series: dict[str, dict[tuple[Any, ...], list[Any]]] = {metric: {} for metric in names.BUCKETS}
        self._since = self._looked = time.time_ns()
        self._told: set[tuple[str, Any]] = set()
        self._telling: set[tuple[str, Any]] = set()

    def record(self, metric: str, value: float, attributes: Mapping[str, Any]) -> None:
        bounds, series, key = names.BUCKETS[metric], self._series[metric], tuple(attributes.items())
        with self._lock:
            if key not in series and len(series) >= SERIES:
                key = _OVERFLOW
            found = series.setdefault(key, [[0] * (len(bounds) + 1), 0.0, value, value])
            found[0][bisect.bisect_left(bounds, value)] += 1
            found[1] += value
            found[2], found[3] = min(found[2], value), max(found[3], value)

    def pieces(self, counters: Mapping[str, int]) -> Iterator[Piece]:
        """All there is. A series that no request has carried yet begins with a zero at the time of the request before:
        Prometheus sees how much a series grew only where it was there before, and would miss its first calls."""
        before, self._looked, self._telling = self._looked, time.time_ns(), set()
        for metric, series in self._series.items():
            keys, nothing = list(series), [0] * (len(names.BUCKETS[metric]) + 1)
            for start in range(0, len(keys), PIECE):
                some = keys[start : start + PIECE]
                new = [key for key in some if (metric, key) not in self._told]
                if new:
                    yield Piece(metric, self._since, before, [Point(dict(key), nothing, 0.0, 0.0, 0.0) for key in new])
                with self._lock:
                    points = [Point(dict(key), list(series[key][0]), *series[key][1:]) for key in some]
                self._telling.update((metric, key) for key in some)
                yield Piece(metric, self._since, time.time_ns(), points)
        for metric, value in counters.items():
            if (metric, None) not in self._told:
                yield Piece(metric, self._since, before, [])
            self._telling.add((metric, None))
            yield Piece(metric, self._since, time.time_ns(), [], value)

    def taken(self) -> None:
        """The request made of the last pieces has arrived."""
        self._told = self._telling
