"""What the owner of a node's Dify sees and does in a browser: requests to its console, from outside."""

from __future__ import annotations

import base64
import functools
import json
import subprocess
from typing import Any

import requests
import yaml
from machine import Machine

HOME = "/opt/dify"
PROVIDER = "langgenius/ollama/ollama"


class Owner:
    """Signed in with the address of the inventory and the password that the node keeps."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.session = requests.Session()

    @functools.cached_property
    def url(self) -> str:
        """Port 80 of the node, as this machine reaches it."""
        command = ["docker", "port", self.machine.container, "80/tcp"]
        return "http://" + subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()[0]

    @functools.cached_property
    def email(self) -> str:
        return str(yaml.safe_load(self.machine.inventories[-1].read_text())["all"]["vars"]["dify_admin_email"])

    def secret(self, name: str) -> str:
        return str(json.loads(self.machine.on(f"cat {HOME}/secrets.json"))[name])

    def sign_in(self) -> Owner:
        answer = self.try_password(self.secret("ADMIN_PASSWORD"))
        assert answer.ok, f"{self.email} cannot sign in: HTTP {answer.status_code}"
        self.session.headers["X-CSRF-Token"] = self.session.cookies["csrf_token"]
        return self

    def try_password(self, password: str) -> requests.Response:
        body = {"email": self.email, "password": base64.b64encode(password.encode()).decode(), "remember_me": True}
        return self.session.post(f"{self.url}/console/api/login", json=body, timeout=60)

    def ask(self, method: str, path: str, **options: Any) -> Any:
        answer = self.session.request(method, f"{self.url}/console/api/{path}", timeout=60, **options)
        assert answer.ok, f"{method} {path}: HTTP {answer.status_code} {answer.text[:500]}"
        return answer.json() if answer.content else None

    # What there is

    def plugins(self) -> dict[str, str]:
        listed = self.ask("GET", "workspaces/current/plugin/list")["plugins"]
        return {one["plugin_id"]: one["plugin_unique_identifier"] for one in listed}

    def models(self) -> dict[str, str]:
        """The models of Ollama and their types."""
        listed = self.ask("GET", f"workspaces/current/model-providers/{PROVIDER}/models")["data"]
        return {one["model"]: one["model_type"] for one in listed}

    def credentials(self, model: str, model_type: str = "llm") -> dict[str, Any]:
        """What is stored for a model, and under `available_credentials` how often."""
        query = {"model": model, "model_type": model_type}
        return dict(self.ask("GET", f"workspaces/current/model-providers/{PROVIDER}/models/credentials", params=query))

    def apps(self, name: str = "") -> list[dict[str, Any]]:
        listed = self.ask("GET", "apps", params={"limit": 100})["data"]
        return [one for one in listed if name in ("", one["name"])]

    def app(self, name: str) -> dict[str, Any]:
        (only,) = self.apps(name)
        return dict(self.ask("GET", f"apps/{only['id']}"))

    def keys(self, app_id: str) -> list[str]:
        return [one["token"] for one in self.ask("GET", f"apps/{app_id}/api-keys")["data"]]

    def belongings(self) -> dict[str, Any]:
        """All of it, to see that none of it is lost."""
        return {
            "plugins": self.plugins(),
            "models": {name: self.credentials(name, kind) for name, kind in self.models().items()},
            "apps": {one["name"]: self.keys(one["id"]) for one in self.apps()},
        }

    # What a hand changes

    def change_model(self, model: str, **values: str) -> None:
        found = self.credentials(model)
        body = {
            "model": model,
            "model_type": "llm",
            "credential_id": found["current_credential_id"],
            "name": found["current_credential_name"],
            "credentials": {**found["credentials"], **values},
        }
        self.ask("PUT", f"workspaces/current/model-providers/{PROVIDER}/models/credentials", json=body)

    def change_prompt(self, app: str, prompt: str) -> None:
        found = self.app(app)
        config = {**found["model_config"], "pre_prompt": prompt}
        self.ask("POST", f"apps/{found['id']}/model-config", json=config)

    def prompt(self, app: str) -> str:
        return str(self.app(app)["model_config"]["pre_prompt"])


def chat(url: str, key: str, streaming: bool = False) -> str:
    """The answer of an app, as a program gets it over the service API."""
    body = {
        "inputs": {},
        "query": "Hello",
        "user": "test",
        "response_mode": "streaming" if streaming else "blocking",
    }
    headers = {"Authorization": f"Bearer {key}"}
    answer = requests.post(f"{url}/v1/chat-messages", json=body, headers=headers, stream=streaming, timeout=120)
    assert answer.ok, f"HTTP {answer.status_code} {answer.text[:500]}"
    if not streaming:
        return str(answer.json()["answer"])
    lines = (line.removeprefix("data: ") for line in answer.iter_lines(decode_unicode=True) if line.startswith("data:"))
    events = [json.loads(line) for line in lines]
    assert events[-1]["event"] == "message_end", events[-1]
    return "".join(event["answer"] for event in events if event["event"] == "message")
