"""A finished node of a Molecule scenario: run a playbook at it, run a script on it."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import time
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[2]


@dataclasses.dataclass
class Run:
    """What a playbook run printed and how it ended."""

    status: int
    output: str

    @property
    def message(self) -> str:
        """The last failure, the one an operator reads, with its line breaks and indentation folded."""
        _before, fatal, text = self.output.rpartition("fatal:")
        return " ".join((fatal + text).split("PLAY RECAP")[0].split()) if fatal else ""

    @property
    def changed(self) -> int:
        recap = self.output.rsplit("PLAY RECAP", 1)[-1]
        return int(recap.split("changed=")[1].split()[0])


@dataclasses.dataclass(frozen=True)
class Machine:
    """A node by its name and the Molecule scenario that made it."""

    name: str
    scenario: str

    @property
    def container(self) -> str:
        return f"llmops-{self.name}"

    @property
    def inventories(self) -> tuple[pathlib.Path, ...]:
        return (ROOT / "build" / "world" / "inventory.yml", ROOT / "molecule" / self.scenario / "inventory.yml")

    def on(self, script: str, check: bool = True) -> str:
        """Run a shell script on the node."""
        done = subprocess.run(
            ["docker", "exec", "--interactive", self.container, "sh", "-ec", script],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        if check and done.returncode:
            raise AssertionError(f"on {self.name}: {script}\n{done.stdout}{done.stderr}")
        return done.stdout.strip()

    def play(self, playbook: str = "site.yml", *options: str, **variables: Any) -> Run:
        """Run a playbook with these options of ansible-playbook and these extra variables."""
        done = subprocess.run(
            [*self._command(variables), *options, playbook],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            env=environment(),
            timeout=1200,
        )
        return Run(done.returncode, done.stdout)

    def kill_when(self, *printed: str, delay: float = 0.0, **variables: Any) -> str:
        """Start site.yml, and SIGKILL it with all its workers some seconds after it printed texts, in this order."""
        process = subprocess.Popen(
            [*self._command(variables), "site.yml"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**environment(), "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
        assert process.stdout
        seen, waiting = "", list(printed)
        for line in process.stdout:
            seen += line
            if waiting[0].lower() in line.lower():
                del waiting[0]
            if not waiting:
                time.sleep(delay)
                break
        alive = process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert alive, f"the run ended before it printed {waiting}:\n{seen[-4000:]}"
        return seen

    def _command(self, variables: dict[str, Any]) -> list[str]:
        inventories = [f"--inventory={path}" for path in self.inventories]
        return ["ansible-playbook", *inventories, f"--limit={self.name}", f"--extra-vars={json.dumps(variables)}"]


def environment() -> dict[str, str]:
    return {**os.environ, "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1", "ANSIBLE_CALLBACK_RESULT_FORMAT": "yaml"}
