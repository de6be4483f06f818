# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the plugin daemon's refusals become."""

from __future__ import annotations

from typing import Any

from standin.api import daemon_client

_Base: Any = Exception
_Base = ValueError  # has: plugin_exception_invalid_param


class PluginDaemonError(_Base):
    def __init__(self, description: str) -> None:
        super().__init__(description)
        self.description = description

    def __str__(self) -> str:
        return f"req_id: {daemon_client.request_id()} {type(self).__name__}: {self.description}"


class PluginDaemonInternalServerError(PluginDaemonError):
    pass


class PluginDaemonBadRequestError(PluginDaemonError):
    pass


class PluginDaemonNotFoundError(PluginDaemonError):
    pass


class PluginInvokeError(PluginDaemonError):
    """An exception inside the plugin; the description is its JSON."""
