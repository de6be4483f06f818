"""Dify's database on a node: kept, emptied, and put back while everything runs."""

from __future__ import annotations

from machine import Machine

DUMP = "/root/dify-before.sql"


def sql(command: str = "psql -q -U postgres -d dify") -> str:
    return f"docker exec -i dify-db_postgres-1 {command}"


def keep(machine: Machine) -> None:
    machine.on(f"{sql('pg_dump -U postgres --clean --if-exists dify')} > {DUMP}")


def empty(machine: Machine) -> None:
    """As a Dify is that nobody has set up."""
    tables = "select string_agg(quote_ident(tablename), ',') from pg_tables where schemaname = 'public'"
    migrated = "tablename <> 'alembic_version'"
    machine.on(f'tables=$({sql()} -At -c "{tables} and {migrated}"); {sql()} -c "truncate $tables"')


def put_back(machine: Machine) -> None:
    machine.on(f"{sql()} -1 < {DUMP} && rm {DUMP}")
