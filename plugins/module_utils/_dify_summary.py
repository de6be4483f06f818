# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""The last words of a run: what is there, where it is, and what an operator should know. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._dify_nodes import url_of
from ansible_collections.llmops.stack.plugins.module_utils._traces import line as trace_line

__all__ = ["summary"]


def summary(seen: Mapping[str, Any]) -> list[str]:
    """Lines for people.

    Args:
        seen: C(host), C(url), C(home), C(engine), C(compose) (versions), C(email), C(health) (result of
            M(llmops.stack.dify_health)), C(plugins), C(models), C(apps) (results of the modules of these names, empty
            where they did not run), C(wanted) (of the filter dify_bootstrap), and C(upgrade) (C(plan), C(done) and
            C(backup), what M(llmops.stack.dify_upgrade) was given and it and M(llmops.stack.dify_backup) returned;
            empty where this run upgraded nothing).
    """
    health = seen["health"]
    lines = [
        f"Dify {health['version']} on {seen['host']} is healthy.",
        *_upgrade(seen.get("upgrade") or {}),
        f"URL: {seen['url']}",
    ]
    lines += _owner(seen)
    if seen.get("engine"):
        lines.append(f"Engine {seen['engine']}, Compose {seen['compose']}")
    lines += _plugins(seen["plugins"].get("plugins") or [])
    lines += _models(seen["models"].get("models") or [], seen["wanted"]["nodes"], seen["wanted"]["models"])
    lines += _apps(seen["apps"].get("apps") or [], {one["name"]: one for one in seen["wanted"]["apps"]})
    lines += _trace(health.get("trace") or {})
    lines += [f"Note: {note}" for note in [*_notes(seen), *(seen["wanted"]["notes"] if seen["email"] else [])]]
    return [*lines, *(f"{one['status']:7} {one['name']:14} {one['detail']}" for one in health["checks"])]


def _upgrade(what: Mapping[str, Any]) -> list[str]:
    if not what:
        return []
    plan, seconds, pruned = what["plan"], what["done"]["seconds"], what["backup"].get("pruned") or []
    # Its doors are closed at the end of the first of these, and opened at the beginning of the last.
    outage = [
        one["id"] for one in plan["steps"] if one["phase"] == "outage" and one["id"] not in ("maintenance", "open")
    ]
    closed = sum(seconds.get(name, 0) for name in outage)
    told = "beside each other, so nobody had to wait" if plan["kind"] == "same_head" else f"closed for {closed:.0f} s"
    return [
        f"Upgraded: Dify {plan['from']} -> {plan['to']}, {told}.",
        f"Way back: playbooks/rollback.yml, with the backup {what['backup']['path']}",
        *([f"Removed as too old: {', '.join(pruned)}"] if pruned else []),
        f"Logs and journal of it: {what['done']['folder']}",
    ]


def _owner(seen: Mapping[str, Any]) -> list[str]:
    secrets = f"{seen['home']}/secrets.json"
    kept = f"Secrets: {secrets} on the host, readable by root only."
    if not seen["email"]:
        return [
            "Owner: none was asked for, so there may be no account, no plugin and no model. Set dify_admin_email and "
            f"run site.yml again to have them, or open {seen['url']}/install.",
            f"{kept} INIT_PASSWORD in it opens the install page.",
        ]
    return [f"Owner: {seen['email']}, whose password is ADMIN_PASSWORD in {secrets}", kept]


def _plugins(results: Iterable[Mapping[str, Any]]) -> list[str]:
    return [f"Plugin: {_plugin(one)}" for one in results if one.get("version")]


def _plugin(one: Mapping[str, Any]) -> str:
    about = [str(one.get("source") or "")]
    about.append("its process answers" if one.get("verified") == "process" else "listed")
    about.append("pinned" if one.get("pinned") else "")
    return f"{one['plugin']} {one['version']} ({', '.join(part for part in about if part)})"


def _models(
    results: Iterable[Mapping[str, Any]], nodes: list[Mapping[str, Any]], wanted: Iterable[Mapping[str, Any]]
) -> list[str]:
    urls = {(str(one["model"]), str(one.get("model_type") or "llm")): url_of(one) for one in wanted}
    lines = []
    for one in results:
        if one.get("action") == "deleted" or "error" in one:
            continue
        url = str((one.get("credentials") or {}).get("base_url") or urls.get((one["model"], one["model_type"])) or "")
        node = next((node for node in nodes if url and node["url"] == url.rstrip("/")), None)
        where = f"on {node['name']}" if node else f"at {url}" if url else f"of {one['provider']}"
        about = [
            str(one["model_type"]),
            where,
            _speed(node, str(one["model"])),
            "default" if one.get("default") else "",
        ]
        lines.append(f"Model: {one['model']} ({', '.join(part for part in about if part)})")
    return lines


def _speed(node: Mapping[str, Any] | None, model: str) -> str:
    """As Ollama itself answered in this run."""
    held = (node or {}).get("models") or []
    speed = next(((one.get("probe") or {}).get("tokens_per_second") for one in held if one["name"] == model), None)
    return f"{speed:.4g} tokens/s" if speed else ""


def _apps(results: Iterable[Mapping[str, Any]], wanted: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = []
    for one in results:
        if one.get("action") == "deleted" or not (one.get("id") or one.get("action") == "created"):
            continue
        key_file = wanted.get(str(one["name"]), {}).get("key_file")
        lines.append(f"App: {one['name']} ({one.get('mode') or 'app'}{f', key in {key_file}' if key_file else ''})")
    return lines


def _trace(trace: Mapping[str, Any]) -> list[str]:
    """The span of the question that the health check asked."""
    if not trace:
        return []
    said = f"Trace: {trace_line(trace)}"
    return [f"{said}, {trace['url']}" if trace.get("url") else said]


def _notes(seen: Mapping[str, Any]) -> list[str]:
    notes = []
    for one in seen["models"].get("models") or []:
        kept = [entry for entry in one.get("drift") or [] if not entry.get("overwritten")]
        notes += [
            f"{one['model']}: {entry['key']} is {entry['found'] or 'not set'} in Dify, where "
            f"{entry['wanted'] or 'nothing'} is wanted. It was changed in the browser and is left alone; "
            "dify_models_overwrite: true sets it."
            for entry in kept
        ]
    notes += [
        f"The app {one['name']} was edited or made in the browser and is left alone; overwrite: true in its entry of "
        "dify_apps (for the probe's app dify_models_overwrite: true) sets it back."
        for one in seen["apps"].get("apps") or []
        if any(not entry.get("overwritten") for entry in one.get("drift") or [])
    ]
    notes += [
        f"Dify upgrades {one['plugin']} by itself ({one['auto_upgrade']}). Give its version in dify_plugins, or pin: "
        "true, to keep it."
        for one in seen["plugins"].get("plugins") or []
        if one.get("auto_upgrade") in ("latest", "fix_only") and not one.get("pinned")
    ]
    return notes
