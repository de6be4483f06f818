# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All plugin processes of a daemon: launched from plugin/ at start and by installs, looked after every five seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from standin import daemon_environment
from standin.daemon_cache import Cache, RedisError
from standin.daemon_config import Config
from standin.daemon_database import Database, DatabaseError
from standin.daemon_environment import EnvironmentFailed
from standin.daemon_log import Log
from standin.daemon_runtime import Runtime, StartFailed
from standin.daemon_versions import Generation

TICK_SECONDS = 5.0
SCAN_SECONDS = 30.0


class LaunchFailed(Exception):
    """The text of a failed install task."""


class Manager:
    def __init__(self, config: Config, behaviour: Generation, database: Database, cache: Cache, log: Log) -> None:
        self._config = config
        self._behaviour = behaviour
        self._database = database
        self._cache = cache
        self._log = log
        self._runtimes: dict[str, Runtime] = {}
        self._slots = threading.Semaphore(config.launching_concurrent)

    def get(self, identifier: str) -> Runtime | None:
        """The runtime that a call may be sent to. Newer versions know no plugin that was never up."""
        runtime = self._runtimes.get(identifier)
        if runtime is None or runtime.stopped:
            return None
        return runtime if runtime.ever_up or self._behaviour.dead_hangs else None

    def knows(self, identifier: str) -> bool:
        return identifier in self._runtimes

    def active(self) -> list[Runtime]:
        return [runtime for runtime in self._runtimes.values() if runtime.ever_up and not runtime.stopped]

    def run(self) -> None:
        """Start what is installed, then keep it running; never returns."""
        time.sleep(0.1)
        self._scan()
        last_scan = time.monotonic()
        while True:
            time.sleep(TICK_SECONDS)
            for runtime in list(self._runtimes.values()):
                runtime.tick()
            if time.monotonic() - last_scan > SCAN_SECONDS:
                self._scan()
                last_scan = time.monotonic()

    def launch(self, identifier: str, progress: Callable[[str], None] = lambda _: None) -> None:
        """Environment, process and, in the newer versions, its first heartbeat; raises LaunchFailed."""
        runtime = self._runtimes.setdefault(identifier, Runtime(identifier, self._behaviour, self._log))
        self._log.write(
            "INFO", "logger.go:15", "local runtime starting", plugin=daemon_environment.short_name(identifier)
        )
        try:
            runtime.start(self._prepare(identifier))
            if not self._behaviour.dead_hangs:
                runtime.wait_up(progress)
        except (EnvironmentFailed, RedisError) as error:
            raise LaunchFailed(self._environment_text(identifier, str(error))) from error
        except StartFailed as error:
            raise LaunchFailed(str(error)) from error
        self._log.write("INFO", "logger.go:20", "local runtime ready", plugin=daemon_environment.short_name(identifier))

    def stop(self, identifier: str) -> None:
        runtime = self._runtimes.pop(identifier, None)
        if runtime is not None:
            runtime.stop()

    def stop_all(self) -> None:
        for identifier in list(self._runtimes):
            self.stop(identifier)

    def installed_files(self) -> Iterator[str]:
        root = self._config.installed_path
        for path in sorted(root.rglob("*")) if root.is_dir() else ():
            if path.is_file():
                yield str(path.relative_to(root))

    def _prepare(self, identifier: str) -> Path:
        """Build the environment, again and again in the versions that do so, under the Redis lock in the others."""
        folder = self._config.package_path if self._behaviour.needs_plugins_row else self._config.installed_path
        package_file = folder / identifier
        if self._behaviour.needs_plugins_row and not package_file.is_file():
            raise EnvironmentFailed(f"open {package_file}: no such file or directory")
        ready = (daemon_environment.directory(self._config, identifier) / daemon_environment.MARKER).is_file()
        lock = f"env_init_lock:{identifier}" if self._behaviour.init_lock and not ready else ""
        if lock:
            self._cache.lock(lock)
        try:
            for pause in (*self._behaviour.init_pauses, None):
                try:
                    return daemon_environment.prepare(
                        self._config, self._behaviour, identifier, package_file, self._log
                    )
                except EnvironmentFailed as error:
                    self._log.write("ERROR", "setup_python_environment.go:241", "init environment failed", error=error)
                    if pause is None:
                        raise
                    time.sleep(pause)
            raise AssertionError("unreachable")
        finally:
            if lock:
                self._cache.delete(lock)

    def _environment_text(self, identifier: str, text: str) -> str:
        if self._behaviour.detailed_errors:
            return f"failed to launch plugin: {text}"
        return (
            f"init environment for plugin {daemon_environment.short_name(identifier)} failed too many times, "
            "you should consider the package is corrupted or your network is unstable"
        )

    def _scan(self) -> None:
        for identifier in self.installed_files():
            if not self.knows(identifier):
                threading.Thread(target=self._launch_installed, args=(identifier,), daemon=True).start()

    def _launch_installed(self, identifier: str) -> None:
        try:
            if self._behaviour.needs_plugins_row and not self._database.execute(
                "SELECT id FROM plugins WHERE plugin_unique_identifier = %s", identifier
            ):
                return
            with self._slots:
                self.launch(identifier)
        except (LaunchFailed, DatabaseError) as error:
            self._log.write("ERROR", "server_local.go:123", "launch local plugin failed", error=error)
            runtime = self._runtimes.get(identifier)
            # Without an environment the next scan tries again; a process that fails is retried by its own runtime.
            if runtime is not None and not runtime.prepared and not self._behaviour.dead_hangs:
                self._runtimes.pop(identifier, None)
