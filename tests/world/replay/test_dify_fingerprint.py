# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fingerprints on a real PostgreSQL: what an upgrade writes anew is the same, and what it loses is not."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg2
import pytest
from ansible_collections.llmops.stack.plugins.module_utils._dify_fingerprint import (
    COLUMNS,
    columns_of,
    fingerprint_of,
    fingerprint_sql,
)

ONE = str(uuid.UUID(int=1))
MODEL = "id int, tenant_id uuid, provider_name text, model_name text, model_type text"
BEFORE = [
    "CREATE TABLE accounts (id int, name text, email text, created_at timestamp)",
    "INSERT INTO accounts VALUES (1, 'one', NULL, '2024-05-06 07:08:09.123'), (2, 'two', 'b', '2025-05-06')",
    f"CREATE TABLE provider_models ({MODEL}, encrypted_config text)",
    f"INSERT INTO provider_models VALUES (1, '{ONE}', 'ollama', 'a', 'text-generation', 'secret 1'),"
    f" (2, '{ONE}', 'openai', 'b', 'embeddings', 'secret 2'), (3, '{ONE}', 'openai', 'c', 'reranking', NULL)",
    "CREATE TABLE end_users (id int, type text)",
    "INSERT INTO end_users VALUES (1, 'service_api')",
]
# What the migrations to 1.8.0 and 1.15.0 and the commands of 1.0 and 1.15 do.
UPGRADE = [
    "CREATE TABLE provider_model_credentials (id int, encrypted_config text)",
    "INSERT INTO provider_model_credentials SELECT id, encrypted_config FROM provider_models"
    " WHERE encrypted_config IS NOT NULL",
    "ALTER TABLE provider_models DROP COLUMN encrypted_config",
    "UPDATE provider_models SET provider_name = 'langgenius/' || provider_name || '/' || provider_name",
    "UPDATE provider_models SET model_type = 'llm' WHERE id = 1",
    "UPDATE provider_models SET model_type = 'text-embedding' WHERE id = 2",
    "UPDATE provider_models SET model_type = 'rerank' WHERE id = 3",
    "UPDATE end_users SET type = 'service-api'",
    "ALTER TABLE accounts ADD COLUMN phone text",
    "CREATE TABLE sites (id int)",
]


class Here:
    def __init__(self, postgres: Any, name: str) -> None:
        self.postgres, self.name = postgres, name

    def run(self, *statements: str) -> None:
        for statement in statements:
            self.postgres.query(statement, database=self.name)

    def fingerprint(self, setting: str = "") -> dict[str, Any]:
        login = {"user": self.postgres.user, "password": self.postgres.password, "dbname": self.name}
        connection = psycopg2.connect(host=self.postgres.host, port=self.postgres.port, **login)
        # Nothing may be written, not even a temporary table.
        connection.set_session(readonly=True, autocommit=True)
        with connection.cursor() as cursor:
            if setting:
                cursor.execute(setting)
            cursor.execute(COLUMNS)
            cursor.execute(fingerprint_sql(columns_of(cursor.fetchall())))
            found = fingerprint_of([(item, str(rows), str(checksum)) for item, rows, checksum in cursor.fetchall()])
        connection.close()
        return found


@pytest.fixture
def here(postgres: Any) -> Iterator[Here]:
    name = f"fingerprint_{uuid.uuid4().hex[:8]}"
    postgres.query(f"CREATE DATABASE {name}")
    found = Here(postgres, name)
    found.run(*BEFORE)
    yield found
    postgres.query(f"DROP DATABASE {name} WITH (FORCE)")


def test_what_an_upgrade_writes_anew_is_the_same(here: Here) -> None:
    before = here.fingerprint()
    here.run(*UPGRADE)
    after = here.fingerprint()
    assert before == {name: after[name] for name in before}
    assert before["secrets"][0] == 2
    assert before["accounts"][0] == 2


def test_the_order_of_rows_and_the_settings_of_the_server_play_no_part(here: Here) -> None:
    before = here.fingerprint()
    here.run("CREATE TABLE copy AS SELECT * FROM accounts ORDER BY id DESC", "TRUNCATE accounts")
    here.run("INSERT INTO accounts SELECT * FROM copy", "DROP TABLE copy")
    assert here.fingerprint("SET timezone = 'Asia/Shanghai'; SET datestyle = 'German'") == before


@pytest.mark.parametrize(
    ("statement", "item"),
    [
        ("DELETE FROM accounts WHERE id = 2", "accounts"),
        ("UPDATE accounts SET name = 'three' WHERE id = 2", "accounts"),
        ("UPDATE accounts SET created_at = '2024-05-06 07:08:09.124' WHERE id = 1", "accounts"),
        ("UPDATE provider_models SET model_type = 'rerank' WHERE id = 1", "provider_models"),
        ("UPDATE provider_models SET provider_name = 'azure' WHERE id = 1", "provider_models"),
        ("UPDATE provider_models SET encrypted_config = 'secret 3' WHERE id = 1", "secrets"),
        ("UPDATE provider_models SET encrypted_config = NULL", "secrets"),
        ("INSERT INTO end_users VALUES (2, 'browser')", "end_users"),
    ],
)
def test_what_is_lost_or_changed_shows(here: Here, statement: str, item: str) -> None:
    before = here.fingerprint()
    here.run(statement)
    after = here.fingerprint()
    assert {name for name in before if before[name] != after[name]} == {item}


def test_a_database_without_tables(here: Here, postgres: Any) -> None:
    assert Here(postgres, "template1").fingerprint() == {}


@pytest.fixture
def release(postgres: Any, redis_server: Any) -> Iterator[Callable[[str], Any]]:
    from instance_api import Instance

    made: list[Any] = []

    def make(tag: str) -> Any:
        made.append(Instance(tag, postgres, redis_server, 39))
        made[-1].flask("upgrade-db")
        return made[-1]

    yield make
    for instance in made:
        instance.close()


def test_every_step_from_0_15_to_the_newest(release: Callable[[str], Any], postgres: Any) -> None:
    """The migrations of the stand-in, which move what the real ones move."""
    instance = release("0.15.3")
    database = Here(postgres, instance.database)
    model = "gen_random_uuid(), 'openai', 'm', 'embeddings'"
    database.run(
        "INSERT INTO accounts (name, email) VALUES ('owner', 'owner@example.com')",
        "INSERT INTO provider_models (tenant_id, provider_name, model_name, model_type, encrypted_config)"
        f" VALUES ({model}, 'a ciphertext')",
        f"INSERT INTO tenant_default_models (tenant_id, provider_name, model_name, model_type) VALUES ({model})",
    )
    before = database.fingerprint()
    for tag in ("1.0.0", "1.7.0", "1.9.2", "1.12.1", "1.14.1", "1.16.0"):
        assert "successful" in instance.flask("upgrade-db", STANDIN_VERSION=tag).stdout
        after = database.fingerprint()
        assert before == {name: after.get(name) for name in before}, tag
