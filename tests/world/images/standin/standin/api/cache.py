# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Redis, as Dify uses it: counters, refresh tokens, locks and caches in REDIS_DB, task queues in the broker's."""

from __future__ import annotations

import functools
from typing import Any

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from standin import versions
from standin.api import settings

RedisError = redis.RedisError


@functools.lru_cache(maxsize=1)
def client() -> redis.Redis:
    options: dict[str, Any] = {}
    if versions.has("redis_retries"):
        # 1.16.0 waits: a Redis that is gone holds a request, and its slot, for a minute.
        options = {
            "socket_timeout": settings.number("REDIS_SOCKET_TIMEOUT", 5),
            "socket_connect_timeout": settings.number("REDIS_SOCKET_CONNECT_TIMEOUT", 5),
            "retry": Retry(
                ExponentialBackoff(
                    cap=settings.number("REDIS_RETRY_BACKOFF_CAP", 10),
                    base=settings.number("REDIS_RETRY_BACKOFF_BASE", 1),
                ),
                settings.number("REDIS_RETRY_RETRIES", 3),
            ),
            "retry_on_error": [redis.ConnectionError, redis.TimeoutError],
        }
    return redis.Redis(
        host=settings.text("REDIS_HOST", "localhost"),
        port=settings.number("REDIS_PORT", 6379),
        username=settings.text("REDIS_USERNAME") or None,
        password=settings.text("REDIS_PASSWORD") or None,
        db=settings.number("REDIS_DB", 0),
        decode_responses=True,
        **options,
    )


def plain_client() -> redis.Redis:
    """Without retries: upgrade-db gives up at once in every release."""
    return redis.Redis(
        host=settings.text("REDIS_HOST", "localhost"),
        port=settings.number("REDIS_PORT", 6379),
        username=settings.text("REDIS_USERNAME") or None,
        password=settings.text("REDIS_PASSWORD") or None,
        db=settings.number("REDIS_DB", 0),
        decode_responses=True,
    )


def broker() -> redis.Redis:
    return redis.Redis.from_url(settings.text("CELERY_BROKER_URL", "redis://localhost:6379/1"), decode_responses=True)


def get(key: str) -> str | None:
    found = client().get(key)
    return found.decode() if isinstance(found, bytes) else found
