# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Are the bytes of a blob those that its name promises? Hashed in threads, and remembered by size, time and inode."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from ansible_collections.llmops.stack.plugins.module_utils._ollama_store import Blob, Store

MEMORY = ".llmops-verified.json"

_CHUNK = 4 * 1024 * 1024
_THREADS = max(1, min(4, os.cpu_count() or 1))


class Digests:
    """What was hashed before holds while size, mtime and inode stay as they were."""

    def __init__(self, store: Store, force: bool = False) -> None:
        self.store = store
        self.path = os.path.join(store.models_dir, MEMORY)
        self.force = force
        self.hashed_bytes = 0
        self._known = self._read()
        self._before = dict(self._known)
        # Hashed by this run: `force` asks for one reading of each file, not for one at every look.
        self._fresh: set[str] = set()

    def unknown_bytes(self, blobs: Iterable[Blob]) -> int:
        """How much would have to be read."""
        return sum(one.size for one in {one.sha: one for one in blobs}.values() if not self._remembers(one))

    def faults(self, blobs: Iterable[Blob], progress: Callable[[int], None] = lambda count: None) -> dict[str, str]:
        """What is wrong, by sha: missing, size, digest, or the words of a disk that cannot read."""
        unique = {one.sha: one for one in blobs}
        wrong = {sha: fault for sha, fault in ((sha, self.store.fault(one)) for sha, one in unique.items()) if fault}
        unread = [one for one in unique.values() if one.sha not in wrong and not self._remembers(one)]
        # The largest first, so that no thread is left alone with it at the end.
        unread.sort(key=lambda one: -one.size)
        with ThreadPoolExecutor(_THREADS) as pool:
            for blob, fault in zip(unread, pool.map(lambda one: self._hash(one, progress), unread)):
                self.hashed_bytes += blob.size
                if fault:
                    wrong[blob.sha] = fault
        return wrong

    def save(self) -> None:
        """Keep what was learned, in one step. Without it the next run reads more, and that is all."""
        known = {sha: one for sha, one in self._known.items() if os.path.exists(self.store.blob_path(sha))}
        if known == self._before:
            return
        with contextlib.suppress(OSError):
            descriptor, temporary = tempfile.mkstemp(prefix=f"{MEMORY}.", dir=self.store.models_dir)
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                    json.dump({"blobs": known}, file, sort_keys=True)
                    os.fchmod(file.fileno(), 0o644)
                os.replace(temporary, self.path)
            except OSError:
                os.unlink(temporary)
                raise
            self._before = known

    def learn(self, sha: str) -> None:
        """A blob that was hashed while it was copied."""
        self._note(sha, os.stat(self.store.blob_path(sha)))

    def _read(self) -> dict[str, list[int]]:
        try:
            with open(self.path, encoding="utf-8") as file:
                known = json.load(file)["blobs"]
            return {str(sha): [int(one) for one in entry] for sha, entry in known.items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return {}

    def _remembers(self, blob: Blob) -> bool:
        if self.force and blob.sha not in self._fresh:
            return False
        try:
            return self._known.get(blob.sha) == _stamp(os.stat(self.store.blob_path(blob.sha)))
        except OSError:
            return False

    def _note(self, sha: str, found: os.stat_result) -> None:
        self._known[sha] = _stamp(found)
        self._fresh.add(sha)

    def _hash(self, blob: Blob, progress: Callable[[int], None]) -> str:
        self._known.pop(blob.sha, None)
        total = hashlib.sha256()
        buffer = bytearray(_CHUNK)
        view = memoryview(buffer)
        try:
            with open(self.store.blob_path(blob.sha), "rb", buffering=0) as file:
                before = os.fstat(file.fileno())
                while True:
                    count = file.readinto(buffer)
                    if not count:
                        break
                    total.update(view[:count])
                    progress(count)
                after = os.fstat(file.fileno())
        except FileNotFoundError:
            return "missing"
        except OSError as exc:
            return exc.strerror or str(exc)
        if total.hexdigest() != blob.sha:
            return "digest"
        if _stamp(before) == _stamp(after):
            self._note(blob.sha, after)
        return ""


def _stamp(found: os.stat_result) -> list[int]:
    return [found.st_size, found.st_mtime_ns, found.st_ino]
