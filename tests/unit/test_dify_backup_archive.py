# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives of folders that are in use, of names that no shell likes, and of what an attacker would put into one."""

from __future__ import annotations

import hashlib
import io
import os
import pathlib
import shutil
import socket
import stat
import subprocess
import tarfile
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils import _dify_backup_archive as archives
from ansible_collections.llmops.stack.plugins.module_utils._dify_backup_archive import ArchiveError, pack, scan, unpack

Fill = Callable[[pathlib.Path], pathlib.Path]


def nothing() -> None:
    """No time limit."""


def state(folder: pathlib.Path) -> dict[str, Any]:
    """Everything about a folder that a restore must bring back."""
    found: dict[str, Any] = {}
    for path in [folder, *folder.rglob("*")]:
        seen = path.lstat()
        content: Any = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        time = None if path.is_symlink() else seen.st_mtime
        found[str(path.relative_to(folder))] = (stat.S_IMODE(seen.st_mode), seen.st_uid, seen.st_gid, time, content)
    return found


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    top = tmp_path / "storage"
    inside = top / "privkeys" / "3b4a9a7f"
    inside.mkdir(parents=True)
    (inside / "private.pem").write_text("key\n")
    (top / "upload_files").mkdir(mode=0o750)
    (top / "upload_files" / "年度报告 2026:final@v1.pdf").write_bytes(os.urandom(300_000))
    (top / "upload_files" / ("long" * 60)).write_bytes(b"")
    os.symlink("../privkeys", top / "upload_files" / "link")
    os.symlink("/nowhere/at/all", top / "dangling")
    (top / "empty").mkdir()
    (top / "run.sh").write_text("#!/bin/sh\n")
    (top / "run.sh").chmod(0o755)
    if os.geteuid() == 0:
        os.chown(inside / "private.pem", 1001, 1002)
        os.chown(inside, 1001, 1001)
    os.utime(top / "run.sh", (1_600_000_000, 1_600_000_000))
    os.utime(inside, (1_500_000_000, 1_500_000_000))
    return top


class TestRoundTrip:
    def test_all_of_it_comes_back(self, folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
        packed = pack(str(folder), str(tmp_path / "a.tar"), nothing)
        before = state(folder)
        assert unpack(str(tmp_path / "a.tar"), str(tmp_path / "back"), nothing) == packed.files == 4
        assert state(tmp_path / "back") == before
        assert not packed.changed and not packed.left_out

    def test_the_archive_is_private_and_its_checksum_is_right(
        self, folder: pathlib.Path, tmp_path: pathlib.Path
    ) -> None:
        path = tmp_path / "a.tar"
        packed = pack(str(folder), str(path), nothing)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert packed.bytes == path.stat().st_size
        assert packed.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()

    def test_any_tar_reads_it(self, folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
        pack(str(folder), str(tmp_path / "a.tar"), nothing)
        other = tmp_path / "other"
        other.mkdir()
        command = ["tar", "-xpf", str(tmp_path / "a.tar"), "-C", str(other), "--numeric-owner"]
        subprocess.run(command, check=True)
        assert state(other) == state(folder)

    def test_into_a_folder_that_is_there_and_empty(self, folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
        pack(str(folder), str(tmp_path / "a.tar"), nothing)
        (tmp_path / "back").mkdir(mode=0o700)
        unpack(str(tmp_path / "a.tar"), str(tmp_path / "back"), nothing)
        assert state(tmp_path / "back") == state(folder)

    def test_two_names_of_one_file(self, folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
        os.link(folder / "run.sh", folder / "upload_files" / "same.sh")
        packed = pack(str(folder), str(tmp_path / "a.tar"), nothing)
        unpack(str(tmp_path / "a.tar"), str(tmp_path / "back"), nothing)
        assert state(tmp_path / "back") == state(folder)
        assert scan(str(tmp_path / "a.tar"), nothing)[0] == packed.files == 5

    def test_parts_that_are_left_out(self, folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
        pack(str(folder), str(tmp_path / "a.tar"), nothing, skip=["upload_files", "privkeys/none"])
        pack(str(folder), str(tmp_path / "b.tar"), nothing, only=["privkeys"])
        with tarfile.open(tmp_path / "a.tar") as a, tarfile.open(tmp_path / "b.tar") as b:
            assert sorted(a.getnames()) == [
                ".", "dangling", "empty", "privkeys", "privkeys/3b4a9a7f", "privkeys/3b4a9a7f/private.pem", "run.sh",
            ]  # fmt: skip
            assert sorted(b.getnames()) == [".", "privkeys", "privkeys/3b4a9a7f", "privkeys/3b4a9a7f/private.pem"]


class TestAFolderInUse:
    def test_a_file_that_goes(
        self, folder: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = archives._add

        def add(archive: tarfile.TarFile, top: str, name: str, found: archives.Packed) -> None:
            if name == "run.sh":
                (folder / "run.sh").unlink()
            if name == "upload_files/link":
                (folder / "upload_files" / ("long" * 60)).unlink()
            real(archive, top, name, found)

        monkeypatch.setattr(archives, "_add", add)
        packed = pack(str(folder), str(tmp_path / "a.tar"), nothing)
        assert packed.changed == ["run.sh", "upload_files/" + "long" * 60]
        assert scan(str(tmp_path / "a.tar"), nothing)[0] == packed.files == 2

    def test_a_file_that_shrinks_while_it_is_read(
        self, folder: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Shrinking(archives._Padded):
            def read(self, size: int = -1) -> bytes:
                os.truncate(folder / "run.sh", 0)
                return super().read(size)

        monkeypatch.setattr(archives, "_Padded", Shrinking)
        packed = pack(str(folder), str(tmp_path / "a.tar"), nothing, skip=["upload_files", "privkeys"])
        assert packed.changed == ["run.sh"]
        assert scan(str(tmp_path / "a.tar"), nothing, lambda name: True)[1] == {"run.sh": b"\0" * 10}

    def test_a_socket_and_a_pipe(
        self, folder: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        os.mkfifo(folder / "pipe")
        monkeypatch.chdir(folder)  # the name of a socket may not be long
        with socket.socket(socket.AF_UNIX) as one:
            one.bind("sock")
            packed = pack(str(folder), str(tmp_path / "a.tar"), nothing)
        assert packed.left_out == ["pipe", "sock"]

    def test_the_time_is_over(self, folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
        def late() -> None:
            raise TimeoutError

        with pytest.raises(TimeoutError):
            pack(str(folder), str(tmp_path / "a.tar"), late)


class TestDamage:
    @pytest.mark.parametrize("left", [0.0, 0.3, 0.6, 0.9])
    def test_a_cut_archive(self, folder: pathlib.Path, tmp_path: pathlib.Path, left: float) -> None:
        path = tmp_path / "a.tar"
        packed = pack(str(folder), str(path), nothing)
        os.truncate(path, int(packed.bytes * left))
        with pytest.raises(ArchiveError, match="truncated or damaged"):
            scan(str(path), nothing)
        shutil.rmtree(tmp_path / "back", ignore_errors=True)
        with pytest.raises(ArchiveError, match="truncated or damaged"):
            unpack(str(path), str(tmp_path / "back"), nothing)

    def test_no_archive(self, tmp_path: pathlib.Path) -> None:
        (tmp_path / "a.tar").write_bytes(os.urandom(20_000))
        with pytest.raises(ArchiveError, match="truncated or damaged"):
            scan(str(tmp_path / "a.tar"), nothing)


def _hostile(path: pathlib.Path, *members: tuple[str, bytes, str]) -> str:
    with tarfile.open(path, "w") as archive:
        for name, kind, link in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.mode = kind, link, 0o6777
            info.size = 4 if kind == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(b"evil"))
    return str(path)


FILE, FOLDER, LINK, HARD = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


@pytest.mark.parametrize(
    "members",
    [
        [("/etc/passwd", FILE, "")],
        [("../outside", FILE, "")],
        [("a", FOLDER, ""), ("a/../../outside", FILE, "")],
        [("a", LINK, ".."), ("a/outside", FILE, "")],
        [("a", HARD, "/etc/passwd")],
        [("a", HARD, "../outside")],
        [("a", HARD, "later"), ("later", FILE, "")],
        [("device", tarfile.CHRTYPE, "")],
        [("pipe", tarfile.FIFOTYPE, "")],
        [("a/b", FILE, "")],
    ],
)
def test_hostile_archives(tmp_path: pathlib.Path, members: list[tuple[str, bytes, str]]) -> None:
    path = _hostile(tmp_path / "a.tar", *members)
    with pytest.raises(ArchiveError):
        unpack(path, str(tmp_path / "below" / "back"), nothing)
    assert not (tmp_path / "below" / "outside").exists() and not (tmp_path / "outside").exists()


def test_nobody_gets_another_ones_rights(tmp_path: pathlib.Path) -> None:
    unpack(_hostile(tmp_path / "a.tar", ("tool", FILE, "")), str(tmp_path / "back"), nothing)
    assert stat.S_IMODE((tmp_path / "back" / "tool").stat().st_mode) == 0o777
