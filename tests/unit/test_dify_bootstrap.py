# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils._dify_bootstrap import bootstrap, failure
from ansible_collections.llmops.stack.plugins.module_utils._dify_nodes import default_models
from ansible_collections.llmops.stack.plugins.module_utils._dify_summary import summary

CHAT: dict[str, Any] = {
    "model": "deepseek-r1:1.5b",
    "model_type": "llm",
    "credentials": {"base_url": "http://gpu1:11434"},
}
EMBEDDING: dict[str, Any] = {"model": "nomic-embed-text", "model_type": "text-embedding", "credentials": {}}


def plan(**changes: Any) -> dict[str, Any]:
    wanted = {
        "version": "1.12.1",
        "plugins": ["langgenius/ollama"],
        "models": [EMBEDDING, CHAT],
        "apps": [],
        "nodes": [],
        "model_servers": [],
        "overwrite": False,
        "probe_app": "llmops-health-check",
        "probe_model": "",
        "probe_key_file": "/opt/dify/.llmops-probe.key",
    }
    return bootstrap({**wanted, **changes})


@pytest.mark.parametrize(
    ("version", "provider"),
    [("0.15.3", "ollama"), ("1.0.0", "langgenius/ollama/ollama"), ("1.16.0", "langgenius/ollama/ollama")],
)
def test_the_probes_app_asks_the_first_model_that_chats(version: str, provider: str) -> None:
    made = plan(version=version)
    (app,) = made["apps"]
    assert app["name"] == "llmops-health-check" and app["key_file"] == "/opt/dify/.llmops-probe.key"
    assert app["dsl"]["model_config"]["model"]["provider"] == provider
    assert app["dsl"]["model_config"]["model"]["name"] == "deepseek-r1:1.5b"
    # Files of 0.1.5 and older have Dify ask its marketplace.
    assert app["dsl"]["version"] == "0.3.1" and app["dsl"]["dependencies"] == []
    json.dumps(app)


def test_the_probes_model_can_be_chosen_and_need_not_be_ours() -> None:
    other = {"model": "gpt", "provider": "openai", "model_type": "llm"}
    asked = plan(models=[CHAT, other], probe_model="gpt")["apps"][0]["dsl"]["model_config"]["model"]
    assert (asked["provider"], asked["name"]) == ("langgenius/openai/openai", "gpt")
    assert "num_predict" not in asked["completion_params"]
    by_hand = plan(models=[], probe_model="by-hand")["apps"][0]["dsl"]["model_config"]["model"]
    assert (by_hand["provider"], by_hand["name"]) == ("langgenius/ollama/ollama", "by-hand")


@pytest.mark.parametrize(("allowed", "asked"), [(77, 77), ("77", 77), (4096, 256), (None, 256)])
def test_the_probe_asks_for_no_more_tokens_than_the_model_may_answer(allowed: object, asked: int) -> None:
    model = {**CHAT, "credentials": {"base_url": "http://host.docker.internal:11434", "max_tokens": allowed}}
    parameters = plan(models=[model])["apps"][0]["dsl"]["model_config"]["model"]["completion_params"]
    assert parameters["num_predict"] == asked


def test_without_a_model_that_chats_or_without_a_name_there_is_no_probe() -> None:
    assert plan(models=[EMBEDDING])["apps"] == plan(probe_app="")["apps"] == []
    assert plan(models=[{**CHAT, "state": "absent"}])["apps"] == []


def test_a_limited_run_does_not_move_the_probe() -> None:
    known = {"name": "b:latest", "capabilities": ["completion"]}
    later = {"name": "gpu2", "url": "http://gpu2:11434", "models": [known]}
    first = {"name": "gpu1", "url": "http://gpu1:11434", "models": [{"name": "a:latest"}]}
    nodes = [first, later]
    assert plan(nodes=nodes, models=default_models(nodes))["apps"] == []
    assert len(plan(nodes=nodes, models=default_models(nodes), probe_model="a:latest")["apps"]) == 1
    # An operator's own list says which is the first.
    assert len(plan(nodes=nodes, models=[CHAT])["apps"]) == 1
    nodes = [later, first]
    assert len(plan(nodes=nodes, models=default_models(nodes))["apps"]) == 1


def test_operators_apps_come_in_the_same_call() -> None:
    own = {"name": "helpdesk", "src": "/srv/helpdesk.yml"}
    assert [one["name"] for one in plan(apps=[own])["apps"]] == ["helpdesk", "llmops-health-check"]


def test_a_version_of_a_plugin_has_the_name_that_the_module_gives_it() -> None:
    given = {"plugin": "langgenius/ollama", "version": "0.1.0", "pin": True}
    assert plan(plugins=[given])["plugins"] == [
        {"plugin": "langgenius/ollama", "plugin_version": "0.1.0", "pin": True},
    ]


def test_before_1_0_there_are_no_plugins_and_only_what_was_asked_for_is_missed() -> None:
    made = plan(version="0.15.3")
    assert made["plugins"] == [] and made["notes"] == []
    (note,) = plan(version="0.15.3", plugins=["langgenius/ollama", "langgenius/openai:0.1.0"])["notes"]
    assert (
        "Dify 0.15.3 has no plugins" in note and "langgenius/openai:0.1.0" in note and "langgenius/ollama" not in note
    )


SICK: dict[str, Any] = {
    "healthy": False,
    "checks": [
        {"name": "api", "status": "ok", "detail": "Dify 1.12.1 answers.", "advice": ""},
        {"name": "daemon", "status": "failed", "detail": "Nothing listens", "advice": "Start plugin_daemon."},
    ],
}


def test_a_failure_is_one_paragraph_with_host_words_evidence_and_next_step() -> None:
    said = failure({"msg": "The plugin daemon\n does not answer"}, "llmops.stack.dify_plugin", SICK, "dify1")
    assert said == (
        "dify1: not all plugins are as wanted. The plugin daemon does not answer. Health found: Nothing listens. Start "
        "plugin_daemon. Run site.yml again after that: it goes on where it stopped."
    )
    well = {"healthy": True, "checks": SICK["checks"][:1]}
    assert "Health found nothing wrong with Dify's own services." in failure(
        {"msg": "No."}, "dify_setup", well, "dify1"
    )
    assert "Health could not be asked: no docker." in failure({}, "dify_app", {"msg": "no docker"}, "dify1")


def seen(**changes: Any) -> dict[str, Any]:
    return {
        "host": "dify1",
        "url": "http://dify.example.com",
        "home": "/opt/dify",
        "engine": "26.1.5",
        "compose": "2.40.3",
        "email": "admin@example.com",
        "health": {
            "version": "1.12.1",
            "checks": [{"name": "llm", "status": "ok", "detail": "It answered with 8 tokens."}],
        },
        "plugins": {},
        "models": {},
        "apps": {},
        "wanted": plan(nodes=[{"name": "gpu1", "url": "http://gpu1:11434", "models": []}]),
        **changes,
    }


def test_the_summary_says_who_owns_it_and_where_the_password_is() -> None:
    text = "\n".join(summary(seen()))
    assert "admin@example.com" in text and "ADMIN_PASSWORD in /opt/dify/secrets.json" in text
    assert "INIT_PASSWORD" not in text and text.endswith("ok      llm            It answered with 8 tokens.")


def test_the_summary_shows_the_span_of_its_own_question() -> None:
    trace = {"model": "deepseek-r1:1.5b", "input_tokens": 11, "output_tokens": 4, "outcome": "ok"}
    times = {"time_to_first_chunk": 0.214, "duration": 0.498, "url": "http://h:6006/projects/P/traces/2"}
    assert not any(line.startswith("Trace") for line in summary(seen()))
    whole = ", first token after 0.21 s, 0.50 s in all, ok, http://h:6006/projects/P/traces/2"
    for more, end in ((times, whole), ({}, ", ok")):
        lines = summary(seen(health={**seen()["health"], "trace": {**trace, **more}}))
        assert f"Trace: deepseek-r1:1.5b: 11 tokens in, 4 out{end}" in lines


@pytest.mark.parametrize(
    ("kind", "told"),
    [("other_head", "closed for 17 s"), ("same_head", "beside each other, so nobody had to wait")],
)
def test_the_summary_says_what_an_upgrade_did_and_where_the_way_back_is(kind: str, told: str) -> None:
    phases = {"backup": "before", "maintenance": "outage", "migrate": "outage", "start": "outage", "open": "outage"}
    steps = [{"id": name, "phase": phase} for name, phase in phases.items()]
    done = {
        "seconds": {"maintenance": 9.0, "migrate": 5.1, "start": 12.2, "open": 24.0},
        "folder": "/opt/dify/upgrades/1",
    }
    upgrade = {
        "plan": {"kind": kind, "from": "1.11.4", "to": "1.12.1", "steps": steps},
        "done": done,
        "backup": {"path": "/opt/dify/backups/1", "pruned": ["/opt/dify/backups/0"]},
    }
    lines = summary(seen(upgrade=upgrade))
    assert lines[1] == f"Upgraded: Dify 1.11.4 -> 1.12.1, {told}."
    assert (
        "/opt/dify/backups/1" in lines[2] and "/opt/dify/backups/0" in lines[3] and "/opt/dify/upgrades/1" in lines[4]
    )
    assert not any("Upgraded" in line for line in summary(seen()))


def test_without_an_owner_the_summary_says_what_is_missing_and_how_to_get_it() -> None:
    text = "\n".join(summary(seen(email="", wanted=plan(nodes=[{"name": "a", "url": "", "models": [{"name": "b"}]}]))))
    assert "Set dify_admin_email" in text and "INIT_PASSWORD in it opens the install page" in text
    assert "Note:" not in text  # what Dify would be told matters to nobody yet


def test_the_summary_names_plugins_models_and_apps() -> None:
    speed = {"name": "deepseek-r1:1.5b", "probe": {"tokens_per_second": 61.31}}
    plugin = {"plugin": "langgenius/ollama", "version": "0.1.0", "source": "marketplace", "verified": "process"}
    gone = {"plugin": "langgenius/openai", "version": "", "action": "uninstalled"}
    model = {"provider": "langgenius/ollama/ollama", "model": "deepseek-r1:1.5b", "model_type": "llm", "default": True}
    lines = summary(
        seen(
            plugins={"plugins": [{**plugin, "pinned": True}, gone]},
            models={"models": [{**model, "credentials": {"base_url": "http://gpu1:11434"}, "drift": []}]},
            apps={"apps": [{"name": "llmops-health-check", "id": "1", "mode": "chat", "action": "none", "drift": []}]},
            wanted=plan(nodes=[{"name": "gpu1", "url": "http://gpu1:11434", "models": [speed]}]),
        )
    )
    assert "Plugin: langgenius/ollama 0.1.0 (marketplace, its process answers, pinned)" in lines
    assert "Model: deepseek-r1:1.5b (llm, on gpu1, 61.31 tokens/s, default)" in lines
    assert "App: llmops-health-check (chat, key in /opt/dify/.llmops-probe.key)" in lines
    assert not any("openai" in line for line in lines)


def test_what_was_changed_in_the_browser_is_reported_with_the_switch_that_sets_it_back() -> None:
    drift = {"key": "context_size", "found": "2048", "wanted": "8192", "overwritten": False}
    model = {"provider": "p", "model": "m", "model_type": "llm", "drift": [drift, {**drift, "overwritten": True}]}
    app = {"name": "helpdesk", "id": "1", "drift": [{"key": "content", "overwritten": False}]}
    plugin = {"plugin": "a/b", "version": "1", "auto_upgrade": "latest", "pinned": False}
    told = summary(seen(models={"models": [model]}, apps={"apps": [app]}, plugins={"plugins": [plugin]}))
    first, second, third = [line for line in told if line.startswith("Note:")]
    assert "context_size is 2048 in Dify, where 8192 is wanted" in first and "dify_models_overwrite: true" in first
    assert "helpdesk" in second and "overwrite: true" in second
    assert "Dify upgrades a/b by itself (latest)" in third and "pin: true" in third
