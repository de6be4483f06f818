# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module util is PRIVATE to the collection; it may change without notice.

"""GPUs, from what the kernel shows; nvidia-smi is asked where there is something for it to say."""

from __future__ import annotations

import os
import re
import typing as t

from ansible_collections.llmops.stack.plugins.module_utils._stack_facts_host import Host

GPU_VENDORS = {"0x10de": "nvidia", "0x1002": "amd"}
GPU_NODES = {
    "nvidia": re.compile(r"^(nvidia\d+|nvidiactl|nvidia-uvm|dxg)$"),
    "amd": re.compile(r"^(kfd|dri/renderD\d+)$"),
}
QUERY = ("pci.bus_id", "uuid", "name", "memory.total", "driver_version")
JETPACKS = {"35": "5", "36": "6"}  # by the release of Linux for Tegra


def parse_smi(text: str) -> list[dict[str, t.Any]]:
    """Rows of nvidia-smi, in the words of the fact. A value that a card does not know is in brackets."""
    rows = []
    for line in text.splitlines():
        fields = ["" if field.strip().startswith("[") else field.strip() for field in line.split(",")]
        if len(fields) == len(QUERY):
            bus, uuid, name, memory, driver = fields
            # nvidia-smi writes a domain of eight digits, the kernel one of four
            slot = re.sub(r"^0000(?=[0-9a-f]{4}:)", "", bus.lower())
            megabytes = int(memory) if memory.isdigit() else 0
            rows.append({"pci": slot, "uuid": uuid, "name": name, "memory_mb": megabytes, "driver_version": driver})
    return rows


class GpuFacts:
    def __init__(self, host: Host) -> None:
        self.host = host
        devices = host.names("dev") + [f"dri/{name}" for name in host.names("dev/dri")]
        self.nodes = {
            vendor: [f"/dev/{name}" for name in devices if pattern.match(name)] for vendor, pattern in GPU_NODES.items()
        }
        self.cards = list(self._cards())
        self.driver = self._driver()

    def _cards(self) -> t.Iterator[dict[str, t.Any]]:
        for slot in self.host.names("sys/bus/pci/devices"):
            base = f"sys/bus/pci/devices/{slot}"
            vendor = GPU_VENDORS.get(self.host.read(f"{base}/vendor").strip(), "")
            kind = self.host.read(f"{base}/class").strip()
            # 0x03 is a display controller; AMD's Instinct cards call themselves processing accelerators (0x12)
            if vendor and (kind.startswith("0x03") or (vendor == "amd" and kind.startswith("0x12"))):
                yield {
                    "vendor": vendor,
                    "pci": slot,
                    "device": self.host.read(f"{base}/device").strip(),
                    "driver": os.path.basename(self.host.link(f"{base}/driver")),
                    "nodes": self.nodes[vendor],
                }

    def _driver(self) -> str:
        found = re.search(r"Module(?: for \S+)?\s+(\d[\d.]*)", self.host.read("proc/driver/nvidia/version"))
        return found.group(1) if found else ""

    def ask_smi(self) -> dict[str, t.Any]:
        """found, rc, error and rows. Not started where nothing is NVIDIA's."""
        state: dict[str, t.Any] = {"found": False, "rc": -1, "error": "", "rows": []}
        if not self.nodes["nvidia"] and all(card["vendor"] != "nvidia" for card in self.cards):
            return state
        wsl = "/usr/lib/wsl/lib/nvidia-smi"
        path = self.host.which("nvidia-smi") or (wsl if self.host.exists(wsl) else "")
        if not path:
            return state
        # Without its persistence daemon the driver wakes every card first, which takes seconds for each.
        patience = 4 * self.host.deadline
        rc, text = self.host.run([path, f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader,nounits"], patience)
        error = " ".join(text.split())[:300] or f"no answer within {patience:g} s"
        return {"found": True, "rc": rc, "error": error if rc else "", "rows": [] if rc else parse_smi(text)}

    def gpus(self, rows: list[dict[str, t.Any]]) -> list[dict[str, t.Any]]:
        cards = list(self.cards)
        nodes = self.nodes["nvidia"]
        if not cards and nodes:  # a container or WSL is given the device nodes without the bus
            for row in rows or [{}]:
                bare = {"vendor": "nvidia", "pci": "", "device": "", "driver": "nvidia", "nodes": nodes}
                cards.append({**bare, **self._known(row)})
            return cards
        by_slot = {row["pci"]: row for row in rows}
        return [{**card, **self._details(card, by_slot.get(card["pci"], {}))} for card in cards]

    def _known(self, row: dict[str, t.Any]) -> dict[str, t.Any]:
        return {
            "name": row.get("name", ""),
            "uuid": row.get("uuid", ""),
            "memory_mb": row.get("memory_mb", 0),
            "driver_version": row.get("driver_version", "") or self.driver,
        }

    def _details(self, card: dict[str, t.Any], row: dict[str, t.Any]) -> dict[str, t.Any]:
        if card["vendor"] == "nvidia":
            text = self.host.read(f"proc/driver/nvidia/gpus/{card['pci']}/information")
            told = dict(re.findall(r"(?m)^([^:\n]+):[ \t]*(.*?)[ \t]*$", text))
            seen = {"name": told.get("Model", ""), "uuid": told.get("GPU UUID", "")}
            return self._known({**seen, **row})
        base = f"sys/bus/pci/devices/{card['pci']}"
        vram = self.host.read(f"{base}/mem_info_vram_total").strip()
        unique = self.host.read(f"{base}/unique_id").strip()
        return {
            "name": self.host.read(f"{base}/product_name").strip(),
            "uuid": f"GPU-{unique}" if unique else "",
            "memory_mb": int(vram) // 1048576 if vram.isdigit() else 0,
            "driver_version": self.host.read("sys/module/amdgpu/version").strip(),
        }

    def gpu(self, smi: dict[str, t.Any]) -> dict[str, t.Any]:
        tegra = re.search(r"\bR(\d+)\b", self.host.read("etc/nv_tegra_release"))
        return {
            "nvidia_smi": {key: smi[key] for key in ("found", "rc", "error")},
            "nvidia_driver": self.driver,
            "uvm": self.host.exists("dev/nvidia-uvm") or self.host.exists("dev/dxg"),
            "kfd": self.host.exists("dev/kfd"),
            "kfd_nodes": self._compute_nodes(),
            "render_group": self.host.groups().get("render", (-1, []))[0],
            "jetpack": JETPACKS.get(tegra.group(1), "") if tegra else "",
        }

    def _compute_nodes(self) -> int:
        """GPUs that ROCm's half of the driver knows. The CPU is a node, too, with 0 for its number."""
        base = "sys/class/kfd/kfd/topology/nodes"
        numbers = [self.host.read(f"{base}/{node}/gpu_id").strip() for node in self.host.names(base)]
        return sum(1 for number in numbers if number not in ("", "0"))
