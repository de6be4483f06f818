# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A bounded queue and one background thread between a model call and the network.

A call only appends; whatever the collector does happens in the thread. One pipeline belongs to one process: a forked
child makes its own and leaves its copy of the parent's queue alone, so nothing is sent twice. The thread is made at the
first call, when gevent has long patched `threading`, and is then a greenlet.
"""

from __future__ import annotations

import collections
import enum
import threading
import time
from collections.abc import Callable
from typing import Any

BATCH = 10  # encoding a span takes some 0.1 ms, in which no greenlet runs: a call waits for one batch at most
THREAD = "llmops-traceloop"
ATTEMPTS = 6  # a batch that fails this often may itself be the trouble
LONGEST_PAUSE = 60.0
SAY_AGAIN = 60.0


class Delivery(enum.Enum):
    """What became of a batch."""

    TAKEN = 1
    RETRY = 2
    REFUSED = 3


def verdict(status: int) -> Delivery:
    """From an HTTP status. A redirect is a refusal: spans and a key go to the host they were meant for only."""
    if 200 <= status < 300:
        return Delivery.TAKEN
    return Delivery.RETRY if status in (408, 429) or status >= 500 else Delivery.REFUSED


class Pipeline:
    """Spans in, batches out to `deliver`; `tick` is called every `tick_every` seconds, for the metrics."""

    def __init__(
        self,
        deliver: Callable[[list[Any]], Delivery],
        tick: Callable[[], None],
        say: Callable[[str], None],
        why: Callable[[], str],
        *,
        capacity: int,
        interval: float,
        tick_every: float,
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        self._deliver, self._tick, self._say, self._why, self._prepare = deliver, tick, say, why, prepare
        self._capacity, self._interval, self._tick_every = capacity, interval, tick_every
        self._batch = min(BATCH, capacity)
        self._queue: collections.deque[Any] = collections.deque()
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._stop = self._pausing = False
        self._deadline = 0.0
        self._failures = self._attempts = 0
        self._sending = 0
        self._said_at, self._said = -SAY_AGAIN, 0
        self.dropped = self.delivered = 0
        self.problem = ""
        self._thread = threading.Thread(target=self._work, name=THREAD, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def offer(self, span: Any) -> None:
        """Queue one span, or count it as dropped. Never waits."""
        waiting = len(self._queue) + self._sending
        if self._stop or waiting >= self._capacity:
            self.drop(1, "the queue is full" if not self._stop else "the process is stopping")
            return
        self._queue.append(span)
        if waiting + 1 >= self._batch and not self._pausing and not self._wake.is_set():
            self._wake.set()

    def drop(self, count: int, why: str) -> None:
        with self._lock:
            self.dropped += count
            self.problem = self.problem or why

    def close(self, within: float) -> None:
        """Deliver what waits, for at most `within` seconds; what then remains is counted and said."""
        self._deadline = time.monotonic() + within
        self._stop = True
        self._wake.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(within)
        if left := len(self._queue) + self._sending:
            self.drop(left, "the process stopped before they were delivered")
            self._queue.clear()
        self._speak(force=True)

    def _work(self) -> None:
        self._prepare()
        next_tick = time.monotonic() + self._tick_every
        while not self._stop:
            self._wake.wait(self._pause())
            if not self._stop:
                self._wake.clear()
                self._drain()
                if time.monotonic() >= next_tick:
                    self._guarded_tick()
                    next_tick = time.monotonic() + self._tick_every
                self._speak()
        self._pausing = False
        while self._queue and time.monotonic() < self._deadline and self._send_one():
            pass
        if not self._queue and time.monotonic() < self._deadline:
            self._guarded_tick()

    def _pause(self) -> float:
        self._pausing = self._failures > 0
        return min(self._interval * 2**self._failures, max(LONGEST_PAUSE, self._interval))

    def _drain(self) -> None:
        while self._queue and not self._stop and self._send_one():
            pass

    def _send_one(self) -> bool:
        """Send one batch; False when there is no use in sending the next one now."""
        batch = [self._queue.popleft() for _ in range(min(self._batch, len(self._queue)))]
        self._sending = len(batch)
        try:
            outcome = self._deliver(batch)
        except Exception as error:  # an exporter's own exceptions; the batch waits for its next try
            self.problem, outcome = type(error).__name__, Delivery.RETRY
        if outcome is not Delivery.TAKEN:
            self.problem = self._why() or self.problem
        if outcome is Delivery.RETRY:
            self._failures = min(self._failures + 1, 10)
            self._attempts += 1
            if self._attempts < ATTEMPTS:
                self._queue.extendleft(reversed(batch))
                self._sending = 0
                return False
        self._sending = self._attempts = 0
        if outcome is Delivery.TAKEN:
            self._failures = 0
            self.problem = ""
            self.delivered += len(batch)
            return True
        self.drop(len(batch), "the backend did not take them")
        return outcome is Delivery.REFUSED

    def _guarded_tick(self) -> None:
        try:
            self._tick()
        except Exception as error:  # metrics are cumulative: the next tick carries what this one could not
            self.problem = self.problem or type(error).__name__

    def _speak(self, force: bool = False) -> None:
        now = time.monotonic()
        if self.dropped > self._said and (force or now - self._said_at >= SAY_AGAIN):
            why = self.problem or "no reason known"
            self._say(f"{self.dropped} spans dropped so far, {self.delivered} delivered: {why}")
            self._said, self._said_at = self.dropped, now
