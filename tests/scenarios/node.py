"""The finished node of Molecule's default scenario: run a playbook at it, run a script on it, see what was touched."""

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
NODE = "dify1"
CONTAINER = f"llmops-{NODE}"
INVENTORIES = (ROOT / "build" / "world" / "inventory.yml", ROOT / "molecule" / "default" / "inventory.yml")
PLAYBOOK = ["ansible-playbook", *(f"--inventory={path}" for path in INVENTORIES), f"--limit={NODE}"]


def on_node(script: str, check: bool = True) -> str:
    """Run a shell script on the node."""
    done = subprocess.run(
        ["docker", "exec", "--interactive", CONTAINER, "sh", "-ec", script],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if check and done.returncode:
        raise AssertionError(f"on {NODE}: {script}\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


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


def play(playbook: str = "site.yml", **variables: Any) -> Run:
    """Run a playbook of the checkout with these extra variables."""
    done = subprocess.run(
        [*PLAYBOOK, f"--extra-vars={json.dumps(variables)}", playbook],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env=environment(),
        timeout=1200,
    )
    return Run(done.returncode, done.stdout)


def environment() -> dict[str, str]:
    return {**os.environ, "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1", "ANSIBLE_CALLBACK_RESULT_FORMAT": "yaml"}


def kill_when(printed: str, delay: float = 0.0, **variables: Any) -> str:
    """Start site.yml, and SIGKILL it with all its workers some seconds after it printed a text."""
    process = subprocess.Popen(
        [*PLAYBOOK, f"--extra-vars={json.dumps(variables)}", "site.yml"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**environment(), "PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    )
    assert process.stdout
    seen = ""
    for line in process.stdout:
        seen += line
        if printed.lower() in line.lower():
            time.sleep(delay)
            break
    alive = process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert alive, f"the run ended before it could be killed at {printed!r}:\n{seen[-4000:]}"
    return seen


def containers() -> dict[str, Any]:
    """Every container of Dify with what would tell that it was touched."""
    form = "{{.Name}} {{.Id}} {{.State.StartedAt}} {{.RestartCount}} {{.Config.Image}}"
    script = f"docker ps -aq --filter label=com.docker.compose.project=dify | xargs -r docker inspect --format '{form}'"
    return {line.split()[0]: line.split()[1:] for line in on_node(script).splitlines()}


def files() -> str:
    """Checksums of what the role keeps on the node, and the link that says which release is current."""
    script = """cd /opt/dify; readlink current; ls releases; sha256sum secrets.json /etc/docker/daemon.json
      find releases/ -maxdepth 2 -type f '(' -name .env -o -name '*.yaml' ')' -exec sha256sum {} + | sort"""
    return on_node(script)
