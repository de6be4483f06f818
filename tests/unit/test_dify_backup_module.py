# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module dify_backup: what each state returns, what check mode leaves alone, and what its options refuse."""

from __future__ import annotations

import functools
import importlib
import json
import os
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils._dify_backup import Backup
from ansible_collections.llmops.stack.plugins.module_utils._dify_backup_restore import Restore

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from backups import HEAD, FakeDatabase, FakeProject, databases, installed, rendered

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def home(tmp_path: pathlib.Path) -> pathlib.Path:
    installed(tmp_path / "dify")
    return tmp_path / "dify"


@pytest.fixture
def run(run_module: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """On databases that are dictionaries, a fresh one for every home."""
    module = importlib.import_module("ansible_collections.llmops.stack.plugins.modules.dify_backup")
    known: dict[str, FakeDatabase] = {}

    def database(project: Any) -> Any:
        filled = (pathlib.Path(project.home) / "volumes/db/data/PG_VERSION").exists()
        return known.setdefault(project.home, FakeDatabase(databases() if filled else {}))

    monkeypatch.setattr(module, "Project", lambda home, name: FakeProject(pathlib.Path(home)))
    monkeypatch.setattr(module, "Backup", lambda project, options: Backup(project, options, database(project)))
    monkeypatch.setattr(module, "Restore", lambda project, wish: Restore(project, wish, database))
    return functools.partial(run_module, "dify_backup")


def test_one_is_made(run: Run, home: pathlib.Path) -> None:
    made = run(home=str(home))
    assert made["changed"] and (made["version"], made["head"]) == ("1.12.1", HEAD)
    assert os.path.dirname(made["path"]) == str(home / "backups")
    assert json.loads(pathlib.Path(made["path"], "manifest.json").read_text())["reason"] == "manual"
    assert any("qdrant" in note for note in made["notes"])


def test_check_mode_announces_it(run: Run, home: pathlib.Path) -> None:
    run(home=str(home), keep=0)
    before = sorted(home.rglob("*"))
    said = run(check=True, home=str(home), keep=1, reason="nightly")
    assert said["changed"] and said["path"].endswith("-1.12.1-nightly")
    assert len(said["pruned"]) == 1 and said["files"] == []
    assert sorted(home.rglob("*")) == before


def test_trouble_is_a_failure(run: Run, tmp_path: pathlib.Path, failed: type[Exception]) -> None:
    with pytest.raises(failed, match="cannot be used"):
        run(home=str(tmp_path / "none"))


def test_a_copy_is_verified(run: Run, home: pathlib.Path, failed: type[Exception]) -> None:
    path = run(home=str(home))["path"]
    verified = run(state="verified", path=path)
    assert not verified["changed"] and verified["version"] == "1.12.1"
    os.truncate(os.path.join(path, "dify.dump"), 3)
    with pytest.raises(failed, match=r"dify\.dump must have \d+ bytes, and has 3"):
        run(state="verified", path=path)


def test_one_is_removed(run: Run, home: pathlib.Path, failed: type[Exception]) -> None:
    path = run(home=str(home))["path"]
    wanted = {"home": str(home), "state": "absent", "path": path}
    assert run(check=True, **wanted)["changed"] and os.path.isdir(path)
    assert run(**wanted)["changed"] and os.listdir(os.path.dirname(path)) == []
    assert not run(**wanted)["changed"]
    with pytest.raises(failed, match="is no backup"):
        run(home=str(home), state="absent", path=str(home / "volumes"))
    assert (home / "volumes").is_dir()


def test_one_is_put_back(run: Run, home: pathlib.Path, tmp_path: pathlib.Path, failed: type[Exception]) -> None:
    path = run(home=str(home))["path"]
    other = tmp_path / "other"
    wanted = {"home": str(other), "state": "restored", "path": path, "version": "1.12.1"}
    assert run(check=True, **wanted)["changed"] and not other.exists()
    with pytest.raises(failed, match=r"dify_version is 1\.16\.0"):
        run(check=True, **{**wanted, "version": "1.16.0"})
    assert run(stage="settings", **wanted)["changed"]
    assert not run(stage="settings", **wanted)["changed"]
    rendered(other)
    assert run(stage="data", **wanted)["changed"]
    assert (other / "volumes/app/storage/upload_files/report.pdf").exists()
    again = run(stage="data", **wanted)
    assert not again["changed"] and again["fingerprint"]["accounts"][0] == 1


@pytest.mark.parametrize("state", ["restored", "verified", "absent"])
def test_which_one_must_be_said(run: Run, state: str, failed: type[Exception]) -> None:
    with pytest.raises(failed, match="path"):
        run(state=state)
