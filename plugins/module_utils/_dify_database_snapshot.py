# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""A database as it was at one moment, read while others go on writing."""

from __future__ import annotations

import base64
import subprocess
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._dify_database_client import Client, DatabaseError
from ansible_collections.llmops.stack.plugins.module_utils._dify_fingerprint import (
    COLUMNS,
    columns_of,
    fingerprint_of,
    fingerprint_sql,
)

__all__ = ["Snapshot"]

_MARK = "--- that was all ---"


class Snapshot:
    """One session that goes on seeing the database as it was when it was opened. It holds back nobody but VACUUM."""

    def __init__(self, client: Client, database: str, timeout: float) -> None:
        self._client = client
        self._process, self._name = client.session(timeout, database)
        # The first statement that looks at data fixes what all later ones see.
        self._ask("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        self._columns = columns_of(self._ask(COLUMNS))

    def fingerprint(self) -> dict[str, list[Any]]:
        return fingerprint_of(self._ask(fingerprint_sql(self._columns)))

    def public_keys(self) -> dict[str, str]:
        """The public key of each workspace, in base64 on the way because it has lines of its own."""
        value = "encode(convert_to(coalesce(encrypt_public_key, ''), 'UTF8'), 'base64')"
        rows = self._ask(f"SELECT id, translate({value}, E'\\n', '') FROM tenants")
        return {tenant: base64.b64decode(key).decode() for tenant, key in rows}

    def export(self) -> str:
        """A name by which a dump sees the same moment, as long as this session is open."""
        return self._ask("SELECT pg_export_snapshot()")[0][0]

    def close(self) -> None:
        """May be called twice; a session that does not go by itself is ended in the server."""
        if self._process.poll() is None:
            try:
                self._process.communicate(b"", timeout=10)
            except (subprocess.TimeoutExpired, OSError):
                self._process.kill()
                self._process.wait()
                self._client.end(self._name)

    def _ask(self, statement: str) -> list[list[str]]:
        process = self._process
        lines: list[str] = []
        if process.stdin is None or process.stdout is None:
            raise AssertionError("a session has both of its pipes")
        try:
            process.stdin.write(f"{statement};\n\\echo '{_MARK}'\n".encode())
            process.stdin.flush()
            for raw in process.stdout:
                line = raw.decode("utf-8", "replace").rstrip("\n")
                if line == _MARK:
                    return [row.split("|") for row in lines]
                lines.append(line)
        except OSError:
            pass  # it has ended, and what it said is all there is
        self.close()
        said = " ".join(lines) or "the session ended"
        raise DatabaseError(f"the snapshot of the database cannot be read: {said}")
