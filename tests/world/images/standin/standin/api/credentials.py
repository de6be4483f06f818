# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Model credentials in the database: one per model before 1.8, a list with names and a current one since."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from standin import versions
from standin.api import daemon_client, db, legacy_ollama, providers, replies, tokens
from standin.api.providers import Provider

PREFIX = "An error occurred during credentials validation: "
SECRET = "secret-input"
HIDDEN = "[__HIDDEN__]"  # sent for a secret, it stands for the stored one; a mask that comes back is taken as it is


def stored_type(model_type: str) -> str:
    """The name that the tables use."""
    return model_type if versions.has("short_model_types") else versions.LONG_MODEL_TYPES.get(model_type, model_type)


def public_type(model_type: str) -> str:
    return {long: short for short, long in versions.LONG_MODEL_TYPES.items()}.get(model_type, model_type)


@dataclass(frozen=True)
class Model:
    tenant_id: str
    provider: Provider
    name: str
    type: str  # llm, text-embedding, ...

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.tenant_id, self.provider.name, self.name, stored_type(self.type)


WHERE = "tenant_id = %s AND provider_name = %s AND model_name = %s AND model_type = %s"
# The names in the table of credentials are not rewritten after 0.15: an old one counts as its plugin's.
CREDENTIALS = WHERE.replace(
    "provider_name = %s", "%s IN (provider_name, 'langgenius/' || provider_name || '/' || provider_name)"
)


def check(provider: Provider, given: dict[str, Any]) -> dict[str, str]:
    """The fields that the schema knows; missing and non-string ones are refused before anybody is asked."""
    kept = {}
    for field in provider.fields():
        name = field["variable"]
        value = given.get(name)
        if value is None or value == "":
            if field.get("required"):
                if field.get("default"):
                    value = field["default"]
                else:
                    raise replies.invalid(f"Variable {name} is required")
            elif field.get("default") is not None:
                value = field["default"]
            else:
                continue
        if not isinstance(value, str):
            if versions.has("non_string_credential_500"):
                raise replies.unknown_500()
            raise replies.invalid(f"Variable {name} should be string")
        kept[name] = value
    return kept


class ValidationFailed(Exception):
    """The model server, not the platform, said no."""


def validate(model: Model, given: dict[str, Any]) -> dict[str, str]:
    """Asks the plugin (0.15.3: the model server itself) whether these credentials work."""
    credentials = check(model.provider, given)
    if not versions.has("plugins"):
        try:
            legacy_ollama.validate(model.type, model.name, credentials)
        except legacy_ollama.ModelServerError as error:
            raise ValidationFailed(PREFIX + error.text) from error
        return credentials
    try:
        daemon_client.once(
            model.tenant_id,
            "model/validate_model_credentials",
            model.provider.plugin_id,
            providers.short_data(model.provider, model.type, model.name, credentials),
        )
    except daemon_client.DaemonRefusal as error:
        inner = error.invoke_error()
        if inner.get("error_type") == "CredentialsValidateFailedError":
            raise ValidationFailed(str(inner.get("message"))) from error
        raise daemon_client.for_model_route(error) from error
    except daemon_client.DaemonError as error:
        raise daemon_client.for_model_route(error) from error
    return credentials


def secret_fields(provider: Provider) -> set[str]:
    return {field["variable"] for field in provider.fields() if field.get("type") == SECRET}


def encrypt(model: Model, credentials: dict[str, str]) -> str:
    tenant = db.row("SELECT encrypt_public_key FROM tenants WHERE id = %s", model.tenant_id) or {}
    secrets = secret_fields(model.provider)
    return json.dumps(
        {
            name: tokens.encrypt(value, tenant["encrypt_public_key"]) if name in secrets else value
            for name, value in credentials.items()
        }
    )


def decrypt(model: Model, text: str) -> dict[str, str]:
    secrets = secret_fields(model.provider)
    return {
        name: tokens.decrypt(value, model.tenant_id) if name in secrets else value
        for name, value in json.loads(text).items()
    }


def with_stored_secrets(model: Model, given: dict[str, Any], stored: str | None) -> dict[str, Any]:
    """What was sent, with the stored secret wherever HIDDEN stands for it."""
    secrets, old = secret_fields(model.provider), decrypt(model, stored) if stored else {}
    return {
        name: old[name] if value == HIDDEN and name in secrets and name in old else value
        for name, value in given.items()
    }


def masked(model: Model, text: str) -> dict[str, str]:
    secrets = secret_fields(model.provider)
    return {name: _mask(value) if name in secrets else value for name, value in decrypt(model, text).items()}


def _mask(value: str) -> str:
    return value[:6] + "*" * 12 + value[-2:] if len(value) > 8 else "*" * 20


def listed(model: Model) -> list[dict[str, Any]]:
    """All credentials of a model, newest first."""
    return db.rows(f"SELECT * FROM provider_model_credentials WHERE {CREDENTIALS} ORDER BY created_at DESC", *model.key)


def by_id(model: Model, credential_id: str) -> dict[str, Any] | None:
    return db.row(
        f"SELECT * FROM provider_model_credentials WHERE {CREDENTIALS} AND id::text = %s", *model.key, credential_id
    )


def current(tenant_id: str, provider: Provider, name: str, model_type: str) -> dict[str, Any] | None:
    """The row of a model with its config and current credential; also rows under the older type names count."""
    types = [model_type, versions.LONG_MODEL_TYPES.get(model_type, model_type)]
    if versions.has("credential_routes"):
        sql = (
            "SELECT m.*, c.encrypted_config, c.credential_name FROM provider_models m "
            "LEFT JOIN provider_model_credentials c ON c.id = m.credential_id "
        )
    else:
        sql = "SELECT m.* FROM provider_models m "
    return db.row(
        sql + "WHERE m.tenant_id = %s AND m.provider_name = %s AND m.model_name = %s AND m.model_type = ANY(%s) "
        "ORDER BY m.model_type DESC",
        tenant_id,
        provider.name,
        name,
        types,
    )


def save_single(model: Model, config: str) -> None:
    """Before 1.8: one configuration per model, overwritten."""
    if not db.execute(
        f"UPDATE provider_models SET encrypted_config = %s, is_valid = true, updated_at = now() WHERE {WHERE}",
        config,
        *model.key,
    ):
        db.execute(
            "INSERT INTO provider_models (tenant_id, provider_name, model_name, model_type, encrypted_config, "
            "is_valid) VALUES (%s, %s, %s, %s, %s, true)",
            *model.key,
            config,
        )


def next_name(model: Model) -> str:
    taken = {row["credential_name"] for row in listed(model)}
    return next(name for number in range(1, 1000) if (name := f"API KEY {number}") not in taken)


def add(model: Model, name: str, config: str) -> None:
    """Stores a credential; the first one of a model becomes its current one."""
    with db.transaction() as cursor:
        cursor.execute(
            "INSERT INTO provider_model_credentials (tenant_id, provider_name, model_name, model_type, "
            "credential_name, encrypted_config) VALUES (%s, %s, %s, %s, %s, %s) RETURNING id",
            (*model.key, name, config),
        )
        credential_id = cursor.fetchone()["id"]
        cursor.execute(f"SELECT id FROM provider_models WHERE {WHERE}", model.key)
        if cursor.fetchone() is None:
            _list(cursor, model, credential_id)


def _list(cursor: Any, model: Model, credential_id: Any) -> None:
    cursor.execute(
        "INSERT INTO provider_models (tenant_id, provider_name, model_name, model_type, credential_id, is_valid) "
        "VALUES (%s, %s, %s, %s, %s, true)",
        (*model.key, credential_id),
    )


def switch(model: Model, credential_id: Any) -> None:
    """Makes a credential the current one; a model that is not in the list comes back into it."""
    with db.transaction() as cursor:
        cursor.execute(
            f"UPDATE provider_models SET credential_id = %s, updated_at = now() WHERE {WHERE}",
            (credential_id, *model.key),
        )
        if not cursor.rowcount:
            _list(cursor, model, credential_id)


def remove(model: Model, credential_id: str) -> None:
    """Deletes a credential. Without its current one a model is in no list; with the last one its row goes, too."""
    with db.transaction() as cursor:
        cursor.execute("DELETE FROM provider_model_credentials WHERE id::text = %s", (credential_id,))
        cursor.execute(f"SELECT 1 FROM provider_model_credentials WHERE {CREDENTIALS}", model.key)
        if cursor.fetchone() is None:
            cursor.execute(f"DELETE FROM provider_models WHERE {WHERE}", model.key)
        cursor.execute(
            f"UPDATE provider_models SET credential_id = NULL, updated_at = now() "
            f"WHERE {WHERE} AND credential_id::text = %s",
            (*model.key, credential_id),
        )


def unlisted(tenant_id: str, provider: Provider) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """(model, type) -> credentials, of models that have some and are not in the list of models."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in db.rows(
        "SELECT * FROM provider_model_credentials c WHERE tenant_id = %s AND provider_name = %s AND NOT EXISTS "
        "(SELECT 1 FROM provider_models m WHERE (m.tenant_id, m.provider_name, m.model_name, m.model_type) = "
        "(c.tenant_id, c.provider_name, c.model_name, c.model_type)) ORDER BY created_at",
        tenant_id,
        provider.name,
    ):
        found.setdefault((row["model_name"], public_type(row["model_type"])), []).append(row)
    return found
