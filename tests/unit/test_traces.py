# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Spans from Phoenix and out of a collector's log, and which of several is the one of a question."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils import _traces_collector as collector
from ansible_collections.llmops.stack.plugins.module_utils._http import Http
from ansible_collections.llmops.stack.plugins.module_utils._traces import (
    Span,
    TracesError,
    exact,
    likely,
    line,
    question,
)
from ansible_collections.llmops.stack.plugins.module_utils._traces_phoenix import Phoenix, moment
from ansible_collections.llmops.stack.plugins.module_utils._traces_phoenix import span as phoenix_span
from ansible_collections.llmops.stack.tests.unit.servers import collector as log
from ansible_collections.llmops.stack.tests.unit.servers.phoenix import (
    MODEL,
    PROJECT_ID,
    SPAN,
    START_PAGE,
    TRACE,
    FakePhoenix,
    chat_span,
)
from ansible_collections.llmops.stack.tests.unit.servers.scripted import Reply, Scripted, as_json

NOW = 1_795_656_740.25
ASKED = question(NOW, {"prompt_tokens": 38, "completion_tokens": 4, "total_tokens": 42})


def of(*spans: Any) -> list[Span]:
    return [phoenix_span(one) for one in spans]


# Phoenix


def test_a_span_of_phoenix() -> None:
    (one,) = of(chat_span(NOW + 0.1, 0.5))
    assert one.public() == {
        "trace_id": TRACE,
        "span_id": SPAN,
        "name": f"chat {MODEL}",
        "model": MODEL,
        "input_tokens": 38,
        "output_tokens": 4,
        "time_to_first_chunk": 0.214,
        "duration": 0.5,
        "outcome": "ok",
        "url": "",
    }
    assert one.started == pytest.approx(NOW + 0.1)


def test_a_span_that_only_has_the_names_of_phoenix() -> None:
    attributes = {"llm.token_count.prompt": 5, "llm.token_count.completion": 2, "llm.model_name": "m"}
    one = phoenix_span({"context": {}, "attributes": attributes})
    assert (one.input_tokens, one.output_tokens, one.model) == (5, 2, "m")
    assert (one.started, one.duration, one.url) == (None, None, "")


@pytest.mark.parametrize(
    "text", ["2026-11-26T01:32:20.25+00:00", "2026-11-26T01:32:20.250000Z", "2026-11-26T01:32:20.250"]
)
def test_moments(text: str) -> None:
    assert moment(text) == NOW
    assert moment("yesterday") is None


def test_phoenix_gives_what_is_new_and_where_it_is_shown() -> None:
    with Scripted(
        FakePhoenix([chat_span(NOW - 60), chat_span(NOW), chat_span(NOW + 1)], page_size=1)
    ).running() as server:
        phoenix = Phoenix(Http(), server.url + "/", page="http://dify.example.com:6006/")
        found = phoenix.spans(NOW - 2, 2.0)
        assert [one.started for one in found] == [NOW, NOW + 1]
        assert found[0].url == f"http://dify.example.com:6006/projects/{PROJECT_ID}/traces/{TRACE}"
        assert len(server.asked("/v1/projects/default")) == 1
        phoenix.spans(NOW - 2, 2.0)
        assert len(server.asked("/v1/projects/default")) == 1, "an id does not change"


def test_a_project_that_nothing_was_sent_to_has_no_spans() -> None:
    with Scripted(FakePhoenix([chat_span(NOW)])).running() as server:
        assert Phoenix(Http(), server.url, project="a b/c").spans(NOW - 2, 2.0) == []
        assert server.requests[0].path == "/v1/projects/a%20b%2Fc/spans"


def test_phoenix_with_logins() -> None:
    with Scripted(FakePhoenix([chat_span(NOW)], key="k-1")).running() as server:
        assert len(Phoenix(Http(), server.url, {"authorization": "Bearer k-1"}).spans(NOW - 2, 2.0)) == 1
        for headers, words in (
            ({}, "a question without a key"),
            ({"authorization": "Bearer k-2"}, "the key that it was"),
        ):
            with pytest.raises(TracesError) as caught:
                Phoenix(Http(), server.url, headers).spans(NOW - 2, 2.0)
            assert f"refuses {words}" in caught.value.detail
            assert "Authorization: Bearer KEY" in caught.value.advice
            assert caught.value.final


@pytest.mark.parametrize(
    ("reply", "detail"),
    [
        (START_PAGE, "answers HTTP 200, but not as Phoenix does"),
        (as_json([]), "answers HTTP 200, but not as Phoenix does"),
        (Reply(404, "<html>404</html>", "text/html"), "answers HTTP 404, but not as Phoenix does"),
        (Reply(500, "Internal Server Error", "text/plain"), "answers HTTP 500"),
        (Reply(hang=True), "Phoenix cannot be asked: http://127.0.0.1"),
    ],
)
def test_something_else_there(reply: Reply, detail: str) -> None:
    with Scripted(FakePhoenix(reply=reply)).running() as server, pytest.raises(TracesError) as caught:
        Phoenix(Http(), server.url).spans(NOW, 0.5)
    assert detail in caught.value.detail
    assert not caught.value.final


# The collector


def test_spans_out_of_a_log() -> None:
    (one,) = collector.spans(f"{log.STAMP}\tinfo\tStarting otelcol...\t{{}}\n{log.span()}{log.refused(401)}")
    assert one.public() == {
        "trace_id": log.TRACE,
        "span_id": log.SPAN,
        "name": f"chat {MODEL}",
        "model": MODEL,
        "input_tokens": 38,
        "output_tokens": 4,
        "time_to_first_chunk": 0.214,
        "duration": None,
        "outcome": "ok",
        "url": "",
    }
    assert exact([one], ASKED) is one, "it has no moment, so it is taken for one of this moment"


def test_what_users_say_is_no_figure_of_a_span() -> None:
    said = f"Is dify.outcome=error or gen_ai.usage.input_tokens=9 {log.TRACE} {log.SPAN} right?"
    (one,) = collector.spans(log.span(more={"gen_ai.prompt.0.content": said, "gen_ai.request.model": "mine"}))
    assert (one.name, one.model, one.outcome, one.input_tokens) == (f"chat {MODEL}", MODEL, "ok", 38)


def test_a_model_whose_name_has_spaces_and_no_tokens() -> None:
    (one,) = collector.spans(log.span(None).replace(f"model={MODEL}", "model=my own model"))
    assert (one.model, one.counted) == ("my own model", False)


def test_a_collector_that_writes_json() -> None:
    told = log.span().split("\t")[-2].rstrip()  # from "ResourceTraces" to the end of the span
    lines = [{"level": "info", "msg": told.partition("\n")[0] + told.partition(" process.pid=21")[2]}]
    lines += [{"msg": "Exporting failed. Dropping data.", "otelcol.signal": "traces", "error": "sending queue is full"}]
    text = "".join(json.dumps(one) + "\n" for one in lines)
    assert [one.input_tokens for one in collector.spans(text)] == [38]
    assert [one.kind for one in collector.refusals(text)] == ["full"]


@pytest.mark.parametrize(
    ("text", "kind", "status", "retried"),
    [
        (log.refused(401), "unauthorized", 401, False),
        (log.refused(500), "status", 500, False),
        (log.UNKNOWN_NAME, "dns", 0, True),
        (log.NOBODY_LISTENS, "refused", 0, True),
        (log.SILENCE, "slow", 0, True),
        (log.FULL, "full", 0, False),
        (
            log.unreachable("tls: failed to verify certificate: x509: certificate signed by unknown authority"),
            "tls",
            0,
            True,
        ),
        (log.unreachable("dial tcp 10.0.0.1:4318: connect: no route to host"), "unreachable", 0, True),
        (log.unreachable("EOF"), "other", 0, True),
    ],
)
def test_refusals(text: str, kind: str, status: int, retried: bool) -> None:
    (one,) = collector.refusals(log.span() + text)
    assert (one.kind, one.status, one.retried) == (kind, status, retried)
    for noise in ("rpc error", "Permanent", "not retryable", "Details", "failed to make"):
        assert noise not in one.text


def test_what_becomes_of_metrics_is_another_matter() -> None:
    assert collector.refusals(log.trouble("sending queue is full", signal="metrics")) == []


# Which one


def test_the_one_with_the_tokens_of_the_answer() -> None:
    others = [
        chat_span(NOW + 0.1, tokens=(38, 5)),
        chat_span(NOW - 0.4, 0.3),  # the same question a moment ago: it was over before this one began
        chat_span(NOW - 3, 9),
        chat_span(NOW + 0.1, attributes={"gen_ai.operation.name": "embeddings"}),
        chat_span(NOW + 0.1, attributes={"dify.outcome": None}),  # another instrumentation's
    ]
    mine, later = chat_span(NOW + 0.2), chat_span(NOW + 5)
    assert exact(of(*others), ASKED) is None
    found = exact(of(later, *others, mine), ASKED)
    assert found and found.started == pytest.approx(NOW + 0.2)


def test_where_the_answer_told_no_tokens_the_nearest_will_do() -> None:
    found = exact(
        of(chat_span(NOW + 4), chat_span(NOW + 1, tokens=(7, 3)), chat_span(NOW, tokens=None)), question(NOW, {})
    )
    assert found and found.input_tokens == 7


def test_a_model_that_is_known_must_be_the_same() -> None:
    usage = {"prompt_tokens": 38, "completion_tokens": 4}
    assert exact(of(chat_span(NOW)), question(NOW, usage, "other")) is None
    assert exact(of(chat_span(NOW)), question(NOW, usage, MODEL))


def test_what_there_is_instead() -> None:
    near = likely(of(chat_span(NOW, tokens=(0, 0)), chat_span(NOW + 3, tokens=(7, 3))), ASKED)
    assert near and near.input_tokens == 7
    none_counted = likely(of(chat_span(NOW, tokens=None)), ASKED)
    assert none_counted and not none_counted.counted
    assert likely([], ASKED) is None


def test_one_line() -> None:
    (one,) = of(chat_span(NOW, 0.5))
    assert line(one.public()) == f"{MODEL}: 38 tokens in, 4 out, first token after 0.21 s, 0.50 s in all, ok"
    (bare,) = of({"name": "chat x", "context": {}})
    assert line(bare.public()) == "chat x: ? tokens in, ? out"
