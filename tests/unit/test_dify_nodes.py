# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils._dify_bootstrap import default_plugins
from ansible_collections.llmops.stack.plugins.module_utils._dify_nodes import (
    asks_gateway,
    default_models,
    model_servers,
    node_notes,
    ollama_nodes,
)

CHAT: dict[str, Any] = {
    "name": "deepseek-r1:1.5b",
    "capabilities": ["completion", "thinking"],
    "context_length": 8192,
    "probe": {},
}
SEEING: dict[str, Any] = {
    "name": "qwen3-vl:8b",
    "capabilities": ["completion", "vision", "tools"],
    "context_length": 4096,
}
EMBEDDING: dict[str, Any] = {"name": "nomic-embed-text:latest", "capabilities": ["embedding"], "context_length": 2048}


def host(*models: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The variables of a host whose Ollama was asked in this run."""
    names = [one["name"] for one in models]
    return {"ollama_models": names, "__ollama_models": {"changed": False, "models": list(models)}, **more}


def unasked(*names: str, **more: Any) -> dict[str, Any]:
    return {"ollama_models": list(names), **more}


def node(name: str, *models: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "url": f"http://{name}:11434", "models": list(models)}


def test_a_host_reaches_its_own_ollama_by_the_name_that_containers_know() -> None:
    found = ollama_nodes({"one": host(CHAT, ansible_host="192.0.2.1", ollama_port="11500")}, ["one"], "one")
    assert found == [{"name": "one", "url": "http://host.docker.internal:11500", "models": [CHAT]}]


def test_others_are_reached_by_their_address_and_come_after_its_own() -> None:
    hosts = {
        "gpu1": host(CHAT, ansible_host="192.0.2.21"),
        "gpu2": host(CHAT),
        "six": host(CHAT, ansible_host="2001:db8::6"),
        "dify": host(EMBEDDING),
    }
    found = ollama_nodes(hosts, list(hosts), "dify")
    assert [one["url"] for one in found] == [
        "http://host.docker.internal:11434",
        "http://192.0.2.21:11434",
        "http://gpu2:11434",
        "http://[2001:db8::6]:11434",
    ]
    # A host without an Ollama of its own has the others only.
    assert [one["name"] for one in ollama_nodes({**hosts, "web": {}}, ["gpu1", "gpu2"], "web")] == ["gpu1", "gpu2"]


def test_a_run_that_did_not_ask_an_ollama_knows_the_names_of_its_models_only() -> None:
    (found,) = ollama_nodes({"one": unasked("nomic-embed-text")}, ["one"], "one")
    assert found["models"] == [{"name": "nomic-embed-text:latest"}]
    # A task that was skipped has registered that, and no models.
    skipped = {"ollama_models": ["a"], "__ollama_models": {"skipped": True}}
    assert ollama_nodes({"one": skipped}, ["one"], "one")[0]["models"] == [{"name": "a:latest"}]
    assert ollama_nodes({"one": {}}, ["one"], "one")[0]["models"] == []


def test_names_are_matched_as_ollama_lists_them_and_only_what_is_wanted_counts() -> None:
    asked = {**host(EMBEDDING, CHAT), "ollama_models": ["nomic-embed-text"]}
    assert ollama_nodes({"one": asked}, ["one"], "one")[0]["models"] == [EMBEDDING]


def test_a_model_that_is_not_as_wanted_is_as_good_as_not_asked() -> None:
    broken = host({**CHAT, "error": "damaged"})
    assert ollama_nodes({"one": broken}, ["one"], "one")[0]["models"] == [{"name": "deepseek-r1:1.5b"}]


def test_verify_knows_what_its_own_look_found() -> None:
    looked = {"ollama_models": [CHAT["name"]], "__ollama_models_checked": {"models": [CHAT]}}
    assert ollama_nodes({"one": looked}, ["one"], "one")[0]["models"] == [CHAT]


def test_the_context_that_was_configured_counts_where_no_model_was_loaded() -> None:
    asked = host({**CHAT, "context_length": 0}, ollama_context_length=16384)
    assert ollama_nodes({"one": asked}, ["one"], "one")[0]["models"][0]["context_length"] == 16384


def test_an_address_of_ones_own_is_where_dify_reaches_an_ollama() -> None:
    hosts = {
        "gpu1": host(CHAT, ansible_host="192.0.2.21", ollama_url="https://models.example.com/ollama/"),
        "gpu2": host(CHAT, ollama_url=""),
        "dify": host(ollama_url="http://172.17.0.1:11434"),
    }
    assert [one["url"] for one in ollama_nodes(hosts, list(hosts), "dify")] == [
        "http://172.17.0.1:11434",
        "https://models.example.com/ollama",
        "http://gpu2:11434",
    ]


def test_an_operators_own_list_of_nodes_stays() -> None:
    own = [node("elsewhere", CHAT)]
    assert ollama_nodes({"one": host(CHAT, dify_ollama_nodes=own)}, ["one"], "one") == own


def test_an_operators_own_list_keeps_what_this_run_has_seen() -> None:
    own = [
        {"name": "gpu2", "url": "http://proxy:8080"},
        {"name": "gpu1", "models": [{"name": "nomic-embed-text", "context_length": 512}, {"name": "new"}]},
    ]
    hosts = {"gpu1": host(CHAT, EMBEDDING), "gpu2": host(SEEING), "web": {"dify_ollama_nodes": own}}
    assert ollama_nodes(hosts, ["gpu1", "gpu2"], "web") == [
        {"name": "gpu2", "url": "http://proxy:8080", "models": [SEEING]},
        {
            "name": "gpu1",
            "url": "http://gpu1:11434",
            "models": [{**EMBEDDING, "name": "nomic-embed-text", "context_length": 512}, {"name": "new"}],
        },
    ]


def test_models_get_what_ollama_said_of_them() -> None:
    chat, seeing, embedding = default_models([node("gpu1", CHAT, SEEING, EMBEDDING)])
    assert chat == {
        "model": "deepseek-r1:1.5b",
        "provider": "ollama",
        "model_type": "llm",
        "credentials": {
            "base_url": "http://gpu1:11434",
            "mode": "chat",
            "context_size": 8192,
            "max_tokens": 4096,
            "vision_support": False,
            "function_call_support": False,
        },
        "default": True,
    }
    assert seeing["credentials"]["vision_support"] and seeing["credentials"]["function_call_support"]
    assert not seeing["default"]
    assert embedding["model_type"] == "text-embedding" and embedding["default"]
    assert embedding["credentials"] == {"base_url": "http://gpu1:11434", "context_size": 2048}


def test_an_old_ollama_knows_no_capabilities_and_its_answer_tells() -> None:
    chat = {"name": "a:latest", "capabilities": [], "context_length": 0, "probe": {"kind": "generate"}}
    embedding = {**chat, "name": "b:latest", "probe": {"kind": "embed"}}
    first, second = default_models([node("old", chat, embedding)])
    assert first["model_type"] == "llm" and first["credentials"] == {"base_url": "http://old:11434", "mode": "chat"}
    assert second["model_type"] == "text-embedding" and second["credentials"] == {"base_url": "http://old:11434"}


def test_a_model_on_several_nodes_is_asked_at_the_first_and_that_is_said() -> None:
    nodes = [node("gpu1", CHAT), node("gpu2", CHAT, EMBEDDING)]
    models = default_models(nodes)
    assert [(one["model"], one["credentials"]["base_url"]) for one in models] == [
        ("deepseek-r1:1.5b", "http://gpu1:11434"),
        ("nomic-embed-text:latest", "http://gpu2:11434"),
    ]
    (note,) = node_notes(nodes, models)
    assert "deepseek-r1:1.5b is on gpu1 and gpu2: Dify asks gpu1." in note
    assert "community edition cannot spread a model over nodes" in note and "dify_models" in note
    chosen = [{**models[0], "credentials": {"base_url": "http://gpu2:11434/"}}]
    assert "Dify asks gpu2" in node_notes(nodes, chosen)[0]


def test_a_run_that_is_limited_to_one_node_does_not_move_a_model_to_it() -> None:
    nodes = ollama_nodes({"gpu1": unasked(CHAT["name"]), "gpu2": host(CHAT), "web": {}}, ["gpu1", "gpu2"], "web")
    assert default_models(nodes) == []
    (note,) = node_notes(nodes, [])
    assert "deepseek-r1:1.5b (gpu1)" in note and "--limit" in note
    # The other way round nothing is missing, and nobody has seen that there are two.
    nodes = ollama_nodes({"gpu1": host(CHAT), "gpu2": unasked(CHAT["name"]), "web": {}}, ["gpu1", "gpu2"], "web")
    assert len(default_models(nodes)) == 1 and node_notes(nodes, default_models(nodes)) == []


def test_a_limited_run_moves_no_default() -> None:
    first, second = unasked(CHAT["name"]), host(SEEING, EMBEDDING)
    nodes = ollama_nodes({"gpu1": first, "gpu2": second, "web": {}}, ["gpu1", "gpu2"], "web")
    # The one that was not asked may be of either kind.
    assert [(one["model"], one["default"]) for one in default_models(nodes)] == [
        ("qwen3-vl:8b", False),
        ("nomic-embed-text:latest", False),
    ]
    assert "No model that comes after them becomes the default" in node_notes(nodes, default_models(nodes))[0]
    # What comes after the first of its kind does not matter to it.
    nodes = ollama_nodes({"gpu1": first, "gpu2": second, "web": {}}, ["gpu2", "gpu1"], "web")
    assert [one["default"] for one in default_models(nodes)] == [True, True]


def test_an_operators_own_models_are_the_whole_truth() -> None:
    assert node_notes([node("gpu1", {"name": "a:latest"})], [{"model": "b", "credentials": {}}]) == []


def test_what_must_answer_is_where_models_lead_and_the_hosts_own() -> None:
    other = {"model": "gpt", "provider": "openai", "credentials": {"base_url": "https://models.example.com"}}
    gone = {"model": "c", "state": "absent", "credentials": {"base_url": "http://gone:11434"}}
    models = [*default_models([node("gpu1", CHAT, EMBEDDING)]), other, gone, "no model"]
    assert model_servers(models) == ["http://gpu1:11434"]  # type: ignore[arg-type]  # the preflight refuses it
    assert model_servers([], True, "11500") == ["http://host.docker.internal:11500"]
    assert model_servers([]) == []


def test_a_gateway_is_the_one_server_that_dify_has() -> None:
    hosts = {
        "gpu1": host(CHAT, {**SEEING, "context_length": 8192}),
        "cpu1": host({**SEEING, "context_length": 4096}, EMBEDDING),
        "gpu2": unasked("qwen3-vl:8b", "later"),
        "gw": {"ansible_host": "192.0.2.9", "gateway_port": 11500},
        "dify": {},
    }
    nodes = ["gpu2", "gpu1", "cpu1"]
    (found,) = ollama_nodes(hosts, nodes, "dify", ["gw"])
    assert (found["name"], found["url"]) == ("gw", "http://192.0.2.9:11500")
    models = {one["name"]: one for one in found["models"]}
    assert list(models) == ["qwen3-vl:8b", "later:latest", "deepseek-r1:1.5b", "nomic-embed-text:latest"]
    # Whoever of them answers: no more than the weakest can take.
    assert (models["qwen3-vl:8b"]["context_length"], models["qwen3-vl:8b"]["capabilities"][1]) == (4096, "vision")
    assert "capabilities" not in models["later:latest"]
    wanted = default_models([found])
    assert {one["credentials"]["base_url"] for one in wanted} == {found["url"]}
    assert all("api_key" not in one["credentials"] for one in wanted)
    assert not any("cannot spread" in note for note in node_notes([found], wanted))
    assert ollama_nodes(hosts, nodes, "dify") == ollama_nodes(hosts, nodes, "dify", [])


@pytest.mark.parametrize(
    ("bases", "asks"),
    [
        (["http://192.0.2.9:11434"], True),
        (["http://192.0.2.9:11434/", "https://api.example.com", None], True),  # models that are not from these nodes
        (["http://192.0.2.9:11434", "http://192.0.2.21:11434/"], False),
        (["http://host.docker.internal:11434"], False),  # the node on Dify's own host
        (["https://api.example.com"], False),
        ([], False),  # nobody told it anything
    ],
)
def test_whether_dify_asks_the_gateway_for_everything(bases: list[str | None], asks: bool) -> None:
    models = [{"credentials": {"base_url": base} if base else {}} for base in bases]
    hosts: dict[str, Any] = {
        "gpu1": host(CHAT, ansible_host="192.0.2.21"),
        "gw": {"ansible_host": "192.0.2.9"},
        "dify": {"__dify_models": {"models": models} if models else {"skipped": True}},
    }
    assert asks_gateway(hosts, ["gpu1", "dify"], "dify", ["gw"]) is asks


def test_where_a_gateway_is_reached_and_what_it_wants() -> None:
    hosts: dict[str, dict[str, Any]] = {"gpu1": host(CHAT), "gw": {"gateway_key": "s3cret"}, "dify": {}}
    (own,) = ollama_nodes(hosts, ["gpu1"], "gw", ["gw"])
    assert (own["url"], own["key"]) == ("http://host.docker.internal:11434", "s3cret")
    assert default_models([own])[0]["credentials"]["api_key"] == "s3cret"
    hosts["gw"].update(gateway_address="2001:db8::9")
    assert ollama_nodes(hosts, ["gpu1"], "dify", ["gw"])[0]["url"] == "http://[2001:db8::9]:11434"
    hosts["gw"].update(gateway_url="https://models.example.com/")
    assert ollama_nodes(hosts, ["gpu1"], "dify", ["gw"])[0]["url"] == "https://models.example.com"
    # An operator's own list stays, with what is known about those that it names.
    hosts["dify"]["dify_ollama_nodes"] = [{"name": "gw", "url": "http://other:1"}, {"name": "gpu1"}]
    first, second = ollama_nodes(hosts, ["gpu1"], "dify", ["gw"])
    assert (first["url"], first["models"][0]["name"], second["url"]) == (
        "http://other:1",
        CHAT["name"],
        "http://gpu1:11434",
    )


def test_an_ollama_behind_a_gateway_does_not_answer_the_host_s_own_containers() -> None:
    through = {**node("gw", CHAT), "gateway": True}
    assert model_servers(default_models([through]), True, 11434, [through]) == ["http://gw:11434"]
    assert len(model_servers(default_models([through]), True, 11434, [node("gw", CHAT)])) == 2


def test_the_plugin_of_ollama_is_there_for_its_models_only() -> None:
    assert default_plugins(default_models([node("gpu1", CHAT)])) == ["langgenius/ollama"]
    # By the provider, whatever the credentials are: it may be that they are in Dify already.
    assert default_plugins([{"model": "a"}]) == ["langgenius/ollama"]
    assert default_plugins([{"model": "a", "provider": "langgenius/ollama/ollama"}]) == ["langgenius/ollama"]
    others = [
        {"model": "gpt", "provider": "openai"},
        {"model": "a", "state": "absent"},
        {"provider": "me/ollama/ollama"},
    ]
    assert default_plugins([*others, "no model"]) == default_plugins([]) == []  # type: ignore[list-item]  # the preflight refuses it
