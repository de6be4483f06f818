"""One Dify over its life (`make upgrade`, `make upgrade-long`): begun in 0.15.3, upgraded, and spared no fault."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterator

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import node
import seed as seeds
from state import State


@pytest.fixture(scope="session")
def seed() -> seeds.Seed:
    """What two workspaces made; made once for a node, in the release that it begins with."""
    if not seeds.FILE.is_file() or node.sql("SELECT count(*) FROM accounts") == [["1"]]:
        return seeds.sow()
    return seeds.load()


@pytest.fixture
def untouched(seed: seeds.Seed) -> Iterator[State]:
    """After a failed upgrade the old release serves, and all that it had is there and is what it was."""
    before = State.now()
    yield before
    before.is_back(seed)
