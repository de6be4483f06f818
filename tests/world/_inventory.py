# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory that leads Ansible to the world's nodes."""

from __future__ import annotations

import _nodes
import _ollama
import _repos
from _settings import INVENTORY, STATE, node_container


def text() -> str:
    nodes = _nodes.existing()
    lines = ["---", "# Written by tests/world/world.py; every `up` and `down` writes it anew.", "all:", "  vars:"]
    variables = {
        "ansible_connection": "community.docker.docker",
        "ansible_python_interpreter": "/usr/bin/python3",
        "stack_mirror": "http://upstream",
        "docker_repo_key_fingerprint": _repos.fingerprint(),
        "compose_checksum": _repos.compose_checksum(),
        "ollama_version": _ollama.INVENTORY_VERSION,
    }
    lines += [f'    {name}: "{value}"' for name, value in variables.items() if value]
    lines += ["  children:", "    ollama:", "      hosts:" if nodes else "      hosts: {}"]
    for node in nodes:
        lines += [f"        {node.name}:", f"          ansible_host: {node_container(node.name)}"]
    # Dify is for the nodes that a browser on this machine can reach.
    reached = [node for node in nodes if node.port]
    lines += ["    dify:", "      hosts:" if reached else "      hosts: {}"]
    for node in reached:
        lines += [f"        {node.name}:", f'          dify_url: "http://127.0.0.1:{node.port}"']
    return "\n".join(lines) + "\n"


def write() -> None:
    """Whole or not at all: a playbook of another scenario may read it at this moment."""
    STATE.mkdir(parents=True, exist_ok=True)
    fresh = INVENTORY.with_suffix(".new")
    fresh.write_text(text())
    fresh.replace(INVENTORY)
