# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in's data commands say, do and do not do what was seen of Dify's own, release by release."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import harness_daemon as harness
import pytest
from instance_api import Instance, interpreter
from market import Market
from ports import free_port
from standin.daemon_package import OFFICIAL_KEY, pack

OLLAMA = "langgenius/ollama"
LONG = "langgenius/ollama/ollama"
Make = Callable[..., Instance]
Rows = list[tuple[Any, ...]]


@pytest.fixture
def make(postgres: Any, redis_server: Any) -> Iterator[Make]:
    if not interpreter():
        pytest.skip("no Python with psycopg2, redis and yaml (Debian: python3-psycopg2 python3-redis python3-yaml)")
    made: list[Instance] = []

    def new(release: str, schema: str = "") -> Instance:
        made.append(Instance(release, postgres, redis_server, 30 + len(made)))
        assert made[-1].flask("upgrade-db", STANDIN_VERSION=schema or release).returncode == 0
        return made[-1]

    yield new
    for instance in made:
        instance.close()


@pytest.fixture
def market() -> Iterator[Market]:
    market = Market(OLLAMA)
    market.offer(pack(OLLAMA, "0.0.6", key=OFFICIAL_KEY))
    yield market
    market.close()


@pytest.fixture
def daemon(postgres: Any, redis_server: Any, tmp_path: Path) -> Iterator[Callable[[str], harness.Daemon]]:
    made: list[harness.Daemon] = []

    def new(version: str) -> harness.Daemon:
        made.append(harness.Daemon(version, tmp_path / "daemon", postgres, redis_server, free_port()))
        made[-1].start()
        return made[-1]

    yield new
    for one in made:
        one.close()


def query(instance: Instance, sql: str, *values: Any) -> Rows:
    return list(instance.postgres.query(sql, *values, database=instance.database))


def workspace(instance: Instance, *providers: str) -> str:
    tenant = str(uuid.uuid4())
    query(instance, "INSERT INTO tenants (id, name) VALUES (%s, 'w')", tenant)
    for name in providers:
        query(instance, "INSERT INTO providers (tenant_id, provider_name) VALUES (%s, %s)", tenant, name)
    return tenant


def extract(instance: Instance, path: Path) -> subprocess.CompletedProcess[str]:
    return instance.flask("extract-plugins", f"--output_file={path}", "--workers", "2")


def test_plugins_of_each_workspace_are_written_once_more_by_each_run(make: Make, tmp_path: Path) -> None:
    instance = make("1.0.0", "0.15.3")
    first, second = workspace(instance, "ollama", "google", "xinference"), workspace(instance)
    query(
        instance,
        "INSERT INTO datasets (tenant_id, name, created_by, embedding_model_provider) VALUES (%s, 'd', %s, 'cohere')",
        second,
        str(uuid.uuid4()),
    )
    path = tmp_path / "plugins.jsonl"
    done = extract(instance, path)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "Extract plugins completed.")
    assert len(done.stdout) > 50_000  # a line for each day since 2023-04-03
    found = {one["tenant_id"]: sorted(one["plugins"]) for one in map(json.loads, path.read_text().splitlines())}
    assert found == {first: ["langgenius/gemini", OLLAMA, "langgenius/xinference"], second: []}
    extract(instance, path)
    assert len(path.read_text().splitlines()) == 4


def test_a_newer_release_finds_no_workspace_in_an_older_schema_and_ends_with_0(make: Make, tmp_path: Path) -> None:
    instance = make("1.12.1", "0.15.3")
    workspace(instance, "ollama")
    done = extract(instance, tmp_path / "plugins.jsonl")
    assert done.returncode == 0
    assert "Failed to process tenant" in done.stderr
    assert not (tmp_path / "plugins.jsonl").exists()


@pytest.mark.parametrize("release", ["0.15.3", "1.0.0", "1.14.1"])
def test_commands_exist_from_their_release_on(make: Make, release: str) -> None:
    instance = make(release)
    known = {
        "migrate-data-for-plugin": release != "0.15.3",
        "backfill-plugin-auto-upgrade": False,
        "data-migrate legacy-model-types": False,
    }
    for command, there in known.items():
        done = instance.flask(*command.split())
        assert done.returncode == (0 if there else 2), done.stderr
        assert ("No such command" in done.stderr) is not there


def test_a_question_that_nobody_answers_ends_the_command(make: Make) -> None:
    done = subprocess.run(
        [interpreter(), "-m", "standin.api.flask_cli", "extract-plugins"],
        check=False,
        capture_output=True,
        text=True,
        env=make("1.0.0").environment,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (1, "Aborted!\n")


def test_identifiers_without_a_marketplace_are_missing_and_the_code_is_0(
    make: Make, market: Market, tmp_path: Path
) -> None:
    instance = make("1.0.0")
    given, told = tmp_path / "in", tmp_path / "out"
    given.write_text(json.dumps({"tenant_id": str(uuid.uuid4()), "plugins": [OLLAMA]}) + "\n")
    command = ("extract-unique-identifiers", "--input_file", str(given), "--output_file", str(told))
    assert instance.flask(*command).returncode == 0
    assert json.loads(told.read_text()) == {"plugins": {}, "plugin_not_exist": [OLLAMA]}
    assert instance.flask(*command, MARKETPLACE_API_URL=market.url).returncode == 0
    found = json.loads(told.read_text())
    assert found["plugins"][OLLAMA].startswith(f"{OLLAMA}:0.0.6@")
    assert found["plugin_not_exist"] == []


@pytest.mark.parametrize(("release", "version"), [("1.0.0", "0.0.3"), ("1.12.1", "0.5.3"), ("1.16.0", "0.6.3")])
def test_installing_ends_with_0_whatever_came_of_it(
    make: Make, market: Market, daemon: Callable[[str], harness.Daemon], tmp_path: Path, release: str, version: str
) -> None:
    instance, service = make(release), daemon(version)
    instance.environment |= {"PLUGIN_DAEMON_URL": service.url, "PLUGIN_DAEMON_KEY": harness.KEY}
    tenant = workspace(instance)
    given, told = tmp_path / "in", tmp_path / "out"
    given.write_text(json.dumps({"tenant_id": tenant, "plugins": [OLLAMA]}) + "\n")

    def install(**environment: str) -> subprocess.CompletedProcess[str]:
        told.unlink(missing_ok=True)
        command = ("install-plugins", f"--input_file={given}", f"--output_file={told}", "--workers=2")
        return instance.flask(*command, **environment)

    def listed() -> list[Any]:
        sql = "SELECT tenant_id::text, plugin_id, source FROM plugin_installations"
        return list(instance.postgres.query(sql, database=service.database))

    done = install()
    named = [{"tenant_id": tenant, "plugin_not_exist": [OLLAMA]}] if release == "1.16.0" else []
    assert (done.returncode, listed()) == (0, [])
    assert json.loads(told.read_text()) == {"not_installed": named, "plugin_install_failed": []}
    done = install(MARKETPLACE_API_URL=market.url)
    assert (done.returncode, listed()) == (0, [(tenant, OLLAMA, "marketplace")]), done.stderr
    gone = install(MARKETPLACE_API_URL=market.url, PLUGIN_DAEMON_URL="http://127.0.0.1:1")
    assert (gone.returncode, told.exists()) == (1, False)


def test_names_get_their_prefix_in_every_table_and_reranking_only_beside_an_embedding(make: Make) -> None:
    instance = make("1.12.1")
    tenant = workspace(instance, "ollama")
    rerank = json.dumps({"reranking_model": {"reranking_provider_name": "jina"}})
    for name, provider in (("with", "ollama"), ("without", "")):
        query(
            instance,
            "INSERT INTO datasets (tenant_id, name, created_by, embedding_model_provider, retrieval_model) "
            "VALUES (%s, %s, %s, %s, %s)",
            tenant,
            name,
            str(uuid.uuid4()),
            provider,
            rerank,
        )
    done = instance.flask("migrate-data-for-plugin")
    assert done.returncode == 0
    assert "Migrate [providers] data for plugin completed, total: 1" in done.stdout
    assert query(instance, "SELECT provider_name FROM providers") == [(LONG,)]
    sql = (
        "SELECT embedding_model_provider, retrieval_model->'reranking_model'->>'reranking_provider_name' FROM datasets"
    )
    assert query(instance, f"{sql} ORDER BY name") == [(LONG, "langgenius/jina/jina"), ("", "jina")]
    again = instance.flask("migrate-data-for-plugin")
    assert "total: 1" not in again.stdout
    assert "total: 0" in again.stdout


def test_colliding_names_are_an_endless_loop_first_and_a_traceback_later(make: Make) -> None:
    instance = make("1.0.0")
    tenant = workspace(instance, "ollama", LONG)
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run(
            [interpreter(), "-m", "standin.api.flask_cli", "migrate-data-for-plugin"],
            check=False,
            capture_output=True,
            env=instance.environment,
            timeout=4,
        )
    done = instance.flask("migrate-data-for-plugin", STANDIN_VERSION="1.12.1")
    assert done.returncode == 1
    assert "unique_provider_name_type_quota" in done.stderr
    found = query(instance, "SELECT provider_name FROM providers WHERE tenant_id = %s ORDER BY 1", tenant)
    assert found == [(LONG,), ("ollama",)]


def types(instance: Instance, table: str) -> list[str]:
    return [row[0] for row in query(instance, f"SELECT model_type FROM {table} ORDER BY 1")]


def test_model_types_are_shortened_only_when_told_and_doubles_are_merged(make: Make, tmp_path: Path) -> None:
    instance = make("1.15.0")
    tenant = workspace(instance)
    for table, kinds in {
        "tenant_default_models": ("llm", "text-generation"),
        "provider_models": ("embeddings",),
    }.items():
        for kind in kinds:
            query(
                instance,
                f"INSERT INTO {table} (tenant_id, provider_name, model_name, model_type) VALUES (%s, %s, 'm', %s)",
                tenant,
                LONG,
                kind,
            )
    dry = instance.flask("data-migrate", "legacy-model-types")
    events = [json.loads(line)["event"] for line in dry.stdout.splitlines()]
    assert (dry.returncode, events.count("row_updated"), events.count("row_deleted")) == (0, 2, 1)
    assert types(instance, "tenant_default_models") == ["llm", "text-generation"]
    applied = instance.flask("data-migrate", "legacy-model-types", "--apply", f"--output={tmp_path / 'events'}")
    assert (applied.returncode, applied.stdout) == (0, "")
    assert '"row_deleted"' in (tmp_path / "events").read_text()
    assert types(instance, "tenant_default_models") == ["llm"]
    assert types(instance, "provider_models") == ["text-embedding"]
    assert "row_" not in instance.flask("data-migrate", "legacy-model-types").stdout


def test_each_category_gets_its_strategy_and_models_the_newest(make: Make) -> None:
    instance = make("1.15.0")
    tenant = workspace(instance)
    table = "tenant_plugin_auto_upgrade_strategies"
    query(instance, f"INSERT INTO {table} (tenant_id) VALUES (%s)", tenant)
    dry = instance.flask("backfill-plugin-auto-upgrade", "--dry-run")
    assert dry.stdout.splitlines()[0] == "Found 1 candidate tenants."
    assert query(instance, f"SELECT count(*) FROM {table}") == [(1,)]
    done = instance.flask("backfill-plugin-auto-upgrade")
    assert "backfilled=1, created_rows=5, normalized=0, skipped=0, failed=0" in done.stdout
    found: dict[Any, Any] = dict(query(instance, f"SELECT category, strategy_setting FROM {table}"))
    assert len(found) == 6
    assert {name for name, setting in found.items() if setting == "latest"} == {"model"}
    assert "Found 0 candidate tenants." in instance.flask("backfill-plugin-auto-upgrade").stdout


def test_commands_lie_fail_and_hang_when_they_are_told_to(make: Make) -> None:
    instance = make("1.12.1")
    workspace(instance, "ollama")
    told = instance.home / "faults.json"
    told.write_text('{"migrate-data-for-plugin": "lies"}')
    lied = instance.flask("migrate-data-for-plugin")
    assert (lied.returncode, lied.stdout) == (0, "Migrate data for plugin completed.\n")
    assert query(instance, "SELECT provider_name FROM providers") == [("ollama",)]
    told.write_text('{"migrate-data-for-plugin": "fail"}')
    assert instance.flask("migrate-data-for-plugin").returncode == 1
    told.write_text('{"migrate-data-for-plugin": "hang"}')
    command = [interpreter(), "-m", "standin.api.flask_cli", "migrate-data-for-plugin"]
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run(command, check=False, capture_output=True, env=instance.environment, timeout=2)
