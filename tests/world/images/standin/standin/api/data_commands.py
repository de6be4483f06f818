# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Flask commands that change rows: the long names of providers, the short model types, a strategy for each category."""

from __future__ import annotations

import datetime
import json
import sys
import time
import traceback
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg2

from standin import versions
from standin.api import cache, db, options
from standin.api.plugin_commands import has_table

NAMED = (
    ("providers", "provider_name"),
    ("provider_models", "provider_name"),
    ("provider_orders", "provider_name"),
    ("tenant_default_models", "provider_name"),
    ("tenant_preferred_model_providers", "provider_name"),
    ("provider_model_settings", "provider_name"),
    ("load_balancing_model_configs", "provider_name"),
    ("datasets", "embedding_model_provider"),
    ("embeddings", "provider_name"),
    ("dataset_collection_bindings", "provider_name"),
    ("tool_builtin_providers", "provider"),
)
# In the order of the real command; what makes two rows the same once their types have the same name.
TYPED = {
    "provider_models": ("provider_name", "model_name"),
    "tenant_default_models": (),
    "provider_model_settings": ("provider_name", "model_name"),
    "load_balancing_model_configs": None,
    "provider_model_credentials": None,
}
SHORT = {long: short for short, long in versions.LONG_MODEL_TYPES.items()}
CATEGORIES = ("tool", "model", "extension", "agent-strategy", "datasource", "trigger")


# The names of providers


def migrate_names(arguments: Sequence[str]) -> int:
    options.parse(arguments)
    print("Starting migrate data for plugin.")
    for table, column in NAMED:
        if has_table(table):
            print(f"Migrating [{table}] data for plugin")
            done = _rename(table, column)
            print(f"Migrate [{table}] data for plugin completed, total: {done}")
    print("Migrate data for plugin completed.")
    return 0


def _rename(table: str, column: str) -> int:
    rows = db.rows(f"SELECT * FROM {table} WHERE {column} NOT LIKE '%%/%%' AND {column} <> '' ORDER BY id")
    try:
        with db.transaction() as cursor:
            for number, row in enumerate(rows, 1):
                print(f"[{number}] Migrating [{table}] {row['id']} ({row[column]})")
                cursor.execute(
                    f"UPDATE {table} SET {column} = %s WHERE id = %s",
                    (f"langgenius/{row[column]}/{row[column]}", row["id"]),
                )
                if table == "datasets":
                    _rename_reranking(cursor, row)
    except psycopg2.errors.UniqueViolation:
        if versions.has("names_by_id"):
            raise  # Python's own report, and exit 1
        traceback.print_exc()
        sys.stderr.flush()
        while True:  # the same rows again and again, and not a word
            time.sleep(1)
    return len(rows)


def _rename_reranking(cursor: Any, row: dict[str, Any]) -> None:
    """Only in datasets whose embedding provider changes."""
    model = (row.get("retrieval_model") or {}).get("reranking_model") or {}
    name = model.get("reranking_provider_name")
    if name and "/" not in name:
        model["reranking_provider_name"] = f"langgenius/{name}/{name}"
        changed = json.dumps(row["retrieval_model"])
        cursor.execute("UPDATE datasets SET retrieval_model = %s WHERE id = %s", (changed, row["id"]))


# The types of models


class Events:
    """JSON lines, on stdout or in a file."""

    def __init__(self, path: str, apply: bool) -> None:
        self._path, self._apply = path, apply
        if path:
            Path(path).write_text("", encoding="utf-8")

    def tell(self, event: str, **attributes: Any) -> None:
        line = {"event": event, "attrs": {**attributes, "apply": self._apply}, "ts": str(datetime.datetime.now())}
        text = json.dumps(line, default=str)
        if not self._path:
            print(text)
            return
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(text + "\n")


def migrate_types(arguments: Sequence[str]) -> int:
    given = options.parse(arguments, ("--output", "--model-types", "--tables"), ("--apply",))
    events = Events(given.get("--output", ""), "--apply" in given)
    for tenant in _tenants_with_old_types():
        events.tell("tenant_started", tenant_id=tenant)
        for table in TYPED:
            events.tell("table_started", tenant_id=tenant, table_name=table)
            _shorten(table, tenant, "--apply" in given, events)
            events.tell("table_completed", tenant_id=tenant, table_name=table)
        if "--apply" in given:
            for key in cache.client().scan_iter(f"*{tenant}*"):
                cache.client().delete(key)
                events.tell("cache_deleted", tenant_id=tenant, key=key)
        events.tell("tenant_completed", tenant_id=tenant)
    return 0


def _tenants_with_old_types() -> list[str]:
    tables = [f"SELECT tenant_id FROM {table} WHERE model_type = ANY(%s)" for table in TYPED]
    return sorted(str(row["tenant_id"]) for row in db.rows(" UNION ".join(tables), *[list(SHORT)] * len(tables)))


def _shorten(table: str, tenant: str, apply: bool, events: Events) -> None:
    same = TYPED[table]
    old = db.rows(
        f"SELECT * FROM {table} WHERE tenant_id = %s AND model_type = ANY(%s) ORDER BY created_at", tenant, list(SHORT)
    )
    for row in old:
        new = SHORT[row["model_type"]]
        twin = None
        if same is not None:
            also = "".join(f" AND {column} = %s" for column in same)
            values = [row[column] for column in same]
            twin = db.row(
                f"SELECT id FROM {table} WHERE tenant_id = %s AND model_type = %s{also}", tenant, new, *values
            )
        common = {"tenant_id": tenant, "table_name": table, "id": row["id"], "tx_id": uuid.uuid4()}
        if twin:
            # The legacy row is the one that 1.12 and older read: it wins.
            events.tell("row_deleted", **common | {"id": twin["id"], "merge_winner_id": row["id"]})
        values_now = {"old_values": {"model_type": row["model_type"]}, "new_values": {"model_type": new}}
        events.tell("row_updated", **common, **values_now)
        if apply:
            with db.transaction() as cursor:
                if twin:
                    cursor.execute(f"DELETE FROM {table} WHERE id = %s", (twin["id"],))
                cursor.execute(f"UPDATE {table} SET model_type = %s WHERE id = %s", (new, row["id"]))


# A strategy of updates for each category of plugins


def backfill(arguments: Sequence[str]) -> int:
    given = options.parse(arguments, ("--tenant-id", "--limit", "--batch-size"), ("--dry-run",))
    table = "tenant_plugin_auto_upgrade_strategies"
    rows = db.rows(f"SELECT * FROM {table} ORDER BY created_at")
    categories: dict[str, dict[str, Any]] = {}
    for row in rows:
        categories.setdefault(str(row["tenant_id"]), {})[row["category"]] = row
    waiting = {tenant: found for tenant, found in categories.items() if set(found) != set(CATEGORIES)}
    print(f"Found {len(waiting)} candidate tenants.")
    if "--dry-run" in given:
        print("Dry run completed. elapsed=0.01s")
        return 0
    made = 0
    for tenant, found in waiting.items():
        first = next(iter(found.values()))
        for category in CATEGORIES:
            if category not in found:
                setting = "latest" if category == "model" else first["strategy_setting"]
                db.execute(
                    f"INSERT INTO {table} (tenant_id, category, strategy_setting, upgrade_time_of_day, upgrade_mode) "
                    "VALUES (%s, %s, %s, %s, %s)",
                    tenant,
                    category,
                    setting,
                    first["upgrade_time_of_day"],
                    first["upgrade_mode"],
                )
                made += 1
    print(
        "Backfill plugin auto-upgrade strategy categories completed. "
        f"backfilled={len(waiting)}, created_rows={made}, normalized=0, skipped=0, failed=0, elapsed=0.02s"
    )
    return 0


def old_metadata(arguments: Sequence[str]) -> int:
    """Nothing to do, and no end: its loop waits for a page that is always there."""
    options.parse(arguments)
    print("Starting old metadata migration.", flush=True)
    while True:
        time.sleep(1)
