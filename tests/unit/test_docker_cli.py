# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import pathlib
import types
from typing import Any, cast

import pytest
from ansible_collections.llmops.stack.plugins.module_utils._docker_cli import Docker, DockerError, secrets


def test_addresses_in_the_environment_are_no_secrets_and_what_may_hold_a_login_is() -> None:
    env = {
        "OLLAMA_API_BASE_URL": "host.docker.internal:11434",
        "MARKETPLACE_API_URL": "https://marketplace.example.com",
        "CELERY_BROKER_URL": "redis://:s3cret@redis:6379/1",
        "SIGNED_URL": "https://files.example.com/?token=abc",
        "DB_PASSWORD": "letmein:12345",
        "SECRET_KEY": "short",
        "LOG_LEVEL": "WARNING",
    }
    container = types.SimpleNamespace(env=env)
    assert secrets([cast(Any, container)]) == {env[name] for name in ("CELERY_BROKER_URL", "SIGNED_URL", "DB_PASSWORD")}


ONE = cast(Any, types.SimpleNamespace(id="c1"))


@pytest.fixture
def docker(tmp_path: pathlib.Path) -> Docker:
    """One that does what its script says."""
    script = tmp_path / "docker"
    script.write_text(f'#!/bin/sh\necho "$*" >{tmp_path}/asked\n. {tmp_path}/does\n')
    script.chmod(0o755)
    return Docker(str(script))


def does(docker: Docker, script: str) -> None:
    pathlib.Path(docker.program).with_name("does").write_text(script)


def test_a_log_of_any_size_is_read_up_to_a_limit(docker: Docker) -> None:
    does(docker, "yes line")
    assert docker.logs(ONE, 20, "--since", "7.5", limit=100_000) == "line\n" * 20_000
    assert pathlib.Path(docker.program).with_name("asked").read_text() == "logs --since 7.5 c1\n"
    does(docker, "echo out; echo err >&2")
    assert docker.logs(ONE, 20) == "out\nerr\n"


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'Error: No such container: c1' >&2; exit 1", "docker logs failed: Error: No such container: c1"),
        ("echo some; exec sleep 60", "docker logs did not finish within 0.3 s"),
    ],
)
def test_a_log_that_cannot_be_had(docker: Docker, script: str, said: str) -> None:
    does(docker, script)
    with pytest.raises(DockerError, match=said):
        docker.logs(ONE, 0.3)
    with pytest.raises(DockerError, match="cannot be started"):
        Docker("/nonexistent/docker").logs(ONE, 1)


def test_docker_gets_the_environment_as_it_is(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose takes its variables before those of .env: one that we set would be that of the containers."""
    script = tmp_path / "docker"
    script.write_text("#!/bin/sh\nenv\n")
    script.chmod(0o755)
    monkeypatch.delenv("LC_ALL", raising=False)
    out = Docker(str(script)).output(["compose", "up"], 10)
    assert "LC_ALL" not in out and f"PATH={os.environ['PATH']}" in out
