# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A proxy that notes who is asked for through it, and lets nobody through."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Proxy:
    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.place = f"127.0.0.1:{listener.getsockname()[1]}"
        self.url = f"http://{self.place}"
        self.asked: list[str] = []

    def serve(self) -> None:
        while True:
            try:
                link, _peer = self.listener.accept()
                with link:
                    self.asked.append(link.recv(65536).decode().split(" HTTP/")[0])
                    link.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            except OSError:
                return


@contextmanager
def running_proxy() -> Iterator[Proxy]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = Proxy(listener)
        threading.Thread(target=proxy.serve, daemon=True).start()
        yield proxy
        listener.shutdown(socket.SHUT_RDWR)
