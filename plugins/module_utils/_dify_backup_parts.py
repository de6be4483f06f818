# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Where a Dify keeps what a backup has to hold, as its settings say."""

from __future__ import annotations

import filecmp
import os
import posixpath
import stat
from collections.abc import Collection, Mapping
from typing import NamedTuple

from ansible_collections.llmops.stack.plugins.module_utils._dify_backup_keys import key_path

__all__ = ["KEEPSAKES", "KEYS", "Part", "files_size", "is_inhabited", "parts", "release_of", "strangers"]

# Files of this collection in the home, and what they are called in a backup. Without secrets.json a restored Dify would
# get new secrets, and could not read what it encrypted with the old ones.
KEEPSAKES = {
    "secrets.json": "secrets.json",
    "adopted.json": "adopted.json",
    ".llmops-console.json": "console.json",
    ".llmops-probe.key": "probe.key",
}
# Of the storage, also where the uploaded files are left out: nothing can be decrypted without them.
KEYS = (key_path("").split("/", 1)[0], ".dify_secret_key", ".init_permissions")
_LOCAL_ROOTS = ("storage", "/app/api/storage")


class Part(NamedTuple):
    """A folder that goes into an archive of its own."""

    name: str  # of the archive, without .tar
    folder: str  # below the home
    skip: tuple[str, ...] = ()
    only: tuple[str, ...] = ()  # entries of the folder; all of them when empty
    shipped: tuple[str, ...] = ()  # files that a release has there: nothing to keep as long as there is no other
    absent: str = ""  # why it is not in the backup


def release_of(home: str) -> str:
    """The tag that C(current) points to, empty without one."""
    try:
        return os.path.basename(os.readlink(os.path.join(home, "current")).rstrip("/"))
    except OSError:
        return ""


def parts(settings: Mapping[str, str], storage: bool) -> list[Part]:
    """What is to be archived.

    C(sandbox), C(certbot) and C(ssl) hold what operators put there by hand: packages for code nodes and certificates.
    """
    found = [_storage(settings, storage), _plugins(settings)]
    found.append(Part("sandbox", "volumes/sandbox"))
    found.append(Part("certbot", "volumes/certbot", skip=("logs",)))
    found.append(Part("ssl", "current/nginx/ssl", shipped=(".gitkeep",)))
    return found


def _storage(settings: Mapping[str, str], everything: bool) -> Part:
    kind = settings.get("STORAGE_TYPE") or "opendal"
    scheme = settings.get("OPENDAL_SCHEME") or "fs"
    root = (settings.get("OPENDAL_FS_ROOT") or "storage") if kind == "opendal" else "storage"
    folder = "volumes/app/storage"
    where = ""
    if kind not in ("opendal", "local") or (kind == "opendal" and scheme != "fs"):
        where = f"opendal/{scheme}" if kind == "opendal" else kind
    elif posixpath.normpath(root) not in _LOCAL_ROOTS:
        where = f"{root} of the API"
    if where:
        return Part("storage", folder, absent=f"uploaded files and the workspaces' private keys are in {where}")
    return Part("storage", folder, only=() if everything else KEYS)


def _plugins(settings: Mapping[str, str]) -> Part:
    kind = settings.get("PLUGIN_STORAGE_TYPE") or "local"
    folder = "volumes/plugin_daemon"
    if kind != "local":
        return Part("plugin_daemon", folder, absent=f"the packages of plugins are in {kind}")
    root = posixpath.normpath(settings.get("PLUGIN_STORAGE_LOCAL_ROOT") or "/app/storage")
    if root != "/app/storage":
        return Part("plugin_daemon", folder, absent=f"the packages of plugins are in {root} of the plugin daemon")
    # Unpacked plugins with their environments: the daemon makes them again when it starts.
    work = posixpath.normpath(posixpath.join(root, settings.get("PLUGIN_WORKING_PATH") or "cwd"))
    below = posixpath.relpath(work, root)
    return Part("plugin_daemon", folder, skip=() if below.startswith("..") else (below,))


def files_size(folder: str, part: Part) -> int:
    """Bytes of the files that the archive of this part will hold."""
    top = os.path.join(folder, part.folder)
    total = 0
    for above, folders, names in os.walk(top):
        below = "" if above == top else os.path.relpath(above, top) + "/"
        folders[:] = [one for one in folders if _taken(part, below + one)]
        for name in names:
            if _taken(part, below + name):
                try:
                    seen = os.lstat(os.path.join(above, name))
                except FileNotFoundError:
                    continue
                total += seen.st_size if stat.S_ISREG(seen.st_mode) else 0
    return total


def _taken(part: Part, name: str) -> bool:
    return name not in part.skip and (not part.only or name.split("/", 1)[0] in part.only)


def is_inhabited(folder: str, but: Collection[str] = ()) -> bool:
    """Whether there is any file below it; folders alone are what Docker makes for mounts."""
    return any(set(names) - set(but) for _above, _folders, names in os.walk(folder))


def strangers(home: str, folder: str) -> list[str]:
    """Files below a folder of the home that are not what an unpacked release ships for it."""
    shipped = [os.path.join(home, "releases", tag, "volumes.shipped") for tag in _names(os.path.join(home, "releases"))]
    found = []
    for above, _folders, names in os.walk(os.path.join(home, folder)):
        for name in names:
            path = os.path.join(above, name)
            below = os.path.relpath(path, os.path.join(home, "volumes"))
            same = (os.path.join(place, below) for place in shipped)
            if name != ".gitkeep" and not any(os.path.isfile(one) and filecmp.cmp(one, path, False) for one in same):
                found.append(path)
    return sorted(found)


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
