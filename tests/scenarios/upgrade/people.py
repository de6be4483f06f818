"""Who uses a Dify of any release: somebody who signs in to the console, and a program with a key."""

from __future__ import annotations

import base64
import dataclasses
import json
from typing import Any

import requests
from node import serving, url

# Passwords are sent in base64 from here on; before, a session is a bearer token, and cookies since 1.9.2.
BASE64_SINCE = (1, 11, 2)
PLUGINS_SINCE = (1, 0, 0)
LONG, SHORT = "langgenius/ollama/ollama", "ollama"


def key(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("-")[0].split("."))


@dataclasses.dataclass
class Person:
    """An account, by the password that it has had from the beginning."""

    email: str
    password: str

    def __post_init__(self) -> None:
        self.session = requests.Session()
        self.release = ""

    def sign_in(self) -> Person:
        self.release, self.session = serving(), requests.Session()
        sent = self.password
        if key(self.release) >= BASE64_SINCE:
            sent = base64.b64encode(self.password.encode()).decode()
        body = {"email": self.email, "password": sent, "remember_me": True}
        answer = self.session.post(f"{url()}/console/api/login", json=body, timeout=60)
        assert answer.ok, f"{self.email} cannot sign in: HTTP {answer.status_code} {answer.text[:300]}"
        tokens = answer.json().get("data")
        if isinstance(tokens, dict):
            self.session.headers["Authorization"] = f"Bearer {tokens['access_token']}"
        else:
            self.session.headers["X-CSRF-Token"] = self.session.cookies["csrf_token"]
        return self

    def ask(self, method: str, path: str, **options: Any) -> Any:
        answer = self.session.request(method, f"{url()}/console/api/{path}", timeout=120, **options)
        assert answer.ok, f"{method} {path}: HTTP {answer.status_code} {answer.text[:500]}"
        return answer.json() if answer.content else None

    @property
    def provider(self) -> str:
        return LONG if key(self.release) >= PLUGINS_SINCE else SHORT

    def models(self) -> dict[str, str]:
        listed = self.ask("GET", f"workspaces/current/model-providers/{self.provider}/models")["data"]
        return {one["model"]: one["model_type"] for one in listed}

    def credentials(self, model: str) -> dict[str, Any]:
        path = f"workspaces/current/model-providers/{self.provider}/models/credentials"
        return dict(self.ask("GET", path, params={"model": model, "model_type": "llm"})["credentials"])

    def apps(self) -> dict[str, str]:
        return {one["name"]: one["id"] for one in self.ask("GET", "apps", params={"limit": 100})["data"]}

    def add_app(self, name: str, model: str) -> str:
        """A chat app that asks this model, with a key for programs; the key."""
        app = self.ask("POST", "apps", json={"name": name, "mode": "chat", "icon": "x", "icon_background": "#FFEAD5"})
        about = {"provider": self.provider, "name": model, "mode": "chat", "completion_params": {}}
        self.ask("POST", f"apps/{app['id']}/model-config", json={"model": about, "pre_prompt": "Be brief."})
        self.ask("POST", f"apps/{app['id']}/api-enable", json={"enable_api": True})
        return str(self.ask("POST", f"apps/{app['id']}/api-keys")["token"])


@dataclasses.dataclass(frozen=True)
class Program:
    """What calls the service API with a key."""

    key: str

    def ask(self, method: str, path: str, **options: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.key}"}
        answer = requests.request(method, f"{url()}/v1/{path}", headers=headers, timeout=120, **options)
        assert answer.ok, f"{method} /v1/{path}: HTTP {answer.status_code} {answer.text[:500]}"
        return answer

    def chat(self, query: str = "Hello", conversation: str = "", user: str = "reader") -> dict[str, Any]:
        body = {
            "inputs": {},
            "query": query,
            "user": user,
            "response_mode": "streaming",
            "conversation_id": conversation,
            "auto_generate_name": False,  # it would come later, and be a change
        }
        answer = self.ask("POST", "chat-messages", json=body)
        lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data:")]
        events = [json.loads(line) for line in lines]
        assert events[-1]["event"] == "message_end", events[-1]
        text = "".join(event["answer"] for event in events if event["event"] == "message")
        return {"text": text, "conversation": events[-1]["conversation_id"]}

    def questions(self, conversation: str, user: str = "reader") -> list[str]:
        listed = self.ask("GET", "messages", params={"conversation_id": conversation, "user": user, "limit": 100})
        return [one["query"] for one in listed.json()["data"]]
