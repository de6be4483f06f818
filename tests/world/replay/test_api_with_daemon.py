# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-ins of Dify's API and plugin daemon together, as the releases pair them: install, add a model, chat."""

from __future__ import annotations

import base64
import json
import re
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import harness_daemon as harness
import pytest
from instance_api import CHAT, CREDENTIALS, Instance, interpreter
from ports import free_port
from standin import fake_ollama
from standin.daemon_package import pack

PAIRS = [("1.0.0", "0.0.3"), ("1.7.0", "0.2.0"), ("1.12.1", "0.5.3"), ("1.14.1", "0.6.3"), ("1.16.0", "0.6.3")]
OWNER = {"email": "admin@example.com", "name": "Admin", "password": "Passw0rd!x"}
BASE = "/console/api/workspaces/current"
PROVIDER = f"{BASE}/model-providers/langgenius/ollama/ollama/models"
MODEL = {"model": "llama3.2", "model_type": "llm"}
DSL = """app: {name: probe, mode: chat, icon: x, icon_background: '#FFEAD5', description: ''}
dependencies: []
kind: app
model_config: {model: {provider: langgenius/ollama/ollama, name: MODEL, mode: chat, completion_params: {}}}
version: 0.3.1
"""


class Pair:
    def __init__(self, instance: Instance, daemon: harness.Daemon, model_port: int) -> None:
        self.instance, self.daemon = instance, daemon
        self.model_url = f"http://127.0.0.1:{model_port}"
        self.newer = instance.release not in ("1.0.0", "1.7.0")

    def call(self, method: str, path: str, body: Any = None, expected: int = 200) -> Any:
        reply = self.instance.send(method, path, body=body, headers=self.instance.session())
        assert reply.status == expected, (path, reply.body[:800])
        return reply.json if reply.body else None

    def log_in(self) -> None:
        assert self.instance.send("POST", "/console/api/setup", body=OWNER).status == 201
        secret = OWNER["password"]
        password = base64.b64encode(secret.encode()).decode() if self.newer else secret
        reply = self.instance.send("POST", "/console/api/login", body={"email": OWNER["email"], "password": password})
        assert reply.status == 200

    def install(self) -> None:
        boundary = uuid.uuid4().hex
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="pkg"; filename="p.difypkg"\r\n\r\n'
        content = head.encode() + pack() + f"\r\n--{boundary}--\r\n".encode()
        headers = {**self.instance.session(), "Content-Type": f"multipart/form-data; boundary={boundary}"}
        reply = self.instance.send("POST", f"{BASE}/plugin/upload/pkg", body=content, headers=headers)
        assert reply.status == 200, reply.body
        wanted = {"plugin_unique_identifiers": [reply.json["unique_identifier"]]}
        started = self.call("POST", f"{BASE}/plugin/install/pkg", wanted)
        assert started["all_installed"] is False
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            task = self.call("GET", f"{BASE}/plugin/tasks/{started['task_id']}")["task"]
            if task["status"] in ("success", "failed"):
                break
            time.sleep(0.2)
        assert (task["status"], task["completed_plugins"]) == ("success", 1), task

    def add_model(self, name: str) -> None:
        body = {"model": name, "model_type": "llm", "credentials": {**CREDENTIALS, "base_url": self.model_url}}
        if self.newer:
            self.call("POST", f"{PROVIDER}/credentials", body, 201)
        else:
            self.call("POST", PROVIDER, body)

    def chat_key(self, model: str) -> str:
        body = {"mode": "yaml-content", "yaml_content": DSL.replace("MODEL", model)}
        reply = self.instance.send("POST", "/console/api/apps/imports", body=body, headers=self.instance.session())
        app = reply.json["app_id"]
        if reply.status == 202:
            path = f"/console/api/apps/imports/{reply.json['id']}/confirm"
            app = self.call("POST", path, {})["app_id"]
        return str(self.call("POST", f"/console/api/apps/{app}/api-keys", {}, 201)["token"])

    def chat(self, key: str, mode: str) -> Any:
        body = {**CHAT, "query": "hi", "response_mode": mode}
        return self.instance.send("POST", "/v1/chat-messages", body=body, headers={"Authorization": f"Bearer {key}"})


def events(body: bytes) -> list[dict[str, Any]]:
    return [json.loads(line[5:]) for line in body.decode().splitlines() if line.startswith("data:")]


@pytest.fixture
def pair(request: pytest.FixtureRequest, postgres: Any, redis_server: Any, tmp_path: Path) -> Iterator[Pair]:
    if not interpreter():
        pytest.skip("no Python with psycopg2, redis and yaml")
    release, version = request.param
    daemon = harness.Daemon(version, tmp_path / "daemon", postgres, redis_server, free_port())
    instance = Instance(release, postgres, redis_server, 60)
    instance.environment |= {"PLUGIN_DAEMON_URL": daemon.url, "PLUGIN_DAEMON_KEY": harness.KEY}
    model_port = free_port()
    with harness.model_server(model_port):
        daemon.start()
        assert instance.flask("upgrade-db").returncode == 0
        instance.start()
        yield Pair(instance, daemon, model_port)
        instance.close()
        daemon.close()


def until(condition: Callable[[], bool], seconds: float = 15) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


@pytest.mark.parametrize("pair", PAIRS, indirect=True, ids=["+".join(names) for names in PAIRS])
def test_from_an_empty_workspace_to_an_answer(pair: Pair) -> None:
    pair.log_in()
    assert pair.call("GET", f"{BASE}/plugin/list?page=1&page_size=256")["plugins"] == []
    assert pair.call("GET", f"{BASE}/model-providers")["data"] == []
    pair.install()
    assert [item["version"] for item in pair.call("GET", f"{BASE}/plugin/list?page=1&page_size=256")["plugins"]] == [
        "0.0.6"
    ]
    provider = pair.call("GET", f"{BASE}/model-providers")["data"][0]
    assert (provider["provider"], provider["custom_configuration"]["status"]) == (
        "langgenius/ollama/ollama",
        "no-configure",
    )
    pair.add_model("llama3.2")
    assert [item["model"] for item in pair.call("GET", PROVIDER)["data"]] == ["llama3.2"]
    assert pair.call("GET", f"{BASE}/default-model?model_type=llm")["data"]["model"] == "llama3.2"
    key = pair.chat_key("llama3.2")
    blocking = pair.chat(key, "blocking")
    assert (blocking.status, blocking.json["answer"]) == (200, "Hello from fake")
    assert blocking.json["metadata"]["usage"]["total_tokens"] == 14
    found = events(pair.chat(key, "streaming").body)
    assert "".join(event["answer"] for event in found if event["event"] == "message") == "Hello from fake"
    assert found[-1]["event"] == "message_end"


@pytest.mark.parametrize("pair", [("1.12.1", "0.5.3"), ("1.16.0", "0.6.3")], indirect=True, ids=["1.12.1", "1.16.0"])
def test_a_refused_key_and_a_daemon_that_is_gone_look_different(pair: Pair) -> None:
    pair.log_in()
    tasks = f"{BASE}/plugin/tasks?page=1&page_size=1"
    assert pair.call("GET", tasks)["tasks"] == []
    pair.instance.start(PLUGIN_DAEMON_KEY="wrong")
    if pair.instance.release == "1.16.0":
        refused = pair.call("GET", tasks, expected=400)
        assert refused["code"] == "plugin_error"
        assert "401 Unauthorized" in refused["message"]
    else:
        assert pair.call("GET", tasks, expected=500)["code"] == "unknown"
    pair.instance.start()
    pair.daemon.stop()
    gone = pair.call("GET", tasks, expected=400)
    assert gone["message"].startswith("Failed to request plugin daemon, url: plugin/")


@pytest.mark.parametrize("pair", [("1.12.1", "0.5.3")], indirect=True, ids=["1.12.1"])
def test_a_killed_plugin_process_comes_back(pair: Pair) -> None:
    pair.log_in()
    pair.install()
    pair.add_model("llama3.2")
    key = pair.chat_key("llama3.2")
    assert pair.chat(key, "blocking").status == 200
    pair.daemon.kill_plugins()
    dead = pair.chat(key, "blocking")
    assert (dead.status, dead.json["code"]) == (400, "completion_request_error")
    assert "PluginDaemonInternalServerError: no proper instance" in dead.json["message"]
    assert pair.call("GET", f"{BASE}/model-providers")["data"][0]["custom_configuration"]["status"] == "active"
    assert until(lambda: pair.chat(key, "blocking").status == 200)


@pytest.mark.parametrize("pair", [("1.12.1", "0.5.3"), ("1.16.0", "0.6.3")], indirect=True, ids=["1.12.1", "1.16.0"])
def test_trouble_at_the_model_server_comes_back_as_recorded(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    pair.log_in()
    pair.install()
    pair.add_model("llama3.2")
    key = pair.chat_key("llama3.2")

    def asked() -> tuple[Any, dict[str, Any]]:
        blocking, stream = pair.chat(key, "blocking"), pair.chat(key, "streaming")
        assert (blocking.status, stream.status) == (400, 200)
        (event,) = events(stream.body)
        assert event["event"] == "error"
        return blocking.json, event

    monkeypatch.setitem(fake_ollama.REFUSED, "llama3.2", (404, "model 'llama3.2' not found"))
    blocking, event = asked()
    text = "[models] Error: API request failed with status code 404"
    assert blocking["code"] == event["code"] == "invalid_param"
    assert re.match(r"req_id: [0-9a-f]{10} PluginInvokeError: \{", blocking["message"])
    assert json.loads(event["message"])["error_type"] == "InvokeError"
    assert json.loads(event["message"])["message"].startswith(text)
    # base_url where nobody listens: as of a server that only the host can reach.
    pair.instance.postgres.query(
        "UPDATE provider_model_credentials SET encrypted_config = replace(encrypted_config, %s, 'http://127.0.0.1:1')",
        pair.model_url,
        database=pair.instance.database,
    )
    blocking, event = asked()
    assert blocking["code"] == event["code"] == "completion_request_error"
    assert blocking["message"] == event["message"]
    assert blocking["message"].startswith("[models] Server Unavailable Error, HTTPConnectionPool(host='127.0.0.1'")
    assert "[Errno 111] Connection refused" in blocking["message"]
    body = {**MODEL, "credentials": {**CREDENTIALS, "base_url": "http://127.0.0.1:1"}}
    found = pair.call("POST", f"{PROVIDER}/credentials/validate", body)
    assert found["result"] == "error"
    assert found["error"].startswith("An error occurred during credentials validation: HTTPConnectionPool")
