# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Which plugins the workspaces of a Dify from before 1.0 need, out of its database.

Dify's own C(flask extract-plugins) looks at providers, models and tools, and not at knowledge bases, so a workspace
whose documents are embedded by a provider that nothing else names would lose them. What is asked here are questions
only, and each is left out where a release lacks the table or column.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._dify_database import Database, DatabaseError

__all__ = ["NAMED", "Needs", "collisions", "needs", "plugin_of", "read_extracted", "short_names"]

# Where the names of providers stand that C(flask migrate-data-for-plugin) gives their prefix: table, column.
NAMED: tuple[tuple[str, str], ...] = (
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
# Of these, the ones without a workspace: what they name is named by a knowledge base as well.
_SHARED = ("embeddings", "dataset_collection_bindings")
_OWNER = "langgenius"
# Tools that stayed in Dify itself, and providers whose plugin has another name.
_BUILT_IN = ("time", "audio", "code", "webscraper")
_TOOL_NAMES = ("jina", "siliconflow", "stepfun", "gitee_ai")
# What makes two rows of a table the same for the database, beside the provider's name.
_UNIQUE = {"providers": ("provider_type",), "provider_models": ("model_name", "model_type")}
# Texts with JSON in them: table, column, kind, statement. What they mention may have lost its credentials long ago.
_NODES = "jsonb_path_query(CASE WHEN w.graph LIKE '{{%' THEN w.graph::jsonb END, '$.nodes[*].data') AS d WHERE {where}"
_TEXTS: tuple[tuple[str, str, str, str], ...] = (
    (
        "workflows",
        "graph",
        "tool",
        "SELECT DISTINCT w.tenant_id::text, d->>'provider_name' FROM workflows w, "
        + _NODES.format(where="d->>'type' = 'tool' AND d->>'provider_type' = 'builtin'"),
    ),
    (
        "workflows",
        "graph",
        "model",
        "SELECT DISTINCT w.tenant_id::text, d->'model'->>'provider' FROM workflows w, "
        + _NODES.format(where="jsonb_typeof(d->'model') = 'object'"),
    ),
    (
        "app_model_configs",
        "agent_mode",
        "tool",
        "SELECT DISTINCT a.tenant_id::text, t->>'provider_id' FROM apps a JOIN app_model_configs c"
        " ON c.id = a.app_model_config_id, jsonb_path_query(CASE WHEN c.agent_mode LIKE '{%'"
        " THEN c.agent_mode::jsonb END, '$.tools[*]') AS t WHERE t->>'provider_type' = 'builtin'",
    ),
    (
        "app_model_configs",
        "model",
        "model",
        "SELECT DISTINCT a.tenant_id::text, CASE WHEN c.model LIKE '{%' THEN c.model::jsonb->>'provider' END"
        " FROM apps a JOIN app_model_configs c ON c.id = a.app_model_config_id",
    ),
)


@dataclass
class Needs:
    """Plugins by workspace. C(sure) are those with rows of their own, C(mentioned) those that only a text names."""

    sure: dict[str, set[str]] = field(default_factory=dict)
    mentioned: dict[str, set[str]] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)  # what could not be looked at, in words

    def add(self, where: dict[str, set[str]], rows: Iterable[list[str]], kind: str) -> None:
        for tenant, name in rows:
            if tenant and name and not (kind == "tool" and name in _BUILT_IN):
                where.setdefault(tenant, set()).add(plugin_of(name, kind))

    def of(self, tenant: str) -> set[str]:
        return self.sure.get(tenant, set()) | self.mentioned.get(tenant, set())

    @property
    def tenants(self) -> list[str]:
        return sorted(self.sure.keys() | self.mentioned.keys())


def plugin_of(name: str, kind: str = "model") -> str:
    """The plugin that brings a provider (kind model or tool), from its old name or its new one."""
    parts = name.split("/")
    owner, plugin = (parts[0], parts[1]) if len(parts) > 1 else (_OWNER, name)
    if owner == _OWNER and kind == "model" and plugin == "google":
        plugin = "gemini"
    if owner == _OWNER and kind == "tool" and plugin in _TOOL_NAMES:
        plugin += "_tool"
    return f"{owner}/{plugin}"


def needs(database: Database) -> Needs:
    """What the workspaces need.

    Raises:
        DatabaseError: the tables of providers cannot be read.
    """
    columns = _columns(database)
    found = Needs()
    # One statement for all tables: each one is a start of psql in a container.
    parts = [
        f"SELECT '{'tool' if table == 'tool_builtin_providers' else 'model'}', tenant_id::text, {column} FROM {table}"
        for table, column in NAMED
        if table not in _SHARED and column in columns.get(table, ())
    ]
    rows = database.sql(" UNION ".join(parts), timeout=300) if parts else []
    for kind in ("model", "tool"):
        found.add(found.sure, [row[1:] for row in rows if row[0] == kind], kind)
    if "retrieval_model" in columns.get("datasets", ()):
        name = "retrieval_model::jsonb->'reranking_model'->>'reranking_provider_name'"
        _try(database, found, found.sure, "model", f"SELECT DISTINCT tenant_id::text, {name} FROM datasets", "datasets")
    for table, column, kind, statement in _TEXTS:
        if column in columns.get(table, ()):
            _try(database, found, found.mentioned, kind, statement, table)
    return found


def _try(database: Database, found: Needs, where: dict[str, set[str]], kind: str, statement: str, table: str) -> None:
    """A text that is no JSON for PostgreSQL must not stop an upgrade: what is in tables is known without it."""
    try:
        found.add(where, database.sql(statement, timeout=300), kind)
    except DatabaseError as exc:
        found.unread.append(f"{table}: {exc}")


def read_extracted(text: str) -> dict[str, set[str]]:
    """Plugins by workspace out of what C(flask extract-plugins) wrote, wherever it stands among other lines."""
    found: dict[str, set[str]] = {}
    for line in text.splitlines():
        if not line.startswith("{"):
            continue
        try:
            record: dict[str, Any] = json.loads(line)
            found.setdefault(str(record["tenant_id"]), set()).update(str(one) for one in record["plugins"])
        except (ValueError, KeyError, TypeError):
            continue
    return found


def short_names(database: Database) -> dict[str, int]:
    """Rows by table that still have a provider's old name."""
    columns = _columns(database)
    parts = [
        f"SELECT '{table}', count(*) FROM {table} WHERE {column} NOT LIKE '%/%' AND {column} <> ''"
        for table, column in NAMED
        if column in columns.get(table, ())
    ]
    rows = database.sql(" UNION ALL ".join(parts), timeout=300) if parts else []
    return {table: int(count) for table, count in rows if int(count)}


def collisions(database: Database) -> list[str]:
    """Rows whose new name another row has already: "providers: ollama in workspace <id>". Dify's command never gets
    past them: up to 1.3 it never ends, later it fails."""
    columns = _columns(database)
    parts = []
    for table, also in _UNIQUE.items():
        if {"provider_name", *also} <= columns.get(table, set()):
            same = "".join(f" AND q.{column} = p.{column}" for column in also)
            parts.append(
                f"SELECT '{table}', p.provider_name, p.tenant_id::text FROM {table} p"
                f" WHERE p.provider_name NOT LIKE '%/%' AND EXISTS (SELECT 1 FROM {table} q"
                f" WHERE q.tenant_id = p.tenant_id{same}"
                f" AND q.provider_name = '{_OWNER}/' || p.provider_name || '/' || p.provider_name)"
            )
    rows = database.sql(" UNION ".join(parts) + " ORDER BY 1, 3, 2") if parts else []
    return [f"{table}: {name} in workspace {tenant}" for table, name, tenant in rows]


def _columns(database: Database) -> dict[str, set[str]]:
    tables = sorted({table for table, *_rest in (*NAMED, *_TEXTS)})
    listed = ", ".join(f"'{one}'" for one in tables)
    found: dict[str, set[str]] = {}
    for table, column in database.sql(
        "SELECT table_name, column_name FROM information_schema.columns"
        f" WHERE table_schema = 'public' AND table_name IN ({listed})"
    ):
        found.setdefault(table, set()).add(column)
    return found
