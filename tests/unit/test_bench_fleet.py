# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The benchmark of a fleet: what it compares with what, and when it says that a promise was not kept."""

from __future__ import annotations

import json
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import pytest

# Behind all others: the scenarios have a fleet.py, too.
sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "bench"))
sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "scenarios" / "fleet"))

import bench
import fleet_child
from ansible_collections.llmops.stack.tests.bench import fleet
from ansible_collections.llmops.stack.tests.unit.servers.scripted import Reply, Request, Scripted, as_json


def run(kind: str, nodes: int, cpu: float) -> fleet.Run:
    return fleet.Run(kind, nodes, 20, wall=2 * cpu, cpu=cpu, executions=10 * nodes)


@pytest.mark.parametrize(("cpu", "share"), [(10.0, 0.0), (22.0, 0.3), (50.0, 1.0)])
def test_a_further_node_is_compared_with_the_first(cpu: float, share: float) -> None:
    assert fleet.further(run("no-op", 5, cpu), run("no-op", 1, 10.0)) == pytest.approx(share)


def test_a_no_op_is_compared_with_the_no_op_of_one_node_and_a_first_run_is_only_told() -> None:
    cheap, dear = run("no-op", 5, 12.0), run("no-op", 5, 30.0)
    first = [run("first run", 1, 1.0), run("first run", 5, 200.0)]
    assert fleet.over([*first, run("no-op", 1, 10.0), cheap]) == []
    assert fleet.over([*first, run("no-op", 1, 10.0), cheap, dear]) == [dear]


def test_a_row_of_the_first_node_has_nothing_to_compare() -> None:
    alone = run("no-op", 1, 10.0)
    assert alone.told(alone).split() == ["no-op", "1", "20", "20.0", "10.0", "10"]
    assert run("no-op", 5, 22.0).told(alone).split()[-1] == "0.30"


def test_the_inventory_has_these_nodes_and_the_world_s_variables() -> None:
    found = fleet.inventory(3, {"stack_mirror": "http://upstream"})["all"]
    assert found["vars"]["stack_mirror"] == "http://upstream"
    nodes = found["children"]["ollama"]["hosts"]
    assert list(nodes) == fleet.names(3)
    assert [fleet.ALONE in node.get("ollama_models", []) for node in nodes.values()] == [True, False, False]
    assert list(found["children"]["gateway"]["hosts"]) == [fleet.GATEWAY]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> Iterator[dict[str, Any]]:
    """A bench whose runs cost what a test says: (nodes) -> seconds of CPU; its gateway adds what a test says."""
    told: dict[str, Any] = {"cpu": lambda number: 10.0 + number - 1, "added": [1.0, 1.0, 1.0], "up": [], "options": []}
    at = {"nodes": 0, "fresh": True}

    def command(argv: list[str], **_unused: Any) -> Any:
        if "up" in argv:
            at.update(nodes=len([one for one in argv if one.startswith("--node=")]) - 1, fresh=True)
            told["up"].append(at["nodes"])

    def played(_playbook: pathlib.Path, *options: str) -> dict[str, Any]:
        changed, at["fresh"] = 5 * at["fresh"], False
        told["options"].append(options[-1])
        return {"changed": changed, "wall": 9.0, "cpu": told["cpu"](at["nodes"]), "executions": 7}

    def child(what: str, *_unused: str) -> dict[str, float]:
        if what == "latency":
            return {"direct": 5.0, "through": 6.0, "added": told["added"].pop(0)}
        return {"streams": 5, "direct": 20.0, "through": 19.0, "ratio": 0.95}

    (tmp_path / "inventory.yml").write_text("all: {vars: {}}")
    monkeypatch.setattr(bench, "BUILD", tmp_path)
    monkeypatch.setattr(bench, "INVENTORIES", [tmp_path / "inventory.yml"])
    monkeypatch.setattr(bench, "run", played)
    monkeypatch.setattr(fleet.subprocess, "run", command)
    monkeypatch.setattr(fleet, "child", child)
    yield told


def test_one_five_and_all_with_both_numbers_of_forks(
    machine: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert fleet.main() == 0
    assert machine["up"] == [1, 5, 20]
    assert machine["options"] == ["--forks=20"] * 6 + ["--forks=50"]
    printed = capsys.readouterr().out
    assert "each further node of a no-op: within the budget" in printed
    assert "added to the first token: within" in printed
    assert "ratio 0.95" in printed


def test_nodes_that_cost_too_much_are_a_failure(machine: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    machine["cpu"] = lambda number: 10.0 + 3.1 * (number - 1)
    assert fleet.main() == 1
    assert "each further node of a no-op: over the budget" in capsys.readouterr().out


def test_a_gateway_that_is_slow_in_most_measurements_is_a_failure(machine: dict[str, Any]) -> None:
    machine["added"] = [2.5, 1.0, 2.1]
    assert fleet.main() == 1
    machine["added"] = [2.5, 1.0, 1.1]
    assert fleet.main() == 0


# -- what runs on the gateway's host


def stream(request: Request) -> Reply:
    return Reply(pieces=['{"response":"a"}\n', '{"response":"","done":true}\n'], pause=request.json().get("pause", 0.0))


def test_both_ways_are_asked_in_turns_and_each_is_first_in_half_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_child, "FASTEST", 2)
    order: list[str] = []
    times = {"direct": iter([5.0, 6.0, 50.0, 5.0]), "through": iter([90.0, 7.0, 6.5, 80.0])}

    def way(name: str) -> float:
        order.append(name)
        return next(times[name])

    found = fleet_child.pairs(lambda: way("direct"), lambda: way("through"), 4)
    assert order == ["through", "direct", "direct", "through"] * 2
    assert found == {"direct": 5.5, "through": 43.5, "added": 1.75}


def test_a_server_is_measured_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_child, "PAIRS", 3)
    monkeypatch.setattr(fleet_child, "SECONDS", 0.2)
    server, other = Scripted(stream), Scripted(stream)
    with server.running(), other.running():
        found = fleet_child.main("latency", server.url, other.url, "moving:latest")
        assert found["direct"] > 0 and found["through"] > 0
        assert len(server.requests) == len(other.requests) == 4
        found = fleet_child.main("throughput", server.url, f"{server.url},{other.url}", "deepseek-r1:1.5b")
    assert found["streams"] == 2 and found["direct"] > 1 and found["through"] > 1
    assert json.dumps(found)


def test_a_call_that_fails_is_no_figure() -> None:
    server = Scripted(lambda _request: as_json({"error": "busy"}, status=503))
    with server.running(), pytest.raises(SystemExit, match="refused, HTTP 503"):
        fleet_child.main("latency", server.url, server.url, "moving:latest")
