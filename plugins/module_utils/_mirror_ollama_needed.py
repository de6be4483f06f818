# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Which archives and images of Ollama the hosts of an inventory install, now and with an upgrade to come. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._mirror_asked import Asked, digest
from ansible_collections.llmops.stack.plugins.module_utils._ollama_versions import release_info

__all__ = ["ollama_needs"]


def ollama_needs(asked: Asked) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    hosts = asked.hosts.get("ollama", [])
    for host in hosts:
        found += _install(asked, host, str(asked.value(host, "ollama_version")))
    for version in map(str, asked.settings.get("ollama_versions") or []):
        base = [
            need
            for arch in asked.settings.get("architectures") or ["amd64"]
            for need in _archives(asked, "", version, arch, ())
        ]
        found += base
        # What is no version is told once, and not for each host.
        for host in hosts if base else ():
            found += _install(asked, host, version)
        if base and not hosts:
            asked.notes.append(
                f"mirror_ollama_versions: no host says what else of {version} it needs, so the mirror holds neither "
                "its archives for AMD GPUs and Jetsons nor an image. Have the hosts in the group ollama, or name "
                "images in mirror_images."
            )
    unknown = [host for host in hosts if not asked.facts(host) and _gpu_matters(asked, host)]
    if unknown:
        # What only some GPUs need is large, and not fetched on suspicion.
        asked.notes.append(
            f"Which GPUs {', '.join(unknown)} will use is not known, because this run has not looked there: the mirror "
            "holds no archive or image of Ollama for AMD GPUs and no archive for Jetsons on their behalf. Let the run "
            "reach them, or set ollama_gpu (such as amd) and ollama_overlays (such as [jetpack6]) for them."
        )
    return found


def _install(asked: Asked, host: str, version: str) -> list[dict[str, Any]]:
    architectures = asked.architectures(host)
    if asked.value(host, "ollama_install") == "container":
        if asked.given(host, "docker_registry_mirrors"):
            return []
        amd = "-rocm" if _gpu(asked, host) == "amd" else ""
        name = f"{asked.value(host, 'ollama_image')}:{version}{amd}"
        return [{"kind": "image", "name": name, "host": host, "architectures": architectures}]
    if asked.given(host, "ollama_archive_url"):
        return []
    return [
        need for arch in architectures for need in _archives(asked, host, version, arch, _overlays(asked, host, arch))
    ]


def _archives(asked: Asked, host: str, version: str, arch: str, overlays: Iterable[str]) -> list[dict[str, Any]]:
    try:
        files = release_info(version, arch, overlays)["files"]
    except ValueError as exc:
        asked.notes.append(f"{host or 'mirror_ollama_versions'}: {exc}.")
        return []
    folder = f"github/ollama/ollama/releases/download/v{version}"
    # The files of all releases have the same names; the sums in the inventory are those of its own.
    current = bool(host) and version == str(asked.value(host, "ollama_version"))
    pinned = (asked.value(host, "ollama_checksums") or {}) if current else {}
    return [
        {
            "kind": "archive",
            "name": f"Ollama {version}, {file}",
            "host": host,
            "path": f"{folder}/{file}",
            "sha256": digest(pinned.get(file)),
            "sums": f"{folder}/sha256sum.txt",
        }
        for file in files
    ]


def _gpu(asked: Asked, host: str) -> str:
    wanted, facts = str(asked.value(host, "ollama_gpu") or "auto"), asked.facts(host)
    if wanted != "auto" or not facts:
        return wanted
    there = {gpu["vendor"] for gpu in facts.get("gpus") or [] if gpu.get("driver")}
    jetpack = (facts.get("gpu") or {}).get("jetpack")
    return "nvidia" if "nvidia" in there or jetpack else "amd" if "amd" in there else "cpu"


def _overlays(asked: Asked, host: str, arch: str) -> list[str]:
    wanted = asked.value(host, "ollama_overlays")
    if not isinstance(wanted, str):
        return [str(one) for one in wanted or []]
    if _gpu(asked, host) == "amd" and arch == "amd64":
        return ["rocm"]
    jetpack = (asked.facts(host).get("gpu") or {}).get("jetpack")
    return [f"jetpack{jetpack}"] if jetpack and arch == "arm64" else []


def _gpu_matters(asked: Asked, host: str) -> bool:
    """Whether it depends on the GPUs of the host what it fetches."""
    undecided = str(asked.value(host, "ollama_gpu") or "auto") == "auto"
    if asked.value(host, "ollama_install") == "container":
        return undecided and not asked.given(host, "docker_registry_mirrors")
    if asked.given(host, "ollama_archive_url") or not isinstance(asked.value(host, "ollama_overlays"), str):
        return False
    return undecided or "arm64" in asked.architectures(host)
