"""A run that is killed leaves a node that the next run brings to the end."""

from __future__ import annotations

import pytest
from node import kill_when, on_node, play

pytestmark = pytest.mark.long

COMPOSE = "docker compose --project-directory /opt/dify/current -p dify"


def finishes() -> None:
    run = play()
    assert run.status == 0, run.output[-6000:]
    states = {
        line.split()[0]: line.split()[1]
        for line in on_node(f"{COMPOSE} ps --format '{{{{.Service}}}} {{{{.State}}}}'").splitlines()
    }
    assert {"api", "worker", "web", "db_postgres", "plugin_daemon", "nginx"} <= states.keys()
    assert set(states.values()) == {"running"}
    again = play()
    assert again.status == 0
    assert again.changed == 0, again.output[-6000:]


def test_killed_while_images_are_pulled() -> None:
    secrets = on_node("sha256sum /opt/dify/secrets.json")
    on_node(f"{COMPOSE} down && docker image prune --all --force")
    kill_when("Pull the images", delay=6)
    finishes()
    assert on_node("sha256sum /opt/dify/secrets.json") == secrets


def test_killed_while_containers_come_up() -> None:
    mark = "create table kept (what text); insert into kept values ('still here')"
    sql = f"{COMPOSE} exec -T db_postgres psql -U postgres -d dify -At -c"
    on_node(f'{sql} "{mark}"')
    on_node(f"{COMPOSE} down")
    kill_when("Replace what differs", delay=4)
    finishes()
    assert on_node(f"{sql} 'select what from kept'") == "still here"
    on_node(f"{sql} 'drop table kept'")
