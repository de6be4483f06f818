# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""What an operator writes about plugins, a name or a dictionary each, judged before anything is asked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin import Wish
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_names import Wanted, parse_name, parse_version
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_package import Package, read_package

__all__ = ["KEYS", "WishError", "wishes_of"]

KEYS = ("plugin", "plugin_version", "state", "source", "package", "repo", "release", "release_file", "pin")
_STATES = ("present", "latest", "absent")
# source -> the keys that only it takes
_SOURCES = {"marketplace": (), "package": ("package",), "github": ("repo", "release", "release_file")}


class WishError(Exception):
    """What is written cannot be meant; the text says why and what to do."""


def wishes_of(elements: Sequence[Any], state: str = "present", pin: bool | None = None) -> list[Wish]:
    """One wish for each element. Packages are read: they say whose they are.

    Raises:
        WishError, PackageError: an element cannot be meant, or its package is none.
    """
    wishes: list[Wish] = []
    for number, element in enumerate(elements, 1):
        try:
            wishes.append(_wish(_given(element), state, pin))
        except (WishError, ValueError, TypeError) as exc:
            where = f"Element {number} of plugins: " if len(elements) > 1 else ""
            raise WishError(f"{where}{exc}") from exc
    names = [one.wanted.plugin for one in wishes]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise WishError(f"{twice[0]} is listed twice, and there can be only one version of it: leave one out")
    return wishes


def _given(element: Any) -> dict[str, Any]:
    """The keys of an element that say something."""
    if isinstance(element, str):
        return {"plugin": element}
    if not isinstance(element, dict):
        raise WishError(f"{element!r} is neither the name of a plugin nor a dictionary")
    given = {str(key): value for key, value in element.items() if value is not None and value != ""}
    if "version" in given:
        if "plugin_version" in given:
            raise WishError("version and plugin_version are the same: leave one out")
        given["plugin_version"] = given.pop("version")
    unknown = sorted(given.keys() - set(KEYS))
    if unknown:
        raise WishError(f"{', '.join(unknown)} is no key of a plugin; there are {', '.join(KEYS)}")
    return given


def _wish(given: dict[str, Any], state: str, pin: bool | None) -> Wish:
    state = str(given.get("state", state))
    source = str(given.get("source", "marketplace"))
    if state not in _STATES:
        raise WishError(f"state is {state}, expected was one of {', '.join(_STATES)}")
    if source not in _SOURCES:
        raise WishError(f"source is {source}, expected was one of {', '.join(_SOURCES)}")
    if state == "latest" and source != "marketplace":
        raise WishError("state=latest asks the marketplace, so it needs source=marketplace")
    foreign = [key for other, keys in _SOURCES.items() if other != source for key in keys if key in given]
    if foreign:
        right = next(name for name, keys in _SOURCES.items() if foreign[0] in keys)
        raise WishError(f"{foreign[0]} goes with source={right}, and source is {source}")
    missing = [key for key in _SOURCES[source] if key not in given]
    if missing and state != "absent":
        hint = ", a .difypkg file on the managed host" if source == "package" else ""
        raise WishError(f"source={source} needs {', '.join(missing)}{hint}")
    if source == "github" and "plugin_version" in given:
        raise WishError("with source=github the release decides: leave plugin_version out")
    wanted = _wanted(given)
    package = _package(given, wanted) if source == "package" and state != "absent" else None
    if package and wanted is None:
        wanted = Wanted(package.wanted.plugin)
    if wanted is None:
        raise WishError("plugin or plugins must be given: a plugin has a name, author/name")
    if state == "latest" and wanted.version:
        raise WishError("state=latest takes no version: leave it out, or use state=present")
    return Wish(
        wanted=wanted,
        state=state,
        source=source,
        package=package,
        repo=str(given.get("repo", "")),
        release=str(given.get("release", "")),
        release_file=str(given.get("release_file", "")),
        pin=boolean(given["pin"]) if "pin" in given else pin,
    )


def _wanted(given: dict[str, Any]) -> Wanted | None:
    if "plugin" not in given:
        return None
    wanted = parse_name(str(given["plugin"]))
    if "plugin_version" not in given:
        return wanted
    version, checksum = parse_version(str(given["plugin_version"]))
    return Wanted(wanted.plugin, version, checksum)


def _package(given: dict[str, Any], wanted: Wanted | None) -> Package:
    package = read_package(os.path.expanduser(os.path.expandvars(str(given["package"]))))
    if wanted and not wanted.is_met_by(package.wanted):
        raise WishError(
            f"{package.path} is {package.wanted.text}, expected was {wanted.text}: give the right package, or correct "
            "plugin and plugin_version"
        )
    return package
