# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real HAProxy with the configuration that is made for it: who gets an answer, from which node, and when none."""

from __future__ import annotations

import itertools
import json
import pathlib
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ansible_collections.llmops.stack.tests.unit.servers.gateway import Node, Running, Stack, gateway, until

TEXT = 'x"y\\ {[ ö '


@pytest.fixture
def stack(
    tmp_path: pathlib.Path, run_module: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Stack]:
    with gateway(run_module, tmp_path, monkeypatch) as made:
        yield made


@pytest.fixture
def two(stack: Stack) -> tuple[Node, Node]:
    one, other = Node("one"), Node("two", "speak:latest", "only2:latest", "hf.co/you/repo:q4")
    stack.begin(one, other)
    return one, other


def long_body(kilobytes: int, order: str, model: str = "only2") -> bytes:
    """With another "model" deeper in it, as an argument of a tool has one."""
    call = {"function": {"name": "rent", "arguments": {"model": "speak", "doors": [1, {"model": "speak"}]}}}
    text = TEXT * (kilobytes * 1024 // len(json.dumps(TEXT)))
    messages = [{"role": "user", "content": text}, {"role": "assistant", "tool_calls": [call]}]
    body: dict[str, Any] = {"options": {"stop": ["]", "}"]}, "stream": True}
    if order == "first":
        return json.dumps({"model": model, **body, "messages": messages}).encode()
    return json.dumps({**body, "messages": messages, "model": model}).encode()


class TestRouting:
    @pytest.mark.parametrize("order", ["first", "last"])
    def test_a_model_is_found_in_bodies_of_any_length(self, stack: Stack, two: tuple[Node, Node], order: str) -> None:
        for kilobytes in (1, 15, 20, 200, 900):
            body = long_body(kilobytes, order)
            answer = stack.client.post("/api/chat", body)
            assert (answer.status, answer.node) == (200, "two"), kilobytes
            assert two[1].asked[-1]["bytes"] == len(body)

    @pytest.mark.parametrize("kilobytes", [17, 20, 200])
    def test_one_that_is_longer_than_the_buffer_needs_its_model_first(self, stack: Stack, kilobytes: int) -> None:
        stack.machine.buffer = 16384
        two = Node("two", "only2:latest", "speak:latest")
        stack.begin(two)
        answer = stack.client.post("/api/chat", long_body(kilobytes, "first"))
        assert (answer.status, answer.node) == (200, "two")
        refused = stack.client.post("/api/chat", long_body(kilobytes, "last"))
        assert refused.status == 413
        assert "Write the model before the messages" in refused.lines[0]["error"]
        assert len(two.asked) == 1

    @pytest.mark.parametrize(
        "name",
        ["only2", "only2:latest", "Only2", "library/only2", "registry.ollama.ai/library/only2:latest",
         "hf.co/you/repo:q4", "https://hf.co/you/repo:Q4"],
    )  # fmt: skip
    def test_every_name_of_a_model_leads_to_it(self, stack: Stack, two: tuple[Node, Node], name: str) -> None:
        two[1].models[name] = ""
        assert stack.client.chat(name).node == "two"
        assert two[1].asked[-1]["model"] == name  # the node is told what the client has said

    def test_slashes_may_be_escaped(self, stack: Stack, two: tuple[Node, Node]) -> None:
        for stuffing in ("", "x" * 1_200_000):
            body = b'{"model":"hf.co\\/you\\/repo:q4","prompt":"%s"}' % stuffing.encode()
            assert stack.client.post("/api/generate", body).node == "two"

    def test_all_that_names_a_model_is_passed_on(self, stack: Stack, two: tuple[Node, Node]) -> None:
        for path in ("/api/chat", "/api/generate", "/api/embed", "/api/embeddings", "/api/show", "/v1/chat/completions",
                     "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/messages"):  # fmt: skip
            answer = stack.client.post(path, {"model": "only2", "input": "x"})
            assert (answer.status, answer.node) == (200, "two"), path
        assert stack.client.post("/api/show", {"name": "only2"}).node == "two"
        assert stack.client.get("/v1/models/only2").node == "two"

    def test_a_body_in_pieces(self, stack: Stack, two: tuple[Node, Node]) -> None:
        body = long_body(40, "last")
        pieces = (body[start : start + 5000] for start in range(0, len(body), 5000))
        assert stack.client.request("POST", "/api/chat", pieces).node == "two"
        assert two[1].asked[-1]["bytes"] == len(body)

    def test_lists_are_those_of_all_nodes(self, stack: Stack, two: tuple[Node, Node]) -> None:
        listed = stack.client.get("/api/tags").lines[0]["models"]
        assert [one["name"] for one in listed] == ["hf.co/you/repo:q4", "only2:latest", "speak:latest"]
        assert {one["digest"] for one in listed} == {"a" * 64}
        openai = stack.client.get("/v1/models").lines[0]["data"]
        assert [one["id"] for one in openai] == [one["name"] for one in listed]
        assert stack.client.get("/api/version").lines[0]["version"] == "0.17.4"
        assert stack.client.get("/").status == 200


class TestRefusals:
    def test_an_unknown_model_gets_the_words_of_ollama(self, stack: Stack, two: tuple[Node, Node]) -> None:
        answer = stack.client.chat("nope")
        assert (answer.status, answer.lines) == (404, [{"error": "model 'nope' not found"}])
        assert answer.headers["Content-Type"] == "application/json"
        openai = stack.client.post("/v1/chat/completions", {"model": "nope"})
        assert openai.status == 404
        assert openai.lines[0]["error"]["message"] == "model 'nope' not found"
        assert stack.client.get("/v1/models/nope").status == 404

    def test_a_body_without_a_usable_name(self, stack: Stack, two: tuple[Node, Node]) -> None:
        for body in (b"", b"{}", b"[]", b'{"messages":[{"model":"speak"}]}', b'{"model":""}', b"speak"):
            answer = stack.client.post("/api/chat", body)
            assert (answer.status, answer.lines) == (400, [{"error": "model is required"}]), body
        for body in (b'{"model":"a b"}', b'{"model":"%s"}' % (b"x" * 600), b'{"model":"a\\nb"}'):
            answer = stack.client.post("/api/chat", body)
            assert (answer.status, answer.lines) == (400, [{"error": "invalid model name"}]), body
        assert not two[0].asked
        assert not two[1].asked

    def test_nothing_changes_models_through_it(self, stack: Stack, two: tuple[Node, Node]) -> None:
        for path in ("pull", "push", "create", "copy", "delete", "blobs/sha256:1"):
            answer = stack.client.request(
                "DELETE" if path == "delete" else "POST", f"/api/{path}", b'{"model":"speak"}'
            )
            assert answer.status == 403, path
            assert "changes no models" in answer.lines[0]["error"]
        assert stack.client.post("/api/pull", {"model": "speak"}, X_Llmops_Node="one").status == 403
        assert stack.client.get("/metrics").status == 404
        assert stack.client.get("/api/chat").status == 405
        assert not two[0].asked

    def test_who_has_no_key_is_refused_everywhere(self, stack: Stack) -> None:
        one = Node("one")
        stack.begin(one, key="s3cret")
        for headers in ({}, {"Authorization": "Bearer other"}, {"Authorization": "s3cret"}, {"X_Llmops_Node": "one"}):
            for path in ("/api/tags", "/api/ps", "/v1/models"):
                assert stack.client.get(path, **headers).status == 401
            assert stack.client.get("/api/version", **headers).status == 200
            assert stack.client.post("/api/version", b"{}", **headers).status == 401
            assert stack.client.post("/api/chat", {"model": "speak"}, **headers).status == 401
        answer = stack.client.post("/api/chat", {"model": "speak"}, Authorization="Bearer s3cret")
        assert answer.status == 200
        assert "Authorization" not in one.asked[-1]["headers"]
        assert (stack.home / "keys.lst").stat().st_mode & 0o777 == 0o600
        assert (stack.home / "settings.json").stat().st_mode & 0o777 == 0o600
        assert "s3cret" not in (stack.home / "haproxy.cfg").read_text()

    def test_no_node_is_up(self, stack: Stack, two: tuple[Node, Node]) -> None:
        two[1].kill()
        until(
            lambda: stack.client.chat("only2").status == 503 and "is up" in stack.client.chat("only2").lines[0]["error"]
        )
        assert stack.client.chat("only2").headers["Retry-After"] == "2"
        assert stack.client.chat("speak").status == 200


class TestQueue:
    def test_as_many_as_a_node_takes_and_the_rest_waits(self, stack: Stack) -> None:
        one, two = Node("one"), Node("two")
        for node in (one, two):
            node.pause = 0.2  # long enough that all twelve have asked before the first four are done
        stack.begin(one, two, parallel=2)
        answers = Running(stack.client, 12).done()
        assert [answer.status for answer in answers] == [200] * 12
        assert all(answer.whole for answer in answers)
        assert (one.most, two.most) == (2, 2)
        assert {answer.node for answer in answers} == {"one", "two"}

    def test_a_full_queue_says_so_at_once(self, stack: Stack) -> None:
        one = Node("one")
        one.pause = 0.25
        stack.begin(one, max_queue=2)
        running = Running(stack.client, 3)
        until(lambda: stack.seen()["models"]["speak:latest"]["queued"] == 2)
        refused = stack.client.chat()
        assert refused.status == 503
        assert "2 calls wait already" in refused.lines[0]["error"]
        assert refused.first < 0.3
        assert {answer.status for answer in running.done()} == {200}

    def test_nobody_waits_where_nobody_shall(self, stack: Stack) -> None:
        one = Node("one")
        one.pause = 0.3
        stack.begin(one, max_queue=0)
        running = Running(stack.client, 1)
        until(lambda: one.running == 1)
        assert stack.client.chat().status == 503
        assert running.done()[0].whole

    def test_waiting_ends_with_a_sentence(self, stack: Stack) -> None:
        one = Node("one")
        one.pause = 1.0
        stack.begin(one, queue_timeout=1)
        running = Running(stack.client, 1)
        until(lambda: one.running == 1)
        late = stack.client.chat()
        assert late.status == 503
        assert "in time" in late.lines[0]["error"]
        assert running.done()[0].whole


class TestFailures:
    def test_a_node_that_dies_costs_the_calls_that_run_on_it(self, stack: Stack) -> None:
        nodes = [Node(name) for name in ("one", "two", "three")]
        for node in nodes:
            node.tokens, node.pause = 20, 0.05
        stack.begin(*nodes, parallel=4, check_interval=1)
        waves = [Running(stack.client, 18)]
        until(lambda: nodes[0].running == 4)
        nodes[0].kill()
        waves += [Running(stack.client, 6)]
        answers = [answer for wave in waves for answer in wave.done()]
        broken = [answer for answer in answers if answer.status != 200 or not answer.whole]
        assert len(broken) <= 4, [(one.status, one.node, one.lines[-1:]) for one in broken]
        assert {answer.node for answer in broken} <= {"one"}
        seen = stack.seen()
        assert seen["nodes"]["one"]["models"]["speak:latest"]["status"] == "down"
        assert seen["nodes"]["one"]["models"]["speak:latest"]["error"]
        assert seen["healthy"] == ["three", "two"]

    def test_what_broke_before_its_first_word_is_asked_elsewhere(self, stack: Stack, two: tuple[Node, Node]) -> None:
        two[0].break_after = 0
        answers = [stack.client.chat() for _ in range(4)]
        assert [(answer.status, answer.node, answer.whole) for answer in answers] == [(200, "two", True)] * 4
        assert two[0].asked

    def test_what_had_begun_is_never_asked_again(self, stack: Stack, two: tuple[Node, Node]) -> None:
        two[0].break_after = 1
        answers = [stack.client.chat() for _ in range(4)]
        assert len(two[0].asked) + len(two[1].asked) == 4
        broken = [answer for answer in answers if not answer.whole]
        assert len(broken) == len(two[0].asked) > 0
        assert all(answer.node == "one" for answer in broken)

    def test_a_node_that_has_lost_a_model_is_passed_over(self, stack: Stack, two: tuple[Node, Node]) -> None:
        del two[0].models["speak:latest"]
        assert [stack.client.chat().node for _ in range(4)] == ["two"] * 4
        del two[1].models["speak:latest"]
        assert stack.client.chat().status == 404

    def test_a_client_that_goes_away_frees_its_node(self, stack: Stack) -> None:
        one = Node("one")
        one.tokens, one.pause = 400, 0.05
        stack.begin(one)
        link = stack.client.open_chat()
        until(lambda: one.running == 1)
        link.close()
        until(lambda: one.running == 0, 3)

    def test_a_client_that_goes_away_waits_no_longer(self, stack: Stack) -> None:
        one = Node("one")
        one.pause = 0.3
        stack.begin(one)
        running = Running(stack.client, 1)
        until(lambda: one.running == 1)
        link = stack.client.open_chat()
        until(lambda: stack.seen()["models"]["speak:latest"]["queued"] == 1)
        link.close()
        until(lambda: stack.seen()["models"]["speak:latest"]["queued"] == 0, 1)
        assert running.done()[0].whole
        assert len(one.asked) == 1

    def test_a_node_that_comes_back_gets_calls_again(self, stack: Stack, two: tuple[Node, Node]) -> None:
        two[1].kill()
        until(lambda: stack.client.chat("only2").status == 503)
        two[1].start()
        until(lambda: stack.client.chat("only2").status == 200)


class TestStreams:
    def test_a_token_does_not_wait_for_company(self, stack: Stack) -> None:
        """Without http-no-delay each first token is some 200 ms late."""
        one = Node("one")
        one.tokens, one.pause = 2, 0.3
        stack.begin(one)
        assert statistics.median(stack.client.chat().first for _ in range(5)) < 0.1

    def test_each_token_comes_when_it_is_said(self, stack: Stack) -> None:
        one = Node("one")
        one.tokens, one.pause = 5, 0.1
        stack.begin(one)
        lags = []
        for event, arrived in stack.client.arriving():
            lags += [arrived - event["at"]] if "at" in event else []
        assert len(lags) == 5
        assert max(lags) < 0.09

    def test_silence_is_no_failure(self, stack: Stack) -> None:
        """Longer than any timeout that is not about the stream; hours of it are in the settings."""
        one = Node("one")
        one.first = 4.0
        stack.begin(one, check_interval=1)
        answer = stack.client.chat()
        assert (answer.status, answer.whole) == (200, True)

    def test_a_reload_breaks_no_stream(self, stack: Stack) -> None:
        one = Node("one")
        one.tokens, one.pause = 20, 0.1
        stack.begin(one, parallel=20)
        running = Running(stack.client, 3)
        until(lambda: one.running == 3)
        for name in ("more", "other", "third"):
            assert stack.tell(nodes=[Node(name, name).record()])["reloaded"]
            assert stack.client.chat(name).node == name
        answers = running.done()
        assert [(answer.whole, len(answer.lines)) for answer in answers] == [(True, 21)] * 3

    def test_no_call_is_refused_while_it_reloads(self, stack: Stack) -> None:
        one = Node("one")
        stack.begin(one, parallel=50)
        statuses = []
        began = time.monotonic()
        adding = itertools.count()
        while time.monotonic() - began < 3:
            stack.tell(nodes=[one.record(parallel=50 + next(adding))])
            statuses += [answer.status for answer in Running(stack.client, 5).done()]
        assert next(adding) > 2
        assert set(statuses) == {200}


class TestDrain:
    def test_running_calls_end_and_new_ones_go_elsewhere(self, stack: Stack) -> None:
        one, two = Node("one"), Node("two")
        one.tokens, one.pause = 15, 0.1
        stack.begin(one, two)
        while one.running == 0:
            running = Running(stack.client, 1)
            time.sleep(0.1)
        told = stack.tell(state="drained", names=["one"], deadline=20)
        assert (told["changed"], told["reloaded"], told["busy"]) == (True, False, {})
        assert one.running == 0
        assert running.done()[0].whole
        assert {stack.client.chat().node for _ in range(6)} == {"two"}
        assert not stack.tell(state="drained", names=["one"])["changed"]
        ready = stack.tell(state="ready", names=["one"])
        assert (ready["changed"], ready["reloaded"]) == (True, False)
        one.pause = 0
        assert {stack.client.chat().node for _ in range(6)} == {"one", "two"}

    def test_what_does_not_end_in_time_is_told(self, stack: Stack) -> None:
        one = Node("one")
        one.tokens, one.pause = 30, 0.1
        stack.begin(one, parallel=4)
        running = Running(stack.client, 2)
        until(lambda: one.running == 2)
        assert stack.tell(state="drained", names=["one"], deadline=1)["busy"] == {"one": 2}
        assert {answer.whole for answer in running.done()} == {True}

    def test_a_client_that_keeps_its_connection_is_no_call(self, stack: Stack) -> None:
        stack.begin(Node("one"))
        link = stack.client.open_chat()
        link.getresponse().read()
        assert stack.tell(state="drained", names=["one"], deadline=0)["busy"] == {}
        link.close()

    def test_calls_of_the_process_before_a_reload_count(self, stack: Stack) -> None:
        one = Node("one")
        one.tokens, one.pause = 20, 0.1
        stack.begin(one)
        running = Running(stack.client, 1)
        until(lambda: one.running == 1)
        assert stack.tell(nodes=[Node("two", "other").record()])["reloaded"]
        assert stack.tell(state="drained", names=["one"], deadline=0)["busy"] == {"one": 1}
        assert stack.tell(state="drained", names=["one"], deadline=20)["busy"] == {}
        assert running.done()[0].whole

    def test_it_lasts_through_a_reload(self, stack: Stack, two: tuple[Node, Node]) -> None:
        stack.tell(state="drained", names=["one"])
        assert stack.tell(nodes=[Node("three", "other").record()])["reloaded"]
        assert {stack.client.chat().node for _ in range(6)} == {"two"}

    def test_what_nobody_else_has_is_refused_and_a_proof_still_gets_there(
        self, stack: Stack, two: tuple[Node, Node]
    ) -> None:
        stack.tell(state="drained", names=["two"])
        assert stack.client.chat("only2").status == 503
        assert stack.client.post("/api/chat", {"model": "only2"}, X_Llmops_Node="two").node == "two"
