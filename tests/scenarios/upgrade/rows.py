"""Every row that an upgrade has to keep: what was there before has to be among what is there after.

The columns are those that no release rewrites (module_utils/_dify_fingerprint.py lists them); how they are compared is
written here once more, so that the tests do not believe the code that they try.
"""

from __future__ import annotations

from ansible_collections.llmops.stack.plugins.module_utils._dify_fingerprint import CIPHERTEXTS, TABLES
from node import sql

# Each health check, each sign-in and each chat of a test adds to these; from nowhere may a row vanish.
GROWING = {"conversations", "messages", "end_users"}
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
        f"SELECT '{table}', md5(concat_ws('|', {', '.join(_values(wanted, columns[table]))})) FROM public.{table} "
        f"WHERE {OTHERS.get(table, 'true')}"
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


def _values(wanted: str, present: set[str]) -> list[str]:
    values = []
    for word in wanted.split():
        name = word.rstrip("*%~")
        form = FORMS.get(word[-1], "{0}")
        values.append(f"coalesce(({form.format(name)})::text, '-')" if name in present else "'-'")
    return values


def lost(before: Rows, after: Rows) -> dict[str, int]:
    """Table -> how many of its rows are gone or are not what they were."""
    counted = {table: len(digests - after.get(table, set())) for table, digests in before.items()}
    return {table: number for table, number in counted.items() if number}


def added(before: Rows, after: Rows) -> dict[str, int]:
    """The same for rows that nobody but an upgrade can have written."""
    counted = {table: len(digests - before.get(table, set())) for table, digests in after.items()}
    return {table: number for table, number in counted.items() if number and table not in GROWING}
