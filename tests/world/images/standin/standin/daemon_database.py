# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The daemon's PostgreSQL: its database, its tables, and failures in the words of its driver."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import psycopg2
import psycopg2.extras
from psycopg2 import errorcodes

from standin.daemon_config import Config
from standin.daemon_versions import Generation

_COMMON = (
    "id uuid PRIMARY KEY DEFAULT gen_random_uuid(), created_at timestamptz DEFAULT now(), "
    "updated_at timestamptz DEFAULT now()"
)
_INSTALLATION = "tenant_id uuid, provider varchar(127), plugin_unique_identifier varchar(255), plugin_id varchar(255)"
_COLUMNS = {
    "agent_strategy_installations": _INSTALLATION,
    "ai_model_installations": "provider varchar(127), tenant_id uuid, plugin_unique_identifier varchar(255), "
    "plugin_id varchar(255)",
    "datasource_installations": _INSTALLATION,
    "tool_installations": _INSTALLATION,
    "trigger_installations": _INSTALLATION,
    "endpoints": "name varchar(127), hook_id varchar(127), tenant_id varchar(64), user_id varchar(64), "
    "plugin_id varchar(64), expired_at timestamptz, enabled boolean, settings text",
    "install_tasks": "status varchar(255), tenant_id uuid, total_plugins bigint, completed_plugins bigint, "
    "plugins text",
    "plugin_declarations": "plugin_unique_identifier varchar(255) UNIQUE, plugin_id varchar(255), declaration text",
    "plugin_installations": "tenant_id uuid, plugin_id varchar(255), plugin_unique_identifier varchar(255), "
    "runtime_type varchar(127), endpoints_setups bigint, endpoints_active bigint, source varchar(63), "
    "meta text, UNIQUE (tenant_id, plugin_id)",
    "plugin_readme_records": "plugin_unique_identifier varchar(255), language varchar(10), content text",
    "plugins": "plugin_unique_identifier varchar(255) UNIQUE, plugin_id varchar(255), refers bigint, "
    "install_type varchar(127), manifest_type varchar(127), source varchar(127), remote_declaration text",
    "serverless_runtimes": "plugin_unique_identifier varchar(255), function_url varchar(255), "
    "function_name varchar(127), type varchar(127), checksum varchar(127)",
    "tenant_storages": "tenant_id varchar(255), plugin_id varchar(255), size bigint",
}
Row = dict[str, Any]


class DatabaseError(Exception):
    """What the daemon puts into its replies and its log when a statement fails."""


class StaleConnection(DatabaseError):
    """A pooled connection turned out to be dead."""


class Database:
    def __init__(self, config: Config, behaviour: Generation) -> None:
        self._parameters = {**config.database, "connect_timeout": "5"}
        self._default = config.default_database
        self._behaviour = behaviour
        self._idle: list[Any] = []
        self._lock = threading.Lock()

    def create(self) -> str:
        """Make the database if it is missing; returns the error that the driver shows for a missing one."""
        try:
            self._release(self._connect())
            return ""
        except DatabaseError as error:
            complaint = str(error)
        connection = self._connect(self._default)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(f'CREATE DATABASE "{self._parameters["dbname"]}"')
        except psycopg2.errors.DuplicateDatabase:
            pass  # somebody else was faster, or the first connection failed for a moment
        except psycopg2.Error as error:
            raise DatabaseError(_server_text(error)) from error
        finally:
            connection.close()
        return complaint

    def migrate(self) -> None:
        for table in self._behaviour.tables:
            self.execute(f"CREATE TABLE IF NOT EXISTS {table} ({_COMMON}, {_COLUMNS[table]})")

    def execute(self, sql: str, *args: object) -> list[Row]:
        try:
            return self._execute(sql, args)
        except StaleConnection:
            # The older driver connects anew before it complains.
            if self._behaviour.shows_stale_connection:
                raise
            return self._execute(sql, args)

    def one(self, sql: str, *args: object) -> Row | None:
        rows = self.execute(sql, *args)
        return rows[0] if rows else None

    def _execute(self, sql: str, args: tuple[object, ...]) -> list[Row]:
        with self._cursor() as cursor:
            cursor.execute(sql, args or None)
            return [dict(row) for row in cursor.fetchall()] if cursor.description else []

    @contextlib.contextmanager
    def _cursor(self) -> Iterator[Any]:
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        connection = connection or self._connect()
        try:
            with connection, connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor:
                yield cursor
        except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
            # The server went away: every pooled connection is as dead as this one.
            with self._lock:
                self._idle.clear()
            raise StaleConnection(
                f"FATAL: terminating connection due to administrator command (SQLSTATE {errorcodes.ADMIN_SHUTDOWN})"
            ) from error
        except psycopg2.Error as error:
            self._release(connection)
            raise DatabaseError(_server_text(error)) from error
        self._release(connection)

    def _release(self, connection: Any) -> None:
        with self._lock:
            if not connection.closed and len(self._idle) < 10:
                self._idle.append(connection)
                return
        connection.close()

    def _connect(self, database: str = "") -> Any:
        target = {**self._parameters, **({"dbname": database} if database else {})}
        try:
            return psycopg2.connect(**target)
        except psycopg2.OperationalError as error:
            raise DatabaseError(self._connect_text(target, str(error))) from error

    def _connect_text(self, target: dict[str, str], text: str) -> str:
        where = f"{target['host']}:{target['port']}"
        if "password authentication failed" in text:
            reason = (
                f"{where}: failed SASL auth: FATAL: password authentication failed for user "
                f'"{target["user"]}" (SQLSTATE 28P01)'
            )
        elif "does not exist" in text:
            reason = f'{where}: server error: FATAL: database "{target["dbname"]}" does not exist (SQLSTATE 3D000)'
        elif "could not translate host name" in text:
            reason = f"hostname resolving error: lookup {target['host']}: no such host"
        else:
            reason = f"{where}: dial error: dial tcp {where}: connect: connection refused"
        who = f"user={target['user']} database={target['dbname']}"
        if self._behaviour.connect_error == "user":
            return f"failed to connect to `{who}`: {reason}"
        short, _, detail = reason.removeprefix(f"{where}: ").partition(": ")
        return f"failed to connect to `host={target['host']} {who}`: {short} ({detail})"


def _server_text(error: psycopg2.Error) -> str:
    diagnostics = error.diag
    if not diagnostics.message_primary:
        return str(error).strip()
    return f"{diagnostics.severity}: {diagnostics.message_primary} (SQLSTATE {error.pgcode})"
