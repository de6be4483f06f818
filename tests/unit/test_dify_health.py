"""Each broken state of a Dify installation: the right check fails, and its advice leads to the cause."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils._dify_health import CHECKS, check_health
from ansible_collections.llmops.stack.plugins.module_utils._dify_health_engine import Look, Options, Verdict, explain
from ansible_collections.llmops.stack.plugins.module_utils._dify_health_host import check_containers
from ansible_collections.llmops.stack.plugins.module_utils._dify_health_models import _ASK
from ansible_collections.llmops.stack.tests.unit.servers import daemon as wire
from ansible_collections.llmops.stack.tests.unit.servers import dify as web
from ansible_collections.llmops.stack.tests.unit.servers.daemon import KEY, PLUGIN, TENANT, FakeDaemon
from ansible_collections.llmops.stack.tests.unit.servers.dify import APP_KEY, FakeDify
from ansible_collections.llmops.stack.tests.unit.servers.docker import DATABASE_PASSWORD, SECRET, FakeDocker
from ansible_collections.llmops.stack.tests.unit.servers.scripted import Reply, Request, Scripted, as_json, events

MODEL_SECRET = "model-api-key-777"
SERVER = "http://host.docker.internal:11434"
NAMES = [check.name for check in CHECKS]


class Stack:
    """Dify, its daemon and its containers, with a health check of all of it."""

    def __init__(self, docker: FakeDocker, dify: Scripted, daemon: Scripted) -> None:
        self.docker = docker
        self.dify_server, self.daemon_server = dify, daemon
        self.dify: Any = dify.answer
        self.daemon: Any = daemon.answer
        self.options = Options(
            url=dify.url,
            plugin_daemon_url=daemon.url,
            plugin_daemon_key=KEY,
            expect_version="1.12.1",
            expect_plugins=[f"{PLUGIN}:0.0.6"],
            expect_providers=["langgenius/ollama/ollama"],
            probe="llm",
            probe_model={
                "plugin_id": PLUGIN,
                "provider": "ollama",
                "model": "llama3.2",
                "model_type": "llm",
                "credentials": {"base_url": "http://ollama-host:11434", "api_key": MODEL_SECRET},
            },
            app_key=APP_KEY,
            tenant_id=TENANT,
            deadline=0,
            timeout=2.0,
            probe_timeout=2.0,
        )

    def check(self, **changes: Any) -> Verdict:
        for name, value in changes.items():
            setattr(self.options, name, value)
        verdict = check_health(self.options)
        assert [one.name for one in verdict.results] == NAMES
        said = explain(verdict, self.options) + repr([one.public() for one in verdict.results])
        for secret in (KEY, APP_KEY, SECRET, DATABASE_PASSWORD, MODEL_SECRET):
            assert secret not in said
        for one in verdict.results:
            assert one.detail.endswith("."), one
            assert (one.status == "failed") == bool(one.advice), one
        return verdict


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with ExitStack() as running:
        dify = running.enter_context(Scripted(FakeDify()).running())
        daemon = running.enter_context(Scripted(FakeDaemon()).running())
        yield Stack(FakeDocker(tmp_path, TENANT), dify, daemon)


@pytest.fixture
def host(stack: Stack) -> Stack:
    """The same, seen from the host that it runs on: containers and database are looked at."""
    stack.options.project, stack.options.tenant_id = "dify", ""
    return stack


def status(verdict: Verdict) -> dict[str, str]:
    return {one.name: one.status for one in verdict.results}


def failure(verdict: Verdict, name: str) -> tuple[str, str]:
    """Detail and advice of the check that must be the first failed one."""
    assert [one.name for one in verdict.results if one.status == "failed"][:1] == [name], verdict.results
    assert not verdict.healthy
    one = next(one for one in verdict.results if one.name == name)
    return one.detail, one.advice


def detail(verdict: Verdict, name: str) -> str:
    return next(one.detail for one in verdict.results if one.name == name)


def asked(*answers: dict[str, Any]) -> str:
    """What the question in a container prints about the model server."""
    return "".join(json.dumps({"url": SERVER, **answer}) + "\n" for answer in answers)


# Well


def test_everything_is_well_within_two_seconds(host: Stack) -> None:
    began = time.monotonic()
    host.docker.says("plugin_daemon", asked({"status": 200, "version": "0.17.4"}))
    verdict = host.check(model_servers=[SERVER])
    # Nobody said where a span would be; test_dify_health_traces.py does.
    assert status(verdict) == {**dict.fromkeys(NAMES, "ok"), "traces": "skipped"}
    assert verdict.healthy
    assert verdict.version == "1.12.1"
    assert time.monotonic() - began < 2


def test_without_an_owner_it_is_well(host: Stack) -> None:
    host.dify.setup = as_json({"step": "not_started", "setup_at": None})
    host.docker.database("head=788d3099ae3a\n")
    verdict = host.check(expect_plugins=[], expect_providers=[], probe="none")
    assert verdict.healthy
    assert "no owner account yet" in detail(verdict, "setup")
    assert detail(verdict, "plugins") == "No plugin is installed, and none is expected."


def test_a_plugin_without_any_workspace_is_missing(host: Stack) -> None:
    host.docker.database("head=788d3099ae3a\n")
    found, advice = failure(host.check(), "plugins")
    assert "no workspace" in found
    assert "owner account" in advice


def test_before_1_0_there_is_no_daemon(host: Stack) -> None:
    host.dify.version = "0.15.3"
    host.docker.database(f"head=a91b476a53de\ntenant={TENANT}\n")
    verdict = host.check(expect_version="0.15.3")
    assert verdict.healthy
    states = status(verdict)
    assert [states.pop(name) for name in ("model_servers", "traces")] == ["skipped"] * 2  # none was named
    skipped = ["daemon", "daemon_key", "plugins", "providers", "install_tasks", "plugin_process", "model"]
    assert [name for name in states if states[name] == "skipped"] == skipped
    assert all(detail(verdict, name) == "Dify 0.15.3 has no plugin daemon." for name in skipped)
    assert states["llm"] == "ok"
    assert not host.daemon_server.requests


def test_what_was_not_asked_for_is_skipped(stack: Stack) -> None:
    verdict = stack.check(plugin_daemon_key="", probe="none")
    assert verdict.healthy
    states = status(verdict)
    assert [name for name in NAMES if states[name] == "ok"] == ["api", "setup", "web", "daemon"]
    assert detail(verdict, "plugins") == "No plugin_daemon_key was given."
    assert detail(verdict, "containers") == "No project was given."


def test_probe_levels_include_the_ones_before(stack: Stack) -> None:
    for number, level in enumerate(("none", "process", "model", "llm")):
        states = status(stack.check(probe=level))
        assert [states[name] for name in ("plugin_process", "model", "llm")].count("ok") == number


def test_check_mode_leaves_no_conversation(stack: Stack) -> None:
    verdict = stack.check(read_only=True)
    assert verdict.healthy
    assert status(verdict)["llm"] == "skipped"
    assert not stack.dify_server.asked("/v1/chat-messages")


def test_an_embedding_model(stack: Stack) -> None:
    stack.options.probe_model.update(model="emb", model_type="text-embedding")
    verdict = stack.check(probe="model")
    assert "vector of 3 numbers" in detail(verdict, "model")
    sent = stack.daemon_server.asked(f"/plugin/{TENANT}/dispatch/text_embedding/invoke")[0].json()["data"]
    assert sent["texts"] == ["ping"]


def test_the_chat_is_asked_for_as_little_as_possible(stack: Stack) -> None:
    stack.check()
    sent = stack.dify_server.asked("/v1/chat-messages")[0].json()
    assert sent["auto_generate_name"] is False
    assert sent["response_mode"] == "streaming"
    assert sent["user"] == "llmops-health-check"


# api, setup, web


def closed_port() -> str:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}"


def test_nothing_listens(stack: Stack) -> None:
    url = closed_port()
    verdict = stack.check(url=url)
    found, advice = failure(verdict, "api")
    assert found == f"{url} refuses connections."
    assert "nginx" in advice
    assert detail(verdict, "setup") == "Not checked because api failed."
    assert url in explain(verdict, stack.options)


def test_a_full_api_worker_accepts_and_says_nothing(stack: Stack) -> None:
    stack.dify.ping = Reply(hang=True)
    found, advice = failure(stack.check(timeout=0.5), "api")
    assert "accepts connections but does not answer within 0.5 s" in found
    assert "worker slots" in advice
    assert "model server" in advice


@pytest.mark.parametrize(("code", "word"), [(502, "reload nginx"), (504, "does not answer")])
def test_nginx_without_an_api(stack: Stack, code: int, word: str) -> None:
    stack.dify.ping = web.html(code, web.NGINX_502)
    found, advice = failure(stack.check(), "api")
    assert f"HTTP {code}" in found
    assert word in advice


@pytest.mark.parametrize("ping", [web.html(502, web.NGINX_502), Reply(hang=True)], ids=["502", "hang"])
def test_a_stopped_api_is_named_whatever_nginx_makes_of_it(host: Stack, ping: Reply) -> None:
    host.dify.ping = ping
    host.docker.containers["api"]["State"].update(Status="exited", ExitCode=1)
    host.docker.write()
    found, advice = failure(host.check(timeout=1.0), "api")
    assert found == "nginx gets nothing from api: its container is exited."
    assert "docker compose logs api" in advice


def test_a_stopped_web_is_named(host: Stack) -> None:
    host.dify.web = web.html(504, web.NGINX_502)
    host.docker.containers["web"]["State"].update(Status="exited", ExitCode=1)
    host.docker.write()
    assert failure(host.check(), "web")[0] == "nginx gets nothing from web: its container is exited."


def test_web_hangs(stack: Stack) -> None:
    stack.dify.web = Reply(hang=True)
    found, advice = failure(stack.check(timeout=0.7), "web")
    assert "does not answer" in found
    assert "web container" in advice


def test_another_web_server(stack: Stack) -> None:
    stack.dify.ping = web.html(404, "<html>It works!</html>")
    found, advice = failure(stack.check(), "api")
    assert "not as Dify" in found
    assert "Another web server" in advice


def test_a_redirect_names_its_target(stack: Stack) -> None:
    stack.dify.ping = Reply(301, headers={"Location": "https://dify.example.com/console/api/ping"})
    found, advice = failure(stack.check(), "api")
    assert "redirects to https://dify.example.com" in found
    assert "Set url" in advice


def test_another_release_runs(stack: Stack) -> None:
    stack.dify.version = "1.11.4"
    found, advice = failure(stack.check(), "api")
    assert found == "Dify 1.11.4 runs, expected was 1.12.1."
    assert "Run site.yml" in advice


def test_postgresql_is_down_for_the_api(stack: Stack) -> None:
    stack.dify.setup = web.html(500, web.FLASK_500)
    found, advice = failure(stack.check(), "setup")
    assert "cannot read its database" in found
    assert "PostgreSQL" in advice


def test_web_is_gone(stack: Stack) -> None:
    stack.dify.web = web.html(502, web.NGINX_502)
    found, advice = failure(stack.check(), "web")
    assert "nothing from web" in found
    assert "web container" in advice


# database_head


def test_the_schema_is_of_an_older_release(host: Stack) -> None:
    host.docker.database(f"head=905527cc8fd3\ntenant={TENANT}\n")
    found, advice = failure(host.check(), "database_head")
    assert found == ("The database is at 905527cc8fd3 (the head of Dify 1.11.4), but Dify 1.12.1 needs 788d3099ae3a.")
    assert "flask db upgrade" in advice


def test_the_migration_never_ran(host: Stack) -> None:
    host.docker.database(
        "",
        'ERROR:  relation "alembic_version" does not exist\n'
        "LINE 1: select concat('head=', version_num) from alembic_version\n"
        "                                                 ^\n"
        'ERROR:  relation "tenants" does not exist\n',
    )
    found, advice = failure(host.check(), "database_head")
    assert 'relation "alembic_version" does not exist' in found
    assert "migration never ran" in advice


def test_an_unknown_release_tells_its_heads_itself(host: Stack) -> None:
    host.dify.version = "1.99.0"
    host.docker.says("api", "feedc0ffee00\n")
    found, _advice = failure(host.check(expect_version=""), "database_head")
    assert "Dify 1.99.0 needs feedc0ffee00" in found
    host.docker.database(f"head=feedc0ffee00\ntenant={TENANT}\n")
    assert status(host.check())["database_head"] == "ok"


def test_the_database_container_is_down(host: Stack) -> None:
    host.docker.containers["db_postgres"]["State"].update(Status="exited", ExitCode=137)
    host.docker.write()
    found, _advice = failure(host.check(), "database_head")
    assert "dify-db_postgres-1 is exited" in found


def test_a_database_elsewhere_is_read_through_the_api(host: Stack) -> None:
    del host.docker.containers["db_postgres"]
    host.docker.services.remove("db_postgres")
    host.docker.says("api", "788d3099ae3a (head)\n")
    host.docker.write()
    assert host.check(tenant_id=TENANT).healthy


def test_heads_from_migration_files(tmp_path: Path) -> None:
    from ansible_collections.llmops.stack.plugins.module_utils import _dify_health_host

    files = {
        "a": "revision = 'aaa'\ndown_revision = None\n",
        "b": "from x import y\nrevision: str = 'bbb'\ndown_revision: str = 'aaa'\n",
        "c": "revision = 'ccc'\ndown_revision = 'aaa'\n",
        "d": "revision = 'ddd'\ndown_revision = (\n    'bbb',\n    'ccc',\n)\n",
    }
    for name, text in files.items():
        (tmp_path / f"{name}.py").write_text(text)
    code = _dify_health_host._FIND_HEADS.replace("/app/api/migrations/versions", str(tmp_path))
    said = subprocess.run([sys.executable, "-"], input=code, capture_output=True, text=True, check=True).stdout
    assert said == "ddd\n"


# containers


Change = Callable[[FakeDocker], None]


def state(service: str, **changes: Any) -> Change:
    def change(docker: FakeDocker) -> None:
        restarts = changes.get("restarts")
        docker.containers[service]["RestartCount"] = restarts or 0
        of_state = {name: one() if callable(one) else one for name, one in changes.items() if name != "restarts"}
        docker.containers[service]["State"].update(of_state)

    return change


def just_now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.000000000Z")


@pytest.mark.parametrize(
    ("change", "found", "advised"),
    [
        (state("worker", Status="exited", ExitCode=1), "worker exited with code 1", "docker logs dify-worker-1"),
        (state("worker", Status="exited"), "worker was stopped", "docker start dify-worker-1"),
        # By a signal, and Docker did not start it again as it does with what ends by itself.
        (state("worker", Status="exited", ExitCode=137), "worker was stopped", "docker start dify-worker-1"),
        (
            state("worker", Status="restarting", ExitCode=3, restarts=7),
            "restarts again and again (7 times, exit code 3)",
            "logs",
        ),
        (state("worker", StartedAt=just_now, restarts=4), "restarts again and again (4 times)", "logs"),
        (state("redis", Health={"Status": "unhealthy", "Log": [{"Output": "NOAUTH"}]}), "unhealthy: NOAUTH", "logs"),
        (state("api", Health={"Status": "starting"}), "api is still starting", "deadline"),
        (state("plugin_daemon", Status="created"), "plugin_daemon was created but never started", "waits for"),
        (state("api", Status="exited", ExitCode=137, OOMKilled=True), "killed for want of memory", "more memory"),
        (state("init_permissions", ExitCode=1), "init_permissions exited with code 1", "logs"),
        (state("nginx", Status="paused"), "nginx is paused", "unpause"),
        (lambda docker: docker.containers.pop("worker"), "No container for worker", "docker compose up"),
        (lambda docker: docker.containers.clear(), "No container of the Compose project dify", "docker compose up"),
    ],
)
def test_containers(host: Stack, change: Change, found: str, advised: str) -> None:
    change(host.docker)
    host.docker.write()
    verdict = host.check(probe="none")
    one = next(one for one in verdict.results if one.name == "containers")
    assert not verdict.healthy
    assert found in one.detail
    assert advised in one.advice


def test_one_that_docker_has_not_looked_at_is_well_where_somebody_else_has(host: Stack) -> None:
    state("api", Health={"Status": "starting"})(host.docker)
    host.docker.write()
    assert host.check(probe="none", starting_is_well=True).healthy
    state("api", Health={"Status": "unhealthy"})(host.docker)
    host.docker.write()
    assert "api is unhealthy" in failure(host.check(starting_is_well=True), "containers")[0]


def test_the_advice_is_not_to_wait_where_something_else_is_wrong(host: Stack) -> None:
    state("api", Health={"Status": "starting"})(host.docker)
    state("worker", Status="exited", ExitCode=1)(host.docker)
    host.docker.write()
    found, advice = failure(host.check(), "containers")
    assert found.startswith("worker exited with code 1")
    assert found.endswith("api is still starting.")
    assert "docker logs dify-worker-1" in advice


def test_the_last_words_of_a_container_are_shown_without_secrets(host: Stack) -> None:
    state("worker", Status="exited", ExitCode=1)(host.docker)
    host.docker.write()
    host.docker.logs(
        "worker",
        f"connecting to redis://:{SECRET}@redis:6379\npassword = hunter2-hunter2\npostgresql://dify:pw-in-url@db/x\nboom\n",
    )
    found, _advice = failure(host.check(), "containers")
    assert "last words: " in found
    assert "boom" in found
    assert not any(secret in found for secret in ("hunter2", "pw-in-url", SECRET))


def test_no_part_of_a_secret_is_left_where_a_long_line_is_cut(host: Stack) -> None:
    state("worker", Status="exited", ExitCode=1)(host.docker)
    host.docker.write()
    host.docker.logs("worker", "x" * 185 + f" {SECRET} and more\n")
    assert SECRET[:8] not in failure(host.check(), "containers")[0]


def test_an_old_restart_is_no_failure(host: Stack) -> None:
    state("worker", restarts=3)(host.docker)
    host.docker.write()
    assert host.check().healthy


def test_a_restart_between_two_looks_is_one(host: Stack) -> None:
    first = Look(host.options)
    assert check_containers(first).status == "ok"
    state("worker", restarts=1)(host.docker)
    host.docker.write()
    second = Look(host.options, previous=first)
    assert "worker was restarted while it was watched" in check_containers(second).detail
    assert check_containers(Look(host.options, previous=second)).status == "ok"


def test_one_off_containers_are_not_looked_at(host: Stack) -> None:
    host.docker.containers["api-run"] = {**host.docker.containers["api"], "Id": "x", "State": {"Status": "exited"}}
    labels = host.docker.containers["api"]["Config"]["Labels"]
    host.docker.containers["api-run"]["Config"] = {"Labels": {**labels, "com.docker.compose.oneoff": "True"}}
    host.docker.write()
    assert host.check().healthy


def test_given_services_are_not_looked_up(host: Stack) -> None:
    found, _advice = failure(host.check(services=["api", "vault"]), "containers")
    assert "No container for vault" in found
    assert not [call for call in host.docker.calls() if call.startswith("compose")]


def test_docker_does_not_answer(host: Stack) -> None:
    host.docker.broken("Cannot connect to the Docker daemon at unix:///var/run/docker.sock.\n")
    verdict = host.check(tenant_id=TENANT)
    assert "Cannot connect to the Docker daemon" in detail(verdict, "containers")
    assert status(verdict)["model"] == "ok"


def test_one_ps_and_one_inspect_for_all(host: Stack) -> None:
    host.check()
    words = [call.split()[0] for call in host.docker.calls()]
    assert sorted(words) == ["compose", "exec", "inspect", "ps"]


# daemon, daemon_key, plugins, providers, install_tasks


def test_the_daemon_is_down(stack: Stack) -> None:
    verdict = stack.check(plugin_daemon_url=closed_port())
    found, advice = failure(verdict, "daemon")
    assert "refuses connections" in found
    assert "5002" in advice
    assert detail(verdict, "model") == "Not checked because daemon failed."
    assert status(verdict)["api"] == "ok"


def test_the_daemon_hangs(stack: Stack) -> None:
    stack.daemon.health = Reply(hang=True)
    found, advice = failure(stack.check(timeout=0.5), "daemon")
    assert "accepts connections but does not answer" in found
    assert "5003" in advice


def test_something_else_is_at_the_daemons_port(stack: Stack) -> None:
    stack.daemon.health = Reply(404, "404 page not found", "text/plain")
    found, advice = failure(stack.check(), "daemon")
    assert "not as a plugin daemon" in found
    assert "5002" in advice


def test_a_wrong_key(stack: Stack) -> None:
    found, advice = failure(stack.check(plugin_daemon_key="k-wrong-000000"), "daemon_key")
    assert found == "The plugin daemon refuses the key (HTTP 401)."
    assert "PLUGIN_DAEMON_KEY" in advice


@pytest.mark.parametrize(
    ("service", "variable"), [("worker", "PLUGIN_DAEMON_KEY"), ("api", "INNER_API_KEY_FOR_PLUGIN")]
)
def test_keys_that_must_be_equal_and_are_not(host: Stack, service: str, variable: str) -> None:
    env = host.docker.containers[service]["Config"]["Env"]
    env[:] = [f"{variable}=another-key-000" if pair.startswith(variable) else pair for pair in env]
    host.docker.write()
    found, advice = failure(host.check(), "daemon_key")
    assert f"{variable} of {service} differs" in found
    assert "another-key" not in found
    assert "recreate" in advice


@pytest.mark.parametrize(
    ("answer", "found", "advised"),
    [
        (wire.NO_TABLES, "has no tables", "commandline migrate"),
        (wire.POSTGRES_DOWN, "cannot use PostgreSQL", "DB_HOST"),
        (wire.POSTGRES_GONE, "cannot use PostgreSQL", "PostgreSQL container"),
        (wire.REDIS_DOWN, "cannot use Redis", "Redis container"),
    ],
)
def test_troubles_behind_the_daemon(stack: Stack, answer: str, found: str, advised: str) -> None:
    stack.daemon.management = Reply(200, answer)
    verdict = stack.check()
    said, advice = failure(verdict, "plugins")
    assert found in said
    assert advised in advice
    assert status(verdict)["daemon_key"] == "ok"
    assert status(verdict)["plugin_process"] == "skipped"


@pytest.mark.parametrize("bare", [True, False], ids=["0.0.3", "0.6.3"])
@pytest.mark.parametrize(
    ("wanted", "found", "advised"),
    [
        ("langgenius/openai", "Plugin langgenius/openai is not installed.", "Install it"),
        (f"{PLUGIN}:0.1.0", "in version 0.0.6, expected was 0.1.0", "upgrade call"),
        (f"{PLUGIN}:0.0.6@{'f' * 64}", "another package", "Uninstall"),
    ],
)
def test_a_plugin_is_not_as_expected(stack: Stack, bare: bool, wanted: str, found: str, advised: str) -> None:
    stack.daemon.bare_list = bare
    said, advice = failure(stack.check(expect_plugins=[wanted]), "plugins")
    assert found in said
    assert advised in advice


def test_plugins_as_expected(stack: Stack) -> None:
    assert stack.check(expect_plugins=[PLUGIN]).healthy
    assert stack.check(expect_plugins=[wire.IDENTIFIER]).healthy


def test_a_provider_is_missing(stack: Stack) -> None:
    found, _advice = failure(stack.check(expect_providers=["ollama", "langgenius/openai/openai"]), "providers")
    assert "langgenius/openai/openai" in found


def task(age: float, state: str) -> dict[str, Any]:
    created = datetime.now(timezone.utc) - timedelta(seconds=age)
    return {
        "status": state,
        "created_at": created.strftime("%Y-%m-%dT%H:%M:%S.129171Z"),
        "plugins": [{"plugin_unique_identifier": wire.IDENTIFIER}],
    }


def test_old_failed_tasks_and_young_running_ones_are_normal(stack: Stack) -> None:
    stack.daemon.tasks = [task(90000, "failed"), task(100, "running")]
    verdict = stack.check()
    assert verdict.healthy
    assert "1 old failed" in detail(verdict, "install_tasks")


def test_a_task_that_runs_too_long(stack: Stack) -> None:
    stack.daemon.tasks = [task(10, "running"), task(1000, "running")]
    found, advice = failure(stack.check(), "install_tasks")
    assert "langgenius/ollama has been running for 100" in found
    assert "install again" in advice


# plugin_process


@pytest.mark.parametrize(
    ("reply", "found", "advised"),
    [
        (Reply(404, wire.NOT_FOUND), "does not know the plugin", "install task"),
        (Reply(404, wire.NO_NODE), "never started (no available node)", "plugin_packages/"),
        (Reply(404, wire.NO_NODE_OLD), "never started (no available node)", "plugin_packages/"),
        (events(wire.NO_INSTANCE), "no proper instance", "restart plugin_daemon"),
        (events(wire.KILLED), "killed by timeout", "want of memory"),
        (Reply(500, "", "text/event-stream"), "HTTP 500 without a body", "environment is not ready"),
        (Reply(500, wire.REDIRECT), "a node that is gone", "Redis database"),
        (Reply(500, wire.REDIS_DOWN), "cannot use Redis", "Redis container"),
        (Reply(500, wire.NO_TABLES), "has no tables", "migrate"),
        (events(), "without saying anything", "log of plugin_daemon"),
        (Reply(hang=True), "never answered", "dead, stopped or crash-looping"),
        (events(ending="silence"), "never answered", "dead, stopped or crash-looping"),
    ],
)
def test_states_of_a_plugin(stack: Stack, reply: Reply, found: str, advised: str) -> None:
    stack.daemon.process = reply
    verdict = stack.check(timeout=0.7)
    said, advice = failure(verdict, "plugin_process")
    assert said.startswith("langgenius/ollama: ")
    assert found in said
    assert advised in advice
    assert detail(verdict, "llm") == "Not checked because plugin_process failed."


def test_a_plugin_that_refuses_empty_credentials_lives(stack: Stack) -> None:
    stack.daemon.process = events(wire.raised("CredentialsValidateFailedError", "api key is missing"))
    assert status(stack.check(probe="process"))["plugin_process"] == "ok"


def test_without_expectations_every_model_plugin_is_asked(stack: Stack) -> None:
    stack.daemon.models.append({"plugin_id": "langgenius/openai", "provider": "openai"})
    stack.check(expect_plugins=[], probe_model={}, probe="process")
    asked = stack.daemon_server.asked(f"/plugin/{TENANT}/dispatch/model/validate_provider_credentials")
    assert sorted(one.headers["x-plugin-id"] for one in asked) == ["langgenius/ollama", "langgenius/openai"]


# model


REFUSED = (
    "[models] Server Unavailable Error, HTTPConnectionPool(host='ollama-host', port=1): Max retries exceeded with url: "
    '/api/chat (Caused by NewConnectionError("Failed to establish a new connection: [Errno 111] Connection refused"))'
)
VOCABULARY = "HTTPSConnectionPool(host='x', port=443): Max retries exceeded with url: /gpt-2/encodings/main/vocab.bpe"
MISSING = '[models] Error: API request failed with status code 404: {"error": "model \\"missing\\" not found"}'
CHUNKS = (wire.chunk("Hello"), wire.chunk(" from"))


@pytest.mark.parametrize(
    ("reply", "found", "advised"),
    [
        (events(wire.raised("InvokeServerUnavailableError", REFUSED)), "cannot be reached", "host.docker.internal"),
        (events(wire.raised("InvokeError", MISSING)), "status code 404", "pull the model"),
        (
            events(wire.raised("InvokeError", "API request failed with status code 500: llama runner process")),
            "status code 500",
            "read its log",
        ),
        (events(*CHUNKS, wire.raised("ConnectionError", VOCABULARY)), "token vocabulary", "TIKTOKEN_CACHE_DIR"),
        (events(*CHUNKS, wire.raised("KeyError", "'done'")), "failed during its answer", "loses the real error"),
        (
            events(wire.raised("InvokeError", "[models] Error: No module named 'gevent.resolver'")),
            "No module named",
            "builds it again",
        ),
        (
            events(wire.raised("ValueError", "Model `ModelType.LLM` not found for provider `openai`")),
            "not found for provider",
            "short name",
        ),
        (events(wire.raised("InvokeError", "[Errno -2] Name or service not known")), "name is unknown", "base_url"),
        (events(wire.chunk("", {**wire.USAGE, "completion_tokens": 0}, "Non-JSON encountered.")), "not JSON", "proxy"),
        (events(wire.chunk("Hello")), "broke off after 1 piece(s)", "swallowed"),
        (events(wire.chunk(" ", wire.USAGE, "stop")), "its answer is empty", "thinking model"),
        (events(), "without saying anything", "plugin_daemon"),
        (events(*CHUNKS, wire.KILLED), "killed by timeout", "want of memory"),
        (events(wire.NO_INSTANCE), "no proper instance", "restart plugin_daemon"),
        (events(*CHUNKS, ending="torn"), "broke off its answer", "restarted during the call"),
        (events(*CHUNKS, ending="silence"), "no complete answer within 0.7 s", "hangs"),
        (Reply(hang=True), "no complete answer within 0.7 s", "probe_timeout"),
        (Reply(400, wire.error(-400, "Key: 'ModelType'")), "refuses the request: Key: 'ModelType'", "probe_model"),
        (events(wire.raised("SomethingNew", "x" * 999)), "SomethingNew: xxx", "model server"),
    ],
)
def test_states_of_a_model(stack: Stack, reply: Reply, found: str, advised: str) -> None:
    stack.daemon.invoke = reply
    verdict = stack.check(probe_timeout=0.7)
    said, advice = failure(verdict, "model")
    assert said.startswith("langgenius/ollama with llama3.2 at http://ollama-host:11434: ")
    assert found in said
    assert advised in advice
    assert len(said) < 450
    assert detail(verdict, "llm") == "Not checked because model failed."


@pytest.mark.parametrize("vectors", [[], [[]], [[0.0, 0.0]]])
def test_an_embedding_without_a_vector(stack: Stack, vectors: list[list[float]]) -> None:
    stack.options.probe_model.update(model_type="text-embedding")
    stack.daemon.invoke = events(wire.success({"model": "emb", "embeddings": vectors}))
    assert "no vector" in failure(stack.check(), "model")[0]


# llm


def plain(status: int, code: str, text: str) -> Reply:
    return as_json({"code": code, "message": text, "status": status}, status)


@pytest.mark.parametrize(
    ("reply", "found", "advised"),
    [
        (
            plain(400, "invalid_param", "Failed to request plugin daemon, url: plugin/x/management/models"),
            "the API cannot reach its plugin daemon",
            "PLUGIN_DAEMON_URL",
        ),
        (
            events(web.chat_error("Request to Plugin Daemon Service failed-500", "invalid_param")),
            "the API cannot reach its plugin daemon",
            "PLUGIN_DAEMON_URL",
        ),
        (
            events(web.chat_error('plugin daemon: {"error_type":"PluginDaemonUnauthorizedError"}, code: -401')),
            "refuses the key of the API",
            "PLUGIN_DAEMON_KEY",
        ),
        (plain(500, "internal_server_error", "Internal Server Error"), "inside Dify", "PLUGIN_DAEMON_KEY"),
        (
            events(web.chat_error("[ollama] Error: req_id:  no available node, plugin runtime not found")),
            "no available node",
            "plugin_packages/",
        ),
        (events(web.chat_error("[ollama] Error: req_id:  no proper instance")), "no proper instance", "restart"),
        (events(web.chat_error(REFUSED)), "cannot be reached", "host.docker.internal"),
        (plain(400, "invalid_param", "Provider langgenius/ollama/ollama does not exist."), "does not exist", "plugin"),
        (events(web.message(""), web.message_end(15)), "its answer is empty", "model server"),
        (events(web.message("Hello"), web.message_end(0)), "no token was counted", "swallowed"),
        (events(web.message("Hello")), "ended before its end", "cuts streams"),
        (events(web.message("Hello"), ending="torn"), "before its answer was complete", "nginx"),
        (web.html(502, web.NGINX_502), "HTTP 502", "api container"),
        (web.html(413, "<html>"), "not JSON", "nginx"),
        (plain(404, "not_found", "Conversation Not Exists."), "refused", "chat app"),
    ],
)
def test_states_of_a_chat(stack: Stack, reply: Reply, found: str, advised: str) -> None:
    stack.dify.chat = reply
    said, advice = failure(stack.check(), "llm")
    assert found in said
    assert advised in advice


def test_a_refused_app_key(stack: Stack) -> None:
    found, advice = failure(stack.check(app_key="app-wrong"), "llm")
    assert "401" in found
    assert "give it as app_key" in advice
    _found, advice = failure(stack.check(app_key="app-wrong", app_key_file="/opt/dify/probe.key"), "llm")
    assert advice == "Run dify_app, or role dify, again: it writes a key that is valid into /opt/dify/probe.key."


@pytest.mark.parametrize(
    ("usage", "words", "tokens"),
    [
        ({"completion_tokens": 12, "prompt_tokens": 30}, r": 12 tokens in \d+\.\d s, [0-9.]+ tokens/s", 12),
        ({"completion_tokens": 1}, r": 1 token in \d+\.\d s, [0-9.]+ tokens/s", 1),
        ({}, r": 42 tokens in \d+\.\d s, [0-9.]+ tokens/s", 42),
        ({"total_tokens": None}, r", in \d+\.\d s", None),
    ],
)
def test_how_fast_a_chat_was(stack: Stack, usage: dict[str, Any], words: str, tokens: int | None) -> None:
    said = [web.message("Hello"), web.message_end(42, **usage)]
    pieces = [f"data: {one}\n\n" for one in said]
    stack.dify.chat = Reply(content_type="text/event-stream", pieces=pieces, pause=0.1)
    # Also where it is not asked again for a second success in a row.
    results = stack.check(deadline=10, interval=0.05, successes=2).results
    found = results[NAMES.index("llm")].public()
    assert re.fullmatch(rf"Dify answered a chat through its app key{words}\.", found["detail"])
    assert 0.1 < found["seconds"] < 5
    assert found.get("tokens") == tokens
    if tokens:
        assert 0.9 * tokens < found["tokens_per_second"] * found["seconds"] < 2 * tokens


@pytest.mark.parametrize("pings", [0, 50])
def test_a_chat_that_hangs_is_not_asked_again(stack: Stack, pings: int) -> None:
    # Each such chat keeps one of the few slots of the API's worker for minutes.
    stack.dify.chat = Reply(
        content_type="text/event-stream", pieces=["event: ping\n\n"] * pings, pause=0.05, ending="silence"
    )
    found, advice = failure(stack.check(probe_timeout=0.5, deadline=5, interval=0.05), "llm")
    assert "within 0.5 s" in found
    assert "worker slots" in advice
    assert len(stack.dify_server.asked("/v1/chat-messages")) == 1


# Again until the deadline


def test_it_waits_until_all_is_well(stack: Stack) -> None:
    def starting(request: Request) -> Reply:
        early = request.path == "/console/api/ping" and len(stack.dify_server.asked(request.path)) < 3
        return web.html(502, web.NGINX_502) if early else FakeDify()(request)

    stack.dify_server.answer = starting
    assert stack.check(deadline=10, interval=0.05).healthy
    assert len(stack.dify_server.asked("/console/api/ping")) == 3


def test_successes_in_a_row_repeat_all_but_the_model(host: Stack) -> None:
    assert host.check(deadline=10, interval=0.05, successes=3).healthy
    assert len(host.dify_server.asked("/console/api/setup")) == 3
    assert len(host.dify_server.asked("/v1/chat-messages")) == 1


def test_a_success_between_failures_does_not_count(stack: Stack) -> None:
    def flaky(request: Request) -> Reply:
        even = request.path == "/console/api/ping" and len(stack.dify_server.asked(request.path)) % 2 == 0
        return web.html(502, web.NGINX_502) if even else FakeDify()(request)

    stack.dify_server.answer = flaky
    verdict = stack.check(deadline=2.2, interval=0.05, successes=2, probe="none")
    assert not verdict.healthy


def test_the_deadline_is_kept_and_the_last_state_told(stack: Stack) -> None:
    stack.dify.web = web.html(502, web.NGINX_502)
    began = time.monotonic()
    failure(stack.check(deadline=1.5, interval=0.1, probe="none"), "web")
    assert time.monotonic() - began < 2.5
    assert len(stack.dify_server.asked("/console/api/ping")) > 1


def test_too_few_successes_are_said(stack: Stack) -> None:
    verdict = stack.check(successes=2)
    assert not verdict.healthy
    assert "2 were asked for" in explain(verdict, stack.options)


def test_an_answer_of_a_new_form_does_not_stop_the_report(stack: Stack) -> None:
    stack.daemon.models = [{"plugin_id": PLUGIN, "provider": "ollama"}]
    stack.daemon.tasks = [{"status": "running", "created_at": "2026-01-01T00:00:00Z", "plugins": 7}]
    verdict = stack.check(probe="none")
    assert "The check itself broke (TypeError" in failure(verdict, "install_tasks")[0]
    assert status(verdict)["providers"] == "ok"


# Model servers


def test_a_model_server_is_asked_from_where_models_are_called(host: Stack) -> None:
    host.docker.says("plugin_daemon", asked({"status": 200, "version": "0.17.4"}))
    verdict = host.check(model_servers=[SERVER])
    assert verdict.healthy
    assert detail(verdict, "model_servers") == f"Reached from inside plugin_daemon: {SERVER} (Ollama 0.17.4)."
    assert f"exec -i id-plugin_daemon python3 - 2 {SERVER}" in host.docker.calls()


def test_before_1_0_the_api_asks_the_model_server(host: Stack) -> None:
    del host.docker.containers["plugin_daemon"]
    host.docker.write()
    host.docker.says("api", asked({"status": 200, "version": "0.17.4"}))
    verdict = host.check(model_servers=[SERVER], services=[])
    assert "inside api" in detail(verdict, "model_servers")


@pytest.mark.parametrize(
    ("answer", "found", "advised"),
    [
        ({"error": "dns"}, "name is unknown", "extra_hosts"),
        ({"error": "refused"}, "refused", "ollama_bind"),
        ({"error": "timeout"}, "in time", "firewall"),
        ({"error": "other", "text": "bad status line"}, "fails (bad status line)", "See that"),
        ({"status": 200, "version": ""}, "not as Ollama", "/v1"),
        ({"status": 403, "version": ""}, "not as Ollama", "/v1"),
    ],
)
def test_a_model_server_that_cannot_be_reached(host: Stack, answer: dict[str, Any], found: str, advised: str) -> None:
    host.docker.says("plugin_daemon", asked(answer))
    said, advice = failure(host.check(model_servers=[SERVER]), "model_servers")
    assert found in said
    assert SERVER in said
    assert advised in advice


def test_a_stopped_daemon_cannot_ask(host: Stack) -> None:
    host.docker.containers["plugin_daemon"]["State"].update({"Status": "exited", "Running": False})
    host.docker.write()
    verdict = host.check(model_servers=[SERVER])
    assert status(verdict)["model_servers"] == "failed"
    assert "no running container" in detail(verdict, "model_servers")


def test_a_container_without_python_says_so(host: Stack) -> None:
    host.docker.says("plugin_daemon", "", 'exec: "python3": executable file not found in $PATH')
    said, _advice = failure(host.check(model_servers=[SERVER]), "model_servers")
    assert "executable file not found" in said


def test_the_question_itself() -> None:
    """The program that runs in the container, run here against a server, a closed port and an unknown name."""
    with Scripted(lambda request: as_json({"version": "0.17.4"})).running() as server:
        urls = [server.url, closed_port(), "http://nobody.invalid:1"]
        done = subprocess.run(
            [sys.executable, "-", "2", *urls], input=_ASK, capture_output=True, text=True, check=True, timeout=30
        )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert answers == [
        {"url": urls[0], "status": 200, "version": "0.17.4"},
        {"url": urls[1], "error": "refused"},
        {"url": urls[2], "error": "dns"},
    ]
