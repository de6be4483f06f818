# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.

"""How many calls a container is answering, by the connections that its kernel has; nothing is asked of the program."""

from __future__ import annotations

import time
from collections.abc import Callable

from ansible_collections.llmops.stack.plugins.module_utils._docker_cli import Docker, DockerError

__all__ = ["connections", "drain", "established"]

_ESTABLISHED = "01"
# Health checks inside of the container come from there: 127.0.0.1 as IPv4 and as IPv6 write it, and ::1.
_LOOPBACK = ("0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000")
_LOOK = 30.0


def established(table: str, port: int) -> int:
    """Connections from elsewhere to a port, in a table of the form of /proc/net/tcp or tcp6."""
    wanted, count = f":{port:04X}", 0
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 3 and fields[3] == _ESTABLISHED and fields[1].endswith(wanted):
            count += fields[2].split(":")[0] not in _LOOPBACK
    return count


def connections(docker: Docker, container: str, port: int) -> int:
    """The same for a container; one that does not run has none.

    nginx keeps no connection to Dify's programs open between two requests, so one connection is one call.
    """
    code, out, _err = docker.run(["inspect", "--type", "container", "--format", "{{.State.Pid}}", container], _LOOK)
    pid = int(out.strip() or 0) if code == 0 else 0
    if not pid:
        return 0
    count = 0
    for name in ("tcp", "tcp6"):
        try:
            with open(f"/proc/{pid}/net/{name}", encoding="ascii") as file:
                count += established(file.read(), port)
        except FileNotFoundError:
            continue  # a kernel without IPv6, or a container that ended meanwhile
        except OSError as exc:
            raise DockerError(f"the connections of {container} cannot be counted ({exc.strerror})") from None
    return count


def drain(
    docker: Docker,
    container: str,
    port: int,
    seconds: float,
    also: Callable[[], bool] = lambda: True,
    step: float = 0.2,
) -> bool:
    """Wait until nobody waits for an answer of the container, and `also` is true; False where time was up before."""
    deadline = time.monotonic() + seconds
    while True:
        if connections(docker, container, port) == 0 and also():
            return True
        if time.monotonic() + step > deadline:
            return False
        time.sleep(step)
