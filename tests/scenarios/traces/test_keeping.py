"""While nothing takes the spans chats go on, and when something does again all of them arrive."""

from __future__ import annotations

import pytest
from node import COLLECTOR, NODE, Phoenix, ask, chats, on_node, says, until
from states import be, verified

pytestmark = pytest.mark.long


@pytest.fixture(scope="module", autouse=True)
def phoenix() -> None:
    be("phoenix")


def test_a_collector_that_is_down(url: str, key: str) -> None:
    """The spans wait in the processes that made them."""
    spans = Phoenix()
    on_node(f"docker stop {COLLECTOR}")
    try:
        chats(url, key, 4)
        run = verified()
    finally:
        on_node(f"docker start {COLLECTOR}")
    assert run.status != 0
    says(run.message, NODE, "otel_collector", f"docker (start|logs) {COLLECTOR}")
    spans.arrived(4)


def test_a_backend_that_is_down(url: str, key: str) -> None:
    """The spans wait on the collector's disk; that it is killed meanwhile does not matter."""
    spans = Phoenix()
    on_node("docker stop dify-phoenix-1")
    try:
        chats(url, key, 3)
        run = verified()
        on_node(f"docker kill {COLLECTOR} && docker start {COLLECTOR}")
    finally:
        on_node("docker start dify-phoenix-1")
    assert run.status != 0
    says(run.message, NODE, "phoenix", "docker (start|logs) dify-phoenix-1")
    spans.arrived(3, patience=90)


def test_a_graceful_stop(url: str, key: str) -> None:
    """What the processes hold is sent before they go."""
    spans = Phoenix()
    chats(url, key, 3)
    on_node("docker restart dify-api-1 dify-worker-1 && docker exec dify-nginx-1 nginx -s reload")
    spans.arrived(3)
    until(lambda: not ask(url, key).error, "the api")
