"""What the inventory says about traces, by the name of a backend, and the way from one to another."""

from __future__ import annotations

import pathlib
from typing import Any

from node import MACHINE, ROOT, Run, on_node

KEY = "key-of-the-tests-0123456789abcdef"
LIMIT = 12  # characters of content
PLUGINS = [str(ROOT / "examples" / "monitoring" / "cost-log"), str(pathlib.Path(__file__).with_name("raising"))]
TRACELOOP: dict[str, Any] = {"traceloop_base_url": "http://upstream/otlp", "traceloop_api_key": KEY}
STATES: dict[str, dict[str, Any]] = {
    "phoenix": {},  # what the inventory of the scenario says
    "traceloop": {
        **TRACELOOP,
        "traceloop_backend": "traceloop",
        "traceloop_trace_content": True,
        "traceloop_content_limit": LIMIT,
        "traceloop_plugins": PLUGINS,
    },
    "direct": {**TRACELOOP, "traceloop_backend": "traceloop", "traceloop_collector": False},
    # Metrics go out once a minute, which is long for a test.
    "lgtm": {"traceloop_backend": "lgtm", "traceloop_plugin_env": {"LLMOPS_TRACELOOP_METRICS_INTERVAL_MS": "2000"}},
    "none": {"traceloop_backend": "none"},
}


class State:
    """The one that the node is in; empty when nobody knows."""

    name = ""


def play(*options: str, playbook: str = "site.yml", **variables: Any) -> Run:
    """The part of a playbook that is about Dify, told at -vvv: the backend's key may not be in what it says."""
    run = MACHINE.play(playbook, "--tags=traceloop,dify", "-vvv", *options, **variables)
    assert KEY not in run.output, "the backend's key is in the log of the run"
    return run


def announced(name: str) -> Run:
    """What a check run says."""
    run = play("--check", "--diff", **STATES[name])
    assert run.status == 0, run.output[-8000:]
    return run


def change(name: str) -> Run:
    """Runs site.yml with what this state wants."""
    State.name = ""
    run = play(**STATES[name])
    assert run.status == 0, run.output[-8000:]
    State.name = name
    return run


def be(name: str) -> None:
    if not State.name and on_node("docker ps --quiet --filter name=dify-phoenix-1"):
        State.name = "phoenix"  # as Molecule leaves it; no other state has this container
    if State.name != name:
        change(name)


def verified() -> Run:
    """playbooks/verify.yml, as the operator of this state would run it."""
    return play(playbook="playbooks/verify.yml", **STATES[State.name])
