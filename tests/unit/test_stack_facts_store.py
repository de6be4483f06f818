# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host's facts say of its model store, which decides whether a registry is asked at all."""

from __future__ import annotations

import os
import pathlib
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._ollama_store import Manifest
from ansible_collections.llmops.stack.tests.unit.machine import Machine
from ansible_collections.llmops.stack.tests.unit.servers.ollama_registry import Models
from ansible_collections.llmops.stack.tests.unit.test_ollama_plan import decided

STORE = "usr/share/ollama/.ollama/models"
MIB = 1024**2


def stored(tmp_path: pathlib.Path) -> tuple[Machine, Models]:
    machine = Machine(tmp_path)
    folder = tmp_path / STORE
    folder.mkdir(parents=True)
    return machine, Models(folder)


def lacking(facts: dict[str, Any], *names: str) -> list[str]:
    return list(decided(facts, ollama_models=list(names))["lacking"])


def test_nothing(tmp_path: pathlib.Path) -> None:
    facts = Machine(tmp_path).facts()
    assert facts["ollama"]["store"] == {"models": {}, "blobs": [], "partial": {}}
    assert lacking(facts, "talk", "hf.co/me/x:q4") == ["talk", "hf.co/me/x:q4"]


def test_models_that_are_there(tmp_path: pathlib.Path) -> None:
    machine, models = stored(tmp_path)
    digest = models.put("talk:latest", bytes(MIB))
    models.put("hf.co/me/x:q4", b"small")
    facts = machine.facts()
    seen = facts["ollama"]["store"]
    content = Manifest(models.manifest_path("talk:latest").read_bytes()).content
    assert seen["models"]["talk:latest"] == {"digest": digest, "content": content, "whole": True}
    assert list(seen["models"]) == ["hf.co/me/x:q4", "talk:latest"]
    assert [f"sha256-{sha}" for sha in seen["blobs"]] == [models.weights_of("talk:latest").name]
    assert lacking(facts, "Talk", "library/talk:latest", "hf.co/me/x:q4", "talk:7b") == ["talk:7b"]


def test_a_model_whose_weights_are_cut_or_lost_is_none(tmp_path: pathlib.Path) -> None:
    machine, models = stored(tmp_path)
    for name in ("cut:1b", "lost:1b", "whole:1b"):
        models.put(name, name.encode() * 1000)
    os.truncate(models.weights_of("cut:1b"), 100)
    models.weights_of("lost:1b").unlink()
    facts = machine.facts()
    assert {name: one["whole"] for name, one in facts["ollama"]["store"]["models"].items()} == {
        "cut:1b": False, "lost:1b": False, "whole:1b": True,
    }  # fmt: skip
    assert lacking(facts, "cut:1b", "lost:1b", "whole:1b") == ["cut:1b", "lost:1b"]


def test_what_cannot_be_read_is_not_there(tmp_path: pathlib.Path) -> None:
    machine, models = stored(tmp_path)
    path = models.manifest_path("talk:latest")
    path.parent.mkdir(parents=True)
    path.write_text("{")
    path.with_name("link").symlink_to("nowhere")
    facts = machine.facts()
    assert facts["ollama"]["store"]["models"] == {} and lacking(facts, "talk") == ["talk"]


def test_what_an_unfinished_pull_has_brought(tmp_path: pathlib.Path) -> None:
    """The file is as long as the blob from the start; what counts is what was written into it."""
    machine, models = stored(tmp_path)
    part = models.blob_path("a" * 64).with_name(f"sha256-{'a' * 64}-partial")
    with part.open("wb") as file:
        file.write(os.urandom(2 * MIB))
        file.truncate(100 * MIB)
    part.with_name(f"{part.name}-0").write_text("{}")
    seen = machine.facts()["ollama"]["store"]
    assert list(seen["partial"]) == ["a" * 64] and 2 * MIB <= seen["partial"]["a" * 64] < 3 * MIB
    assert seen["blobs"] == []


def test_what_is_no_name_is_not_looked_for(tmp_path: pathlib.Path) -> None:
    facts = Machine(tmp_path).facts()
    assert lacking(facts, "a/b/c/d", "x@sha256:1") == []
    assert decided(facts, ollama_models="talk")["lacking"] == []
