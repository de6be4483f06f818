# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Import and export of apps as YAML, with the rules of each release about older and newer files."""

from __future__ import annotations

import json
import socket
import urllib.parse
import uuid
from typing import Any

import yaml

from standin import versions
from standin.api import apps, cache, daemon_client, marketplace, providers, replies
from standin.api.daemon_client import management
from standin.server import Request, Response, Router

PENDING_SECONDS = 600
STATUS = {"completed": 200, "completed-with-warnings": 200, "pending": 202, "failed": 400}


def _reply(
    import_id: str, status: str, *, app: dict[str, Any] | None = None, imported: str = "", error: str = ""
) -> Response:
    data: dict[str, Any] = {"id": import_id, "status": status, "app_id": app["id"] if app else None}
    if versions.has("import_app_mode"):
        data["app_mode"] = app["mode"] if app else None
    if versions.has("import_permission_keys"):
        data["permission_keys"] = []
    data |= {"current_dsl_version": versions.pick(versions.DSL), "imported_dsl_version": imported, "error": error}
    if versions.has("import_permission_keys"):
        data["warnings"] = []
    return replies.console(data, STATUS[status])


def _status(imported: str) -> str:
    """What the age of a file means."""
    ours, theirs = versions.key(versions.pick(versions.DSL)), versions.key(imported)
    if theirs > ours:
        return "pending"
    if theirs[:2] < ours[:2]:
        return "completed-with-warnings" if versions.has("older_dsl_warns") else "pending"
    return "completed"


def _parse(text: str) -> dict[str, Any]:
    """The document, or ValueError with Dify's words."""
    if not text:
        raise ValueError("yaml_content is required when import_mode is yaml-content")
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"Invalid YAML format: {error}") from None
    if not isinstance(data, dict):
        raise ValueError("Invalid YAML format: content must be a mapping")
    data.setdefault("version", "0.1.0")
    data.setdefault("kind", "app")
    if not data.get("app"):
        raise ValueError("Missing app data in YAML content")
    return data


def _ask_marketplace(data: dict[str, Any]) -> None:
    """An old file without dependencies makes the API ask the marketplace; ValueError when that is out of reach."""
    old = versions.key(str(data["version"])) <= (0, 1, 5)
    if not (versions.has("old_dsl_asks_marketplace") and old and not data.get("dependencies")):
        return
    url = urllib.parse.urlsplit(marketplace.base())
    try:
        socket.create_connection(
            (url.hostname or "", url.port or (443 if url.scheme == "https" else 80)), timeout=5
        ).close()
    except OSError as error:
        raise ValueError(f"[Errno {error.errno}] {error.strerror}") from None


def import_app(request: Request, account: dict[str, Any], _: dict[str, str]) -> Response:
    body = replies.body(request, "AppImportPayload", "mode")
    if body["mode"] not in ("yaml-content", "yaml-url"):
        raise replies.invalid(f"Invalid import_mode: {body['mode']}")
    import_id = str(uuid.uuid4())
    try:
        data = _parse(str(body.get("yaml_content") or ""))
        if body.get("app_id"):
            app = apps.find(account, str(body["app_id"]))
            if app["mode"] not in ("workflow", "advanced-chat"):
                raise ValueError("Only workflow or advanced chat apps can be overwritten")
        status = _status(str(data["version"]))
        _ask_marketplace(data)
    except ValueError as error:
        return _reply(import_id, "failed", error=str(error))
    if status == "pending":
        cache.client().setex(f"app_import_info:{import_id}", PENDING_SECONDS, json.dumps([data, body.get("name")]))
        return _reply(import_id, "pending", imported=str(data["version"]))
    return _reply(import_id, status, app=_create(account, data, body.get("name")), imported=str(data["version"]))


def confirm(request: Request, account: dict[str, Any], arguments: dict[str, str]) -> Response:
    name = f"app_import_info:{arguments['import_id']}"
    stored = cache.get(name)
    if stored is None:
        return _reply(arguments["import_id"], "failed", error="Import information expired or does not exist")
    cache.client().delete(name)
    data, wanted = json.loads(stored)
    return _reply(
        arguments["import_id"], "completed", app=_create(account, data, wanted), imported=str(data["version"])
    )


def _create(account: dict[str, Any], data: dict[str, Any], name: str | None) -> dict[str, Any]:
    about = data["app"]
    config = {**apps.CONFIG, **(data.get("model_config") or {})}
    app = apps.create(account, {**about, "name": name or about.get("name") or "", "mode": about.get("mode")}, config)
    cache.client().setex(
        f"app_check_dependencies:{app['id']}", PENDING_SECONDS, json.dumps(data.get("dependencies") or [])
    )
    return app


def check_dependencies(request: Request, account: dict[str, Any], arguments: dict[str, str]) -> Response:
    apps.find(account, arguments["app_id"])
    wanted = json.loads(cache.get(f"app_check_dependencies:{arguments['app_id']}") or "[]")
    identifiers = [item["value"]["plugin_unique_identifier"] for item in wanted if item.get("type") == "package"]
    if not identifiers:
        return replies.console({"leaked_dependencies": []})
    missing = management(
        "POST", account["tenant_id"], "installation/missing", body={"plugin_unique_identifiers": identifiers}
    )
    value = {"version": None} if versions.has("dependency_version") else {}
    return replies.console(
        {
            "leaked_dependencies": [
                {
                    "type": "package",
                    "value": {"plugin_unique_identifier": item["plugin_unique_identifier"], **value},
                    "current_identifier": item.get("current_identifier"),
                }
                for item in missing or []
            ]
        }
    )


def _dependencies(account: dict[str, Any], config: dict[str, Any]) -> list[dict[str, Any]]:
    name = providers.full_name(str((config.get("model") or {}).get("provider") or ""))
    plugin_id = name.rpartition("/")[0]
    found = management("POST", account["tenant_id"], "installation/fetch/batch", body={"plugin_ids": [plugin_id]})
    value = {"version": None} if versions.has("dependency_version") else {}
    return [
        {
            "current_identifier": None,
            "type": "package",
            "value": {"plugin_unique_identifier": item["plugin_unique_identifier"], **value},
        }
        for item in found or []
    ]


def export(request: Request, account: dict[str, Any], arguments: dict[str, str]) -> Response:
    app = apps.find(account, arguments["app_id"])
    config = apps.config_of(app)
    config.pop("row", None)
    data: dict[str, Any] = {
        "app": {
            "name": app["name"],
            "mode": app["mode"],
            "icon": app["icon"],
            "icon_background": app["icon_background"],
            "description": app["description"],
            "use_icon_as_answer_icon": app["use_icon_as_answer_icon"],
        },
        "kind": "app",
        "model_config": {name: config.get(name, default) for name, default in apps.CONFIG.items()},
        "version": versions.pick(versions.DSL),
    }
    if versions.has("plugins"):
        try:
            data["dependencies"] = _dependencies(account, config)
        except daemon_client.DaemonRefusal:
            data["dependencies"] = []
    return replies.console({"data": yaml.safe_dump(data, allow_unicode=True)})


def routes(router: Router) -> None:
    router.add("POST", f"{apps.APPS}/imports", apps.route(import_app))
    router.add("POST", f"{apps.APPS}/imports/<import_id>/confirm", apps.route(confirm))
    router.add("GET", f"{apps.APPS}/<app_id>/export", apps.route(export))
    if versions.has("plugins"):
        router.add("GET", f"{apps.APPS}/imports/<app_id>/check-dependencies", apps.route(check_dependencies))
