# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Packages of plugins, fetched to this host: what the operator gave for a plugin, else the marketplace's newest."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin import Wish
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_installer import Fetched
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_market import Marketplace, MarketplaceError
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_names import Wanted
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_package import (
    HAS_YAML,
    PackageError,
    read_package,
)
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_wishes import WishError, wishes_of
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_context import StepError
from ansible_collections.llmops.stack.plugins.module_utils._download import HAS_REQUESTS, until

if HAS_REQUESTS:
    import requests

__all__ = ["Sources"]

_LOOK_SECONDS = 30.0
_GITHUB = "https://github.com"


class Sources:
    def __init__(self, elements: Sequence[Any], marketplace_url: str, folder: str) -> None:
        """C(elements) are those of dify_plugins; packages are kept in C(folder).

        Raises:
            StepError: an element cannot be meant, or its package is none.
        """
        self._folder = folder
        self._market = Marketplace(marketplace_url, _LOOK_SECONDS) if marketplace_url else None
        if not HAS_YAML:
            raise StepError("Packages of plugins cannot be read on this host.", "Install python3-yaml there.")
        try:
            self._wishes = {one.wanted.plugin: one for one in wishes_of(list(elements)) if one.state != "absent"}
        except (WishError, PackageError) as exc:
            raise StepError(f"dify_plugins: {exc}") from None

    def fetch(self, plugin: str, seconds: float) -> Fetched:
        """The package of a plugin.

        Raises:
            StepError: why it cannot be had.
        """
        wish = self._wishes.get(plugin) or Wish(Wanted(plugin))
        if wish.package:
            return Fetched(wish.package.wanted.identifier, wish.package.path, "package")
        until_then = time.monotonic() + seconds
        if wish.source == "github":
            return self._keep(Wanted(plugin), "package", lambda: self._from_github(wish, until_then))
        market = self._market
        if market is None:
            raise StepError("there is no marketplace to ask (dify_marketplace_url is empty).")
        try:
            wanted = wish.wanted if wish.wanted.identifier else market.find(wish.wanted)
            return self._keep(wanted, "marketplace", lambda: market.package(wanted, until_then))
        except MarketplaceError as exc:
            raise StepError(str(exc)) from None

    def _keep(self, wanted: Wanted, source: str, get: Callable[[], bytes]) -> Fetched:
        """The package in the folder, unless it is there; it is what it says it is."""
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        path = os.path.join(self._folder, f"{wanted.text.replace('/', '-').replace(' ', '-')}.difypkg")
        for again in (False, True):
            if again or not os.path.exists(path):
                content = get()
                with open(f"{path}.partial", "wb") as file:
                    file.write(content)
                os.replace(f"{path}.partial", path)
            try:
                found = read_package(path).wanted
                if wanted.is_met_by(found):
                    return Fetched(found.identifier, path, source)
                why = f"The package of {wanted.text} is not it: its content is {found.identifier}."
            except PackageError as exc:
                why = str(exc)
            os.unlink(path)
        raise StepError(why)

    def _from_github(self, wish: Wish, until_then: float) -> bytes:
        url = f"{_GITHUB}/{wish.repo}/releases/download/{wish.release}/{wish.release_file}"

        def late() -> StepError:
            return StepError(f"{url} was not sent in time.")

        try:
            with until(until_then, late):
                answer = requests.get(url, timeout=(10, max(1.0, until_then - time.monotonic())))
        except requests.RequestException as exc:
            raise StepError(f"{url} cannot be fetched ({type(exc).__name__}).") from None
        if answer.status_code != 200:
            raise StepError(f"{url} answers HTTP {answer.status_code}.")
        return bytes(answer.content)
