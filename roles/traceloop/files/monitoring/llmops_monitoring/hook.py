# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The import hook: wraps the functions of the table right after their module has run.

Imported at the start of every Python process: no thread, no socket, and nothing that gevent would want to patch first;
and not importlib.abc either, which takes 20 ms to import.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from .table import MODULES, Target, targets_of

MARK = "__llmops_monitored__"


class Finder:
    def find_spec(self, fullname: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname not in MODULES:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            if isinstance(finder, Finder) or find is None:
                continue
            spec = find(fullname, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = PatchingLoader(spec.loader)
                return spec
        return None


class PatchingLoader:
    """The module's own loader, and one step after it; the module keeps no trace of this one."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        patch_safely(module)


def install() -> None:
    if not any(isinstance(finder, Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, Finder())
    for name in MODULES & sys.modules.keys():
        patch_safely(sys.modules[name])


def patch_safely(module: ModuleType) -> None:
    try:
        if patch(module):
            from . import plugins

            plugins.load()  # now, while the application starts: the first call then waits for no import
    except Exception as exc:  # Dify must start whatever became of its module
        from . import counters

        counters.failed(f"internal.patch.{module.__name__}", exc)


def patch(module: ModuleType) -> int:
    """Wrap what the table names in this module; how many functions that were."""
    done = 0
    for target in targets_of(module.__name__):
        if target.unless and exists(target.unless):
            continue
        cls = getattr(module, target.cls, None)
        function = vars(cls).get(target.function) if isinstance(cls, type) else None
        if function is None:
            _missing(target)
        elif not hasattr(function, MARK):
            from .wrap import wrap

            setattr(cls, target.function, wrap(function, target.kind))
            done += 1
    return done


def exists(package: str) -> bool:
    """Whether a subpackage can be imported, without importing it."""
    path = getattr(sys.modules.get(package.rpartition(".")[0]), "__path__", None)
    return path is not None and PathFinder.find_spec(package, path) is not None


def _missing(target: Target) -> None:
    if target.required:
        from . import counters

        counters.count("internal.no_hook_point")
        counters.say(target.module, f"{target.module} has no {target.cls}.{target.function}: model calls are not seen")
