"""Upgrades that cannot succeed: each ends with the old release on its own data, and with a run that says why."""

from __future__ import annotations

import dataclasses
import subprocess

import node
import pytest
import registry
import seed as seeds
from node import MIGRATION, on_node
from state import State

OLD, NEW = "1.10.1", "1.12.1"


@dataclasses.dataclass(frozen=True)
class Fault:
    """Something that goes wrong, by the switch of a stand-in, and the words it is told in."""

    name: str
    service: str
    setting: str
    says: tuple[str, ...] = MIGRATION


FAULTS = [
    Fault("fails silently with 0", "api", "migration=silent"),
    Fault("fails loudly with 1", "api", "migration=loud"),
    Fault("says skipped and did nothing", "api", "migration=skip"),
    Fault("says successful and did nothing", "api", "migration=lies"),
    Fault("never ends", "api", "migration=hang"),
    Fault("dies in its last revision", "api", "migration=kill"),
    Fault("new api never listens", "api", f"{NEW}:api.start=unhealthy", ("api",)),
    Fault("new api crashes", "api", f"{NEW}:api.start=crash", ("api",)),
    Fault("new api answers 500", "api", f"{NEW}:api=500", ("api",)),
    Fault("new worker crashes", "api", f"{NEW}:worker.start=crash", ("worker",)),
    Fault("plugins do not come back", "plugin_daemon", "0.5.3:plugin=dead", ("plugin",)),
]
TELLING = (FAULTS[0], FAULTS[6])
# The time limits of a run that is bound to fail.
SOON = {"dify_migration_timeout": 60, "dify_health_deadline": 120}


@pytest.mark.parametrize(
    "fault",
    [
        *(pytest.param(one, id=f"{one.name}, long", marks=[pytest.mark.at(OLD), pytest.mark.long]) for one in FAULTS),
        *(pytest.param(one, id=one.name, marks=[pytest.mark.at("1.0.0"), pytest.mark.short]) for one in TELLING),
    ],
)
def test_the_old_release_serves_again(untouched: State, fault: Fault) -> None:
    with node.told(fault.service, fault.setting):
        node.refused(NEW, *fault.says, **SOON)
    assert on_node(f"ls {node.evidence()}")


@pytest.mark.long
@pytest.mark.at(OLD)
def test_done_but_exit_1_is_done(back: State, seed: seeds.Seed) -> None:
    """A migration that lost its lock on the way says so and exits 1; what counts is what it did."""
    with node.told("api", "migration=late"):
        node.upgraded(NEW)
    back.is_kept()
    seeds.grown(seed, NEW)


@pytest.mark.long
@pytest.mark.at(OLD)
def test_a_role_without_ddl_rights(untouched: State) -> None:
    """Dify may write, but its tables belong to somebody else: found before anything stops."""
    started = node.containers()
    owned = "SELECT format('ALTER TABLE public.%I OWNER TO {}', tablename) FROM pg_tables WHERE schemaname = 'public'"
    node.sql(
        "CREATE ROLE rescue LOGIN SUPERUSER;\n"
        f"{owned.format('rescue')} \\gexec\n"
        "GRANT ALL ON ALL TABLES IN SCHEMA public TO postgres; ALTER ROLE postgres NOSUPERUSER;"
    )
    try:
        node.refused(NEW, "own|right", **SOON)
        assert node.containers() == started
    finally:
        node.sql("ALTER ROLE postgres SUPERUSER", user="rescue")
        node.sql(f"{owned.format('postgres')} \\gexec\nDROP OWNED BY rescue; DROP ROLE rescue;")


@pytest.mark.long
@pytest.mark.at(OLD)
def test_an_image_that_vanished_stops_it_before_anything_else(untouched: State) -> None:
    started = node.containers()
    with registry.without("langgenius/dify-web", "1.12.0"):
        node.refused("1.12.0", "dify-web:1.12.0")
    assert node.containers() == started


@pytest.mark.long
@pytest.mark.at(OLD)
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
