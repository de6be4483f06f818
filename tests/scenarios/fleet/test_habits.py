"""--check, --limit, --tags and a host that is down do to a fleet what people expect."""

from __future__ import annotations

import fleet
import pytest
from fleet import DIFY, GATEWAY, NEW, OLD, OLLAMA, finished

pytestmark = pytest.mark.long

ONE = "fcpu2"
OTHERS = tuple(node for node in OLLAMA if node != ONE)


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("same", [True, False], ids=["same-version", "other-version"])
def test_check_changes_nothing_and_says_what_would(current: str, same: bool) -> None:
    run = finished("--check", ollama_version=current if same else OLD if current == NEW else NEW)
    assert set(fleet.changed(run)) == (set() if same else set(OLLAMA))


def test_limit_touches_this_node_alone_and_the_gateway_has_it_back(current: str) -> None:
    before = {node: fleet.server(node) for node in OLLAMA}
    try:
        run = finished(f"--limit={ONE}", ollama_version=current, ollama_keep_alive="7m")
        assert set(fleet.recap(run)) == {ONE}
        after = {node: fleet.server(node) for node in OLLAMA}
        assert {node for node in OLLAMA if after[node] != before[node]} == {ONE}
        fleet.wait_until_all_answer(20)
    finally:
        finished(f"--limit={ONE}", ollama_version=current)


def test_tags_do_their_part_alone(current: str) -> None:
    before = fleet.state()
    run = finished("--tags=gateway", ollama_version=current, gateway_max_queue=50)
    try:
        assert set(fleet.changed(run)) == {GATEWAY}
        after = fleet.state()
        assert {what for what in before if after[what] != before[what]} == {f"{GATEWAY}: gateway"}
        fleet.wait_until_all_answer(20)
    finally:
        finished("--tags=gateway", ollama_version=current)


def test_a_host_that_is_down_is_left_out_and_said(current: str) -> None:
    with fleet.off(ONE):
        run = finished(ollama_version=current, stack_skip_unreachable=True)
        assert f"{ONE} cannot be reached and is left out" in run.output
        assert fleet.answering() == set(OTHERS)
        assert fleet.recap(run)[DIFY]["failed"] == 0
