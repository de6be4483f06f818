# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""The owner of Dify's storage folder: from 1.10.1 on the API runs as uid 1001 and can write nothing of root's.

Releases from 1.11.0 on do it themselves, but only where their note C(.init_permissions) is missing; a storage that came
from a backup has the note and may still have other owners. So the owners are looked at, never the note.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_context import Context, StepError
from ansible_collections.llmops.stack.plugins.module_utils._dify_versions import release_info

__all__ = ["apply", "foreign", "undo"]

_FOLDER = os.path.join("volumes", "app", "storage")
_KEPT = "storage-owners.json"


def apply(ctx: Context) -> None:
    """Give everything below the storage to the account of the new release. Owners as they were are noted first."""
    uid = int(release_info(ctx.new)["storage_uid"])
    folder = os.path.realpath(os.path.join(ctx.project.home, _FOLDER))
    if not uid or not os.path.isdir(folder):
        return
    try:
        before = {path: [seen.st_uid, seen.st_gid] for path, seen in foreign(folder, uid)}
        if not before:
            return
        _note(os.path.join(ctx.folder, _KEPT), before)
        for path in before:
            if ctx.late():
                raise StepError(f"The time for the upgrade was over while {folder} was given to uid {uid}.")
            os.chown(path, uid, uid, follow_symlinks=False)
    except OSError as exc:
        raise StepError(
            f"{exc.filename or folder} cannot be given to uid {uid}, as which Dify {ctx.new} runs ({exc.strerror}).",
            "If it is on a network file system, let that one allow root to change owners, or change them there.",
        ) from None
    ctx.log(f"{len(before)} files and folders below {folder} belong to uid {uid} now")


def undo(ctx: Context) -> None:
    """Give back what apply() took. The old release runs as root and would do without; the state is then as it was."""
    kept = os.path.join(ctx.folder, _KEPT)
    try:
        with open(kept, encoding="utf-8") as file:
            before = json.load(file)
    except FileNotFoundError:
        return
    for path, (uid, gid) in before.items():
        try:
            os.chown(path, uid, gid, follow_symlinks=False)
        except FileNotFoundError:  # a file may have gone meanwhile
            continue
    os.unlink(kept)


def foreign(folder: str, uid: int) -> Iterator[tuple[str, os.stat_result]]:
    """Everything at and below the folder that belongs to another user or group; links are not followed."""
    seen = os.lstat(folder)
    if (seen.st_uid, seen.st_gid) != (uid, uid):
        yield folder, seen
    left = [folder]
    while left:
        with os.scandir(left.pop()) as entries:
            for entry in entries:
                seen = entry.stat(follow_symlinks=False)
                if (seen.st_uid, seen.st_gid) != (uid, uid):
                    yield entry.path, seen
                if entry.is_dir(follow_symlinks=False):
                    left.append(entry.path)


def _note(path: str, owners: dict[str, list[int]]) -> None:
    """Owners from before; those that an earlier, interrupted try noted win, for it has changed some since."""
    try:
        with open(path, encoding="utf-8") as file:
            owners = {**owners, **json.load(file)}
    except FileNotFoundError:
        pass
    with open(os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump(owners, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".new", path)
