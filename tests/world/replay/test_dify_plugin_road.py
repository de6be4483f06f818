# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps around plugins and data commands, on the stand-ins of API and daemon, with what goes wrong with each."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import harness_daemon as harness
import pytest
from ansible_collections.llmops.stack.plugins.module_utils import _dify_data_commands as commands
from ansible_collections.llmops.stack.plugins.module_utils import _dify_plugin_files as files
from ansible_collections.llmops.stack.plugins.module_utils import _dify_plugin_installer as installer
from ansible_collections.llmops.stack.plugins.module_utils import _dify_plugin_road as road
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_needs import collisions, needs, short_names
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_context import Context, StepError
from instance_api import Instance, interpreter
from market import Market
from ports import free_port
from road import Database, Project, context
from standin.daemon_package import OFFICIAL_KEY, pack, read

OLLAMA = "langgenius/ollama"
LONG = "langgenius/ollama/ollama"
Make = Callable[..., Instance]


@pytest.fixture
def make(postgres: Any, redis_server: Any) -> Iterator[Make]:
    if not interpreter():
        pytest.skip("no Python with psycopg2, redis and yaml (Debian: python3-psycopg2 python3-redis python3-yaml)")
    made: list[Instance] = []

    def new(release: str, schema: str = "") -> Instance:
        made.append(Instance(release, postgres, redis_server, 24 + len(made)))
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
def daemon(
    postgres: Any, redis_server: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[harness.Daemon]:
    version = getattr(request, "param", "0.5.3")
    made = harness.Daemon(version, tmp_path / "daemon", postgres, redis_server, free_port())
    yield made
    made.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installer, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(installer, "SETTLE_SECONDS", 1.0)


def run(instance: Instance, sql: str) -> None:
    instance.postgres.query(sql, database=instance.database)


def workspace(instance: Instance, *providers: str) -> str:
    tenant = str(uuid.uuid4())
    run(instance, f"INSERT INTO tenants (id, name) VALUES ('{tenant}', 'w')")
    for name in providers:
        run(instance, f"INSERT INTO providers (tenant_id, provider_name) VALUES ('{tenant}', '{name}')")
    return tenant


def dataset(instance: Instance, tenant: str, embedding: str, reranking: str = "") -> None:
    model = json.dumps({"reranking_model": {"reranking_provider_name": reranking}})
    run(
        instance,
        "INSERT INTO datasets (tenant_id, name, created_by, embedding_model_provider, retrieval_model) "
        f"VALUES ('{tenant}', 'd', '{uuid.uuid4()}', '{embedding}', '{model}')",
    )


def workflow(instance: Instance, tenant: str, graph: str) -> None:
    run(
        instance,
        "INSERT INTO workflows (tenant_id, app_id, type, version, graph, features, created_by) "
        f"VALUES ('{tenant}', '{uuid.uuid4()}', 'workflow', 'draft', '{graph}', '{{}}', '{uuid.uuid4()}')",
    )


def step(instance: Instance, tmp_path: Path, name: str, plan: dict[str, Any] | None = None, **options: Any) -> Context:
    project = Project(instance, tmp_path, {})
    ctx = context(project, Database(instance), tmp_path / "evidence", plan or {}, **options)
    ctx.step = name
    return ctx


def ran(ctx: Context) -> list[list[str]]:
    project: Any = ctx.project
    return list(project.ran)


def evidence(ctx: Context) -> str:
    return (Path(ctx.folder) / "steps.log").read_text()


# What the workspaces need


def test_needs_are_read_from_tables_knowledge_bases_and_texts(make: Make) -> None:
    instance = make("1.0.0", "0.15.3")
    first, second = workspace(instance, "ollama", "google"), workspace(instance)
    dataset(instance, second, "cohere", "jina")
    tool = {"data": {"type": "tool", "provider_type": "builtin", "provider_name": "jina"}}
    kept = {"data": {"type": "tool", "provider_type": "builtin", "provider_name": "time"}}
    model = {"data": {"type": "llm", "model": {"provider": "openai", "name": "m"}}}
    workflow(instance, first, json.dumps({"nodes": [tool, kept, model]}))
    workflow(instance, first, "")
    found = needs(Database(instance))
    assert found.sure == {first: {OLLAMA, "langgenius/gemini"}, second: {"langgenius/cohere", "langgenius/jina"}}
    assert found.mentioned == {first: {"langgenius/jina_tool", "langgenius/openai"}}
    assert found.unread == []


def test_a_text_that_is_no_json_leaves_the_tables_known(make: Make) -> None:
    instance = make("1.0.0", "0.15.3")
    tenant = workspace(instance, "ollama")
    workflow(instance, tenant, "{broken")
    found = needs(Database(instance))
    assert found.sure == {tenant: {OLLAMA}}
    assert [one.partition(":")[0] for one in found.unread] == ["workflows", "workflows"]


# The road


def beside(
    make: Make, market: Market, daemon: harness.Daemon, tmp_path: Path, **options: Any
) -> tuple[Context, Project]:
    """A 0.15.3 on its way to 1.12.1; the new daemon starts when compose is told to."""
    instance = make("1.12.1", "0.15.3")
    port = daemon.url.rpartition(":")[2]
    settings = {"PLUGIN_DAEMON_KEY": harness.KEY, "PLUGIN_DAEMON_PORT": port, "DB_PLUGIN_DATABASE": daemon.database}
    project = Project(instance, tmp_path, settings)
    project.on_run = daemon.start
    options = {"marketplace_url": market.url, "plugin_daemon_url": daemon.url, "plugin_timeout": 30, **options}
    ctx = context(project, Database(instance), tmp_path / "evidence", options.pop("plan", {}), **options)
    ctx.step = "fetch_plugins"
    return ctx, project


@pytest.fixture(autouse=True)
def no_files_of_a_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(road, "Database", lambda project: Database(project.instance))


def listed(daemon: harness.Daemon) -> list[tuple[Any, ...]]:
    sql = "SELECT tenant_id::text, plugin_id, source FROM plugin_installations ORDER BY 1"
    return list(daemon.postgres.query(sql, database=daemon.database))


@pytest.mark.parametrize("daemon", ["0.0.3", "0.5.3", "0.6.3"], indirect=True)
def test_plugins_are_installed_beside_the_old_release_and_only_looked_at_in_the_outage(
    make: Make, market: Market, daemon: harness.Daemon, tmp_path: Path
) -> None:
    ctx, project = beside(make, market, daemon, tmp_path)
    first, second, third = (workspace(project.instance, *names) for names in (("ollama",), ("ollama",), ()))
    road.fetch(ctx)
    (started,) = project.started
    assert started[:4] == ["1.12.1", "run", "-d", "--no-deps"]
    assert "DB_HOST" in started  # the database of the old release
    assert sorted(listed(daemon)) == sorted([(first, OLLAMA, "marketplace"), (second, OLLAMA, "marketplace")])
    assert ["stop", "-t", "10", "dify-plugin_daemon-next"] in project.docker.asked
    assert project.docker.asked[-1] == ["rm", "-f", "dify-plugin_daemon-next"]
    assert "could not read this schema" in evidence(ctx)
    assert project.environments == [{"DB_HOST": ctx.database.host, "DB_PORT": ctx.database.port}]
    asked = len(market.asked)
    ctx.step = "install_plugins"
    road.install(ctx)
    assert len(market.asked) == asked
    assert third not in [row[0] for row in listed(daemon)]


@pytest.mark.parametrize("before", [False, True])
def test_on_the_way_back_goes_what_was_not_there_before(
    make: Make, market: Market, daemon: harness.Daemon, tmp_path: Path, before: bool
) -> None:
    ctx, project = beside(make, market, daemon, tmp_path)
    workspace(project.instance, "ollama")
    storage = tmp_path / "volumes" / "plugin_daemon"
    storage.mkdir(parents=True)
    (storage / "own.json").write_text("{}")
    if before:
        ctx.database.sql(f"CREATE DATABASE {daemon.database}", "postgres")
    road.fetch(ctx)
    (storage / "plugin").mkdir()
    (storage / "link").symlink_to(storage / "own.json")
    road.unfetch(ctx)
    road.unfetch(ctx)
    assert ctx.database.exists(daemon.database) is before
    left = ["link", "own.json", "plugin"] if before else ["own.json"]
    assert sorted(one.name for one in storage.iterdir()) == left


def test_a_workspace_without_providers_needs_no_daemon(
    make: Make, market: Market, daemon: harness.Daemon, tmp_path: Path
) -> None:
    ctx, project = beside(make, market, daemon, tmp_path)
    workspace(project.instance)
    road.fetch(ctx)
    ctx.step = "install_plugins"
    road.install(ctx)
    assert project.started == []


def test_a_plugin_that_nobody_offers_stops_the_upgrade_unless_somebody_says_so(
    make: Make, market: Market, daemon: harness.Daemon, tmp_path: Path
) -> None:
    market.offer()
    ctx, project = beside(make, market, daemon, tmp_path)
    workspace(project.instance, "ollama")
    with pytest.raises(StepError, match=r"langgenius/ollama cannot be had.*has no version of") as refused:
        road.fetch(ctx)
    assert "missing_plugins" in refused.value.advice
    assert project.started == []
    accepted = {"plan": {"steps": [{"id": "fetch_plugins", "missing_ok": True}]}}
    ctx, project = beside(make, market, daemon, tmp_path, **accepted)
    workspace(project.instance, "ollama")
    road.fetch(ctx)
    assert "langgenius/ollama cannot be had" in evidence(ctx)


def test_a_plugin_that_only_a_text_mentions_may_be_missing(
    make: Make, market: Market, daemon: harness.Daemon, tmp_path: Path
) -> None:
    ctx, project = beside(make, market, daemon, tmp_path)
    tenant = workspace(project.instance, "ollama")
    workflow(project.instance, tenant, json.dumps({"nodes": [{"data": {"model": {"provider": "gone"}}}]}))
    market.offer(pack(OLLAMA, "0.0.6", key=OFFICIAL_KEY))
    own = {"plugin": "langgenius/gone", "package": str(tmp_path / "nothing.difypkg")}
    ctx.options.plugins = [own]
    with pytest.raises(StepError, match="dify_plugins"):
        road.fetch(ctx)


def test_a_package_of_the_operator_comes_before_the_marketplace(
    make: Make, market: Market, daemon: harness.Daemon, tmp_path: Path
) -> None:
    package = tmp_path / "ollama.difypkg"
    package.write_bytes(pack(OLLAMA, "0.0.7"))
    ctx, project = beside(make, market, daemon, tmp_path, plugins=[{"package": str(package)}])
    tenant = workspace(project.instance, "ollama")
    road.fetch(ctx)
    assert listed(daemon) == [(tenant, OLLAMA, "package")]
    assert market.asked == []


def test_a_package_that_comes_cut_is_not_taken(
    make: Make, market: Market, daemon: harness.Daemon, tmp_path: Path
) -> None:
    ctx, project = beside(make, market, daemon, tmp_path)
    workspace(project.instance, "ollama")
    market.packages = {name: data[: len(data) // 2] for name, data in market.packages.items()}
    with pytest.raises(StepError, match=r"langgenius/ollama cannot be had.*not whole"):
        road.fetch(ctx)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"install": "lies"}, "does not list the plugin"),
        ({"install": "fail:no route"}, "installation of langgenius/ollama 0.0.6 in workspace"),
        ({"plugin": "dead"}, "langgenius/ollama"),
    ],
)
def test_what_does_not_install_is_known_before_the_outage(
    make: Make, market: Market, daemon: harness.Daemon, tmp_path: Path, fault: dict[str, str], said: str
) -> None:
    ctx, project = beside(make, market, daemon, tmp_path, plugin_timeout=6)
    workspace(project.instance, "ollama")
    daemon.fault(**fault)
    with pytest.raises(StepError, match=said):
        road.fetch(ctx)
    assert project.docker.asked[-1] == ["rm", "-f", "dify-plugin_daemon-next"]
    assert (Path(ctx.folder) / "plugin_daemon-beside.log").read_text() == "said by the container"


# Names


def test_names_are_rewritten_and_looked_at(make: Make, tmp_path: Path) -> None:
    instance = make("1.12.1")
    workspace(instance, "ollama")
    ctx = step(instance, tmp_path, "plugin_names")
    road.names(ctx)
    assert short_names(ctx.database) == {}
    assert "Migrate data for plugin completed." in (Path(ctx.folder) / "plugin_names.log").read_text()
    road.names(ctx)
    assert len(ran(ctx)) == 1


def test_colliding_names_are_told_before_the_command_never_ends(make: Make, tmp_path: Path) -> None:
    instance = make("1.0.0")
    tenant = workspace(instance, "ollama", LONG, "openai")
    ctx = step(instance, tmp_path, "plugin_names")
    assert collisions(ctx.database) == [f"providers: ollama in workspace {tenant}"]
    with pytest.raises(StepError, match=rf"providers: ollama in workspace {tenant}"):
        road.names(ctx)
    assert ran(ctx) == []


@pytest.mark.parametrize(
    ("fault", "said"), [("lies", "exit code 0"), ("fail", "exit code 1"), ("hang", "did not end within")]
)
def test_a_command_is_judged_by_what_it_changed(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, said: str
) -> None:
    monkeypatch.setattr(commands, "START_SECONDS", 2.0)
    instance = make("1.16.0")
    tenant = workspace(instance, "ollama")
    run(
        instance,
        "INSERT INTO tenant_default_models (tenant_id, provider_name, model_name, model_type) "
        f"VALUES ('{tenant}', 'ollama', 'm', 'text-generation')",
    )
    run(instance, f"INSERT INTO {commands.STRATEGIES} (tenant_id) VALUES ('{tenant}')")
    told = ("migrate-data-for-plugin", "legacy-model-types", "backfill-plugin-auto-upgrade")
    (instance.home / "faults.json").write_text(json.dumps(dict.fromkeys(told, fault)))
    for name, function in (
        ("plugin_names", road.names),
        ("legacy_model_types", commands.legacy_model_types),
        ("plugin_auto_upgrade", commands.plugin_auto_upgrade),
    ):
        with pytest.raises(StepError, match=said):
            function(step(instance, tmp_path, name))


# The other commands


def test_old_model_types_are_renamed_once(make: Make, tmp_path: Path) -> None:
    instance = make("1.16.0")
    tenant = workspace(instance)
    for kind in ("llm", "text-generation", "reranking"):
        run(
            instance,
            "INSERT INTO tenant_default_models (tenant_id, provider_name, model_name, model_type) "
            f"VALUES ('{tenant}', '{LONG}', 'm', '{kind}')",
        )
    ctx = step(instance, tmp_path, "legacy_model_types")
    commands.legacy_model_types(ctx)
    rows = ctx.database.sql("SELECT model_type FROM tenant_default_models ORDER BY 1")
    assert rows == [["llm"], ["rerank"]]
    assert "2 rows have the new names of their model types, 1 doubles were merged" in evidence(ctx)
    commands.legacy_model_types(ctx)
    assert len(ran(ctx)) == 1


def test_updates_of_models_stay_what_the_workspace_had_chosen(make: Make, tmp_path: Path) -> None:
    instance = make("1.16.0")
    fixed, newest = workspace(instance), workspace(instance)
    for tenant, setting in ((fixed, "fix_only"), (newest, "latest")):
        run(
            instance,
            f"INSERT INTO {commands.STRATEGIES} (tenant_id, strategy_setting) VALUES ('{tenant}', '{setting}')",
        )
    ctx = step(instance, tmp_path, "plugin_auto_upgrade")
    commands.plugin_auto_upgrade(ctx)
    rows = ctx.database.sql(
        f"SELECT tenant_id::text, strategy_setting, count(*) FROM {commands.STRATEGIES} GROUP BY 1, 2"
    )
    assert sorted(rows) == sorted([[fixed, "fix_only", "6"], [newest, "latest", "6"]])


# Files and rows


def test_files_and_rows_are_brought_together(
    make: Make, market: Market, daemon: harness.Daemon, tmp_path: Path
) -> None:
    daemon.start()
    instance = make("1.12.1")
    tenant, home = workspace(instance), tmp_path / "home"
    kept, gone, lost = (read(pack(OLLAMA, version)).identifier for version in ("0.0.1", "0.0.2", "0.0.3"))
    market.offer(pack(OLLAMA, "0.0.2"))
    for number, name in enumerate((kept, gone, lost)):
        instance.postgres.query(
            "INSERT INTO plugin_installations (tenant_id, plugin_id, plugin_unique_identifier, runtime_type) "
            "VALUES (%s, %s, %s, 'local')",
            tenant,
            f"{OLLAMA}{number}",
            name,
            database=daemon.database,
        )
    root = home / "volumes" / "plugin_daemon"
    for folder in ("plugin", "plugin_packages"):
        (root / folder / "langgenius").mkdir(parents=True)
    stray = read(pack(OLLAMA, "0.0.9")).identifier
    (root / "plugin" / stray).write_bytes(pack(OLLAMA, "0.0.9"))
    (root / "plugin_packages" / kept).write_bytes(pack(OLLAMA, "0.0.1"))
    (root / "plugin_packages" / lost).write_bytes(pack(OLLAMA, "0.0.4"))  # another package under its name
    said: list[str] = []
    database: Any = Database(instance, daemon.database)
    done = files.mend({}, str(home), database, str(tmp_path / "aside"), market.url, said.append)
    assert (done.moved, sorted(done.restored), done.lost) == ([stray], sorted([kept, gone]), [lost])
    assert sorted(one.name for one in (root / "plugin" / "langgenius").iterdir()) == sorted(
        name.partition("/")[2] for name in (kept, gone)
    )
    assert (tmp_path / "aside" / stray).is_file()
    assert "another content" in "".join(said)
    assert not files.mend({}, str(home), database, str(tmp_path / "aside"), market.url, said.append).changed


def test_without_the_daemons_tables_no_file_is_a_stray(make: Make, tmp_path: Path) -> None:
    instance = make("1.12.1")
    place = tmp_path / "volumes" / "plugin_daemon" / "plugin" / "langgenius"
    place.mkdir(parents=True)
    (place / f"ollama:0.0.1@{'a' * 64}").write_text("x")
    said: list[str] = []
    database: Any = Database(instance, instance.database)
    assert not files.mend({}, str(tmp_path), database, str(tmp_path / "aside"), "", said.append).changed
    assert "not compared" in said[0]
