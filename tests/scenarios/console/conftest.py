"""Trouble on the way from an empty Dify to an answer, on the node of Molecule's default scenario (`make console`)."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterator

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from node import MACHINE, RECORD, SESSION, Owner, context, logins, on_node, probe_answers, shows_no_secret


@pytest.fixture(scope="session")
def owner() -> Iterator[Owner]:
    """The node is finished; a run that finds nothing to do logs in once; its owner can sign in."""
    for _ in range(2):
        before = logins()
        run = MACHINE.play("site.yml", "-vvv")
        assert run.status == 0, run.output[-8000:]
        shows_no_secret(run.output)
        if run.changed == 0:
            break
    assert run.changed == 0, run.output[-8000:]
    assert logins() - before == 1
    signed_in = Owner(MACHINE).sign_in()
    context(signed_in)  # while Dify can still be asked
    yield signed_in
    on_node(f"rm -rf {RECORD} $(dirname {SESSION})")


@pytest.fixture
def nothing_is_lost(owner: Owner) -> Iterator[None]:
    """Plugins, models, apps and keys are afterwards what they were, and the model answers in a chat."""
    before = owner.belongings()
    yield
    assert owner.belongings() == before
    assert probe_answers(owner)
