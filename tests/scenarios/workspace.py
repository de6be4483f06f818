"""More in the workspace of a finished node, made as its owner makes it: a plugin, models, apps and their keys."""

from __future__ import annotations

import base64
import json

import database
from machine import Machine
from owner import PROVIDER, Owner

PLUGIN = PROVIDER.rpartition("/")[0]
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


class Workspace(Owner):
    """The owner, who makes and takes away."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        self.sign_in()
        self.before = self.plugins()

    def upload(self, plugin: str, version: str) -> str:
        """Brings a package that is signed as the marketplace's are to the daemon; its identifier."""
        pack = f"python3 -m standin.daemon_package {plugin} {version} /tmp/p --signed >&2 && base64 /tmp/p && rm /tmp/p"
        package = base64.b64decode(self.machine.on(f"docker exec dify-plugin_daemon-1 sh -c '{pack}'"))
        files = {"pkg": ("plugin.difypkg", package)}
        return str(self.ask("POST", "workspaces/current/plugin/upload/pkg", files=files)["unique_identifier"])

    def uninstall_new(self) -> None:
        for plugin in self.ask("GET", "workspaces/current/plugin/list")["plugins"]:
            if plugin["plugin_id"] not in self.before:
                body = {"plugin_installation_id": plugin["installation_id"]}
                self.ask("POST", "workspaces/current/plugin/uninstall", json=body)

    def add_model(self, name: str) -> None:
        body = {"model": name, "model_type": "llm", "credentials": CREDENTIALS}
        self.ask("POST", f"workspaces/current/model-providers/{PROVIDER}/models/credentials", json=body)

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
        made = self.ask("POST", "apps/imports", json=body)
        return str(self.ask("POST", f"apps/{made['app_id']}/api-keys")["token"])


def keep(machine: Machine) -> None:
    """What the database says before, and a model server beside Dify."""
    database.keep(machine)
    # An environment that an earlier run has left would make an installation too quick to be seen.
    machine.on("docker rm --force models 2>&1; rm -rf /opt/dify/volumes/plugin_daemon/cwd/langgenius/second-*")
    run = "docker run --detach --network dify_default --network-alias models --name models"
    machine.on(f"{run} --entrypoint python3 {API_IMAGE} -m standin.fake_ollama 11434")


def put_back(machine: Machine) -> None:
    machine.on("docker rm --force models")
    database.put_back(machine)
