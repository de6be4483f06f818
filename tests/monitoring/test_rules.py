# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""promtool about the alert rules, and about what the exporter beside Ollama serves."""

from __future__ import annotations

import importlib.util
import pathlib
import shutil
import subprocess
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.world

ROOT = pathlib.Path(__file__).resolve().parents[2]
RULES = ROOT / "roles/traceloop/files/prometheus/llm-alerts.yml"
CASES = pathlib.Path(__file__).with_name("llm-alerts.test.yml")
EXPORTER = ROOT / "roles/ollama/files/ollama-metrics.py"
LOG = (
    '[GIN] 2026/11/26 - 01:32:13 | 200 |  936.884429ms |       127.0.0.1 | POST     "/api/chat"',
    'msg="llama-server started in 1.00 seconds"',
    "prompt eval time = 1.00 ms / 1 tokens",
    "eval time = 1.00 ms / 1 tokens",
)


def said(*argv: Any, text: str = "") -> str:
    program = [str(part) for part in argv]
    done = subprocess.run(program, input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_the_rules_are_valid(promtool: pathlib.Path) -> None:
    said(promtool, "check", "rules", "--lint=all", "--lint-fatal", RULES)


def test_alerts_fire_when_they_should_and_only_then(promtool: pathlib.Path, tmp_path: pathlib.Path) -> None:
    for path in (RULES, CASES):  # rule_files are looked for beside the cases
        shutil.copy(path, tmp_path)
    said(promtool, "test", "rules", tmp_path / CASES.name)


def test_every_alert_has_a_case() -> None:
    alerts = {rule["alert"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}
    cases = [case for test in yaml.safe_load(CASES.read_text())["tests"] for case in test["promql_expr_test"]]
    fires = {alert for alert in alerts for case in cases if f'"{alert}"' in case["expr"] and case["exp_samples"]}
    assert fires == alerts


def test_the_exporter_speaks_prometheus_language(promtool: pathlib.Path) -> None:
    spec = importlib.util.spec_from_file_location("ollama_metrics", EXPORTER)
    assert spec and spec.loader
    metrics = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(metrics)
    log = metrics.Log()
    log.readable = True
    for line in LOG:
        log.take(line)
    server = metrics.Server("http://127.0.0.1:1", "cpu")
    model = {
        "name": 'a "model"\\',
        "size": 2,
        "size_vram": 1,
        "expires_at": "2026-11-26T01:37:13Z",
        "context_length": 1,
    }
    server._ask = lambda path: {"version": "1", "models": [model]}
    text = "".join(f"{line}\n" for source in (server, log) for line in source.lines())
    assert said(promtool, "check", "metrics", text=text) == ""
