"""A fleet in service gets its gateway: Dify asks the nodes until it is told, and nobody who chats notices."""

from __future__ import annotations

import copy
import json
import pathlib
import subprocess
import threading
from collections.abc import Callable, Iterator

import fleet
import pytest
import yaml
from fleet import DIFY, FLEET, GATEWAY, OLLAMA, WRITTEN, Fleet, finished, finished_at, on
from machine import ROOT
from owner import Owner, chat

pytestmark = pytest.mark.long

GATEWAY_URL = f"http://llmops-{GATEWAY}:11434"
DIRECT = OLLAMA[0]
LOAD = pathlib.Path(__file__).with_name("load.py")


@pytest.fixture(scope="module")
def owner(current: str) -> Iterator[Owner]:
    """Of a Dify that asks nodes, each model at the first one that has it."""
    written = copy.deepcopy(WRITTEN)
    del written["children"]["scenario"]["children"]["gateway"]
    written["vars"]["ollama_allow"] = [on(GATEWAY, f"getent hosts llmops-{DIFY}").split()[0]]
    inventory = (
        ROOT / "build" / "fleet" / "without-gateway.yml"
    )  # as deep as the scenario's, which names files from there
    inventory.parent.mkdir(parents=True, exist_ok=True)
    inventory.write_text(yaml.safe_dump({"all": written}, sort_keys=False), encoding="utf-8")
    try:
        finished_at(Fleet(DIFY, "fleet", inventory), ollama_version=current)
        yield Owner(FLEET.of(DIFY)).sign_in()
    finally:
        finished(ollama_version=current)


class People:
    """So many at a time, each with one question after the other, for as long as the `with` lasts."""

    def __init__(self, ask: Callable[[], str], number: int) -> None:
        self.ask = ask
        self.answers: list[str] = []
        self.troubles: list[str] = []
        self.going = threading.Event()
        self.threads = [threading.Thread(target=self._chat, daemon=True) for _number in range(number)]

    def __enter__(self) -> People:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self.going.set()
        for thread in self.threads:
            thread.join()

    def _chat(self) -> None:
        while not self.going.is_set():
            try:
                self.answers.append(self.ask())
            except Exception as problem:  # whatever it is, somebody has seen it
                self.troubles.append(str(problem))


def bases(owner: Owner) -> set[str]:
    return {owner.credentials(model)["credentials"]["base_url"] for model in owner.models()}


def gets_in(node: str) -> bool:
    return on(DIFY, f"timeout 5 bash -c '</dev/tcp/llmops-{node}/11434' 2>/dev/null && echo in || true") == "in"


def test_nobody_notices(current: str, owner: Owner) -> None:
    assert GATEWAY_URL not in bases(owner)
    assert all(map(gets_in, OLLAMA))
    key = on(DIFY, "cat /opt/dify/.llmops-probe.key")
    # As a long answer that Dify began to read before it was told.
    command = ["docker", "exec", "-i", f"llmops-{DIFY}", "python3", "-", f"http://llmops-{DIRECT}:11434", "talker"]
    with LOAD.open("rb") as program:
        reading = subprocess.Popen(
            [*command, "--streams=1", "--calls=1", "--predict=16000"], stdin=program, stdout=subprocess.PIPE, text=True
        )
    with People(lambda: chat(owner.url, key, streaming=True), 2) as people:
        finished(ollama_version=current)
    assert people.troubles == []
    assert len(people.answers) > 10
    told = json.loads(reading.communicate(timeout=600)[0])
    assert told["outcomes"]["finished"] == 1, told
    assert bases(owner) == {GATEWAY_URL}
    assert not any(map(gets_in, OLLAMA))


def test_the_next_run_has_nothing_to_do(current: str, owner: Owner) -> None:
    assert fleet.changed(finished(ollama_version=current)) == {}
