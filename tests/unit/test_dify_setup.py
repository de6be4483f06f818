# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""dify_setup: one owner or a clear word, whatever happens in between."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.llmops.stack.tests.unit.servers.console import (
    EMAIL,
    INIT,
    PASSWORD,
    TENANT,
    FakeConsole,
    error,
    typed,
)
from ansible_collections.llmops.stack.tests.unit.servers.scripted import Reply, Scripted, as_json

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(run_module: Run) -> Callable[..., dict[str, Any]]:
    def call(server: Scripted, **options: Any) -> dict[str, Any]:
        arguments = {"url": server.url, "email": EMAIL, "password": PASSWORD, "deadline": 0, "timeout": 2, **options}
        return run_module("dify_setup", **arguments)

    return call


def posted(server: Scripted) -> list[str]:
    return [one.path.removeprefix("/console/api/") for one in server.requests if one.method == "POST"]


def test_check_run_check_run(run: Run, tmp_path: pathlib.Path) -> None:
    secrets = tmp_path / "secrets.json"
    secrets.write_text(json.dumps({"INIT_PASSWORD": INIT, "SECRET_KEY": "sk"}))
    with Scripted(FakeConsole(init_password=INIT)).running() as server:
        options: dict[str, Any] = {"secrets_file": str(secrets), "name": "Ada", "language": "zh-Hans"}
        would = run(server, check=True, **options)
        assert posted(server) == []
        assert (would["changed"], would["step"], would["tenant_id"]) == (True, "not_started", "")
        did = run(server, **options)
        assert posted(server)[:3] == ["init", "setup", "login"]
        sent = server.asked("/console/api/setup")[-1].json()
        assert sent == {"email": EMAIL, "name": "Ada", "password": PASSWORD, "language": "zh-Hans"}
        assert (did["changed"], did["step"], did["tenant_id"], did["version"]) == (True, "finished", TENANT, "1.12.1")
        assert did["diff"] == would["diff"]
        for check in (True, False):
            again = run(server, check=check, **options)
            assert (again["changed"], again["tenant_id"]) == (False, TENANT)
            assert again["diff"]["before"] == again["diff"]["after"]
        assert posted(server).count("setup") == 1
    for result in (would, did, again):
        assert not any(secret in json.dumps(result) for secret in (PASSWORD, INIT, "of-the-owner"))


def test_the_password_that_was_made_for_the_owner(run: Run, tmp_path: pathlib.Path) -> None:
    secrets = tmp_path / "secrets.json"
    session = tmp_path / "new" / "session"
    options: dict[str, Any] = {"secrets_file": str(secrets), "password": "", "session_file": str(session)}
    with Scripted(FakeConsole()).running() as server:
        # In check mode nothing has made the file yet.
        assert run(server, check=True, **options)["step"] == "not_started"
        secrets.write_text(json.dumps({"ADMIN_PASSWORD": PASSWORD}))
        results = [run(server, **options), run(server, check=True, **options)]
        assert [one["changed"] for one in results] == [True, False]
        sent = [one.json()["password"] for one in server.asked("/console/api/setup") if one.method == "POST"]
    assert sent == [PASSWORD]
    assert not any(PASSWORD in json.dumps(one) for one in results)
    assert session.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "password is not given, and no secrets_file. Give password, or secrets_file"),
        ({}, "secrets.json holds no ADMIN_PASSWORD. Give password"),
        ({"INIT_PASSWORD": INIT}, "secrets.json holds no ADMIN_PASSWORD. Give password"),
    ],
)
def test_no_password_at_all_is_said_before_anything_is_asked(
    run: Run, failed: type[Exception], tmp_path: pathlib.Path, content: Any, words: str
) -> None:
    secrets = tmp_path / "secrets.json"
    secrets.write_text(json.dumps(content))
    options = {"password": None, **({} if content is None else {"secrets_file": str(secrets)})}
    with Scripted(FakeConsole()).running() as server:
        with pytest.raises(failed) as caught:
            run(server, **options)
        assert server.requests == []
    assert words in str(caught.value)
    assert EMAIL in str(caught.value)


def test_an_owner_with_another_password_than_the_one_that_was_made(
    run: Run, failed: type[Exception], tmp_path: pathlib.Path
) -> None:
    secrets = tmp_path / "secrets.json"
    secrets.write_text(json.dumps({"ADMIN_PASSWORD": "An0ther-one"}))
    with Scripted(FakeConsole(owner=EMAIL)).running() as server, pytest.raises(failed) as caught:
        run(server, password="", secrets_file=str(secrets))
    assert f"The password was ADMIN_PASSWORD of {secrets}, which is not the one that the owner has." in str(
        caught.value
    )
    assert "seventh wrong attempt" in str(caught.value)
    assert "An0ther-one" not in str(caught.value)


def test_a_given_password_is_kept_once_it_opened_dify(
    run: Run, failed: type[Exception], tmp_path: pathlib.Path
) -> None:
    secrets = tmp_path / "secrets.json"
    kept = {"ADMIN_PASSWORD": "Th3-one-before", "SECRET_KEY": "sk"}
    secrets.write_text(json.dumps(kept))
    secrets.chmod(0o644)
    options = {"secrets_file": str(secrets)}
    with Scripted(FakeConsole(owner=EMAIL)).running() as server:
        with pytest.raises(failed):
            run(server, password="m1styped", **options)
        assert posted(server) == ["login"]
        assert json.loads(secrets.read_text()) == kept
        would = run(server, check=True, **options)
        assert (would["changed"], json.loads(secrets.read_text())) == (True, kept)
        did, again = run(server, **options), run(server, **options)
    assert [one["changed"] for one in (did, again)] == [True, False]
    assert did["diff"] == would["diff"] != again["diff"]
    assert json.loads(secrets.read_text()) == {**kept, "ADMIN_PASSWORD": PASSWORD}
    assert secrets.stat().st_mode & 0o777 == 0o600
    assert not any(one in json.dumps([would, did, again]) for one in (PASSWORD, "Th3-one-before"))


def test_a_file_of_secrets_is_not_made(run: Run, tmp_path: pathlib.Path) -> None:
    """dify_env takes one that is gone for a loss, and would take this one for all there is."""
    with Scripted(FakeConsole(owner=EMAIL)).running() as server:
        assert run(server, secrets_file=str(tmp_path / "secrets.json"))["changed"] is False
    assert list(tmp_path.iterdir()) == []


def test_a_password_that_was_made_is_not_sent_to_an_owner_of_the_browser(
    run: Run, failed: type[Exception], tmp_path: pathlib.Path
) -> None:
    secrets = tmp_path / "secrets.json"
    made = {"ADMIN_PASSWORD": "Made-0f-letters", "ADMIN_PASSWORD_UNTRIED": "Made-0f-letters"}
    options = {"secrets_file": str(secrets), "password": ""}
    with Scripted(FakeConsole(owner=EMAIL)).running() as server:
        for content, words in (
            (made, f"ADMIN_PASSWORD of {secrets} was made without it"),
            ({"SECRET_KEY": "sk"}, f"password is not given, and {secrets} holds no ADMIN_PASSWORD"),
        ):
            secrets.write_text(json.dumps(content))
            with pytest.raises(failed) as caught:
                run(server, check=True, **options)
            assert f"{server.url} has an owner already, whose password is not known: {words}" in str(caught.value)
            assert "Set dify_admin_password" in str(caught.value)
            assert "set up before" not in str(caught.value)
        secrets.write_text(json.dumps(made))
        with pytest.raises(failed, match="has an owner already"):
            run(server, **options)
        assert posted(server) == []
        # The owner's, put in its place by hand.
        secrets.write_text(json.dumps({**made, "ADMIN_PASSWORD": PASSWORD}))
        assert run(server, **options)["changed"] is True
    assert json.loads(secrets.read_text()) == {"ADMIN_PASSWORD": PASSWORD}


def test_a_password_counts_as_tried_before_it_is_sent(
    run: Run, failed: type[Exception], tmp_path: pathlib.Path
) -> None:
    """A run that is killed after Dify took it must not leave a password that the next one takes for a stranger's."""
    secrets = tmp_path / "secrets.json"
    secrets.write_text(json.dumps({"ADMIN_PASSWORD": PASSWORD, "ADMIN_PASSWORD_UNTRIED": PASSWORD}))
    found = []

    def look(fake: FakeConsole) -> Reply:
        found.append(json.loads(secrets.read_text()))
        return Reply(500, "<!doctype html>", "text/html")

    with Scripted(FakeConsole(setup_answer=look)).running() as server, pytest.raises(failed):
        run(server, password="", secrets_file=str(secrets))
    assert found == [{"ADMIN_PASSWORD": PASSWORD}]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"password": "short1"}, "password must have 8 characters or more"),
        ({"password": "onlyletters"}, "password must have 8 characters or more"),
        ({"email": "nobody"}, "email 'nobody' is no address"),
        ({"name": "A" * 31}, "name must have 1 to 30 characters"),
        ({"name": ""}, "name must have 1 to 30 characters"),
        ({"init_password": "x" * 31}, "INIT_PASSWORD has 31 characters"),
        ({"init_password": None}, "guarded by INIT_PASSWORD, and none was given"),
        ({"url": "dify.example.com"}, "url must begin with http"),
        ({"version": "v1.12"}, "version: 'v1.12' is not a release tag"),
        ({"deadline": -1}, "deadline must not be negative"),
    ],
)
@pytest.mark.parametrize("check", [True, False])
def test_what_cannot_work_is_refused_before_anything_is_sent(
    run: Run, failed: type[Exception], options: dict[str, Any], words: str, check: bool
) -> None:
    with Scripted(FakeConsole(init_password=INIT)).running() as server:
        with pytest.raises(failed) as caught:
            run(server, check=check, **{"init_password": INIT, **options})
        assert posted(server) == []
    assert words in str(caught.value)
    assert "onlyletters" not in str(caught.value)


def test_a_wrong_init_password_is_said(run: Run, failed: type[Exception]) -> None:
    fake = FakeConsole(init_password=INIT)
    with Scripted(fake).running() as server, pytest.raises(failed) as caught:
        run(server, init_password="another-one")
    assert str(caught.value) == (
        "Dify refuses the INIT_PASSWORD that was given. "
        "It must equal INIT_PASSWORD in the environment of Dify's container api."
    )
    assert fake.owner == ""


def test_another_owner_is_an_error_and_tried_once(run: Run, failed: type[Exception]) -> None:
    with Scripted(FakeConsole(owner="other@example.com")).running() as server:
        with pytest.raises(failed) as caught:
            run(server, deadline=30)
        assert posted(server) == ["login"]
        before = f"{server.url} was set up before, with another owner or password: "
        assert str(caught.value).startswith(f"{before}Dify refuses email and password of {EMAIL}.")
    assert "seventh wrong attempt" in str(caught.value)


def test_an_account_that_is_not_the_owner_is_an_error(run: Run, failed: type[Exception]) -> None:
    with Scripted(FakeConsole(owner=EMAIL, role="editor")).running() as server, pytest.raises(failed) as caught:
        run(server)
    assert f"{EMAIL} is 'editor' in the workspace" in str(caught.value)


def test_a_locked_account_is_not_called_another_owner(run: Run, failed: type[Exception]) -> None:
    answer = error(429, "email_code_login_limit", "Too many incorrect password attempts.")
    with Scripted(FakeConsole(owner=EMAIL, login_answer=answer)).running() as server, pytest.raises(failed) as caught:
        run(server)
    assert str(caught.value).startswith(f"The account {EMAIL} is locked.")


def test_a_setup_whose_answer_was_lost_counts(run: Run) -> None:
    def lost(fake: FakeConsole) -> Reply:
        fake.owner = EMAIL
        return Reply(504, "<html>nginx</html>", "text/html")

    with Scripted(FakeConsole(setup_answer=lost)).running() as server:
        result = run(server)
    assert (result["changed"], result["tenant_id"]) == (True, TENANT)


@pytest.mark.parametrize(("owner", "words"), [(EMAIL, ""), ("other@example.com", "Dify refuses email and password")])
def test_somebody_who_was_faster(run: Run, failed: type[Exception], owner: str, words: str) -> None:
    def taken(fake: FakeConsole) -> Reply:
        fake.owner = owner
        return typed(403, "authorization_error", "Forbidden")

    with Scripted(FakeConsole(setup_answer=taken)).running() as server:
        if not words:
            assert run(server)["tenant_id"] == TENANT
            return
        with pytest.raises(failed, match=words):
            run(server)


def test_a_storage_that_cannot_be_written_is_explained(run: Run, failed: type[Exception]) -> None:
    broken = FakeConsole(setup_answer=lambda _: Reply(500, "<!doctype html>", "text/html"))
    with Scripted(broken).running() as server, pytest.raises(failed) as caught:
        run(server)
    assert "volumes/app/storage must belong to uid 1001" in str(caught.value)


def test_a_setup_that_is_refused_leaves_no_doubt(run: Run, failed: type[Exception]) -> None:
    refused = FakeConsole(setup_answer=lambda _: as_json({"code": "invalid_param", "message": f"no {PASSWORD}"}, 400))
    with Scripted(refused).running() as server, pytest.raises(failed) as caught:
        run(server)
    assert str(caught.value).startswith("Dify refuses POST /setup (HTTP 400): no ***")


def test_nobody_there(run: Run, failed: type[Exception]) -> None:
    server = Scripted(FakeConsole())
    server.server.server_close()
    with pytest.raises(failed, match=r"refuses connections\. See that Dify's containers run"):
        run(server)
