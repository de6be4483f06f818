"""A run that dies in any phase of an upgrade: the next one finishes it or takes it back, and nothing is lost."""

from __future__ import annotations

import pathlib
import subprocess
import time
from collections.abc import Iterator

import node
import pytest
import seed as seeds
from node import HOME
from state import State

OLD, NEW = "1.11.4", "1.12.1"
# Steps of the machine, as its journal names them.
STEPS = ("backup", "maintenance", "stop", "copy_databases", "migrate", "start", "prove", "forget_copies")
TELLING = {"migrate"}


class Killer:
    """Kills the process on the node that carries out the upgrade, once it has begun a step."""

    def __init__(self, step: str) -> None:
        program = (pathlib.Path(__file__).parent / "killer.py").read_text(encoding="utf-8")
        command = ["docker", "exec", "-i", node.MACHINE.container, "python3", "-c", program, HOME, step, "900"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def done(self) -> bool:
        try:
            return self.process.wait(5) == 0
        except subprocess.TimeoutExpired:
            return False


@pytest.fixture(scope="module", autouse=True)
def old(seed: seeds.Seed) -> None:
    if node.current() == "0.15.3":
        node.upgraded("1.0.0")
        seeds.add_secret(seed)
    if node.current() != OLD:
        node.upgraded(OLD)


@pytest.fixture
def back(seed: seeds.Seed) -> Iterator[State]:
    """The old release again for the next test, whichever one this test ended with."""
    before = State.now()
    yield before
    if node.current() != OLD:
        run = node.MACHINE.play("playbooks/rollback.yml", dify_version=OLD, dify_rollback_accept_loss=True)
        assert run.status == 0, run.output[-6000:]


@pytest.mark.parametrize(
    "step", [pytest.param(one, marks=[] if one in TELLING else [pytest.mark.long]) for one in STEPS]
)
def test_the_next_run_goes_on(back: State, step: str) -> None:
    killer = Killer(step)
    first = node.upgrade(NEW)
    assert killer.done(), f"nobody was killed in {step}: {first.output[-3000:]}"
    assert first.status != 0, first.output[-3000:]
    again = node.upgrade(NEW)
    assert again.status == 0, f"{again.message}\n{again.output[-4000:]}"
    back.is_kept()
    seeds.grown(seeds.load(), NEW)
    third = node.upgrade(NEW)
    assert (third.status, third.changed) == (0, 0), third.output[-4000:]


@pytest.mark.long
def test_the_next_run_takes_it_back_where_the_old_release_is_asked_for(back: State, seed: seeds.Seed) -> None:
    killer = Killer("migrate")
    node.upgrade(NEW)
    assert killer.done()
    again = node.upgrade(OLD)
    assert again.status == 0, f"{again.message}\n{again.output[-4000:]}"
    back.is_back(seed)


@pytest.mark.long
def test_a_control_machine_that_dies_leaves_an_upgrade_that_goes_on(back: State) -> None:
    """What runs on the node does not need whoever started it."""
    node.MACHINE.kill_when("Upgrade", delay=5, dify_version=NEW)
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and node.current() != NEW:
        time.sleep(2)
    again = node.upgrade(NEW)
    assert again.status == 0, f"{again.message}\n{again.output[-4000:]}"
    back.is_kept()
    seeds.grown(seeds.load(), NEW)
