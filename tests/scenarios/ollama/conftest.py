"""Trouble, played against the CPU node of Molecule's scenario ollama (`make models`)."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterator

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from server import play, wait_for_server


@pytest.fixture(scope="session", autouse=True)
def finished_node() -> None:
    """Ollama and its models are on the node before the first of these tests."""
    run = play()
    assert run.status == 0, run.output[-6000:]


@pytest.fixture(autouse=True)
def server_answers(finished_node: None) -> Iterator[None]:
    """Whatever a test did to the server, the next one begins with one that answers."""
    yield
    wait_for_server()
