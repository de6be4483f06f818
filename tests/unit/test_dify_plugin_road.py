# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be said of plugins and data commands without a Dify; tests/world/replay has the rest."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils import _dify_data_commands as commands
from ansible_collections.llmops.stack.plugins.module_utils import _dify_plugin_road as road
from ansible_collections.llmops.stack.plugins.module_utils._dify_compose import Done
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_fetch import Sources
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_files import compare
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_needs import Needs, plugin_of, read_extracted
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_context import Context, Options, StepError


@pytest.mark.parametrize(
    ("name", "kind", "plugin"),
    [
        ("ollama", "model", "langgenius/ollama"),
        ("langgenius/ollama/ollama", "model", "langgenius/ollama"),
        ("somebody/models/one", "model", "somebody/models"),
        ("google", "model", "langgenius/gemini"),
        ("langgenius/google/google", "model", "langgenius/gemini"),
        ("google", "tool", "langgenius/google"),
        ("jina", "tool", "langgenius/jina_tool"),
        ("jina", "model", "langgenius/jina"),
        ("somebody/jina/jina", "tool", "somebody/jina"),
    ],
)
def test_a_provider_has_its_plugin_under_either_name(name: str, kind: str, plugin: str) -> None:
    assert plugin_of(name, kind) == plugin


def test_what_the_command_wrote_is_found_among_what_it_said() -> None:
    record = json.dumps({"tenant_id": "t", "plugins": ["a/b"]})
    more = json.dumps({"tenant_id": "t", "plugins": ["a/c"]})
    text = f'Current time: 2023\n{record}\n{{"event": "no record"}}\n{{broken\n{more}\nExtract plugins completed.\n'
    assert read_extracted(text) == {"t": {"a/b", "a/c"}}


def test_tools_that_stayed_in_dify_need_no_plugin() -> None:
    found = Needs()
    found.add(found.sure, [["t", "time"], ["t", "audio"], ["t", ""], ["", "google"]], "tool")
    assert found.tenants == []


def test_files_and_rows_are_compared_both_ways() -> None:
    assert compare(["a", "b", "b"], ["b", "c"]) == (["c"], ["a"])


class Project:
    name, home = "dify", "/nowhere"

    def __init__(self, done: Done) -> None:
        self.done = done
        self.limits: list[float] = []

    def once(self, service: str, command: list[str], timeout: float, *_more: Any, **_named: Any) -> Done:
        self.limits.append(timeout)
        return self.done


class Database:
    """Answers what it is told, again and again."""

    def __init__(self, *answers: list[list[str]]) -> None:
        self.answers = list(answers)

    def sql(self, statement: str, database: str = "", timeout: float = 60) -> list[list[str]]:
        return self.answers.pop(0)


def context(folder: pathlib.Path, done: Done, *answers: list[list[str]]) -> Context:
    project: Any = Project(done)
    notes: Any = {}
    return Context(project, {"steps": []}, Options(), notes, str(folder), database=Database(*answers), step="step")


TABLE = [["provider_models"]]


@pytest.mark.parametrize(
    ("done", "said"),
    [
        (Done(0, "All done\n", 3.0), "exit code 0 after 3 s, last words 'All done'"),
        (Done(1, "", 3.0), "exit code 1 after 3 s, without a word"),
        (Done(-9, "Starting", 120.0, True), "it did not end within 120 s"),
    ],
)
def test_rows_that_are_left_fail_the_step_whatever_the_command_says(
    tmp_path: pathlib.Path, done: Done, said: str
) -> None:
    ctx = context(tmp_path, done, TABLE, [["7"]], TABLE, [["2"]])
    with pytest.raises(StepError, match=f"2 of 7 rows.*{said}"):
        commands.legacy_model_types(ctx)
    assert (tmp_path / "step.log").read_text() == done.out


def test_a_command_that_exits_with_1_and_has_done_everything_is_done(tmp_path: pathlib.Path) -> None:
    commands.legacy_model_types(context(tmp_path, Done(1, "", 3.0), TABLE, [["7"]], TABLE, [["0"]]))
    assert "7 rows have the new names" in (tmp_path / "steps.log").read_text()


def test_a_command_has_the_time_that_its_rows_need(tmp_path: pathlib.Path) -> None:
    ctx = context(tmp_path, Done(0, "", 1.0))
    commands.flask(ctx, ["flask", "x"], rows=0)
    commands.flask(ctx, ["flask", "x"], rows=100_000)
    project: Any = ctx.project
    few, many = project.limits
    assert few == commands.START_SECONDS
    assert many > few + 1000


def test_secrets_in_what_a_command_says_are_not_kept(tmp_path: pathlib.Path) -> None:
    ctx = context(tmp_path, Done(1, "postgresql://dify:hunter2hunter2@db/dify\n", 1.0))
    done = commands.flask(ctx, ["flask", "x"])
    assert "hunter2" not in (tmp_path / "step.log").read_text() + (tmp_path / "steps.log").read_text()
    assert "hunter2" not in commands.ending(ctx, done)


def test_without_a_marketplace_a_plugin_cannot_be_had(tmp_path: pathlib.Path) -> None:
    with pytest.raises(StepError, match="no marketplace"):
        Sources([], "", str(tmp_path)).fetch("langgenius/ollama", 5)


def test_elements_that_cannot_be_meant_are_told_as_the_operators(tmp_path: pathlib.Path) -> None:
    with pytest.raises(StepError, match=r"dify_plugins: 'Ollama' is no name of a plugin"):
        Sources(["Ollama"], "http://mirror", str(tmp_path))


@pytest.mark.parametrize(("accepted", "refused"), [(False, True), (True, False)])
def test_only_plugins_with_rows_of_their_own_stop_an_upgrade(
    tmp_path: pathlib.Path, accepted: bool, refused: bool
) -> None:
    ctx = context(tmp_path, Done(0, "", 1.0))
    ctx.plan = {"steps": [{"id": "fetch_plugins", "missing_ok": accepted}]}
    mentioned = Needs(mentioned={"t": {"langgenius/gone"}})
    assert road._packages(ctx, mentioned) == {}
    sure = Needs(sure={"t": {"langgenius/gone", "langgenius/also"}})
    if refused:
        with pytest.raises(StepError, match="langgenius/also, langgenius/gone cannot be had"):
            road._packages(ctx, sure)
    else:
        assert road._packages(ctx, sure) == {}
