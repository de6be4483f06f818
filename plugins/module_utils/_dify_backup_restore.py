# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""A backup put back onto a host that has no data: looked at first, then the secrets, then, in a rendered release, the
data.

It is resumable. A note in the home says which backup is being put back; as long as it says that it is not done, what is
there came from this restore and is removed and put there again. Without the note nothing is ever removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils import _dify_backup_archive as archive
from ansible_collections.llmops.stack.plugins.module_utils import _dify_backup_keys as keys
from ansible_collections.llmops.stack.plugins.module_utils import _dify_backup_manifest as manifests
from ansible_collections.llmops.stack.plugins.module_utils import _dify_backup_parts as parts
from ansible_collections.llmops.stack.plugins.module_utils import _dify_plugin_files as plugin_files
from ansible_collections.llmops.stack.plugins.module_utils import _dify_vector_store as vectors
from ansible_collections.llmops.stack.plugins.module_utils._dify_backup import Clock, alone
from ansible_collections.llmops.stack.plugins.module_utils._dify_backup_manifest import BackupError
from ansible_collections.llmops.stack.plugins.module_utils._dify_compose import Project
from ansible_collections.llmops.stack.plugins.module_utils._dify_database import Database, DatabaseError
from ansible_collections.llmops.stack.plugins.module_utils._dify_env import parse_env
from ansible_collections.llmops.stack.plugins.module_utils._dify_fingerprint import compare
from ansible_collections.llmops.stack.plugins.module_utils._docker_cli import Container, DockerError
from ansible_collections.llmops.stack.plugins.module_utils._download import existing, write_atomically
from ansible_collections.llmops.stack.plugins.module_utils._weaviate import WeaviateError

__all__ = ["NOTE", "Restore", "Wish"]

NOTE = ".llmops-restore.json"
BEGUN, DONE = "begun", "done"
_MB = 1024 * 1024
# With another value here the data would be there and could not be read, or would not be looked for where it is.
_BINDING = ("SECRET_KEY", "DB_TYPE", "STORAGE_TYPE", "OPENDAL_SCHEME", "VECTOR_STORE", "VECTOR_INDEX_NAME_PREFIX")
_SERVING = ("api", "worker", "worker_beat", "plugin_daemon")
_DATA = ("volumes/db", "volumes/mysql", "volumes/app/storage", "volumes/plugin_daemon", "volumes/weaviate")
MARK = "volumes/.llmops-restored"  # goes where the data goes


@dataclass
class Wish:
    home: str = "/opt/dify"
    path: str = ""  # the folder of the backup
    version: str = ""  # the release that is to run here
    timeout: float = 3600


class Restore:
    def __init__(self, project: Project, wish: Wish, database: Callable[[Project], Database] = Database) -> None:
        self.project = project
        self.ask = database  # its address and password are known once the release is rendered
        self.wish = wish
        self.clock = Clock(wish.timeout, "The restore")
        self.manifest: dict[str, Any] = {}

    # -- looking

    def check(self, only: Iterable[str] = ()) -> bool:
        """Whether there is anything to do; changes nothing. C(only) are the files of the backup that are to be read.

        Raises:
            BackupError: the backup is not whole, is of another release, or the host has data of its own.
        """
        path = self.wish.path
        self.manifest = manifests.verify(path, self.clock.tick, set(only))
        version = self.manifest["version"]
        if version != self.wish.version:
            raise BackupError(
                f"The backup in {path} is of Dify {version}, and dify_version is {self.wish.version}: a database can "
                f"only be read by the release that it belongs to. Set dify_version to {version}, "
                "restore, and upgrade afterwards by changing it and running site.yml."
            )
        note = self._note()
        if note.get("backup") == self._id():
            if note.get("state") == DONE:
                if self._in_place(note):
                    return False
                self._refuse_data()
            else:
                self._refuse_company()
        elif note.get("state") == BEGUN:
            raise BackupError(
                f"A restore of {note.get('path')} was begun in {self.wish.home} and is not finished, and this is "
                "another backup. Name that one in dify_restore_from, or move "
                f"{self.wish.home}/volumes and {self.wish.home}/{NOTE} away first."
            )
        else:
            self._refuse_data()
        self._room()
        return True

    def _in_place(self, note: Mapping[str, Any]) -> bool:
        """Whether what an earlier restore has put here is still here: somebody may have emptied the host since."""
        home = self.wish.home
        mark = os.path.join(home, MARK)
        if not os.path.isfile(mark) or _read(mark).decode("utf-8", "replace").strip() != note.get("backup"):
            return False
        return all(parts.is_inhabited(os.path.join(home, folder)) for folder in note.get("folders", []))

    def _mark_done(self) -> None:
        home = self.wish.home
        archived = (one["folder"] for one in self.manifest["archives"].values() if one["file"])
        folders = sorted({*_DATA, *archived})
        os.makedirs(os.path.join(home, os.path.dirname(MARK)), exist_ok=True)
        write_atomically(os.path.join(home, MARK), self._id() + "\n", 0o600)
        self._write_note(DONE, folders=[one for one in folders if parts.is_inhabited(os.path.join(home, one))])

    def _refuse_company(self) -> None:
        """What an interrupted restore has left is replaced, but not below a Dify that somebody started on it."""
        started = [one.name for one in self._containers() if one.service in _SERVING]
        if started:
            raise BackupError(
                f"The restore here was interrupted, and Dify was started all the same ({', '.join(started[:3])}): "
                "what was written since would be lost. If nothing was written, remove these containers and run "
                "restore.yml again."
            )

    def _containers(self) -> list[Container]:
        try:
            return self.project.containers()
        except DockerError:  # a host without docker has none
            return []

    def _refuse_data(self) -> None:
        home = self.wish.home
        found = [os.path.join(home, name) for name in _DATA if parts.is_inhabited(os.path.join(home, name))]
        # What operators put beside the data would be replaced, too.
        for one in self.manifest["archives"].values():
            if one["file"] and one["folder"] not in _DATA:
                found += parts.strangers(home, one["folder"])[:3]
        containers = [one.name for one in self._containers()]
        if found or containers:
            running = [f"containers of project {self.project.name} ({len(containers)})"] if containers else []
            what = ", ".join([*found, *running])
            raise BackupError(
                f"This host has a Dify already: there is {what}. A backup is put back only where nothing can be lost. "
                "Restore onto another host; or, if this one is to be replaced, take its "
                f"containers down (docker compose --project-directory {home}/current -p {self.project.name} down), "
                f"move {home}/volumes away, and run restore.yml again."
            )

    def _room(self) -> None:
        place = existing(self.wish.home)
        need = sum(one.get("bytes", 0) for one in self.manifest["databases"].values())
        need += sum(
            one["bytes"] for one in self.manifest["files"] if one["name"].endswith(".tar") or "/" in one["name"]
        )
        free = shutil.disk_usage(place).free
        if free < need:
            raise BackupError(
                f"The disk with {place} has {free // _MB} MB free, and the backup needs {need // _MB + 1} MB there. "
                "Make room, or put dify_home on another disk."
            )

    # -- the note

    def _id(self) -> str:
        return hashlib.sha256(json.dumps(self.manifest, sort_keys=True).encode()).hexdigest()

    def _note(self) -> dict[str, Any]:
        try:
            with open(os.path.join(self.wish.home, NOTE), encoding="utf-8") as file:
                found = json.load(file)
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _write_note(self, state: str, databases: Iterable[str] = (), folders: Iterable[str] = ()) -> None:
        made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        note: dict[str, Any] = {"backup": self._id(), "path": self.wish.path, "state": state, "since": made}
        note.update(databases=[*databases], folders=[*folders])
        write_atomically(os.path.join(self.wish.home, NOTE), json.dumps(note, indent=1) + "\n", 0o600)

    # -- the secrets: before a release is rendered with new ones

    def settings(self) -> list[str]:
        """Put the files of this collection in place; returns the names of those that were not as they are now."""
        os.makedirs(self.wish.home, exist_ok=True)
        with alone(self.wish.home, self.clock, "restore"):
            if not self.check(parts.KEEPSAKES.values()):
                return []
            if self._note().get("state") != BEGUN:
                self._write_note(BEGUN)
            return [name for name, kept in parts.KEEPSAKES.items() if self._put(name, kept)]

    def _put(self, name: str, kept: str) -> bool:
        target = os.path.join(self.wish.home, name)
        source = os.path.join(self.wish.path, kept)
        wanted = _read(source) if os.path.isfile(source) else None
        present = _read(target) if os.path.isfile(target) else None
        if wanted == present:
            return False
        if present is not None:  # what it opens is not here, but may be somewhere else
            os.replace(target, f"{target}.before-restore")
        if wanted is not None:
            write_atomically(target, wanted.decode("utf-8", "surrogateescape"), 0o600)
        return True

    # -- the data

    def data(self) -> dict[str, Any]:
        """Put archives and databases in place and prove that they are what was backed up.

        Raises:
            BackupError: it did not work; the next restore of the same backup begins anew.
        """
        with alone(self.wish.home, self.clock, "restore"):
            if not self.check():
                return {"changed": False, "seconds": 0.0, "notes": []}
            if self._note().get("state") != BEGUN:
                raise BackupError(f"The secrets of the backup are not in {self.wish.home} yet. Put them there first.")
            notes = self._compare_settings()
            with self._told():
                database = self._database()
                for one in self.manifest["archives"].values():
                    if one["file"]:
                        self._unpack(one)
                self._restore_databases(database)
                self._prove(database)
                notes += self._mend_plugins(database)
                notes += self._restore_vectors()
            self._mark_done()
        return {"changed": True, "seconds": self.clock.spent(), "notes": notes}

    def _compare_settings(self) -> list[str]:
        release = parts.release_of(self.wish.home)
        settings = self.project.settings()
        if release != self.wish.version or not settings:
            raise BackupError(
                f"Dify {self.wish.version} must be unpacked and rendered in {self.wish.home} before its data is put "
                f"there, and its current release is {release or 'none'}. restore.yml does both."
            )
        backup = parse_env(_read(os.path.join(self.wish.path, "env")).decode("utf-8", "replace"))
        for name in _BINDING:
            if settings.get(name, "") != backup.get(name, ""):
                raise BackupError(
                    f"{name} is not what it was where the backup was made, and Dify could not use the data with "
                    f"another. No data was written. Set dify_env: {{{name}: ...}} to the value in "
                    f"{self.wish.path}/env."
                )
        others = sorted(name for name in backup if name in settings and settings[name] != backup[name])
        if not others:
            return []
        return [f"Settings that are not as they were where the backup was made: {', '.join(others)}."]

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        again = "Run restore.yml again with the same backup: it begins anew. site.yml is refused until then."
        try:
            yield
        except (DatabaseError, DockerError, WeaviateError, archive.ArchiveError) as exc:
            raise BackupError(f"The backup in {self.wish.path} could not be put back: {exc}. {again}") from None
        except OSError as exc:
            where = exc.filename or self.wish.home
            raise BackupError(
                f"The backup in {self.wish.path} could not be put back: {exc.strerror or exc} at {where}. {again}"
            ) from None

    def _unpack(self, one: Mapping[str, Any]) -> None:
        folder = os.path.join(self.wish.home, one["folder"])
        # It may be the mount of a disk, so it stays and what is in it goes.
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(folder):
                _remove(os.path.join(folder, name))
        archive.unpack(os.path.join(self.wish.path, one["file"]), folder, self.clock.tick)

    def _database(self) -> Database:
        """The server that takes the dumps, running, without tables of anybody else's."""
        database = self.ask(self.project)
        if database.internal:
            self.project.up([database.service], self.clock.left(), wait=True)
        database.ping()
        for name in self._names(database).values():
            if name not in self._note().get("databases", []) and database.exists(name) and database.tables(name):
                raise BackupError(
                    f"The database {name} at {database.host} has tables already. A backup is put back only where "
                    "nothing can be lost, so no data was written. Rename or drop that database, or name another one "
                    "in dify_env."
                )
        return database

    def _names(self, database: Database) -> dict[str, str]:
        """What the databases of the backup are called here."""
        here = {"dify": database.name, "dify_plugin": database.plugin_name}
        return {role: here[role] for role in self.manifest["databases"] if here.get(role)}

    def _restore_databases(self, database: Database) -> None:
        for role, name in self._names(database).items():
            fresh = f"{name}_restored"
            database.drop(fresh)
            path = os.path.join(self.wish.path, self.manifest["databases"][role]["file"])
            database.restore(path, fresh, self.clock.left())
            # From here on the database of this name is one that a restore may replace.
            self._write_note(BEGUN, [*self._note().get("databases", []), name])
            database.drop(name)
            database.rename(fresh, name)

    def _mend_plugins(self, database: Database) -> list[str]:
        """A plugin that came or went between the dump and the archive is in one of them only."""
        aside = os.path.join(self.wish.home, ".llmops-restore-aside")
        settings = self.project.settings()
        said: list[str] = []
        market = settings.get("MARKETPLACE_API_URL", "")
        plugin_files.mend(settings, self.wish.home, database, aside, market, said.append)
        return said

    def _restore_vectors(self) -> list[str]:
        exported = self.manifest["vectors"]
        if not exported["folder"]:
            if not exported["lost"]:
                return []
            return [
                f"The vectors of knowledge were in {exported['store']} and are not in the backup. Once Dify runs, "
                "index the knowledge again: flask vdb-migrate in the container of the api."
            ]
        if not vectors.store(self.project).internal:
            return ["The vectors of the backup were not put back: the vector store is none of this installation's own."]
        self.project.up([vectors.SERVICE], self.clock.left())
        folder = os.path.join(self.wish.path, exported["folder"])
        counts = vectors.restore(self.project, folder, self.clock.left())
        if counts != exported["counts"]:
            raise BackupError(f"Weaviate must hold {exported['counts']} objects after the restore, and holds {counts}.")
        return []

    def _prove(self, database: Database) -> None:
        head = database.head()
        if head != self.manifest["head"]:
            raise BackupError(
                f"The database must be at the revision {self.manifest['head']} after the restore, and is at "
                f"{head or 'none'}."
            )
        differences = compare(self.manifest["fingerprint"], database.fingerprint(timeout=self.clock.left()))
        if differences:
            raise BackupError(
                f"The restored data is not what was backed up: {'; '.join(differences[:5])}. Make another backup, or "
                "take an older one."
            )
        storage = self.manifest["archives"]["storage"]
        if storage["file"]:
            pairs = self._pairs(database, os.path.join(self.wish.home, storage["folder"]))
            known = self.manifest["keys"]
            if (pairs.missing, pairs.foreign) != (known["missing"], known["foreign"]):
                lost = ", ".join([*pairs.missing, *pairs.foreign])
                raise BackupError(f"The private keys of these workspaces do not fit after the restore: {lost}.")

    def _pairs(self, database: Database, storage: str) -> keys.Pairs:
        rows = database.sql("SELECT id, coalesce(encrypt_public_key, '') FROM tenants")
        private = {}
        for row in rows:
            path = os.path.join(storage, keys.key_path(row[0]))
            if os.path.isfile(path):
                private[keys.key_path(row[0])] = _read(path)
        return keys.compare({row[0]: row[1] for row in rows}, private)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)
