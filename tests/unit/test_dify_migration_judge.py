# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every way in which a recorded migration ended, and what it is taken for."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from ansible_collections.llmops.stack.plugins.module_utils._dify_migration_judge import HALF_COMMITTED, judge, reason
from ansible_collections.llmops.stack.plugins.module_utils._dify_versions import HEADS, parse_version

START = """\
Preparing database migration...
Starting database migration.
INFO  [alembic.runtime.migration] Context impl PostgresqlImpl.
INFO  [alembic.runtime.migration] Will assume transactional DDL.
"""
SUCCESS = "Database migration successful!\n"
SKIPPED = "Preparing database migration...\nDatabase migration skipped\n"
LOST_LOCK = "redis.exceptions.LockNotOwnedError: Cannot release a lock that's no longer owned\n"
DUPLICATE_INDEX = 'relation "workflow_node_executions_tenant_id_idx" already exists'
DUPLICATE_COLUMN = 'column "user_id" of relation "workflow_draft_variables" already exists'


def running(old: str, new: str) -> str:
    return f"INFO  [alembic.runtime.migration] Running upgrade {old} -> {new}, something\n"


def traceback(error: str) -> str:
    """Until 1.7.2."""
    return f"ERROR [root] Failed to execute database migration\nTraceback (most recent call last):\n{error}\n"


class Recorded(NamedTuple):
    release: str
    before: str  # release that the database was of
    code: int
    output: str
    head: str
    kind: str
    cause: str = ""
    left_over: bool = False


RECORDED = {
    "done": Recorded("1.12.1", "1.11.4", 0, START + SUCCESS, "788d3099ae3a", ""),
    "nothing to do": Recorded("1.12.1", "1.12.0", 0, START + SUCCESS, "788d3099ae3a", ""),
    "1.12.1 longer than its lock": Recorded("1.12.1", "1.11.4", 1, START + SUCCESS + LOST_LOCK, "788d3099ae3a", ""),
    "1.16.0 for 128 s": Recorded("1.16.0", "1.15.0", 0, START + SUCCESS, "7a1c2d9e4b60", ""),
    "1.7.0 wrong password": Recorded(
        "1.7.0",
        "1.3.1",
        0,
        traceback('psycopg2.OperationalError: FATAL:  password authentication failed for user "dify"'),
        "6a9f914f656c",
        "login",
        'password authentication failed for user "dify"',
    ),
    "1.12.1 wrong password": Recorded("1.12.1", "1.11.4", 0, START, "905527cc8fd3", "failed"),
    "1.14.1 wrong password": Recorded(
        "1.14.1",
        "1.13.3",
        1,
        START
        + "Database migration failed: (psycopg2.OperationalError) connection to server failed: "
        + 'FATAL:  password authentication failed for user "dify"\n',
        "6b5f9f8b1a2c",
        "login",
        'password authentication failed for user "dify"',
    ),
    "1.14.1 port closed": Recorded(
        "1.14.1",
        "1.13.3",
        1,
        "Database migration failed: (psycopg2.OperationalError) connection to server at 127.0.0.1 failed: "
        "Connection refused\n",
        "6b5f9f8b1a2c",
        "unreachable",
        "Connection refused",
    ),
    "1.7.0 role without DDL": Recorded(
        "1.7.0",
        "1.3.1",
        0,
        traceback("(psycopg2.errors.InsufficientPrivilege) must be owner of table workflow_conversation_variables"),
        "6a9f914f656c",
        "wrong_owner",
        "must be owner of table workflow_conversation_variables",
    ),
    "1.12.1 role without DDL": Recorded(
        "1.12.1", "1.11.4", 0, START + running("905527cc8fd3", "3334862ee907"), "905527cc8fd3", "failed"
    ),
    "1.16.0 role without DDL": Recorded(
        "1.16.0",
        "1.15.0",
        1,
        "Database migration failed: (psycopg2.errors.InsufficientPrivilege) must be owner of table sites\n",
        "d9e8f7a6b5c4",
        "wrong_owner",
        "must be owner of table sites",
    ),
    "1.7.0 read-only": Recorded(
        "1.7.0",
        "1.3.1",
        0,
        traceback("(psycopg2.errors.ReadOnlySqlTransaction) cannot execute CREATE INDEX in a read-only transaction"),
        "6a9f914f656c",
        "read_only",
        "cannot execute CREATE INDEX in a read-only transaction",
    ),
    "1.7.0 table of the last revision exists": Recorded(
        "1.7.0",
        "1.3.1",
        0,
        traceback('(psycopg2.errors.DuplicateTable) relation "x" already exists'),
        "2adcbe1f5dfb",
        "half_committed",
        'relation "x" already exists',
        left_over=True,
    ),
    "1.7.0 ever after": Recorded(
        "1.7.0",
        "1.4.1",
        0,
        traceback(f"(psycopg2.errors.DuplicateTable) {DUPLICATE_INDEX}"),
        "2adcbe1f5dfb",
        "half_committed",
        DUPLICATE_INDEX,
        left_over=True,
    ),
    "1.12.1 table of the last revision exists": Recorded(
        "1.12.1", "1.11.4", 0, START + running("9d77545f524e", "788d3099ae3a"), "905527cc8fd3", "failed"
    ),
    "1.14.1 table exists": Recorded(
        "1.14.1",
        "1.13.3",
        1,
        'Database migration failed: (psycopg2.errors.DuplicateTable) relation "x" already exists\n',
        "6b5f9f8b1a2c",
        "failed",
        'relation "x" already exists',
    ),
    "1.12.1 to 1.14.1, the same": Recorded(
        "1.14.1",
        "1.12.1",
        1,
        'Database migration failed: (psycopg2.errors.DuplicateTable) relation "x" already exists\n',
        "0ec65df55790",
        "half_committed",
        'relation "x" already exists',
        left_over=True,
    ),
    "1.14.1 ever after": Recorded(
        "1.14.1",
        "0ec65df55790",
        1,
        f"Database migration failed: (psycopg2.errors.DuplicateColumn) {DUPLICATE_COLUMN}\n",
        "0ec65df55790",
        "half_committed",
        DUPLICATE_COLUMN,
        left_over=True,
    ),
    "Redis refused": Recorded(
        "1.16.0",
        "1.15.0",
        1,
        "redis.exceptions.ConnectionError: Error 111 connecting to redis:6379. Connection refused.\n",
        "d9e8f7a6b5c4",
        "redis",
        "Error 111 connecting to redis:6379. Connection refused",
    ),
    "two at once": Recorded("1.12.1", "1.11.4", 0, SKIPPED, "905527cc8fd3", "skipped"),
    "1.7.0 two after 61 s, the first": Recorded(
        "1.7.0",
        "1.3.1",
        1,
        START + "sqlalchemy.exc.OperationalError: (psycopg2.errors.DeadlockDetected) deadlock detected\n" + LOST_LOCK,
        "2adcbe1f5dfb",
        "half_committed",
        "deadlock detected",
        left_over=True,
    ),
    "1.12.1 two after 61 s, the second": Recorded("1.12.1", "1.11.4", 0, START, "788d3099ae3a", "unproved"),
    "1.7.0 kill -9": Recorded("1.7.0", "1.3.1", 137, START, "2adcbe1f5dfb", "half_committed", left_over=True),
    "1.12.1 kill -9": Recorded("1.12.1", "1.11.4", 137, START, "905527cc8fd3", "killed"),
    "old code, newer schema": Recorded(
        "1.11.4",
        "1.12.1",
        1,
        START + "ERROR [flask_migrate] Error: Can't locate revision identified by '788d3099ae3a'\n",
        "788d3099ae3a",
        "newer_schema",
        "Can't locate revision identified by '788d3099ae3a'",
    ),
    "import error": Recorded(
        "1.12.1",
        "1.11.4",
        2,
        "Traceback (most recent call last):\nModuleNotFoundError: x\nError: No such command 'upgrade-db'.\n",
        "905527cc8fd3",
        "broken_image",
        "No such command 'upgrade-db'",
    ),
    "says it is done": Recorded("1.12.1", "1.11.4", 0, START + SUCCESS, "905527cc8fd3", "lied"),
}


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_run_is_taken_for_what_it_was(name: str) -> None:
    case = RECORDED[name]
    start = HEADS.get(case.before, case.before)
    found = judge(case.code, case.output, case.head, HEADS[case.release], start, left_over=case.left_over)
    assert found == (case.kind, case.cause)


@pytest.mark.parametrize("code", [0, 1, 2, 137])
def test_only_the_line_and_the_head_together_are_a_success(code: int) -> None:
    assert judge(code, SUCCESS, "788d3099ae3a", "788d3099ae3a", "905527cc8fd3").kind == ""
    assert judge(code, SUCCESS, "905527cc8fd3", "788d3099ae3a", "905527cc8fd3").kind
    assert judge(code, START, "788d3099ae3a", "788d3099ae3a", "905527cc8fd3").kind
    assert judge(code, START, "905527cc8fd3", "788d3099ae3a", "905527cc8fd3").kind


def test_a_run_out_of_time() -> None:
    assert judge(-9, START, "905527cc8fd3", "788d3099ae3a", "905527cc8fd3", timed_out=True).kind == "timeout"
    # What it did before counts more.
    assert judge(-9, START, "2adcbe1f5dfb", "8bcc02c9bd07", "6a9f914f656c", timed_out=True).kind == "half_committed"


def test_a_release_may_be_where_a_half_committed_revision_starts() -> None:
    """1.4.1 ends at that head: a failure there left nothing, unless the remains are there."""
    assert judge(1, START, "2adcbe1f5dfb", "4474872b0ee6", "2adcbe1f5dfb").kind == "failed"
    assert judge(1, START, "2adcbe1f5dfb", "4474872b0ee6", "2adcbe1f5dfb", left_over=True).kind == "half_committed"


def test_the_half_committed_revisions_are_those_of_their_releases() -> None:
    for half in HALF_COMMITTED.values():
        assert HEADS[half.first] == half.revision
        older = [tag for tag in HEADS if parse_version(tag) < parse_version(half.first)]
        assert half.revision not in {HEADS[tag] for tag in older}


def test_the_reason_in_a_servers_log() -> None:
    log = "2026-01-01 UTC [7] ERROR:  must be owner of table messages\nSTATEMENT:  ALTER TABLE messages ADD x int\n"
    assert reason(log) == ("wrong_owner", "must be owner of table messages")
    assert reason("nothing") == ("failed", "")
