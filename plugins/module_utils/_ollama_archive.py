# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Archives laid over each other in one folder, read in one pass, with nothing in them that reaches out of it."""

from __future__ import annotations

import contextlib
import gzip
import importlib
import os
import shutil
import subprocess
import tarfile
import zlib
from collections.abc import Iterator
from typing import IO, Any, cast

from ansible_collections.llmops.stack.plugins.module_utils._download import ReleaseError

try:
    zstd: Any = importlib.import_module("compression.zstd")  # Python 3.14 reads it by itself
except ImportError:
    zstd = None

__all__ = ["Tree", "refuse_unreadable"]

_CHUNK = 1024 * 1024
_DAMAGE: tuple[type[Exception], ...] = (tarfile.TarError, EOFError, zlib.error, OSError)
if zstd:
    _DAMAGE += (zstd.ZstdError,)


def refuse_unreadable(suffix: str) -> None:
    """Said before an archive is fetched that could not be unpacked."""
    if suffix == ".tar.zst" and not _zstd_program() and zstd is None:
        raise ReleaseError(
            "the archive is packed with Zstandard, and this host has no program zstd. Install the package zstd."
        )


def _zstd_program() -> str:
    return shutil.which("zstd", path=f"{os.environ.get('PATH', '')}:/usr/local/bin:/usr/bin:/bin") or ""


class Tree:
    """A folder in the making.

    Attributes:
        paths: what is in it: bytes of a file, or the target of a link.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.paths: dict[str, int | str] = {}
        os.makedirs(folder)
        self._folders = {""}

    def lay(self, archive: str, shown: str) -> None:
        """Unpack an archive over what is there; `shown` names it in errors."""
        count = 0
        try:
            with _opened(archive) as stream:
                with tarfile.open(fileobj=stream, mode="r|", bufsize=_CHUNK) as packed:
                    for member in packed:
                        count += not member.isdir()
                        self._add(packed, member, shown)
                # The checksum of a compressed file stands at its end, and the archive may say before that that it ends.
                while stream.read(_CHUNK):
                    pass
        except _DAMAGE as exc:
            if isinstance(exc, OSError) and exc.errno is not None:
                raise
            raise ReleaseError(
                f"{shown} is truncated or damaged ({exc}). Put a whole one there, or let ollama_archive_url name "
                "another source."
            ) from exc
        if not count:
            raise ReleaseError(f"{shown} holds no file. Let ollama_archive_url name another source.")
        self._check_links(shown)

    def has_program(self, path: str) -> bool:
        return path in self.paths and os.access(os.path.join(self.folder, path), os.X_OK)

    def _add(self, packed: tarfile.TarFile, member: tarfile.TarInfo, shown: str) -> None:
        if member.name.startswith("/") or ".." in member.name.split("/"):
            raise ReleaseError(f"{shown} holds a path that leads out of the archive: {member.name!r}. Do not use it.")
        path = os.path.normpath(member.name)
        if member.isdir():
            self._make_folder("" if path == "." else path, shown)
            return
        target = os.path.join(self.folder, path)
        self._make_folder(os.path.dirname(path), shown)
        # An overlay replaces what the base has; writing into it would reach every hard link to it.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(target)
        if member.issym():
            os.symlink(member.linkname, target)
            self.paths[path] = member.linkname
        elif member.islnk():
            source = os.path.normpath(member.linkname)
            if not isinstance(self.paths.get(source), int):
                raise self._leads_out(path, member.linkname, shown)
            os.link(os.path.join(self.folder, source), target)
            self.paths[path] = self.paths[source]
        else:
            content = packed.extractfile(member) if member.isreg() else None
            if content is None:
                raise ReleaseError(f"{shown} holds {member.name!r}, which is no file and no link. Do not use it.")
            _write(target, content, 0o755 if member.mode & 0o111 else 0o644)
            self.paths[path] = member.size

    def _make_folder(self, path: str, shown: str) -> None:
        if path in self._folders:
            return
        self._make_folder(os.path.dirname(path), shown)
        if path in self.paths:
            raise ReleaseError(
                f"{shown} has a folder where a file or a link is already: {path!r}. It does not belong to this release."
            )
        os.mkdir(os.path.join(self.folder, path))
        self._folders.add(path)

    def _check_links(self, shown: str) -> None:
        """When all is there, for a link over other links can lead further than its own text says. Until then nothing
        was written through a link."""
        root = os.path.realpath(self.folder)
        for path, target in self.paths.items():
            found = os.path.realpath(os.path.join(self.folder, path))
            if isinstance(target, str) and (target.startswith("/") or not found.startswith(root + os.sep)):
                raise self._leads_out(path, target, shown)

    def _leads_out(self, path: str, target: str, shown: str) -> ReleaseError:
        return ReleaseError(f"{shown} holds a link that leads out of it: {path!r} -> {target!r}. Do not use it.")


@contextlib.contextmanager
def _opened(archive: str) -> Iterator[IO[bytes]]:
    """The tar stream in the archive, whose kind its first bytes tell."""
    with open(archive, "rb") as file:
        magic = file.read(4)
    if magic != b"\x28\xb5\x2f\xfd":
        with gzip.open(archive, "rb") as stream:
            yield cast("IO[bytes]", stream)
    elif _zstd_program():
        with _decompressed([_zstd_program(), "-dcq", "--", archive]) as stream:
            yield stream
    else:
        with zstd.open(archive, "rb") as stream:
            yield stream


@contextlib.contextmanager
def _decompressed(command: list[str]) -> Iterator[IO[bytes]]:
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            yield cast("IO[bytes]", process.stdout)
            said = process.stderr.read().decode("utf-8", "replace").strip() if process.stderr else ""
            if process.wait() != 0:
                raise tarfile.ReadError(said or f"zstd ended with {process.returncode}")
        finally:
            process.kill()


def _write(path: str, content: IO[bytes], mode: int) -> None:
    with open(path, "xb") as file:
        shutil.copyfileobj(content, file, _CHUNK)
        os.fchmod(file.fileno(), mode)
