# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`flask extract-plugins`, `extract-unique-identifiers`, `install-plugins`, with exit codes that prove nothing."""

from __future__ import annotations

import datetime
import json
import random
import sys
import time
import traceback
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg2

from standin import versions
from standin.api import daemon_client, db, marketplace, options, replies
from standin.api.daemon_client import management

FIRST_DAY = datetime.datetime(2023, 4, 3, 8, 59, 24)
TABLES = (
    "providers",
    "provider_models",
    "provider_orders",
    "tenant_default_models",
    "tenant_preferred_model_providers",
    "provider_model_settings",
    "load_balancing_model_configs",
)
BUILT_IN = ("time", "audio", "code", "webscraper")  # tools that stay in Dify
TOOLS_RENAMED = ("jina", "siliconflow", "stepfun", "gitee_ai")
ANSWERS = (OSError, ValueError, KeyError, TypeError)


def has_table(name: str) -> bool:
    return db.row("SELECT to_regclass(%s) AS found", f"public.{name}") != {"found": None}


def _plugin(name: str, kind: str) -> str:
    """The plugin of a provider, whichever form its name has."""
    parts = name.split("/")
    organisation, plugin = (parts[0], parts[1]) if len(parts) == 3 else ("langgenius", name)
    if organisation == "langgenius" and kind == "model" and plugin == "google":
        plugin = "gemini"
    if organisation == "langgenius" and kind == "tool" and plugin in TOOLS_RENAMED:
        plugin = f"{plugin}_tool"
    return f"{organisation}/{plugin}"


def _needs(tenant: str) -> Iterator[str]:
    """Not looked at: datasets, embeddings, and the models that workflows and apps name."""
    if versions.has("credential_routes"):
        db.rows("SELECT credential_id FROM providers LIMIT 1")
    for table in filter(has_table, TABLES):
        for row in db.rows(f"SELECT DISTINCT provider_name AS name FROM {table} WHERE tenant_id = %s", tenant):
            yield _plugin(row["name"], "model")
    if has_table("tool_builtin_providers"):
        for row in db.rows("SELECT provider AS name FROM tool_builtin_providers WHERE tenant_id = %s", tenant):
            yield _plugin(row["name"], "tool")
    for row in db.rows("SELECT graph FROM workflows WHERE tenant_id = %s", tenant):
        for node in json.loads(row["graph"] or "{}").get("nodes", []):
            data = node.get("data", {})
            builtin = data.get("type") == "tool" and data.get("provider_type") == "builtin"
            if builtin and data.get("provider_name") not in BUILT_IN:
                yield _plugin(data["provider_name"], "tool")


def extract(arguments: Sequence[str]) -> int:
    given = options.prompted(arguments, {"--output_file": "plugins.jsonl", "--workers": "10"})
    int(given["--workers"])
    print("Starting extract plugins.")
    print("Migrating models/tools to new plugin Mechanism")
    tenants = db.rows("SELECT id, created_at FROM tenants ORDER BY created_at")
    print(f"Total tenant count: {len(tenants)}")
    day, done = FIRST_DAY, 0
    while day < datetime.datetime.now():
        print(f"Current time: {day}, Started at: {datetime.datetime.now()}")
        end = day + datetime.timedelta(days=1)
        for tenant in (one for one in tenants if day <= one["created_at"] < end):
            try:
                needed = sorted(set(_needs(str(tenant["id"]))))
            except psycopg2.Error:
                # Its classes have columns that an older schema lacks: the workspace has no line, and the code is 0.
                sys.stderr.write(f"ERROR Failed to process tenant {tenant['id']}\n{traceback.format_exc()}")
                continue
            random.shuffle(needed)
            with open(given["--output_file"], "a", encoding="utf-8") as file:  # what is in it stays
                file.write(json.dumps({"tenant_id": str(tenant["id"]), "plugins": needed}) + "\n")
            done += 1
            part = f"{done / len(tenants) * 100:.1f}%"
            print(f"[{datetime.datetime.now()}] Processed {done} tenants ({part}), {done}/{len(tenants)}")
        day = end
    print("Extract plugins completed.")
    return 0


def _records(path: str) -> list[dict[str, Any]]:
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _resolve(records: list[dict[str, Any]]) -> tuple[dict[str, str], list[str]]:
    """Plugin id -> identifier of its newest version, and the ids that the marketplace does not tell."""
    found, missing = {}, []
    for plugin in dict.fromkeys(name for record in records for name in record["plugins"]):
        try:
            listed = marketplace.post("/api/v1/plugins/batch", {"plugin_ids": [plugin]})["data"]["plugins"]
        except ANSWERS:
            traceback.print_exc()
            listed = []
        if listed:
            found[plugin] = str(listed[0]["latest_package_identifier"])
        else:
            missing.append(plugin)
    return found, missing


def identifiers(arguments: Sequence[str]) -> int:
    defaults = {"--output_file": "unique_identifiers.json", "--input_file": "plugins.jsonl"}
    given = options.prompted(arguments, defaults)
    print("Starting extract unique plugins.")
    found, missing = _resolve(_records(given["--input_file"]))
    _write(given["--output_file"], {"plugins": found, "plugin_not_exist": missing})
    print("Extract unique plugins completed.")
    return 0


def install(arguments: Sequence[str]) -> int:
    defaults = {"--input_file": "plugins.jsonl", "--output_file": "installed_plugins.jsonl", "--workers": "100"}
    given = options.prompted(arguments, defaults)
    print("Starting install plugins.")
    records = _records(given["--input_file"])
    found, missing = _resolve(records)
    print(f"Installing {len(found)} plugin instances")
    trial = str(uuid.uuid4())
    for identifier in found.values():
        _upload(trial, marketplace_package(identifier))
    failed = _install(trial, list(found.values())) if found else []
    for record in records:
        tenant, wanted = record["tenant_id"], [found[one] for one in record["plugins"] if one in found]
        if not found and missing:
            continue  # with no marketplace no tenant is reached
        there = {one["plugin_unique_identifier"] for one in installed(tenant)}
        failed += _install(tenant, [one for one in wanted if one not in there])
    for one in installed(trial):
        management("POST", trial, "uninstall", body={"plugin_installation_id": one["id"]})
    _write(given["--output_file"], _summary(records, missing, failed))
    print("Install plugins completed.")
    return 0


def _summary(records: list[dict[str, Any]], missing: list[str], failed: list[str]) -> dict[str, Any]:
    """Only 1.16.0 fills `not_installed`; before, it is read from the wrong map and always empty."""
    told = []
    if versions.has("tells_what_is_not_installed"):
        for record in records:
            lost = [one for one in record["plugins"] if one in missing]
            told += [{"tenant_id": record["tenant_id"], "plugin_not_exist": lost}] if lost else []
    return {"not_installed": told, "plugin_install_failed": sorted(set(failed))}


def marketplace_package(identifier: str) -> bytes:
    try:
        return marketplace.download(identifier)
    except replies.ApiError:
        raise ValueError("file not found") from None


def _upload(tenant: str, package: bytes) -> None:
    """Whatever the daemon enforces, this command wants a signature that it knows."""
    daemon_client.upload(tenant, package, verify=True)


def installed(tenant: str) -> list[dict[str, Any]]:
    data = management("GET", tenant, "list", query={"page": 1, "page_size": 256})
    return list(data["list"] if isinstance(data, dict) else data or [])


def _install(tenant: str, wanted: list[str]) -> list[str]:
    """Plugin ids that the daemon's task calls failed. An empty list is sent, too."""
    body = {"plugin_unique_identifiers": wanted, "source": "marketplace", "metas": [{} for _ in wanted]}
    task = (management("POST", tenant, "install/identifiers", body=body) or {}).get("task_id")
    while task:
        state = management("GET", tenant, f"install/tasks/{task}")
        if state["status"] in ("success", "failed"):
            failed = [one for one in state["plugins"] if one["status"] == "failed"]
            for one in failed:
                sys.stderr.write(
                    f"Failed to install plugin {one['plugin_unique_identifier']}, error: {one['message']}\n"
                )
            return [str(one["plugin_id"]) for one in failed]
        time.sleep(1)
    return []


def _write(path: str, content: dict[str, Any]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(json.dumps(content))
