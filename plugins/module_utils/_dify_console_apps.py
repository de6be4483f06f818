# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""App routes of Dify's console."""

from __future__ import annotations

from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._dify_console_errors import ConsoleError
from ansible_collections.llmops.stack.plugins.module_utils._dify_console_session import Requests

# Modes whose app answers only after a publish.
WORKFLOW_MODES = ("advanced-chat", "workflow")
# Importing an old file may ask the marketplace, three times.
_IMPORT_SECONDS = 60.0


class Apps:
    def __init__(self, console: Requests) -> None:
        self.console = console

    def find(self, name: str = "") -> list[dict[str, Any]]:
        """All apps, or those with exactly this name: the API looks for parts of it, whatever the case."""
        found = self.console.pages("apps", "data", "limit", {"name": name} if name else None)
        return [one for one in found if not name or one.get("name") == name]

    def get(self, app_id: str) -> dict[str, Any]:
        """id, name, mode, description, enable_api, enable_site, model_config, workflow, …"""
        return self.console.request("GET", f"apps/{app_id}") or {}

    def delete(self, app_id: str) -> None:
        self.console.request("DELETE", f"apps/{app_id}")

    def import_dsl(self, content: str, name: str = "", app_id: str = "") -> dict[str, Any]:
        """Imports a DSL file and confirms it where its version differs. app_id: over that app, workflows only.

        Returns:
            C(app_id), C(status) (completed | completed-with-warnings), C(imported_dsl_version), C(current_dsl_version).
        """
        body = {"mode": "yaml-content", "yaml_content": content}
        body |= {"name": name} if name else {}
        body |= {"app_id": app_id} if app_id else {}
        data = self.console.request("POST", "apps/imports", json=body, timeout=_IMPORT_SECONDS) or {}
        if data.get("status") == "pending":
            path = f"apps/imports/{data['id']}/confirm"
            data = {**data, **(self.console.request("POST", path, json={}, timeout=_IMPORT_SECONDS) or {})}
        if data.get("status") not in ("completed", "completed-with-warnings") or not data.get("app_id"):
            raise ConsoleError(
                "invalid", f"Dify did not import the app: {data.get('error') or data.get('status')}", 200
            )
        return data

    def missing_plugins(self, app_id: str) -> list[str]:
        """Unique identifiers that an app just imported asks for and that are not installed."""
        if not self.console.has("plugins"):
            return []
        data = self.console.request("GET", f"apps/imports/{app_id}/check-dependencies") or {}
        values = [one.get("value") or {} for one in data.get("leaked_dependencies") or []]
        return [
            str(one.get("plugin_unique_identifier") or one.get("marketplace_plugin_unique_identifier"))
            for one in values
        ]

    def draft(self, app_id: str) -> dict[str, Any]:
        """The workflow being edited: graph, features, hash, …"""
        return self.console.request("GET", f"apps/{app_id}/workflows/draft") or {}

    def published(self, app_id: str) -> dict[str, Any]:
        """The workflow that answers, {} where none was published."""
        return self.console.request("GET", f"apps/{app_id}/workflows/publish") or {}

    def publish(self, app_id: str) -> None:
        """Lets the draft of a workflow or advanced chat answer. Other modes need none."""
        self.console.request("POST", f"apps/{app_id}/workflows/publish", json={})

    def set_model_config(self, app_id: str, config: dict[str, Any]) -> None:
        """What a chat, agent or completion app runs with; takes effect at once."""
        self.console.request("POST", f"apps/{app_id}/model-config", json=config)

    def enable_api(self, app_id: str, enabled: bool = True) -> None:
        self.console.request("POST", f"apps/{app_id}/api-enable", json={"enable_api": enabled})

    def keys(self, app_id: str) -> list[dict[str, Any]]:
        """id and the whole token of each, oldest first where the release sorts them. At most ten."""
        data = self.console.request("GET", f"apps/{app_id}/api-keys") or {}
        return [self._known(one) for one in data.get("data") or []]

    def create_key(self, app_id: str) -> dict[str, Any]:
        return self._known(self.console.request("POST", f"apps/{app_id}/api-keys", json={}) or {})

    def _known(self, key: dict[str, Any]) -> dict[str, Any]:
        self.console.secrets |= {str(key.get("token") or "")} - {""}
        return key
