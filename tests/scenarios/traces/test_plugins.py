"""At Traceloop, in one run: the spans with their key, content that was asked for, and plugins of the operator."""

from __future__ import annotations

import json

import pytest
from node import Traceloop, chats, files, on_node, until
from states import KEY, LIMIT, announced, change

COST_LOG = "/opt/dify/volumes/app/storage/cost-log.jsonl"


@pytest.fixture(scope="module", autouse=True)
def traceloop() -> None:
    """Announced and untouched, made, and not made again."""
    before = files()
    assert announced("traceloop").changed > 0
    assert files() == before
    assert change("traceloop").changed > 0
    assert change("traceloop").changed == 0


def test_what_arrives(url: str, key: str) -> None:
    """With the key, and with no more of what was said than the inventory allows."""
    spans = Traceloop()
    chats(url, key, 1)
    (span,) = spans.arrived(1)
    for text in ("gen_ai.prompt.0.content", "gen_ai.completion.0.content"):
        assert len(span.attributes[text]) == LIMIT
    assert "marzipan" not in str(span)


def test_the_key_is_the_collectors_alone() -> None:
    inspected = on_node("docker inspect dify-api-1 dify-worker-1; docker exec dify-api-1 env")
    assert KEY not in inspected
    found = on_node(f"grep -rl '{KEY}' /opt /etc /root /tmp 2>/dev/null || true").split()
    assert found == ["/opt/traceloop/collector/collector.env"]
    assert on_node(f"stat --format='%a %U' {found[0]}") == "600 root"


def test_a_plugin_of_the_operator(url: str, key: str) -> None:
    on_node(f"truncate --size=0 {COST_LOG}")
    chats(url, key, 2)
    lines = [json.loads(line) for line in until(lambda: on_node(f"cat {COST_LOG}"), "the cost log").splitlines()]
    assert [line["outcome"] for line in lines] == ["ok", "ok"]
    assert all(line["cost"] > 0 and line["completion_tokens"] > 0 for line in lines)


def test_a_plugin_that_raises(url: str, key: str) -> None:
    """No chat fails; it is said once for each of its hooks, without a word of what was asked."""
    chats(url, key, 2)
    log = on_node("docker logs dify-api-1 2>&1 | grep llmops-monitoring")
    said = [line for line in log.splitlines() if "hook_errors.raising.after_invoke" in line]
    processes = on_node("docker exec dify-api-1 sh -c 'ls /proc | grep -c ^[0-9]'")
    assert 0 < len(said) <= int(processes)
    assert "ValueError" in said[0]
