# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether Ollama computes where it should, and the causes where it does not."""

from __future__ import annotations

from typing import Any

import hypothesis
import pytest
from ansible_collections.llmops.stack.plugins.module_utils._ollama_gpu import DECIDED, WANTED, verdict
from hypothesis import strategies

NVIDIA = {
    "vendor": "nvidia", "pci": "0000:01:00.0", "device": "0x2b85", "driver": "nvidia", "nodes": ["/dev/nvidia0"],
    "name": "NVIDIA GeForce RTX 5090", "uuid": "GPU-0", "memory_mb": 32607, "driver_version": "575.57.08",
}  # fmt: skip
AMD = {
    "vendor": "amd", "pci": "0000:03:00.0", "device": "0x744c", "driver": "amdgpu", "nodes": ["/dev/kfd"], "name": "",
    "uuid": "", "memory_mb": 24560, "driver_version": "",
}  # fmt: skip
GPU = {
    "nvidia_smi": {"found": True, "rc": 0, "error": ""}, "nvidia_driver": "575.57.08", "uvm": True, "kfd": True,
    "render_group": 105, "jetpack": "",
}  # fmt: skip
CPU = [{"library": "cpu"}]
CUDA = [{"library": "CUDA"}]
ROCM = [{"library": "ROCm"}]
VULKAN = [{"library": "Vulkan"}]
WHOLE = {"libraries": ["cuda_v12", "cuda_v13", "libggml-base.so", "rocm_v7"], "version": "0.32.15"}


def judge(
    wanted: str = "auto",
    gpus: Any = (NVIDIA,),
    gpu: dict[str, Any] | None = None,
    compute: Any = CPU,
    models: Any = (),
    **evidence: Any,
) -> dict[str, Any]:
    return verdict(wanted, gpus, {**GPU, **(gpu or {})}, compute, models, {**WHOLE, **evidence})


def loaded(vram: float, memory: float = 8e9, name: str = "m:1b") -> dict[str, Any]:
    return {"name": name, "loaded": True, "size_vram": vram, "size_memory": memory}


@pytest.mark.parametrize(
    ("wanted", "gpus", "compute", "decided", "ok", "fallback"),
    [
        ("auto", [], CPU, "cpu", True, False),
        ("cpu", [], CPU, "cpu", True, False),
        ("cpu", [NVIDIA], CPU, "cpu", True, False),
        ("cpu", [NVIDIA], CUDA, "nvidia", False, False),
        ("auto", [NVIDIA], CUDA, "nvidia", True, False),
        ("nvidia", [NVIDIA], CUDA, "nvidia", True, False),
        ("nvidia", [NVIDIA], [{"library": "cuda"}], "nvidia", True, False),
        ("nvidia", [NVIDIA], CPU, "cpu", False, True),
        ("nvidia", [], CPU, "cpu", False, True),
        ("auto", [NVIDIA], CPU, "cpu", True, True),
        ("amd", [AMD], ROCM, "amd", True, False),
        ("amd", [AMD], CPU, "cpu", False, True),
        ("amd", [AMD, NVIDIA], CUDA, "nvidia", False, False),
        ("nvidia", [NVIDIA], VULKAN, "vulkan", True, False),
        ("auto", [AMD], VULKAN, "vulkan", True, False),
        ("auto", [], [], "unknown", True, False),
        ("nvidia", [NVIDIA], [], "unknown", True, False),
    ],
)
def test_verdicts(wanted: str, gpus: Any, compute: Any, decided: str, ok: bool, fallback: bool) -> None:
    found = judge(wanted, gpus, compute=compute)
    assert (found["wanted"], found["decided"], found["ok"], found["fallback"]) == (wanted, decided, ok, fallback)
    assert bool(found["causes"]) == (not ok or fallback or (decided in ("unknown", "vulkan") and wanted != "auto"))


@pytest.mark.parametrize(
    ("text", "change"),
    [
        ("Reboot the host", {"gpu": {"nvidia_smi": {"rc": 18, "error": "Driver/library version mismatch"}}}),
        ("modprobe nvidia_uvm", {"gpu": {"uvm": False}}),
        ("No NVIDIA driver is loaded", {"gpu": {"nvidia_driver": "", "nvidia_smi": {}, "uvm": False}}),
        ("nouveau", {"gpu": {"nvidia_driver": "", "nvidia_smi": {}}, "gpus": [{**NVIDIA, "driver": "nouveau"}]}),
        ("fallen off the bus", {"gpu": {"nvidia_smi": {"found": True, "rc": 9, "error": "No devices were found"}}}),
        ("needs 550", {"gpus": [{**NVIDIA, "driver_version": "535.1"}], "gpu": {"nvidia_driver": "535.1"}}),
        ("usermod -aG render,video ollama", {"denied": ["/dev/nvidia0"], "user": "ollama"}),
        ("sandbox hides /dev/nvidia0", {"hidden": ["/dev/nvidia0"]}),
        ("CUDA libraries are not beside", {"libraries": ["libggml-base.so"]}),
        ("CUDA_VISIBLE_DEVICES=-1 hides", {"settings": {"CUDA_VISIBLE_DEVICES": "-1"}}),
        ("OLLAMA_LLM_LIBRARY=cpu_avx2 forces", {"settings": {"OLLAMA_LLM_LIBRARY": "cpu_avx2"}}),
        ("driver is too old for this Ollama", {"remarks": [{"kind": "driver_too_old", "detail": "too old"}]}),
        ("did not end in time", {"remarks": [{"kind": "timeout", "detail": "watchdog timed out"}]}),
        ("nvidia-container-toolkit", {"container": True, "toolkit": False}),
        ("started without a GPU", {"container": True, "toolkit": True, "devices": False}),
        ("daemon-reload", {"container": True, "devices": True, "smi": {"rc": 255, "error": "Unknown Error"}}),
        ("before the driver was ready, or", {}),
        ("container may have been started before", {"container": True, "devices": True}),
    ],
)  # fmt: skip
def test_causes_of_a_silent_cpu_with_nvidia(text: str, change: dict[str, Any]) -> None:
    found = judge("nvidia", **change)
    assert not found["ok"]
    assert text in found["causes"][0]


@pytest.mark.parametrize(
    ("text", "change"),
    [
        ("No amdgpu driver", {"gpu": {"kfd": False}, "gpus": [{**AMD, "driver": ""}]}),
        ("/dev/kfd is missing", {"gpu": {"kfd": False}}),
        ("ollama_overlays: [rocm]", {"libraries": ["cuda_v12"]}),
        ("usermod -aG render,video ollama", {"denied": ["/dev/kfd", "/dev/dri/renderD128"]}),
        ("HSA_OVERRIDE_GFX_VERSION", {"remarks": [{"kind": "dropped_rocm", "detail": "dropping ROCm device"}]}),
        ("HIP_VISIBLE_DEVICES=-1 hides", {"settings": {"HIP_VISIBLE_DEVICES": "-1"}}),
        ("without /dev/kfd and /dev/dri", {"container": True, "devices": False, "rocm_image": True}),
        ("ends in -rocm", {"container": True, "devices": True, "rocm_image": False, "libraries": None}),
    ],
)
def test_causes_of_a_silent_cpu_with_amd(text: str, change: dict[str, Any]) -> None:
    found = judge("amd", **{"gpus": [AMD], **change})
    assert not found["ok"]
    assert text in found["causes"][0]


def test_what_the_log_proves_comes_before_what_the_host_shows() -> None:
    causes = judge("nvidia", gpu={"uvm": False}, settings={"CUDA_VISIBLE_DEVICES": "-1"})["causes"]
    assert [("hides the GPU" in one, "nvidia_uvm" in one) for one in causes] == [(True, False), (False, True)]


def test_a_card_that_is_not_there() -> None:
    assert "no NVIDIA card" in judge("nvidia", [AMD])["causes"][0]


@pytest.mark.parametrize(
    ("version", "driver", "old"),
    [("0.17.4", "540.1", False), ("0.17.4", "525.1", True), ("0.30.0", "540.1", True), ("0.30.0", "550.1", False)],
)
def test_which_driver_is_too_old_depends_on_the_release(version: str, driver: str, old: bool) -> None:
    causes = judge("nvidia", [{**NVIDIA, "driver_version": driver}], version=version)["causes"]
    assert any("needs 5" in one for one in causes) == old


def test_an_integrated_gpu_that_ollama_leaves_aside_is_no_fallback() -> None:
    found = judge(gpus=[AMD], remarks=[{"kind": "dropped_igpu", "detail": "dropping integrated GPU"}])
    assert (found["ok"], found["fallback"]) == (True, False)
    assert "OLLAMA_IGPU_ENABLE" in found["causes"][0]


class TestLoadedModels:
    def test_a_part_on_the_cpu_is_told_with_figures(self) -> None:
        found = judge("nvidia", compute=CUDA, models=[loaded(5e9), loaded(8e9, name="whole")])
        assert found["ok"]
        (cause,) = found["causes"]
        assert cause.startswith("m:1b is only 62% on the GPU (5.0 GB of 8.0 GB)")

    def test_a_gpu_that_went_away_after_the_start(self) -> None:
        found = judge("nvidia", compute=CUDA, models=[loaded(0)])
        assert (found["decided"], found["ok"], found["fallback"]) == ("cpu", False, True)
        assert "found the GPU when it started" in found["causes"][0]

    def test_without_a_log_what_is_loaded_decides(self) -> None:
        assert judge("nvidia", compute=[], models=[loaded(8e9)])["decided"] == "nvidia"
        assert judge("amd", [AMD], compute=[], models=[loaded(8e9)])["decided"] == "amd"
        assert judge("nvidia", compute=[], models=[loaded(0)])["decided"] == "cpu"
        assert judge("nvidia", [AMD, NVIDIA], compute=[], models=[loaded(8e9)])["decided"] == "unknown"

    def test_what_is_not_loaded_says_nothing(self) -> None:
        idle = {**loaded(0), "loaded": False}
        assert judge("nvidia", compute=CUDA, models=[idle]) == judge("nvidia", compute=CUDA)


def test_unknown_with_a_broken_host_is_not_ok() -> None:
    found = judge("nvidia", gpu={"uvm": False}, compute=[])
    assert not found["ok"]
    assert "nvidia_uvm" in found["causes"][1]


@hypothesis.given(
    wanted=strategies.sampled_from(WANTED),
    gpus=strategies.lists(strategies.sampled_from([NVIDIA, AMD, {"vendor": "nvidia"}, {}]), max_size=2),
    gpu=strategies.sampled_from([GPU, {}, {"nvidia_smi": None}]),
    compute=strategies.lists(strategies.sampled_from([*CPU, *CUDA, *ROCM, *VULKAN, {}]), max_size=2),
    models=strategies.lists(strategies.sampled_from([loaded(0), loaded(4e9), loaded(1, 0)]), max_size=2),
    evidence=strategies.sampled_from([None, {}, WHOLE, {"container": True}]),
)  # fmt: skip
def test_every_combination_has_a_verdict(
    wanted: str, gpus: Any, gpu: Any, compute: Any, models: Any, evidence: Any
) -> None:
    found = verdict(wanted, gpus, gpu, compute, models, evidence)
    assert found["decided"] in DECIDED
    assert found["ok"] or found["causes"], "not ok needs a reason"
    assert all(one.endswith(".") for one in found["causes"])
