# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Where an Ollama server runs on this host: as a unit or as a container, what became of it, its log, its devices.

Nothing in here may fail: what cannot be seen is reported as empty.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ansible_collections.llmops.stack.plugins.module_utils._docker_cli import Docker, DockerError
from ansible_collections.llmops.stack.plugins.module_utils._files import READ, WRITE, Account, account, granted
from ansible_collections.llmops.stack.plugins.module_utils._stack_facts import run_command

__all__ = ["Place", "State", "place"]

HEAD_LINES = 3000  # the start of a server is some 80 lines; with debugging some hundred
TAIL_LINES = 200
SECONDS = 5.0
_PROPERTIES = (
    "LoadState", "ActiveState", "SubState", "Result", "NRestarts", "ExecMainStatus", "ExecMainCode", "MainPID",
    "InvocationID",
)  # fmt: skip


@dataclass
class State:
    """What became of the server's process."""

    what: str = ""  # "Unit ollama.service" or "Container ollama"; empty where there is nobody to ask
    running: bool = False
    gone: bool = False  # it will not come by itself
    missing: bool = False  # there never was one
    restarts: int = 0
    says: str = ""  # half a sentence about it
    public: dict[str, Any] = field(default_factory=dict)


class Place(Protocol):
    def look(self) -> State: ...

    def head(self) -> list[str]:
        """The log of the present run, from its start."""

    def tail(self) -> list[str]:
        """The last lines, also of runs that ended."""

    def program(self) -> str:
        """What runs, as the operator would write it."""

    def evidence(self, gpus: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """What _ollama_gpu wants to know about it."""

    def restart(self) -> str:
        """How an operator restarts it."""


def place(unit: str, container: str) -> Place:
    return _Container(container) if container else _Unit(unit)


class _Unit:
    def __init__(self, name: str, proc: str = "/proc") -> None:
        self.name = name
        self.proc = proc
        self.seen: dict[str, str] = {}

    def look(self) -> State:
        code, text = run_command(["systemctl", "show", self.name, "--no-pager", "-p", ",".join(_PROPERTIES)], SECONDS)
        self.seen = dict(line.split("=", 1) for line in text.splitlines() if "=" in line) if code == 0 else {}
        if not self.seen:
            return State()
        return _unit_state(self.name, self.seen)

    def head(self) -> list[str]:
        run = self.seen.get("InvocationID", "")
        if not run:
            return []
        return _head(["journalctl", "--no-pager", "-q", "-o", "cat", f"_SYSTEMD_INVOCATION_ID={run}"])

    def tail(self) -> list[str]:
        code, text = run_command(
            ["journalctl", "--no-pager", "-q", "-o", "cat", "-n", str(TAIL_LINES), "-u", self.name], SECONDS
        )
        return text.splitlines() if code == 0 else []

    def program(self) -> str:
        with contextlib.suppress(OSError):
            return os.readlink(f"{self.proc}/{self.seen.get('MainPID') or 0}/exe")
        return ""

    def evidence(self, gpus: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {"container": False}
        pid = self.seen.get("MainPID") or "0"
        program = self.program()
        if program and not program.endswith(" (deleted)"):
            found["libraries"] = _entries(os.path.join(os.path.dirname(program), "..", "lib", "ollama"))
        owner = _identity(f"{self.proc}/{pid}/status")
        if owner:
            found["user"] = owner.name
            nodes = sorted({str(node) for card in gpus for node in card.get("nodes") or ()})
            found["denied"] = [node for node in nodes if not _may(node, owner)]
            root = f"{self.proc}/{pid}/root"
            # Its /dev may be another one, as with PrivateDevices=yes.
            inside = os.path.isdir(f"{root}/dev")
            found["hidden"] = [node for node in nodes if inside and not os.path.exists(root + node)]
        return found

    def restart(self) -> str:
        return f"systemctl restart {self.name.removesuffix('.service')}"


def _unit_state(name: str, seen: Mapping[str, str]) -> State:
    active, sub = seen.get("ActiveState", ""), seen.get("SubState", "")
    restarts = int(seen.get("NRestarts") or 0) if (seen.get("NRestarts") or "0").isdigit() else 0
    state = State(
        what=f"Unit {name}",
        running=active == "active",
        restarts=restarts,
        public={"state": active, "sub": sub, "result": seen.get("Result", ""), "restarts": restarts},
    )
    # systemd keeps the numbers of <sys/wait.h>: 1 is an exit, 2 and 3 are signals
    code, status = seen.get("ExecMainCode", "0"), seen.get("ExecMainStatus", "0")
    ended = {"1": f"with status {status}", "2": f"by signal {status}", "3": f"by signal {status}"}.get(code, "")
    how = f", its program ended {ended}" if ended and active != "active" else ""
    if seen.get("LoadState") == "not-found":
        state.gone = state.missing = True
        state.says = "does not exist on this host"
    elif active == "failed":
        state.gone, state.says = True, f"has failed ({seen.get('Result') or 'no reason given'}{how})"
    elif active == "inactive":
        state.gone, state.says = True, f"is not running{how}"
    elif sub == "auto-restart" or (active == "activating" and restarts):
        state.says = f"ends and is started again and again ({restarts} times{how})"
    elif active == "active":
        again = f", restarted by systemd {restarts} times" if restarts else ""
        state.says = f"is running{again}"
    else:
        state.says = f"is {active or 'in an unknown state'} ({sub})"
    return state


class _Container:
    def __init__(self, name: str, docker: Docker | None = None) -> None:
        self.name = name
        self.docker = docker or Docker()
        self.seen: dict[str, Any] = {}

    def look(self) -> State:
        what = f"Container {self.name}"
        try:
            code, text, error = self.docker.run(["inspect", "--type", "container", self.name], SECONDS)
            self.seen = json.loads(text)[0] if code == 0 else {}
        except (DockerError, ValueError, IndexError) as exc:
            return State(what=what, says=f"cannot be looked at ({exc})")
        if not self.seen:
            if "no such container" in error.lower():
                return State(what=what, gone=True, missing=True, says="does not exist on this host")
            return State(what=what, says=f"cannot be looked at ({' '.join(error.split())[:200]})")
        return _container_state(what, self.seen)

    def head(self) -> list[str]:
        started = str((self.seen.get("State") or {}).get("StartedAt") or "")
        return _head([self.docker.program, "logs", "--since", started, self.name]) if started else []

    def tail(self) -> list[str]:
        with contextlib.suppress(DockerError):
            code, text, _error = self.docker.run(["logs", "--tail", str(TAIL_LINES), self.name], SECONDS, merged=True)
            return text.splitlines() if code == 0 else []
        return []

    def program(self) -> str:
        return str((self.seen.get("Config") or {}).get("Image") or "")

    def evidence(self, gpus: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {"container": True}
        vendors = {str(card.get("vendor")) for card in gpus}
        if not vendors or not self.seen:
            return found
        host = self.seen.get("HostConfig") or {}
        nvidia = bool(host.get("DeviceRequests")) or host.get("Runtime") == "nvidia"
        kfd = any(one.get("PathOnHost") == "/dev/kfd" for one in host.get("Devices") or ())
        found["devices"] = nvidia or kfd
        found["rocm_image"] = "rocm" in self.program().rpartition(":")[2]
        if "nvidia" in vendors:
            found["toolkit"] = self._knows_nvidia()
            if nvidia and (self.seen.get("State") or {}).get("Running"):
                found["smi"] = self._smi()
        return found

    def _knows_nvidia(self) -> bool:
        """Whether the engine can hand out an NVIDIA card; in doubt, yes."""
        with contextlib.suppress(DockerError, ValueError, TypeError):
            code, text, _error = self.docker.run(["info", "--format", "{{json .}}"], SECONDS)
            said = json.loads(text) if code == 0 else {}
            if said.get("Runtimes"):
                devices = json.dumps(said.get("DiscoveredDevices") or "") + json.dumps(said.get("CDISpecDirs") or "")
                return "nvidia" in said["Runtimes"] or "nvidia" in devices
        return True

    def _smi(self) -> dict[str, Any]:
        with contextlib.suppress(DockerError):
            code, text, error = self.docker.run(["exec", self.name, "nvidia-smi", "-L"], SECONDS)
            if code != 127 and "executable file not found" not in error:
                return {"rc": code, "error": " ".join((error or text).split())[:200] if code else ""}
        return {"rc": 0, "error": ""}

    def restart(self) -> str:
        return f"docker restart {self.name}"


def _container_state(what: str, seen: Mapping[str, Any]) -> State:
    raw = seen.get("State") or {}
    status, restarts = str(raw.get("Status") or ""), int(seen.get("RestartCount") or 0)
    code = raw.get("ExitCode") or 0
    state = State(
        what=what,
        running=status == "running",
        restarts=restarts,
        public={"state": status, "sub": "", "result": str(raw.get("Error") or ""), "restarts": restarts},
    )
    memory = ", killed for lack of memory" if raw.get("OOMKilled") else ""
    if status == "restarting":
        state.says = f"ends and is started again and again ({restarts} times, exit code {code}{memory})"
    elif status == "running":
        state.says = "is running" + (f", restarted by the engine {restarts} times" if restarts else "")
    else:
        reason = f": {raw['Error']}" if raw.get("Error") else ""
        state.gone, state.says = True, f"is {status or 'in an unknown state'} (exit code {code}{memory}){reason}"
    return state


def _head(argv: list[str]) -> list[str]:
    """The first lines of a program's output; a log of months is not read to its end."""
    lines: list[str] = []
    try:
        with subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, "LC_ALL": "C"},
        ) as process:
            guard = threading.Timer(SECONDS, process.kill)
            guard.start()
            for line in process.stdout or ():
                lines.append(line.rstrip("\n"))
                if len(lines) >= HEAD_LINES:
                    break
            process.kill()
            guard.cancel()
    except OSError:
        return []
    return lines


def _entries(folder: str) -> list[str]:
    with contextlib.suppress(OSError):
        return sorted(os.listdir(folder))
    return []


def _identity(status: str) -> Account | None:
    """Effective user and all groups of a process, from its /proc/…/status."""
    try:
        with open(status, encoding="utf-8", errors="replace") as file:
            said = dict(line.split(":", 1) for line in file if ":" in line)
        uid, gid = int(said["Uid"].split()[1]), int(said["Gid"].split()[1])
        # What it was started with counts, whatever the host's tables say by now.
        return account(uid, gid)._replace(groups={gid, *map(int, said.get("Groups", "").split())})
    except (OSError, KeyError, ValueError, IndexError):
        return None


def _may(node: str, who: Account) -> bool:
    """Whether that user may read and write it; a node that is not there is no matter of rights."""
    try:
        return granted(os.stat(node), who.uid, who.groups, READ | WRITE)
    except OSError:
        return True
