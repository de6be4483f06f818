"""What the scenarios share lies beside them: machine.py here, a node.py of its own in each folder."""

from __future__ import annotations

import pathlib
import sys

import pytest

# What they assert is told as a test's own assertions are.
pytest.register_assert_rewrite("fleet", "killing", "node", "people", "rows", "seed", "state")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: minutes of its own, so `make test-long` runs it and `make test` does not")
