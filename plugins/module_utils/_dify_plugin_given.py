# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""What an operator writes about a plugin, a name or a mapping, judged without looking at anything else. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_names import Wanted, parse_name, parse_version

__all__ = ["KEYS", "Given", "WishError", "given_of"]

KEYS = ("plugin", "plugin_version", "state", "source", "package", "repo", "release", "release_file", "pin")
_STATES = ("present", "latest", "absent")
# source -> the keys that only it takes
_SOURCES = {"marketplace": (), "package": ("package",), "github": ("repo", "release", "release_file")}


class WishError(Exception):
    """What is written cannot be meant; the text says why and what to do."""


class Given(NamedTuple):
    """What is written. Only a package can leave the plugin open: it says itself whose it is."""

    wanted: Wanted | None
    state: str
    source: str
    package: str = ""
    repo: str = ""
    release: str = ""
    release_file: str = ""
    pin: bool | None = None


def given_of(element: Any, state: str = "present", pin: bool | None = None) -> Given:
    """An element as it is meant: a source that is not named follows from its keys.

    Raises:
        WishError: it cannot be meant.
    """
    given = _said(element)
    state = given.get("state", state)
    if state not in _STATES:
        raise WishError(f"state is {state}, expected was one of {', '.join(_STATES)}")
    source = _source(given, state)
    wanted = _wanted(given)
    if wanted is None and (source != "package" or state == "absent"):
        raise WishError("plugin is missing: a plugin has a name, author/name, and only a package says it itself")
    if source == "github" and wanted and wanted.version and state != "absent":
        raise WishError("with source=github the release decides: leave the version out")
    if state == "latest" and wanted and wanted.version:
        raise WishError("state=latest takes no version: leave it out, or use state=present")
    texts = {key: given[key] for keys in _SOURCES.values() for key in keys if key in given}
    return Given(wanted, state, source, **texts, pin=_pin(given["pin"]) if "pin" in given else pin)


def _said(element: Any) -> dict[str, Any]:
    """The keys of an element that say something."""
    if isinstance(element, str):
        return {"plugin": element}
    if not isinstance(element, Mapping):
        raise WishError(f"{element!r} is neither the name of a plugin, as in langgenius/ollama:0.1.0, nor a mapping")
    given = {str(key): value for key, value in element.items() if value is not None and value != ""}
    if "version" in given:
        if "plugin_version" in given:
            raise WishError("version and plugin_version are the same: leave one out")
        given["plugin_version"] = given.pop("version")
    unknown = sorted(given.keys() - set(KEYS))
    if unknown:
        raise WishError(f"{', '.join(unknown)} is no key of a plugin; there are {', '.join(KEYS)}")
    if isinstance(given.get("plugin_version"), (int, float)):
        raise WishError(f"version {given['plugin_version']} is a number to YAML, which loses zeros: write it in quotes")
    for key, value in given.items():
        if key != "pin" and not isinstance(value, str):
            raise WishError(f"{key} is {value!r}, expected was a text")
    return given


def _source(given: Mapping[str, Any], state: str) -> str:
    owned = {key: source for source, keys in _SOURCES.items() for key in keys}
    source = str(given.get("source") or next((owned[key] for key in owned if key in given), "marketplace"))
    if source not in _SOURCES:
        raise WishError(f"source is {source}, expected was one of {', '.join(_SOURCES)}")
    if state == "latest" and source != "marketplace":
        raise WishError(f"state=latest asks the marketplace, and source is {source}: use state=present")
    foreign = [key for key in owned if key in given and owned[key] != source]
    if foreign:
        raise WishError(f"{foreign[0]} goes with source={owned[foreign[0]]}, and source is {source}")
    missing = [key for key in _SOURCES[source] if key not in given]
    if missing and state != "absent":
        hint = ", a .difypkg file on the managed host" if source == "package" else ""
        raise WishError(f"source={source} needs {', '.join(missing)}{hint}")
    return source


def _wanted(given: Mapping[str, Any]) -> Wanted | None:
    try:
        wanted = parse_name(given["plugin"]) if "plugin" in given else None
        if wanted is None or "plugin_version" not in given:
            return wanted
        return Wanted(wanted.plugin, *parse_version(given["plugin_version"]))
    except ValueError as exc:
        raise WishError(str(exc)) from exc


def _pin(value: Any) -> bool:
    try:
        return bool(boolean(value))
    except TypeError as exc:
        raise WishError(f"pin is {value!r}, expected was true or false") from exc
