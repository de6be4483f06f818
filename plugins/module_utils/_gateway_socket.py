# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""HAProxy's admin socket: what runs, how its servers are, and how much each of them gets."""

from __future__ import annotations

import csv
import io
import re
import socket
import time
from typing import NamedTuple

__all__ = ["AdminSocket", "Server", "SocketError", "parse_stat"]

_SECONDS = 5.0
_STAMP = re.compile(r"^[Dd]escription: llmops\.stack ([0-9a-f]{12})$", re.MULTILINE)


class SocketError(Exception):
    """HAProxy does not run, or refused; the text is a sentence."""


class Server(NamedTuple):
    up: bool
    weight: int
    running: int
    queued: int
    error: str  # what its last check says, where that is no success


class AdminSocket:
    def __init__(self, path: str) -> None:
        self.path = path

    def ask(self, command: str) -> str:
        """Raises: SocketError."""
        answer = b""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
                link.settimeout(_SECONDS)
                link.connect(self.path)
                link.sendall(f"{command}\n".encode())
                while True:
                    part = link.recv(65536)
                    if not part:
                        break
                    answer += part
        except OSError as exc:
            raise SocketError(f"HAProxy does not answer at {self.path}: {exc}.") from exc
        return answer.decode("utf-8", "replace")

    def stamp(self) -> str:
        """Of the configuration that the process which takes calls was started with; empty where none runs."""
        try:
            found = _STAMP.search(self.ask("show info"))
        except SocketError:
            return ""
        return found.group(1) if found else ""

    def wait_for(self, stamp: str, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while self.stamp() != stamp:
            if time.monotonic() > until:
                return False
            time.sleep(0.1)
        return True

    def servers(self) -> dict[tuple[str, str], Server]:
        """Each server by its backend and name; a backend itself, with the calls that wait in it, has an empty one."""
        return parse_stat(self.ask("show stat"))

    def set_weights(self, weights: dict[tuple[str, str], int]) -> None:
        """Raises: SocketError."""
        for (backend, server), weight in weights.items():
            said = self.ask(f"set weight {backend}/{server} {weight}").strip()
            if said:
                raise SocketError(f"HAProxy does not give {server} another share of {backend}: {said}")


def parse_stat(text: str) -> dict[tuple[str, str], Server]:
    found = {}
    for row in csv.DictReader(io.StringIO(text.lstrip("# "))):
        server = row["svname"]
        if server == "FRONTEND":
            continue
        status = row["status"]
        up = status.startswith(("UP", "DRAIN", "no check"))
        reason = "" if up else f"{row.get('check_desc') or status} {row.get('last_chk') or ''}".strip()
        name = "" if server == "BACKEND" else server
        weight, running, queued = (int(row[key] or 0) for key in ("weight", "scur", "qcur"))
        found[row["pxname"], name] = Server(up, weight, running, queued, reason)
    return found
