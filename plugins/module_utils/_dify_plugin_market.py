# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""The marketplace of Dify's plugins, or a mirror of it: which versions there are, and their packages.

Dify itself fetches what it installs from there. It is asked here only for what Dify's API does not tell: the whole
identifier of an older version, and a package that Dify would not fetch.
"""

from __future__ import annotations

import json
import time
import urllib.parse
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_names import Wanted, parse_name
from ansible_collections.llmops.stack.plugins.module_utils._download import HAS_REQUESTS, until
from ansible_collections.llmops.stack.plugins.module_utils._stack_mirror import lacks
from ansible_collections.llmops.stack.plugins.module_utils._urls import mask_urls

if HAS_REQUESTS:
    import requests

__all__ = ["Marketplace", "MarketplaceError"]

_PAGE = 100
_OWN = "marketplace.dify.ai"
# No daemon takes a larger package unless told to; a page of a portal in the way is not to fill the memory.
_MAX_BYTES = 512 * 1024 * 1024


class MarketplaceError(Exception):
    """Nothing usable came from there; the text says why and what to do."""


class Marketplace:
    """Through the proxies of the environment and along redirects: it may be far away, and its packages elsewhere."""

    def __init__(self, url: str, timeout: float, verify: bool | str = True, filling: bool = False) -> None:
        """C(filling): it is asked for what a mirror is to have, and not by a host of that mirror."""
        self.filling = filling
        self.url = url.rstrip("/")
        self.timeout = timeout
        self.verify = verify

    def versions(self, plugin: str) -> list[Wanted]:
        """All published versions, each with its checksum."""
        path = f"/api/v1/plugins/{urllib.parse.quote(plugin)}/versions?page=1&page_size={_PAGE}"
        content = self._get(path, f"the versions of {plugin}", self.timeout)
        try:
            entries: list[dict[str, Any]] = json.loads(content)["data"]["versions"]
            return [parse_name(str(entry["unique_identifier"])) for entry in entries]
        except (ValueError, KeyError, TypeError) as exc:
            raise MarketplaceError(
                f"{self._name} does not list the versions of {plugin} as a marketplace does. See that marketplace_url "
                "is one, or give the plugin's whole identifier, author/name:version@checksum, which needs no look-up."
            ) from exc

    def find(self, wanted: Wanted) -> Wanted:
        """The wanted version with its checksum; the newest one where no version is wanted."""
        known = self.versions(wanted.plugin)
        if not wanted.version:
            newest = max(known, key=lambda one: one.order, default=None)
            if newest is None:
                raise MarketplaceError(
                    f"{self._name} has no version of {wanted.plugin}: use a package. {self._lacks}".rstrip()
                )
            return newest
        found = next((one for one in known if one.version == wanted.version), None)
        if found is None:
            listed = ", ".join(one.version for one in known[:8]) or "none"
            raise MarketplaceError(
                f"{self._name} has no version {wanted.version} of {wanted.plugin}; it has {listed}. Correct the "
                f"version. {self._lacks}".rstrip()
            )
        return found

    def package(self, wanted: Wanted, deadline: float) -> bytes:
        """The package itself, by a moment of C(time.monotonic)."""
        query = urllib.parse.urlencode({"unique_identifier": wanted.identifier})
        left = max(1.0, deadline - time.monotonic())
        return self._get(f"/api/v1/plugins/download?{query}", f"the package of {wanted.text}", left)

    def _get(self, path: str, what: str, seconds: float) -> bytes:
        advice = (
            "Set marketplace_url to a marketplace that the managed host reaches, or use source=package, or give the "
            "plugin's whole identifier, author/name:version@checksum, where only its version is looked up."
        )
        end = time.monotonic() + seconds

        def late() -> MarketplaceError:
            return MarketplaceError(f"{self._name} did not send {what} within {seconds:.0f} s. {advice}")

        try:
            with (
                until(end, late),
                requests.get(self.url + path, timeout=(10, seconds), verify=self.verify, stream=True) as answer,
            ):
                if answer.status_code == 404:
                    said = f"{self._name} does not have {what} (HTTP 404): correct the plugin's name."
                    raise MarketplaceError(f"{said} {self._lacks}".rstrip())
                if answer.status_code != 200:
                    raise MarketplaceError(
                        f"{self._name} answered HTTP {answer.status_code} when asked for {what}. {advice}"
                    )
                content = b"".join(_bounded(answer.iter_content(1 << 18)))
        except requests.RequestException as exc:
            raise MarketplaceError(f"{self._name} cannot be asked for {what} ({type(exc).__name__}). {advice}") from exc
        return content

    @property
    def _lacks(self) -> str:
        """What to do where it is not Dify's own, which has every plugin."""
        own = urllib.parse.urlsplit(self.url).hostname == _OWN
        return lacks("" if own or self.filling else self.url, "such plugin")

    @property
    def _name(self) -> str:
        return f"The marketplace {mask_urls(self.url)}"


def _bounded(pieces: Any) -> Any:
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > _MAX_BYTES:
            raise MarketplaceError(f"The marketplace sends more than {_MAX_BYTES >> 20} MiB, which is no plugin.")
        yield piece
