# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""GPUs of made-up machines: sysfs, device nodes, and an nvidia-smi that says what it is told to."""

from __future__ import annotations

import pathlib

import pytest
from ansible_collections.llmops.stack.plugins.module_utils._stack_facts_gpu import parse_smi
from ansible_collections.llmops.stack.tests.unit.machine import Machine

ROW = "00000000:01:00.0, GPU-8f6c1a, NVIDIA GeForce RTX 3090, 24576, 550.54.14\n"
MISMATCH = "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 550.90\n"
NVRM = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22 01:44:30 UTC 2024\nGCC version: 12\n"
NVRM_OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  560.35.03  Release Build  (dvs)\n"


@pytest.fixture
def machine(tmp_path: pathlib.Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def nvidia(machine: Machine) -> Machine:
    """A card with all that belongs to it, and the sound function that every card has."""
    machine.add_pci("0000:01:00.0", "0x10de", "0x030000", driver="nvidia")
    machine.add_pci("0000:01:00.1", "0x10de", "0x040300", driver="snd_hda_intel")
    for node in ("nvidia0", "nvidiactl", "nvidia-uvm", "nvidia-caps/x", "null"):
        machine.write(f"dev/{node}")
    machine.write("proc/driver/nvidia/version", NVRM)
    machine.program("usr/bin/nvidia-smi", ROW)
    return machine


def test_a_card_that_works(nvidia: Machine) -> None:
    seen = nvidia.facts()
    assert seen["gpus"] == [
        {
            "vendor": "nvidia",
            "pci": "0000:01:00.0",
            "device": "0x2204",
            "driver": "nvidia",
            "nodes": ["/dev/nvidia-uvm", "/dev/nvidia0", "/dev/nvidiactl"],
            "name": "NVIDIA GeForce RTX 3090",
            "uuid": "GPU-8f6c1a",
            "memory_mb": 24576,
            "driver_version": "550.54.14",
        }
    ]
    assert seen["gpu"] == {
        "nvidia_smi": {"found": True, "rc": 0, "error": ""}, "nvidia_driver": "550.54.14", "uvm": True, "kfd": False,
        "kfd_nodes": 0, "render_group": -1, "jetpack": "",
    }  # fmt: skip


def test_a_driver_that_was_updated_under_the_kernel(nvidia: Machine) -> None:
    nvidia.answers["/usr/bin/nvidia-smi"] = (18, MISMATCH)
    nvidia.write(
        "proc/driver/nvidia/gpus/0000:01:00.0/information", "Model: \t\t NVIDIA RTX\nIRQ:   1\nGPU UUID: \t GPU-1\n"
    )
    seen = nvidia.facts()
    smi = seen["gpu"]["nvidia_smi"]
    assert (smi["rc"], "library version mismatch" in smi["error"], "\n" in smi["error"]) == (18, True, False)
    (card,) = seen["gpus"]
    assert (card["name"], card["uuid"], card["memory_mb"]) == ("NVIDIA RTX", "GPU-1", 0)  # the kernel still knows it


def test_an_nvidia_smi_that_never_answers(nvidia: Machine) -> None:
    nvidia.answers["/usr/bin/nvidia-smi"] = (127, "")
    assert nvidia.facts(deadline=2.0)["gpu"]["nvidia_smi"] == {
        "found": True, "rc": 127, "error": "no answer within 8 s",
    }  # fmt: skip


def test_without_a_gpu_nothing_is_started(machine: Machine) -> None:
    machine.program("usr/bin/nvidia-smi", ROW)
    machine.add_pci("0000:06:00.0", "0x8086", "0x030000", driver="i915")
    seen = machine.facts()
    assert (seen["gpus"], seen["gpu"]["nvidia_smi"]) == ([], {"found": False, "rc": -1, "error": ""})
    assert [argv for argv in machine.calls if "nvidia-smi" in argv[0]] == []


def test_a_card_without_a_driver_says_so(machine: Machine) -> None:
    machine.add_pci("0000:03:00.0", "0x10de", "0x030200")
    seen = machine.facts()
    assert [(gpu["vendor"], gpu["driver"], gpu["nodes"]) for gpu in seen["gpus"]] == [("nvidia", "", [])]
    assert (seen["gpu"]["nvidia_driver"], seen["gpu"]["nvidia_smi"]["found"]) == ("", False)


def test_amd_instinct_is_a_processing_accelerator(machine: Machine) -> None:
    machine.add_pci("0000:05:00.0", "0x1002", "0x120000", driver="amdgpu")
    machine.add_pci("0000:06:00.0", "0x8086", "0x030000", driver="i915")
    machine.add_pci("0000:07:00.0", "0x10de", "0x120000")
    base = "sys/bus/pci/devices/0000:05:00.0"
    for name, text in (("mem_info_vram_total", "68702699520"), ("unique_id", "5af3"), ("product_name", "MI210")):
        machine.write(f"{base}/{name}", f"{text}\n")
    for node in ("kfd", "dri/renderD128", "dri/card0"):
        machine.write(f"dev/{node}")
    machine.write("sys/class/kfd/kfd/topology/nodes/0/gpu_id", "0\n")  # the CPU
    machine.write("sys/class/kfd/kfd/topology/nodes/1/gpu_id", "52934\n")
    machine.write("etc/group", "render:x:104:ollama\n")
    seen = machine.facts()
    (gpu,) = seen["gpus"]
    assert (gpu["vendor"], gpu["driver"], gpu["nodes"]) == ("amd", "amdgpu", ["/dev/kfd", "/dev/dri/renderD128"])
    assert (gpu["name"], gpu["uuid"], gpu["memory_mb"]) == ("MI210", "GPU-5af3", 65520)
    assert (seen["gpu"]["kfd"], seen["gpu"]["kfd_nodes"], seen["gpu"]["render_group"]) == (True, 1, 104)


def test_device_nodes_without_a_bus(machine: Machine) -> None:
    machine.write("dev/nvidia0")
    (gpu,) = machine.facts()["gpus"]
    assert (gpu["vendor"], gpu["pci"], gpu["driver"], gpu["name"]) == ("nvidia", "", "nvidia", "")
    machine.program("usr/bin/nvidia-smi", ROW + ROW.replace("01:00", "02:00"))
    assert [gpu["name"] for gpu in machine.facts()["gpus"]] == ["NVIDIA GeForce RTX 3090"] * 2


def test_windows_keeps_its_nvidia_smi_elsewhere(machine: Machine) -> None:
    machine.write("dev/dxg")
    machine.program("usr/lib/wsl/lib/nvidia-smi", ROW)
    seen = machine.facts()
    assert (seen["gpu"]["nvidia_smi"]["rc"], seen["gpu"]["uvm"], seen["gpus"][0]["memory_mb"]) == (0, True, 24576)


def test_the_open_kernel_module_words_its_version_otherwise(nvidia: Machine) -> None:
    nvidia.write("proc/driver/nvidia/version", NVRM_OPEN)
    assert nvidia.facts()["gpu"]["nvidia_driver"] == "560.35.03"


@pytest.mark.parametrize(("release", "jetpack"), [("R35", "5"), ("R36", "6"), ("R38", ""), ("odd", "")])
def test_jetsons(machine: Machine, release: str, jetpack: str) -> None:
    machine.write("etc/nv_tegra_release", f"# {release} (release), REVISION: 4.1, GCID: 33958178, BOARD: generic\n")
    assert machine.facts()["gpu"]["jetpack"] == jetpack


def test_rows_of_nvidia_smi() -> None:
    unknown = "00000001:41:00.0, [N/A], NVIDIA A100, [N/A], 535.1\nno devices were found\n"
    (row,) = parse_smi(unknown)
    assert row == {
        "pci": "00000001:41:00.0".replace("0000", "", 1), "uuid": "", "name": "NVIDIA A100", "memory_mb": 0,
        "driver_version": "535.1",
    }  # fmt: skip
