# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A made-up host for stack_facts: a file tree and canned program answers."""

from __future__ import annotations

import pathlib
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils import _stack_facts as facts

TRIXIE = 'PRETTY_NAME="Debian GNU/Linux 13 (trixie)"\nVERSION_ID="13"\nVERSION_CODENAME=trixie\nID=debian\n'


class Machine:
    """A root directory to fill, and what programs on it answer."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        self.answers: dict[str, tuple[int, str]] = {}
        self.calls: list[list[str]] = []
        self.write("etc/os-release", TRIXIE)

    def write(self, path: str, text: str = "", mode: int = 0o644) -> pathlib.Path:
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)
        return target

    def link(self, path: str, target: str) -> None:
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(target)

    def program(self, path: str, answer: str = "", text: str = "\x7fELF") -> None:
        self.write(path, text, 0o755)
        self.answers[f"/{path}"] = (0, answer)

    def add_pci(self, slot: str, vendor: str, kind: str, device: str = "0x2204", driver: str = "") -> None:
        for name, value in (("vendor", vendor), ("class", kind), ("device", device)):
            self.write(f"sys/bus/pci/devices/{slot}/{name}", f"{value}\n")
        if driver:
            self.link(f"sys/bus/pci/devices/{slot}/driver", f"/sys/bus/pci/drivers/{driver}")

    def units(self, **units: dict[str, str]) -> None:
        """What systemctl show says, unit by unit."""
        (self.root / "run/systemd/system").mkdir(parents=True, exist_ok=True)
        blocks = [
            "\n".join([f"Id={name.replace('_', '-')}.service", *(f"{key}={value}" for key, value in said.items())])
            for name, said in units.items()
        ]
        self.answers["systemctl"] = (0, "\n\n".join(blocks) + "\n")

    def run(self, argv: list[str], timeout: float = 0) -> tuple[int, str]:
        self.calls.append(argv)
        return self.answers.get(argv[0].replace(str(self.root), ""), (127, ""))

    def facts(self, **options: Any) -> dict[str, Any]:
        options = {"deadline": 2.0, **options}
        return facts.StackFacts(root=str(self.root), run=self.run, **options).collect()
