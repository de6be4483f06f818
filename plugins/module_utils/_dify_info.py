# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""One look at an installation of Dify: everything that the plan of an upgrade wants to know, and nothing is changed.

What cannot be found out is empty, and C(errors) says why.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils import _dify_info_host as host
from ansible_collections.llmops.stack.plugins.module_utils._dify_database import Database, DatabaseError
from ansible_collections.llmops.stack.plugins.module_utils._dify_info_data import COUNTED, DatabaseLook
from ansible_collections.llmops.stack.plugins.module_utils._dify_redis import RedisError, lock_ttl_ms
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_rules import KEYS
from ansible_collections.llmops.stack.plugins.module_utils._dify_vector_store import describe
from ansible_collections.llmops.stack.plugins.module_utils._dify_versions import HEADS
from ansible_collections.llmops.stack.plugins.module_utils._docker_cli import DockerError

__all__ = ["DifyInfo"]

_NO_IMAGE = re.compile(r"No such image: (\S+)")
_NO_TIME = "there was no time left to look"


class DifyInfo:
    def __init__(self, project: Any, backup_dir: str = "", deadline: float = 120, images: Iterable[str] = ()) -> None:
        self.project = project
        self.home: str = project.home
        self.backup_dir = backup_dir or os.path.join(project.home, "backups")
        self.images = list(images)
        self.settings: dict[str, str] = {}
        self._until = time.monotonic() + deadline
        self._result = empty()
        self._files: set[str] | None = None

    def collect(self) -> dict[str, Any]:
        result = self._result
        current = os.path.join(self.home, "current")
        result["release"] = os.path.basename(os.path.realpath(current)) if os.path.isdir(current) else ""
        if not result["release"]:
            result["errors"].append(f"release: {current} leads to no release, so nothing of Dify's can be asked")
            return result
        result["expected_head"] = HEADS.get(result["release"], "")
        self._part("settings", self._settings)
        self._part("storage", self._storage)
        self._part("sandbox_config", lambda: result.update(sandbox_config=host.sandbox_config(self.home)))
        self._part("plugin_files", self._plugin_files)
        self._databases(Database(self.project))
        self._part("lock", self._lock)
        self._part("vector", self._vector)
        self._part("free_mb", self._free)
        self._part("images", self._images)
        if result["storage"]["local"]:
            # Last, because a storage may have any number of files.
            self._part("storage_mb", self._storage_mb)
        return result

    # -- the parts

    def _part(self, name: str, look: Callable[[], Any]) -> bool:
        """Whether it could be done. One that could not be leaves its values empty and its reason."""
        try:
            if self._late():
                raise TimeoutError(_NO_TIME)
            look()
        except (DatabaseError, RedisError, DockerError, OSError) as exc:
            self._result["errors"].append(f"{name}: {exc}")
            return False
        return True

    def _settings(self) -> None:
        self.settings = self.project.settings()
        self._result["set_keys"] = [key.name for key in KEYS if self.settings.get(key.name)]
        self._result["secret_key"] = host.secret_key(self.settings)

    def _storage(self) -> None:
        self._result["storage"] = host.storage(self.home, self.settings)

    def _storage_mb(self) -> None:
        self._result["storage"]["size_mb"] = host.storage_mb(self.home, self._late)

    def _plugin_files(self) -> None:
        self._files = host.plugin_files(self.home, self.settings)

    def _databases(self, database: Database) -> None:
        result, seen = self._result, self._result["database"]
        seen.update(type=database.type, internal=database.internal, host=database.host, user=database.user)
        look = DatabaseLook(self.project, database, self._left)
        if not self._part("database", lambda: look.server(result)):
            # What stands in the way of the first question stands in the way of all.
            seen["error"] = self._result["errors"].pop().split(": ", 1)[1]
            return
        self._part("sessions", lambda: look.sessions(result))
        self._part("data", lambda: look.data(result))
        self._part("providers", lambda: look.providers(result))
        if self._part("plugins", lambda: look.plugins(result)):
            self._match_files()
        if result["storage"]["local"]:
            self._part("private_keys", lambda: self._private_keys(look))

    def _private_keys(self, look: DatabaseLook) -> None:
        self._result["private_keys"] = host.private_keys(self.home, look.public_keys())

    def _match_files(self) -> None:
        """Installations and packages, each without the other."""
        files = self._files
        for one in self._result["plugins"]:
            local = files is not None and one.pop("runtime") in ("", "local")
            one["file"] = one["identifier"] in (files or ()) if local else None
        installed = {one["identifier"] for one in self._result["plugins"]}
        self._result["plugin_files_without_row"] = sorted((files or set()) - installed)

    def _lock(self) -> None:
        try:
            self._result["lock_ttl_ms"] = lock_ttl_ms(self.project)
        except RedisError as exc:  # what stands in the way here stands in the way of a migration
            self._result["redis_error"] = str(exc)

    def _vector(self) -> None:
        found = describe(self.project, min(20.0, self._left(20)))
        error = found.pop("error", "")
        kind = found["store"]
        if kind != "weaviate":
            # As weaviate is: one of the release's own services, which the upgrade may replace.
            found["internal"] = any(one.service.startswith(kind) for one in self.project.containers())
        self._result["vector"] = found
        if error:
            self._result["errors"].append(f"vector: {error}")

    def _free(self) -> None:
        free, devices = self._result["free_mb"], self._result["devices"]
        free["backup"], devices["backup"] = host.room(self.backup_dir)
        if self._result["database"]["internal"]:
            data = os.path.join(self.home, "volumes", "db", "data")
            free["database"], devices["database"] = host.room(data)
        root = self.project.docker.output(["info", "--format", "{{.DockerRootDir}}"], 30).strip()
        free["docker"], devices["docker"] = host.room(root)

    def _images(self) -> None:
        """Without one that was asked for the answer has no images_missing: none is missing and nobody looked are two
        things, on which the room that is needed depends."""
        wanted = sorted(set(self.images))
        if not wanted:
            return
        code, _out, err = self.project.docker.run(["image", "inspect", "--format", "{{.Id}}", *wanted], 30)
        named = set(_NO_IMAGE.findall(err))
        missing = [one for one in wanted if one in named]
        self._result["images_missing"] = missing or (wanted if code else [])

    def _late(self) -> bool:
        return time.monotonic() > self._until

    def _left(self, most: float) -> float:
        return max(1.0, min(most, self._until - time.monotonic()))


def empty() -> dict[str, Any]:
    """The whole result, as it is where nothing could be found out. Without legacy_model_types,
    old_upgrade_strategies and images_missing: no rows and not known are two things, on which a step depends."""
    return {
        "release": "",
        "head": "",
        "expected_head": "",
        "database": {
            "type": "",
            "internal": True,
            "host": "",
            "user": "",
            "server_version": "",
            "size_mb": 0,
            "plugin_size_mb": 0,
            "superuser": False,
            "createdb": False,
            "not_owned": [],
            "invalid_indexes": [],
            "foreign_sessions": [],
            "error": "",
        },
        "lock_ttl_ms": 0,
        "redis_error": "",
        "counts": dict.fromkeys(COUNTED, 0),
        "short_providers": 0,
        "colliding_providers": [],
        "plugins": [],
        "plugin_files_without_row": [],
        "plugins_needed": {},
        "models": [],
        "private_keys": {"checked": 0, "missing": [], "foreign": []},
        "storage": {"type": "", "local": True, "size_mb": 0, "uid": -1},
        "vector": {"store": "", "internal": True, "collections": 0, "objects": 0, "size_mb": 0},
        "sandbox_config": {"present": False, "python_path": ""},
        "set_keys": [],
        "secret_key": {"set": False, "public": False},
        "free_mb": {},
        "devices": {},
        "errors": [],
    }
