"""A run that dies in any step of an upgrade: the next one finishes it or takes it back, and nothing is lost."""

from __future__ import annotations

import json
import time
from typing import Any

import node
import pytest
import seed as seeds
from ansible_collections.llmops.stack.plugins.module_utils import _dify_upgrade_steps as machine
from killing import Killer
from node import on_node
from state import State

OLD, NEW = "1.10.1", "1.12.1"
# Each step of the machine in an upgrade that has it; "backup" is none of its own.
STEPS = {
    ("0.15.3", "1.0.0"): ("fetch_plugins", "install_plugins", "plugin_names"),
    ("1.0.0", "1.9.2"): ("prepare_vectors", "keep_vectors", "load_vectors"),
    ("1.9.2", "1.10.1"): ("prepare_storage", "storage_owner"),
    (OLD, NEW): (
        "backup",
        "maintenance",
        "stop",
        "copy_databases",
        "data_services",
        "start_daemon",
        "migrate",
        "start_api",
        "start",
        "prove",
        "open",
        "forget_copies",
        "prune",
    ),
    ("1.12.1", "1.14.1"): ("vector_properties", "sandbox_config"),
    ("1.14.1", "1.16.0"): ("legacy_model_types", "plugin_auto_upgrade"),
}
# What the next run takes up again, or has nothing to take back for: these go on. The others come back and are asked to;
# that spares each of them a whole upgrade and its rollback.
GOES_ON = {"backup", "install_plugins", "migrate", "open", "forget_copies", "prune"}
# What a workspace has had since a release that this one begun before: without it the step is not due.
HAD = {"plugin_auto_upgrade": "INSERT INTO tenant_plugin_auto_upgrade_strategies (tenant_id) SELECT id FROM tenants"}
# A handover is killed in test_service.py, and the rest belongs to rollback.yml.
ELSEWHERE = {"handover", "restore_databases", "restore_files", "restore_vectors", "set_vectors_aside"}


def phase() -> str:
    """Of the upgrade that is under way, or of the last one."""
    return str(json.loads(on_node(f"cat {node.HOME}/.llmops-upgrade.json"))["phase"])


def goes_on(before: State, seed: seeds.Seed, step: str, new: str) -> None:
    """The upgrade is killed in a step; site.yml again, and it is done."""
    killer = Killer(step)
    killer.has_killed(node.upgrade(new))
    node.upgraded(new)
    before.is_kept()
    seeds.grown(seed, new)


def test_no_step_is_left_out() -> None:
    killed = {step for steps in STEPS.values() for step in steps}
    assert set(machine.STEPS) == killed - {"backup"} | ELSEWHERE


@pytest.mark.short
@pytest.mark.at("1.0.0", last=True)
def test_killed_while_it_migrates(seed: seeds.Seed) -> None:
    goes_on(State.now(), seed, "migrate", NEW)


def moments(on: bool) -> list[Any]:
    """An upgrade and a step of it, for the steps that go on or for those that come back."""
    return [
        pytest.param(new, step, marks=pytest.mark.at(old), id=f"{old}-{step}")
        for (old, new), steps in STEPS.items()
        for step in steps
        if (step in GOES_ON) is on
    ]


@pytest.mark.long
@pytest.mark.parametrize(("new", "step"), moments(on=True))
def test_the_next_run_goes_on(back: State, seed: seeds.Seed, new: str, step: str) -> None:
    goes_on(back, seed, step, new)
    steps = [one["id"] for one in json.loads(on_node(f"cat {node.evidence()}/journal.json"))["steps"]]
    assert step == "backup" or step in steps
    again = node.upgrade(new)
    assert (again.status, again.changed) == (0, 0), again.output[-4000:]


@pytest.fixture
def due(seed: seeds.Seed, step: str) -> None:
    if step in HAD:
        node.sql(HAD[step])


@pytest.mark.long
@pytest.mark.parametrize(("new", "step"), moments(on=False))
def test_the_next_run_takes_it_back_where_the_old_release_is_asked_for(
    due: None, untouched: State, new: str, step: str
) -> None:
    killer = Killer(step)
    killer.has_killed(node.upgrade(new))
    again = node.upgrade(untouched.release)
    assert again.status == 0, f"{again.message}\n{again.output[-4000:]}"


@pytest.mark.long
@pytest.mark.at(OLD)
def test_killed_on_the_way_back_too(back: State, seed: seeds.Seed) -> None:
    for moment in ("migrate", "rolling_back"):
        killer = Killer(moment)
        killer.has_killed(node.upgrade(NEW))
    node.upgraded(NEW)
    back.is_kept()
    seeds.grown(seed, NEW)


@pytest.mark.long
@pytest.mark.at(OLD)
def test_a_control_machine_that_dies_leaves_an_upgrade_that_goes_on(back: State, seed: seeds.Seed) -> None:
    """What runs on the node does not need whoever started it."""
    # A task is printed with its result: when the backup's is, the upgrade itself begins.
    node.MACHINE.kill_when("Make a verified backup", delay=12, dify_version=NEW)
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and phase() in ("running", "proved"):
        time.sleep(2)
    assert (phase(), node.serving()) == ("done", NEW), on_node(f"tail -n 20 {node.evidence()}/steps.log")
    node.upgraded(NEW)
    back.is_kept()
    seeds.grown(seed, NEW)
