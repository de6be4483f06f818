# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Plugin routes of Dify's console. Releases before 1.0 have none: ask `available` first."""

from __future__ import annotations

from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._dify_console_errors import ConsoleError
from ansible_collections.llmops.stack.plugins.module_utils._dify_console_session import Requests

_BASE = "workspaces/current/plugin/"
# The API downloads, checks and passes on a package of up to 50 MB in one request, a slow marketplace three times.
_TRANSFER_SECONDS = 300.0


class Plugins:
    def __init__(self, console: Requests) -> None:
        self.console = console

    @property
    def available(self) -> bool:
        return self.console.has("plugins")

    def installed(self) -> list[dict[str, Any]]:
        """Installed plugins: plugin_id, plugin_unique_identifier, version, source, installation_id, declaration, …"""
        found = list(self.console.pages(f"{_BASE}list", "plugins", "page_size"))
        for one in found:
            one.setdefault("installation_id", one.get("id"))
        return found

    def upload(self, name: str, content: bytes) -> str:
        """Gives a .difypkg to the daemon and returns its unique identifier. Installs nothing."""
        files = {"pkg": (name, content)}
        return self._identifier(self._post("upload/pkg", files=files, timeout=_TRANSFER_SECONDS))

    def upload_github(self, repo: str, version: str, package: str) -> str:
        """The same with a file of a release on GitHub, which the API downloads."""
        body = {"repo": repo, "version": version, "package": package}
        return self._identifier(self._post("upload/github", json=body, timeout=_TRANSFER_SECONDS))

    def install(self, identifier: str, source: str = "package") -> str:
        """Starts an installation (source: package | marketplace) and returns its task, "" if there is nothing to do.

        One plugin per call: most releases send the daemon wrong metadata for several. Older daemons refuse one that
        is installed; that counts as nothing to do.
        """
        route = "install/marketplace" if source == "marketplace" else "install/pkg"
        try:
            data = self._post(route, json={"plugin_unique_identifiers": [identifier]}, timeout=_TRANSFER_SECONDS)
        except ConsoleError as error:
            if "plugin already installed" in error.message:
                return ""
            raise
        return self._task(data)

    def install_github(self, identifier: str, repo: str, version: str, package: str) -> str:
        body = {"plugin_unique_identifier": identifier, "repo": repo, "version": version, "package": package}
        return self._task(self._post("install/github", json=body, timeout=_TRANSFER_SECONDS))

    def upgrade(self, original: str, new: str) -> str:
        """Starts an upgrade by the marketplace and returns its task. Works only where `source` is marketplace."""
        body = {"original_plugin_unique_identifier": original, "new_plugin_unique_identifier": new}
        return self._task(self._post("upgrade/marketplace", json=body, timeout=_TRANSFER_SECONDS))

    def upgrade_github(self, original: str, new: str, repo: str, version: str, package: str) -> str:
        """Starts an upgrade from a file of a GitHub release and returns its task.

        As Dify's source has it (api/controllers/console/workspace/plugin.py); no recording has this call.
        """
        body = {
            "original_plugin_unique_identifier": original,
            "new_plugin_unique_identifier": new,
            "repo": repo,
            "version": version,
            "package": package,
        }
        return self._task(self._post("upgrade/github", json=body, timeout=_TRANSFER_SECONDS))

    def task(self, task_id: str) -> dict[str, Any] | None:
        """status (running | success | failed), completed_plugins, total_plugins, plugins[].message.

        None where there is no such task (any more): a finished one is forgotten after a minute or two. The API answers
        500 then: look at installed(). Poll until it is finished: only that makes 1.16 renew its list of providers.
        """
        try:
            data = self.console.request("GET", f"{_BASE}tasks/{task_id}")
        except ConsoleError as error:
            if error.status == 500:
                return None
            raise
        return (data or {}).get("task")

    def tasks(self) -> list[dict[str, Any]]:
        """Also old ones: failed tasks stay for ever, and successful ones if the daemon was stopped soon after."""
        return list(self.console.pages(f"{_BASE}tasks", "tasks", "page_size"))

    def delete_task(self, task_id: str) -> None:
        self._post(f"tasks/{task_id}/delete", json={})

    def uninstall(self, installation_id: str) -> None:
        """Success also for one that is gone. Credentials and models of its providers stay for a later installation."""
        self._post("uninstall", json={"plugin_installation_id": installation_id})

    def latest(self, plugin_ids: list[str]) -> dict[str, Any]:
        """plugin_id -> {version, unique_identifier, …}. Empty also where the marketplace is out of reach."""
        data = self._post("list/latest-versions", json={"plugin_ids": plugin_ids})
        return {name: found for name, found in ((data or {}).get("versions") or {}).items() if found}

    def manifest(self, identifier: str) -> dict[str, Any]:
        data = self.console.request("GET", f"{_BASE}fetch-manifest", query={"plugin_unique_identifier": identifier})
        return (data or {}).get("manifest") or {}

    def auto_upgrade(self, category: str = "model") -> dict[str, Any] | None:
        """How the platform upgrades plugins by itself; None where it does not (before 1.7).

        strategy_setting (disabled | fix_only | latest), upgrade_time_of_day, upgrade_mode (all | exclude | partial),
        exclude_plugins and include_plugins (plugin_ids). Before 1.15 one setting is for all categories.
        """
        if not self.console.has("auto_upgrade"):
            return None
        if self.console.has("auto_upgrade_by_category"):
            data = self.console.request("GET", f"{_BASE}auto-upgrade/fetch", query={"category": category})
        else:
            data = self.console.request("GET", f"{_BASE}preferences/fetch")
        return (data or {}).get("auto_upgrade")

    def set_auto_upgrade(self, strategy: dict[str, Any], category: str = "model") -> None:
        if self.console.has("auto_upgrade_by_category"):
            self._post("auto-upgrade/change", json={"category": category, "auto_upgrade": strategy})
            return
        permission = (self.console.request("GET", f"{_BASE}preferences/fetch") or {}).get("permission")
        self._post("preferences/change", json={"permission": permission, "auto_upgrade": strategy})

    def _post(self, route: str, **options: Any) -> Any:
        return self.console.request("POST", _BASE + route, **options)

    @staticmethod
    def _identifier(data: Any) -> str:
        return str((data or {}).get("unique_identifier") or "")

    @staticmethod
    def _task(data: Any) -> str:
        data = data or {}
        return "" if data.get("all_installed") else str(data.get("task_id") or "")
