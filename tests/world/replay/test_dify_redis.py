# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lock of a migration and stale caches, on a real Redis."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import redis
from ansible_collections.llmops.stack.plugins.module_utils import _dify_redis as dify_redis
from project_local import LocalProject

SERVICE = "redis"


@pytest.fixture
def client(redis_server: Any) -> redis.Redis:
    found = redis.Redis(host=redis_server.host, port=redis_server.port, password=redis_server.password, db=5)
    found.flushdb()
    return found


@pytest.fixture
def project(redis_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalProject:
    # The release's own Redis is known by the name of its host, which here must be an address.
    monkeypatch.setattr(dify_redis, "OWN_SERVICE", redis_server.host)
    settings = {
        "REDIS_HOST": redis_server.host,
        "REDIS_PORT": str(redis_server.port),
        "REDIS_PASSWORD": redis_server.password,
        "REDIS_DB": "5",
    }
    made = LocalProject(tmp_path, settings)
    made.found[redis_server.host] = made.found[SERVICE]
    return made


def test_the_lock_of_a_migration(project: LocalProject, client: redis.Redis) -> None:
    assert dify_redis.lock_ttl_ms(project) == 0
    assert not dify_redis.delete_lock(project)
    client.set(dify_redis.LOCK, "token", px=60_000)
    assert 50_000 < dify_redis.lock_ttl_ms(project) <= 60_000
    assert dify_redis.delete_lock(project)
    assert not client.exists(dify_redis.LOCK)


def test_a_lock_without_an_end(project: LocalProject, client: redis.Redis) -> None:
    client.set(dify_redis.LOCK, "token")
    assert dify_redis.lock_ttl_ms(project) == -1


def test_a_lock_of_an_installation_that_shares_its_redis(project: LocalProject, client: redis.Redis) -> None:
    project.env["REDIS_KEY_PREFIX"] = "ours"
    client.set(f"ours:{dify_redis.LOCK}", "token", px=60_000)
    assert dify_redis.lock_ttl_ms(project) > 0
    assert dify_redis.delete_lock(project)


def test_keys_by_pattern(project: LocalProject, client: redis.Redis) -> None:
    client.mset({f"tenant_privkey:{number}": 1 for number in range(2500)})
    client.mset({"provider_model_credentials:a": 1, "login_error_rate_limit:b": 1})
    assert dify_redis.delete_keys(project, ["tenant_privkey:*", "provider_model_credentials:*"]) == 2501
    assert client.keys("*") == [b"login_error_rate_limit:b"]
    assert dify_redis.delete_keys(project, []) == 0


def test_a_wrong_password_is_said_and_not_shown(project: LocalProject, client: redis.Redis) -> None:
    project.env["REDIS_PASSWORD"] = "not-this-one"
    with pytest.raises(dify_redis.RedisError, match=r"WRONGPASS|NOAUTH") as caught:
        dify_redis.lock_ttl_ms(project)
    assert "not-this-one" not in str(caught.value) + project.commands


def test_a_redis_that_is_not_there(project: LocalProject) -> None:
    project.env["REDIS_PORT"] = "1"
    with pytest.raises(dify_redis.RedisError, match="Connection refused"):
        dify_redis.delete_lock(project)


def test_a_redis_whose_container_is_stopped(project: LocalProject) -> None:
    project.found[SERVICE].state = "exited"
    with pytest.raises(dify_redis.RedisError, match="is exited"):
        dify_redis.delete_lock(project)


@pytest.mark.parametrize("key", ["REDIS_USE_SENTINEL", "REDIS_USE_CLUSTERS"])
def test_what_cannot_be_asked_is_said(project: LocalProject, key: str) -> None:
    project.env[key] = "true"
    with pytest.raises(dify_redis.RedisError, match=key):
        dify_redis.lock_ttl_ms(project)


def test_a_redis_outside_is_asked_from_a_container_of_its_own(
    project: LocalProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dify_redis, "OWN_SERVICE", "redis")
    assert dify_redis.lock_ttl_ms(project) == 0
    assert "--network dify_default" in project.commands
