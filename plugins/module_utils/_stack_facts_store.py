# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module util is PRIVATE to the collection; it may change without notice.

"""What a model store holds at first sight: manifests are read, of blobs only names and sizes are looked at."""

from __future__ import annotations

import contextlib
import os
import re
import typing as t

from ansible_collections.llmops.stack.plugins.module_utils._ollama_names import Name
from ansible_collections.llmops.stack.plugins.module_utils._ollama_store import Manifest

__all__ = ["look"]

SMALL = 1048576  # bytes; templates and licences below it are not listed
_BLOB = re.compile(r"sha256-([0-9a-f]{64})(-partial)?")


def look(folder: str, manifests: t.Iterable[str]) -> dict[str, t.Any]:
    """C(models) by their names, with C(digest), C(content) and whether all blobs are there (C(whole)), C(blobs) and
    C(partial) (bytes that an unfinished pull has brought)."""
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
            models[Name(*path.split("/")[-4:]).short] = {
                "digest": manifest.sha,
                "content": manifest.content,
                "whole": all(sizes.get(one.sha) == one.size for one in manifest.blobs),
            }
    return {"models": models, "blobs": sorted(sha for sha, size in sizes.items() if size >= SMALL), "partial": partial}
