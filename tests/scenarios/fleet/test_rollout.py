"""A new version on a fleet in use: twenty streams at a time through the gateway, and none of them notices anything."""

from __future__ import annotations

import re
from collections.abc import Iterator

import fleet
import pytest
from fleet import BROKEN, CANARIES, NEW, OLD, OLLAMA, ONLY, complaints, finished, play, recap
from load import Load

# Twenty streams are all that two cores can do, and another chain of stages would have to share them.
pytestmark = pytest.mark.long

STREAMS = 20
MOVED = "fcpu1"


@pytest.fixture(scope="module")
def people(current: str) -> Iterator[Load]:
    """They are there all the time, whatever becomes of the rollout."""
    if current != OLD:
        finished()
    with Load(fleet.gateway(), "talker", streams=STREAMS, predict=100) as load:
        yield load
    assert load.total.lost == 0, load.total.told()
    assert load.total.finished > 2 * STREAMS, load.total.told()


def none_lost(people: Load) -> None:
    assert people.total.lost == 0, people.total.told()


def test_a_canary_that_does_not_start_stops_the_rollout(people: Load) -> None:
    before = {node: fleet.server(node) for node in OLLAMA if node not in CANARIES}
    run = play(ollama_version=BROKEN)
    assert run.status != 0
    for word in (*CANARIES, BROKEN, "told not to start"):  # the server's own last words
        assert word in complaints(run), complaints(run)
    for node in before:
        assert node in complaints(run), f"{node} was not reached, and is not named: {complaints(run)}"
    assert fleet.versions() == dict.fromkeys(OLLAMA, OLD)
    assert {node: fleet.server(node) for node in before} == before
    fleet.wait_until_all_answer(20)  # the old version is back, and back in service
    none_lost(people)


def test_the_next_run_takes_the_fleet_to_a_good_version(people: Load) -> None:
    finished(ollama_version=NEW)
    assert fleet.versions() == dict.fromkeys(OLLAMA, NEW)
    fleet.wait_until_all_answer(20)
    none_lost(people)


def test_a_node_that_is_to_move_and_does_not_start_serves_where_it_was(people: Load) -> None:
    run = play("site.yml", f"--limit={MOVED}", ollama_version=BROKEN, ollama_port=11440)
    assert run.status != 0
    assert "told not to start" in complaints(run) and "has it in service" in complaints(run), complaints(run)
    assert fleet.version(MOVED) == NEW
    fleet.wait_until_all_answer(20)
    none_lost(people)


def test_a_node_moves_to_another_port_and_back(people: Load) -> None:
    """At the new one nobody listens before: that is no reason to cut what runs at the old one."""
    for port in (11440, 11434):
        run = finished(f"--limit={MOVED}", ollama_version=NEW, ollama_port=port)
        assert recap(run)[MOVED]["changed"]
        fleet.wait_until_all_answer(20)
        none_lost(people)


def test_what_a_node_lacks_is_fetched_while_it_serves(people: Load) -> None:
    run = finished(f"--limit={MOVED}", ollama_version=OLD, ollama_models=["speak", "talker", ONLY])
    fetched, drained, proved = (
        re.search(rf"TASK \[.*{task}[^\n]*\n(\w+): \[{MOVED}\b", run.output)
        for task in ("Pull what is missing while", "Have no new calls come here", "Pull what is missing and prove")
    )
    assert fetched and drained and proved, run.output[-6000:]
    assert fetched.start() < drained.start()
    assert (fetched.group(1), proved.group(1)) == ("changed", "ok")
    finished(f"--limit={MOVED}", ollama_version=NEW)
    fleet.wait_until_all_answer(20)
    none_lost(people)
