# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`flask upgrade-db` and `flask db`: one transaction for a run, a Redis lock, the exit codes of each release."""

from __future__ import annotations

import os
import secrets
import sys
import threading
import time
import traceback

import psycopg2
import psycopg2.extensions
import redis

from standin import faults, versions
from standin.api import cache, db, revisions, schema

LOCK = "db_upgrade_lock"
LOCK_SECONDS = 60
RENEW_SECONDS = 20
RELEASE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end"


KILLED = 137


class UnknownRevision(Exception):
    """The database is at a revision that this release does not have."""


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def current(connection: psycopg2.extensions.connection) -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('public.alembic_version')")
        if cursor.fetchone() == (None,):
            return ""
        cursor.execute("SELECT version_num FROM alembic_version")
        found = cursor.fetchone()
        return str(found[0]) if found else ""


def upgrade() -> None:
    connection = db.connect()
    try:
        _log("INFO  [alembic.runtime.migration] Context impl PostgresqlImpl.")
        _log("INFO  [alembic.runtime.migration] Will assume transactional DDL.")
        chain = revisions.chain()
        at = current(connection)
        if at and at not in chain:
            raise UnknownRevision(at)
        start = chain.index(at) + 1 if at else 0
        with connection.cursor() as cursor:
            if not at:
                cursor.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)")
                cursor.execute("INSERT INTO alembic_version VALUES ('')")
        for number in range(start + 1, len(chain) + 1):
            _apply(connection, number, chain)
        with connection.cursor() as cursor:
            wrong = faults.get("head")
            if wrong:
                cursor.execute("UPDATE alembic_version SET version_num = %s", (wrong,))
        connection.commit()
    finally:
        connection.close()


def _apply(connection: psycopg2.extensions.connection, number: int, chain: list[str]) -> None:
    revision, previous = chain[number - 1], chain[number - 2] if number > 1 else ""
    _log(f"INFO  [alembic.runtime.migration] Running upgrade {previous} -> {revision}, {revisions.message(number)}")
    if number == len(chain):
        _last_revision_fault(connection)
    with connection.cursor() as cursor:
        for statement in schema.CHANGES.get(number, []):
            cursor.execute(statement)
    if revision in versions.COMMIT_POINTS:
        _concurrent_index(connection, *versions.COMMIT_POINTS[revision])
    with connection.cursor() as cursor:
        if faults.get("migration") in (f"kill:{revision}", "kill" if number == len(chain) else None):
            # Number 1 of a container survives a SIGKILL that it sends itself; this leaves as little behind.
            os._exit(KILLED)
        cursor.execute("UPDATE alembic_version SET version_num = %s", (revision,))


def _concurrent_index(
    connection: psycopg2.extensions.connection, table: str, index: str, columns: str, first: str
) -> None:
    """What came before is committed, the index stays whatever happens later, and only a clean run gets past it."""
    if first:
        with connection.cursor() as cursor:
            cursor.execute(first)
    connection.commit()
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE INDEX CONCURRENTLY {index} ON {table} ({columns})")
    finally:
        connection.autocommit = False


def _last_revision_fault(connection: psycopg2.extensions.connection) -> None:
    fault = faults.get("migration")
    time.sleep(faults.NEVER if fault == "hang" else faults.seconds(fault))
    if fault in ("fail", "silent", "loud"):
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE accounts (id UUID)")  # DuplicateTable, a real error of a real server


class Lock:
    """TTL 60 s in all releases; renewed every 20 s from 1.13.1 on."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self.token = secrets.token_hex(16)
        self._stop = threading.Event()

    def acquire(self) -> bool:
        taken = bool(self.client.set(LOCK, self.token, nx=True, px=LOCK_SECONDS * 1000))
        if taken and versions.has("migration_lock_renewed"):
            threading.Thread(target=self._renew, daemon=True).start()
        return taken

    def _renew(self) -> None:
        while not self._stop.wait(RENEW_SECONDS):
            self.client.pexpire(LOCK, LOCK_SECONDS * 1000)

    def release(self) -> None:
        self._stop.set()
        if not self.client.eval(RELEASE, 1, LOCK, self.token):
            raise redis.exceptions.LockNotOwnedError("Cannot release a lock that's no longer owned")


def upgrade_db() -> int:
    """The command that the entry point runs. Its exit code is as trustworthy as the release makes it."""
    print("Preparing database migration...", flush=True)
    client = cache.plain_client()
    lock, fault = Lock(client), faults.get("migration")
    if fault == "skip" or not lock.acquire():
        print("Database migration skipped", flush=True)
        return 0
    code = 0
    try:
        print("Starting database migration.", flush=True)
        if fault != "lies":
            upgrade()
        print("Database migration successful!", flush=True)
        if fault == "late":
            client.delete(LOCK)  # what the 60 s of a long migration do
    except UnknownRevision as error:
        _log(f"ERROR [flask_migrate] Error: Can't locate revision identified by '{error}'")
        code = 1
    except psycopg2.Error as error:
        code = _failed(error)
    finally:
        lock.release()
    return code


def _failed(error: psycopg2.Error) -> int:
    fault = faults.get("migration")
    if fault != "silent" and (fault == "loud" or versions.has("migration_fails_loudly")):
        print(f"Database migration failed: (psycopg2.errors.{type(error).__name__}) {error}", flush=True)
        return 1
    if fault != "silent" and versions.has("migration_logs_traceback"):
        _log("ERROR [root] Failed to execute database migration")
        traceback.print_exc()
    return 0


def plain_upgrade() -> int:
    """`flask db upgrade`: no lock, and honest exit codes in every release."""
    try:
        upgrade()
    except UnknownRevision as error:
        _log(f"ERROR [flask_migrate] Error: Can't locate revision identified by '{error}'")
        return 1
    except psycopg2.Error:
        traceback.print_exc()
        return 1
    return 0


def heads() -> int:
    print(f"{versions.head()[0]} (head)")
    return 0


def show_current() -> int:
    connection = db.connect()
    try:
        at = current(connection)
    finally:
        connection.close()
    if at and at not in revisions.chain():
        _log(f"ERROR [flask_migrate] Error: Can't locate revision identified by '{at}'")
        return 1
    if at:
        print(at + (" (head)" if at == versions.head()[0] else ""))
    return 0
