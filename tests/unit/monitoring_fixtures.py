# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the traceloop plugin's tests; a file of their own, for pytest to find by its name."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ansible_collections.llmops.stack.tests.unit.monitoring_collector import PACKAGE, PLUGIN, Collector, Plugin

try:
    HAS_SDK = importlib.util.find_spec("opentelemetry.proto") is not None
except ModuleNotFoundError:
    HAS_SDK = False


@pytest.fixture
def collector() -> Iterator[Collector]:
    server = Collector()
    yield server
    server.close()


@pytest.fixture(params=["stdlib", "sdk"] if HAS_SDK else ["stdlib"])
def exporter(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Load and run the plugin as the runtime does."""
    for name in [key for key in os.environ if key.startswith(("TRACELOOP_", "LLMOPS_TRACELOOP_", "OTEL_", "MODE"))]:
        monkeypatch.delenv(name)
    running: list[Plugin] = []

    def start(**environment: str) -> Any:
        for name, value in {"LLMOPS_TRACELOOP_INTERVAL_MS": "20", **environment}.items():
            monkeypatch.setenv(name, value)
        plugin = Plugin(PLUGIN).load()
        running.append(plugin)
        plugin.run()
        return sys.modules[PACKAGE]

    yield start
    for plugin in running:
        plugin.close()
