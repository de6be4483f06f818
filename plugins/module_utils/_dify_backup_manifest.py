# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""What a backup is: a folder with a manifest that names every file in it, its size and its checksum.

The manifest carries a checksum of itself, so that a flipped byte is found wherever it is. A folder gets its final name
when all of it has been read back; one that ends in C(.partial) is none.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from ansible_collections.llmops.stack.plugins.module_utils._download import write_atomically

__all__ = [
    "FORMAT",
    "MANIFEST",
    "PARTIAL",
    "UPGRADE",
    "BackupError",
    "Kept",
    "Location",
    "digest_of",
    "expired",
    "listing",
    "name_of",
    "read",
    "verify",
    "write",
]

FORMAT = 1
MANIFEST = "manifest.json"
PARTIAL = ".partial"
UPGRADE = "upgrade"  # the reason of those that the role makes before an upgrade
_NAME = re.compile(r"\d{8}T\d{6}Z-(?P<version>[0-9A-Za-z.+-]+?)-(?P<reason>[a-z][a-z0-9_]*)")
_FILE = re.compile(r"[\w.-]+(/[\w.-]+)*")
_CHUNK = 1 << 20


class BackupError(Exception):
    """What went wrong and what to do about it, as sentences; they hold no secret."""


class Kept(NamedTuple):
    """A backup that is there, as far as its name tells."""

    name: str
    version: str
    reason: str


def name_of(stamp: str, version: str, reason: str) -> str:
    return f"{stamp}-{version}-{reason}"


def expired(names: Collection[str], keep: int, spared: Collection[str] = ()) -> list[str]:
    """Names of the backups that make room for newer ones; C(keep) 0 removes none, and C(spared) stay in any case.

    Those of upgrades are counted apart: some tries in a row must not push out what the timer has made.
    """
    if keep < 1:
        return []
    backups = _parsed(names)
    safe = set(spared)
    for upgrades in (True, False):
        safe.update([one.name for one in backups if (one.reason == UPGRADE) == upgrades][:keep])
    return sorted(one.name for one in backups if one.name not in safe)


def _parsed(names: Collection[str]) -> list[Kept]:
    """The newest first; what has another name is somebody else's."""
    matches = ((name, _NAME.fullmatch(name)) for name in sorted(names, reverse=True))
    return [Kept(name, match["version"], match["reason"]) for name, match in matches if match]


class Location:
    """The folder that backups lie in."""

    def __init__(self, path: str) -> None:
        self.path = os.path.normpath(path)

    def at(self, name: str) -> str:
        return os.path.join(self.path, name)

    def backups(self) -> list[Kept]:
        """Finished ones, the newest first."""
        found = [one for one in _parsed(self._names()) if os.path.isfile(os.path.join(self.at(one.name), MANIFEST))]
        return found

    def _names(self) -> list[str]:
        try:
            return os.listdir(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return []

    def newest_whole(self) -> list[str]:
        """Name of the newest one that holds the uploaded files, too, or none."""
        for one in self.backups():
            try:
                archives = read(self.at(one.name)).get("archives") or {}
            except BackupError:
                continue
            if not any(each.get("partial") for each in archives.values()):
                return [one.name]
        return []

    def clear_leftovers(self) -> None:
        """Remove what runs that were killed have left; only while nobody else makes a backup."""
        for name in self._names():
            if name.endswith(PARTIAL) and _NAME.fullmatch(name[: -len(PARTIAL)]):
                shutil.rmtree(self.at(name))

    def prune(self, keep: int, spared: Collection[str]) -> list[str]:
        """Remove backups beyond C(keep), never C(spared); returns their paths."""
        gone = []
        for name in expired([one.name for one in self.backups()], keep, spared):
            self.remove(name)
            gone.append(self.at(name))
        return gone

    def remove(self, name: str) -> None:
        path = self.at(name)
        with contextlib.suppress(FileNotFoundError):
            os.rename(path, path + PARTIAL)  # a removal that is interrupted leaves no backup that looks whole
        shutil.rmtree(path + PARTIAL)


def write(folder: str, manifest: dict[str, Any]) -> None:
    sealed = {**manifest, "seal": _seal(manifest)}
    write_atomically(os.path.join(folder, MANIFEST), json.dumps(sealed, indent=1, sort_keys=True) + "\n", 0o600)


def read(folder: str) -> dict[str, Any]:
    """The manifest, without a look at the other files.

    Raises:
        BackupError: there is none, or it was changed since it was written.
    """
    path = os.path.join(folder, MANIFEST)
    if not os.path.isdir(folder):
        raise BackupError(
            f"There must be a backup in {folder}, and there is no such folder on this host.{_near(folder)} {_COPY}"
        )
    try:
        with open(path, encoding="utf-8") as file:
            manifest = json.load(file)
    except FileNotFoundError:
        raise BackupError(
            f"{folder} has no {MANIFEST}, so it is no backup of this collection, or its copy is not whole."
            f"{_near(folder)} {_COPY}"
        ) from None
    except (OSError, ValueError) as exc:
        raise BackupError(f"{path} cannot be read ({exc}). {_COPY}") from None
    if not isinstance(manifest, dict):
        raise BackupError(f"{path} is no manifest of a backup. {_COPY}")
    if manifest.get("format") != FORMAT:
        raise BackupError(
            f"{path} has the format {manifest.get('format')!r}, and this release of the collection reads {FORMAT}. "
            "Use the release that made the backup, or a newer one."
        )
    seal = manifest.pop("seal", "")
    if seal != _seal(manifest):
        raise BackupError(f"{path} is not as it was written: its own checksum does not fit. {_COPY}")
    return manifest


def _near(folder: str) -> str:
    """Those that somebody who mistyped it may have meant."""
    parent = os.path.dirname(os.path.normpath(folder))
    for place in (folder, parent):
        found = [one.name for one in Location(place).backups()]
        if found:
            return f" In {place} are {', '.join(found[:5])}{' and older ones' if len(found) > 5 else ''}."
    return ""


_COPY = "Copy the whole folder of the backup again from where it was made, or name another one."


def _seal(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def verify(folder: str, tick: Callable[[], None], only: Collection[str] = ()) -> dict[str, Any]:
    """The manifest, after every file that it names (or only these of them) was read back and is as it was written.

    Raises:
        BackupError: a file is missing, or its size or checksum is another.
    """
    manifest = read(folder)
    for one in manifest["files"]:
        name = one["name"]
        if not _FILE.fullmatch(name) or ".." in name.split("/"):
            raise BackupError(f"{folder}/{MANIFEST} names {name!r}, which is no file of a backup. Do not use it.")
        if only and name not in only:
            continue
        path = os.path.join(folder, name)
        try:
            size, digest = digest_of(path, tick)
        except FileNotFoundError:
            raise BackupError(f"{path} is missing, and the backup is not whole without it. {_COPY}") from None
        except OSError as exc:
            raise BackupError(f"{path} cannot be read ({exc.strerror}). {_COPY}") from None
        if size != one["bytes"]:
            raise BackupError(f"{path} must have {one['bytes']} bytes, and has {size}. {_COPY}")
        if digest != one["sha256"]:
            raise BackupError(f"{path} is damaged: it must have the sha256 {one['sha256']}, and has {digest}. {_COPY}")
    return manifest


def listing(folder: str, tick: Callable[[], None]) -> list[dict[str, Any]]:
    """Name, size and checksum of every file below the folder but the manifest."""
    found = []
    for above, _folders, names in os.walk(folder):
        for base in names:
            path = os.path.join(above, base)
            name = os.path.relpath(path, folder)
            if name != MANIFEST:
                size, digest = digest_of(path, tick)
                found.append({"name": name, "bytes": size, "sha256": digest})
    return sorted(found, key=lambda one: str(one["name"]))


def digest_of(path: str, tick: Callable[[], None]) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    with open(path, "rb") as file:
        for chunk in iter(lambda: file.read(_CHUNK), b""):
            tick()
            digest.update(chunk)
            size += len(chunk)
    return size, digest.hexdigest()
