"""Trouble, played against the finished node of Molecule's default scenario (`make scenarios`)."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterator

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from node import containers, files, play


@pytest.fixture(scope="session", autouse=True)
def finished_node() -> None:
    """Everything runs on the node before the first of these tests."""
    run = play()
    assert run.status == 0, run.output[-6000:]


@pytest.fixture
def containers_untouched() -> Iterator[None]:
    """The same containers run after the test as before it, and none was restarted."""
    before = containers()
    assert before
    yield
    assert containers() == before


@pytest.fixture
def untouched(containers_untouched: None) -> Iterator[None]:
    """And what the role keeps on disk is the same, too."""
    before = files()
    yield
    assert files() == before
