# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Why Ollama would compute on the CPU although the host has a GPU, or is said to have one, as sentences."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._ollama_versions import oldest_driver

__all__ = ["obstacles", "refusals", "warnings"]

_CHOICES = ("auto", "nvidia", "amd", "cpu")


def refusals(facts: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Where a GPU was asked for by name, whatever keeps Ollama from using it."""
    gpu = str(wanted.get("gpu") or "auto")
    if gpu not in _CHOICES:
        return [f"ollama_gpu is {gpu!r}. Write one of {', '.join(_CHOICES)}."]
    if gpu not in ("nvidia", "amd"):
        return []
    return [f"ollama_gpu is {gpu}, and {one}" for one in obstacles(facts, wanted, gpu)]


def warnings(facts: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """With auto the CPU is allowed; that a GPU lies idle is said all the same."""
    if str(wanted.get("gpu") or "auto") != "auto":
        return []
    vendors = sorted({str(gpu.get("vendor")) for gpu in facts.get("gpus", [])})
    return [
        f"Ollama will not use the GPU that is here ({vendor}): {one}"
        for vendor in vendors
        for one in obstacles(facts, wanted, vendor)
    ]


def obstacles(facts: Mapping[str, Any], wanted: Mapping[str, Any], vendor: str) -> list[str]:
    """Ends of sentences, the cause before its effects; only the first cause that explains the others is given."""
    cards = [gpu for gpu in facts.get("gpus", []) if gpu.get("vendor") == vendor]
    if vendor == "nvidia" and facts.get("gpu", {}).get("jetpack"):  # on a Jetson it is on no bus, its driver in JetPack
        return []
    if not cards:
        return [f"the host has no GPU of {_name(vendor)}. Set ollama_gpu: auto or cpu for this host."]
    found = _nvidia(facts, wanted, cards) if vendor == "nvidia" else _amd(facts, wanted, cards)
    if wanted.get("install") == "container" and vendor == "nvidia" and wanted.get("engine_expected", True):
        found += _toolkit(facts)
    return found


def _name(vendor: str) -> str:
    return {"nvidia": "NVIDIA", "amd": "AMD"}.get(vendor, vendor)


def _nvidia(facts: Mapping[str, Any], wanted: Mapping[str, Any], cards: list[Mapping[str, Any]]) -> list[str]:
    gpu = facts.get("gpu", {})
    smi = gpu.get("nvidia_smi", {})
    drivers = {str(card.get("driver") or "") for card in cards}
    if "nvidia" not in drivers or not (gpu.get("nvidia_driver") or smi.get("rc") == 0):
        loaded = ", ".join(sorted(drivers - {""})) or "none"
        return [
            f"the driver of NVIDIA is not loaded (the kernel has bound: {loaded}). Install it, and reboot so that it "
            "replaces what is bound."
        ]
    if smi.get("found") and smi.get("rc"):
        error = str(smi.get("error") or f"rc {smi['rc']}").rstrip(".")
        if "mismatch" in error.lower():
            return [
                f"nvidia-smi says: {error}. The driver was updated while the old one ({gpu.get('nvidia_driver')}) is "
                "still loaded. Reboot the host."
            ]
        return [f"nvidia-smi fails: {error}. Mend the driver first."]
    if not gpu.get("uvm"):
        return [
            "the device /dev/nvidia-uvm is missing, without which CUDA does not start. Load its module (modprobe "
            "nvidia-uvm && nvidia-modprobe -u), and name it in /etc/modules-load.d so that it is there after a boot."
        ]
    return _old_driver(wanted, str(gpu.get("nvidia_driver") or next((c["driver_version"] for c in cards), "")))


def _old_driver(wanted: Mapping[str, Any], driver: str) -> list[str]:
    number, least = re.match(r"\d+", driver), oldest_driver(str(wanted.get("version")))
    if not number or int(number.group(0)) >= least:
        return []
    return [f"its driver {driver} is older than {least}, which Ollama {wanted.get('version')} needs. Update it."]


def _amd(facts: Mapping[str, Any], wanted: Mapping[str, Any], cards: list[Mapping[str, Any]]) -> list[str]:
    gpu = facts.get("gpu", {})
    if all(card.get("driver") != "amdgpu" for card in cards):
        loaded = ", ".join(sorted({str(card.get("driver")) for card in cards if card.get("driver")})) or "none"
        return [f"the driver amdgpu is not loaded (the kernel has bound: {loaded}). Load it (modprobe amdgpu)."]
    if not gpu.get("kfd"):
        return [
            "the device /dev/kfd is missing, through which ROCm computes. Install the driver of AMD's ROCm, or a "
            "kernel with CONFIG_HSA_AMD."
        ]
    if not gpu.get("kfd_nodes", 1):
        return [
            "the half of its driver that ROCm uses knows no GPU (/sys/class/kfd). This GPU may be too old for ROCm, or "
            "the driver is older than the kernel; dmesg says which."
        ]
    if int(gpu.get("render_group", -1)) < 0:
        return [
            "the group render is missing, which lets a service use /dev/kfd. Make it (groupadd --system render), and "
            "reboot so that the devices get it."
        ]
    return []


def _toolkit(facts: Mapping[str, Any]) -> list[str]:
    engine = facts.get("engine", {})
    known = "nvidia" in engine.get("runtimes", []) or "nvidia-container-toolkit" in engine.get("packages", {})
    if known or not engine.get("running"):
        return []
    return [
        "the engine cannot hand it to a container: the NVIDIA Container Toolkit is not installed. Run the role "
        "llmops.stack.docker with docker_nvidia: true."
    ]
