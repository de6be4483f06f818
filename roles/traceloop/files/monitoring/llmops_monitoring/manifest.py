# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One monitoring plugin: a folder with plugin.json and the Python file that it names as `main`.

`main` is imported as a package of its own, so it may import the files beside it (`from . import names`). Besides the
functions that `hooks` names it may have `run()`, called once in each process before its first call, and `close()`,
called at the process's end.
"""

from __future__ import annotations

import importlib.util
import json
import pathlib
import re
import sys
from collections.abc import Callable, Iterable
from importlib import metadata
from types import ModuleType
from typing import Any

HOOKS = ("before_invoke", "on_first_chunk", "after_invoke", "on_error")
FIELDS = {"name": str, "version": str, "description": str, "main": str, "dependencies": dict, "hooks": dict}
PACKAGE = "llmops_monitoring_plugin_"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_VERSION = re.compile(r"\d+\.\d+\.\d+([-+.][0-9A-Za-z.+-]+)?")
_CONDITION = re.compile(r"(==|!=|>=|<=|<|>)\s*(\d+(?:\.\d+)*)")


class Refused(Exception):
    """A plugin that cannot be used; the text is for the operator."""


class Plugin:
    def __init__(self, folder: pathlib.Path | str) -> None:
        self.folder = pathlib.Path(folder)
        self.name = self.folder.name
        self.version = ""
        self.hooks: dict[str, Callable[[Any], Any]] = {}
        self._module: ModuleType | None = None

    def load(self, taken: Iterable[str] = ()) -> Plugin:
        """Read the manifest, see to the dependencies, import `main` and find the hooks in it."""
        manifest = read(self.folder)
        self.name, self.version = manifest["name"], manifest["version"]
        if _package(self.name) in map(_package, taken):
            raise Refused(f"the name {self.name} is taken by another plugin")
        for distribution, wanted in manifest["dependencies"].items():
            _require(distribution, wanted)
        self._module = _import(self.name, self.folder / manifest["main"])
        for hook, function in manifest["hooks"].items():
            found = getattr(self._module, function, None)
            if not callable(found):
                raise Refused(f"{manifest['main']} has no function {function}, which is named as {hook}")
            self.hooks[hook] = found
        return self

    def run(self) -> None:
        self._call("run")

    def close(self) -> None:
        self._call("close")

    def _call(self, step: str) -> None:
        function = getattr(self._module, step, None)
        if callable(function):
            function()


def read(folder: pathlib.Path) -> dict[str, Any]:
    """The manifest, or every reason why it is none."""
    path = folder / "plugin.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        # Without the path: the role reads a copy of the operator's folder.
        raise Refused(f"plugin.json cannot be read: {getattr(exc, 'strerror', None) or exc}") from exc
    if not isinstance(found, dict):
        raise Refused("plugin.json is not an object")
    wrong = [f"{key} is missing" for key in FIELDS if key not in found]
    wrong += [f"{key} is unknown" for key in found if key not in FIELDS]
    wrong += [
        f"{key} must be {'a string' if kind is str else 'an object'}"
        for key, kind in FIELDS.items()
        if key in found and not isinstance(found[key], kind)
    ]
    if not wrong:
        wrong = _wrong_values(folder, found)
    if wrong:
        raise Refused("plugin.json: " + ", ".join(wrong))
    return found


def _wrong_values(folder: pathlib.Path, found: dict[str, Any]) -> list[str]:
    wrong = []
    if not _NAME.fullmatch(found["name"]):
        wrong.append("name must be lower-case letters, digits, - and _")
    if not _VERSION.fullmatch(found["version"]):
        wrong.append("version must be like 1.2.3")
    main = found["main"]
    if not main.endswith(".py") or "/" in main or "\\" in main or not (folder / main).is_file():
        wrong.append(f"main must be a Python file in the plugin's folder, not {main!r}")
    for name, wanted in found["dependencies"].items():
        if not isinstance(wanted, str) or _conditions(wanted) is None:
            wrong.append(f"dependencies.{name} must be like '>=1.27,<2', or '*'")
    if not found["hooks"]:
        wrong.append(f"hooks must name at least one of {', '.join(HOOKS)}")
    for hook, function in found["hooks"].items():
        if hook not in HOOKS:
            wrong.append(f"hooks.{hook} is unknown; there are {', '.join(HOOKS)}")
        elif not isinstance(function, str) or not function.isidentifier():
            wrong.append(f"hooks.{hook} must be the name of a function")
    return wrong


def _conditions(wanted: str) -> list[tuple[str, str]] | None:
    if wanted.strip() in ("", "*"):
        return []
    found = []
    for part in wanted.split(","):
        match = _CONDITION.fullmatch(part.strip())
        if not match:
            return None
        found.append((match[1], match[2]))
    return found


def _require(distribution: str, wanted: str) -> None:
    """Nothing is ever installed: a plugin whose needs the image does not meet is left out."""
    try:
        present = metadata.version(distribution)
    except metadata.PackageNotFoundError:
        raise Refused(f"needs {distribution} {wanted}, which is not installed here") from None
    have = _numbers(present)
    for operator, version in _conditions(wanted) or []:
        need = _numbers(version)
        width = max(len(have), len(need))
        left, right = (numbers + (0,) * (width - len(numbers)) for numbers in (have, need))
        met = {
            "==": left == right,
            "!=": left != right,
            ">=": left >= right,
            "<=": left <= right,
            "<": left < right,
            ">": left > right,
        }
        if not met[operator]:
            raise Refused(f"needs {distribution} {wanted}, and {present} is installed here")


def _numbers(version: str) -> tuple[int, ...]:
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def _package(name: str) -> str:
    return PACKAGE + name.replace("-", "_")


def _import(name: str, main: pathlib.Path) -> ModuleType:
    """Afresh each time: a forked child must not go on with the state of its parent's module."""
    package = _package(name)
    for known in [key for key in sys.modules if key == package or key.startswith(package + ".")]:
        del sys.modules[known]
    spec = importlib.util.spec_from_file_location(package, main, submodule_search_locations=[str(main.parent)])
    if spec is None or spec.loader is None:
        raise Refused(f"{main.name} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[package] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(package, None)
        raise
    return module
