# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Apps, their model configuration and their API keys."""

from __future__ import annotations

import json
import secrets
import string
from collections.abc import Callable
from typing import Any

from standin import versions
from standin.api import daemon_client, db, models, providers, replies, session, settings
from standin.api.workspaces import stamp
from standin.server import Request, Response, Router

APPS = "/console/api/apps"
MODES = ("chat", "agent-chat", "advanced-chat", "workflow", "completion")
MAX_KEYS = 10
OFF = {"enabled": False}
IMAGES = {
    "image": {"enabled": False, "number_limits": 3, "detail": "high", "transfer_methods": ["remote_url", "local_file"]}
}
# What a model_config object shows, in this order, with the values of a new app.
CONFIG: dict[str, Any] = {
    "opening_statement": None,
    "suggested_questions": [],
    "suggested_questions_after_answer": OFF,
    "speech_to_text": OFF,
    "text_to_speech": OFF,
    "retriever_resource": {"enabled": True},
    "annotation_reply": OFF,
    "more_like_this": OFF,
    "sensitive_word_avoidance": {"enabled": False, "type": "", "configs": []},
    "external_data_tools": [],
    "model": {},
    "user_input_form": [],
    "dataset_query_variable": None,
    "pre_prompt": None,
    "agent_mode": {"enabled": False, "strategy": None, "tools": [], "prompt": None},
    "prompt_type": "simple",
    "chat_prompt_config": {},
    "completion_prompt_config": {},
    "dataset_configs": {"retrieval_model": "multiple"},
    "file_upload": IMAGES,
}


def route(handler: Callable[[Request, dict[str, Any], dict[str, str]], Response]) -> Callable[..., Response]:
    """A console route: the handler gets the account (with its tenant_id) and the parts of the path."""

    def wrapped(request: Request, **arguments: str) -> Response:
        account = session.account(request)
        try:
            return handler(request, account, arguments)
        except daemon_client.DaemonError as error:
            raise daemon_client.for_model_route(error) from error

    return wrapped


def find(account: dict[str, Any], app_id: str) -> dict[str, Any]:
    app = db.row("SELECT * FROM apps WHERE id::text = %s AND tenant_id = %s", app_id, account["tenant_id"])
    if app is None:
        raise replies.fail(404, "app_not_found", "App not found.")
    return app


def config_of(app: dict[str, Any]) -> dict[str, Any]:
    row = (
        db.row("SELECT * FROM app_model_configs WHERE id = %s", app["app_model_config_id"])
        if app["app_model_config_id"]
        else None
    )
    if row is None:
        return {}
    return {**(row["configs"] or {}), "model": json.loads(row["model"] or "{}"), "row": row}


def _public_config(app: dict[str, Any]) -> dict[str, Any] | None:
    config = config_of(app)
    if not config:
        return None
    row = config.pop("row")
    shown = {name: config.get(name, default) for name, default in CONFIG.items()}
    return {
        **shown,
        "created_by": row["created_by"],
        "created_at": stamp(row["created_at"]),
        "updated_by": row["updated_by"],
        "updated_at": stamp(row["updated_at"]),
    }


def _stamps(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "created_by": row["created_by"],
        "created_at": stamp(row["created_at"]),
        "updated_by": row["updated_by"],
        "updated_at": stamp(row["updated_at"]),
    }


def brief(app: dict[str, Any]) -> dict[str, Any]:
    """The object that creating and switching an app returns."""
    data = {
        name: app[name]
        for name in ("id", "name", "description", "mode", "icon", "icon_background", "enable_site", "enable_api")
    }
    data |= {
        "model_config": _public_config(app),
        "workflow": None,
        "tracing": None,
        "use_icon_as_answer_icon": app["use_icon_as_answer_icon"],
        **_stamps(app),
    }
    if versions.has("plugins"):
        data |= {"access_mode": None, "tags": []}
    if versions.has("import_permission_keys"):
        data |= {"permission_keys": [], "maintainer": app.get("maintainer"), "bound_agent_id": None, "app_id": None}
    return data


def full(app: dict[str, Any]) -> dict[str, Any]:
    """GET of one app."""
    site = db.row("SELECT * FROM sites WHERE app_id = %s", app["id"]) or {"code": "", "title": app["name"]}
    data = brief(app)
    if not versions.has("tracing_in_app"):
        del data["tracing"]
    shown = {
        "access_token": site["code"],
        "code": site["code"],
        **site_data(app, site),
        "customize_domain": None,
        "customize_token_strategy": "not_allow",
        "prompt_public": False,
        "app_base_url": settings.text("APP_WEB_URL", "http://127.0.0.1:3000"),
        **_stamps(app),
    }
    data |= {
        "icon_type": app["icon_type"],
        "icon_url": None,
        "site": shown,
        "api_base_url": settings.text("SERVICE_API_URL", "http://127.0.0.1:5001").rstrip("/") + "/v1",
        "deleted_tools": [],
    }
    if versions.has("plugins"):
        data["max_active_requests"] = app["max_active_requests"]
    return data


def site_data(app: dict[str, Any], site: dict[str, Any]) -> dict[str, Any]:
    data = {
        "title": site["title"],
        "chat_color_theme": None,
        "chat_color_theme_inverted": False,
        "icon_type": app["icon_type"],
        "icon": app["icon"],
        "icon_background": app["icon_background"],
        "icon_url": None,
        "description": None,
        "copyright": None,
        "privacy_policy": None,
        "custom_disclaimer": "",
        "default_language": "en-US",
        "show_workflow_steps": True,
        "use_icon_as_answer_icon": False,
    }
    if versions.has("import_permission_keys"):
        data["input_placeholder"] = None
    return data


def _item(app: dict[str, Any], author: str) -> dict[str, Any]:
    names = ("id", "name", "max_active_requests", "description", "mode", "icon_type", "icon", "icon_background")
    data = {
        **{name: app[name] for name in names},
        "icon_url": None,
        "model_config": _public_config(app),
        "workflow": None,
        "use_icon_as_answer_icon": app["use_icon_as_answer_icon"],
        **_stamps(app),
        "tags": [],
    }
    if versions.has("plugins"):
        data |= {"access_mode": None, "create_user_name": None, "author_name": author}
    if versions.has("trial_features"):
        data["has_draft_trigger"] = False
    return data


def app_list(request: Request, account: dict[str, Any], _: dict[str, str]) -> Response:
    page, limit = replies.number(request, "page", 1), replies.number(request, "limit", 20)
    mode = request.query.get("mode", "")
    where, values = "tenant_id = %s AND name ILIKE %s", [account["tenant_id"], f"%{request.query.get('name', '')}%"]
    if mode and mode != "all":
        where, values = where + " AND mode = %s", [*values, mode]
    total = (db.row(f"SELECT count(*) AS n FROM apps WHERE {where}", *values) or {"n": 0})["n"]
    found = db.rows(
        f"SELECT * FROM apps WHERE {where} ORDER BY created_at DESC LIMIT %s OFFSET %s",
        *values,
        limit,
        (page - 1) * limit,
    )
    return replies.console(
        {
            "page": page,
            "limit": limit,
            "total": total,
            "has_more": page * limit < total,
            "data": [_item(app, account["name"]) for app in found],
        }
    )


def create(account: dict[str, Any], data: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """Writes an app with its site and, for the chat modes without a workflow, its model configuration."""
    with db.transaction() as cursor:
        cursor.execute(
            "INSERT INTO apps (tenant_id, name, description, mode, icon_type, icon, icon_background, enable_site, "
            "enable_api, created_by, updated_by) VALUES (%s, %s, %s, %s, %s, %s, %s, true, true, %s, %s) RETURNING *",
            (
                account["tenant_id"],
                data["name"],
                data.get("description") or "",
                data["mode"],
                data.get("icon_type") or "emoji",
                data.get("icon"),
                data.get("icon_background"),
                account["id"],
                account["id"],
            ),
        )
        app = dict(cursor.fetchone())
        code = "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(16))
        cursor.execute("INSERT INTO sites (app_id, title, code) VALUES (%s, %s, %s)", (app["id"], app["name"], code))
        if data["mode"] in ("chat", "agent-chat", "completion"):
            app["app_model_config_id"] = _write_config(cursor, app["id"], account["id"], config)
    return app


def _write_config(cursor: Any, app_id: Any, account_id: Any, config: dict[str, Any]) -> Any:
    rest = {name: value for name, value in config.items() if name not in ("model", "row")}
    cursor.execute(
        "INSERT INTO app_model_configs (app_id, model, configs, created_by, updated_by) VALUES (%s, %s, %s, %s, %s) "
        "RETURNING id",
        (app_id, json.dumps(config.get("model") or {}), json.dumps(rest), account_id, account_id),
    )
    config_id = cursor.fetchone()["id"]
    cursor.execute("UPDATE apps SET app_model_config_id = %s, updated_at = now() WHERE id = %s", (config_id, app_id))
    return config_id


def app_create(request: Request, account: dict[str, Any], _: dict[str, str]) -> Response:
    data = replies.body(request, "CreateAppPayload", "name")
    if data.get("mode") is None:
        if versions.has("pydantic_payloads"):
            raise replies.pydantic("CreateAppPayload", "mode", "Field required", "missing", data)
        raise replies.fail(400, "bad_request", "mode is required")
    if data["mode"] not in MODES:
        if versions.has("pydantic_payloads"):
            choices = ", ".join(f"'{mode}'" for mode in MODES[:-1]) + f" or '{MODES[-1]}'"
            raise replies.pydantic(
                "CreateAppPayload", "mode", f"Input should be {choices}", "literal_error", data["mode"]
            )
        raise replies.invalid_field(f"{data['mode']} is not a valid choice", "mode")
    config = dict(CONFIG)
    if data["mode"] in ("chat", "agent-chat", "completion"):
        found = models.default(str(account["tenant_id"]), "llm")
        if found is not None:
            config["model"] = {"provider": found[0].name, "name": found[1], "mode": "chat", "completion_params": {}}
    return replies.console(brief(create(account, data, config)), 201)


def app_get(request: Request, account: dict[str, Any], arguments: dict[str, str]) -> Response:
    return replies.console(full(find(account, arguments["app_id"])))


def app_delete(request: Request, account: dict[str, Any], arguments: dict[str, str]) -> Response:
    app = find(account, arguments["app_id"])
    for table in ("api_tokens", "sites", "app_model_configs", "messages", "conversations", "end_users"):
        db.execute(f"DELETE FROM {table} WHERE app_id = %s", app["id"])
    db.execute("DELETE FROM apps WHERE id = %s", app["id"])
    return Response(204)


def model_config(request: Request, account: dict[str, Any], arguments: dict[str, str]) -> Response:
    app = find(account, arguments["app_id"])
    data = replies.body(request)
    model = data.get("model")
    if not model:
        raise replies.invalid("model is required")
    catalogue = providers.catalogue(str(account["tenant_id"]))
    provider = next((item for item in catalogue if item.name == providers.full_name(str(model.get("provider")))), None)
    if provider is None:
        raise replies.invalid(f"model.provider is required and must be in {[item.name for item in catalogue]}")
    known = db.row(
        "SELECT id FROM provider_models WHERE tenant_id = %s AND provider_name = %s AND model_name = %s",
        account["tenant_id"],
        provider.name,
        model.get("name"),
    )
    if known is None:
        raise replies.invalid("model.name must be in the specified model list")
    params = {**(model.get("completion_params") or {})}
    stop = params.pop("stop", [])
    config = {**data, "model": {**model, "completion_params": {**params, "stop": stop}}}
    config.setdefault("annotation_reply", OFF)
    config["text_to_speech"] = {"enabled": False, "voice": "", "language": "", **(data.get("text_to_speech") or {})}
    with db.transaction() as cursor:
        _write_config(cursor, app["id"], account["id"], config)
    return replies.console({"result": "success"})


def api_enable(request: Request, account: dict[str, Any], arguments: dict[str, str]) -> Response:
    app = find(account, arguments["app_id"])
    enabled = bool(replies.body(request, "AppApiStatusPayload", "enable_api")["enable_api"])
    db.execute("UPDATE apps SET enable_api = %s, updated_at = now() WHERE id = %s", enabled, app["id"])
    return replies.console(brief(find(account, arguments["app_id"])))


def key_data(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": row["id"],
        "type": row["type"],
        "token": row["token"],
        "last_used_at": stamp(row["last_used_at"]),
        "created_at": stamp(row["created_at"]),
    }


def key_list(request: Request, account: dict[str, Any], arguments: dict[str, str]) -> Response:
    app = find(account, arguments["app_id"])
    found = db.rows("SELECT * FROM api_tokens WHERE app_id = %s ORDER BY created_at", app["id"])
    return replies.console({"data": [key_data(row) for row in found]})


def key_create(request: Request, account: dict[str, Any], arguments: dict[str, str]) -> Response:
    app = find(account, arguments["app_id"])
    count = (db.row("SELECT count(*) AS n FROM api_tokens WHERE app_id = %s", app["id"]) or {"n": 0})["n"]
    if count >= MAX_KEYS:
        name = "custom" if versions.has("typed_max_keys") else "code"
        text = f"Cannot create more than {MAX_KEYS} API keys for this resource type."
        return replies.console({name: "max_keys_exceeded", "message": text}, 400)
    token = "app-" + "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(24))
    row = db.row(
        "INSERT INTO api_tokens (app_id, tenant_id, type, token) VALUES (%s, %s, 'app', %s) RETURNING *",
        app["id"],
        account["tenant_id"],
        token,
    )
    return replies.console(key_data(row or {}), 201)


def key_delete(request: Request, account: dict[str, Any], arguments: dict[str, str]) -> Response:
    app = find(account, arguments["app_id"])
    if not db.execute("DELETE FROM api_tokens WHERE app_id = %s AND id::text = %s", app["id"], arguments["key_id"]):
        gone = {"message": "API key not found"}
        return replies.console(gone if versions.has("compact_json") else {**gone, "code": "unknown"}, 404)
    return Response(204)


def routes(router: Router) -> None:
    for methods, path, handler in (
        ("GET", "", app_list),
        ("POST", "", app_create),
        ("GET", "/<app_id>", app_get),
        ("DELETE", "/<app_id>", app_delete),
        ("POST", "/<app_id>/model-config", model_config),
        ("POST", "/<app_id>/api-enable", api_enable),
        ("GET", "/<app_id>/api-keys", key_list),
        ("POST", "/<app_id>/api-keys", key_create),
        ("DELETE", "/<app_id>/api-keys/<key_id>", key_delete),
    ):
        router.add(methods, APPS + path, route(handler))
