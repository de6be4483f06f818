"""A node that dies with calls on it costs these calls and no others."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import NamedTuple

import fleet
import pytest
from fleet import CHECK_INTERVAL, OLLAMA, PARALLEL, refused
from load import Load

VICTIM = "fcpu1"
OTHERS = set(OLLAMA) - {VICTIM}
# A check that fails takes a second to do so, and has to fail twice.
NOTICED = 3 * CHECK_INTERVAL
ENOUGH = 20  # calls, to be sure that each of the other nodes had some


class Killed(NamedTuple):
    load: Load
    moment: float


@pytest.fixture(scope="module")
def killed(current: str) -> Iterator[Killed]:
    """Twenty streams at a time, and a node that is switched off under them; what became of them is in the load."""
    fleet.wait_until_all_answer()
    with contextlib.ExitStack() as stack, Load(fleet.gateway(), "talker", streams=20, predict=400) as load:
        end = time.monotonic() + 60
        while load.running()[VICTIM] < PARALLEL:
            assert time.monotonic() < end, load.running()
            time.sleep(0.02)
        moment = stack.enter_context(fleet.off(VICTIM))
        load.wait(20)
        end = time.monotonic() + 300  # a machine that has other work takes its time
        while load.since(moment + NOTICED).finished <= ENOUGH and time.monotonic() < end:
            load.wait(1)
        load.stop()
        yield Killed(load, moment)


def test_only_the_calls_on_it_are_lost(killed: Killed) -> None:
    total = killed.load.total
    assert 0 < total.lost <= PARALLEL, total.told()
    assert sum(total.nodes[node].get("broken", 0) for node in OTHERS) == 0, total.told()


def test_new_calls_go_elsewhere(killed: Killed) -> None:
    later = killed.load.since(killed.moment + NOTICED)
    assert later.lost == 0, later.told()
    assert set(later.nodes) == OTHERS, later.told()
    assert later.finished > ENOUGH, later.told()


def test_the_table_says_so(killed: Killed, current: str) -> None:
    rows = fleet.report(ollama_version=current, stack_skip_unreachable=True)
    assert rows[VICTIM]["gateway"] == "down"
    assert {rows[node]["gateway"] for node in OTHERS} == {"ready"}


def test_a_run_is_refused_without_it(killed: Killed, current: str) -> None:
    before = {node: fleet.server(node) for node in OTHERS}
    run = refused(VICTIM, "cannot be reached", "stack_skip_unreachable", ollama_version=current)
    assert not fleet.changed(run)
    assert {node: fleet.server(node) for node in OTHERS} == before
