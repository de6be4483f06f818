# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module util is PRIVATE to the collection; it may change without notice.

"""Who holds which TCP port: process, unit of systemd, container."""

from __future__ import annotations

import os
import re
import socket
import typing as t

from ansible_collections.llmops.stack.plugins.module_utils._stack_facts_host import Host


def parse_listeners(table: str) -> dict[int, list[tuple[str, str]]]:
    """Listening TCP ports, each with its local addresses and the inodes of their sockets: /proc/net/tcp or tcp6."""
    listeners: dict[int, list[tuple[str, str]]] = {}
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 9 and fields[3] == "0A":
            address, port = fields[1].rsplit(":", 1)
            listeners.setdefault(int(port, 16), []).append((_parse_address(address), fields[9]))
    return listeners


def _parse_address(text: str) -> str:
    """The kernel prints an address as words in the byte order of the machine."""
    packed = b"".join(bytes.fromhex(text[at : at + 8])[::-1] for at in range(0, len(text), 8))
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def listeners(host: Host) -> dict[int, list[tuple[str, str]]]:
    found: dict[int, list[tuple[str, str]]] = {}
    for table in ("proc/net/tcp", "proc/net/tcp6"):
        for port, sockets in parse_listeners(host.read(table)).items():
            found.setdefault(port, []).extend(sockets)
    return found


def ports(host: Host, containers: list[dict[str, t.Any]], wanted: set[int]) -> dict[str, dict[str, t.Any]]:
    inodes = {port: sockets[0][1] for port, sockets in listeners(host).items()}
    names = {str(one.get("Id", "")): (one.get("Names") or ["/?"])[0].lstrip("/") for one in containers}
    published = {
        binding["PublicPort"]: names[str(container.get("Id", ""))]
        for container in containers
        for binding in container.get("Ports") or []
        if binding.get("PublicPort") and binding.get("Type") == "tcp"
    }
    seen = set(inodes) | set(published)
    asked = seen & wanted if wanted else seen
    owners = _socket_owners(host, {inodes[port] for port in asked if port in inodes})
    found = {}
    for port in sorted(asked):
        pid, process = owners.get(inodes.get(port, ""), (0, ""))
        unit, container = _belongs(host.read(f"proc/{pid}/cgroup") if pid else "", names)
        container = published.get(port, container)
        found[str(port)] = {"pid": pid, "process": process, "container": container, "unit": unit}
    return found


def _belongs(cgroup: str, names: dict[str, str]) -> tuple[str, str]:
    """The service and the container that a process runs in. One in the host's network publishes no port."""
    units = re.findall(r"/([^/\n]+\.service)(?=/|$)", cgroup, re.MULTILINE)
    container = next((names[one] for one in re.findall(r"[0-9a-f]{64}", cgroup) if one in names), "")
    return (units[-1] if units else ""), container


def _socket_owners(host: Host, inodes: set[str]) -> dict[str, tuple[int, str]]:
    owners: dict[str, tuple[int, str]] = {}
    links = {f"socket:[{inode}]": inode for inode in inodes}
    for pid in filter(str.isdigit, host.names("proc")):
        if len(owners) == len(inodes):
            break
        for descriptor in host.names(f"proc/{pid}/fd"):
            try:
                inode = links.get(os.readlink(host.at(f"proc/{pid}/fd/{descriptor}")))
            except OSError:  # the process ended, or closed it, while being looked at
                continue
            if inode and inode not in owners:
                owners[inode] = (int(pid), host.read(f"proc/{pid}/comm").strip())
    return owners
