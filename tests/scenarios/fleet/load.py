#!/usr/bin/env python3
"""Streams that people have open at one base URL of Ollama: so many at a time, each read to its end, then the next one.

    with Load("http://gateway1:11434", "speak", streams=20) as load:
        …what should not be noticed…
    assert not load.total.lost, load.total.told()

Only the standard library, so that it also runs inside a node or the upstream, where the network is theirs:

    docker exec -i llmops-upstream python3 - http://gateway1:11434 speak --seconds 10 < load.py
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import http.client
import json
import signal
import socket
import statistics
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterable, Mapping
from typing import Any

PATIENCE = 60.0  # seconds of silence after which a call counts as lost
RECOVER = 0.2  # seconds of rest after a call that came to nothing, so that a closed door is not hammered at

FINISHED = "finished"  # its last object says done
BROKEN = "broken"  # it began and has no such end
REFUSED = "refused"  # an HTTP status of 400 or more, nothing streamed
FAILED = "failed"  # no answer at all
LEFT = "left"  # the load went away from it, see stop()
OUTCOMES = (FINISHED, BROKEN, REFUSED, FAILED, LEFT)


@dataclasses.dataclass
class Call:
    """One stream. Moments are time.monotonic()'s."""

    began: float
    node: str = ""  # from the header X-Node; empty until the answer begins, and where nobody sets one
    status: int = 0
    first: float = 0.0  # seconds to its first object
    tokens: int = 0
    text: str = ""
    outcome: str = ""  # empty while it runs
    trouble: str = ""
    ended: float = 0.0


@dataclasses.dataclass
class Total:
    """What became of the calls that are over."""

    seconds: float
    outcomes: dict[str, int]
    nodes: dict[str, dict[str, int]]  # node -> outcome -> calls
    first: dict[str, float]  # seconds to the first object of those that had one: median, p99, longest
    tokens: int
    troubles: dict[str, int]

    @property
    def started(self) -> int:
        return sum(self.outcomes.values())

    @property
    def finished(self) -> int:
        return self.outcomes[FINISHED]

    @property
    def broken(self) -> int:
        return self.outcomes[BROKEN]

    @property
    def refused(self) -> int:
        return self.outcomes[REFUSED]

    @property
    def lost(self) -> int:
        """Calls that somebody would complain about."""
        return self.outcomes[BROKEN] + self.outcomes[REFUSED] + self.outcomes[FAILED]

    def told(self) -> str:
        counted = ", ".join(f"{number} {name}" for name, number in self.outcomes.items() if number)
        nodes = "; ".join(f"{name or 'no node'}: {self._of(name)}" for name in sorted(self.nodes))
        return (
            f"{self.started} calls in {self.seconds:.1f} s: {counted or 'none'}. {nodes}. "
            f"First object after {self.first['median']:.3f} s, p99 {self.first['p99']:.3f} s, "
            f"longest {self.first['longest']:.3f} s. {self.troubles or ''}"
        ).strip()

    def _of(self, node: str) -> str:
        return ", ".join(f"{number} {name}" for name, number in sorted(self.nodes[node].items()))


def total(calls: Iterable[Call], seconds: float) -> Total:
    """The sum of these calls, those that still run left out."""
    over = [call for call in calls if call.outcome]
    nodes: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for call in over:
        nodes[call.node][call.outcome] += 1
    waits = sorted(call.first for call in over if call.first) or [0.0]
    return Total(
        seconds=seconds,
        outcomes={name: sum(call.outcome == name for call in over) for name in OUTCOMES},
        nodes={name: dict(counts) for name, counts in nodes.items()},
        first={
            "median": statistics.median(waits),
            "p99": waits[int((len(waits) - 1) * 0.99)],
            "longest": waits[-1],
        },
        tokens=sum(call.tokens for call in over),
        troubles=dict(collections.Counter(call.trouble for call in over if call.trouble).most_common()),
    )


class Load:
    """Streams for as long as the `with` lasts; those that run at its end are read to their end."""

    def __init__(
        self,
        url: str,
        model: str,
        streams: int = 20,
        *,
        predict: int = 0,
        prompt: str = "Hello",
        headers: Mapping[str, str] | None = None,
        patience: float = PATIENCE,
        calls: int = 0,
    ) -> None:
        """predict: most tokens of one stream; calls: begin no more than so many. 0 for no limit."""
        parts = urllib.parse.urlsplit(url)
        self.address = (parts.hostname or "", parts.port or 80)
        self.path = parts.path.rstrip("/") + "/api/generate"
        body: dict[str, Any] = {"model": model, "prompt": prompt, "stream": True}
        if predict:
            body["options"] = {"num_predict": predict}
        self.body = json.dumps(body)
        self.headers = {"Content-Type": "application/json", **(headers or {})}
        self.patience = patience
        self.calls: list[Call] = []
        self.sockets: dict[int, socket.socket] = {}
        self.limit = calls
        self.stopping = threading.Event()
        self.leaving = threading.Event()
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self._read_on, daemon=True) for _number in range(streams)]
        self.began = self.ended = 0.0

    def __enter__(self) -> Load:
        self.began = time.monotonic()
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, kind: object, *unused: object) -> None:
        self.stop(leave=kind is not None)

    def stop(self, leave: bool = False) -> None:
        """Begin no more calls and wait for those that run; leave: go away from them, as endless ones need."""
        self.stopping.set()
        if leave:
            self.leaving.set()
        for thread in self.threads:
            while thread.is_alive():
                if leave:
                    self._hang_up()
                thread.join(0.2)
        self.ended = self.ended or time.monotonic()

    def _hang_up(self) -> None:
        """A thread that waits for its server, perhaps in the gateway's queue, sees the end of the stream at once."""
        with self.lock:
            sockets = list(self.sockets.values())
        for one in sockets:
            with contextlib.suppress(OSError):  # closed already
                one.shutdown(socket.SHUT_RDWR)

    def wait(self, seconds: float = 0.0) -> None:
        """Let so many seconds pass; without a number, until the last call of a limited load is over."""
        if seconds:
            self.stopping.wait(seconds)
        for thread in () if seconds else self.threads:
            while thread.is_alive() and not self.stopping.is_set():
                thread.join(0.1)

    # -- what was noticed

    @property
    def total(self) -> Total:
        return self.since(0.0)

    def since(self, moment: float) -> Total:
        """What became of the calls that began after this time.monotonic()."""
        with self.lock:
            calls = [call for call in self.calls if call.began >= moment]
        return total(calls, (self.ended or time.monotonic()) - max(moment, self.began))

    def running(self) -> collections.Counter[str]:
        """Calls under way by node; those under "" are queued, or nobody has answered yet."""
        with self.lock:
            return collections.Counter(call.node for call in self.calls if not call.outcome)

    # -- who asks

    def _next(self) -> Call | None:
        with self.lock:
            if self.stopping.is_set() or (self.limit and len(self.calls) >= self.limit):
                return None
            self.calls.append(Call(time.monotonic()))
            return self.calls[-1]

    def _read_on(self) -> None:
        while call := self._next():
            connection = http.client.HTTPConnection(*self.address, timeout=self.patience)
            outcome, trouble = self._read(connection, call)
            with self.lock:
                self.sockets.pop(id(call), None)
            connection.close()
            if self.leaving.is_set() and outcome in (BROKEN, FAILED):
                outcome, trouble = LEFT, ""
            call.ended, call.trouble = time.monotonic(), trouble
            call.outcome = outcome  # last: from here on it counts as over
            if outcome not in (FINISHED, LEFT):
                self.stopping.wait(RECOVER)

    def _read(self, connection: http.client.HTTPConnection, call: Call) -> tuple[str, str]:
        try:
            connection.connect()
            with self.lock:
                self.sockets[id(call)] = connection.sock
            connection.request("POST", self.path, body=self.body, headers=self.headers)
            answer = connection.getresponse()
            call.status = answer.status
            call.node = answer.getheader("X-Node") or ""
            if answer.status >= 400:
                return REFUSED, f"HTTP {answer.status} {answer.read(120).decode(errors='replace')}"
            while line := answer.readline():
                call.first = call.first or time.monotonic() - call.began
                event = json.loads(line)
                if "error" in event:
                    return BROKEN, str(event["error"])[:120]
                call.text += event.get("response", "")
                call.tokens += not event.get("done")
                if event.get("done"):
                    return FINISHED, ""
        except (OSError, http.client.HTTPException, ValueError) as problem:
            return (BROKEN if call.status else FAILED), type(problem).__name__
        return BROKEN, "the stream ended early"


def main(arguments: list[str]) -> int:
    """Print the total as JSON; SIGTERM and SIGINT are the end, too."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("model")
    parser.add_argument("--streams", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=0.0, help="0: until told to stop, or --calls are over")
    parser.add_argument("--calls", type=int, default=0)
    parser.add_argument("--predict", type=int, default=0)
    parser.add_argument("--header", action="append", default=[], metavar="NAME: VALUE")
    parser.add_argument("--leave", action="store_true", help="at the end, go away from streams that run")
    given = parser.parse_args(arguments)
    headers = dict(one.split(": ", 1) for one in given.header)
    load = Load(given.url, given.model, given.streams, predict=given.predict, headers=headers, calls=given.calls)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_unused: load.stopping.set())
    with load:
        load.wait(given.seconds)
        load.stop(leave=given.leave)
    print(json.dumps(dataclasses.asdict(load.total)))
    return int(bool(load.total.lost))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
