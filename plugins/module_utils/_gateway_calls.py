# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""The calls that a gateway has running on a node, counted where no process is forgotten: in the kernel.

A process that a reload has replaced goes on with its calls and answers no socket any more. Each call is a connection of
its own, so the connections of all HAProxy processes to a node are its calls, and now and then a check of its health.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

__all__ = ["count", "endpoints", "resolved", "wait_until_none"]

_ESTABLISHED = "01"
_PROGRAM = "haproxy"

Endpoint = tuple[str, int]


def resolved(names: Iterable[str]) -> dict[str, list[str]]:
    """Where these names lead on this host, also by its hosts file and search domains; none where nobody knows one.

    Those of IPv4 come first, as a node may listen at them alone.
    """
    wanted = sorted(set(names))
    if not wanted:
        return {}
    with ThreadPoolExecutor(max_workers=min(len(wanted), 50)) as pool:
        return dict(zip(wanted, pool.map(_addresses, wanted)))


def _addresses(name: str) -> list[str]:
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return list(dict.fromkeys(str(one[4][0]) for one in sorted(found, key=lambda one: one[0] != socket.AF_INET)))


def endpoints(address: str, port: int) -> set[Endpoint]:
    """A node as the kernel's table shows it; one whose name leads nowhere has no calls."""
    return {(one, port) for one in _addresses(address)}


def count(wanted: set[Endpoint], root: str = "/proc") -> int:
    """Connections that an HAProxy of this host has to one of these."""
    inodes = [inode for end, inode in _connections(root) if end in wanted]
    if not inodes:
        return 0
    ours = _sockets(root)
    return sum(inode in ours for inode in inodes)


def wait_until_none(
    nodes: dict[str, set[Endpoint]], seconds: float, look: Callable[[set[Endpoint]], int] = count, pause: float = 0.25
) -> dict[str, int]:
    """The nodes that still have calls after this time, each with their number.

    None means none twice in a row: a call that was just on its way to a node is seen the second time. The number is the
    smaller one of the last two looks, as a check of health is over by the next one.
    """
    until = time.monotonic() + seconds
    quiet: dict[str, int] = dict.fromkeys(nodes, 0)
    before: dict[str, int] = {}
    while True:
        running = {name: look(ends) for name, ends in nodes.items() if quiet[name] < 2}
        for name, calls in running.items():
            quiet[name] = quiet[name] + 1 if not calls else 0
        left = {name: calls for name, calls in running.items() if quiet[name] < 2}
        if not left:
            return {}
        if before and time.monotonic() > until:
            lasting = {name: min(calls, before[name]) for name, calls in left.items()}
            return {name: calls for name, calls in lasting.items() if calls}
        before = running
        time.sleep(pause)


def _connections(root: str) -> Iterable[tuple[Endpoint, str]]:
    for name in ("tcp", "tcp6"):
        try:
            with open(f"{root}/net/{name}", encoding="ascii") as table:
                lines = table.read().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if len(fields) > 9 and fields[3] == _ESTABLISHED:
                yield _endpoint(fields[2]), fields[9]


def _endpoint(text: str) -> Endpoint:
    """The kernel writes an address as words of the machine's own order."""
    address, _separator, port = text.partition(":")
    words = [bytes.fromhex(address[start : start + 8])[::-1] for start in range(0, len(address), 8)]
    packed = b"".join(words)
    if packed.startswith(b"\0" * 10 + b"\xff\xff"):
        packed = packed[12:]
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    return socket.inet_ntop(family, packed), int(port, 16)


def _sockets(root: str) -> set[str]:
    """The sockets that HAProxy's processes hold."""
    found = set()
    for pid in (name for name in os.listdir(root) if name.isdigit()):
        with contextlib.suppress(OSError):
            with open(f"{root}/{pid}/comm", encoding="utf-8", errors="replace") as comm:
                if comm.read().strip() != _PROGRAM:
                    continue
            for handle in os.listdir(f"{root}/{pid}/fd"):
                with contextlib.suppress(OSError):
                    held = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(f"{root}/{pid}/fd/{handle}"))
                    if held:
                        found.add(held.group(1))
    return found
