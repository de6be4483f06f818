"""From one backend to the next, in one run each: what is new works, and of what was before nothing is left."""

from __future__ import annotations

import pytest
from node import FILES, MACHINE, MODEL, Phoenix, Traceloop, chats, get, on_node, until
from states import KEY, change

SERVICES = "docker compose -p dify ps --all --format '{{.Service}}'"
PROMETHEUS = (
    "http://$(docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' dify-lgtm-1):9090"
)
# What the role puts into containers and compose files.
OURS = (
    "/opt/traceloop",
    "llmops-monitoring",
    "llmops.stack.monitoring",
    "TRACELOOP_",
    "otel_collector",
    "phoenix:",
    "lgtm:",
)


def services() -> set[str]:
    return set(on_node(SERVICES).split())


@pytest.mark.long
def test_straight_to_the_backend(url: str, key: str) -> None:
    spans = Traceloop()
    change("direct")
    assert not services() & {"otel_collector", "phoenix", "lgtm"}
    assert on_node(f"stat --format='%a %U' {FILES}/dify.env") == "600 root"
    assert KEY in on_node(f"cat {FILES}/dify.env")
    chats(url, key, 2)
    spans.arrived(2)


def test_metrics_in_a_prometheus(url: str, key: str) -> None:
    change("lgtm")
    assert services() >= {"otel_collector", "lgtm"}
    assert not services() & {"phoenix"}
    chats(url, key, 3)
    counted = "sum(gen_ai_client_operation_duration_seconds_count%7Bgen_ai_request_model%3D%22{MODEL}%22%7D)"
    address = on_node(f"echo {PROMETHEUS}")

    def count() -> bool:
        found = get(f"{address}/api/v1/query?query={counted.format(MODEL=MODEL)}")["data"]["result"]
        return bool(found) and float(found[0]["value"][1]) >= 3

    until(count, "the metrics of three chats", 90)


def test_none(url: str, key: str) -> None:
    """As if the role had never been: containers, mounts, settings, labels and files."""
    assert change("none").changed > 0
    assert not services() & {"otel_collector", "phoenix", "lgtm"}
    assert on_node(f"ls -d {FILES} 2>&1 || true").endswith("No such file or directory")
    seen = on_node("docker ps -aq | xargs docker inspect; cat /opt/dify/current/docker-compose.override.yaml")
    assert [word for word in OURS if word in seen] == []
    chats(url, key, 1)
    without = MACHINE.play(
        "site.yml", "--check", "--tags=dify", dify_compose_fragments=[], dify_traces={}, traceloop_backend="none"
    )
    assert without.status == 0, without.output[-6000:]
    assert without.changed == 0, without.output[-6000:]


def test_and_back(url: str, key: str) -> None:
    change("phoenix")
    assert services() >= {"otel_collector", "phoenix"}
    spans = Phoenix()
    chats(url, key, 1)
    spans.arrived(1)
