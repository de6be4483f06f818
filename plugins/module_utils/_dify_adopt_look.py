# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Looking at a Dify that was set up by hand: its folder, and the containers that Compose made from it."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._dify_adopt import Found, Mount, Old
from ansible_collections.llmops.stack.plugins.module_utils._dify_env import is_sensitive
from ansible_collections.llmops.stack.plugins.module_utils._docker_cli import Docker, DockerError

__all__ = [
    "COMPOSE_NAMES",
    "TAKEN_ENDING",
    "beforehand",
    "compose_folder",
    "containers_of",
    "differences",
    "edited",
    "look",
    "old_container",
    "strangers",
]

COMPOSE_NAMES = ("docker-compose.yaml", "docker-compose.yml")
TAKEN_ENDING = ".adopted"
_LABEL = "com.docker.compose."
_LOOK = 60.0
# What a container must find again at the same place: everything that is not part of the release itself.
_THE_SAME = ("SECRET_KEY", "DB_PASSWORD", "DB_HOST", "DB_DATABASE", "DB_USERNAME", "STORAGE_TYPE", "VECTOR_STORE")


def compose_folder(folder: str) -> str:
    """The folder with the compose file: the one that was named, or C(docker) in it, as a git checkout has it.

    Once it was taken over, the file has the ending that finish() gives it.
    """
    names = [*COMPOSE_NAMES, *(f"{name}{TAKEN_ENDING}" for name in COMPOSE_NAMES)]
    for candidate in (os.path.join(folder, "docker"), folder):
        if any(os.path.isfile(os.path.join(candidate, name)) for name in names):
            return candidate
    return folder


def look(folder: str, docker: Docker) -> Found:
    """What there is.

    Raises:
        DockerError: the engine does not answer.
    """
    folder = os.path.realpath(compose_folder(folder))
    compose = next((name for name in COMPOSE_NAMES if os.path.isfile(os.path.join(folder, name))), "")
    containers = containers_of(folder, docker)
    return Found(
        folder=folder,
        compose_text=_read(folder, compose) if compose else "",
        env_text=_settings(folder, ".env"),
        template=_settings(folder, ".env.example"),
        has_override=any(
            os.path.isfile(os.path.join(folder, f"docker-compose.override.{end}")) for end in ("yaml", "yml")
        ),
        database_files=bool(_names(folder, "volumes", "db", "data")),
        storage_key=_read(folder, "volumes", "app", "storage", ".dify_secret_key").strip(),
        certificates=[name for name in _names(folder, "nginx", "ssl") if not name.startswith(".")],
        containers=containers,
        strangers=strangers(folder, containers, docker),
        postmaster=_first(folder, "volumes/db/data/pgdata/postmaster.pid", "volumes/db/data/postmaster.pid"),
    )


def containers_of(folder: str, docker: Docker) -> list[Old]:
    """The containers that Compose made from this folder, whatever the project is called; one-off ones left out.

    Raises:
        DockerError: the engine does not answer.
    """
    arguments = ["ps", "-a", "-q", "--no-trunc", "--filter", f"label={_LABEL}project.working_dir"]
    ids = docker.output(arguments, _LOOK).split()
    described = _inspected(ids, docker)
    ours = [
        one
        for one in described
        if os.path.realpath(_labels(one).get(_LABEL + "project.working_dir", "")) == folder
        and _labels(one).get(_LABEL + "oneoff", "False") != "True"
    ]
    return sorted((old_container(one) for one in ours), key=lambda one: one.name)


def strangers(folder: str, known: list[Old], docker: Docker) -> list[str]:
    """Names of running containers that write to the data in this folder, and are not the ones known to.

    A mount is told by the folder that the container's process really sees: what the engine says of its source is wrong
    once somebody has moved it, and another one where the same disk is mounted twice.

    Raises:
        DockerError: the engine does not answer.
    """
    volumes = os.path.join(folder, "volumes")
    data = {_identity(place) for place in _folders(volumes, 3)} - {None}
    described = _inspected(docker.output(["ps", "-q", "--no-trunc"], _LOOK).split(), docker)
    ours = {one.id for one in known}
    found = []
    for one in described:
        process = f"/proc/{(one.get('State') or {}).get('Pid') or 0}/root"
        for mount in one.get("Mounts") or []:
            if mount.get("Type") != "bind" or not mount.get("RW", True):
                continue
            source = os.path.realpath(str(mount.get("Source", "")))
            seen = _identity(process + str(mount.get("Destination", "")))
            if seen in data or _within(source, os.path.realpath(volumes)):
                found.append((str(one.get("Id", "")), str(one.get("Name", "")).lstrip("/")))
    return sorted({name for number, name in found if number not in ours})


def old_container(described: Mapping[str, Any]) -> Old:
    host, config = described.get("HostConfig") or {}, described.get("Config") or {}
    return Old(
        id=str(described.get("Id", "")),
        name=str(described.get("Name", "")).lstrip("/"),
        service=_labels(described).get(_LABEL + "service", ""),
        image=str(config.get("Image", "")),
        state=str((described.get("State") or {}).get("Status", "")),
        policy=str((host.get("RestartPolicy") or {}).get("Name") or "no"),
        project=_labels(described).get(_LABEL + "project", ""),
        env=dict(pair.split("=", 1) for pair in config.get("Env") or [] if "=" in pair),
        mounts=[_mount(one) for one in described.get("Mounts") or []],
        ports={
            port: [(str(one.get("HostIp") or ""), str(one.get("HostPort") or "")) for one in bindings or []]
            for port, bindings in (host.get("PortBindings") or {}).items()
        },
    )


def differences(folder: str, containers: list[Old], definition: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """What the containers there have and the project that takes their place would not have.

    Args:
        folder: the one that they were made from; what it has beside C(volumes) is the release's own.
        definition: what C(docker compose config) says of the new project.

    Returns:
        Sentences that speak against it (data, secrets, services that nobody would start), and others to know. None
        holds the value of a secret.
    """
    services = definition.get("services") or {}
    against, known = [], []
    changed: dict[tuple[str, ...], list[str]] = {}
    for one in containers:
        described = services.get(one.service)
        if described is None:
            if one.running:
                against.append(
                    f"{one.service} runs beside Dify there and would not be started any more. Put it into "
                    "dify_compose_override, or give it a Compose project of its own."
                )
            continue
        against += _lost_mounts(folder, one, described)
        ours = {str(key): str(value or "") for key, value in (described.get("environment") or {}).items()}
        if one.service in ("api", "worker"):
            other = [key for key in _THE_SAME if key in one.env and key in ours and ours[key] != one.env[key]]
            against += [f"{one.service} runs with another {key} there than it would here." for key in other]
        image = str(described.get("image", ""))
        if image.rpartition(":")[2] != one.image.rpartition(":")[2]:
            known.append(f"{one.service} has the image {one.image} there and {image} here.")
        # Passwords of stores that nobody uses are made anew, and only fill the list.
        keys = [key for key, value in ours.items() if one.env.get(key, value) != value and not is_sensitive(key, value)]
        if keys:
            changed.setdefault(tuple(sorted(keys)), []).append(one.service)
    known += [f"{', '.join(names)}: other values of {', '.join(keys)}." for keys, names in changed.items()]
    return list(dict.fromkeys(against)), known


def _lost_mounts(folder: str, one: Old, described: Mapping[str, Any]) -> list[str]:
    """Folders that the container writes and that its successor would find elsewhere, or not at all."""
    ours = {
        str(each.get("target", "")).rstrip("/"): os.path.realpath(str(each.get("source", "")))
        for each in described.get("volumes") or []
        if each.get("type") == "bind"
    }
    lost = []
    for mount in one.mounts:
        target = mount.target.rstrip("/")
        if mount.kind != "bind" or not mount.writable or not os.path.isdir(mount.source):
            continue
        if _within(mount.source, folder) and not _within(
            mount.source, os.path.realpath(os.path.join(folder, "volumes"))
        ):
            continue
        if ours.get(target) != mount.source:
            lost.append(
                f"{one.service} keeps {target} in {mount.source} there, and here it would be "
                f"{ours.get(target) or 'nowhere'}. Mount that folder with dify_compose_override, or make the one that "
                "Dify expects a link to it."
            )
    return lost


def beforehand(found: Found) -> list[str]:
    """What will have to be said in dify_compose_override, as far as it shows before a release is rendered."""
    folder = found.folder
    own = (folder, os.path.realpath(os.path.join(folder, "volumes")))
    said = []
    for one in found.containers:
        if one.running and not re.search(rf"(?m)^  ['\"]?{re.escape(one.service)}['\"]?:", found.compose_text):
            said.append(
                f"{one.service} runs beside Dify there and is not in Dify's compose file: put it into "
                "dify_compose_override, or give it a Compose project of its own."
            )
        for mount in one.mounts:
            outside = not any(_within(mount.source, place) for place in own)
            if mount.kind == "bind" and mount.writable and outside and os.path.isdir(mount.source):
                said.append(
                    f"{one.service} keeps {mount.target} in {mount.source}, outside of {folder}: mount it with "
                    "dify_compose_override."
                )
    return said


def edited(folder: str, shipped: Mapping[str, str]) -> list[str]:
    """Files of the release that are not what the release has any more; data and settings are not among them.

    Args:
        shipped: path below the release and sha256 of each file, as the release was unpacked here.
    """
    found = []
    for name, digest in shipped.items():
        path = os.path.join(folder, name)
        if name.startswith(("volumes", ".env")) or not os.path.isfile(path):
            continue
        with open(path, "rb") as file:
            if hashlib.sha256(file.read()).hexdigest() != digest:
                found.append(name)
    return sorted(found)


def _folders(top: str, levels: int) -> list[str]:
    """The folder and those below it, as far down as Dify mounts any."""
    found = [top]
    if levels:
        for name in _names(top):
            place = os.path.join(top, name)
            if os.path.isdir(place) and not os.path.islink(place):
                found += _folders(place, levels - 1)
    return found


def _identity(path: str) -> tuple[int, int] | None:
    try:
        seen = os.stat(path)
    except OSError:
        return None
    return (seen.st_dev, seen.st_ino)


def _first(folder: str, *names: str) -> str:
    return next((path for path in (os.path.join(folder, name) for name in names) if os.path.isfile(path)), "")


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _inspected(ids: list[str], docker: Docker) -> list[dict[str, Any]]:
    if not ids:
        return []
    # A container that went away meanwhile makes inspect exit 1 and still print the others.
    _code, out, err = docker.run(["inspect", "--type", "container", *ids], _LOOK)
    try:
        found = json.loads(out)
    except ValueError:
        raise DockerError(f"docker inspect failed: {err.strip() or 'no answer'}") from None
    return [one for one in found if isinstance(one, dict)]


def _settings(folder: str, ending: str) -> str:
    """C(.env), and from 1.14.1 on the files below C(envs) as well, which count for less and so come first."""
    found = []
    for place, folders, names in os.walk(os.path.join(folder, "envs")):
        folders.sort()
        found += [_read(place, name) for name in sorted(names) if name.endswith(ending)]
    return "\n".join([*found, _read(folder, ending)])


def _mount(described: Mapping[str, Any]) -> Mount:
    kind = str(described.get("Type", ""))
    source = str(described.get("Name") if kind == "volume" else described.get("Source", ""))
    return Mount(
        kind=kind,
        source=os.path.realpath(source) if kind == "bind" else source,
        target=str(described.get("Destination", "")),
        writable=bool(described.get("RW", True)),
    )


def _labels(described: Mapping[str, Any]) -> dict[str, str]:
    return (described.get("Config") or {}).get("Labels") or {}


def _read(*path: str) -> str:
    try:
        with open(os.path.join(*path), encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _names(*path: str) -> list[str]:
    try:
        return sorted(os.listdir(os.path.join(*path)))
    except OSError:
        return []
