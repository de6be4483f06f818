# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""What only the plugin daemon itself can do for a plugin: upgrade it whatever its source, and say whether it lives."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from ansible_collections.llmops.stack.plugins.module_utils._dify_daemon import Daemon, DaemonError, decode
from ansible_collections.llmops.stack.plugins.module_utils._dify_health_texts import DAEMON, QUOTED
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_names import Installed, Wanted
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_texts import clean
from ansible_collections.llmops.stack.plugins.module_utils._http import Http, HttpError

__all__ = ["PluginDaemon"]

# States of a plugin that end by themselves some seconds after a start of the daemon, or of the plugin.
_PASSING = ("no_node", "no_instance", "hang", "empty", "unreachable", "redirect", "killed")
# States that an uninstallation followed by an installation can end.
_CURABLE = ("no_node", "no_instance", "hang", "empty", "not_installed")


class PluginDaemon:
    def __init__(self, url: str, key: str, timeout: float = 5.0) -> None:
        self.url = url.rstrip("/")
        self.key = key
        self.timeout = timeout
        self.http = Http()
        self.daemon = Daemon(self.http, self.url, key, timeout)

    def upgrade(self, tenant: str, found: Installed, wanted: Wanted) -> str:
        """Starts an upgrade to a package that the daemon has, and returns its task. The source stays what it was.

        Raises:
            DaemonError, HttpError: it was not started.
        """
        meta = {"plugin_unique_identifier": wanted.identifier} if found.source == "marketplace" else found.meta
        body = {
            "original_plugin_unique_identifier": found.identifier,
            "new_plugin_unique_identifier": wanted.identifier,
            "source": found.source,
            "meta": meta,
        }
        url = f"{self.url}/plugin/{quote(tenant)}/management/install/upgrade"
        answer = self.http.request("POST", url, max(self.timeout, 30.0), {"X-Api-Key": self.key}, body)
        data = decode(answer.status, answer.text)
        return str(data.get("task_id") or "") if isinstance(data, dict) else ""

    def sign_of_life(self, tenant: str, found: Installed) -> tuple[str, str] | None:
        """None if a call came back from the plugin's process, else (cause, the daemon's words)."""
        data: dict[str, Any] = {"provider": found.provider, "credentials": {}}
        route = "model/validate_provider_credentials"
        try:
            events = list(self.daemon.dispatch(tenant, found.plugin, route, data, self.timeout))
        except DaemonError as exc:
            # A plugin that refuses empty credentials has answered, too.
            return None if exc.cause == "plugin_raised" else (exc.cause, exc.message)
        except HttpError as exc:
            silent = exc.kind in ("timeout_read", "timeout_total")
            return ("hang", "") if silent else ("unreachable", str(exc))
        return None if events else ("no_events", "")

    @staticmethod
    def may_pass(trouble: tuple[str, str]) -> bool:
        return trouble[0] in _PASSING

    @staticmethod
    def curable(trouble: tuple[str, str]) -> bool:
        return trouble[0] in _CURABLE

    @staticmethod
    def explain(cause: str, message: str) -> str:
        if cause == "unreachable":
            return f"the plugin daemon cannot be asked about its process: {message}. {_REACH}"
        found, advice = DAEMON.get(cause, DAEMON["other"])
        said = f" ({clean(message)})" if cause in QUOTED and message else ""
        return f"{found}{said}. {advice}"

    def explain_http(self, exc: HttpError) -> str:
        return f"the plugin daemon cannot be asked to upgrade it: {exc}. {_REACH}"


_REACH = (
    "plugin_daemon_url must lead to the daemon's port 5002, which stock compose files do not publish: publish it on "
    "the loopback address."
)
