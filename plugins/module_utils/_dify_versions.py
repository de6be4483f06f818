# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""What is known about each Dify release, as data. Nothing else in the collection may compare Dify versions by itself.

A tag that is not in the table (newer than this file, or a hotfix) gets the rules of the nearest release below it and
a plain warning; what cannot be derived (its database head) is empty, never guessed.
"""

from __future__ import annotations

import re
from typing import Any

__all__ = [
    "FEATURES",
    "HEADS",
    "RENAMED_KEYS",
    "daemon_version",
    "is_known",
    "nearest",
    "parse_version",
    "release_info",
    "since",
]

# Alembic revision that `flask db heads` of the release names, oldest release first.
HEADS: dict[str, str] = {
    "0.15.3": "a91b476a53de",
    "1.0.0": "08ec4f75af5e",
    "1.0.1": "f051706725cc",
    "1.1.0": "d20049ed0af6",
    "1.1.1": "d20049ed0af6",
    "1.1.2": "d20049ed0af6",
    "1.1.3": "d20049ed0af6",
    "1.2.0": "6a9f914f656c",
    "1.3.0": "6a9f914f656c",
    "1.3.1": "6a9f914f656c",
    "1.4.0": "d28f2004b072",
    "1.4.1": "2adcbe1f5dfb",
    "1.4.2": "4474872b0ee6",
    "1.4.3": "4474872b0ee6",
    "1.5.0": "0ab65e1cc7fa",
    "1.5.1": "0ab65e1cc7fa",
    "1.6.0": "58eb7bdb93fe",
    "1.7.0": "8bcc02c9bd07",
    "1.7.1": "8bcc02c9bd07",
    "1.7.2": "532b3f888abf",
    "1.8.0": "0e154742a5fa",
    "1.8.1": "b95962a3885c",
    "1.9.0": "68519ad5cd18",
    "1.9.1": "68519ad5cd18",
    "1.9.2": "ae662b25d9bc",
    "1.10.0": "669ffd70119c",
    "1.10.1": "09cfdda155d1",
    "1.10.1-fix.1": "7bb281b7a422",
    "1.11.0": "d57accd375ae",
    "1.11.1": "d57accd375ae",
    "1.11.2": "03ea244985ce",
    "1.11.3": "905527cc8fd3",
    "1.11.4": "905527cc8fd3",
    "1.12.0": "788d3099ae3a",
    "1.12.1": "788d3099ae3a",
    "1.13.0": "fce013ca180e",
    "1.13.1": "6b5f9f8b1a2c",
    "1.13.2": "6b5f9f8b1a2c",
    "1.13.3": "6b5f9f8b1a2c",
    "1.14.0": "227822d22895",
    "1.14.1": "a4f2d8c9b731",
    "1.14.2": "a4f2d8c9b731",
    "1.15.0": "d9e8f7a6b5c4",
    "1.16.0-rc1": "c3d4e5f6a7b8",
    "1.16.0": "7a1c2d9e4b60",
}

# Version of langgenius/dify-plugin-daemon that the release's compose file pins, where it is on record.
_DAEMONS: dict[str, str] = {
    "1.0.0": "0.0.3",
    "1.0.1": "0.0.4",
    "1.1.0": "0.0.5",
    "1.1.3": "0.0.6",
    "1.2.0": "0.0.7",
    "1.3.0": "0.0.8",
    "1.3.1": "0.0.9",
    "1.4.0": "0.0.10",
    "1.4.3": "0.1.2",
    "1.5.0": "0.1.2",
    "1.5.1": "0.1.2",
    "1.6.0": "0.1.3",
    "1.7.0": "0.2.0",
    "1.7.1": "0.2.0",
    "1.7.2": "0.2.0",
    "1.8.0": "0.2.0",
    "1.8.1": "0.2.0",
    "1.9.0": "0.3.0",
    "1.9.1": "0.3.0",
    "1.9.2": "0.3.3",
    "1.10.0": "0.4.1",
    "1.10.1": "0.4.1",
    "1.11.0": "0.5.1",
    "1.11.1": "0.5.1",
    "1.11.2": "0.5.2",
    "1.11.3": "0.5.2",
    "1.11.4": "0.5.2",
    "1.12.0": "0.5.3",
    "1.12.1": "0.5.3",
    "1.13.0": "0.5.3",
    "1.13.1": "0.5.4",
    "1.13.2": "0.5.4",
    "1.13.3": "0.5.3",
    "1.14.0": "0.6.0",
    "1.14.1": "0.6.0",
    "1.14.2": "0.6.1",
    "1.15.0": "0.6.3",
    "1.16.0-rc1": "0.6.3",
    "1.16.0": "0.6.3",
}

# What exists from which release on.
FEATURES: dict[str, str] = {
    "plugin_daemon": "1.0.0",
    "sandbox_conf_mounted": "1.0.0",
    "own_otel": "1.3.0",  # ENABLE_OTEL
    "worker_beat": "1.7.0",
    "mode_migration": "1.7.1",  # MODE=migration in the entry point of the API image
    "cookie_login": "1.9.2",
    "weaviate_1_27": "1.9.2",  # cannot read what 1.19 wrote without a migration, and the reverse
    "db_profile": "1.10.1",  # service db became db_postgres in profile postgresql
    "storage_uid_1001": "1.10.1",
    "init_permissions": "1.11.0",  # the release gives the storage folder to uid 1001 by itself
    "base64_password": "1.11.2",
    "migration_exit_code": "1.13.0",  # before it, a failed migration exits 0
    "api_healthcheck": "1.14.0",
    "vector_doc_type": "1.13.1",  # each search in Weaviate asks for a property that older collections lack
    "sandbox_own_python": "1.13.3",  # the sandbox brings its Python elsewhere than python_path of older settings says
    "daemon_migrate": "1.14.0",  # the plugin daemon makes its tables by a command of its own, not at its start
    "env_layout": "1.14.1",  # .env is an env_file of the containers, optional files under envs/
    "own_secret_key": "1.14.1",  # SECRET_KEY is made by the API where .env has none
    "api_websocket": "1.14.1",
    "model_type_command": "1.15.0",  # flask data-migrate legacy-model-types
    "auto_upgrade_categories": "1.15.0",  # one row of a workspace's plugin upgrade setting became six
    "agent_services": "1.16.0",
    "model_types_strict": "1.17.0",  # rows with a model type's old name are rejected
}

# Lowest Compose that can read the release's file (a pair: from this release, this Compose). 2.18.0 is what
# community.docker.docker_compose_v2 needs; 2.20.0 brought `depends_on.<service>.required`, 2.24.0 `env_file.required`;
# 2.35.0 is what Dify's own documentation asks for with 1.18.0.
_COMPOSE: tuple[tuple[str, str], ...] = (
    ("0.15.3", "2.18.0"),
    ("1.10.1", "2.20.0"),
    ("1.14.1", "2.24.0"),
    ("1.18.0", "2.35.0"),
)

# Dify's README asks for two cores and 4 GiB in every release.
_MIN_CPUS = 2
_MIN_MEMORY_MB = 4096

# Keys of .env that were renamed: an old name that a release does not know any more is reported with its successor.
RENAMED_KEYS: dict[str, str] = {
    "PGUSER": "DB_USERNAME",
    "POSTGRES_USER": "DB_USERNAME",
    "POSTGRES_PASSWORD": "DB_PASSWORD",
    "POSTGRES_DB": "DB_DATABASE",
    "MYSQL_USERNAME": "DB_USERNAME",
    "MYSQL_PASSWORD": "DB_PASSWORD",
    "MYSQL_DATABASE": "DB_DATABASE",
    "PUBSUB_REDIS_URL": "EVENT_BUS_REDIS_URL",
    "PUBSUB_REDIS_CHANNEL_TYPE": "EVENT_BUS_REDIS_CHANNEL_TYPE",
    "PUBSUB_REDIS_USE_CLUSTERS": "EVENT_BUS_REDIS_USE_CLUSTERS",
    "DIFY_AGENT_SHELLCTL_AUTH_TOKEN": "DIFY_AGENT_LOCAL_SANDBOX_AUTH_TOKEN",
}

_TAG = re.compile(r"(\d+)\.(\d+)\.(\d+)(?:-(alpha|beta|rc|fix)\.?(\d+)?)?")
_STAGE = {"alpha": -3, "beta": -2, "rc": -1, None: 0, "fix": 1}


def parse_version(tag: str) -> tuple[int, int, int, int, int]:
    """A key that sorts tags: 1.16.0-rc1 < 1.16.0, and 1.10.1 < 1.10.1-fix.1 < 1.11.0.

    Raises:
        ValueError: this is no release tag of Dify.
    """
    found = _TAG.fullmatch(tag)
    if not found:
        raise ValueError(f"'{tag}' is not a release tag of Dify; tags look like 1.12.1 or 1.10.1-fix.1, no leading v")
    major, minor, patch, stage, number = found.groups()
    return int(major), int(minor), int(patch), _STAGE[stage], int(number or 0)


def since(tag: str, feature: str) -> bool:
    """Whether release `tag` has `feature` (a key of FEATURES)."""
    first = parse_version(FEATURES[feature])
    # A release candidate already has what its release brings.
    return parse_version(tag)[:3] >= first[:3]


def is_known(tag: str) -> bool:
    return tag in HEADS


def daemon_version(tag: str) -> str:
    """Version of the plugin daemon of a known release: where none is on record, that of the release before it."""
    if not is_known(tag) or not since(tag, "plugin_daemon"):
        return ""
    wanted = parse_version(tag)
    return _DAEMONS[max((one for one in _DAEMONS if parse_version(one) <= wanted), key=parse_version)]


def nearest(tag: str) -> str:
    """The newest known release that is not newer than `tag`; the oldest known one for anything older."""
    wanted = parse_version(tag)
    below = [known for known in HEADS if parse_version(known) <= wanted]
    return max(below, key=parse_version) if below else min(HEADS, key=parse_version)


def release_info(tag: str) -> dict[str, Any]:
    """Everything known about one release.

    Returns:
        C(tag), C(known), C(nearest), C(warning) (empty when known), C(head), C(plugin_daemon_version) (both empty when
        unknown), C(compose_min), C(min_cpus), C(min_memory_mb), C(storage_uid), and each key of FEATURES as a boolean.

    Raises:
        ValueError: this is no release tag of Dify.
    """
    wanted = parse_version(tag)
    compose_min = _COMPOSE[0][1]
    for first, version in _COMPOSE:
        if wanted[:3] >= parse_version(first)[:3]:
            compose_min = version
    features: dict[str, Any] = {name: since(tag, name) for name in FEATURES}
    return {
        "tag": tag,
        "known": is_known(tag),
        "nearest": nearest(tag),
        "warning": _warning(tag),
        "head": HEADS.get(tag, ""),
        "plugin_daemon_version": _DAEMONS.get(tag, ""),
        "compose_min": compose_min,
        "min_cpus": _MIN_CPUS,
        "min_memory_mb": _MIN_MEMORY_MB,
        "storage_uid": 1001 if features["storage_uid_1001"] else 0,
        **features,
    }


def _warning(tag: str) -> str:
    if is_known(tag):
        return ""
    order = sorted(HEADS, key=parse_version)
    if parse_version(tag) < parse_version(order[0]):
        return (
            f"Dify {tag} is older than {order[0]}, the oldest release this collection was made for; "
            f"it is treated like {order[0]} and nothing about it was tested."
        )
    return (
        f"Dify {tag} is not in this collection's table of releases (newest: {order[-1]}); it is treated like "
        f"{nearest(tag)}, and its database head is unknown, so the head is not checked."
    )
