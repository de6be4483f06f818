# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine of an upgrade: whatever fails or is killed, and wherever, it ends at the old or the new release."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import stat
import time
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils import _dify_backup_manifest as manifest
from ansible_collections.llmops.stack.plugins.module_utils import _dify_upgrade as machine_module
from ansible_collections.llmops.stack.plugins.module_utils import _dify_upgrade_copies as copies
from ansible_collections.llmops.stack.plugins.module_utils import _dify_upgrade_data as data
from ansible_collections.llmops.stack.plugins.module_utils import _dify_upgrade_services as services
from ansible_collections.llmops.stack.plugins.module_utils import _dify_upgrade_steps as steps
from ansible_collections.llmops.stack.plugins.module_utils._dify_migration import Migrated
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade import Machine, UpgradeFailed
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_child import ChildKilled, in_child
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_context import Context, Options, StepError
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_journal import Journal, locked
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_rollback import plan_back
from ansible_collections.llmops.stack.plugins.module_utils._docker_cli import DockerError
from ansible_collections.llmops.stack.tests.unit.upgrade_world import (
    NEW,
    OLD,
    FakeDatabase,
    FakeFront,
    FakeProject,
    Fuse,
    Killed,
    World,
)

OUTAGE = ["maintenance", "stop", "copy_databases", "data_services", "migrate", "start_api", "start", "prove", "open"]
PLAN: dict[str, Any] = {
    "kind": "other_head",
    "from": OLD,
    "to": NEW,
    "from_head": "old",
    "to_head": "new",
    "steps": [{"id": name, "title": f"Title of {name}"} for name in ["pull", "backup", *OUTAGE, "forget_copies"]],
}
SAME_HEAD = {**PLAN, "kind": "same_head", "steps": [{"id": name, "title": ""} for name in ("handover", "prove")]}


@pytest.fixture
def world(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(tmp_path)

    def migrate(_project: Any, database: Any, info: Any, _timeout: float, _log: str) -> Migrated:
        world.fuse.before("migrate, not begun")
        world.databases["dify"] = "half"
        world.fuse.before("migrate, half-way")
        world.databases["dify"] = "new"
        world.fuse.before("migrate, not told")
        return Migrated(1.0, "done")

    def health(ctx: Context, version: str, _seconds: float, *_unused: Any) -> None:
        world.fuse.before(f"health of {version}")
        api = world.containers.get("api")
        if api is None or not api.running or not api.image.endswith(version):
            raise StepError(f"The API of {version} does not run.")
        if world.databases["dify"] != world.releases[version].head:
            raise StepError("Models fail.", "Look at the database.")

    def let_in(_ctx: Context) -> None:
        world.fuse.before("let in")
        assert not world.closed

    def meanwhile(ctx: Context, work: Callable[[], None]) -> None:
        """A process that is killed takes its threads along; here they would go on."""
        work()

    def handover(ctx: Context) -> None:
        ctx.project.up(extra=["--remove-orphans"])

    for module in (services, data, copies, machine_module):
        for name, fake in (("Database", FakeDatabase), ("Front", FakeFront), ("demand_health", health)):
            monkeypatch.setattr(module, name, fake, raising=False)
    monkeypatch.setattr(services, "await_release", health)
    monkeypatch.setattr(services, "handover", handover)
    monkeypatch.setattr(services, "demand_open", let_in)
    monkeypatch.setattr(services, "_SHOWN", 0.0)
    monkeypatch.setattr(services, "_LIVED", 0.0)
    monkeypatch.setattr(Context, "meanwhile", meanwhile)
    monkeypatch.setattr(data.migration, "run", migrate)
    monkeypatch.setattr(machine_module, "clear_leftovers", lambda project: None)
    monkeypatch.setattr(copies.dify_redis, "delete_keys", lambda _project, patterns: world.forget(patterns))
    monkeypatch.setattr(copies.time, "sleep", lambda seconds: None)
    return world


def machine(world: World, **options: Any) -> Machine:
    project: Any = FakeProject(world)
    return Machine(project, Options(**options), pause=0.0)


def upgrade(world: World, plan: dict[str, Any] = PLAN) -> Any:
    return machine(world).upgrade(plan, {}, f"{world.home}/backup")


def test_an_upgrade_arrives(world: World) -> None:
    outcome = upgrade(world)
    assert world.is_all_of(NEW)
    assert (outcome.changed, outcome.phase, outcome.source, outcome.target) == (True, "done", OLD, NEW)
    assert list(outcome.seconds) == [*OUTAGE, "forget_copies"]
    assert not Journal.read(world.home).unfinished


def test_evidence_is_for_root_only_and_holds_no_secret(world: World) -> None:
    folder = pathlib.Path(upgrade(world).folder)
    assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    names = {path.name for path in folder.iterdir()}
    assert {"journal.json", "steps.log", "old-api.log", "fingerprint.json"} <= names
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        assert "a-secret-of-the-database" not in path.read_text(), path


@pytest.mark.parametrize("plan", [PLAN, SAME_HEAD], ids=["other head", "same head"])
@pytest.mark.parametrize("kind", [DockerError, KeyError])
def test_whatever_fails_leads_back_by_itself(world: World, plan: dict[str, Any], kind: type[Exception]) -> None:
    """Every operation on the host, one after the other, fails once."""
    for number in range(1, 1000):
        world.anew(plan is SAME_HEAD)
        world.fuse = Fuse(number, kind)
        try:
            upgrade(world, plan)
        except UpgradeFailed as exc:
            phase = exc.outcome.phase
            if phase == "proved":
                world.fuse = Fuse()
                assert machine(world).settle().phase == "done"
                assert world.is_all_of(NEW), world.fuse.blown
            else:
                assert phase == "rolled_back", (number, str(exc))
                assert world.is_all_of(OLD), (number, world.__dict__)
                assert f"Dify {OLD} serves again with its data" in str(exc)
                assert exc.outcome.folder in str(exc)
            continue
        assert not world.fuse.blown, f"{world.fuse.blown} failed and nobody noticed"
        assert world.is_all_of(NEW)
        break
    assert number > 10


@pytest.mark.parametrize("plan", [PLAN, SAME_HEAD], ids=["other head", "same head"])
def test_whatever_is_killed_is_settled_by_the_next_run(world: World, plan: dict[str, Any]) -> None:
    """The process is killed before every operation, and so is the one that settles, one operation later each time."""
    for number in range(1, 1000):
        world.anew(plan is SAME_HEAD)
        world.fuse = Fuse(number, Killed)
        try:
            upgrade(world, plan)
        except Killed:
            assert Journal.read(world.home).unfinished
            for later in range(1, 1000):
                world.fuse = Fuse(later, Killed)
                try:
                    outcome = machine(world).settle()
                    break
                except Killed:
                    continue
            assert outcome.changed
            assert outcome.phase in ("rolled_back", "done")
            assert world.is_all_of(OLD if outcome.phase == "rolled_back" else NEW), (number, world.__dict__)
            continue
        break
    assert number > 10


def test_a_way_back_that_fails_is_tried_again_and_by_the_next_run_again(world: World) -> None:
    failing = Fuse(1, DockerError, times=10**6)

    def broken(*_unused: Any) -> None:
        world.fuse = failing
        raise StepError("The migration failed.", "Do this.")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data.migration, "run", broken)
        with pytest.raises(UpgradeFailed, match=r"The way back .* failed as well") as caught:
            upgrade(world)
    assert "The migration failed. Do this." in str(caught.value)
    assert caught.value.outcome.phase == "rolling_back"
    assert Journal.read(world.home).unfinished
    world.fuse = Fuse()
    outcome = machine(world).settle()
    assert outcome.phase == "rolled_back"
    assert "The migration failed. Do this." in outcome.message, "the cause of the failure, not that of the second one"
    assert world.is_all_of(OLD)


def test_a_migration_that_changes_data_is_taken_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fingerprint(_database: Any, name: str = "", **_more: Any) -> dict[str, Any]:
        return {"messages": [2 if name else 1, "x"]}

    monkeypatch.setattr(FakeDatabase, "fingerprint", fingerprint)
    with pytest.raises(UpgradeFailed, match="messages: 2 rows before, 1 after"):
        upgrade(world)
    assert world.is_all_of(OLD)


def test_the_next_upgrade_begins_anew_after_a_killed_one(world: World) -> None:
    world.fuse = Fuse(12, Killed)
    with pytest.raises(Killed):
        upgrade(world)
    world.fuse = Fuse()
    assert upgrade(world).phase == "done"
    assert world.is_all_of(NEW)


def test_who_waited_for_another_run_has_nothing_to_do(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    upgrade(world)
    count = world.fuse.count

    def waited(*_unused: Any) -> Any:
        return contextlib.nullcontext(True)

    monkeypatch.setattr(machine_module, "locked", waited)
    assert upgrade(world).phase == "done"
    assert world.fuse.count == count


def test_one_at_a_time(world: World) -> None:
    with locked(world.home), pytest.raises(UpgradeFailed, match="still runs after 0 s"):
        machine(world, timeout=0).upgrade(PLAN, {})
    assert world.is_all_of(OLD)


def test_time_that_is_over_leads_back(world: World) -> None:
    with pytest.raises(UpgradeFailed, match="did not end within"):
        machine(world, timeout=1e-9).upgrade(PLAN, {})
    assert world.is_all_of(OLD)


def test_an_old_release_that_is_not_well_afterwards_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def ill(ctx: Context) -> None:
        raise StepError("No model answers.", "Start Ollama.")

    monkeypatch.setattr(machine_module, "prove_old", ill)
    world.fuse = Fuse(8)
    with pytest.raises(UpgradeFailed, match=r"is not well: No model answers\. Start Ollama\."):
        upgrade(world)


def test_back_from_the_dump(world: World) -> None:
    backup = pathlib.Path(world.home, "backup")
    backup.mkdir()
    for name in ("dify", "dify_plugin"):
        (backup / f"{name}.dump").write_text("old")
    manifest.write(str(backup), {"format": manifest.FORMAT, "fingerprint": {"messages": [1, "as they were"]}})
    upgrade(world)
    last = Journal.read(world.home).state
    assert plan_back(last, NEW, [OLD], True, False)["refusals"]
    plan = plan_back(last, NEW, [OLD], True, True)
    assert plan["refusals"] == []
    assert {one["id"] for one in plan["steps"]} <= set(steps.STEPS)
    machine(world).upgrade(plan, {})
    assert world.is_all_of(OLD)


def test_a_failed_change_does_not_forget_what_there_is_to_go_back_to(world: World) -> None:
    upgrade(world)
    for _attempt in range(2):
        world.fuse = Fuse(3)
        with pytest.raises(UpgradeFailed):
            upgrade(world, plan_back(Journal.read(world.home).last_done(), NEW, [OLD], True, True))
        last = Journal.read(world.home).last_done()
        assert plan_back(last, NEW, [OLD], True, True)["refusals"] == []
        assert (last["from"], last["backup"]) == (OLD, f"{world.home}/backup")


@pytest.mark.parametrize(
    ("changes", "current", "complete", "there", "told"),
    [
        ({"phase": "rolled_back"}, OLD, [OLD], True, "no finished upgrade"),
        ({}, "1.12.1", [OLD], True, "Dify 1.12.1 is current"),
        ({}, NEW, [], True, "not whole"),
        ({}, NEW, [OLD], False, "The backup that was made of 1.9.2 is not whole at /b"),
    ],
)
def test_no_way_back_has_its_reason(
    changes: dict[str, Any], current: str, complete: list[str], there: bool, told: str
) -> None:
    last = {**PLAN, "phase": "done", "backup": "/b", **changes}
    assert told in " ".join(plan_back(last, current, complete, there, True)["refusals"])


def test_between_equal_heads_nothing_is_lost_and_nothing_asked() -> None:
    plan = plan_back({**SAME_HEAD, "phase": "done", "backup": ""}, NEW, [OLD], False, False)
    assert (plan["refusals"], plan["warnings"]) == ([], [])
    assert [one["id"] for one in plan["steps"]] == ["handover", "prove"]


def test_the_journal_names_no_secret_and_is_for_root_only(world: World) -> None:
    upgrade(world)
    path = pathlib.Path(world.home, ".llmops-upgrade.json")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text())["phase"] == "done"


def test_work_in_a_child_is_told_and_its_death_too() -> None:
    assert in_child(lambda: {"phase": "done"}) == {"phase": "done"}
    for work in (lambda: os.kill(os.getpid(), signal.SIGKILL), lambda: 1 / 0):
        with pytest.raises(ChildKilled):
            in_child(work)  # type: ignore[arg-type]  # that they return nothing is the point


def test_work_goes_on_when_nobody_waits_for_it(tmp_path: pathlib.Path) -> None:
    done = tmp_path / "done"

    def work() -> dict[str, Any]:
        time.sleep(0.3)
        done.write_text("yes")
        return {}

    waiting = os.fork()
    if waiting == 0:
        in_child(work)
        os._exit(0)
    time.sleep(0.1)
    os.kill(waiting, signal.SIGKILL)
    os.waitpid(waiting, 0)
    until = time.monotonic() + 20
    while not done.exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert done.exists()
