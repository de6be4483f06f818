# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The account, its workspaces and the feature switches of the console."""

from __future__ import annotations

from typing import Any

from standin import versions
from standin.api import db, features, replies, session
from standin.server import Request, Response, Router


def stamp(value: Any) -> int | None:
    return int(value.timestamp()) if value is not None else None


def profile(request: Request) -> Response:
    account = session.account(request)
    return replies.console(
        {
            "id": account["id"],
            "name": account["name"],
            "avatar": None,
            "avatar_url": None,
            "email": account["email"],
            "is_password_set": bool(account["password"]),
            "interface_language": account["interface_language"],
            "interface_theme": account["interface_theme"],
            "timezone": account["timezone"],
            "last_login_at": stamp(account["last_login_at"]),
            "last_login_ip": account["last_login_ip"],
            "created_at": stamp(account["created_at"]),
        }
    )


def workspaces(request: Request) -> Response:
    account = session.account(request)
    found = db.rows(
        "SELECT t.*, j.current FROM tenants t JOIN tenant_account_joins j ON j.tenant_id = t.id "
        "WHERE j.account_id = %s",
        account["id"],
    )
    data = [
        {
            "id": tenant["id"],
            "name": tenant["name"],
            "plan": "sandbox" if versions.has("plugins") else tenant["plan"],
            "status": tenant["status"],
            "created_at": stamp(tenant["created_at"]),
            "current": tenant["current"],
            **({"last_opened_at": None} if versions.has("last_opened_at") else {}),
        }
        for tenant in found
    ]
    return replies.console({"workspaces": data})


def current(request: Request) -> Response:
    account = session.account(request)
    tenant = db.row("SELECT * FROM tenants WHERE id = %s", account["tenant_id"]) or {}
    data = {
        "id": tenant["id"],
        "name": tenant["name"],
        "plan": tenant["plan"],
        "status": tenant["status"],
        "created_at": stamp(tenant["created_at"]),
        "role": "owner",
        "in_trial": None,
        "trial_end_reason": None,
        "custom_config": None,
    }
    if versions.has("trial_features"):
        data |= {"trial_credits": None, "trial_credits_used": None, "next_credit_reset_date": None}
    if versions.has("last_opened_at"):
        data["trial_credits_exhausted_at"] = None
    return replies.console(data)


def console_features(request: Request) -> Response:
    session.account(request)
    return replies.console(features.features())


def routes(router: Router) -> None:
    router.add("GET", "/console/api/account/profile", profile)
    router.add("GET", "/console/api/workspaces", workspaces)
    router.add(
        "GET" if versions.has("workspace_current_by_get") else "POST", "/console/api/workspaces/current", current
    )
    router.add("GET", "/console/api/features", console_features)
