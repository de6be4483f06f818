# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The upstream: one container that serves what the internet would, and the registry behind it."""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from _build import Builder
from _engine import docker, inspect, labelled, published_port, running
from _images import Image
from _settings import CACHE, LABEL, NETWORK, REGISTRY_VOLUME, UPSTREAM, WorldError, content_hash, say, step

WWW = CACHE / "www"
MADE = "llmops.made"
MANIFESTS = (
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
)


def ensure_network() -> None:
    if NETWORK not in labelled("network"):
        docker("network", "create", "--label", LABEL, NETWORK)


@contextlib.contextmanager
def swapped(folder: Path) -> Iterator[Path]:
    """An empty folder that takes the place of what is served there, once it is whole."""
    fresh = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    yield fresh
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)


def start(builder: Builder) -> None:
    """Starts the upstream, or replaces one of older content; what the registry holds is kept in its volume."""
    image = builder.ensure("upstream")
    options = [
        f"--label={LABEL}",
        "--hostname=upstream",
        f"--network={NETWORK}",
        "--network-alias=upstream",
        # Engines do not forward names without a dot, so containers inside a node know it by this one.
        "--network-alias=upstream.world.test",
        "--publish=127.0.0.1::80",
        "--publish=127.0.0.1::5000",
        "--publish=127.0.0.1::8081",
        f"--volume={WWW}:/srv/www:ro",
        f"--volume={REGISTRY_VOLUME}:/var/lib/registry",
    ]
    made = content_hash([image, *options])
    found = inspect("container", UPSTREAM)
    if found and found["State"]["Running"] and found["Config"]["Labels"].get(MADE) == made:
        return
    if found:
        docker("rm", "-f", UPSTREAM)
    WWW.mkdir(parents=True, exist_ok=True)
    ensure_network()
    docker("volume", "create", "--label", LABEL, REGISTRY_VOLUME)
    docker("run", "-d", "--name", UPSTREAM, f"--label={MADE}={made}", *options, image)
    _wait(f"http://127.0.0.1:{published_port(UPSTREAM, 5000)}/v2/", 60)
    say("the upstream answers")


def _wait(url: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError as error:
            if time.monotonic() > deadline or not running(UPSTREAM):
                logs = docker("logs", "--tail", "20", UPSTREAM, check=False)
                raise WorldError(f"{UPSTREAM} does not answer at {url} ({error}):\n{logs}") from error
            time.sleep(0.5)


def push(images: Iterable[Image], builder: Builder) -> None:
    """Brings every image that the registry lacks, or has in older content, into it."""
    registry = f"127.0.0.1:{published_port(UPSTREAM, 5000)}"
    wanted = [(builder.ensure(image.name), tag) for image in images for tag in image.tags]
    missing = [(local, tag) for local, tag in wanted if not _served(registry, tag, local)]
    if not missing:
        return
    # Layers are compressed one at a time inside a push; two pushes use both cores of a small machine. The first one
    # goes alone, because nearly all images share its base and would each compress it again; then large ones, so that
    # none of them is left over for one core alone.
    missing[1:] = sorted(missing[1:], key=lambda one: -_size(one[0]))
    lock = threading.Lock()
    with step(f"pushing {len(missing)} images"):
        _push(registry, *missing[0], lock)
        with ThreadPoolExecutor(max_workers=2) as pool:
            for done in [pool.submit(_push, registry, local, tag, lock) for local, tag in missing[1:]]:
                done.result()


def _size(local: str) -> int:
    return int((inspect("image", local) or {"Size": 0})["Size"])


def _push(registry: str, local: str, tag: str, lock: threading.Lock) -> None:
    name = f"{registry}/{tag}"
    docker("tag", local, name)
    try:
        docker("push", name)
    finally:
        with lock:  # untagging the same image at once from two sides is refused as a conflict
            docker("rmi", name, check=False)


def _served(registry: str, tag: str, local: str) -> bool:
    """Whether the registry's image is this one: engines call it by its config's digest or by its manifest's."""
    repository, version = tag.rsplit(":", 1)
    request = urllib.request.Request(
        f"http://{registry}/v2/{repository}/manifests/{version}", headers={"Accept": ", ".join(MANIFESTS)}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            manifest = json.load(reply)
            digests = {reply.headers["Docker-Content-Digest"], manifest.get("config", {}).get("digest")}
    except urllib.error.HTTPError:
        return False
    found = inspect("image", local)
    return bool(found) and found["Id"] in digests
