# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dify's databases on a real PostgreSQL: what is asked, copied, dumped and restored, and what is said if not."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from ansible_collections.llmops.stack.plugins.module_utils import _dify_database_sql
from ansible_collections.llmops.stack.plugins.module_utils._dify_database import Database, DatabaseError
from project_local import LocalProject

Postgres = Any  # the fixture's class, of a conftest that cannot be imported


HEAD = "788d3099ae3a"


@pytest.fixture
def project(postgres: Postgres, tmp_path: Path) -> LocalProject:
    # The host is the name of the release's service, as in a real .env: the address is put in by the fixture below.
    settings = {
        "DB_USERNAME": postgres.user,
        "DB_PASSWORD": postgres.password,
        "DB_HOST": "db_postgres",
        "DB_PORT": str(postgres.port),
        "DB_DATABASE": "dify",
        "DB_PLUGIN_DATABASE": "dify_plugin",
    }
    return LocalProject(tmp_path, settings)


@pytest.fixture
def open_database(project: LocalProject, postgres: Postgres) -> Callable[..., Database]:
    def make(**settings: str) -> Database:
        project.env.update(settings)
        database = Database(project)
        assert (database.internal, database.service) == (True, "db_postgres")
        database._client.login = database._client.login._replace(host=postgres.host)
        return database

    return make


@pytest.fixture
def database(postgres: Postgres, open_database: Callable[..., Database]) -> Iterator[Database]:
    postgres.query("CREATE DATABASE dify")
    for statement in (
        "CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)",
        f"INSERT INTO alembic_version VALUES ('{HEAD}')",
        "CREATE TABLE accounts (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), name text, email text)",
        "INSERT INTO accounts (name, email) VALUES ('a\nb, \"c\"', 'one@example.com'), ('|', NULL), ('Jürgen', '')",
        "CREATE INDEX accounts_email ON accounts (email)",
    ):
        postgres.query(statement, database="dify")
    yield open_database()
    for name in list(postgres.query("SELECT datname FROM pg_database WHERE datname LIKE 'dify%%'")):
        postgres.query(f'DROP DATABASE "{name[0]}" WITH (FORCE)')


@contextlib.contextmanager
def session(postgres: Postgres, name: str = "dify", application: str = "someone") -> Iterator[Any]:
    connection = psycopg2.connect(
        host=postgres.host,
        port=postgres.port,
        user=postgres.user,
        password=postgres.password,
        dbname=name,
        application_name=application,
    )
    connection.autocommit = True
    try:
        yield connection.cursor()
    finally:
        connection.close()


def test_rows_come_as_they_are(database: Database) -> None:
    rows = database.sql("SELECT name, email FROM accounts ORDER BY name")
    assert sorted(rows) == sorted([['a\nb, "c"', "one@example.com"], ["Jürgen", ""], ["|", ""]])

    assert database.sql("SELECT to_regclass('nothing')") == [[""]]
    assert database.sql("SELECT 1 WHERE false") == []


def test_the_head_is_read_and_a_database_without_one_has_none(database: Database, postgres: Postgres) -> None:
    assert database.head() == HEAD
    assert database.head("postgres") == ""
    postgres.query("INSERT INTO alembic_version VALUES ('second')", database="dify")
    assert database.head() == f"{HEAD},second"


def test_an_error_has_its_state_and_one_sentence(database: Database) -> None:
    with pytest.raises(DatabaseError, match=r"division by zero$") as caught:
        database.sql("SELECT 1; SELECT 1/0; SELECT 2")
    assert caught.value.state == "22012"


def test_a_wrong_password_is_said_and_not_shown(open_database: Callable[..., Database], project: LocalProject) -> None:
    database = open_database(DB_PASSWORD="not-this-one")
    with pytest.raises(DatabaseError, match="password authentication failed for user") as caught:
        database.ping()
    assert caught.value.state == "28P01"
    assert "not-this-one" not in str(caught.value)


def test_the_password_is_on_no_command_line(database: Database, postgres: Postgres, project: LocalProject) -> None:
    assert database.ping().split(".")[0].isdigit()
    assert postgres.password not in project.commands
    assert "-e PGPASSWORD" in project.commands


def test_a_server_that_is_not_there(open_database: Callable[..., Database]) -> None:
    with pytest.raises(DatabaseError, match="Connection refused"):
        open_database(DB_PORT="1").ping()


def test_a_database_that_is_not_there(database: Database) -> None:
    with pytest.raises(DatabaseError) as caught:
        database.sql("SELECT 1", "nowhere")
    assert caught.value.state == "3D000"


def test_a_container_that_was_replaced_is_looked_for_again(database: Database, project: LocalProject) -> None:
    database.ping()
    project.lose_container()
    assert database.head() == HEAD


@pytest.mark.parametrize("state", ["exited", ""])
def test_a_container_that_does_not_run(
    open_database: Callable[..., Database], project: LocalProject, state: str
) -> None:
    if state:
        project.found["db_postgres"].state = state
    else:
        del project.found["db_postgres"]
    with pytest.raises(DatabaseError, match=r"container of db_postgres (is exited|does not exist)"):
        open_database().ping()


def test_another_type_of_database_is_refused(open_database: Callable[..., Database]) -> None:
    with pytest.raises(DatabaseError, match="of type mysql"):
        open_database(DB_TYPE="mysql").ping()


def test_a_database_outside_is_asked_from_a_container_of_its_own(
    database: Database, project: LocalProject, postgres: Postgres
) -> None:
    project.env["DB_HOST"] = postgres.host
    outside = Database(project)
    assert not outside.internal
    assert outside.ping() == database.ping()
    assert "--network dify_default" in project.commands
    assert " postgres:15-alpine " in project.commands


def test_tools_are_as_new_as_a_server_outside(
    database: Database, project: LocalProject, postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.env["DB_HOST"] = postgres.host
    project.found["nginx"] = dataclasses.replace(project.found["redis"], image="mirror.example.com/hub/nginx:latest")
    outside = Database(project)
    monkeypatch.setattr(outside, "_at_desk", lambda _statement: [["170002"]])
    outside.dump("dify", str(tmp_path / "dify.dump"))
    assert " mirror.example.com/hub/postgres:17-alpine " in project.commands


def test_what_takes_too_long_is_ended_in_the_server_too(database: Database, postgres: Postgres) -> None:
    with pytest.raises(DatabaseError) as caught:
        database.sql("SELECT pg_sleep(60)", timeout=1)
    assert caught.value.state == "57014"
    assert not postgres.query(
        "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%%' AND state = 'active'"
    )


def test_sessions_are_named_without_what_they_say(database: Database, postgres: Postgres) -> None:
    with session(postgres, application="beat") as cursor:
        cursor.execute("SELECT 'a secret', 1")
        (found,) = database.sessions("dify")
    assert (found["application"], found["client"], found["state"]) == ("beat", "127.0.0.1", "idle")
    assert found["query"] == "SELECT '...', 1"


def test_sessions_are_ended(database: Database, postgres: Postgres) -> None:
    with session(postgres), session(postgres) as cursor:
        assert database.terminate("dify") == 2
        with pytest.raises(psycopg2.OperationalError):
            cursor.execute("SELECT 1")
    assert database.terminate("dify") == 0


@pytest.mark.parametrize("large", [0, 10**12])
def test_a_copy_has_everything(database: Database, monkeypatch: pytest.MonkeyPatch, large: int) -> None:
    """Small or large: the server has two ways."""
    monkeypatch.setattr(_dify_database_sql, "_LARGE", large)
    database.copy("dify", "dify_before")
    assert database.head("dify_before") == HEAD
    assert database.fingerprint("dify_before") == database.fingerprint("dify")
    assert not database.exists("dify_before_partial")


def test_a_copy_has_what_belongs_to_the_database_itself(database: Database, postgres: Postgres) -> None:
    roles = ("reader", "watcher")
    for role in roles:
        postgres.query(f"CREATE ROLE {role}")
    try:
        for statement in (
            "ALTER DATABASE dify SET work_mem = '7MB'",
            'ALTER DATABASE dify SET search_path = "$user", public, extra',
            "ALTER ROLE reader IN DATABASE dify SET statement_timeout = '5s'",
            "REVOKE CONNECT ON DATABASE dify FROM PUBLIC",
            "GRANT CONNECT ON DATABASE dify TO reader WITH GRANT OPTION",
            "ALTER DATABASE dify CONNECTION LIMIT 42",
            "ALTER DATABASE dify OWNER TO watcher",
        ):
            postgres.query(statement)
        database.copy("dify", "dify_before")

        def belongings(name: str) -> list[Any]:
            return postgres.query(
                "SELECT (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(datacl) a), datconnlimit, datdba,"
                " (SELECT array_agg((setrole, setconfig)::text ORDER BY setrole)"
                " FROM pg_db_role_setting WHERE setdatabase = d.oid) FROM pg_database d WHERE datname = %s",
                name,
            )

        assert belongings("dify_before") == belongings("dify")
    finally:
        for name in ("dify", "dify_before"):
            with contextlib.suppress(psycopg2.Error):
                postgres.query(f"DROP DATABASE {name}")
        for role in roles:
            postgres.query(f"DROP ROLE {role}")


def test_a_database_in_use_is_not_copied_and_nothing_is_left(database: Database, postgres: Postgres) -> None:
    with session(postgres, application="beat"), pytest.raises(DatabaseError, match=r"in use by .*beat") as caught:
        database.copy("dify", "dify_before")
    assert caught.value.state == "55006"
    assert not database.exists("dify_before")
    assert not database.exists("dify_before_partial")


def test_an_earlier_copy_that_was_cut_off_does_not_disturb(database: Database, postgres: Postgres) -> None:
    postgres.query("CREATE DATABASE dify_before_partial")
    database.copy("dify", "dify_before")
    assert database.head("dify_before") == HEAD


def test_a_copy_does_not_replace_another(database: Database) -> None:
    database.copy("dify", "dify_before")
    with pytest.raises(DatabaseError, match="exists already"):
        database.copy("dify", "dify_before")


def test_a_rename_ends_the_sessions(database: Database, postgres: Postgres) -> None:
    with session(postgres):
        database.rename("dify", "dify_failed")
    assert database.exists("dify_failed")
    assert not database.exists("dify")


def test_what_is_dropped_is_gone_however_often(database: Database, postgres: Postgres) -> None:
    with session(postgres):
        database.drop("dify")
    database.drop("dify")
    assert not database.exists("dify")
    assert database.size_bytes("dify") == 0


def test_a_dump_restores_to_the_same(database: Database, tmp_path: Path) -> None:
    path = tmp_path / "dify.dump"
    written = database.dump("dify", str(path))
    assert written.bytes == path.stat().st_size
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert database.check_dump(str(path)) == {
        "tables": 2,
        "table_data": 2,
        "indexes": 1,
        "constraints": 2,
        "entries": 7,
    }
    assert database.tables() == 2
    database.restore(str(path), "dify_restored")
    assert database.fingerprint("dify_restored") == database.fingerprint("dify")


def test_a_dump_with_roles_that_are_not_here(database: Database, postgres: Postgres, tmp_path: Path) -> None:
    postgres.query("CREATE ROLE reader")
    postgres.query("GRANT SELECT ON accounts TO reader", database="dify")
    postgres.query("ALTER TABLE accounts OWNER TO reader", database="dify")
    path = str(tmp_path / "dify.dump")
    database.dump("dify", path)
    postgres.query("REASSIGN OWNED BY reader TO postgres", database="dify")
    postgres.query("DROP OWNED BY reader", database="dify")
    postgres.query("DROP ROLE reader")
    database.restore(path, "dify_restored")
    assert database.fingerprint("dify_restored") == database.fingerprint("dify")


@pytest.mark.parametrize("damage", ["cut", "flipped", "text", "empty"])
def test_a_damaged_dump_is_known(database: Database, postgres: Postgres, tmp_path: Path, damage: str) -> None:
    postgres.query("INSERT INTO accounts (name) SELECT md5(i::text) FROM generate_series(1, 3000) i", database="dify")
    path = tmp_path / "dify.dump"
    database.dump("dify", str(path))
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(
        {
            "cut": whole[: len(whole) - 500],
            "flipped": whole[:middle] + bytes([whole[middle] ^ 0x10]) + whole[middle + 1 :],
            "text": b"-- not a dump\n",
            "empty": b"",
        }[damage]
    )
    with pytest.raises(DatabaseError):
        database.check_dump(str(path))


def test_a_restore_that_fails_leaves_nothing(database: Database, tmp_path: Path) -> None:
    path = tmp_path / "dify.dump"
    database.dump("dify", str(path))
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(DatabaseError):
        database.restore(str(path), "dify_restored")
    assert not database.exists("dify_restored")


def test_a_dump_is_not_written_over_another(database: Database, tmp_path: Path) -> None:
    path = tmp_path / "dify.dump"
    path.write_text("precious")
    with pytest.raises(DatabaseError, match="cannot be written: File exists"):
        database.dump("dify", str(path))
    assert path.read_text() == "precious"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_disk_that_is_full_is_said(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgres: Postgres
) -> None:
    really = os.open
    monkeypatch.setattr(os, "open", lambda path, *rest: really("/dev/full", os.O_WRONLY) if "dump" in path else None)
    monkeypatch.setattr(os, "unlink", lambda path: None)
    with pytest.raises(DatabaseError, match="No space left on device"):
        database.dump("dify", str(tmp_path / "dify.dump"))


def test_a_dump_that_has_no_time_leaves_no_file(database: Database, postgres: Postgres, tmp_path: Path) -> None:
    with session(postgres) as cursor:
        cursor.execute("BEGIN; LOCK TABLE accounts IN ACCESS EXCLUSIVE MODE")
        begun = time.monotonic()
        with pytest.raises(DatabaseError, match="did not finish within 1 s"):
            database.dump("dify", str(tmp_path / "dify.dump"), timeout=1)
    assert time.monotonic() - begun < 20
    assert not (tmp_path / "dify.dump").exists()
    assert not postgres.query("SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'llmops.stack-%%'")


def test_a_snapshot_sees_what_was(database: Database, postgres: Postgres) -> None:
    postgres.query("CREATE TABLE tenants (id text, encrypt_public_key text)", database="dify")
    lines = "-----BEGIN PUBLIC KEY-----\n" + "A" * 300 + "|\n-----END PUBLIC KEY-----"
    postgres.query(f"INSERT INTO tenants VALUES ('one', '{lines}'), ('two', NULL)", database="dify")
    before = database.fingerprint()
    snapshot = database.open_snapshot()
    postgres.query("DELETE FROM accounts WHERE name = '|'", database="dify")
    postgres.query("UPDATE tenants SET encrypt_public_key = 'another'", database="dify")
    assert snapshot.public_keys() == {"one": lines, "two": ""}
    assert snapshot.fingerprint() == before
    assert snapshot.fingerprint() == before
    snapshot.close()
    snapshot.close()
    assert database.fingerprint()["accounts"][0] == before["accounts"][0] - 1


def test_a_snapshot_whose_server_goes_away_says_so(database: Database) -> None:
    snapshot = database.open_snapshot()
    assert database.terminate("dify") == 1
    with pytest.raises(DatabaseError, match=r"snapshot of the database cannot be read: .*terminating connection"):
        snapshot.fingerprint()
