# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""playbooks/site.yml over a fleet: what comes after what, and what becomes of a failure."""

from __future__ import annotations

import pathlib

import pytest
from ansible_collections.llmops.stack.tests.unit.fleet import DEAD, Fleet

NODES = ["gpu1", "gpu2", "cpu1", "cpu2"]


@pytest.fixture
def plain(tmp_path: pathlib.Path) -> Fleet:
    """As sites were before there were mirror and gateway."""
    fleet = Fleet(tmp_path)
    fleet.add("ollama", "gpu1", "gpu2", kind="nvidia")
    fleet.add("ollama", "cpu1", "cpu2")
    fleet.add("dify", "dify1")
    return fleet


@pytest.fixture
def fleet(plain: Fleet) -> Fleet:
    plain.add("gateway", "gw1", ansible_host="192.0.2.9")
    plain.add("mirror", "mirror1")
    return plain


def again(without: str) -> str:
    return (
        "Correct the cause and run the same command again: it goes on with what is left. "
        f"To go on without: --limit 'all:!{without}'."
    )


def versions(done: str) -> dict[str, str]:
    return {name: "2" if name in done.split() else "1" for name in NODES}


def ready(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "ready")


def test_everything_comes_in_its_order(fleet: Fleet) -> None:
    run = fleet.run()
    assert run.rc == 0, run.output
    order = ["Mirror", "Gateway", "Ollama", "Forget the nodes that have left the inventory", "Dify"]
    firsts = [next(n for n, one in enumerate(run.events) if one.task.split(" : ")[-1] == task) for task in order]
    assert firsts == sorted(firsts)
    looks = [n for n, one in enumerate(run.events) if one.task.endswith("looks")]
    assert max(looks) < firsts[0]
    changed = run.hosts("Ollama changes")
    assert (set(changed[:2]), changed[2:]) == ({"gpu1", "cpu1"}, ["gpu2", "cpu2"])
    assert fleet.gateway() == ready(*NODES)
    assert run.said("Say whose turn it is")[0].startswith("Batch 1 of 3: gpu1, cpu1. Untouched until")
    assert run.said("Ollama")[0] == ["192.0.2.9"]

    again = fleet.run()
    assert again.rc == 0, again.output
    assert again.hosts("Ollama changes") == []
    assert sorted(again.hosts("Ollama")) == sorted(NODES)
    # Whatever there is to be asked of the gateway, it is asked in one go.
    assert len(again.said("Prove the batch through the gateway, and have calls go to those that are well")) == 1


def test_without_mirror_and_gateway_nothing_is_said_of_them(plain: Fleet) -> None:
    run = plain.run()
    assert run.rc == 0, run.output
    assert plain.versions() == versions("gpu1 gpu2 cpu1 cpu2")
    assert run.hosts("Dify") == ["dify1"]
    assert plain.gateway() == {}
    assert "Could not match supplied host pattern" not in run.output
    assert "WARNING" not in run.output
    assert len(run.said("Say whose turn it is")) == 3


def test_a_canary_that_fails_ends_the_run_and_the_next_one_goes_on(fleet: Fleet) -> None:
    fleet.in_service()
    fleet.hosts["cpu1"]["broken"] = "2"
    run = fleet.run()
    assert run.rc != 0
    assert fleet.versions() == versions("gpu1")
    assert run.hosts("Ollama proves") == ["gpu1"]
    assert run.hosts("Dify") == []
    # What the old server lists was proved through the gateway.
    assert fleet.gateway() == ready(*NODES)
    (said,) = run.said("Go no further after a batch that is not well")
    assert said == (
        "cpu1: Ollama 2 did not come up. The gateway has it in service. Done: gpu1. "
        f"Not reached and untouched: gpu2 and cpu2. {again('cpu1')}"
    )
    assert run.hosts("Go no further after a batch that is not well", "failed") == ["cpu1"]

    del fleet.hosts["cpu1"]["broken"]
    run = fleet.run()
    assert run.rc == 0, run.output
    assert sorted(run.hosts("Ollama changes")) == ["cpu1", "cpu2", "gpu2"]
    assert run.hosts("Dify") == ["dify1"]


def test_a_failure_without_a_gateway_ends_the_run_as_well(plain: Fleet) -> None:
    plain.hosts["gpu2"]["broken"] = "2"
    run = plain.run()
    assert run.rc != 0
    assert plain.versions() == versions("gpu1 cpu1")
    assert run.said("Go no further after a batch that is not well") == [
        f"gpu2: Ollama 2 did not come up. Not reached and untouched: cpu2. {again('gpu2')}"
    ]


def test_a_model_that_does_not_answer_through_the_gateway_ends_the_run(fleet: Fleet) -> None:
    run = fleet.run(UNPROVED="gpu1")
    assert run.rc != 0
    assert fleet.versions() == versions("gpu1 cpu1")
    assert fleet.gateway() == {"gpu1": "drained", "cpu1": "ready"}
    (said,) = run.said("Go no further after a batch that is not well")
    assert said.startswith("gpu1 does not answer. The gateway sends it no calls. Done: cpu1.") or said.startswith(
        "gpu1: gpu1 does not answer. The gateway sends it no calls. Done: cpu1."
    )


def test_a_host_that_is_lost_in_the_middle(fleet: Fleet) -> None:
    fleet.hosts["gpu1"].update(lost=True, ansible_host="127.0.0.1")
    run = fleet.run()
    assert run.rc != 0
    assert fleet.versions() == versions("cpu1")
    assert fleet.gateway() == ready("cpu1")
    (said,) = run.said("Go no further after a batch that is not well")
    assert said.startswith("gpu1: it could not be reached any more, in the middle of its changes. Done: cpu1. Not ")


def test_a_model_is_fetched_while_the_node_serves_or_after_it(fleet: Fleet) -> None:
    fleet.hosts["gpu1"]["lacks"] = True
    run = fleet.run()
    assert run.rc == 0, run.output
    done = [one.task.rpartition("| ")[2] for one in run.events if one.host == "gpu1"]
    (pull,) = [number for number, task in enumerate(done) if task.startswith("Pull what is missing while")]
    assert done[pull + 2].startswith("Have no new calls come here")
    assert run.hosts("Drain | Pull what is missing while calls still come here") == ["gpu1"]


@pytest.mark.parametrize("host", ["gpu2", "dify1"])
def test_a_host_that_is_lost_while_it_is_looked_at(fleet: Fleet, host: str) -> None:
    fleet.hosts[host].update(lost_early=True, ansible_host="127.0.0.1")
    run = fleet.run()
    assert run.rc != 0
    assert fleet.versions() == versions("")
    assert run.hosts("Mirror") == run.hosts("Gateway") == run.hosts("Dify") == []


def test_a_batch_of_which_nobody_is_left(plain: Fleet) -> None:
    plain.hosts["gpu2"].update(lost=True, ansible_host="127.0.0.1")
    run = plain.run()
    assert run.rc != 0
    assert plain.versions() == versions("gpu1 cpu1")
    assert run.said("Say whose turn it is")[-1] == "Batch 2 of 3: gpu2. Untouched until it has proved itself: cpu2."
    assert run.hosts("Dify") == []


@pytest.mark.parametrize("host", ["gpu1", "dify1"])
def test_hosts_that_are_dead_at_the_start(fleet: Fleet, host: str) -> None:
    fleet.hosts[host].update(DEAD)
    run = fleet.run()
    assert run.rc != 0
    assert run.hosts("Ollama looks") == run.hosts("Mirror") == []
    (said,) = run.said("Refuse a fleet that cannot be worked on")
    assert said.startswith(f"Nothing was changed on any host. {host} cannot be reached. {host}: Failed to connect")

    run = fleet.run("-e", "stack_skip_unreachable=true")
    assert run.rc == 0, run.output
    left = [name for name in NODES if name != host]
    assert fleet.versions() == versions(" ".join(left))
    assert fleet.gateway() == ready(*left)
    assert run.hosts("Dify") == [name for name in ["dify1"] if name != host]
    assert run.said("Say who is left out")[0][0].startswith(f"{host} cannot be reached and is left out of this run.")


def test_a_dead_gateway_cannot_be_skipped(fleet: Fleet) -> None:
    fleet.hosts["gw1"].update(DEAD)
    run = fleet.run("-e", "stack_skip_unreachable=true")
    assert run.rc != 0
    assert "gw1 cannot be left out" in run.said("Refuse a fleet that cannot be worked on")[0]
    # A run that is limited to others meets it when it would drain: nothing is stopped then.
    run = fleet.run("--limit", "gpu2")
    assert run.rc != 0
    assert fleet.versions() == versions("")
    (said,) = run.said("Go no further after a batch that is not well")
    assert said.startswith(
        "gpu2: the gateway on gw1 cannot be reached, so nobody could be kept from calling Ollama here"
    )
    assert "The gateway on gw1 could not be asked for a proof" in said


def test_one_host_that_is_not_ready_stops_all_before_anything_is_touched(fleet: Fleet) -> None:
    fleet.hosts["cpu2"]["refused"] = True
    run = fleet.run()
    assert run.rc != 0
    assert run.hosts("Mirror") == run.hosts("Ollama") == []


def test_batches_that_cannot_be_are_refused_before_a_host_is_looked_at(fleet: Fleet) -> None:
    fleet.variables["stack_batches"] = [["gpu1", "cpu1"], ["gpu2", "gpu1"]]
    run = fleet.run()
    assert run.rc != 0
    assert run.hosts("Ollama looks") == []
    assert "names gpu1 again after batch 1" in run.said("Refuse a fleet that cannot be worked on")[0]


def test_batches_by_name(fleet: Fleet) -> None:
    fleet.variables["stack_batches"] = [["cpu2"], "100%"]
    run = fleet.run()
    assert run.rc == 0, run.output
    assert run.hosts("Ollama changes")[0] == "cpu2"
    assert len(run.said("Say whose turn it is")) == 2


def test_what_is_said_to_one_group_holds_where_it_is_asked(fleet: Fleet) -> None:
    for name in NODES:
        fleet.hosts[name].update(stack_skip_unreachable=True, stack_batches=["100%"], ollama_drain_seconds=7)
    fleet.hosts["cpu2"].update(DEAD)
    run = fleet.run()
    assert run.rc == 0, run.output
    assert fleet.versions() == versions("gpu1 gpu2 cpu1")
    assert run.said("Ollama is told") == [7] * 3
    assert run.said("Say whose turn it is")[0].startswith("Batch 1 of 2: gpu1, gpu2.")


def test_two_models_of_one_name(fleet: Fleet) -> None:
    fleet.hosts["cpu2"]["content"] = "b"
    run = fleet.run()
    assert run.rc != 0
    assert fleet.versions() == versions("") and run.hosts("Mirror") == []
    (said,) = run.said("Refuse different models under one name behind a gateway")
    assert said.startswith("Nothing was changed. tiny:latest is not one model: aaaaaaaaaaaa would be pulled on gpu1,")

    fleet.hosts["gw1"]["gateway_digests"] = {"tiny": "any"}
    run = fleet.run()
    assert run.rc == 0, run.output


def test_the_gateway_alone_asks_nothing_of_hosts_that_were_not_told(fleet: Fleet) -> None:
    run = fleet.run("--tags", "gateway")
    assert "does not know it" not in run.output
    assert run.said("Make sure that somebody answers")[0].startswith("gw1: the gateway has no node that is proved")


def test_limit_touches_what_it_says_and_asks_the_gateway(fleet: Fleet) -> None:
    fleet.in_service()
    run = fleet.run("--limit", "cpu2")
    assert run.rc == 0, run.output
    assert fleet.versions() == versions("cpu2")
    assert {one.host for one in run.events} == {"cpu2"}
    assert run.hosts("Drain | Have no new calls come here, and wait for those that run") == ["cpu2"]
    assert fleet.gateway() == ready(*NODES)
    assert fleet.run("--limit", "dify1").hosts("Dify") == ["dify1"]


def test_a_check_run_changes_nothing_and_sees_all_at_once(fleet: Fleet) -> None:
    run = fleet.run("--check")
    assert run.rc == 0, run.output
    assert fleet.versions() == versions("")
    assert fleet.gateway() == {}
    assert sorted(run.hosts("Ollama")) == sorted(NODES)
    assert run.said("Say whose turn it is") == ["A run would change gpu1, cpu1; then gpu2; then cpu2."]
    assert run.hosts("Dify") == ["dify1"]


def test_a_look_that_was_long_ago_is_taken_again(fleet: Fleet) -> None:
    fleet.hosts["gpu1"]["slow"] = 3
    run = fleet.run("-e", "__rollout_look_lasts=2")
    assert run.rc == 0, run.output
    looks = run.hosts("Ollama looks")
    assert set(NODES) == set(looks[:4])
    assert {"gpu2", "cpu2"} <= set(looks[4:])


def test_tags_choose_parts_of_the_work(fleet: Fleet) -> None:
    fleet.hosts["gpu2"]["broken"] = "2"
    run = fleet.run("--tags", "ollama")
    assert run.rc != 0
    assert fleet.versions() == versions("gpu1 cpu1")
    assert run.hosts("Mirror") == run.hosts("Docker") == []
    assert fleet.gateway() == ready("gpu1", "cpu1", "gpu2")
    run = fleet.run("--tags", "dify")
    assert run.rc == 0, run.output
    assert run.hosts("Ollama") == run.hosts("Mirror") == run.hosts("Gateway") == []
    assert run.hosts("Dify") == ["dify1"]


def test_who_was_left_in_is_shut_out_once_dify_asks_the_gateway(fleet: Fleet) -> None:
    """A gateway that a fleet in service gets: its nodes have let Dify in before."""
    fleet.hosts["dify1"]["dify_admin_email"] = "me@example.com"
    fleet.hosts["gpu1"].update(before=True, ansible_host="192.0.2.21")
    for arguments in (("--check",), ("--tags", "ollama")):
        assert fleet.run(*arguments).hosts("Ollama closes") == []
    for trouble in ({"ill": True}, {"asked": "http://192.0.2.21:11434"}):
        fleet.hosts["dify1"].update(trouble)
        run = fleet.run()
        assert (run.rc != 0, run.hosts("Ollama closes")) == ("ill" in trouble, []), run.output
        for key in trouble:
            del fleet.hosts["dify1"][key]
    run = fleet.run()
    assert run.rc == 0, run.output
    assert (run.hosts("Ollama closes"), run.said("Ollama closes")) == (["gpu1"], [[]])
    tasks = [one.task.split(" : ")[-1] for one in run.events]
    assert tasks.index("Ollama closes") > tasks.index("Dify is proved")
    del fleet.hosts["dify1"]["dify_admin_email"]
    assert fleet.run().hosts("Ollama closes") == [], "whoever tells Dify by hand finds the nodes closed"


def test_nodes_that_left_the_inventory_are_forgotten(fleet: Fleet) -> None:
    fleet.in_service()
    fleet.groups["ollama"].remove("cpu2")
    del fleet.hosts["cpu2"]
    assert fleet.run("--limit", "gw1").rc == 0
    assert fleet.gateway() == ready("gpu1", "gpu2", "cpu1")


def test_a_gateway_without_nodes_is_refused_before_dify(fleet: Fleet) -> None:
    for name in NODES:
        del fleet.hosts[name]
    fleet.groups["ollama"] = []
    run = fleet.run()
    assert run.rc != 0
    assert run.hosts("Dify") == []
    assert "no node that is proved and answers" in run.said("Make sure that somebody answers")[0]


def test_a_digest_that_no_node_has_is_named_before_dify(fleet: Fleet) -> None:
    run = fleet.run(LEFT_OUT="tiny:latest")
    assert run.rc != 0
    assert run.hosts("Dify") == []
    said = run.said("Make sure that calls of every model go somewhere")[0]
    assert "There is tiny:latest d2 on gpu1, gpu2, cpu1, cpu2." in said, said


def test_what_a_killed_run_has_left_drained_comes_back(fleet: Fleet) -> None:
    fleet.in_service()
    fleet.hosts["gpu2"]["slow"] = 60
    run = fleet.killed("gpu2", "Drain | Make sure that the gateway knows")
    assert run.rc == -9
    assert fleet.versions() == versions("gpu1 cpu1")
    assert fleet.gateway() == {**ready(*NODES), "gpu2": "drained"}
    del fleet.hosts["gpu2"]["slow"]
    run = fleet.run()
    assert run.rc == 0, run.output
    assert fleet.versions() == versions("gpu1 gpu2 cpu1 cpu2")
    assert fleet.gateway() == ready(*NODES)
