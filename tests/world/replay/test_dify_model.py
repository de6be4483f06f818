# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""dify_model against the stand-ins of four releases: check, run, check, run; changes by hand; refusals in words."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import console_pair
import pytest
import yaml
from ansible_collections.llmops.stack.plugins.module_utils import _dify_console_models
from console_pair import EMAIL, PASSWORD, Pair
from console_run import RunModule, runner
from standin.daemon_package import _sources

SECRET = "sk-very-secret-4711"
ROOT = Path(__file__).resolve().parents[3]
LLM = ("ollama", "llama3.2", "llm")
SEVERAL = ("1.12.1", "1.16.0")  # a model has one credential before 1.8


def form_with_a_secret() -> dict[str, str | None]:
    """The provider's file of Ollama's plugin from 0.2.0 on, which knows an api_key."""
    name = "provider/ollama.yaml"
    provider = yaml.safe_load(_sources("langgenius/ollama", "0.2.0", "")[name])
    fields = provider["model_credential_schema"]["credential_form_schemas"]
    fields.insert(1, {**fields[0], "variable": "api_key", "type": "secret-input", "required": False})
    return {name: yaml.safe_dump(provider, sort_keys=False)}


class Desk:
    """One release, the module on it, and its console as the operator's browser."""

    def __init__(self, pair: Pair, run: RunModule, directory: Path) -> None:
        self.pair, self.run_module = pair, run
        self.record = directory / "models.json"
        self.browser = pair.console()
        self.session = directory / "session.json"

    def run(self, *models: dict[str, Any], check: bool = False, **options: Any) -> dict[str, Any]:
        given = {
            "url": self.pair.url,
            "email": EMAIL,
            "password": PASSWORD,
            "session_file": str(self.session),
            "record": str(self.record),
            "models": [{"credentials": {"base_url": self.pair.model_url}, **one} for one in models],
        }
        return self.run_module("dify_model", check=check, **{**given, **options})

    def stored(self, model: tuple[str, str, str] = LLM) -> dict[str, Any]:
        return self.browser.models.credentials(*model)

    def change_by_hand(self, **values: str) -> None:
        found = self.stored()
        self.browser.models.save(*LLM, {**found["credentials"], **values}, found["id"], found["name"])

    @property
    def many(self) -> bool:
        """Whether a model can have several credentials."""
        return self.browser.has("credential_routes")


@pytest.fixture(scope="module", params=console_pair.DAEMONS)
def pair(
    request: pytest.FixtureRequest, postgres: Any, redis_server: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    directory: Path = tmp_path_factory.mktemp(f"model-{request.param}")
    with console_pair.running(request.param, postgres, redis_server, directory, 57) as running:
        console = running.set_up()
        if running.daemon:
            running.install(console, "0.2.0", replace=form_with_a_secret())
        yield running


@pytest.fixture
def desk(pair: Pair, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(pair, runner(capsys), tmp_path)
    yield desk
    for one in desk.browser.models.of("ollama"):
        desk.browser.models.delete("ollama", one["model"], one["model_type"])


def test_check_run_check_run(desk: Desk) -> None:
    wish = {"model": "llama3.2", "credentials": {"base_url": desk.pair.model_url, "context_size": 8192}}
    foreseen = desk.run(wish, check=True)
    assert (foreseen["changed"], foreseen["models"][0]["action"]) == (True, "created")
    assert not desk.record.exists()  # the session is kept: the run that follows is let in by it
    assert desk.stored()["credentials"] == {}
    done = desk.run(wish)
    assert done["changed"]
    assert done["models"][0]["action"] == "created"
    # What a check promises is what a run does.
    assert done["diff"] == foreseen["diff"]
    # The defaults of the form were added: Dify refuses what is required and missing.
    assert desk.stored()["credentials"]["context_size"] == "8192"
    assert desk.stored()["credentials"]["mode"] == "chat"
    assert stat.S_IMODE(desk.record.stat().st_mode) == 0o600
    for check in (True, False):
        again = desk.run(wish, check=check)
        assert (again["changed"], again["models"][0]["action"], again["drift"]) == (False, "none", [])
        assert again["diff"]["before"] == again["diff"]["after"] == done["diff"]["after"]
    assert len(desk.stored()["available"]) == (1 if desk.many else 0)


def test_one_model_is_given_without_a_list(desk: Desk) -> None:
    one: dict[str, Any] = {"url": desk.pair.url, "email": EMAIL, "password": PASSWORD, "model": "llama3.2"}
    one["credentials"] = {"base_url": desk.pair.model_url}
    assert desk.run_module("dify_model", **one)["models"][0]["action"] == "created"
    assert not desk.run_module("dify_model", **one)["changed"]


def test_a_value_of_the_inventory_is_changed_in_place(desk: Desk) -> None:
    desk.run({"model": "llama3.2"})
    before = desk.stored()
    wish = {"model": "llama3.2", "credentials": {"base_url": desk.pair.model_url, "context_size": 2048}}
    foreseen, done = desk.run(wish, check=True), desk.run(wish)
    assert [one["models"][0]["action"] for one in (foreseen, done)] == ["updated", "updated"]
    assert foreseen["diff"] == done["diff"]
    after = desk.stored()
    assert after["credentials"] == {**before["credentials"], "context_size": "2048"}
    assert (after["id"], len(after["available"])) == (before["id"], len(before["available"]))
    assert not desk.run(wish)["changed"]


def test_a_value_changed_in_the_browser_is_reported_and_left_alone(desk: Desk) -> None:
    credentials = {"base_url": desk.pair.model_url, "context_size": 4096}
    wish: dict[str, Any] = {"model": "llama3.2", "credentials": credentials}
    desk.run(wish)
    desk.change_by_hand(context_size="16384")
    for check in (True, False):
        seen = desk.run(wish, check=check)
        assert (seen["changed"], seen["drift"]) == (False, ["llama3.2"])
        (drift,) = seen["models"][0]["drift"]
        assert drift == {"key": "context_size", "wanted": "4096", "found": "16384", "overwritten": False}
        assert "context_size is 16384 in Dify, where 4096 is wanted" in json.dumps(seen["warnings"])
    assert desk.stored()["credentials"]["context_size"] == "16384"
    # Another value that changes in the inventory is written, and that one stays.
    desk.run({**wish, "credentials": {**credentials, "max_tokens": 1024}})
    found = desk.stored()["credentials"]
    assert (found["context_size"], found["max_tokens"]) == ("16384", "1024")
    told = desk.run(wish, overwrite=True)
    assert (told["changed"], told["drift"], told["models"][0]["drift"][0]["overwritten"]) == (True, [], True)
    assert desk.stored()["credentials"]["context_size"] == "4096"
    assert not desk.run(wish)["changed"]


def test_without_a_record_every_difference_counts_as_made_by_hand(desk: Desk) -> None:
    desk.run({"model": "llama3.2"}, record="")
    wish = {"model": "llama3.2", "credentials": {"base_url": desk.pair.model_url, "context_size": 2048}}
    assert desk.run(wish, record="")["drift"] == ["llama3.2"]
    assert desk.run(wish, record="", overwrite=True)["changed"]
    assert not desk.run(wish, record="")["changed"]


def test_the_default_is_read_back_and_kept(desk: Desk) -> None:
    # Another model comes first: before 1.14 the first call that sets a default has no effect then.
    desk.run({"model": "first"})
    wishes: list[dict[str, Any]] = [{"model": "first"}, {"model": "llama3.2", "default": True}]
    foreseen = desk.run(*wishes, check=True)
    assert foreseen["models"][1]["default"]
    desk.run(*wishes)
    assert desk.browser.models.default("llm")[1] == "llama3.2"
    assert not desk.run(*wishes)["changed"]
    desk.browser.models.set_default("llm", "ollama", "first")
    seen = desk.run(*wishes)
    assert (seen["changed"], seen["drift"]) == (False, ["llama3.2"])
    assert seen["models"][1]["drift"][0]["key"] == "default"
    assert desk.run(*wishes, overwrite=True)["changed"]
    assert desk.browser.models.default("llm")[1] == "llama3.2"


def test_a_default_that_is_new_in_the_inventory_is_set(desk: Desk) -> None:
    desk.run({"model": "first", "default": True}, {"model": "llama3.2"})
    moved = desk.run({"model": "first"}, {"model": "llama3.2", "default": True})
    assert (moved["changed"], moved["drift"]) == (True, [])
    assert desk.browser.models.default("llm")[1] == "llama3.2"
    # And back: what was the default once is nobody's choice in the browser now.
    back = desk.run({"model": "first", "default": True}, {"model": "llama3.2"})
    assert (back["changed"], back["drift"]) == (True, [])
    assert desk.browser.models.default("llm")[1] == "first"


def test_an_embedding_is_its_own_default(desk: Desk) -> None:
    wish = {"model": "nomic-embed-text", "model_type": "text-embedding", "default": True}
    assert desk.run(wish)["models"][0]["default"]
    assert desk.browser.models.default("text-embedding")[1] == "nomic-embed-text"
    assert not desk.run(wish)["changed"]


def test_a_disabled_model_is_reported_and_enabled_only_if_told(desk: Desk) -> None:
    desk.run({"model": "llama3.2"})
    desk.browser.models.enable(*LLM, enabled=False)
    assert desk.run({"model": "llama3.2"})["models"][0]["drift"][0]["key"] == "enabled"
    assert desk.run({"model": "llama3.2"}, overwrite=True)["changed"]
    assert desk.run({"model": "llama3.2"})["drift"] == []


def test_absent_removes_a_model_with_all_its_credentials(desk: Desk) -> None:
    desk.run({"model": "llama3.2"})
    if desk.many:
        desk.browser.models.save(*LLM, desk.pair.credentials, name="by hand")
    gone = {"model": "llama3.2", "state": "absent"}
    assert desk.run(gone, check=True)["models"][0]["action"] == "deleted"
    assert desk.stored()["credentials"]
    assert desk.run(gone)["changed"]
    assert (desk.stored()["credentials"], desk.stored()["available"]) == ({}, [])
    assert not desk.run(gone)["changed"]
    assert json.loads(desk.record.read_text()) == {}


def test_what_the_provider_objects_to_comes_back_in_words(desk: Desk) -> None:
    refused = desk.run({"model": "missing"}, {"model": "llama3.2"})
    assert refused["failed"]
    assert f"does not accept missing at {desk.pair.model_url}" in refused["msg"]
    assert "pull the model there" in refused["msg"]
    # One that fails keeps no other from being done, and is not said to be there.
    assert [one["action"] for one in refused["models"]] == ["none", "created"]
    assert ["error" in one for one in refused["models"]] == [True, False]
    assert [bool(one) for one in refused["diff"]["after"].values()] == [False, True]
    assert desk.stored()["credentials"]
    closed = {"model": "other", "credentials": {"base_url": "http://127.0.0.1:1"}}
    unreachable = desk.run(closed)["msg"]
    assert "at http://127.0.0.1:1: the model server cannot be reached. Dify asks from inside a container" in unreachable
    assert "write http://host.docker.internal:11434" in unreachable


def test_wishes_that_cannot_be_are_refused_before_dify_is_changed(desk: Desk) -> None:
    assert "knows no num_ctx" in desk.run({"model": "m", "credentials": {"num_ctx": 1}})["msg"]
    assert "needs base_url" in desk.run({"model": "m", "credentials": {"context_size": 1}})["msg"]
    assert "given twice" in desk.run({"model": "m"}, {"model": "m"})["msg"]
    two = desk.run({"model": "a", "default": True}, {"model": "b", "default": True})
    assert "More than one model is to be the default of the type llm" in two["msg"]
    assert "1 to 30 characters" in desk.run({"model": "m", "credential_name": "n" * 31})["msg"]


def test_a_provider_without_its_plugin(desk: Desk) -> None:
    wish = {"model": "m", "provider": "author/nosuch/nosuch"}
    if not desk.pair.daemon:
        wish["provider"] = "nosuch"
    assert "Install it with dify_plugin" in desk.run(wish)["msg"]
    foreseen = desk.run(wish, check=True)
    assert foreseen["changed"] and "Install it with dify_plugin" in json.dumps(foreseen["warnings"])


def test_a_wrong_password_is_sent_once(desk: Desk) -> None:
    refused = desk.run({"model": "a"}, {"model": "b"}, password="Wrong-passw0rd")
    assert "refuses email and password" in refused["msg"] and "models" not in refused
    desk.browser.login()


class TestPlatform:
    @console_pair.on(*console_pair.WITH_DAEMON)
    def test_a_daemon_that_is_starting_is_waited_for(self, desk: Desk) -> None:
        daemon = desk.pair.daemon
        assert daemon is not None
        daemon.stop()
        later = threading.Timer(1.5, lambda: daemon.start(migrate=False))
        try:
            later.start()
            done = desk.run({"model": "llama3.2"}, deadline=30)
        finally:
            later.join()
        assert done["models"][0]["action"] == "created"
        assert len(desk.stored()["available"]) == (1 if desk.many else 0)
        assert not desk.run({"model": "llama3.2"})["changed"]

    @console_pair.on(*console_pair.WITH_DAEMON)
    def test_a_daemon_that_stays_away_is_named(self, desk: Desk) -> None:
        daemon = desk.pair.daemon
        assert daemon is not None
        daemon.stop()
        try:
            failed = desk.run({"model": "llama3.2"}, deadline=0)
        finally:
            daemon.start(migrate=False)
        assert "llama3.2: " in failed["msg"] and "plugin_daemon" in failed["msg"]

    @console_pair.on(*console_pair.WITH_DAEMON)
    def test_a_plugin_whose_process_is_dead(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        """Listed, and nobody answers: older daemons let Dify wait for ever, newer ones let it answer 500."""
        daemon = desk.pair.daemon
        assert daemon is not None
        monkeypatch.setattr(_dify_console_models, "_VALIDATE_SECONDS", 3.0)
        daemon.fault(plugin="dead")
        try:
            daemon.kill_plugins()
            failed = desk.run({"model": "llama3.2"}, deadline=0)
        finally:
            daemon.fault()
        assert "The plugin's process is dead" in failed["msg"] and "plugin_daemon" in failed["msg"]
        # The daemon looks every five seconds; until then the platform is one that is starting.
        done = desk.run({"model": "llama3.2"}, deadline=30)
        assert not done.get("failed"), done["msg"]
        assert len(desk.stored()["available"]) == (1 if desk.many else 0)

    @console_pair.on(*SEVERAL)
    def test_one_plugin_process_dies_in_between_and_is_waited_for(self, desk: Desk) -> None:
        """Daemons before 0.5 answer nothing until the process is back, or for ever."""
        daemon = desk.pair.daemon
        assert daemon is not None
        daemon.kill_plugins()
        done = desk.run({"model": "llama3.2"}, deadline=30)
        assert (done.get("failed"), done["models"][0]["action"]) == (None, "created")


class TestSecrets:
    @console_pair.on(*console_pair.WITH_DAEMON)
    def test_no_secret_is_shown(self, desk: Desk) -> None:
        wish = {"model": "llama3.2", "credentials": {"base_url": desk.pair.model_url, "api_key": SECRET}}
        for check in (True, False):
            shown = json.dumps(desk.run(wish, check=check))
            assert SECRET not in shown and PASSWORD not in shown
        assert SECRET not in desk.record.read_text() + desk.session.read_text()
        # What is harmless is not blanked.
        assert desk.run(wish)["models"][0]["credentials"]["context_size"] == "4096"
        failed = desk.run({**wish, "model": "missing"})
        assert failed["failed"] and SECRET not in json.dumps(failed)

    @console_pair.on("1.7.2", "1.16.0")
    def test_a_log_with_all_details_shows_no_secret(self, desk: Desk) -> None:
        """One release with tokens and one with cookies."""
        account = {"url": desk.pair.url, "email": EMAIL, "password": PASSWORD, "session_file": str(desk.session)}
        model = {
            "model": "llama3.2",
            "credentials": {"base_url": desk.pair.model_url, "api_key": SECRET},
            "default": True,
            "record": str(desk.record),
        }
        app = {
            "name": "probe",
            "key_file": str(desk.session.with_name("key")),
            "dsl": {"kind": "app", "version": "0.3.1", "dependencies": [], "app": {"name": "probe", "mode": "chat"}},
        }
        tasks = [{"llmops.stack.dify_model": {**account, **model}}, {"llmops.stack.dify_app": {**account, **app}}]
        playbook = desk.session.with_name("play.yml")
        playbook.write_text(yaml.safe_dump([{"hosts": "localhost", "gather_facts": False, "tasks": tasks * 2}]))
        command = ["ansible-playbook", "-i", "localhost,", "-c", "local", "-vvv", "--diff", str(playbook)]
        environment = {**os.environ, "ANSIBLE_PYTHON_INTERPRETER": sys.executable, "ANSIBLE_NOCOLOR": "1"}
        environment |= {"ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"), "ANSIBLE_LOCALHOST_WARNING": "false"}
        run = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)
        log = run.stdout + run.stderr
        assert run.returncode == 0, log[-3000:]
        assert "changed=2 " in log and "llama3.2" in log and "4096" in log
        kept = json.loads(desk.session.read_text())["session"]
        hidden = [SECRET, PASSWORD, desk.session.with_name("key").read_text().strip()]
        hidden += [kept["bearer"], *kept["cookies"].values()]
        assert [one for one in hidden if one and one in log] == []

    @console_pair.on(*console_pair.WITH_DAEMON)
    def test_a_new_secret_is_seen_behind_an_equal_mask(self, desk: Desk) -> None:
        values = {"base_url": desk.pair.model_url, "api_key": SECRET}
        desk.run({"model": "llama3.2", "credentials": values})
        assert not desk.run({"model": "llama3.2", "credentials": values})["changed"]
        wish = {"model": "llama3.2", "credentials": {**values, "api_key": SECRET.replace("very", "much")}}
        assert desk.run(wish, check=True)["changed"]
        assert desk.run(wish)["changed"]
        assert not desk.run(wish)["changed"]


class TestSeveralCredentials:
    @console_pair.on(*SEVERAL)
    def test_a_credential_of_another_name_is_taken_as_it_is(self, desk: Desk) -> None:
        desk.browser.models.save(*LLM, desk.pair.credentials)
        assert desk.stored()["name"] == "API KEY 1"
        found = desk.run({"model": "llama3.2"})
        assert (found["changed"], found["drift"]) == (False, [])
        assert [one["credential_name"] for one in desk.stored()["available"]] == ["API KEY 1"]

    @console_pair.on(*SEVERAL)
    def test_one_that_was_switched_by_hand_is_reported(self, desk: Desk) -> None:
        desk.run({"model": "llama3.2"})
        desk.browser.models.save(*LLM, {**desk.pair.credentials, "max_tokens": "99"}, name="by hand")
        other = next(one for one in desk.stored()["available"] if one["credential_name"] == "by hand")
        desk.browser.models.switch(*LLM, other["credential_id"])
        seen = desk.run({"model": "llama3.2"})
        assert (seen["changed"], seen["models"][0]["credential_name"]) == (False, "by hand")
        assert seen["models"][0]["drift"] == [
            {"key": "credential", "wanted": "llmops.stack", "found": "by hand", "overwritten": False}
        ]
        told = desk.run({"model": "llama3.2"}, overwrite=True)
        assert (told["models"][0]["action"], desk.stored()["name"]) == ("switched", "llmops.stack")
        assert len(desk.stored()["available"]) == 2

    @console_pair.on(*SEVERAL)
    def test_a_model_taken_off_the_list_gets_no_second_copy(self, desk: Desk) -> None:
        desk.run({"model": "llama3.2"})
        off = {"model": "llama3.2", "model_type": "llm"}
        path = "workspaces/current/model-providers/langgenius/ollama/ollama/models"
        desk.browser.request("DELETE", path, json=off)
        assert (desk.stored()["id"], len(desk.stored()["available"])) == ("", 1)
        assert desk.run({"model": "llama3.2"}, check=True)["models"][0]["action"] == "switched"
        assert desk.run({"model": "llama3.2"})["changed"]
        assert (desk.stored()["name"], len(desk.stored()["available"])) == ("llmops.stack", 1)
        assert not desk.run({"model": "llama3.2"})["changed"]

    @console_pair.on("1.16.0")
    def test_a_credential_stored_by_an_older_release_is_not_stored_again(self, desk: Desk) -> None:
        """Types have other names since 1.14."""
        desk.run({"model": "llama3.2"})
        for table in ("provider_models", "provider_model_credentials"):
            desk.pair.instance.postgres.query(
                f"UPDATE {table} SET model_type = 'text-generation' WHERE model_type = 'llm'",
                database=desk.pair.instance.database,
            )
        assert desk.stored()["id"] and not desk.stored()["available"]
        assert not desk.run({"model": "llama3.2"})["changed"]
        wish = {"model": "llama3.2", "credentials": {"base_url": desk.pair.model_url, "context_size": 2048}}
        assert "flask data-migrate legacy-model-types --apply" in desk.run(wish)["msg"]
        for table in ("provider_models", "provider_model_credentials"):
            desk.pair.instance.postgres.query(
                f"UPDATE {table} SET model_type = 'llm' WHERE model_type = 'text-generation'",
                database=desk.pair.instance.database,
            )
        assert desk.run(wish)["changed"]
        assert len(desk.stored()["available"]) == 1
