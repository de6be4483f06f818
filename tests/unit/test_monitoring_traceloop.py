# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The traceloop plugin against a collector in this process: the stdlib's JSON and the OpenTelemetry SDK's protobuf.

The SDK's half runs where OpenTelemetry is on the path: `make monitoring` puts each release of the matrix there.
"""

from __future__ import annotations

import contextvars
import hashlib
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ansible_collections.llmops.stack.tests.unit.monitoring import MONITORING
from ansible_collections.llmops.stack.tests.unit.monitoring_collector import (
    PACKAGE,
    PLUGIN,
    PROMPT,
    Collector,
    call,
    part,
    wait,
)

sys.path.insert(0, str(MONITORING))

from llmops_monitoring import counters
from llmops_monitoring.event import Content, Error, Event
from llmops_monitoring.manifest import Plugin

pytest_plugins = ["ansible_collections.llmops.stack.tests.unit.monitoring_fixtures"]
SECRET = "sk-the-key-of-a-model"


def test_every_name_that_leaves_the_process_is_pinned() -> None:
    names = part("names")
    found = {
        key: value for key, value in vars(names).items() if isinstance(value, str) and key.isupper() and key[0] != "_"
    }
    assert found == {
        "APP_ID": "dify.app_id",
        "ASSOCIATION": "traceloop.association.properties.{key}",
        "DROPPED_SPANS": "llmops.monitoring.dropped_spans",
        "DURATION": "gen_ai.client.operation.duration",
        "ERROR_CAUSE": "dify.error.cause",
        "ERROR_TYPE": "error.type",
        "EXPORTED_SPANS": "llmops.monitoring.exported_spans",
        "FINISH_REASONS": "gen_ai.response.finish_reasons",
        "FIRST_CHUNK": "gen_ai.client.operation.time_to_first_chunk",
        "HOST_NAME": "host.name",
        "INPUT_MESSAGES": "gen_ai.input.messages",
        "INPUT_TOKENS": "gen_ai.usage.input_tokens",
        "LEGACY_COMPLETION": "gen_ai.completion.{index}.{field}",
        "LEGACY_PROMPT": "gen_ai.prompt.{index}.{field}",
        "LEGACY_REQUEST_TYPE": "llm.request.type",
        "LEGACY_STREAMING": "llm.is_streaming",
        "LEGACY_SYSTEM": "gen_ai.system",
        "LEGACY_TOTAL_TOKENS": "llm.usage.total_tokens",
        "OPERATION": "gen_ai.operation.name",
        "OUTCOME": "dify.outcome",
        "OUTPUT_MESSAGES": "gen_ai.output.messages",
        "OUTPUT_TOKENS": "gen_ai.usage.output_tokens",
        "OUTPUT_TYPE": "gen_ai.output.type",
        "PROCESS_PID": "process.pid",
        "PROVIDER": "gen_ai.provider.name",
        "REQUEST_FREQUENCY_PENALTY": "gen_ai.request.frequency_penalty",
        "REQUEST_MAX_TOKENS": "gen_ai.request.max_tokens",
        "REQUEST_MODEL": "gen_ai.request.model",
        "REQUEST_PRESENCE_PENALTY": "gen_ai.request.presence_penalty",
        "REQUEST_SEED": "gen_ai.request.seed",
        "REQUEST_STREAM": "gen_ai.request.stream",
        "REQUEST_TEMPERATURE": "gen_ai.request.temperature",
        "REQUEST_TOP_K": "gen_ai.request.top_k",
        "REQUEST_TOP_P": "gen_ai.request.top_p",
        "RESPONSE_MODEL": "gen_ai.response.model",
        "SCOPE": "llmops.monitoring.traceloop",
        "SERVER_ADDRESS": "server.address",
        "SERVER_PORT": "server.port",
        "SERVICE_INSTANCE": "service.instance.id",
        "SERVICE_NAME": "service.name",
        "TENANT_ID": "dify.tenant_id",
        "TIME_TO_FIRST_CHUNK": "gen_ai.response.time_to_first_chunk",
        "TOKEN_RATE": "dify.llm.output_tokens_per_second",
        "TOKEN_TYPE": "gen_ai.token.type",
        "TOKEN_USAGE": "gen_ai.client.token.usage",
        "TOTAL_TOKENS": "gen_ai.usage.total_tokens",
        "USER_HASH": "dify.user_hash",
    }
    assert names.UNITS[names.TOKEN_USAGE] == "{token}", "a bare unit would become part of the name in Prometheus"
    for metric, bounds in names.BUCKETS.items():
        assert list(bounds) == sorted(set(bounds)), metric


def test_no_other_file_spells_a_name() -> None:
    names = part("names")
    spelled = {
        f"{path.name}: {value}"
        for path in PLUGIN.glob("*.py")
        if path.name != "names.py"
        for value in vars(names).values()
        if isinstance(value, str) and "." in value and f'"{value}"' in path.read_text()
    }
    assert spelled == {"config.py: service.name"}, "one place for names; config reads OTEL_RESOURCE_ATTRIBUTES"


def test_a_call_is_one_span_and_its_measurements(
    collector: Collector, started: Callable[..., Any], exporter: str
) -> None:
    main = started(TRACELOOP_BASE_URL=collector.url, TRACELOOP_API_KEY="tl-key", LLMOPS_TRACELOOP_EXPORTER=exporter)
    event = call(main)
    main.close()
    (span,) = collector.spans
    resource = span["resource"]
    assert resource["service.name"] == "dify-api"
    assert resource["service.instance.id"].startswith(f"{socket.gethostname()}:{os.getpid()}:")
    assert (span["name"], span["kind"]) == ("chat deepseek-r1:1.5b", 3)
    assert int(span["startTimeUnixNano"]) == event.started_ns
    assert int(span["endTimeUnixNano"]) - event.started_ns == pytest.approx(1.25e9, abs=1000)
    assert not span.get("status") and "parentSpanId" not in span
    assert span["attributes"] == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "ollama",
        "gen_ai.system": "ollama",
        "llm.request.type": "chat",
        "gen_ai.request.model": "deepseek-r1:1.5b",
        "gen_ai.response.model": "deepseek-r1:1.5b",
        "gen_ai.request.stream": True,
        "llm.is_streaming": True,
        "gen_ai.output.type": "text",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.max_tokens": 64,
        "gen_ai.request.seed": 7,
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.response.time_to_first_chunk": pytest.approx(0.25),
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 31,
        "gen_ai.usage.total_tokens": 43,
        "llm.usage.total_tokens": 43,
        "server.address": "ollama.example",
        "server.port": 11434,
        "dify.outcome": "ok",
        "dify.app_id": "app-1",
        "dify.tenant_id": "tenant-1",
        "dify.user_hash": hashlib.sha256(b"user-1").hexdigest()[:16],
        "traceloop.association.properties.app_id": "app-1",
        "traceloop.association.properties.tenant_id": "tenant-1",
    }

    common = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "ollama",
        "gen_ai.request.model": "deepseek-r1:1.5b",
        "server.address": "ollama.example",
        "server.port": 11434,
        "dify.app_id": "app-1",
        "dify.outcome": "ok",
    }
    (duration,) = collector.metrics["gen_ai.client.operation.duration"]
    assert duration["attributes"] == common and duration["sum"] == pytest.approx(1.25) and duration["unit"] == "s"
    assert duration["explicitBounds"][-2:] == [160, 320]
    assert [int(count) for count in duration["bucketCounts"]].index(1) == duration["explicitBounds"].index(1.28)
    (first,) = collector.metrics["gen_ai.client.operation.time_to_first_chunk"]
    assert first["sum"] == pytest.approx(0.25)
    tokens = collector.metrics["gen_ai.client.token.usage"]
    assert {point["attributes"]["gen_ai.token.type"]: point["sum"] for point in tokens} == {"input": 12, "output": 31}
    (rate,) = collector.metrics["dify.llm.output_tokens_per_second"]
    assert rate["sum"] == pytest.approx(30)
    (exported,) = collector.metrics["llmops.monitoring.exported_spans"]
    assert exported["asInt"] == "1"
    assert {headers["authorization"] for _, headers in collector.requests} == {"Bearer tl-key"}


def test_failed_and_cancelled_calls(collector: Collector, started: Callable[..., Any], exporter: str) -> None:
    main = started(TRACELOOP_BASE_URL=collector.url, LLMOPS_TRACELOOP_EXPORTER=exporter)
    call(main, outcome="error", error=Error("PluginInvokeError", f"refused: {PROMPT}", "InvokeConnectionError"))
    call(main, outcome="cancelled", usage=None)
    main.close()
    failed, cancelled = collector.spans
    assert failed["status"] == {"code": 2, "message": "PluginInvokeError"}, "no message: it quotes the prompt"
    assert failed["attributes"]["error.type"] == "PluginInvokeError"
    assert failed["attributes"]["dify.error.cause"] == "InvokeConnectionError"
    assert not cancelled.get("status") and cancelled["attributes"]["dify.outcome"] == "cancelled"
    points = collector.metrics["gen_ai.client.operation.duration"]
    assert {(p["attributes"]["dify.outcome"], p["attributes"].get("error.type")) for p in points} == {
        ("error", "PluginInvokeError"),
        ("cancelled", None),
    }


def test_content_leaves_only_when_asked_for(collector: Collector, started: Callable[..., Any], exporter: str) -> None:
    main = started(TRACELOOP_BASE_URL=collector.url, LLMOPS_TRACELOOP_EXPORTER=exporter)
    kept = Content(8192, [("user", PROMPT)])  # another plugin asked for it
    call(main, content=kept)
    call(main, outcome="error", error=Error("ValueError", PROMPT, ""), content=kept)
    main.close()
    assert len(collector.spans) == 2 and PROMPT not in json.dumps(collector.spans) + json.dumps(collector.metrics)
    assert "Paris" not in json.dumps(collector.spans) and "user-1" not in json.dumps(collector.spans)

    main = started(
        TRACELOOP_BASE_URL=collector.url,
        LLMOPS_TRACELOOP_EXPORTER=exporter,
        TRACELOOP_TRACE_CONTENT="true",
        LLMOPS_TRACELOOP_CONTENT_LIMIT="20",
    )
    call(main)
    main.close()
    sent = collector.spans[-1]["attributes"]
    assert json.loads(sent["gen_ai.input.messages"]) == [
        {"role": "system", "parts": [{"type": "text", "content": "Be brief."}]},
        {"role": "user", "parts": [{"type": "text", "content": PROMPT[:11]}]},
    ]
    assert (sent["gen_ai.prompt.1.content"], sent["gen_ai.completion.0.content"]) == (PROMPT[:11], "Paris.")


def test_odd_values_cost_no_span(collector: Collector, started: Callable[..., Any], exporter: str) -> None:
    """Half of a surrogate pair, and numbers that OTLP has no room for."""
    main = started(TRACELOOP_BASE_URL=collector.url, LLMOPS_TRACELOOP_EXPORTER=exporter, TRACELOOP_TRACE_CONTENT="true")
    half = "half \ud83d"
    inf = float("inf")
    odd = {"seed": 2**70, "top_k": inf, "temperature": inf, "max_tokens": -(2**63) - 1, "top_p": 10**400}
    kept = Content(8192, [("user", half)])
    call(main, parameters=odd, model=half, user=half, app_id=half, tenant_id=half, content=kept)
    call(main, outcome="error", error=Error("ValueError", half, half), model=half, content=kept)
    call(main, parameters={"seed": 2**63 - 1})
    main.close()
    strange, failed, whole = collector.spans
    assert (strange["name"], failed["status"]["message"]) == ("chat half ?", "ValueError: half ?")
    sent = strange["attributes"]
    assert (sent["gen_ai.request.seed"], sent["gen_ai.request.temperature"]) == (hex(2**70), "inf")
    assert sent["gen_ai.request.max_tokens"] == hex(-(2**63) - 1)
    assert "gen_ai.request.top_k" not in sent and "gen_ai.request.top_p" not in sent
    assert json.loads(sent["gen_ai.input.messages"])[0]["parts"][0]["content"] == "half ?"
    assert sent["gen_ai.usage.output_tokens"] == 31, "the rest is there"
    assert whole["attributes"]["gen_ai.request.seed"] == 2**63 - 1


@pytest.mark.parametrize("broken", ["request", "response", "span"])
def test_what_cannot_be_described_is_told_and_counted(
    collector: Collector,
    started: Callable[..., Any],
    exporter: str,
    broken: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    main = started(TRACELOOP_BASE_URL=collector.url, LLMOPS_TRACELOOP_EXPORTER=exporter)
    before = counters.counters().get(main.REDUCED, 0)
    real = main._session.backend.span

    def fail(*arguments: Any) -> Any:
        if broken == "span" and "gen_ai.system" not in arguments[0].attributes:
            return real(*arguments)
        raise RecursionError(PROMPT)

    owner = main._session.backend if broken == "span" else main.describe
    monkeypatch.setattr(owner, broken, fail)
    call(main)
    main.close()
    (span,) = collector.spans
    assert (span["name"], span["attributes"]["dify.outcome"]) == ("unknown", "ok")
    assert counters.counters()[main.REDUCED] == before + 1
    assert PROMPT not in capsys.readouterr().err + json.dumps(collector.spans)


def test_a_call_that_outlives_the_plugin_is_counted_and_said(
    collector: Collector, started: Callable[..., Any], exporter: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main = started(TRACELOOP_BASE_URL=collector.url, LLMOPS_TRACELOOP_EXPORTER=exporter)
    pipeline = main._session.pipeline
    event = Event("chat", "ollama", "m")
    event.start()
    event.context = contextvars.copy_context()
    event.context.run(main.before_invoke, event)
    main.close()
    event.ended, event.outcome = event.started + 1, "ok"
    event.context.run(main.after_invoke, event)
    assert (pipeline.dropped, collector.spans) == (1, [])
    assert "1 spans dropped so far, 0 delivered, 0 waiting: the process is stopping" in capsys.readouterr().err


@pytest.mark.parametrize("status", [401, 503])
def test_metrics_that_are_not_taken_are_said_once(
    collector: Collector,
    started: Callable[..., Any],
    exporter: str,
    status: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    main = started(TRACELOOP_BASE_URL=collector.url, LLMOPS_TRACELOOP_EXPORTER=exporter)
    session, collector.status = main._session, status
    said = f"traceloop: the metrics are not taken: HTTP {status}"
    for _ in range(2):
        session._tick(5)
    assert capsys.readouterr().err.count(said) == (1 if status == 401 else 0), "a restart is worth no word"
    for _ in range(2):
        session._tick(5)
    assert capsys.readouterr().err.count(said) == (0 if status == 401 else 1)
    collector.status = 200
    session._tick(5)
    assert "traceloop: the metrics are taken again" in capsys.readouterr().err
    collector.status = status
    main.close()
    assert capsys.readouterr().err.count(said) == 1, "there is no next time"


def test_the_last_metrics_keep_to_the_time_there_is(
    collector: Collector, started: Callable[..., Any], exporter: str
) -> None:
    main = started(TRACELOOP_BASE_URL=collector.url, LLMOPS_TRACELOOP_EXPORTER=exporter)
    for number in range(40):
        main._session.metrics.record("gen_ai.client.operation.duration", 1.0, {"n": number})
    main.BREATH = 0.1
    began = time.monotonic()
    main._session._tick(0.3)
    assert time.monotonic() - began < 1 and collector.requests == []
    assert main._session._metrics_problem == "TimeoutError"


def test_a_partial_success_is_a_loss(collector: Collector, started: Callable[..., Any], exporter: str) -> None:
    collector.answer = ("application/json", b'{"partialSuccess": {"rejectedSpans": 1}}')
    main = started(TRACELOOP_BASE_URL=collector.url, LLMOPS_TRACELOOP_EXPORTER=exporter)
    call(main)
    wait(lambda: main._session.pipeline.dropped == 1)
    assert main._session.pipeline.delivered == 0


@pytest.mark.parametrize("kind", ["embeddings", "rerank"])
def test_other_kinds_of_call(collector: Collector, started: Callable[..., Any], exporter: str, kind: str) -> None:
    main = started(TRACELOOP_BASE_URL=collector.url, LLMOPS_TRACELOOP_EXPORTER=exporter)
    call(main, kind=kind, stream=False)
    main.close()
    (span,) = collector.spans
    assert span["name"] == f"{kind} deepseek-r1:1.5b" and "gen_ai.request.stream" not in span["attributes"]
    assert "gen_ai.response.time_to_first_chunk" not in span["attributes"]
    assert "dify.llm.output_tokens_per_second" not in collector.metrics


@pytest.mark.parametrize("trouble", ["refused", "silent", "500"])
def test_a_dead_collector_delays_no_call(
    collector: Collector, started: Callable[..., Any], exporter: str, trouble: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """No time is asserted here, `make bench` does that: the calls come back though nothing was ever delivered."""
    collector.status, collector.delay = (500, 0) if trouble == "500" else (200, 3)
    url = "http://127.0.0.1:1" if trouble == "refused" else collector.url
    main = started(TRACELOOP_BASE_URL=url, LLMOPS_TRACELOOP_EXPORTER=exporter, LLMOPS_TRACELOOP_QUEUE="8")
    pipeline = main._session.pipeline
    for _ in range(50):
        call(main)
    assert pipeline.delivered == 0 and pipeline.waiting <= 8
    assert pipeline.dropped >= 42
    main.LEAVE_WITHIN = 0.2
    main.close()
    assert pipeline.dropped == 50
    assert re.search(r"traceloop: 50 spans dropped so far, 0 delivered, 0 waiting: \S", capsys.readouterr().err)


def test_what_waited_is_delivered_when_the_collector_is_back(
    collector: Collector, started: Callable[..., Any], exporter: str
) -> None:
    collector.status = 503
    main = started(TRACELOOP_BASE_URL=collector.url, LLMOPS_TRACELOOP_EXPORTER=exporter)
    call(main)
    wait(lambda: collector.requests)
    collector.status = 200
    wait(lambda: collector.spans, within=10)
    assert len(collector.spans) == 1 and main._session.pipeline.dropped == 0


@pytest.mark.parametrize("status", [401, 302])
def test_a_batch_that_is_refused_for_good_is_dropped_and_said(
    collector: Collector,
    started: Callable[..., Any],
    exporter: str,
    status: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    collector.status = status
    main = started(TRACELOOP_BASE_URL=collector.url, LLMOPS_TRACELOOP_EXPORTER=exporter)
    call(main)
    wait(lambda: main._session.pipeline.dropped == 1)
    main.close()
    assert f"1 spans dropped so far, 0 delivered, 0 waiting: HTTP {status}" in capsys.readouterr().err
    assert {path for path, _ in collector.requests} <= {"/v1/traces", "/v1/metrics"}, "no redirect was followed"


def test_a_forked_child_has_its_own_series_and_sends_nothing_of_its_parent(
    collector: Collector, started: Callable[..., Any], exporter: str
) -> None:
    main = started(
        TRACELOOP_BASE_URL=collector.url, LLMOPS_TRACELOOP_EXPORTER=exporter, LLMOPS_TRACELOOP_INTERVAL_MS="60000"
    )
    call(main, model="of-the-parent")
    child = os.fork()
    if child == 0:
        try:
            again = Plugin(PLUGIN).load()
            again.run()
            call(sys.modules[PACKAGE], model="of-the-child")
            again.close()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert [span["name"] for span in collector.spans] == ["chat of-the-child"]
    (duration,) = collector.metrics["gen_ai.client.operation.duration"]
    assert duration["attributes"]["gen_ai.request.model"] == "of-the-child" and duration["count"] == "1"
    main.close()
    assert [span["name"] for span in collector.spans] == ["chat of-the-child", "chat of-the-parent"]
    assert len({span["resource"]["service.instance.id"] for span in collector.spans}) == 2
    assert len({span["traceId"] for span in collector.spans}) == 2


def test_threads_share_the_queue(collector: Collector, started: Callable[..., Any], exporter: str) -> None:
    main = started(TRACELOOP_BASE_URL=collector.url, LLMOPS_TRACELOOP_EXPORTER=exporter)
    threads = [threading.Thread(target=lambda: [call(main) for _ in range(25)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    main.close()
    assert len(collector.spans) == len({span["spanId"] for span in collector.spans}) == 200
    (duration,) = collector.metrics["gen_ai.client.operation.duration"]
    assert duration["count"] == "200"


@pytest.mark.parametrize(("module", "name"), [("impl", "BasePluginClient"), ("manager", "BasePluginManager")])
def test_traceparent_reaches_the_plugin_daemon(
    collector: Collector,
    started: Callable[..., Any],
    exporter: str,
    module: str,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Base:
        def _stream_request(
            self, method: str, path: str, params: Any = None, headers: Any = None, data: Any = None
        ) -> Iterator[Any]:
            yield headers

    base = types.ModuleType(f"core.plugin.{module}.base")
    setattr(base, name, Base)
    monkeypatch.setitem(sys.modules, base.__name__, base)
    original = Base._stream_request
    main = started(TRACELOOP_BASE_URL=collector.url, LLMOPS_TRACELOOP_EXPORTER=exporter)
    given = {"X-Plugin-ID": "langgenius/ollama"}
    (outside,) = Base()._stream_request("POST", "x", None, given)
    event = call(main)
    (sent,) = event.context.run(lambda: list(Base()._stream_request("POST", "x", None, given, b"")))
    (own,) = event.context.run(lambda: list(Base()._stream_request("POST", "x", headers={"Traceparent": "theirs"})))
    main.close()
    (span,) = collector.spans
    assert outside == given == {"X-Plugin-ID": "langgenius/ollama"}
    assert sent == {**given, "traceparent": f"00-{span['traceId']}-{span['spanId']}-01"}
    assert own == {"Traceparent": "theirs"}
    assert Base._stream_request is original, "close leaves Dify's class as it was"


def settings(**environment: str) -> Any:
    return part("config").Settings(environment)


def test_settings_as_traceloop_documents_them() -> None:
    hosted = settings(TRACELOOP_API_KEY="k")
    assert hosted.traces_url == "https://api.traceloop.com/v1/traces" and not hosted.reason
    assert hosted.headers == hosted.metrics_headers == {"authorization": "Bearer k"}
    assert hosted.metrics and not hosted.content, "content is off, unlike Traceloop's own default"
    own = settings(TRACELOOP_BASE_URL="http://c:4318/", TRACELOOP_API_KEY="k", TRACELOOP_HEADERS="a=b%20c,d=e")
    assert own.headers == {"a": "b c", "d": "e"}, "headers beat the key"
    assert (own.traces_url, own.metrics_url) == ("http://c:4318/v1/traces", "http://c:4318/v1/metrics")
    assert settings(TRACELOOP_API_KEY="k", TRACELOOP_METRICS_ENABLED="false").metrics is False
    apart = settings(TRACELOOP_API_KEY="k", TRACELOOP_METRICS_ENDPOINT="http://prometheus:9090/api/v1/otlp")
    assert apart.metrics_url == "http://prometheus:9090/api/v1/otlp/v1/metrics"
    assert apart.metrics_headers == {}, "the key of one host is not sent to another"
    assert settings(OTEL_EXPORTER_OTLP_ENDPOINT="http://o:4318").traces_url == "http://o:4318/v1/traces"
    assert [settings(TRACELOOP_API_KEY="k", MODE=mode).service for mode in ("api", "worker", "")] == [
        "dify-api",
        "dify-worker",
        "dify-api",
    ]


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({}, "TRACELOOP_API_KEY is not set"),
        ({"TRACELOOP_BASE_URL": "grpc://c:4317"}, "not an http"),
        ({"TRACELOOP_BASE_URL": "collector:4317"}, "not an http"),
        ({"TRACELOOP_API_KEY": "k", "TRACELOOP_TRACING_ENABLED": "false"}, "TRACELOOP_TRACING_ENABLED"),
        ({"TRACELOOP_API_KEY": f"{SECRET}\nx"}, "a character that HTTP does not allow"),
    ],
)
def test_where_nothing_can_be_sent_it_is_said_and_nothing_happens(
    environment: dict[str, str], reason: str, started: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    before = set(threading.enumerate())
    main = started(**environment)
    call(main)
    said = capsys.readouterr().err
    assert reason in said and reason in main._settings.reason and SECRET not in said
    assert set(threading.enumerate()) <= before


def test_metrics_of_many_apps_stay_bounded(collector: Collector, started: Callable[..., Any], exporter: str) -> None:
    main = started(TRACELOOP_BASE_URL=collector.url, LLMOPS_TRACELOOP_EXPORTER=exporter)
    for number in range(250):
        call(main, app_id=f"app-{number}")
    main.close()
    apps = {point["attributes"]["dify.app_id"] for point in collector.metrics["gen_ai.client.operation.duration"]}
    assert len(apps) == 201 and "other" in apps and len(collector.spans) == 250


GEVENT = """
import gevent.monkey; gevent.monkey.patch_all()
import contextvars, gevent, pathlib, sys, time
sys.path.insert(0, sys.argv[1])
from llmops_monitoring.event import Event
from llmops_monitoring.manifest import Plugin
plugin = Plugin(pathlib.Path(sys.argv[1], "plugins/traceloop")).load()
plugin.run()
hooks = plugin.hooks
def call(number):
    event = Event("chat", "ollama", "m%d" % number)
    event.context = contextvars.copy_context()
    event.start()
    event.context.run(hooks["before_invoke"], event)
    gevent.sleep(0.01)
    event.ended, event.outcome = time.monotonic(), "ok"
    event.context.run(hooks["after_invoke"], event)
gevent.joinall([gevent.spawn(call, number) for number in range(100)], raise_error=True)
plugin.close()
"""


def test_greenlets(collector: Collector, exporter: str) -> None:
    pytest.importorskip("gevent")
    environment = {"TRACELOOP_BASE_URL": collector.url, "LLMOPS_TRACELOOP_EXPORTER": exporter}
    done = subprocess.run(
        [sys.executable, "-c", GEVENT, str(MONITORING)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert len({span["name"] for span in collector.spans}) == len(collector.spans) == 100
    assert len({span["traceId"] for span in collector.spans}) == 100, "no call is another's child"


DIFY = {
    "core/__init__.py": "",
    "core/plugin/__init__.py": "",
    "core/plugin/impl/__init__.py": "",
    "core/plugin/impl/base.py": """
class BasePluginClient:
    def _stream_request(self, method, path, params=None, headers=None, data=None, files=None):
        SENT.append(headers)
        for word in ("Hel", "lo"):
            yield word
        if data == "fail":
            raise ValueError("no")
SENT = []
""",
    "core/plugin/impl/model.py": """
from types import SimpleNamespace
from core.plugin.impl.base import BasePluginClient
class PluginModelClient(BasePluginClient):
    def invoke_llm(self, tenant_id, user_id, plugin_id, provider, model, credentials, prompt_messages,
                   model_parameters=None, tools=None, stop=None, stream=True, app_id=None):
        usage = SimpleNamespace(prompt_tokens=3, completion_tokens=2, total_tokens=5)
        for word in self._stream_request("POST", "llm/invoke", headers={"X-Plugin-ID": plugin_id}, data=model):
            last = word == "lo"
            message = SimpleNamespace(content=word, tool_calls=[])
            delta = SimpleNamespace(message=message, usage=usage if last else None,
                                    finish_reason="stop" if last else None)
            yield SimpleNamespace(model=model, delta=delta)
""",
    "app.py": """
import contextlib, json, sys
from core.plugin.impl import base, model
client = model.PluginModelClient()
def ask(name, stream=True):
    return client.invoke_llm(tenant_id="t", user_id="u", plugin_id="langgenius/ollama", provider="ollama",
        model=name, credentials={"base_url": "http://user:SECRET@ollama.example:11434", "key": "SECRET"},
        prompt_messages=[], model_parameters={"temperature": 0.1}, stream=stream)
list(ask("llama3.2"))
with contextlib.suppress(ValueError):
    list(ask("fail"))
left = ask("left"); next(left); left.close()
for _chunk in ask("first chunk only", stream=False):
    break
ask("never iterated")
print(json.dumps(base.SENT))
""",
}


def test_under_the_runtime_a_process_leaves_with_its_spans_delivered(
    collector: Collector, exporter: str, tmp_path: pathlib.Path
) -> None:
    for name, text in DIFY.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    environment = {
        "PYTHONDONTWRITEBYTECODE": "1",
        "MODE": "worker",
        "TRACELOOP_BASE_URL": collector.url,
        "LLMOPS_TRACELOOP_EXPORTER": exporter,
    }
    path = os.pathsep.join([str(MONITORING), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "app.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    told = {span["name"]: span["attributes"]["dify.outcome"] for span in collector.spans}
    assert told == {
        "chat llama3.2": "ok",
        "chat fail": "error",
        "chat left": "cancelled",
        "chat first chunk only": "ok",
    }
    ok, failed, *others = collector.spans
    assert len(others) == 2 and ok["resource"]["service.name"] == "dify-worker"
    assert (ok["attributes"]["gen_ai.usage.output_tokens"], ok["attributes"]["dify.outcome"]) == (2, "ok")
    assert (ok["attributes"]["server.address"], ok["attributes"]["server.port"]) == ("ollama.example", 11434)
    assert failed["status"]["code"] == 2 and failed["attributes"]["error.type"] == "ValueError"
    assert [sent["traceparent"] for sent in json.loads(done.stdout)] == [
        f"00-{span['traceId']}-{span['spanId']}-01" for span in collector.spans
    ]
    assert "SECRET" not in json.dumps([collector.spans, collector.metrics, collector.requests])
