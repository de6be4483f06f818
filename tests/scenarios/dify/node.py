"""The finished node of Molecule's default scenario, and what would tell that it was touched."""

from __future__ import annotations

import os
from typing import Any

from machine import ROOT, Machine, Run, environment

__all__ = [
    "CONTAINER", "INVENTORIES", "MACHINE", "NODE", "ROOT", "Run",
    "containers", "environment", "files", "kill_when", "on_node", "play",
]  # fmt: skip

# Another node that has the same variables will do, too.
MACHINE = Machine(os.environ.get("LLMOPS_NODE", "dify1"), "default")
NODE, CONTAINER, INVENTORIES = MACHINE.name, MACHINE.container, MACHINE.inventories
on_node, play, kill_when = MACHINE.on, MACHINE.play, MACHINE.kill_when


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
