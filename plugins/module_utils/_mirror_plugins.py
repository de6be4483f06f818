# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Packages of Dify's plugins, and the marketplace's answers about them as files that a plain web server hands out.

marketplace/packages/<checksum>.difypkg                         plugins/download?unique_identifier=…@<checksum>
marketplace/api/v1/plugins/<author>/<name>.json                 plugins/<author>/<name>
marketplace/api/v1/plugins/<author>/<name>/versions.json        plugins/<author>/<name>/versions
marketplace/api/v1/plugins/batch.json, search/{basic,advanced}.json      POST: all that there are
marketplace/api/v1/stats/plugins/install_count.json             POST: thank you
marketplace/api/v1/dist/plugins/manifest.json                   the same
"""

from __future__ import annotations

import json
import os
import urllib.parse
import zipfile
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_market import Marketplace, MarketplaceError
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_names import Wanted, parse_name
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_package import PackageError, read_package
from ansible_collections.llmops.stack.plugins.module_utils._download import HAS_REQUESTS, write_atomically
from ansible_collections.llmops.stack.plugins.module_utils._mirror_fetch import Fetcher, MirrorError
from ansible_collections.llmops.stack.plugins.module_utils._mirror_index import Index

if HAS_REQUESTS:
    import requests

__all__ = ["Plugins", "package_path", "requirements_of"]

FOLDER = "www/marketplace"
_API = f"{FOLDER}/api/v1"
_ASK = 30.0


def package_path(identifier: str) -> str:
    return f"{FOLDER}/packages/{parse_name(identifier).checksum}.difypkg"


def requirements_of(path: str) -> tuple[str, str]:
    """What a plugin's environment is made of: C(requirements) or C(project), and the text of that file.

    With an index of its own the daemon prefers requirements.txt, and reads pyproject.toml where there is none.
    """
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        for name, kind in (("requirements.txt", "requirements"), ("pyproject.toml", "project")):
            if name in names:
                return kind, archive.read(name).decode("utf-8", "replace")
    return "requirements", ""


class Plugins:
    def __init__(self, fetcher: Fetcher, index: Index) -> None:
        self.fetcher = fetcher
        self.index = index

    def held(self, wanted: Wanted) -> str:
        """The identifier of the newest package that is there and is meant; empty without one."""
        with self.index.lock:
            known = [parse_name(name) for name in self.index.data["plugins"]]
        fitting = [one for one in known if wanted.is_met_by(one) and self.index.holds(package_path(one.identifier))]
        newest = max(fitting, key=lambda one: one.order, default=None)
        return newest.identifier if newest else ""

    def find(self, wanted: Wanted) -> Wanted:
        """The plugin with version and checksum, as the marketplace has it.

        Raises:
            MirrorError: the marketplace does not have it, or cannot be asked.
        """
        if wanted.identifier:
            return wanted
        try:
            seconds = min(_ASK, self.fetcher.left())
            return Marketplace(self.fetcher.sources.marketplace, seconds, filling=True).find(wanted)
        except MarketplaceError as exc:
            raise MirrorError(str(exc), "Correct the plugin's name or version in dify_plugins.") from exc

    def bring(self, wanted: Wanted) -> tuple[str, int]:
        """Have the package; returns its identifier and how many bytes came.

        Raises:
            MirrorError: it cannot be had, or is not the one that was asked for.
        """
        found = self.find(wanted)
        path = package_path(found.identifier)
        received = 0
        if not self.index.holds(path):
            query = urllib.parse.urlencode({"unique_identifier": found.identifier})
            url = f"{self.fetcher.sources.marketplace}/api/v1/plugins/download?{query}"
            got = self.fetcher.file(url, self.index.absolute(path), check=lambda part: _check(part, found))
            self.index.note(path, got.sha256, found.text)
            received = got.received
        known = self.index.get("plugins", found.identifier) or {}
        known.setdefault("wheels", {})
        known.setdefault("card", self._card(found))
        self.index.put("plugins", found.identifier, known)
        self.index.save()
        return found.identifier, received

    def _card(self, found: Wanted) -> dict[str, Any]:
        """What the marketplace says about the plugin; without it Dify's pages lack its picture and nothing else."""
        url = f"{self.fetcher.sources.marketplace}/api/v1/plugins/batch"
        try:
            answer = requests.post(url, json={"plugin_ids": [found.plugin]}, timeout=(10, _ASK))
            card = answer.json()["data"]["plugins"][0]
            if answer.status_code == 200 and isinstance(card, dict):
                return card
        except (requests.RequestException, ValueError, KeyError, IndexError, TypeError):
            pass
        org, _slash, name = found.plugin.partition("/")
        label = {"en_US": name}
        return {
            "type": "plugin",
            "org": org,
            "name": name,
            "plugin_id": found.plugin,
            "label": label,
            "brief": label,
            "introduction": "",
            "icon": "",
            "category": "",
            "status": "active",
            "deprecated_reason": "",
            "alternative_plugin_id": "",
            "verification": {"authorized_category": org},
        }

    def publish(self) -> bool:
        """Write the marketplace's answers; whether any of them has changed."""
        with self.index.lock:
            known = {parse_name(name): entry for name, entry in self.index.data["plugins"].items()}
        there = sorted(
            (one for one in known if self.index.holds(package_path(one.identifier))), key=lambda one: one.order
        )
        newest = {one.plugin: one for one in there}
        cards = [_offered(known[newest[plugin]]["card"], newest[plugin]) for plugin in sorted(newest)]
        pages: dict[str, Any] = {
            f"{_API}/plugins/batch.json": _data({"plugins": cards}),
            f"{_API}/dist/plugins/manifest.json": {"plugins": cards},
        }
        for card in cards:
            plugin = str(card["plugin_id"])
            listed = [
                {"version": one.version, "unique_identifier": one.identifier, "created_at": "2024-01-01T00:00:00Z"}
                for one in reversed(there)
                if one.plugin == plugin
            ]
            pages[f"{_API}/plugins/{plugin}.json"] = _data({"plugin": card})
            pages[f"{_API}/plugins/{plugin}/versions.json"] = _data({"versions": listed, "total": len(listed)})
        return self._write(pages)

    def _write(self, pages: dict[str, Any]) -> bool:
        changed = False
        for path, content in pages.items():
            target, text = self.index.absolute(path), json.dumps(content) + "\n"
            try:
                with open(target, encoding="utf-8") as file:
                    same = file.read() == text
            except OSError:
                same = False
            if not same:
                os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
                write_atomically(target, text, 0o644)
                changed = True
        wanted = {self.index.absolute(path) for path in pages}
        for folder, _folders, names in os.walk(self.index.absolute(_API)):
            for name in names:
                if os.path.join(folder, name) not in wanted:
                    os.unlink(os.path.join(folder, name))
                    changed = True
        return changed


def _data(data: Any) -> dict[str, Any]:
    return {"code": 0, "msg": "success", "data": data}


def _offered(card: dict[str, Any], newest: Wanted) -> dict[str, Any]:
    """The card with the newest version that this mirror has, which may not be the newest one that there is."""
    return {
        **card,
        "plugin_id": newest.plugin,
        "latest_version": newest.version,
        "version": newest.version,
        "latest_package_identifier": newest.identifier,
    }


def _check(path: str, wanted: Wanted) -> None:
    try:
        found = read_package(path).wanted
    except PackageError as exc:
        raise MirrorError(
            f"what the marketplace sends as {wanted.text} is no package of a plugin, or not a whole one; it was not "
            "taken.",
            "Run again, or see what mirror_upstream serves.",
        ) from exc
    if not wanted.is_met_by(found):
        raise MirrorError(
            f"what the marketplace sends as {wanted.identifier} is {found.identifier} by its content; it was refused.",
            "See what mirror_upstream serves: a package that was packed anew is another one.",
        )
