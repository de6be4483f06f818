# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""What a source has to offer of a model, learned without fetching it: digest, sizes, and what shape it has.

A source is a registry, or a mirror that stands in for it, of which the manifest is asked, and the first bytes of the
weights by ranges; or a folder on this host that looks like a store.
"""

from __future__ import annotations

import hashlib
from typing import Any, Protocol

from ansible_collections.llmops.stack.plugins.module_utils import _ollama_gguf as gguf
from ansible_collections.llmops.stack.plugins.module_utils._http_plain import PlainHttp
from ansible_collections.llmops.stack.plugins.module_utils._ollama_names import Name
from ansible_collections.llmops.stack.plugins.module_utils._ollama_registry import (
    RegistryError,
    first_bytes,
    manifest_of,
)
from ansible_collections.llmops.stack.plugins.module_utils._ollama_store import (
    PARAMS,
    Blob,
    Manifest,
    Store,
    num_ctx_of,
)
from ansible_collections.llmops.stack.plugins.module_utils._stack_mirror import lacks

__all__ = ["Folder", "Registry", "Source", "offer"]

# How much of the weights is read before the next, longer look: mostly the shape stands before the vocabulary.
_LOOKS = (64 * 1024, 1024**2, 8 * 1024**2, 32 * 1024**2)
_LONGEST = 64 * 1024


class Source(Protocol):
    def manifest(self, name: Name) -> Manifest: ...

    def read(self, name: Name, blob: Blob, start: int, count: int) -> bytes: ...


class Registry:
    def __init__(self, host: str, insecure: bool, proxy: str, no_proxy: str) -> None:
        self.host = host
        self.insecure = insecure
        self.client = PlainHttp(proxy, no_proxy)

    def manifest(self, name: Name) -> Manifest:
        try:
            return manifest_of(self._there(name), self.insecure, client=self.client)
        except RegistryError as exc:
            if not exc.missing:
                raise
            advice = f"Check the name and tag. {lacks(self.host, f'model {name.short}')}".rstrip()
            raise RegistryError(f"{exc} {advice}", missing=True) from exc

    def read(self, name: Name, blob: Blob, start: int, count: int) -> bytes:
        return first_bytes(self._there(name), blob.sha, start, count, self.insecure, self.client)

    def _there(self, name: Name) -> Name:
        return name._replace(host=self.host) if self.host else name


class Folder:
    def __init__(self, path: str) -> None:
        self.store = Store(path)

    def manifest(self, name: Name) -> Manifest:
        found = self.store.find(name)
        if not found.manifest:
            said = f"its manifest there {found.reason}" if found.reason else "the model is not in it"
            message = f"the bundle {self.store.models_dir} cannot give it: {said}. Make the bundle anew."
            raise RegistryError(message, missing=True)
        return found.manifest

    def read(self, name: Name, blob: Blob, start: int, count: int) -> bytes:
        try:
            with open(self.store.blob_path(blob.sha), "rb") as file:
                file.seek(start)
                return file.read(count)
        except OSError as exc:
            message = f"the bundle {self.store.models_dir} lacks blob {blob.shown} of it. Make the bundle anew."
            raise RegistryError(message, missing=True) from exc


def offer(source: Source, name: Name) -> dict[str, Any]:
    """All that is known of a model; C(error) where it is not to be had, C(missing) where its source has none."""
    found: dict[str, Any] = {
        "name": name.short, "digest": "", "content": "", "size": 0, "weights": 0, "layers": [], "num_ctx": 0,
        "shape": {},
    }  # fmt: skip
    try:
        manifest = source.manifest(name)
        found.update(
            digest=manifest.sha,
            content=manifest.content,
            size=manifest.size,
            weights=sum(one.size for one in manifest.weights),
            layers=[{"digest": one.sha, "size": one.size, "media_type": one.media_type} for one in manifest.blobs],
            num_ctx=_num_ctx(source, name, manifest),
            shape=_shape(source, name, manifest),
        )
    except RegistryError as exc:
        found.update(error=str(exc), missing=exc.missing)
    return found


def _num_ctx(source: Source, name: Name, manifest: Manifest) -> int:
    """The context that its maker gave it, which wins over the server's own; 0 where there is none."""
    blob = next((one for one in manifest.layers if one.media_type == PARAMS and one.size <= _LONGEST), None)
    if not blob:
        return 0
    data = source.read(name, blob, 0, blob.size)
    if hashlib.sha256(data).hexdigest() != blob.sha:
        raise RegistryError(f"the bytes of blob {blob.shown} are not those that its name promises. Repair the source.")
    return num_ctx_of(data)


def _shape(source: Source, name: Name, manifest: Manifest) -> dict[str, Any]:
    """Empty for weights that are no GGUF, of which only the size is known."""
    blob = manifest.weights[0]
    data = b""
    for count in _LOOKS:
        data += source.read(name, blob, len(data), min(count, blob.size) - len(data))
        try:
            return gguf.read(data)
        except gguf.NotGgufError:
            return {}
        except gguf.ShortError:
            if len(data) >= blob.size:
                return {}
    return {}
