# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Releases as folders below a home: fetched, checked, unpacked next to each other, and never half there.

A release is unpacked under a hidden name and renamed at the end, so a folder that has the name of a tag is whole. What
an interrupted run leaves behind (a partial download, a hidden folder) is used or removed by the next one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tarfile
import traceback
import zlib
from collections.abc import Mapping
from typing import IO, Any

from ansible_collections.llmops.stack.plugins.module_utils._dify_layout import (
    COMPOSE_FILE,
    MARKER,
    is_complete,
    lacks,
    read_marker,
)
from ansible_collections.llmops.stack.plugins.module_utils._dify_override import active_services, missing_files
from ansible_collections.llmops.stack.plugins.module_utils._download import (
    HAS_REQUESTS,
    REQUESTS_IMPORT_ERROR,
    Download,
    Interrupted,
    ReleaseError,
    Wording,
    bare_digest,
    local_path,
    room,
    sha256_of,
    sync_path,
    write_atomically,
)
from ansible_collections.llmops.stack.plugins.module_utils._urls import mask_urls

try:
    import yaml
except ImportError:
    HAS_YAML = False
    YAML_IMPORT_ERROR: str | None = traceback.format_exc()
else:
    HAS_YAML = True
    YAML_IMPORT_ERROR = None

__all__ = [
    "COMPOSE_FILE",
    "HAS_REQUESTS",
    "HAS_YAML",
    "MARKER",
    "REQUESTS_IMPORT_ERROR",
    "SHIPPED_VOLUMES",
    "YAML_IMPORT_ERROR",
    "ReleaseError",
    "Store",
    "bare_digest",
    "load_compose",
    "local_path",
    "sha256_of",
    "write_atomically",
]

TEMPLATE = ".env.example"
WORDS = Wording("dify", "https://github.com/langgenius/dify/tags")
# The data folder as the archive ships it; C(volumes) in a release is a link to the data that all releases share.
SHIPPED_VOLUMES = "volumes.shipped"

# The docker folder of any release has less than one MB.
_MAX_UNPACKED = 256 * 1024 * 1024
_CHUNK = 256 * 1024


def load_compose(text: str, path: str) -> dict[str, Any]:
    """The compose file as data, not interpolated."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        compose = yaml.load(text, Loader=loader)  # noqa: S506 - both loaders are the safe ones
    except yaml.YAMLError as exc:
        raise ReleaseError(f"{path} is not YAML: {exc}") from exc
    if not isinstance(compose, dict) or not isinstance(compose.get("services"), dict):
        raise ReleaseError(f"{path} has no services, so it is not the compose file of a Dify release.")
    return compose


class Store:
    """The releases below one home."""

    def __init__(self, home: str) -> None:
        self.home = home
        self.releases = os.path.join(home, "releases")
        self.volumes = os.path.join(home, "volumes")
        self.current_link = os.path.join(home, "current")

    def path(self, tag: str) -> str:
        return os.path.join(self.releases, tag)

    def marker(self, tag: str) -> dict[str, Any]:
        return read_marker(self.path(tag))

    def lacks(self, tag: str) -> list[str]:
        return lacks(self.path(tag), self.marker(tag))

    def is_complete(self, tag: str) -> bool:
        return is_complete(self.path(tag), tag)

    def current(self) -> str:
        try:
            return os.path.basename(os.readlink(self.current_link).rstrip("/"))
        except OSError:
            return ""

    def missing_volume_files(self, tag: str) -> list[str]:
        """Files that the release ships for the data folder and that it does not have."""
        shipped = os.path.join(self.path(tag), SHIPPED_VOLUMES)
        found = []
        for folder, _folders, names in os.walk(shipped):
            for name in names:
                relative = os.path.relpath(os.path.join(folder, name), shipped)
                if not os.path.lexists(os.path.join(self.volumes, relative)):
                    found.append(relative)
        return sorted(found)

    def seed_volumes(self, tag: str) -> list[str]:
        """Copy those files; a file that is there may have been edited, and is never touched."""
        missing = self.missing_volume_files(tag)
        with self.room():
            for relative in missing:
                target = os.path.join(self.volumes, relative)
                os.makedirs(os.path.dirname(target), exist_ok=True)
                with open(os.path.join(self.path(tag), SHIPPED_VOLUMES, relative), encoding="utf-8") as file:
                    write_atomically(target, file.read(), 0o644)
        return missing

    def activate(self, tag: str) -> None:
        """Let C(current) point to the release, in one step."""
        temporary = os.path.join(self.home, f".current.{os.getpid()}")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        os.symlink(os.path.join("releases", tag), temporary)
        os.replace(temporary, self.current_link)

    def remove(self, tag: str) -> None:
        """Take the release away under a hidden name first, so that a half removed one never looks whole."""
        hidden = os.path.join(self.releases, f".{tag}.removed")
        shutil.rmtree(hidden, ignore_errors=True)
        os.rename(self.path(tag), hidden)
        shutil.rmtree(hidden)

    def install(self, tag: str, source: str, checksum: str, deadline: float) -> dict[str, Any]:
        """Fetch and unpack; C(deadline) is a moment of C(time.monotonic).

        Returns:
            C(sha256) of the archive, C(bytes_downloaded), C(warnings).
        """
        with self.room():
            os.makedirs(self.releases, exist_ok=True)
            self._clear_leftovers(tag)
            shown = mask_urls(source)
            local = local_path(source)
            fetch = None if local else Download(source, os.path.join(self.home, f".{tag}.part"), deadline, WORDS)
            try:
                archive = fetch.run() if fetch else local
                if not os.path.isfile(archive):
                    raise ReleaseError(f"there is no archive at {archive}. Correct dify_archive_url.")
                digest = fetch.digest if fetch else sha256_of(archive)
                if checksum and digest != bare_digest(checksum):
                    raise ReleaseError(
                        f"the archive of Dify {tag} at {shown} has the sha256 {digest}, and {checksum} was expected. "
                        "If it was packed anew on purpose, correct dify_archive_checksum; if not, do not use it."
                    )
                warnings = self._unpack(tag, archive, shown, digest)
            except BaseException as exc:
                # A download that was cut off is continued by the next run; any other trouble starts from nothing.
                if fetch and not isinstance(exc, (Interrupted, KeyboardInterrupt, SystemExit)):
                    fetch.forget()
                raise
            if fetch:
                fetch.forget()
            return {"sha256": digest, "bytes_downloaded": fetch.received if fetch else 0, "warnings": warnings}

    def room(self) -> contextlib.AbstractContextManager[None]:
        """Writing below the home; what the system refuses comes out as a sentence."""
        return room(self.home, WORDS)

    def _clear_leftovers(self, tag: str) -> None:
        for name in os.listdir(self.releases):
            if name.startswith(".") and name.endswith((".unpacking", ".removed")):
                shutil.rmtree(os.path.join(self.releases, name), ignore_errors=True)
        for name in os.listdir(self.home):
            if re.match(r"^\..+\.part(\.json)?$", name) and not name.startswith(f".{tag}.part"):
                os.unlink(os.path.join(self.home, name))

    def _unpack(self, tag: str, archive: str, source: str, digest: str) -> list[str]:
        work = os.path.join(self.releases, f".{tag}.unpacking")
        try:
            files = _extract(archive, work, source)
            for name in (COMPOSE_FILE, TEMPLATE):
                if name not in files:
                    raise ReleaseError(
                        f"{source} is not a release archive of Dify: it has no dify-*/docker/{name}. "
                        "dify_archive_url must name the source archive of a tag, as GitHub packs it."
                    )
            path = os.path.join(work, COMPOSE_FILE)
            with open(path, encoding="utf-8") as file:
                compose = load_compose(file.read(), f"docker/{COMPOSE_FILE} of {source}")
            _check_mounts(compose, files, tag, source)
            os.symlink(os.path.join("..", "..", "volumes"), os.path.join(work, "volumes"))
            note = {"tag": tag, "source": source, "sha256": digest, "files": files}
            write_atomically(os.path.join(work, MARKER), json.dumps(note, indent=1, sort_keys=True) + "\n", 0o644)
            self._put_in_place(tag, work, files)
            os.makedirs(self.volumes, exist_ok=True)
            return _odd_images(compose, tag)
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _put_in_place(self, tag: str, work: str, files: Mapping[str, str]) -> None:
        target = self.path(tag)
        if not os.path.lexists(target):
            os.rename(work, target)
        elif not self.marker(tag):
            raise ReleaseError(
                f"{target} is there but was not unpacked by this module. Move it away; it may hold what you need."
            )
        else:
            # The release lost files; what was rendered into it or put there by hand stays.
            for name in [*self.lacks(tag), MARKER]:
                os.makedirs(os.path.dirname(os.path.join(target, name)), exist_ok=True)
                os.replace(os.path.join(work, name), os.path.join(target, name))
        sync_path(self.releases)


def _extract(archive: str, work: str, source: str) -> dict[str, str]:
    """Unpack the docker folder; returns path: sha256 of each file."""
    shutil.rmtree(work, ignore_errors=True)
    os.makedirs(work)
    files: dict[str, str] = {}
    size = 0
    try:
        with tarfile.open(archive, "r:*") as packed:
            for member in packed:
                parts = member.name.split("/")
                if member.name.startswith("/") or ".." in parts:
                    raise ReleaseError(
                        f"{source} holds a path that leads out of the archive: {member.name!r}. Do not use it."
                    )
                if len(parts) < 3 or not parts[0].startswith("dify-") or parts[1] != "docker":
                    continue
                if member.isdir():
                    continue
                content = packed.extractfile(member) if member.isreg() else None
                if content is None:
                    raise ReleaseError(f"{source} holds {member.name!r}, which is no plain file. Do not use it.")
                if parts[2] == "volumes":
                    parts[2] = SHIPPED_VOLUMES
                size += member.size
                if size > _MAX_UNPACKED:
                    raise ReleaseError(f"{source} unpacks to more than {_MAX_UNPACKED >> 20} MB. Do not use it.")
                name = "/".join(parts[2:])
                files[name] = _write(os.path.join(work, *parts[2:]), content, 0o755 if member.mode & 0o100 else 0o644)
            # The checksum of a compressed file stands at its end, and the archive may say before that that it ends.
            rest = packed.fileobj
            while rest is not None and rest.read(_CHUNK):
                pass
    except (tarfile.TarError, EOFError, zlib.error, OSError) as exc:
        if isinstance(exc, OSError) and exc.errno is not None:
            raise
        raise ReleaseError(
            f"the archive at {source} is truncated or damaged ({exc}). "
            "Put a whole one there, or let dify_archive_url name another source."
        ) from exc
    return files


def _write(path: str, content: IO[bytes], mode: int) -> str:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    digest = hashlib.sha256()
    with open(path, "wb") as file:
        for chunk in iter(lambda: content.read(_CHUNK), b""):
            digest.update(chunk)
            file.write(chunk)
        os.fchmod(file.fileno(), mode)
    return digest.hexdigest()


def _check_mounts(compose: Mapping[str, Any], files: Mapping[str, str], tag: str, source: str) -> None:
    services = active_services(compose, ["weaviate", "postgresql", "collaboration"])
    missing = missing_files(compose, services, files)
    if missing:
        listed = ", ".join(f"{name} (for {service})" for service, names in missing.items() for name in names)
        raise ReleaseError(
            f"the archive of Dify {tag} at {source} lacks files that its own compose file mounts: {listed}. "
            "Use the unchanged source archive of the tag."
        )


def _odd_images(compose: Mapping[str, Any], tag: str) -> list[str]:
    image = str(compose["services"].get("api", {}).get("image", ""))
    if image.rpartition(":")[2] == tag:
        return []
    return [
        f"The archive that was given for Dify {tag} starts the API from {image or 'no image'}: is it the right one?"
    ]
