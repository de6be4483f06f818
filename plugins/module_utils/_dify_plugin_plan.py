# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Which way leads from the plugin that is installed to the one that shall be: pure decisions."""

from __future__ import annotations

from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_names import Installed, Wanted

__all__ = ["ACTIONS", "PlanError", "pinned", "plan", "strategy_of"]

# route -> what it is called in the result
ACTIONS = {"install": "installed", "console": "upgraded", "daemon": "upgraded", "reinstall": "reinstalled"}
# Sources for whose plugins the console has an upgrade of its own.
_CONSOLE_UPGRADES = ("marketplace", "github")


class PlanError(Exception):
    """No way leads there; the text says why and what to do."""


def plan(wanted: Wanted, found: Installed | None, source: str, daemon: bool, reinstall: bool) -> str:
    """A key of ACTIONS.

    An installation over another version is never a way: it ends with success and changes nothing.

    Args:
        wanted: what shall be there.
        found: what is there, and is not what is wanted.
        source: where the wanted package comes from.
        daemon: whether the plugin daemon itself can be asked.
        reinstall: whether the plugin may be missing for a moment.

    Raises:
        PlanError: nothing that is allowed leads there.
    """
    if found is None:
        return "install"
    if found.source == "remote":
        raise PlanError(
            f"{wanted.plugin} {found.version} is connected to this workspace for debugging, so it cannot be replaced: "
            "end the debugging session, and run this again."
        )
    if found.source == source and source in _CONSOLE_UPGRADES:
        return "console"
    if daemon:
        return "daemon"
    if reinstall:
        return "reinstall"
    raise PlanError(
        f"{wanted.plugin} {found.version} was installed from {_SOURCES.get(found.source, found.source)}, and Dify's "
        f"console cannot replace it by {wanted.version or 'another one'} from {_SOURCES[source]}. Give "
        "plugin_daemon_url with plugin_daemon_key or secrets_file, so that the plugin daemon's own upgrade is used, or "
        "allow reinstall, which keeps the models and their credentials but interrupts calls and drops the plugin's "
        "endpoints."
    )


_SOURCES = {"package": "a package", "marketplace": "the marketplace", "github": "GitHub"}


def strategy_of(auto_upgrade: dict[str, Any], plugin: str) -> str:
    """What automatic upgrades do with a plugin of the marketplace: latest, fix_only or disabled."""
    strategy = str(auto_upgrade.get("strategy_setting") or "disabled")
    mode = auto_upgrade.get("upgrade_mode")
    if mode == "exclude" and plugin in (auto_upgrade.get("exclude_plugins") or []):
        return "disabled"
    if mode == "partial" and plugin not in (auto_upgrade.get("include_plugins") or []):
        return "disabled"
    return strategy


def pinned(auto_upgrade: dict[str, Any], plugin: str, pin: bool) -> dict[str, Any]:
    """The settings of automatic upgrades under which they leave a plugin alone, or take it along. Others stay."""
    new = {
        **auto_upgrade,
        "exclude_plugins": list(auto_upgrade.get("exclude_plugins") or []),
        "include_plugins": list(auto_upgrade.get("include_plugins") or []),
    }
    if new.get("strategy_setting") == "disabled":
        return new
    if new.get("upgrade_mode") == "all" and pin:
        return {**new, "upgrade_mode": "exclude", "exclude_plugins": [plugin]}
    named = {"exclude": "exclude_plugins", "partial": "include_plugins"}.get(str(new.get("upgrade_mode")))
    if named:
        listed = pin if named == "exclude_plugins" else not pin
        new[named] = [one for one in new[named] if one != plugin] + ([plugin] if listed else [])
    return new
