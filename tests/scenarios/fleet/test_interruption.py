"""A rollout that is killed in its second batch: nobody at the gateway notices, and the next run goes on from there."""

from __future__ import annotations

import fleet
import pytest
from fleet import CANARIES, NEW, OLD, OLLAMA, finished, kill_when
from load import Load

pytestmark = pytest.mark.long

SECOND, UNTOUCHED = "fgpu2", "fcpu2"  # the hosts of the second batch and of the third


def test_killed_in_the_second_batch(current: str) -> None:
    wanted = OLD if current == NEW else NEW
    before = fleet.server(UNTOUCHED)
    with Load(fleet.gateway(), "talker", streams=20, predict=100) as load:
        # Its server is stopped just then: it is drained, and who would put it back is dead.
        kill_when("Batch 2 of 3", "Start | Start the server", delay=1, ollama_version=wanted)
        assert {node: fleet.version(node) for node in CANARIES} == dict.fromkeys(CANARIES, wanted)
        assert fleet.server(UNTOUCHED) == before
        assert fleet.answering() >= {*CANARIES, UNTOUCHED}

        finished(ollama_version=wanted)
        assert fleet.versions() == dict.fromkeys(OLLAMA, wanted)
        fleet.wait_until_all_answer()
    assert load.total.lost == 0, load.total.told()
    again = finished(ollama_version=wanted)
    assert not fleet.changed(again)
