# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is let in when, what Docker may start again by itself meanwhile, and which containers an upgrade leaves alone."""

from __future__ import annotations

import http.server
import pathlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils import _dify_upgrade_gate as gate
from ansible_collections.llmops.stack.plugins.module_utils import _dify_upgrade_services as services
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_context import Context, Options, StepError
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_journal import Journal
from ansible_collections.llmops.stack.tests.unit.upgrade_world import (
    NEW,
    OLD,
    FakeDatabase,
    FakeDocker,
    FakeFront,
    FakeProject,
    World,
    made,
)

PLAN = {"from": OLD, "to": NEW, "steps": [{"id": "maintenance"}, {"id": "open"}]}


class Docker(FakeDocker):
    """Knows restart policies, as C(docker update) changes them."""

    def __init__(self, world: World) -> None:
        self.world = world

    def output(self, arguments: list[str], _timeout: float) -> str:
        if arguments[0] == "update":
            self.world.containers[arguments[-1]].restart_policy = arguments[1].partition("=")[2]
        return ""


@pytest.fixture
def world(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> World:
    for name, fake in (("Database", FakeDatabase), ("Front", FakeFront)):
        monkeypatch.setattr(services, name, fake)
    for name in ("await_release", "demand_open"):
        monkeypatch.setattr(services, name, lambda *_unused: None)
    for name in ("_SHOWN", "_LIVED"):
        monkeypatch.setattr(services, name, 0.0)
    return World(tmp_path)


@pytest.fixture
def ctx(world: World) -> Context:
    project: Any = FakeProject(world)
    project.docker = Docker(world)
    journal = Journal.begin(world.home)
    return Context(project, PLAN, Options(drain_seconds=1), journal, world.home, database=FakeDatabase(project))


def policies(world: World, *names: str) -> set[str]:
    return {world.containers[name].restart_policy for name in names}


def through(ctx: Context, world: World) -> None:
    services.close_doors(ctx)
    services.stop_writers(ctx)
    services.stores_of_new(ctx)
    world.databases["dify"] = "new"
    services.start_new(ctx)
    services.start_workers(ctx)


def test_docker_starts_nothing_again_until_the_doors_are_open(ctx: Context, world: World) -> None:
    through(ctx, world)
    services.demand_closed(ctx)
    assert policies(world, "nginx", "worker", "worker_beat") == {"no"}
    assert policies(world, "api", "redis") == {"always"}
    services.open_doors(ctx)
    assert not world.closed
    assert policies(world, *world.containers) == {"always"}


def test_on_the_way_back_nginx_gets_its_policy_again(ctx: Context, world: World) -> None:
    services.close_doors(ctx)
    assert policies(world, "nginx") == {"no"}
    services.back_to_old(ctx)
    assert policies(world, "nginx") == {"always"}
    assert world.is_all_of(OLD)


def test_an_nginx_that_was_started_anew_is_noticed(ctx: Context, world: World) -> None:
    through(ctx, world)
    world.closed = False
    with pytest.raises(StepError, match="did not stay closed"):
        services.demand_closed(ctx)


def test_a_change_without_doors_asks_for_none(ctx: Context, world: World) -> None:
    ctx.plan = {**PLAN, "steps": [{"id": "handover"}, {"id": "prove"}]}
    services.demand_closed(ctx)
    services.start_workers(ctx)
    assert policies(world, "worker") == {"always"}


def test_tasks_end_before_the_doors_close(ctx: Context, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(given: Any, seconds: int = 0) -> None:
        stopped.append(([one.service for one in given], seconds, world.closed))

    stopped: list[Any] = []
    monkeypatch.setattr(ctx.project, "stop", stop)
    world.containers["worker"].exit_code = 137
    services.close_doors(ctx)
    assert stopped == [(["worker"], 600, False)]
    assert "worker: its tasks did not end" in (pathlib.Path(world.home) / "steps.log").read_text()


@pytest.mark.parametrize("state", ["exited", "restarting"])
def test_a_worker_that_ends_right_away(ctx: Context, world: World, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def up(*_unused: Any, **_more: Any) -> None:
        world.containers["worker"].state = state
        world.containers["worker_beat"] = made("worker_beat", NEW)

    monkeypatch.setattr(ctx.project, "up", up)
    monkeypatch.setattr(services, "last_words", lambda _ctx, service: f"Last words of {service}.")
    with pytest.raises(StepError, match=f"worker of Dify {NEW} does not run") as told:
        services.start_workers(ctx)
    assert told.value.advice == "Last words of worker."


def test_what_no_release_knows_is_left_alone(ctx: Context, world: World) -> None:
    world.containers["certbot"] = made("redis", OLD)
    world.containers["certbot"].service = "certbot"
    services.close_doors(ctx)
    services.stop_writers(ctx)
    services.stores_of_new(ctx)
    assert world.containers["certbot"].running
    assert "db" not in world.containers and "db_postgres" in world.containers


class Nginx(http.server.BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_unused: Any) -> None:
        """Nobody reads it."""


@pytest.fixture
def url() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Nginx) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize(("status", "fine"), [(200, True), (502, True), (503, False)])
def test_open_is_who_lets_in_somebody_without_the_key(
    ctx: Context, url: str, status: int, fine: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Nginx, "status", status)
    monkeypatch.setattr(gate, "_OPENING", 0.0)
    ctx.options.url = url
    if fine:
        gate.demand_open(ctx)
    else:
        with pytest.raises(StepError, match="still lets nobody in"):
            gate.demand_open(ctx)
