# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Releases of Ollama as folders below a home: fetched, proved, unpacked next to each other, and never half there.

Nothing is unpacked before its sha256 is known to be the right one. A tree is made under a hidden name and renamed at
the end. What an interrupted run leaves behind (partial downloads, hidden folders) is used or removed by the next one.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils import _ollama_layout as layout
from ansible_collections.llmops.stack.plugins.module_utils._download import (
    Download,
    Interrupted,
    NotThere,
    ReleaseError,
    Wording,
    bare_digest,
    existing,
    local_path,
    room,
    sha256_of,
    sync_path,
    until,
    write_atomically,
)
from ansible_collections.llmops.stack.plugins.module_utils._http import proxies_for
from ansible_collections.llmops.stack.plugins.module_utils._ollama_archive import Tree, refuse_unreadable
from ansible_collections.llmops.stack.plugins.module_utils._ollama_versions import PROGRAM, parse_version
from ansible_collections.llmops.stack.plugins.module_utils._urls import mask_urls

__all__ = ["ASIDE", "SUMS", "Store"]

WORDS = Wording("ollama", "https://github.com/ollama/ollama/releases")
# As published beside the archives: one line "<sha256>  ./<file>" for each of them.
SUMS = "sha256sum.txt"
# Where a program that stood in the way of our link is kept.
ASIDE = ".before-llmops"

# How many times its size an archive unpacks to, at most; a release of 2 GB has some 4.3 GB.
_GROWTH = 3
_PIECE = 64 * 1024
_MB = 1024 * 1024
_LEFTOVER = re.compile(r"\..+\.(unpacking|removed)")
_PART = re.compile(r"(\..+\.part)(\.json)?")


class _Archive:
    """One archive at its source; `path` is where it lies on this host once it was fetched."""

    def __init__(
        self, name: str, source: str, part: str, deadline: float, proxies: Callable[[str], Mapping[str, str]]
    ) -> None:
        self.name = name
        folder = local_path(source)
        self.shown = mask_urls(f"{source.rstrip('/')}/{name}")
        self.path = os.path.join(folder, name)
        self.download = None
        if not folder:
            url = f"{source.rstrip('/')}/{name}"
            self.download = Download(url, part, deadline, WORDS, _PIECE, proxies(url))
            self.path = part

    def size(self) -> int:
        if self.download:
            return self.download.size()
        if not os.path.isfile(self.path):
            raise ReleaseError(f"there is no archive at {self.path}. Put it there, or correct ollama_archive_url.")
        return os.path.getsize(self.path)

    def still_to_come(self, size: int) -> int:
        """Bytes that it will take on the disk of the home before it is unpacked."""
        if not self.download:
            return 0
        kept = os.path.getsize(self.path) if os.path.exists(self.path) else 0
        return max(0, size - kept)

    def text(self) -> str:
        """The whole file, empty where the source has none."""
        try:
            if self.download:
                self.download.run()
            with open(self.path, encoding="utf-8", errors="replace") as file:
                return file.read()
        except (NotThere, FileNotFoundError):
            return ""
        finally:
            self.forget()

    def fetch(self, expected: str) -> None:
        if self.download:
            self.download.run()
        digest = self.download.digest if self.download else sha256_of(self.path)
        if digest != expected:
            raise ReleaseError(
                f"{self.shown} has the sha256 {digest}, and {expected} was expected. If it was packed anew on purpose, "
                "correct ollama_checksums; if not, do not use it."
            )

    def forget(self) -> None:
        if self.download:
            self.download.forget()

    @property
    def received(self) -> int:
        return self.download.received if self.download else 0


class Store:
    """The releases below one home."""

    def __init__(self, home: str, link: str, proxy: str = "", no_proxy: str = "") -> None:
        self.home = home
        self.link = link
        self.proxy = proxy
        self.no_proxy = no_proxy

    def path(self, version: str) -> str:
        return os.path.join(self.home, version)

    def current(self) -> str:
        return layout.current(self.home)

    def describe(self, version: str) -> str:
        """absent, unpacked, incomplete, or foreign for what this collection did not unpack."""
        if not os.path.lexists(self.path(version)):
            return "absent"
        if layout.read_marker(self.path(version)).get("version") != version or os.path.islink(self.path(version)):
            return "foreign"
        return "unpacked" if layout.is_complete(self.path(version), version) else "incomplete"

    def refuse_foreign(self, version: str) -> None:
        if self.describe(version) == "foreign":
            raise ReleaseError(
                f"{self.path(version)} is there but was not unpacked by this module. Move it away; it may hold what "
                "you need."
            )

    def differs(self, info: Mapping[str, Any], checksums: Mapping[str, str]) -> bool:
        """Whether what is there came from other archives than those that are wanted."""
        noted = layout.read_marker(self.path(info["version"]))["files"]
        pinned = {name: bare_digest(checksums[name]) for name in info["files"] if name in checksums}
        return set(noted) != set(info["files"]) or any(noted[name] != digest for name, digest in pinned.items())

    def install(
        self, info: Mapping[str, Any], source: str, checksums: Mapping[str, str], deadline: float
    ) -> dict[str, Any]:
        """Fetch and unpack, in place of an older tree of the same version; C(deadline) is of C(time.monotonic).

        Returns:
            C(files) (archive: sha256) and C(bytes_downloaded).
        """
        version = info["version"]
        pinned = _pinned(info["files"], checksums)
        with room(self.home, WORDS), _readable_by_all():
            os.makedirs(self.home, exist_ok=True)
            refuse_unreadable(info["suffix"])
            archives = [self._archive(version, name, source, deadline) for name in info["files"]]
            self.clear_leftovers([one.path for one in archives])
            sums = self._archive(version, SUMS, source, deadline)
            try:
                self._check_room(version, archives)
                expected = _expected(info["files"], pinned, sums)
                for one in archives:
                    one.fetch(expected[one.name])
                with until(deadline, lambda: _late(version)):
                    self._unpack(info, archives, expected, mask_urls(source))
            except BaseException as exc:
                # What was cut off is continued by the next run; any other trouble starts from nothing.
                if not isinstance(exc, (Interrupted, KeyboardInterrupt, SystemExit)):
                    for one in archives:
                        one.forget()
                raise
            for one in archives:
                one.forget()
        return {"files": expected, "bytes_downloaded": sum(one.received for one in (*archives, sums))}

    def activate(self, version: str) -> str:
        """Let C(current) and the link on the path lead to the release, each in one step.

        Returns:
            Where a program that was in the way of the link is now, empty without one.
        """
        current = os.path.join(self.home, layout.CURRENT)
        for path in (current, self.link):
            if os.path.isdir(path) and not os.path.islink(path):
                raise ReleaseError(
                    f"{path} is a folder, and a link has to be there. Move it away; it may hold what you need."
                )
        with room(self.home, WORDS):
            _point(current, version)
            aside = self.in_the_way()
            if aside:
                # A second name first, so that at no moment there is no program.
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(aside)
                os.link(self.link, aside, follow_symlinks=False)
            os.makedirs(os.path.dirname(self.link), exist_ok=True)
            _point(self.link, self.target())
            return aside

    def target(self) -> str:
        return os.path.join(self.home, layout.CURRENT, PROGRAM)

    def is_linked(self) -> bool:
        return os.path.islink(self.link) and os.readlink(self.link) == self.target()

    def in_the_way(self) -> str:
        """Where the program has to go that stands where our link belongs."""
        return f"{self.link}{ASIDE}" if os.path.lexists(self.link) and not self.is_linked() else ""

    def superfluous(self, keep: int, version: str = "") -> list[str]:
        """Releases of ours beside the current one, `version` and `keep` whole ones: those that served last, before
        those that never did, as one that did not come up is no good to go back to."""
        found = layout.releases(self.home)
        others = [one for one in found if one not in (self.current(), version)]
        others.sort(key=lambda one: (self._served(one), parse_version(one)), reverse=True)
        kept = [one for one in others if found[one]["complete"]][:keep]
        return [one for one in others if one not in kept]

    def is_last_to_serve(self, version: str) -> bool:
        last = max((self._served(one) for one in layout.releases(self.home)), default=0.0)
        return 0 < last == self._served(version)

    def note_served(self, version: str) -> None:
        noted = {**layout.read_marker(self.path(version)), "served": round(time.time(), 3)}
        with room(self.home, WORDS):
            _write_marker(self.path(version), noted)

    def _served(self, version: str) -> float:
        """When a server was last started from it and answered; 0 for never."""
        return float(layout.read_marker(self.path(version)).get("served") or 0)

    def remove(self, version: str) -> None:
        """Take the release away under a hidden name first, so that a half removed one never looks whole."""
        hidden = self._hidden(version, "removed")
        with room(self.home, WORDS):
            shutil.rmtree(hidden, ignore_errors=True)
            os.rename(self.path(version), hidden)
            shutil.rmtree(hidden)

    def leftovers(self, keep: list[str] | None = None) -> list[str]:
        """Names of what killed runs left, but for these partial files and their notes."""
        kept = [os.path.basename(path) for path in keep or []]
        found = []
        for name in sorted(os.listdir(self.home)) if os.path.isdir(self.home) else []:
            part = _PART.fullmatch(name)
            if _LEFTOVER.fullmatch(name) or (part and part.group(1) not in kept):
                found.append(name)
        return found

    def clear_leftovers(self, keep: list[str] | None = None) -> None:
        for name in self.leftovers(keep):
            path = os.path.join(self.home, name)
            if os.path.isdir(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)

    def _hidden(self, version: str, purpose: str) -> str:
        return os.path.join(self.home, f".{version}.{purpose}")

    def _archive(self, version: str, name: str, source: str, deadline: float) -> _Archive:
        part = self._hidden(version, f"{name}.part")
        return _Archive(name, source, part, deadline, lambda url: proxies_for(url, self.proxy, self.no_proxy))

    def _check_room(self, version: str, archives: list[_Archive]) -> None:
        sizes = [one.size() for one in archives]
        archive = sum(one.still_to_come(size) for one, size in zip(archives, sizes))
        tree = sum(sizes) * _GROWTH
        free = shutil.disk_usage(existing(self.home)).free
        if archive + tree > free:
            raise ReleaseError(
                f"the disk with {self.home} has {free // _MB} MB free, and Ollama {version} needs "
                f"{(archive + tree) // _MB + 1} MB: {archive // _MB} MB to fetch and up to {tree // _MB + 1} MB "
                "unpacked. Nothing was fetched. Make room, or put ollama_home on a larger disk."
            )

    def _unpack(
        self, info: Mapping[str, Any], archives: list[_Archive], digests: Mapping[str, str], source: str
    ) -> None:
        version = info["version"]
        work = self._hidden(version, "unpacking")
        try:
            tree = Tree(work)
            for one in archives:
                tree.lay(one.path, one.shown)
            missing = [path for path in info["required"] if not tree.has_program(path)]
            if missing:
                raise ReleaseError(_gap(version, missing, archives[0].shown))
            tree.paths.pop(layout.MARKER, None)
            note = {
                "version": version,
                "source": source,
                "overlays": info["overlays"],
                "files": dict(digests),
                "tree": tree.paths,
            }
            _write_marker(work, note)
            self._put_in_place(version, work)
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _put_in_place(self, version: str, work: str) -> None:
        target, before = self.path(version), self._hidden(version, "removed")
        if os.path.lexists(target):
            os.rename(target, before)
        try:
            os.rename(work, target)
        except OSError:
            if os.path.lexists(before):
                os.rename(before, target)
            raise
        sync_path(self.home)
        shutil.rmtree(before, ignore_errors=True)


def _write_marker(folder: str, note: Mapping[str, Any]) -> None:
    write_atomically(os.path.join(folder, layout.MARKER), json.dumps(note, indent=1, sort_keys=True) + "\n", 0o644)


def _late(version: str) -> Interrupted:
    return Interrupted(
        f"Ollama {version} was fetched, but not unpacked in time; what was fetched is kept, and the next run goes on "
        "from there. Raise ollama_download_timeout."
    )


def _gap(version: str, missing: list[str], shown: str) -> str:
    outcome = "" if PROGRAM in missing else " A server without it would list models and answer none."
    return (
        f"{shown} lacks {' and '.join(missing)}, which Ollama {version} needs.{outcome} "
        "Use the unchanged archive of the release; nothing was replaced."
    )


def _pinned(names: list[str], checksums: Mapping[str, str]) -> dict[str, str]:
    found = {name: bare_digest(checksums[name]) for name in names if name in checksums}
    for name, digest in found.items():
        if not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise ReleaseError(f"ollama_checksums has '{digest}' for {name}, which is no sha256 (64 hex digits).")
    return found


def _expected(names: list[str], pinned: Mapping[str, str], sums: _Archive) -> dict[str, str]:
    """The sha256 that each archive must have: the operator's, or else the one that was published beside it."""
    known = pinned if len(pinned) == len(names) else {**published(sums.text()), **pinned}
    unproved = [name for name in names if name not in known]
    if unproved:
        raise ReleaseError(
            f"there is nothing to check {' and '.join(unproved)} against: neither ollama_checksums nor {sums.shown} "
            f"has its sha256. Put {SUMS} of the release beside its archives, or the sha256 into ollama_checksums."
        )
    return {name: known[name] for name in names}


def published(text: str) -> dict[str, str]:
    """File: sha256, from the lines of sha256sum; names come with a leading C(./) or, for binary files, C(*)."""
    lines = re.findall(r"(?m)^([0-9a-fA-F]{64})[ \t]+\*?(?:\./)?(\S+)[ \t]*\r?$", text)
    return {name: digest.lower() for digest, name in lines}


def _point(link: str, target: str) -> None:
    temporary = os.path.join(os.path.dirname(link), f".{os.path.basename(link)}.llmops")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    os.symlink(target, temporary)
    os.replace(temporary, link)


@contextlib.contextmanager
def _readable_by_all() -> Iterator[None]:
    """The service runs as a user of its own, whatever umask the login of this host sets."""
    before = os.umask(0o022)
    try:
        yield
    finally:
        os.umask(before)
