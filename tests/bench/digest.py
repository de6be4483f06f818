#!/usr/bin/env python3
"""What the digest check of a 2 GB store costs, cold and remembered, beside `sha256sum` of the same files."""

from __future__ import annotations

import hashlib
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ansible_collections.llmops.stack.plugins.module_utils._ollama_digest import Digests
from ansible_collections.llmops.stack.plugins.module_utils._ollama_store import Blob, Store

MEGABYTE = 1024 * 1024
# Like a store of three models: two large weights, a middling one, and crumbs.
SIZES = [900 * MEGABYTE, 700 * MEGABYTE, 400 * MEGABYTE, 12_000, 1_500, 500]
RUNS = 3


def main() -> int:
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
        store = Store(folder)
        blobs = [_blob(Path(folder), number, size) for number, size in enumerate(SIZES)]
        paths = [store.blob_path(blob.sha) for blob in blobs]

        def ours(force: bool) -> None:
            digests = Digests(store, force)
            assert digests.faults(blobs) == {}
            digests.save()

        rows = {
            "sha256sum": _seconds(lambda: subprocess.run(["sha256sum", *paths], check=True, stdout=subprocess.DEVNULL)),
            "digest, cold": _seconds(lambda: ours(True)),
            "digest, remembered": _seconds(lambda: ours(False)),
        }
    total = sum(SIZES) / 1e9
    print(f"digest check of {total:.1f} GB in {len(SIZES)} blobs, page cache warm, {os.cpu_count()} CPUs")
    for name, seconds in rows.items():
        print(f"{name:22} {seconds:8.4f} s   ratio {seconds / rows['sha256sum']:.4f}")
    return 0


def _blob(folder: Path, number: int, size: int) -> Blob:
    (folder / "blobs").mkdir(exist_ok=True)
    pattern = os.urandom(MEGABYTE)
    total, written = hashlib.sha256(), 0
    part = folder / f"part-{number}"
    with part.open("wb") as file:
        while written < size:
            piece = pattern[: size - written]
            total.update(piece)
            file.write(piece)
            written += len(piece)
    part.rename(folder / "blobs" / f"sha256-{total.hexdigest()}")
    return Blob(total.hexdigest(), size, "application/vnd.ollama.image.model")


def _seconds(work: Callable[[], object]) -> float:
    """The median of some runs after one that warms the page cache."""
    work()
    taken = []
    for _run in range(RUNS):
        started = time.monotonic()
        work()
        taken.append(time.monotonic() - started)
    return statistics.median(taken)


if __name__ == "__main__":
    raise SystemExit(main())
