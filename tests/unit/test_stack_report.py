# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table at the end of verify.yml, out of what roles and modules leave in the variables of hosts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils._stack_report import report

CARD = {"vendor": "nvidia", "name": "NVIDIA L40S", "memory_mb": 46068, "driver": "nvidia"}
DEEP, TALK = "c333b7232bdb" + "0" * 52, "aaaaaaaaaaaa" + "0" * 52


def gpu1(**more: Any) -> dict[str, Any]:
    return {
        "ansible_host": "192.0.2.21",
        "__ollama_plan": {"gpu": "nvidia"},
        "ansible_facts": {"llmops_stack": {"gpus": [CARD, CARD]}},
        "__ollama_info": {
            "version": "0.32.15",
            "models": [{"name": "deepseek-r1:14b", "gpu_share": 1.0}, {"name": "talk:latest", "gpu_share": None}],
        },
        "__ollama_models_checked": {
            "models": [
                {"name": "deepseek-r1:14b", "digest": DEEP, "verified": True, "probe": {"tokens_per_second": 61.24}},
                {"name": "talk:latest", "digest": TALK, "verified": True, "probe": {}},
            ]
        },
        **more,
    }


def cpu1(**more: Any) -> dict[str, Any]:
    return {
        "ansible_host": "192.0.2.22",
        "__ollama_plan": {"gpu": "cpu"},
        "ansible_facts": {"llmops_stack": {"gpus": []}},
        "__ollama_info": {"version": "0.32.15", "models": [{"name": "talk:latest", "gpu_share": 0.0}]},
        "__ollama_models_checked": {
            "models": [{"name": "talk:latest", "digest": TALK, "verified": True, "probe": {"tokens_per_second": 19.8}}]
        },
        **more,
    }


def dify(status: str = "ok", detail: str = "") -> dict[str, Any]:
    return {"__dify_health": {"checks": [{"name": "model_servers", "status": status, "detail": detail}]}}


def routes(**states: tuple[str, str]) -> dict[str, Any]:
    return {
        "nodes": {
            name: {"state": state, "status": status, "models": {"talk:latest": {"status": status}}}
            for name, (state, status) in states.items()
        }
    }


def rows(hostvars: dict[str, Any], gateway: Any = None, difys: Any = ("dify1",)) -> dict[str, dict[str, Any]]:
    nodes = [name for name in hostvars if not name.startswith("dify")]
    made = report(hostvars, nodes, gateway or {}, difys)
    json.dumps(made)  # it becomes a file
    return {row["node"]: row for row in made["nodes"]}


def test_lines_for_people() -> None:
    hostvars = {"gpu1": gpu1(), "cpu1": cpu1(), "gone1": {"ollama_gpu": "nvidia"}, "dify1": dify()}
    gateway = routes(gpu1=("ready", "up"), cpu1=("drained", "drained"), gone1=("ready", "down"))
    lines = report(hostvars, ["gpu1", "cpu1", "gone1"], gateway, ["dify1"])["lines"]
    assert lines == [
        "NODE   KIND  GPU                     OLLAMA   MODEL            DIGEST        TOKENS/S  ON GPU  GATEWAY  DIFY",
        "gpu1   gpu   2 x NVIDIA L40S 45 GiB  0.32.15  deepseek-r1:14b  c333b7232bdb  61.2      100 %   ready    yes",
        "                                              talk:latest      aaaaaaaaaaaa",
        "cpu1   cpu   -                       0.32.15  talk:latest      aaaaaaaaaaaa  19.8      0 %     drained  no",
        "gone1  gpu   -                       -        -                -             -         -       down     no",
        "gpu1: the gateway passes no calls for deepseek-r1:14b to it: gateway_digests names another digest, or "
        "site.yml has not proved it there yet.",
        "cpu1: the gateway sends it no calls, as it is drained. Run site.yml, which proves it and has calls go there.",
        "gone1: it was not looked at in this run, or could not be reached",
    ]


def test_a_row_for_programs() -> None:
    found = rows({"gpu1": gpu1(), "dify1": dify()}, routes(gpu1=("ready", "up")))["gpu1"]
    assert found == {
        "node": "gpu1",
        "kind": "gpu",
        "gpu": "2 x NVIDIA L40S 45 GiB",
        "version": "0.32.15",
        "models": {
            "deepseek-r1:14b": {
                "digest": DEEP, "verified": True, "tokens_per_second": 61.24, "gpu_share": 1.0, "gateway": "",
            },
            "talk:latest": {
                "digest": TALK, "verified": True, "tokens_per_second": None, "gpu_share": None, "gateway": "up",
            },
        },
        "gateway": "ready",
        "dify": True,
        "problem": "",
        "remark": "the gateway passes no calls for deepseek-r1:14b to it: gateway_digests names another digest, or "
        "site.yml has not proved it there yet.",
    }  # fmt: skip


def test_a_gpu_that_nothing_runs_on() -> None:
    idle = gpu1()
    idle["__ollama_info"]["models"] = [{"name": "deepseek-r1:14b", "gpu_share": 0.0}]
    made = report({"gpu1": idle, "cpu1": cpu1()}, ["gpu1", "cpu1"], {}, [])
    assert made["lines"][-1].startswith("gpu1: it has a GPU, and its models run on the CPU; journalctl -u ollama")
    assert [row["remark"] != "" for row in made["nodes"]] == [True, False]
    assert made["failures"] == {}


@pytest.mark.parametrize(
    ("gateway", "state"),
    [
        ({}, ""),
        (routes(cpu1=("ready", "up")), "ready"),
        (routes(cpu1=("ready", "down")), "down"),
        (routes(cpu1=("drained", "down")), "drained"),
        (routes(gpu1=("ready", "up")), "absent"),
        ({"failed": True, "msg": "HAProxy does not answer."}, "unknown"),
        ({"unreachable": True, "msg": "no route"}, "unknown"),
    ],
)
def test_states_at_the_gateway(gateway: dict[str, Any], state: str) -> None:
    assert rows({"cpu1": cpu1()}, gateway, ())["cpu1"]["gateway"] == state


def test_a_node_that_gets_no_calls_fails_though_it_is_well() -> None:
    hostvars = {"up1": cpu1(), "off1": cpu1(), "down1": cpu1(), "new1": cpu1(), "bad1": cpu1(__report_failure="Lost.")}
    gateway = routes(up1=("ready", "up"), off1=("drained", "up"), down1=("ready", "down"), bad1=("drained", "up"))
    gateway["nodes"]["down1"].update(
        address="192.0.2.22", port=11434, models={"talk:latest": {"status": "down", "error": "Connection refused"}}
    )
    failures = report(hostvars, list(hostvars), gateway, [])["failures"]
    assert list(failures) == ["off1", "down1", "new1"]
    assert "as it is drained. Run site.yml" in failures["off1"]
    assert "get to it: Connection refused. See that its host reaches 192.0.2.22:11434" in failures["down1"]
    assert "does not know it. Run site.yml" in failures["new1"]
    for nothing in ({}, {"unreachable": True}):
        assert report(hostvars, list(hostvars), nothing, [])["failures"] == {}
    assert report({"far1": {}}, ["far1"], gateway, [])["failures"] == {}, "a run that is limited to others"


class TestDify:
    def test_through_the_gateway(self) -> None:
        hostvars = {
            "cpu1": cpu1(),
            "dify1": dify("ok", "Reached from inside api: http://192.0.2.9:11434 (Ollama 0.32.15)"),
        }
        assert rows(hostvars, routes(cpu1=("ready", "up")))["cpu1"]["dify"] is True
        assert rows(hostvars, routes(cpu1=("ready", "down")))["cpu1"]["dify"] is False
        hostvars["dify1"] = dify("failed", "From inside api, http://192.0.2.9:11434: the connection is refused")
        assert rows(hostvars, routes(cpu1=("ready", "up")))["cpu1"]["dify"] is False

    def test_at_its_own_address(self) -> None:
        hostvars = {"gpu1": gpu1(), "cpu1": cpu1()}
        hostvars["dify1"] = dify("ok", "Reached from inside api: http://192.0.2.21:11434 (Ollama 0.32.15)")
        found = rows(hostvars)
        assert (found["gpu1"]["dify"], found["cpu1"]["dify"]) == (True, None)
        hostvars["dify1"] = dify("failed", "From inside api, http://192.0.2.22:11434: the connection is refused")
        found = rows(hostvars)
        assert (found["gpu1"]["dify"], found["cpu1"]["dify"]) == (None, False)

    def test_nobody_has_tried(self) -> None:
        for asker in ({}, {"__dify_health": {"failed": True}}, dify("skipped", "No model server was named.")):
            assert rows({"cpu1": cpu1(), "dify1": asker})["cpu1"]["dify"] is None

    def test_two_of_them(self) -> None:
        hostvars = {"cpu1": cpu1(), "dify1": dify(), "dify2": dify("failed", "refused"), "dify3": {}}
        gateway = routes(cpu1=("ready", "up"))
        assert rows(hostvars, gateway, ("dify1", "dify3"))["cpu1"]["dify"] is True
        assert rows(hostvars, gateway, ("dify1", "dify2"))["cpu1"]["dify"] is False


class TestWhatFailed:
    def test_a_sentence_names_its_host_once(self) -> None:
        hostvars = {"cpu1": cpu1(__report_failure="cpu1: It is lost."), "gpu1": gpu1(__report_failure="No sudo.")}
        assert report(hostvars, ["cpu1", "gpu1"], {}, [])["lines"][-2:] == ["cpu1: It is lost.", "gpu1: No sudo."]

    def test_it_keeps_what_is_known(self) -> None:
        broken = cpu1(
            __ollama_info={"failed": True, "version": "0.32.15", "models": []}, __report_failure="It is lost."
        )
        broken["__ollama_models_checked"]["models"][0].update(verified=False, probe={}, error="It is lost.")
        found = rows({"cpu1": broken}, {}, ())["cpu1"]
        assert found["problem"] == "It is lost." and found["version"] == "0.32.15"
        assert found["models"]["talk:latest"]["verified"] is False

    def test_it_failed_before_anything_was_known(self) -> None:
        for ollama_gpu, kind in (("cpu", "cpu"), ("amd", "gpu"), ("auto", ""), (None, "")):
            found = rows({"cpu1": {"ollama_gpu": ollama_gpu, "__report_failure": "No sudo."}}, {}, ())["cpu1"]
            assert (found["kind"], found["version"], found["models"]) == (kind, "", {})
            assert found["problem"] == "No sudo."


def test_cards_of_the_kind_that_is_used() -> None:
    amd = {"vendor": "amd", "name": "", "memory_mb": 0}
    one = gpu1(ansible_facts={"llmops_stack": {"gpus": [CARD, amd, {**CARD, "name": "NVIDIA T4", "memory_mb": 15360}]}})
    assert rows({"gpu1": one}, {}, ())["gpu1"]["gpu"] == "NVIDIA L40S 45 GiB, NVIDIA T4 15 GiB"
    one["__ollama_plan"] = {"gpu": "amd"}
    assert rows({"gpu1": one}, {}, ())["gpu1"]["gpu"] == "AMD"
