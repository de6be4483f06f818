# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether models fit on made-up hosts: the figures and the next step, and what is let through."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils._ollama_fit import fit

GIB = 1024**3
DIR = "/srv/models"
L8B = {
    "architecture": "llama", "block_count": 32, "embedding_length": 4096, "attention.head_count": 32,
    "attention.head_count_kv": 8, "context_length": 131072,
}  # fmt: skip
L70B = {**L8B, "block_count": 80, "embedding_length": 8192, "attention.head_count": 64}


def card(gib: float, vendor: str = "nvidia", **more: Any) -> dict[str, Any]:
    driver = {"nvidia": "nvidia", "amd": "amdgpu"}[vendor]
    return {"vendor": vendor, "driver": driver, "memory_mb": int(gib * 1024), "uuid": "", **more}


def facts(ram: int = 64, free: int = 500, cards: list[dict[str, Any]] | None = None, **store: Any) -> dict[str, Any]:
    return {
        "memory": {"total_mb": ram * 1024},
        "gpus": cards or [],
        "disks": {DIR: {"mount": "/srv", "free_mb": free * 1024}},
        "ollama": {"models_dir": {"path": DIR}, "store": {"models": {}, "blobs": [], "partial": {}, **store}},
    }


def plan(
    *names: str, gpu: str = "cpu", asked: str = "auto", version: str = "0.32.15", env: Any = None, **given: Any
) -> dict[str, Any]:
    settings = {"version": version, "gpu": asked, "visible_devices": "", "gpu_overhead": 0, "fit": "refuse"}
    return {"given": {**settings, **given}, "gpu": gpu, "env": env or {}, "lacking": list(names)}


def offer(name: str = "big:70b", gib: float = 40, shape: Any = None, sha: str = "a", **more: Any) -> dict[str, Any]:
    size = int(gib * GIB)
    layers = [{"digest": sha * 64, "size": size, "media_type": "model"}]
    return {
        "name": name,
        "weights": size,
        "layers": layers,
        "num_ctx": 0,
        "shape": L70B if shape is None else shape,
        **more,
    }


def test_what_fits_is_not_spoken_of() -> None:
    found = fit(plan("small"), facts(), [offer("small:latest", 4, L8B), offer("other", 900)])
    assert (found["refusals"], found["warnings"]) == ([], [])
    (one,) = found["models"]
    assert (one["weights"], one["cache"]["most"], one["most"]) == (4 * GIB, GIB // 2, 9 * GIB // 2)


def test_weights_and_context_against_the_memory_of_a_host_without_gpu() -> None:
    """40 GiB of weights and 4 x 16384 tokens at 320 KiB each."""
    env = {"OLLAMA_CONTEXT_LENGTH": "16384", "OLLAMA_NUM_PARALLEL": "4"}
    (sentence,) = fit(plan("big:70b", env=env), facts(ram=48), [offer()])["refusals"]
    assert sentence == (
        "big:70b takes 40.0 GiB for its weights and 20.0 GiB for a context of 16384 tokens (ollama_context_length) "
        "times 4 at a time (80 layers with 8 heads of 128, f16), 60.0 GiB in all, and the host has 48.0 GiB of memory "
        "and computes on its CPU. Take a shorter ollama_context_length, a lower ollama_num_parallel, "
        "ollama_kv_cache_type: q8_0 or a smaller model or tag, or have it on another host. ollama_fit: warn takes "
        "it as it is."
    )
    less = {**env, "OLLAMA_KV_CACHE_TYPE": "q4_0"}
    assert fit(plan("big:70b", env=less), facts(ram=48), [offer()])["refusals"] == []


def test_weights_alone() -> None:
    (sentence,) = fit(plan("big:70b"), facts(ram=32), [offer(shape={})])["refusals"]
    assert sentence.startswith("big:70b takes 40.0 GiB for its weights alone, and the host has 32.0 GiB of memory")
    assert "Take a smaller model or tag, or have it on another host." in sentence


class TestCards:
    def test_named_cards_have_to_hold_it(self) -> None:
        here = facts(ram=256, cards=[card(24), card(24)])
        env = {"OLLAMA_CONTEXT_LENGTH": "32768"}
        (sentence,) = fit(plan("big:70b", gpu="nvidia", env=env), here, [offer()])["warnings"]
        assert (
            "the 2 GPUs have 48.0 GiB and the host 256.0 GiB besides: a part of it is computed on the CPU" in sentence
        )
        wanted = plan("big:70b", gpu="nvidia", asked="nvidia", env=env)
        (sentence,) = fit(wanted, here, [offer()])["refusals"]
        assert "10.0 GiB for a context of 32768 tokens (ollama_context_length) (80 layers" in sentence
        assert "50.0 GiB in all, and the 2 GPUs have 48.0 GiB. Take" in sentence
        assert "or ollama_gpu: auto, which lets a part of it run on the CPU" in sentence

    def test_both_memories_together_are_the_end(self) -> None:
        here = facts(ram=16, cards=[card(24)])
        (sentence,) = fit(plan("big:70b", gpu="nvidia"), here, [offer()])["refusals"]
        assert "the GPU has 24.0 GiB and the host 16.0 GiB besides. Take" in sentence

    def test_the_context_that_a_server_chooses_by_their_memory(self) -> None:
        wanted = plan("big:70b", gpu="nvidia", asked="nvidia")
        (sentence,) = fit(wanted, facts(cards=[card(24), card(24)]), [offer()])["refusals"]
        assert "40.0 GiB for a context of 131072 tokens (the longest that it knows)" in sentence
        (sentence,) = fit(wanted, facts(cards=[card(40)]), [offer()])["refusals"]
        assert "10.0 GiB for a context of 32768 tokens (what Ollama chooses here)" in sentence
        wanted["given"]["version"] = "0.13.5"
        assert fit(wanted, facts(cards=[card(42)]), [offer()])["refusals"] == []

    def test_only_those_that_it_may_use_count(self) -> None:
        here = facts(ram=8, cards=[card(16, uuid="GPU-aa"), card(48, uuid="GPU-bb"), card(80, "amd")])
        env = {"OLLAMA_CONTEXT_LENGTH": "4096"}
        for devices, refused in (("", 0), ("GPU-bb", 0), ("GPU-aa", 1), ("0", 0), (["0", "1"], 0)):
            found = fit(plan("big:70b", gpu="nvidia", env=env, visible_devices=devices), here, [offer()])
            assert len(found["refusals"]) == refused, devices
        reserved = plan("big:70b", gpu="nvidia", env=env, gpu_overhead=16 * GIB)
        assert "the 2 GPUs have 32.0 GiB" in fit(reserved, here, [offer()])["refusals"][0]

    def test_a_card_that_does_not_say_how_much_it_has(self) -> None:
        wanted = plan("big:70b", gpu="nvidia")
        assert fit(wanted, facts(ram=64, cards=[card(0)]), [offer()])["refusals"] == []
        (sentence,) = fit(wanted, facts(ram=32, cards=[card(0)]), [offer()])["refusals"]
        assert "the host has 32.0 GiB of memory (what its GPU has is not known)" in sentence


def test_what_the_maker_of_a_model_has_set_wins() -> None:
    found = fit(
        plan("small", env={"OLLAMA_CONTEXT_LENGTH": "4096"}), facts(), [offer("small:latest", 4, L8B, num_ctx=65536)]
    )
    assert found["models"][0]["context"] == 65536 and found["models"][0]["cache"]["most"] == 8 * GIB


def test_one_that_embeds_answers_one_at_a_time() -> None:
    shape = {**L8B, "pooling_type": 3, "context_length": 512}
    env = {"OLLAMA_NUM_PARALLEL": "8"}
    (one,) = fit(plan("embed", env=env), facts(), [offer("embed:latest", 1, shape)])["models"]
    assert (one["parallel"], one["context"]) == (1, 512)


def test_between_the_least_and_the_most_it_is_only_said() -> None:
    shape = {**L70B, "attention.sliding_window": 4096}
    found = fit(plan("big:70b", env={"OLLAMA_CONTEXT_LENGTH": "131072"}), facts(ram=64), [offer(shape=shape)])
    assert found["refusals"] == []
    assert "and 1.4 GiB to 40.0 GiB for a context" in found["warnings"][0] and "it may not fit" in found["warnings"][0]


class TestDisk:
    def test_all_that_is_fetched_lies_side_by_side(self) -> None:
        two = [offer("one:latest", 30, {}, "a"), offer("two:latest", 30, {}, "b")]
        (sentence,) = fit(plan("one", "two"), facts(free=50), two)["refusals"]
        assert sentence == (
            "one:latest and two:latest would fetch 60.0 GiB, and /srv/models (on /srv) has 50.0 GiB free. Make room, "
            "or put the store on a larger disk (ollama_models_dir)."
        )
        shared = [two[0], offer("two:latest", 30, {}, "a")]
        assert fit(plan("one", "two"), facts(free=50), shared)["refusals"] == []

    def test_what_is_there_is_not_fetched(self) -> None:
        wanted = plan("one")
        one = [offer("one:latest", 30, {}, "a")]
        assert len(fit(wanted, facts(free=20), one)["refusals"]) == 1
        assert fit(wanted, facts(free=20, blobs=["a" * 64]), one)["refusals"] == []
        assert fit(wanted, facts(free=20, partial={"a" * 64: 11 * GIB}), one)["refusals"] == []


def test_what_is_not_to_be_had() -> None:
    gone = {"name": "gone:latest", "error": "mirror has no model library/gone:latest.", "missing": True}
    down = {"name": "down:latest", "error": "mirror refuses connections.", "missing": False}
    for mode in ("refuse", "warn"):
        found = fit(plan("gone", "down", fit=mode), facts(), [gone, down])
        assert found["refusals"] == ["gone:latest: mirror has no model library/gone:latest."]
        assert found["warnings"] == ["down:latest: mirror refuses connections. Whether it fits was not looked at."]


def test_an_operator_who_knows_better() -> None:
    refused = fit(plan("big:70b"), facts(ram=32), [offer()])
    said = fit(plan("big:70b", fit="warn"), facts(ram=32), [offer()])
    assert refused["warnings"] == said["refusals"] == []
    assert refused["refusals"] == said["warnings"] != []


@pytest.mark.parametrize("name", ["Big:70B", "library/big:70b", "registry.ollama.ai/library/big:70b"])
def test_names_are_compared_as_ollama_does(name: str) -> None:
    assert len(fit(plan(name), facts(ram=32), [offer()])["refusals"]) == 1
