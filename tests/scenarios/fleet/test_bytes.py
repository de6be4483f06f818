"""One download for any number of nodes: what the mirror fetches does not grow with them."""

from __future__ import annotations

import time

import pytest
from fleet import NEW, fetched, finished_at, version
from hosts import hosts, world

pytestmark = pytest.mark.long

HUB = "fbytes0"
SIZES = (1, 2, 4)
MODEL = "bulky"  # 150 MiB


def fetched_by(number: int) -> int:
    """Bytes from outside for a mirror and so many nodes, all of them bare, none of the nodes with another way out."""
    nodes = [f"fbytes{one}" for one in range(1, number + 1)]
    groups = {"mirror": [HUB], "ollama": nodes}
    with hosts(groups, ollama_version=NEW, ollama_models=[MODEL]) as fleet:
        world("cut", *nodes, f"--door={HUB}")
        begun = time.time()
        finished_at(fleet, playbook="playbooks/mirror.yml")
        finished_at(fleet)
        assert {version(node) for node in nodes} == {NEW}
        return fetched(begun, nodes=(HUB,))[HUB]


def test_the_same_for_one_two_and_four_nodes() -> None:
    total = {number: fetched_by(number) for number in SIZES}
    assert min(total.values()) > 150 * 1024 * 1024, total
    assert max(total.values()) <= 1.02 * min(total.values()), total
