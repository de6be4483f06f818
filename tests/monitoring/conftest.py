# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs for the tests of figures: built once by the world's own code, and kept in its cache."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "world"))

import _gobuild  # noqa: E402 - found only on the path set above
from _build import Builder  # noqa: E402 - as above
from images import COLLECTOR, PROMETHEUS, PROMTOOL  # noqa: E402 - as above

OPENTELEMETRY = "1.45.2"  # one is enough here: tools/monitoring tries the others


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "world: needs a container engine and the world's images")


@pytest.fixture(scope="session")
def prometheus_program() -> pathlib.Path:
    return _gobuild.ensure(PROMETHEUS, Builder())


@pytest.fixture(scope="session")
def promtool() -> pathlib.Path:
    return _gobuild.ensure(PROMTOOL, Builder())


@pytest.fixture(scope="session")
def collector_program() -> pathlib.Path:
    return _gobuild.ensure(COLLECTOR, Builder())


@pytest.fixture(scope="session")
def opentelemetry() -> str:
    """A folder for PYTHONPATH with the packages of a release, as Dify's image has them."""
    done = subprocess.run([ROOT / "tools/otel", OPENTELEMETRY], stdout=subprocess.PIPE, check=True, text=True)
    return done.stdout.strip()
