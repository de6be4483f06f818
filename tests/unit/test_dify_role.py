# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role dify decides from facts, its variables templated without a host."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import filter_loader
from ansible.template import Templar, trust_as_template
from ansible_collections.llmops.stack.plugins.filter import stack_mirror
from ansible_collections.llmops.stack.plugins.filter.dify import FilterModule

ROLE = pathlib.Path(__file__).resolve().parents[2] / "roles/dify"
Ask = Callable[..., Any]
# What stack_facts says of a host whose PostgreSQL and files are elsewhere: nothing below volumes/db, containers alone.
OUTSIDE: dict[str, Any] = {
    "current": "1.11.4",
    "releases": {"1.11.4": {"complete": True}},
    "data": True,
    "upgrade": {},
    "containers": [{"name": "dify-api-1", "service": "api", "image": "langgenius/dify-api:1.11.4", "state": "running"}],
}


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    """A variable of the role as one of its tasks would see it."""
    own = {**FilterModule().filters(), **stack_mirror.FilterModule().filters()}
    find = filter_loader.get
    loader = DataLoader()
    variables: dict[str, Any] = {}
    for part in ("defaults", "vars"):
        variables.update(loader.load_from_file(str(ROLE / part / "main.yml"), trusted_as_template=True))

    def get(name: str, *args: Any, **options: Any) -> Any:
        prefix, short = "llmops.stack.", name.rpartition(".")[2]
        if name.startswith(prefix) and short in own:
            return filter_loader._wrap_func(name, name, own[short])
        return find(name, *args, **options)

    def ask(name: str, dify: dict[str, Any], mirror: str = "", **given: Any) -> Any:
        everything = {
            **variables,
            "inventory_hostname": "node1",
            "ansible_check_mode": False,
            **given,
            "ansible_facts": {"llmops_stack": {"dify": dify, "mirror": {"error": mirror, "wrong": False}}},
        }
        return Templar(loader=loader, variables=everything).template(trust_as_template("{{ " + name + " }}"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filter_loader, "get", get)
        yield ask


def test_a_mirror_that_cannot_be_reached_is_refused_by_who_needs_it(ask: Ask) -> None:
    complete = {**OUTSIDE, "releases": {"1.11.4": {"complete": True}}}
    for dify, version, said in (
        (complete, "1.11.4", []),
        (complete, "1.12.1", ["It is down."]),
        ({**complete, "containers": []}, "1.11.4", ["It is down."]),
    ):
        assert ask("__dify_mirror_refusals", dify, "It is down.", dify_version=version) == said


class TestAnUpgradeIsDue:
    @pytest.mark.parametrize(
        "dify",
        [
            OUTSIDE,
            {**OUTSIDE, "data": False},  # running, whatever lies on the disk
            {**OUTSIDE, "containers": []},  # all of it stopped and removed
        ],
    )
    def test_with_a_database_outside_of_this_host(self, ask: Ask, dify: dict[str, Any]) -> None:
        assert ask("__dify_upgrade_due", dify, dify_version="1.12.1") is True
        assert ask("__dify_upgrade_due", dify, dify_version="1.11.4") is False

    def test_the_plan_starts_from_the_same_release(self, ask: Ask) -> None:
        info = {"head": "788d3099ae3a", "database": {"type": "postgresql", "internal": False, "createdb": True}}
        died = {**OUTSIDE, "current": "1.12.1", "upgrade": {"from": "1.11.4", "to": "1.12.1", "phase": "running"}}
        for dify in (OUTSIDE, died):
            plan = ask("__dify_upgrade_planned", dify, dify_version="1.12.1", __dify_info=info)
            assert (plan["from"], plan["to"], plan["kind"]) == ("1.11.4", "1.12.1", "other_head")

    def test_not_on_a_bare_host_nor_after_an_install_that_got_no_further_than_its_files(self, ask: Ask) -> None:
        assert (
            ask("__dify_upgrade_due", {"current": "", "containers": [], "data": False}, dify_version="1.12.1") is False
        )
        begun = {"current": "1.11.4", "containers": [], "data": False}
        assert ask("__dify_upgrade_due", begun, dify_version="1.12.1") is False

    def test_a_try_that_was_rolled_back_is_the_first_thing_that_is_told(self, ask: Ask) -> None:
        tried = {"from": "1.11.4", "to": "1.12.1", "phase": "rolled_back", "message": "No room."}
        dify = {**OUTSIDE, "upgrade": tried}
        plan = ask("__dify_upgrade_planned", dify, dify_version="1.12.1", __dify_info={"head": ""})
        story = ask("__dify_upgrade_story", dify, dify_version="1.12.1", __dify_upgrade_plan=plan)
        assert "1.11.4 -> 1.12.1" in story[0] and story[1].endswith("rolled back. No room.")


def included(tasks: str) -> list[str]:
    found = yaml.safe_load((ROLE / "tasks" / tasks).read_text())
    return [str(one["ansible.builtin.include_tasks"]) for one in found if "ansible.builtin.include_tasks" in one]


def test_a_slip_in_the_schedule_of_backups_is_found_before_anything_changes() -> None:
    assert included("main.yml")[0] == "preflight.yml" and "schedule_check.yml" in included("preflight.yml")
    asserts = [one for one in yaml.safe_load((ROLE / "tasks/schedule.yml").read_text()) if "assert" in str(one)]
    assert asserts == []
