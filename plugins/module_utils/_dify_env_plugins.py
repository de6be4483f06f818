# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Where plugins come from, how they are checked and where their Python packages come from: what reaches the daemon.

Pure. The daemon builds each plugin's environment with uv, and hands nothing of its own environment to it: neither
UV_* nor PIP_* variables have an effect, but for PIP_MIRROR_URL and PIP_EXTRA_ARGS, which the daemon itself turns into
arguments.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

__all__ = ["DAEMON_KEYS", "KEYS_FOLDER", "PluginSettingsError", "body_size", "environment", "key_files", "mounts"]

# Read by the daemon, whether or not a release's files mention them.
DAEMON_KEYS = frozenset(
    {
        "ENFORCE_LANGGENIUS_PLUGIN_SIGNATURES",
        "FORCE_VERIFYING_SIGNATURE",
        "PIP_EXTRA_ARGS",
        "PIP_MIRROR_AUTO_DETECT",
        "PIP_MIRROR_URL",
        "PLUGIN_IGNORE_UV_LOCK",
        "THIRD_PARTY_SIGNATURE_VERIFICATION_ENABLED",
        "THIRD_PARTY_SIGNATURE_VERIFICATION_PUBLIC_KEYS",
    }
)
# Below a release, and in the daemon's container.
KEYS_FOLDER = "plugin-keys"
_WHEELS = "/wheels"

_URL = re.compile(r"https?://[^\s/]+(?:/\S*)?")
_SIZE = re.compile(r"(\d+)([kKmMgG]?)")
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_MEBI = 1 << 20


class PluginSettingsError(Exception):
    """What was asked for cannot be; the text says why and what to do."""


def environment(settings: Mapping[str, Any], overrides: Mapping[str, str]) -> dict[str, str]:
    """The keys that follow from the settings; the operator's own are considered, and not among them.

    Raises:
        PluginSettingsError: an address or a key that is none.
    """
    found: dict[str, str] = {}
    market = _url(settings, "marketplace_url").rstrip("/")
    if market:
        found["MARKETPLACE_API_URL"] = market
    size = int(settings.get("plugin_max_mb") or 0)
    if size:
        found["PLUGIN_MAX_PACKAGE_SIZE"] = str(size * _MEBI)
    found.update(_index(settings, overrides))
    if not settings.get("plugin_signatures", True):
        # The second one is about packages that call themselves Dify's own.
        found.update(dict.fromkeys(("FORCE_VERIFYING_SIGNATURE", "ENFORCE_LANGGENIUS_PLUGIN_SIGNATURES"), "false"))
    keys = key_files(settings)
    if keys:
        found["THIRD_PARTY_SIGNATURE_VERIFICATION_ENABLED"] = "true"
        found["THIRD_PARTY_SIGNATURE_VERIFICATION_PUBLIC_KEYS"] = ",".join(f"/{KEYS_FOLDER}/{name}" for name in keys)
    return {key: value for key, value in found.items() if key not in overrides}


def _index(settings: Mapping[str, Any], overrides: Mapping[str, str]) -> dict[str, str]:
    given = _url(settings, "plugin_index")
    index = overrides.get("PIP_MIRROR_URL", given)
    wheels = str(settings.get("plugin_wheels") or "")
    args = str(settings.get("plugin_index_args") or "").split()
    address = urlsplit(index)
    if address.scheme == "http" and "--allow-insecure-host" not in args:
        args += ["--allow-insecure-host", address.netloc.rpartition("@")[2]]
    if wheels:
        args += [f"--find-links={_WHEELS}"] if index else ["--no-index", f"--find-links={_WHEELS}"]
    found: dict[str, str] = {}
    if given:
        found["PIP_MIRROR_URL"] = given
    if args:
        found["PIP_EXTRA_ARGS"] = " ".join(args)
    if given or wheels:
        # A lock names the files of the public index, and newer daemons look for a public mirror by themselves.
        found.update({"PLUGIN_IGNORE_UV_LOCK": "true", "PIP_MIRROR_AUTO_DETECT": "false"})
    return found


def _url(settings: Mapping[str, Any], name: str) -> str:
    value = str(settings.get(name) or "")
    if value and not _URL.fullmatch(value):
        raise PluginSettingsError(f"{name} must begin with http:// or https:// and name a host. Correct dify_{name}.")
    return value


def key_files(settings: Mapping[str, Any]) -> dict[str, str]:
    """Name and text of each public key. A name follows from the text, so that another key recreates the daemon.

    Raises:
        PluginSettingsError: a text that is no public key.
    """
    found: dict[str, str] = {}
    for number, given in enumerate(settings.get("plugin_public_keys") or (), 1):
        text = str(given).strip() + "\n"
        lines = text.splitlines()
        if "PRIVATE KEY" in text:
            raise PluginSettingsError(
                f"Number {number} of plugin_public_keys is a private key, which nobody but its owner may have. Give "
                "the public one in dify_plugin_public_keys."
            )
        whole = re.fullmatch(r"-----BEGIN ((?:RSA )?PUBLIC KEY)-----", lines[0]) if len(lines) > 2 else None
        if whole is None or lines[-1] != f"-----END {whole[1]}-----":
            raise PluginSettingsError(
                f"Number {number} of plugin_public_keys is no public key in PEM form, from BEGIN PUBLIC KEY to END "
                "PUBLIC KEY. Correct dify_plugin_public_keys."
            )
        found[f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.pem"] = text
    return found


def mounts(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Folders of the host for the daemon, in the long form: a source that is missing is an error and no new folder."""
    found = []
    if settings.get("plugin_wheels"):
        found.append((str(settings["plugin_wheels"]), _WHEELS))
    if settings.get("plugin_public_keys"):
        found.append((f"./{KEYS_FOLDER}", f"/{KEYS_FOLDER}"))
    return [{"type": "bind", "source": source, "target": target, "read_only": True} for source, target in found]


def body_size(current: str, megabytes: int) -> str:
    """What nginx must let through for a package of this size in a form; the current value where that is enough."""
    match = _SIZE.fullmatch(current.strip())
    size = int(match[1]) * _UNITS[match[2].lower()] if match else 0
    needed = (megabytes + 1) * _MEBI
    return current if match and (size == 0 or size >= needed) else f"{megabytes + 1}M"
