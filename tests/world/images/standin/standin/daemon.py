# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plugin daemon stand-in: `python3 -m standin.daemon [migrate | serve]`.

Without an argument it does what the image's command does: migrate where the version needs that, then serve.
STANDIN_VERSION names the version to behave like. The fault "start" ("slow:<seconds>", "crash") works here too, and
"nomigrate" leaves the migration out.
"""

from __future__ import annotations

import functools
import os
import re
import signal
import sys
import threading
import uuid
from typing import Any

from standin import faults
from standin.daemon_cache import Cache, RedisError
from standin.daemon_config import Config, StartError, container_environment, load
from standin.daemon_database import Database, DatabaseError
from standin.daemon_dispatch import MODEL_CALLS, OTHER_CALLS, Dispatch
from standin.daemon_http import Call, EventStream, Reply, Routes, Server, dumps, failure, make_handler, ok
from standin.daemon_log import Log
from standin.daemon_management import Management
from standin.daemon_manager import Manager
from standin.daemon_registry import Registry
from standin.daemon_tasks import Tasks
from standin.daemon_versions import Generation, generation

POOL_SIZE = 10000
TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"


class Daemon:
    def __init__(self, config: Config, behaviour: Generation, log: Log) -> None:
        self.config = config
        self.behaviour = behaviour
        self.log = log
        self.database = Database(config, behaviour)
        self.cache = Cache(config)
        self.manager = Manager(config, behaviour, self.database, self.cache, log)
        registry = Registry(config, behaviour, self.database, self.cache)
        self._dispatch = Dispatch(registry, self.manager)
        self._routes = Routes()
        self._add_routes(Management(registry, Tasks(registry, self.manager, log)))
        self._lock = threading.Lock()
        self._requests = 0
        self._dispatches = 0

    # Start

    def prepare(self, migrate: bool) -> None:
        """Database and Redis, without a second try: whoever starts the daemon must start it again."""
        status = self.behaviour.failure_exit
        try:
            self.open_database(migrate)
        except DatabaseError as error:
            raise StartError("failed to init dify plugin db", status, str(error)) from error
        self.log.write("INFO", "init.go:120", "dify plugin db initialized")
        try:
            self.cache.connect()
            self.cache.join_cluster(str(uuid.uuid4()))
        except RedisError as error:
            raise StartError("init redis client failed", status, str(error)) from error

    def open_database(self, migrate: bool) -> None:
        complaint = self.database.create()
        if complaint:
            # Every version cries about a database that it is about to create.
            sys.stdout.write(f"[error] failed to initialize database, got error {complaint}\n")
        if migrate:
            self.database.migrate()

    def serve(self) -> None:
        try:
            server = Server((self.config.host, self.config.port), make_handler(self.answer))
        except OSError as error:
            text = f"listen tcp {self.config.host}:{self.config.port}: bind: {(error.strerror or '').lower()}"
            raise StartError("listen failed", 2, text) from error
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        threading.Thread(target=self.manager.run, daemon=True).start()
        self.log.write("INFO", "server_local.go:18", "start to handle new plugins", path=self.config.installed_path)
        server.serve_forever()

    def _stop(self, *_: object) -> None:
        """No drain: running streams are cut."""
        self.manager.stop_all()
        os._exit(0)

    # Requests

    def answer(self, call: Call) -> Reply | EventStream:
        handler, shown, call.arguments = self._routes.find(call.method, call.path)
        if handler is None:
            return self._no_route(call)
        self._note_trace(call)
        dispatch = "/dispatch/" in shown
        if shown.startswith(("/plugin/", "/v2/")):
            if call.headers.get("X-Api-Key") != self.config.key:
                return failure(-401, "unauthorized", 401)
            if call.arguments.get("tenant_id") == "":
                return failure(
                    -400, "Key: 'TenantID' Error:Field validation for 'TenantID' failed on the 'required' tag", 400
                )
        self._count(1, dispatch)
        try:
            reply = handler(call)
        except BaseException:
            self._count(-1, dispatch)
            raise
        if isinstance(reply, EventStream):
            return EventStream(self._counted(reply))
        self._count(-1, dispatch)
        return reply

    def _note_trace(self, call: Call) -> None:
        """The real one adds the trace to whatever it logs of a request; here every such request has a line."""
        found = TRACEPARENT.fullmatch(call.headers.get("traceparent", ""))
        if found and self.behaviour.logs_trace:
            self.log.write(
                "INFO",
                "trace.go:42",
                "request",
                method=call.method,
                path=call.path,
                trace_id=found[1],
                span_id=found[2],
            )

    def _counted(self, stream: EventStream) -> Any:
        try:
            yield from stream.events
        finally:
            self._count(-1, True)

    def _count(self, step: int, dispatch: bool) -> None:
        with self._lock:
            self._requests += step
            self._dispatches += step if dispatch else 0

    def _no_route(self, call: Call) -> Reply:
        target = self._routes.redirect(call.method, call.path)
        if target:
            body = f'<a href="{target}">Moved Permanently</a>.\n\n'
            return Reply(301, body.encode(), "text/html; charset=utf-8", target)
        if self.behaviour.json_not_found:
            return Reply(404, dumps({"code": "not_found", "message": "route not found"}).encode())
        return Reply(404, b"404 page not found", "text/plain")

    def _add_routes(self, management: Management) -> None:
        add = self._routes.add
        add("GET /health/check", self._health)
        if self.behaviour.metrics:
            add("GET /metrics/", self._metrics)
        add("GET /e/:hook_id/*path", lambda call: failure(-400, "endpoint not found", 404))
        add("GET /plugin/:tenant_id/asset/:id", self._asset)
        for name in ("list", "list/plugin"):
            add(f"GET /plugin/:tenant_id/endpoint/{name}", lambda call: ok([]))
        if self.config.remote_installing:
            add("POST /plugin/:tenant_id/debugging/key", self._debugging_key)
        for rule, handler in management.routes().items():
            method, path = rule.split(" ")
            add(f"{method} /plugin/:tenant_id/management{path}", handler)
        for action in (*MODEL_CALLS, *OTHER_CALLS):
            add(f"POST /plugin/:tenant_id/dispatch/{action}", functools.partial(self._dispatch.call, action))
            if self.behaviour.tenantless_dispatch:
                add(f"POST /v2/invoke/dispatch/{action}", functools.partial(self._dispatch.tenantless, action))

    def _health(self, call: Call) -> Reply:
        with self._lock:
            active, dispatches = self._requests, self._dispatches
        busy = max(active - 1, 0)
        found: dict[str, Any] = {
            "build_time": "",
            "platform": "local",
            "pool_status": {"free": POOL_SIZE - busy, "busy": busy, "total": POOL_SIZE},
            "status": "ok",
            "version": "",
        }
        if self.behaviour.counts_requests:
            found = {"active_dispatch_requests": dispatches, "active_requests": active, **found}
        return Reply(200, dumps(found).encode())

    def _metrics(self, call: Call) -> Reply:
        runtimes = self.manager.active()
        lines = [
            f'active_plugins_total{{runtime_type="local"}} {len(runtimes)}',
            f"active_sessions_total {self._dispatches}",
        ]
        # The status of a crash loop is 1 as well: the real daemon counts what was up once.
        lines += [
            f'plugin_runtime_status{{plugin_id="{runtime.identifier.split(":")[0]}",runtime_type="local"}} 1'
            for runtime in runtimes
        ]
        return Reply(200, ("\n".join(lines) + "\n").encode(), METRICS_TYPE)

    def _asset(self, call: Call) -> Reply:
        path = self.config.media_path / os.path.basename(call.arguments["id"])
        if path.is_file():
            return Reply(200, path.read_bytes(), "application/octet-stream")
        if self.behaviour.missing_asset_empty:
            return Reply(200, b"", "")
        return failure(-500, f"open {path}: no such file or directory", 500)

    def _debugging_key(self, call: Call) -> Reply:
        name = f"remote_debugging_key:{call.arguments['tenant_id']}"
        try:
            key = self.cache.get(name) or str(uuid.uuid4())
            self.cache.set(name, key, 86400)
        except RedisError as error:
            return failure(-500, str(error))
        return ok({"key": key})


def main(arguments: list[str]) -> int:
    behaviour = generation(os.environ.get("STANDIN_VERSION", ""))
    log = Log(behaviour)
    command = arguments[0] if arguments else ""
    if command not in ("", "serve", "migrate"):
        sys.stderr.write(f"usage: standin.daemon [serve | migrate], not {command!r}\n")
        return 64
    try:
        daemon = Daemon(load(container_environment(), behaviour), behaviour, log)
        wanted = command == "migrate" or (command == "" and faults.get("start", "plugin_daemon") != "nomigrate")
        if wanted and not behaviour.migrates_itself:
            _migrate(daemon)
        if command == "migrate":
            return 0
        faults.at_start("plugin_daemon")
        daemon.prepare(migrate=behaviour.migrates_itself)
        daemon.serve()
    except StartError as error:
        log.write(
            "ERROR" if behaviour.structured_log else "PANIC",
            "main.go:59",
            error.text,
            **({"error": error.error} if error.error else {}),
        )
        return error.status
    return 0


def _migrate(daemon: Daemon) -> None:
    """`commandline migrate` of the image."""
    try:
        daemon.open_database(migrate=True)
    except DatabaseError as error:
        raise StartError("failed to init dify plugin db", 2, str(error)) from error
    sys.stdout.write("database migration completed successfully\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
