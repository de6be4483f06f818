"""A workspace on the finished node, made as an owner makes it: account, plugin, models, apps and their keys."""

from __future__ import annotations

import base64
import json
import subprocess
import time
from typing import Any

import requests
from node import CONTAINER, on_node

EMAIL, PASSWORD = "owner@example.com", "Passw0rd!x"
PLUGIN = "langgenius/ollama"
PROVIDER = f"{PLUGIN}/ollama"
# The model server is one more container on Dify's own network.
MODELS = "http://models:11434"
CREDENTIALS = {
    "base_url": MODELS,
    "mode": "chat",
    "context_size": "4096",
    "max_tokens": "4096",
    "vision_support": "false",
    "function_call_support": "false",
}
API_IMAGE = "$(docker inspect --format '{{.Config.Image}}' dify-api-1)"
DUMP = "/root/dify-before.sql"


class Console:
    """Logged in as the owner, whose account it makes first."""

    def __init__(self) -> None:
        published = subprocess.run(
            ["docker", "port", CONTAINER, "80/tcp"], capture_output=True, text=True, check=True
        ).stdout
        self.url = f"http://{published.split()[0]}"
        self.session = requests.Session()
        initial = json.loads(on_node("cat /opt/dify/secrets.json"))["INIT_PASSWORD"]
        self._ask("POST", "init", json={"password": initial})
        owner = {"email": EMAIL, "name": "Owner", "password": PASSWORD}
        self._ask("POST", "setup", json=owner)
        encoded = base64.b64encode(PASSWORD.encode()).decode()
        self._ask("POST", "login", json={"email": EMAIL, "password": encoded, "remember_me": True})
        self.session.headers["X-CSRF-Token"] = self.session.cookies["csrf_token"]

    def _ask(self, method: str, path: str, **options: Any) -> Any:
        answer = self.session.request(method, f"{self.url}/console/api/{path}", timeout=60, **options)
        assert answer.ok, f"{method} {path}: HTTP {answer.status_code} {answer.text[:500]}"
        return answer.json() if answer.content else None

    def upload(self, plugin: str, version: str) -> str:
        """Brings a package that is signed as the marketplace's are to the daemon; its identifier."""
        pack = f"python3 -m standin.daemon_package {plugin} {version} /tmp/p --signed >&2 && base64 /tmp/p && rm /tmp/p"
        package = base64.b64decode(on_node(f"docker exec dify-plugin_daemon-1 sh -c '{pack}'"))
        files = {"pkg": ("plugin.difypkg", package)}
        return str(self._ask("POST", "workspaces/current/plugin/upload/pkg", files=files)["unique_identifier"])

    def install(self, identifier: str) -> None:
        body = {"plugin_unique_identifiers": [identifier]}
        task = self._ask("POST", "workspaces/current/plugin/install/pkg", json=body)["task_id"]
        until = time.monotonic() + 60
        while True:
            state = self._ask("GET", f"workspaces/current/plugin/tasks/{task}")["task"]
            if state["status"] == "success":
                return
            assert state["status"] != "failed" and time.monotonic() < until, state
            time.sleep(0.5)

    def uninstall_all(self) -> None:
        for plugin in self._ask("GET", "workspaces/current/plugin/list")["plugins"]:
            body = {"plugin_installation_id": plugin["installation_id"]}
            self._ask("POST", "workspaces/current/plugin/uninstall", json=body)

    def add_model(self, name: str) -> None:
        body = {"model": name, "model_type": "llm", "credentials": CREDENTIALS}
        self._ask("POST", f"workspaces/current/model-providers/{PROVIDER}/models/credentials", json=body)

    def chat_key(self, model: str) -> str:
        """API key of a new chat app that asks this model."""
        app = {
            "version": "0.5.0",
            "kind": "app",
            "app": {"name": f"chat with {model}", "mode": "chat", "icon": "x", "icon_background": "#FFEAD5"},
            "model_config": {"model": {"provider": PROVIDER, "name": model, "mode": "chat", "completion_params": {}}},
            "dependencies": [],
        }
        body = {"mode": "yaml-content", "yaml_content": json.dumps(app)}
        made = self._ask("POST", "apps/imports", json=body)
        return str(self._ask("POST", f"apps/{made['app_id']}/api-keys")["token"])


def psql(what: str) -> str:
    return f"docker exec -i dify-db_postgres-1 {what}"


def keep() -> None:
    """What the database says before, and a model server beside Dify."""
    on_node(f"{psql('pg_dump -U postgres --clean --if-exists dify')} > {DUMP}")
    # An environment that an earlier run has left would make an installation too quick to be seen.
    on_node("docker rm --force models 2>&1; rm -rf /opt/dify/volumes/plugin_daemon/cwd/langgenius/second-*")
    run = "docker run --detach --network dify_default --network-alias models --name models"
    on_node(f"{run} --entrypoint python3 {API_IMAGE} -m standin.fake_ollama 11434")


def put_back() -> None:
    on_node(f"docker rm --force models; {psql('psql -q -U postgres -d dify -1')} < {DUMP} && rm {DUMP}")
