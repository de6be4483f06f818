# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Everything that a mirror holds in one file, for a site without a way out, and a mirror that is filled from it.

    www/… models/… registry/… apt/…   as they lie below the mirror's home, sorted
    llmops-bundle.json                 what they are: version of this format, the mirror's index, a line for each file
    SHA256SUMS                         of all of them and of that list; `tar xf` and `sha256sum -c` check it by hand

The lists come last, so that one pass writes what it has summed. Pages that follow from the rest are not in it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import time
from collections.abc import Mapping
from typing import IO, Any, NamedTuple

from ansible_collections.llmops.stack.plugins.module_utils._download import sha256_of, write_atomically
from ansible_collections.llmops.stack.plugins.module_utils._mirror_index import Index

__all__ = [
    "LIST",
    "ROOTS",
    "SUMS",
    "BundleError",
    "Contents",
    "Entry",
    "check_room",
    "contents",
    "cut",
    "entry_of",
    "fresh_digest",
    "known_sum",
    "listed",
    "opened",
    "parsed",
    "sums_of",
    "write",
]

LIST = "llmops-bundle.json"
SUMS = "SHA256SUMS"
FORMAT = 1
ROOTS = ("apt", "models", "registry", "www")
# What follows from the rest, what is half there, and what is nobody's but this host's.
_NOT = re.compile(r"^www/marketplace/api/|^www/pypi/simple/|/_uploads/|\.new$")
_BLOB = re.compile(r"^registry/docker/registry/v2/blobs/sha256/[0-9a-f]{2}/([0-9a-f]{64})/data$")
_MODEL = re.compile(r"^models/blobs/sha256-([0-9a-f]{64})$")


class BundleError(Exception):
    """What is wrong with it and what to do."""


class Entry(NamedTuple):
    sha256: str
    size: int


class Contents(NamedTuple):
    files: dict[str, Entry]
    noted: dict[str, Any]  # the mirror's index

    @property
    def digest(self) -> str:
        """Of all that is in it: equal for equal mirrors."""
        return hashlib.sha256(sums_of(self.files)).hexdigest()


def sums_of(files: Mapping[str, Entry]) -> bytes:
    return "".join(f"{files[path].sha256}  {path}\n" for path in sorted(files)).encode()


def known_sum(path: str, index: Index | None = None) -> str:
    """The sum that a file must have: by its own name, or by the note of its arrival; empty where nothing says."""
    found = _BLOB.match(path) or _MODEL.match(path)
    if found:
        return found[1]
    noted = index.data["files"].get(path) if index else None
    return str(noted["sha256"]) if noted else ""


# -- writing


def contents(home: str) -> list[str]:
    """Paths of the files that a bundle of this mirror holds, sorted."""
    found = []
    for root in ROOTS:
        for folder, _folders, names in os.walk(os.path.join(home, root)):
            for name in names:
                path = os.path.relpath(os.path.join(folder, name), home)
                if not _NOT.search(path) and os.path.isfile(os.path.join(home, path)):
                    found.append(path)
    return sorted(found)


def write(home: str, target: str, deadline: float) -> Contents:
    """Write it; a bundle that is there is replaced when the new one is whole.

    Raises:
        BundleError: a file of the mirror is damaged, the disk is full, or the time is up.
    """
    index = Index(home)
    paths = contents(home)
    need = sum(os.path.getsize(os.path.join(home, path)) for path in paths)
    check_room(os.path.dirname(target) or ".", need)
    partial = f"{target}.partial"
    files: dict[str, Entry] = {}
    try:
        with tarfile.open(partial, "w", format=tarfile.PAX_FORMAT) as archive:
            for path in paths:
                files[path] = _add(archive, home, path)
                expected = known_sum(path, index)
                if expected and files[path].sha256 != expected:
                    raise BundleError(
                        f"{path} of this mirror is damaged: its sha256 is {files[path].sha256}, and {expected} was "
                        "expected. Remove that file and run playbooks/mirror.yml again; no bundle was written."
                    )
                if time.monotonic() > deadline:
                    raise BundleError("the bundle was not written in time. Raise mirror_timeout.")
            found = Contents(files, index.data)
            described = _described(found)
            _text(archive, LIST, described)
            _text(archive, SUMS, sums_of({**files, LIST: entry_of(described)}))
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        whole = sha256_of(partial)
        os.replace(partial, target)
    finally:
        if os.path.exists(partial):
            os.unlink(partial)
    write_atomically(f"{target}.sha256", f"{whole}  {os.path.basename(target)}\n", 0o644)
    return found


def _described(found: Contents) -> bytes:
    listed = {path: {"sha256": one.sha256, "size": one.size} for path, one in found.files.items()}
    whole = {"format": FORMAT, "files": listed, "index": found.noted}
    return (json.dumps(whole, indent=1, sort_keys=True) + "\n").encode()


def entry_of(content: bytes) -> Entry:
    return Entry(hashlib.sha256(content).hexdigest(), len(content))


class _Summing:
    """A file that is summed while somebody reads it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(size)
        self.digest.update(data)
        return data


def _add(archive: tarfile.TarFile, home: str, path: str) -> Entry:
    with open(os.path.join(home, path), "rb") as file:
        member = tarfile.TarInfo(path)
        member.size = os.fstat(file.fileno()).st_size
        member.mode = 0o644
        summing = _Summing(file)
        archive.addfile(member, summing)
    return Entry(summing.digest.hexdigest(), member.size)


def _text(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o644
    archive.addfile(member, io.BytesIO(content))


def check_room(folder: str, need: int) -> None:
    try:
        free = shutil.disk_usage(folder).free
    except OSError as exc:
        raise BundleError(f"{folder}: {exc.strerror}. Choose another place for the bundle.") from exc
    if need > free:
        raise BundleError(
            f"{folder} has {free >> 20} MB free, and {need >> 20} MB are needed. Nothing was written; make room there."
        )


def fresh_digest(home: str) -> str:
    """What a bundle that is written now would have as its digest; files that were not touched are not read again."""
    index = Index(home)
    files = {}
    for path in contents(home):
        full = os.path.join(home, path)
        known = known_sum(path, index)
        noted = path not in index.data["files"] or index.holds(path)
        files[path] = Entry(known if known and noted else sha256_of(full), os.path.getsize(full))
    return Contents(files, {}).digest


# -- reading


def listed(path: str) -> Contents:
    """What a bundle says is in it, by its last pages; nothing of that is proved.

    Raises:
        BundleError: it is no bundle.
    """
    with opened(path) as archive:
        found = None
        for member in archive:
            if member.name == LIST:
                file = archive.extractfile(member)
                found = parsed(file.read() if file else b"", path)
    if found is None:
        raise BundleError(cut(path))
    return found


def parsed(content: bytes, path: str) -> Contents:
    try:
        found = json.loads(content)
        files = {str(name): Entry(str(one["sha256"]), int(one["size"])) for name, one in found["files"].items()}
        version, index = int(found["format"]), dict(found["index"])
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise BundleError(f"{LIST} of {path} cannot be read; nothing was changed. Copy the bundle again.") from exc
    if version != FORMAT:
        raise BundleError(
            f"{path} was written by another version of this collection (format {version}, this one reads {FORMAT}). "
            "Have it written by the same version."
        )
    return Contents(files, {"files": {}, **index})


def cut(path: str) -> str:
    return (
        f"the bundle {path} is not whole: it ends before its sums ({SUMS}); nothing was changed. Copy it "
        f"again and compare it with {os.path.basename(path)}.sha256."
    )


class opened:
    """A bundle as a tar; whatever is wrong with that comes out as a sentence."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __enter__(self) -> tarfile.TarFile:
        try:
            self.archive = tarfile.open(self.path, "r:")
        except OSError as exc:
            raise BundleError(f"{self.path}: {exc.strerror or exc}. Copy the bundle there, then run again.") from exc
        except tarfile.TarError as exc:
            raise BundleError(f"{self.path} is no bundle ({exc}); nothing was changed.") from exc
        return self.archive

    def __exit__(self, kind: Any, exc: Any, _trace: Any) -> None:
        self.archive.close()
        if isinstance(exc, (tarfile.TarError, EOFError)):
            raise BundleError(cut(self.path)) from exc
