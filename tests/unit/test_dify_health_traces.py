# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The span of the health check's own chat: found, or lost at a place that the message names."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils._dify_health_engine import (
    Check,
    Look,
    Options,
    Result,
    watch,
)
from ansible_collections.llmops.stack.plugins.module_utils._dify_health_traces import check_traces
from ansible_collections.llmops.stack.plugins.module_utils._traces import question
from ansible_collections.llmops.stack.tests.unit.servers import collector as log
from ansible_collections.llmops.stack.tests.unit.servers.docker import SERVICES, FakeDocker
from ansible_collections.llmops.stack.tests.unit.servers.phoenix import MODEL, PROJECT_ID, TRACE, FakePhoenix, chat_span
from ansible_collections.llmops.stack.tests.unit.servers.scripted import Reply, Scripted

NOW = time.time()
USAGE = {"prompt_tokens": 38, "completion_tokens": 4, "total_tokens": 42}
SEEN = {
    "generation": "1.3.1",
    "functions": ["core.plugin.impl.model:PluginModelClient.invoke_llm"],
    "missing": [],
    "plugins": [{"name": "traceloop", "version": "1.0.0", "refused": ""}],
}
TARGET = "Phoenix on dify1"
LINE = f"{MODEL}: 38 tokens in, 4 out, first token after 0.21 s"


class Stack:
    def __init__(self, docker: FakeDocker, phoenix: FakePhoenix, server: Scripted) -> None:
        self.docker, self.phoenix, self.server = docker, phoenix, server
        self.options = Options(
            probe="llm",
            app_key="app-1",
            project="dify",
            timeout=1.0,
            traces={
                "backend": "phoenix",
                "url": server.url,
                "headers": {},
                "project": "default",
                "collector": "otel_collector",
                "services": ["otel_collector", "phoenix"],
                "target": TARGET,
                "wait": 0.05,
            },
        )
        self.docker.says("api", json.dumps(SEEN))
        for service in ("api", "otel_collector"):
            self.docker.logs(service, "")

    def backend(self, **changes: Any) -> None:
        self.options.traces.update(changes)

    def look(self) -> Look:
        look = Look(self.options)
        look.chat = question(NOW, USAGE)
        return look

    def check(self) -> Result:
        result = check_traces(self.look())
        assert (result.status == "failed") == bool(result.advice)
        return result

    def failure(self) -> tuple[str, str]:
        result = self.check()
        assert result.status == "failed", result
        assert not result.trace
        return result.detail, result.advice


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with ExitStack() as running:
        phoenix = FakePhoenix()
        server = running.enter_context(Scripted(phoenix).running())
        yield Stack(FakeDocker(tmp_path, "", services=(*SERVICES, "otel_collector", "phoenix")), phoenix, server)


@pytest.fixture
def blind(stack: Stack) -> Stack:
    """The same with a backend that cannot be asked."""
    stack.backend(backend="collector", url=None, target="https://api.traceloop.com")
    return stack


# Found


def test_at_phoenix(stack: Stack) -> None:
    stack.phoenix.spans = [chat_span(NOW - 30), chat_span(NOW + 0.1, 0.5)]
    stack.backend(page="http://dify.example.com:6006")
    result = stack.check()
    assert (result.status, result.detail) == ("ok", f"Its span is at {TARGET}: {LINE}, 0.50 s in all, ok")
    assert result.trace["url"] == f"http://dify.example.com:6006/projects/{PROJECT_ID}/traces/{TRACE}"
    assert (result.trace["input_tokens"], result.trace["output_tokens"]) == (38, 4)
    assert {call.split()[0] for call in stack.docker.calls()} == {"ps", "inspect"}, "nobody else was asked"


def test_it_is_waited_for(stack: Stack) -> None:
    stack.backend(wait=20)
    timer = threading.Timer(0.3, stack.phoenix.spans.append, [chat_span(NOW)])
    timer.start()
    assert stack.check().status == "ok"
    timer.join()


def test_phoenix_with_a_key(stack: Stack) -> None:
    stack.phoenix.key = "px-key-000"
    stack.phoenix.spans = [chat_span(NOW)]
    stack.backend(headers={"Authorization": "Bearer px-key-000"})
    assert stack.check().status == "ok"
    stack.backend(headers={"Authorization": "Bearer other"}, wait=60)
    result = stack.check()  # and no minute is spent on what time does not mend
    assert result.final
    assert "refuses the key that it was given (HTTP 401)" in result.detail


def test_through_the_collector(blind: Stack) -> None:
    blind.docker.logs("otel_collector", log.span())
    result = blind.check()
    assert (result.status, result.detail) == (
        "ok",
        f"Its span went to https://api.traceloop.com, which refused nothing: {LINE}, ok",
    )
    assert (result.trace["trace_id"], result.trace["duration"], result.trace["url"]) == (log.TRACE, None, "")
    (call, _again) = [one for one in blind.docker.calls() if one.startswith("logs")]
    assert call == f"logs --since {NOW - 2:.3f} id-otel_collector"


def test_one_of_several_calls_is_a_span_too(stack: Stack) -> None:
    stack.phoenix.spans = [chat_span(NOW, tokens=(20, 2))]
    result = stack.check()
    assert result.status == "ok"
    assert "of one of several calls or of another chat: " in result.detail


# Lost


def test_a_span_without_tokens(stack: Stack) -> None:
    stack.phoenix.spans = [chat_span(NOW, tokens=(0, 0))]
    detail, advice = stack.failure()
    assert detail.startswith(f"The span at {TARGET} has no tokens ({MODEL}: 0 tokens in, 0 out")
    assert "please report it, with the release" in advice


def test_a_failed_call_of_somebody_else_is_not_taken_for_it(stack: Stack) -> None:
    stack.phoenix.spans = [chat_span(NOW, tokens=(20, 2), attributes={"dify.outcome": "error"})]
    stack.failure()


@pytest.mark.parametrize(
    ("said", "found", "advice"),
    [
        (log.refused(401), "responded with HTTP Status Code 401", "correct traceloop_api_key"),
        (log.refused(404), "responded with HTTP Status Code 404", "correct traceloop_base_url, to which /v1/traces"),
        (log.refused(500), "responded with HTTP Status Code 500", "read its log. The collector does not send again"),
        (log.refused(503), "responded with HTTP Status Code 503", "or something in front of it, is in trouble"),
        (log.UNKNOWN_NAME, "lookup backend on 127.0.0.11:53: no such host", "The name is unknown in the collector's"),
        (log.NOBODY_LISTENS, "connection refused", "Nothing listens there"),
        (log.SILENCE, "Client.Timeout exceeded", "does not answer"),
        (log.FULL, "sending queue is full", "spans are lost"),
        (log.NOBODY_LISTENS + log.FULL, "connection refused", "Nothing listens there"),
    ],
)
@pytest.mark.parametrize("backend", ["phoenix", "collector"])
def test_a_backend_that_refuses(stack: Stack, backend: str, said: str, found: str, advice: str) -> None:
    stack.backend(backend=backend)
    stack.docker.logs("otel_collector", log.span() + said)
    result = stack.check()
    assert result.detail.startswith(f"{TARGET} does not take the spans; the collector says: ")
    assert found in result.detail
    assert advice in result.advice
    assert result.final == ("HTTP Status Code" in found)


def test_a_refusal_quotes_no_key(blind: Stack) -> None:
    blind.options.secrets = frozenset({"tl-key-123456"})
    blind.docker.logs("otel_collector", log.span() + log.unreachable("bad header tl-key-123456"))
    assert "bad header ***" in blind.failure()[0]


def test_phoenix_does_not_show_what_the_collector_had(stack: Stack) -> None:
    stack.backend(project="dify")
    stack.docker.logs("otel_collector", log.span())
    detail, advice = stack.failure()
    assert detail == (
        f"The collector has the span of the chat, and after 0.05 s {TARGET} does not show it in its project dify"
    )
    assert "traces.project" in advice


def test_phoenix_that_is_down(stack: Stack) -> None:
    stack.backend(url="http://127.0.0.1:1")
    detail, advice = stack.failure()
    assert detail == "Phoenix cannot be asked: http://127.0.0.1:1 refuses connections"
    assert advice.startswith("See that it runs")
    # The collector's word for it is better: it is what delivers.
    stack.docker.logs("otel_collector", log.span() + log.UNKNOWN_NAME)
    assert "no such host" in stack.failure()[0]


@pytest.mark.parametrize(
    ("service", "waits"), [("otel_collector", "in the processes that made them"), ("phoenix", "before it")]
)
@pytest.mark.parametrize("backend", ["phoenix", "collector"])
def test_what_is_stopped_is_not_waited_for(stack: Stack, backend: str, service: str, waits: str) -> None:
    stack.backend(backend=backend, wait=60)
    stack.docker.containers[service]["State"]["Status"] = "exited"
    stack.docker.write()
    result = stack.check()
    assert result.detail == f"dify-{service}-1, through which every span goes, is exited; spans wait {waits}"
    assert f"docker start dify-{service}-1" in result.advice
    assert result.final


def test_what_is_started_again_by_itself_is_waited_for(blind: Stack) -> None:
    blind.docker.containers["otel_collector"]["State"]["Status"] = "restarting"
    blind.docker.write()
    blind.docker.logs("otel_collector", log.span())
    assert blind.check().status == "ok"


def test_there_is_no_collector(blind: Stack) -> None:
    del blind.docker.containers["otel_collector"]
    blind.docker.write()
    detail, advice = blind.failure()
    assert detail == "There is no container of the service otel_collector"
    assert advice.startswith("Run site.yml again")


@pytest.mark.parametrize("backend", ["phoenix", "collector"])
def test_a_log_that_cannot_be_read(stack: Stack, backend: str) -> None:
    stack.backend(backend=backend)
    stack.docker.broken("configured logging driver does not support reading")
    detail, _advice = stack.failure()
    assert "The log of otel_collector cannot be read: " in detail
    assert "does not support reading" in detail


NOT_LOADED = "/usr/bin/python: No module named llmops_monitoring\n"


@pytest.mark.parametrize(
    ("out", "err", "found"),
    [
        ("", NOT_LOADED, "dify-api-1 runs without the monitoring runtime"),
        (
            "",
            "OCI runtime exec failed: no python",
            "the runtime cannot be asked in dify-api-1 (OCI runtime exec failed",
        ),
        (
            json.dumps({**SEEN, "generation": None, "missing": ["core.x:Y.invoke_llm"]}),
            None,
            "no place in this release of Dify to see model calls at (core.x:Y.invoke_llm)",
        ),
        (
            "starting\n" + json.dumps({**SEEN, "plugins": []}),
            None,
            "dify-api-1 has no monitoring plugin named traceloop",
        ),
        (
            json.dumps({**SEEN, "plugins": [{"name": "traceloop", "refused": "no main"}]}),
            None,
            "its plugin traceloop is refused: no main",
        ),
    ],
)
@pytest.mark.parametrize("backend", ["phoenix", "collector"])
def test_the_runtime_sees_nothing(stack: Stack, backend: str, out: str, err: str | None, found: str) -> None:
    stack.backend(backend=backend)
    stack.docker.says("api", out, err)
    detail, advice = stack.failure()
    assert detail.startswith("No span of the chat reached the collector: ")
    assert found in detail
    assert advice.startswith("Run site.yml again")


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("traceloop: 3 spans dropped so far, 0 delivered: ConnectionError", "cannot deliver to the address"),
        ("traceloop: 0 spans dropped so far, 11 delivered, 1 waiting: gaierror", "cannot deliver to the address"),
        ("traceloop: nothing is sent: TRACELOOP_TRACING_ENABLED is false", "Run site.yml again"),
        ("core.plugin.impl.model: something new", "python3 -m llmops_monitoring"),
    ],
)
def test_the_last_words_of_the_runtime(stack: Stack, said: str, advice: str) -> None:
    text = f"INFO a request\nllmops-monitoring[7]: older\nllmops-monitoring[7]: {said}\nINFO llmops-monitoring[7]: no\n"
    stack.docker.logs("api", text)
    detail, told = stack.failure()
    assert detail.endswith(f"in dify-api-1 is: llmops-monitoring[7]: {said}")
    assert advice in told


def test_a_runtime_that_says_nothing(stack: Stack) -> None:
    detail, advice = stack.failure()
    assert detail == (
        "No span of the chat reached the collector within 0.05 s, though the runtime is in dify-api-1 and says nothing"
    )
    assert "restart api and worker" in advice
    stack.docker.logs("api", "llmops-monitoring[1]: traceloop: spans are delivered again; 0 were dropped meanwhile\n")
    assert stack.failure()[0] == detail
    stack.backend(collector=None)
    assert stack.failure()[0].startswith(f"No span of the chat is at {TARGET} within")


def test_an_api_that_is_gone(stack: Stack) -> None:
    del stack.docker.containers["api"]
    stack.docker.write()
    assert "there is no running api container" in stack.failure()[0]


def test_from_elsewhere_only_the_backend_is_asked(stack: Stack) -> None:
    stack.options.project = ""
    detail, advice = stack.failure()
    assert detail == f"No span of the chat is at {TARGET} after 0.05 s"
    assert "docker compose exec api python3 -m llmops_monitoring" in advice
    stack.phoenix.reply = Reply(500, "", "text/plain")
    assert "answers HTTP 500" in stack.failure()[0]


# Skipped


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"traces": {}}, "No spans of model calls are expected here"),
        ({"traces": {"backend": "none", "target": "x"}}, "x cannot be asked about a span, and there is no collector"),
        ({"probe": "model"}, "Only the chat of probe llm leaves a span to look for (probe is model)"),
        ({"project": "", "traces": {"backend": "collector"}}, "No project was given, so the collector's log cannot"),
    ],
)
def test_skipped(stack: Stack, changes: dict[str, Any], said: str) -> None:
    for name, value in changes.items():
        setattr(stack.options, name, value)
    result = stack.check()
    assert result.status == "skipped"
    assert result.detail.startswith(said)


def test_no_chat_no_span(stack: Stack) -> None:
    look = stack.look()
    look.chat = None
    assert check_traces(look).detail == "No chat was asked, so there is no span to look for"


# Again and again


def chats(stack: Stack) -> tuple[int, bool]:
    """How many chats one call of the module asks, and whether all was well."""
    asked = []

    def chat(look: Look) -> Result:
        asked.append(look)
        look.chat = question(NOW, USAGE)
        return Result("ok", "It answered.")

    stack.options.deadline, stack.options.interval = 10, 0.05
    verdict = watch([Check("llm", chat), Check("traces", check_traces, needs=("llm",))], stack.options)
    return len(asked), verdict.healthy


def test_a_span_that_never_comes_costs_two_chats(stack: Stack) -> None:
    assert chats(stack) == (2, False)


def test_a_backend_that_is_still_starting_is_waited_for(stack: Stack) -> None:
    state = stack.docker.containers["phoenix"]["State"]
    state["Health"] = {"Status": "starting", "Log": []}
    stack.docker.write()
    asked = len(stack.server.requests)

    def arrives() -> None:
        while len(stack.server.requests) < asked + 4:
            time.sleep(0.02)
        stack.phoenix.spans.append(chat_span(NOW))

    thread = threading.Thread(target=arrives)
    thread.start()
    count, healthy = chats(stack)
    thread.join()
    assert healthy
    assert count > 2
