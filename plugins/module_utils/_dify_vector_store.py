# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""The vector store that a Dify has, and its vectors in files, for those that look at it, back it up and restore it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ansible_collections.llmops.stack.plugins.module_utils import _dify_vector_copy as copying
from ansible_collections.llmops.stack.plugins.module_utils._dify_compose import Project
from ansible_collections.llmops.stack.plugins.module_utils._docker_cli import DockerError
from ansible_collections.llmops.stack.plugins.module_utils._weaviate import Weaviate, WeaviateError

__all__ = [
    "DATA",
    "SERVICE",
    "START",
    "VectorStore",
    "connect",
    "data_folder",
    "describe",
    "export",
    "restore",
    "size",
    "store",
]

SERVICE = "weaviate"
DATA = "/var/lib/weaviate"
START = 120.0  # seconds that a Weaviate with much data may take to load it


class VectorStore(NamedTuple):
    kind: str  # VECTOR_STORE
    internal: bool  # whether it is Weaviate in a container of this installation
    key: str
    prefix: str


def store(project: Project, tag: str = "") -> VectorStore:
    """What the settings of a release say about it."""
    settings = project.settings(tag)
    kind = settings.get("VECTOR_STORE") or "weaviate"
    host = urlsplit(settings.get("WEAVIATE_ENDPOINT") or f"http://{SERVICE}:8080").hostname
    key = settings.get("WEAVIATE_API_KEY", "")
    return VectorStore(kind, kind == SERVICE and host == SERVICE, key, settings.get("VECTOR_INDEX_NAME_PREFIX", ""))


def connect(project: Project, tag: str = "", name: str = SERVICE, seconds: float = START) -> Weaviate:
    """The Weaviate in a container of this host, ready to be asked.

    Raises:
        WeaviateError: it does not run, or is not ready in time.
    """
    address = project.address(name)
    if not address:
        raise WeaviateError(f"the container of {name} does not run")
    client = Weaviate(address, store(project, tag).key)
    client.await_ready(seconds)
    return client


def describe(project: Project, seconds: float = 20) -> dict[str, Any]:
    """C(store), C(internal), C(collections), C(objects), C(size_mb), C(error). It never fails."""
    found = store(project)
    said: dict[str, Any] = {"store": found.kind, "internal": found.internal}
    said.update({"collections": 0, "objects": 0, "size_mb": 0, "error": ""})
    if not found.internal:
        return said
    try:
        said["size_mb"] = size(data_folder(project)) >> 20
        with connect(project, seconds=seconds) as client:
            names = [str(one["class"]) for one in client.classes()]
            said.update(collections=len(names), objects=sum(client.count(one) for one in names))
    except (WeaviateError, DockerError, OSError) as exc:
        said["error"] = str(exc)
    return said


def export(project: Project, folder: str, seconds: float) -> dict[str, int]:
    """Every class of the internal Weaviate into files of this folder, while it runs; how many objects each has.

    Raises:
        WeaviateError: it cannot be read. The folder then holds a part.
    """
    with connect(project) as client:
        return dict(copying.export_files(client, folder, _until(seconds))["counts"])


def restore(project: Project, folder: str, seconds: float) -> dict[str, int]:
    """The classes of an export in place of those that the internal Weaviate has; how many objects each has.

    The export must come from a release with the same form of classes (on the same side of 1.9.2).

    Raises:
        WeaviateError: it cannot be written, or the files are not whole. The classes are then in part replaced.
    """
    with connect(project) as client:
        return copying.import_files(client, folder, _until(seconds))


def _until(seconds: float) -> Callable[[], None]:
    until = time.monotonic() + seconds

    def check() -> None:
        if time.monotonic() > until:
            raise WeaviateError(f"the vectors are not copied within {seconds:g} s")

    return check


def data_folder(project: Project) -> str:
    """Where the data of the Weaviate that serves is, as the engine knows it; links are followed."""
    one = project.container(SERVICE)
    if one is None:
        return ""
    code, out, _err = project.docker.run(["inspect", "--type", "container", "--format", "{{json .Mounts}}", one.id], 60)
    data = one.env.get("PERSISTENCE_DATA_PATH", DATA)
    mounts = json.loads(out) if code == 0 and out.strip() else []
    source = next((str(each["Source"]) for each in mounts if each.get("Destination") == data), "")
    return os.path.realpath(source) if source else ""


def size(folder: str) -> int:
    total = 0
    for above, _folders, names in os.walk(folder) if folder else ():
        for name in names:
            try:
                total += os.lstat(os.path.join(above, name)).st_size
            except FileNotFoundError:  # a running server tidies up
                continue
    return total
