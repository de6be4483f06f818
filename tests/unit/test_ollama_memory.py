# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The shape in the first bytes of real GGUF files, and what keys and values take by it, to the byte."""

from __future__ import annotations

import pathlib
import struct
import sys
from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils import _ollama_gguf as gguf
from ansible_collections.llmops.stack.plugins.module_utils._ollama_memory import GIB, cache, default_context, describe

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "world"))

import _gguf

MIB = 1024**2
LLAMA_8B = {
    "architecture": "llama", "block_count": 32, "embedding_length": 4096, "attention.head_count": 32,
    "attention.head_count_kv": 8, "context_length": 131072,
}  # fmt: skip
LLAMA_70B = {**LLAMA_8B, "block_count": 80, "embedding_length": 8192, "attention.head_count": 64}
GEMMA3_12B = {
    "architecture": "gemma3", "block_count": 48, "embedding_length": 3840, "attention.head_count": 16,
    "attention.head_count_kv": 8, "attention.key_length": 256, "attention.value_length": 256,
    "attention.sliding_window": 1024,
}  # fmt: skip
DEEPSEEK = {
    "architecture": "deepseek2", "block_count": 61, "embedding_length": 7168, "attention.head_count": 128,
    "attention.head_count_kv": 128, "attention.key_length": 192, "attention.value_length": 128,
    "attention.kv_lora_rank": 512, "rope.dimension_count": 64,
}  # fmt: skip


class TestGguf:
    def test_the_shape_stands_before_the_vocabulary(self) -> None:
        whole = _gguf.talker(_gguf.Talk((" One", " two", " three."), context=8192))
        shape = gguf.read(whole[:2048])
        assert len(whole) > 1000 * 1024
        assert shape["architecture"] == "llama" and shape["context_length"] == 8192
        assert [shape[f"attention.head_count{end}"] for end in ("", "_kv")] == [6, 6]
        assert (shape["block_count"], shape["embedding_length"]) == (1, 384)
        assert not [key for key in shape if key.startswith(("tokenizer", "general", "llama"))]

    def test_a_key_that_comes_after_the_vocabulary_is_lost_only_where_the_shape_is_known(self) -> None:
        shape = gguf.read(_gguf.embedder())
        assert shape["context_length"] == 512 and "pooling_type" not in shape

    def test_too_little_of_it(self) -> None:
        whole = _gguf.embedder()
        for count in (0, 3, 10, 24, 100, 400):
            with pytest.raises(gguf.ShortError):
                gguf.read(whole[:count])

    @pytest.mark.parametrize("data", [b"PK\x03\x04" + bytes(60), b"GGUF" + struct.pack("<IQQ", 9, 0, 0)])
    def test_something_else(self, data: bytes) -> None:
        with pytest.raises(gguf.NotGgufError):
            gguf.read(data)

    def test_every_kind_of_value(self) -> None:
        """Keys in an order in which the vocabulary comes first, as a converter may sort them."""
        text = b"xyz"
        keys: list[tuple[str, int, bytes]] = [
            ("general.architecture", 8, struct.pack("<Q", 3) + text),
            ("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, 2) + (struct.pack("<Q", 3) + text) * 2),
            ("tokenizer.ggml.scores", 9, struct.pack("<IQ", 6, 2000) + bytes(8000)),
            ("xyz.block_count", 10, struct.pack("<Q", 3)),
            ("xyz.attention.head_count_kv", 9, struct.pack("<IQ3i", 5, 3, 0, 4, 0)),
            ("xyz.attention.causal", 7, b"\x00"),
            ("xyz.pattern", 9, struct.pack("<IQ", 7, 2) + b"\x01\x00"),
            ("xyz.small", 3, struct.pack("<h", -2)),
            ("xyz.scale", 12, struct.pack("<d", 0.5)),
        ]
        data = b"GGUF" + struct.pack("<IQQ", 3, 0, len(keys))
        for key, kind, value in keys:
            data += struct.pack("<Q", len(key)) + key.encode() + struct.pack("<I", kind) + value
        assert gguf.read(data) == {
            "architecture": "xyz", "block_count": 3, "attention.head_count_kv": [0, 4, 0], "attention.causal": False,
            "pattern": [True, False], "small": -2, "scale": 0.5,
        }  # fmt: skip


class TestCache:
    @pytest.mark.parametrize(
        ("kind", "expected"),
        [("f16", 1024 * MIB), ("", 1024 * MIB), ("f32", 2048 * MIB), ("q8_0", 544 * MIB), ("q4_0", 288 * MIB)],
    )
    def test_of_layers_that_are_alike(self, kind: str, expected: int) -> None:
        """2 x 32 layers x 8 heads x 128 x 8192 tokens = 512 Mi numbers."""
        assert cache(LLAMA_8B, 8192, 1, kind) == (expected, expected)

    def test_context_times_parallel(self) -> None:
        assert cache(LLAMA_8B, 4096, 4).most == cache(LLAMA_8B, 16384, 1).most == 2 * GIB
        assert cache(LLAMA_70B, 131072, 1).most == 40 * GIB

    def test_what_the_model_has_heads_for(self) -> None:
        without = {key: value for key, value in LLAMA_8B.items() if key != "attention.head_count_kv"}
        assert cache(without, 8192, 1).most == 4 * cache(LLAMA_8B, 8192, 1).most
        wide = {**LLAMA_8B, "attention.key_length": 256, "attention.value_length": 128}
        assert cache(wide, 8192, 1).most == 1536 * MIB

    def test_windows_of_a_known_architecture(self) -> None:
        """8 of 48 layers see all 32768 tokens, 40 see 1024 and a batch of 512."""
        row = 8 * (256 + 256) * 2
        assert cache(GEMMA3_12B, 32768, 1) == (row * (8 * 32768 + 40 * 1536),) * 2
        assert cache(GEMMA3_12B, 32768, 2).most == row * (8 * 65536 + 40 * 2560)
        assert cache(GEMMA3_12B, 512, 1).most == row * 48 * 512

    def test_windows_that_a_key_places(self) -> None:
        shape = {**LLAMA_8B, "attention.sliding_window": 512, "attention.sliding_window_pattern": [True, False] * 16}
        row = 8 * 256 * 2
        assert cache(shape, 8192, 1) == (row * 16 * (8192 + 1024),) * 2
        assert cache({**shape, "attention.sliding_window_pattern": 4}, 8192, 1).least == row * (8 * 8192 + 24 * 1024)

    def test_windows_that_nobody_places(self) -> None:
        row = 8 * 256 * 2
        shape = {**LLAMA_8B, "attention.sliding_window": 512}
        assert cache(shape, 8192, 1) == (row * 32 * 1024, row * 32 * 8192)

    def test_one_narrow_row_for_all_heads(self) -> None:
        found = cache(DEEPSEEK, 4096, 1)
        assert found == (61 * 4096 * 576 * 2, 61 * 4096 * 128 * 320 * 2)

    def test_layers_with_a_state(self) -> None:
        some = {**LLAMA_8B, "attention.head_count_kv": [8 if layer % 4 == 3 else 0 for layer in range(32)]}
        assert cache(some, 8192, 1) == (256 * MIB, 256 * MIB)
        assert cache({**LLAMA_8B, "full_attention_interval": 4, "ssm.state_size": 128}, 8192, 1) == (256 * MIB,) * 2
        assert cache({**LLAMA_8B, "ssm.state_size": 128}, 8192, 1) == (0, 1024 * MIB)

    def test_layers_that_share_theirs(self) -> None:
        assert cache({**LLAMA_8B, "attention.shared_kv_layers": 16}, 8192, 1) == (512 * MIB, 512 * MIB)

    @pytest.mark.parametrize("shape", [{}, {"architecture": "x"}, {**LLAMA_8B, "attention.causal": False}])
    def test_nothing(self, shape: dict[str, Any]) -> None:
        assert cache(shape, 8192, 1) == (0, 0)

    def test_of_a_real_file(self) -> None:
        shape = gguf.read(_gguf.talker(_gguf.Talk((" One", " two"))))
        assert cache(shape, 131072, 1) == (192 * MIB,) * 2  # 2 x 1 layer x 6 heads x 64 x 131072 x 2 bytes
        assert describe(shape) == "1 layers with 6 heads of 64"


def test_words_for_a_shape() -> None:
    assert describe(LLAMA_70B) == "80 layers with 8 heads of 128"
    assert describe({**LLAMA_8B, "attention.head_count_kv": [0, 4, 8]}) == "32 layers with 4 to 8 heads of 128"
    assert describe({}) == ""


def test_the_context_that_a_server_chooses() -> None:
    assert [default_context("0.32.15", size * GIB) for size in (0, 22, 23, 46, 47)] == [
        4096,
        4096,
        32768,
        32768,
        262144,
    ]
    assert [default_context(version, 80 * GIB) for version in ("0.13.5", "0.15.4", "0.15.5-rc1")] == [
        4096,
        4096,
        262144,
    ]
