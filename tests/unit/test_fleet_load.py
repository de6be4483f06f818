# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The load of the fleet's scenarios: what it counts as finished, broken, refused and failed decides those scenarios."""

from __future__ import annotations

import json
import pathlib
import socket
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from ansible_collections.llmops.stack.tests.scenarios.fleet import load as under_test
from ansible_collections.llmops.stack.tests.scenarios.fleet.load import Load
from ansible_collections.llmops.stack.tests.unit.servers.scripted import Reply, Request, Scripted, as_json

PROGRAM = pathlib.Path(under_test.__file__)


def lines(*words: str, done: bool = True) -> list[str]:
    events = [{"response": word, "done": False} for word in words] + [{"response": "", "done": True}] * done
    return [json.dumps(event) + "\n" for event in events]


def stream(*words: str, node: str = "node1", done: bool = True, ending: str = "end", pause: float = 0.0) -> Reply:
    return Reply(headers={"X-Node": node}, pieces=lines(*words, done=done), ending=ending, pause=pause)


def once(server: Scripted, **options: Any) -> under_test.Total:
    with server.running(), Load(server.url, "speak", streams=1, calls=1, **options) as load:
        load.wait()
    return load.total


def test_a_stream_with_its_last_object_is_finished() -> None:
    server = Scripted(lambda _request: stream("Hello", " there", node="node2"))
    found = once(server, predict=7)
    assert (found.started, found.finished, found.lost, found.tokens) == (1, 1, 0, 2)
    assert found.nodes == {"node2": {"finished": 1}}
    asked = server.requests[0]
    assert asked.path == "/api/generate"
    assert asked.json() == {"model": "speak", "prompt": "Hello", "stream": True, "options": {"num_predict": 7}}


def test_the_model_ends_by_itself_where_nothing_else_is_told() -> None:
    server = Scripted(lambda _request: stream("Hello"))
    once(server)
    assert "options" not in server.requests[0].json()


@pytest.mark.parametrize(
    ("reply", "outcome", "trouble"),
    [
        (stream("Hel", done=False), "broken", "the stream ended early"),
        (stream("Hel", done=False, ending="torn"), "broken", "Error"),
        (stream("Hel", done=False, ending="silence"), "broken", "TimeoutError"),
        (stream(done=False), "broken", "the stream ended early"),
        (Reply(pieces=[*lines("Hel", done=False), '{"error":"an error was encountered"}\n']), "broken", "an error was"),
        (as_json({"error": "busy"}, status=503), "refused", 'HTTP 503 {"error": "busy"}'),
        (as_json({"error": "model 'speak' not found"}, status=404), "refused", "HTTP 404"),
        (Reply(hang=True), "failed", "TimeoutError"),
    ],
)
def test_what_is_no_end(reply: Reply, outcome: str, trouble: str) -> None:
    found = once(Scripted(lambda _request: reply), patience=0.3)
    assert found.outcomes == {name: int(name == outcome) for name in under_test.OUTCOMES}
    assert (found.finished, found.lost) == (0, 1)
    (told,) = found.troubles
    assert trouble in told


def test_a_closed_port_is_a_failure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with Load(f"http://127.0.0.1:{port}", "speak", streams=1, calls=1) as load:
        load.wait()
    assert load.total.outcomes["failed"] == 1
    assert load.total.troubles == {"ConnectionRefusedError": 1}


def test_a_closed_door_is_not_hammered_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "RECOVER", 0.1)
    server = Scripted(lambda _request: as_json({"error": "busy"}, status=503))
    with server.running(), Load(server.url, "speak", streams=2) as load:
        load.wait(0.5)
    assert 2 <= load.total.refused <= 14


def test_so_many_at_a_time_and_each_to_its_end() -> None:
    at_work, most, lock = 0, 0, threading.Lock()

    def answer(_request: Request) -> Reply:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        time.sleep(0.1)
        with lock:
            at_work -= 1
        return stream("a", "b", pause=0.05)

    server = Scripted(answer)
    with server.running(), Load(server.url, "speak", streams=5) as load:
        load.wait(0.4)
    assert most == 5
    assert load.total.finished == load.total.started == len(server.requests) >= 5
    assert not load.running()


def test_the_first_token_is_not_the_last() -> None:
    server = Scripted(lambda _request: stream("a", "b", "c", pause=0.1))
    first = once(server).first
    assert 0.1 <= first["median"] < 0.3
    assert first["median"] == first["p99"] == first["longest"]


def test_what_runs_where_and_what_began_after() -> None:
    nodes = iter(["node1", "node1", "node2"])
    gate = threading.Event()

    def answer(request: Request) -> Reply:
        if request.headers.get("x-wait"):
            gate.wait(5)
        return stream("a", "b", node=next(nodes), pause=0.3)

    server = Scripted(answer)
    with server.running():
        with Load(server.url, "speak", streams=2, calls=2) as load:
            time.sleep(0.2)
            assert load.running() == {"node1": 2}
            moment = time.monotonic()
            assert load.since(moment).started == 0
        with Load(server.url, "speak", streams=1, calls=1, headers={"X-Wait": "1"}) as load:
            time.sleep(0.2)
            assert load.running() == {"": 1}
            gate.set()
    assert load.since(moment).nodes == {"node2": {"finished": 1}}


SILENT = stream("talk", done=False, ending="silence")
SILENT_LAST = Reply(headers={"Connection": "close"}, pieces=lines("talk", done=False), ending="silence")


@pytest.mark.parametrize("reply", [SILENT, SILENT_LAST, Reply(hang=True)])
def test_leaving_waits_for_nobody(reply: Reply) -> None:
    server = Scripted(lambda _request: reply)
    with server.running(), Load(server.url, "talker", streams=3) as load:
        time.sleep(0.3)
        begun = time.monotonic()
        load.stop(leave=True)
        assert time.monotonic() - begun < 2
    assert load.total.outcomes == {name: 3 * (name == "left") for name in under_test.OUTCOMES}
    assert not load.total.lost


def test_a_failing_test_is_not_kept_by_an_endless_stream() -> None:
    server = Scripted(lambda _request: SILENT)
    begun = time.monotonic()
    with server.running(), pytest.raises(AssertionError, match="of the test"), Load(server.url, "talker", streams=1):
        time.sleep(0.2)
        raise AssertionError("of the test")
    assert time.monotonic() - begun < 3


def test_the_sum_says_all_that_it_knows() -> None:
    replies = iter([stream("a"), stream("b", node="node2"), as_json({"error": "busy"}, status=503)])
    server = Scripted(lambda _request: next(replies))
    with server.running(), Load(server.url, "speak", streams=1, calls=3) as load:
        load.wait()
    told = load.total.told()
    assert "3 calls in" in told and "2 finished, 1 refused." in told
    assert "no node: 1 refused; node1: 1 finished; node2: 1 finished." in told
    assert "HTTP 503" in told


def test_it_runs_from_standard_input_and_tells_json() -> None:
    server = Scripted(lambda request: stream("a", node=request.headers["x-llmops-node"]))
    with server.running(), PROGRAM.open() as program:
        done = subprocess.run(
            [
                *(sys.executable, "-", server.url, "speak", "--streams", "2", "--calls", "4"),
                *("--header", "X-Llmops-Node: node3"),
            ],
            stdin=program,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=30,
        )
    told = json.loads(done.stdout)
    assert told["outcomes"]["finished"] == 4
    assert told["nodes"] == {"node3": {"finished": 4}}


def test_the_program_fails_where_a_call_was_lost() -> None:
    server = Scripted(lambda _request: as_json({"error": "busy"}, status=503))
    with server.running():
        assert under_test.main([server.url, "speak", "--streams", "1", "--calls", "1"]) == 1
