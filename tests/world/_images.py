# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the world's table of images (images.py) is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from _settings import IMAGES, content_hash


@dataclass(frozen=True)
class GoBinary:
    """A program from the Go module proxy, built once into <cache>/bin/<name>-<version>.

    `via="get"` is for modules that `go install` refuses (their go.mod has replace or exclude lines). `via="builder"` is
    an OpenTelemetry Collector: the package is the program that writes a collector's main package out of a manifest.
    """

    name: str  # "weaviate-server"
    package: str  # "github.com/weaviate/weaviate/cmd/weaviate-server"
    version: str  # "1.27.0", without the v
    ldflags: str = "-s -w"
    module: str = ""  # the module to `go get` where it is not the package itself (via="get")
    via: str = "install"  # install | get | builder
    cgo: bool = False  # C or C++ in it: always built in the container go-builder, and linked statically
    tags: str = ""  # build tags, with commas between them
    manifest: str = ""  # a file below images/ (via="builder")

    @property
    def file_name(self) -> str:
        made_of = f"-{content_hash([self.manifest_text()])}" if self.manifest else ""
        return f"{self.name}-{self.version}{made_of}"

    def manifest_text(self) -> str:
        return (IMAGES / self.manifest).read_text()


@dataclass(frozen=True)
class WheelProgram:
    """A program out of a wheel of the same name, fetched once by pip into <cache>/bin/<name>-<version>."""

    name: str  # "uv"
    version: str
    sha256: Mapping[str, str]  # of the wheel, by machine: x86_64, aarch64

    @property
    def file_name(self) -> str:
        return f"{self.name}-{self.version}"


@dataclass(frozen=True)
class Image:
    """One image of the world, and the registry names it is served under.

    The build context is tests/world/images/<context>/ plus the files of `binaries`, each under its plain name
    (the binary's) in the context's folder `bin/`. Its Dockerfile starts with `ARG BASE` and `FROM ${BASE}`.
    Two entries may share a context and differ in `args`; Docker's layer cache makes the second one cheap when the
    Dockerfile declares its version ARG last.
    """

    name: str  # local name: llmops-world/<name>:<content hash>; unique in the table
    context: str  # folder below tests/world/images
    tags: tuple[str, ...] = ()  # "langgenius/dify-api:1.12.1", "library/postgres:15-alpine"; none for a mere base
    args: Mapping[str, str] = field(default_factory=dict)  # --build-arg
    # What ARG BASE names: base | base-trixie | node-trixie | node-bookworm | the name of an earlier entry.
    base: str = "base"
    binaries: tuple[GoBinary | WheelProgram, ...] = ()
    # A lock file of Python packages, relative to the context: its wheels are put beside it.
    wheels: str = ""
    # Paths of the checkout, relative to its root, that are copied into the context's folder `repo/` as well.
    repo_files: tuple[str, ...] = ()
