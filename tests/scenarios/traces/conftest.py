"""Every model call is seen, whatever becomes of the backend: the node of Molecule's default scenario (make traces)."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterator

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "world"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from node import HOME, MACHINE, Owner, containers, files, on_node


@pytest.fixture(scope="session")
def url() -> str:
    return Owner(MACHINE).url


@pytest.fixture(scope="session")
def key() -> str:
    """Of the app that the run uses for its own question."""
    return on_node(f"cat {HOME}/.llmops-probe.key")


@pytest.fixture
def untouched() -> Iterator[None]:
    """The same containers run after the test as before it, and the same files are there."""
    before = containers(), files()
    assert all(before)
    yield
    assert (containers(), files()) == before
