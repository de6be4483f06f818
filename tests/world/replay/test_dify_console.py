# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The console's client against the stand-ins of API and plugin daemon, release by release."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import console_pair
import pytest
from ansible_collections.llmops.stack.plugins.module_utils._dify_console import Console, ConsoleError
from console_pair import Pair
from standin.daemon_package import pack

MODEL = ("ollama", "llama3.2", "llm")
WITH_PLUGINS = [release for release, daemon in console_pair.DAEMONS.items() if daemon]
DSL = """app: {name: probe, mode: chat, icon: x, icon_background: '#FFEAD5', description: ''}
dependencies: []
kind: app
model_config: {model: {provider: PROVIDER, name: llama3.2, mode: chat, completion_params: {}}}
version: VERSION
"""


@pytest.fixture(scope="module", params=console_pair.DAEMONS)
def pair(
    request: pytest.FixtureRequest, postgres: Any, redis_server: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    directory: Path = tmp_path_factory.mktemp(f"console-{request.param}")
    with console_pair.running(request.param, postgres, redis_server, directory) as running:
        running.set_up()
        yield running


@pytest.fixture
def console(pair: Pair) -> Console:
    return pair.console()


def test_the_release_is_recognised_and_the_workspace_found(pair: Pair, console: Console) -> None:
    assert console.setup_status() == "finished"
    assert console.version == pair.release
    assert len(console.tenant_id) == 36


def test_one_login_serves_every_client_that_shares_its_session_file(pair: Pair, tmp_path: Path) -> None:
    file = tmp_path / "session.json"
    first, second = (pair.console(session_file=str(file)) for _ in range(2))
    assert first.tenant_id == second.tenant_id
    assert (first.logged_in, second.logged_in) == (True, False)
    assert file.stat().st_mode & 0o777 == 0o600
    assert console_pair.PASSWORD not in file.read_text()
    other = pair.console(password="Wrong-passw0rd", session_file=str(file))
    with pytest.raises(ConsoleError) as caught:
        other.login()
    assert caught.value.kind == "wrong_password"
    assert pair.console().tenant_id  # a right login puts the counter of wrong ones back to zero


def test_a_session_that_ran_out_is_renewed_without_a_password(console: Console) -> None:
    console.login()
    console._bearer, console._cookies = (
        console._bearer and console._bearer[:-4] + "AAAA",
        {name: value if "refresh" in name else value[:-4] + "AAAA" for name, value in console._cookies.items()},
    )
    console._password = "not sent"
    assert console.tenant_id


def test_a_kept_session_that_ran_out_costs_one_login(pair: Pair, tmp_path: Path) -> None:
    file = tmp_path / "session.json"
    pair.console(session_file=str(file)).login()
    kept = json.loads(file.read_text())
    kept["session"] = {"bearer": "gone", "cookies": {"csrf_token": "gone", "access_token": "gone"}}
    file.write_text(json.dumps(kept))
    again = pair.console(session_file=str(file))
    assert again.tenant_id
    assert again.logged_in


def test_a_wrong_password_is_sent_once(pair: Pair) -> None:
    console = pair.console(password="Wrong-passw0rd")
    for _ in range(3):
        with pytest.raises(ConsoleError) as caught:
            console.tenant_id  # noqa: B018  # the request is what is tested
    assert caught.value.kind == "wrong_password"
    assert "Wrong-passw0rd" not in str(caught.value)
    assert wrong_attempts(pair) == 1
    assert pair.console().tenant_id
    assert wrong_attempts(pair) == 0


def wrong_attempts(pair: Pair) -> int:
    return int(console_pair.ask_redis(pair.instance, f"GET login_error_rate_limit:{console_pair.EMAIL}") or 0)


def test_from_plugin_to_model(pair: Pair, console: Console) -> None:
    assert console.plugins.available is (pair.daemon is not None)
    if console.plugins.available:
        assert console.plugins.installed() == []
        identifier = pair.install(console)
        (found,) = console.plugins.installed()
        assert (found["plugin_id"], found["plugin_unique_identifier"]) == ("langgenius/ollama", identifier)
        assert console.plugins.install(identifier) == ""
        assert console.plugins.task("00000000-0000-0000-0000-000000000000") is None
        assert console.plugins.latest(["langgenius/ollama"]) == {}
        assert console.plugins.manifest(identifier)
    provider = console.models.provider("ollama")
    assert provider is not None
    assert provider["provider"] == console.models.provider_id("ollama")
    assert console.models.credentials(*MODEL) == {"credentials": {}, "id": "", "name": "", "available": []}
    assert console.models.validate(*MODEL, pair.credentials) == ""
    console.models.save(*MODEL, pair.credentials)
    stored = console.models.credentials(*MODEL)
    assert stored["credentials"]["base_url"] == pair.model_url
    assert bool(stored["id"]) is console.has("credential_routes")
    console.models.save(*MODEL, {**pair.credentials, "context_size": "8192"}, credential_id=stored["id"])
    stored = console.models.credentials(*MODEL)
    assert stored["credentials"]["context_size"] == "8192"
    assert len(stored["available"]) == (1 if console.has("credential_routes") else 0)
    assert [one["model"] for one in console.models.of("ollama")] == ["llama3.2"]
    assert console.models.set_default("llm", "ollama", "llama3.2")
    assert console.models.default("llm") == (console.models.provider_id("ollama"), "llama3.2")


def test_an_objection_of_the_model_server_is_no_error(pair: Pair, console: Console) -> None:
    wrong = {**pair.credentials, "base_url": "http://127.0.0.1:1"}
    assert "refused" in console.models.validate(*MODEL, wrong)
    with pytest.raises(ConsoleError) as caught:
        console.models.save("ollama", "other", "llm", wrong)
    assert "refused" in caught.value.message
    assert "req_id" not in str(caught.value)


def test_an_app_from_its_file_to_its_key(pair: Pair, console: Console) -> None:
    text = DSL.replace("PROVIDER", console.models.provider_id("ollama"))
    for version in ("0.3.1", "99.0.0"):  # the second one must be confirmed
        app_id = console.apps.import_dsl(text.replace("VERSION", version), name=f"probe {version}")["app_id"]
        assert [one["id"] for one in console.apps.find(f"probe {version}")] == [app_id]
    assert console.apps.missing_plugins(app_id) == []
    console.apps.enable_api(app_id)
    assert console.apps.get(app_id)["enable_api"] is True
    key = console.apps.create_key(app_id)
    assert [one["token"] for one in console.apps.keys(app_id)] == [key["token"]]
    assert key["token"] in console.secrets
    console.request("DELETE", f"apps/{app_id}/api-keys/{key['id']}")
    assert console.apps.keys(app_id) == []
    assert console.apps.get(app_id)["model_config"]["model"]["name"] == "llama3.2"
    console.apps.delete(app_id)
    assert console.apps.find("probe 99.0.0") == []
    with pytest.raises(ConsoleError) as caught:
        console.apps.import_dsl("app: [", name="broken")
    assert "YAML" in caught.value.message


def test_automatic_upgrades_can_be_switched_off(console: Console) -> None:
    found = console.plugins.auto_upgrade()
    if not console.has("auto_upgrade"):
        assert found is None
        return
    assert found is not None
    assert found["strategy_setting"] == ("latest" if console.has("auto_upgrade_by_category") else "fix_only")
    console.plugins.set_auto_upgrade({**found, "exclude_plugins": ["langgenius/ollama"]})
    again = console.plugins.auto_upgrade()
    assert again is not None
    assert again["exclude_plugins"] == ["langgenius/ollama"]


@pytest.mark.parametrize("pair", WITH_PLUGINS, indirect=True, scope="module")
def test_what_the_daemon_refuses_is_named(pair: Pair, console: Console) -> None:
    assert pair.daemon is not None
    with pytest.raises(ConsoleError) as caught:
        console.plugins.upload("broken.difypkg", pack()[:200])
    assert caught.value.kind == "bad_package"
    pair.daemon.stop()
    try:
        with pytest.raises(ConsoleError) as caught:
            console.plugins.installed()
    finally:
        pair.daemon.start()
    assert caught.value.kind == "daemon_down"
    assert console.tenant_id not in str(caught.value)
