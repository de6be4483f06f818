# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The dashboard and the alert rules against a real Prometheus, told known things by the real plugin and exporter.

Three processes of Dify, each with the real runtime and plugin, make calls of known length and outcome; half an hour of
them, and half an hour of the day before, arrive over OTLP within seconds. So every expression has one right answer.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.world

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILES = ROOT / "roles/traceloop/files"
DASHBOARD = json.loads((FILES / "grafana/llm-calls.json").read_text())
RULES = FILES / "prometheus/llm-alerts.yml"
EXPORTER = ROOT / "roles/ollama/files/ollama-metrics.py"
FEED = pathlib.Path(__file__).with_name("feed.py")
MINUTES = 31
DAY = 86400
# What Grafana puts in for its variables when all is chosen; the range is shorter than what was fed.
VARIABLES = {
    "$__rate_interval": "4m", "$__range": "20m", "$model": ".*", "$app": ".*", "$service": ".*",
}  # fmt: skip

ANSWERED = {"model": "deepseek-r1:1.5b", "app": "app-1", "first": 0.5, "seconds": 2.5, "tokens": [12, 37]}
FAILED = {"model": "deepseek-r1:1.5b", "app": "app-2", "error": "InvokeConnectionError", "seconds": 0.1}
STOPPED = {**ANSWERED, "stopped": True}
EMBEDDED = {"model": "nomic-embed-text", "kind": "embeddings", "seconds": 0.03, "tokens": 9}
BROKEN = {"model": "broken", "app": "app-4", "error": "InvokeServerUnavailableError", "seconds": 0.1}
SLOW = {"model": "llama3:8b", "app": "app-3", "first": 30.0, "seconds": 100.0, "tokens": [500, 1001]}
QUICK = {**SLOW, "first": 1.0, "seconds": 13.5}
REFUSED = {**ANSWERED, "model": "qwen3:4b", "app": None}
API = [{**ANSWERED, "times": 6}, {**FAILED, "times": 2}, STOPPED, {**EMBEDDED, "times": 2}, {**BROKEN, "times": 2}]

# Panel -> what each of its lines is called and says; `...` is a figure that depends on the moment.
EXPECTED: dict[str, dict[str, Any]] = {
    "Calls": {"": 15 * 20},
    "Failed": {"": 4 / 15},
    "Latency, p95": {"": 81.92 + (160 - 81.92) * 0.35},
    "First token, p95": {"": 20.48 + 20.48 * 0.55},
    "Tokens": {"in": 602 * 20, "out": 1260 * 20},
    "Spans lost": {"": 20},
    "Calls per second": {
        "deepseek-r1:1.5b": 9 / 60, "nomic-embed-text": 2 / 60, "broken": 2 / 60, "llama3:8b": 1 / 60,
        "qwen3:4b": 1 / 60,
    },
    "Outcome": {"ok": 10 / 60, "error": 4 / 60, "cancelled": 1 / 60},
    "Failed share": {"deepseek-r1:1.5b": 2 / 9, "broken": 1},
    "Errors by type": {"InvokeConnectionError": 2 / 60, "InvokeServerUnavailableError": 2 / 60},
    "Calls per second by app": {"app-1": 7 / 60, "app-2": 2 / 60, "app-3": 1 / 60, "app-4": 2 / 60},
    "Calls per second by kind": {
        "dify-api chat": 11 / 60, "dify-api embeddings": 2 / 60, "dify-worker chat": 1 / 60, "dify-beat chat": 1 / 60,
    },
    "Latency": {
        "p50 deepseek-r1:1.5b": 1.6, "p95 deepseek-r1:1.5b": 2.464, "p50 nomic-embed-text": 0.03,
        "p95 nomic-embed-text": 0.039, "p50 broken": 0.12, "p95 broken": 0.156, "p50 llama3:8b": 120.96,
        "p95 llama3:8b": 156.096, "p50 qwen3:4b": 1.92, "p95 qwen3:4b": 2.496,
    },
    "Time to first token": {
        "p50 deepseek-r1:1.5b": 0.48, "p95 deepseek-r1:1.5b": 0.624, "p50 llama3:8b": 30.72, "p95 llama3:8b": 39.424,
        "p50 qwen3:4b": 0.48, "p95 qwen3:4b": 0.624,
    },
    "Latency by app, p95": {"app-1": 2.48533, "app-2": 0.156, "app-3": 156.096, "app-4": 0.156},
    "Latency, all calls": {
        "0.01": 0, "0.02": 0, "0.04": 8, "0.08": 8, "0.16": 24, "0.32": 24, "0.64": 28, "1.28": 28, "2.56": 56,
        "5.12": 56, "10.24": 56, "20.48": 56, "40.96": 56, "81.92": 56, "160": 60, "320": 60, "+Inf": 60,
    },
    "Tokens per second written": {"deepseek-r1:1.5b": 222 / 60, "llama3:8b": 1001 / 60, "qwen3:4b": 37 / 60},
    "Output speed per call": {
        "p50 deepseek-r1:1.5b": 15, "p10 deepseek-r1:1.5b": 11, "p50 llama3:8b": 15, "p10 llama3:8b": 11,
        "p50 qwen3:4b": 15, "p10 qwen3:4b": 11,
    },
    "Tokens per second in and out": {"input": 602 / 60, "output": 21},
    "Tokens by model": {
        "deepseek-r1:1.5b input": 1440, "deepseek-r1:1.5b output": 4440, "nomic-embed-text input": 360,
        "nomic-embed-text output": 0,
        "llama3:8b input": 10000, "llama3:8b output": 20020, "qwen3:4b input": 240, "qwen3:4b output": 740,
    },
    "Tokens by app": {"app-1": 294 * 20, "app-3": 1501 * 20},
    "Spans sent": {"dify-api": 13 / 60, "dify-worker": 1 / 60, "dify-beat": 0},
    "Spans lost in Dify's processes": {"dify-api": 0, "dify-worker": 0, "dify-beat": 4},
    "Collector's queue": {"otlp_http/traces": 1, "otlp_http/metrics": ...},
    "Lost by the collector": {"otlp_http/traces": ...},
    "Models on the GPU": {"ollama1 deepseek-r1:1.5b": 0},
    "Memory of loaded models": {"ollama1 all": 11014656, "ollama1 on GPUs": 0},
    "Requests at the server": {"200": ..., "503": ...},
    "Request time at the server, p95": {"/api/chat": ..., "/api/generate": ...},
    "Loads of models": {"ollama1": ...},
    "Time to load": {"ollama1": 6.5},
    "Speed of computing": {"ollama1 writing": 400 / 14.5, "ollama1 reading": 50 / 1.25},
    "Servers": {"ollama1": 1, "ollama2": 0},
}  # fmt: skip
# What must be wrong in the eyes of the rules, by alert and one label that says where; and nothing else.
ALERTS = {
    ("LLMCallsFail", "deepseek-r1:1.5b"), ("LLMCallsFail", "broken"), ("LLMNoCallSucceeds", "broken"),
    ("LLMAnswersSlow", "llama3:8b"), ("LLMFirstTokenSlow", "llama3:8b"), ("LLMSlowerThanYesterday", "llama3:8b"),
    ("LLMSpansDropped", "dify-beat"), ("LLMCollectorQueueFilling", "otlp_http/traces"),
    ("LLMCollectorLosesData", "otlp_http/traces"), ("LLMModelServerDown", "ollama2"), ("LLMModelOnCPU", "ollama1"),
    ("LLMModelServerQueueFull", "ollama1"), ("LLMModelsPushEachOtherOut", "ollama1"),
}  # fmt: skip
# A span that a collector is given for a backend that is not there.
SPAN = {"traceId": "0" * 31 + "1", "spanId": "0" * 15 + "1", "name": "chat"}
LOG = """
[GIN] 2026/11/26 - 01:32:13 | 200 |  936.884429ms |       127.0.0.1 | POST     "/api/chat"
[GIN] 2026/11/26 - 01:32:15 | 200 |  2.455746921s |      172.18.0.1 | POST     "/api/generate"
[GIN] 2026/11/26 - 01:32:38 | 503 |   11.811728ms |       127.0.0.1 | POST     "/api/generate"
slot print_timing: id  0 | task 12 | prompt eval time =    1250.00 ms /    50 tokens (   25.00 ms per token)
slot print_timing: id  0 | task 12 |        eval time =   14500.00 ms /   400 tokens (   36.25 ms per token)
"""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def until(condition: Any, what: str, within: float = 20.0) -> Any:
    end = time.monotonic() + within
    while not (found := condition()):
        assert time.monotonic() < end, f"not in {within:.0f} s: {what}"
        time.sleep(0.1)
    return found


@contextlib.contextmanager
def serving(answers: dict[str, tuple[int, str]]) -> Iterator[str]:
    """Answers by path; POST to whatever ends like it."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, text = next(value for path, value in answers.items() if self.path.endswith(path))
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        do_POST = do_GET

        def log_message(self, *_args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@contextlib.contextmanager
def running(*argv: Any, **options: Any) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([str(part) for part in argv], text=True, start_new_session=True, **options)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 15)
        process.wait(10)


class Prometheus:
    def __init__(self, address: str) -> None:
        self.url = f"http://{address}"

    def get(self, path: str, **parameters: str) -> Any:
        query = f"?{urllib.parse.urlencode(parameters)}" if parameters else ""
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}{query}", timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path} {parameters}: {error.read().decode()}") from error

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        data = self.get("query", query=expression)
        assert data["resultType"] == "vector"
        return [(found["metric"], float(found["value"][1])) for found in data["result"]]


class Dify:
    """Processes that make calls, and the address that takes their spans."""

    def __init__(self, prometheus: Prometheus, spans: str, refusing: str, root: pathlib.Path) -> None:
        self.prometheus, self.spans, self.refusing, self.root = prometheus, spans, refusing, root

    def start(self, mode: str, minutes: list[dict[str, Any]], packages: str = "") -> subprocess.Popen[str]:
        environment = {
            "MODE": mode,
            "TRACELOOP_BASE_URL": f"http://{self.refusing if mode == 'beat' else self.spans}",
            "TRACELOOP_METRICS_ENDPOINT": f"{self.prometheus.url}/api/v1/otlp",
            "LLMOPS_TRACELOOP_EXPORTER": "sdk" if packages else "stdlib",
            "TRACELOOP_SUPPRESS_WARNINGS": "true",
        }
        inherited = {
            key: value for key, value in os.environ.items() if not key.startswith(("TRACELOOP", "OTEL", "LLMOPS"))
        }
        process = subprocess.Popen(
            [sys.executable, FEED, self.root / f"{mode}-{time.monotonic_ns()}"],
            stdin=subprocess.PIPE, text=True, env={**inherited, "PYTHONPATH": packages},
        )  # fmt: skip
        assert process.stdin
        process.stdin.write(json.dumps({"environment": environment, "minutes": minutes}) + "\n")
        process.stdin.close()
        return process


def half_an_hour(calls: list[dict[str, Any]], until_then: float) -> list[dict[str, Any]]:
    return [{"at": until_then - 60 * (MINUTES - number), "calls": calls} for number in range(MINUTES)]


def full_collector(
    stack: contextlib.ExitStack, program: pathlib.Path, root: pathlib.Path, prometheus: Prometheus
) -> None:
    """One whose queue of five is full, as its backend is away. It reports that through itself, as the role has it."""
    port = free_port()
    retry = {"initial_interval": "1s", "max_interval": "1s", "max_elapsed_time": "0s"}
    reader = {"protocol": "http/protobuf", "endpoint": f"http://127.0.0.1:{port}/v1/metrics"}
    config = {
        "receivers": {"otlp": {"protocols": {"http": {"endpoint": f"127.0.0.1:{port}"}}}},
        "exporters": {
            "otlp_http/traces": {
                "endpoint": f"http://127.0.0.1:{free_port()}",
                "sending_queue": {"queue_size": 5},
                "retry_on_failure": retry,
            },
            "otlp_http/metrics": {"metrics_endpoint": f"{prometheus.url}/api/v1/otlp/v1/metrics"},
        },
        "service": {
            "telemetry": {"metrics": {"readers": [{"periodic": {"interval": 1000, "exporter": {"otlp": reader}}}]}},
            "pipelines": {
                signal: {"receivers": ["otlp"], "exporters": [f"otlp_http/{signal}"]}
                for signal in ("traces", "metrics")
            },
        },
    }
    (root / "collector.yaml").write_text(yaml.safe_dump(config))
    stack.enter_context(running(program, f"--config={root}/collector.yaml", stderr=(root / "collector.log").open("w")))
    body = json.dumps({"resourceSpans": [{"resource": {}, "scopeSpans": [{"spans": [SPAN]}]}]}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/traces", body, {"Content-Type": "application/json"})

    def refused() -> bool:
        try:
            urllib.request.urlopen(request, timeout=5).close()
        except urllib.error.HTTPError as error:
            return error.code == 503
        except OSError:
            return False  # it has not started yet
        return False

    until(refused, f"the collector's queue is full; see {root}/collector.log")


def ollama(folder: pathlib.Path) -> tuple[dict[str, tuple[int, str]], pathlib.Path, dict[str, str]]:
    """A server's answers, its log, and an environment in which journalctl shows that log."""
    log = folder / "log"
    log.touch()
    (folder / "journalctl").write_text(f"#!/bin/sh\nexec tail -n +1 -f {log}\n")
    (folder / "journalctl").chmod(0o755)
    model = {"name": "deepseek-r1:1.5b", "size": 11014656, "size_vram": 0, "context_length": 4096}
    answers = {
        "/api/version": (200, json.dumps({"version": "0.32.15"})),
        "/api/ps": (200, json.dumps({"models": [model]})),
    }
    return answers, log, {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


@pytest.fixture(scope="module")
def told(
    prometheus_program: pathlib.Path,
    collector_program: pathlib.Path,
    opentelemetry: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Dify]:
    """A Prometheus that knows all of it."""
    root = tmp_path_factory.mktemp("prometheus")
    answers, log, environment = ollama(root)
    port, one, two = free_port(), free_port(), free_port()
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(serving(answers))
        spans = stack.enter_context(serving({"/v1/traces": (200, "")}))
        refusing = stack.enter_context(serving({"/v1/traces": (401, "")}))
        targets = {"ollama1": f"127.0.0.1:{one}", "ollama2": f"127.0.0.1:{two}"}
        scrapes = [
            {"job_name": name, "static_configs": [{"targets": [target], "labels": {"instance": name}}]}
            for name, target in targets.items()
        ]
        (root / "prometheus.yml").write_text(
            yaml.safe_dump(
                {
                    "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                    "storage": {"tsdb": {"out_of_order_time_window": "48h"}},
                    "rule_files": [str(RULES)],
                    "scrape_configs": scrapes,
                }
            )
        )
        for number, where, *log_of in ((one, server, "--unit", "ollama.service"), (two, f"127.0.0.1:{free_port()}")):
            exporter = ("--server", f"http://{where}", "--port", number, "--gpu", "nvidia", *log_of)
            stack.enter_context(running(sys.executable, "-I", EXPORTER, *exporter, env=environment))
        stack.enter_context(
            running(
                prometheus_program,
                f"--config.file={root}/prometheus.yml",
                f"--storage.tsdb.path={root}/data",
                f"--web.listen-address=127.0.0.1:{port}",
                "--web.enable-otlp-receiver",
                stderr=(root / "prometheus.log").open("w"),
            )
        )
        prometheus = Prometheus(f"127.0.0.1:{port}")
        until(prometheus.ready, f"Prometheus is ready; see {root}/prometheus.log")
        until(lambda: prometheus.query('ollama_log_readable{instance="ollama1"} == 1'), "the exporter's first scrape")
        full_collector(stack, collector_program, root, prometheus)
        # A log that grows between two scrapes, as it does on a host.
        with log.open("a") as out:
            out.write(LOG)
        until(lambda: prometheus.query("ollama_output_tokens_total"), "a scrape of the log's first lines")
        loads = "".join(f'msg="llama-server started in {took}.00 seconds"\n' for took in range(1, 13))
        with log.open("a") as out:
            out.write(LOG + loads)
        dify = Dify(prometheus, spans, refusing, root)
        now = time.time()
        processes = [
            dify.start("api", half_an_hour(API, now)),
            dify.start("worker", half_an_hour([QUICK], now - DAY) + half_an_hour([SLOW], now), opentelemetry),
            dify.start("beat", half_an_hour([REFUSED], now)),
        ]
        assert [process.wait(30) for process in processes] == [0, 0, 0]
        until(lambda: prometheus.query("increase(ollama_output_tokens_total[1m]) > 0"), "a second scrape of the log")
        until(lambda: prometheus.query("otelcol_exporter_queue_size == 5"), "the collector's figures")
        yield dify


@pytest.fixture(scope="module")
def prometheus(told: Dify) -> Prometheus:
    return told.prometheus


def panels() -> dict[str, dict[str, Any]]:
    return {panel["title"]: panel for panel in DASHBOARD["panels"] if panel["type"] != "row"}


def filled(text: str, **chosen: str) -> str:
    for name, value in {**VARIABLES, **chosen}.items():
        text = text.replace(name, value)
    assert "$" not in text.replace("$$", "")
    return text


def rendered(legend: str, labels: dict[str, str]) -> str:
    return re.sub(r"{{(\w+)}}", lambda found: labels[found[1]], legend)


def shown(prometheus: Prometheus, panel: dict[str, Any], **chosen: str) -> dict[str, float]:
    """The lines of a panel as Grafana would call them."""
    found: dict[str, float] = {}
    for target in panel["targets"]:
        for labels, value in prometheus.query(filled(target["expr"], **chosen)):
            name = rendered(target["legendFormat"], labels)
            assert name not in found, f"two lines of {panel['title']} are called {name}"
            found[name] = value
    return found


def test_every_panel_has_its_expected_figures() -> None:
    assert sorted(panels()) == sorted(EXPECTED)


@pytest.mark.parametrize("title", EXPECTED)
def test_a_panel_shows_what_happened(prometheus: Prometheus, title: str) -> None:
    found = shown(prometheus, panels()[title])
    assert sorted(found) == sorted(EXPECTED[title])
    for name, expected in EXPECTED[title].items():
        if expected is ...:
            assert found[name] >= 0, name
        else:
            assert found[name] == pytest.approx(expected, rel=0.03, abs=1e-9), name


def test_the_variables_choose(prometheus: Prometheus) -> None:
    only = shown(
        prometheus, panels()["Calls per second"], **{"$model": "llama3:8b|qwen3:4b", "$service": "dify-worker"}
    )
    assert only == {"llama3:8b": pytest.approx(1 / 60, rel=0.03)}
    assert shown(prometheus, panels()["Calls"], **{"$app": "app-1"}) == {"": pytest.approx(140, rel=0.03)}


def test_the_variables_offer_what_there_is(prometheus: Prometheus) -> None:
    offered = {}
    for variable in DASHBOARD["templating"]["list"]:
        query = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable.get("definition", ""))
        if query:
            offered[variable["name"]] = prometheus.get(f"label/{query[2]}/values", **{"match[]": query[1]})
    assert offered == {
        "model": ["broken", "deepseek-r1:1.5b", "llama3:8b", "nomic-embed-text", "qwen3:4b"],
        "app": ["app-1", "app-2", "app-3", "app-4"],
        "service": ["dify-api", "dify-beat", "dify-worker"],
    }


def test_the_rules_see_what_is_wrong_and_nothing_else(prometheus: Prometheus) -> None:
    def alerts() -> set[tuple[str, str]]:
        found = set()
        for alert in prometheus.get("alerts")["alerts"]:
            labels = alert["labels"]
            for name in ("gen_ai_request_model", "exporter", "instance", "job"):
                if name in labels:
                    found.add((labels["alertname"], labels[name]))
                    break
        return found

    until(lambda: alerts() >= ALERTS, f"these alerts are missing: {ALERTS - alerts()}")
    assert alerts() == ALERTS


def test_prometheus_computes_every_rule(prometheus: Prometheus) -> None:
    rules = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
    assert len(rules) == len([rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]])
    assert [(rule["name"], rule["lastError"]) for rule in rules if rule["health"] != "ok"] == []


def test_annotations_are_whole_sentences(prometheus: Prometheus) -> None:
    """Go's templates leave `<no value>` where a label is not there."""
    for alert in prometheus.get("alerts")["alerts"]:
        for name in ("summary", "description", "cause", "next_step"):
            assert alert["annotations"][name]
            assert "<no value>" not in alert["annotations"][name]
            assert "<error" not in alert["annotations"][name]


@pytest.mark.parametrize("exporter", ["stdlib", "sdk"])
def test_the_first_calls_of_a_process_count(told: Dify, opentelemetry: str, exporter: str) -> None:
    """One export is all there is of a process that made two calls and ended: rate() needs something before it."""
    model = f"once-{exporter}"
    minute = {"at": time.time() - 61, "calls": [{**ANSWERED, "model": model, "times": 2}]}
    assert told.start("api", [minute], opentelemetry if exporter == "sdk" else "").wait(30) == 0
    ((_labels, grown),) = told.prometheus.query(
        f'sum(increase(gen_ai_client_operation_duration_seconds_count{{gen_ai_request_model="{model}"}}[5m]))'
    )
    assert 2 <= grown < 4, "extrapolated beyond its two points"


def test_a_model_and_an_app_are_the_only_labels_that_grow(prometheus: Prometheus) -> None:
    """Series are what a Prometheus costs: each of these has few values, however many users and calls there are."""
    found = {label for labels, _value in prometheus.query('{__name__=~"gen_ai_.*|dify_.*"}') for label in labels}
    assert found == {
        "__name__", "job", "instance", "le", "gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model",
        "gen_ai_token_type", "server_address", "server_port", "dify_app_id", "dify_outcome", "error_type",
    }  # fmt: skip
    series = len(prometheus.query('{__name__=~"gen_ai_.*|dify_.*",gen_ai_request_model!~"once-.*"}'))
    assert series < 400, "three processes, five models, four apps"
