# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Credentials of a model in the stand-in of Dify's API: secrets that stay, a current one that goes, and back again."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest
from console_pair import ask_redis
from instance_api import CREDENTIALS, Instance, Reply, interpreter
from plugin_daemon_api import Daemon, Ollama

OWNER = {"email": "admin@example.com", "name": "Admin", "password": "Passw0rd!x"}
BASE = "/console/api/workspaces/current/model-providers"
MODELS = f"{BASE}/langgenius/ollama/ollama/models"
LLM = {"model": "llama3.2", "model_type": "llm"}
HIDDEN, SECRET, MASK = "[__HIDDEN__]", "secret-key-1", "secret************-1"


class Console:
    def __init__(self, instance: Instance, ollama: Ollama) -> None:
        self.instance = instance
        self.many = instance.release != "1.7.2"  # one credential per model before 1.8
        self.credentials = {**CREDENTIALS, "base_url": ollama.url}
        assert instance.send("POST", "/console/api/setup", body=OWNER).status == 201
        assert self.log_in(OWNER["password"]).status == 200

    def log_in(self, password: str) -> Reply:
        sent = base64.b64encode(password.encode()).decode() if self.many else password
        return self.instance.send("POST", "/console/api/login", body={"email": OWNER["email"], "password": sent})

    def call(self, method: str, path: str = "", body: Any = None, status: int = 200) -> Any:
        reply = self.instance.send(method, MODELS + path, body=body, headers=self.instance.session())
        assert reply.status == status, reply.body
        return reply.json if reply.body else None

    def add(self, name: str = "", **values: str) -> str:
        body = {**LLM, "credentials": {**self.credentials, **values}}
        if not self.many:
            self.call("POST", "", body)
            return ""
        self.call("POST", "/credentials", {**body, "name": name}, 201)
        return next(key for key, known in self.available().items() if known == name)

    def shown(self, credential_id: str = "") -> dict[str, Any]:
        return self.call("GET", f"/credentials?model=llama3.2&model_type=llm&credential_id={credential_id}")

    def available(self) -> dict[str, str]:
        return {one["credential_id"]: one["credential_name"] for one in self.shown()["available_credentials"]}

    def switch(self, credential_id: str, status: int = 200) -> Any:
        return self.call("POST", "/credentials/switch", {**LLM, "credential_id": credential_id}, status)

    def listed(self) -> list[str]:
        return [one["model"] for one in self.call("GET")["data"]]

    def custom(self) -> dict[str, Any]:
        (provider,) = self.instance.send("GET", BASE, headers=self.instance.session()).json["data"]
        return provider["custom_configuration"]


@pytest.fixture
def console(request: pytest.FixtureRequest, postgres: Any, redis_server: Any) -> Iterator[Console]:
    if not interpreter():
        pytest.skip("no Python with psycopg2, redis and yaml (Debian: python3-psycopg2 python3-redis python3-yaml)")
    daemon, ollama = Daemon(request.param), Ollama()
    daemon.installed = True
    instance = Instance(request.param, postgres, redis_server, 53)
    instance.environment["PLUGIN_DAEMON_URL"] = daemon.url
    ask_redis(instance, "FLUSHDB")  # the lock of the test before
    assert instance.flask("upgrade-db").returncode == 0
    instance.start()
    yield Console(instance, ollama)
    instance.close()
    daemon.close()
    ollama.close()


ALL = pytest.mark.parametrize("console", ["1.7.2", "1.12.1", "1.16.0"], indirect=True)
SEVERAL = pytest.mark.parametrize("console", ["1.12.1", "1.16.0"], indirect=True)


@ALL
def test_a_secret_that_is_sent_as_hidden_stays(console: Console) -> None:
    known = console.add("lab", api_key=SECRET)
    sent = {**console.credentials, "api_key": HIDDEN, "context_size": "8192"}
    body: dict[str, Any] = {**LLM, "credentials": sent}
    if console.many:
        console.call("PUT", "/credentials", {**body, "credential_id": known, "name": "lab"})
    else:
        console.call("POST", "", body)
    kept = console.shown(known)["credentials"]
    assert (kept["api_key"], kept["context_size"]) == (MASK, "8192")
    # A mask that comes back is no secret: it is stored as it is, and hides the old one for good.
    body["credentials"] = {**sent, "api_key": "another************ey"}
    if console.many:
        console.call("PUT", "/credentials", {**body, "credential_id": known, "name": "lab"})
    else:
        console.call("POST", "", body)
    assert console.shown(known)["credentials"]["api_key"] == "anothe************ey"


@SEVERAL
def test_without_its_current_credential_a_model_is_in_no_list(console: Console) -> None:
    first, second = console.add("node-a"), console.add("node-b")
    assert console.listed() == ["llama3.2"]
    assert console.switch(first, 400)["message"] == "Can't add same credential"
    console.call("DELETE", "/credentials", {**LLM, "credential_id": first}, 204)
    assert console.listed() == []
    shown = console.shown()
    assert (shown["credentials"], shown["current_credential_id"]) == ({}, None)
    assert console.available() == {second: "node-b"}
    console.switch(second)
    assert (console.listed(), console.shown()["current_credential_name"]) == (["llama3.2"], "node-b")
    console.call("DELETE", "/credentials", {**LLM, "credential_id": second}, 204)
    assert (console.listed(), console.custom()["custom_models"]) == ([], [])


@SEVERAL
def test_a_model_that_was_taken_off_the_list_comes_back_by_a_switch(console: Console) -> None:
    known = console.add("node-a")
    console.call("DELETE", "", LLM, 204)
    assert (console.listed(), console.available()) == ([], {known: "node-a"})
    custom = console.custom()
    assert custom["can_added_models"] == [LLM]
    assert [one["unadded_to_model_list"] for one in custom["custom_models"]] == [True]
    # The other way to a credential wants the model to be there.
    told = {**LLM, "config_from": "custom-model", "credential_id": known}
    assert console.call("POST", "", told, 400)["message"] == "The custom model record not found."
    console.switch(known)
    assert (console.listed(), console.custom()["can_added_models"]) == (["llama3.2"], [])
    assert console.call("POST", "", told) == {"result": "success"}


@ALL
def test_the_seventh_wrong_password_locks_the_account(console: Console) -> None:
    wrong = [console.log_in("Wrong-passw0rd").json["code"] for _ in range(8)]
    assert wrong[6:] == ["email_code_login_limit"] * 2
    assert "email_code_login_limit" not in wrong[:6]
    locked = console.log_in(OWNER["password"])
    assert (locked.status, locked.json["code"]) == (429, "email_code_login_limit")


@ALL
def test_an_account_is_locked_on_command(console: Console) -> None:
    faults = console.instance.home / "faults.json"
    faults.write_text('{"login": "locked"}', encoding="utf-8")
    assert console.log_in(OWNER["password"]).status == 429
    faults.unlink()
    assert console.log_in(OWNER["password"]).status == 200
