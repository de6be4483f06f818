# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""dify_setup on a fresh Dify of each release, guarded by INIT_PASSWORD: check, run, check, run, and what must fail."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import console_pair
import pytest
from console_pair import EMAIL, INIT_PASSWORD, PASSWORD, Pair
from console_run import RunModule, runner

HTTPS = {"CONSOLE_WEB_URL": "https://dify.example.com", "CONSOLE_API_URL": "https://dify.example.com"}


@pytest.fixture(params=console_pair.DAEMONS)
def pair(request: pytest.FixtureRequest, postgres: Any, redis_server: Any, tmp_path: Path) -> Iterator[Pair]:
    environment = {"INIT_PASSWORD": INIT_PASSWORD, **(HTTPS if request.param == "1.16.0" else {})}
    with console_pair.running(request.param, postgres, redis_server, tmp_path, 57, **environment) as running:
        yield running


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> RunModule:
    return runner(capsys)


def test_check_run_check_run_and_what_must_not_work(pair: Pair, run: RunModule, tmp_path: Path) -> None:
    secrets, session = tmp_path / "secrets.json", tmp_path / "session.json"
    secrets.write_text(json.dumps({"INIT_PASSWORD": INIT_PASSWORD}))
    owner = {"url": pair.url, "email": EMAIL, "password": PASSWORD, "session_file": str(session)}
    said = []

    def setup(check: bool = False, **options: Any) -> dict[str, Any]:
        result = run("dify_setup", check, **{**owner, **options})
        said.append(json.dumps(result))
        return result

    unguarded = setup()
    assert (unguarded["failed"], unguarded["reason"]) == (True, "init_required")
    wrong = setup(init_password="wrong-one")
    assert (wrong["failed"], wrong["reason"]) == (True, "wrong_init_password")

    would = setup(check=True, secrets_file=str(secrets))
    assert (would["changed"], would["step"], would["version"]) == (True, "not_started", pair.release)
    assert not session.exists()
    did = setup(secrets_file=str(secrets), name="Ada")
    assert (did["changed"], did["step"]) == (True, "finished")
    assert len(did["tenant_id"]) == 36
    for check in (True, False):
        again = setup(check=check)
        assert (again["changed"], again["tenant_id"]) == (False, did["tenant_id"])
    tenants = pair.instance.postgres.query("SELECT name FROM tenants", database=pair.instance.database)
    assert tenants == [("Ada's Workspace",)]

    others: list[dict[str, Any]] = [{"email": "other@example.com"}, {"password": "An0ther-one"}]
    for other in others:
        refused = setup(**other)
        assert refused["failed"] is True
        assert "was set up before, with another owner or password" in refused["msg"]

    console = pair.console(session_file=str(session))
    assert console.tenant_id == did["tenant_id"]
    assert console.logged_in is False
    tokens = [console._bearer, *console._cookies.values()]
    assert not any(one and one in text for one in [PASSWORD, INIT_PASSWORD, "An0ther-one", *tokens] for text in said)


@pytest.mark.parametrize("pair", ["0.15.3", "1.16.0"], indirect=True)
def test_the_password_that_was_made_for_the_owner(pair: Pair, run: RunModule, tmp_path: Path) -> None:
    secrets, session = tmp_path / "secrets.json", tmp_path / "run" / "session.json"
    secrets.write_text(json.dumps({"INIT_PASSWORD": INIT_PASSWORD}))
    options = {"url": pair.url, "email": EMAIL, "secrets_file": str(secrets), "session_file": str(session)}
    assert run("dify_setup", check=True, **options)["step"] == "not_started"
    assert "holds no ADMIN_PASSWORD" in run("dify_setup", **options)["msg"]
    secrets.write_text(json.dumps({"INIT_PASSWORD": INIT_PASSWORD, "ADMIN_PASSWORD": PASSWORD}))
    results = [run("dify_setup", check, **options) for check in (True, False, True, False)]
    assert [one["changed"] for one in results] == [True, True, False, False]
    assert session.parent.stat().st_mode & 0o777 == 0o700
    # The next modules need no login and no password of their own.
    session_only = pair.console(session_file=str(session))
    assert session_only.workspace()["role"] == "owner" and not session_only.logged_in
    for module, wish in (("dify_model", "models"), ("dify_app", "apps")):
        nothing: dict[str, Any] = {**options, wish: []}
        assert not run(module, **nothing).get("failed")
        none = {**nothing, "secrets_file": str(tmp_path / "none.json")}
        assert "none.json holds no ADMIN_PASSWORD" in run(module, **none)["msg"]
    assert not any(PASSWORD in json.dumps(one) for one in results)


@pytest.mark.parametrize("pair", ["0.15.3", "1.16.0"], indirect=True)
def test_the_seventh_wrong_password_is_told_from_the_others(pair: Pair, run: RunModule) -> None:
    owner = {"url": pair.url, "email": EMAIL, "password": PASSWORD}
    assert run("dify_setup", **owner, init_password=INIT_PASSWORD)["changed"] is True
    reasons = [run("dify_setup", **{**owner, "password": "An0ther-one"})["reason"] for _ in range(7)]
    assert reasons == ["wrong_password"] * 6 + ["locked"]
    locked = run("dify_setup", **owner)
    assert locked["reason"] == "locked"
    assert "another owner" not in locked["msg"]
    assert "login_error_rate_limit" in locked["msg"]


@pytest.mark.parametrize("pair", ["1.12.1"], indirect=True)
def test_the_log_of_ansible_holds_no_secret(pair: Pair, tmp_path: Path) -> None:
    session, playbook, file = (tmp_path / name for name in ("session.json", "playbook.yml", "secrets.json"))
    file.write_text(json.dumps({"INIT_PASSWORD": INIT_PASSWORD, "ADMIN_PASSWORD": PASSWORD}))
    options = {"url": pair.url, "email": EMAIL}
    given = {"password": PASSWORD, "init_password": INIT_PASSWORD, "session_file": str(session)}
    tasks = [
        {"name": "Owner", "llmops.stack.dify_setup": {**options, **given}},
        {"name": "Again", "llmops.stack.dify_setup": {**options, "secrets_file": str(file)}},
    ]
    play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": tasks}
    playbook.write_text(json.dumps([{**play, "vars": {"ansible_python_interpreter": sys.executable}}]))
    done = subprocess.run(
        [sys.executable, "-m", "ansible", "playbook", "-i", "localhost,", "-vvv", "--diff", str(playbook)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    log = done.stdout + done.stderr
    assert done.returncode == 0, log
    assert "tenant_id" in log
    kept = json.loads(session.read_text())["session"]
    secrets = [PASSWORD, INIT_PASSWORD, *kept["cookies"].values()]
    assert len(secrets) == 4  # an access and a CSRF token
    assert [secret for secret in secrets if secret in log] == []
