# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Client of Dify's console API, for every release. What differs by release is in SINCE and nowhere else.

    console = Console("http://dify.example.com", email="admin@example.com", password="…")
    console.plugins.installed()
    console.models.save("ollama", "llama3.2", "llm", {"base_url": "http://host.docker.internal:11434", …})
    console.apps.find()

It logs in with its first request that needs it, and once: whatever is wrong with the password, it is not tried again.
"""

from __future__ import annotations

import base64
import re
import secrets
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._dify_console_apps import Apps
from ansible_collections.llmops.stack.plugins.module_utils._dify_console_errors import ConsoleError, read_error
from ansible_collections.llmops.stack.plugins.module_utils._dify_console_models import Models
from ansible_collections.llmops.stack.plugins.module_utils._dify_console_plugins import Plugins
from ansible_collections.llmops.stack.plugins.module_utils._dify_console_session import SessionFile
from ansible_collections.llmops.stack.plugins.module_utils._dify_versions import FEATURES, parse_version
from ansible_collections.llmops.stack.plugins.module_utils._http import Http, HttpError, Response

__all__ = ["SINCE", "Console", "ConsoleError"]

# What the console can do from which release on.
SINCE: dict[str, str] = {
    "plugins": FEATURES["plugin_daemon"],  # with them, provider ids became author/plugin/provider
    "auto_upgrade": "1.7.0",  # plugins are upgraded by the platform itself; plugin/preferences/*
    "credential_routes": "1.8.0",  # several credentials per model; the old route takes the old body, stores nothing
    "cookie_login": FEATURES["cookie_login"],  # before it: bearer tokens
    "base64_password": FEATURES["base64_password"],  # at login only; setup takes it plain in all releases
    "workspace_by_post": "1.12.1",  # on record as GET in 1.7.2 and as POST here; between them both are tried
    "default_model_kept": "1.14.0",  # before it the first default-model of a workspace may be without effect
    "auto_upgrade_by_category": "1.15.0",  # plugin/auto-upgrade/*; models are upgraded to the latest by default
}

FINISHED = "finished"
NOT_STARTED = "not_started"
# How a request fails that no server has seen.
_NOT_SENT = ("dns", "refused", "unreachable", "timeout_connect", "tls", "invalid")
_RELEASE = re.compile(r"\d+\.\d+\.\d+(-(alpha|beta|rc|fix)\.?\d*)?")
# Pauses between two looks at an API that is about to start.
_POLL_SECONDS = 1.0
_PAGE = 100


class Console:
    """One console, one account, one login."""

    def __init__(
        self,
        url: str,
        version: str = "",
        email: str = "",
        password: str = "",
        verify: bool | str = True,
        timeout: float = 30.0,
        session_file: str = "",
    ) -> None:
        self.url = url.rstrip("/")
        self.email = email
        self.timeout = timeout
        self.http = Http(verify=verify)
        # Never shown, wherever they turn up. Callers add what they send.
        self.secrets: set[str] = {password, base64.b64encode(password.encode()).decode()} - {""}
        self.plugins = Plugins(self)
        self.models = Models(self)
        self.apps = Apps(self)
        self.logged_in = False  # whether this client has sent a password
        self._password = password
        self._given = version
        self._version = ""
        self._bearer = ""
        self._refresh_token = ""
        self._cookies: dict[str, str] = {}
        self._refused: ConsoleError | None = None
        self._workspaces: list[dict[str, Any]] = []
        self._file = SessionFile(session_file) if session_file else None

    # What answers

    @property
    def version(self) -> str:
        """The release that answers; the one that was given where a proxy takes the header away."""
        if not self._version:
            self.setup_status()
        if not self._version:
            raise ConsoleError("not_dify", f"{self.url} does not say which release of Dify it is (header X-Version)")
        return self._version

    def has(self, feature: str) -> bool:
        """Whether the release that answers has what SINCE names."""
        return parse_version(self.version)[:3] >= parse_version(SINCE[feature])[:3]

    def hide(self, text: str) -> str:
        for secret in sorted(self.secrets, key=len, reverse=True):
            text = text.replace(secret, "***")
        return text

    # Before there is an owner

    def setup_status(self) -> str:
        try:
            data = self._call("GET", "setup", login=False)
        except ConsoleError as error:
            if error.status != 404:
                raise
            data = None
        if not isinstance(data, dict) or data.get("step") not in (FINISHED, NOT_STARTED):
            raise ConsoleError("not_dify", f"{self.url} is not Dify's console: its /setup answers something else")
        return str(data["step"])

    def wait(self, deadline: float) -> str:
        """The setup's status, as soon as the API answers; `deadline` is a time of time.monotonic()."""
        while True:
            try:
                return self.setup_status()
            except ConsoleError as error:
                starting = error.kind in ("no_answer", "gateway", "server_error")
                if not starting or error.code in ("tls", "invalid") or time.monotonic() + _POLL_SECONDS > deadline:
                    raise
            time.sleep(_POLL_SECONDS)

    def init_needed(self) -> bool:
        """Whether INIT_PASSWORD must be given first, in this session."""
        data = self._call("GET", "init", login=False)
        return isinstance(data, dict) and data.get("status") == NOT_STARTED

    def init(self, password: str) -> None:
        self.secrets.add(password)
        try:
            self._call("POST", "init", json={"password": password}, login=False)
        except ConsoleError as error:
            # Newer releases name no reason; 422 is a password of more than 30 characters.
            if error.status in (400, 401, 422):
                raise ConsoleError(
                    "wrong_init_password", "Dify refuses the INIT_PASSWORD that was given", error.status
                ) from error
            raise self._setup_error(error) from error

    def setup(self, email: str, name: str, password: str, language: str = "") -> None:
        """Makes the owner. The password goes as it is in every release; older ones ignore the language."""
        self.secrets.add(password)
        body = {"email": email, "name": name, "password": password}
        try:
            # The key pair of the workspace is made in this request.
            self._call(
                "POST",
                "setup",
                json={**body, **({"language": language} if language else {})},
                login=False,
                timeout=max(self.timeout, 60.0),
            )
        except ConsoleError as error:
            raise self._setup_error(error) from error

    @staticmethod
    def _setup_error(error: ConsoleError) -> ConsoleError:
        """By the status: 1.12 and newer name no reason on these routes."""
        if error.status == 403:
            return ConsoleError("already_setup", "Dify has an owner already", 403, error.code)
        if error.status == 401:
            return ConsoleError("init_required", "Dify's setup is guarded by INIT_PASSWORD", 401, error.code)
        if error.status == 500:
            return ConsoleError("storage", "Dify's setup ended with HTTP 500 and left nothing behind", 500, error.code)
        return error

    # Session

    def login(self, fresh: bool = False) -> None:
        """Opens the session; `fresh`: by the password, whatever session was kept. Never sends a password twice."""
        if self._refused is not None:
            raise self._refused
        if not self.logged_in and (fresh or not (self._open() or self._restore())):
            self._log_in()

    def _open(self) -> bool:
        return bool(self._bearer or self._cookies.get(self._cookie("csrf_token")))

    def _log_in(self) -> None:
        if not (self.email and self._password):
            raise ConsoleError(
                "wrong_password",
                f"There is no password to log in to {self.url} with",
                advice="Give password, or a secrets_file that holds ADMIN_PASSWORD.",
            )
        sent = self._password
        if self.has("base64_password"):
            sent = base64.b64encode(sent.encode()).decode()
        body = {"email": self.email, "password": sent, "remember_me": True}
        self.logged_in = True
        try:
            answer = self._exchange("POST", "login", json=body)
            if answer.status != 200:
                raise self._login_error(read_error(answer, "POST /login"))
            self._learn_tokens(answer)
            if not self._open():
                raise ConsoleError("not_dify", "Dify took the password and opened no session", 200)
        except ConsoleError as error:
            error.message = self.hide(error.message)
            if error.code in _NOT_SENT or error.status in (502, 503):
                self.logged_in = False
            else:
                self._refused = error
            raise
        self._keep()

    def _login_error(self, error: ConsoleError) -> ConsoleError:
        if error.kind == "invalid" and not self.has("base64_password"):
            # Older releases refuse a password that breaks their rule before they compare it.
            error.kind = "wrong_password"
        words = {
            "wrong_password": f"Dify refuses email and password of {self.email}",
            "unknown_email": f"Dify has no account {self.email}",
            "locked": f"The account {self.email} is locked",
        }
        if error.kind in words:
            return ConsoleError(error.kind, words[error.kind], error.status, error.code)
        return error

    def _keep(self) -> None:
        """For the next module of the run. The refresh token stays here: it would be good for 30 days, not an hour."""
        if self._file:
            names = (self._cookie("access_token"), self._cookie("csrf_token"))
            cookies = {name: self._cookies[name] for name in names if name in self._cookies}
            self._file.write(self._identity(), self._password, {"bearer": self._bearer, "cookies": cookies})

    def _identity(self) -> str:
        return f"{self.url} {self.email}"

    def _restore(self) -> bool:
        """A session that an earlier module kept. Whether it still holds is seen with the first request."""
        kept = self._file.read(self._identity(), self._password) if self._file else {}
        self._bearer, self._cookies = str(kept.get("bearer") or ""), dict(kept.get("cookies") or {})
        self.secrets |= {self._bearer, *self._cookies.values()} - {""}
        return bool(kept)

    def _cookie(self, name: str) -> str:
        """The name as this site spells it: with https in both of its console addresses it begins with __Host-."""
        return f"__Host-{name}" if f"__Host-{name}" in self._cookies else name

    def _learn(self, answer: Response) -> None:
        # An image that somebody built may add a word of its own to the version.
        found = _RELEASE.match(answer.headers.get("X-Version") or "")
        self._version = found.group() if found else self._version or self._given
        # Several Set-Cookie lines arrive as one; the comma of a date has no name= after it.
        for one in re.split(r",\s*(?=[^;,=\s]+=)", answer.headers.get("Set-Cookie") or ""):
            name, _separator, value = one.partition(";")[0].partition("=")
            if value:
                self._cookies[name.strip()] = value
                self.secrets.add(value)

    def _learn_tokens(self, answer: Response) -> None:
        data = answer.json()
        tokens = data.get("data") if isinstance(data, dict) else None
        if isinstance(tokens, dict) and tokens.get("access_token"):
            self._bearer = str(tokens["access_token"])
            self._refresh_token = str(tokens.get("refresh_token") or "")
            self.secrets |= {self._bearer, self._refresh_token} - {""}

    def _headers(self) -> dict[str, str]:
        if self._bearer:
            return {"Authorization": f"Bearer {self._bearer}"}
        return {"X-CSRF-Token": self._cookies.get(self._cookie("csrf_token"), "")}

    def _renew(self) -> bool:
        """A new session for one that has run out: by its refresh token, by the password where that was not sent yet."""
        answer = None
        if self.has("cookie_login"):
            if self._cookies.get(self._cookie("refresh_token")):
                answer = self._exchange("POST", "refresh-token")
        elif self._refresh_token:
            answer = self._exchange("POST", "refresh-token", json={"refresh_token": self._refresh_token})
        if answer is not None and answer.status == 200:
            self._learn_tokens(answer)
            self._keep()
            return True
        if self.logged_in:
            return False
        self._bearer, self._cookies = "", {}
        self._log_in()
        return True

    # Requests

    def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        query: Mapping[str, Any] | None = None,
        files: Mapping[str, tuple[str, bytes]] | None = None,
        timeout: float | None = None,
    ) -> Any:
        """One request of the account, `path` below /console/api/; the decoded reply, None where it is empty.

        Raises:
            ConsoleError: any status but 2xx, and no answer at all.
        """
        return self._call(method, path, json=json, query=query, files=files, timeout=timeout)

    def pages(self, path: str, key: str, size: str, query: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        """All entries of a list that comes in pages; `size` is the parameter that limits one."""
        page, first = 1, None
        while True:
            data = self.request("GET", path, query={**(query or {}), "page": page, size: _PAGE})
            found = (data or {}).get(key) or []
            if found[:1] == first:  # the oldest plugin daemon knows no pages and sends all of them each time
                return
            yield from found
            if len(found) < _PAGE:
                return
            page, first = page + 1, found[:1]

    def _call(self, method: str, path: str, *, login: bool = True, **options: Any) -> Any:
        if login:
            self.login()
        answer = self._exchange(method, path, headers=self._headers() if login else None, **options)
        if login and answer.status == 401 and self._renew():
            answer = self._exchange(method, path, headers=self._headers(), **options)
        if 200 <= answer.status < 300:
            return answer.json()
        if 300 <= answer.status < 400:
            place = self.hide(str(answer.headers.get("Location") or "elsewhere"))
            raise ConsoleError("redirect", f"{self.url} redirects to {place}", answer.status)
        error = read_error(answer, f"{method} /{path}")
        error.message = self.hide(error.message)
        raise error

    def _exchange(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        query: Mapping[str, Any] | None = None,
        files: Mapping[str, tuple[str, bytes]] | None = None,
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        sent = dict(headers or {})
        if self._cookies:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        body = json
        if files:
            boundary = secrets.token_hex(16)
            body = _multipart(files, boundary)
            sent["Content-Type"] = f"multipart/form-data; boundary={boundary}"
        url = f"{self.url}/console/api/{path}"
        if query:
            url += "?" + urllib.parse.urlencode(query)
        try:
            answer = self.http.request(method, url, timeout or self.timeout, headers=sent, body=body)
        except HttpError as exc:
            raise ConsoleError("no_answer", self.hide(str(exc)), code=exc.kind) from exc
        self._learn(answer)
        return answer

    # Workspace

    def workspace(self) -> dict[str, Any]:
        """The account's current workspace: id, name, role of the account in it, …"""
        by_post = self.has("workspace_by_post")
        try:
            return self._workspace(by_post)
        except ConsoleError as error:
            if error.status != 405:
                raise
        return self._workspace(not by_post)

    def _workspace(self, by_post: bool) -> dict[str, Any]:
        path = "workspaces/current"
        return (self.request("POST", path, json={}) if by_post else self.request("GET", path)) or {}

    def workspaces(self) -> list[dict[str, Any]]:
        if not self._workspaces:
            self._workspaces = (self.request("GET", "workspaces") or {}).get("workspaces") or []
        return self._workspaces

    @property
    def tenant_id(self) -> str:
        """Id of the account's current workspace."""
        found = [one for one in self.workspaces() if one.get("current")] or self.workspaces()
        if not found:
            raise ConsoleError("forbidden", f"The account {self.email} is in no workspace", 200)
        return str(found[0]["id"])


def _multipart(files: Mapping[str, tuple[str, bytes]], boundary: str) -> bytes:
    parts = []
    for field, (name, content) in files.items():
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; '
            f'filename="{urllib.parse.quote(name)}"\r\nContent-Type: application/octet-stream\r\n\r\n'
        )
        parts += [head.encode(), content, b"\r\n"]
    return b"".join([*parts, f"--{boundary}--\r\n".encode()])
