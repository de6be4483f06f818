"""The node of Molecule's scenario upgrade, what its Dify is, and what would tell that something of it is lost."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import requests
from machine import ROOT, Machine, Run

__all__ = ["HOME", "MACHINE", "ROOT", "Run", "on_node"]

# Another node that has the same variables will do, too.
MACHINE = Machine(os.environ.get("LLMOPS_NODE", "up1"), "upgrade")
HOME = "/opt/dify"
# The end of what a run says that has taken an upgrade back.
BACK = r"Dify {} serves again with its data as it was before; that was proved"


def on_node(script: str, check: bool = True) -> str:
    return MACHINE.on(script, check)


def upgrade(version: str, *options: str, **variables: Any) -> Run:
    """What an operator does: another version, and site.yml."""
    return MACHINE.play("site.yml", *options, dify_version=version, **variables)


def upgraded(version: str, **variables: Any) -> Run:
    run = upgrade(version, **variables)
    assert run.status == 0, f"{run.message}\n{run.output[-4000:]}"
    assert current() == version
    return run


def refused(version: str, *words: str, **variables: Any) -> str:
    """The run fails and says these words (regular expressions) in their order; the message."""
    run = upgrade(version, **variables)
    assert run.status != 0, run.output[-4000:]
    assert re.search(".*".join(words), run.message, re.IGNORECASE | re.DOTALL), run.message or run.output[-6000:]
    return run.message


def fell_back(version: str, *words: str, log: str, **variables: Any) -> str:
    """An upgrade is begun, fails in these words, and takes itself back; evidence of this very run is there."""
    past, old = evidences(), current()
    message = refused(version, *words, BACK.format(re.escape(old)), **variables)
    (folder,) = evidences() - past
    assert f"Logs and journal are in {folder}" in message, message
    there = on_node(f"find {folder} -type f -size +0 -printf '%f '").split()
    assert {"journal.json", "steps.log", log} <= set(there), there
    told = json.loads(on_node(f"cat {folder}/journal.json"))
    assert (told["from"], told["to"], told["phase"]) == (old, version, "rolled_back")
    return message


def roll_back(version: str) -> Run:
    """The release before the last upgrade, without what was written since."""
    return MACHINE.play("playbooks/rollback.yml", dify_version=version, dify_rollback_accept_loss=True)


def url() -> str:
    """Port 80 of the node, as this machine reaches it."""
    command = ["docker", "port", MACHINE.container, "80/tcp"]
    return "http://" + subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()[0]


def current() -> str:
    return on_node(f"basename $(readlink {HOME}/current)")


def serving() -> str:
    """The release that answers, as itself says."""
    return requests.get(f"{url()}/console/api/setup", timeout=30).headers.get("X-Version", "")


def secret(name: str) -> str:
    return str(json.loads(on_node(f"cat {HOME}/secrets.json"))[name])


def containers() -> dict[str, list[str]]:
    """Every container of the project: its image, when it started, and its state."""
    form = "{{.Name}} {{.Config.Image}} {{.State.StartedAt}} {{.State.Status}}"
    script = f"docker ps -aq --filter label=com.docker.compose.project=dify | xargs -r docker inspect --format '{form}'"
    return {line.split()[0].strip("/"): line.split()[1:] for line in on_node(script).splitlines()}


def database() -> str:
    """The container of PostgreSQL; its service was called db before 1.10."""
    form = '{{.Label "com.docker.compose.service"}} {{.Names}}'
    script = f"docker ps --filter label=com.docker.compose.project --format '{form}'"
    return next(line.split()[1] for line in on_node(script).splitlines() if line.split()[0] in ("db", "db_postgres"))


def sql(statement: str, name: str = "dify", user: str = "postgres") -> list[list[str]]:
    psql = ["psql", "-XqAt", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-U", user, "-d", name]
    done = subprocess.run(
        ["docker", "exec", "-i", MACHINE.container, "docker", "exec", "-i", database(), *psql],
        input=statement,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return [line.split("\t") for line in done.stdout.splitlines()]


def head() -> str:
    return sql("SELECT version_num FROM alembic_version")[0][0]


def databases() -> set[str]:
    """All of them: a copy that was forgotten is one more."""
    return {row[0] for row in sql("SELECT datname FROM pg_database WHERE NOT datistemplate", "postgres")}


def switch(service: str, *settings: str) -> None:
    """A fault of a stand-in (world.py switch)."""
    command = [sys.executable, str(ROOT / "tests" / "world" / "world.py"), "switch", MACHINE.name, service, *settings]
    subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=60)


@contextlib.contextmanager
def told(service: str, setting: str) -> Iterator[None]:
    """A fault for as long as a test asks."""
    switch(service, setting)
    try:
        yield
    finally:
        switch(service, setting.partition("=")[0] + "=")


@contextlib.contextmanager
def disk_that_fills() -> Iterator[str]:
    """A small disk that is full as soon as a backup has begun on it."""
    small = "/mnt/small"
    on_node(f"mkdir -p {small} && mount -t tmpfs -o size=64m tmpfs {small}")
    script = f"until ls -d {small}/*.partial; do sleep 0.02; done; cat /dev/zero > {small}/full"
    command = ["docker", "exec", MACHINE.container, "sh", "-c", script]
    filler = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield small
    finally:
        filler.kill()
        on_node(f"umount {small} && rmdir {small}")


def evidences() -> set[str]:
    """The folder of every upgrade that was begun."""
    return set(on_node(f"ls -1d {HOME}/upgrades/* 2>/dev/null || true").split())


def evidence() -> str:
    """The folder of the newest upgrade."""
    return max(evidences())
