# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Model providers, models, their credentials and the default models of a workspace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from standin import versions
from standin.api import credentials, daemon_client, db, providers, replies, session
from standin.api.credentials import Model
from standin.api.providers import Provider
from standin.server import Request, Response, Router

WORKSPACE = "/console/api/workspaces/current"
NAME_LENGTH = 30
NO_BALANCING = {"enabled": False, "configs": []}


def route(handler: Callable[[Request, str, dict[str, str]], Response]) -> Callable[..., Response]:
    def wrapped(request: Request, **arguments: str) -> Response:
        tenant_id = str(session.account(request)["tenant_id"])
        try:
            return handler(request, tenant_id, arguments)
        except daemon_client.DaemonError as error:
            raise daemon_client.for_model_route(error) from error

    return wrapped


def _rows(tenant_id: str, provider: Provider | None = None) -> list[dict[str, Any]]:
    if provider is None:
        return db.rows("SELECT * FROM provider_models WHERE tenant_id = %s AND is_valid ORDER BY created_at", tenant_id)
    return db.rows(
        "SELECT * FROM provider_models WHERE tenant_id = %s AND provider_name = %s AND is_valid ORDER BY created_at",
        tenant_id,
        provider.name,
    )


def _disabled(tenant_id: str) -> set[tuple[str, str, str]]:
    found = db.rows("SELECT * FROM provider_model_settings WHERE tenant_id = %s AND NOT enabled", tenant_id)
    return {(row["provider_name"], row["model_name"], credentials.public_type(row["model_type"])) for row in found}


def _models(tenant_id: str, provider: Provider, model_type: str = "") -> list[dict[str, Any]]:
    """The models of a provider with their schema; one without a schema is left out."""
    found, disabled = [], _disabled(tenant_id)
    for row in _rows(tenant_id, provider):
        kind = credentials.public_type(row["model_type"])
        if model_type and kind != model_type:
            continue
        current = credentials.current(tenant_id, provider, row["model_name"], kind)
        if current is None or current["encrypted_config"] is None:
            continue
        config = credentials.decrypt(Model(tenant_id, provider, row["model_name"], kind), current["encrypted_config"])
        schema = providers.model_schema(tenant_id, provider, kind, row["model_name"], config)
        if schema is None:
            continue
        off = (provider.name, row["model_name"], kind) in disabled
        entry = {
            "model": row["model_name"],
            "label": schema.get("label"),
            "model_type": kind,
            "features": schema.get("features") or [],
            "fetch_from": "customizable-model",
            "model_properties": schema.get("model_properties"),
            "deprecated": bool(schema.get("deprecated")),
            "status": "disabled" if off else "active",
            "load_balancing_enabled": False,
        }
        if versions.has("has_invalid_balancing_key"):
            entry["has_invalid_load_balancing_configs"] = False
        found.append(entry)
    return found


def provider_list(request: Request, tenant_id: str, _: dict[str, str]) -> Response:
    wanted = request.query.get("model_type", "")
    configured = {row["provider_name"] for row in _rows(tenant_id)}
    data = []
    for provider in providers.catalogue(tenant_id):
        if wanted and wanted not in (provider.declaration.get("supported_model_types") or []):
            continue
        entry = providers.public(request, tenant_id, provider)
        custom: dict[str, Any] = {"status": "active" if provider.name in configured else "no-configure"}
        if versions.has("credential_routes"):
            unlisted = credentials.unlisted(tenant_id, provider)
            custom |= {
                "current_credential_id": None,
                "current_credential_name": None,
                "available_credentials": [],
                "custom_models": [*_custom_models(tenant_id, provider), *_unlisted_models(unlisted)],
                "can_added_models": [{"model": name, "model_type": kind} for name, kind in unlisted],
            }
        entry |= {
            "preferred_provider_type": "custom",
            "custom_configuration": custom,
            "system_configuration": {"enabled": False, "current_quota_type": None, "quota_configurations": []},
        }
        data.append(entry)
    if not versions.has("plugins"):
        data.sort(key=lambda entry: entry["provider"] != "ollama")
    return replies.console({"data": data})


def _custom_models(tenant_id: str, provider: Provider) -> list[dict[str, Any]]:
    found = []
    for row in _rows(tenant_id, provider):
        kind = credentials.public_type(row["model_type"])
        model = Model(tenant_id, provider, row["model_name"], kind)
        current = credentials.current(tenant_id, provider, row["model_name"], kind) or {}
        listed = credentials.listed(model)
        found.append(
            {
                "model": row["model_name"],
                "model_type": kind,
                "credentials": None,
                "current_credential_id": row["credential_id"],
                "current_credential_name": current.get("credential_name"),
                "available_model_credentials": [_brief(item) for item in reversed(listed)],
                "unadded_to_model_list": False,
            }
        )
    return found


def _unlisted_models(unlisted: dict[tuple[str, str], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return [
        {
            "model": name,
            "model_type": kind,
            "credentials": None,
            "current_credential_id": None,
            "current_credential_name": None,
            "available_model_credentials": [_brief(row) for row in rows],
            "unadded_to_model_list": True,
        }
        for (name, kind), rows in unlisted.items()
    ]


def _brief(row: dict[str, Any]) -> dict[str, Any]:
    return {"credential_id": row["id"], "credential_name": row["credential_name"]}


def provider_models(request: Request, tenant_id: str, arguments: dict[str, str]) -> Response:
    found = next(
        (item for item in providers.catalogue(tenant_id) if item.name == providers.full_name(arguments["provider"])),
        None,
    )
    if found is None:
        return replies.console({"data": []})
    brief = providers.public(request, tenant_id, found, brief=True)
    return replies.console({"data": [{**model, "provider": brief} for model in _models(tenant_id, found)]})


def models_of_type(request: Request, tenant_id: str, arguments: dict[str, str]) -> Response:
    kind = credentials.public_type(arguments["model_type"])
    data = []
    for provider in providers.catalogue(tenant_id):
        models = [model for model in _models(tenant_id, provider, kind) if model["status"] == "active"]
        if models:
            brief = providers.public(request, tenant_id, provider, brief=True)
            brief = {name: value for name, value in brief.items() if name not in ("supported_model_types", "models")}
            data.append(
                {
                    **({"tenant_id": tenant_id} if versions.has("plugins") else {}),
                    **brief,
                    "status": "active",
                    "models": models,
                }
            )
    return replies.console({"data": data})


def _model(tenant_id: str, provider: Provider, data: dict[str, Any]) -> Model:
    return Model(tenant_id, provider, str(data["model"]), credentials.public_type(str(data["model_type"])))


def _validated(model: Model, given: dict[str, Any]) -> dict[str, str]:
    try:
        return credentials.validate(model, given)
    except credentials.ValidationFailed as error:
        raise replies.invalid(str(error)) from error


def save_model(request: Request, tenant_id: str, arguments: dict[str, str]) -> Response:
    """POST .../models: the way to add a model before 1.8; a silent no-op for the same body since."""
    data = replies.body(request, "ParserPostModels", "model", "model_type")
    if versions.has("credential_routes"):
        if data.get("config_from") == "custom-model":
            _configure_model(tenant_id, arguments["provider"], data)
        return replies.console({"result": "success"})
    model = _model(tenant_id, providers.find(tenant_id, arguments["provider"]), data)
    given = _with_stored_secrets(model, data.get("credentials") or {})
    credentials.save_single(model, credentials.encrypt(model, _validated(model, given)))
    return replies.console({"result": "success"})


def _configure_model(tenant_id: str, provider: str, data: dict[str, Any]) -> None:
    """Another credential for a model that is in the list. What is said of balancing comes after that."""
    if not data.get("credential_id"):
        raise replies.invalid("credential_id is required when configuring a custom-model")
    model = _model(tenant_id, providers.find(tenant_id, provider), data)
    row = _record(model, data)
    if credentials.current(tenant_id, model.provider, model.name, model.type) is None:
        raise replies.invalid("The custom model record not found.")
    credentials.switch(model, row["id"])
    if (data.get("load_balancing") or {}).get("enabled"):
        raise replies.invalid("Invalid load balancing config enabled")


def _with_stored_secrets(model: Model, given: dict[str, Any]) -> dict[str, Any]:
    """Before 1.8 there is one credential, and validation knows its secrets, too."""
    stored = credentials.current(model.tenant_id, model.provider, model.name, model.type) or {}
    return credentials.with_stored_secrets(model, given, stored.get("encrypted_config"))


def get_credentials(request: Request, tenant_id: str, arguments: dict[str, str]) -> Response:
    names = {name: replies.query(request, "ParserGetCredentials", name) for name in ("model", "model_type")}
    provider = providers.find(tenant_id, arguments["provider"])
    model = _model(tenant_id, provider, names)
    current = credentials.current(tenant_id, provider, model.name, model.type)
    config = credentials.masked(model, current["encrypted_config"]) if current and current["encrypted_config"] else None
    if not versions.has("credential_routes"):
        return replies.console({"credentials": config, "load_balancing": NO_BALANCING})
    shown, name = (current or {}).get("credential_id"), (current or {}).get("credential_name")
    wanted = request.query.get("credential_id")
    if wanted:
        row = credentials.by_id(model, wanted)
        if row is None:
            raise replies.invalid(f"Credential with id {wanted} not found.")
        config, shown, name = credentials.masked(model, row["encrypted_config"]), row["id"], row["credential_name"]
    return replies.console(
        {
            "credentials": config or {},
            "current_credential_id": shown,
            "current_credential_name": name,
            "load_balancing": NO_BALANCING,
            "available_credentials": [_brief(row) for row in credentials.listed(model)],
        }
    )


def _check_name(name: Any, parser: str) -> None:
    if isinstance(name, str) and len(name) > NAME_LENGTH:
        raise replies.pydantic(
            parser, "name", f"String should have at most {NAME_LENGTH} characters", "string_too_long", name
        )


def create_credentials(request: Request, tenant_id: str, arguments: dict[str, str]) -> Response:
    data = replies.body(request, "ParserCreateCredential", "model", "model_type", "credentials")
    _check_name(data.get("name"), "ParserCreateCredential")
    model = _model(tenant_id, providers.find(tenant_id, arguments["provider"]), data)
    name = data.get("name")
    if name and any(row["credential_name"] == name for row in credentials.listed(model)):
        raise replies.invalid(f"Model credential with name '{name}' already exists for {model.name}.")
    config = credentials.encrypt(model, _validated(model, data["credentials"]))
    credentials.add(model, name or credentials.next_name(model), config)
    return replies.console({"result": "success"}, 201)


def _record(model: Model, data: dict[str, Any]) -> dict[str, Any]:
    row = credentials.by_id(model, str(data["credential_id"]))
    if row is None:
        raise replies.invalid("Credential record not found.")
    return row


def update_credentials(request: Request, tenant_id: str, arguments: dict[str, str]) -> Response:
    data = replies.body(request, "ParserUpdateCredential", "model", "model_type", "credentials", "credential_id")
    _check_name(data.get("name"), "ParserUpdateCredential")
    model = _model(tenant_id, providers.find(tenant_id, arguments["provider"]), data)
    row = _record(model, data)
    given = credentials.with_stored_secrets(model, data["credentials"], row["encrypted_config"])
    config = credentials.encrypt(model, _validated(model, given))
    db.execute(
        "UPDATE provider_model_credentials SET credential_name = %s, encrypted_config = %s, updated_at = now() "
        "WHERE id = %s",
        data.get("name") or row["credential_name"],
        config,
        row["id"],
    )
    return replies.console({"result": "success"})


def switch_credentials(request: Request, tenant_id: str, arguments: dict[str, str]) -> Response:
    data = replies.body(request, "ParserSwitch", "model", "model_type", "credential_id")
    model = _model(tenant_id, providers.find(tenant_id, arguments["provider"]), data)
    row = _record(model, data)
    current = credentials.current(tenant_id, model.provider, model.name, model.type) or {}
    if current.get("credential_id") == row["id"]:
        raise replies.invalid("Can't add same credential")
    credentials.switch(model, row["id"])
    return replies.console({"result": "success"})


def delete_credentials(request: Request, tenant_id: str, arguments: dict[str, str]) -> Response:
    data = replies.body(request, "ParserDeleteCredential", "model", "model_type", "credential_id")
    model = _model(tenant_id, providers.find(tenant_id, arguments["provider"]), data)
    credentials.remove(model, str(_record(model, data)["id"]))
    return Response(204)


def validate_credentials(request: Request, tenant_id: str, arguments: dict[str, str]) -> Response:
    """Always 200 when the model server decided, whatever it decided."""
    data = replies.body(request, "ParserValidate", "model", "model_type", "credentials")
    model = _model(tenant_id, providers.find(tenant_id, arguments["provider"]), data)
    given = (
        data["credentials"] if versions.has("credential_routes") else _with_stored_secrets(model, data["credentials"])
    )
    try:
        credentials.validate(model, given)
    except credentials.ValidationFailed as error:
        return replies.console({"result": "error", "error": str(error)})
    return replies.console(
        {"result": "success", "error": None} if versions.has("validate_error_null") else {"result": "success"}
    )


def provider_credentials(request: Request, tenant_id: str, arguments: dict[str, str]) -> Response:
    """Provider-level credentials: Ollama has none."""
    provider = providers.find(tenant_id, arguments["provider"])
    raise replies.invalid(f"Provider {provider.name} does not have provider_credential_schema")


def remove_model(request: Request, tenant_id: str, arguments: dict[str, str]) -> Response:
    data = replies.body(request, "ParserDeleteModels", "model", "model_type")
    model = _model(tenant_id, providers.find(tenant_id, arguments["provider"]), data)
    db.execute(f"DELETE FROM provider_models WHERE {credentials.WHERE}", *model.key)
    return Response(204)


def _switch(enabled: bool) -> Callable[..., Response]:
    def handler(request: Request, tenant_id: str, arguments: dict[str, str]) -> Response:
        data = replies.body(request, "ParserDeleteModels", "model", "model_type")
        model = _model(tenant_id, providers.find(tenant_id, arguments["provider"]), data)
        if not db.execute(
            f"UPDATE provider_model_settings SET enabled = %s WHERE {credentials.WHERE}", enabled, *model.key
        ):
            db.execute(
                "INSERT INTO provider_model_settings (tenant_id, provider_name, model_name, model_type, enabled) "
                "VALUES (%s, %s, %s, %s, %s)",
                *model.key,
                enabled,
            )
        return replies.console({"result": "success"})

    return handler


def parameter_rules(request: Request, tenant_id: str, arguments: dict[str, str]) -> Response:
    name = replies.query(request, "ParserParameter", "model")
    provider = providers.find(tenant_id, arguments["provider"])
    current = credentials.current(tenant_id, provider, name, "llm")
    if current is None:
        return replies.console({"data": []})
    config = credentials.decrypt(Model(tenant_id, provider, name, "llm"), current["encrypted_config"])
    schema = providers.model_schema(tenant_id, provider, "llm", name, config) or {}
    return replies.console({"data": schema.get("parameter_rules") or []})


def _first_active(tenant_id: str, model_type: str) -> tuple[Provider, str] | None:
    for provider in providers.catalogue(tenant_id):
        for model in _models(tenant_id, provider, model_type):
            if model["status"] == "active":
                return provider, str(model["model"])
    return None


def default(tenant_id: str, model_type: str) -> tuple[Provider, str] | None:
    """The stored default model, or the first active one, which then becomes the stored one.

    Up to 1.13 POST writes the row under "llm" and this looks for "text-generation": the trap of the first POST.
    """
    read = credentials.stored_type(model_type)
    row = db.row("SELECT * FROM tenant_default_models WHERE tenant_id = %s AND model_type = %s", tenant_id, read)
    if row is not None:
        found = next((item for item in providers.catalogue(tenant_id) if item.name == row["provider_name"]), None)
        return (found, row["model_name"]) if found is not None else None
    # Without models there is nothing to ask the daemon for: it may even be down.
    if not _rows(tenant_id):
        return None
    first = _first_active(tenant_id, model_type)
    if first is not None:
        db.execute(
            "INSERT INTO tenant_default_models (tenant_id, provider_name, model_name, model_type) "
            "VALUES (%s, %s, %s, %s)",
            tenant_id,
            first[0].name,
            first[1],
            read,
        )
    return first


def get_default(request: Request, tenant_id: str, _: dict[str, str]) -> Response:
    kind = credentials.public_type(replies.query(request, "ParserGetDefault", "model_type"))
    try:
        found = default(tenant_id, kind)
    except daemon_client.DaemonDown:
        found = None
    if found is None:
        return replies.console({"data": None})
    provider, name = found
    return replies.console(
        {
            "data": {
                "model": name,
                "model_type": kind,
                "provider": providers.public(request, tenant_id, provider, brief=True),
            }
        }
    )


def post_default(request: Request, tenant_id: str, _: dict[str, str]) -> Response:
    """Entry by entry: what was stored before a wrong entry stays."""
    for entry in replies.body(request, "ParserPostDefault", "model_settings")["model_settings"]:
        if not entry.get("provider"):
            continue
        provider = providers.find(tenant_id, entry["provider"])
        kind, name = credentials.public_type(entry["model_type"]), entry["model"]
        if not any(
            row["model_name"] == name and credentials.public_type(row["model_type"]) == kind
            for row in _rows(tenant_id, provider)
        ):
            raise replies.invalid(f"Model {name} does not exist.")
        _store_default(tenant_id, provider, name, kind)
    return replies.console({"result": "success"})


def _store_default(tenant_id: str, provider: Provider, name: str, kind: str) -> None:
    """Older releases update the row that is read, if there is one, and otherwise write one that is not."""
    changed = db.execute(
        "UPDATE tenant_default_models SET provider_name = %s, model_name = %s, updated_at = now() "
        "WHERE tenant_id = %s AND model_type = %s",
        provider.name,
        name,
        tenant_id,
        credentials.stored_type(kind),
    )
    if changed:
        return
    changed = db.execute(
        "UPDATE tenant_default_models SET provider_name = %s, model_name = %s, updated_at = now() "
        "WHERE tenant_id = %s AND model_type = %s",
        provider.name,
        name,
        tenant_id,
        kind,
    )
    if not changed:
        db.execute(
            "INSERT INTO tenant_default_models (tenant_id, provider_name, model_name, model_type) "
            "VALUES (%s, %s, %s, %s)",
            tenant_id,
            provider.name,
            name,
            kind,
        )


def routes(router: Router) -> None:
    segment = "<path:provider>" if versions.has("plugins") else "<provider>"
    base = f"{WORKSPACE}/model-providers"
    table: list[tuple[str, str, Callable[..., Response]]] = [
        ("GET", base, provider_list),
        ("GET", f"{WORKSPACE}/models/model-types/<model_type>", models_of_type),
        ("GET", f"{WORKSPACE}/default-model", get_default),
        ("POST", f"{WORKSPACE}/default-model", post_default),
        ("POST", f"{base}/{segment}/models/credentials/validate", validate_credentials),
        ("GET", f"{base}/{segment}/models/credentials", get_credentials),
        ("GET", f"{base}/{segment}/models/parameter-rules", parameter_rules),
        ("PATCH", f"{base}/{segment}/models/enable", _switch(True)),
        ("PATCH", f"{base}/{segment}/models/disable", _switch(False)),
        ("GET", f"{base}/{segment}/models", provider_models),
        ("POST", f"{base}/{segment}/models", save_model),
        ("DELETE", f"{base}/{segment}/models", remove_model),
    ]
    if versions.has("credential_routes"):
        table += [
            ("POST", f"{base}/{segment}/models/credentials/switch", switch_credentials),
            ("POST", f"{base}/{segment}/models/credentials", create_credentials),
            ("PUT", f"{base}/{segment}/models/credentials", update_credentials),
            ("DELETE", f"{base}/{segment}/models/credentials", delete_credentials),
        ]
    table += [("POST", f"{base}/{segment}/credentials/validate", provider_credentials)]
    # The path converter of these releases swallows whatever follows, so a newer route reads as an unknown provider.
    table += [
        (
            "POST",
            f"{base}/{segment}" + ("/credentials" if versions.has("credential_routes") else ""),
            provider_credentials,
        )
    ]
    for method, path, handler in table:
        router.add(method, path, route(handler))
