# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All Ollama hosts of a run: each source is asked once, for what somebody lacks; one name means one model."""

from __future__ import annotations

from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._ollama_fleet import asked, differing, offered

MIRROR = {"registry": "mirror:80", "registry_insecure": True}


def host(*models: str, lacking: Any = (), store: Any = None, registry: Any = None, **given: Any) -> dict[str, Any]:
    """As role ollama leaves it; `store` has the content of each model that is there."""
    there = {
        name: {"digest": f"{content}{'0' * 56}", "content": content, "whole": True}
        for name, content in (store or {}).items()
    }
    source = registry or {"registry": "", "registry_insecure": False}
    return {
        "__ollama_plan": {
            "given": {"models": list(models), "fit": "refuse", "bundle": "", "https_proxy": "", **given},
            "lacking": list(lacking),
            "no_proxy": "",
            **source,
        },
        "ansible_facts": {"llmops_stack": {"ollama": {"store": {"models": there}}}},
    }


def offer(name: str, content: str) -> dict[str, Any]:
    return {"name": name, "content": content, "digest": f"{content}{'0' * 56}"}


def test_nobody_is_asked_where_nothing_is_missing() -> None:
    hosts = {"gpu1": host("talk"), "cpu1": host("talk"), "gone1": {}}
    assert asked(hosts, list(hosts)) == []


def test_each_source_is_asked_once() -> None:
    hosts = {
        "gpu1": host(lacking=["talk", "big:70b"]),
        "gpu2": host(lacking=["Talk:latest", "small"]),
        "cpu1": host(lacking=["talk"], registry=MIRROR),
        "cpu2": host(lacking=["talk"], https_proxy="http://proxy:3128"),
    }
    found = asked(hosts, list(hosts))
    assert [(one["hosts"], one["registry"], one["insecure"]) for one in found] == [
        (["gpu1", "gpu2"], "", False), (["cpu1"], "mirror:80", True), (["cpu2"], "", False),
    ]  # fmt: skip
    assert found[0]["names"] == ["Talk:latest", "big:70b", "small"]
    assert "proxy:3128" not in str(found), "a proxy may have a login, and this is shown"


def test_who_wants_no_look_and_who_has_a_bundle() -> None:
    hosts = {"gpu1": host(lacking=["talk"], fit="ignore"), "gpu2": host(lacking=["talk"], bundle="/srv/bundle")}
    assert asked(hosts, list(hosts)) == []


def test_what_the_own_source_said() -> None:
    results: list[dict[str, Any]] = [
        {"item": {"hosts": ["gpu1", "gpu2"]}, "models": [offer("talk:latest", "aaaaaaaa")]},
        {"item": {"hosts": ["cpu1"]}, "models": [offer("talk:latest", "bbbbbbbb")]},
        {"item": {"hosts": ["cpu2"]}, "failed": True},
    ]
    hosts: dict[str, dict[str, Any]] = {
        name: {"__ollama_offers": {"results": results}} for name in ("gpu2", "cpu1", "cpu2")
    }
    hosts["air1"] = {"__ollama_bundled": {"models": [offer("talk:latest", "cccccccc")]}}
    hosts["air2"] = {"__ollama_bundled": {"skipped": True}, "__ollama_offers": {"skipped": True, "results": []}}
    said = {name: [one["content"] for one in offered(hosts, name)] for name in hosts}
    assert said == {"gpu2": ["aaaaaaaa"], "cpu1": ["bbbbbbbb"], "cpu2": [], "air1": ["cccccccc"], "air2": []}


class TestDiffering:
    def test_the_same_everywhere(self) -> None:
        same = host("talk", "own:1b", store={"talk:latest": "aaaaaaaa", "own:1b": "11111111"})
        other = host("library/talk", store={"talk:latest": "aaaaaaaa", "own:1b": "22222222"})
        assert differing({"gpu1": same, "gpu2": other}, ["gpu1", "gpu2"], {}) == []

    def test_another_one_there(self) -> None:
        hosts = {
            "gpu1": host("talk", store={"talk:latest": "aaaaaaaa"}),
            "gpu2": host("talk", store={"talk:latest": "aaaaaaaa"}),
            "cpu1": host("talk", store={"talk:latest": "bbbbbbbb"}),
        }
        (sentence,) = differing(hosts, list(hosts), {"other": "any"})
        assert sentence.startswith(
            "talk:latest is not one model: aaaaaaaa0000 is on gpu1 and gpu2, bbbbbbbb0000 is on cpu1; callers of the"
        )
        assert "gateway_digests" in sentence and "{'talk:latest': any}" in sentence
        for allowed in ({"talk": "any"}, {"Talk:latest": "aaaa"}):
            assert differing(hosts, list(hosts), allowed) == []
        assert differing(hosts, ["gpu1", "gpu2"], {}) == []

    def test_another_one_that_would_come(self) -> None:
        offers = {"results": [{"item": {"hosts": ["new1"]}, "models": [offer("talk:latest", "bbbbbbbb")]}]}
        hosts = {
            "gpu1": host("talk", store={"talk:latest": "aaaaaaaa"}),
            "new1": {**host("talk", lacking=["talk"]), "__ollama_offers": offers},
            "new2": host("talk", lacking=["talk"]),
        }
        (sentence,) = differing(hosts, list(hosts), {})
        assert "aaaaaaaa0000 is on gpu1, bbbbbbbb0000 would be pulled on new1;" in sentence
        hosts["new3"] = {**host("talk", store={"talk:latest": "bbbbbbbb"})}
        (sentence,) = differing(hosts, list(hosts), {})
        assert "bbbbbbbb0000 is on new3 and would be pulled on new1;" in sentence

    def test_what_is_not_whole_is_no_model(self) -> None:
        broken = host("talk", store={"talk:latest": "bbbbbbbb"}, lacking=["talk"])
        broken["ansible_facts"]["llmops_stack"]["ollama"]["store"]["models"]["talk:latest"]["whole"] = False
        hosts = {"gpu1": host("talk", store={"talk:latest": "aaaaaaaa"}), "gpu2": broken, "gone1": {}}
        assert differing(hosts, list(hosts), {}) == []
