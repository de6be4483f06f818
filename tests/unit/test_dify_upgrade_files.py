# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Going back to a release: what files of its backup are put back, and in which order."""

from __future__ import annotations

import io
import os
import pathlib
import tarfile

import pytest
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_files import put_missing
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_rollback import plan_back


@pytest.fixture
def archive(tmp_path: pathlib.Path) -> str:
    path = tmp_path / "storage.tar"
    with tarfile.open(path, "w") as tar:
        for name in (".", "privkeys", "upload_files"):
            one = tarfile.TarInfo(name)
            one.type, one.mode = tarfile.DIRTYPE, 0o750
            tar.addfile(one)
        for name in ("privkeys/a.pem", "upload_files/b.txt", "upload_files/c.txt", "../out", "linked/d"):
            one = tarfile.TarInfo(name)
            one.size, one.mode, one.mtime = 3, 0o640, 1_700_000_000
            tar.addfile(one, io.BytesIO(b"old"))
    return str(path)


def test_only_what_is_missing_is_put_back(archive: str, tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "volumes" / "storage"
    (folder / "upload_files").mkdir(parents=True)
    (folder / "upload_files" / "b.txt").write_text("newer")
    (folder / "linked").symlink_to(tmp_path)
    assert put_missing(archive, str(folder)) == 2
    assert (folder / "privkeys" / "a.pem").read_text() == (folder / "upload_files" / "c.txt").read_text() == "old"
    assert (folder / "upload_files" / "b.txt").read_text() == "newer"
    found = os.stat(folder / "privkeys" / "a.pem")
    assert (found.st_mode & 0o777, found.st_mtime) == (0o640, 1_700_000_000)
    assert sorted(os.listdir(folder / "upload_files")) == ["b.txt", "c.txt"]


def test_nothing_is_written_outside(archive: str, tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "volumes" / "storage"
    folder.mkdir(parents=True)
    (folder / "linked").symlink_to(tmp_path)
    put_missing(archive, str(folder))
    assert not (tmp_path / "volumes" / "out").exists()
    assert not (tmp_path / "d").exists()


def _order(older: str) -> list[str]:
    last = {"from": older, "to": "1.12.1", "kind": "other_head", "phase": "done", "backup": "/b"}
    return [one["id"] for one in plan_back(last, "1.12.1", [older], True, True)["steps"]]


def test_plugins_are_what_the_restored_rows_say_before_anything_starts() -> None:
    order = _order("1.11.4")
    wanted = ["restore_databases", "restore_files", "start_daemon", "start"]
    assert [name for name in order if name in wanted] == wanted


def test_a_release_without_plugins_has_no_daemon_to_start() -> None:
    assert "start_daemon" not in _order("0.15.3")
