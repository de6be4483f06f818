# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Models from a folder that looks like a store: copied and hashed in one pass, and seen by the server only when whole.

Blobs are gathered outside of manifests/ and blobs/, where a starting server would take them for rubbish, and moved into
place together; the manifest comes last.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import time
from collections.abc import Iterator, Sequence

from ansible_collections.llmops.stack.plugins.module_utils._files import Account
from ansible_collections.llmops.stack.plugins.module_utils._ollama_digest import Digests
from ansible_collections.llmops.stack.plugins.module_utils._ollama_progress import Progress
from ansible_collections.llmops.stack.plugins.module_utils._ollama_store import Blob, Manifest, Store, StoreError

_STAGING = ".llmops-import-"
_CHUNK = 4 * 1024 * 1024


class Import:
    def __init__(self, store: Store, digests: Digests, progress: Progress, deadline: float) -> None:
        self.store = store
        self.digests = digests
        self.progress = progress
        self.deadline = deadline

    def run(self, bundle: Store, manifest: Manifest, need: Sequence[Blob], target: str, shown: str) -> None:
        """Bring the blobs that the store needs, then the manifest to its path.

        Raises:
            StoreError: The bundle is damaged, or the store takes nothing more; the store is as it was.
        """
        for blob in need:
            fault = bundle.fault(blob)
            if fault:
                word = "lacks" if fault == "missing" else "has a truncated"
                raise StoreError(f"{bundle.models_dir} {word} blob {blob.shown} of {shown}. Make the bundle anew.")
        owner = self.store.owner()
        for folder in (self.store.blobs, os.path.dirname(target)):
            self._make_folder(folder, owner)
        self.progress.start()
        with self._room(), self._staging(self.store.blobs) as blobs, self._staging(self.store.manifests) as manifests:
            done, total = 0, sum(one.size for one in need)
            for blob in need:
                self._copy(bundle, blob, os.path.join(blobs, blob.sha), owner, shown, done, total)
                done += blob.size
            note = os.path.join(manifests, "manifest")
            with _created(note) as descriptor:
                _write(descriptor, memoryview(manifest.raw))
                _finish(descriptor, owner)
            for blob in need:
                os.replace(os.path.join(blobs, blob.sha), self.store.blob_path(blob.sha))
                self.digests.learn(blob.sha)
            os.replace(note, target)

    def _copy(self, bundle: Store, blob: Blob, path: str, owner: Account, shown: str, done: int, total: int) -> None:
        digest = hashlib.sha256()
        buffer = bytearray(_CHUNK)
        view = memoryview(buffer)
        with open(bundle.blob_path(blob.sha), "rb", buffering=0) as source, _created(path) as descriptor:
            while True:
                count = source.readinto(buffer)
                if not count:
                    break
                digest.update(view[:count])
                _write(descriptor, view[:count])
                done += count
                self.progress.say(shown, "importing", done, total, blob.sha)
                if time.monotonic() > self.deadline:
                    raise StoreError(f"{shown} was not imported in time. Raise the deadline (ollama_pull_timeout).")
            _finish(descriptor, owner)
        if digest.hexdigest() != blob.sha:
            raise StoreError(
                f"blob {blob.shown} of {shown} is damaged in {bundle.models_dir}: its sha256 is "
                f"{digest.hexdigest()[:12]}…. Make the bundle anew; nothing of it was taken."
            )

    def _make_folder(self, path: str, owner: Account) -> None:
        if os.path.isdir(path):
            return
        self._make_folder(os.path.dirname(path), owner)
        os.mkdir(path, 0o755)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            os.fchown(descriptor, owner.uid, owner.gid)
            os.fchmod(descriptor, 0o755)
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _staging(self, beside: str) -> Iterator[str]:
        """A folder on the same file system, without what killed runs left behind."""
        parent = os.path.dirname(os.path.realpath(beside))
        for name in os.listdir(parent):
            owner = name[len(_STAGING) :].partition("-")[0]
            if name.startswith(_STAGING) and not os.path.exists(f"/proc/{owner}"):
                shutil.rmtree(os.path.join(parent, name), ignore_errors=True)
        path = os.path.join(parent, f"{_STAGING}{os.getpid()}-{os.path.basename(beside)}")
        os.mkdir(path, 0o700)
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    @contextlib.contextmanager
    def _room(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            if exc.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise StoreError(
                f"the disk of {self.store.models_dir} is full. Nothing was left behind. Make room, or put the store on "
                "a larger disk."
            ) from exc


@contextlib.contextmanager
def _created(path: str) -> Iterator[int]:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _write(descriptor: int, view: memoryview) -> None:
    while view:
        view = view[os.write(descriptor, view) :]


def _finish(descriptor: int, owner: Account) -> None:
    os.fchown(descriptor, owner.uid, owner.gid)
    os.fchmod(descriptor, 0o644)
    os.fsync(descriptor)
