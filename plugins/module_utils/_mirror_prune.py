# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""What a mirror holds and no need stands for goes; only what was brought by this collection is ever looked at."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._mirror_images import reference
from ansible_collections.llmops.stack.plugins.module_utils._mirror_models import blob_path, manifest_paths
from ansible_collections.llmops.stack.plugins.module_utils._mirror_plugins import package_path
from ansible_collections.llmops.stack.plugins.module_utils._mirror_release import stored_name
from ansible_collections.llmops.stack.plugins.module_utils._mirror_store import Mirror, Outcome
from ansible_collections.llmops.stack.plugins.module_utils._ollama_names import parse
from ansible_collections.llmops.stack.plugins.module_utils._ollama_store import Manifest

__all__ = ["prune"]

_PROGRAMS = ("docker-registry", "registry")


def prune(
    mirror: Mirror, needs: Iterable[Mapping[str, Any]], outcomes: Iterable[Outcome], registry_config: str
) -> list[str]:
    """Remove it; C(outcomes) are those of a run in which nothing was missing.

    Returns:
        What was removed, or would be in a check run, as a person calls it.
    """
    needs, outcomes = list(needs), list(outcomes)
    if mirror.check and any(one.action == "fetched" for one in outcomes):
        return []  # which images and wheels are needed is known only when they are there
    index = mirror.index
    wanted = {
        "images": {stored_name(one.name) for one in outcomes if one.kind == "image"},
        "models": {parse(one.name).short for one in outcomes if one.kind == "model"},
        "plugins": {one.identifier for one in outcomes if one.identifier},
        "repositories": {one.name for one in outcomes if one.kind in ("repository", "packages")},
    }
    gone = {part: sorted(set(index.data[part]) - names) for part, names in wanted.items()}
    keep = _files(mirror, needs, wanted)
    paths = sorted(set(index.data["files"]) - keep)
    removed = [f"image {name}" for name in gone["images"]]
    removed += [f"{part[:-1]} {name.partition('@')[0]}" for part in ("models", "plugins") for name in gone[part]]
    removed += sorted({index.data["files"][path]["for"] or path for path in paths if path.startswith("www/github/")})
    removed += gone["repositories"]
    if mirror.check or not (removed or paths):
        return removed
    _images(mirror, gone["images"], wanted["images"], registry_config)
    for part, names in gone.items():
        for name in names:
            index.data[part].pop(name, None)
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(index.absolute(path))
        _empty(os.path.dirname(index.absolute(path)), index.home)
    index.forget(paths)
    shutil.rmtree(mirror.fetcher.staging, ignore_errors=True)
    mirror.publish()
    index.save()
    return removed


def _files(mirror: Mirror, needs: list[Mapping[str, Any]], wanted: Mapping[str, set[str]]) -> set[str]:
    index, keep = mirror.index, set()
    for need in needs:
        if need["kind"] == "archive":
            keep |= {f"www/{need[part]}" for part in ("path", "sums") if need.get(part)}
    for name in wanted["models"]:
        paths = manifest_paths(parse(name))
        keep.update(paths)
        with open(index.absolute(paths[0]), "rb") as file:
            keep |= {blob_path(blob.sha) for blob in Manifest(file.read()).blobs}
    for identifier in wanted["plugins"]:
        keep.add(package_path(identifier))
        for names in (index.data["plugins"].get(identifier) or {}).get("wheels", {}).values():
            keep |= {f"www/pypi/files/{name}" for name in names}
    for name in wanted["repositories"]:
        keep |= set((index.data["repositories"].get(name) or {}).get("files") or ())
    return keep


def _images(mirror: Mirror, gone: list[str], kept: set[str], registry_config: str) -> None:
    """A digest that another name of the same repository has, too, stays."""
    images = mirror.index.data["images"]
    still = {(reference(name)[0], images[name]["digest"]) for name in kept if name in images}
    for name in gone:
        repository, digest = reference(name)[0], str(images[name]["digest"])
        if (repository, digest) not in still:
            mirror.images.remove(repository, digest)
    program = next((path for path in map(shutil.which, _PROGRAMS) if path), None)
    if not gone or not program or not registry_config:
        return
    done = subprocess.run(
        [program, "garbage-collect", "--delete-untagged", registry_config], capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no reason was given"])[-1]
        mirror.notes.append(f"The room of removed images was not freed: {said}")


def _empty(folder: str, home: str) -> None:
    """Folders that nothing is in any more, up to those that the mirror starts with."""
    while os.path.relpath(folder, home).count(os.sep) >= 1:
        try:
            os.rmdir(folder)
        except OSError:
            return
        folder = os.path.dirname(folder)
