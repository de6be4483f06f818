# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.

"""What a container that is to take over must have shown: the checks of the health ladder, asked past nginx."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ansible_collections.llmops.stack.plugins.module_utils._dify_health_api import (
    check_api,
    check_llm,
    check_setup,
    check_web,
)
from ansible_collections.llmops.stack.plugins.module_utils._dify_health_daemon import (
    check_daemon,
    check_daemon_key,
    check_plugin_process,
    check_plugins,
)
from ansible_collections.llmops.stack.plugins.module_utils._dify_health_engine import Check, Options, Result, watch
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_context import Context
from ansible_collections.llmops.stack.plugins.module_utils._docker_cli import DockerError

__all__ = ["NotProved", "prove", "prove_plugins"]

_LADDERS = {
    "api": (
        Check("api", check_api),
        Check("setup", check_setup, needs=("api",)),
        Check("llm", check_llm, needs=("setup",)),
    ),
    "web": (Check("web", check_web),),
}
_PLUGINS = (
    Check("daemon", check_daemon),
    Check("daemon_key", check_daemon_key, needs=("daemon",)),
    Check("plugins", check_plugins, needs=("daemon_key",)),
    Check("plugin_process", check_plugin_process, needs=("plugins",)),
)
_STEP = 0.3
# One restart is no verdict: some programs end when a database is not ready yet.
_RESTARTS = 2


class NotProved(Exception):
    """A container is not what it should be. The text is a sentence with its full stop.

    C(check) is the first check that failed; empty where the container ended.
    """

    def __init__(self, text: str, check: str = "") -> None:
        super().__init__(text)
        self.check = check


def prove(ctx: Context, service: str, container: str, url: str, version: str) -> None:
    """Ask a container until it answers as the release does, with a chat where there is a key for one.

    Raises:
        NotProved: it ended, or the health deadline was over.
    """
    key = ctx.app_key() if service == "api" else ""
    options = Options(
        url=url,
        expect_version=version if service == "api" else "",
        probe="llm" if key else "none",
        app_key=key,
        app_key_file=ctx.options.app_key_file,
        deadline=0,
        secrets=ctx.secrets,
    )
    _until(ctx, container, _LADDERS[service], options, ctx.remaining(ctx.options.health_deadline))


def prove_plugins(ctx: Context, container: str, version: str, seconds: float) -> None:
    """Wait until each plugin's process answers in the new daemon.

    Raises:
        NotProved: the daemon ended, or it takes longer than `seconds`.
    """
    options = Options(
        plugin_daemon_url=ctx.options.plugin_daemon_url,
        plugin_daemon_key=ctx.secret("PLUGIN_DAEMON_KEY"),
        expect_version=version,
        project=ctx.project.name,
        probe="process",
        deadline=0,
        timeout=3.0,
        secrets=ctx.secrets,
    )
    _until(ctx, container, _PLUGINS, options, seconds)


def _until(ctx: Context, container: str, checks: Sequence[Check], options: Options, seconds: float) -> None:
    """Look again and again, until all is well, the container has ended, or time is up."""
    deadline = time.monotonic() + seconds
    while True:
        verdict = watch(checks, options)
        if verdict.healthy:
            return
        ended = _ended(ctx, container)
        if ended:
            raise NotProved(ended)
        final = any(one.final and one.status == "failed" for one in verdict.results)
        if final or time.monotonic() + _STEP > deadline:
            first = next((one for one in verdict.results if one.status == "failed"), None)
            raise NotProved(_why(first), first.name if first else "")
        time.sleep(_STEP)


def _why(first: Result | None) -> str:
    return f"{first.detail} {first.advice}".strip() if first else "It does not answer."


def _ended(ctx: Context, name: str) -> str:
    """Why a container is not running any more, empty while it is."""
    form = "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}"
    try:
        out = ctx.project.docker.output(["inspect", "--type", "container", "--format", form, name], 30)
    except DockerError:
        return "Its container is gone."
    state, code, restarts = out.split()
    if state in ("running", "restarting") and int(restarts) < _RESTARTS:
        return ""
    return "Its container ends again and again." if int(restarts) else f"Its container ended with exit code {code}."
