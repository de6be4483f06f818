# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is removed once an upgrade is proved, and what never is; and what a killed process leaves running."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils._dify_layout import MARKER
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_context import Context, Options
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_journal import Journal
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_leftovers import clear_leftovers, mark
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_prune import prune
from ansible_collections.llmops.stack.plugins.module_utils._docker_cli import DockerError

IMAGES = {
    "1.10.1": "langgenius/dify-api:1.10.1\npostgres:15-alpine\n",
    "1.11.4": "langgenius/dify-api:1.11.4\npostgres:15-alpine\n",
    "1.12.1": "langgenius/dify-api:1.12.1\npostgres:15-alpine\n",
}


class Engine:
    def __init__(self, home: str) -> None:
        self.home, self.name, self.docker = home, "dify", self
        self.commands: list[list[str]] = []
        self.broken = ""

    def containers(self) -> list[Any]:
        return []

    def compose(self, _arguments: list[str], _timeout: float, tag: str) -> str:
        if tag == self.broken:
            raise DockerError(f"the compose file of {tag} cannot be read")
        return IMAGES[tag]

    def run(self, arguments: list[str], _timeout: float) -> tuple[int, str, str]:
        self.commands.append(arguments)
        return 0, "", ""

    def output(self, arguments: list[str], _timeout: float) -> str:
        self.commands.append(arguments)
        return "0123abcd\n"


@pytest.fixture
def home(tmp_path: pathlib.Path) -> pathlib.Path:
    for tag in IMAGES:
        (tmp_path / "releases" / tag).mkdir(parents=True)
        (tmp_path / "releases" / tag / MARKER).write_text(json.dumps({"tag": tag, "files": {}}))
    (tmp_path / "releases" / "by-hand").mkdir()
    (tmp_path / "current").symlink_to("releases/1.12.1")
    return tmp_path


def ctx_of(home: pathlib.Path, engine: Any) -> Context:
    folder = home / "upgrades" / "20261126T060000Z-1.11.4-to-1.12.1"
    folder.mkdir(parents=True, exist_ok=True)
    plan = {"from": "1.11.4", "to": "1.12.1", "steps": []}
    return Context(engine, plan, Options(), Journal(str(home)), str(folder))


def test_the_release_before_stays_and_older_ones_go_with_their_images(home: pathlib.Path) -> None:
    engine = Engine(str(home))
    prune(ctx_of(home, engine))
    assert sorted(path.name for path in (home / "releases").iterdir()) == ["1.11.4", "1.12.1", "by-hand"]
    assert engine.commands[1:] == [["image", "rm", "langgenius/dify-api:1.10.1"]]


def test_what_cannot_be_removed_is_only_noted(home: pathlib.Path) -> None:
    engine = Engine(str(home))
    engine.broken = "1.10.1"
    ctx = ctx_of(home, engine)
    prune(ctx)
    assert (home / "releases" / "1.10.1").is_dir()
    assert "1.10.1 could not be removed" in pathlib.Path(ctx.folder, "steps.log").read_text()


def test_evidence_of_the_last_ten_upgrades_stays(home: pathlib.Path) -> None:
    for number in range(10, 25):
        (home / "upgrades" / f"202601{number}T000000Z-a-to-b").mkdir(parents=True)
    prune(ctx_of(home, Engine(str(home))))
    kept = sorted(path.name for path in (home / "upgrades").iterdir())
    assert len(kept) == 10
    assert kept[-1] == "20261126T060000Z-1.11.4-to-1.12.1"


def test_a_killed_process_leaves_nothing_at_work(home: pathlib.Path) -> None:
    """Its commands end, and those of people and of other homes go on."""
    program = home / "docker"
    program.write_text("#!/bin/sh\nsleep 60\n")
    program.chmod(0o755)
    command = [str(program), "compose", "--project-directory", f"{home}/current", "logs", "-f"]
    ours, other, by_hand = (
        subprocess.Popen(command, env={**os.environ, **more})
        for more in ({"LLMOPS_STACK_UPGRADE": str(home)}, {"LLMOPS_STACK_UPGRADE": "/elsewhere"}, {})
    )
    engine = Engine(str(home))
    try:
        clear_leftovers(engine)  # type: ignore[arg-type]  # as much of a project as it needs
        assert ours.wait(10) == -9
        assert (other.poll(), by_hand.poll()) == (None, None)
    finally:
        for one in (ours, other, by_hand):
            one.kill()
            one.wait()
    assert engine.commands[-1] == ["rm", "-f", "0123abcd"]


def test_what_a_machine_starts_is_known_as_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMOPS_STACK_UPGRADE", "")
    mark("/opt/dify")
    said = subprocess.run(["sh", "-c", "echo $LLMOPS_STACK_UPGRADE"], stdout=subprocess.PIPE, text=True, check=True)
    assert said.stdout == "/opt/dify\n"
