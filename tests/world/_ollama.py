# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ollama's release archives: the real programs where they can be had, a stand-in around the real one elsewhere."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

import _gobuild
import _host
from _build import Builder
from _images import GoBinary, Image
from _settings import DEB_ARCH, WORLD, WorldError, content_hash, step
from _upstream import WWW

FOLDER = WWW / "github" / "ollama" / "ollama" / "releases" / "download"
WRAPPER = WORLD / "standins" / "ollama.py"
INVENTORY_VERSION = "0.17.4"


def binary(version: str) -> GoBinary:
    return GoBinary(
        name="ollama",
        package="github.com/ollama/ollama",
        version=version,
        ldflags=f"-s -w -X github.com/ollama/ollama/version.Version={version}",
        cgo=True,
    )


REAL = {version: binary(version) for version in ("0.17.4", "0.13.5")}


@dataclass(frozen=True)
class Release:
    """One release: what its archive is packed with, and what its program is.

    `real` is the version of the program inside. Where it is another one than the release's, a stand-in answers in its
    name; without one there is nothing to answer, and the server does not start.
    """

    suffix: str
    real: str
    rocm: str  # the folder of the ROCm overlay
    tools: tuple[str, ...] = ()  # programs beside the libraries


RELEASES = {
    "0.13.5": Release(".tgz", "0.13.5", "rocm"),
    "0.17.4": Release(".tar.zst", "0.17.4", "rocm"),
    "0.18.0": Release(".tar.zst", "", "rocm"),
    # Packed without the programs that this version infers with.
    "0.30.0": Release(".tar.zst", "0.17.4", "rocm_v7"),
    "0.32.15": Release(".tar.zst", "0.17.4", "rocm_v7", ("llama-server", "llama-quantize")),
}
LIBRARIES = ("libggml-base.so", "libggml-cpu-x64.so", "cuda_v12/libggml-cuda.so", "cuda_v13/libggml-cuda.so")
OVERLAYS: dict[str, dict[str, tuple[str, ...]]] = {
    "amd64": {"rocm": ("{rocm}/libggml-hip.so", "{rocm}/rocblas/library/TensileLibrary.dat")},
    "arm64": {kind: (f"cuda_{kind}/libggml-cuda.so",) for kind in ("jetpack5", "jetpack6")},
}
IMAGES = tuple(
    Image(name=f"ollama-{version}", context="ollama", tags=(f"ollama/ollama:{version}",), binaries=(program,))
    for version, program in REAL.items()
)


def ensure(builder: Builder) -> None:
    """Packs every release whose program or packing changed since; the same input gives the same bytes."""
    programs = {version: _gobuild.ensure(program, builder) for version, program in REAL.items()}
    code: list[str | bytes] = [Path(__file__).read_bytes(), WRAPPER.read_bytes(), DEB_ARCH]
    stale = []
    for version, release in RELEASES.items():
        program = programs[release.real].read_bytes() if release.real else b""
        stamp = f"{content_hash([*code, program])}\n"
        seal = FOLDER / f".{version}.stamp"
        if not (seal.is_file() and seal.read_text() == stamp and (FOLDER / f"v{version}" / "sha256sum.txt").is_file()):
            stale.append((version, program, seal, stamp))
    if not stale:
        return
    _host.require("zstd")
    with step(f"{len(stale)} Ollama releases"):
        for version, program, seal, stamp in stale:
            seal.unlink(missing_ok=True)
            _publish(version, program)
            seal.write_text(stamp)


def _publish(version: str, program: bytes) -> None:
    suffix = RELEASES[version].suffix
    folder = FOLDER / f"v{version}"
    folder.mkdir(parents=True, exist_ok=True)
    sums = []
    for name, files in archives(version, program).items():
        packed = pack(files, suffix)
        (folder / f"{name}{suffix}").write_bytes(packed)
        sums.append(f"{hashlib.sha256(packed).hexdigest()}  ./{name}{suffix}\n")
    (folder / "sha256sum.txt").write_text("".join(sorted(sums)))


def archives(version: str, program: bytes) -> dict[str, dict[str, bytes]]:
    """What a release publishes for this processor: name of the archive -> its programs (below bin/) and libraries."""
    release = RELEASES[version]
    base = {f"lib/ollama/{name}": _filler(version, name) for name in LIBRARIES}
    if release.real == version:
        base["bin/ollama"] = program
    else:
        base["bin/ollama"] = WRAPPER.read_bytes()
        base["lib/ollama/world.json"] = json.dumps({"version": version, "real": release.real}).encode() + b"\n"
        base.update({"lib/ollama/world/ollama": program} if release.real else {})
        base.update({f"lib/ollama/{tool}": b"#!/bin/sh\nexit 1\n" for tool in release.tools})
    made = {f"ollama-linux-{DEB_ARCH}": base}
    for overlay, names in OVERLAYS.get(DEB_ARCH, {}).items():
        paths = [name.format(rocm=release.rocm) for name in names]
        made[f"ollama-linux-{DEB_ARCH}-{overlay}"] = {f"lib/ollama/{path}": _filler(version, path) for path in paths}
    return made


def _filler(version: str, name: str) -> bytes:
    return f"In place of {name} of Ollama {version}; no program loads it.\n".encode()


def pack(files: dict[str, bytes], suffix: str) -> bytes:
    buffer = io.BytesIO()
    folders = {str(parent) for name in files for parent in Path(name).parents}
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name in sorted({"./" if folder == "." else f"./{folder}" for folder in folders}):
            archive.addfile(_entry(name, 0o755, tarfile.DIRTYPE))
        for name, content in sorted(files.items()):
            entry = _entry(f"./{name}", 0o644 if Path(name).suffix in (".dat", ".json") else 0o755, tarfile.REGTYPE)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    if suffix == ".tgz":
        return gzip.compress(buffer.getvalue(), compresslevel=6, mtime=0)
    done = subprocess.run(
        ["zstd", "-3", "--single-thread", "-c"], input=buffer.getvalue(), capture_output=True, check=False
    )
    if done.returncode:
        raise WorldError(f"zstd ended with {done.returncode}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def _entry(name: str, mode: int, kind: bytes) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type = kind
    entry.mode = mode
    entry.mtime = 1700000000
    entry.uname = entry.gname = "root"
    return entry
