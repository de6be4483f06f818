# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Folders as tar archives: written while others use the folder, read again in full, and unpacked only where it is safe.

Owners are kept as numbers, because the accounts are those of containers and not of the host. There is no compression:
what Dify stores is compressed already (packages, pictures, office files), and a plain archive is read by any tar.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any, cast

__all__ = ["ArchiveError", "Packed", "pack", "scan", "unpack"]

_CHUNK = 1 << 20
_PIECE = 1 << 18


class ArchiveError(Exception):
    """An archive that is damaged, or that would write elsewhere. One sentence without its full stop."""


@dataclass
class Packed:
    files: int = 0
    bytes: int = 0  # of the archive
    sha256: str = ""
    changed: list[str] = field(default_factory=list)  # gone, or shorter, while they were read
    left_out: list[str] = field(default_factory=list)  # sockets, pipes and devices


class _Hashing:
    """A file to write to that knows the checksum of what went through it."""

    def __init__(self, file: IO[bytes], tick: Callable[[], None]) -> None:
        self.file = file
        self.tick = tick
        self.bytes = 0
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.tick()
        self.digest.update(data)
        self.bytes += len(data)
        return self.file.write(data)


def pack(
    folder: str, path: str, tick: Callable[[], None], skip: Iterable[str] = (), only: Iterable[str] = ()
) -> Packed:
    """Write the folder to an archive at C(path).

    Args:
        tick: called between pieces; raises to give up.
        skip: names below the folder that are left out with all that is in them.
        only: the only entries of the folder itself that are taken; all by default.

    A file that goes or shrinks meanwhile is noted, and is no failure: the database was dumped before, and does not know
    files that came later.
    """
    found = Packed()
    skipped, wanted = set(skip), set(only)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        target = _Hashing(file, tick)
        with tarfile.open(
            fileobj=target,  # type: ignore[call-overload]  # a stream only writes
            mode="w|",
            bufsize=_CHUNK,
            format=tarfile.PAX_FORMAT,
        ) as archive:
            for name in _walk(folder, skipped, wanted):
                _add(archive, folder, name, found)
        file.flush()
        os.fsync(file.fileno())
    found.bytes, found.sha256 = target.bytes, target.digest.hexdigest()
    return found


def _walk(folder: str, skipped: set[str], wanted: set[str], below: str = "") -> Iterator[str]:
    """Names below the folder, each folder before what is in it; the first is the folder itself."""
    yield below or "."
    try:
        with os.scandir(os.path.join(folder, below)) as entries:
            inside = sorted((one.name, one.is_dir(follow_symlinks=False)) for one in entries)
    except FileNotFoundError:
        return
    for base, is_folder in inside:
        name = f"{below}/{base}" if below else base
        if name in skipped or (wanted and not below and base not in wanted):
            continue
        if is_folder:
            yield from _walk(folder, skipped, wanted, name)
        else:
            yield name


def _add(archive: tarfile.TarFile, folder: str, name: str, found: Packed) -> None:
    path = os.path.join(folder, name)
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            info = archive.gettarinfo(path, name)
            if info is None or not (info.isdir() or info.issym()):
                found.left_out.append(name)
                return
            archive.addfile(_by_number(info))
            return
        # By a handle: what was looked at is what is read.
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            info = archive.gettarinfo(arcname=name, fileobj=file)
            reading = _Padded(file, info.size)
            archive.addfile(_by_number(info), cast(IO[bytes], reading) if info.isreg() else None)
    except OSError as exc:
        if exc.errno not in (errno.ENOENT, errno.ELOOP):  # gone, or a link in its place
            raise
        found.changed.append(name)
        return
    found.files += 1
    if reading.short:
        found.changed.append(name)


def _by_number(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uname = info.gname = ""
    return info


class _Padded:
    """Exactly as many bytes as the header has promised, whatever became of the file."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self.file = file
        self.left = size
        self.short = False

    def read(self, size: int = -1) -> bytes:
        want = self.left if size < 0 else min(size, self.left)
        data = self.file.read(want)
        if len(data) < want:
            self.short = True
            data += b"\0" * (want - len(data))
        self.left -= len(data)
        return data


def scan(
    path: str, tick: Callable[[], None], wants: Callable[[str], bool] = lambda name: False
) -> tuple[int, dict[str, bytes]]:
    """Read the whole archive; returns the number of its files and the content of those that are wanted.

    Raises:
        ArchiveError: it ends too early, or is no archive.
    """
    files = 0
    contents: dict[str, bytes] = {}
    with _reading(path) as archive:
        for member in archive:
            tick()
            if member.isreg():
                files += 1
                content = archive.extractfile(member)
                if content is not None and wants(member.name):
                    contents[member.name] = content.read()
            elif member.islnk():
                files += 1
    return files, contents


@contextlib.contextmanager
def _reading(path: str) -> Iterator[tarfile.TarFile]:
    try:
        with open(path, "rb") as file, tarfile.open(fileobj=file, mode="r|", bufsize=_CHUNK) as archive:
            yield archive
    except (tarfile.TarError, EOFError) as exc:
        raise ArchiveError(f"{path} is truncated or damaged ({exc})") from None


def unpack(path: str, folder: str, tick: Callable[[], None]) -> int:
    """Write what the archive holds into the folder, which is empty or not there; returns the number of files.

    Raises:
        ArchiveError: a member that leads out of the folder, or is something that no archive of ours holds.
    """
    made: dict[str, tarfile.TarInfo | None] = {"": None}
    written: set[str] = set()
    os.makedirs(folder, exist_ok=True)
    with _reading(path) as archive:
        for member in archive:
            tick()
            name = _inside(path, member.name)
            target = os.path.join(folder, name)
            # A link in the place of a folder would lead what follows elsewhere.
            if name and os.path.dirname(name) not in made:
                raise ArchiveError(f"{path} holds {member.name!r} before the folder that it is in")
            if member.isdir():
                if name:
                    os.mkdir(target, 0o700)
                made[name] = member
                continue
            if member.isreg():
                _write(archive, member, target, tick)
                _own(target, member)
            elif member.issym():
                os.symlink(member.linkname, target)
                _own(target, member)
            elif member.islnk() and _inside(path, member.linkname) in written:
                os.link(os.path.join(folder, _inside(path, member.linkname)), target)
            else:
                raise ArchiveError(f"{path} holds {member.name!r}, which is no file, folder or link")
            if not member.issym():
                written.add(name)
    for name in sorted(made, key=len, reverse=True):  # the inner ones first: writing into a folder sets its time
        info = made[name]
        if info is not None:
            _own(os.path.join(folder, name), info)
    return len(written)


def _inside(path: str, name: str) -> str:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts:
        raise ArchiveError(f"{path} holds {name!r}, which leads out of the archive")
    return "/".join(parts)


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, target: str, tick: Callable[[], None]) -> None:
    content: Any = archive.extractfile(member)
    with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
        for piece in iter(lambda: content.read(_PIECE), b""):
            tick()
            file.write(piece)


def _own(target: str, member: tarfile.TarInfo) -> None:
    """Owner, mode and time; no archive of ours needs a program that runs as somebody else."""
    if os.geteuid() == 0:
        os.chown(target, member.uid, member.gid, follow_symlinks=False)
    if not member.issym():
        os.chmod(target, member.mode & (0o3777 if member.isdir() else 0o777))
        os.utime(target, (member.mtime, member.mtime))
