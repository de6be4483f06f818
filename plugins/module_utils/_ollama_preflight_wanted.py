# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""What cannot be meant in the variables of role ollama, whatever the host looks like, as sentences.

The modules would refuse most of it, too: after the server was replaced, and one after the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils import _guard
from ansible_collections.llmops.stack.plugins.module_utils._ollama_names import BadName, is_host, parse
from ansible_collections.llmops.stack.plugins.module_utils._urls import mask_urls

__all__ = ["refusals"]

_ACCOUNT = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_EVERYBODY = (
    "and Ollama knows no login. List the networks that need it, or set ollama_firewall: none if another firewall "
    "guards this host."
)
_DIGEST = re.compile(r"(?:sha256:)?[0-9a-f]{64}", re.IGNORECASE)


def refusals(wanted: Mapping[str, Any]) -> list[str]:
    """Takes what C(refusals) of the whole preflight takes."""
    return [
        *(_user(wanted) if wanted.get("install") != "container" else []),
        *_keep(wanted),
        *_checksums(wanted),
        *_allow(wanted),
        *_models(wanted),
        *_registry(wanted),
        *_bundle(wanted),
    ]


def _listed(wanted: Mapping[str, Any], key: str, of: str) -> tuple[list[Any], list[str]]:
    """The entries of a list, or why it is none."""
    value: Any = wanted.get(key) or []
    if isinstance(value, (str, Mapping)) or not isinstance(value, Iterable):
        return [], [f"ollama_{key} is {value!r}, which is no list. Write a list of {of}."]
    return list(value), []


def _user(wanted: Mapping[str, Any]) -> list[str]:
    user = str(wanted.get("user") or "ollama")
    if user == "root":
        return [
            "ollama_user is root, and Ollama, which has no login, shall not run as root. Write a name that nothing "
            "else uses, such as ollama."
        ]
    if not _ACCOUNT.fullmatch(user):
        return [
            f"ollama_user is {user!r}, which is no name of an account. Write small letters, digits, _ and -, such as "
            "ollama."
        ]
    return []


def _keep(wanted: Mapping[str, Any]) -> list[str]:
    keep = wanted.get("keep")
    if keep is None or re.fullmatch(r"\d+", str(keep)):
        return []
    return [f"ollama_keep is {keep!r}. Write how many releases are to stay beside the current one: 0 or more."]


def _checksums(wanted: Mapping[str, Any]) -> list[str]:
    checksums: Any = wanted.get("checksums") or {}
    if not isinstance(checksums, Mapping):
        return ["ollama_checksums is no dictionary. Write names of archives with their sha256."]
    return [
        f"ollama_checksums has {str(digest)!r} for {name}, which is no sha256. Write its 64 hexadecimal digits, as the "
        "sha256sum.txt of the release has them."
        for name, digest in checksums.items()
        if not _DIGEST.fullmatch(str(digest).strip())
    ]


def _models(wanted: Mapping[str, Any]) -> list[str]:
    names, found = _listed(wanted, "models", "names such as deepseek-r1:1.5b")
    for text in names:
        try:
            name = parse(str(text))
        except BadName as error:
            found.append(f"ollama_models: {error}")
            continue
        if name.is_cloud:
            found.append(
                f"ollama_models holds {name.short}, which runs at ollama.com and not on a host. Take another tag."
            )
    return found


def _registry(wanted: Mapping[str, Any]) -> list[str]:
    registry = str(wanted.get("registry") or "")
    host = re.sub(r"^https?://", "", registry).rstrip("/")
    if not registry or is_host(host):
        return []
    shown = mask_urls(f"://{registry}" if "://" not in registry else registry).removeprefix("://")
    return [
        f"ollama_registry is {shown!r}, and it stands before the names of models: it has no path and no login. Write "
        "host[:port], with http:// before it where it speaks plain HTTP."
    ]


def _bundle(wanted: Mapping[str, Any]) -> list[str]:
    bundle = str(wanted.get("bundle") or "")
    if not bundle or bundle.startswith("/"):
        return []
    return [f"ollama_bundle is {bundle!r}. Write the absolute path of a folder on the host."]


def _allow(wanted: Mapping[str, Any]) -> list[str]:
    said = []
    for name in ("allow", "gateways"):
        entries, found = _listed(wanted, name, "addresses and networks")
        said += [*found, *(_guard.refusal(f"ollama_{name}", entry, _EVERYBODY) for entry in entries)]
    return [sentence for sentence in said if sentence]
