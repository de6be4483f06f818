# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module util is PRIVATE to the collection; it may change without notice.

"""What a model store holds at first sight: of blobs only names, sizes, and the first keys of weights are looked at."""

from __future__ import annotations

import contextlib
import os
import re
import typing as t

from ansible_collections.llmops.stack.plugins.module_utils import _ollama_gguf as gguf
from ansible_collections.llmops.stack.plugins.module_utils._ollama_names import Name
from ansible_collections.llmops.stack.plugins.module_utils._ollama_store import PARAMS, Manifest, num_ctx_of

__all__ = ["look"]

SMALL = 1048576  # bytes; templates and licences below it are not listed
BEGINNING = 65536  # bytes of the weights, where the shape of most models stands
# What memory depends on; the other keys say how to compute.
_SHAPE = re.compile(
    r"architecture$|block_count$|context_length$|embedding_length$|pooling_type$|full_attention_interval$|ssm\.|"
    r"rope\.dimension_count$|attention\.(?!layer_norm)"
)
_BLOB = re.compile(r"sha256-([0-9a-f]{64})(-partial)?")


def look(folder: str, manifests: t.Iterable[str]) -> dict[str, t.Any]:
    """C(models) by their names, C(blobs), and C(partial), the bytes that an unfinished pull has brought."""
    sizes: dict[str, int] = {}
    partial: dict[str, int] = {}
    with contextlib.suppress(OSError), os.scandir(os.path.join(folder, "blobs")) as entries:
        for entry in entries:
            found = _BLOB.fullmatch(entry.name)
            if found:
                with contextlib.suppress(OSError):
                    seen = entry.stat()
                    # A pull makes the file as long as the blob will be, and fills it from several places.
                    (partial if found.group(2) else sizes)[found.group(1)] = (
                        seen.st_blocks * 512 if found.group(2) else seen.st_size
                    )
    models = {}
    for path in sorted(manifests):
        with contextlib.suppress(OSError, ValueError), open(path, "rb") as file:
            manifest = Manifest(file.read())
            params = next((one.sha for one in manifest.layers if one.media_type == PARAMS and one.size <= SMALL), "")
            models[Name(*path.split("/")[-4:]).short] = {
                "digest": manifest.sha,
                "content": manifest.content,
                "whole": all(sizes.get(one.sha) == one.size for one in manifest.blobs),
                "weights": sum(one.size for one in manifest.weights),
                "num_ctx": num_ctx_of(_beginning(folder, params)) if params else 0,
                "shape": _shape(_beginning(folder, manifest.weights[0].sha)),
            }
    return {"models": models, "blobs": sorted(sha for sha, size in sizes.items() if size >= SMALL), "partial": partial}


def _beginning(folder: str, sha: str) -> bytes:
    try:
        with open(os.path.join(folder, "blobs", f"sha256-{sha}"), "rb") as file:
            return file.read(BEGINNING)
    except OSError:
        return b""


def _shape(data: bytes) -> dict[str, t.Any]:
    try:
        return {key: value for key, value in gguf.read(data).items() if _SHAPE.match(key)}
    except (gguf.ShortError, gguf.NotGgufError):
        return {}
