# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""What an operator writes about plugins, judged before anything is asked; packages are read for it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin import Wish
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_given import KEYS, Given, WishError, given_of
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_names import Wanted
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_package import Package, read_package

__all__ = ["KEYS", "WishError", "wishes_of"]


def wishes_of(elements: Sequence[Any], state: str = "present", pin: bool | None = None) -> list[Wish]:
    """One wish for each element. Packages are read: they say whose they are.

    Raises:
        WishError, PackageError: an element cannot be meant, or its package is none.
    """
    wishes: list[Wish] = []
    for number, element in enumerate(elements, 1):
        try:
            wishes.append(_wish(given_of(element, state, pin)))
        except WishError as exc:
            where = f"Element {number} of plugins: " if len(elements) > 1 else ""
            raise WishError(f"{where}{exc}") from exc
    names = [one.wanted.plugin for one in wishes]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise WishError(f"{twice[0]} is listed twice, and there can be only one version of it: leave one out")
    return wishes


def _wish(given: Given) -> Wish:
    package = _package(given) if given.source == "package" and given.state != "absent" else None
    # Without a name there is a package, which has one.
    wanted = given.wanted or Wanted(package.wanted.plugin if package else "")
    return Wish(
        wanted=wanted,
        state=given.state,
        source=given.source,
        package=package,
        repo=given.repo,
        release=given.release,
        release_file=given.release_file,
        pin=given.pin,
    )


def _package(given: Given) -> Package:
    package = read_package(os.path.expanduser(os.path.expandvars(given.package)))
    if given.wanted and not given.wanted.is_met_by(package.wanted):
        raise WishError(
            f"{package.path} is {package.wanted.text}, expected was {given.wanted.text}: give the right package, or "
            "correct plugin and plugin_version"
        )
    return package
