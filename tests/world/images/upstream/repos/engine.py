# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian's engine of one codename, sorted into the packages that Docker itself ships."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

PLUGINS = "usr/libexec/docker/cli-plugins"
UNITS = "usr/lib/systemd/system"
# bookworm has no buildx; trixie's needs no newer C library than bookworm has.
BUILDX_FROM = "trixie"


@dataclass
class Package:
    """What deb and rpm have in common: the files, and the version that Docker would call it."""

    name: str
    version: str
    summary: str
    root: Path
    libraries: list[str] = field(default_factory=list)  # Debian's dependencies on libraries, as Debian writes them

    def add(self, source: Path, target: str) -> None:
        to = self.root / target
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, to)
        to.chmod(0o755 if "/bin/" in f"/{target}" or "cli-plugins" in target else 0o644)


def packages(codename: str, work: Path, compose: Path) -> list[Package]:
    apt = _Apt(codename, work / "apt")
    parts = ["docker.io", "containerd", "runc", "tini", *(["docker-cli"] if codename == "trixie" else [])]
    debian = {name: apt.unpack(name) for name in parts}
    buildx_apt = apt if codename == BUILDX_FROM else _Apt(BUILDX_FROM, work / "apt-buildx")
    buildx = buildx_apt.unpack("docker-buildx")
    engine, runtime = debian["docker.io"], debian["containerd"]
    cli = debian.get("docker-cli", engine)

    containerd_io = _package("containerd.io", runtime, "An open and reliable container runtime", work)
    for program in sorted((runtime.root / "usr/bin").iterdir()):
        containerd_io.add(program, f"usr/bin/{program.name}")
    containerd_io.add(debian["runc"].root / "usr/sbin/runc", "usr/bin/runc")
    containerd_io.add(runtime.unit("containerd.service"), f"{UNITS}/containerd.service")
    containerd_io.add(runtime.root / "etc/containerd/config.toml", "etc/containerd/config.toml")
    containerd_io.libraries += debian["runc"].libraries

    docker_ce = _package("docker-ce", engine, "Docker: the open-source application container engine", work)
    for name in ("dockerd", "docker-proxy"):
        docker_ce.add(engine.root / "usr/sbin" / name, f"usr/bin/{name}")
    docker_ce.add(debian["tini"].root / "usr/bin/tini-static", "usr/bin/docker-init")
    docker_ce.add(engine.unit("docker.socket"), f"{UNITS}/docker.socket")
    docker_ce.add(engine.unit("docker.service"), f"{UNITS}/docker.service")
    _as_docker_ships(docker_ce.root / UNITS / "docker.service")

    docker_cli = _package("docker-ce-cli", cli, "Docker CLI: the open-source application container engine", work)
    docker_cli.add(cli.root / "usr/bin/docker", "usr/bin/docker")

    buildx_plugin = _package("docker-buildx-plugin", buildx, "Docker Buildx plugin for the Docker CLI", work)
    buildx_plugin.add(next(buildx.root.rglob("cli-plugins/docker-buildx")), f"{PLUGINS}/docker-buildx")

    version = subprocess.run([compose, "version", "--short"], capture_output=True, text=True, check=True).stdout.strip()
    compose_plugin = Package(
        "docker-compose-plugin",
        version.lstrip("v"),
        "Docker Compose plugin for the Docker CLI",
        work / "docker-compose-plugin",
    )
    compose_plugin.add(compose, f"{PLUGINS}/docker-compose")
    return [containerd_io, docker_ce, docker_cli, buildx_plugin, compose_plugin]


@dataclass
class _Unpacked:
    root: Path
    version: str
    libraries: list[str]

    def unit(self, name: str) -> Path:
        return next(path for path in self.root.rglob(name) if "systemd" in path.parts)


def _package(name: str, source: _Unpacked, summary: str, work: Path) -> Package:
    return Package(name, source.version, summary, work / name, list(source.libraries))


def _as_docker_ships(unit: Path) -> None:
    """Debian's unit starts /usr/sbin/dockerd with options of /etc/default/docker; Docker's does neither."""
    text = unit.read_text().replace("/usr/sbin/dockerd", "/usr/bin/dockerd").replace(" $DOCKER_OPTS", "")
    unit.write_text(re.sub(r"^EnvironmentFile=.*\n", "", text, flags=re.MULTILINE))


class _Apt:
    """apt for one codename, beside the one that this container itself uses."""

    def __init__(self, codename: str, folder: Path) -> None:
        self._folder = folder
        for part in ("state/lists/partial", "cache/archives/partial", "debs"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        first = next(line for line in Path("/etc/apt/sources.list").read_text().splitlines() if line.startswith("deb "))
        sources = folder / "sources.list"
        sources.write_text(re.sub(r"\bbookworm\b", codename, first) + "\n")
        self._options = [
            f"--option=Dir::Etc::SourceList={sources}",
            "--option=Dir::Etc::SourceParts=/dev/null",
            f"--option=Dir::State={folder / 'state'}",
            f"--option=Dir::Cache={folder / 'cache'}",
            "--option=APT::Sandbox::User=root",
            "--quiet=2",
        ]
        self._run("update")

    def _run(self, *command: str) -> None:
        subprocess.run(["apt-get", *self._options, *command], cwd=self._folder / "debs", stdout=2, check=True)

    def unpack(self, name: str) -> _Unpacked:
        self._run("download", name)
        archive = next((self._folder / "debs").glob(f"{name}_*.deb"))
        root = self._folder / name
        subprocess.run(["dpkg-deb", "--extract", archive, root], check=True)
        version, depends = (
            subprocess.run(
                ["dpkg-deb", "--field", archive, key], capture_output=True, text=True, check=True
            ).stdout.strip()
            for key in ("Version", "Depends")
        )
        libraries = [entry for entry in re.split(r",\s*", depends) if entry.startswith("lib")]
        return _Unpacked(root, re.split(r"[+~-]", version.split(":")[-1])[0], libraries)
