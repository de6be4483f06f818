"""Modules: licence line, action group, attributes, and documentation that ansible can read."""

from __future__ import annotations

import ast
import pathlib
from typing import Any

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODULES = sorted((ROOT / "plugins" / "modules").glob("[a-z]*.py"))
PYTHON = sorted((ROOT / "plugins").rglob("*.py"))
HEADER = (
    "# Copyright: (c) 2026, llmops.stack contributors",
    "# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)",
    "# SPDX-License-Identifier: GPL-3.0-or-later",
)


def constant(module: pathlib.Path, name: str) -> Any:
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Assign) and any(getattr(target, "id", "") == name for target in node.targets):
            return ast.literal_eval(node.value)
    raise AssertionError(f"{module.name} has no {name}")


@pytest.mark.parametrize("path", PYTHON, ids=lambda path: path.name)
def test_licence_in_the_first_lines(path: pathlib.Path) -> None:
    first = path.read_text().splitlines()[:8]
    assert [line for line in HEADER if line not in first] == []
    assert "from __future__ import annotations" in path.read_text()


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
class TestModule:
    def test_documentation_is_complete(self, module: pathlib.Path) -> None:
        documentation = yaml.safe_load(constant(module, "DOCUMENTATION"))
        assert documentation["module"] == module.stem
        assert documentation["author"] == ["llmops.stack contributors (@llmops)"]
        for name in ("check_mode", "diff_mode"):
            assert documentation["attributes"][name]["support"] in ("full", "partial", "none", "N/A")
        assert yaml.safe_load(constant(module, "RETURN"))

    def test_examples_use_full_names_and_known_options(self, module: pathlib.Path) -> None:
        documentation = yaml.safe_load(constant(module, "DOCUMENTATION"))
        options = documentation.get("options", {})
        for fragment in documentation.get("extends_documentation_fragment", []):
            path = ROOT / "plugins" / "doc_fragments" / f"{fragment.removeprefix('llmops.stack.')}.py"
            options.update(yaml.safe_load(constant(path, "DOCUMENTATION"))["options"])
        known = set(options) | {alias for option in options.values() for alias in option.get("aliases", [])}
        name = f"llmops.stack.{module.stem}"
        tasks = [task for task in yaml.safe_load(constant(module, "EXAMPLES")) if name in task]
        assert tasks, "no example uses the module by its full name"
        for task in tasks:
            assert set(task[name] or {}) <= known

    def test_shebang_and_no_execute_bit(self, module: pathlib.Path) -> None:
        assert module.read_text().startswith("#!/usr/bin/python\n")
        assert not module.stat().st_mode & 0o111


def test_the_action_group_names_every_module() -> None:
    runtime = yaml.safe_load((ROOT / "meta" / "runtime.yml").read_text())
    assert sorted(runtime["action_groups"]["all"]) == [module.stem for module in MODULES]


def test_no_private_utility_is_public() -> None:
    utilities = (ROOT / "plugins" / "module_utils").glob("*.py")
    assert [path.name for path in utilities if not path.name.startswith("_")] == []
