# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m llmops_monitoring [folder of Dify's api]`: would its model calls be seen, and do the plugins load here?

Reads Dify's files and runs none of them. Prints JSON; ends with 1 without a hook point, with 2 where a plugin is
refused.
"""

from __future__ import annotations

import ast
import json
import pathlib
import sys
from typing import Any

from . import plugins
from .manifest import Plugin, Refused
from .table import TARGETS, Target


def functions(root: pathlib.Path, target: Target) -> set[str] | None:
    """Functions of the target's class in this Dify; None where the row is not for it."""
    path = root.joinpath(*target.module.split(".")).with_suffix(".py")
    if not path.is_file() or (target.unless and root.joinpath(*target.unless.split(".")).is_dir()):
        return None
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == target.cls:
            return {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
    return set()


def look(root: pathlib.Path) -> dict[str, Any]:
    found: dict[str, Any] = {"generation": None, "functions": [], "missing": [], "plugins": []}
    for target in TARGETS:
        names = functions(root, target)
        if names is None:
            continue
        said = f"{target.module}:{target.cls}.{target.function}"
        if target.function in names:
            found["functions"].append(said)
            if target.required:
                found["generation"] = target.generation
        elif target.required:
            found["missing"].append(said)
    for folder in plugins.folders():
        plugin = Plugin(folder)
        reason = ""
        try:
            plugin.load()
        except (Exception, SystemExit) as exc:
            reason = str(exc) if isinstance(exc, Refused) else f"{type(exc).__name__}: {exc}"
        found["plugins"].append({"name": plugin.name, "version": plugin.version, "refused": reason})
    return found


def main(arguments: list[str]) -> int:
    found = look(pathlib.Path(arguments[0] if arguments else "/app/api"))
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    if not found["generation"]:
        return 1
    return 2 if any(plugin["refused"] for plugin in found["plugins"]) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
