# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""playbooks/verify.yml over a fleet: whatever is lost, there is a table, and whatever is wrong, it is no success."""

from __future__ import annotations

import json
import pathlib

import pytest
from ansible_collections.llmops.stack.tests.unit.fleet import DEAD, Fleet, Run


@pytest.fixture
def fleet(tmp_path: pathlib.Path) -> Fleet:
    fleet = Fleet(tmp_path)
    fleet.add("ollama", "gpu1", "cpu1")
    fleet.add("gateway", "gw1")
    fleet.add("dify", "dify1")
    fleet.add("mirror", "mirror1")
    fleet.in_service()
    return fleet


def table(run: Run) -> str:
    (lines,) = run.said("Show all nodes")
    return "\n".join(lines)


def ends(run: Run) -> dict[str, str]:
    return {
        one.host: one.msg
        for one in run.events
        if one.task.endswith("Fail where something was wrong") and one.what == "failed"
    }


def test_a_fleet_that_is_well(fleet: Fleet) -> None:
    run = fleet.verify()
    assert run.rc == 0, run.output
    assert "cpu1" in table(run)


@pytest.mark.parametrize("host", ["gw1", "dify1", "cpu1", "mirror1"])
def test_a_host_that_is_lost_does_not_take_the_table_with_it(fleet: Fleet, host: str) -> None:
    fleet.hosts[host].update(DEAD)
    run = fleet.verify()
    assert run.rc != 0
    assert "gpu1" in table(run)
    assert list(ends(run)) == [host]
    assert ends(run)[host].startswith(f"{host} cannot be reached: Failed to connect to the host via ssh")


def test_a_node_that_was_left_drained(fleet: Fleet) -> None:
    nodes = json.loads((fleet.folder / "gateway.json").read_text())
    nodes["cpu1"]["state"] = "drained"
    (fleet.folder / "gateway.json").write_text(json.dumps(nodes))
    run = fleet.verify()
    assert run.rc != 0
    assert ends(run) == {
        "cpu1": "the gateway sends it no calls, as it is drained. Run site.yml, which proves it and has calls go there."
    }
    assert "cpu1: the gateway sends it no calls" in table(run)
