"""Kills the process on the node that carries out an upgrade."""

from __future__ import annotations

import pathlib
import subprocess

import node
from node import HOME

PROGRAM = (pathlib.Path(__file__).parent / "killer.py").read_text(encoding="utf-8")


class Killer:
    """Waits on the node until the upgrade has begun a step, or is in a phase, and kills it there (killer.py)."""

    def __init__(self, moment: str) -> None:
        command = ["docker", "exec", "-i", node.MACHINE.container, "python3", "-c", PROGRAM, HOME, moment, "900"]
        self.moment = moment
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def has_killed(self, run: node.Run) -> None:
        """The run was the one that it killed, and it told so."""
        try:
            killed = self.process.wait(5) == 0
        except subprocess.TimeoutExpired:
            self.process.kill()
            killed = False
        assert killed, f"nobody was killed in {self.moment}: {run.output[-3000:]}"
        assert run.status != 0, run.output[-3000:]
