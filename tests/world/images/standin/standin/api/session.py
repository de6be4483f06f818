# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is asking: bearer tokens in the older releases, cookies with CSRF in the newer ones, the admin key in all."""

from __future__ import annotations

import base64
import binascii
import re
import secrets
import time
import uuid
from email.utils import formatdate
from typing import Any

from standin import faults, versions
from standin.api import cache, db, replies, settings, tokens
from standin.api.replies import fail
from standin.server import Request, Response, Router

REFRESH_SECONDS = 30 * 86400
LOCK_AFTER = 5  # the sixth wrong attempt still gets the normal answer
LOCK_SECONDS = 86400
PASSWORD = re.compile(r"^(?=.*[a-zA-Z])(?=.*\d).{8,}$")
PASSWORD_RULE = "Password must contain letters and numbers, and the length must be greater than 8."


def access_seconds() -> int:
    return settings.number("ACCESS_TOKEN_EXPIRE_MINUTES", 60) * 60


def require_setup() -> None:
    if db.row("SELECT version FROM dify_setups") is None:
        raise fail(
            401,
            "not_setup",
            "Dify has not been initialized and installed yet. Please proceed with the initialization "
            "and installation process first.",
        )


def _secure() -> bool:
    urls = (settings.text("CONSOLE_WEB_URL"), settings.text("CONSOLE_API_URL"))
    return all(url.startswith("https") for url in urls) and not settings.text("COOKIE_DOMAIN")


def cookie_name(name: str) -> str:
    return f"__Host-{name}" if _secure() else name


def _set_cookie(name: str, value: str, seconds: int, *, http_only: bool = True) -> tuple[str, str]:
    """A cookie; without a life it is taken away."""
    expires = f"Expires={formatdate(time.time() + seconds if seconds else 0, usegmt=True)}"
    parts = [f"{cookie_name(name)}={value}", expires, *([f"Max-Age={seconds}"] if seconds else [])]
    parts += ["Secure"] if _secure() else []
    parts += ["HttpOnly"] if http_only else []
    return "Set-Cookie", "; ".join([*parts, "Path=/", "SameSite=Lax"])


def _owner_of(workspace: str) -> dict[str, Any] | None:
    try:
        uuid.UUID(workspace)
    except ValueError:
        return None
    return db.row(
        "SELECT a.*, j.tenant_id FROM accounts a JOIN tenant_account_joins j ON j.account_id = a.id "
        "WHERE j.tenant_id = %s AND j.role = 'owner'",
        workspace,
    )


def _account(account_id: str) -> dict[str, Any] | None:
    return db.row(
        "SELECT a.*, j.tenant_id FROM accounts a JOIN tenant_account_joins j ON j.account_id = a.id "
        "WHERE a.id = %s ORDER BY j.current DESC",
        account_id,
    )


def account(request: Request) -> dict[str, Any]:
    """The account behind a console request, with its tenant_id; 401 otherwise."""
    require_setup()
    admin_key = settings.text("ADMIN_API_KEY")
    if settings.flag("ADMIN_API_KEY_ENABLE") and admin_key and request.bearer() == admin_key:
        found = _owner_of(request.headers.get("X-WORKSPACE-ID") or "")
        if found is None:
            raise fail(401, "unauthorized", "Invalid token.")
        return found
    token = _cookie_token(request) if versions.has("cookie_login") else _bearer_token(request)
    try:
        claims = tokens.read_jwt(token)
    except (tokens.BadToken, ValueError, KeyError) as error:
        text = str(error) if versions.has("cookie_login") and isinstance(error, tokens.BadToken) else "Invalid token."
        raise fail(401, "unauthorized", text) from None
    found = _account(claims.get("user_id", ""))
    if found is None:
        raise fail(401, "unauthorized", "Invalid token.")
    return found


def _bearer_token(request: Request) -> str:
    header = request.headers.get("Authorization") or ""
    if not header:
        raise fail(401, "unauthorized", "Invalid Authorization token.")
    if not request.bearer():
        raise fail(401, "unauthorized", "Invalid Authorization header format. Expected 'Bearer <api-key>' format.")
    return request.bearer()


def _cookie_token(request: Request) -> str:
    token = request.cookie(cookie_name("access_token")) or request.bearer()
    if not token:
        raise fail(401, "unauthorized", "Invalid Authorization token.")
    header, cookie = request.headers.get("X-CSRF-Token") or "", request.cookie(cookie_name("csrf_token"))
    try:
        if not header or header != cookie:
            raise tokens.BadToken
        tokens.read_jwt(cookie)
    except (tokens.BadToken, ValueError, KeyError):
        raise fail(401, "unauthorized", "CSRF token is missing or invalid.") from None
    return token


def _new_pair(account_id: str) -> tuple[str, str]:
    access = tokens.jwt(access_seconds(), user_id=account_id, iss="SELF_HOSTED", sub="Console API Passport")
    refresh = secrets.token_hex(64)
    client = cache.client()
    client.setex(f"refresh_token:{refresh}", REFRESH_SECONDS, account_id)
    client.setex(f"account_refresh_token:{account_id}", REFRESH_SECONDS, refresh)
    return access, refresh


def _logged_in(account_id: str, *, refreshed: bool = False) -> Response:
    access, refresh = _new_pair(account_id)
    if not versions.has("cookie_login"):
        return replies.console({"result": "success", "data": {"access_token": access, "refresh_token": refresh}})
    csrf = tokens.jwt(access_seconds(), sub=account_id)
    cookies = [
        _set_cookie("access_token", access, access_seconds()),
        _set_cookie("refresh_token", refresh, REFRESH_SECONDS),
        _set_cookie("csrf_token", csrf, access_seconds(), http_only=False),
    ]
    if refreshed:
        cookies = [cookies[2], cookies[0], cookies[1]]
    return replies.plain({"result": "success"}, headers=cookies)


def _password(value: str) -> str:
    if not versions.has("base64_password"):
        if not PASSWORD.match(value):
            raise replies.invalid_field(PASSWORD_RULE, "password")
        return value
    try:
        return base64.b64decode(value, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise fail(401, "authentication_failed", "Invalid encrypted data") from None


def login(request: Request) -> Response:
    require_setup()
    data = replies.body(request, "LoginPayload", "email", "password")
    email = str(data["email"]).lower() if versions.has("email_lowercase") else str(data["email"])
    password = _password(str(data["password"]))
    counter = f"login_error_rate_limit:{email}"
    if faults.get("login") == "locked" or int(cache.get(counter) or 0) > LOCK_AFTER:
        raise fail(429, "email_code_login_limit", "Too many incorrect password attempts. Please try again later.")
    found = db.row("SELECT * FROM accounts WHERE email = %s", email)
    if found is None or not tokens.check_password(password, found["password"], found["password_salt"]):
        if found is not None or versions.has("login_authentication_failed"):
            cache.client().incr(counter)
            cache.client().expire(counter, LOCK_SECONDS)
        raise _wrong_login(found is not None)
    cache.client().delete(counter)
    db.execute(
        "UPDATE accounts SET last_login_at = now(), last_login_ip = %s WHERE id = %s", request.client, found["id"]
    )
    return _logged_in(str(found["id"]))


def _wrong_login(known: bool) -> replies.ApiError:
    if versions.has("login_authentication_failed"):
        return fail(401, "authentication_failed", "Invalid email or password.")
    if known:
        return fail(400, "email_or_password_mismatch", "The email or password is mismatched.")
    return fail(400, "account_not_found", "Account not found.")


def refresh(request: Request) -> Response:
    by_cookie = versions.has("cookie_login")
    token = request.cookie(cookie_name("refresh_token")) if by_cookie else ""
    if not by_cookie:
        token = str(replies.body(request, "RefreshToken", "refresh_token")["refresh_token"])
    if not token:
        return replies.plain({"result": "fail", "message": "No refresh token provided"}, 401)
    account_id = cache.get(f"refresh_token:{token}")
    if account_id is None:
        if by_cookie:
            return replies.plain({"result": "fail", "message": "Invalid refresh token"}, 401)
        return replies.console({"result": "fail", "data": "Invalid refresh token"}, 401)
    cache.client().delete(f"refresh_token:{token}")
    return _logged_in(account_id, refreshed=True)


def logout(request: Request) -> Response:
    """Revokes the refresh token of the last login; access tokens live on until they expire."""
    by_cookie = versions.has("cookie_login")
    if by_cookie:
        try:
            account_id = tokens.read_jwt(request.cookie(cookie_name("access_token")) or request.bearer())["user_id"]
        except (tokens.BadToken, KeyError, ValueError):
            raise fail(401, "unauthorized", "Invalid Authorization token.") from None
    else:
        account_id = str(account(request)["id"])
    last = cache.get(f"account_refresh_token:{account_id}")
    cache.client().delete(f"account_refresh_token:{account_id}", *([f"refresh_token:{last}"] if last else []))
    if not by_cookie:
        return replies.console({"result": "success"})
    gone = [
        _set_cookie(name, "", 0, http_only=name != "csrf_token")
        for name in ("access_token", "refresh_token", "csrf_token")
    ]
    return replies.plain({"result": "success"}, headers=gone)


def routes(router: Router) -> None:
    router.add("POST", "/console/api/login", login)
    router.add("POST", "/console/api/refresh-token", refresh)
    router.add("POST" if versions.has("logout_by_post") else "GET", "/console/api/logout", logout)
