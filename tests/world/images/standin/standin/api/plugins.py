# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plugin routes below /workspaces/current/plugin/: all of them end at the daemon."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from standin import versions
from standin.api import daemon_client, db, marketplace, providers, replies, session, settings
from standin.api.daemon_client import DaemonError, DaemonRefusal, management
from standin.server import Request, Response, Router

BASE = "/console/api/workspaces/current/plugin"
TASK_KEYS = ("id", "created_at", "updated_at", "status", "total_plugins", "completed_plugins")
TASK_PLUGIN_KEYS = ("plugin_unique_identifier", "plugin_id", "status", "message", "icon", "labels")
LIST_KEYS = (
    "id",
    "created_at",
    "updated_at",
    "tenant_id",
    "endpoints_setups",
    "endpoints_active",
    "runtime_type",
    "source",
    "meta",
    "plugin_id",
    "plugin_unique_identifier",
    "version",
    "checksum",
    "declaration",
)
EVERYONE = {"install_permission": "everyone", "debug_permission": "everyone"}
FINISHED = ("success", "failed")


def route(handler: Callable[[Request, str, dict[str, str]], Response]) -> Callable[..., Response]:
    """A plugin route: logged in, with the daemon's errors in the spelling of these routes."""

    def wrapped(request: Request, **arguments: str) -> Response:
        tenant_id = str(session.account(request)["tenant_id"])
        try:
            return handler(request, tenant_id, arguments)
        except DaemonError as error:
            raise daemon_client.for_plugin_route(error) from error

    return wrapped


def _installed(tenant_id: str, page: int = 1, size: int = 256) -> dict[str, Any]:
    data = management("GET", tenant_id, "list", query={"page": page, "page_size": size, "response_type": "paged"})
    # The oldest daemon answers with a bare array.
    return data if isinstance(data, dict) else {"list": data or [], "total": len(data or [])}


def plugin_list(request: Request, tenant_id: str, _: dict[str, str]) -> Response:
    data = _installed(tenant_id, replies.number(request, "page", 1), replies.number(request, "page_size", 256))
    plugins = [_entry(item) for item in data["list"]]
    return replies.console({"plugins": plugins, "total": data["total"]})


def _entry(item: dict[str, Any]) -> dict[str, Any]:
    kept = {name: item.get(name) for name in LIST_KEYS}
    return {**kept, "name": (item.get("declaration") or {}).get("name"), "installation_id": item.get("id")}


def category_list(request: Request, tenant_id: str, arguments: dict[str, str]) -> Response:
    data = _installed(tenant_id, replies.number(request, "page", 1), replies.number(request, "page_size", 256))
    plugins = [
        _entry(item)
        for item in data["list"]
        if (item.get("declaration") or {}).get("category", "model") == arguments["category"]
    ]
    return replies.console({"plugins": plugins, "builtin_tools": [], "has_more": False})


def installations_by_id(request: Request, tenant_id: str, _: dict[str, str]) -> Response:
    ids = replies.body(request, "ParserLatest", "plugin_ids")["plugin_ids"]
    found = management("POST", tenant_id, "installation/fetch/batch", body={"plugin_ids": ids})
    return replies.console({"plugins": [{name: item.get(name) for name in LIST_KEYS} for item in found or []]})


def latest_versions(request: Request, tenant_id: str, _: dict[str, str]) -> Response:
    ids = replies.body(request, "ParserLatest", "plugin_ids")["plugin_ids"]
    return replies.console({"versions": marketplace.latest_versions(ids)})


def _task(tenant_id: str, task: dict[str, Any]) -> dict[str, Any]:
    if task.get("status") in FINISHED:
        providers.forget(tenant_id)
    names = (*TASK_PLUGIN_KEYS, *(("source",) if versions.has("task_plugin_source") else ()))
    plugins = [{name: plugin.get(name) for name in names} for plugin in task.get("plugins") or []]
    return {**{name: task.get(name) for name in TASK_KEYS}, "plugins": plugins}


def task_list(request: Request, tenant_id: str, _: dict[str, str]) -> Response:
    query = {"page": replies.number(request, "page", 1), "page_size": replies.number(request, "page_size", 256)}
    found = management("GET", tenant_id, "install/tasks", query=query)
    return replies.console({"tasks": [_task(tenant_id, task) for task in found or []]})


def task_get(request: Request, tenant_id: str, arguments: dict[str, str]) -> Response:
    found = management("GET", tenant_id, f"install/tasks/{arguments['task_id']}")
    return replies.console({"task": _task(tenant_id, found)})


def task_delete(request: Request, tenant_id: str, arguments: dict[str, str]) -> Response:
    done = management("POST", tenant_id, f"install/tasks/{arguments['task_id']}/delete", body={})
    return replies.console({"success": bool(done)})


def upload(request: Request, tenant_id: str, _: dict[str, str]) -> Response:
    package = request.files().get("pkg")
    if package is None:
        raise replies.fail(
            400, "bad_request_key_error", "The browser (or proxy) sent a request that this server could not understand."
        )
    return replies.console(daemon_client.upload(tenant_id, package))


def _decode(tenant_id: str, identifier: str) -> None:
    if versions.has("decode_with_query"):
        management(
            "GET",
            tenant_id,
            "decode/from_identifier",
            query={"plugin_unique_identifier": identifier, "PluginUniqueIdentifier": identifier},
        )
    elif versions.has("decode_before_install"):
        management("GET", tenant_id, "decode/from_identifier", body={"plugin_unique_identifier": identifier})


def _install(
    tenant_id: str, identifiers: list[str], source: str, metas: list[dict[str, str]] | None = None
) -> Response:
    for identifier in identifiers:
        _decode(tenant_id, identifier)
    if metas is None:
        per_identifier = versions.has("meta_per_identifier")
        metas = [{"plugin_unique_identifier": identifier} for identifier in identifiers] if per_identifier else [{}]
    body = {"plugin_unique_identifiers": identifiers, "source": source, "metas": metas}
    return _task_reply(tenant_id, management("POST", tenant_id, "install/identifiers", body=body))


def _task_reply(tenant_id: str, data: dict[str, Any]) -> Response:
    providers.forget(tenant_id)
    reply = {"all_installed": data["all_installed"], "task_id": data["task_id"]}
    if versions.has("install_reply_task"):
        reply["task"] = None
    return replies.console(reply)


def install_package(request: Request, tenant_id: str, _: dict[str, str]) -> Response:
    data = replies.body(request, "ParserPluginIdentifiers", "plugin_unique_identifiers")
    return _install(tenant_id, data["plugin_unique_identifiers"], "package")


def _fetch(tenant_id: str, identifier: str) -> bool:
    """Brings a marketplace package to the daemon if it is not there; True if it was."""
    try:
        management("GET", tenant_id, "fetch/manifest", query={"plugin_unique_identifier": identifier})
        return True
    except DaemonRefusal:
        daemon_client.upload(tenant_id, marketplace.download(identifier))
        return False


def install_marketplace(request: Request, tenant_id: str, _: dict[str, str]) -> Response:
    identifiers = replies.body(request, "ParserPluginIdentifiers", "plugin_unique_identifiers")[
        "plugin_unique_identifiers"
    ]
    for identifier in identifiers:
        _fetch(tenant_id, identifier)
    return _install(tenant_id, identifiers, "marketplace")


def upgrade_marketplace(request: Request, tenant_id: str, _: dict[str, str]) -> Response:
    names = ("original_plugin_unique_identifier", "new_plugin_unique_identifier")
    data = replies.body(request, "ParserMarketplaceUpgrade", *names)
    original, new = (str(data[name]) for name in names)
    if original == new:
        raise replies.invalid("you should not upgrade plugin with the same plugin")
    if _fetch(tenant_id, new) and not marketplace.count_install(new):
        daemon_client.upload(tenant_id, marketplace.download(new))
    return _upgrade(tenant_id, original, new, "marketplace", {"plugin_unique_identifier": new})


def _upgrade(tenant_id: str, original: str, new: str, source: str, meta: dict[str, str]) -> Response:
    body = {
        "original_plugin_unique_identifier": original,
        "new_plugin_unique_identifier": new,
        "source": source,
        "meta": meta,
    }
    return _task_reply(tenant_id, management("POST", tenant_id, "install/upgrade", body=body))


RELEASE = ("repo", "version", "package")


def _release(data: dict[str, Any]) -> dict[str, str]:
    return {name: str(data[name]) for name in RELEASE}


def upload_github(request: Request, tenant_id: str, _: dict[str, str]) -> Response:
    data = replies.body(request, "ParserGithubUpload", *RELEASE)
    return replies.console(daemon_client.upload(tenant_id, marketplace.github(*_release(data).values())))


def install_github(request: Request, tenant_id: str, _: dict[str, str]) -> Response:
    data = replies.body(request, "ParserGithubInstall", "plugin_unique_identifier", *RELEASE)
    return _install(tenant_id, [str(data["plugin_unique_identifier"])], "github", [_release(data)])


def upgrade_github(request: Request, tenant_id: str, _: dict[str, str]) -> Response:
    """Unlike the marketplace's, it fetches nothing: the package must have been uploaded."""
    names = ("original_plugin_unique_identifier", "new_plugin_unique_identifier")
    data = replies.body(request, "ParserGithubUpgrade", *names, *RELEASE)
    original, new = (str(data[name]) for name in names)
    return _upgrade(tenant_id, original, new, "github", _release(data))


def uninstall(request: Request, tenant_id: str, _: dict[str, str]) -> Response:
    installation = replies.body(request, "ParserUninstall", "plugin_installation_id")["plugin_installation_id"]
    if versions.has("uninstall_reads_list"):
        _installed(tenant_id)
    try:
        management("POST", tenant_id, "uninstall", body={"plugin_installation_id": installation})
    except DaemonRefusal as error:
        if error.code != -404:  # an installation that is gone counts as removed
            raise
    providers.forget(tenant_id)
    return replies.console({"success": True})


def fetch_manifest(request: Request, tenant_id: str, _: dict[str, str]) -> Response:
    identifier = replies.query(request, "ParserPluginIdentifierQuery", "plugin_unique_identifier")
    found = management("GET", tenant_id, "fetch/manifest", query={"plugin_unique_identifier": identifier})
    return replies.console({"manifest": found})


def debugging_key(request: Request, tenant_id: str, _: dict[str, str]) -> Response:
    key = daemon_client.call("POST", tenant_id, "debugging/key", body={})
    return replies.console(
        {
            "key": key["key"],
            "host": settings.text("PLUGIN_REMOTE_INSTALL_HOST", "localhost"),
            "port": settings.number("PLUGIN_REMOTE_INSTALL_PORT", 5003),
        }
    )


def permission(request: Request, tenant_id: str, _: dict[str, str]) -> Response:
    return replies.console(EVERYONE)


STRATEGY = ("strategy_setting", "upgrade_time_of_day", "upgrade_mode", "exclude_plugins", "include_plugins")


def _strategy(tenant_id: str, category: str = "") -> dict[str, Any]:
    where, values = ("AND category = %s", (category,)) if category else ("", ())
    found = db.row(
        f"SELECT * FROM tenant_plugin_auto_upgrade_strategies WHERE tenant_id = %s {where}", tenant_id, *values
    )
    if found is None:
        return {
            "strategy_setting": "latest" if category == "model" else "fix_only",
            "upgrade_time_of_day": 0,
            "upgrade_mode": "exclude",
            "exclude_plugins": [],
            "include_plugins": [],
        }
    return {name: found[name] for name in STRATEGY}


def _save_strategy(tenant_id: str, new: dict[str, Any], category: str = "") -> None:
    where, values = ("AND category = %s", (category,)) if category else ("", ())
    fields = [json.dumps(new[name]) if name.endswith("_plugins") else new[name] for name in STRATEGY]
    changed = db.execute(
        f"UPDATE tenant_plugin_auto_upgrade_strategies SET {', '.join(f'{name} = %s' for name in STRATEGY)}, "
        f"updated_at = now() WHERE tenant_id = %s {where}",
        *fields,
        tenant_id,
        *values,
    )
    if not changed:
        extra = (", category", ", %s") if category else ("", "")
        db.execute(
            f"INSERT INTO tenant_plugin_auto_upgrade_strategies ({', '.join(STRATEGY)}, tenant_id{extra[0]}) "
            f"VALUES (%s, %s, %s, %s, %s, %s{extra[1]})",
            *fields,
            tenant_id,
            *values,
        )


def preferences_fetch(request: Request, tenant_id: str, _: dict[str, str]) -> Response:
    return replies.console({"permission": EVERYONE, "auto_upgrade": _strategy(tenant_id)})


def preferences_change(request: Request, tenant_id: str, _: dict[str, str]) -> Response:
    _save_strategy(
        tenant_id, replies.body(request, "ParserPreferencesChange", "permission", "auto_upgrade")["auto_upgrade"]
    )
    return replies.console({"success": True})


def auto_upgrade_fetch(request: Request, tenant_id: str, _: dict[str, str]) -> Response:
    category = replies.query(request, "ParserAutoUpgradeFetch", "category")
    return replies.console({"category": category, "auto_upgrade": _strategy(tenant_id, category)})


def auto_upgrade_change(request: Request, tenant_id: str, _: dict[str, str]) -> Response:
    data = replies.body(request, "ParserAutoUpgradeChange", "category", "auto_upgrade")
    _save_strategy(tenant_id, data["auto_upgrade"], data["category"])
    return replies.console({"success": True})


def routes(router: Router) -> None:
    if not versions.has("plugins"):
        return
    table = [
        ("GET", "list", plugin_list),
        ("POST", "list/installations/ids", installations_by_id),
        ("POST", "list/latest-versions", latest_versions),
        ("GET", "tasks", task_list),
        ("GET", "tasks/<task_id>", task_get),
        ("POST", "tasks/<task_id>/delete", task_delete),
        ("POST", "upload/pkg", upload),
        ("POST", "upload/github", upload_github),
        ("POST", "install/pkg", install_package),
        ("POST", "install/github", install_github),
        ("POST", "install/marketplace", install_marketplace),
        ("POST", "upgrade/github", upgrade_github),
        ("POST", "upgrade/marketplace", upgrade_marketplace),
        ("POST", "uninstall", uninstall),
        ("GET", "fetch-manifest", fetch_manifest),
        ("GET", "debugging-key", debugging_key),
        ("GET", "permission/fetch", permission),
    ]
    if versions.has("auto_upgrade_routes"):
        table += [
            ("GET", "auto-upgrade/fetch", auto_upgrade_fetch),
            ("POST", "auto-upgrade/change", auto_upgrade_change),
        ]
    if versions.has("preferences_routes") and versions.has("auto_upgrade_table"):
        table += [("GET", "preferences/fetch", preferences_fetch), ("POST", "preferences/change", preferences_change)]
    if versions.has("plugin_category_list"):
        table += [("GET", "<category>/list", category_list)]
    for method, path, handler in table:
        router.add(method, f"{BASE}/{path}", route(handler))
