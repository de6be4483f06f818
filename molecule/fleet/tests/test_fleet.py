"""The finished fleet, looked at from outside: who answers, what was fetched by whom, and what the second run did."""

from __future__ import annotations

import datetime
import json
import pathlib
import re
import sys
from typing import Any, NamedTuple

import pytest
import requests

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "tests" / "scenarios"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "tests" / "scenarios" / "fleet"))

import fleet
from fleet import DIFY, FLEET, GATEWAY, HUB, LONE, OLLAMA, ONLY, SENTENCES, on
from machine import ROOT
from owner import Owner, chat

LOG = ROOT / "build" / "logs" / "fleet-runs.log"
REPORT = ROOT / "build" / "fleet-report.json"
MODELS = ("speak", "talker", ONLY)
GATEWAY_URL = f"http://llmops-{GATEWAY}:11434"
testinfra_hosts = [f"docker://llmops-{GATEWAY}"]


class Past(NamedTuple):
    """A run as the log has it."""

    first: float
    last: float
    changed: dict[str, int]
    fills: bool  # converge.yml, which others are not


def runs() -> list[Past]:
    found: list[Past] = []
    for text in re.split(r"(?m)^(?=.*\| PLAY RECAP)", LOG.read_text(errors="replace")):
        recap, _newline, following = text.partition("PLAY [") if "PLAY RECAP" in text else ("", "", text)
        if found and recap:
            counts = re.findall(r"\| (\S+)\s+: ok=\d+\s+changed=(\d+)", recap)
            found[-1] = found[-1]._replace(last=moments(recap)[0], changed={host: int(n) for host, n in counts})
        if moments(following):
            found.append(Past(moments(following)[0], 0.0, {}, "PLAY [Fill the mirror" in text))
    return [one for one in found if one.changed and one.fills]


def moments(text: str) -> list[float]:
    found = re.findall(r"(?m)^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),(\d{3}) p=\d+ ", text)
    return [datetime.datetime.fromisoformat(".".join(one)).timestamp() for one in found]


@pytest.fixture(scope="module")
def owner() -> Owner:
    return Owner(FLEET.of(DIFY)).sign_in()


# -- what was fetched, and what a second run does -------------------------------------


def test_a_second_run_changes_nothing_and_fetches_nothing() -> None:
    _first, *_others, last = runs()
    assert set(last.changed) >= {HUB, DIFY, *OLLAMA}
    assert not any(last.changed.values()), last.changed
    assert fleet.fetched(last.first, last.last) == dict.fromkeys((HUB, DIFY, *OLLAMA), 0)


def test_the_mirror_alone_has_fetched_and_each_thing_once() -> None:
    first = runs()[0]
    found = fleet.fetched(first.first, first.last)
    assert found.pop(HUB) > 50_000_000
    assert found == dict.fromkeys((DIFY, *OLLAMA), 0)
    assert fleet.twice(HUB, first.first, first.last) == []


# -- who answers ------------------------------------------------------------------------


def test_every_node_answers_with_its_own_sentence() -> None:
    fleet.wait_until_all_answer(20)


def test_a_model_is_asked_where_it_is() -> None:
    assert {fleet.answer(ONLY) for _number in range(5)} == {(LONE, "Only one node has this.")}
    assert fleet.answer(f"{ONLY}:latest")[0] == LONE


def test_a_chat_goes_through_dify_its_plugin_and_the_gateway_to_a_node(owner: Owner) -> None:
    key = on(DIFY, "cat /opt/dify/.llmops-probe.key")
    said = [chat(owner.url, key, streaming=bool(number % 2)) for number in range(8)]
    assert set(said) <= set(SENTENCES.values()), said
    assert len(set(said)) > 1, f"all eight chats went to one node: {said[0]}"


def test_dify_has_one_entry_for_a_model_and_one_address(owner: Owner) -> None:
    assert {name.removesuffix(":latest") for name in owner.models()} == set(MODELS)
    for model in owner.models():
        stored = owner.credentials(model)
        assert stored["credentials"]["base_url"] == GATEWAY_URL
        assert len(stored["available_credentials"]) == 1


def test_an_unknown_model_is_answered_as_ollama_does() -> None:
    got = fleet.ask("nowhere:7b")
    assert (got.status_code, got.json()) == (404, {"error": "model 'nowhere:7b' not found"})
    assert got.headers["Content-Type"].startswith("application/json")


@pytest.mark.parametrize("size", [100, 15_000, 200_000])
def test_a_long_question_finds_its_way(size: int) -> None:
    prompt = "Hello " * (size // 6)
    body = {"model": ONLY, "stream": False, "raw": True, "options": {"num_predict": 1, "num_ctx": 64}, "prompt": prompt}
    for keys in (list(body), list(reversed(body))):
        text = json.dumps({key: body[key] for key in keys})
        got = requests.post(f"{fleet.gateway()}/api/generate", data=text, timeout=60)
        assert (got.status_code, got.headers.get("X-Node")) == (200, LONE), (
            f"{keys}: {got.status_code} {got.text[:300]}"
        )


@pytest.mark.parametrize("path", ["pull", "push", "create", "copy", "delete"])
def test_nobody_changes_a_nodes_models_through_it(path: str) -> None:
    method = "DELETE" if path == "delete" else "POST"
    got = requests.request(method, f"{fleet.gateway()}/api/{path}", json={"model": ONLY}, timeout=30)
    assert got.status_code == 403
    assert got.json()["error"]


def test_what_it_lists_is_what_all_nodes_have() -> None:
    listed = requests.get(f"{fleet.gateway()}/api/tags", timeout=30).json()["models"]
    assert {one["name"] for one in listed} >= {f"{model}:latest" for model in MODELS}


# -- whom it lets in ----------------------------------------------------------------------


def gets_in(asker: str, host: str) -> bool:
    script = f"import urllib.request as r; r.urlopen('http://llmops-{host}:11434/api/version', timeout=5)"
    said = FLEET.of(asker).on(f'python3 -c "{script}" 2>&1 || true')
    assert not said or "refused" in said or "timed out" in said or "403" in said, said
    return not said


def test_who_may_ask_whom() -> None:
    assert gets_in(DIFY, GATEWAY)
    for host in (GATEWAY, *OLLAMA):
        assert not gets_in("upstream", host), f"{host} lets a stranger in"
    for node in OLLAMA:
        assert gets_in(GATEWAY, node)
        assert not gets_in(DIFY, node), f"{node} lets Dify's host in beside the gateway"


def test_statistics_are_for_its_own_host(host: Any) -> None:
    port = json.loads(host.file("/etc/haproxy/llmops/settings.json").content_string)["stats_port"]
    assert host.socket(f"tcp://127.0.0.1:{port}").is_listening
    assert not host.socket(f"tcp://0.0.0.0:{port}").is_listening
    for path in ("/;csv", "/metrics"):
        page = host.check_output(
            f"python3 -c \"import urllib.request as r; print(r.urlopen('http://127.0.0.1:{port}{path}').read().decode())\""
        )
        for node in OLLAMA:
            assert node in page, f"{path} does not name {node}"


# -- what is said of it ---------------------------------------------------------------------


def test_the_table_of_verify() -> None:
    rows = {row["node"]: row for row in json.loads(REPORT.read_text(encoding="utf-8"))["nodes"]}
    assert set(rows) >= set(OLLAMA)
    for node in OLLAMA:
        row = rows[node]
        assert row["kind"] == node[1:4], row
        assert ("NVIDIA" in str(row["gpu"])) is (row["kind"] == "gpu"), row
        assert row["version"] == fleet.OLD
        assert {name.removesuffix(":latest") for name in row["models"]} == {"speak", "talker"} | (
            {ONLY} if node == LONE else set()
        )
        assert row["gateway"] == "ready"
        assert row["dify"] is True
