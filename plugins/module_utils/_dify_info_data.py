# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""What Dify's databases say about an installation, for a plan of its upgrade. Questions only."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._dify_database import Database, DatabaseError, literal
from ansible_collections.llmops.stack.plugins.module_utils._dify_fingerprint import (
    COLUMNS,
    MODEL_TYPES,
    columns_of,
    model_type_sql,
    provider_sql,
)
from ansible_collections.llmops.stack.plugins.module_utils._dify_network import addresses, own_names
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_needs import collisions, needs, short_names
from ansible_collections.llmops.stack.plugins.module_utils._docker_cli import DockerError

__all__ = ["COUNTED", "DatabaseLook"]

COUNTED = ("tenants", "accounts", "apps", "datasets", "documents", "messages", "upload_files")
# Tables in which `flask data-migrate legacy-model-types` renames.
_TYPED = (
    "provider_models",
    "provider_model_credentials",
    "provider_model_settings",
    "tenant_default_models",
    "load_balancing_model_configs",
)
_STRATEGIES = "tenant_plugin_auto_upgrade_strategies"

_ROLE = (
    "SELECT current_setting('server_version'), r.rolsuper, r.rolcreatedb FROM pg_roles r WHERE r.rolname = current_user"
)
_NOT_OWNED = (
    "SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace"
    " AND c.relkind IN ('r', 'p', 'S', 'v') AND NOT pg_has_role(current_user, c.relowner, 'USAGE') ORDER BY 1"
)
_INVALID = (
    "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
    " WHERE NOT i.indisvalid AND c.relnamespace = 'public'::regnamespace ORDER BY 1"
)
_OWN_ADDRESS = "SELECT coalesce(host(inet_client_addr()), '')"


class DatabaseLook:
    """Fills the result of dify_info with what the databases say. Every method may raise a DatabaseError."""

    def __init__(self, project: Any, database: Database, left: Callable[[float], float]) -> None:
        self.project = project
        self.database = database
        self._left = left
        self._columns: dict[str, set[str]] = {}

    def server(self, result: dict[str, Any]) -> None:
        """The server, and what this user may do there. What comes later is worth asking only after this."""
        here = self.database
        version, superuser, creates = self._rows(_ROLE)[0]
        self._columns = columns_of(self._rows(COLUMNS))
        result["database"].update(
            server_version=version.split()[0],
            superuser=superuser == "t",
            createdb="t" in (superuser, creates),
            not_owned=self._names(_NOT_OWNED),
            invalid_indexes=self._names(_INVALID),
            size_mb=_mb(here.size_bytes(here.name)),
            plugin_size_mb=_mb(here.size_bytes(here.plugin_name)) if here.plugin_name else 0,
        )
        result["head"] = here.head()

    def sessions(self, result: dict[str, Any]) -> None:
        """Who else is in the databases: none of the containers of this project, whatever they are."""
        found = [{**one, "database": name} for name in self.database.names for one in self.database.sessions(name)]
        ours = self._our_addresses() if found else {}
        foreign = [one for one in found if ours.get(one["client"]) is not True]
        for one in foreign:
            one["from"] = ours.get(one["client"]) or one["client"] or "the database's own container"
        result["database"]["foreign_sessions"] = foreign

    def data(self, result: dict[str, Any]) -> None:
        result["counts"] = {name: self._count(name) for name in COUNTED}
        old_types = ", ".join(map(literal, MODEL_TYPES))
        typed = [name for name in _TYPED if "model_type" in self._columns.get(name, ())]
        result["legacy_model_types"] = sum(self._count(name, f"model_type IN ({old_types})") for name in typed)
        result["old_upgrade_strategies"] = self._old_strategies()
        if "provider_models" in self._columns:
            provider, kind = provider_sql("provider_name"), model_type_sql("model_type")
            rows = self._rows(
                f"SELECT DISTINCT tenant_id::text, {provider}, model_name, {kind}"
                " FROM public.provider_models ORDER BY 1, 2, 3"
            )
            result["models"] = [dict(zip(("tenant", "provider", "model", "type"), row)) for row in rows]

    def providers(self, result: dict[str, Any]) -> None:
        """What the step to plugins has to know."""
        result["short_providers"] = sum(short_names(self.database).values())
        result["colliding_providers"] = collisions(self.database)
        if not self.database.plugin_name:
            needed = needs(self.database)
            result["plugins_needed"] = {tenant: sorted(needed.of(tenant)) for tenant in needed.tenants}

    def plugins(self, result: dict[str, Any]) -> None:
        """Installations; which of them have their file is for others to say."""
        name = self.database.plugin_name
        if not name or not self.database.exists(name):
            return
        if not self._rows("SELECT to_regclass('public.plugin_installations')", name)[0][0]:
            return
        rows = self._rows(
            "SELECT tenant_id::text, plugin_id, plugin_unique_identifier, coalesce(runtime_type, '')"
            " FROM public.plugin_installations ORDER BY 1, 2",
            name,
        )
        result["plugins"] = [dict(zip(("tenant", "id", "identifier", "runtime"), row)) for row in rows]

    def public_keys(self) -> dict[str, str]:
        """Workspace -> its public key in PEM."""
        if "tenants" not in self._columns:
            return {}
        rows = self._rows("SELECT id::text, coalesce(encrypt_public_key, '') FROM public.tenants")
        return {row[0]: row[1] for row in rows}

    # -- the parts

    def _rows(self, statement: str, database: str = "") -> list[list[str]]:
        return self.database.sql(statement, database, self._left(60))

    def _names(self, statement: str) -> list[str]:
        return [row[0] for row in self._rows(statement)]

    def _count(self, table: str, where: str = "true") -> int:
        if table not in self._columns:
            return 0
        return int(self._rows(f'SELECT count(*) FROM public."{table}" WHERE {where}')[0][0])

    def _old_strategies(self) -> int:
        """Workspaces whose plugins' automatic upgrades are kept in the form from before 1.15: one row for all."""
        columns = self._columns.get(_STRATEGIES, set())
        if "tenant_id" not in columns:
            return 0
        every = f"SELECT count(DISTINCT tenant_id) FROM public.{_STRATEGIES} s"
        if "category" in columns:
            every += (
                f" WHERE NOT EXISTS (SELECT 1 FROM public.{_STRATEGIES} o"
                " WHERE o.tenant_id = s.tenant_id AND o.category <> 'tool')"
            )
        return int(self._rows(every)[0][0])

    def _our_addresses(self) -> Mapping[str, Any]:
        """Address -> True where this project's own containers come from, else the name of what is there."""
        if not self.database.internal:
            # Every container of this host comes from the same address, and nothing can tell them apart.
            return {self._rows(_OWN_ADDRESS)[0][0]: True}
        try:
            names, own = addresses(self.project), own_names(self.project)
        except DockerError as exc:
            raise DatabaseError(f"whose sessions there are cannot be told: {exc}") from None
        found: dict[str, Any] = {
            address: name[len("container ") :] in own or name for address, name in names.items() if name
        }
        # From inside the database's own container nobody of Dify's comes.
        service = self.database.service
        for address, name in names.items():
            if name.endswith(f"-{service}-1"):
                found[address] = "the database's own container"
        return found


def _mb(size: int) -> int:
    return math.ceil(size / 1024 / 1024)
