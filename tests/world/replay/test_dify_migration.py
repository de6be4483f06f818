# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controlled migration with the stand-in's `flask`, on a real PostgreSQL and a real Redis."""

from __future__ import annotations

import itertools
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import redis
from ansible_collections.llmops.stack.plugins.module_utils import _dify_migration as migration
from ansible_collections.llmops.stack.plugins.module_utils import _dify_redis as dify_redis
from ansible_collections.llmops.stack.plugins.module_utils._dify_compose import Done
from ansible_collections.llmops.stack.plugins.module_utils._dify_database import Database
from ansible_collections.llmops.stack.plugins.module_utils._dify_versions import HEADS
from instance_api import Instance, interpreter
from project_local import LocalProject

NUMBERS = itertools.count(40)


class Site:
    """A Dify whose api container is the stand-in's `flask`, as far as a migration sees it."""

    def __init__(self, folder: Path, instance: Instance, redis_server: Any) -> None:
        env = instance.environment
        settings = {
            **{key: env[key] for key in ("DB_PORT", "DB_USERNAME", "DB_PASSWORD", "DB_DATABASE", "REDIS_PORT")},
            **{key: env[key] for key in ("REDIS_HOST", "REDIS_PASSWORD", "REDIS_DB")},
            "DB_HOST": "db_postgres",
        }
        self.instance = instance
        self.log = folder / "migration.log"
        self.project = LocalProject(folder, settings)
        self.project.once = self.once
        self.project.found[redis_server.host] = self.project.found["redis"]
        self.database = Database(self.project)
        self.database._client.login = self.database._client.login._replace(host=instance.postgres.host)
        self.runs = 0
        number = int(env["REDIS_DB"])
        self.redis = redis.Redis(redis_server.host, redis_server.port, number, redis_server.password)

    def once(self, service: str, command: list[str], timeout: float, **_options: Any) -> Done:
        assert (service, command[0]) == ("api", "flask")
        self.runs += command[1] == "upgrade-db"
        begun = time.monotonic()
        with subprocess.Popen(
            [interpreter(), "-m", "standin.api.flask_cli", *command[1:]],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.instance.environment,
        ) as process:
            timer = threading.Timer(timeout, process.kill)
            timer.start()
            out = process.stdout.read() if process.stdout else ""
            timer.cancel()
        seconds = time.monotonic() - begun
        return Done(process.returncode, out, seconds, seconds >= timeout)

    def at(self, release: str) -> None:
        """The database as that release has it."""
        done = self.instance.flask("upgrade-db", STANDIN_VERSION=release, STANDIN_FAULTS="/nowhere")
        assert "successful" in done.stdout, done.stdout + done.stderr

    def fault(self, **faults: str) -> None:
        Path(self.instance.environment["STANDIN_FAULTS"]).write_text(json.dumps(faults))

    def run(self, before: str, timeout: float = 60, **info: str) -> migration.Migrated:
        release = self.instance.release
        wanted = {"from": before, "to": release, "start_head": HEADS[before], "expected_head": HEADS[release]}
        return migration.run(self.project, self.database, {**wanted, **info}, timeout, str(self.log))

    def fails(self, before: str, **options: Any) -> migration.MigrationError:
        with pytest.raises(migration.MigrationError) as caught:
            self.run(before, **options)
        assert not self.database.sessions(self.database.name)
        assert self.instance.environment["DB_PASSWORD"] not in caught.value.message
        return caught.value


@pytest.fixture
def site(
    postgres: Any, redis_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Site]]:
    monkeypatch.setattr(dify_redis, "OWN_SERVICE", redis_server.host)
    monkeypatch.setattr(migration, "_GONE_SECONDS", 1)
    made: list[Instance] = []

    def make(before: str, release: str) -> Site:
        made.append(Instance(release, postgres, redis_server, next(NUMBERS) % 64))
        found = Site(tmp_path, made[-1], redis_server)
        found.redis.flushdb()
        found.at(before)
        return found

    yield make
    for instance in made:
        instance.close()


@pytest.mark.parametrize(("before", "release"), [("1.11.4", "1.12.1"), ("0.15.3", "1.16.0")])
def test_a_migration_that_works(site: Callable[..., Site], before: str, release: str) -> None:
    here = site(before, release)
    fingerprint = here.database.fingerprint()
    done = here.run(before)
    assert done.seconds > 0
    assert done.output_tail.endswith("Database migration successful!")
    assert here.database.head() == HEADS[release]
    assert here.database.fingerprint() == fingerprint
    assert "Running upgrade" in here.log.read_text()
    # Nothing is left to do, and no process is started for it.
    assert here.run(before).seconds == 0
    assert here.runs == 1


def test_a_release_that_nobody_knows_is_asked_for_its_head(site: Callable[..., Site]) -> None:
    here = site("1.11.4", "1.12.1")
    here.run("1.11.4", expected_head="")
    assert here.database.head() == HEADS["1.12.1"]


def test_done_with_exit_code_one_is_done(site: Callable[..., Site]) -> None:
    here = site("1.11.4", "1.12.1")
    here.fault(migration="late")
    here.run("1.11.4")
    assert "LockNotOwnedError" in here.log.read_text()


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        ("silent", "failed", "exit code 0"),
        ("loud", "failed", "already exists .exit code 1"),
        ("fail", "failed", "exit code 0"),
        ("skip", "skipped", "did nothing and said 'skipped'"),
        ("lies", "lied", "says that it is done, and the database is not there"),
        ("kill", "killed", "was killed"),
    ],
)
def test_a_migration_that_does_not_work(site: Callable[..., Site], fault: str, kind: str, words: str) -> None:
    here = site("1.11.4", "1.12.1")
    fingerprint = here.database.fingerprint()
    here.fault(migration=fault)
    failed = here.fails("1.11.4")
    assert failed.kind == kind
    assert words.replace(" .", " (") in failed.message
    assert failed.message.startswith("The migration of the database to Dify 1.12.1")
    assert here.database.head() == HEADS["1.11.4"]
    assert here.database.fingerprint() == fingerprint
    assert here.log.read_text()
    # The next run is not in the way of what this one left.
    here.fault()
    here.run("1.11.4")
    assert here.database.head() == HEADS["1.12.1"]


def test_a_silent_failure_is_explained_by_the_servers_log(site: Callable[..., Site]) -> None:
    here = site("1.11.4", "1.12.1")
    here.fault(migration="silent")
    here.project.say("logs", 'LOG:  ready\nERROR:  must be owner of table messages\nSTATEMENT:  ALTER TABLE "x"\n')
    failed = here.fails("1.11.4")
    assert failed.kind == "wrong_owner"
    assert ": must be owner of table messages (exit code 0" in failed.message
    assert "DB_USERNAME" in failed.advice


def test_a_role_that_owns_nothing(site: Callable[..., Site], postgres: Any) -> None:
    here = site("1.12.1", "1.13.3")
    name = here.instance.database
    postgres.query("CREATE ROLE weak LOGIN PASSWORD 'weak-password'")
    postgres.query("GRANT ALL ON ALL TABLES IN SCHEMA public TO weak", database=name)
    try:
        here.instance.environment.update(DB_USERNAME="weak", DB_PASSWORD="weak-password")
        failed = here.fails("1.12.1")
    finally:
        postgres.query("DROP OWNED BY weak", database=name)
        postgres.query("DROP ROLE weak")
    assert here.database.head() == HEADS["1.12.1"]
    assert failed.kind == "wrong_owner"


@pytest.mark.parametrize(
    ("before", "release", "revision", "head"),
    [("1.3.1", "1.7.0", "4474872b0ee6", "2adcbe1f5dfb"), ("1.12.1", "1.14.1", "6b5f9f8b1a2c", "0ec65df55790")],
)
def test_a_half_committed_revision_is_known_by_name_and_mended(
    site: Callable[..., Site], before: str, release: str, revision: str, head: str
) -> None:
    here = site(before, release)
    fingerprint = here.database.fingerprint()
    here.fault(migration=f"kill:{revision}")
    failed = here.fails(before)
    assert failed.kind == "half_committed"
    assert revision in failed.message
    assert here.database.head() == head
    # Without the mending it would fail for ever; the copy of the database is the way back of an upgrade.
    here.fault()
    here.run(before)
    assert here.database.head() == HEADS[release]
    assert here.database.fingerprint() == fingerprint
    assert not migration.mend_half_committed(here.database, HEADS[release])


def test_a_migration_out_of_time_leaves_nobody_at_work(site: Callable[..., Site]) -> None:
    here = site("1.11.4", "1.12.1")
    here.fault(migration="hang")
    begun = time.monotonic()
    failed = here.fails("1.11.4", timeout=6)
    assert time.monotonic() - begun < 25
    assert failed.kind == "timeout"
    assert "after 6 s" in failed.message
    assert here.database.head() == HEADS["1.11.4"]


def test_a_lock_that_nobody_owns_is_cleared(site: Callable[..., Site]) -> None:
    here = site("1.11.4", "1.12.1")
    here.redis.set(dify_redis.LOCK, "of a killed run", px=60_000)
    here.run("1.11.4")
    assert here.database.head() == HEADS["1.12.1"]


def test_the_lock_of_another_installation_is_not(site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch) -> None:
    here = site("1.11.4", "1.12.1")
    # A Redis that is not the project's own.
    monkeypatch.setattr(dify_redis, "OWN_SERVICE", "redis")
    monkeypatch.setattr(migration, "_LOCK_SECONDS", 1)
    here.redis.set(dify_redis.LOCK, "of somebody", px=60_000)
    assert here.fails("1.11.4").kind == "locked"
    assert here.redis.exists(dify_redis.LOCK)
    assert here.runs == 0


def test_somebody_in_the_database_is_named(site: Callable[..., Site], postgres: Any) -> None:
    here = site("1.11.4", "1.12.1")
    here.project.say("network", "172.18.0.1 the host\n127.0.0.1/16 container report\n")
    with_name: Mapping[str, Any] = {"dbname": here.instance.database, "application_name": "weekly report"}
    connection = psycopg2.connect(
        host=postgres.host, port=postgres.port, user=postgres.user, password=postgres.password, **with_name
    )
    try:
        with pytest.raises(migration.MigrationError, match="weekly report of postgres from container report"):
            here.run("1.11.4")
    finally:
        connection.close()
    assert here.runs == 0


def test_a_session_whose_client_is_gone_is_ended(site: Callable[..., Site], postgres: Any) -> None:
    here = site("1.11.4", "1.12.1")
    here.project.say("network", "172.18.0.1 the host\n172.18.0.2/16 container dify-redis-1\n")
    connection = psycopg2.connect(f"{postgres.dsn} dbname={here.instance.database}".replace("dbname=postgres ", ""))
    try:
        here.run("1.11.4")
    finally:
        connection.close()
    assert here.database.head() == HEADS["1.12.1"]


def test_a_run_that_outlived_its_process_is_taken_away(site: Callable[..., Site]) -> None:
    here = site("1.11.4", "1.12.1")
    here.project.say("ps", "0123456789ab\n")
    here.run("1.11.4")
    assert "rm -f 0123456789ab" in here.project.commands


def test_a_database_that_is_not_where_it_should_be(site: Callable[..., Site]) -> None:
    here = site("1.11.4", "1.12.1")
    failed = here.fails("1.10.1")
    assert "at head 905527cc8fd3, and Dify 1.10.1 was said to be at 09cfdda155d1" in failed.message
    assert here.runs == 0


def test_a_redis_that_does_not_answer(site: Callable[..., Site]) -> None:
    here = site("1.11.4", "1.12.1")
    here.project.env["REDIS_PORT"] = "1"
    assert here.fails("1.11.4").kind == "redis"


def test_a_database_that_does_not_answer(site: Callable[..., Site]) -> None:
    here = site("1.11.4", "1.12.1")
    here.project.found["db_postgres"].state = "exited"
    with pytest.raises(migration.MigrationError, match="container of db_postgres is exited") as caught:
        here.run("1.11.4")
    assert caught.value.kind == "database"
