# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""How much memory a model takes, out of its manifest and the first keys of its weights. Pure.

What is counted is what can be known before anything is downloaded:

    weights   the files of the model, with those that let it see, as its manifest has them
    context   keys and values of all tokens: 2 x layers x heads of K and V x width of a head x bytes of a number
              x tokens of context x requests at a time

The second line is how llama.cpp, and so Ollama, sizes its cache when it loads a model: all of it at once, the context
times the requests that are answered at a time. A number of f16 has 2 bytes; q8_0 keeps 32 of them in 34 bytes, q4_0 in
18. It is exact for a model whose layers are all alike. For others it has two ends, C(least) and C(most):

    sliding windows       layers that see only so far back have a cache of that length; which layers these are is known
                          for some architectures, and for others somewhere between none and all
    latent attention      one narrow row for all heads (DeepSeek); older servers keep them unfolded
    recurrent layers      have a state instead of a cache, whose few megabytes are not counted

Not counted are the buffers for computing, some hundred megabytes and more with a long context, and what a driver keeps
of its card. On a card they outweigh that the table of a model's words stays in the host's memory. So the sum is an
estimate below what a server takes, and what is more than a host has cannot run on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ansible_collections.llmops.stack.plugins.module_utils._ollama_versions import compare

__all__ = ["GIB", "Cache", "cache", "default_context", "describe"]

GIB = 1024**3
# A block of 32 numbers and what scales it.
_ELEMENT = {
    "": 2.0, "f16": 2.0, "bf16": 2.0, "f32": 4.0, "q8_0": 34 / 32, "q5_1": 24 / 32, "q5_0": 22 / 32, "q4_1": 20 / 32,
    "q4_0": 18 / 32, "iq4_nl": 18 / 32,
}  # fmt: skip
# Of so many layers one sees everything, where no key of the file says which.
_ONE_IN = {"gemma3": 6, "gpt-oss": 2, "gptoss": 2}
_BATCH = 512  # tokens that a window is longer by, while they are worked on


class Cache(NamedTuple):
    """Bytes for keys and values, at the least and at the most."""

    least: int
    most: int


def cache(shape: Mapping[str, Any], context: int, parallel: int, kind: str = "") -> Cache:
    """What keys and values take.

    Args:
        shape: what _ollama_gguf read; an empty one takes nothing, because nothing is known.
        context: tokens of one request.
        parallel: requests at a time.
        kind: of the numbers, as in OLLAMA_KV_CACHE_TYPE.
    """
    layers = _number(shape, "block_count") - _number(shape, "attention.shared_kv_layers")
    # One that reads a text as a whole, as those that only embed, keeps nothing between tokens.
    if layers <= 0 or shape.get("attention.causal") is False:
        return Cache(0, 0)
    cells = context * parallel
    element = _ELEMENT.get(kind, 2.0)
    least = most = 0.0
    for layer in range(layers):
        low, high = _layer(shape, layer, cells, parallel)
        least += low * element
        most += high * element
    return Cache(int(least), int(most))


def _layer(shape: Mapping[str, Any], layer: int, cells: int, parallel: int) -> tuple[int, int]:
    """Numbers in the cache of one layer, at the least and at the most."""
    has_state = _has_state(shape, layer)
    if has_state:
        return 0, 0
    full = cells * _row(shape, layer)
    rank = _number(shape, "attention.kv_lora_rank")
    if rank:
        return min(full, cells * (rank + _number(shape, "rope.dimension_count"))), full
    window = _number(shape, "attention.sliding_window")
    slides = _slides(shape, layer) if window else False
    short = full if slides is False else min(cells, window * parallel + _BATCH) * _row(shape, layer, "_swa")
    return 0 if has_state is None else min(short, full), short if slides else full


def _row(shape: Mapping[str, Any], layer: int, suffix: str = "") -> int:
    """Numbers that one token adds to a layer."""
    heads = _number(shape, "attention.head_count", layer)
    kv_heads = _number(shape, "attention.head_count_kv", layer, heads)
    most = max(_all(shape, "attention.head_count"), default=0)
    width = _number(shape, "embedding_length") // most if most else 0
    key = _number(shape, "attention.key_length", layer, width)
    value = _number(shape, "attention.value_length", layer, width)
    if suffix:
        key = _number(shape, f"attention.key_length{suffix}", layer, key)
        value = _number(shape, f"attention.value_length{suffix}", layer, value)
    return kv_heads * (key + value)


def _has_state(shape: Mapping[str, Any], layer: int) -> bool | None:
    """Whether a layer is recurrent, so that it has a state instead of a cache; None where that cannot be told."""
    if isinstance(shape.get("attention.head_count_kv"), list):
        return _number(shape, "attention.head_count_kv", layer) == 0
    interval = _number(shape, "full_attention_interval")
    if interval:
        return (layer + 1) % interval != 0
    return None if any(key.startswith("ssm.") for key in shape) else False


def _slides(shape: Mapping[str, Any], layer: int) -> bool | None:
    """Whether a layer sees only its window; None where that cannot be told."""
    pattern = shape.get("attention.sliding_window_pattern")
    if isinstance(pattern, list) and layer < len(pattern):
        return bool(pattern[layer])
    one_in = _number(shape, "attention.sliding_window_pattern") or _ONE_IN.get(str(shape.get("architecture")), 0)
    return (layer + 1) % one_in != 0 if one_in else None


def _number(shape: Mapping[str, Any], key: str, layer: int = 0, default: int = 0) -> int:
    value = shape.get(key)
    if isinstance(value, list):
        value = value[layer] if layer < len(value) else None
    return int(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else default


def _all(shape: Mapping[str, Any], key: str) -> list[int]:
    value = shape.get(key)
    return [int(one) for one in (value if isinstance(value, list) else [value]) if isinstance(one, int)]


def default_context(version: str, vram: int) -> int:
    """Tokens that a server gives a model where nobody says how many: since 0.15.5 by the memory of its cards."""
    if compare(version, "0.15.5-rc0") < 0:
        return 4096
    return 262144 if vram >= 47 * GIB else 32768 if vram >= 23 * GIB else 4096


def describe(shape: Mapping[str, Any]) -> str:
    """The shape in a few words, as in 80 layers with 8 heads of 128."""
    layers, heads = _number(shape, "block_count"), _all(shape, "attention.head_count_kv")
    if not layers:
        return ""
    heads = [one for one in heads or _all(shape, "attention.head_count") if one]
    most = max(_all(shape, "attention.head_count"), default=0)
    width = _number(shape, "attention.key_length") or (_number(shape, "embedding_length") // most if most else 0)
    among = f"{min(heads)} to {max(heads)}" if len(set(heads)) > 1 else str(heads[0] if heads else 0)
    return f"{layers} layers with {among} heads of {width}"
