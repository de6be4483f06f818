# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gives the node it runs on the traces of a GPU that is not there: PCI bus, device nodes, driver, nvidia-smi.

/etc/llmops-world/gpu.json says which, and is read again by the nvidia-smi that this puts there:

    vendor  nvidia | amd              nothing: the GPU is taken away
    driver  <version>                 the kernel module's (580.95.05)
    memory  <MiB>                     what its card has (16380, AMD 16368)
    smi     missing | mismatch        nvidia-smi is not there; it was updated, and the module was not
    uvm     false                     /dev/nvidia-uvm is missing
    kfd     false                     /dev/kfd is missing

A restart of the node takes the GPU away as well.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

SWITCHES = Path("/etc/llmops-world/gpu.json")
BUS = Path("/sys/bus/pci/devices")
DRIVERS = Path("/proc/driver")
CLASSES = Path("/sys/class")
SYS = Path("/run/world-sys")  # /sys as it is, where part of it is covered
SMI = Path("/usr/bin/nvidia-smi")
DEVICES = {
    "nvidia": {"nvidia0": (195, 0), "nvidiactl": (195, 255), "nvidia-uvm": (511, 0)},
    "amd": {"kfd": (510, 0), "dri/card0": (226, 0), "dri/renderD128": (226, 128)},
}
CARDS = {
    "nvidia": ("0000:01:00.0", {"vendor": "0x10de", "device": "0x2805", "class": "0x030000"}),
    "amd": (
        "0000:03:00.0",
        {
            "vendor": "0x1002",
            "device": "0x747e",
            "class": "0x030000",
            "mem_info_vram_total": "17163091968",
            "product_name": "Radeon RX 7800 XT",
        },
    ),
}
SMI_TEXT = """#!/usr/bin/python3
import json, pathlib, sys
told = json.loads(pathlib.Path("/etc/llmops-world/gpu.json").read_text())
if told.get("smi") == "mismatch":
    print("Failed to initialize NVML: Driver/library version mismatch\\nNVML library version: 580.105")
    sys.exit(18)
driver = str(told.get("driver", "580.95.05"))
card = {
    "index": "0", "pci.bus_id": "00000000:01:00.0", "uuid": "GPU-6d0c1b52-9c1f-4f7e-8a44-3b1e5a7c2d10",
    "name": "NVIDIA GeForce RTX 4060 Ti", "memory.total": str(told.get("memory", 16380)), "driver_version": driver,
    "compute_cap": "8.9",
}
for argument in sys.argv[1:]:
    if argument.startswith("--query-gpu="):
        print(", ".join(card.get(field, "[N/A]") for field in argument.partition("=")[2].split(",")))
        sys.exit(0)
print(f"GPU 0: {card['name']} (UUID: {card['uuid']})")
"""


def remove() -> None:
    for place in (BUS, DRIVERS, CLASSES, SYS):
        while os.path.ismount(place):
            subprocess.run(["umount", place], check=True)
    for names in DEVICES.values():
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                Path("/dev", name).unlink()
    SMI.unlink(missing_ok=True)


def add(vendor: str, told: dict[str, Any]) -> None:
    slot, files = CARDS[vendor]
    subprocess.run(["mount", "-t", "tmpfs", "world-gpu", BUS], check=True)
    (BUS / slot).mkdir()
    if vendor == "amd" and told.get("memory"):
        files = {**files, "mem_info_vram_total": str(int(told["memory"]) * 1024 * 1024)}
    for name, text in files.items():
        (BUS / slot / name).write_text(text + "\n")
    (BUS / slot / "driver").symlink_to(f"../../../bus/pci/drivers/{'amdgpu' if vendor == 'amd' else vendor}")
    if vendor == "amd":
        _compute_nodes()
        subprocess.run(["groupadd", "--system", "--force", "render"], check=True)
    for name, (major, minor) in DEVICES[vendor].items():
        if told.get({"nvidia-uvm": "uvm"}.get(name, name), True):
            device = Path("/dev", name)
            device.parent.mkdir(exist_ok=True)
            os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(major, minor))
    if vendor == "nvidia":
        subprocess.run(["mount", "-t", "tmpfs", "world-gpu", DRIVERS], check=True)
        (DRIVERS / "nvidia").mkdir()
        version = told.get("driver", "580.95.05")
        line = f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {version}  Tue Sep 23 10:11:16 UTC 2025\n"
        (DRIVERS / "nvidia" / "version").write_text(line)
        if told.get("smi") != "missing":
            SMI.write_text(SMI_TEXT)
            SMI.chmod(0o755)


def _compute_nodes() -> None:
    """What ROCm's half of the driver knows; node 0 is the CPU. /sys/class takes no folder, so another one covers it."""
    SYS.mkdir(exist_ok=True)
    subprocess.run(["mount", "--bind", "/sys", SYS], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "world-gpu", CLASSES], check=True)
    for entry in (SYS / "class").iterdir():
        (CLASSES / entry.name).symlink_to(entry)
    for node, number in enumerate(("0", "26217")):
        folder = CLASSES / "kfd" / "kfd" / "topology" / "nodes" / str(node)
        folder.mkdir(parents=True)
        (folder / "gpu_id").write_text(number + "\n")


def main() -> None:
    told = json.loads(SWITCHES.read_text())
    remove()
    if told.get("vendor"):
        add(told["vendor"], told)


if __name__ == "__main__":
    main()
