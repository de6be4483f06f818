# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Package repositories as files, unchanged: what they list, and of that the packages that are wanted.

What is listed and not there is asked for by nobody. The lists are the signed ones, so a host checks them with the
publisher's key; each file is checked against them here.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import lzma
import os
import re
import urllib.parse
from collections.abc import Mapping
from typing import Any, NamedTuple
from xml.etree import ElementTree

from ansible_collections.llmops.stack.plugins.module_utils._mirror_fetch import Fetcher, MirrorError
from ansible_collections.llmops.stack.plugins.module_utils._mirror_index import Index

__all__ = ["Repository", "order"]

_COMMON = "{http://linux.duke.edu/metadata/common}"
_REPO = "{http://linux.duke.edu/metadata/repo}"
_PINNED = ("docker-ce", "docker-ce-cli")


class Listed(NamedTuple):
    """A package that a repository lists."""

    name: str
    version: str
    path: str  # below the repository
    sha256: str
    size: int
    depends: str = ""


class Repository:
    def __init__(self, fetcher: Fetcher, index: Index, need: Mapping[str, Any]) -> None:
        self.fetcher = fetcher
        self.index = index
        self.need = need
        self.root = str(need["path"])
        self.received = 0
        self.files: list[str] = []
        self.heads: dict[str, bytes] = {}  # what names the lists: comes last, so that they never contradict each other

    def held(self) -> bool:
        """Whether this was fetched before, for the same wish, and is all there."""
        noted = self.index.get("repositories", str(self.need["name"]))
        return (
            noted is not None and noted["wish"] == self._wish() and all(self.index.holds(one) for one in noted["files"])
        )

    def _wish(self) -> str:
        return f"{' '.join(self.need['packages'])} {self.need.get('version') or ''}".strip()

    def size(self) -> int:
        """Bytes of packages that are still to come; lists are asked for, and not kept."""
        return sum(one.size for one in self._chosen(self._listed(keep=False)) if not self._has(one))

    def bring(self) -> int:
        """Have it; returns how many bytes came.

        Raises:
            MirrorError: it lacks a package, or something of it is not what its lists say.
        """
        chosen = self._chosen(self._listed(keep=True))
        for one in chosen:
            self._file(one.path, one.sha256)
        self._file(str(self.need["key"]), "", below=False)
        for path, content in self.heads.items():
            self._head(f"www/{self.root}/{path}", content)
        noted = {"wish": self._wish(), "files": sorted(set(self.files)), "depends": _depends(chosen)}
        self.index.put("repositories", str(self.need["name"]), noted)
        self.index.save()
        return self.received

    def _url(self, path: str) -> str:
        """A file's name may hold what means something else in an address, such as %3a for the colon of a version."""
        return self.fetcher.sources.url(urllib.parse.quote(path, safe="/~+:@=,"))

    def _has(self, one: Listed) -> bool:
        return self.index.holds(f"www/{self.root}/{one.path}", one.sha256)

    def _listed(self, keep: bool) -> list[Listed]:
        return (self._deb if self.need["form"] == "deb" else self._rpm)(keep)

    def _chosen(self, listed: list[Listed]) -> list[Listed]:
        """The newest of each; of the engine that which is pinned."""
        version = str(self.need.get("version") or "")
        found = []
        for name in self.need["packages"]:
            pinned = version if name in _PINNED else ""
            fitting = [one for one in listed if one.name == name and pinned in one.version]
            if not fitting:
                raise MirrorError(
                    f"{self.fetcher.sources.url(self.root)} lists no package {name}{f' {pinned}' if pinned else ''}.",
                    "Correct docker_version, or have it where the mirror fetches from.",
                )
            found.append(max(fitting, key=lambda one: order(one.version)))
        return found

    def _file(self, path: str, sha256: str, below: bool = True) -> None:
        """One file at its place; without a sum it is the index of the others, which is always fetched anew."""
        path = f"{self.root}/{path}" if below else path
        kept = f"www/{path}"
        if not sha256 or not self.index.holds(kept, sha256):
            got = self.fetcher.file(self._url(path), self.index.absolute(kept), sha256)
            self.received += got.received
            self.index.note(kept, got.sha256, str(self.need["name"]))
        self.files.append(kept)

    def _content(self, path: str, sha256: str, keep: bool) -> bytes:
        if keep:
            self._file(path, sha256)
            with open(self.index.absolute(f"www/{self.root}/{path}"), "rb") as file:
                return file.read()
        content = self.fetcher.content(self._url(f"{self.root}/{path}"))
        if sha256 and hashlib.sha256(content).hexdigest() != sha256:
            raise MirrorError(f"{self._url(f'{self.root}/{path}')} is not what its index says.", "Run again.")
        return content

    def _head(self, kept: str, content: bytes) -> None:
        target = self.index.absolute(kept)
        os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
        with open(f"{target}.new", "wb") as file:
            file.write(content)
        os.replace(f"{target}.new", target)
        self.index.note(kept, hashlib.sha256(content).hexdigest(), str(self.need["name"]))
        self.files.append(kept)

    def _named(self, path: str) -> bytes:
        content = self.fetcher.content(self._url(f"{self.root}/{path}"))
        self.heads[path] = content
        return content

    # -- apt

    def _deb(self, keep: bool) -> list[Listed]:
        flat = self.need["suite"] == "/"
        folder = "" if flat else f"dists/{self.need['suite']}/"
        release = self._named(f"{folder}InRelease").decode("utf-8", "replace")
        sums = _sums(release)
        part = "" if flat else f"{self.need['component']}/binary-{self.need['arch']}/"
        names = [name for name in sums if re.fullmatch(re.escape(part) + r"Packages(\.(gz|xz|bz2))?", name)]
        if not names:
            raise MirrorError(
                f"{self.fetcher.sources.url(self.root)} has no packages for {part.rstrip('/') or self.need['arch']}.",
                "Correct docker_repo_channel, or the system in mirror_systems.",
            )
        text = ""
        for name in sorted(names, key=len):
            content = self._variant(f"{folder}{name}", sums[name], keep)
            text = text or _unpacked(name, content).decode("utf-8", "replace")
            if keep and content and re.search(r"(?m)^Acquire-By-Hash: yes", release):
                self._by_hash(f"{folder}{name}", sums[name])
        return _stanzas(text)

    def _variant(self, path: str, sha256: str, keep: bool) -> bytes:
        """apt takes one of several packings, and a publisher need not have all that it lists."""
        try:
            return self._content(path, sha256, keep)
        except MirrorError as exc:
            if "(HTTP 4" in exc.reason:
                return b""
            raise

    def _by_hash(self, path: str, sha256: str) -> None:
        source = f"www/{self.root}/{path}"
        kept = f"{os.path.dirname(source)}/by-hash/SHA256/{sha256}"
        target = self.index.absolute(kept)
        os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
        if not os.path.exists(target):
            os.link(self.index.absolute(source), target)
        self.index.note(kept, sha256, str(self.need["name"]))
        self.files.append(kept)

    # -- dnf

    def _rpm(self, keep: bool) -> list[Listed]:
        head = ElementTree.fromstring(self._named("repodata/repomd.xml"))  # noqa: S314 - expat bounds what entities grow to
        with contextlib.suppress(MirrorError):  # where it is missing, the packages themselves are signed
            self._named("repodata/repomd.xml.asc")
        found: list[Listed] = []
        for data in head.iter(f"{_REPO}data"):
            location, checksum = data.find(f"{_REPO}location"), data.find(f"{_REPO}checksum")
            if location is None or checksum is None or checksum.get("type") != "sha256":
                continue
            primary = data.get("type") == "primary"
            if keep or primary:
                name = str(location.get("href"))
                content = self._content(name, str(checksum.text), keep)
                found += _primary(_unpacked(name, content)) if primary else []
        return [one for one in found if one.name in self.need["packages"]]


def _sums(release: str) -> dict[str, str]:
    """Path: sha256, of a Release file."""
    section = re.search(r"(?ms)^SHA256:[^\n]*\n((?: [^\n]*\n)+)", release + "\n")
    return {
        line.split()[2]: line.split()[0]
        for line in (section[1] if section else "").splitlines()
        if len(line.split()) == 3
    }


def _unpacked(name: str, content: bytes) -> bytes:
    for suffix, unpack in ((".gz", gzip.decompress), (".xz", lzma.decompress), (".bz2", bz2.decompress)):
        if name.endswith(suffix) and content:
            return unpack(content)
    if name.endswith(".zst"):
        raise MirrorError(f"{name} is packed with zstd, which a mirror cannot read.", "Ask for a list packed as .gz.")
    return content


def _stanzas(text: str) -> list[Listed]:
    found = []
    for stanza in re.split(r"\n\s*\n", text):
        fields = dict(re.findall(r"(?m)^([A-Za-z0-9-]+): *(.*)$", stanza))
        if {"Package", "Version", "Filename", "SHA256"} <= set(fields):
            path = re.sub(r"^(\./)+", "", fields["Filename"])
            size = int(fields.get("Size") or 0)
            depends = ", ".join(fields[key] for key in ("Pre-Depends", "Depends") if key in fields)
            found.append(Listed(fields["Package"], fields["Version"], path, fields["SHA256"], size, depends))
    return found


def _depends(chosen: list[Listed]) -> str:
    """What these packages want of the distribution, in the words of a package."""
    own = {one.name for one in chosen}
    parts = [part.strip() for one in chosen for part in one.depends.split(",")]
    return ", ".join(sorted({part for part in parts if part and re.split(r"[ (:|]", part)[0] not in own}))


def _primary(content: bytes) -> list[Listed]:
    found = []
    for package in ElementTree.fromstring(content).iter(f"{_COMMON}package"):  # noqa: S314 - of the sum that repomd.xml names
        name, version = package.findtext(f"{_COMMON}name"), package.find(f"{_COMMON}version")
        location, checksum = package.find(f"{_COMMON}location"), package.find(f"{_COMMON}checksum")
        size = package.find(f"{_COMMON}size")
        if name and version is not None and location is not None and checksum is not None:
            full = f"{version.get('epoch') or 0}:{version.get('ver')}-{version.get('rel')}"
            weight = int((size.get("package") if size is not None else 0) or 0)
            found.append(Listed(name, full, str(location.get("href")), str(checksum.text), weight))
    return found


def order(version: str) -> tuple[int, list[tuple[tuple[int, ...], int]]]:
    """A key that sorts versions of packages as dpkg does, and near enough as rpm does."""
    epoch, colon, rest = version.partition(":")
    if not colon or not epoch.isdigit():
        epoch, rest = "0", version
    parts = []
    for text, number in re.findall(r"(\D*)(\d*)", rest):
        rank = tuple(-1 if one == "~" else ord(one) + (0 if one.isalpha() else 256) for one in text)
        parts.append(((*rank, 0), int(number or 0)))
    return int(epoch), parts
