# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""The databases of a Dify: asked, copied beside themselves, renamed, dumped and restored.

Nothing here decides anything; what comes out of a question is what the server said. All of it goes over the address,
the user and the password of the release's .env, as the API does.
"""

from __future__ import annotations

import contextlib
import csv
import io
import re
import time
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._dify_database_client import (
    Client,
    DatabaseError,
    Login,
    Written,
)
from ansible_collections.llmops.stack.plugins.module_utils._dify_database_snapshot import Snapshot
from ansible_collections.llmops.stack.plugins.module_utils._dify_database_sql import (
    copy_script,
    drop_script,
    identifier,
    literal,
    rename_script,
    shape,
    terminate_sql,
)
from ansible_collections.llmops.stack.plugins.module_utils._dify_fingerprint import (
    COLUMNS,
    columns_of,
    fingerprint_of,
    fingerprint_sql,
)
from ansible_collections.llmops.stack.plugins.module_utils._dify_network import reachable_image

__all__ = ["Database", "DatabaseError", "Snapshot", "Written", "identifier", "literal"]

# The release's own database services: until 1.10.0, and since.
OWN_SERVICES = ("db", "db_postgres")
TOOLS = 15  # major version of the releases' own
IN_USE = "55006"
_PSQL = ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose"]
_LISTED = re.compile(r"^\d+; \d+ \d+ ([A-Z]+(?: [A-Z]+)*) ")


class Database:
    """The PostgreSQL of a project, as the current release (or the one with this tag) reaches it."""

    def __init__(self, project: Any, tag: str = "") -> None:
        settings = project.settings(tag)
        self.project = project
        self.type = settings.get("DB_TYPE") or "postgresql"
        self.host = settings.get("DB_HOST") or "db_postgres"
        self.port = settings.get("DB_PORT") or "5432"
        self.user = settings.get("DB_USERNAME") or "postgres"
        self.internal = self.host in OWN_SERVICES
        self.service = self.host if self.internal else ""
        self.name = settings.get("DB_DATABASE") or "dify"
        # Empty in 0.15, which has no plugin daemon.
        self.plugin_name = settings.get("DB_PLUGIN_DATABASE") or ""
        login = Login(self.host, self.port, self.user, settings.get("DB_PASSWORD") or "")
        image = "" if self.internal else reachable_image(project, f"postgres:{TOOLS}-alpine")
        self._client = Client(project, login, self.service, image)
        self._desk = ""
        self._major = 0

    @property
    def names(self) -> list[str]:
        """Dify's database, and the plugin daemon's where the release has one."""
        return [name for name in (self.name, self.plugin_name) if name]

    # -- questions

    def sql(self, statement: str, database: str = "", timeout: float = 60) -> list[list[str]]:
        """The rows of one statement (or of several, one after the other); NULL is an empty text.

        Raises:
            DatabaseError: the server, or the way to it, refused, with its SQLSTATE.
        """
        out = self._run([*_PSQL, "--csv", "-t", "-f", "-"], statement, database, timeout)
        # One column that is empty comes as an empty line.
        return [row or [""] for row in csv.reader(io.StringIO(out))]

    def script(self, text: str, database: str = "", timeout: float = 60, atomic: bool = False) -> str:
        """Several statements; C(atomic) makes them one transaction. Stops at the first that fails."""
        return self._run([*_PSQL, *(["-1"] if atomic else []), "-f", "-"], text, database, timeout)

    def ping(self, timeout: float = 15) -> str:
        """The server's version. That it answers means: address, user and password work as the API will use them."""
        return self.sql("SHOW server_version", timeout=timeout)[0][0].split()[0]

    def head(self, database: str = "") -> str:
        """Revision that Alembic noted; empty for a database that has none. Several are joined by a comma."""
        try:
            rows = self.sql("SELECT version_num FROM public.alembic_version ORDER BY 1", database)
        except DatabaseError as exc:
            if exc.state == "42P01":
                return ""
            raise
        return ",".join(row[0] for row in rows)

    def exists(self, database: str) -> bool:
        return bool(self._at_desk(f"SELECT 1 FROM pg_database WHERE datname = {literal(database)}"))

    def size_bytes(self, database: str) -> int:
        """Zero for a database that does not exist."""
        where = f"WHERE datname = {literal(database)}"
        rows = self._at_desk(f"SELECT pg_database_size(oid) FROM pg_database {where}")
        return int(rows[0][0]) if rows else 0

    def sessions(self, database: str) -> list[dict[str, Any]]:
        """Who else is in the database: pid, user, application, client, state, query (without its values), since, age.

        `age` is in seconds since the session's state changed. Sessions of this collection's own are left out.
        """
        rows = self._at_desk(
            "SELECT pid, usename, application_name, coalesce(host(client_addr), ''), coalesce(state, ''),"
            " left(query, 500), coalesce(state_change::text, ''),"
            " coalesce(extract(epoch FROM now() - state_change)::bigint, 0) FROM pg_stat_activity"
            f" WHERE datname = {literal(database)} AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
            " AND application_name NOT LIKE 'llmops.stack-%' ORDER BY backend_start"
        )
        names = ("user", "application", "client", "state", "query", "since")
        return [
            {"pid": int(row[0]), **dict(zip(names, row[1:7])), "query": shape(row[5]), "age": int(row[7])}
            for row in rows
        ]

    # -- sessions, copies, names

    def terminate(self, database: str, seconds: float = 10) -> int:
        """End everybody's sessions in the database and wait until they are gone; how many there were."""
        ended = 0
        deadline = time.monotonic() + seconds
        while True:
            left = len(self._at_desk(terminate_sql(database)))
            ended = max(ended, left)
            if not left:
                return ended
            if time.monotonic() > deadline:
                raise DatabaseError(f"{left} sessions are still in database {database} after {seconds:g} s", IN_USE)
            time.sleep(0.1)

    def copy(self, source: str, target: str, timeout: float = 3600) -> None:
        """A copy of a database that nobody uses, made by the server from its files; whole once it has its name.

        What belongs to a database but not to its contents (settings, rights, a limit of connections) is taken along.

        Raises:
            DatabaseError: somebody is in the source (state 55006), the target exists, no room, not allowed.
        """
        part = f"{target}_partial"
        try:
            self._at_desk(copy_script(source, part, target), timeout)
        except DatabaseError as exc:
            with contextlib.suppress(DatabaseError):
                self.drop(part)
            if exc.state == IN_USE:
                self._name_company(source)
            raise

    def rename(self, old: str, new: str, seconds: float = 30) -> None:
        """Rename a database. Sessions in it are ended: those of a plugin daemon's pool come back by themselves."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                self._at_desk(rename_script(old, new))
                return
            except DatabaseError as exc:
                if exc.state != IN_USE or time.monotonic() > deadline:
                    raise

    def drop(self, database: str) -> None:
        """Drop a database with whoever is in it; one that does not exist is fine."""
        self._at_desk(drop_script(database), 300)

    # -- dumps

    def dump(self, database: str, path: str, timeout: float = 3600, snapshot: str = "") -> Written:
        """Everything in the database into a new file at C(path) (PostgreSQL's custom format): its size and checksum.

        With C(snapshot), the name that an open Snapshot gave, it is what that one sees.
        """
        argv = ["pg_dump", "-Fc", "--lock-wait-timeout=60000", *([f"--snapshot={snapshot}"] if snapshot else [])]
        return self._tools().to_file(argv, path, timeout, database)

    def check_dump(self, path: str, timeout: float = 3600) -> dict[str, int]:
        """Reads a dump from its first to its last byte; how many of each it lists.

        Raises:
            DatabaseError: this is no dump, or a cut or damaged one.
        """
        listed = self._tools().from_file(["pg_restore", "--list"], path, timeout)
        # The list is at the beginning of the file: only reading on shows whether the rest is there and whole.
        self._tools().from_file(["pg_restore", "-f", "/dev/null"], path, timeout)
        kinds = [found.group(1) for found in map(_LISTED.match, listed.splitlines()) if found]
        counted = {
            "tables": kinds.count("TABLE"),
            "table_data": kinds.count("TABLE DATA"),
            "indexes": kinds.count("INDEX"),
            "constraints": kinds.count("CONSTRAINT"),
            "entries": len(kinds),
        }
        if not counted["entries"]:
            raise DatabaseError(f"the dump {path} lists nothing")
        return counted

    def tables(self, database: str = "") -> int:
        """How many tables the database has: what a whole dump of it must list."""
        ours = "schemaname NOT IN ('pg_catalog', 'information_schema')"
        return int(self.sql(f"SELECT count(*) FROM pg_tables WHERE {ours}", database)[0][0])

    def restore(self, path: str, database: str, timeout: float = 3600) -> None:
        """A dump into a new database of this name (there must be none); to replace another, rename afterwards.

        Owners and rights are those of the dump. On a server where such a role does not exist, everything belongs to the
        user of this Dify.

        Raises:
            DatabaseError: it did not work; the half-filled database is gone again.
        """
        if self.exists(database):
            raise DatabaseError(f"database {database} exists already", "42P04")
        attempts: list[list[str]] = [[], ["--no-owner", "--no-acl"], ["--no-owner", "--no-acl", "--no-comments"]]
        for number, options in enumerate(attempts, start=1):
            self._at_desk(f"CREATE DATABASE {identifier(database)} TEMPLATE template0", 300)
            try:
                argv = ["pg_restore", "--exit-on-error", *options, "-d", database]
                self._tools().from_file(argv, path, timeout, database)
                # A restored table has no statistics, and a plan without them may take minutes.
                self.script("ANALYZE", database, timeout)
                return
            except DatabaseError as exc:
                self.drop(database)
                foreign = "role " in str(exc) or "must be owner of" in str(exc) or "must be member of" in str(exc)
                if not foreign or number == len(attempts):
                    raise

    # -- fingerprints

    def fingerprint(self, database: str = "", timeout: float = 600) -> dict[str, list[Any]]:
        """Rows and checksum of everything that has to survive an upgrade, see _dify_fingerprint."""
        columns = columns_of(self.sql(COLUMNS, database))
        return fingerprint_of(self.sql(fingerprint_sql(columns), database, timeout))

    def open_snapshot(self, database: str = "", timeout: float = 600) -> Snapshot:
        """The database as it is now, to be read later while others write on."""
        return Snapshot(self._ready(), database or self.name, timeout)

    # -- the parts

    def _run(self, argv: list[str], text: str, database: str, timeout: float) -> str:
        limit = f"SET statement_timeout = {max(1, int(timeout * 1000))};\nSET client_min_messages = warning;\n"
        return self._ready().text(argv, timeout, f"{limit}{text};\n", database or self.name)

    def _at_desk(self, statement: str, timeout: float = 60) -> list[list[str]]:
        """A statement about databases, from one that is none of Dify's: nobody renames what he stands in."""
        for desk in [self._desk] if self._desk else ["postgres", "template1"]:
            try:
                rows = self.sql(statement, desk, timeout)
            except DatabaseError as exc:
                if self._desk or desk == "template1" or exc.state != "3D000":
                    raise
                continue
            self._desk = desk
            return rows
        raise AssertionError("there is always a last desk")

    def _ready(self) -> Client:
        if self.type != "postgresql":
            raise DatabaseError(f"the database is of type {self.type}; only postgresql can be copied and restored")
        return self._client

    def _tools(self) -> Client:
        """pg_dump refuses a server that is newer than itself, and pg_restore what a newer pg_dump has written."""
        client = self._ready()
        if not self.internal and not self._major:
            self._major = int(self._at_desk("SHOW server_version_num")[0][0]) // 10000
            client.image = reachable_image(self.project, f"postgres:{max(self._major, TOOLS)}-alpine")
        return client

    def _name_company(self, database: str) -> None:
        present = self.sessions(database)
        if present:
            who = ", ".join(
                f"{one['user']} ({one['application'] or 'no name'}, {one['client'] or 'local'}, pid {one['pid']})"
                for one in present[:5]
            )
            raise DatabaseError(f"database {database} is in use by {who}", IN_USE)
