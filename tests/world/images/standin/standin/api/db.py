# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PostgreSQL with a pool that behaves like SQLAlchemy's: after a restart of the server exactly one request fails.

The first use of a dead pooled connection throws all of them away and fails its request; the next one connects anew.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
import psycopg2.extensions
import psycopg2.extras

from standin.api import settings

psycopg2.extras.register_uuid()
DatabaseError = psycopg2.Error


def connect() -> psycopg2.extensions.connection:
    if settings.text("DB_TYPE", "postgresql") not in ("", "postgresql"):
        raise SystemExit("this stand-in keeps its state in PostgreSQL only")
    return psycopg2.connect(
        host=settings.text("DB_HOST", "localhost"),
        port=settings.number("DB_PORT", 5432),
        user=settings.text("DB_USERNAME", "postgres"),
        password=settings.text("DB_PASSWORD"),
        dbname=settings.text("DB_DATABASE", "dify"),
    )


class Pool:
    def __init__(self) -> None:
        self._idle: list[psycopg2.extensions.connection] = []
        self._lock = threading.Lock()

    def take(self) -> psycopg2.extensions.connection:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return connect()

    def give(self, connection: psycopg2.extensions.connection) -> None:
        with self._lock:
            if connection.closed or len(self._idle) >= settings.number("SQLALCHEMY_POOL_SIZE", 30):
                connection.close()
            else:
                self._idle.append(connection)

    def drop_all(self) -> None:
        with self._lock:
            while self._idle:
                self._idle.pop().close()


POOL = Pool()


@contextmanager
def transaction() -> Iterator[psycopg2.extras.RealDictCursor]:
    connection = POOL.take()
    try:
        with connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor:
            yield cursor
        connection.commit()
    except (psycopg2.OperationalError, psycopg2.InterfaceError):
        connection.close()
        POOL.drop_all()
        raise
    except BaseException:
        connection.rollback()
        raise
    finally:
        POOL.give(connection)


def rows(sql: str, *args: Any) -> list[dict[str, Any]]:
    with transaction() as cursor:
        cursor.execute(sql, args)
        return [dict(row) for row in cursor.fetchall()] if cursor.description else []


def row(sql: str, *args: Any) -> dict[str, Any] | None:
    found = rows(sql, *args)
    return found[0] if found else None


def execute(sql: str, *args: Any) -> int:
    with transaction() as cursor:
        cursor.execute(sql, args)
        return cursor.rowcount
