# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""The road from the providers that Dify had built in up to 0.15 to the plugins that it has from 1.0 on.

Everything long is done while the old release still serves everybody: what each workspace needs is worked out, the
packages are fetched, and the new release's plugin daemon, started beside the old release with a database of its own,
installs them all and makes their environments. The outage then only starts that daemon again.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._dify_data_commands import command_of, ending, flask
from ansible_collections.llmops.stack.plugins.module_utils._dify_database import Database, DatabaseError
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_fetch import Sources
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_installer import Fetched, Installer
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_needs import (
    Needs,
    collisions,
    needs,
    read_extracted,
    short_names,
)
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_context import Context, StepError
from ansible_collections.llmops.stack.plugins.module_utils._docker_cli import DockerError

__all__ = ["fetch", "install", "names", "unfetch"]

SERVICE = "plugin_daemon"
FETCH = "fetch_plugins"
PORT = "5002"
_START_SECONDS = 180.0
_LIST_SECONDS = 180.0


def fetch(ctx: Context) -> None:
    """Have every plugin that a workspace needs installed by the daemon of the new release, beside the old release.

    Raises:
        StepError: a plugin cannot be had or does not install. Nothing of the old release was touched.
    """
    found = _needed(ctx)
    ctx.log(f"plugins needed: {_shown(found)}")
    packages = _packages(ctx, found)
    wanted = {
        tenant: [packages[plugin] for plugin in sorted(found.of(tenant)) if plugin in packages]
        for tenant in found.tenants
    }
    ctx.remember("packages", {name: vars(one) for name, one in packages.items()})
    ctx.remember("wanted", {tenant: [one.wanted.plugin for one in given] for tenant, given in wanted.items()})
    if packages:
        _remember_what_was_there(ctx)
        _prepare(ctx, wanted)


def unfetch(ctx: Context) -> None:
    """The host as it was: no daemon beside the old release, and neither its database nor its files, if they are new.

    Files without that database would be strays, which the next daemon starts.
    """
    _remove_beside(ctx)
    fresh = ctx.recall("fresh")
    if not fresh:
        return
    ctx.database.drop(fresh["database"])
    for name in set(_stored(ctx)) - set(fresh["kept"]):
        path = os.path.join(_storage(ctx), name)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)


def install(ctx: Context) -> None:
    """What was prepared is there under the real daemon, and answers; what is not, is installed now.

    Raises:
        StepError: a plugin is not listed, or its process does not answer.
    """
    packages = {name: Fetched(**one) for name, one in (ctx.journal.get(FETCH, "packages") or {}).items()}
    wanted = {
        tenant: [packages[plugin] for plugin in plugins]
        for tenant, plugins in (ctx.journal.get(FETCH, "wanted") or {}).items()
    }
    if not packages:
        ctx.log("no workspace needs a plugin")
        return
    installer = _installer(ctx, ctx.options.plugin_daemon_url)
    installer.await_daemon(ctx.remaining(_START_SECONDS))
    installer.provide(wanted, ctx.remaining(ctx.options.plugin_timeout))


def names(ctx: Context) -> None:
    """Providers get the names of their plugins in every row.

    Raises:
        StepError: rows with an old name are left.
    """
    before = short_names(ctx.database)
    if not before:
        ctx.log("every provider has its plugin's name already")
        return
    doubles = collisions(ctx.database)
    if doubles:
        raise StepError(
            f"{len(doubles)} rows cannot get their plugin's name, because another row has it already: "
            f"{'; '.join(doubles[:5])}.",
            "Look which of the two is used, delete the other in the running release, and run this again.",
        )
    done = flask(ctx, command_of(ctx, ["flask", "migrate-data-for-plugin"]), sum(before.values()))
    left = short_names(ctx.database)
    if left:
        rows = ", ".join(f"{count} in {table}" for table, count in sorted(left.items()))
        raise StepError(
            f"Rows still have a provider's old name after Dify's command that renames them: {rows} "
            f"({ending(ctx, done)}).",
            f"Read {ctx.step}.log among the evidence.",
        )
    ctx.log(f"{sum(before.values())} rows in {len(before)} tables have their plugin's name")


def _needed(ctx: Context) -> Needs:
    """Out of the database, and what the new release's own command finds, if it can read this schema at all."""
    try:
        found = needs(ctx.database)
    except DatabaseError as exc:
        raise StepError(f"What plugins the workspaces need cannot be read from the database: {exc}.") from None
    for one in found.unread:
        ctx.log(f"not looked at: {one}")
    command = shlex.join(command_of(ctx, ["flask", "extract-plugins"]))
    # A new file: the command appends to what is there. Without an option it would ask.
    script = (
        f'file=$(mktemp) && {command} --output_file="$file" --workers=2 </dev/null; code=$?; cat "$file"; exit $code'
    )
    try:
        done = flask(ctx, ["sh", "-c", script], tag=ctx.new, env=_old_address(ctx), shown=command)
    except DockerError as exc:
        ctx.log(f"the new release's own command was not run: {exc}")
        return found
    extracted = read_extracted(done.out)
    for tenant, plugins in extracted.items():
        more = plugins - found.of(tenant)
        if more:
            ctx.log(f"only the release's own command found for workspace {tenant}: {', '.join(sorted(more))}")
            found.mentioned.setdefault(tenant, set()).update(more)
    if set(found.tenants) - extracted.keys():
        ctx.log("the release's own command could not read this schema; the database itself was asked")
    return found


def _packages(ctx: Context, found: Needs) -> dict[str, Fetched]:
    """Plugin -> its package on this host. What cannot be had and only a text mentions is left out."""
    sources = Sources(ctx.options.plugins, ctx.options.marketplace_url, os.path.join(ctx.folder, "plugins"))
    sure = set().union(*found.sure.values())
    every = sorted(sure.union(*found.mentioned.values()))
    packages, missing = {}, {}
    for plugin in every:
        try:
            packages[plugin] = sources.fetch(plugin, ctx.remaining(ctx.options.plugin_timeout))
        except StepError as exc:
            missing[plugin] = exc.message
    for plugin, why in missing.items():
        ctx.log(f"{plugin} cannot be had: {why}")
    needed = [plugin for plugin in missing if plugin in sure]
    accepted = any(one.get("missing_ok") for one in ctx.plan.get("steps", []) if one.get("id") == FETCH)
    if needed and not accepted:
        raise StepError(
            f"{_few(needed)} cannot be had, and workspaces have credentials, models or documents of {_them(needed)}: "
            f"{missing[needed[0]]}",
            "Without its plugin a provider and its models do not work after the upgrade. Mirror the plugin, or give "
            "its package in dify_plugins; to go on without, add 'missing_plugins' to dify_upgrade_accept.",
        )
    return packages


def _prepare(ctx: Context, wanted: Mapping[str, Sequence[Fetched]]) -> None:
    """The new daemon beside the old release: its image, storage and database are its own already."""
    name = _beside(ctx)
    _remove_beside(ctx)
    env = _old_address(ctx)
    options = [part for key in env for part in ("-e", key)]
    try:
        ctx.project.compose(
            ["run", "-d", "--no-deps", "--name", name, *options, SERVICE], ctx.remaining(120), ctx.new, env=env
        )
        address = ctx.project.address(name)
        if not address:
            raise StepError(f"The plugin daemon of Dify {ctx.new} ended right after its start.", _last_words(ctx, name))
        port = ctx.project.settings(ctx.new).get("PLUGIN_DAEMON_PORT") or PORT
        installer = _installer(ctx, f"http://{address}:{port}")
        installer.await_daemon(ctx.remaining(_START_SECONDS))
        installer.provide(wanted, ctx.remaining(ctx.options.plugin_timeout))
    except DockerError as exc:
        raise StepError(
            f"The plugin daemon of Dify {ctx.new} cannot be started beside the old release: {exc}."
        ) from None
    finally:
        _code, out, _err = ctx.project.docker.run(["logs", "--tail", "20000", name], 60, merged=True)
        ctx.keep("plugin_daemon-beside.log", out)
        # Stopped first: it ends its plugins, and no session of it is left in its database.
        ctx.project.docker.run(["stop", "-t", "10", name], 60)
        _remove_beside(ctx)


def _old_address(ctx: Context) -> dict[str, str]:
    """For containers of the new release beside the old one, whose database service may have another name."""
    old = Database(ctx.project)
    return {"DB_HOST": old.host, "DB_PORT": old.port} if old.internal else {}


def _remember_what_was_there(ctx: Context) -> None:
    """For the way back. An earlier try of this upgrade may have noted it already, and then made more."""
    name = ctx.project.settings(ctx.new).get("DB_PLUGIN_DATABASE") or "dify_plugin"
    if ctx.recall("fresh") is None:
        there = ctx.database.exists(name)
        ctx.remember("fresh", {} if there else {"database": name, "kept": _stored(ctx)})


def _storage(ctx: Context) -> str:
    return os.path.join(ctx.project.home, "volumes", SERVICE)


def _stored(ctx: Context) -> list[str]:
    try:
        return sorted(os.listdir(_storage(ctx)))
    except FileNotFoundError:
        return []


def _remove_beside(ctx: Context) -> None:
    ctx.project.docker.run(["rm", "-f", _beside(ctx)], 60)


def _installer(ctx: Context, url: str) -> Installer:
    return Installer(url, ctx.project.settings(ctx.new).get("PLUGIN_DAEMON_KEY") or "", ctx.log)


def _beside(ctx: Context) -> str:
    return f"{ctx.project.name}-{SERVICE}-next"


def _last_words(ctx: Context, name: str) -> str:
    _code, out, _err = ctx.project.docker.run(["logs", "--tail", "1", name], 30, merged=True)
    return f"Its last words: {ctx.mask(out.strip())}" if out.strip() else ""


def _shown(found: Needs) -> str:
    return "; ".join(f"{tenant}: {', '.join(sorted(found.of(tenant)))}" for tenant in found.tenants) or "none"


def _few(plugins: Sequence[str]) -> str:
    more = f" and {len(plugins) - 5} more" if len(plugins) > 5 else ""
    return ", ".join(plugins[:5]) + more


def _them(plugins: Sequence[Any]) -> str:
    return "it" if len(plugins) == 1 else "them"
