"""A plugin daemon that is away for a while: waited for as long as a run is told to, and no longer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from node import DAEMON, MODEL, OLLAMA, PLUGIN, Owner, eventually, finished, green, on_node, play, refused, says, switch


@pytest.fixture(autouse=True)
def daemon_comes_back(owner: Owner, nothing_is_lost: None) -> Iterator[None]:
    yield
    switch("plugin_daemon", "start=")
    on_node(f"docker restart --time 1 {DAEMON}")
    eventually("docker exec dify-api-1 curl -sf http://plugin_daemon:5002/health/check", 60)
    green(owner, "dify_plugin", plugin=PLUGIN)


def away(seconds: int) -> None:
    switch("plugin_daemon", f"start=slow:{seconds}")
    on_node(f"docker restart --time 1 {DAEMON}")


def test_a_restart_is_waited_for(owner: Owner) -> None:
    away(8)
    assert not green(owner, "dify_plugin", plugin=PLUGIN).changed
    away(8)
    credentials = {"base_url": OLLAMA}
    assert not green(owner, "dify_model", model=MODEL, credentials=credentials, deadline=60).changed


def test_the_role_waits_for_it(owner: Owner) -> None:
    away(10)
    assert finished(owner).changed == 0


def test_one_that_stays_away(owner: Owner) -> None:
    away(120)
    new = {"model": "another", "credentials": {"base_url": OLLAMA}}
    refused(owner, "dify_model", "plugin_daemon", deadline=4, **new)
    run = play(owner, dify_health_deadline=5)
    assert run.status != 0
    says(run.message, "daemon", "plugin_daemon")
