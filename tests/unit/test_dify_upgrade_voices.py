# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plugins after an upgrade as before it: who answered has to answer, and no installation may be gone."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils import _dify_upgrade_voices as voices
from ansible_collections.llmops.stack.plugins.module_utils._dify_compose import Project
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_context import Context, Options, StepError
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_journal import Journal
from ansible_collections.llmops.stack.tests.unit.servers import daemon as wire
from ansible_collections.llmops.stack.tests.unit.servers.daemon import IDENTIFIER, KEY, PLUGIN, TENANT, FakeDaemon
from ansible_collections.llmops.stack.tests.unit.servers.scripted import Reply, Scripted

ROW = [TENANT, PLUGIN, IDENTIFIER]


class Database:
    plugin_name = "dify_plugin"

    def __init__(self) -> None:
        self.rows = {"dify_plugin": [ROW], "copy": [ROW]}

    def exists(self, name: str) -> bool:
        return name in self.rows

    def sql(self, statement: str, name: str) -> list[list[str]]:
        return self.rows[name] if "plugin_id" in statement else [["plugin_installations"]]


@pytest.fixture
def daemon() -> FakeDaemon:
    return FakeDaemon()


@pytest.fixture
def ctx(tmp_path: pathlib.Path, daemon: FakeDaemon) -> Iterator[Context]:
    (tmp_path / "secrets.json").write_text(json.dumps({"PLUGIN_DAEMON_KEY": KEY}))
    journal = Journal.begin(str(tmp_path))
    journal.put("copy_databases", "copies", {"dify_plugin": "copy"})
    with Scripted(daemon).running() as server:
        yield Context(
            Project(str(tmp_path)),
            {"steps": [{"id": "maintenance"}]},
            Options(plugin_daemon_url=server.url, secrets_file=str(tmp_path / "secrets.json"), health_deadline=1.0),
            journal,
            str(tmp_path),
            info={"plugins": [{"tenant": TENANT, "id": PLUGIN, "identifier": IDENTIFIER}]},
            database=Database(),
        )


def test_who_answered_answers_again(ctx: Context) -> None:
    voices.note_voices(ctx)
    assert ctx.journal.get("maintenance", "voices") == [[TENANT, PLUGIN, "ollama"]]
    voices.demand_plugins(ctx)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"process": Reply(404, wire.NOT_FOUND)}, "and it did before"),
        ({"models": []}, "is not listed any more"),
        ({"management": Reply(500, wire.POSTGRES_GONE)}, "does not list plugins"),
    ],
)
def test_who_answered_and_does_not_any_more(ctx: Context, daemon: FakeDaemon, change: Any, said: str) -> None:
    voices.note_voices(ctx)
    vars(daemon).update(change)
    with pytest.raises(StepError, match=said):
        voices.demand_plugins(ctx)


@pytest.mark.parametrize(
    "change", [{"process": Reply(404, wire.NOT_FOUND)}, {"management": Reply(500, wire.POSTGRES_GONE)}]
)
def test_who_was_dead_before_is_not_waited_for(ctx: Context, daemon: FakeDaemon, change: Any) -> None:
    vars(daemon).update(change)
    voices.note_voices(ctx)
    assert ctx.journal.get("maintenance", "voices") == []
    assert "afterwards" in (pathlib.Path(ctx.folder) / "steps.log").read_text()
    voices.demand_plugins(ctx)


@pytest.mark.parametrize("rows", [[], [[TENANT, PLUGIN, "another package"]], [["another workspace", *ROW[1:]]]])
def test_an_installation_that_is_gone(ctx: Context, rows: list[list[str]]) -> None:
    ctx.database.rows["dify_plugin"] = rows
    with pytest.raises(StepError, match=f"{PLUGIN} of workspace {TENANT}"):
        voices.demand_plugins(ctx)


def test_a_backup_may_know_other_plugins(ctx: Context) -> None:
    ctx.plan = {"steps": [{"id": "maintenance"}, {"id": "restore_databases"}]}
    ctx.database.rows["dify_plugin"] = []
    voices.note_voices(ctx)
    voices.demand_plugins(ctx)
