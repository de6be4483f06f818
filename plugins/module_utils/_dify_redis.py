# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""The few things of Dify's Redis that an upgrade has to know: the lock of the migration, and caches that must go.

redis-cli runs in the release's own Redis container, or, for a Redis outside the project, in a container of the same
image on the project's network. It ends with 0 even when the server refused, so only an answer of the right form counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._dify_network import reachable_image
from ansible_collections.llmops.stack.plugins.module_utils._docker_cli import DockerError, last_line, mask

__all__ = ["LOCK", "RedisError", "delete_keys", "delete_lock", "lock_ttl_ms"]

# What `flask upgrade-db` holds while it works, in every release, for 60 s at a time.
LOCK = "db_upgrade_lock"
OWN_SERVICE = "redis"
IMAGE = "redis:6-alpine"
_TIMEOUT = 30.0
_NUMBER = re.compile(r"-?\d+")
_DELETE = """
local deleted = 0
for _, pattern in ipairs(ARGV) do
  local cursor = '0'
  repeat
    local found = redis.call('SCAN', cursor, 'MATCH', pattern, 'COUNT', 1000)
    cursor = found[1]
    for _, key in ipairs(found[2]) do deleted = deleted + redis.call('DEL', key) end
  until cursor == '0'
end
return deleted
"""


class RedisError(Exception):
    """Redis, or the way to it, did not do what was asked: one sentence without its full stop."""


def lock_ttl_ms(project: Any, tag: str = "") -> int:
    """How long the lock of a migration still holds: 0 when there is none, -1 when it holds for ever."""
    left = [_number(project, tag, "PTTL", key) for key in _names(project, tag, LOCK)]
    held = [one for one in left if one != -2]
    return -1 if -1 in held else max(held, default=0)


def delete_lock(project: Any, tag: str = "") -> bool:
    """Take the lock away, whoever holds it: the caller knows that its owner is gone. Whether there was one."""
    return bool(_number(project, tag, "DEL", *_names(project, tag, LOCK)))


def delete_keys(project: Any, patterns: Iterable[str], tag: str = "") -> int:
    """Delete the keys of Dify's database that match one of the patterns (those of KEYS); how many there were."""
    wanted = [name for pattern in patterns for name in _names(project, tag, pattern)]
    return _number(project, tag, "EVAL", _DELETE, "0", *wanted) if wanted else 0


def _names(project: Any, tag: str, key: str) -> list[str]:
    """The key, and how newer releases call it for an installation that shares its Redis."""
    prefix = project.settings(tag).get("REDIS_KEY_PREFIX") or ""
    return [key, f"{prefix}:{key}"] if prefix else [key]


def _number(project: Any, tag: str, *command: str) -> int:
    settings = project.settings(tag)
    for key, what in (("REDIS_USE_SENTINEL", "sentinels"), ("REDIS_USE_CLUSTERS", "a cluster")):
        if (settings.get(key) or "").lower() == "true":
            raise RedisError(f"Redis is reached through {what} ({key}), which this collection cannot ask")
    host, password = settings.get("REDIS_HOST") or OWN_SERVICE, settings.get("REDIS_PASSWORD") or ""
    argv = ["redis-cli", "-h", host, "-p", settings.get("REDIS_PORT") or "6379", "-n", settings.get("REDIS_DB") or "0"]
    if settings.get("REDIS_USERNAME"):
        argv += ["--user", settings["REDIS_USERNAME"]]
    if (settings.get("REDIS_USE_SSL") or "").lower() == "true":
        checked = (settings.get("REDIS_SSL_CERT_REQS") or "CERT_NONE") != "CERT_NONE"
        argv += ["--tls", *([] if checked else ["--insecure"])]
    said = _run(project, host, {"REDISCLI_AUTH": password} if password else {}, [*argv, *command])
    answer = last_line(said)
    if not _NUMBER.fullmatch(answer):
        # The first line says more: AUTH failed is followed by what was then not allowed.
        why = next((line for line in said.splitlines() if line.strip()), "no answer")
        raise RedisError(mask(f"redis at {host} answered to {command[0]}: {why.strip()}", {password}))
    return int(answer)


def _run(project: Any, host: str, env: dict[str, str], argv: list[str]) -> str:
    names = [part for key in env for part in ("-e", key)]
    limited = ["timeout", f"{_TIMEOUT:g}", *argv]
    try:
        if host == OWN_SERVICE:
            found = project.container(OWN_SERVICE)
            if found is None or not found.running:
                state = f"is {found.state}" if found is not None else "does not exist"
                raise RedisError(f"redis cannot be asked: the container of {OWN_SERVICE} {state}")
            arguments = ["exec", *names, found.id, *limited]
        else:
            options = ["--rm", "--network", f"{project.name}_default", "--entrypoint", ""]
            arguments = ["run", *options, *names, reachable_image(project, IMAGE), *limited]
        _code, out, err = project.docker.run(arguments, _TIMEOUT + 5, env=env)
    except DockerError as exc:
        raise RedisError(f"redis cannot be asked: {exc}") from None
    return err + "\n" + out
