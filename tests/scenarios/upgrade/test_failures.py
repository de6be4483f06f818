"""Upgrades that cannot succeed: each ends with the old release on its own data, and with a run that says why."""

from __future__ import annotations

import dataclasses
import re

import node
import pytest
import registry
import seed as seeds
from node import on_node
from state import State

OLD, NEW = "1.10.1", "1.12.1"


@dataclasses.dataclass(frozen=True)
class Fault:
    """Something that goes wrong, by the switch of a stand-in, the words it is told in, and the log that shows it."""

    name: str
    service: str
    setting: str  # {0} is the release that is upgraded to
    says: str
    log: str = "migration.log"


MIGRATION = "failed at migrate .*The migration of the database to Dify {0}"
FAULTS = [
    Fault("fails silently with 0", "api", "migration=silent", f"{MIGRATION} .*exit code 0, database at head"),
    Fault("fails loudly with 1", "api", "migration=loud", f"{MIGRATION} .*exit code 1, database at head"),
    Fault("says skipped and did nothing", "api", "migration=skip", f"{MIGRATION} did nothing and said"),
    Fault("says successful and did nothing", "api", "migration=lies", f"{MIGRATION} says that it is done, and"),
    Fault("never ends", "api", "migration=hang", f"{MIGRATION} was not done after 60 s"),
    Fault("dies in its last revision", "api", "migration=kill", f"{MIGRATION} (was killed|broke off)"),
    Fault(
        "new api never listens",
        "api",
        "{0}:api.start=unhealthy",
        "failed at start .*The API of Dify {0} did not answer within",  # its own log says nothing
    ),
    Fault("new api crashes", "api", "{0}:api.start=crash", "failed at start .*starts and ends again", "new-api.log"),
    Fault("new api answers 500", "api", "{0}:api=500", "failed at (start|prove) .*500", "new-api.log"),
    Fault(
        "new worker crashes",
        "api",
        "{0}:worker.start=crash",
        "failed at (start|prove) .*container of worker of Dify {0} does not run",
        "new-worker.log",
    ),
    Fault(
        "plugins do not come back",
        "plugin_daemon",
        "0.5.3:plugin=dead",
        "failed at (start|prove) .*plugin",
        "new-plugin_daemon.log",
    ),
]
SILENT, NEVER = FAULTS[0], FAULTS[6]
# The time limits of a run that is bound to fail.
SOON = {"dify_migration_timeout": 60, "dify_health_deadline": 120}


def serves_again(fault: Fault, new: str, **limits: int) -> None:
    with node.told(fault.service, fault.setting.format(new)):
        node.fell_back(new, fault.says.format(re.escape(new)), log=fault.log, **{**SOON, **limits})


@pytest.mark.long
@pytest.mark.at(OLD)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: str(fault.name))
def test_the_old_release_serves_again(untouched: State, fault: Fault) -> None:
    serves_again(fault, NEW)


@pytest.mark.short
@pytest.mark.at("1.0.0")
@pytest.mark.parametrize("fault", [SILENT, NEVER], ids=lambda fault: str(fault.name))
def test_the_oldest_plugin_release_serves_again(untouched: State, fault: Fault) -> None:
    serves_again(fault, NEW, dify_health_deadline=45)


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
        node.refused(NEW, "role postgres does not own .*ALTER TABLE", **SOON)
        assert node.containers() == started
    finally:
        node.sql("ALTER ROLE postgres SUPERUSER", user="rescue")
        node.sql(f"{owned.format('postgres')} \\gexec\nDROP OWNED BY rescue; DROP ROLE rescue;")


@pytest.mark.long
@pytest.mark.at(OLD)
def test_an_image_that_vanished_stops_it_before_anything_else(untouched: State) -> None:
    started = node.containers()
    with registry.without("langgenius/dify-web", "1.12.0"):
        node.refused("1.12.0", "was not begun", "images of Dify 1.12.0 could not all be pulled", "web")
    assert node.containers() == started


@pytest.mark.long
@pytest.mark.at(OLD)
def test_a_disk_that_fills_during_the_backup(untouched: State) -> None:
    started, begun = node.containers(), node.evidences()
    with node.disk_that_fills() as small:
        node.refused(NEW, "is full", "The unfinished backup was removed", dify_backup_dir=small)
        assert on_node(f"ls {small}") == "full"
    assert (node.containers(), node.evidences()) == (started, begun)
