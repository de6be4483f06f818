# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The `celery` command: worker, beat, and the "inspect ping" of the compose health check.

The worker does two jobs of Dify's for real, which stay undone when no worker runs: texts of a dataset are embedded
(queue `dataset`), and from 1.16.0 on the time an API key was last used is written (queue `api_token`).
"""

from __future__ import annotations

import json
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

import redis

from standin import faults, versions
from standin.api import cache, datasets, db, invoking, settings

HEARTBEAT = "celery-standin:"
HEARTBEAT_SECONDS = 15
STOP = threading.Event()


def _name() -> str:
    return f"celery@{socket.gethostname()}"


def _wait_for_broker() -> redis.Redis:
    """Celery's own words; it does not give up before its hundredth try."""
    client = cache.broker()
    url = settings.text("CELERY_BROKER_URL")
    shown = "redis://:**@" + url.rpartition("@")[2] if "@" in url else url
    for attempt in range(1, 101):
        try:
            client.ping()
            return client
        except redis.RedisError as error:
            print(
                f"[ERROR/MainProcess] consumer: Cannot connect to {shown}: {error}.\nTrying again in 2.00 seconds... "
                f"({attempt}/100)\n",
                file=sys.stderr,
                flush=True,
            )
        if STOP.wait(2):
            raise SystemExit(0)
    raise SystemExit(1)


def _last_used(task: dict[str, Any]) -> None:
    db.execute("UPDATE api_tokens SET last_used_at = now() WHERE token = %s", task["token"])


TASKS: dict[str, Callable[[dict[str, Any]], None]] = {"api_token": _last_used, datasets.QUEUE: datasets.index}


def _perform(queue: str, task: dict[str, Any]) -> None:
    try:
        TASKS[queue](task)
    except db.DatabaseError as error:
        print(f"[ERROR/MainProcess] Task {queue} raised unexpected: {error!r}", file=sys.stderr, flush=True)


def worker() -> int:
    client = _wait_for_broker()
    print(f" -------------- {_name()} v5.5.2\n[INFO/MainProcess] {_name()} ready.", file=sys.stderr, flush=True)
    while not STOP.is_set():
        try:
            client.set(HEARTBEAT + _name(), "worker", ex=HEARTBEAT_SECONDS)
            task = client.blpop(list(TASKS), timeout=2)
        except redis.RedisError:
            print(
                "[WARNING/MainProcess] consumer: Connection to broker lost. Trying to re-establish the connection...",
                file=sys.stderr,
                flush=True,
            )
            client = _wait_for_broker()
            continue
        if task is not None:
            _perform(str(task[0]), json.loads(task[1]))
    client.delete(HEARTBEAT + _name())
    print("worker: Warm shutdown (MainProcess)", file=sys.stderr, flush=True)
    return 0


def beat() -> int:
    _wait_for_broker()
    print("celery beat v5.5.2 is starting.\n[INFO/MainProcess] beat: Starting...", file=sys.stderr, flush=True)
    while not STOP.wait(60):
        try:
            cache.broker().ping()
        except redis.RedisError as error:
            print(
                f"[ERROR/MainProcess] beat: Connection error: {error}. Trying again in 2.0 seconds...",
                file=sys.stderr,
                flush=True,
            )
    return 0


def ping() -> int:
    try:
        names = [key.removeprefix(HEARTBEAT) for key in cache.broker().scan_iter(HEARTBEAT + "*")]
    except redis.RedisError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 69
    if not names:
        print("Error: No nodes replied within time constraint", file=sys.stderr)
        return 69
    for name in names:
        print(f"->  {name}: OK\n        pong")
    print(f"\n{len(names)} node{'s' if len(names) > 1 else ''} online.")
    return 0


def main(arguments: list[str]) -> int:
    if "inspect" in arguments:
        return ping()
    role = "beat" if "beat" in arguments else "worker"
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: STOP.set())
    settings.prepare_storage()
    settings.secret_key()
    faults.at_start(role)
    invoking.load()
    print(f"Dify {versions.current()} {role}", file=sys.stderr, flush=True)
    return beat() if role == "beat" else worker()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
