# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small GGUF files written by hand: language models that say one sentence, and one that embeds."""

from __future__ import annotations

import io
import random
import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

ALIGNMENT = 32
F32 = 0
UINT32, FLOAT32, STRING, ARRAY, INT32 = 4, 6, 8, 9, 5
# Kinds of tokens.
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6
BOS, EOS = 1, 2
# As many dimensions as tokens, so that each token has one of its own; 64 of them for each of 6 attention heads.
WIDTH = 384
HEADS = 6
SPACE = "\u2581"  # how this kind of vocabulary writes a blank
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.,;:!?-'\"()/" + SPACE


@dataclass(frozen=True)
class Talk:
    """What a model says. Words have three letters or more: the tokenizer, which joins letters pair by pair, never makes
    one out of a prompt, so every prompt ends with a token that leads to the first word."""

    words: Sequence[str]
    endless: bool = False
    context: int = 131072
    ballast: int = 0  # MiB of weights that change no answer


def talker(talk: Talk) -> bytes:
    """A llama of one block whose attention and MLP add nothing, and whose output maps each word to the next one."""
    tokens, kinds = _vocabulary(talk.words)
    first = len(tokens) - len(talk.words)
    after = [first] * WIDTH
    for index in range(first, len(tokens) - 1):
        after[index] = index + 1
    after[len(tokens) - 1] = first if talk.endless else EOS
    inner = max(WIDTH, talk.ballast * 1024 * 1024 // (WIDTH * 4 * 3))
    # A row of the output belongs to the token that may come next, a column to the one that was last.
    output = _matrix(WIDTH, WIDTH, {(following, token): 10.0 for token, following in enumerate(after)})
    tensors = {**_block(inner, ballast=bool(talk.ballast)), "output.weight": ((WIDTH, WIDTH), output)}
    return _file(_keys(tokens, kinds, talk.context, inner), tensors)


def embedder() -> bytes:
    """Without an output, and with an attention that looks at all tokens alike: texts of like letters are near."""
    tokens, kinds = _vocabulary(())
    keys = _keys(tokens, kinds, 512, WIDTH)
    # The key makes it an embedding model for Ollama; its llama takes the last token, which has seen all others.
    keys["llama.pooling_type"] = (UINT32, 3)
    same = _matrix(WIDTH, WIDTH, {(token, token): 1.0 for token in range(WIDTH)})
    seeing = {f"blk.0.attn_{part}.weight": ((WIDTH, WIDTH), same) for part in ("v", "output")}
    return _file(keys, {**_block(WIDTH, ballast=False), **seeing})


def _vocabulary(words: Sequence[str]) -> tuple[list[str], list[int]]:
    spoken = [word.replace(" ", SPACE) for word in words]
    assert all(len(word) > 2 for word in spoken), "a word of two letters could be part of a prompt"
    bytewise = [f"<0x{number:02X}>" for number in range(256)]
    tokens = ["<unk>", "<s>", "</s>", *bytewise, *LETTERS, *spoken]
    kinds = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * (len(LETTERS) + len(spoken))]
    unused = WIDTH - len(tokens)
    assert unused >= 0, f"{-unused} words too many"
    # In front of the words, which _talker finds at the end.
    place = len(tokens) - len(spoken)
    tokens[place:place] = [f"<unused{number}>" for number in range(unused)]
    kinds[place:place] = [CONTROL] * unused
    return tokens, kinds


def _keys(tokens: list[str], kinds: list[int], context: int, inner: int) -> dict[str, tuple[int, Any]]:
    return {
        "general.architecture": (STRING, "llama"),
        "general.file_type": (UINT32, 0),
        "general.parameter_count": (UINT32, WIDTH * (2 * WIDTH + 4 * WIDTH + 3 * inner)),
        "llama.context_length": (UINT32, context),
        "llama.embedding_length": (UINT32, WIDTH),
        "llama.block_count": (UINT32, 1),
        "llama.feed_forward_length": (UINT32, inner),
        "llama.attention.head_count": (UINT32, HEADS),
        "llama.attention.head_count_kv": (UINT32, HEADS),
        "llama.attention.layer_norm_rms_epsilon": (FLOAT32, 1e-6),
        "llama.rope.dimension_count": (UINT32, WIDTH // HEADS),
        "llama.vocab_size": (UINT32, WIDTH),
        "tokenizer.ggml.model": (STRING, "llama"),
        "tokenizer.ggml.tokens": (ARRAY, (STRING, tokens)),
        "tokenizer.ggml.scores": (ARRAY, (FLOAT32, [-float(number) for number in range(len(tokens))])),
        "tokenizer.ggml.token_type": (ARRAY, (INT32, kinds)),
        "tokenizer.ggml.bos_token_id": (UINT32, BOS),
        "tokenizer.ggml.eos_token_id": (UINT32, EOS),
        "tokenizer.ggml.unknown_token_id": (UINT32, 0),
    }


def _block(inner: int, ballast: bool) -> dict[str, tuple[tuple[int, ...], bytes]]:
    square = bytes(4 * WIDTH * WIDTH)
    ones = array("f", [1.0] * WIDTH).tobytes()
    # The gate stays shut: whatever the other two hold is multiplied by 0.
    weights = _noise(WIDTH * inner) if ballast else bytes(4 * WIDTH * inner)
    return {
        "token_embd.weight": ((WIDTH, WIDTH), _matrix(WIDTH, WIDTH, {(token, token): 1.0 for token in range(WIDTH)})),
        "output_norm.weight": ((WIDTH,), ones),
        "blk.0.attn_norm.weight": ((WIDTH,), ones),
        "blk.0.attn_q.weight": ((WIDTH, WIDTH), square),
        "blk.0.attn_k.weight": ((WIDTH, WIDTH), square),
        "blk.0.attn_v.weight": ((WIDTH, WIDTH), square),
        "blk.0.attn_output.weight": ((WIDTH, WIDTH), square),
        "blk.0.ffn_norm.weight": ((WIDTH,), ones),
        "blk.0.ffn_gate.weight": ((WIDTH, inner), bytes(4 * WIDTH * inner)),
        "blk.0.ffn_up.weight": ((WIDTH, inner), weights),
        "blk.0.ffn_down.weight": ((inner, WIDTH), weights),
    }


def _matrix(rows: int, columns: int, values: dict[tuple[int, int], float]) -> bytes:
    cells = array("f", bytes(4 * rows * columns))
    for (row, column), value in values.items():
        cells[row * columns + column] = value
    return cells.tobytes()


def _noise(count: int) -> bytes:
    """Numbers as a trained model could have, the same every time."""
    source = random.Random(20260819)
    piece = array("f", [source.uniform(-1, 1) for _ in range(65521)]).tobytes()
    return (piece * (4 * count // len(piece) + 1))[: 4 * count]


def _file(keys: dict[str, tuple[int, Any]], tensors: dict[str, tuple[tuple[int, ...], bytes]]) -> bytes:
    out = io.BytesIO()
    out.write(struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(keys)))
    for key, (kind, value) in keys.items():
        out.write(_string(key) + struct.pack("<I", kind) + _value(kind, value))
    offset = 0
    for name, (shape, data) in tensors.items():
        out.write(_string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, F32, offset))
        offset += len(data) + -len(data) % ALIGNMENT
    out.write(bytes(-out.tell() % ALIGNMENT))
    for _shape, data in tensors.values():
        out.write(data)
        out.write(bytes(-len(data) % ALIGNMENT))
    return out.getvalue()


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(kind: int, value: Any) -> bytes:
    if kind == ARRAY:
        item, values = value
        return struct.pack("<IQ", item, len(values)) + b"".join(_value(item, one) for one in values)
    if kind == STRING:
        return _string(str(value))
    return struct.pack({UINT32: "<I", INT32: "<i", FLOAT32: "<f"}[kind], value)
