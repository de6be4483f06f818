# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A backup put back: onto an empty host, onto what an interrupted restore has left, and onto nothing else."""

from __future__ import annotations

import json
import pathlib
import shutil
import stat
import sys
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils import _dify_backup_archive as archives
from ansible_collections.llmops.stack.plugins.module_utils import _dify_backup_manifest as manifests
from ansible_collections.llmops.stack.plugins.module_utils import _dify_backup_restore as restores
from ansible_collections.llmops.stack.plugins.module_utils._dify_backup import Backup, Options
from ansible_collections.llmops.stack.plugins.module_utils._dify_backup_manifest import BackupError
from ansible_collections.llmops.stack.plugins.module_utils._dify_backup_restore import NOTE, Restore, Wish
from ansible_collections.llmops.stack.plugins.module_utils._dify_database import DatabaseError

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from backups import ENV, PLUGIN, TENANT, FakeDatabase, FakeProject, databases, installed, rendered

STORAGE = "volumes/app/storage"


class Host:
    """A second host, with a copy of the backup of the first."""

    def __init__(self, tmp_path: pathlib.Path, backup: pathlib.Path) -> None:
        self.home = tmp_path / "other" / "dify"
        self.backup = tmp_path / "copy"
        shutil.copytree(backup, self.backup)
        self.project = FakeProject(self.home)
        self.database = FakeDatabase()

    def restore(self, version: str = "1.12.1", timeout: float = 60) -> Restore:
        wish = Wish(str(self.home), str(self.backup), version, timeout)
        return Restore(self.project, wish, lambda project: self.database)

    def everything(self) -> dict[str, Any]:
        self.restore().settings()
        if not (self.home / "current").is_symlink():
            rendered(self.home)
        return self.restore().data()

    def refused(self, act: Callable[[], Any]) -> str:
        with pytest.raises(BackupError) as caught:
            act()
        return str(caught.value)

    def files(self) -> dict[str, bytes]:
        return {str(path.relative_to(self.home)): path.read_bytes() for path in self.home.rglob("*") if path.is_file()}

    def note(self) -> dict[str, Any]:
        return dict(json.loads((self.home / NOTE).read_text()))


@pytest.fixture
def host(tmp_path: pathlib.Path) -> Host:
    home = tmp_path / "dify"
    installed(home)
    project: Any = FakeProject(home)
    database: Any = FakeDatabase(databases())
    made = Backup(project, Options(home=str(home), timeout=60), database).make()
    return Host(tmp_path, pathlib.Path(made["path"]))


class TestOntoAnEmptyHost:
    def test_all_of_it(self, host: Host) -> None:
        assert host.restore().check()
        assert not host.home.exists(), "looking changes nothing"
        assert host.everything()["changed"]
        assert host.database.databases == databases()
        assert host.project.started == ["db_postgres"], "nothing else runs yet"
        assert (host.home / STORAGE / "upload_files/report.pdf").read_text() == "pages\n" * 1000
        assert (host.home / STORAGE / "privkeys" / TENANT / "private.pem").exists()
        assert not (host.home / "volumes/plugin_daemon/cwd").exists()
        assert host.note()["state"] == "done"

    def test_the_secrets_come_before_anything_is_rendered(self, host: Host) -> None:
        assert host.restore().settings() == ["secrets.json", ".llmops-console.json", ".llmops-probe.key"]
        assert json.loads((host.home / "secrets.json").read_text()) == {"SECRET_KEY": "one"}
        assert stat.S_IMODE((host.home / "secrets.json").stat().st_mode) == 0o600
        assert not (host.home / "volumes").exists()
        assert host.restore().settings() == [], "twice is once"

    def test_secrets_of_a_host_without_data_are_kept_aside(self, host: Host) -> None:
        host.home.mkdir(parents=True)
        (host.home / "secrets.json").write_text('{"SECRET_KEY": "two"}')
        host.restore().settings()
        assert json.loads((host.home / "secrets.json.before-restore").read_text()) == {"SECRET_KEY": "two"}
        assert json.loads((host.home / "secrets.json").read_text()) == {"SECRET_KEY": "one"}

    def test_what_a_release_ships_is_no_data(self, host: Host) -> None:
        shipped = host.home / "volumes/sandbox/conf/config.yaml"
        shipped.parent.mkdir(parents=True)
        shipped.write_text("as shipped\n")
        (host.home / "volumes/app/storage").mkdir(parents=True)
        release = host.home / "releases/1.11.4/volumes.shipped/sandbox/conf/config.yaml"
        release.parent.mkdir(parents=True)
        release.write_text("as shipped\n")
        host.everything()
        assert shipped.read_text() == "app: {}\n"

    def test_twice_changes_nothing(self, host: Host) -> None:
        host.everything()
        (host.home / STORAGE / "upload_files/later.pdf").write_text("written since\n")
        host.project.services = ["db_postgres", "api"]
        before, tables = host.files(), json.dumps(host.database.databases)
        assert not host.restore().check()
        assert host.restore().settings() == [] and not host.restore().data()["changed"]
        assert (host.files(), json.dumps(host.database.databases)) == (before, tables)

    def test_done_and_emptied_since_is_done_again(self, host: Host) -> None:
        """As the README and the refusal tell: containers down, volumes moved away."""
        for moved in ("volumes", "volumes/app/storage"):
            host.everything()
            shutil.move(host.home / moved, host.home.parent / f"old-{moved.replace('/', '-')}")
            if moved != "volumes":  # what is left of the data is somebody's
                assert "has a Dify already" in host.refused(host.restore().check)
                continue
            assert host.restore().check()
            host.database.databases.clear()
            assert host.everything()["changed"] and host.database.databases == databases()
            assert (host.home / STORAGE / "upload_files/report.pdf").exists()

    def test_a_new_dify_in_the_place_of_what_was_restored(self, host: Host) -> None:
        host.everything()
        shutil.move(host.home / "volumes", host.home.parent / "old")
        (host.home / "volumes/db/data").mkdir(parents=True)
        (host.home / "volumes/db/data/PG_VERSION").write_text("15\n")
        assert "has a Dify already" in host.refused(host.restore().check)

    def test_certificates_are_served_again(self, host: Host, tmp_path: pathlib.Path) -> None:
        served = tmp_path / "dify/releases/1.12.1/nginx/ssl/dify.crt"
        served.parent.mkdir(parents=True)
        served.write_text("a certificate")
        project: Any = FakeProject(tmp_path / "dify")
        database: Any = FakeDatabase(databases())
        made = Backup(project, Options(home=project.home, timeout=60), database).make()
        host.backup = pathlib.Path(made["path"])
        host.everything()
        assert (host.home / "current/nginx/ssl/dify.crt").read_text() == "a certificate"

    def test_vectors_that_nobody_has_any_more_are_told(self, host: Host) -> None:
        manifest = manifests.read(str(host.backup))
        manifest["vectors"]["lost"] = True
        manifests.write(str(host.backup), manifest)
        (note,) = host.everything()["notes"]
        assert "were in qdrant" in note and "vdb-migrate" in note

    def test_other_settings_are_told(self, host: Host) -> None:
        host.restore().settings()
        rendered(host.home, env=ENV.replace("one.example.com", "two.example.com"))
        (note,) = host.restore().data()["notes"]
        assert "CONSOLE_WEB_URL" in note and "two.example.com" not in note

    def test_a_plugin_that_came_between_dump_and_archive(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        """The daemon would start its file though no workspace has it."""

        def older(path: str, name: str, timeout: float) -> None:
            real(path, name, timeout)
            if name == "dify_plugin_restored":
                host.database.databases[name]["plugin_installations"] = []

        real = host.database.restore
        monkeypatch.setattr(host.database, "restore", older)
        assert any(PLUGIN in note and "moved aside" in note for note in host.everything()["notes"])
        assert (host.home / ".llmops-restore-aside" / PLUGIN).exists()
        assert not (host.home / "volumes/plugin_daemon/plugin" / PLUGIN).exists()

    def test_an_empty_database_of_the_servers_own(self, host: Host) -> None:
        host.database.databases["dify"] = {}
        host.everything()
        assert host.database.databases == databases()


class TestRefusals:
    """Before anything is changed."""

    @pytest.mark.parametrize(
        "name",
        [
            "volumes/db/data/PG_VERSION",
            f"{STORAGE}/a",
            "volumes/plugin_daemon/plugin/a",
            "volumes/weaviate/a",
            "volumes/mysql/data/a",
            "volumes/sandbox/dependencies/mine.whl",
        ],
    )
    def test_a_host_that_has_data(self, host: Host, name: str) -> None:
        path = host.home / name
        path.parent.mkdir(parents=True)
        path.write_text("precious\n")
        for act in (host.restore().check, host.restore().settings):
            said = host.refused(act)
            assert "has a Dify already" in said and str(host.home) in said and "nothing can be lost" in said
        assert [name for name in host.files() if name != ".llmops-upgrade.lock"] == [name]

    def test_a_host_that_has_containers(self, host: Host) -> None:
        host.project.services = ["api"]
        assert "containers of project dify (1)" in host.refused(host.restore().check)

    def test_another_release(self, host: Host) -> None:
        said = host.refused(host.restore("1.16.0").check)
        assert "is of Dify 1.12.1, and dify_version is 1.16.0" in said and "upgrade afterwards" in said

    def test_a_flipped_byte(self, host: Host) -> None:
        content = (host.backup / "storage.tar").read_bytes()
        (host.backup / "storage.tar").write_bytes(content[:900] + b"!" + content[901:])
        for act in (host.restore().check, host.everything):
            assert "storage.tar is damaged" in host.refused(act)
        assert not (host.home / "volumes").exists()

    def test_a_flipped_byte_in_the_secrets(self, host: Host) -> None:
        (host.backup / "secrets.json").write_text('{"SECRET_KEY": "two"}\n')
        assert "secrets.json is damaged" in host.refused(host.restore().settings)
        assert not (host.home / "secrets.json").exists()

    def test_a_missing_file(self, host: Host) -> None:
        (host.backup / "dify_plugin.dump").unlink()
        assert "dify_plugin.dump is missing" in host.refused(host.restore().check)

    def test_no_room(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        usage = shutil.disk_usage(host.backup)._replace(free=1)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
        assert "0 MB free, and the backup needs" in host.refused(host.restore().check)

    def test_a_release_that_is_not_rendered(self, host: Host) -> None:
        host.restore().settings()
        assert "must be unpacked and rendered" in host.refused(host.restore().data)
        rendered(host.home, "1.11.4")
        assert "its current release is 1.11.4" in host.refused(host.restore().data)

    def test_secrets_that_are_not_there_yet(self, host: Host) -> None:
        rendered(host.home)
        assert "secrets of the backup are not in" in host.refused(host.restore().data)

    @pytest.mark.parametrize(("before", "after"), [("sk-xxx", "sk-yyy"), ("opendal", "s3"), ("qdrant", "milvus")])
    def test_settings_that_the_data_does_not_go_with(self, host: Host, before: str, after: str) -> None:
        host.restore().settings()
        rendered(host.home, env=ENV.replace(before, after))
        said = host.refused(host.restore().data)
        assert "No data was written" in said and after not in said
        assert not (host.home / "volumes").exists()

    def test_a_server_that_has_the_database(self, host: Host) -> None:
        host.database.databases = {"dify": {"accounts": []}}
        assert "The database dify at db_postgres has tables already" in host.refused(host.everything)
        assert host.database.databases == {"dify": {"accounts": []}}
        assert not (host.home / STORAGE).exists()


class TestInterrupted:
    @pytest.mark.parametrize("method", ["ping", "restore", "drop", "rename"])
    def test_a_database_that_fails(self, host: Host, method: str) -> None:
        host.database.trouble[method] = DatabaseError("the server ended the connection")
        said = host.refused(host.everything)
        assert "the server ended the connection" in said and "Run restore.yml again" in said
        assert host.note()["state"] == "begun"
        host.database.trouble.clear()
        assert host.everything()["changed"]
        assert host.database.databases == databases()

    def test_killed_between_the_databases(self, host: Host) -> None:
        class Killed(BaseException):
            pass

        host.database.trouble["rename"] = Killed()  # not even an Exception
        with pytest.raises(Killed):
            host.everything()
        host.database.trouble.clear()
        host.everything()
        assert host.database.databases == databases()

    def test_killed_while_files_are_written(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        def unpack(path: str, folder: str, tick: Callable[[], None]) -> int:
            files = real(path, folder, tick)
            if folder.endswith("storage"):
                raise KeyboardInterrupt
            return files

        real = archives.unpack
        monkeypatch.setattr(archives, "unpack", unpack)
        with pytest.raises(KeyboardInterrupt):
            host.everything()
        (host.home / STORAGE / "half").write_text("a file that was being written\n")
        monkeypatch.setattr(archives, "unpack", real)
        host.everything()
        assert not (host.home / STORAGE / "half").exists()
        assert (host.home / STORAGE / "upload_files/report.pdf").exists()

    def test_with_another_backup(self, host: Host) -> None:
        host.restore().settings()
        manifest = manifests.read(str(host.backup))
        manifests.write(str(host.backup), {**manifest, "made": "later"})
        said = host.refused(host.restore().check)
        assert "was begun in" in said and "this is another backup" in said

    def test_a_dify_that_was_started_on_it(self, host: Host) -> None:
        host.restore().settings()
        host.project.services = ["db_postgres"]
        assert host.restore().check()
        host.project.services = ["db_postgres", "api"]
        assert "Dify was started all the same (dify-api-1)" in host.refused(host.restore().check)


class TestProof:
    def test_data_that_is_not_what_was_backed_up(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        def lossy(path: str, name: str, timeout: float) -> None:
            real(path, name, timeout)
            host.database.databases[name].pop("accounts", None)

        real = host.database.restore
        monkeypatch.setattr(host.database, "restore", lossy)
        said = host.refused(host.everything)
        assert "The restored data is not what was backed up: accounts" in said
        assert host.note()["state"] == "begun"

    def test_a_database_at_another_revision(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(host.database, "head", lambda: "905527cc8fd3")
        assert "must be at the revision 788d3099ae3a" in host.refused(host.everything)

    def test_a_key_that_does_not_fit(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(restores.keys, "modulus", {"": 1}.get)

        def unpack(path: str, folder: str, tick: Callable[[], None]) -> int:
            files = real(path, folder, tick)
            for key in pathlib.Path(folder).rglob("private.pem"):
                key.write_text("another")
            return files

        real = archives.unpack
        monkeypatch.setattr(archives, "unpack", unpack)
        assert f"do not fit after the restore: {TENANT}" in host.refused(host.everything)

    def test_vectors(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        manifest = manifests.read(str(host.backup))
        manifest["vectors"] = {"store": "weaviate", "folder": "vectors", "counts": {"Vector_index_1_Node": 7}}
        manifests.write(str(host.backup), manifest)
        (note,) = host.everything()["notes"]
        assert "none of this installation's own" in note
        shutil.rmtree(host.home)
        host.database.databases.clear()
        counts = {"Vector_index_1_Node": 6}
        own = restores.vectors.VectorStore("weaviate", True, "", "")
        monkeypatch.setattr(restores.vectors, "store", lambda project: own)
        monkeypatch.setattr(restores.vectors, "restore", lambda project, folder, seconds: counts)
        assert "must hold {'Vector_index_1_Node': 7} objects" in host.refused(host.everything)
        counts["Vector_index_1_Node"] = 7
        assert host.everything()["notes"] == []
        assert "weaviate" in host.project.started
