# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A look at a made-up installation on a real PostgreSQL and a real Redis."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from ansible_collections.llmops.stack.plugins.module_utils import _dify_info as dify_info
from ansible_collections.llmops.stack.plugins.module_utils import _dify_redis as dify_redis
from ansible_collections.llmops.stack.plugins.module_utils._dify_database import Database, DatabaseError
from project_local import LocalProject, container

ONE, TWO = (str(uuid.UUID(int=number)) for number in (1, 2))
NAMES = ("apps", "datasets", "documents", "messages", "upload_files", "accounts")
TABLES = [f"CREATE TABLE {name} (id uuid)" for name in NAMES]
MODEL = "tenant_id uuid, provider_name text, model_name text, model_type text"
OLD = [
    *TABLES,
    "CREATE TABLE alembic_version (version_num text)",
    "INSERT INTO alembic_version VALUES ('a91b476a53de')",
    "CREATE TABLE tenants (id uuid, encrypt_public_key text)",
    f"INSERT INTO tenants VALUES ('{ONE}', 'no key that can be read'), ('{TWO}', NULL)",
    "INSERT INTO apps VALUES (NULL), (NULL)",
    f"CREATE TABLE provider_models ({MODEL}, encrypted_config text)",
    f"INSERT INTO provider_models VALUES ('{ONE}', 'ollama', 'llama3.2', 'text-generation'),"
    f" ('{ONE}', 'langgenius/ollama/ollama', 'llama3.2', 'text-generation'),"
    f" ('{TWO}', 'ollama', 'bge-m3', 'embeddings')",
    f"CREATE TABLE tenant_default_models ({MODEL})",
    f"INSERT INTO tenant_default_models VALUES ('{ONE}', 'langgenius/ollama/ollama', 'llama3.2', 'llm')",
]
NEW = [
    f"CREATE TABLE tenant_plugin_auto_upgrade_strategies (tenant_id uuid); "
    f"INSERT INTO tenant_plugin_auto_upgrade_strategies VALUES ('{ONE}')",
]
PLUGIN = "langgenius/ollama:0.0.6@" + 64 * "a"
GONE = "langgenius/openai:0.0.1@" + 64 * "b"
STRAY = "langgenius/google:0.0.2@" + 64 * "c"


@pytest.fixture
def look(
    postgres: Any, redis_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., dict[str, Any]]]:
    made: list[str] = []
    monkeypatch.setattr(dify_redis, "OWN_SERVICE", redis_server.host)

    class Here(Database):
        def __init__(self, project: Any, tag: str = "") -> None:
            super().__init__(project, tag)
            self._client.login = self._client.login._replace(host=postgres.host)

    monkeypatch.setattr(dify_info, "Database", Here)

    def make(release: str, statements: list[str], **settings: str) -> dict[str, Any]:
        for name in ("dify", "dify_plugin"):
            postgres.query(f"CREATE DATABASE {name}")
            made.append(name)
        for statement in statements:
            postgres.query(statement, database="dify")
        env = {
            "DB_USERNAME": postgres.user,
            "DB_PASSWORD": postgres.password,
            "DB_PORT": str(postgres.port),
            "DB_HOST": "db_postgres",
            "DB_PLUGIN_DATABASE": "" if release.startswith("0.") else "dify_plugin",
            "REDIS_HOST": redis_server.host,
            "REDIS_PORT": str(redis_server.port),
            "REDIS_PASSWORD": redis_server.password,
            "STORAGE_TYPE": "opendal",
            "VECTOR_STORE": "qdrant",
            **settings,
        }
        (tmp_path / "releases" / release).mkdir(parents=True)
        (tmp_path / "current").symlink_to(tmp_path / "releases" / release)
        here = LocalProject(tmp_path, env)
        here.found[redis_server.host] = here.found["redis"]
        here.found["qdrant"] = container("qdrant")
        here.say("info", f"{tmp_path}\n")
        here.say("network", "127.0.0.1/8 container report\n")
        here.say("ps", "dify-api-1\n")
        return dify_info.DifyInfo(here).collect()

    yield make
    for name in made:
        postgres.query(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def test_a_release_before_plugins(look: Callable[..., dict[str, Any]]) -> None:
    found = look("0.15.3", OLD, SECRET_KEY="sk-9f73s3ljTXVcMT3Blb3ljTqtsKiGHXVcMT3BlbkFJLK7U")
    assert found["errors"] == []
    assert (found["release"], found["head"], found["expected_head"]) == ("0.15.3", "a91b476a53de", "a91b476a53de")
    database = found["database"]
    assert (database["superuser"], database["createdb"], database["error"]) == (True, True, "")
    assert (database["internal"], database["type"], database["host"]) == (True, "postgresql", "db_postgres")
    assert database["size_mb"] > 0
    assert (database["not_owned"], database["invalid_indexes"], database["foreign_sessions"]) == ([], [], [])
    assert found["counts"] == {**dict.fromkeys(NAMES, 0), "tenants": 2, "apps": 2}
    assert found["legacy_model_types"] == 3
    assert found["old_upgrade_strategies"] == 0
    assert found["short_providers"] == 2
    assert found["colliding_providers"] == [f"provider_models: ollama in workspace {ONE}"]
    assert found["plugins_needed"] == {ONE: ["langgenius/ollama"], TWO: ["langgenius/ollama"]}
    ollama = "langgenius/ollama/ollama"
    assert found["models"] == [
        {"tenant": ONE, "provider": ollama, "model": "llama3.2", "type": "llm"},
        {"tenant": TWO, "provider": ollama, "model": "bge-m3", "type": "text-embedding"},
    ]
    assert found["secret_key"] == {"set": True, "public": True}
    assert found["vector"]["store"] == "qdrant"
    assert found["vector"]["internal"]
    assert set(found["free_mb"]) == set(found["devices"]) == {"backup", "database", "docker"}
    assert found["plugins"] == []


def test_installations_and_packages_without_each_other(
    look: Callable[..., dict[str, Any]], postgres: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (PLUGIN, STRAY):
        path = tmp_path / "volumes" / "plugin_daemon" / "plugin" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (path.parent / "notes.txt").touch()
    collect = dify_info.DifyInfo.collect

    def with_plugins(self: Any) -> dict[str, Any]:
        for statement in (
            "CREATE TABLE plugin_installations (tenant_id uuid, plugin_id text, plugin_unique_identifier text,"
            " runtime_type text)",
            f"INSERT INTO plugin_installations VALUES ('{ONE}', 'langgenius/ollama', '{PLUGIN}', 'local'),"
            f" ('{ONE}', 'langgenius/openai', '{GONE}', 'local'), ('{ONE}', 'me/mine', 'me/mine:0.0.1@0', 'remote')",
        ):
            postgres.query(statement, database="dify_plugin")
        return collect(self)

    monkeypatch.setattr(dify_info.DifyInfo, "collect", with_plugins)
    found = look("1.12.1", OLD + NEW)
    assert [(one["id"], one["file"]) for one in found["plugins"]] == [
        ("langgenius/ollama", True),
        ("langgenius/openai", False),
        ("me/mine", None),
    ]
    assert found["plugin_files_without_row"] == [STRAY]
    assert found["old_upgrade_strategies"] == 1
    assert found["plugins_needed"] == {}
    # The database is not of this release.
    assert (found["head"], found["expected_head"]) == ("a91b476a53de", "788d3099ae3a")


def test_files(look: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    conf = tmp_path / "volumes" / "sandbox" / "conf" / "config.yaml"
    conf.parent.mkdir(parents=True)
    conf.write_text("app:\n  port: 8194\npython_path: '/usr/local/bin/python3'  # ours\nenable_network: True\n")
    upload = tmp_path / "volumes" / "app" / "storage" / "upload_files" / "one"
    upload.parent.mkdir(parents=True)
    upload.write_bytes(b"x" * 1_500_000)
    found = look("1.12.1", OLD)
    assert found["sandbox_config"] == {"present": True, "python_path": "/usr/local/bin/python3"}
    owner = upload.parents[1].stat().st_uid
    assert found["storage"] == {"type": "opendal", "local": True, "size_mb": 2, "uid": owner}


def test_a_storage_elsewhere(look: Callable[..., dict[str, Any]]) -> None:
    found = look("1.12.1", OLD, STORAGE_TYPE="s3")
    assert found["storage"] == {"type": "s3", "local": False, "size_mb": 0, "uid": -1}
    assert found["private_keys"]["checked"] == 0


def test_who_else_is_in_the_database(
    look: Callable[..., dict[str, Any]], postgres: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    collect = dify_info.DifyInfo.collect

    def with_company(self: Any) -> dict[str, Any]:
        login = {"user": postgres.user, "password": postgres.password, "dbname": "dify"}
        company = psycopg2.connect(host=postgres.host, port=postgres.port, application_name="weekly", **login)
        try:
            return collect(self)
        finally:
            company.close()

    monkeypatch.setattr(dify_info.DifyInfo, "collect", with_company)
    (one,) = look("1.12.1", OLD)["database"]["foreign_sessions"]
    assert (one["application"], one["from"], one["database"]) == ("weekly", "container report", "dify")


def test_tables_of_another_role_and_broken_indexes(look: Callable[..., dict[str, Any]], postgres: Any) -> None:
    postgres.query("CREATE ROLE weak LOGIN PASSWORD 'weak-password'")
    try:
        found = look(
            "1.12.1",
            [
                *OLD,
                "ALTER TABLE tenants OWNER TO weak",
                "CREATE INDEX broken ON apps (id)",
                "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'broken'::regclass",
                "GRANT SELECT ON ALL TABLES IN SCHEMA public TO weak",
            ],
            DB_USERNAME="weak",
            DB_PASSWORD="weak-password",
        )["database"]
    finally:
        postgres.query("DROP DATABASE dify WITH (FORCE)")
        postgres.query("DROP ROLE weak")
    assert (found["superuser"], found["createdb"]) == (False, False)
    assert "apps" in found["not_owned"]
    assert "tenants" not in found["not_owned"]
    assert found["invalid_indexes"] == ["broken"]


def test_a_wrong_password_is_one_error_and_the_rest_is_looked_at(look: Callable[..., dict[str, Any]]) -> None:
    found = look("1.12.1", OLD, DB_PASSWORD="not-this-one")
    assert "password authentication failed" in found["database"]["error"]
    assert "not-this-one" not in str(found)
    assert "legacy_model_types" not in found
    assert found["vector"]["store"] == "qdrant"
    assert found["errors"] == []


def test_a_redis_that_does_not_answer(look: Callable[..., dict[str, Any]]) -> None:
    found = look("1.12.1", OLD, REDIS_PORT="1")
    assert "redis" in found["redis_error"] and found["errors"] == []
    assert found["counts"]["tenants"] == 2


def test_a_host_without_dify(tmp_path: Path) -> None:
    found = dify_info.DifyInfo(LocalProject(tmp_path, {})).collect()
    assert found["release"] == ""
    assert len(found["errors"]) == 1


def test_a_look_that_has_no_time(tmp_path: Path) -> None:
    (tmp_path / "current").mkdir()
    found = dify_info.DifyInfo(LocalProject(tmp_path, {}), deadline=-1).collect()
    assert found["errors"]
    assert all("no time left" in error for error in found["errors"])
    assert found["database"]["error"] and not found["redis_error"]


def test_one_part_that_fails_does_not_take_the_others_along(
    look: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: Any, result: dict[str, Any]) -> None:
        raise DatabaseError("made to fail")

    monkeypatch.setattr(dify_info.DatabaseLook, "providers", fails)
    found = look("0.15.3", OLD)
    assert found["errors"] == ["providers: made to fail"]
    assert found["models"]
