# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The daemon's Redis: caches, the lock on building an environment, and the node list of a one-node cluster."""

from __future__ import annotations

import json
import time
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from standin.daemon_config import Config

PREFIX = "plugin_daemon:"
LOCK_SECONDS = 900
LOCK_PATIENCE = 120.0


class RedisError(Exception):
    """What the daemon puts into its replies when Redis cannot be asked."""


class Cache:
    def __init__(self, config: Config) -> None:
        options = config.redis
        self._address = f"{options['host']}:{options['port']}"
        self._options: dict[str, Any] = {
            "host": options["host"],
            "port": options["port"],
            "db": options["db"],
            "ssl": options["ssl"],
            "socket_connect_timeout": 2,
            "socket_timeout": 5,
            "decode_responses": True,
            "retry": Retry(NoBackoff(), 0),  # newer clients would try again for seconds
            "username": options["username"] or None,
            "password": options["password"] or None,
        }
        self._client = redis.Redis(**self._options)

    def connect(self) -> None:
        """A password that Redis did not ask for is no error, a missing or wrong one is."""
        try:
            self._client.ping()
        except redis.exceptions.RedisError as error:
            text = str(error)
            if "without any password configured" not in text:
                raise RedisError(self._text(error)) from error
            self._client = redis.Redis(**{**self._options, "username": None, "password": None})
            self._call(self._client.ping)

    def join_cluster(self, node: str) -> None:
        self._call(self._client.set, f"{PREFIX}cluster-master-preemption-lock", node)
        self._call(
            self._client.hset, f"{PREFIX}cluster-nodes-status-hash-map", node, json.dumps({"time": int(time.time())})
        )

    def get(self, key: str) -> Any:
        value = self._call(self._client.get, PREFIX + key)
        return None if value is None else json.loads(value)

    def set(self, key: str, value: Any, seconds: int = 1800) -> None:
        self._call(self._client.set, PREFIX + key, json.dumps(value, default=str), ex=seconds)

    def delete(self, key: str) -> None:
        self._call(self._client.delete, PREFIX + key)

    def lock(self, key: str) -> None:
        """Wait for the lock, at most LOCK_PATIENCE; it outlives a daemon that was killed while it held it."""
        deadline = time.monotonic() + LOCK_PATIENCE
        while not self._call(self._client.set, PREFIX + key, "1", nx=True, ex=LOCK_SECONDS):
            if time.monotonic() > deadline:
                raise RedisError("lock timeout\nfailed to acquire distributed env-init lock")
            time.sleep(0.5)

    def _call(self, function: Any, *args: Any, **options: Any) -> Any:
        try:
            return function(*args, **options)
        except redis.exceptions.RedisError as error:
            raise RedisError(self._text(error)) from error

    def _text(self, error: Exception) -> str:
        text = str(error)
        if "NOAUTH" in text or "Authentication required" in text:
            return "NOAUTH Authentication required."
        if "WRONGPASS" in text or "invalid username-password" in text or "invalid password" in text:
            return "WRONGPASS invalid username-password pair or user is disabled."
        return f"dial tcp {self._address}: connect: connection refused"
