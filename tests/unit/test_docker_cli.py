# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import types
from typing import Any, cast

from ansible_collections.llmops.stack.plugins.module_utils._docker_cli import secrets


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
