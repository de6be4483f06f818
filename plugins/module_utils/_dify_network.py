# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Who has which address on the network of Dify's project, and from where it takes images."""

from __future__ import annotations

import re
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._docker_cli import DockerError

__all__ = ["addresses", "own_names", "reachable_image"]

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


def reachable_image(project: Any, image: str) -> str:
    """An image of the Docker Hub by the name under which this installation gets such: as its nginx, from a registry."""
    try:
        nginx = project.container("nginx")
    except DockerError:
        nginx = None
    found = re.fullmatch(r"(.*?)nginx(?::[\w.-]+)?(?:@sha256:[0-9a-f]+)?", nginx.image) if nginx else None
    return (found.group(1) if found else "") + image
