"""Every row that an upgrade has to keep, and every byte that a failed one has to leave as it was.

Kept: what was there before has to be among what is there after, in the columns that no release rewrites
(module_utils/_dify_fingerprint.py lists them; how they are compared is written here once more). Untouched: whole rows
of every table of both databases, and their schema, whatever the code under test thinks of them.
"""

from __future__ import annotations

from typing import NamedTuple

from ansible_collections.llmops.stack.plugins.module_utils._dify_fingerprint import CIPHERTEXTS, TABLES
from node import database, databases, on_node, sql

# Each health check, each sign-in and each chat of a test adds to these; from nowhere may a row vanish.
GROWING = {"conversations", "messages", "end_users"}
# Dify notes here when something was used last, and a check of the running release is a use.
USED = ("last_used_at", "last_used", "last_active_at", "last_login_at", "last_login_ip")
# The role's own app may be changed by the role.
OWN = "llmops-health-check"
OTHERS = {
    "apps": f"name <> '{OWN}'",
    "app_model_configs": f"app_id NOT IN (SELECT id FROM apps WHERE name = '{OWN}')",
}
# Rewritten on purpose: short provider names, old model types, underscores.
SHORT = "CASE WHEN {0} = '' OR {0} LIKE '%/%' THEN {0} ELSE 'langgenius/' || {0} || '/' || {0} END"
TYPES = (
    "CASE {0} WHEN 'text-generation' THEN 'llm' WHEN 'embeddings' THEN 'text-embedding' "
    "WHEN 'reranking' THEN 'rerank' ELSE {0} END"
)
# From 1.13 on a default that is set anew stands beside the one under the old name, until 1.15 makes one of both: as
# long as both say the same, it does not matter which of them stays.
MERGED = "tenant_default_models"
FORMS = {"*": SHORT, "%": TYPES, "~": "replace({0}, '_', '-')"}
Rows = dict[str, set[str]]


def rows() -> Rows:
    """Table -> the digests of its rows, in a form that is the same in every release."""
    columns: dict[str, set[str]] = {}
    for table, column in sql(
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
    ):
        columns.setdefault(table, set()).add(column)
    parts = [
        f"SELECT '{table}', md5(concat_ws('|', {', '.join(_values(table, wanted, columns[table]))})) "
        f"FROM public.{table} WHERE {OTHERS.get(table, 'true')}"
        for table, wanted in TABLES.items()
        if table in columns
    ]
    parts += [
        f"SELECT 'ciphertexts', md5(encrypted_config) FROM public.{table} WHERE encrypted_config IS NOT NULL"
        for table in CIPHERTEXTS
        if "encrypted_config" in columns.get(table, ())
    ]
    found: Rows = {}
    for table, digest in sql("SET timezone = 'UTC'; " + " UNION ALL ".join(parts)):
        found.setdefault(table, set()).add(digest)
    return found


def _values(table: str, wanted: str, present: set[str]) -> list[str]:
    values = []
    for word in wanted.split():
        name = word.rstrip("*%~")
        if (table, name) == (MERGED, "id"):
            continue
        form = FORMS.get(word[-1], "{0}")
        values.append(f"coalesce(({form.format(name)})::text, '-')" if name in present else "'-'")
    return values


def lost(before: Rows, after: Rows) -> dict[str, int]:
    """Table -> how many of its rows are gone or are not what they were."""
    counted = {table: len(digests - after.get(table, set())) for table, digests in before.items()}
    return {table: number for table, number in counted.items() if number}


class Whole(NamedTuple):
    """All of the databases, as one number and one digest for each table, and the statements that make them."""

    tables: dict[str, tuple[int, str]]
    schema: dict[str, list[str]]

    def differences(self, now: Whole) -> list[str]:
        """What is not as it was: a table by its name, a line of the schema as it is there or not there now."""
        found = [f"{table}: {self.tables.get(table)} -> {now.tables.get(table)}" for table in self._other(now)]
        for name in sorted(self.schema.keys() | now.schema.keys()):
            before, after = self.schema.get(name, []), now.schema.get(name, [])
            found += [f"{name}: gone: {line}" for line in before if line not in after]
            found += [f"{name}: new: {line}" for line in after if line not in before]
        return found

    def without(self, database: str) -> Whole:
        tables = {name: about for name, about in self.tables.items() if not name.startswith(f"{database}.")}
        return Whole(tables, {name: lines for name, lines in self.schema.items() if name != database})

    def _other(self, now: Whole) -> list[str]:
        names = sorted(self.tables.keys() | now.tables.keys())
        return [name for name in names if self.tables.get(name) != now.tables.get(name)]

    def shrunk(self, now: Whole) -> dict[str, tuple[int, int]]:
        """Tables that are still there, and have fewer rows."""
        both = {
            name: (self.tables[name][0], now.tables[name][0])
            for name in (self.tables.keys() & now.tables.keys()) - {f"dify.{MERGED}"}
        }
        return {name: numbers for name, numbers in both.items() if numbers[1] < numbers[0]}


def whole() -> Whole:
    tables: dict[str, tuple[int, str]] = {}
    schema: dict[str, list[str]] = {}
    for name in sorted(databases() & {"dify", "dify_plugin"}):
        for table, number, digest in sql(_contents(name), name):
            tables[f"{name}.{table}"] = (int(number), digest)
        dump = on_node(f"docker exec {database()} pg_dump -U postgres --schema-only {name}")
        # Its comments and the words of \restrict are others each time.
        lines = [line.strip() for line in dump.splitlines() if line and not line.startswith(("--", "\\"))]
        # pg_dump leaves out what was begun and not finished.
        half = sql("SELECT indexrelid::regclass FROM pg_index WHERE NOT indisvalid", name)
        schema[name] = [*lines, *(f"half an index: {row[0]}" for row in half)]
    return Whole(tables, schema)


def _contents(name: str) -> str:
    left_out = "'{" + ",".join(USED) + "}'::text[]"
    digest = f"md5((to_jsonb(t) - {left_out})::text)"
    listed = [row[0] for row in sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'", name)]
    parts = [
        f"SELECT '{table}', count(*), coalesce(md5(string_agg({digest}, '' ORDER BY {digest})), '') "
        f'FROM public."{table}" t WHERE {OTHERS.get(table, "true")}'
        for table in sorted(listed)
        if table not in GROWING
    ]
    parts.append("SELECT 'sequence ' || sequencename, coalesce(last_value, 0), '' FROM pg_sequences")
    return "SET timezone = 'UTC'; " + " UNION ALL ".join(parts)
