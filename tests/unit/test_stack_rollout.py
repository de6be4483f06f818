# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who takes part in a run, in which batches, and whether it goes on after one."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils import _stack_addresses
from ansible_collections.llmops.stack.plugins.module_utils._stack_addresses import addresses, unplaced
from ansible_collections.llmops.stack.plugins.module_utils._stack_proof import (
    announcement,
    outdated,
    proof_seconds,
    records,
    unrouted,
    verdict,
)
from ansible_collections.llmops.stack.plugins.module_utils._stack_rollout import (
    hosts_of,
    rollout,
    said,
    start,
    to_close,
)

DIGEST = "a80c4f17"
UNREACHABLE = {"unreachable": True, "msg": "Task failed: Failed to connect to the host via ssh: no route to host"}


def host(
    gpu: str = "cpu", differs: bool = True, models: tuple[str, ...] = ("tiny",), lacking: bool = False, **more: Any
) -> dict[str, Any]:
    return {
        "ansible_host": "192.0.2.1",
        "ollama_models": list(models),
        "__ollama_plan": {"gpu": gpu, "bind": "0.0.0.0", "loopback": False, "lacking": list(models) if lacking else []},
        "__ollama_changes": {"differs": differs},
        "__rollout_reached": {"rc": 0},
        **more,
    }


def fleet(gpus: int, cpus: int, **more: Any) -> dict[str, dict[str, Any]]:
    names = [f"gpu{number}" for number in range(1, gpus + 1)] + [f"cpu{number}" for number in range(1, cpus + 1)]
    return {name: host("nvidia" if name.startswith("gpu") else "cpu", **more) for name in names}


def batches(hosts: dict[str, Any], given: Any = None, gateway: bool = False, at_once: bool = False) -> list[list[str]]:
    groups = {"ollama": list(hosts), **({"gateway": ["gw"]} if gateway else {})}
    plan = rollout(hosts, groups, given, at_once)
    assert plan["hosts"] == list(itertools.chain.from_iterable(plan["batches"]))
    assert plan["sizes"] == [len(batch) for batch in plan["batches"]]
    assert all(plan["batches"])
    return plan["batches"]


# -- the order -------------------------------------------------------------------------------------------------------


def test_the_first_batch_is_a_canary_of_each_kind() -> None:
    assert batches(fleet(3, 3)) == [["gpu1", "cpu1"], ["gpu2"], ["gpu3", "cpu2", "cpu3"]]
    assert [len(batch) for batch in batches(fleet(12, 8))] == [2, 5, 13]
    assert batches(fleet(0, 3)) == [["cpu1"], ["cpu2"], ["cpu3"]]
    assert batches(fleet(1, 0)) == [["gpu1"]]
    assert batches({}) == []


@pytest.mark.parametrize(
    ("given", "sizes"),
    [
        ([2, "50%"], [4, 5, 1]),
        ("25%", [2, 2, 2, 2, 2]),
        (3, [6, 3, 1]),
        (["10%", "1"], [1, 2, *[1] * 7]),
        (["100%"], [10]),
        ([["gpu3", "cpu5"], "50%"], [2, 4, 4]),
        ([1, ["cpu5"]], [2, 1, 7]),
    ],
)
def test_batches_are_as_they_were_asked_for(given: Any, sizes: list[int]) -> None:
    assert [len(batch) for batch in batches(fleet(5, 5), given)] == sizes


def test_hosts_by_name_are_in_their_batch_and_in_no_other() -> None:
    made = batches(fleet(2, 2), [["cpu2"], 1, "100%"])
    assert made == [["cpu2"], ["gpu1", "cpu1"], ["gpu2"]]


@pytest.mark.parametrize("given", [None, 1, "7%", [2, "30%"], [["gpu2", "cpu1"], 1]])
def test_every_host_has_one_turn(given: Any) -> None:
    for gpus, cpus, gateway in itertools.product(range(4), range(4), (False, True)):
        hosts = fleet(max(gpus, 2), max(cpus, 1)) if isinstance(given, list) else fleet(gpus, cpus)
        made = batches(hosts, given, gateway)
        assert sorted(itertools.chain.from_iterable(made)) == sorted(hosts)


def test_hosts_on_which_nothing_differs_are_no_canaries() -> None:
    """The run after one that stopped: what is done is proved again, and the canary is one that is not."""
    hosts = fleet(3, 3)
    for done in ("gpu1", "cpu1", "gpu2"):
        hosts[done] = host("nvidia" if done.startswith("gpu") else "cpu", differs=False)
    assert batches(hosts) == [["gpu1", "gpu2", "cpu1", "gpu3", "cpu2"], ["cpu3"]]
    assert batches(fleet(3, 3, differs=False)) == [list(fleet(3, 3))]
    assert len(batches(fleet(3, 3, differs=False, lacking=True))) == 3


def test_a_check_run_stops_nothing_so_it_takes_all_at_once() -> None:
    assert batches(fleet(3, 3), at_once=True) == [list(fleet(3, 3))]


def test_hosts_that_were_not_looked_at_have_no_turn() -> None:
    hosts = fleet(2, 2)
    del hosts["gpu1"]["__ollama_plan"]
    assert batches(hosts) == [["gpu2", "cpu1"], ["cpu2"]]


def test_behind_a_gateway_no_batch_takes_a_model_away() -> None:
    hosts = fleet(2, 8)
    hosts["cpu7"] = hosts["cpu8"] = host(models=("tiny", "Rare:latest"))
    assert batches(hosts)[-1][-2:] == ["cpu7", "cpu8"]
    made = batches(hosts, gateway=True)
    assert [("cpu7" in batch, "cpu8" in batch) for batch in made][-2:] == [(True, False), (False, True)]
    assert sum(map(len, made)) == len(hosts)
    # One that has nothing to do serves all the while, and names that were given are taken by their word.
    hosts["cpu7"] = host(models=("tiny", "rare"), differs=False)
    assert len(batches(hosts, gateway=True)) == 3
    assert batches(fleet(2, 0), [["gpu1", "gpu2"]], gateway=True) == [["gpu1", "gpu2"]]


# -- before anything -------------------------------------------------------------------------------------------------


def begin(hosts: dict[str, Any], given: Any = None, skip: bool = False, **groups: list[str]) -> dict[str, Any]:
    return start(hosts, {"ollama": list(hosts), **groups}, hosts, given, skip)


def test_a_fleet_that_answers_has_nothing_against_it() -> None:
    assert begin(fleet(2, 2)) == {"refusals": [], "remarks": [], "left_out": []}
    assert begin(fleet(1, 1), [["gpu1"], "25%", 3, "2"])["refusals"] == []


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([["gpu1"], ["cpu1", "gpu1"]], "Batch 2 of stack_batches names gpu1 again after batch 1."),
        ([["gpu1", "gpu1"]], "Batch 1 of stack_batches names gpu1 twice."),
        ([["gpu7"]], "names gpu7, which is not in group ollama."),
        ([[]], "Batch 1 of stack_batches names no host."),
        ([0], "stack_batches has the entry 0."),
        (["some"], "stack_batches has the entry 'some'."),
        ([-1], "stack_batches has the entry -1."),
        (["0%"], "stack_batches has the entry '0%'."),
        (["101%"], "stack_batches has the entry '101%'."),
        ([True], "stack_batches has the entry True."),
        ([{"size": 1}], "stack_batches has the entry {'size': 1}."),
        ([], "stack_batches is empty."),
        ("", "stack_batches has the entry ''."),
    ],
)
def test_batches_that_cannot_be_meant_are_refused(given: Any, words: str) -> None:
    (said,) = begin(fleet(1, 1), given)["refusals"]
    assert words in said


def test_there_is_one_mirror_and_one_gateway() -> None:
    (said,) = begin(fleet(1, 1), gateway=["gw1", "gw2"])["refusals"]
    assert said == "Group gateway has gw1 and gw2, and it can have one host. Choose one of them."


def test_hosts_that_do_not_answer_are_all_named() -> None:
    hosts = fleet(2, 1)
    hosts["gpu2"]["__rollout_reached"] = UNREACHABLE
    hosts["cpu1"]["__rollout_reached"] = {"rc": 1, "stdout": "", "stderr": "container is not running"}
    seen = begin(hosts)
    (said,) = seen["refusals"]
    assert said.startswith("gpu2 and cpu1 cannot be reached. gpu2: Failed to connect to the host via ssh: no route")
    assert "cpu1: container is not running." in said
    assert "stack_skip_unreachable: true" in said
    seen = begin(hosts, skip=True)
    assert seen["refusals"] == []
    assert seen["left_out"] == ["gpu2", "cpu1"]
    assert seen["remarks"][0].startswith("gpu2 and cpu1 cannot be reached and are left out of this run.")


def test_nobody_goes_without_the_gateway() -> None:
    hosts = {**fleet(1, 1), "gw": {"__rollout_reached": UNREACHABLE}}
    seen = start(hosts, {"ollama": ["gpu1", "cpu1"], "gateway": ["gw"]}, hosts, None, skip=True)
    assert seen["refusals"][0].startswith("gw cannot be left out")
    assert begin(hosts, skip=False, gateway=["gw"])["refusals"][0].startswith("gw cannot be reached")


def test_what_a_run_is_told_may_be_said_to_any_host() -> None:
    hosts: dict[str, dict[str, Any]] = {"gw": {}, "gpu1": {"stack_batches": [2]}, "cpu1": {"stack_batches": ["100%"]}}
    assert said(hosts, ["gw", "gpu1", "cpu1", "nobody"], "stack_batches") == [[2], ["100%"]]


def test_hosts_of_groups_come_once_and_in_their_order() -> None:
    groups = {"all": ["x"], "gateway": ["b"], "ollama": ["a", "b", "c"]}
    assert hosts_of(groups, "mirror", "gateway", "ollama", without=["c"]) == ["b", "a"]
    assert hosts_of({}, "mirror") == []


# -- what the gateway is told ----------------------------------------------------------------------------------------


def proved(*names: str, **more: Any) -> dict[str, Any]:
    return {"models": [{"name": name, "digest": DIGEST, **more} for name in names]}


def test_a_record_has_what_was_proved() -> None:
    hosts = {"gpu1": host(models=("Tiny", "big:7b"), ollama_num_parallel=4, __ollama_models=proved("tiny:latest"))}
    assert records(hosts, ["gpu1"], "gw") == [
        {
            "name": "gpu1",
            "address": "192.0.2.1",
            "port": 11434,
            "parallel": 4,
            "models": {"tiny:latest": DIGEST},
            "contents": {},
        }
    ]


def test_models_with_an_error_or_that_nobody_asked_for_are_none() -> None:
    broken = {"models": [{"name": "tiny:latest", "digest": DIGEST, "error": "damaged"}]}
    hosts = {
        "failed": host(__ollama_models=broken),
        "back": host(__rollout_listed=proved("tiny:latest", "somebodys:latest")),
        "silent": host(__rollout_listed={"failed": False, "msg": "no answer"}),
        "mute": host(__rollout_listed={"url": "http://127.0.0.1:11434", "version": "", "models": []}),
        "empty": host(models=()),
    }
    made = {one["name"]: one["models"] for one in records(hosts, hosts, "gw")}
    assert made == {"failed": {}, "back": {"tiny:latest": DIGEST}, "empty": {}}


@pytest.mark.parametrize(
    ("more", "parallel"),
    [
        ({}, 0),
        ({"ollama_num_parallel": "2"}, 2),
        ({"ollama_num_parallel": 2, "__ollama_plan": {"env": {"OLLAMA_NUM_PARALLEL": "4"}}}, 4),
    ],
)
def test_a_node_takes_as_many_calls_as_its_server(more: dict[str, Any], parallel: int) -> None:
    assert records({"node": host(models=(), **more)}, ["node"], "gw")[0]["parallel"] == parallel


def test_a_long_proof_is_one_in_the_background() -> None:
    def node(*seconds: float | None) -> dict[str, Any]:
        probes = [{} if one is None else {"load_seconds": one} for one in seconds]
        return host(__ollama_models={"models": [{"name": "tiny:latest", "probe": probe} for probe in probes]})

    hosts = {"warm": node(0.1, 3.0, None), "cold": node(12.5, 8.0), "bare": host(), "lost": host(__ollama_models={})}
    assert proof_seconds(hosts, ["warm", "bare", "lost"]) == 0
    assert proof_seconds(hosts, ["warm", "cold"]) == 3 * 600 + 300


def test_what_is_to_be_pulled_again_is_outdated_at_the_gateway() -> None:
    hosts = {
        "later": host(models=("Tiny", "big:7b"), lacking=True),
        "done": host(lacking=True, __ollama_models=proved("tiny")),
        "has": host(),
        "outside": {"ollama_models": ["tiny"]},
    }
    assert outdated(hosts, hosts) == {"later": ["tiny:latest", "big:7b"]}


def test_a_model_that_nobody_is_asked_for() -> None:
    hosts = {
        "one": host(models=("Tiny", "big:7b"), __ollama_models=proved("tiny:latest", "big:7b")),
        "two": host(__ollama_models=proved("tiny:latest")),
        "outside": {"ollama_models": ["elsewhere"]},
        "untouched": host(models=("later",)),
    }
    assert unrouted(hosts, hosts, ["big:7b"]) == [f"tiny:latest {DIGEST} on one, two"]
    assert unrouted(hosts, hosts, {"big:7b": {}, "tiny:latest": {}}) == []


def test_a_record_says_what_models_are_besides_their_digests() -> None:
    there = {"tiny:latest": {"whole": True, "digest": DIGEST, "content": "c1"}}
    facts = {"llmops_stack": {"ollama": {"store": {"models": there}}}}
    offers = {
        "results": [{"item": {"hosts": ["node"]}, "models": [{"name": "big:7b", "digest": "d", "content": "c2"}]}]
    }
    models = ("Tiny", "big:7b")
    node = host(models=models, ansible_facts=facts, __ollama_offers=offers, __ollama_models=proved(*models))
    assert records({"node": node}, ["node"], "gw")[0]["contents"] == {"tiny:latest": "c1", "big:7b": "c2"}
    there["tiny:latest"]["digest"] = "mended"
    assert records({"node": node}, ["node"], "gw")[0]["contents"] == {"big:7b": "c2"}


def test_a_gateway_speaks_plain_http_to_its_nodes() -> None:
    hosts = {**fleet(1, 1, ollama_url="https://user:word@gpu.example.com"), "gw": {"ollama_url": "https://gw"}}
    groups = {"ollama": ["gpu1", "cpu1", "gw"], "gateway": ["gw"]}
    (said,) = start(hosts, groups, ["gpu1", "gw"])["refusals"]
    assert said.startswith("ollama_url of gpu1 is https://") and "speaks plain HTTP" in said and "word" not in said
    hosts["gpu1"]["ollama_url"] = "http://gpu1:4000/ollama"
    assert "http://gpu1:4000/ollama" in start(hosts, groups, ["gpu1"])["refusals"][0]
    hosts["gpu1"]["ollama_url"] = "http://gpu1:4000/"
    assert start(hosts, groups, ["gpu1"])["refusals"] == []
    assert start(hosts, {"ollama": ["cpu1"]}, ["cpu1"])["refusals"] == []


def test_a_gateway_cannot_call_a_node_by_an_address_with_colons() -> None:
    hosts = {"2001:db8::21": host(), "gpu-1.lan": host(), "gw": host()}
    groups = {"ollama": ["2001:db8::21", "gpu-1.lan"], "gateway": ["gw"]}
    (said,) = start(hosts, groups, hosts)["refusals"]
    assert said.startswith("2001:db8::21 cannot be the name of a node") and said.endswith("as its ansible_host.")
    assert start(hosts, {"ollama": groups["ollama"]}, hosts)["refusals"] == []


@pytest.mark.parametrize(
    ("more", "address", "port"),
    [
        ({}, "192.0.2.1", 11434),
        ({"ollama_port": "8080"}, "192.0.2.1", 8080),
        ({"ollama_url": "http://gpu.internal:4000/"}, "gpu.internal", 4000),
        ({"ollama_url": "http://gpu.internal"}, "gpu.internal", 80),
        ({"__ollama_plan": {"bind": "10.0.0.5", "loopback": False}}, "10.0.0.5", 11434),
        ({"ansible_host": ""}, "node", 11434),
    ],
)
def test_where_the_gateway_reaches_a_host(more: dict[str, Any], address: str, port: int) -> None:
    (made,) = records({"node": host(models=(), **more)}, ["node"], "gw")
    assert (made["address"], made["port"]) == (address, port)


@pytest.mark.parametrize(
    ("url", "address", "port"),
    [
        ("http://127.0.0.1:11434", "192.0.2.1", 11434),
        ("http://10.0.0.5:11434", "10.0.0.5", 11434),
        ("http://[2001:db8::5]:8080", "2001:db8::5", 8080),
    ],
)
def test_what_came_back_is_reached_where_it_was(url: str, address: str, port: int) -> None:
    plan = {"bind": "10.0.0.99", "loopback": False}
    back = host(ollama_port=11440, __ollama_plan=plan, __rollout_listed={**proved("tiny"), "url": url})
    (made,) = records({"node": back}, ["node"], "gw")
    assert (made["address"], made["port"], list(made["models"])) == (address, port, ["tiny:latest"])


def test_a_gateway_reaches_its_own_ollama_by_loopback() -> None:
    hosts = {"both": host(models=()), "bound": host(models=(), __ollama_plan={"bind": "10.0.0.5", "loopback": False})}
    assert records(hosts, ["both"], "both")[0]["address"] == "127.0.0.1"
    assert records(hosts, ["bound"], "bound")[0]["address"] == "10.0.0.5"


def test_firewalls_are_told_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(name: str, *_args: Any, **_more: Any) -> list[Any]:
        found = {"gw.example.com": ["192.0.2.9", "2001:db8::9", "192.0.2.9"], "here": ["127.0.1.1", "fe80::1%eth0"]}
        if name not in found:
            raise OSError
        return [(0, 0, 0, "", (address, 0)) for address in found[name]]

    monkeypatch.setattr(_stack_addresses.socket, "getaddrinfo", resolve)
    hosts: dict[str, Any] = {
        "a": {"ansible_host": "192.0.2.7", "gateway_address": "10.0.0.7"},
        "b": {"ansible_host": "[2001:db8::1]"},
        "gw.example.com": {},
        "nobody": {},
        "here": {"__rollout_reached": {"rc": 0, "stdout": "192.0.2.1 via 10.0.0.1 dev eth0 src 10.0.0.20 uid 0 \\ "}},
        "jumped": {"__rollout_reached": {"rc": 0, "stdout": "10.0.0.21 172.17.0.1 \r\n"}},
        "local": {"ansible_host": "127.0.0.1", "__rollout_reached": {"rc": 0, "stdout": ""}},
    }
    assert addresses(hosts, hosts, "a") == {
        "a": ["10.0.0.7"],
        "b": ["2001:db8::1"],
        "gw.example.com": ["192.0.2.9", "2001:db8::9"],
        "nobody": ["nobody"],
        "here": ["10.0.0.20"],
        "jumped": ["10.0.0.21"],
        "local": ["127.0.0.1"],
    }
    assert addresses(hosts, ["a"]) == {"a": ["192.0.2.7"]}
    assert addresses(hosts, ["a", "nobody"], "", ["a", "nobody"]) == {"a": ["192.0.2.7"], "nobody": []}
    assert unplaced(hosts, hosts) == ["nobody"]


def test_nodes_are_closed_when_every_dify_asks_the_gateway() -> None:
    groups = {"ollama": ["gpu1", "gpu2"], "gateway": ["gw"], "dify": ["told", "by-hand"]}
    asks = {"models": [{"credentials": {"base_url": "http://gw:11434"}}]}
    hosts: dict[str, Any] = {
        "gpu1": {"__ollama_plan": {"left_open": ["10.0.0.5"]}},
        "gpu2": {"__ollama_plan": {"left_open": []}},
        "gw": {},
        "told": {"dify_admin_email": "me@example.com", "__dify_health": {"healthy": True}, "__dify_models": asks},
        "by-hand": {},
    }
    assert to_close(hosts, groups) == ["gpu1"]
    for trouble in ({"__dify_health": {"healthy": False}}, {"__dify_models": {"skipped": True}}):
        assert to_close({**hosts, "told": {**hosts["told"], **trouble}}, groups) == []
    assert to_close({**hosts, "by-hand": {"dify_admin_email": "you@example.com"}}, groups) == []
    assert to_close({**hosts, "gpu1": {}}, groups) == [], "this run has not looked at it"


# -- after a batch ---------------------------------------------------------------------------------------------------

PLAN: dict[str, Any] = {
    "batches": [["gpu1", "cpu1"], ["gpu2"], ["gpu3", "cpu2"]],
    "settled": [],
    "alone": {},
    "would": [],
}
AGAIN = "Correct the cause and run the same command again: it goes on with what is left."


def proof(*drained: str, **unproved: str) -> dict[str, Any]:
    nodes = {name: {"state": "drained" if name in drained else "ready"} for name in ("gpu1", "cpu1", "gpu2")}
    return {"nodes": nodes, "unproved": unproved, "failed": False}


def test_what_is_said_before_a_batch() -> None:
    assert announcement(PLAN, "cpu1") == (
        "Batch 1 of 3: gpu1, cpu1. Untouched until they have proved themselves: gpu2, gpu3, cpu2."
    )
    assert announcement(PLAN, "gpu2") == "Batch 2 of 3: gpu2. Untouched until it has proved itself: gpu3, cpu2."
    assert announcement(PLAN, "gpu3") == "Batch 3 of 3: gpu3, cpu2."
    assert announcement({**PLAN, "settled": ["cpu1"]}, "gpu1") == (
        "Batch 1 of 3: gpu1. Untouched until it has proved itself: gpu2, gpu3, cpu2. As they should be already: cpu1."
    )
    assert announcement({**PLAN, "alone": {"cpu2": ["bge-m3:latest"]}}, "gpu3") == (
        "Batch 3 of 3: gpu3, cpu2. No other host has bge-m3:latest: calls fail while cpu2 is drained and restarts."
    )


def test_a_check_run_says_what_a_run_would_do() -> None:
    hosts = fleet(2, 1)
    plan = rollout(hosts, {"ollama": list(hosts)}, None, True)
    assert plan["batches"] == [["gpu1", "gpu2", "cpu1"]]
    assert announcement(plan, "gpu1") == "A run would change gpu1, cpu1; then gpu2."
    settled = fleet(2, 1, differs=False)
    assert rollout(settled, {"ollama": list(settled)}, None, True)["would"] == []


def test_models_that_nobody_else_has() -> None:
    def serving(*models: str, serves: bool = True, **changes: bool) -> dict[str, Any]:
        return host(models=models, __ollama_changes={"differs": True, "serves": serves, **changes})

    hosts = {
        "both": serving("tiny", "Big:7b", restart=True),
        "pulls": serving("only-here", restart=False),
        "new": serving("first", serves=False, restart=True),
        "boxed": serving("tiny", "bge-m3", container=True),
        "outside": {"ollama_models": ["big:7b"]},
    }
    assert rollout(hosts, {"ollama": list(hosts)})["alone"] == {"boxed": ["bge-m3:latest"]}
    # Who does not answer for a model yet, or any more, takes no calls of it meanwhile.
    lacks = serving("bge-m3", restart=False)
    lacks["__ollama_plan"]["lacking"] = ["BGE-M3"]
    others = {
        "dead": host(models=("big:7b",), __rollout_reached={"unreachable": True}),
        "bare": serving("tiny", serves=False),
    }
    hosts = {"both": hosts["both"], "boxed": serving("bge-m3", container=True), "lacks": lacks, **others}
    del hosts["dead"]["__ollama_plan"]
    assert rollout(hosts, {"ollama": list(hosts)})["alone"] == {
        "both": ["big:7b", "tiny:latest"], "boxed": ["bge-m3:latest"],
    }  # fmt: skip


def test_a_batch_that_is_well_is_passed_over_in_silence() -> None:
    hosts = fleet(3, 2)
    nothing = {"failed": {}, "speaker": "", "message": ""}
    assert verdict(hosts, PLAN, ["gpu1", "cpu1"]) == nothing
    assert verdict(hosts, PLAN, ["gpu1", "cpu1"], "gw", proof()) == nothing
    assert verdict(hosts, PLAN, ["gpu1", "cpu1"], "gw", {"skipped": True, "changed": False}) == nothing
    assert verdict(hosts, {}, ["gpu1", "cpu1"]) == nothing


def test_a_failure_names_host_reason_and_whom_it_saved() -> None:
    hosts = fleet(3, 2)
    hosts["cpu1"]["__rollout_failure"] = "cpu1: Ollama 0.18.0 did not come up. Ollama 0.17.4 serves again as before"
    seen = verdict(hosts, PLAN, ["gpu1", "cpu1"], "gw", proof())
    assert list(seen["failed"]) == ["cpu1"]
    assert seen["speaker"] == "cpu1"
    assert seen["message"] == (
        "cpu1: Ollama 0.18.0 did not come up. Ollama 0.17.4 serves again as before. The gateway has it in service. "
        f"Done: gpu1. Not reached and untouched: gpu2, gpu3 and cpu2. {AGAIN} To go on without: --limit 'all:!cpu1'."
    )
    answer = proof()
    answer["nodes"]["cpu1"]["models"] = {}
    assert (
        "has it in service, but not for tiny:latest. Done"
        in verdict(hosts, PLAN, ["gpu1", "cpu1"], "gw", answer)["message"]
    )
    assert "The gateway sends it no calls." in verdict(hosts, PLAN, ["gpu1", "cpu1"], "gw", proof("cpu1"))["message"]
    assert "The gateway" not in verdict(hosts, PLAN, ["gpu1", "cpu1"])["message"]


def test_a_host_that_vanished_is_spoken_for_by_another() -> None:
    seen = verdict(fleet(3, 2), PLAN, ["cpu1"])
    assert seen["failed"] == {"gpu1": "it could not be reached any more, in the middle of its changes."}
    assert seen["speaker"] == "cpu1"
    assert "gpu1: it could not be reached any more" in seen["message"]
    assert "Done: cpu1." in seen["message"]


def test_a_host_that_is_not_proved_through_the_gateway_has_failed() -> None:
    seen = verdict(fleet(3, 2), PLAN, ["gpu2"], "gw", proof("gpu2", gpu2="gpu2 does not answer."))
    assert seen["failed"] == {"gpu2": "gpu2 does not answer. The gateway sends it no calls."}
    assert "Not reached and untouched: gpu3 and cpu2." in seen["message"]
    told = fleet(3, 2, __ollama_models=proved("tiny:latest"))
    last = verdict(told, PLAN, ["gpu3", "cpu2"], "gw", proof())
    assert set(last["failed"]) == {"gpu3", "cpu2"}
    assert "the gateway on gw does not know it" in last["message"]
    assert "No other Ollama host was left." in last["message"]


def test_a_host_that_the_gateway_was_told_nothing_of_is_not_missed_there() -> None:
    assert verdict(fleet(3, 2), PLAN, ["gpu3", "cpu2"], "gw", proof()) == {"failed": {}, "speaker": "", "message": ""}


@pytest.mark.parametrize(
    "answer", [{"unreachable": True, "msg": "Task failed: no route"}, {"failed": False, "msg": "no route"}]
)
def test_a_gateway_that_cannot_be_asked_ends_the_run(answer: dict[str, Any]) -> None:
    seen = verdict(fleet(3, 2), PLAN, ["gpu1", "cpu1"], "gw", answer)
    assert seen["failed"] == {}
    assert seen["speaker"] == "gpu1"
    assert seen["message"].startswith("The gateway on gw could not be asked for a proof: no route. Not reached")
