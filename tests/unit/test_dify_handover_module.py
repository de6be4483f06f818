# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module itself: where there is nothing to hand over, in check mode, and when something is wrong."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_context import Context, StepError
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_journal import Journal, locked
from ansible_collections.llmops.stack.plugins.modules import dify_handover
from ansible_collections.llmops.stack.tests.unit.servers.docker import SECRET, FakeDocker

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "dify"
    (folder / "releases" / "1.12.1").mkdir(parents=True)
    (folder / "current").symlink_to("releases/1.12.1")
    (folder / "secrets.json").write_text(json.dumps({"PLUGIN_DAEMON_KEY": SECRET}))
    return folder


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDocker:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return FakeDocker(tmp_path, "a-workspace")


@pytest.fixture
def run(run_module: Run, home: Path) -> Run:
    def call(check: bool = False, **given: Any) -> dict[str, Any]:
        secrets = str(home / "secrets.json")
        return run_module("dify_handover", check=check, home=str(home), secrets_file=secrets, **given)

    return call


def test_a_host_without_dify(run: Run, docker: FakeDocker, home: Path) -> None:
    (home / "current").unlink()
    found = run()
    assert (found["changed"], found["done"], found["services"]) == (False, False, [])


@pytest.mark.parametrize("service", ["api", "nginx"])
def test_nobody_is_served_so_everything_is_started_at_once(run: Run, docker: FakeDocker, service: str) -> None:
    docker.containers[service]["State"]["Status"] = "exited"
    docker.write()
    found = run()
    assert (found["changed"], found["done"], found["services"]) == (False, True, [])
    assert [call for call in docker.calls() if " up " in call and call.endswith("--remove-orphans")]


def test_after_an_upgrade_that_was_cut_off_nothing_is_started(
    run: Run, docker: FakeDocker, home: Path, failed: type[Exception]
) -> None:
    Journal.begin(str(home), **{"from": "1.11.4", "to": "1.12.1"})
    with pytest.raises(failed, match=r"from 1\.11\.4 to 1\.12\.1 was cut off"):
        run()
    assert not (docker.folder / "calls").exists()


def test_another_release_than_the_one_that_was_looked_at(run: Run, docker: FakeDocker, failed: type[Exception]) -> None:
    with pytest.raises(failed, match=r"1\.12\.1 is the current release .* expected was 1\.11\.4"):
        run(version="1.11.4")
    assert not (docker.folder / "calls").exists()


def test_somebody_who_upgrades_is_waited_for_but_not_for_ever(
    run: Run, docker: FakeDocker, home: Path, failed: type[Exception]
) -> None:
    with locked(str(home)), pytest.raises(failed, match="still runs after 1 s"):
        run(timeout=1)
    assert not (docker.folder / "calls").exists()


def test_check_mode_tells_and_touches_nothing(run: Run, docker: FakeDocker) -> None:
    docker.services = [
        " DRY-RUN MODE -  Container dify-api-1  Recreate",
        " DRY-RUN MODE -  Container dify-web-1  Running",
    ]
    docker.write()
    found = run(check=True)
    assert (found["changed"], found["done"], found["services"]) == (True, False, ["api"])
    assert all("--dry-run" in call for call in docker.calls() if call.startswith("compose"))


def test_compose_that_does_not_answer(run: Run, docker: FakeDocker, failed: type[Exception]) -> None:
    docker.broken("Cannot connect to the Docker daemon")
    with pytest.raises(failed, match="Cannot connect to the Docker daemon"):
        run()


def test_what_was_done(run: Run, docker: FakeDocker, monkeypatch: pytest.MonkeyPatch) -> None:
    def handover(ctx: Context) -> list[str]:
        ctx.log(f"replaced with {SECRET}")
        return ["api"]

    monkeypatch.setattr(dify_handover, "handover", handover)
    found = run()
    assert (found["changed"], found["done"], found["services"]) == (True, True, ["api"])
    assert SECRET not in str(found)


def test_what_went_wrong(
    run: Run, docker: FakeDocker, failed: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def handover(ctx: Context) -> list[str]:
        raise StepError("The new api did not get well.", "Look at its log.")

    monkeypatch.setattr(dify_handover, "handover", handover)
    with pytest.raises(failed, match=r"did not get well\. Look at its log"):
        run()
