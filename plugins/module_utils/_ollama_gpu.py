# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Whether Ollama computes where it was told to, and if not, why.

Ollama falls back to the CPU without an error: the model answers, ten to fifty times slower. Pure: facts about the host,
what the server logged when it started and what it has loaded go in, a verdict with sentences comes out. Causes come in
the order in which they should be tried: what the log proves, then what the host shows, then what is merely usual.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._ollama_versions import oldest_driver

__all__ = ["DECIDED", "WANTED", "verdict"]

WANTED = ("auto", "nvidia", "amd", "cpu")
DECIDED = ("nvidia", "amd", "vulkan", "cpu", "unknown")
_LIBRARIES = {"cuda": "nvidia", "rocm": "amd", "hip": "amd", "vulkan": "vulkan", "cpu": "cpu"}
_NAMES = {"nvidia": "an NVIDIA GPU", "amd": "an AMD GPU", "vulkan": "a GPU through Vulkan", "cpu": "the CPU"}
# Settings with which somebody has switched a GPU off or picked another backend.
_HIDING = {
    "nvidia": ("CUDA_VISIBLE_DEVICES",),
    "amd": ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL"),
}
_UNIT = "systemctl restart ollama"


def verdict(
    wanted: str,
    gpus: Sequence[Mapping[str, Any]],
    gpu: Mapping[str, Any],
    compute: Sequence[Mapping[str, Any]],
    models: Sequence[Mapping[str, Any]],
    evidence: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What was wanted, what Ollama decided, whether that is right, and why not.

    Args:
        wanted: C(auto), C(nvidia), C(amd) or C(cpu).
        gpus: C(gpus) of M(llmops.stack.stack_facts).
        gpu: C(gpu) of M(llmops.stack.stack_facts).
        compute: The devices that the server logged; none where its log is not to be had.
        models: Each with C(name), C(loaded), C(size_vram) and C(size_memory).
        evidence: C(remarks) and C(settings) of the log, C(version) of the server, C(user) it runs as, C(denied) (device
            nodes which that user cannot open), C(hidden) (nodes that are not in its own /dev), C(libraries) (folders
            beside the program, None where not known), C(container), and for one C(devices) (it was given a GPU),
            C(toolkit) (the engine has NVIDIA's runtime), C(smi) (what nvidia-smi says in it, C(rc) and C(error)),
            C(rocm_image).

    Returns:
        C(wanted), C(decided), C(ok), C(fallback) and C(causes).
    """
    evidence = evidence or {}
    loaded = [one for one in models if one.get("loaded")]
    decided = _decided(compute, loaded, {str(one.get("vendor")) for one in gpus} & {"nvidia", "amd"})
    lost = decided in ("nvidia", "amd", "vulkan") and bool(loaded) and not any(_share(one) for one in loaded)
    present = _present(wanted, gpus)
    if lost:
        decided = "cpu"
    found: dict[str, Any] = {"wanted": wanted, "decided": decided, "ok": True, "fallback": False, "causes": []}
    if wanted == "cpu":
        if decided in ("nvidia", "amd", "vulkan"):
            found["ok"] = False
            found["causes"] = [
                f"Ollama computes on {_NAMES[decided]} although the CPU alone was asked for: the setting that hides "
                f"GPUs reached no running server yet. Restart it: {_UNIT}."
            ]
        return found
    if decided == "cpu":
        vendor = wanted if wanted in ("nvidia", "amd") else present
        dropped = wanted == "auto" and any(one.get("kind") == "dropped_igpu" for one in evidence.get("remarks", ()))
        found["fallback"] = bool(vendor) and not dropped
        found["ok"] = wanted == "auto"
        found["causes"] = list(_causes(vendor, gpus, gpu, lost, loaded, evidence)) if vendor else []
    elif decided == "unknown":
        if present or wanted != "auto":
            vendor = wanted if wanted != "auto" else present
            causes = list(_host_causes(vendor, gpus, gpu, evidence))
            found["ok"] = wanted == "auto" or not causes
            found["causes"] = [
                "Where Ollama computes cannot be told: the log of its start is not to be had and no loaded model shows "
                f"it. Load a model, or restart the server: {_UNIT}.",
                *causes,
            ]
    else:
        found["causes"] = list(_imperfect(wanted, decided, loaded))
        found["ok"] = wanted == "auto" or decided in (wanted, "vulkan")
    return found


def _decided(compute: Sequence[Mapping[str, Any]], loaded: Sequence[Mapping[str, Any]], vendors: set[str]) -> str:
    kinds = [_LIBRARIES.get(str(one.get("library", "")).lower().partition("_")[0], "unknown") for one in compute]
    for kind in ("nvidia", "amd", "vulkan", "cpu"):
        if kind in kinds:
            return kind
    # Without the log, what is loaded says whether a GPU is used, and the host which one, where it has but one kind.
    if loaded and not any(_share(one) for one in loaded):
        return "cpu"
    return next(iter(vendors)) if loaded and len(vendors) == 1 else "unknown"


def _share(model: Mapping[str, Any]) -> float:
    size = float(model.get("size_memory") or 0)
    return min(1.0, float(model.get("size_vram") or 0) / size) if size else 0.0


def _present(wanted: str, gpus: Sequence[Mapping[str, Any]]) -> str:
    """The vendor of a card that could compute; NVIDIA first, as Ollama does."""
    vendors = {str(one.get("vendor")) for one in gpus}
    if wanted in vendors:
        return wanted
    return next((vendor for vendor in ("nvidia", "amd") if vendor in vendors), "")


def _imperfect(wanted: str, decided: str, loaded: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Remarks about a GPU that is used."""
    if wanted in ("nvidia", "amd") and decided == "vulkan":
        own = {"nvidia": "CUDA", "amd": "ROCm"}[wanted]
        yield (
            f"Ollama uses the GPU through Vulkan and not through {own}, which is slower: the {own} libraries are "
            "missing or do not fit the driver. Look for warnings at the start of its log."
        )
    elif wanted in ("nvidia", "amd") and decided != wanted:
        yield (
            f"Ollama computes on {_NAMES[decided]} and not on {_NAMES[wanted]}. Set ollama_gpu to {decided}, or hide "
            "the other card with ollama_visible_devices."
        )
    for model in loaded:
        share = _share(model)
        if share >= 0.995:
            continue
        memory, vram = float(model.get("size_memory") or 0), float(model.get("size_vram") or 0)
        yield (
            f"{model.get('name')} is only {share * 100:.0f}% on the GPU ({_gb(vram)} of {_gb(memory)}), the CPU "
            "computes the rest and sets the pace. Lower ollama_context_length or ollama_num_parallel, unload other "
            "models, or take a smaller quantization."
        )


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.0f} MB"


def _causes(
    vendor: str,
    gpus: Sequence[Mapping[str, Any]],
    gpu: Mapping[str, Any],
    lost: bool,
    loaded: Sequence[Mapping[str, Any]],
    evidence: Mapping[str, Any],
) -> Iterator[str]:
    said = [*_log_causes(vendor, evidence), *_host_causes(vendor, gpus, gpu, evidence)]
    if lost:
        names = ", ".join(str(one.get("name")) for one in loaded)
        yield (
            f"Ollama found the GPU when it started, but nothing of {names} is on it now: the card went away since (a "
            f"driver update, a suspend), is full, or the model was loaded with num_gpu 0. Unload it, then {_UNIT}."
        )
    yield from said
    if not said and not lost:
        if evidence.get("container"):
            yield (
                "Nothing on the host explains it; the container may have been started before the driver was ready. "
                "Recreate it and read the start of its log."
            )
        else:
            yield (
                "Nothing on the host explains it any more; the server probably started before the driver was ready, or "
                f"lost the card in a suspend. Restart it ({_UNIT}) and, if that does not help, set ollama_debug: 1 and "
                "read the start of its log."
            )


def _log_causes(vendor: str, evidence: Mapping[str, Any]) -> Iterator[str]:
    """What the server itself says or was told."""
    settings = evidence.get("settings", {})
    for name in _HIDING[vendor]:
        value = str(settings.get(name, ""))
        if value.startswith("-1"):
            yield f"{name}={value} hides the GPU from Ollama. Take it out of the server's environment and restart it."
    library = str(settings.get("OLLAMA_LLM_LIBRARY", ""))
    if library.startswith("cpu"):
        yield f"OLLAMA_LLM_LIBRARY={library} forces the CPU. Clear ollama_llm_library and restart the server."
    for remark in evidence.get("remarks", ()):
        kind, detail = str(remark.get("kind")), str(remark.get("detail"))
        if kind == "driver_too_old":
            yield f"The driver is too old for this Ollama ({detail}). Update it and reboot."
        elif kind == "dropped_rocm" and vendor == "amd":
            yield (
                f"ROCm does not support this card ({detail}). Set HSA_OVERRIDE_GFX_VERSION in ollama_env to a "
                "supported one of its family, if there is one."
            )
        elif kind == "dropped_igpu":
            yield (
                f"Ollama leaves integrated GPUs aside ({detail}). Set OLLAMA_IGPU_ENABLE: '1' in ollama_env to use it."
            )
        elif kind == "capability" and vendor == "nvidia":
            yield (
                f"The card's compute capability is too low for this Ollama ({detail}). It needs 5.0 or more: use the "
                "CPU, or an older release."
            )
        elif kind == "timeout":
            yield (
                f"The look at the GPU did not end in time ({detail}), which an outdated AMD driver or a hanging card "
                "causes. Update the driver, look into dmesg, and reboot."
            )


def _host_causes(
    vendor: str, gpus: Sequence[Mapping[str, Any]], gpu: Mapping[str, Any], evidence: Mapping[str, Any]
) -> Iterator[str]:
    """What is wrong with the host, or with the container, as far as facts show it."""
    cards = [one for one in gpus if one.get("vendor") == vendor]
    if not cards:
        maker = {"nvidia": "NVIDIA", "amd": "AMD"}[vendor]
        yield (
            f"There is no {maker} card on this host's buses and no device node of one. Check that it is seated and, in "
            "a virtual machine, passed through; or set ollama_gpu: auto."
        )
        return
    yield from _nvidia(cards, gpu, evidence) if vendor == "nvidia" else _amd(cards, gpu)
    denied = [str(one) for one in evidence.get("denied", ())]
    if denied:
        user = str(evidence.get("user") or "ollama")
        yield (
            f"User {user} may not open {', '.join(denied)}. Put it into the groups render and video "
            f"(usermod -aG render,video {user}) and restart the server."
        )
    hidden = [str(one) for one in evidence.get("hidden", ())]
    if hidden:
        yield (
            f"The unit's sandbox hides {', '.join(hidden)} from the server. Remove PrivateDevices= and DevicePolicy= "
            "from its drop-ins, then systemctl daemon-reload and restart it."
        )
    yield from _libraries(vendor, evidence)
    if evidence.get("container"):
        yield from _container(vendor, evidence)


def _nvidia(cards: Sequence[Mapping[str, Any]], gpu: Mapping[str, Any], evidence: Mapping[str, Any]) -> Iterator[str]:
    smi = gpu.get("nvidia_smi") or {}
    error = str(smi.get("error") or "")
    loaded = str(gpu.get("nvidia_driver") or "")
    drivers = {str(one.get("driver") or "") for one in cards}
    if "version mismatch" in error.lower():
        yield (
            f"The kernel runs another NVIDIA driver than the libraries belong to ({error}), as after an update without "
            "a reboot. Reboot the host."
        )
    elif not loaded and "nouveau" in drivers:
        yield (
            "The card is held by the driver nouveau, with which nothing can compute. Install NVIDIA's own driver and "
            "reboot."
        )
    elif not loaded and not gpu.get("jetpack"):
        hint = f" (nvidia-smi says: {error})" if error else ""
        yield (
            f"No NVIDIA driver is loaded{hint}. Install one (package cuda-drivers or nvidia-driver) and reboot; if it "
            "is installed, its module was not built for this kernel (dkms status) or Secure Boot refuses it."
        )
    elif smi.get("found") and smi.get("rc"):
        yield (
            f"nvidia-smi fails with code {smi['rc']} ({error or 'it says nothing'}). Look into dmesg for NVRM and Xid "
            "lines; a reboot often helps, a card that has fallen off the bus needs one."
        )
    if loaded and not gpu.get("uvm") and not gpu.get("jetpack"):
        yield (
            "/dev/nvidia-uvm is missing, without which CUDA finds no card. Load it (modprobe nvidia_uvm; "
            "nvidia-modprobe -u -c 0), have it loaded at boot (/etc/modules-load.d), and restart the server."
        )
    version = next((str(one["driver_version"]) for one in cards if one.get("driver_version")), loaded)
    least = oldest_driver(str(evidence.get("version") or ""))
    major = re.match(r"\d+", version)
    if major and int(major.group()) < least:
        yield f"The NVIDIA driver is {version} and Ollama needs {least} or newer. Update it and reboot."


def _amd(cards: Sequence[Mapping[str, Any]], gpu: Mapping[str, Any]) -> Iterator[str]:
    drivers = {str(one.get("driver") or "") for one in cards}
    if not gpu.get("kfd"):
        if "amdgpu" in drivers:
            yield (
                "/dev/kfd is missing although amdgpu is loaded: its part for computing did not start. Look into dmesg "
                "for kfd lines; update kernel or driver."
            )
        else:
            yield "No amdgpu driver is loaded. Load it (modprobe amdgpu), or install AMD's driver, and reboot."


def _libraries(vendor: str, evidence: Mapping[str, Any]) -> Iterator[str]:
    libraries = evidence.get("libraries")
    if libraries is None:
        return
    if vendor == "amd" and not any(str(one).startswith("rocm") for one in libraries):
        if not evidence.get("container"):
            yield (
                "The ROCm libraries are not beside the program: the archive ollama-linux-amd64-rocm was not unpacked "
                "over the base one. Set ollama_overlays: [rocm] (or auto) and run the role again."
            )
    elif vendor == "nvidia" and not any(str(one).startswith("cuda") for one in libraries):
        yield (
            "The CUDA libraries are not beside the program, so the archive was not unpacked completely or belongs to "
            "another platform. Remove the release's directory and run the role again."
        )


def _container(vendor: str, evidence: Mapping[str, Any]) -> Iterator[str]:
    smi = evidence.get("smi") or {}
    if vendor == "nvidia":
        if not evidence.get("toolkit", True):
            yield (
                "The engine does not know NVIDIA's runtime: nvidia-container-toolkit is missing or not configured. Run "
                "the role llmops.stack.docker, which installs it, and recreate the container."
            )
        if not evidence.get("devices", True):
            yield "The container was started without a GPU. Run the role again, so that it is recreated with one."
        elif smi.get("rc"):
            yield (
                f"The container had the GPU and has lost it ({smi.get('error') or 'nvidia-smi fails in it'}), as a "
                "systemctl daemon-reload does with the systemd cgroup driver. Restart the container; to keep it from "
                'happening again, give dockerd "exec-opts": ["native.cgroupdriver=cgroupfs"] or use CDI.'
            )
        return
    if not evidence.get("devices", True):
        yield (
            "The container was started without /dev/kfd and /dev/dri. Run the role again, so that it is recreated with "
            "them."
        )
    if evidence.get("rocm_image") is False:
        yield "The container's image has no ROCm libraries. Take the tag that ends in -rocm."
