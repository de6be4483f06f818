# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.

"""What has to change for a model of Dify to have the wanted credentials. Pure.

Dify shows a secret only as a mask. What this collection wrote before is remembered (_dify_model_record), and that is
what tells a value changed by hand in the browser from one changed in the inventory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._dify_model_record import Remembered

# Sent in place of a secret, Dify keeps the one that it has.
KEEP_SECRET = "[__HIDDEN__]"  # noqa: S105  # a word of the protocol, no password
SHOWN = "(secret)"
_PLAIN = ("base_url", "mode", "context_size", "max_tokens", "vision_support", "function_call_support")


class PlanError(Exception):
    """What was asked for cannot be; the text says why and what to do."""


@dataclasses.dataclass(frozen=True)
class Field:
    """One credential that a provider's form asks for."""

    name: str
    secret: bool = False
    required: bool = False
    default: str = ""
    # All of these (variable, value) must hold for the field to exist.
    conditions: tuple[tuple[str, str], ...] = ()


@dataclasses.dataclass(frozen=True)
class Found:
    """The credentials of a model as Dify shows them. Before 1.8 there is one without id and name."""

    values: Mapping[str, str]
    current: str = ""
    name: str = ""
    available: Mapping[str, str] = dataclasses.field(default_factory=dict)  # id -> name


@dataclasses.dataclass(frozen=True)
class Difference:
    key: str
    wanted: str
    found: str
    secret: bool = False
    by_hand: bool = False

    def shown(self) -> dict[str, str]:
        """For people: without what is secret."""
        if not self.secret:
            return {"key": self.key, "wanted": self.wanted, "found": self.found}
        return {"key": self.key, "wanted": SHOWN, "found": f"another {SHOWN}" if self.found else ""}


def mask(value: str) -> str:
    """A secret as Dify shows it."""
    if not value:
        return value
    return value[:6] + "*" * 12 + value[-2:] if len(value) > 8 else "*" * 20


def form(provider: Mapping[str, Any]) -> list[Field]:
    """The fields of an entry of the list of providers.

    Raises:
        PlanError: this provider takes no models by name.
    """
    schema = provider.get("model_credential_schema")
    if not schema:
        raise PlanError(
            f"Provider {provider.get('provider')} has no models that are added by name: its models come with one "
            "credential for the whole provider, which is set in Dify under Settings, Model Provider."
        )
    return [
        Field(
            name=str(one["variable"]),
            secret=one.get("type") == "secret-input",
            required=bool(one.get("required")),
            default="" if one.get("default") is None else str(one["default"]),
            conditions=tuple((str(by["variable"]), str(by["value"])) for by in one.get("show_on") or ()),
        )
        for one in schema.get("credential_form_schemas") or ()
    ]


def text(key: str, value: Any) -> str:
    """A value as Dify takes it: all of them are strings, and 1.14 and newer answer HTTP 500 to anything else."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float)):
        return str(value)
    raise PlanError(f"The credential {key} must be a text, a number or a boolean, not a {type(value).__name__}.")


def wanted_values(credentials: Mapping[str, Any], fields: Iterable[Field], model_type: str) -> dict[str, str]:
    """The given credentials as texts, without those that a model of this type does not have.

    Raises:
        PlanError: a key that the provider does not know. Dify would drop it in silence.
    """
    known = {field.name: field for field in fields}
    given = {key: text(key, value) for key, value in credentials.items() if value is not None}
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise PlanError(
            f"The provider knows no {' and no '.join(unknown)}; its credentials are {', '.join(known) or 'none'}. "
            "Newer versions of its plugin may know more."
        )
    context = _context(given, known.values(), model_type)
    return {key: value for key, value in given.items() if _applies(known[key], context)}


def complete(wanted: Mapping[str, str], fields: Iterable[Field], model_type: str) -> dict[str, str]:
    """What a new model is created with.

    Dify adds defaults where a value is not required, and refuses a required one that is missing, even with a default.
    """
    fields = list(fields)
    context = _context(wanted, fields, model_type)
    asked = [field for field in fields if _applies(field, context)]
    whole = {field.name: field.default for field in asked if field.default}
    whole.update({key: value for key, value in wanted.items() if value})
    missing = [field.name for field in asked if field.required and not whole.get(field.name)]
    if missing:
        raise PlanError(f"The provider needs {' and '.join(missing)} in the credentials.")
    return whole


def _context(given: Mapping[str, str], fields: Iterable[Field], model_type: str) -> dict[str, str]:
    defaults = {field.name: field.default for field in fields if field.default}
    return {**defaults, **given, "__model_type": model_type}


def _applies(field: Field, context: Mapping[str, str]) -> bool:
    return all(context.get(variable) == value for variable, value in field.conditions)


def differences(
    wanted: Mapping[str, str],
    found: Mapping[str, str],
    fields: Iterable[Field],
    remembered: Remembered | None,
) -> list[Difference]:
    """The given values that are not those of Dify.

    One that is still as this collection left it was changed in the inventory; any other was changed by hand, also
    one of which nothing is remembered: whoever set it had a reason.
    """
    secret = {field.name for field in fields if field.secret}
    return [
        Difference(
            key,
            value,
            found.get(key, ""),
            secret=key in secret,
            by_hand=not (remembered is not None and remembered.is_as_left(key, found.get(key, ""))),
        )
        for key, value in wanted.items()
        if not _same(key, value, found.get(key, ""), key in secret, remembered)
    ]


def _same(key: str, wanted: str, found: str, secret: bool, remembered: Remembered | None) -> bool:
    if not secret:
        return wanted == found
    if mask(wanted) != found:
        return False
    # Equal masks: only what is remembered can tell secrets apart that differ in the middle.
    left = remembered is not None and remembered.is_as_left(key, found)
    return not left or remembered is None or remembered.is_secret(key, wanted)


def body(found: Mapping[str, str], write: Mapping[str, str], fields: Iterable[Field]) -> dict[str, str]:
    """All values for an update: Dify replaces the whole, and a mask that is sent back would become the secret."""
    secret = {field.name for field in fields if field.secret}
    kept = {key: KEEP_SECRET if key in secret else value for key, value in found.items() if value}
    return {**kept, **write}


def own(found: Found, name: str, remembered: Remembered | None) -> str:
    """The id of the credential that is managed: the one of this name, else the one remembered, else the current."""
    by_name = next((one for one, called in found.available.items() if called == name), "")
    if by_name:
        return by_name
    if remembered is not None and remembered.credential_id in found.available:
        return remembered.credential_id
    return found.current


def equal_credential(shown: Mapping[str, Mapping[str, str]], wanted: Mapping[str, str], secret: Iterable[str]) -> str:
    """The id of a stored credential that has all wanted values; "" if none has."""
    masked = {key: mask(value) if key in set(secret) else value for key, value in wanted.items()}
    return next(
        (one for one, values in shown.items() if all(values.get(key) == value for key, value in masked.items())), ""
    )


def public(values: Mapping[str, str], fields: Iterable[Field]) -> dict[str, str]:
    """Values without what is secret, for results and diffs."""
    secret = {field.name for field in fields if field.secret}
    return {key: SHOWN if key in secret and value else value for key, value in sorted(values.items())}


def harmless_values(credentials: Mapping[str, Any], fields: Iterable[Field] | None) -> tuple[set[str], set[str]]:
    """The values that may be shown, and the others. Without a form only Ollama's plain ones may."""
    plain = {field.name for field in fields if not field.secret} if fields is not None else set(_PLAIN)
    shown = {str(value) for key, value in credentials.items() if key in plain}
    return shown, {str(value) for key, value in credentials.items() if key not in plain and value}
