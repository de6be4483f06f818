# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Install, upgrade and uninstall: the tasks that run in the background, and what they leave behind."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
import uuid
from typing import Any

from standin import faults
from standin.daemon_cache import RedisError
from standin.daemon_database import DatabaseError, Row
from standin.daemon_log import Log
from standin.daemon_manager import LaunchFailed, Manager
from standin.daemon_registry import Registry, plugin_id_of

# A finished task is deleted by a timer in the daemon's memory: one that is stopped before leaves the task for ever.
KEEP_SECONDS = float(os.environ.get("STANDIN_TASK_SECONDS") or 90)
ALREADY_THERE = "Failed to create plugin, perhaps it's already installed"


class Tasks:
    def __init__(self, registry: Registry, manager: Manager, log: Log) -> None:
        self._registry = registry
        self._manager = manager
        self._log = log
        self._lock = threading.Lock()
        self._running, self._installed, self._upgraded = registry.behaviour.task_texts

    def install(self, tenant: str, identifiers: list[str], source: str, metas: list[dict[str, Any]]) -> str:
        """Start a task and return its id, "" when every plugin is there already."""
        waiting = []
        for identifier, meta in zip(identifiers, metas):
            if self._registry.installed(tenant, identifier):
                continue
            if self._registry.present(identifier):
                # Another tenant's plugin: its process serves this tenant too.
                self._registry.add(tenant, identifier, source, meta)
                continue
            waiting.append((identifier, meta))
        if not waiting:
            return ""
        done = [identifier for identifier in identifiers if identifier not in [name for name, _ in waiting]]
        task = self._create(tenant, identifiers, source, done)
        for identifier, meta in waiting:
            self._start(self._install_one, task, tenant, identifier, source, meta)
        return task

    def upgrade(self, row: Row, identifier: str, meta: dict[str, Any]) -> str:
        task = self._create(row["tenant_id"], [identifier], row["source"], [])
        self._start(self._upgrade_one, task, row, identifier, meta)
        return task

    def uninstall(self, row: Row) -> None:
        identifier = row["plugin_unique_identifier"]
        if self._registry.remove(row):
            self._manager.stop(identifier)
            (self._registry.config.installed_path / identifier).unlink(missing_ok=True)
            if self._registry.behaviour.uninstall_waits:
                time.sleep(1)

    def _start(self, function: Any, *args: Any) -> None:
        threading.Thread(target=function, args=args, daemon=True).start()

    def _install_one(self, task: str, tenant: str, identifier: str, source: str, meta: dict[str, Any]) -> None:
        running = self._manager.knows(identifier) and self._registry.behaviour.repeat_refused
        try:
            self._set(task, identifier, "running", self._running)
            if not running:
                # The older versions take an installation that is just running for a finished one.
                self._place(identifier)
                self._manager.launch(identifier, lambda text: self._set(task, identifier, "running", text))
            other = self._other_version(tenant, identifier) and not self._registry.behaviour.other_version_fails
            if other or faults.get("install", "plugin_daemon") == "lies":
                self._set(task, identifier, "success", self._installed)
                return
            self._registry.add(tenant, identifier, source, meta)
            self._set(task, identifier, "success", self._installed)
        except LaunchFailed as error:
            self._unplace(identifier)
            self._set(task, identifier, "failed", str(error))
        except DatabaseError as error:
            self._set(task, identifier, "failed", ALREADY_THERE if "unique constraint" in str(error) else str(error))

    def _upgrade_one(self, task: str, row: Row, identifier: str, meta: dict[str, Any]) -> None:
        try:
            self._set(task, identifier, "running", self._running)
            if self._registry.declaration(identifier) is None:
                raise LaunchFailed("plugin not found\nfailed to get plugin declaration")
            if not self._manager.knows(identifier):
                self._place(identifier)
                self._manager.launch(identifier, lambda text: self._set(task, identifier, "running", text))
            if self._registry.replace(row, identifier, meta):
                self._unplace(row["plugin_unique_identifier"])
            self._set(task, identifier, "success", self._upgraded)
        except LaunchFailed as error:
            self._unplace(identifier)
            self._set(task, identifier, "failed", str(error))
        except (DatabaseError, RedisError) as error:
            self._set(task, identifier, "failed", str(error))

    def _other_version(self, tenant: str, identifier: str) -> bool:
        return bool(
            self._registry.database.execute(
                "SELECT id FROM plugin_installations "
                "WHERE tenant_id = %s AND plugin_id = %s AND plugin_unique_identifier <> %s",
                tenant,
                plugin_id_of(identifier),
                identifier,
            )
        )

    def _place(self, identifier: str) -> None:
        """plugin/ holds what the daemon starts by itself."""
        config = self._registry.config
        target = config.installed_path / identifier
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(config.package_path / identifier, target)
        except OSError as error:
            raise LaunchFailed(f"open {config.package_path / identifier}: no such file or directory") from error

    def _unplace(self, identifier: str) -> None:
        self._manager.stop(identifier)
        (self._registry.config.installed_path / identifier).unlink(missing_ok=True)

    # The rows of install_tasks

    def _create(self, tenant: str, identifiers: list[str], source: str, done: list[str]) -> str:
        task = str(uuid.uuid4())
        plugins = [self._entry(identifier, source, identifier in done) for identifier in identifiers]
        self._registry.database.execute(
            "INSERT INTO install_tasks (id, status, tenant_id, total_plugins, completed_plugins, plugins) "
            "VALUES (%s, 'running', %s, %s, %s, %s)",
            task,
            tenant,
            len(plugins),
            len(done),
            json.dumps(plugins),
        )
        return task

    def _entry(self, identifier: str, source: str, done: bool) -> dict[str, Any]:
        behaviour = self._registry.behaviour
        declaration = self._registry.declaration(identifier) or {}
        entry = {
            "plugin_unique_identifier": identifier,
            "labels": declaration.get("label", {}),
            "icon": declaration.get("icon", ""),
        }
        if behaviour.dark_icons:
            entry["icon_dark"] = declaration.get("icon_dark", "")
        entry.update(
            {
                "plugin_id": plugin_id_of(identifier),
                "status": "success" if done else "pending",
                "message": self._installed if done else "",
            }
        )
        if behaviour.task_source:
            entry["source"] = source
        return entry

    def _set(self, task: str, identifier: str, status: str, message: str) -> None:
        database = self._registry.database
        with self._lock:
            row = database.one("SELECT plugins FROM install_tasks WHERE id = %s", task)
            if row is None:
                return  # deleted while it ran, which stops nothing
            plugins = json.loads(row["plugins"])
            for plugin in plugins:
                if plugin["plugin_unique_identifier"] == identifier:
                    plugin.update(status=status, message=message)
            states = [plugin["status"] for plugin in plugins]
            whole = "failed" if "failed" in states else "success" if set(states) == {"success"} else "running"
            database.execute(
                "UPDATE install_tasks SET status = %s, completed_plugins = %s, plugins = %s, updated_at = now() "
                "WHERE id = %s",
                whole,
                states.count("success"),
                json.dumps(plugins),
                task,
            )
        if status == "failed":
            self._log.write("ERROR", "install_task.go:71", "install plugin failed", plugin=identifier, error=message)
        if whole == "success":
            timer = threading.Timer(KEEP_SECONDS, self._expire, args=(task,))
            timer.daemon = True
            timer.start()

    def _expire(self, task: str) -> None:
        try:
            self._registry.database.execute("DELETE FROM install_tasks WHERE id = %s", task)
        except DatabaseError as error:
            self._log.write("ERROR", "install_task.go:90", "delete install task failed", error=error)
