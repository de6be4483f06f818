"""Upgrades that cannot succeed: each ends with the old release on its own data, and with a run that says why."""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Iterator

import node
import pytest
import registry
import seed as seeds
from node import HOME, on_node
from state import State

OLD, NEW = "1.11.4", "1.12.1"
# (from, to) that cross the two revisions which commit half-way: an index is built outside of the transaction.
EARLY, LATE = ("1.3.1", "1.7.0"), ("1.12.1", "1.14.1")


@dataclasses.dataclass(frozen=True)
class Fault:
    """Something that goes wrong, by the switch of a stand-in or a script on the node, and the words it is told in."""

    name: str
    says: tuple[str, ...]
    switch: tuple[str, str] = ("", "")
    provoke: str = ""
    mend: str = ""
    long: bool = True


MIGRATION = ("migrat", "old release|1.11.4", "evidence|/opt/dify/upgrades/")
FAULTS = [
    Fault("fails silently, exit 0", MIGRATION, ("api", "migration=silent"), long=False),
    Fault("fails loudly, exit 1", MIGRATION, ("api", "migration=loud")),
    Fault("says skipped, did nothing", MIGRATION, ("api", "migration=skip")),
    Fault("says successful, did nothing", MIGRATION, ("api", "migration=lies")),
    Fault("hangs", MIGRATION, ("api", "migration=hang")),
    Fault("is killed in its last revision", MIGRATION, ("api", "migration=kill")),
    Fault("new api never gets healthy", ("api",), ("api", f"{NEW}:api.start=unhealthy"), long=False),
    Fault("new api crashes", ("api",), ("api", f"{NEW}:api.start=crash")),
    Fault("new api answers with 500", ("500|api",), ("api", f"{NEW}:api=500")),
]
# The time limits of a run that is bound to fail, so that it fails within a test's patience.
SOON = {"dify_migration_timeout": 60, "dify_health_deadline": 120}


@pytest.fixture(scope="module", autouse=True)
def old(seed: seeds.Seed) -> None:
    """The node at the release that the upgrades of this file begin at."""
    if node.current() == "0.15.3":
        node.upgraded("1.0.0")
        seeds.add_secret(seed)
    if node.current() != OLD:
        node.upgraded(OLD)


@pytest.fixture
def fault(request: pytest.FixtureRequest) -> Iterator[Fault]:
    told: Fault = request.param
    service, setting = told.switch
    if service:
        node.switch(service, setting)
    if told.provoke:
        on_node(told.provoke)
    yield told
    if service:
        node.switch(service, setting.partition("=")[0] + "=")
    if told.mend:
        on_node(told.mend)


@pytest.mark.parametrize(
    "fault",
    [pytest.param(one, id=one.name, marks=[pytest.mark.long] if one.long else []) for one in FAULTS],
    indirect=True,
)
def test_the_old_release_serves_again(untouched: State, fault: Fault) -> None:
    node.refused(NEW, *fault.says, **SOON)
    assert on_node(f"ls {node.evidence()}")


@pytest.mark.long
def test_done_but_exit_1_is_done(seed: seeds.Seed) -> None:
    """A migration that lost its lock on the way says so and exits 1; what counts is what it did."""
    before = State.now()
    node.switch("api", "migration=late")
    try:
        node.upgraded(NEW)
    finally:
        node.switch("api", "migration=")
    before.is_kept()
    seeds.grown(seeds.load(), NEW)
    back = node.MACHINE.play("playbooks/rollback.yml", dify_version=OLD, dify_rollback_accept_loss=True)
    assert back.status == 0, back.output[-6000:]
    before.is_back(seed)


@pytest.mark.long
def test_a_role_without_ddl_rights(untouched: State) -> None:
    """The database belongs to somebody else: nothing of it can be migrated, and that is found before anything stops."""
    started = node.containers()
    tables = "SELECT format('ALTER TABLE public.%I OWNER TO stranger', tablename) FROM pg_tables"
    node.sql("CREATE ROLE stranger; ALTER ROLE postgres SET role TO ''")
    node.sql(f"{tables} WHERE schemaname = 'public' \\gexec")
    node.sql("CREATE ROLE writer LOGIN PASSWORD 'difyai123456'; GRANT ALL ON ALL TABLES IN SCHEMA public TO writer")
    try:
        node.refused(NEW, "own|right", dify_env={"DB_USERNAME": "writer"}, **SOON)
        assert node.containers() == started
    finally:
        node.sql(
            f"{tables.replace('stranger', 'postgres')} WHERE schemaname = 'public' \\gexec\n"
            "DROP OWNED BY writer; DROP ROLE writer; DROP OWNED BY stranger; DROP ROLE stranger"
        )


@pytest.mark.long
def test_an_image_that_vanished_stops_it_before_anything_else(untouched: State) -> None:
    started = node.containers()
    with registry.without("langgenius/dify-web", "1.12.0"):
        node.refused("1.12.0", "dify-web:1.12.0")
    assert node.containers() == started


@pytest.mark.long
def test_a_disk_that_fills_during_the_backup(untouched: State) -> None:
    started = node.containers()
    small = "/mnt/small"
    on_node(f"mkdir -p {small} && mount -t tmpfs -o size=64m tmpfs {small}")
    # Fills it in the moment in which the backup has begun.
    script = f"until ls -d {small}/*.partial; do sleep 0.02; done; cat /dev/zero > {small}/full"
    filler = subprocess.Popen(["docker", "exec", node.MACHINE.container, "sh", "-c", script])
    try:
        node.refused(NEW, "backup|space|disk", dify_backup_dir=small)
        assert on_node(f"find {small} -name '*.partial'") == ""
        assert node.containers() == started
    finally:
        filler.kill()
        on_node(f"umount {small} && rmdir {small}")


@pytest.mark.long
def test_a_plugin_that_does_not_come_back(untouched: State) -> None:
    node.switch("plugin_daemon", f"{_daemon(NEW)}:plugin=dead")
    try:
        node.refused(NEW, "plugin", **SOON)
    finally:
        node.switch("plugin_daemon", f"{_daemon(NEW)}:plugin=")


def _daemon(release: str) -> str:
    """Its version in a release; the fault is for that one alone."""
    text = on_node(f"grep -o 'dify-plugin-daemon:[^ ]*' {HOME}/releases/{release}/docker-compose.yaml || true")
    return text.splitlines()[0].rpartition(":")[2].removesuffix("-local") if text else "0.5.3"
