# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Models in a plain store, byte for byte as their registry has them: names and digests are the same on every host.

Hosts that pull through a mirror leave out the name of the registry that a model comes from, so a model of another one
than Ollama's has its manifest under Ollama's name, too.
"""

from __future__ import annotations

import hashlib
import os
import threading
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils import _ollama_registry as registries
from ansible_collections.llmops.stack.plugins.module_utils._mirror_fetch import Fetcher, MirrorError
from ansible_collections.llmops.stack.plugins.module_utils._mirror_index import Index
from ansible_collections.llmops.stack.plugins.module_utils._ollama_names import DEFAULT_HOST, Name, parse
from ansible_collections.llmops.stack.plugins.module_utils._ollama_store import Blob, Manifest

__all__ = ["Models", "blob_path", "manifest_paths"]

STORE = "models"


def blob_path(sha: str) -> str:
    return f"{STORE}/blobs/sha256-{sha}"


def manifest_paths(name: Name) -> list[str]:
    hosts = dict.fromkeys([name.host, DEFAULT_HOST])
    return ["/".join([STORE, "manifests", host, name.namespace, name.model, name.tag]) for host in hosts]


class Models:
    def __init__(self, fetcher: Fetcher, index: Index) -> None:
        self.fetcher = fetcher
        self.index = index
        self._lock = threading.Lock()
        self._busy: dict[str, threading.Lock] = {}

    def held(self, text: str) -> bool:
        """Whether the model is there with all that it consists of."""
        manifest = self._local(parse(text))
        return manifest is not None and not self._missing(manifest)

    def size(self, text: str) -> int:
        """Bytes that are still to come."""
        return sum(blob.size for blob in self._missing(self._offered(parse(text))))

    def bring(self, text: str, refresh: bool) -> int:
        """Have the model; returns how many bytes came.

        Raises:
            MirrorError: it cannot be had; its blobs that came whole stay for the next run.
        """
        name = parse(text)
        local = self._local(name)
        manifest = self._offered(name) if local is None or refresh else local
        received = 0
        for blob in self._missing(manifest):
            received += self._blob(name, blob)
        for path in manifest_paths(name):
            if self._read(path) != manifest.raw:
                self._write(path, manifest.raw, name)
        known: dict[str, Any] = {"digest": manifest.sha, "size": manifest.size}
        self.index.put("models", name.short, known)
        return received

    def _offered(self, name: Name) -> Manifest:
        origin = self.fetcher.sources.registry_of_models(name.host)
        scheme, _mark, host = origin.partition("://")
        try:
            return registries.manifest_of(name._replace(host=host), scheme == "http")
        except registries.RegistryError as exc:
            advice = "Correct the name in ollama_models." if exc.missing else "Check mirror_upstream and the way there."
            raise MirrorError(str(exc), advice) from exc

    def _local(self, name: Name) -> Manifest | None:
        found = [self._read(path) for path in manifest_paths(name)]
        if any(raw is None or raw != found[0] for raw in found):
            return None
        try:
            return Manifest(found[0] or b"")
        except ValueError:
            return None

    def _read(self, path: str) -> bytes | None:
        try:
            with open(self.index.absolute(path), "rb") as file:
                return file.read()
        except OSError:
            return None

    def _missing(self, manifest: Manifest) -> list[Blob]:
        return [one for one in manifest.blobs if not self.index.holds(blob_path(one.sha), one.sha)]

    def _blob(self, name: Name, blob: Blob) -> int:
        origin = self.fetcher.sources.registry_of_models(name.host)
        url = f"{origin}/v2/{name.namespace}/{name.model}/blobs/sha256:{blob.sha}"
        path = blob_path(blob.sha)
        with self._alone(blob.sha):
            if self.index.holds(path, blob.sha):
                return 0  # another tag of the same weights has just brought it
            got = self.fetcher.file(url, self.index.absolute(path), blob.sha)
            self.index.note(path, blob.sha, name.short)
        self.index.save()
        return got.received

    def _alone(self, sha: str) -> threading.Lock:
        with self._lock:
            return self._busy.setdefault(sha, threading.Lock())

    def _write(self, path: str, raw: bytes, name: Name) -> None:
        """Last of all, and in one step: a list of models stumbles over what is half there."""
        target = self.index.absolute(path)
        os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
        os.makedirs(self.fetcher.staging, mode=0o755, exist_ok=True)
        temporary = os.path.join(self.fetcher.staging, hashlib.sha256(path.encode()).hexdigest()[:32])
        with open(temporary, "wb") as file:
            file.write(raw)
            os.fchmod(file.fileno(), 0o644)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
        self.index.note(path, hashlib.sha256(raw).hexdigest(), name.short)
