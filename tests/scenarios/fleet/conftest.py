"""Trouble in the fleet of Molecule's scenario fleet (`make fleet`, `make fleet-long`).

All tests share its six hosts, which a run takes a minute to go over, so the order is a part of them:

    test_inputs      nothing is touched by what is refused, so these come first, on the fleet as Molecule left it
    test_troubles    a node dies; it is the fleet of whichever version that is left

What is long goes its own ways: test_rollout, the upgrade from 0.13.5 to 0.17.4 with people at it (a canary that does
not start, then all the way), test_interruption and test_habits on the same hosts at whatever version they are,
test_new_gateway on them once more, first without their gateway,
test_bytes and test_airgap on hosts of their own, which they make and remove.
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterator

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import fleet


@pytest.fixture(scope="module")
def current() -> str:
    """The version that the fleet is at; where it is not at one, or not all of it serves, that is put right."""
    try:
        found = set(fleet.versions().values())
        fleet.wait_until_all_answer(10)
    except AssertionError:
        found = set()
    if len(found) != 1:
        fleet.finished()
        found = {fleet.OLD}
    (only,) = found
    return only


@pytest.fixture
def untouched(current: str) -> Iterator[None]:
    """Every host is afterwards what it was."""
    before = fleet.state()
    yield
    after = fleet.state()
    for what, seen in before.items():
        assert after[what] == seen, what
