# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The console's client: which release gets what, what its errors mean, and that no secret is in them."""

from __future__ import annotations

import base64
import json
import pathlib
import time
from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils._dify_console import SINCE, Console, ConsoleError
from ansible_collections.llmops.stack.plugins.module_utils._dify_console_errors import ADVICE, read_error
from ansible_collections.llmops.stack.plugins.module_utils._dify_versions import is_known
from ansible_collections.llmops.stack.plugins.module_utils._http import Response
from ansible_collections.llmops.stack.tests.unit.servers.console import EMAIL, PASSWORD, TENANT, FakeConsole, error
from ansible_collections.llmops.stack.tests.unit.servers.scripted import Reply, Scripted, as_json

UUID = "11111111-2222-3333-4444-555555555555"


def client(server: Scripted, **options: Any) -> Console:
    return Console(server.url, **{"email": EMAIL, "password": PASSWORD, "timeout": 3.0, **options})


def test_the_table_names_releases_that_exist() -> None:
    assert all(is_known(release) for release in SINCE.values())


@pytest.mark.parametrize(
    ("release", "encoded", "bearer", "provider"),
    [
        ("0.15.3", False, True, "ollama"),
        ("1.0.0", False, True, "langgenius/ollama/ollama"),
        ("1.9.1", False, True, "langgenius/ollama/ollama"),
        ("1.9.2", False, False, "langgenius/ollama/ollama"),
        ("1.11.1", False, False, "langgenius/ollama/ollama"),
        ("1.11.2", True, False, "langgenius/ollama/ollama"),
        ("1.16.0", True, False, "langgenius/ollama/ollama"),
        ("2.0.0", True, False, "langgenius/ollama/ollama"),
    ],
)
def test_login_by_release(release: str, encoded: bool, bearer: bool, provider: str) -> None:
    with Scripted(FakeConsole(release, owner=EMAIL)).running() as server:
        console = client(server)
        assert console.workspace()["id"] == TENANT
        assert (
            console.models.provider_id("ollama") == console.models.provider_id("langgenius/ollama/ollama") == provider
        )
        (login,) = server.asked("/console/api/login")
        last = server.requests[-1].headers
    assert login.json()["password"] == (base64.b64encode(PASSWORD.encode()).decode() if encoded else PASSWORD)
    assert ("authorization" in last, "x-csrf-token" in last) == (bearer, not bearer)


def test_cookies_of_an_https_site_have_their_prefix() -> None:
    with Scripted(FakeConsole("1.16.0", owner=EMAIL, prefix="__Host-")).running() as server:
        assert client(server).workspace()["id"] == TENANT


@pytest.mark.parametrize("given", ["", "1.7.2"])
def test_the_release_that_answers_counts_more_than_the_one_that_was_given(given: str) -> None:
    with Scripted(FakeConsole("1.16.0-acme", owner=EMAIL)).running() as server:
        assert client(server, version=given).version == "1.16.0"
    with Scripted(lambda _: as_json({"step": "finished"})).running() as server:
        if given:
            assert client(server, version=given).version == given
        else:
            with pytest.raises(ConsoleError, match="X-Version"):
                assert client(server).version


@pytest.mark.parametrize(
    ("release", "methods"), [("1.7.2", ["GET"]), ("1.10.0", ["GET", "POST"]), ("1.16.0", ["POST"])]
)
def test_the_workspace_is_asked_for_as_the_release_wants_it(release: str, methods: list[str]) -> None:
    def answer(request: Any) -> Reply:
        right = request.method == methods[-1]
        return as_json({"id": TENANT}) if right else error(405, "method_not_allowed", "The method is not allowed.")

    with Scripted(FakeConsole(release, owner=EMAIL, routes={"workspaces/current": answer})).running() as server:
        assert client(server).workspace() == {"id": TENANT}
        assert [one.method for one in server.asked("/console/api/workspaces/current")] == methods


def test_an_answer_without_the_header_forgets_no_release() -> None:
    console = Console("http://127.0.0.1:1")
    console._learn(Response(200, {"X-Version": "1.16.0"}, b""))
    console._learn(Response(502, {}, b""))
    assert console.version == "1.16.0"


PREFIX = "req_id: 0123456789 PluginDaemonBadRequestError: "
SIGNATURE = "plugin verification has been enabled, and the plugin you want to install has a bad signature"
UNAUTHORIZED = (
    f"Client error '401 Unauthorized' for url 'http://daemon:5002/plugin/{UUID}/management/list?page=1'\n"
    "For more information check: https://developer.mozilla.org/en-US/docs/Web/HTTP/Status/401"
)
PYDANTIC = (
    "1 validation error for P\nmode\n  Field required [type=missing]\n"
    "    For further information visit https://errors.pydantic.dev/2.11/v/missing"
)
NO_NODE = "PluginDaemonInternalServerError: no available node, plugin runtime not found"


def coded(code: str, message: str) -> dict[str, str]:
    return {"code": code, "message": message}


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        (400, coded("email_or_password_mismatch", "It is mismatched."), "wrong_password", "It is mismatched"),
        (401, coded("authentication_failed", "Invalid encrypted data"), "password_encoding", "Invalid encrypted data"),
        (429, coded("email_code_login_limit", "Too many incorrect."), "locked", "Too many incorrect"),
        (401, {"error": {"type": "authentication_error", "message": "Unauthorized"}}, "session", "Unauthorized"),
        (422, {"error": {"type": "validation_error", "message": "M", "details": "D"}}, "invalid", "D"),
        (
            400,
            coded("invalid_param", f"Failed to request plugin daemon, url: plugin/{UUID}/management/list"),
            "daemon_down",
            "Failed to request plugin daemon",
        ),
        (400, coded("plugin_error", UNAUTHORIZED), "daemon_key", "Client error '401 Unauthorized'"),
        (400, coded("invalid_param", PREFIX + SIGNATURE), "bad_signature", SIGNATURE),
        (400, coded("plugin_error", SIGNATURE), "bad_signature", SIGNATURE),
        (
            400,
            coded("plugin_error", "difypkg: not a valid difypkg file"),
            "bad_package",
            "difypkg: not a valid difypkg file",
        ),
        (
            400,
            coded("invalid_param", "Reached maximum retries (3) for URL"),
            "marketplace",
            "Reached maximum retries (3) for URL",
        ),
        (
            400,
            coded("invalid_param", "Provider a/b/c does not exist."),
            "provider_missing",
            "Provider a/b/c does not exist",
        ),
        (
            400,
            coded("completion_request_error", f"[Ollama] Error: req_id: 0123456789 {NO_NODE}"),
            "plugin_dead",
            "[Ollama] Error: no available node, plugin runtime not found",
        ),
        (
            400,
            coded("invalid_param", PYDANTIC),
            "invalid",
            "1 validation error for P; mode; Field required [type=missing]",
        ),
        (400, {"custom": "max_keys_exceeded", "message": "Cannot create more."}, "invalid", "Cannot create more"),
        (400, {"status": "failed", "app_id": None, "error": "Missing app data"}, "invalid", "Missing app data"),
        (500, coded("unknown", "Internal Server Error"), "server_error", "Internal Server Error"),
        (502, None, "gateway", "HTTP 502 without a word"),
        (413, None, "too_large", "HTTP 413 without a word"),
    ],
)
def test_what_a_reply_means(status: int, body: Any, kind: str, message: str) -> None:
    text = as_json(body).body if body else "<html>nginx</html>"
    found = read_error(Response(status, {}, text.encode()), "POST /x")
    assert (found.kind, found.message) == (kind, message)
    assert found.kind in ADVICE
    assert UUID not in str(found)
    assert str(found).startswith(f"Dify refuses POST /x (HTTP {status}): {message}.")


def test_a_refused_password_is_sent_once_whatever_is_asked_later() -> None:
    with Scripted(FakeConsole(owner="other@example.com")).running() as server:
        console = client(server)
        for ask in (console.workspace, console.login, console.plugins.installed, lambda: console.login(fresh=True)):
            with pytest.raises(ConsoleError, match="seventh wrong attempt"):
                ask()
        assert len(server.asked("/console/api/login")) == 1


def test_a_login_that_nobody_saw_may_be_sent_again() -> None:
    fake = FakeConsole(owner=EMAIL, login_answer=Reply(502, "<html>nginx</html>", "text/html"))
    with Scripted(fake).running() as server:
        console = client(server)
        with pytest.raises(ConsoleError) as caught:
            console.login()
        assert caught.value.kind == "gateway"
        fake.login_answer = None
        assert console.workspace()["id"] == TENANT


def test_a_locked_account_says_how_to_open_it() -> None:
    answer = error(429, "email_code_login_limit", "Too many incorrect password attempts. Please try again later.")
    with (
        Scripted(FakeConsole(owner=EMAIL, login_answer=answer)).running() as server,
        pytest.raises(ConsoleError) as caught,
    ):
        client(server).login()
    assert str(caught.value).startswith(f"The account {EMAIL} is locked. Seven wrong passwords")


def test_what_was_sent_is_in_no_error() -> None:
    def echo(request: Any) -> Reply:
        return error(400, "invalid_param", f"you sent {request.body} with {request.headers}")

    with Scripted(FakeConsole(owner=EMAIL, routes={"echo": echo})).running() as server:
        console = client(server)
        console.secrets.add("model-secret")
        with pytest.raises(ConsoleError) as caught:
            console.request("POST", "echo", json={"api_key": "model-secret", "again": PASSWORD})
    text = f"{caught.value} {caught.value.message}"
    assert "***" in text
    assert not any(secret in text for secret in ("model-secret", PASSWORD, "token-of-the-owner"))


def test_a_redirect_is_named_and_not_followed() -> None:
    moved = Reply(301, headers={"Location": "https://dify.example.com/console/api/setup"})
    with Scripted(lambda _: moved).running() as server, pytest.raises(ConsoleError) as caught:
        client(server).setup_status()
    assert caught.value.kind == "redirect"
    assert "https://dify.example.com" in str(caught.value)


@pytest.mark.parametrize("answer", [Reply(404, "nothing"), as_json(["step"]), as_json({"step": "?"}), Reply(200, "hi")])
def test_another_server_is_not_taken_for_dify(answer: Reply) -> None:
    with Scripted(lambda _: answer).running() as server, pytest.raises(ConsoleError) as caught:
        client(server).wait(time.monotonic() + 5)
    assert caught.value.kind == "not_dify"


def test_it_waits_for_an_api_that_starts_and_no_longer_than_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    answers = [Reply(502, "<html>nginx</html>", "text/html")] * 3 + [as_json({"step": "not_started"})]
    with Scripted(lambda _: answers.pop(0)).running() as server:
        assert client(server).wait(time.monotonic() + 60) == "not_started"
    with pytest.raises(ConsoleError) as caught:
        Console("http://127.0.0.1:1").wait(time.monotonic())
    assert (caught.value.kind, caught.value.code) == ("no_answer", "refused")


def test_a_list_in_pages_ends_also_where_the_server_knows_no_pages() -> None:
    everything = as_json({"plugins": [{"id": number} for number in range(100)]})
    with Scripted(FakeConsole(owner=EMAIL, routes={"list": lambda _: everything})).running() as server:
        assert len(list(client(server).pages("list", "plugins", "page_size"))) == 100
    pages = [as_json({"data": [{"id": number} for number in range(first, first + 60)]}) for first in (0,)]
    pages.insert(0, as_json({"data": [{"id": number} for number in range(100, 200)]}))
    with Scripted(FakeConsole(owner=EMAIL, routes={"list": lambda _: pages.pop(0)})).running() as server:
        assert len(list(client(server).pages("list", "data", "limit"))) == 160
        assert server.requests[-1].query == "page=2&limit=100"


def test_a_package_travels_as_a_form() -> None:
    route = "workspaces/current/plugin/upload/pkg"
    reply = as_json({"unique_identifier": "a/b:1@c"})
    with Scripted(FakeConsole(owner=EMAIL, routes={route: lambda _: reply})).running() as server:
        assert client(server).plugins.upload("päck.difypkg", b"zip") == "a/b:1@c"
        sent = server.requests[-1]
    assert sent.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert 'name="pkg"; filename="p%C3%A4ck.difypkg"' in sent.body
    assert "\r\n\r\nzip\r\n--" in sent.body


def test_a_session_file_serves_its_account_only_and_is_private(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "session"
    with Scripted(FakeConsole(owner=EMAIL)).running() as server:
        client(server, session_file=str(file)).login()
        assert (file.stat().st_mode & 0o777, PASSWORD in file.read_text()) == (0o600, False)
        client(server, session_file=str(file)).workspace()
        assert len(server.asked("/console/api/login")) == 1
        client(server, session_file=str(file)).login(fresh=True)
        assert len(server.asked("/console/api/login")) == 2
        with pytest.raises(ConsoleError):
            client(server, session_file=str(file), password="An0therone").login()
        assert len(server.asked("/console/api/login")) == 3


@pytest.mark.parametrize(("version", "prefix"), [("1.9.1", ""), ("1.16.0", ""), ("1.16.0", "__Host-")])
def test_a_session_file_holds_nothing_that_opens_another_session(
    tmp_path: pathlib.Path, version: str, prefix: str
) -> None:
    file = tmp_path / "run" / "session"
    with Scripted(FakeConsole(owner=EMAIL, version=version, prefix=prefix)).running() as server:
        first = client(server, session_file=str(file))
        first.login()
        assert first._refresh_token or f"{prefix}refresh_token" in first._cookies
        session = json.loads(file.read_text())["session"]
        assert sorted(session["cookies"]) == (
            [] if session["bearer"] else [f"{prefix}access_token", f"{prefix}csrf_token"]
        )
        assert (first._refresh_token or "refresh_token") not in file.read_text()
        # Once it has run out, the next module knows its way in by its password only.
        second = client(server, session_file=str(file))
        second._restore()
        assert second._renew() and second.logged_in
        assert not server.asked("/console/api/refresh-token")
        assert [one.name for one in file.parent.iterdir()] == ["session"]


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"mark": 1, "salt": 2}', '{"mark": "a", "salt": "b", "session": []}']
)
def test_a_broken_session_file_is_worth_a_login(tmp_path: pathlib.Path, content: str) -> None:
    file = tmp_path / "session"
    file.write_text(content)
    with Scripted(FakeConsole(owner=EMAIL)).running() as server:
        assert client(server, session_file=str(file)).workspace()["id"] == TENANT
        assert client(server, session_file=str(tmp_path / "no" / "such" / "folder")).workspace()["id"] == TENANT


def test_the_default_model_is_set_again_where_the_first_call_has_no_effect() -> None:
    def answer(request: Any) -> Reply:
        if request.method == "POST":
            sent.append(request.json()["model_settings"][0]["model"])
            return as_json({"result": "success"})
        first = len(sent) < 2
        model = {"model": "other" if first else "mine", "provider": {"provider": "langgenius/ollama/ollama"}}
        return as_json({"data": model})

    for release, attempts, kept in (("1.12.1", 2, True), ("1.16.0", 1, False)):
        sent: list[str] = []
        fake = FakeConsole(release, owner=EMAIL, routes={"workspaces/current/default-model": answer})
        with Scripted(fake).running() as server:
            assert client(server).models.set_default("llm", "ollama", "mine") is kept
        assert len(sent) == attempts


def test_the_oldest_release_has_no_plugins_and_no_automatic_upgrades() -> None:
    with Scripted(FakeConsole("0.15.3", owner=EMAIL)).running() as server:
        console = client(server)
        assert console.plugins.available is False
        assert console.plugins.auto_upgrade() is None
        assert console.apps.missing_plugins("x") == []


@pytest.mark.parametrize(
    ("module", "wish"),
    [
        ("dify_setup", {}),
        ("dify_plugin", {"plugins": ["langgenius/ollama"]}),
        ("dify_model", {"models": []}),
        ("dify_app", {"apps": []}),
    ],
)
def test_every_module_says_why_it_was_not_let_in(
    run_module: Any, failed: Any, module: str, wish: dict[str, Any]
) -> None:
    wrong = "Wr0ng-password"
    with Scripted(FakeConsole(owner=EMAIL)).running() as server, pytest.raises(failed) as caught:
        run_module(module, url=server.url, email=EMAIL, password=wrong, **wish)
    result = caught.value.result
    assert (result["reason"], wrong in result["msg"]) == ("wrong_password", False)


def test_a_checked_run_has_one_login_too(run_module: Any, tmp_path: pathlib.Path) -> None:
    with Scripted(FakeConsole(owner=EMAIL)).running() as server:
        account = {"url": server.url, "email": EMAIL, "password": PASSWORD, "session_file": str(tmp_path / "session")}
        for module, wished in (("dify_model", "models"), ("dify_app", "apps"), ("dify_model", "models")):
            run_module(module, check=True, **account, **{wished: []})
        assert len(server.asked("/console/api/login")) == 1
