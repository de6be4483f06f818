# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Who has which address on the network of Dify's project."""

from __future__ import annotations

from typing import Any

__all__ = ["addresses", "own_names"]

_TEMPLATE = (
    "{{range .IPAM.Config}}{{.Gateway}} the host\n{{end}}"
    "{{range .Containers}}{{.IPv4Address}} container {{.Name}}\n{{end}}"
)


def addresses(project: Any) -> dict[str, str]:
    """Address -> "container <name>" or "the host", of all that lives on the project's network, its own or not.

    Raises:
        DockerError: there is no such network, or no engine.
    """
    out = project.docker.output(["network", "inspect", f"{project.name}_default", "--format", _TEMPLATE], 30)
    pairs = [line.split(" ", 1) for line in out.splitlines() if " " in line]
    return {address.split("/")[0]: name for address, name in pairs if address}


def own_names(project: Any) -> set[str]:
    """Names of the project's running containers, one-off ones too."""
    label = f"label=com.docker.compose.project={project.name}"
    return set(project.docker.output(["ps", "--filter", label, "--format", "{{.Names}}"], 30).split())
