"""A plugin daemon that is away for a while: waited for as long as a run is told to, and no longer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from node import (
    DAEMON,
    MODEL,
    NODE,
    OLLAMA,
    PLUGIN,
    Owner,
    finished,
    green,
    on_node,
    play,
    refused,
    says,
    switch,
)

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("nothing_is_lost", "starts_at_once")]


def away(seconds: int) -> None:
    switch("plugin_daemon", f"start=slow:{seconds}")
    on_node(f"docker restart --time 1 {DAEMON}")


@pytest.fixture
def starts_at_once(nothing_is_lost: None) -> Iterator[None]:
    yield
    switch("plugin_daemon", "start=")


@pytest.fixture
def stays_away(owner: Owner, starts_at_once: None) -> Iterator[None]:
    away(600)
    yield
    switch("plugin_daemon", "start=")
    on_node(f"docker restart --time 1 {DAEMON}")
    assert not green(owner, "dify_plugin", plugin=PLUGIN).changed


def test_a_restart_is_waited_for(owner: Owner) -> None:
    away(5)
    assert not green(owner, "dify_plugin", plugin=PLUGIN).changed
    away(5)
    assert not green(owner, "dify_model", model=MODEL, credentials={"base_url": OLLAMA}).changed


def test_the_role_waits_for_it(owner: Owner) -> None:
    away(6)
    assert finished(owner).changed == 0


@pytest.mark.usefixtures("stays_away")
def test_one_that_stays_away(owner: Owner) -> None:
    """Given up after the time that is meant for it, half a minute with plugins; what is wrong is said."""
    new = {"model": "another", "credentials": {"base_url": OLLAMA}}
    refused(owner, "dify_model", "plugin_daemon", deadline=4, **new)
    run = play(owner)
    assert run.status != 0
    says(run.message, NODE, "plugin daemon", "plugin_daemon", "Run site.yml again")
