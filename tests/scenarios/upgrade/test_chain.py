"""One Dify from 0.15.3 to the newest release: whatever it was given on the way is there after each step."""

from __future__ import annotations

import time

import node
import pytest
import seed as seeds
from state import State

LONG = ("0.15.3", "1.0.0", "1.9.2", "1.10.1", "1.12.1", "1.14.1", "1.16.0")
# Between 1.0.0 and 1.12.1 goes the upgrade that somebody kills (test_killed.py).
SHORT = (("0.15.3", "1.0.0"), ("1.12.1", "1.16.0"))
STEPS = [
    *(
        pytest.param(new, id=f"{old}-{new}", marks=[pytest.mark.at(old, last=True), pytest.mark.short])
        for old, new in SHORT
    ),
    *(
        pytest.param(new, id=f"{old}-{new}-long", marks=[pytest.mark.at(old, last=True), pytest.mark.long])
        for old, new in zip(LONG, LONG[1:], strict=False)
    ),
]


@pytest.mark.parametrize("release", STEPS)
def test_upgrade(seed: seeds.Seed, release: str) -> None:
    before, started = State.now(), time.monotonic()
    run = node.upgraded(release)
    seconds = time.monotonic() - started
    before.is_kept()
    seeds.grown(seed, release)
    again = node.upgrade(release)
    assert (again.status, again.changed) == (0, 0), again.output[-6000:]
    print(f"{before.release} -> {release}: {seconds:.0f} s, changed={run.changed}")


@pytest.mark.long
@pytest.mark.parametrize(
    ("new", "revision"),
    [
        pytest.param("1.9.2", "4474872b0ee6", marks=pytest.mark.at("1.0.0")),
        pytest.param("1.14.1", "6b5f9f8b1a2c", marks=pytest.mark.at("1.12.1")),
    ],
)
def test_killed_in_a_revision_that_commits_half_way(untouched: State, new: str, revision: str) -> None:
    """An index is built outside of the transaction, so it and all before it is committed when the process dies."""
    with node.told("api", f"migration=kill:{revision}"):
        words = f"failed at migrate .*The migration of the database to Dify {new} (was killed|broke off)"
        node.fell_back(new, words, log="migration.log")
