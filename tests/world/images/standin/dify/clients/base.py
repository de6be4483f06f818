# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests to the plugin daemon that are answered by a stream of events."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from core.model_runtime.errors import invoke
from core.plugin.impl import exc
from standin.api import daemon_client


class BasePluginClient:
    def _stream_request(
        self,
        method: str,
        path: str,
        params: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        data: bytes | dict[str, Any] | None = None,
        files: dict[str, Any] | None = None,
    ) -> Generator[str, None, None]:
        yield from daemon_client.lines(method, path, params, headers, data)

    def _request_with_plugin_daemon_response_stream(
        self,
        method: str,
        path: str,
        type_: Callable[[Any], Any],
        headers: dict[str, str] | None = None,
        data: bytes | dict[str, Any] | None = None,
        params: dict[str, Any] | None = None,
        files: dict[str, Any] | None = None,
    ) -> Generator[Any, None, None]:
        try:
            for line in self._stream_request(method, path, params, headers, data, files):
                yield type_(daemon_client.event(line))
        except daemon_client.DaemonError as error:
            raise self._as_raised(error) from error

    @staticmethod
    def _as_raised(error: daemon_client.DaemonError) -> Exception:
        if not isinstance(error, daemon_client.DaemonRefusal):
            return ValueError(str(error))
        if error.code in (-404, -401):
            return ValueError(f"plugin daemon: {error.raw}, code: {error.code}")
        inner = error.invoke_error()
        family = getattr(invoke, str(inner.get("error_type")), None)
        if family is not None and family is not invoke.InvokeError:
            return family((inner.get("args") or {}).get("description") or inner.get("message"))
        kind = getattr(exc, error.error_type, exc.PluginDaemonInternalServerError)
        return kind(error.text)
