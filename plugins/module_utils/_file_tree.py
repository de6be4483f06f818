# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""A folder that holds exactly what it is told to: what is wanted, what is there, what differs, and the change itself.

Nothing below the folder is reached through a link: links are foreign like any other file, so they are replaced or
removed themselves, and what they lead to is left alone.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

__all__ = [
    "MARKER",
    "Attributes",
    "Difference",
    "Tree",
    "TreeError",
    "Wanted",
    "mask",
    "parents",
    "place",
    "run",
    "wanted",
]

MARKER = ".llmops-tree"
_MARKER_TEXT = b"Written by llmops.stack: whatever else is put into this folder is removed by its next run.\n"
# Temporary files, too, so that one left behind by a run that was killed makes no folder look foreign.
_TEMPORARY = MARKER + "-"
_PUBLIC, _SECRET, _FOLDER = 0o644, 0o600, 0o755
_HIDDEN_FROM = 8  # shorter parts of a secret file are words like "true"


class TreeError(Exception):
    """What was asked for cannot be; the text says why and what to do."""


class Attributes(NamedTuple):
    owner: int
    group: int
    mode: int


@dataclass(frozen=True)
class Wanted:
    files: Mapping[str, bytes]
    secret: frozenset[str]
    folders: Mapping[str, Attributes]
    keep: frozenset[str]

    @property
    def made(self) -> set[str]:
        """Folders that there must be: the folder itself, those on the way to a file, those asked for."""
        return {"", *self.folders, *_above((*self.files, *self.folders))}

    @property
    def inner(self) -> set[str]:
        """Folders that hold something wanted, so that not all of their content is foreign."""
        return _above((*self.files, *self.folders, *self.keep))

    def mode(self, name: str) -> int:
        return _SECRET if name in self.secret else _PUBLIC

    def wants(self, name: str) -> bool:
        """Whether something else is to be in its place."""
        return name.rstrip("/") in {*self.inner, *self.files}


@dataclass
class Difference:
    removed: list[str] = field(default_factory=list)  # folders end with a slash
    folders: list[str] = field(default_factory=list)  # missing, or with another owner or mode; "" is the folder itself
    files: list[str] = field(default_factory=list)
    before: dict[str, bytes] = field(default_factory=dict)  # content of these files, as far as it is no secret
    content: set[str] = field(default_factory=set)  # those of these files that differ in more than owner and mode

    def __bool__(self) -> bool:
        return bool(self.removed or self.folders or self.files)


def place(given: str) -> str:
    """The folder in its plain form.

    Raises:
        TreeError: no folder that one program may have for itself.
    """
    path = os.path.normpath(given)
    if not path.startswith("/") or ".." in given.split("/") or path.count("/") < 2 or path.startswith("//"):
        raise TreeError(
            f"path is {given!r}, and it must be absolute, without .., and two folders deep or deeper, such as "
            "/opt/traceloop: everything in it that is not asked for is removed."
        )
    return path


def parents(name: str) -> list[str]:
    """The folders above it, the highest first."""
    parts = name.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


def wanted(
    files: Mapping[str, Any],
    secret_files: Mapping[str, Any],
    directories: Iterable[Mapping[str, Any]] = (),
    keep: Iterable[str] = (),
) -> Wanted:
    """What the folder is to hold.

    Raises:
        TreeError: a name that leads elsewhere, two things of one name, or one below another that is left alone.
    """
    twice = sorted(set(files).intersection(secret_files))
    if twice:
        raise TreeError(f"{', '.join(twice)} is both in files and in secret_files. Give it in one of them.")
    contents = {_name(name): _bytes(name, text) for name, text in (*files.items(), *secret_files.items())}
    folders = {_name(one["path"]): _folder(one) for one in directories}
    found = Wanted(contents, frozenset(map(_name, secret_files)), folders, frozenset(map(_name, keep)))
    apart = found.keep.union(folders)
    for name in (*contents, *apart):
        if [name in contents, name in found.keep, name in folders].count(True) > 1:
            raise TreeError(f"{name} is given twice, as a file, in directories or in keep. Give it in one of them.")
        for above in parents(name):
            if above in apart:
                raise TreeError(f"{name} is to be below {above}, whose content is left alone. Move one of them.")
            if above in contents:
                raise TreeError(f"{name} is to be below {above}, which is a file. Rename one of them.")
    return found


def _above(names: Iterable[str]) -> set[str]:
    return {one for name in names for one in parents(name)}


def _name(given: Any) -> str:
    name = str(given)
    parts = name.split("/")
    if not name or "\0" in name or any(part in ("", ".", "..") for part in parts):
        raise TreeError(f"{name!r} must be a path below the folder, without a leading slash, . or .. in it.")
    if parts[0].startswith(MARKER):
        raise TreeError(f"{name} cannot be given: names that begin with {MARKER} are this module's own.")
    return name


def _bytes(name: Any, text: Any) -> bytes:
    if not isinstance(text, str):
        raise TreeError(f"The content of {name} must be text, and is of the type {type(text).__name__}.")
    return text.encode("utf-8", "surrogateescape")


def _folder(given: Mapping[str, Any]) -> Attributes:
    return Attributes(
        _number(given, "owner", os.geteuid(), lambda name: pwd.getpwnam(name).pw_uid),
        _number(given, "group", os.getegid(), lambda name: grp.getgrnam(name).gr_gid),
        _mode(given),
    )


def _number(given: Mapping[str, Any], key: str, default: int, look_up: Any) -> int:
    value = given.get(key)
    if value is None or value == "":
        return default
    if str(value).isdigit():
        return int(str(value))
    try:
        return int(look_up(str(value)))
    except KeyError:
        raise TreeError(
            f"{given['path']} is to have the {key} {value}, which this host does not know. Give a number, or make it "
            "first."
        ) from None


def _mode(given: Mapping[str, Any]) -> int:
    value = given.get("mode")
    if value is None or value == "":
        return _FOLDER
    if isinstance(value, str) and re.fullmatch(r"[0-7]{3,5}", value):
        value = int(value, 8)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 0o7777:
        raise TreeError(
            f'{given["path"]} is to have the mode {value}, which is none. Write it like "0750", with quotes.'
        )
    return value


def run(argv: list[str], deadline: float) -> tuple[int, str, str]:
    """Exit code, output and errors of a program, which is ended with all that it started when its time is over.

    Raises:
        TimeoutError: that happened.
        OSError: it cannot be started.
    """
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=deadline)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise TimeoutError from None
        return process.returncode, out, err


def mask(text: str, secrets: Iterable[bytes]) -> str:
    """The text without what a secret file says: its lines, the values in them, and the words of these."""
    found: set[str] = set()
    for content in secrets:
        for line in content.decode("utf-8", "replace").splitlines():
            if line.lstrip().startswith("#"):
                continue
            _key, separator, after = (
                re.split(r"([=:])", line, maxsplit=1) if re.search("[=:]", line) else ("", "", line)
            )
            value = after.strip(" \t\"',")
            found.update((line.strip() if separator else value, value, *re.split(r"[\s\"',;=]+", value)))
    for secret in sorted((one for one in found if len(one) >= _HIDDEN_FROM), key=len, reverse=True):
        text = text.replace(secret, "(hidden)")
    return text


class Tree:
    """The folder on this host. Looks by itself; changes only what it is asked to."""

    def __init__(self, path: str) -> None:
        self.path = place(path)
        self.own = Attributes(os.geteuid(), os.getegid(), _FOLDER)

    def at(self, name: str) -> str:
        return os.path.join(self.path, name) if name else self.path

    def like(self, wish: Wanted, name: str) -> Attributes:
        """Owner and mode of one of the files."""
        return self.own._replace(mode=wish.mode(name))

    def exists(self) -> bool:
        """Whether the folder is there and ours.

        Raises:
            TreeError: it holds something and has no marker, or is no folder.
        """
        try:
            seen = os.lstat(self.path)
        except FileNotFoundError:
            return False
        if not stat.S_ISDIR(seen.st_mode):
            what = f"a link to {os.readlink(self.path)}" if stat.S_ISLNK(seen.st_mode) else "no folder"
            raise TreeError(
                f"{self.path} is {what}. Nothing was changed. Give the folder itself, or remove what is there."
            )
        names = os.listdir(self.path)
        if MARKER not in names and self._holds_files():
            raise TreeError(
                f"{self.path} holds {', '.join(sorted(names)[:5])} and no {MARKER}, so this collection did not make it "
                "and removes nothing in it. Nothing was changed. Give another folder, or move that one away."
            )
        return True

    def _holds_files(self) -> bool:
        """Folders with nothing in them are what Docker makes in the place of a mount that it does not find."""
        return any(
            not (above == self.path and name.startswith(_TEMPORARY))
            for above, folders, files in os.walk(self.path)
            for name in (*files, *(one for one in folders if os.path.islink(os.path.join(above, one))))
        )

    def difference(self, wish: Wanted) -> Difference:
        found = Difference()
        present: dict[str, os.stat_result] = {}
        made, inner = wish.made, wish.inner
        leading = _above((*wish.folders, *wish.keep)).union(wish.folders)
        if self.exists():
            present[""] = os.lstat(self.path)
            for name, seen in self._walk("", inner):
                folder = stat.S_ISDIR(seen.st_mode)
                if not folder and name in leading:
                    raise TreeError(
                        f"{self.at(name)} must be a folder and is {_kind(seen)}, which is not followed. Nothing was "
                        "changed. Move it away, or mount there what it leads to."
                    )
                if name in wish.keep or name in wish.files or (folder and (name in inner or name in wish.folders)):
                    present[name] = seen
                else:
                    found.removed.append(f"{name}/" if folder else name)
        for name in sorted(made.union(inner)):
            like = wish.folders.get(name, self.own)
            if name in made if name not in present else not _is_like(present[name], like):
                found.folders.append(name)
        for name in sorted(wish.files):
            self._compare_file(wish, name, present.get(name), found)
        found.removed.sort()
        return found

    def _walk(self, below: str, inner: set[str]) -> Iterator[tuple[str, os.stat_result]]:
        with os.scandir(self.at(below)) as entries:
            found = sorted((entry.name, entry.stat(follow_symlinks=False)) for entry in entries)
        for base, seen in found:
            name = f"{below}/{base}" if below else base
            if name == MARKER:
                continue
            yield name, seen
            if name in inner and stat.S_ISDIR(seen.st_mode):
                yield from self._walk(name, inner)

    def _compare_file(self, wish: Wanted, name: str, seen: os.stat_result | None, found: Difference) -> None:
        old = b""
        if seen is not None and stat.S_ISREG(seen.st_mode):
            with open(self.at(name), "rb") as file:
                old = file.read()
            if old == wish.files[name]:
                if not _is_like(seen, self.like(wish, name)):
                    found.files.append(name)
                return
            # What only its owner could read may have been a secret under another wish.
            if name not in wish.secret and seen.st_mode & 0o077:
                found.before[name] = old
        elif seen is not None and stat.S_ISDIR(seen.st_mode):
            found.removed.append(f"{name}/")
        found.files.append(name)
        found.content.add(name)

    def apply(self, wish: Wanted, difference: Difference) -> None:
        """Bring the folder to what is wanted; files are replaced one by one, each in one step."""
        self._make("", self.own)
        if not os.path.lexists(self.at(MARKER)):
            self._write(MARKER, _MARKER_TEXT, self.own._replace(mode=_PUBLIC))
        in_the_way = {one.rstrip("/") for one in difference.removed if wish.wants(one)}
        for name in sorted(in_the_way):
            self._remove(name)
        for name in difference.folders:
            if name:
                self._make(name, wish.folders.get(name, self.own))
        for name in difference.files:
            if name in difference.content:
                self._write(name, wish.files[name], self.like(wish, name))
            else:
                self._set(name, self.like(wish, name))
        # What is not wanted any more goes last: a program that runs finds the new before it misses the old.
        for name in difference.removed:
            if name.rstrip("/") not in in_the_way:
                self._remove(name.rstrip("/"))

    def remove(self) -> None:
        """All of it. The marker goes last, so that a removal that was interrupted can be finished."""
        for name in sorted(os.listdir(self.path)):
            if name != MARKER:
                self._remove(name)
        self._remove(MARKER)
        os.rmdir(self.path)

    def _make(self, name: str, like: Attributes) -> None:
        if not name:
            os.makedirs(os.path.dirname(self.path), mode=_FOLDER, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkdir(self.at(name), 0o700)
        self._set(name, like)

    def _set(self, name: str, like: Attributes) -> None:
        # By a handle: whoever owns the folder above could put a link in the place after it was looked at.
        handle = os.open(self.at(name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            _dress(handle, like)
        finally:
            os.close(handle)

    def _write(self, name: str, content: bytes, like: Attributes) -> None:
        path = self.at(name)
        handle, temporary = tempfile.mkstemp(prefix=_TEMPORARY, dir=os.path.dirname(path))
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                _dress(file.fileno(), like)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise

    def _remove(self, name: str) -> None:
        path = self.at(name)
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISDIR(os.lstat(path).st_mode):
                shutil.rmtree(path)
            else:
                os.unlink(path)


def _dress(handle: int, like: Attributes) -> None:
    seen = os.fstat(handle)
    if (seen.st_uid, seen.st_gid) != (like.owner, like.group):
        os.fchown(handle, like.owner, like.group)
    os.fchmod(handle, like.mode)  # after chown, which takes away special bits


def _is_like(seen: os.stat_result, like: Attributes) -> bool:
    return (seen.st_uid, seen.st_gid, stat.S_IMODE(seen.st_mode)) == (like.owner, like.group, like.mode)


def _kind(seen: os.stat_result) -> str:
    return "a link" if stat.S_ISLNK(seen.st_mode) else "a file"
