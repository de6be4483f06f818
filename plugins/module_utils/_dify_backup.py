# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""A backup of a Dify that goes on serving: made under the name of an unfinished one, read back, and only then named.

The databases come first, each as one moment sees it; files come after them. A file is written before the row that names
it, so every file that a dumped row names is there, unless somebody deleted it in between. The standard library is all
that this needs, because the timer of a host runs it without Ansible.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils import _dify_backup_archive as archive
from ansible_collections.llmops.stack.plugins.module_utils import _dify_backup_keys as keys
from ansible_collections.llmops.stack.plugins.module_utils import _dify_backup_manifest as manifests
from ansible_collections.llmops.stack.plugins.module_utils import _dify_backup_parts as parts
from ansible_collections.llmops.stack.plugins.module_utils import _dify_vector_store as vectors
from ansible_collections.llmops.stack.plugins.module_utils._dify_backup_manifest import BackupError, Location
from ansible_collections.llmops.stack.plugins.module_utils._dify_compose import Project
from ansible_collections.llmops.stack.plugins.module_utils._dify_database import Database, DatabaseError
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_journal import Busy, Journal, locked
from ansible_collections.llmops.stack.plugins.module_utils._docker_cli import DockerError
from ansible_collections.llmops.stack.plugins.module_utils._download import existing, sync_path
from ansible_collections.llmops.stack.plugins.module_utils._weaviate import WeaviateError

__all__ = ["Backup", "Clock", "Options", "alone"]

REASON = re.compile(r"[a-z][a-z0-9_]{0,31}")
_MB = 1024 * 1024
# Left free on the disk that the databases write to: a server that finds it full stops.
_RESERVE = 256 * _MB


class Clock:
    """The time for everything, looked at between pieces of work."""

    def __init__(self, seconds: float, what: str, variable: str = "dify_backup_timeout") -> None:
        self.seconds, self.what, self.variable = seconds, what, variable
        self.restart()

    def restart(self) -> None:
        """What was waited for somebody else does not count."""
        self.end = time.monotonic() + self.seconds

    def tick(self) -> None:
        if time.monotonic() > self.end:
            raise BackupError(f"{self.what} was not done within {self.seconds:g} s. Raise {self.variable}.")

    def spent(self) -> float:
        return round(self.seconds - (self.end - time.monotonic()), 1)

    def left(self) -> float:
        self.tick()
        return max(1.0, self.end - time.monotonic())


@contextlib.contextmanager
def alone(home: str, clock: Clock, what: str) -> Iterator[None]:
    """While no upgrade, restore or other backup of this Dify runs; waits for one."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(home, clock.left()))
        except Busy:
            raise BackupError(
                f"An upgrade, a restore or a backup of {home} runs, and did not end within {clock.seconds:g} s, so no "
                f"{what} was begun. Try again when it has ended."
            ) from None
        except OSError as exc:
            raise BackupError(f"{home} cannot be used ({exc.strerror}). Correct dify_home.") from None
        clock.restart()
        yield


@dataclass
class Options:
    home: str = "/opt/dify"
    directory: str = ""  # of the backups; <home>/backups when empty
    keep: int = 3
    storage: bool = True
    reason: str = "manual"
    timeout: float = 3600


@dataclass
class _Look:
    """What is to be backed up, before anything is written."""

    version: str
    head: str
    server: str
    sizes: dict[str, int]
    parts: list[parts.Part]
    bytes: int  # of the files
    vectors: vectors.VectorStore
    beside: bool = False  # its store is ours, too, and not in the backup
    warnings: list[str] = field(default_factory=list)


class Backup:
    def __init__(self, project: Project, options: Options, database: Database | None = None) -> None:
        self.project = project
        self.options = options
        self.location = Location(options.directory or os.path.join(options.home, "backups"))
        self.database = database or Database(project)
        self.clock = Clock(options.timeout, "The backup")

    # -- looking

    def look(self) -> _Look:
        """What a backup would hold; changes nothing.

        Raises:
            BackupError: there is nothing to be backed up, the database cannot be asked, or there is no room.
        """
        version = parts.release_of(self.options.home)
        if not version:
            raise BackupError(
                f"There is no Dify in {self.options.home}: it has no link current that names a release. "
                "Correct dify_home, or install it with site.yml."
            )
        if not REASON.fullmatch(self.options.reason):
            raise BackupError(
                f"reason is {self.options.reason!r}, and must be one word of small letters, digits and _, like manual."
            )
        journal = Journal.read(self.options.home)
        if journal.unfinished:
            raise BackupError(
                f"The upgrade from {journal.state.get('from')} to {journal.state.get('to')} was interrupted here, and "
                "the databases may be those of neither. Run site.yml first: it finishes the upgrade, or goes back."
            )
        settings = self.project.settings()
        with self._asked():
            server = self.database.ping()
            sizes = {name: self.database.size_bytes(name) for name in self.database.names}
            head = self.database.head()
        if not head:
            raise BackupError(
                f"The database {self.database.name} has no revision of Dify's schema, so Dify never ran on it. "
                "Let site.yml finish first."
            )
        wanted = parts.parts(settings, self.options.storage)
        found = _Look(version, head, server, sizes, wanted, 0, vectors.store(self.project))
        found.bytes = sum(parts.files_size(self.options.home, one) for one in wanted if not one.absent)
        found.warnings = [f"Not in the backup: {one.absent}." for one in wanted if one.absent]
        found.beside = self._is_beside(found.vectors)
        if found.vectors.internal:
            with self._asked():
                found.bytes += vectors.size(vectors.data_folder(self.project))
        else:
            where = (
                f"{found.vectors.kind}, a container of this installation: after a restore the knowledge has to be "
                "indexed again"
                if found.beside
                else f"{found.vectors.kind} and stay there"
            )
            found.warnings.append(f"Not in the backup: the vectors of knowledge, which are in {where}.")
        self._room_for(found)
        return found

    def _is_beside(self, store: vectors.VectorStore) -> bool:
        """Whether a store that this collection cannot read goes with this host: in a container of this project."""
        kind = store.kind.replace("_", "-")
        with self._asked():
            services = [one.service.replace("_", "-") for one in self.project.containers()]
        return not store.internal and kind != vectors.SERVICE and any(one.startswith(kind) for one in services)

    def _room_for(self, look: _Look) -> None:
        """Dumps are compressed; half of what the server needs is more than they ever took."""
        need = look.bytes + sum(look.sizes.values()) // 2
        place = existing(self.location.path)
        reserve = _RESERVE if os.stat(place).st_dev == os.stat(self.options.home).st_dev else 0
        free = shutil.disk_usage(place).free
        if free < need + reserve:
            kept = f", and {reserve // _MB} MB must stay free there for Dify itself" if reserve else ""
            raise BackupError(
                f"The disk with {self.location.path} has {free // _MB} MB free, and a backup needs about "
                f"{need // _MB + 1} MB{kept}. Nothing was written. Make room, keep fewer backups (dify_backup_keep), "
                "or put dify_backup_dir on another disk."
            )

    @contextlib.contextmanager
    def _asked(self) -> Any:
        try:
            yield
        except DatabaseError as exc:
            raise self._failed(exc) from None
        except DockerError as exc:
            raise BackupError(f"The backup could not be made: {exc}. {_NOTHING}") from None

    def _failed(self, exc: DatabaseError) -> BackupError:
        if os.strerror(errno.ENOSPC) in str(exc) or os.strerror(errno.EDQUOT) in str(exc):
            return self._full(str(exc))
        return BackupError(f"The database could not be backed up: {exc}. {_NOTHING} {_NEXT}")

    def _full(self, what: str) -> BackupError:
        free = shutil.disk_usage(existing(self.location.path)).free
        return BackupError(
            f"The disk with {self.location.path} is full ({free // _MB} MB free): {what}. {_NOTHING} "
            "Make room, keep fewer backups (dify_backup_keep), or put dify_backup_dir on another disk."
        )

    # -- making

    def make(self) -> dict[str, Any]:
        """Make one, verify it, and remove those that are too old.

        Raises:
            BackupError: it did not work; what was written is gone again.
        """
        with alone(self.options.home, self.clock, "backup"):
            look = self.look()
            os.makedirs(self.location.path, mode=0o700, exist_ok=True)
            self.location.clear_leftovers()
            name = self.free_name(look.version)
            partial = self.location.at(name) + manifests.PARTIAL
            try:
                manifest = self._written(partial, look)
                self._proved(partial, manifest)
                os.rename(partial, self.location.at(name))
                sync_path(self.location.path)
            except OSError as exc:
                if exc.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise self._full(f"{exc.strerror} at {exc.filename or partial}") from None
                raise BackupError(f"The backup could not be written: {exc}. {_NOTHING}") from None
            finally:
                shutil.rmtree(partial, ignore_errors=True)
            pruned = self.location.prune(self.options.keep, {name, *self.needed()})
        return {
            "path": self.location.at(name),
            **{key: manifest[key] for key in ("version", "head", "files", "databases", "fingerprint")},
            "notes": manifest["warnings"],
            "seconds": self.clock.spent(),
            "pruned": pruned,
        }

    def needed(self, whole_one_comes: bool = False) -> list[str]:
        """What stays however old it is: the one that rollback.yml would go back to, and the newest whole one."""
        backup = str(Journal.read(self.options.home).last_done().get("backup") or "")
        # By its name: the folder of backups may have been moved since, or be written in another way.
        way_back = [os.path.basename(os.path.normpath(backup))] if backup else []
        return way_back + ([] if whole_one_comes else self.location.newest_whole())

    def free_name(self, version: str) -> str:
        while True:
            stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
            name = manifests.name_of(stamp, version, self.options.reason)
            if not os.path.lexists(self.location.at(name)):
                return name
            time.sleep(0.2)

    def _written(self, folder: str, look: _Look) -> dict[str, Any]:
        os.mkdir(folder, 0o700)
        warnings = list(look.warnings)
        made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        with self._asked():
            databases, fingerprint, public = self._dumped(folder)
        archives = {}
        for one in look.parts:
            archives[one.name] = self._archived(folder, one, warnings)
        exported = self._vectors(folder, look)
        self._kept(folder)
        manifest = {
            "format": manifests.FORMAT,
            "made": made,
            "version": look.version,
            "head": look.head,
            "reason": self.options.reason,
            "host": socket.gethostname(),
            "home": self.options.home,
            "server": look.server,
            "databases": databases,
            "fingerprint": fingerprint,
            "archives": archives,
            "vectors": exported,
            "files": manifests.listing(folder, self.clock.tick),
        }
        pairs = self._pairs(folder, public, archives)
        manifest["keys"] = {"checked": pairs.checked, "missing": pairs.missing, "foreign": pairs.foreign}
        manifest["warnings"] = warnings + _about(pairs)
        manifests.write(folder, manifest)
        return manifest

    def _dumped(self, folder: str) -> tuple[dict[str, Any], dict[str, list[Any]], dict[str, str]]:
        """Dumps, the fingerprint of the same moment, and the public keys of the workspaces."""
        snapshot = self.database.open_snapshot(timeout=self.clock.left())
        try:
            databases = {}
            for role, name, moment in self._to_dump(snapshot.export()):
                path = os.path.join(folder, f"{role}.dump")
                self.database.dump(name, path, self.clock.left(), snapshot=moment)
                listed = self.database.check_dump(path, self.clock.left())
                databases[role] = {
                    "name": name,
                    "file": f"{role}.dump",
                    "tables": listed["tables"],
                    "bytes": self.database.size_bytes(name),  # on the server, as a restore will need them
                }
            return databases, snapshot.fingerprint(), snapshot.public_keys()
        finally:
            snapshot.close()

    def _to_dump(self, moment: str) -> list[tuple[str, str, str]]:
        found = [("dify", self.database.name, moment)]
        # The daemon makes its database when it first starts.
        if self.database.plugin_name and self.database.exists(self.database.plugin_name):
            found.append(("dify_plugin", self.database.plugin_name, ""))
        return found

    def _archived(self, folder: str, part: parts.Part, warnings: list[str]) -> dict[str, Any]:
        source = os.path.join(self.options.home, part.folder)
        if part.absent or not os.path.isdir(source):
            return {"file": "", "why": part.absent or f"{part.folder} does not exist"}
        if part.shipped and not parts.is_inhabited(source, part.shipped):
            return {"file": "", "why": f"{part.folder} has nothing but what a release ships"}
        path = os.path.join(folder, f"{part.name}.tar")
        packed = archive.pack(source, path, self.clock.tick, part.skip, part.only)
        if packed.changed:
            warnings.append(f"Gone or changed while they were read: {_some(packed.changed, part.folder)}.")
        if packed.left_out:
            warnings.append(f"Neither files nor folders, so left out: {_some(packed.left_out, part.folder)}.")
        return {"file": f"{part.name}.tar", "folder": part.folder, "files": packed.files, "partial": bool(part.only)}

    def _vectors(self, folder: str, look: _Look) -> dict[str, Any]:
        """Objects per class, for a Weaviate that is ours. Another store is no part of what can be put back here."""
        store = look.vectors
        if not store.internal:
            return {"store": store.kind, "folder": "", "counts": {}, "lost": look.beside}
        target = os.path.join(folder, "vectors")
        os.mkdir(target, 0o700)
        try:
            counts = vectors.export(self.project, target, self.clock.left())
        except (WeaviateError, DockerError) as exc:
            raise BackupError(f"The vectors of knowledge could not be backed up: {exc}. {_NOTHING} {_NEXT}") from None
        return {"store": store.kind, "folder": "vectors", "counts": counts, "lost": False}

    def _kept(self, folder: str) -> None:
        sources = {os.path.join(self.options.home, name): kept for name, kept in parts.KEEPSAKES.items()}
        current = os.path.join(self.options.home, "current")
        sources[os.path.join(current, ".env")] = "env"
        sources[os.path.join(current, "docker-compose.override.yaml")] = "docker-compose.override.yaml"
        for source, name in sources.items():
            with contextlib.suppress(FileNotFoundError), open(source, "rb") as file:
                _write(os.path.join(folder, name), file.read())

    def _pairs(self, folder: str, public: Mapping[str, str], archives: Mapping[str, Any]) -> keys.Pairs:
        """Whether the backup holds the private key to every workspace's public one."""
        if not archives["storage"]["file"]:
            return keys.Pairs()
        path = os.path.join(folder, archives["storage"]["file"])
        wanted = {keys.key_path(tenant) for tenant in public}
        _files, private = archive.scan(path, self.clock.tick, lambda name: name in wanted)
        return keys.compare(public, private)

    # -- proving

    def _proved(self, folder: str, manifest: Mapping[str, Any]) -> None:
        """Read all of it back from the disk.

        Raises:
            BackupError: a file is not what was written, or lacks what it must hold.
        """
        written = {one["name"]: one for one in manifest["files"]}
        manifests.verify(folder, self.clock.tick)
        for one in manifest["databases"].values():
            with self._asked():
                tables = self.database.tables(one["name"])
            if one["tables"] < tables or not written[one["file"]]["bytes"]:
                raise BackupError(
                    f"The dump of the database {one['name']} must hold {tables} tables, and holds {one['tables']}. "
                    f"{_NOTHING} {_NEXT}"
                )
        for name, one in manifest["archives"].items():
            if one["file"]:
                found, _contents = archive.scan(os.path.join(folder, one["file"]), self.clock.tick)
                if found != one["files"]:
                    raise BackupError(f"{one['file']} must hold {one['files']} files of {name}, and holds {found}.")


_NOTHING = "The unfinished backup was removed, and nothing else was touched."
_NEXT = "Correct that, and make the backup again."


def _about(pairs: keys.Pairs) -> list[str]:
    """What an operator has to know of a damage that is older than the backup."""
    found = []
    if pairs.missing:
        found.append(
            f"{len(pairs.missing)} workspaces have no private key in the storage ({', '.join(pairs.missing[:3])}): "
            "their credentials cannot be decrypted, here or after a restore."
        )
    if pairs.foreign:
        found.append(
            f"The private key of {len(pairs.foreign)} workspaces belongs to another public key "
            f"({', '.join(pairs.foreign[:3])}): Dify sends their credentials in their encrypted form."
        )
    return found


def _some(names: list[str], folder: str) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(f"{folder}/{name}" for name in names[:3]) + more


def _write(path: str, content: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
