# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a migration of the stand-in can be told to do wrong, and what the real database and Redis look like after it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from instance_api import Instance, interpreter

OLD, NEW = "905527cc8fd3", "788d3099ae3a"
DONE = "Database migration successful!"
LOCK = "db_upgrade_lock"
Make = Callable[..., Instance]


@pytest.fixture
def make(postgres: Any, redis_server: Any) -> Iterator[Make]:
    if not interpreter():
        pytest.skip("no Python with psycopg2, redis and yaml (Debian: python3-psycopg2 python3-redis python3-yaml)")
    made: list[Instance] = []

    def new(release: str, before: str, **faults: str) -> Instance:
        """An installation of `before` that is about to be migrated to `release`."""
        made.append(Instance(release, postgres, redis_server, 50 + len(made)))
        assert made[-1].flask("upgrade-db", STANDIN_VERSION=before).returncode == 0
        tell(made[-1], **faults)
        return made[-1]

    yield new
    for instance in made:
        instance.close()


def tell(instance: Instance, **faults: str) -> None:
    (instance.home / "faults.json").write_text(json.dumps(faults), encoding="utf-8")


def head(instance: Instance) -> str:
    query = "SELECT version_num FROM alembic_version"
    return str(instance.postgres.query(query, database=instance.database)[0][0])


def unlock(instance: Instance) -> None:
    """What an operator does when nobody migrates any more."""
    tell(instance)
    script = f"from standin.api import cache; cache.plain_client().delete({LOCK!r})"
    subprocess.run([interpreter(), "-c", script], env=instance.environment, check=True, timeout=60)


@pytest.mark.parametrize(
    ("fault", "code", "reached", "said"),
    [
        ("silent", 0, OLD, "Starting database migration."),
        ("loud", 1, OLD, "Database migration failed: (psycopg2.errors.DuplicateTable)"),
        ("skip", 0, OLD, "Database migration skipped"),
        ("lies", 0, OLD, DONE),
        ("late", 1, NEW, DONE),
    ],
)
def test_exit_codes_that_prove_nothing(make: Make, fault: str, code: int, reached: str, said: str) -> None:
    instance = make("1.12.1", "1.11.4", migration=fault)
    done = instance.flask("upgrade-db")
    assert (done.returncode, head(instance)) == (code, reached)
    assert said in done.stdout
    assert (DONE in done.stdout) == (said == DONE)
    assert ("LockNotOwnedError: Cannot release a lock that's no longer owned" in done.stderr) == (fault == "late")
    tell(instance)
    assert instance.flask("upgrade-db").returncode == 0
    assert head(instance) == NEW


def test_a_killed_migration_leaves_the_lock_and_nothing_else(make: Make) -> None:
    instance = make("1.12.1", "1.11.4", migration="kill")
    assert instance.flask("upgrade-db").returncode == 137
    assert head(instance) == OLD
    tell(instance)
    assert "Database migration skipped" in instance.flask("upgrade-db").stdout
    unlock(instance)
    assert DONE in instance.flask("upgrade-db").stdout
    assert head(instance) == NEW


@pytest.mark.parametrize(
    ("release", "before", "revision", "left", "words", "repair"),
    [
        (
            *("1.7.0", "1.3.1", "4474872b0ee6", "2adcbe1f5dfb"),
            'relation "workflow_node_executions_tenant_id_idx" already exists',
            "DROP INDEX workflow_node_executions_tenant_id_idx",
        ),
        (
            *("1.14.1", "1.12.1", "6b5f9f8b1a2c", "0ec65df55790"),
            'column "user_id" of relation "workflow_draft_variables" already exists',
            "ALTER TABLE workflow_draft_variables DROP COLUMN user_id",
        ),
    ],
)
def test_killed_in_a_revision_that_commits_half_way(
    make: Make, release: str, before: str, revision: str, left: str, words: str, repair: str
) -> None:
    """Every further run fails until somebody takes away what the dead one has committed."""
    instance = make(release, before, migration=f"kill:{revision}")
    assert instance.flask("upgrade-db").returncode == 137
    assert head(instance) == left
    unlock(instance)
    again = instance.flask("upgrade-db")
    assert words in again.stdout + again.stderr
    assert head(instance) == left
    instance.postgres.query(repair, database=instance.database)
    assert DONE in instance.flask("upgrade-db").stdout


def test_a_fault_of_one_release_leaves_the_others_alone(make: Make) -> None:
    instance = make("1.12.1", "1.10.1", **{"1.12.1:migration": "fail", "migration": "lies"})
    assert DONE in instance.flask("upgrade-db", STANDIN_VERSION="1.11.4").stdout
    assert DONE not in instance.flask("upgrade-db").stdout
