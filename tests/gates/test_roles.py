"""Roles: argument_specs say what defaults do, names follow the convention, playbooks hold roles only."""

from __future__ import annotations

import pathlib
import re
from typing import Any

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROLES = sorted(path for path in (ROOT / "roles").iterdir() if (path / "tasks").is_dir())


def load(path: pathlib.Path) -> Any:
    return yaml.safe_load(path.read_text())


def specs(role: pathlib.Path) -> dict[str, Any]:
    return load(role / "meta" / "argument_specs.yml")["argument_specs"]


def defaults(role: pathlib.Path) -> dict[str, Any]:
    path = role / "defaults" / "main.yml"
    return (load(path) or {}) if path.exists() else {}


def steps(tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The tasks, with those of blocks instead of the blocks."""
    found = []
    for task in tasks:
        inner = [one for section in ("block", "rescue", "always") for one in task.get(section) or []]
        found += steps(inner) if inner else [task]
    return found


def entry_points(role: pathlib.Path) -> set[str]:
    """Task files that something outside the role's own tasks runs: main, and each tasks_from in a playbook."""
    used = {"main"}
    for playbook in (ROOT / "playbooks").glob("*.yml"):
        for play in load(playbook) or []:
            for task in steps(
                (play.get("tasks") or []) + (play.get("post_tasks") or []) + (play.get("pre_tasks") or [])
            ):
                include = next((task[key] for key in task if key.endswith((".include_role", ".import_role"))), None)
                if include and include["name"].split(".")[-1] == role.name:
                    used.add(include.get("tasks_from", "main").removesuffix(".yml"))
    return used


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
class TestRole:
    def test_every_default_is_specified_and_equal(self, role: pathlib.Path) -> None:
        options = specs(role)["main"].get("options", {})
        assert sorted(options) == sorted(defaults(role))
        differing = {
            name: (value, options[name].get("default"))
            for name, value in defaults(role).items()
            if options[name].get("default") != value
        }
        assert not differing, "default in defaults/main.yml and in argument_specs differ: (first, second)"

    def test_every_entry_point_has_a_spec(self, role: pathlib.Path) -> None:
        assert entry_points(role) <= set(specs(role))

    def test_every_spec_is_an_entry_point_and_says_what_it_does(self, role: pathlib.Path) -> None:
        for name, spec in specs(role).items():
            assert (role / "tasks" / f"{name}.yml").exists()
            assert spec.get("short_description")
            for option, details in spec.get("options", {}).items():
                assert details.get("description"), f"{name}: {option} has no description"
                assert details.get("type"), f"{name}: {option} has no type"

    def test_shared_options_of_entry_points_agree(self, role: pathlib.Path) -> None:
        main = specs(role)["main"].get("options", {})
        for name, spec in specs(role).items():
            for option, details in spec.get("options", {}).items():
                assert details.get("default") == main[option].get("default"), f"{name}: {option}"
                assert details["type"] == main[option]["type"], f"{name}: {option}"

    def test_public_variables_carry_the_role_name(self, role: pathlib.Path) -> None:
        assert [name for name in defaults(role) if not name.startswith(f"{role.name}_")] == []

    def test_internal_variables_carry_two_underscores(self, role: pathlib.Path) -> None:
        found = set()
        for path in [*role.glob("vars/*.yml")]:
            found |= set(load(path) or {})
        for path in role.glob("tasks/*.yml"):
            for name in re.findall(r"^\s+register: (\S+)", path.read_text(), re.MULTILINE):
                found.add(name)
        assert [name for name in sorted(found) if not name.startswith(f"__{role.name}_")] == []

    def test_every_task_file_is_used(self, role: pathlib.Path) -> None:
        everything = "\n".join(path.read_text() for path in (role / "tasks").glob("*.yml"))
        for path in (role / "tasks").glob("*.yml"):
            if path.stem not in specs(role):
                assert re.search(rf"\b{re.escape(path.name)}\b|_tasks: .*\{{\{{", everything), f"{path.name} is dead"

    def test_no_group_names_inside(self, role: pathlib.Path) -> None:
        for path in role.rglob("*.yml"):
            assert not re.search(r"\bgroups\[|\bgroup_names\b|\bgroups\.", path.read_text()), path


def looks(tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The options of every stack_facts, in blocks, too."""
    found = []
    for task in tasks:
        if "llmops.stack.stack_facts" in task:
            found.append(task["llmops.stack.stack_facts"] or {})
        for section in ("block", "rescue", "always"):
            found += looks(task.get(section) or [])
    return found


def test_roles_that_go_by_one_look_ask_for_the_same() -> None:
    """Whichever role has looked last, the facts are those of the same folders, port and user."""
    found = [(path, one) for path in (ROOT / "roles").glob("*/tasks/*.yml") for one in looks(load(path) or [])]
    assert len(found) > 5
    for path, options in found:
        expected = [
            "dify_home",
            "ollama_home",
            "ollama_models_dir",
            "ollama_port",
            "ollama_user",
            "stack_mirror",
            "traceloop_home",
        ]
        assert sorted(options) == expected, path
        assert all(name in value for name, value in options.items()), path


@pytest.mark.parametrize("playbook", sorted((ROOT / "playbooks").glob("*.yml")), ids=lambda path: path.name)
def test_playbooks_hold_roles_and_no_logic(playbook: pathlib.Path) -> None:
    for play in load(playbook):
        for section in ("tasks", "pre_tasks", "post_tasks"):
            for task in steps(play.get(section) or []):
                assert any(key.endswith((".import_role", ".include_role")) for key in task), task.get("name")


def test_a_playbook_needs_nothing_that_is_not_shipped() -> None:
    for playbook in [*(ROOT / "playbooks").rglob("*.yml"), *(ROOT / "roles").rglob("*.yml")]:
        assert not re.search(r"\b(tests|molecule|examples|tools)/", playbook.read_text()), playbook
