# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dashboard and alert rules name only what somebody emits; what they show of it is in tests/monitoring."""

from __future__ import annotations

import importlib.util
import json
import pathlib
import re
import sys
from typing import Any

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILES = ROOT / "roles/traceloop/files"
DASHBOARD = json.loads((FILES / "grafana/llm-calls.json").read_text())
RULES = yaml.safe_load((FILES / "prometheus/llm-alerts.yml").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
TARGETS = [(panel["title"], target) for panel in PANELS for target in panel["targets"]]
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"]]
EXPRESSIONS = [target["expr"] for _title, target in TARGETS] + [rule["expr"] for rule in ALERTS]
# What the OpenTelemetry Collector 0.155 says of its exporters.
COLLECTOR = {
    "otelcol_exporter_queue_size",
    "otelcol_exporter_queue_capacity",
    "otelcol_exporter_(send|enqueue)_failed_(spans|metric_points)(_total)?",
}
# Attributes of measurements, each with few values: models and apps are an operator's, the rest the code's.
LABELS = {
    "gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model", "gen_ai.token.type", "server.address",
    "server.port", "dify.app_id", "dify.outcome", "error.type",
}  # fmt: skip
WORDS = {
    *("sum", "by", "le", "rate", "increase", "histogram_quantile", "max", "min", "or", "and", "unless", "on", "offset"),
    *("topk", "vector", "job", "instance", "exporter", "status", "path", "model", "error_type"),
}


def module(name: str, path: pathlib.Path) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


NAMES: Any = module("traceloop_names", FILES / "monitoring/plugins/traceloop/names.py")


def translated(name: str) -> str:
    """As Prometheus' OTLP receiver does it: tests/monitoring sees the real one do it."""
    unit = {"s": "_seconds"}.get(NAMES.UNITS[name], "")
    return re.sub(r"\W", "_", name) + unit


def emitted() -> set[str]:
    histograms = {f"{translated(name)}_{part}" for name in NAMES.BUCKETS for part in ("bucket", "count", "sum")}
    return histograms | {f"{translated(name)}_total" for name in NAMES.UNITS if name not in NAMES.BUCKETS}


def of_ollama() -> set[str]:
    """What the exporter says at its fullest."""
    metrics = module("ollama_metrics", ROOT / "roles/ollama/files/ollama-metrics.py")
    log = metrics.Log()
    log.readable = True
    for line in (
        '[GIN] 2026/11/26 - 01:32:13 | 200 |  936.884429ms |       127.0.0.1 | POST     "/api/chat"',
        "prompt eval time = 1.00 ms / 1 tokens",
        "eval time = 1.00 ms / 1 tokens",
    ):
        log.take(line)
    server = metrics.Server("http://127.0.0.1:1", "cpu")
    model = {"name": "m", "size": 2, "size_vram": 1, "expires_at": "2026-11-26T01:37:13Z", "context_length": 1}
    server._ask = lambda path: {"version": "1", "models": [model]}
    lines = [*log.lines(), *server.lines()]
    return {re.split(r"[{ ]", line)[0] for line in lines if not line.startswith("#")}


def named(expression: str) -> set[str]:
    """The metrics of an expression: its words outside of braces and `by (…)` that are none of PromQL's."""
    found = set(re.findall(r'__name__=~"([^"]+)"', expression))
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]|\$\w+", "", expression)
    bare = re.sub(r"\b(by|on)\s*\([^)]*\)", "", bare)
    return found | {word for word in re.findall(r"[a-z_][a-z0-9_]+", bare) if word not in WORDS}


def test_nothing_is_asked_for_that_nobody_emits() -> None:
    known = emitted() | of_ollama() | COLLECTOR
    assert set().union(*map(named, EXPRESSIONS)) - known == set()
    for variable in DASHBOARD["templating"]["list"]:
        query = re.fullmatch(r"label_values\((\w+), \w+\)", variable.get("definition", ""))
        assert variable["type"] == "datasource" or (query and query[1] in emitted())


def test_what_the_plugin_emits_is_shown() -> None:
    shown = set().union(*(named(target["expr"]) for _title, target in TARGETS))
    assert {name for name in NAMES.UNITS if not any(metric.startswith(translated(name)) for metric in shown)} == set()


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_labels_are_those_of_the_measurements(expression: str) -> None:
    known = {re.sub(r"\W", "_", label) for label in LABELS} | {"job", "instance", "le", "__name__"}
    known |= {"exporter", "path", "status", "model"}  # of the collector and of Ollama
    used = set(re.findall(r"[{,]\s*(\w+)\s*(?:=~|!~|!=|=)", expression))
    for inside in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", expression):
        used |= set(re.findall(r"\w+", inside))
    assert used <= known


def test_measurements_carry_nothing_that_grows_with_users_or_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FILES / "monitoring"))
    from llmops_monitoring.event import Error, Event
    from llmops_monitoring.manifest import Plugin

    Plugin(FILES / "monitoring/plugins/traceloop").load()
    describe = sys.modules["llmops_monitoring_plugin_traceloop.describe"]
    event = Event("chat", "langgenius/ollama/ollama", "m")
    event.stream, event.app_id, event.user, event.tenant_id = True, "app", "user", "tenant"
    event.server_address, event.server_port = "ollama", 11434
    event.parameters = {"seed": 7}
    event.start()
    event.first_chunk, event.ended = event.started + 1, event.started + 2
    event.usage = {"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4}
    event.outcome, event.error = "error", Error("E", "message", "cause")
    found = describe.measurements(event)
    assert {metric for metric, _value, _attributes in found} == set(NAMES.BUCKETS)
    assert set().union(*(attributes for _metric, _value, attributes in found)) == LABELS
    others = []
    for number in range(describe.APPS + 50):
        event.app_id = f"app-{number}"
        others += [attributes[NAMES.APP_ID] for _metric, _value, attributes in describe.measurements(event)]
    assert len(set(others)) <= describe.APPS + 1
    assert "other" in others


class TestDashboard:
    def test_it_is_the_same_one_after_an_update(self) -> None:
        assert DASHBOARD["uid"] == "llmops-llm-calls"
        assert "id" not in DASHBOARD
        assert "__inputs" not in DASHBOARD

    def test_the_data_source_is_chosen(self) -> None:
        everywhere = [*PANELS, *(target for _title, target in TARGETS)]
        assert {item["datasource"]["uid"] for item in everywhere} == {"${datasource}"}
        assert DASHBOARD["templating"]["list"][0]["type"] == "datasource"

    def test_panels_do_not_overlap(self) -> None:
        taken: dict[tuple[int, int], str] = {}
        for panel in DASHBOARD["panels"]:
            place = panel["gridPos"]
            assert place["x"] + place["w"] <= 24
            for cell in (
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            ):
                assert cell not in taken, f"{panel['title']} and {taken[cell]}"
                taken[cell] = panel["title"]
        assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])

    @pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
    def test_a_panel_says_what_it_is(self, panel: dict[str, Any]) -> None:
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        if "dify_app_id}}" in json.dumps(panel["targets"]):
            assert "id in Dify" in panel["description"]

    @pytest.mark.parametrize(("title", "target"), TARGETS, ids=lambda item: item if isinstance(item, str) else "")
    def test_windows_follow_the_minute_in_which_the_plugin_reports(self, title: str, target: dict[str, Any]) -> None:
        assert target["interval"] == "1m", title
        assert set(re.findall(r"\[([^]]+)\]", target["expr"])) <= {"$__rate_interval", "$__range"}


class TestRules:
    @pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
    def test_an_alert_says_what_why_and_what_next(self, rule: dict[str, Any]) -> None:
        assert re.fullmatch(r"LLM[A-Za-z]+", rule["alert"])
        assert sorted(rule["annotations"]) == ["cause", "description", "next_step", "summary"]
        for text in rule["annotations"].values():
            assert len(text) > 20
        assert rule["labels"] in [{"severity": level} for level in ("critical", "warning", "info")]
        assert rule["for"]

    def test_names_are_unique(self) -> None:
        assert len({rule["alert"] for rule in ALERTS}) == len(ALERTS)

    def test_variables_that_are_advised_exist(self) -> None:
        known: set[str] = set()
        for role in ("traceloop", "ollama"):
            known |= set(yaml.safe_load((ROOT / f"roles/{role}/defaults/main.yml").read_text()))
        for rule in ALERTS:
            advised = set(re.findall(r"\b(?:traceloop|ollama)_[a-z_]+", rule["annotations"]["next_step"]))
            assert advised <= known, rule["alert"]
