# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""What a proved upgrade makes superfluous: releases older than the one before, their images, old evidence."""

from __future__ import annotations

import contextlib
import os
import shutil

from ansible_collections.llmops.stack.plugins.module_utils._dify_layout import read_marker
from ansible_collections.llmops.stack.plugins.module_utils._dify_release import Store
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_context import Context
from ansible_collections.llmops.stack.plugins.module_utils._docker_cli import DockerError

__all__ = ["prune"]

_EVIDENCE_KEPT = 10


def prune(ctx: Context) -> None:
    """Keep the new release and the one before it. A failure here costs room and nothing else, so it is only noted."""
    store = Store(ctx.project.home)
    kept = {ctx.old, ctx.new, store.current()}
    mounted = _mounted(ctx)
    for tag in sorted(os.listdir(store.releases)):
        # A folder without the marker was not unpacked by this collection, and may hold what somebody needs.
        if tag.startswith(".") or tag in kept or read_marker(store.path(tag)).get("tag") != tag:
            continue
        if f"/releases/{tag}/" in mounted:
            ctx.log(f"release {tag} stays: a container that no release has changed since still reads its files")
            continue
        try:
            images = _images(ctx, tag) - _images(ctx, ctx.old) - _images(ctx, ctx.new)
            store.remove(tag)
            for image in sorted(images):
                # Refused while a container uses it, which is as it should be.
                ctx.project.docker.run(["image", "rm", image], 60)
            ctx.log(f"removed release {tag} and {len(images)} images")
        except (DockerError, OSError) as exc:
            ctx.log(f"release {tag} could not be removed: {exc}")
    _forget_old_evidence(ctx)


def _mounted(ctx: Context) -> str:
    """What the running containers have mounted: an nginx that two releases describe alike goes on with the files of the
    first, and would find none of them at its next reload."""
    ids = [one.id for one in ctx.project.containers() if one.running]
    _code, out, _err = ctx.project.docker.run(["inspect", "--format", "{{.State.Pid}}", *ids], 60)
    found = ""
    for pid in out.split():
        with contextlib.suppress(OSError), open(f"/proc/{int(pid)}/mountinfo", encoding="utf-8") as file:
            found += file.read()
    return found


def _images(ctx: Context, tag: str) -> set[str]:
    return set(ctx.project.compose(["config", "--images"], 60, tag).split())


def _forget_old_evidence(ctx: Context) -> None:
    folder = os.path.dirname(ctx.folder)
    for name in sorted(os.listdir(folder))[:-_EVIDENCE_KEPT]:
        shutil.rmtree(os.path.join(folder, name), ignore_errors=True)
