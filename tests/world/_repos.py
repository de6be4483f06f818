# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The package repositories and release downloads that the upstream serves, made once and kept in the cache."""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import _gobuild
import _host
from _build import Builder
from _engine import docker, run
from _settings import CACHE, COMPOSE_VERSION, IMAGES, MACHINE, WorldError, step, tree_hash
from _upstream import WWW

KEY = CACHE / "key.asc"
TOOL = "/usr/local/lib/repos"
COMPOSE_FILE = (
    WWW / "github/docker/compose/releases/download" / f"v{COMPOSE_VERSION}" / f"docker-compose-linux-{MACHINE}"
)
FINGERPRINT = WWW / "docker-ce" / "key.fingerprint"


def ensure(builder: Builder) -> None:
    image = builder.ensure("upstream")
    stamp = CACHE / "repos.stamp"
    made_with = f"{tree_hash(IMAGES / 'upstream' / 'repos')} {_gobuild.COMPOSE.file_name}\n"
    if stamp.is_file() and stamp.read_text() == made_with and FINGERPRINT.is_file():
        return
    compose = _gobuild.ensure(_gobuild.COMPOSE, builder)
    _ensure_key(image)
    with step("Docker's apt and dnf repositories out of Debian's engine"):
        stamp.unlink(missing_ok=True)
        _build(image, compose)
        stamp.write_text(made_with)


def _ensure_key(image: str) -> None:
    """One key per cache: a new one would make every node that knows the old one refuse the packages."""
    if not KEY.is_file():
        text = docker("run", "--rm", "--network", "none", image, "python3", TOOL, "key")
        KEY.touch(mode=0o600)
        KEY.write_text(text)


def _build(image: str, compose: Path) -> None:
    inputs = io.BytesIO()
    with tarfile.open(fileobj=inputs, mode="w") as archive:
        archive.add(KEY, "key.asc")
        archive.add(compose, "docker-compose")
    command = ["docker", "run", "--rm", "-i", *_host.container_options(), image, "python3", TOOL, "build"]
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="repos-") as scratch:
        made = Path(scratch, "www.tar")
        with made.open("wb") as out:
            done = subprocess.run(command, input=inputs.getvalue(), stdout=out, stderr=subprocess.PIPE, check=False)
        if done.returncode:
            tail = "\n".join(done.stderr.decode(errors="replace").splitlines()[-25:])
            raise WorldError(f"making the package repositories ended with {done.returncode}:\n{tail}")
        run("tar", "-C", scratch, "-xf", str(made))
        WWW.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(WWW / "docker-ce", ignore_errors=True)
        Path(scratch, "docker-ce").rename(WWW / "docker-ce")


def compose_release(builder: Builder) -> None:
    """The release binary of Compose with its checksum, where GitHub has it."""
    source = _gobuild.ensure(_gobuild.COMPOSE, builder)
    target = COMPOSE_FILE
    if target.is_file() and target.stat().st_size == source.stat().st_size:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    Path(f"{target}.sha256").write_text(f"{digest} *{target.name}\n")


def fingerprint() -> str:
    """The fingerprint of the key that signs the repositories; empty before they are made."""
    return FINGERPRINT.read_text().strip() if FINGERPRINT.is_file() else ""


def compose_checksum() -> str:
    """The checksum of the world's own Compose, which is not bit for bit the published one."""
    published = Path(f"{COMPOSE_FILE}.sha256")
    return published.read_text().split()[0] if published.is_file() else ""
