# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ports for servers that take a moment to bind them."""

from __future__ import annotations

import itertools
import os
import re
import socket

# Below the kernel's range for outgoing connections, and a range for each of pytest-xdist's workers: a port that the
# kernel hands out and that is closed again may be another server's a second later.
_FIRST = 15000
_RANGE = 1000
_worker = int(re.sub(r"\D", "", os.environ.get("PYTEST_XDIST_WORKER", "")) or 0)
_next = itertools.cycle(range(_FIRST + _worker * _RANGE, _FIRST + (_worker + 1) * _RANGE))


def free_port() -> int:
    """A port on 127.0.0.1 that nobody holds, and that nobody else is told of."""
    for port in itertools.islice(_next, _RANGE):
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"no free port from {_FIRST + _worker * _RANGE} on")
