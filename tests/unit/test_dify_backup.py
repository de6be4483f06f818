# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups: what is in them, what is told of them, what becomes of one that fails, and which of them go."""

from __future__ import annotations

import ast
import errno
import fcntl
import json
import os
import pathlib
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from ansible_collections.llmops.stack.plugins.module_utils import _dify_backup as backups
from ansible_collections.llmops.stack.plugins.module_utils import _dify_backup_archive as archives
from ansible_collections.llmops.stack.plugins.module_utils import _dify_backup_manifest as manifests
from ansible_collections.llmops.stack.plugins.module_utils import _dify_backup_parts as parts
from ansible_collections.llmops.stack.plugins.module_utils import _dify_backup_program as program
from ansible_collections.llmops.stack.plugins.module_utils._dify_backup import Backup, Options
from ansible_collections.llmops.stack.plugins.module_utils._dify_backup_manifest import (
    BackupError,
    Location,
    expired,
    read,
)
from ansible_collections.llmops.stack.plugins.module_utils._dify_database import DatabaseError
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from backups import ENV, HEAD, TENANT, FakeDatabase, FakeProject, databases, installed

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def home(tmp_path: pathlib.Path) -> pathlib.Path:
    home = tmp_path / "dify"
    installed(home)
    return home


@pytest.fixture
def database() -> FakeDatabase:
    return FakeDatabase(databases())


def backup(home: pathlib.Path, database: FakeDatabase, **options: Any) -> Backup:
    given_options = Options(home=str(home), **{"timeout": 60, **options})
    return Backup(FakeProject(home), given_options, database)  # as much of both as is used


def settle(home: pathlib.Path) -> dict[str, bytes]:
    """Every file below the home but the lock."""
    files = (path for path in home.rglob("*") if path.is_file() and path.name != ".llmops-upgrade.lock")
    return {str(path.relative_to(home)): path.read_bytes() for path in files}


class TestABackup:
    def test_what_is_in_it(self, home: pathlib.Path, database: FakeDatabase) -> None:
        made = backup(home, database).make()
        folder = pathlib.Path(made["path"])
        assert (made["version"], made["head"], made["pruned"]) == ("1.12.1", HEAD, [])
        assert sorted(path.name for path in folder.iterdir()) == [
            "console.json", "dify.dump", "dify_plugin.dump", "docker-compose.override.yaml", "env", "manifest.json",
            "plugin_daemon.tar", "probe.key", "sandbox.tar", "secrets.json", "storage.tar",
        ]  # fmt: skip
        assert made["fingerprint"]["accounts"][0] == 1
        assert (folder / "env").read_text() == ENV
        with tarfile.open(folder / "plugin_daemon.tar") as archive:
            assert "plugin/langgenius/ollama:0.2.0@0c78" in archive.getnames()
            assert not [name for name in archive.getnames() if name.startswith("cwd")]
        with tarfile.open(folder / "storage.tar") as archive:
            assert f"privkeys/{TENANT}/private.pem" in archive.getnames()
            assert "upload_files/report.pdf" in archive.getnames()

    def test_only_root_reads_it(self, home: pathlib.Path, database: FakeDatabase) -> None:
        folder = pathlib.Path(backup(home, database).make()["path"])
        assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
        assert {stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*")} == {0o600}

    def test_the_database_comes_first_and_is_of_one_moment(self, home: pathlib.Path, database: FakeDatabase) -> None:
        backup(home, database).make()
        assert database.done.index("dump dify 00000003-0000001B-1") < database.done.index("closed")
        assert "dump dify_plugin" in database.done

    def test_nothing_else_is_touched(self, home: pathlib.Path, database: FakeDatabase) -> None:
        before = settle(home)
        made = backup(home, database, directory=str(home.parent / "elsewhere")).make()
        assert settle(home) == before
        assert made["path"].startswith(str(home.parent / "elsewhere"))

    def test_without_the_uploaded_files(self, home: pathlib.Path, database: FakeDatabase) -> None:
        folder = pathlib.Path(backup(home, database, storage=False).make()["path"])
        with tarfile.open(folder / "storage.tar") as archive:
            assert f"privkeys/{TENANT}/private.pem" in archive.getnames(), "nothing can be decrypted without them"
            assert not [name for name in archive.getnames() if "upload_files" in name]

    def test_before_there_were_plugins(self, home: pathlib.Path, database: FakeDatabase) -> None:
        database.plugin_name = ""
        shutil.rmtree(home / "volumes/plugin_daemon")
        made = backup(home, database).make()
        assert list(made["databases"]) == ["dify"]
        assert "plugin_daemon.tar" not in [one["name"] for one in made["files"]]

    def test_certificates(self, home: pathlib.Path, database: FakeDatabase) -> None:
        ssl = home / "releases/1.12.1/nginx/ssl"
        ssl.mkdir(parents=True)
        (ssl / ".gitkeep").touch()
        names = [one["name"] for one in backup(home, database).make()["files"]]
        assert "ssl.tar" not in names
        (ssl / "dify.crt").write_text("a certificate")
        folder = pathlib.Path(backup(home, database).make()["path"])
        with tarfile.open(folder / "ssl.tar") as archive:
            assert {".gitkeep", "dify.crt"} <= set(archive.getnames())

    def test_the_manifest_names_every_file_with_its_checksum(self, home: pathlib.Path, database: FakeDatabase) -> None:
        folder = backup(home, database).make()["path"]
        assert manifests.verify(folder, lambda: None)["version"] == "1.12.1"
        names = {one["name"] for one in manifests.read(folder)["files"]}
        assert names == {path.name for path in pathlib.Path(folder).iterdir()} - {"manifest.json"}


class TestWhatIsTold:
    def test_storage_that_is_elsewhere(self, home: pathlib.Path, database: FakeDatabase) -> None:
        (home / "current/.env").write_text(ENV.replace("STORAGE_TYPE=opendal", "STORAGE_TYPE=s3"))
        made = backup(home, database).make()
        assert any("private keys are in s3" in note for note in made["notes"])
        assert "storage.tar" not in [one["name"] for one in made["files"]]

    def test_vectors_that_are_elsewhere(self, home: pathlib.Path, database: FakeDatabase) -> None:
        assert any("in qdrant and stay there" in note for note in backup(home, database).make()["notes"])

    def test_vectors_that_go_with_the_host(self, home: pathlib.Path, database: FakeDatabase) -> None:
        one = backup(home, database)
        one.project.services = ["api", "qdrant"]  # type: ignore[method-assign, assignment]  # a fake has them as a list
        made = one.make()
        assert any("indexed again" in note for note in made["notes"])
        assert manifests.read(made["path"])["vectors"]["lost"] is True

    def test_a_key_that_does_not_fit(
        self, home: pathlib.Path, database: FakeDatabase, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        numbers = {"ours": 1, "theirs": 2, "": None}
        monkeypatch.setattr(backups.keys, "modulus", numbers.get)
        database.databases["dify"]["tenants"] = [[TENANT, "ours"], ["gone", "ours"]]
        (home / f"volumes/app/storage/privkeys/{TENANT}/private.pem").write_text("theirs")
        notes = " ".join(backup(home, database).make()["notes"])
        assert f"belongs to another public key ({TENANT})" in notes and "no private key in the storage (gone)" in notes

    def test_a_key_that_was_made_anew_between_dump_and_archive(
        self, home: pathlib.Path, database: FakeDatabase, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The dump has the old public key, so the new private one does not fit, whatever the database says now."""
        monkeypatch.setattr(backups.keys, "modulus", {"ours": 1, "new": 2, "": None}.get)
        database.databases["dify"]["tenants"] = [[TENANT, "ours"]]
        real = database.dump

        def dump(name: str, *arguments: Any, **kept: Any) -> None:
            real(name, *arguments, **kept)
            database.databases["dify"]["tenants"] = [[TENANT, "new"]]
            (home / f"volumes/app/storage/privkeys/{TENANT}/private.pem").write_text("new")

        monkeypatch.setattr(database, "dump", dump)
        assert "belongs to another public key" in " ".join(backup(home, database).make()["notes"])

    def test_a_file_that_went_meanwhile(
        self, home: pathlib.Path, database: FakeDatabase, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def pack(*arguments: Any) -> archives.Packed:
            (home / "volumes/app/storage/upload_files/report.pdf").unlink(missing_ok=True)
            found = real(*arguments)
            found.changed.append("upload_files/report.pdf")
            return found

        real = archives.pack
        monkeypatch.setattr(archives, "pack", pack)
        assert any("upload_files/report.pdf" in note for note in backup(home, database).make()["notes"])


class TestTrouble:
    """Whatever happens, no half a backup is left and nothing else is touched."""

    @pytest.fixture(autouse=True)
    def nothing_is_left(self, home: pathlib.Path) -> Iterator[None]:
        before = settle(home)
        yield
        assert settle(home) == before
        assert not list((home / "backups").glob("*"))

    def test_the_disk_fills(self, home: pathlib.Path, database: FakeDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_arguments: Any) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "storage.tar")

        monkeypatch.setattr(archives, "pack", full)
        with pytest.raises(BackupError, match=r"is full .*Make room.*dify_backup_keep.*dify_backup_dir"):
            backup(home, database).make()

    def test_the_disk_fills_while_the_database_is_dumped(self, home: pathlib.Path, database: FakeDatabase) -> None:
        database.trouble["dump"] = DatabaseError("dify.dump cannot be written: No space left on device")
        with pytest.raises(BackupError, match=r"is full .*Make room"):
            backup(home, database).make()

    def test_there_is_no_room(
        self, home: pathlib.Path, database: FakeDatabase, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        usage = shutil.disk_usage(home)._replace(free=300 * 1024 * 1024)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
        database.size_bytes = lambda name: 100 * 1024 * 1024  # 100 MB of dumps at most
        with pytest.raises(
            BackupError, match=r"300 MB free, and a backup needs about 101 MB, and 256 MB must stay free"
        ):
            backup(home, database).make()
        assert not [one for one in database.done if one.startswith("dump")]

    def test_the_database_does_not_answer(self, home: pathlib.Path, database: FakeDatabase) -> None:
        database.trouble["ping"] = DatabaseError("password authentication failed", "28P01")
        with pytest.raises(BackupError, match=r"could not be backed up: password authentication failed\. .* removed"):
            backup(home, database).make()

    def test_a_dump_that_is_not_whole(self, home: pathlib.Path, database: FakeDatabase) -> None:
        database.trouble["check_dump"] = DatabaseError("pg_restore: could not read from input file: end of file")
        with pytest.raises(BackupError, match="end of file"):
            backup(home, database).make()

    def test_a_dump_without_all_tables(self, home: pathlib.Path, database: FakeDatabase) -> None:
        database.lost_tables = 1
        with pytest.raises(BackupError, match="must hold 4 tables, and holds 3"):
            backup(home, database).make()

    def test_what_is_read_back_is_another(
        self, home: pathlib.Path, database: FakeDatabase, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def write(folder: str, manifest: dict[str, Any]) -> None:
            real(folder, manifest)
            with open(os.path.join(folder, "storage.tar"), "r+b") as file:
                file.seek(700)
                file.write(b"!")

        real = manifests.write
        monkeypatch.setattr(manifests, "write", write)
        with pytest.raises(BackupError, match=r"storage\.tar is damaged"):
            backup(home, database).make()

    def test_the_time_is_over(self, home: pathlib.Path, database: FakeDatabase) -> None:
        with pytest.raises(BackupError, match="not done within 0 s"):
            backup(home, database, timeout=0).make()

    def test_there_is_no_dify(self, home: pathlib.Path, database: FakeDatabase) -> None:
        (home / "current").unlink()
        try:
            with pytest.raises(BackupError, match="no link current"):
                backup(home, database).make()
        finally:
            (home / "current").symlink_to("releases/1.12.1")

    def test_a_database_that_dify_never_used(self, home: pathlib.Path, database: FakeDatabase) -> None:
        database.databases["dify"]["alembic_version"] = [""]
        with pytest.raises(BackupError, match="no revision"):
            backup(home, database).make()

    def test_a_reason_that_is_no_word(self, home: pathlib.Path, database: FakeDatabase) -> None:
        with pytest.raises(BackupError, match="one word"):
            backup(home, database, reason="../../etc").make()

    def test_an_upgrade_that_was_cut_off(self, home: pathlib.Path, database: FakeDatabase) -> None:
        journal = home / ".llmops-upgrade.json"
        journal.write_text(json.dumps({"phase": "running", "from": "1.11.4", "to": "1.12.1"}))
        try:
            with pytest.raises(BackupError, match=r"upgrade from 1\.11\.4 to 1\.12\.1 was interrupted.*Run site\.yml"):
                backup(home, database).make()
        finally:
            journal.unlink()

    def test_another_one_runs(self, home: pathlib.Path, database: FakeDatabase) -> None:
        with open(home / ".llmops-upgrade.lock", "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            with pytest.raises(BackupError, match="did not end within"):
                backup(home, database, timeout=0.1).make()


class TestKeeping:
    def made(self, home: pathlib.Path, *names: str) -> Location:
        for name in names:
            folder = home / "backups" / name
            folder.mkdir(parents=True)
            manifests.write(str(folder), {"format": 1, "files": []})
        return Location(str(home / "backups"))

    def test_the_oldest_go_once_there_is_a_new_one(self, home: pathlib.Path, database: FakeDatabase) -> None:
        self.made(home, "20260101T000000Z-1.12.1-manual", "20260102T000000Z-1.12.1-scheduled")
        made = backup(home, database, keep=2).make()
        assert made["pruned"] == [str(home / "backups/20260101T000000Z-1.12.1-manual")]
        left = sorted(path.name for path in (home / "backups").iterdir())
        assert left == ["20260102T000000Z-1.12.1-scheduled", os.path.basename(made["path"])]

    def test_the_way_back_stays(self, home: pathlib.Path, database: FakeDatabase) -> None:
        """An upgrade to 1.14.1 that failed came later, so the newest backup of an upgrade is not the one."""
        names = [f"2026010{day}T000000Z-1.12.1-upgrade" for day in (1, 2, 3)]
        self.made(home, *names)
        arrived = {"phase": "done", "from": "1.11.4", "backup": str(home / "backups" / names[0])}
        failed = {"phase": "rolled_back", "backup": str(home / "backups" / names[1]), "previous": arrived}
        (home / ".llmops-upgrade.json").write_text(json.dumps(failed))
        made = backup(home, database, keep=1).make()
        assert made["pruned"] == [str(home / "backups" / names[1])]
        assert (home / "backups" / names[0]).is_dir()

    @pytest.mark.parametrize("written", ["{home}/backups/", "{home}//backups", "{home}/link", "{home}/../dify/backups"])
    def test_the_way_back_stays_however_its_folder_is_written(
        self, home: pathlib.Path, database: FakeDatabase, written: str
    ) -> None:
        way_back = "20260101T000000Z-1.11.4-upgrade"
        self.made(home, way_back, "20260102T000000Z-1.12.1-upgrade")
        (home / "link").symlink_to("backups")
        noted = os.path.join(written.format(home=home), way_back)
        (home / ".llmops-upgrade.json").write_text(json.dumps({"phase": "done", "backup": noted}))
        backup(home, database, keep=1).make()
        backup(home, database, keep=1, directory=written.format(home=home)).make()
        assert (home / "backups" / way_back).is_dir()

    def test_those_without_uploaded_files_do_not_push_out_the_last_whole_one(
        self, home: pathlib.Path, database: FakeDatabase
    ) -> None:
        whole = backup(home, database, keep=1).make()["path"]
        for _count in range(2):
            backup(home, database, keep=1, storage=False).make()
        assert os.path.isdir(whole) and len(list((home / "backups").iterdir())) == 2
        backup(home, database, keep=1).make()
        assert len(list((home / "backups").iterdir())) == 1

    def test_what_is_somebody_elses_stays(self, home: pathlib.Path, database: FakeDatabase) -> None:
        self.made(home, "20260101T000000Z-1.12.1-manual", "before-the-move", "20260101T000000Z")
        (home / "backups" / "20251231T000000Z-1.12.1-manual").mkdir()  # has no manifest
        assert backup(home, database, keep=1).make()["pruned"] == [str(home / "backups/20260101T000000Z-1.12.1-manual")]

    def test_what_killed_runs_have_left_goes(self, home: pathlib.Path, database: FakeDatabase) -> None:
        self.made(home, "20260101T000000Z-1.12.1-manual.partial", "notes.partial")
        backup(home, database).make()
        left = {path.name for path in (home / "backups").iterdir() if path.name.endswith(".partial")}
        assert left == {"notes.partial"}

    def test_a_removal_that_is_cut_off(self, home: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
        location = self.made(home, "20260101T000000Z-1.12.1-manual")

        def killed(path: str) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            location.remove("20260101T000000Z-1.12.1-manual")
        assert location.backups() == []

    @given(
        st.lists(
            st.builds(
                "{}Z-{}-{}".format,
                st.integers(0, 235959).map(lambda number: f"20260101T{number:06d}"),
                st.sampled_from(["1.12.1", "1.9.0-beta1", "0.15.3"]),
                st.sampled_from(["manual", "scheduled", "upgrade"]),
            ),
            unique=True,
        ),
        st.integers(0, 5),
    )
    def test_any_number_of_them(self, names: list[str], keep: int) -> None:
        gone = expired(names, keep)
        if not keep:
            assert gone == []
            return
        for upgrades in (True, False):
            kind = sorted((name for name in names if name.endswith("-upgrade") == upgrades), reverse=True)
            assert [name for name in kind if name not in gone] == kind[:keep]
        assert set(names[:1]).isdisjoint(expired(names, keep, names[:1]))


class TestVerifying:
    @pytest.fixture
    def folder(self, home: pathlib.Path, database: FakeDatabase) -> pathlib.Path:
        return pathlib.Path(backup(home, database).make()["path"])

    def refused(self, folder: pathlib.Path) -> str:
        with pytest.raises(BackupError) as caught:
            manifests.verify(str(folder), lambda: None)
        return str(caught.value)

    def test_a_flipped_byte_anywhere(self, folder: pathlib.Path) -> None:
        for path in sorted(folder.iterdir()):
            content = path.read_bytes()
            for at in {0, len(content) // 2, len(content) - 1}:
                path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
                assert path.name in self.refused(folder)
            path.write_bytes(content)
        manifests.verify(str(folder), lambda: None)

    def test_a_missing_file(self, folder: pathlib.Path) -> None:
        (folder / "dify.dump").unlink()
        assert "dify.dump is missing" in self.refused(folder)

    def test_a_cut_file(self, folder: pathlib.Path) -> None:
        os.truncate(folder / "storage.tar", 1024)
        assert "and has 1024" in self.refused(folder)

    def test_no_manifest(self, folder: pathlib.Path) -> None:
        (folder / "manifest.json").unlink()
        assert "has no manifest.json" in self.refused(folder)
        assert "no such folder" in self.refused(folder / "nowhere")

    def test_a_newer_format(self, folder: pathlib.Path) -> None:
        manifests.write(str(folder), {**manifests.read(str(folder)), "format": 2})
        assert "has the format 2" in self.refused(folder)

    def test_a_name_that_leads_elsewhere(self, folder: pathlib.Path) -> None:
        manifest = manifests.read(str(folder))
        manifest["files"].append({"name": "../secrets.json", "bytes": 1, "sha256": ""})
        manifests.write(str(folder), manifest)
        assert "no file of a backup" in self.refused(folder)


class TestParts:
    def skipped(self, **settings: str) -> tuple[str, ...]:
        return next(one for one in parts.parts(settings, True) if one.name == "plugin_daemon").skip

    def test_where_plugins_are_unpacked(self) -> None:
        assert self.skipped() == self.skipped(PLUGIN_WORKING_PATH="/app/storage/cwd") == ("cwd",)
        assert self.skipped(PLUGIN_WORKING_PATH="/app/storage/unpacked/here") == ("unpacked/here",)
        assert self.skipped(PLUGIN_WORKING_PATH="/tmp/plugin") == (), "plugin/ holds the packages"

    @pytest.mark.parametrize(
        ("settings", "where"),
        [
            ({"STORAGE_TYPE": "s3"}, "s3"),
            ({"STORAGE_TYPE": "opendal", "OPENDAL_SCHEME": "s3"}, "opendal/s3"),
            ({"STORAGE_TYPE": "opendal", "OPENDAL_FS_ROOT": "/mnt/nfs"}, "/mnt/nfs"),
            ({"STORAGE_TYPE": "local"}, ""),
            ({"STORAGE_TYPE": "opendal", "OPENDAL_FS_ROOT": "storage/"}, ""),
            ({}, ""),
        ],
    )
    def test_where_files_are(self, settings: dict[str, str], where: str) -> None:
        (storage, *_rest) = parts.parts(settings, True)
        assert where in storage.absent and bool(storage.absent) == bool(where)


class TestTheTimersProgram:
    def test_its_files_are_all_that_it_imports(self) -> None:
        """Without the collection beside it, on a bare Python, it must find everything."""
        folder = ROOT / "plugins/module_utils"
        found: set[str] = set()
        waiting = ["_dify_backup_program"]
        while waiting:
            name = waiting.pop()
            if name in found:
                continue
            found.add(name)
            for node in ast.walk(ast.parse((folder / f"{name}.py").read_text())):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ansible_collections"):
                    last = str(node.module).rsplit(".", 1)[1]
                    waiting += [one.name for one in node.names] if last == "module_utils" else [last]
        variables = yaml.safe_load((ROOT / "roles/dify/vars/main.yml").read_text())
        assert variables["__dify_backup_program"] == sorted(f"{name}.py" for name in found)

    def test_it_starts_where_there_is_nothing_else(self, tmp_path: pathlib.Path) -> None:
        variables = yaml.safe_load((ROOT / "roles/dify/vars/main.yml").read_text())
        target = tmp_path / variables["__dify_library"]
        target.mkdir(parents=True)
        for name in variables["__dify_backup_program"]:
            shutil.copy(ROOT / "plugins/module_utils" / name, target / name)
        module = variables["__dify_library"].replace("/", ".") + "_dify_backup_program"
        done = subprocess.run(
            [sys.executable, "-S", "-B", "-m", module, "--home", str(tmp_path / "none")],
            env={"PYTHONPATH": str(tmp_path), "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1 and "was not backed up" in done.stderr and "Traceback" not in done.stderr

    def test_its_words(
        self, home: pathlib.Path, database: FakeDatabase, monkeypatch: pytest.MonkeyPatch, capsys: Any
    ) -> None:
        monkeypatch.setattr(program, "Project", lambda home, project: FakeProject(pathlib.Path(home)))
        monkeypatch.setattr(program, "Backup", lambda project, options: Backup(project, options, database))
        monkeypatch.setattr(signal, "signal", lambda number, handler: None)
        assert program.main(["--home", str(home), "--keep", "1", "--without-storage"]) == 0
        said = capsys.readouterr()
        assert "Dify 1.12.1 is backed up to" in said.out and "-scheduled" in said.out and "qdrant" in said.err
        database.trouble["ping"] = DatabaseError("the container of db_postgres is exited")
        assert program.main(["--home", str(home)]) == 1
        assert "the container of db_postgres is exited" in capsys.readouterr().err

    def test_systemd_ends_it(
        self, home: pathlib.Path, database: FakeDatabase, monkeypatch: pytest.MonkeyPatch, capsys: Any
    ) -> None:
        monkeypatch.setattr(program, "Project", lambda home, project: FakeProject(pathlib.Path(home)))
        monkeypatch.setattr(program, "Backup", lambda project, options: Backup(project, options, database))
        before = signal.getsignal(signal.SIGTERM)
        real = archives.pack

        def pack(*arguments: Any) -> archives.Packed:
            os.kill(os.getpid(), signal.SIGTERM)
            return real(*arguments)

        monkeypatch.setattr(archives, "pack", pack)
        try:
            assert program.main(["--home", str(home)]) == 1
        finally:
            signal.signal(signal.SIGTERM, before)
        assert "told to end" in capsys.readouterr().err
        assert list((home / "backups").iterdir()) == []


def test_who_mistypes_a_folder_is_told_what_there_is(tmp_path: pathlib.Path) -> None:
    name = "20261126T030000Z-1.12.1-upgrade"
    (tmp_path / name).mkdir()
    (tmp_path / name / "manifest.json").write_text("{}")
    for wrong in (tmp_path / "mistyped", tmp_path):
        with pytest.raises(BackupError, match=f"In {tmp_path} are {name}"):
            read(str(wrong))
