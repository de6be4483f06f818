# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""A mirror that is filled from a bundle: the whole of it is proved first, and then laid beside its place and moved."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from typing import IO, Any

from ansible_collections.llmops.stack.plugins.module_utils._download import sha256_of
from ansible_collections.llmops.stack.plugins.module_utils._mirror_bundle import (
    LIST,
    ROOTS,
    SUMS,
    BundleError,
    Contents,
    Entry,
    check_room,
    cut,
    entry_of,
    known_sum,
    opened,
    parsed,
    sums_of,
)
from ansible_collections.llmops.stack.plugins.module_utils._mirror_index import Index

__all__ = ["lacking", "read", "verify"]

_CHUNK = 1 << 20


def verify(path: str) -> Contents:
    """Read all of it, and see that it is what it says; nothing is written.

    Raises:
        BundleError: what is wrong, with the names of files that are damaged, missing or should not be there.
    """
    seen: dict[str, Entry] = {}
    said: Contents | None = None
    sums = b""
    with opened(path) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isreg() else None
            if file is None or not _is_inside(member.name) or member.name in seen:
                raise BundleError(
                    f"{path} holds {member.name!r}, which no bundle has: its files have one of {', '.join(ROOTS)} "
                    "before their name, and each is there once. Do not use it; nothing was changed."
                )
            if member.name in (LIST, SUMS):
                content = file.read()
                if member.name == LIST:
                    said, described = parsed(content, path), entry_of(content)
                else:
                    sums = content
                continue
            seen[member.name] = Entry(_sum(file), member.size)
    if said is None or not sums:
        raise BundleError(cut(path))
    _compare(path, said, seen, sums_of({**said.files, LIST: described}) == sums)
    return said


def _compare(path: str, said: Contents, seen: Mapping[str, Entry], agreed: bool) -> None:
    missing = sorted(set(said.files) - set(seen))
    extra = sorted(set(seen) - set(said.files))
    damaged = sorted(
        name
        for name in set(seen) & set(said.files)
        if seen[name] != said.files[name] or known_sum(name) not in ("", seen[name].sha256)
    )
    wrong = [
        f"{words}: {', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"
        for words, names in (("damaged", damaged), ("missing", missing), ("not listed", extra))
        if names
    ]
    if not wrong and not agreed:
        wrong = [f"damaged: {LIST} or {SUMS}"]
    if wrong:
        raise BundleError(
            f"the bundle {path} is not as it was written, {'; '.join(wrong)}. Nothing was changed. Copy it again and "
            f"compare it with {os.path.basename(path)}.sha256, or have it written anew."
        )


def read(path: str, home: str, said: Contents, deadline: float) -> dict[str, int]:
    """Put what a verified bundle holds into a mirror; what the mirror has already stays as it is.

    Everything is laid down beside its place first, and summed again. Names that lead to others come last.

    Returns:
        C(files) and C(bytes) that were new.

    Raises:
        BundleError: the disk is full, the bundle has changed since, or the time is up; the mirror is as it was.
    """
    index = Index(home)
    wanted = lacking(index, said)
    check_room(home, sum(one.size for one in wanted.values()))
    staging = os.path.join(home, ".incoming", "bundle")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        for name in _unpack(path, staging, wanted):
            if time.monotonic() > deadline:
                raise BundleError(
                    f"the bundle was not read in time ({name}). Raise mirror_timeout; nothing was changed."
                )
        for name in sorted(wanted, key=_place):
            _move(os.path.join(staging, name), home, name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    for name, one in said.files.items():
        if name in said.noted["files"]:
            index.note(name, one.sha256, str(said.noted["files"][name].get("for") or ""))
    for section in ("images", "models", "plugins", "repositories"):
        for name, value in (said.noted.get(section) or {}).items():
            index.put(section, name, _joined(index.get(section, name), value))
    index.save()
    return {"files": len(wanted), "bytes": sum(one.size for one in wanted.values())}


def lacking(index: Index, said: Contents) -> dict[str, Entry]:
    """What of the bundle the mirror does not have."""
    return {name: one for name, one in said.files.items() if not _has(index, name, one)}


def _joined(here: dict[str, Any] | None, there: dict[str, Any]) -> dict[str, Any]:
    """A plugin's wheels of both."""
    if here and "wheels" in here and "wheels" in there:
        return {**there, "wheels": {**here["wheels"], **there["wheels"]}}
    return there


def _has(index: Index, name: str, one: Entry) -> bool:
    target = index.absolute(name)
    try:
        if os.path.getsize(target) != one.size:
            return False
    except OSError:
        return False
    if name in index.data["files"]:
        return index.holds(name, one.sha256)
    return sha256_of(target) == one.sha256


def _unpack(path: str, staging: str, wanted: Mapping[str, Entry]) -> Iterator[str]:
    with opened(path) as archive:
        for member in archive:
            one = wanted.get(member.name)
            file = archive.extractfile(member) if one and member.isreg() else None
            if one is None or file is None:
                continue
            target = os.path.join(staging, member.name)
            os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
            with open(target, "wb") as out:
                digest = _sum(file, out)
                os.fchmod(out.fileno(), 0o644)
                out.flush()
                os.fsync(out.fileno())
            if digest != one.sha256:
                raise BundleError(
                    f"{path} has changed while it was read ({member.name}); nothing was changed. Run again."
                )
            yield member.name
    gone = [name for name in wanted if not os.path.exists(os.path.join(staging, name))]
    if gone:
        raise BundleError(f"{path} has changed while it was read ({gone[0]}); nothing was changed. Run again.")


def _place(name: str) -> tuple[int, str]:
    """Content before what leads to it."""
    late = re.search(r"/manifests/|/_manifests/|/InRelease$|/repomd\.xml", name) is not None
    return (2 if re.search(r"/tags/", name) else 1 if late else 0), name


def _move(source: str, home: str, name: str) -> None:
    """To its place, for whoever writes there: the services own their folders."""
    top = os.path.join(home, name.split("/")[0])
    os.makedirs(top, mode=0o755, exist_ok=True)
    owner = os.stat(top)
    folder = top
    for part in name.split("/")[1:-1]:
        folder = os.path.join(folder, part)
        if not os.path.isdir(folder):
            os.mkdir(folder, 0o755)
            os.chown(folder, owner.st_uid, owner.st_gid)
    os.chown(source, owner.st_uid, owner.st_gid)
    os.replace(source, os.path.join(home, name))


def _sum(file: IO[bytes], out: IO[bytes] | None = None) -> str:
    """Of what is read, and written on its way where it shall go somewhere."""
    digest = hashlib.sha256()
    for chunk in iter(lambda: file.read(_CHUNK), b""):
        digest.update(chunk)
        if out:
            out.write(chunk)
    return digest.hexdigest()


def _is_inside(name: str) -> bool:
    parts = name.split("/")
    if name in (LIST, SUMS):
        return True
    return parts[0] in ROOTS and len(parts) > 1 and not {"", ".", ".."} & set(parts)
