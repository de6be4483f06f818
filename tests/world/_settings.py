# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where things are, what they are called, and how the world speaks to the person in front of it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

WORLD = Path(__file__).resolve().parent
REPO = WORLD.parent.parent
IMAGES = WORLD / "images"
CACHE = Path(os.environ.get("LLMOPS_CACHE") or Path.home() / ".cache" / "llmops.stack")
STATE = REPO / "build" / "world"
INVENTORY = STATE / "inventory.yml"
FETCHED = CACHE / "releases"


def release_data(environ: Mapping[str, str], neighbour: Path, fetched: Path) -> Path:
    """Where Dify's release data is: decided here alone, for the world, the tests and tools/fetch-releases."""
    asked = environ.get("DIFY_RELEASES_DIR")
    if asked:
        return Path(asked)
    return neighbour if neighbour.is_dir() else fetched


RELEASES = release_data(os.environ, REPO.parent / "shared" / "dify-releases", FETCHED)

LABEL = "llmops.world=1"
NETWORK = "llmops-world"
DARK = "llmops-dark"  # for nodes without a way out
UPSTREAM = "llmops-upstream"
REGISTRY_VOLUME = "llmops-registry"
CODENAMES = ("trixie", "bookworm")
COMPOSE_VERSION = "2.40.3"

# The same processor has three names: Debian's, the kernel's, and the one in this module's callers' file names.
MACHINE = {"arm64": "aarch64"}.get(platform.machine(), platform.machine())
DEB_ARCH = {"x86_64": "amd64", "aarch64": "arm64"}.get(MACHINE, MACHINE)

STARTED = time.monotonic()


class WorldError(Exception):
    """Something the person in front of the screen has to act on; the text says what to do."""


def say(text: str) -> None:
    print(f"[{time.monotonic() - STARTED:5.0f}s] {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def step(text: str) -> Iterator[None]:
    say(f"{text} …")
    before = time.monotonic()
    yield
    say(f"{text}: {time.monotonic() - before:.0f} s")


def node_container(node: str) -> str:
    return f"llmops-{node}"


def content_hash(parts: Iterable[str | bytes]) -> str:
    """Twelve hex digits that change when any part does."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(hashlib.sha256(data).digest())
    return total.hexdigest()[:12]


def tree(folder: Path) -> list[tuple[str, Path]]:
    """Every file below a folder as (relative name, path), sorted, without what editors and Python leave behind."""
    if folder.is_file():
        return [(folder.name, folder)]
    found = [
        (path.relative_to(folder).as_posix(), path)
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.endswith(("~", ".pyc", ".swp"))
    ]
    return sorted(found)


def tree_hash(folder: Path) -> str:
    return content_hash(
        part for name, path in tree(folder) for part in (name, str(os.access(path, os.X_OK)), path.read_bytes())
    )
