# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""The plugin daemon's folder and its database say the same.

The daemon starts every file in C(plugin/), also one that no installation names, which then runs a second time or at an
old version beside the wanted one. And an installation without its file is listed, looks perfect, fails every call, and
is not repaired by installing it again.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._dify_database import Database, DatabaseError
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_market import Marketplace, MarketplaceError
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_names import parse_name
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_package import (
    HAS_YAML,
    PackageError,
    read_package,
)
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_context import Context

__all__ = ["Mended", "compare", "mend", "mend_plugins"]

_LOCAL = ("", "local")
_MARKET_SECONDS = 60.0


@dataclass
class Mended:
    """Identifiers of plugins, by what became of their files."""

    moved: list[str] = field(default_factory=list)  # nobody has them installed
    restored: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)  # installed, and their file cannot be had

    @property
    def changed(self) -> bool:
        return bool(self.moved or self.restored)


def compare(installed: Iterable[str], files: Iterable[str]) -> tuple[list[str], list[str]]:
    """Pure: files without a row, rows without a file."""
    rows, there = set(installed), set(files)
    return sorted(there - rows), sorted(rows - there)


def mend_plugins(ctx: Context) -> Mended:
    """mend() for a step: before the daemon starts, so that it starts what it should and nothing else."""
    return mend(
        ctx.project.settings(),
        ctx.project.home,
        ctx.database,
        os.path.join(ctx.folder, "plugin-files-without-row"),
        ctx.options.marketplace_url,
        ctx.log,
    )


def mend(
    settings: Mapping[str, str],
    home: str,
    database: Database,
    aside: str,
    marketplace_url: str,
    log: Callable[[str], Any],
) -> Mended:
    """Move files that no installation names to C(aside); put back those that installations miss.

    A file comes from the daemon's own folder of packages, else from the marketplace. What cannot be had is told and no
    error: it was not there before either, and the health check says it of each plugin.
    """
    done = Mended()
    if (settings.get("PLUGIN_STORAGE_TYPE") or "") not in _LOCAL or not database.plugin_name:
        return done
    root = os.path.join(home, "volumes", "plugin_daemon")
    place = os.path.join(root, settings.get("PLUGIN_INSTALLED_PATH") or "plugin")
    packages = os.path.join(root, settings.get("PLUGIN_PACKAGE_CACHE_PATH") or "plugin_packages")
    try:
        installed = _installed(database)
    except DatabaseError as exc:
        log(f"the plugin daemon's files are not compared with its database: {exc}")
        return done
    strays, missing = compare(installed, _files(place))
    for name in strays:
        _move(os.path.join(place, name), os.path.join(aside, name))
        done.moved.append(name)
    market = Marketplace(marketplace_url, _MARKET_SECONDS) if marketplace_url else None
    for name in missing:
        why = _restore(name, place, packages, market)
        (done.lost if why else done.restored).append(name)
        if why:
            log(f"{name} is installed and its file is gone; {why}")
    for word, names in (("moved aside, nobody has it installed", done.moved), ("put back", done.restored)):
        for name in names:
            log(f"plugin file {name}: {word}")
    return done


def _installed(database: Database) -> list[str]:
    """Installations that a process of this daemon serves; none before the daemon has made its tables."""
    name = database.plugin_name
    if not database.exists(name) or not database.sql("SELECT to_regclass('public.plugin_installations')", name)[0][0]:
        # Without a table nothing is known, and nothing may be called a stray.
        raise DatabaseError("it has no installations yet")
    sql = "SELECT DISTINCT plugin_unique_identifier FROM plugin_installations WHERE runtime_type = 'local'"
    return [row[0] for row in database.sql(sql, name)]


def _files(place: str) -> list[str]:
    """Identifiers with a file: author/name:version@checksum, the author being a folder."""
    found = []
    for folder, _folders, names in os.walk(place):
        found += [os.path.relpath(os.path.join(folder, name), place) for name in names]
    return [name for name in found if ":" in name and "@" in name]


def _move(path: str, target: str) -> None:
    os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
    shutil.move(path, target)


def _restore(name: str, place: str, packages: str, market: Marketplace | None) -> str:
    """Why it could not be put back, "" when it was."""
    target, kept = os.path.join(place, name), os.path.join(packages, name)
    # Not beside the target: the daemon starts what it finds there.
    partial = os.path.join(os.path.dirname(place), ".plugin.partial")
    try:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if os.path.isfile(kept):
            shutil.copyfile(kept, partial)
        elif market is None:
            return "there is no marketplace to ask for it"
        else:
            content = market.package(parse_name(name), time.monotonic() + _MARKET_SECONDS)
            with open(partial, "wb") as file:
                file.write(content)
        if HAS_YAML and read_package(partial).wanted.identifier != name:
            return "what was found under its name has another content"
        os.replace(partial, target)
    except (OSError, ValueError, MarketplaceError, PackageError) as exc:
        return str(exc)
    finally:
        if os.path.exists(partial):
            os.unlink(partial)
    return ""
