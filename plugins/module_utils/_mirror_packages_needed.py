# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Which packages of Docker, NVIDIA and the distribution the hosts of an inventory install. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ansible_collections.llmops.stack.plugins.module_utils._mirror_asked import Asked
from ansible_collections.llmops.stack.plugins.module_utils._ollama_versions import ARCHITECTURES

__all__ = ["package_needs"]

_DEBIAN = ("debian", "ubuntu")
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
_DOCKER = ["containerd.io", "docker-ce", "docker-ce-cli", "docker-compose-plugin"]
_NVIDIA = [
    "libnvidia-container-tools",
    "libnvidia-container1",
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
]
# What the roles install from the distribution itself, by what a host is to be.
_DISTRIBUTION = {
    "dify": ["python3-requests", "python3-yaml"],
    "ollama": ["nftables", "python3-requests", "zstd"],
    "gateway": ["haproxy", "nftables", "python3-requests"],
    # Its own, for the one that is filled from a bundle.
    "mirror": [
        "apt-cacher-ng",
        "docker-registry",
        "nginx",
        "python3-pip",
        "python3-requests",
        "python3-yaml",
        "skopeo",
    ],
}
# python3-apt is Ansible's own, to ask apt.
_EVERYWHERE = ["ca-certificates", "python3-apt"]
_WITH_DOCKER = ["apparmor", "iptables"]
_OF_DISTRO = ["docker-compose", "docker.io"]


class System(NamedTuple):
    base: str  # the distribution whose packages fit
    release: str  # codename of a Debian or Ubuntu, major version of the others
    arch: str

    @property
    def shown(self) -> str:
        return f"{self.base} {self.release} on {self.arch}"


def package_needs(asked: Asked) -> list[dict[str, Any]]:
    found = []
    unseen = []
    others = []
    wanted: dict[System, dict[str, set[str]]] = {}
    for host in dict.fromkeys(name for names in asked.hosts.values() for name in names):
        systems = _systems(asked, host)
        if not systems:
            unseen.append(host)
        kinds = [kind for kind, names in asked.hosts.items() if host in names]
        for system in systems:
            found += _repositories(asked, host, kinds, system)
            if system.base in _DEBIAN:
                wanted.setdefault(system, {})[host] = _packages(asked, host, kinds)
            else:
                others.append(host)
    if unseen:
        asked.notes.append(
            f"Which packages {', '.join(unseen)} will install is not known, because this run has not looked at "
            f"{'it' if len(unseen) == 1 else 'them'}. Let the run reach those hosts, or name their systems in "
            "mirror_systems, such as [debian/trixie]."
        )
    if others:
        asked.notes.append(
            f"The mirror holds no packages of the distribution for {', '.join(dict.fromkeys(others))}, such as "
            "python3-requests, because its cache is one of Debian and Ubuntu. Let those hosts reach package sources of "
            "their own."
        )
    return found + [_distribution(system, by_host) for system, by_host in wanted.items()]


def _systems(asked: Asked, host: str) -> list[System]:
    seen = asked.facts(host).get("os") or {}
    if seen.get("arch") in ARCHITECTURES:
        base = str(seen.get("base") or seen.get("distribution") or "")
        release = str(seen.get("codename") if base in _DEBIAN else seen.get("major"))
        return [System(base, release, ARCHITECTURES[seen["arch"]])]
    named = []
    for text in asked.settings.get("systems") or []:
        match = re.fullmatch(r"([a-z]+)[/ ]([a-z0-9]+)", str(text))
        if match:
            named += [System(match[1], match[2], arch) for arch in asked.architectures(host)]
        else:
            asked.notes.append(f"mirror_systems: {text!r} is no system: write distribution/release, as debian/trixie.")
    return named


def _runs_docker(asked: Asked, host: str, kinds: Iterable[str]) -> bool:
    kinds = list(kinds)
    return "dify" in kinds or ("ollama" in kinds and asked.value(host, "ollama_install") == "container")


def _repositories(asked: Asked, host: str, kinds: Iterable[str], system: System) -> list[dict[str, Any]]:
    source = str(asked.value(host, "docker_source") or "docker")
    if not _runs_docker(asked, host, kinds) or source == "none":
        return []
    found = []
    if source == "docker" and not asked.given(host, "docker_repo_url"):
        found.append(_docker(asked, host, system))
    if _nvidia_wanted(asked, host):
        found.append(_nvidia(host, system))
    return found


def _packages(asked: Asked, host: str, kinds: Iterable[str]) -> set[str]:
    wanted = {name for kind in kinds for name in _DISTRIBUTION.get(kind, ())} | set(_EVERYWHERE)
    if _runs_docker(asked, host, kinds):
        wanted.update(_WITH_DOCKER)
        wanted.update(_OF_DISTRO if asked.value(host, "docker_source") == "distro" else ())
    return wanted


def _distribution(system: System, by_host: Mapping[str, set[str]]) -> dict[str, Any]:
    """One for all hosts of a kind: what one of them has brought, others need, too."""
    return {
        "kind": "packages",
        "name": f"packages of {system.shown}",
        "host": sorted(by_host),
        "base": system.base,
        "suite": system.release,
        "architectures": [system.arch],
        "packages": sorted(set().union(*by_host.values())),
    }


def _docker(asked: Asked, host: str, system: System) -> dict[str, Any]:
    path = f"docker-ce/linux/{system.base}"
    channel = str(asked.value(host, "docker_repo_channel") or "stable")
    need: dict[str, Any] = {
        "kind": "repository",
        "name": f"Docker's packages for {system.shown}",
        "host": host,
        "path": path,
        "key": f"{path}/gpg",
        "packages": _DOCKER,
        "version": str(asked.value(host, "docker_version") or ""),
    }
    if system.base in _DEBIAN:
        return {**need, "form": "deb", "suite": system.release, "component": channel, "arch": system.arch}
    machine = _MACHINES[system.arch]
    return {**need, "form": "rpm", "path": f"{path}/{system.release}/{machine}/{channel}", "arch": machine}


def _nvidia(host: str, system: System) -> dict[str, Any]:
    need: dict[str, Any] = {
        "kind": "repository",
        "name": f"NVIDIA's container toolkit for {system.arch}",
        "host": host,
        "key": "libnvidia-container/gpgkey",
        "packages": _NVIDIA,
        "version": "",
    }
    root = "libnvidia-container/stable"
    if system.base in _DEBIAN:
        return {
            **need,
            "form": "deb",
            "path": f"{root}/deb/{system.arch}",
            "suite": "/",
            "component": "",
            "arch": system.arch,
        }
    machine = _MACHINES[system.arch]
    return {**need, "form": "rpm", "path": f"{root}/rpm/{machine}", "arch": machine}


def _nvidia_wanted(asked: Asked, host: str) -> bool:
    wanted = str(asked.value(host, "docker_nvidia")).lower()
    if asked.given(host, "docker_nvidia_repo_url") or wanted not in ("true", "auto"):
        return False
    if wanted == "true":
        return True
    facts = asked.facts(host)
    if not facts:
        # Some megabytes, without which a host that has one cannot use it.
        return str(asked.value(host, "ollama_gpu") or "auto") in ("nvidia", "auto")
    return any(gpu.get("vendor") == "nvidia" and gpu.get("driver") == "nvidia" for gpu in facts.get("gpus") or [])
