"""dify_health in every broken state: the right check fails, says what was found and advises what to do.

All states are played by one fixture, in their order, on one workspace with a plugin, models and chat apps.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from shlex import join, quote
from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils._dify_versions import HEADS
from database import empty, sql
from health import Answer, State, answers
from node import MACHINE
from owner import PROVIDER
from workspace import CREDENTIALS, MODELS, PLUGIN, Workspace, keep, put_back

SQL = f"{sql()} -c"
OLDER_HEAD = f"""{SQL} "update alembic_version set version_num = '{HEADS["1.11.4"]}'" """
COMPOSE = "docker compose --project-directory /opt/dify/current -p dify"
# A Debian node has no curl of its own.
CURL = "docker exec dify-worker-1 curl -sf"
# Made before the states are played, and put in by Ansible's templates.
GOOD_KEY, EMPTY_KEY, SECOND = "{{ good_key }}", "{{ empty_key }}", "{{ second_plugin }}"
INSTALL = {"plugin_unique_identifiers": [SECOND], "source": "package", "metas": [{}]}
CHAT = join(
    [
        *["curl", "-sm", "60", "-H", f"Authorization: Bearer {GOOD_KEY}", "--json"],
        json.dumps({"inputs": {}, "query": "hi", "response_mode": "streaming", "user": "u"}),
        "http://nginx/v1/chat-messages",
    ]
)
PLUGINS = {"expect_plugins": [PLUGIN], "expect_providers": [PROVIDER]}


def eventually(command: str) -> str:
    return f"timeout 40 sh -c 'until {command}; do sleep 0.3; done' >/dev/null 2>&1"


def model(name: str, base_url: str = MODELS, **options: Any) -> dict[str, Any]:
    probed = {"plugin_id": PLUGIN, "provider": "ollama", "model": name, **options}
    return {
        "probe": "model",
        "probe_timeout": 3,
        "probe_model": {**probed, "credentials": {**CREDENTIALS, "base_url": base_url}},
    }


def asked(name: str, detail: str, advice: str, base_url: str = MODELS) -> State:
    return State(f"model {name} at {base_url}", {"model": (detail, advice)}, options=model(name, base_url))


def stopped(service: str) -> tuple[str, str]:
    return rf"{service} (was stopped|exited with code \d+)", f"docker (start|logs) dify-{service}-1"


def stop(service: str) -> dict[str, str]:
    """A container that is killed by its operator stays down until it is started again."""
    return {"provoke": f"docker kill dify-{service}-1", "mend": f"docker start dify-{service}-1"}


NO_REDIS = ("cannot use Redis", "Check the Redis container")
NO_DATABASE = ("cannot use PostgreSQL", "Check the PostgreSQL container")

STATES = [
    State(
        "well",
        options={
            **PLUGINS,
            **model("llama3.2"),
            "model_servers": [MODELS],
            "probe": "llm",
            "traces": {"backend": "phoenix", "url": "http://127.0.0.1:6006", "collector": "otel_collector"},
            "probe_timeout": 30,
            "app_key": GOOD_KEY,
        },
    ),
    State("embedding", options=model("nomic", model_type="text-embedding")),
    # Wrong options: what is expected is not what is there.
    State(
        "other release expected, wrong key",
        {
            "api": (r"Dify 1\.12\.1 runs, expected was 1\.13\.3", "Run site.yml, which goes over to 1.13.3"),
            "daemon_key": (r"refuses the key \(HTTP 401\)", "PLUGIN_DAEMON_KEY must be the same"),
        },
        options={"expect_version": "1.13.3", "plugin_daemon_key": "x" * 48},
    ),
    State(
        "other plugin version, no such provider",
        {
            "plugins": (r"installed in version 0\.\d\.0, expected was 9\.9\.9", "upgrade call"),
            "providers": ("No installed plugin brings .*openai", "Install the plugin of that provider"),
        },
        options={"expect_plugins": [f"{PLUGIN}:9.9.9"], "expect_providers": ["openai"]},
    ),
    State(
        "plugin missing",
        {"plugins": ("langgenius/openai is not installed", "Install it")},
        options={"expect_plugins": ["langgenius/openai"]},
    ),
    # The model server, asked through the plugin.
    asked("missing", "404.*not found", "pull the model there"),
    asked("e500", "status code 500", "read its log"),
    asked("drop", "broke off after 1 piece", "closed the connection"),
    asked("garbage", "not JSON", "base_url leads to a proxy"),
    asked("empty", "answer is empty", "Ask the model server itself"),
    asked("hang", "no complete answer within 3 s", "server hangs or is still loading"),
    asked("llama3.2", "cannot be reached", "never localhost", "http://localhost:11434"),
    asked("llama3.2", "name is unknown", "resolved inside the plugin_daemon container", "http://nowhere.invalid:1"),
    # The model, asked through Dify.
    State(
        "app key is wrong",
        {"llm": (r"refuses the app key \(HTTP 401\)", "new API key")},
        options={"probe": "llm", "app_key": "app-" + "x" * 24},
    ),
    State(
        "chat is empty",
        {"llm": ("its answer is empty", "Ask the model server itself")},
        options={"probe": "llm", "app_key": EMPTY_KEY},
    ),
    State(
        "model server hangs",
        {"llm": ("no complete answer within 2 s", "ask the model server itself, then restart the api")},
        provoke="docker pause models",
        mend="docker unpause models",
        options={"probe": "llm", "app_key": GOOD_KEY, "probe_timeout": 2},
    ),
    State(
        "model server gone",
        {"llm": ("model server's name is unknown", "Model addresses are resolved inside the plugin_daemon container")},
        provoke="docker stop -t 0 models",
        mend="docker start models",
        options={"probe": "llm", "app_key": GOOD_KEY},
    ),
    # An API with three slots and another inner key than the daemon's. Four chats wait for a model server that hangs.
    State(
        "inner keys differ, worker slots full",
        {
            "api": ("2 s", "All worker slots of the api container are taken"),
            "daemon_key": ("INNER_API_KEY_FOR_PLUGIN of api differs from DIFY_INNER_API_KEY", "recreate api, worker"),
        },
        provoke=f"""
          SERVER_WORKER_CONNECTIONS=3 PLUGIN_DIFY_INNER_API_KEY=other {COMPOSE} up -d --no-deps api
          {eventually(f"{CURL} -m 2 http://nginx/console/api/ping")}
          docker pause models
          docker exec -d dify-worker-1 sh -c {quote(f"for _ in 1 2 3 4; do {CHAT} & done; wait")}
          sleep 2""",
        mend=f"docker unpause models; {COMPOSE} up -d --no-deps api",
        options={"timeout": 2},
    ),
    # The plugin's process.
    State(
        "plugin hangs",
        {"plugin_process": ("took the call and never answered", "restart it")},
        switch=("plugin_daemon", "plugin=hang"),
        options={"probe": "process", "timeout": 2},
    ),
    State(
        "plugin is dead",
        {"plugin_process": ("dead or crashes again and again", "read the log of plugin_daemon")},
        switch=("plugin_daemon", "plugin=dead"),
        options={"probe": "process", **PLUGINS},
    ),
    State(
        "plugin crashes again and again",
        {"plugin_process": ("dead or crashes again and again", "read the log of plugin_daemon")},
        switch=("plugin_daemon", "plugin=crashloop"),
        options={"probe": "process"},
    ),
    State(
        "installation hangs",
        {"install_tasks": (r"langgenius/second has been running for \d+ s", "delete the task and install again")},
        switch=("plugin_daemon", "install=slow:15"),
        provoke=f"""
          tenant=$({sql("psql -U postgres -d dify -At -c 'select id from tenants'")})
          key=$(sed -n 's/.*"PLUGIN_DAEMON_KEY": *"\\([^"]*\\).*/\\1/p' /opt/dify/secrets.json)
          {CURL} -H "X-Api-Key: $key" -H 'Content-Type: application/json' \\
            -d {quote(json.dumps(INSTALL))} \\
            "http://plugin_daemon:5002/plugin/$tenant/management/install/identifiers"
          sleep 3""",
        options={"install_limit": 1},
    ),
    # Containers and what is in them.
    State(
        "web hangs",
        {"web": ("2 s", "docker logs. of the web container, and restart it")},
        switch=("web", "web=hang"),
        options={"timeout": 2},
    ),
    State(
        "web stopped",
        {
            "web": ("nginx gets nothing from web: its container is exited", "docker compose logs web"),
            "containers": stopped("web"),
        },
        **stop("web"),
    ),
    State(
        "nginx stopped",
        {
            "api": ("refuses connections", "Start the nginx container"),
            "web": ("refuses connections", "Start the nginx container"),
            "containers": stopped("nginx"),
        },
        **stop("nginx"),
    ),
    State(
        "redis stopped",
        {
            "containers": stopped("redis"),
            "plugins": NO_REDIS,
            "providers": NO_REDIS,
        },
        **stop("redis"),
    ),
    State(
        "database of another release",
        {"database_head": (r"\(the head of Dify 1\.11\.4\), but Dify 1\.12\.1 needs", "flask db upgrade")},
        provoke=f"{SQL} 'create table head as table alembic_version' && {OLDER_HEAD}",
        mend=f'{SQL} "update alembic_version set version_num = h.version_num from head h; drop table head"',
    ),
    State(
        "database never migrated",
        {"database_head": ("alembic_version.*does not exist", "the migration never ran: run `flask db upgrade`")},
        provoke=f'{SQL} "alter table alembic_version rename to elsewhere"',
        mend=f'{SQL} "alter table elsewhere rename to alembic_version"',
    ),
    State(
        "worker crashes again and again",
        {
            "containers": (
                r"worker restarts again and again \(\d+ times.*\), last words: .+",
                "docker logs dify-worker-1",
            )
        },
        switch=("worker", "worker.start=crash"),
        provoke="docker restart -t 1 dify-worker-1 && sleep 3",
        mend="docker restart -t 1 dify-worker-1",
    ),
    State(
        "api stopped",
        {
            "api": ("nginx gets nothing from api: its container is exited", "docker compose logs api"),
            "containers": stopped("api"),
        },
        **stop("api"),
    ),
    State(
        "postgres stopped",
        {
            "setup": ("cannot read its database", "Check the PostgreSQL container"),
            "database_head": ("dify-db_postgres-1 is exited", "see why the database does not answer"),
            "containers": stopped("db_postgres"),
            "plugins": NO_DATABASE,
            "providers": NO_DATABASE,
            "install_tasks": NO_DATABASE,
        },
        **stop("db_postgres"),
    ),
    State(
        "daemon stopped",
        {"containers": stopped("plugin_daemon"), "daemon": ("refuses connections", "Start plugin_daemon")},
        **stop("plugin_daemon"),
    ),
    State("all mended", options={"deadline": 90, **PLUGINS, "probe": "llm", "app_key": GOOD_KEY}),
]


@pytest.fixture(scope="module")
def played() -> Iterator[dict[str, Answer]]:
    """Every state played once; the node is afterwards as it was before."""
    keep(MACHINE)
    workspace = Workspace(MACHINE)
    try:
        keys = {}
        for name, model_name in (("good_key", "llama3.2"), ("empty_key", "empty")):
            workspace.add_model(model_name)
            keys[name] = workspace.chat_key(model_name)
        yield answers(STATES, second_plugin=workspace.upload("langgenius/second", "0.0.1"), **keys)
    finally:
        workspace.uninstall_new()
        put_back(MACHINE)


def test_without_an_owner() -> None:
    """Nothing is wrong with an installation that nobody has set up yet."""
    keep(MACHINE)
    try:
        empty(MACHINE)
        answer = answers([State("new")])["new"]
    finally:
        put_back(MACHINE)
    answer.found({})
    assert "no owner account yet" in answer.checks["setup"]["detail"]
    assert answer.checks["plugins"]["status"] == "ok"


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.name)
def test_state(played: dict[str, Answer], state: State) -> None:
    played[state.name].found(state.finds)


def test_seconds(played: dict[str, Answer]) -> None:
    """All checks but those of a chat are over within two seconds when nothing is wrong."""
    answer = played["well"]
    assert {check["status"] for check in answer.checks.values()} == {"ok"}, answer
    assert answer.seconds(without=("llm", "traces")) < 2, answer
