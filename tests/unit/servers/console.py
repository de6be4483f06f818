# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dify's console before and after its setup, as recorded, with what a test wants to go wrong."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field

from ansible_collections.llmops.stack.tests.unit.servers.scripted import Reply, Request, as_json

TENANT = "11111111-2222-3333-4444-555555555555"
EMAIL, PASSWORD, INIT = "admin@example.com", "Passw0rd!x", "init-pass-1"
TOKEN = "header.access-of-the-owner.signature"
# Cookies as Flask sends them: the dates have a comma of their own.
LIFE = "Expires=Wed, 25 Nov 2026 20:00:00 GMT; Max-Age=3600; Path=/; SameSite=Lax"


@dataclass
class FakeConsole:
    version: str = "1.12.1"
    owner: str = ""  # who was set up; "" before the setup
    init_password: str = ""
    prefix: str = ""  # "__Host-" with https in both console addresses
    role: str = "owner"
    setup_answer: Callable[[FakeConsole], Reply] | None = None
    login_answer: Reply | None = None
    routes: dict[str, Callable[[Request], Reply]] = field(default_factory=dict)

    def __call__(self, request: Request) -> Reply:
        reply = self._reply(request)
        reply.headers.setdefault("X-Version", self.version)
        return reply

    def _reply(self, request: Request) -> Reply:
        path = request.path.removeprefix("/console/api/")
        known: dict[str, Callable[[Request], Reply]] = {
            "setup": self._setup,
            "init": self._init,
            "login": self._login,
            "workspaces/current": lambda _: as_json({"id": TENANT, "name": "Admin's Workspace", "role": self.role}),
            **self.routes,
        }
        if path not in known:
            return Reply(404, "<!doctype html>\n<title>404 Not Found</title>", "text/html")
        if path not in ("setup", "init", "login") and not self._allowed(request):
            return error(401, "unauthorized", "CSRF token is missing or invalid.")
        return known[path](request)

    def _setup(self, request: Request) -> Reply:
        if request.method == "GET":
            return as_json({"step": "finished" if self.owner else "not_started"})
        if self.setup_answer is not None:
            return self.setup_answer(self)
        if self.owner:
            return typed(403, "authorization_error", "Forbidden")
        if self.init_password and "session=right" not in request.headers.get("cookie", ""):
            return typed(401, "authentication_error", "Unauthorized")
        self.owner = str(request.json()["email"])
        return as_json({"result": "success"}, 201)

    def _init(self, request: Request) -> Reply:
        if request.method == "GET":
            return as_json({"status": "not_started" if self.init_password and not self.owner else "finished"})
        if request.json()["password"] != self.init_password:
            return typed(401, "authentication_error", "Unauthorized")
        return as_json({"result": "success"}, 201, {"Set-Cookie": "session=right; HttpOnly; Path=/"})

    def _login(self, request: Request) -> Reply:
        if self.login_answer is not None:
            return self.login_answer
        sent = request.json()
        wanted = PASSWORD
        if tuple(map(int, self.version.split("."))) >= (1, 11, 2):
            wanted = base64.b64encode(PASSWORD.encode()).decode()
        if (sent["email"], sent["password"]) != (self.owner, wanted):
            return error(401, "authentication_failed", "Invalid email or password.")
        if self.bearer:
            return as_json({"result": "success", "data": {"access_token": TOKEN, "refresh_token": "r" * 128}})
        names = ("access_token", "refresh_token", "csrf_token")
        cookies = ", ".join(f"{self.prefix}{name}={name}-of-the-owner; {LIFE}" for name in names)
        return as_json({"result": "success"}, headers={"Set-Cookie": cookies})

    @property
    def bearer(self) -> bool:
        return tuple(map(int, self.version.split("."))) < (1, 9, 2)

    def _allowed(self, request: Request) -> bool:
        if self.bearer:
            return request.headers.get("authorization") == f"Bearer {TOKEN}"
        csrf = "csrf_token-of-the-owner"
        cookies = request.headers.get("cookie", "").split("; ")
        return request.headers.get("x-csrf-token") == csrf and f"{self.prefix}csrf_token={csrf}" in cookies


def error(status: int, code: str, message: str) -> Reply:
    return as_json({"code": code, "message": message, "status": status}, status)


def typed(status: int, kind: str, message: str) -> Reply:
    """The other shape, of /setup, /init and /version from 1.12 on."""
    return as_json({"error": {"type": kind, "message": message, "status": status}}, status)
