# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Packages of Dify plugins (.difypkg): whose they are and which checksum the plugin daemon will give them."""

from __future__ import annotations

import hashlib
import traceback
import zipfile
import zlib
from dataclasses import dataclass

from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_names import Wanted, parse_name

try:
    import yaml
except ImportError:
    HAS_YAML = False
    YAML_IMPORT_ERROR: str | None = traceback.format_exc()
else:
    HAS_YAML = True
    YAML_IMPORT_ERROR = None

__all__ = ["HAS_YAML", "YAML_IMPORT_ERROR", "Package", "PackageError", "read_package"]

MANIFEST = "manifest.yaml"
# Far above what any daemon takes (50 MiB by default), and far below what would fill the memory of a host.
MAX_UNPACKED = 512 * 1024 * 1024


class PackageError(Exception):
    """The file is no package of a plugin; the text says what it is and what to do."""


@dataclass(frozen=True)
class Package:
    path: str
    wanted: Wanted


def read_package(path: str) -> Package:
    """What the file says of itself. It is not unpacked.

    Raises:
        PackageError: the file cannot be read or is no package.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(path, archive)
    except OSError as exc:
        raise PackageError(
            f"The package {path} cannot be read on the managed host ({exc.strerror or exc}): copy it there first."
        ) from exc
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as exc:
        raise PackageError(
            f"{path} is not a .difypkg package: it is damaged, or not whole. Fetch it again and compare its sha256."
        ) from exc


def _read(path: str, archive: zipfile.ZipFile) -> Package:
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    if sum(entry.file_size for entry in entries) > MAX_UNPACKED:
        raise PackageError(f"{path} unpacks to more than {MAX_UNPACKED >> 20} MiB, which no plugin daemon takes.")
    names = sorted({entry.filename for entry in entries}, key=lambda name: name.encode())
    if MANIFEST not in names:
        raise PackageError(
            f"{path} has no {MANIFEST}, so it is no plugin. A bundle (.difybndl), an archive of a plugin's sources and "
            "a package inside a folder are none either: pack the plugin's own folder."
        )
    wanted = _manifest(path, archive.read(MANIFEST))
    # The daemon names a package by its content: over the files in order, the hash of the name, then of the content.
    whole = hashlib.sha256()
    for name in names:
        whole.update(hashlib.sha256(name.encode()).digest())
        content = hashlib.sha256()
        with archive.open(name) as file:
            for piece in iter(lambda: file.read(1 << 20), b""):
                content.update(piece)
        whole.update(content.digest())
    return Package(path, Wanted(wanted.plugin, wanted.version, whole.hexdigest()))


def _manifest(path: str, content: bytes) -> Wanted:
    try:
        manifest = yaml.safe_load(content)
    except yaml.YAMLError as exc:
        raise PackageError(f"{MANIFEST} in {path} is not valid YAML: pack the plugin anew.") from exc
    manifest = manifest if isinstance(manifest, dict) else {}
    missing = [key for key in ("author", "name", "version") if not manifest.get(key)]
    if missing:
        raise PackageError(f"{MANIFEST} in {path} lacks {', '.join(missing)}: it is not the manifest of a Dify plugin.")
    try:
        return parse_name(f"{manifest['author']}/{manifest['name']}:{manifest['version']}")
    except ValueError as exc:
        raise PackageError(f"{MANIFEST} in {path}: {exc}.") from exc
