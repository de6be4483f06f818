# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""What the files of a Dify say about an installation, for a plan of its upgrade. Nothing is changed."""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils import _dify_backup_keys as keys
from ansible_collections.llmops.stack.plugins.module_utils._dify_env import SECRETS

__all__ = ["plugin_files", "private_keys", "room", "sandbox_config", "secret_key", "storage", "storage_mb"]

_STORAGE = ("volumes", "app", "storage")
_PLUGINS = ("volumes", "plugin_daemon")
_SANDBOX = ("volumes", "sandbox", "conf", "config.yaml")
_IDENTIFIER = re.compile(r"[^/]+/[^/]+:[^/]+@[0-9a-f]+")
_PYTHON_PATH = re.compile(r"^python_path[ \t]*:[ \t]*(['\"]?)([^'\"#\n]*?)\1[ \t]*(?:#.*)?$", re.MULTILINE)


def storage(home: str, settings: Mapping[str, str]) -> dict[str, Any]:
    """The API's storage: type, local (whether its files are on this host), uid of its folder (-1 without one)."""
    kind = settings.get("STORAGE_TYPE") or "local"
    local = kind == "local" or (kind == "opendal" and (settings.get("OPENDAL_SCHEME") or "fs") == "fs")
    folder = os.path.join(home, *_STORAGE)
    uid = os.stat(folder).st_uid if local and os.path.isdir(folder) else -1
    return {"type": kind, "local": local, "size_mb": 0, "uid": uid}


def storage_mb(home: str, late: Callable[[], bool]) -> int:
    """What a backup of the storage copies.

    Raises:
        TimeoutError: there are too many files to look at each.
    """
    folder = os.path.join(home, *_STORAGE)
    total = 0
    for above, _folders, names in os.walk(folder):
        if late():
            raise TimeoutError(f"{folder} has too many files to be counted in time")
        for name in names:
            try:
                total += os.lstat(os.path.join(above, name)).st_size
            except FileNotFoundError:  # it is in use
                continue
    return math.ceil(total / 1024 / 1024)


def private_keys(home: str, public: Mapping[str, str]) -> dict[str, Any]:
    """Whether every workspace has its private key in the storage: checked, missing[], foreign[] (of another pair)."""
    folder = os.path.join(home, *_STORAGE)
    private = {}
    for tenant in public:
        path = keys.key_path(tenant)
        try:
            with open(os.path.join(folder, path), "rb") as file:
                private[path] = file.read(64 * 1024)
        except (FileNotFoundError, NotADirectoryError):
            continue
    pairs = keys.compare(public, private)
    return {"checked": pairs.checked, "missing": pairs.missing, "foreign": pairs.foreign}


def plugin_files(home: str, settings: Mapping[str, str]) -> set[str] | None:
    """Identifiers of the packages that the plugin daemon starts; None where they are not on this host."""
    if (settings.get("PLUGIN_STORAGE_TYPE") or "local") != "local":
        return None
    place = os.path.join(home, *_PLUGINS, settings.get("PLUGIN_INSTALLED_PATH") or "plugin")
    found = {
        os.path.relpath(os.path.join(folder, name), place) for folder, _sub, names in os.walk(place) for name in names
    }
    return {name for name in found if _IDENTIFIER.fullmatch(name)}


def sandbox_config(home: str) -> dict[str, Any]:
    """The sandbox's own settings: present, and the Python that they name."""
    try:
        with open(os.path.join(home, *_SANDBOX), encoding="utf-8", errors="replace") as file:
            line = _PYTHON_PATH.search(file.read())
    except (FileNotFoundError, NotADirectoryError):
        return {"present": False, "python_path": ""}
    return {"present": True, "python_path": line.group(2).strip() if line else ""}


def secret_key(settings: Mapping[str, str]) -> dict[str, bool]:
    """Whether there is one in the .env, and whether it is the one in Dify's repository. Never what it is."""
    value = settings.get("SECRET_KEY") or ""
    public = next(secret.public for secret in SECRETS if secret.name == "SECRET_KEY")
    return {"set": bool(value), "public": value in public}


def room(folder: str) -> tuple[int, int]:
    """Free MB of the file system that a folder is on, or will be, and the number of its device."""
    folder = os.path.abspath(folder)
    while not os.path.exists(folder):
        folder = os.path.dirname(folder)
    return shutil.disk_usage(folder).free // (1024 * 1024), os.stat(folder).st_dev
