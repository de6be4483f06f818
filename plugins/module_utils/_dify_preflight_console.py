# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""What is wrong with the wishes for owner, plugins, models and apps, as sentences without secrets. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._dify_nodes import OLLAMA_PLUGIN
from ansible_collections.llmops.stack.plugins.module_utils._dify_owner import (
    NAME_LENGTH,
    PASSWORD_RULE,
    is_email,
    is_name,
    is_password,
)
from ansible_collections.llmops.stack.plugins.module_utils._dify_placement import unplaced
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_given import WishError, given_of
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_names import Wanted, order_of
from ansible_collections.llmops.stack.plugins.module_utils._dify_versions import is_known, since

__all__ = ["console_refusals"]

_MODEL_KEYS = ("model", "provider", "model_type", "credentials", "credential_name", "default", "state")
_MODEL_TYPES = ("llm", "text-embedding", "rerank", "speech2text", "tts", "moderation")
_CREDENTIAL_NAME_LENGTH = 30
_APP_KEYS = ("name", "dsl", "src", "state", "enable_api", "key", "key_file", "overwrite")
_STATES = ("present", "absent")
_WITH_KEY = "0.2.0"  # of the Ollama plugin, the first with the credential api_key


def console_refusals(wanted: Mapping[str, Any]) -> list[str]:
    """Sentences, each with what was found and the next step.

    Args:
        wanted: the variables of role dify without their prefix: C(admin_email), C(admin_password), C(admin_name),
            C(plugins), C(models), C(apps), C(probe_app), C(plugin_public_keys), C(version); and C(nodes), which is
            ollama_nodes.
    """
    return [
        *_owner(wanted),
        *_plugins(wanted.get("plugins") or []),
        *_models(wanted.get("models") or [], wanted.get("nodes") or []),
        *_apps(wanted.get("apps") or [], str(wanted.get("probe_app") or "")),
        *_keys(wanted.get("plugin_public_keys") or []),
        *_gateway_key(wanted),
    ]


def _owner(wanted: Mapping[str, Any]) -> list[str]:
    email = str(wanted.get("admin_email") or "")
    if not email:
        return []
    found = []
    if not is_email(email):
        found.append(
            f"dify_admin_email is '{email}', which Dify takes for no address. Write one as in admin@example.com."
        )
    password = str(wanted.get("admin_password") or "")
    if password and not is_password(password):
        found.append(
            f"dify_admin_password is none that Dify takes: it needs {PASSWORD_RULE}. "
            "Choose another one, or leave it empty to have one made."
        )
    name = str(wanted.get("admin_name") or "")
    if not is_name(name):
        found.append(f"dify_admin_name has {len(name)} characters and Dify takes 1 to {NAME_LENGTH}.")
    return found


def _plugins(entries: Iterable[Any]) -> list[str]:
    found = []
    names: list[str] = []
    for number, entry in enumerate(entries, 1):
        where = f"dify_plugins, entry {number}"
        try:
            given = given_of(entry)
        except WishError as error:
            found.append(f"{where}: {error}.")
            continue
        name = given.wanted.plugin if given.wanted else given.package
        if name in names:
            found.append(f"{where}: {name} is given twice. A workspace has one version of a plugin; keep one entry.")
        names.append(name)
    return found


def _models(entries: Iterable[Any], nodes: Iterable[Mapping[str, Any]]) -> list[str]:
    found = []
    names: list[tuple[str, str, str]] = []
    defaults: dict[str, str] = {}
    for number, entry in enumerate(entries, 1):
        where = f"dify_models, entry {number}"
        problem = _model(entry) or unplaced(entry, nodes)
        if problem:
            found.append(f"{where}: {problem}.")
            continue
        model, kind = str(entry["model"]), str(entry.get("model_type") or "llm")
        provider = str(entry.get("provider") or "ollama").rpartition("/")[2]
        if (provider, model, kind) in names:
            found.append(
                f"{where}: {model} ({kind}) of {provider} is given twice. Dify asks a model at one address; keep one "
                "entry."
            )
        names.append((provider, model, kind))
        if entry.get("default") and entry.get("state") != "absent":
            other = defaults.setdefault(kind, model)
            if other != model:
                found.append(
                    f"{where}: {model} and {other} are both to be the default of the type {kind}. Dify has one; choose "
                    "it."
                )
    return found


def _model(entry: Any) -> str:
    if not isinstance(entry, Mapping):
        return "is no mapping; a model needs at least the key model"
    problem = _unknown(entry, _MODEL_KEYS)
    if problem:
        return problem
    if not isinstance(entry.get("model"), str) or not entry["model"]:
        return "has no name in the key model"
    kind = entry.get("model_type") or "llm"
    if kind not in _MODEL_TYPES:
        return f"model_type is '{kind}'; it must be {_or(_MODEL_TYPES)}"
    if entry.get("state", "present") not in _STATES:
        return f"state is '{entry['state']}'; it must be {_or(_STATES)}"
    if not isinstance(entry.get("credentials") or {}, Mapping):
        return "credentials are no mapping"
    if len(str(entry.get("credential_name") or "")) > _CREDENTIAL_NAME_LENGTH:
        return f"credential_name has more than {_CREDENTIAL_NAME_LENGTH} characters, and Dify takes no more"
    return ""


def _apps(entries: Iterable[Any], probe_app: str) -> list[str]:
    found = []
    names: list[str] = []
    for number, entry in enumerate(entries, 1):
        where = f"dify_apps, entry {number}"
        problem = _app(entry)
        if problem:
            found.append(f"{where}: {problem}.")
            continue
        name = entry["name"]
        if name in names:
            found.append(f"{where}: the app {name} is given twice. Apps are known by their names; rename one.")
        if name == probe_app:
            found.append(f"{where}: {name} is the name of the probe's app. Rename one of them (dify_probe_app).")
        names.append(name)
    return found


def _app(entry: Any) -> str:
    if not isinstance(entry, Mapping):
        return "is no mapping; an app needs the keys name, and dsl or src"
    problem = _unknown(entry, _APP_KEYS)
    if problem:
        return problem
    if not isinstance(entry.get("name"), str) or not entry["name"]:
        return "has no name"
    if entry.get("state", "present") not in _STATES:
        return f"state is '{entry['state']}'; it must be {_or(_STATES)}"
    given = [key for key in ("dsl", "src") if entry.get(key)]
    if len(given) == 2:
        return f"{entry['name']} has both dsl and src; keep one"
    if not given and entry.get("state") != "absent":
        return f"{entry['name']} has neither dsl (the text itself) nor src (a file on the host)"
    return ""


def _keys(texts: Iterable[Any]) -> list[str]:
    return [
        f"dify_plugin_public_keys, entry {number}: is no public key in PEM form, which begins with "
        "-----BEGIN PUBLIC KEY-----."
        for number, text in enumerate(texts, 1)
        if not re.match(r"\s*-----BEGIN (RSA )?PUBLIC KEY-----", str(text))
    ]


def _gateway_key(wanted: Mapping[str, Any]) -> list[str]:
    """What could not bring it would be turned away from the moment on in which the gateway asks for it."""
    if not wanted.get("admin_email") or not any(node.get("key") for node in wanted.get("nodes") or []):
        return []
    hint = "or leave gateway_key empty, so that addresses alone decide who may ask"
    version = str(wanted.get("version") or "")
    if is_known(version) and not since(version, "plugin_daemon"):
        return [
            f"Dify {version} cannot bring the gateway_key: its Ollama provider has no field for it. Upgrade, {hint}."
        ]
    return [
        f"dify_plugins has {OLLAMA_PLUGIN}:{given.version}, which cannot bring the gateway_key: that takes "
        f"{_WITH_KEY} or newer. Raise the version, {hint}."
        for given in _named(wanted.get("plugins") or [])
        if given.plugin == OLLAMA_PLUGIN and given.version and order_of(given.version) < order_of(_WITH_KEY)
    ]


def _named(entries: Iterable[Any]) -> Iterable[Wanted]:
    for entry in entries:
        try:
            given = given_of(entry)
        except WishError:  # told by _plugins()
            continue
        if given.wanted and given.state != "absent":
            yield given.wanted


def _unknown(entry: Mapping[str, Any], known: tuple[str, ...]) -> str:
    unknown = [str(key) for key in entry if key not in known]
    return f"{_and(unknown)} is no key of it; known are {', '.join(known)}" if unknown else ""


def _and(names: Iterable[str]) -> str:
    return " and ".join(names)


def _or(names: Iterable[str]) -> str:
    *some, last = names
    return f"{', '.join(some)} or {last}"
