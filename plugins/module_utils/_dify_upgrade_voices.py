# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""The plugins after an upgrade as before it: the same rows for every workspace, and whoever answered answers again.

A daemon that has lost a plugin's process lists it as if nothing were missing, and every call of it fails. So each
package is asked for a sign of life before the doors close, and those that gave one are waited for. One that was dead
before is nobody's fault now.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._dify_daemon import DaemonError
from ansible_collections.llmops.stack.plugins.module_utils._dify_health_daemon import sign_of_life, targets
from ansible_collections.llmops.stack.plugins.module_utils._dify_health_engine import Look, Result, failed
from ansible_collections.llmops.stack.plugins.module_utils._dify_health_engine import Options as HealthOptions
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_context import Context, StepError
from ansible_collections.llmops.stack.plugins.module_utils._http import HttpError

__all__ = ["demand_plugins", "demand_voices", "note_voices"]

_PAUSE = 0.3
_ROWS = "SELECT tenant_id::text, plugin_id, plugin_unique_identifier FROM public.plugin_installations"


def note_voices(ctx: Context) -> None:
    """Note who answers: workspace, plugin and provider, one workspace for each package that is installed."""
    if any(one["id"] == "restore_databases" for one in ctx.plan["steps"]):
        return  # a backup may know other plugins
    where = {str(one["identifier"]): str(one["tenant"]) for one in ctx.info.get("plugins") or []}
    found: list[list[str]] = []
    for tenant in sorted(set(where.values())):
        try:
            found += [[tenant, plugin, provider] for plugin, provider in targets(_look(ctx, tenant))]
        except (DaemonError, HttpError) as exc:
            ctx.log(f"the plugins of workspace {tenant} cannot be listed, so nobody waits for them afterwards: {exc}")
    silent = _silent(ctx, found)
    for tenant, plugin, _provider in silent:
        ctx.log(f"plugin {plugin} of workspace {tenant} gives no sign of life, so nobody waits for it afterwards")
    ctx.journal.put("maintenance", "voices", [one for one in found if tuple(one) not in silent])


def demand_plugins(ctx: Context) -> None:
    """Before the doors open.

    Raises:
        StepError: an installation is gone, or a plugin that answered does not.
    """
    name, copies = ctx.database.plugin_name, ctx.journal.get("copy_databases", "copies", {})
    if name in copies and not any(one["id"] == "restore_databases" for one in ctx.plan["steps"]):
        before, after = (_installed(ctx, database) for database in (copies[name], name))
        gone = sorted(f"{plugin} of workspace {tenant}" for tenant, plugin, _identifier in before - after)
        if gone:
            raise StepError(f"Installed plugins are gone or others since the upgrade: {', '.join(gone)}.")
    demand_voices(ctx, ctx.options.health_deadline)


def demand_voices(ctx: Context, seconds: float) -> None:
    """Until everybody answers who has answered before."""
    until = time.monotonic() + ctx.remaining(seconds)
    silent = _silent(ctx, ctx.journal.get("maintenance", "voices", []))
    while silent:
        if time.monotonic() > until:
            (tenant, _plugin, _provider), why = next(iter(silent.items()))
            raise StepError(f"{why.detail}, and it did before, in workspace {tenant}.", why.advice)
        time.sleep(_PAUSE)
        silent = _silent(ctx, silent)


def _silent(ctx: Context, asked: Iterable[Iterable[str]]) -> dict[tuple[str, ...], Result]:
    def ask(one: tuple[str, ...]) -> Result | None:
        tenant, plugin, provider = one
        look = _look(ctx, tenant)
        try:
            # What the daemon does not list for a workspace is called by nobody there.
            listed = (plugin, provider) in targets(look)
        except (DaemonError, HttpError) as exc:
            return failed(f"The plugin daemon does not list plugins: {exc}", "Read the log of plugin_daemon.")
        return sign_of_life(look, plugin, provider) if listed else failed(f"{plugin} is not listed any more", "")

    given = [tuple(one) for one in asked]
    with ThreadPoolExecutor(max_workers=8) as pool:
        return {one: result for one, result in zip(given, pool.map(ask, given)) if result is not None}


def _look(ctx: Context, tenant: str) -> Look:
    return Look(
        HealthOptions(
            plugin_daemon_url=ctx.options.plugin_daemon_url,
            plugin_daemon_key=ctx.secret("PLUGIN_DAEMON_KEY"),
            tenant_id=tenant,
            secrets=ctx.secrets,
        )
    )


def _installed(ctx: Context, database: str) -> set[tuple[Any, ...]]:
    if not ctx.database.exists(database):
        return set()
    if not ctx.database.sql("SELECT to_regclass('public.plugin_installations')", database)[0][0]:
        return set()
    return {tuple(row) for row in ctx.database.sql(_ROWS, database)}
