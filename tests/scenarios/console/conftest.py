"""Trouble on the way from an empty Dify to an answer, on the node of Molecule's default scenario (`make console`)."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterator

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from node import MACHINE, RECORD, SESSION, Owner, finished, logins, on_node, probe_answers


@pytest.fixture(scope="session")
def owner() -> Iterator[Owner]:
    """The node is finished, a run that finds nothing to do logs in once, and its owner can sign in."""
    finished()
    before = logins()
    again = finished()
    assert again.changed == 0, again.output[-8000:]
    assert logins() - before == 1
    yield Owner(MACHINE).sign_in()
    on_node(f"rm -rf {RECORD} $(dirname {SESSION})")


@pytest.fixture
def nothing_is_lost(owner: Owner) -> Iterator[None]:
    """Plugins, models, apps and keys are afterwards what they were, and the model answers in a chat."""
    before = owner.belongings()
    yield
    assert owner.belongings() == before
    assert probe_answers(owner)
