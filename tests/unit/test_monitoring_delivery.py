# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the traceloop plugin delivers: its queue under a clock of the test's own, its transport against real sockets."""

from __future__ import annotations

import gc
import http.server
import itertools
import socket
import sys
import threading
import time
import types
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.llmops.stack.tests.unit.monitoring_collector import Collector, part

pytest_plugins = ["ansible_collections.llmops.stack.tests.unit.monitoring_fixtures"]
SPAN = b"x" * 100


class Queue:
    """A pipeline whose thread is this test: its clock moves when it pauses."""

    def __init__(self, **changes: Any) -> None:
        self.now = 0.0
        self.answer: Callable[[list[bytes]], tuple[Any, ...]] = lambda _parts: ("TAKEN", "")
        self.sent: list[list[bytes]] = []
        self.tried: list[float] = []
        self.ticks: list[float] = []
        self.said: list[str] = []
        self.counted = {"dropped_spans": 0, "exported_spans": 0}
        options = {"spans": 50, "size": 1 << 20, "interval": 1, "tick_every": 60, "timeout": 10, **changes}
        self.pipeline = part("pipeline").Pipeline(
            self.post,
            lambda _within: self.ticks.append(self.now),
            self.said.append,
            self.count,
            clock=lambda: self.now,
            **options,
        )

    def post(self, parts: list[bytes], _within: float) -> Any:
        self.tried.append(self.now)
        outcome, *more = self.answer(parts)
        if outcome == "TAKEN":
            self.sent.append(parts)
        transport = part("transport")
        return transport.Answer(transport.Delivery[outcome], *more)

    def count(self, name: str, spans: int) -> None:
        self.counted[name] += spans

    def offer(self, *spans: bytes) -> None:
        for span in spans:
            self.pipeline.offer(span)

    def run(self, seconds: float, calls_per_round: int = 0) -> None:
        end = self.now + seconds
        while self.now < end:
            self.offer(*[SPAN] * calls_per_round)
            self.now += self.pipeline.step()

    @property
    def state(self) -> tuple[int, int, int]:
        return self.pipeline.dropped, self.pipeline.delivered, self.pipeline.waiting


def test_500_for_an_hour() -> None:
    queue = Queue()
    queue.answer = lambda _parts: ("RETRY", "HTTP 500")
    queue.run(3600, calls_per_round=3)
    pauses = [later - sooner for sooner, later in itertools.pairwise(queue.tried)]
    assert pauses[:6] == [2, 4, 8, 16, 30, 30] and max(pauses) == 30, "the pause grows, to half a minute"
    dropped, delivered, waiting = queue.state
    assert (delivered, waiting, queue.pipeline.bytes) == (0, 50, 5000), "what waits is bounded"
    assert dropped > 250
    assert len(queue.said) == 1 and queue.said[0].endswith("HTTP 500"), queue.said
    assert len(queue.ticks) >= 59, "the metrics have a collector of their own perhaps"

    queue.answer = lambda _parts: ("TAKEN", "")
    queue.run(31)
    assert queue.state == (dropped, 50, 0) and queue.pipeline.bytes == 0
    assert queue.counted == {"dropped_spans": dropped, "exported_spans": 50}
    assert queue.said[1:] == [f"spans are delivered again; {dropped} were dropped meanwhile"]
    queue.run(600, calls_per_round=1)
    assert len(queue.said) == 2


def test_a_short_trouble_is_worth_no_word_and_loses_nothing() -> None:
    queue = Queue()
    queue.offer(b"a", b"b")
    queue.answer = lambda _parts: ("RETRY", "ConnectionRefusedError")
    queue.run(3)
    queue.answer = lambda _parts: ("TAKEN", "")
    queue.run(5)
    assert queue.sent == [[b"a", b"b"]] and queue.said == []


def test_a_batch_that_is_refused_is_dropped_and_the_next_one_sent() -> None:
    queue = Queue()
    queue.offer(b"bad")
    queue.answer = lambda parts: ("REFUSED", "HTTP 400") if b"bad" in parts else ("TAKEN", "")
    queue.run(1)
    queue.offer(b"good")
    queue.run(1)
    assert queue.state == (1, 1, 0)
    assert queue.said == [
        "1 spans dropped so far, 0 delivered, 0 waiting: HTTP 400",
        "spans are delivered again; 1 were dropped meanwhile",
    ]


def test_one_span_that_no_backend_can_digest_does_not_hold_up_the_others() -> None:
    """A 500 for it alone: it is found, and only it is dropped."""
    queue = Queue()
    queue.offer(*[b"%d" % number for number in range(20)])
    queue.answer = lambda parts: ("RETRY", "HTTP 500") if b"7" in parts else ("TAKEN", "")
    queue.run(3600)
    assert queue.state == (1, 19, 0)
    assert sorted(int(span) for parts in queue.sent for span in parts) == [n for n in range(20) if n != 7]


def test_an_outage_without_an_answer_never_costs_a_span_that_there_is_room_for() -> None:
    queue = Queue()
    queue.offer(*[SPAN] * 50)
    queue.answer = lambda _parts: ("RETRY", "TimeoutError")
    queue.run(86400)
    assert queue.state == (0, 0, 50)


def test_batches_are_small_enough_to_hold_up_nobody() -> None:
    pipeline = part("pipeline")
    queue = Queue(spans=10_000, size=1 << 26)
    large = b"x" * (pipeline.BATCH_BYTES // 3)
    queue.offer(*[SPAN] * 600, *[large] * 7, b"y" * (2 * pipeline.BATCH_BYTES), SPAN)
    queue.run(1)
    assert sum(len(parts) for parts in queue.sent) == 609
    assert max(len(parts) for parts in queue.sent) <= pipeline.BATCH
    sizes = [sum(map(len, parts)) for parts in queue.sent if len(parts) > 1]
    assert max(sizes) <= pipeline.BATCH_BYTES


def test_memory_is_bounded_in_bytes() -> None:
    queue = Queue(size=1000)
    queue.offer(*[SPAN] * 10, b"")
    assert (queue.state, queue.pipeline.bytes) == ((0, 0, 11), 1000)
    queue.offer(SPAN)
    assert queue.state == (1, 0, 11)
    queue.run(2)
    assert queue.said == [
        "1 spans dropped so far, 11 delivered, 0 waiting: the queue is full",
        "spans are delivered again; 1 were dropped meanwhile",
    ]


def test_what_post_raises_is_a_try_that_failed() -> None:
    queue = Queue()

    def broken(_parts: list[bytes]) -> tuple[str, str]:
        raise KeyError("x")

    queue.offer(SPAN)
    queue.answer = broken
    queue.run(20)
    assert queue.state == (0, 0, 1) and queue.said[0].endswith("KeyError")


def test_close_sends_what_waits_and_the_metrics() -> None:
    queue = Queue(interval=3600)
    queue.pipeline.start()
    queue.offer(*[SPAN] * 40)
    queue.pipeline.close(5)
    queue.offer(SPAN)
    assert queue.state == (1, 40, 0) and len(queue.ticks) == 1
    assert [text for text in queue.said if text.startswith("1 spans dropped so far, 40 delivered, 0 waiting: ")]
    queue.offer(SPAN)
    assert queue.state == (2, 40, 0) and len(queue.said) == 1, "counted, and said once"


def test_what_the_backend_took_and_rejected_is_dropped() -> None:
    queue = Queue()
    queue.answer = lambda _parts: ("TAKEN", "rejected", 2)
    queue.offer(*[SPAN] * 5)
    queue.run(1)
    queue.offer(SPAN)
    queue.run(1)
    assert queue.state == (3, 3, 0), "and no more than there were"
    assert queue.counted == {"dropped_spans": 3, "exported_spans": 3} and queue.pipeline.bytes == 0
    queue.answer = lambda _parts: ("TAKEN", "")
    queue.offer(SPAN)
    queue.run(2)
    assert queue.said == [
        "2 spans dropped so far, 3 delivered, 0 waiting: rejected",
        "spans are delivered again; 3 were dropped meanwhile",
    ]


def test_close_does_not_wait_for_a_collector_that_is_stuck() -> None:
    queue = Queue(interval=0.01)
    stuck = threading.Event()
    queue.answer = lambda _parts: (stuck.wait(20), ("RETRY", "TimeoutError"))[1]
    queue.offer(*[SPAN] * 4)
    queue.pipeline.start()
    while not queue.tried:
        time.sleep(0.001)
    began = time.monotonic()
    queue.pipeline.close(0.1)
    assert time.monotonic() - began < 2
    stuck.set()
    assert queue.state[0] == 4
    assert queue.said == [
        "4 spans dropped so far, 0 delivered, 0 waiting: the process stopped before they were delivered"
    ]


def test_the_garbage_collector_may_offer_a_span_within_an_offer() -> None:
    queue = Queue(spans=100_000)

    class Stream:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            queue.offer(SPAN)

    thresholds = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for _ in range(2000):
            Stream()
            queue.offer(SPAN)
    finally:
        gc.set_threshold(*thresholds)
    gc.collect()
    assert queue.pipeline.waiting == 4000 and queue.pipeline.bytes == 4000 * len(SPAN)


def transport(url: str, headers: dict[str, str] | None = None, **options: Any) -> Any:
    return part("transport").Transport(url, headers or {}, "application/json", **options)


def said(result: Any) -> tuple[str, str]:
    return result.delivery.name, result.problem


@pytest.mark.parametrize(
    ("kind", "body", "rejected"),
    [
        ("application/json", b'{"partialSuccess": {"rejectedSpans": "3", "errorMessage": "no"}}', 3),
        ("application/json; charset=utf-8", b'{"partialSuccess": {"rejectedDataPoints": 2}}', 2),
        ("application/json", b'{"partialSuccess": {"errorMessage": "a warning"}}', 0),
        ("application/json", b'{"partialSuccess": {"rejectedSpans": ' + b"9" * 5000, 0),
        ("application/json", b"", 0),
        ("application/json", b"[]", 0),
        ("application/x-protobuf", b"\x0a\x07\x08\x96\x01\x12\x02no", 150),
        ("application/x-protobuf", b"\x0a\x07\x12\x02no\x08\x96\x01", 150),
        ("application/x-protobuf", b"\x0a\x04\x12\x02no", 0),
        ("application/x-protobuf", b"\x0a\x0b\x08" + b"\xff" * 9 + b"\x01", 0),
        ("application/x-protobuf", b"\x0a\x07\x08\x96", 0),
        ("application/x-protobuf", b"<html>", 0),
        ("application/x-protobuf", b"", 0),
        ("text/html", b'{"partialSuccess": {"rejectedSpans": 3}}', 0),
    ],
)
def test_a_partial_success_is_read(collector: Collector, kind: str, body: bytes, rejected: int) -> None:
    collector.answer = (kind, body)
    answer = transport(f"{collector.url}/v1/traces").post(b"{}", 5)
    assert (answer.delivery.name, answer.rejected, bool(answer.problem)) == ("TAKEN", rejected, rejected > 0)


def test_one_connection_serves_many_requests(collector: Collector) -> None:
    ours = transport(f"{collector.url}/v1/traces")
    for _ in range(3):
        assert said(ours.post(b"{}", 5)) == ("TAKEN", "")
    assert len({peer for peer, _path in collector.peers}) == 1
    ours.close()
    assert said(ours.post(b"{}", 5)) == ("TAKEN", "")


@pytest.mark.parametrize("status", [200, 503])
def test_a_connection_that_ended_meanwhile_is_made_again(collector: Collector, status: int) -> None:
    """A collector that was started anew, or that closes what is idle: not even a pause."""
    ours = transport(f"{collector.url}/v1/traces")
    ours.post(b"{}", 5)
    ours._connection.sock.shutdown(socket.SHUT_RDWR)
    collector.status = status
    assert said(ours.post(b"{}", 5))[0] == ("TAKEN" if status == 200 else "RETRY")


def test_only_our_headers_and_no_redirect(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=theirs")
    monkeypatch.setenv("NETRC", "/dev/null")
    collector.status = 307
    ours = transport(f"{collector.url}/v1/traces", {"authorization": "Bearer ours"})
    assert said(ours.post(b"{}", 5)) == ("REFUSED", "HTTP 307")
    ((path, headers),) = collector.requests
    assert (path, headers.keys()) == (
        "/v1/traces",
        {"host", "content-type", "content-length", "user-agent", "accept-encoding", "authorization"},
    )


def test_nobody_listens() -> None:
    assert said(transport("http://127.0.0.1:1/v1/traces").post(b"", 5)) == ("RETRY", "ConnectionRefusedError")


def test_a_name_is_found_while_python_ends(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """What gevent and Python 3.12 make of it; the whole of it is in the tests of the servers, on such a Python."""
    real = socket.getaddrinfo

    def ended(*_arguments: Any, **_options: Any) -> Any:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(socket, "getaddrinfo", ended)
    monkeypatch.setitem(sys.modules, "gevent.monkey", types.SimpleNamespace(get_original=lambda *_names: real))
    assert said(transport(f"{collector.url}/v1/traces").post(b"{}", 5)) == ("TAKEN", "")


@pytest.mark.parametrize("manner", ["silent", "drop by drop"])
def test_the_deadline_is_one_for_all(manner: str) -> None:
    """A byte now and then is an answer to a timeout of each read."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            peer, _address = server.accept()
            with peer:
                for byte in itertools.cycle(b"HTTP/1.1 200 OK\r\nX: 1\r\n"):
                    time.sleep(0.05)
                    try:
                        peer.send(bytes([byte]) if manner == "drop by drop" else b"")
                    except OSError:
                        return

        threading.Thread(target=serve, daemon=True).start()
        began = time.monotonic()
        ours = transport(f"http://127.0.0.1:{server.getsockname()[1]}/v1/traces")
        assert said(ours.post(b"x", 0.4)) == ("RETRY", "TimeoutError")
        assert time.monotonic() - began < 3
        assert ours._connection is None, "the answer, if it comes, must not be the next request's"


class Proxy(http.server.BaseHTTPRequestHandler):
    seen: list[tuple[str, str, str | None]]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_CONNECT()

    def do_CONNECT(self) -> None:
        self.seen.append((self.command, self.path, self.headers["Proxy-Authorization"]))
        self.send_response(200 if self.command == "POST" else 403)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_args: Any) -> None:
        pass


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://me:word@collector.example/v1/traces", ("POST", "http://collector.example/v1/traces", "Basic dTpw")),
        ("https://collector.example/v1/traces", ("CONNECT", "collector.example:443", "Basic dTpw")),
    ],
)
def test_a_proxy(url: str, expected: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    Proxy.seen = []
    server = http.server.HTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    for name in ("no_proxy", "NO_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(f"{url.split(':')[0]}_proxy", f"http://u:p@127.0.0.1:{server.server_port}")
    outcome = said(transport(url).post(b"{}", 5))
    server.shutdown()
    server.server_close()
    assert Proxy.seen == [expected]
    assert outcome == (("TAKEN", "") if expected[0] == "POST" else ("RETRY", "OSError"))


@pytest.mark.parametrize(("host", "direct"), [("otel_collector", True), ("collector.example", False), ("[::2]", False)])
def test_what_only_this_network_knows_is_reached_without_a_proxy(
    host: str, direct: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    assert (transport(f"http://{host}:4318/v1/traces")._proxy is None) == direct


def test_series_are_bounded_and_come_in_pieces() -> None:
    metrics, names = part("metrics"), part("names")
    ours = metrics.Metrics()
    for number in range(metrics.SERIES + 5):
        ours.record(names.DURATION, 1.0, {"n": number})
    list(ours.pieces({names.DROPPED_SPANS: 1}))
    ours.taken()
    pieces = list(ours.pieces({names.DROPPED_SPANS: 2}))
    points = [point for piece in pieces for point in piece.points]
    assert len(points) == metrics.SERIES + 1
    assert max(len(piece.points) for piece in pieces) == metrics.PIECE
    assert (points[-1].attributes, sum(points[-1].counts)) == ({"otel.metric.overflow": True}, 5)
    assert (pieces[-1].metric, pieces[-1].value) == (names.DROPPED_SPANS, 2)


def test_a_series_begins_with_a_zero_until_it_has_arrived() -> None:
    """How much a counter grew is seen only where it was there before: else the first calls of a process are not."""
    metrics, names = part("metrics"), part("names")
    ours = metrics.Metrics()

    def told() -> list[tuple[str, list[int], int]]:
        pieces = list(ours.pieces({names.DROPPED_SPANS: 1}))
        moments = [piece.now for piece in pieces]
        for series in {piece.metric for piece in pieces}:
            times = [piece.now for piece in pieces if piece.metric == series]
            assert times == sorted(times), "a zero is older than what follows it"
        assert min(moments) >= pieces[0].since
        return [(piece.metric, [sum(point.counts) for point in piece.points], piece.value) for piece in pieces]

    ours.record(names.DURATION, 1.0, {"n": 1})
    dropped: list[tuple[str, list[int], int]] = [(names.DROPPED_SPANS, [], 0), (names.DROPPED_SPANS, [], 1)]
    first = [(names.DURATION, [0], 0), (names.DURATION, [1], 0), *dropped]
    assert told() == first
    assert told() == first, "nobody took the first"
    ours.taken()
    ours.record(names.DURATION, 1.0, {"n": 2})
    assert told() == [(names.DURATION, [0], 0), (names.DURATION, [1, 1], 0), (names.DROPPED_SPANS, [], 1)]
    ours.taken()
    assert told() == [(names.DURATION, [1, 1], 0), (names.DROPPED_SPANS, [], 1)]
