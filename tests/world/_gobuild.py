# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs from the Go module proxy: the real thing where a package registry serves it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import _host
from _engine import run
from _images import GoBinary
from _settings import CACHE, COMPOSE_VERSION, DEB_ARCH, WorldError, step

if TYPE_CHECKING:
    from _build import Builder

# From 1.21 on the go command fetches the toolchain that a module asks for.
GO_NEEDED = (1, 21)

# The modules of a collector ask for 1.25.0, whose linker fails on them ("relocation target … not defined").
COLLECTOR_TOOLCHAIN = "go1.26.8"

_LOCKS: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

COMPOSE = GoBinary(
    name="docker-compose",
    package="github.com/docker/compose/v2/cmd",
    version=COMPOSE_VERSION,
    ldflags=f"-s -w -X github.com/docker/compose/v2/internal.Version=v{COMPOSE_VERSION}",
    via="get",
)


def ensure(binary: GoBinary, builder: Builder) -> Path:
    """The program's path in the cache, built now if need be."""
    target = CACHE / "bin" / binary.file_name
    with _LOCKS[binary.file_name]:
        _ensure(binary, target, builder)
    return target


def _ensure(binary: GoBinary, target: Path, builder: Builder) -> None:
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        with (
            step(f"{binary.name} {binary.version} from its Go module"),
            tempfile.TemporaryDirectory(dir=CACHE) as scratch,
        ):
            built = Path(scratch) / binary.name
            # C++ comes out of the same compiler everywhere, and a host's headers need not be right for it.
            if _go_here() and not binary.cgo:
                script = _script(binary, built)
                environment = {**os.environ, "HOME": os.environ.get("HOME", scratch), "GOTOOLCHAIN": "auto"}
                run("sh", "-euc", script, env=environment, cwd=scratch, timeout=1800)
            else:
                _in_container(binary, built, builder)
            built.chmod(0o755)
            built.replace(target)


def _go_here() -> bool:
    if not shutil.which("go"):
        return False
    found = re.search(r"go(\d+)\.(\d+)", run("go", "version", check=False))
    return found is not None and (int(found[1]), int(found[2])) >= GO_NEEDED


def _script(binary: GoBinary, target: Path) -> str:
    flags, ldflags, cgo = "-buildvcs=false", binary.ldflags, 0
    if binary.tags:
        flags += f" -tags={binary.tags}"
    lines = []
    if binary.cgo:
        # Static, so that it runs beside any C library; -O1 and no -g, because the compiler takes most of the time.
        flags, ldflags, cgo = f"{flags} -tags=netgo,osusergo", f"{ldflags} -linkmode external -extldflags -static", 1
        lines.append("export CGO_CFLAGS=-O1 CGO_CXXFLAGS=-O1")
    lines.append(f"export GOFLAGS='{flags}' CGO_ENABLED={cgo} GOARCH={DEB_ARCH} GOOS=linux")
    if binary.via == "builder":
        modules = re.findall(r"- gomod: (\S+) (\S+)", binary.manifest_text())
        modules.append(("go.opentelemetry.io/collector/otelcol", f"v{binary.version}"))
        # It only writes the sources: to fetch the modules it would tidy, which asks for those of every test as well.
        lines += [
            f"export GOTOOLCHAIN={COLLECTOR_TOOLCHAIN}+auto",
            f"cat >manifest.yaml <<'END'\n{binary.manifest_text()}END",
            f"go run {binary.package}@v{binary.version} --config manifest.yaml --skip-compilation --skip-get-modules",
            "cd collector",
            "go mod init world.invalid/collector",
            f"go get {' '.join('@'.join(module) for module in modules)}",
            f"go build -mod=mod -trimpath -ldflags '{ldflags}' -o {target} .",
        ]
    elif binary.via == "get":
        # A module of our own, because `go install` refuses one whose go.mod replaces or excludes others.
        lines += [
            "go mod init world.invalid/build",
            f"go get {binary.module or binary.package}@v{binary.version}",
            f"go build -trimpath -ldflags '{ldflags}' -o {target} {binary.package}",
        ]
    else:
        lines += [
            f"GOBIN=$PWD/gobin go install -trimpath -ldflags '{ldflags}' {binary.package}@v{binary.version}",
            f"mv gobin/* {target}",
        ]
    return "\n".join(lines)


def _in_container(binary: GoBinary, target: Path, builder: Builder) -> None:
    image = builder.ensure("go-builder")
    options = _host.container_options()
    options += [
        f"--env={name}={value}" for name, value in os.environ.items() if name in ("GOPROXY", "GOSUMDB", "GONOSUMDB")
    ]
    authorities = _host.bundle()
    if authorities:
        options.append(f"--volume={authorities.resolve()}:/etc/ssl/certs/ca-certificates.crt:ro")
    script = f"mkdir /build\ncd /build\n({_script(binary, Path('/build/out'))}) >&2\ncat /build/out"
    with target.open("wb") as out:
        done = subprocess.run(
            ["docker", "run", "--rm", *options, image, "sh", "-euc", script],
            stdout=out,
            stderr=subprocess.PIPE,
            check=False,
            timeout=1800,
        )
    if done.returncode:
        tail = "\n".join(done.stderr.decode(errors="replace").splitlines()[-25:])
        raise WorldError(f"building {binary.name} {binary.version} ended with {done.returncode}:\n{tail}")
