# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""A model store of Ollama on disk: what its manifests name, what is there of it, and who can read it.

    <models_dir>/manifests/<host>/<namespace>/<model>/<tag>   exactly four levels; one dangling link there breaks the
                                                              lists of every model
    <models_dir>/blobs/sha256-<hex>                           and -partial, -partial-0 … of pulls that go on or stopped

The store belongs to whom its top folder belongs to: that is the service user, by whose eyes it is judged.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterable
from typing import Any, NamedTuple

from ansible_collections.llmops.stack.plugins.module_utils._files import (
    ENTER,
    READ,
    WRITE,
    Account,
    account,
    granted,
)
from ansible_collections.llmops.stack.plugins.module_utils._ollama_names import Name

_DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})")
_WEIGHTS = ("application/vnd.ollama.image.model", "application/vnd.ollama.image.tensor")
PARAMS = "application/vnd.ollama.image.params"
_BESIDE = ("application/vnd.ollama.image.projector", "application/vnd.ollama.image.adapter")


class StoreError(Exception):
    """What is wrong and what to do about it."""


class WeightlessError(ValueError):
    """A manifest in order of a model that no node can have."""


class Blob(NamedTuple):
    sha: str
    size: int
    media_type: str

    @property
    def shown(self) -> str:
        """As Ollama's own messages have it, and the logs."""
        return self.sha[:12]


class Manifest:
    """The bytes of a manifest and what they say."""

    def __init__(self, raw: bytes) -> None:
        """Read it.

        Raises:
            ValueError: These bytes are no manifest of a model with weights; the text is half a sentence.
        """
        try:
            data = json.loads(raw)
        except ValueError:
            data = None
        if not isinstance(data, dict):
            raise ValueError("is no JSON object")
        layers = data.get("layers") or []
        if not isinstance(layers, list):
            raise ValueError("has no list of layers")
        config = data.get("config")
        with_config = [config] if isinstance(config, dict) and config.get("digest") else []
        self.layers = [_blob(one) for one in [*layers, *with_config]]
        if not any(one.media_type in _WEIGHTS for one in self.layers):
            raise WeightlessError("names no weights; it runs elsewhere")
        self.raw = raw
        self.sha = hashlib.sha256(raw).hexdigest()
        self.blobs = list({one.sha: one for one in self.layers}.values())
        self.size = sum(one.size for one in self.layers)
        # Equal for the same model, also where a server wrote the manifest in its own way.
        said = "\n".join(f"{one.sha} {one.size} {one.media_type}" for one in self.layers)
        self.content = hashlib.sha256(said.encode()).hexdigest()[:12]

    def same_as(self, other: Manifest) -> bool:
        """Whether both are the same model. A pull writes its own JSON, so that the bytes may differ."""
        return self.sha == other.sha or self.layers == other.layers

    @property
    def weights(self) -> list[Blob]:
        """What a server loads: the weights, and what lets them see or changes them."""
        return [one for one in self.layers if one.media_type in (*_WEIGHTS, *_BESIDE)]


def _blob(data: Any) -> Blob:
    found = _DIGEST.fullmatch(str(data.get("digest"))) if isinstance(data, dict) else None
    size = data.get("size") if isinstance(data, dict) else None
    if not found or not isinstance(size, int) or size < 0:
        raise ValueError("has a layer without a digest and a size")
    return Blob(found.group(1), size, str(data.get("mediaType", "")))


def num_ctx_of(params: bytes) -> int:
    """The context in the layer of a model's parameters, 0 where there is none."""
    try:
        said = json.loads(params)
    except ValueError:
        return 0
    value = said.get("num_ctx") if isinstance(said, dict) else 0
    return value if isinstance(value, int) and value > 0 else 0


class Found(NamedTuple):
    """What stands at a name's place: state is absent, ok, dangling or garbage."""

    path: str
    state: str
    manifest: Manifest | None = None
    reason: str = ""


class Store:
    def __init__(self, models_dir: str) -> None:
        self.models_dir = models_dir
        self.manifests = os.path.join(models_dir, "manifests")
        self.blobs = os.path.join(models_dir, "blobs")

    def exists(self) -> bool:
        return os.path.isdir(self.models_dir)

    # -- manifests

    def find(self, name: Name) -> Found:
        """The manifest of a model, whatever the case of its name on disk."""
        folder = self.manifests
        for part in name.parts:
            folder = os.path.join(folder, _match(folder, part))
        if not os.path.lexists(folder):
            return Found(folder, "absent")
        if os.path.islink(folder) and not os.path.exists(folder):
            return Found(folder, "dangling", reason=f"is a link to {os.readlink(folder)}, which is not there")
        try:
            with open(folder, "rb") as file:
                return Found(folder, "ok", Manifest(file.read()))
        except PermissionError as exc:
            raise StoreError(f"{folder} cannot be read by this module. Run it as root (become: true).") from exc
        except (ValueError, OSError) as exc:
            return Found(folder, "garbage", reason=(exc.strerror or "") if isinstance(exc, OSError) else str(exc))

    def name_of(self, path: str) -> str:
        """The short name that a manifest's path means, with the case that the disk has."""
        return Name(*os.path.relpath(path, self.manifests).split(os.sep)).short

    def dangling(self) -> list[str]:
        """Links to nothing where manifests are."""
        return [path for path in _entries(self.manifests, 4) if not os.path.exists(path)]

    # -- blobs

    def blob_path(self, sha: str) -> str:
        return os.path.join(self.blobs, f"sha256-{sha}")

    def fault(self, blob: Blob) -> str:
        """What is wrong with a blob at first sight: missing, size, or nothing. Its bytes are not read."""
        try:
            found = os.stat(self.blob_path(blob.sha))
        except OSError:
            return "missing"
        return "" if stat.S_ISREG(found.st_mode) and found.st_size == blob.size else "size"

    def partial(self, sha: str) -> int:
        """How much of a blob a stopped pull has left behind, for the next one to go on from."""
        done = 0
        for path in self.partial_files(sha) if os.path.exists(f"{self.blob_path(sha)}-partial") else []:
            with contextlib.suppress(OSError, ValueError, TypeError, AttributeError), open(path, "rb") as file:
                done += int(json.loads(file.read(4096)).get("Completed", 0))
        return done

    def partial_files(self, sha: str) -> list[str]:
        return glob.glob(glob.escape(self.blob_path(sha)) + "-partial*")

    def missing_bytes(self, blobs: Iterable[Blob], bad: Iterable[str] = ()) -> int:
        """What a pull of these would transfer; each counts once. `bad` are there, and will be fetched anew."""
        unique = {one.sha: one for one in blobs}
        damaged = set(bad)
        return sum(
            max(0, one.size - (0 if one.sha in damaged else self.partial(one.sha)))
            for one in unique.values()
            if one.sha in damaged or self.fault(one)
        )

    def used(self, sha: str) -> int:
        """What removing a blob would free."""
        try:
            return os.lstat(self.blob_path(sha)).st_blocks * 512
        except OSError:
            return 0

    def drop(self, sha: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.blob_path(sha))

    def drop_broken_partials(self, blobs: Iterable[Blob]) -> None:
        """A full disk leaves empty notes of what has arrived, and the server refuses to pull over one for ever."""
        for blob in blobs:
            files = self.partial_files(blob.sha)
            if not all(_is_note(path) for path in files if not path.endswith("-partial")):
                for path in files:
                    os.unlink(path)

    def free(self) -> int:
        """Bytes that the service user may still write."""
        path = self.blobs if os.path.isdir(self.blobs) else self.models_dir
        found = os.statvfs(path)
        return (found.f_bfree if self.owner().uid == 0 else found.f_bavail) * found.f_frsize

    # -- permissions

    def owner(self) -> Account:
        found = os.stat(self.models_dir)
        return account(found.st_uid, found.st_gid)

    def unreadable(self, found: Found, blobs: Iterable[Blob]) -> list[str]:
        """What of a model its service user cannot read, as far as owner, group and mode tell."""
        who = self.owner()
        files = [found.path, *(self.blob_path(one.sha) for one in blobs)]
        wrong = [path for path in self._folders(found.path) if not _may(path, who, READ | ENTER)]
        return wrong + [path for path in files if os.path.exists(path) and not _may(path, who, READ)]

    def unwritable(self, found: Found, blobs: Iterable[Blob]) -> list[str]:
        """What would make a pull fail after it has fetched everything: things of root in a store of somebody else."""
        who = self.owner()
        path = found.path
        wrong = [folder for folder in self._folders(path) if not _may(folder, who, READ | WRITE | ENTER)]
        files = [path, *(one for blob in blobs for one in self.partial_files(blob.sha))]
        return wrong + [one for one in files if os.path.isfile(one) and not _may(one, who, READ | WRITE)]

    def _folders(self, path: str) -> list[str]:
        folders = [self.models_dir, self.blobs, self.manifests]
        below = os.path.relpath(os.path.dirname(path), self.manifests).split(os.sep)
        folders += [os.path.join(self.manifests, *below[: count + 1]) for count in range(len(below))]
        return [folder for folder in folders if os.path.isdir(folder)]

    def give(self, path: str) -> None:
        """Hand a file or folder of the store to the service user. Links are not followed: they may lead out of it."""
        who = self.owner()
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                mode = os.fstat(descriptor).st_mode
                os.fchown(descriptor, who.uid, who.gid)
                os.fchmod(descriptor, stat.S_IMODE(mode) | (0o755 if stat.S_ISDIR(mode) else 0o644))
            finally:
                os.close(descriptor)
        except OSError as exc:
            raise StoreError(
                f"{path} cannot be read or written by {who.name}, to whom the store belongs, and cannot be handed over "
                f"({exc.strerror}). Correct its owner or mode."
            ) from exc


def _may(path: str, who: Account, bits: int) -> bool:
    try:
        return granted(os.stat(path), who.uid, who.groups, bits)
    except OSError:
        return who.uid == 0


def _is_note(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return isinstance(json.loads(file.read()), dict)
    except (OSError, ValueError):
        return False


def _entries(folder: str, depth: int) -> list[str]:
    """What lies exactly so deep below a folder, hidden names too."""
    found = [folder]
    for _level in range(depth):
        found = [one.path for path in found if os.path.isdir(path) for one in os.scandir(path)]
    return found


def _match(folder: str, part: str) -> str:
    """The entry that is this part of a name, in any case; an exact one wins."""
    try:
        names = os.listdir(folder)
    except OSError:
        return part
    if part in names:
        return part
    return next((one for one in sorted(names) if one.lower() == part.lower()), part)
