# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Model routes of Dify's console. `provider` may be short or long in every method; see provider_id()."""

from __future__ import annotations

from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._dify_console_session import Requests

_BASE = "workspaces/current/"
# Writing credentials asks the model for an answer; one that is loaded for the first time takes its time.
_VALIDATE_SECONDS = 310.0


class Models:
    def __init__(self, console: Requests) -> None:
        self.console = console

    def provider_id(self, provider: str) -> str:
        """`ollama` before 1.0, `langgenius/ollama/ollama` since; both spellings are taken for both."""
        if not self.console.has("plugins"):
            return provider.rpartition("/")[2]
        return provider if "/" in provider else f"langgenius/{provider}/{provider}"

    def providers(self, model_type: str = "") -> list[dict[str, Any]]:
        """Each with provider, label, model_credential_schema, custom_configuration, …

        From 1.16 on the list may be a day old where a plugin came or went without the console.
        """
        data = self.console.request(
            "GET", f"{_BASE}model-providers", query={"model_type": model_type} if model_type else None
        )
        return (data or {}).get("data") or []

    def provider(self, provider: str) -> dict[str, Any] | None:
        wanted = self.provider_id(provider)
        return next((one for one in self.providers() if one.get("provider") == wanted), None)

    def of(self, provider: str) -> list[dict[str, Any]]:
        """model, model_type, status, model_properties, … One whose plugin cannot be asked may be missing (1.16)."""
        return (self.console.request("GET", self._path(provider)) or {}).get("data") or []

    def credentials(self, provider: str, model: str, model_type: str, credential_id: str = "") -> dict[str, Any]:
        """What is stored for a model: secrets masked (secret************-1), {} where nothing is.

        Returns:
            C(credentials), C(id) and C(name) of the current one (both empty before 1.8), and C(available): all, newest
            first, each with credential_id and credential_name (before 1.8 always empty).
        """
        query = {"model": model, "model_type": model_type}
        if credential_id:
            query["credential_id"] = credential_id
        data = self.console.request("GET", f"{self._path(provider)}/credentials", query=query) or {}
        return {
            "credentials": data.get("credentials") or {},
            "id": str(data.get("current_credential_id") or ""),
            "name": str(data.get("current_credential_name") or ""),
            "available": data.get("available_credentials") or [],
        }

    def save(
        self,
        provider: str,
        model: str,
        model_type: str,
        credentials: dict[str, str],
        credential_id: str = "",
        name: str = "",
    ) -> None:
        """Stores credentials after Dify has tried them. All values must be strings.

        With credential_id that one is changed in place. Without it, releases from 1.8 on store one more each time: look
        at credentials() first. Before 1.8 there is one, which is overwritten.
        """
        body: dict[str, Any] = {"model": model, "model_type": model_type, "credentials": credentials}
        if not self.console.has("credential_routes"):
            body["load_balancing"] = {"enabled": False, "configs": []}
            self._send("POST", provider, "", body)
            return
        if name:
            body["name"] = name
        if credential_id:
            body["credential_id"] = credential_id
        self._send("PUT" if credential_id else "POST", provider, "/credentials", body)

    def validate(self, provider: str, model: str, model_type: str, credentials: dict[str, str]) -> str:
        """The model server's objection, "" where there is none. An error of the platform is a ConsoleError."""
        body = {"model": model, "model_type": model_type, "credentials": credentials}
        data = self._send("POST", provider, "/credentials/validate", body) or {}
        return "" if data.get("result") == "success" else self.console.hide(str(data.get("error") or "no reason given"))

    def switch(self, provider: str, model: str, model_type: str, credential_id: str) -> None:
        """Makes a stored credential the current one (from 1.8 on)."""
        body = {"model": model, "model_type": model_type, "credential_id": credential_id}
        self._send("POST", provider, "/credentials/switch", body)

    def delete_credential(self, provider: str, model: str, model_type: str, credential_id: str) -> None:
        """Deletes one credential (from 1.8 on); with the current one the model goes too."""
        body = {"model": model, "model_type": model_type, "credential_id": credential_id}
        self._send("DELETE", provider, "/credentials", body)

    def delete(self, provider: str, model: str, model_type: str) -> None:
        """Removes a model with all its credentials. From 1.8 on they would outlive it and come back with it."""
        if self.console.has("credential_routes"):
            for one in self.credentials(provider, model, model_type)["available"]:
                self.delete_credential(provider, model, model_type, str(one["credential_id"]))
        self._send("DELETE", provider, "", {"model": model, "model_type": model_type})

    def enable(self, provider: str, model: str, model_type: str, enabled: bool = True) -> None:
        body = {"model": model, "model_type": model_type}
        self._send("PATCH", provider, "/enable" if enabled else "/disable", body)

    def default(self, model_type: str) -> tuple[str, str]:
        """Provider and model that are the default of a type, both empty where none is."""
        data = self.console.request("GET", f"{_BASE}default-model", query={"model_type": model_type}) or {}
        found = data.get("data") or {}
        provider = found.get("provider") or {}
        return str(provider.get("provider") or ""), str(found.get("model") or "")

    def set_default(self, model_type: str, provider: str, model: str) -> bool:
        """Whether it took. Before 1.14 the first call on a workspace has no effect if another model comes first."""
        entry = {"model_type": model_type, "provider": self.provider_id(provider), "model": model}
        wanted = (entry["provider"], model)
        for _attempt in range(1 if self.console.has("default_model_kept") else 2):
            self.console.request("POST", f"{_BASE}default-model", json={"model_settings": [entry]})
            if self.default(model_type) == wanted:
                return True
        return False

    def _path(self, provider: str) -> str:
        return f"{_BASE}model-providers/{self.provider_id(provider)}/models"

    def _send(self, method: str, provider: str, route: str, body: dict[str, Any]) -> Any:
        return self.console.request(method, self._path(provider) + route, json=body, timeout=_VALIDATE_SECONDS)
