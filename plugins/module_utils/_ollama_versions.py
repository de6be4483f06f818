# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""What is known about releases of Ollama, as data. Nothing else in the collection may compare its versions by itself.

Every release from C(OLDEST) on is an archive with C(bin/ollama) and C(lib/ollama/), and more archives that are laid
over it for hardware that few have. Their names and what must be in them changed over time; that is the table.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

__all__ = [
    "ARCHITECTURES",
    "OLDEST",
    "OVERLAYS",
    "PROGRAM",
    "compare",
    "oldest_driver",
    "parse_version",
    "release_info",
]

# The oldest release whose settings, log lines and API the role relies on.
OLDEST = "0.5.0"

# How Linux archives are packed, from which release on.
_SUFFIXES: tuple[tuple[str, str], ...] = (("0.3.7", ".tgz"), ("0.14.0", ".tar.zst"))

PROGRAM = "bin/ollama"
# What a tree must hold, from which release on. From 0.30.0 on the server runs every model in a llama-server of its own
# and checks what it creates with llama-quantize; it starts and lists models without them, and answers none.
_REQUIRED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("0.3.7", (PROGRAM,)),
    ("0.30.0", ("lib/ollama/llama-server", "lib/ollama/llama-quantize")),
)

# The oldest driver of NVIDIA that its libraries load with, from which release on.
_DRIVERS: tuple[tuple[str, int], ...] = (("0.0.0", 531), ("0.30.0", 550))

ARCHITECTURES: dict[str, str] = {"amd64": "amd64", "x86_64": "amd64", "arm64": "arm64", "aarch64": "arm64"}


class Overlay(NamedTuple):
    arch: str
    since: str
    purpose: str


OVERLAYS: dict[str, Overlay] = {
    "jetpack5": Overlay("arm64", "0.5.0", "NVIDIA Jetson with JetPack 5"),
    "jetpack6": Overlay("arm64", "0.5.0", "NVIDIA Jetson with JetPack 6"),
    # In releases before, what it holds is in the base archive or does not exist.
    "mlx": Overlay("amd64", "0.23.1", "the MLX engine on CUDA"),
    "rocm": Overlay("amd64", "0.5.0", "AMD GPUs"),
}

_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)(?:-rc(\d+))?")


def parse_version(version: str) -> tuple[int, int, int, bool, int]:
    """A key that sorts versions: 0.33.0-rc2 < 0.33.0 < 0.33.1.

    Raises:
        ValueError: this is no version of Ollama.
    """
    found = _VERSION.fullmatch(version)
    if not found:
        raise ValueError(f"'{version}' is not a version of Ollama; versions look like 0.32.15, with no leading v")
    major, minor, patch, candidate = found.groups()
    return int(major), int(minor), int(patch), candidate is None, int(candidate or 0)


def compare(one: str, other: str) -> int:
    """Negative where `one` is the older, 0 where they are equal, positive where it is the newer."""
    left, right = parse_version(one), parse_version(other)
    return (left > right) - (left < right)


def _since(version: str, first: str) -> bool:
    # A release candidate already is what its release is.
    return parse_version(version)[:3] >= parse_version(first)[:3]


def oldest_driver(version: str) -> int:
    """The major version that NVIDIA's driver must have; for what is no version, what every release needs."""
    try:
        return next(least for first, least in reversed(_DRIVERS) if _since(version, first))
    except ValueError:
        return _DRIVERS[0][1]


def release_info(version: str, arch: str = "amd64", overlays: Iterable[str] = ()) -> dict[str, Any]:
    """Everything known about one release for one kind of host.

    Returns:
        C(version), C(arch) (amd64 or arm64), C(suffix), C(overlays) (sorted), C(files) (names of the archives, the base
        first, in the order in which they are laid over each other), C(required) (paths that the tree must hold).

    Raises:
        ValueError: there is no such release, architecture or overlay, or it is older than C(OLDEST).
    """
    parse_version(version)
    if not _since(version, OLDEST):
        raise ValueError(f"Ollama {version} is older than {OLDEST}, the oldest one that this collection can run")
    if arch not in ARCHITECTURES:
        raise ValueError(f"there is no Ollama for the architecture '{arch}', only for amd64 and arm64")
    arch = ARCHITECTURES[arch]
    wanted = sorted(set(overlays))
    for name in wanted:
        _check_overlay(name, version, arch)
    suffix = next(suffix for first, suffix in reversed(_SUFFIXES) if _since(version, first))
    base = f"ollama-linux-{arch}"
    return {
        "version": version,
        "arch": arch,
        "suffix": suffix,
        "overlays": wanted,
        "files": [f"{base}{suffix}", *(f"{base}-{name}{suffix}" for name in wanted)],
        "required": [path for first, paths in _REQUIRED if _since(version, first) for path in paths],
    }


def _check_overlay(name: str, version: str, arch: str) -> None:
    if name not in OVERLAYS:
        raise ValueError(f"Ollama has no overlay '{name}'; there are {', '.join(OVERLAYS)}")
    overlay = OVERLAYS[name]
    if overlay.arch != arch:
        raise ValueError(f"the overlay {name} ({overlay.purpose}) is made for {overlay.arch}, and this host is {arch}")
    if not _since(version, overlay.since):
        raise ValueError(f"Ollama {version} has no overlay {name}; it came with {overlay.since}")
