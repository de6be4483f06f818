# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine of an upgrade where the host is not as the plan says, or a way back has less than it needs."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import resource
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils import _dify_backup_manifest as manifest
from ansible_collections.llmops.stack.plugins.module_utils import _dify_upgrade_copies as copies
from ansible_collections.llmops.stack.plugins.module_utils import _dify_upgrade_data as data
from ansible_collections.llmops.stack.plugins.module_utils._dify_database import IN_USE, DatabaseError
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade import UpgradeFailed
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_context import StepError
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_journal import Journal
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_rollback import plan_back
from ansible_collections.llmops.stack.tests.unit import test_dify_upgrade_machine as suite
from ansible_collections.llmops.stack.tests.unit.upgrade_world import (
    NEW,
    OLD,
    FakeDatabase,
    Fuse,
    Killed,
    World,
)

PLAN, machine, upgrade = suite.PLAN, suite.machine, suite.upgrade
world = suite.world


# -- plans of another time


def test_a_plan_from_another_release_is_not_carried_out(world: World) -> None:
    with pytest.raises(UpgradeFailed, match=rf"and Dify {OLD} is current now\. Nothing was begun"):
        upgrade(world, {**PLAN, "from": "1.9.1"})
    assert (world.is_all_of(OLD), Journal.read(world.home).state) == (True, {})


def test_a_plan_for_another_state_of_the_database_is_not_carried_out(world: World) -> None:
    with pytest.raises(UpgradeFailed, match="its database at older, and it is at old"):
        upgrade(world, {**PLAN, "from_head": "older"})
    assert (world.is_all_of(OLD), Journal.read(world.home).state) == (True, {})


def test_a_half_committed_migration_is_no_other_plan(world: World) -> None:
    world.databases["dify"] = "2adcbe1f5dfb"
    assert upgrade(world).phase == "done"


def test_who_waited_does_not_undo_what_was_done_meanwhile(world: World) -> None:
    """A plan of going back, made when nothing was cut off, meets an upgrade that was killed since."""
    plan = {**plan_back({**PLAN, "phase": "done", "to": OLD, "from": "1.9.1"}, OLD, ["1.9.1"], True, True), "seen": "x"}
    world.fuse = Fuse(12, Killed)
    with pytest.raises(Killed):
        upgrade(world)
    world.fuse = Fuse()
    with pytest.raises(UpgradeFailed, match=f"another change, from {OLD} to {NEW}"):
        upgrade(world, {**plan, "from_head": "old"})
    assert world.is_all_of(OLD)


def test_nobody_goes_back_over_an_upgrade_that_was_cut_off() -> None:
    cut_off: dict[str, Any] = {"from": OLD, "to": NEW, "step": "migrate", "phase": "running"}
    last = {**PLAN, "phase": "done", "from": "1.9.1", "to": OLD, "backup": "/b"}
    told = plan_back(last, OLD, ["1.9.1"], True, True, cut_off)["refusals"]
    assert [one for one in told if f"from Dify {OLD} to {NEW} was cut off at migrate. Run site.yml first" in one]


# -- a disk that is full


@pytest.fixture
def limit() -> Iterator[None]:
    """No file can grow any more once this process has set the limit to 0; it is lifted again in any case."""
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@pytest.mark.usefixtures("limit")
def test_a_disk_that_a_migration_fills_does_not_stop_the_way_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fills(*_unused: Any) -> Any:
        world.databases["dify"] = "half"
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(data.migration, "run", fills)
    with pytest.raises(UpgradeFailed, match=rf"No space left on device.* Dify {OLD} serves again") as caught:
        upgrade(world)
    assert (world.is_all_of(OLD), caught.value.outcome.phase) == (True, "rolled_back")
    # What the journal says is older, so the next run goes back once more, and loses nothing by it.
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert Journal.read(world.home).unfinished
    assert machine(world).settle().phase == "rolled_back"
    assert world.is_all_of(OLD)


@pytest.mark.usefixtures("limit")
def test_nothing_is_begun_on_a_disk_that_is_full(world: World) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    with pytest.raises(UpgradeFailed, match=r"cannot be written to .* Nothing was begun"):
        upgrade(world)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))  # pytest's own output
    assert world.is_all_of(OLD)


def test_the_way_back_has_room_of_its_own(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def look(*_unused: Any) -> Any:
        folder = Journal.read(world.home).state["folder"]
        sizes.append(os.stat(f"{folder}/room-for-the-way-back").st_blocks * 512)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(data.migration, "run", look)
    with pytest.raises(UpgradeFailed) as caught:
        upgrade(world)
    assert sizes[0] >= 32 * 1024 * 1024
    assert "room-for-the-way-back" not in os.listdir(caught.value.outcome.folder)


# -- copies


@pytest.mark.parametrize("name", ["production_dify_customer_a", "d" * 63, "données-Ü" * 7])
def test_two_databases_never_have_one_copy(name: str) -> None:
    names = [copies.beside(one, "before_20261126065256_2") for one in (name, f"{name}_plugin")]
    assert len(set(names)) == 2
    for one in names:
        assert len(f"{one}_partial".encode()) < 64, "the server would cut it off"


def test_one_copy_of_two_databases_takes_nothing_away(world: World) -> None:
    def same(*_unused: Any) -> str:
        return "same_before_1"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copies, "beside", same)
        with pytest.raises(UpgradeFailed, match="Two databases have one copy"):
            upgrade(world)
    assert {"dify", "dify_plugin"} <= set(world.databases)


def test_what_people_wrote_before_the_proof_is_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reboot brings nginx back open, and the new release with it."""

    def opened(*_unused: Any) -> Any:
        world.closed = False
        world.databases["dify"] = "written"
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(data, "demand_health", opened)
        with pytest.raises(Killed):
            upgrade(world)
    outcome = machine(world).settle()
    kept = next(name for name, what in world.databases.items() if what == "written")
    assert (outcome.phase, world.databases["dify"]) == ("rolled_back", "old")
    assert "_undone_" in kept
    assert f"it is in {kept} and" in outcome.message


def test_where_nginx_stayed_down_nobody_has_written(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def rebooted(*_unused: Any) -> Any:
        world.closed = False
        world.containers["nginx"] = dataclasses.replace(world.containers["nginx"], state="exited", restart_policy="no")
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(data, "demand_health", rebooted)
        with pytest.raises(Killed):
            upgrade(world)
    assert "nginx was found open" not in machine(world).settle().message
    assert world.is_all_of(OLD)


def test_what_failed_behind_closed_doors_is_dropped_when_they_are_open(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[bool] = []

    def drop(database: FakeDatabase, name: str) -> None:
        if "_undone_" in name:
            closed.append(world.closed)
        world.databases.pop(name, None)

    def fails(*_unused: Any) -> Any:
        world.databases["dify"] = "half"
        raise StepError("It failed.")

    monkeypatch.setattr(FakeDatabase, "drop", drop)
    monkeypatch.setattr(data.migration, "run", fails)
    with pytest.raises(UpgradeFailed):
        upgrade(world)
    assert world.is_all_of(OLD)
    assert closed == [False, False]


def test_after_an_exchange_of_databases_no_cache_is_left(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_unused: Any) -> Any:
        raise StepError("It failed.")

    monkeypatch.setattr(data.migration, "run", fails)
    with pytest.raises(UpgradeFailed):
        upgrade(world)
    assert {"tenant_privkey:*", "plugin_model_providers*"} <= world.forgotten


# -- others in the databases


def _stays(database: FakeDatabase, name: str) -> list[dict[str, Any]]:
    one = {"pid": 7, "application": "metabase", "user": "bi", "client": "10.0.0.9", "state": "idle", "since": "May"}
    return [one] if name == "dify" and not database.world.ended else []


def test_a_session_of_others_is_found_before_the_doors_close(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeDatabase, "sessions", _stays)
    monkeypatch.setattr(copies, "own_names", lambda _project: {"dify-api-1"})
    monkeypatch.setattr(copies, "addresses", lambda _project: {"10.0.0.2": "container dify-api-1"})
    count = len(world.containers)
    with pytest.raises(UpgradeFailed, match=r"metabase of bi from 10\.0\.0\.9, idle .* foreign_sessions"):
        upgrade(world)
    assert world.is_all_of(OLD)
    assert (len(world.containers), world.closings) == (count, 0)


def test_the_word_of_the_operator_ends_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = FakeDatabase.copy

    def in_use(database: FakeDatabase, source: str, target: str, timeout: float = 0) -> None:
        if _stays(database, source):
            raise DatabaseError("in use", IN_USE)
        copy(database, source, target)

    monkeypatch.setattr(FakeDatabase, "sessions", _stays)
    monkeypatch.setattr(FakeDatabase, "copy", in_use)
    steps = [{**one, "end_foreign_sessions": True} if one["id"] == "migrate" else one for one in PLAN["steps"]]
    assert upgrade(world, {**PLAN, "steps": steps}).phase == "done"
    assert world.ended == ["dify"]


# -- what is compared


def test_the_data_from_before_is_read_again_when_the_server_took_the_session_along(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = [DatabaseError("the connection was closed")]

    def fingerprint(_self: Any, name: str = "", **_more: Any) -> dict[str, Any]:
        if name and failing:
            raise failing.pop()
        return {"messages": [1, "as they were"]}

    monkeypatch.setattr(FakeDatabase, "fingerprint", fingerprint)
    assert upgrade(world).phase == "done"
    assert not failing


def test_a_large_database_has_more_time() -> None:
    def context(size: int) -> Any:
        return type("Context", (), {"info": {"database": {"size_mb": size}}})

    assert data._limit(context(100_000)) > 10 * data._limit(context(0))


def test_a_dump_that_is_not_what_was_backed_up_is_not_kept(world: World) -> None:
    backup = pathlib.Path(world.home, "backup")
    backup.mkdir()
    for name in ("dify", "dify_plugin"):
        (backup / f"{name}.dump").write_text("old")
    manifest.write(str(backup), {"format": manifest.FORMAT, "fingerprint": {"messages": [2, "others"]}})
    upgrade(world)
    plan = plan_back(Journal.read(world.home).state, NEW, [OLD], True, True)
    with pytest.raises(UpgradeFailed, match="messages: 2 rows before, 1 after"):
        machine(world).upgrade(plan, {})
    assert world.is_all_of(NEW)
