# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module util is PRIVATE to the collection; it may change without notice.

"""daemon.json as data: what it should say, what a change of it costs, and whether it may land."""

from __future__ import annotations

import copy
import json
import typing as t

# What dockerd takes over on SIGHUP (moby's daemon/reload.go). Everything else needs a restart.
RELOADABLE = frozenset({
    "allow-nondistributable-artifacts", "debug", "default-runtime", "features", "insecure-registries", "labels",
    "live-restore", "max-concurrent-downloads", "max-concurrent-uploads", "max-download-attempts",
    "network-diagnostic-port", "registry-mirrors", "runtimes", "shutdown-timeout",
})  # fmt: skip
# SIGHUP resets these when they are gone from the file; the others keep their old value until a restart.
RESET_WHEN_REMOVED = frozenset({
    "features", "max-concurrent-downloads", "max-concurrent-uploads", "max-download-attempts",
    "network-diagnostic-port",
})  # fmt: skip

Config = dict[str, t.Any]


def deep_merge(below: Config, above: Config) -> Config:
    """`above` laid over `below`: dictionaries merge key by key, everything else replaces, None takes a key away."""
    merged = copy.deepcopy(below)
    for key, value in above.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = deep_merge(merged[key], value)
        elif isinstance(value, dict):
            merged[key] = deep_merge({}, value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def wanted_config(found: Config, config: Config, baseline: Config) -> Config:
    """What the file should say: `config` always wins, `baseline` speaks only where the file is silent."""
    return deep_merge(deep_merge(baseline, found), config)


def with_proxies(config: Config, proxies: Config) -> Config:
    named = {name.replace("_", "-"): value for name, value in proxies.items() if value}
    return deep_merge(config, {"proxies": named}) if named else config


def changed_keys(before: Config, after: Config) -> list[str]:
    return sorted(key for key in {*before, *after} if before.get(key) != after.get(key))


def needed_action(before: Config, after: Config) -> str:
    """`restart`, `reload` or nothing: the gentlest way to make a running engine follow the change."""
    keys = changed_keys(before, after)
    if not keys:
        return ""
    for key in keys:
        if key not in RELOADABLE or (key not in after and key not in RESET_WHEN_REMOVED):
            return "restart"
    return "reload"


def stronger(one: str, other: str) -> str:
    return max(one, other, key=("", "reload", "restart").index)


def keep_containers(before: Config, after: Config) -> bool:
    """Whether a reload before the restart spares running containers.

    live-restore can be switched on by SIGHUP, so an engine that never had it can be restarted under its containers.
    A new data-root is the exception: the engine would not find them again.
    """
    return bool(after.get("live-restore")) and before.get("data-root") == after.get("data-root")


def follows(info: Config, config: Config) -> bool:
    """Whether a reloaded engine reports what the file says, as far as its /info tells."""
    if not info:
        return False
    if "live-restore" in config and bool(info.get("LiveRestoreEnabled")) != config["live-restore"]:
        return False
    if "debug" in config and bool(info.get("Debug")) != config["debug"]:
        return False
    registries = info.get("RegistryConfig") or {}
    mirrors = {url.rstrip("/") for url in registries.get("Mirrors") or []}
    if "registry-mirrors" in config and mirrors != {url.rstrip("/") for url in config["registry-mirrors"]}:
        return False
    known = {*(registries.get("IndexConfigs") or {}), *(registries.get("InsecureRegistryCIDRs") or [])}
    named = {name for name in config.get("insecure-registries", []) if "/" not in name}
    return named <= known and set(config.get("runtimes", {})) <= set(info.get("Runtimes") or {})


def dump(config: Config) -> str:
    return json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
