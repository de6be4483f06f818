# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host's facts say of its model store, which decides whether a registry is asked at all."""

from __future__ import annotations

import json
import os
import pathlib
import sys
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._ollama_store import PARAMS, Manifest
from ansible_collections.llmops.stack.tests.unit.machine import Machine
from ansible_collections.llmops.stack.tests.unit.servers.ollama_registry import Models
from ansible_collections.llmops.stack.tests.unit.test_ollama_plan import decided

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "world"))

import _gguf

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
    weights = _gguf.talker(_gguf.Talk((" One", " two"), context=8192))
    digest = models.put("talk:latest", weights)
    models.put("hf.co/me/x:q4", b"small")
    facts = machine.facts()
    seen = facts["ollama"]["store"]
    content = Manifest(models.manifest_path("talk:latest").read_bytes()).content
    assert seen["models"]["talk:latest"] == {
        "digest": digest, "content": content, "whole": True, "weights": len(weights), "num_ctx": 0,
        "shape": {
            "architecture": "llama", "context_length": 8192, "embedding_length": 384, "block_count": 1,
            "attention.head_count": 6, "attention.head_count_kv": 6, "rope.dimension_count": 64,
        },
    }  # fmt: skip
    assert seen["models"]["hf.co/me/x:q4"]["shape"] == {}
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


def test_what_settings_would_make_of_a_model_that_is_there(tmp_path: pathlib.Path) -> None:
    """1 layer of 6 heads of 64 has 1.5 KiB for a token, so 131072 tokens 4096 times make 768 GiB."""
    machine, models = stored(tmp_path)
    models.put("talk:latest", _gguf.talker(_gguf.Talk((" One", " two"))))
    machine.write("proc/meminfo", "MemTotal: 33554432 kB\n")
    facts = machine.facts()
    facts["os"].update(arch="amd64", machine="x86_64")
    facts["systemd"] = True
    wanted = {"ollama_models": ["talk"], "ollama_context_length": 131072, "ollama_num_parallel": 4096}
    (sentence,) = decided(facts, **wanted)["refusals"]
    assert sentence.startswith("talk:latest takes ")
    assert "768.0 GiB for a context of 131072 tokens (ollama_context_length) times 4096 at a time" in sentence
    assert "a lower ollama_num_parallel" in sentence
    assert decided(facts, **wanted, ollama_fit="warn")["warnings"][-1] == sentence
    assert decided(facts, **wanted, ollama_fit="ignore")["warnings"] == []
    assert decided(facts, **{**wanted, "ollama_num_parallel": 4})["refusals"] == []


def test_the_context_that_its_maker_gave_it(tmp_path: pathlib.Path) -> None:
    machine, models = stored(tmp_path)
    models.put("talk:latest", b"weights")
    path = models.manifest_path("talk:latest")
    data = b'{"num_ctx": 2048}'
    layer = {"mediaType": PARAMS, "digest": f"sha256:{models.blob(data)}", "size": len(data)}
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "layers": [*manifest["layers"], layer]}))
    assert machine.facts()["ollama"]["store"]["models"]["talk:latest"]["num_ctx"] == 2048


def test_what_is_no_name_is_not_looked_for(tmp_path: pathlib.Path) -> None:
    facts = Machine(tmp_path).facts()
    assert lacking(facts, "a/b/c/d", "x@sha256:1") == []
    assert decided(facts, ollama_models="talk")["lacking"] == []
