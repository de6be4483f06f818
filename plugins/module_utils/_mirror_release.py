# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Which images a release of Dify starts, as its own archive says: its compose file, its profiles, its vector store."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterable, Mapping

from ansible_collections.llmops.stack.plugins.module_utils._dify_env import Release, render
from ansible_collections.llmops.stack.plugins.module_utils._dify_override import active_services, images, through
from ansible_collections.llmops.stack.plugins.module_utils._dify_release import COMPOSE_FILE, TEMPLATE, load_compose
from ansible_collections.llmops.stack.plugins.module_utils._download import ReleaseError

__all__ = ["elsewhere", "full_name", "read_release", "release_images", "stored_name"]

_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")
# The largest file that is looked at has some 100 KB.
_MAX_TEXT = 16 * 1024 * 1024


def read_release(path: str) -> Release:
    """What a release archive says about itself; nothing is unpacked.

    Raises:
        ReleaseError: it is no release of Dify.
    """
    texts: dict[str, str] = {}
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                parts = member.name.split("/")
                name = "/".join(parts[2:])
                if not member.isreg() or len(parts) < 3 or parts[1] != "docker" or member.size > _MAX_TEXT:
                    continue
                if name in (COMPOSE_FILE, TEMPLATE) or (parts[2] == "envs" and name.endswith(".env.example")):
                    content = archive.extractfile(member)
                    texts[name] = content.read().decode("utf-8", "replace") if content else ""
    except (tarfile.TarError, EOFError, zlib.error) as exc:
        raise ReleaseError(f"{path} is truncated or damaged ({exc}).") from exc
    missing = [name for name in (COMPOSE_FILE, TEMPLATE) if name not in texts]
    if missing:
        raise ReleaseError(f"{path} is no release archive of Dify: it has no docker/{missing[0]}.")
    compose, template = texts.pop(COMPOSE_FILE), texts.pop(TEMPLATE)
    return Release(compose, load_compose(compose, f"docker/{COMPOSE_FILE} of {path}"), template, texts)


def release_images(release: Release, env: Mapping[str, str], own: Mapping[str, str]) -> list[str]:
    """Every image that Compose would start, each once.

    Args:
        release: what the archive says.
        env: those of the operator's keys on which the profiles depend.
        own: images by service that the operator's compose override names.

    Raises:
        EnvError: a key that no .env can hold.
    """
    profiles = render(release, dict(env), {}, {}, "").profiles
    services = active_services(release.compose, profiles)
    found = {**images(release.compose, services), **own}
    return sorted(dict.fromkeys(found.values()))


def full_name(image: str) -> str:
    """With a registry's host and a tag, as an engine completes it."""
    first, _slash, rest = image.partition("/")
    if not rest or not ("." in first or ":" in first or first == "localhost"):
        image = f"docker.io/{image if rest else f'library/{image}'}"
    last = image.rpartition("/")[2]
    return image if ":" in last or "@" in last else f"{image}:latest"


def stored_name(image: str) -> str:
    """Its name in the mirror's registry, which is the one that hosts ask for: repository and tag, or digest."""
    name = through("mirror", image).partition("/")[2]
    return name if ":" in name.rpartition("/")[2] or "@" in name else f"{name}:latest"


def elsewhere(names: Iterable[str]) -> list[str]:
    """What an operator has to know about images that are not from Docker Hub."""
    others = sorted({name for name in names if full_name(name).partition("/")[0] not in _HUB})
    return [
        f"{name} is not from Docker Hub, and an engine asks a mirror for Docker Hub's names only. A host gets it from "
        "the mirror where dify_registry is <mirror>:5000."
        for name in others
    ]
