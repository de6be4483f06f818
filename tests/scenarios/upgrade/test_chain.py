"""One Dify from 0.15.3 to the newest release: whatever it was given on the way is there after each step."""

from __future__ import annotations

import time
from collections.abc import Callable

import node
import pytest
import seed as seeds
from people import key
from state import State

LONG = ("1.0.0", "1.9.2", "1.10.1", "1.12.1", "1.14.1", "1.16.0")
SHORT = ("1.0.0", "1.12.1", "1.16.0")


@pytest.fixture(scope="module")
def step(seed: seeds.Seed) -> Callable[[str], None]:
    """Upgrades the node to a release, and holds against it what was there before."""

    def step(release: str) -> None:
        if key(node.current()) >= key(release):
            pytest.skip(
                f"the node is at {node.current()} already; `make molecule SCENARIO=upgrade KEEP=1` makes it anew"
            )
        before, started = State.now(), time.monotonic()
        run = node.upgraded(release)
        seconds = time.monotonic() - started
        before.is_kept()
        told = seeds.load()
        if not told.with_secret:
            told = seeds.add_secret(told)
        seeds.grown(told, release)
        again = node.upgrade(release)
        assert (again.status, again.changed) == (0, 0), again.output[-6000:]
        print(f"{before.release} -> {release}: {seconds:.0f} s, changed={run.changed}")

    return step


@pytest.mark.parametrize("release", SHORT)
def test_upgrade(step: Callable[[str], None], release: str) -> None:
    step(release)


@pytest.mark.long
@pytest.mark.parametrize("release", LONG)
def test_upgrade_of_the_long_road(step: Callable[[str], None], release: str) -> None:
    step(release)
