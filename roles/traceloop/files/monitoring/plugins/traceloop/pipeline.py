# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A bounded queue of encoded spans and one background thread between a model call and the network.

A call encodes its span and appends it; whatever the collector does happens in the thread, which only joins bytes and
sends them: it holds the interpreter (a greenlet: the hub) for a fraction of a millisecond. One pipeline belongs to one
process: a forked child makes its own and leaves its copy of the parent's queue alone, so nothing is sent twice. The
thread is made at the first call, when gevent has long patched `threading`, and is then a greenlet.
"""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable

from .transport import Answer, Delivery

THREAD = "llmops-traceloop"
BATCH, BATCH_BYTES = 256, 262144
LONGEST_PAUSE = 30.0
ATTEMPTS = 6  # a batch that was answered with an error this often is tried one span at a time
COMPLAIN_AFTER = 3  # a collector that restarts is not worth a word


class Parcel:
    """One encoded span on its way."""

    __slots__ = ("data", "delivered", "tries")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.tries = 0
        self.delivered = 0  # by the pipeline, when this one last failed alone


class Pipeline:
    """Encoded spans in, batches out to `post(parts, seconds)`; `tick(seconds)` sends the metrics.

    `count` hears of every span that was dropped or delivered, and how many.
    """

    def __init__(
        self,
        post: Callable[[list[bytes], float], Answer],
        tick: Callable[[float], None],
        say: Callable[[str], None],
        count: Callable[[str, int], None],
        *,
        spans: int,
        size: int,
        interval: float,
        tick_every: float,
        timeout: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._post, self._tick, self._say, self._count, self._clock = post, tick, say, count, clock
        self._spans, self._size, self._timeout = spans, size, timeout
        self._interval, self._tick_every = interval, tick_every
        self._queue: collections.deque[Parcel] = collections.deque()
        # The garbage collector may end a stream, and so offer a span, in the middle of this very code: reentrant.
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._stop = self._over = self._late = False
        self._end: float | None = None
        self._next_tick = clock() + tick_every
        self._failures = 0
        self._complained: int | None = None  # how many were dropped before the trouble that was said
        self.waiting = self.bytes = 0  # what is being sent included
        self.dropped = self.delivered = self._said = 0
        self.problem = ""  # of the last try; empty after one that went well
        self._why = ""  # of the last drop
        self._thread = threading.Thread(target=self._work, name=THREAD, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def offer(self, data: bytes) -> None:
        """Queue one span, or count it as dropped. Never waits, and wakes nobody: the thread looks by itself."""
        with self._lock:
            if not self._stop and self.waiting < self._spans and self.bytes + len(data) <= self._size:
                self.waiting += 1
                self.bytes += len(data)
                self._queue.append(Parcel(data))
                return
        self._drop(1, "the process is stopping" if self._stop else "the queue is full")
        if self._over and not self._late:  # a call that outlived the plugins; nobody says it at the end
            self._late = True
            self._say(f"{self._figures()}; calls that end from now on are counted alone")

    def close(self, within: float) -> None:
        """Deliver what waits, for at most `within` seconds; what then remains is counted and said."""
        self._end = self._clock() + within
        self._stop = True
        self._wake.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(within)
        with self._lock:
            left, self.waiting, self.bytes = self.waiting, 0, 0
            self._queue.clear()
            self._over = True
        if left:
            self._drop(left, "the process stopped before they were delivered")
        if self.dropped > self._said:
            self._say(self._figures())

    def step(self) -> float:
        """One round: what waits, and the metrics when they are due. Seconds until the next."""
        while self._queue and not self._stop and self._send():
            pass
        if self._clock() >= self._next_tick and not self._stop:
            self._tick(self._timeout)
            self._next_tick = self._clock() + self._tick_every
        if not self._stop:
            self._speak()
        return min(self._interval * 2**self._failures, max(LONGEST_PAUSE, self._interval))

    def _work(self) -> None:
        while not self._stop:
            self._wake.wait(self.step())
        while self._queue and self._left() > 0 and self._send():
            pass
        if self._left() > 0:
            self._tick(self._left())

    def _left(self) -> float:
        return self._timeout if self._end is None else min(self._timeout, self._end - self._clock())

    def _send(self) -> bool:
        """Send one batch; False when there is no use in sending the next one now."""
        batch = self._next_batch()
        try:
            outcome, problem, rejected = self._post([parcel.data for parcel in batch], self._left())
        except Exception as error:  # not one of the network's: the batch waits for its next try
            outcome, problem, rejected = Delivery.RETRY, type(error).__name__, 0
        if self._over:  # what this was is counted
            return False
        if outcome is Delivery.TAKEN:
            rejected = min(rejected, len(batch))
            self._failures, self.problem = 0, problem
            self.delivered += len(batch) - rejected
            self._count("exported_spans", len(batch) - rejected)
            self._leave(batch)
            if rejected:
                self._drop(rejected, problem)
            return True
        self.problem = problem
        if outcome is Delivery.REFUSED:
            self._leave(batch)
            self._drop(len(batch), problem)
            return True
        self._failures = min(self._failures + 1, 10)
        self._put_back(batch, answered=problem.startswith("HTTP"))
        return False

    def _next_batch(self) -> list[Parcel]:
        batch: list[Parcel] = []
        size = 0
        with self._lock:
            while self._queue and len(batch) < BATCH:
                parcel = self._queue[0]
                size += len(parcel.data)
                if batch and (size > BATCH_BYTES or parcel.tries >= ATTEMPTS):
                    break
                batch.append(self._queue.popleft())
                if parcel.tries >= ATTEMPTS:
                    break
        return batch

    def _put_back(self, batch: list[Parcel], answered: bool) -> None:
        """To the front; a span that was tried alone to the end, unless others were taken since: then it is the span."""
        for parcel in batch:
            parcel.tries += answered
        first = batch[0]
        with self._lock:
            if first.tries <= ATTEMPTS:
                self._queue.extendleft(reversed(batch))
                return
            if not first.delivered or first.delivered == self.delivered + 1:
                first.delivered = self.delivered + 1
                self._queue.append(first)
                return
        self._leave(batch)
        self._drop(1, self.problem)

    def _leave(self, batch: list[Parcel]) -> None:
        with self._lock:
            self.waiting -= len(batch)
            self.bytes -= sum(len(parcel.data) for parcel in batch)

    def _drop(self, spans: int, why: str) -> None:
        with self._lock:
            self.dropped += spans
            self._why = self.problem or why
        self._count("dropped_spans", spans)

    def _figures(self) -> str:
        figures = f"{self.dropped} spans dropped so far, {self.delivered} delivered, {self.waiting} waiting"
        return f"{figures}: {self.problem or self._why}"

    def _speak(self) -> None:
        """Once when it goes wrong, and once when it is over."""
        dropped = self.dropped
        if self._complained is None and (self._failures >= COMPLAIN_AFTER or dropped > self._said):
            self._complained, self._said = self._said, dropped
            self._say(self._figures())
        elif self._complained is not None and not self.problem:
            self._say(f"spans are delivered again; {dropped - self._complained} were dropped meanwhile")
            self._complained, self._said = None, dropped
