# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The model providers of a workspace and the schema of a model: from the daemon, through each release's caches."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from standin import versions
from standin.api import cache, daemon_client, legacy, replies, settings
from standin.server import Request

PROVIDER_CACHE_SECONDS = 86400
SCHEMA_CACHE_SECONDS = 3600


class Provider:
    """One provider as the console names it: `ollama` in 0.15.3, `langgenius/ollama/ollama` since."""

    def __init__(self, declaration: dict[str, Any], plugin_id: str = "") -> None:
        self.declaration = declaration
        self.plugin_id = plugin_id
        self.short_name = str(declaration["provider"])
        self.name = f"{plugin_id}/{self.short_name}" if plugin_id else self.short_name

    @property
    def label(self) -> str:
        if not versions.has("provider_label_in_errors"):
            return self.short_name
        return str(self.declaration.get("label", {}).get("en_US") or self.short_name)

    def fields(self) -> list[dict[str, Any]]:
        schema = self.declaration.get("model_credential_schema") or {}
        return list(schema.get("credential_form_schemas") or [])


def _cache_key(tenant_id: str) -> str:
    return f"plugin_model_providers:tenant_id:{tenant_id}:generation:0"


def catalogue(tenant_id: str) -> list[Provider]:
    if not versions.has("plugins"):
        return [Provider(legacy.declaration(name)) for name in legacy.NAMES]
    return [Provider(item["declaration"], item["plugin_id"]) for item in _models(tenant_id)]


def _models(tenant_id: str) -> list[dict[str, Any]]:
    cached = cache.get(_cache_key(tenant_id)) if versions.has("provider_cache") else None
    if cached is not None:
        return list(json.loads(cached))
    found = daemon_client.management("GET", tenant_id, "models", query={"page": 1, "page_size": 256}) or []
    if versions.has("provider_cache"):
        seconds = settings.number("PLUGIN_MODEL_PROVIDERS_CACHE_TTL", PROVIDER_CACHE_SECONDS)
        cache.client().setex(_cache_key(tenant_id), seconds, json.dumps(found))
    else:
        # Every release touches Redis here: without it the provider routes are 500.
        cache.client().ping()
    return list(found)


def forget(tenant_id: str) -> None:
    """After a console call that changes plugins, and when a console poll meets a finished task."""
    if versions.has("provider_cache"):
        cache.client().delete(_cache_key(tenant_id))


def full_name(name: str) -> str:
    if versions.has("plugins") and "/" not in name:
        return f"langgenius/{name}/{name}"
    return name


def find(tenant_id: str, name: str) -> Provider:
    wanted = full_name(name)
    for provider in catalogue(tenant_id):
        if provider.name == wanted:
            return provider
    raise replies.invalid(f"Provider {name} does not exist.")


def short_data(provider: Provider, model_type: str, model: str, credentials: dict[str, Any]) -> dict[str, Any]:
    """What a dispatch request says about its model."""
    return {"provider": provider.short_name, "model_type": model_type, "model": model, "credentials": credentials}


def model_schema(
    tenant_id: str, provider: Provider, model_type: str, model: str, credentials: dict[str, Any]
) -> dict[str, Any] | None:
    """The schema that the plugin gives a model; None when it cannot be had, which makes a model invisible."""
    if not versions.has("plugins"):
        return legacy.model_schema(model, model_type, credentials)
    text = json.dumps([tenant_id, provider.name, model_type, model, credentials], sort_keys=True)
    key = f"plugin_model_schema:{hashlib.sha256(text.encode()).hexdigest()}"
    cached = cache.get(key) if versions.has("schema_cache") else None
    if cached is not None:
        return dict(json.loads(cached))
    try:
        data = daemon_client.once(
            tenant_id, "model/schema", provider.plugin_id, short_data(provider, model_type, model, credentials)
        )
    except daemon_client.DaemonError:
        return None
    schema = (data or {}).get("model_schema")
    if schema and versions.has("schema_cache"):
        cache.client().setex(key, SCHEMA_CACHE_SECONDS, json.dumps(schema))
    return schema


def _icon_base(request: Request, tenant_id: str, provider: Provider) -> str:
    url = settings.text("CONSOLE_API_URL")
    workspace = tenant_id if versions.has("plugins") else "current"
    return f"{url}/console/api/workspaces/{workspace}/model-providers/{provider.name}"


def public(request: Request, tenant_id: str, provider: Provider, *, brief: bool = False) -> dict[str, Any]:
    """A provider as JSON. Brief: as part of a model."""
    declaration = provider.declaration
    data: dict[str, Any] = {"tenant_id": tenant_id} if versions.has("plugins") and not brief else {}
    data["provider"] = provider.name
    if versions.has("provider_name_key"):
        data["provider_name"] = ""
    data["label"] = declaration.get("label")
    if not brief:
        data["description"] = declaration.get("description")
    base = _icon_base(request, tenant_id, provider)
    icons = ("icon_small", "icon_small_dark") if versions.has("dark_icons") else ("icon_small", "icon_large")
    for icon in icons:
        value = declaration.get(icon)
        data[icon] = {name: f"{base}/{icon}/{name}" for name in value} if value else None
    if brief:
        data |= {"supported_model_types": declaration.get("supported_model_types"), "models": []}
        return data | ({"tenant_id": tenant_id} if versions.has("plugins") else {})
    for name in (
        "background",
        "help",
        "supported_model_types",
        "configurate_methods",
        "provider_credential_schema",
        "model_credential_schema",
    ):
        data[name] = declaration.get(name)
    return data
