# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Health, ping, version, setup and init: what answers before anybody can log in."""

from __future__ import annotations

import os
import re
import traceback
from typing import Any

from standin import versions
from standin.api import db, features, replies, session, settings, tokens
from standin.api.replies import fail, typed
from standin.server import Request, Response, Router

EMAIL = re.compile(r"^[\w.!#$%&'*+\-/=?^`{|}~]+@([\w-]+\.)+[A-Za-z]{2,}$")
INIT_SESSION = "is_init_validated"


def health(request: Request) -> Response:
    return replies.plain({"pid": os.getpid(), "status": "ok", "version": versions.current()})


def ping(request: Request) -> Response:
    return replies.plain({"result": "pong"})


def v1_root(request: Request) -> Response:
    return replies.console({"welcome": "Dify OpenAPI", "api_version": "v1", "server_version": versions.current()})


def v1_redirect(request: Request) -> Response:
    place = f"http://{request.headers.get('Host', 'localhost')}/v1/"
    title = "Redirecting..."
    page = (
        f"<!doctype html>\n<html lang=en>\n<title>{title}</title>\n<h1>{title}</h1>\n"
        f'<p><a href="{place}">{place}</a></p>\n'
    )
    return Response(308, page.encode(), "text/html; charset=utf-8", [("Location", place)])


def version(request: Request) -> Response:
    if "current_version" not in request.query:
        if versions.has("typed_errors"):
            text = "Validation error for parameter 'query'"
            raise typed(422, "validation_error", text, text)
        raise replies.invalid_field("Missing required parameter in the query string", "current_version")
    return replies.plain(
        {
            "version": versions.current(),
            "release_date": "",
            "release_notes": "",
            "can_auto_update": False,
            "features": {"can_replace_logo": False, "model_load_balancing_enabled": False},
        }
    )


def system_features(request: Request) -> Response:
    return replies.console(features.system_features())


def setup_state() -> dict[str, Any] | None:
    return db.row("SELECT version, setup_at FROM dify_setups")


def get_setup(request: Request) -> Response:
    done = setup_state()
    if done is not None:
        return replies.plain({"step": "finished", "setup_at": done["setup_at"].replace(microsecond=0).isoformat()})
    return replies.plain(
        {"step": "not_started", "setup_at": None} if versions.has("setup_at_null") else {"step": "not_started"}
    )


def _payload(request: Request, rules: dict[str, int]) -> dict[str, str]:
    """The fields of /setup and /init with their longest lengths (0: free), checked as the release does it."""
    if not versions.has("typed_errors"):
        data = replies.body(request, "", *rules)
        if not request.is_json:
            replies.body(request)
        for name, longest in rules.items():
            if longest and len(str(data[name])) > longest:
                raise replies.invalid_field(
                    f"Invalid argument: {data[name]}. argument cannot exceed length {longest}", name
                )
        return data
    data = request.json() if request.is_json else None
    wrong = not isinstance(data, dict) or any(
        not isinstance(data.get(name), str) or (longest and len(data[name]) > longest)
        for name, longest in rules.items()
    )
    if wrong:
        text = "Validation error for parameter 'payload'"
        raise typed(422, "validation_error", text, text)
    return dict(data or {})


def _init_done(request: Request) -> bool:
    if not settings.text("INIT_PASSWORD") or setup_state() is not None:
        return True
    return tokens.unsign(request.cookie("session")) == INIT_SESSION


def _already_setup() -> replies.ApiError:
    if versions.has("typed_errors"):
        return typed(403, "authorization_error", "Forbidden")
    return fail(
        403,
        "already_setup",
        "Dify has been successfully installed. Please refresh the page or return to the dashboard homepage.",
    )


def post_setup(request: Request) -> Response:
    rules = {"email": 0, "name": 30, "password": 0}
    data = _payload(request, rules) if versions.has("typed_errors") else {}
    if data:
        _check_owner(data)
    if setup_state() is not None:
        raise _already_setup()
    if not _init_done(request):
        if versions.has("typed_errors"):
            raise typed(401, "authentication_error", "Unauthorized")
        raise fail(
            401,
            "not_init_validated",
            "Init validation has not been completed yet. Please proceed with the init validation process first.",
        )
    if not data:
        data = _payload(request, rules)
        _check_owner(data)
    try:
        _create_owner(data)
    except OSError as error:
        # Unwritable storage: nothing is left in the database, and the next attempt starts from scratch.
        traceback.print_exc()
        raise replies.ApiError(replies.typed_500()) from error
    return replies.plain({"result": "success"}, 201)


def _check_owner(data: dict[str, str]) -> None:
    email_ok, password_ok = EMAIL.match(data["email"]), session.PASSWORD.match(data["password"])
    if versions.has("typed_errors"):
        if not (email_ok and password_ok):
            text = "Validation error for parameter 'payload'"
            raise typed(422, "validation_error", text, text)
    elif not email_ok:
        raise replies.invalid_field(f"{data['email']} is not a valid email.", "email")
    elif not password_ok:
        raise replies.invalid_field(session.PASSWORD_RULE, "password")


def _create_owner(data: dict[str, str]) -> None:
    with db.transaction() as cursor:
        add_account(cursor, data)
        cursor.execute("INSERT INTO dify_setups (version) VALUES (%s)", (versions.current(),))


def add_account(cursor: Any, data: dict[str, str]) -> None:
    """An account and the workspace that it owns."""
    email = data["email"].lower() if versions.has("email_lowercase") else data["email"]
    language = data.get("language") or "en-US" if versions.has("setup_language") else "en-US"
    hashed, salt = tokens.new_password(data["password"])
    cursor.execute(
        "INSERT INTO accounts (name, email, password, password_salt, interface_language, interface_theme, "
        "timezone) VALUES (%s, %s, %s, %s, %s, 'light', 'America/New_York') RETURNING id",
        (data["name"], email, hashed, salt, language),
    )
    account_id = cursor.fetchone()["id"]
    cursor.execute("INSERT INTO tenants (name) VALUES (%s) RETURNING id", (f"{data['name']}'s Workspace",))
    tenant_id = cursor.fetchone()["id"]
    public_key = tokens.new_key_pair(str(tenant_id))
    cursor.execute("UPDATE tenants SET encrypt_public_key = %s WHERE id = %s", (public_key, tenant_id))
    cursor.execute(
        "INSERT INTO tenant_account_joins (tenant_id, account_id, role, current) VALUES (%s, %s, 'owner', true)",
        (tenant_id, account_id),
    )
    for sql, values in _auto_upgrade_rows(tenant_id):
        cursor.execute(sql, values)


def _auto_upgrade_rows(tenant_id: object) -> list[tuple[str, tuple[object, ...]]]:
    """Automatic plugin upgrades are on from the first day: one row, later one per category, `model` at latest."""
    if not versions.has("auto_upgrade_table"):
        return []
    if not versions.has("auto_upgrade_routes"):
        return [("INSERT INTO tenant_plugin_auto_upgrade_strategies (tenant_id) VALUES (%s)", (tenant_id,))]
    return [
        (
            "INSERT INTO tenant_plugin_auto_upgrade_strategies (tenant_id, category, strategy_setting, "
            "upgrade_time_of_day) VALUES (%s, %s, %s, %s)",
            (tenant_id, category, "latest" if category == "model" else "fix_only", 71100),
        )
        for category in ("tool", "model", "extension", "agent-strategy", "datasource", "trigger")
    ]


def get_init(request: Request) -> Response:
    return replies.plain({"status": "finished" if _init_done(request) else "not_started"})


def post_init(request: Request) -> Response:
    data = _payload(request, {"password": 30}) if versions.has("typed_errors") else None
    if setup_state() is not None:
        raise _already_setup()
    data = data or _payload(request, {"password": 30})
    # An unset variable equals the empty password in older releases; 1.16.0 was recorded to tell them apart.
    expected = (
        os.environ.get("INIT_PASSWORD") if versions.has("init_absent_refused") else settings.text("INIT_PASSWORD")
    )
    right = data["password"] == expected
    cookie = ("Set-Cookie", f"session={tokens.sign(INIT_SESSION if right else 'wrong')}; HttpOnly; Path=/")
    if right:
        return replies.plain({"result": "success"}, 201, [cookie])
    if versions.has("typed_errors"):
        error = typed(401, "authentication_error", "Unauthorized")
    else:
        error = fail(401, "init_validate_failed", "Init validation failed. Please check the password and try again.")
    error.response.headers.append(cookie)
    raise error


def routes(router: Router) -> None:
    router.add("GET", "/health", health)
    router.add("GET", "/console/api/ping", ping)
    router.add("GET", "/console/api/version", version)
    router.add("GET", "/console/api/system-features", system_features)
    router.add("GET", "/console/api/setup", get_setup)
    router.add("POST", "/console/api/setup", post_setup)
    router.add("GET", "/console/api/init", get_init)
    router.add("POST", "/console/api/init", post_init)
    router.add("GET", "/v1", v1_redirect)
    if not versions.has("v1_root_gone"):
        router.add("GET", "/v1/", v1_root)
