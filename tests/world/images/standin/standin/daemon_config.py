# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The daemon's configuration, and the words in which it refuses a wrong one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from standin.daemon_versions import Generation

# What the image sets and a compose file therefore leaves out.
IMAGE_ENVIRONMENT = {
    "PLATFORM": "local",
    "PLUGIN_STORAGE_LOCAL_ROOT": "/app/storage",
    "UV_PATH": "/usr/local/bin/uv",
}
REQUIRED = (
    ("SERVER_KEY", "ServerKey"),
    ("DIFY_INNER_API_URL", "DifyInnerApiURL"),
    ("DIFY_INNER_API_KEY", "DifyInnerApiKey"),
    ("PLATFORM", "Platform"),
    ("DB_USERNAME", "DBUsername"),
    ("DB_PASSWORD", "DBPassword"),
    ("DB_HOST", "DBHost"),
    ("DB_DATABASE", "DBDatabase"),
)
INTEGERS = (
    ("SERVER_PORT", "ServerPort", "uint16"),
    ("DB_PORT", "DBPort", "uint16"),
    ("REDIS_PORT", "RedisPort", "uint16"),
)
LOG_LEVELS = ("DEBUG", "INFO", "WARN", "ERROR")


class StartError(Exception):
    """The daemon cannot start: the log line, and the exit status."""

    def __init__(self, text: str, status: int, error: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.status = status
        self.error = error


@dataclass(frozen=True)
class Config:
    host: str
    port: int
    key: str
    working_path: Path
    storage_root: str
    installed_path: Path
    package_path: Path
    media_path: Path
    max_package_size: int
    execution_timeout: float
    force_signature: bool
    third_party_keys: tuple[str, ...]
    remote_installing: bool
    launching_concurrent: int
    uv: str
    python: str
    index: str
    index_arguments: tuple[str, ...]
    compile_arguments: tuple[str, ...]
    env_init_seconds: float
    database: dict[str, str]
    default_database: str
    redis: dict[str, str | int | bool]


def is_true(value: str | None, default: bool = False) -> bool:
    return default if not value else value.strip().lower() in ("true", "1", "t")


def container_environment() -> dict[str, str]:
    """This process's environment, completed as the image would when this is the image."""
    in_image = os.environ.get("STANDIN") == "plugin_daemon"
    return {**(IMAGE_ENVIRONMENT if in_image else {}), **{key: value for key, value in os.environ.items() if value}}


def load(env: Mapping[str, str], behaviour: Generation) -> Config:
    """Raises StartError for what the real daemon refuses to start with."""
    for name, field, kind in INTEGERS:
        if env.get(name) and not env[name].isdigit():
            error = (
                f"envconfig.Process: assigning {name} to {field}: converting '{env[name]}' to type {kind}. details: "
                f'strconv.ParseUint: parsing "{env[name]}": invalid syntax'
            )
            raise StartError("error processing environment variables", 2, error)
    if behaviour.metrics and env.get("LOG_LEVEL", "INFO").upper() not in LOG_LEVELS:
        raise StartError(
            "failed to init logger",
            2,
            f'invalid LOG_LEVEL "{env["LOG_LEVEL"]}". Valid values are: {", ".join(LOG_LEVELS)}',
        )
    error = _problem(env)
    if error:
        raise StartError("invalid configuration", behaviour.failure_exit, error)
    if is_true(env.get("ADMIN_API_ENABLED")) and len(env.get("ADMIN_API_KEY", "")) < 10 and behaviour.counts_requests:
        raise StartError("length of admin api key must be greater than 10", behaviour.failure_exit)
    root = Path(env.get("PLUGIN_STORAGE_LOCAL_ROOT", "storage"))
    return Config(
        host=env.get("SERVER_HOST", "0.0.0.0"),
        port=int(env.get("SERVER_PORT", "5002")),
        key=env["SERVER_KEY"],
        working_path=Path(env["PLUGIN_WORKING_PATH"]).absolute(),
        storage_root=str(root),
        installed_path=root / env.get("PLUGIN_INSTALLED_PATH", "plugin"),
        package_path=root / env.get("PLUGIN_PACKAGE_CACHE_PATH", "plugin_packages"),
        media_path=root / env.get("PLUGIN_MEDIA_CACHE_PATH", "assets"),
        max_package_size=int(env.get("MAX_PLUGIN_PACKAGE_SIZE", "52428800")),
        execution_timeout=float(env.get("PLUGIN_MAX_EXECUTION_TIMEOUT", "600")),
        force_signature=is_true(env.get("FORCE_VERIFYING_SIGNATURE"), default=True),
        third_party_keys=_third_party_keys(env),
        remote_installing=is_true(env.get("PLUGIN_REMOTE_INSTALLING_ENABLED"), default=True),
        launching_concurrent=int(env.get("PLUGIN_LOCAL_LAUNCHING_CONCURRENT", "2")),
        uv=env.get("UV_PATH", "uv"),
        python=env.get("PYTHON_INTERPRETER_PATH", "/usr/bin/python3"),
        index=env.get("PIP_MIRROR_URL", ""),
        index_arguments=tuple(env.get("PIP_EXTRA_ARGS", "").split()),
        compile_arguments=tuple(env.get("PYTHON_COMPILE_ALL_EXTRA_ARGS", "").split()),
        env_init_seconds=float(env.get("PYTHON_ENV_INIT_TIMEOUT", "120")),
        database={
            "host": env["DB_HOST"],
            "port": env.get("DB_PORT", "5432"),
            "user": env["DB_USERNAME"],
            "password": env["DB_PASSWORD"],
            "dbname": env["DB_DATABASE"],
            "sslmode": env.get("DB_SSL_MODE", "disable"),
        },
        default_database=env.get("DB_DEFAULT_DATABASE", "postgres"),
        redis={
            "host": env.get("REDIS_HOST", "localhost"),
            "port": int(env.get("REDIS_PORT", "6379")),
            "username": env.get("REDIS_USERNAME", ""),
            "password": env.get("REDIS_PASSWORD", ""),
            "ssl": is_true(env.get("REDIS_USE_SSL")),
            "db": int(env.get("REDIS_DB", "0")) if behaviour.reads_redis_db else 0,
        },
    )


def _problem(env: Mapping[str, str]) -> str:
    failed = [_failed(field, "required") for name, field in REQUIRED if not env.get(name)]
    if env.get("DB_SSL_MODE", "disable") not in ("disable", "require"):
        failed.append(_failed("DBSslMode", "oneof"))
    if failed:
        return "\n".join(failed)
    if env["PLATFORM"] not in ("local", "serverless"):
        return "invalid platform"
    if not env.get("PLUGIN_WORKING_PATH"):
        return "plugin working path is empty"
    if is_true(env.get("PLUGIN_REMOTE_INSTALLING_ENABLED"), default=True):
        for part in ("host", "port"):
            if not env.get(f"PLUGIN_REMOTE_INSTALLING_{part.upper()}"):
                return f"plugin remote installing {part} is empty"
    return ""


def _failed(field: str, rule: str) -> str:
    return f"Key: 'Config.{field}' Error:Field validation for '{field}' failed on the '{rule}' tag"


def _third_party_keys(env: Mapping[str, str]) -> tuple[str, ...]:
    if not is_true(env.get("THIRD_PARTY_SIGNATURE_VERIFICATION_ENABLED")):
        return ()
    names = env.get("THIRD_PARTY_SIGNATURE_VERIFICATION_PUBLIC_KEYS", "").split(",")
    return tuple(name.strip() for name in names if name.strip())
