# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine of an upgrade where the host is not as the plan says, or a way back has less than it needs."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils import _dify_upgrade_data as data
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade import UpgradeFailed
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_journal import Journal
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_rollback import plan_back
from ansible_collections.llmops.stack.tests.unit import test_dify_upgrade_machine as suite
from ansible_collections.llmops.stack.tests.unit.upgrade_world import NEW, OLD, Fuse, Killed, World

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
