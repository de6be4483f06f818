# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""/plugin/:tenant_id/management: what is uploaded, installed, running as a task."""

from __future__ import annotations

import email.parser
import email.policy
import functools
import json
from collections.abc import Callable
from typing import Any

from standin.daemon_cache import RedisError
from standin.daemon_database import DatabaseError, Row
from standin.daemon_http import Call, Reply, failure, invalid, not_found_plugin, ok
from standin.daemon_package import IDENTIFIER, PackageError
from standin.daemon_registry import Registry, checksum_of, plugin_id_of, shown, version_of
from standin.daemon_tasks import Tasks

Handler = Callable[[Call], Reply]
METAS_DIFFER = "the number of metas must be equal to the number of plugin unique identifiers"


def guarded(handler: Callable[..., Reply]) -> Callable[..., Reply]:
    """Trouble with PostgreSQL or Redis is an answer with status 200."""

    @functools.wraps(handler)
    def wrapper(self: Management, call: Call) -> Reply:
        try:
            return handler(self, call)
        except (DatabaseError, RedisError) as error:
            return failure(-500, str(error))

    return wrapper


class Management:
    def __init__(self, registry: Registry, tasks: Tasks) -> None:
        self._registry = registry
        self._tasks = tasks
        self._database = registry.database
        self._behaviour = registry.behaviour

    def routes(self) -> dict[str, Handler]:
        found: dict[str, Handler] = {
            "GET /list": self.installations,
            "GET /models": self.models,
            "GET /tools": self.nothing,
            "GET /agent_strategies": self.nothing,
            "GET /tool": self.no_plugin,
            "GET /agent_strategy": self.no_plugin,
            "POST /tools/check_existence": self.check_existence,
            "POST /installation/fetch/batch": self.fetch_batch,
            "POST /installation/missing": self.missing,
            "POST /install/upload/package": self.upload,
            "POST /install/identifiers": self.install,
            "POST /install/upgrade": self.upgrade,
            "POST /uninstall": self.uninstall,
            "GET /install/tasks": self.tasks,
            "GET /install/tasks/:id": self.task,
            "POST /install/tasks/delete_all": self.delete_tasks,
            "POST /install/tasks/:id/delete": self.delete_task,
            "POST /install/tasks/:id/delete/*identifier": self.delete_task,
            "GET /fetch/manifest": self.manifest,
            "GET /fetch/identifier": self.identifier,
        }
        if self._behaviour.decode_query:
            found["GET /decode/from_identifier"] = self.decode
        if self._behaviour.readme:
            found["GET /fetch/readme"] = self.readme
        for kind in ("datasource", "trigger"):
            if f"{kind}s" in self._behaviour.plugin_kinds:
                found[f"GET /{kind}s"] = self.nothing
                found[f"GET /{kind}"] = self.no_plugin
        if self._behaviour.category_list:
            found["GET /:category/list"] = self.category
        return found

    # Lists

    @guarded
    def installations(self, call: Call) -> Reply:
        page = self._page(call)
        if isinstance(page, Reply):
            return page
        rows, total = self._rows("plugin_installations", call, *page)
        items = [self._item(row) for row in rows]
        return ok({"list": items, "total": total} if self._behaviour.paged_list else items)

    @guarded
    def category(self, call: Call) -> Reply:
        page = self._page(call)
        if isinstance(page, Reply):
            return page
        rows, total = self._rows("plugin_installations", call, *page)
        items = [self._item(row) for row in rows]
        wanted = [item for item in items if call.arguments["category"] in item["declaration"]]
        return ok({"list": wanted, "has_more": page[0] * page[1] < total})

    @guarded
    def models(self, call: Call) -> Reply:
        page = self._page(call)
        if isinstance(page, Reply):
            return page
        rows, _ = self._rows("ai_model_installations", call, *page)
        items = []
        for row in rows:
            declaration = self._registry.declaration(row["plugin_unique_identifier"]) or {}
            items.append({**_shown(row), "declaration": declaration.get("model")})
        return ok(items)

    @guarded
    def nothing(self, call: Call) -> Reply:
        page = self._page(call)
        return page if isinstance(page, Reply) else ok([])

    def no_plugin(self, call: Call) -> Reply:
        return not_found_plugin()

    def check_existence(self, call: Call) -> Reply:
        return ok([False for _ in call.parameters().get("provider_ids") or []])

    @guarded
    def fetch_batch(self, call: Call) -> Reply:
        wanted = call.parameters().get("plugin_ids")
        if wanted is None:
            return invalid(("PluginIDs", "PluginIDs", "required"))
        rows = self._database.execute(
            "SELECT * FROM plugin_installations WHERE tenant_id = %s AND plugin_id = ANY(%s)",
            call.arguments["tenant_id"],
            wanted,
        )
        found = []
        for row in rows:
            name = row["plugin_unique_identifier"]
            found.append(
                {
                    **_shown(row),
                    "meta": json.loads(row["meta"]),
                    "version": version_of(name),
                    "checksum": checksum_of(name),
                    "declaration": self._registry.declaration(name),
                }
            )
        return ok(found)

    @guarded
    def missing(self, call: Call) -> Reply:
        wanted = call.parameters().get("plugin_unique_identifiers") or []
        refused = _bad_identifiers(wanted)
        if refused:
            return refused
        rows = self._database.execute(
            "SELECT plugin_id, plugin_unique_identifier FROM plugin_installations WHERE tenant_id = %s",
            call.arguments["tenant_id"],
        )
        current = {row["plugin_id"]: row["plugin_unique_identifier"] for row in rows}
        return ok(
            [
                {"plugin_unique_identifier": name, "current_identifier": current.get(plugin_id_of(name), "")}
                for name in wanted
                if current.get(plugin_id_of(name)) != name
            ]
        )

    # Packages

    def upload(self, call: Call) -> Reply:
        if not call.headers.get("Content-Type", "").startswith("multipart/form-data"):
            return failure(-400, "request Content-Type isn't multipart/form-data")
        form = _form(call)
        if "dify_pkg" not in form:
            return failure(-400, "http: no such file")
        if len(form["dify_pkg"]) > self._registry.config.max_package_size:
            return failure(-400, self._behaviour.size_text)
        try:
            return ok(self._registry.upload(form["dify_pkg"], form.get("verify_signature", b"").lower() == b"true"))
        except PackageError as error:
            return failure(-400, str(error))
        except DatabaseError as error:
            return failure(-400, f"{error}\nfailed to save package")

    def decode(self, call: Call) -> Reply:
        if call.is_json:
            name = call.parameters().get("plugin_unique_identifier") if self._behaviour.decode_body else ""
        else:
            name = call.query.get(self._behaviour.decode_query)
        if not name:
            return invalid(("PluginUniqueIdentifier", "PluginUniqueIdentifier", "required"))
        try:
            return ok(self._registry.decode(name))
        except PackageError as error:
            return failure(-400, str(error))

    @guarded
    def manifest(self, call: Call) -> Reply:
        found = self._registry.declaration(call.query.get("plugin_unique_identifier", ""))
        return failure(-400, "plugin not found") if found is None else ok(found)

    @guarded
    def identifier(self, call: Call) -> Reply:
        return ok(self._registry.present(call.query.get("plugin_unique_identifier", "")))

    def readme(self, call: Call) -> Reply:
        try:
            return ok({"content": self._registry.readme(call.query.get("plugin_unique_identifier", ""))})
        except PackageError as error:
            return failure(-500, f"failed to get readme from database: {error}")

    # Install, upgrade, uninstall

    @guarded
    def install(self, call: Call) -> Reply:
        parameters = call.parameters()
        names = parameters.get("plugin_unique_identifiers") or []
        if not parameters.get("source"):
            return invalid(("Source", "Source", "required"))
        refused = _bad_identifiers(names)
        if refused:
            return refused
        metas = parameters.get("metas") or []
        if len(metas) != len(names):
            return failure(-400, METAS_DIFFER)
        tenant = call.arguments["tenant_id"]
        if self._behaviour.repeat_refused and any(self._registry.installed(tenant, name) for name in names):
            return failure(-400, "plugin already installed\nfailed on plugin installation")
        for name in names:
            if self._registry.declaration(name) is None:
                detail = "\nfailed to get plugin declaration" if self._behaviour.detailed_errors else ""
                return failure(-500, f"plugin not found{detail}")
        task = self._tasks.install(tenant, names, parameters["source"], metas)
        return ok({"all_installed": not task, "task_id": task})

    @guarded
    def upgrade(self, call: Call) -> Reply:
        parameters = call.parameters()
        fields = (
            ("OriginalPluginUniqueIdentifier", "original_plugin_unique_identifier"),
            ("NewPluginUniqueIdentifier", "new_plugin_unique_identifier"),
            ("Source", "source"),
        )
        failed = [(name, name, "required") for name, key in fields if not parameters.get(key)]
        if failed:
            return invalid(*failed)
        old, new = parameters["original_plugin_unique_identifier"], parameters["new_plugin_unique_identifier"]
        if old == new:
            return failure(-400, "original and new plugin unique identifier are the same")
        row = self._registry.installed(call.arguments["tenant_id"], old)
        if row is None or row["source"] != parameters["source"]:
            return failure(-404, "plugin installation not found for this tenant")
        if self._registry.declaration(new) is None:
            if not self._behaviour.upgrade_unknown_task:
                return failure(-500, "plugin not found")
            self._registry.restore(new)
        return ok({"all_installed": False, "task_id": self._tasks.upgrade(row, new, parameters.get("meta") or {})})

    @guarded
    def uninstall(self, call: Call) -> Reply:
        row = self._database.one(
            "SELECT * FROM plugin_installations WHERE tenant_id = %s AND id = %s",
            call.arguments["tenant_id"],
            call.parameters().get("plugin_installation_id", ""),
        )
        if row is None:
            return ok(True) if self._behaviour.uninstall_unknown_ok else not_found_plugin()
        self._tasks.uninstall(row)
        return ok(True)

    # Tasks

    @guarded
    def tasks(self, call: Call) -> Reply:
        page = self._page(call)
        if isinstance(page, Reply):
            return page
        rows, _ = self._rows("install_tasks", call, *page)
        return ok([_task(row) for row in rows])

    @guarded
    def task(self, call: Call) -> Reply:
        row = self._database.one(
            "SELECT * FROM install_tasks WHERE id = %s AND tenant_id = %s",
            call.arguments["id"],
            call.arguments["tenant_id"],
        )
        return failure(-500, "record not found") if row is None else ok(_task(row))

    @guarded
    def delete_task(self, call: Call) -> Reply:
        self._database.execute(
            "DELETE FROM install_tasks WHERE id = %s AND tenant_id = %s",
            call.arguments["id"],
            call.arguments["tenant_id"],
        )
        return ok(True)

    @guarded
    def delete_tasks(self, call: Call) -> Reply:
        self._database.execute("DELETE FROM install_tasks WHERE tenant_id = %s", call.arguments["tenant_id"])
        return ok(True)

    # Helpers

    def _rows(self, table: str, call: Call, page: int, size: int) -> tuple[list[Row], int]:
        tenant = call.arguments["tenant_id"]
        counted = self._database.execute(f"SELECT count(*) AS total FROM {table} WHERE tenant_id = %s", tenant)
        rows = self._database.execute(
            f"SELECT * FROM {table} WHERE tenant_id = %s ORDER BY created_at DESC LIMIT %s OFFSET %s",
            tenant,
            size,
            (page - 1) * size,
        )
        return rows, counted[0]["total"]

    def _page(self, call: Call) -> tuple[int, int] | Reply:
        found: dict[str, int] = {}
        for name in ("page", "page_size"):
            value = str(call.parameters().get(name, ""))
            if value and not value.lstrip("-").isdigit():
                found = {}
                break
            found[name] = int(value or 0)
        failed = []
        for key, name, most in (("page", "Page", 0), ("page_size", "PageSize", 256)):
            value_of = found.get(key, 0)
            if value_of == 0:
                failed.append((name, name, "required"))
            elif value_of < 1:
                failed.append((name, name, "min"))
            elif most and value_of > most:
                failed.append((name, name, "max"))
        return invalid(*failed) if failed else (found["page"], found["page_size"])

    def _item(self, row: Row) -> dict[str, Any]:
        name = row["plugin_unique_identifier"]
        return {
            "id": row["id"],
            "name": plugin_id_of(name).split("/")[-1],
            "plugin_id": row["plugin_id"],
            "tenant_id": row["tenant_id"],
            "plugin_unique_identifier": name,
            "endpoints_active": row["endpoints_active"],
            "endpoints_setups": row["endpoints_setups"],
            "installation_id": row["id"],
            "declaration": self._registry.declaration(name),
            "runtime_type": row["runtime_type"],
            "version": version_of(name),
            "created_at": shown(row["created_at"]),
            "updated_at": shown(row["updated_at"]),
            "source": row["source"],
            "checksum": checksum_of(name),
            "meta": json.loads(row["meta"]),
        }


def _shown(row: Row) -> dict[str, Any]:
    return {key: shown(value) for key, value in row.items()}


def _task(row: Row) -> dict[str, Any]:
    return {**_shown(row), "plugins": json.loads(row["plugins"])}


def _bad_identifiers(names: list[Any]) -> Reply | None:
    failed = [
        f"PluginUniqueIdentifiers[{index}]" for index, name in enumerate(names) if not IDENTIFIER.match(str(name))
    ]
    return invalid(*((key, key, "plugin_unique_identifier") for key in failed)) if failed else None


def _form(call: Call) -> dict[str, bytes]:
    raw = b"Content-Type: " + call.headers["Content-Type"].encode() + b"\r\n\r\n" + call.body
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(raw)
    parts = message.iter_parts() if message.is_multipart() else ()
    found: dict[str, bytes] = {}
    for part in parts:
        # A part that is itself multipart has no content of its own.
        content = part.get_payload(decode=True)
        name = str(part.get_param("name", header="content-disposition"))
        found[name] = content if isinstance(content, bytes) else b""
    return found
