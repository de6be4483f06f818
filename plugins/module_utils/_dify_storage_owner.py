# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""The owner of Dify's storage folder: from 1.10.1 on the API runs as uid 1001 and can write nothing of root's.

Releases from 1.11.0 on do it themselves, but only where their note C(.init_permissions) is missing; a storage that came
from a backup has the note and may still have other owners. So the owners are looked at, never the note.

There may be millions of files. The old release runs as root and does not mind who owns them, so they change hands while
it works (prepare), what it wrote meanwhile follows in the outage (apply), and the release finds the note and does not
go through all of them once more. They are given back when the old release serves again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from itertools import islice

from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_context import Context, StepError
from ansible_collections.llmops.stack.plugins.module_utils._dify_versions import release_info, since

__all__ = ["apply", "foreign", "prepare", "undo"]

_FOLDER = os.path.join("volumes", "app", "storage")
_KEPT = "storage-owners.jsonl"
_RELEASES_NOTE = ".init_permissions"
_AT_A_TIME = 1000


def prepare(ctx: Context) -> None:
    """Give what there is below the storage to the account of the new release. Owners as they were are noted first."""
    uid, folder = int(release_info(ctx.new)["storage_uid"]), _storage(ctx)
    if not uid or not os.path.isdir(folder):
        return
    given, left = 0, foreign(folder, uid)
    try:
        while True:
            some = list(islice(left, _AT_A_TIME))
            if not some:
                break
            _note(ctx, [(os.path.relpath(path, folder), seen.st_uid, seen.st_gid) for path, seen in some])
            for path, _seen in some:
                if ctx.late():
                    raise StepError(f"The time for the upgrade was over while {folder} was given to uid {uid}.")
                _give(path, uid, uid)
            given += len(some)
    except OSError as exc:
        raise StepError(
            f"{exc.filename or folder} cannot be given to uid {uid}, as which Dify {ctx.new} runs ({exc.strerror}).",
            "If it is on a network file system, let that one allow root to change owners, or change them there.",
        ) from None
    if given:
        ctx.log(f"{given} files and folders below {folder} belong to uid {uid} now")


def apply(ctx: Context) -> None:
    """The rest, now that nobody writes, and the release's own note that it is done."""
    prepare(ctx)
    note = os.path.join(_storage(ctx), _RELEASES_NOTE)
    if not since(ctx.new, "init_permissions") or not os.path.isdir(os.path.dirname(note)) or os.path.lexists(note):
        return
    _note(ctx, [(_RELEASES_NOTE, -1, -1)])  # it was not there
    with open(note, "x", encoding="utf-8"):
        pass
    uid = int(release_info(ctx.new)["storage_uid"])
    _give(note, uid, uid)


def undo(ctx: Context) -> None:
    """Give back what was taken, so that all is as it was; the old release serves meanwhile, and would do without."""
    folder = _storage(ctx)
    for name, uid, gid in _noted(ctx):
        path = os.path.join(folder, name)
        if uid < 0:
            if os.path.lexists(path):
                os.unlink(path)
        else:
            _give(path, uid, gid)
    kept = os.path.join(ctx.folder, _KEPT)
    if os.path.exists(kept):
        os.unlink(kept)


def _storage(ctx: Context) -> str:
    return os.path.realpath(os.path.join(ctx.project.home, _FOLDER))


def _give(path: str, uid: int, gid: int) -> None:
    try:
        os.chown(path, uid, gid, follow_symlinks=False)
    except FileNotFoundError:  # it is in use, and a file may have gone meanwhile
        return


def foreign(folder: str, uid: int) -> Iterator[tuple[str, os.stat_result]]:
    """Everything at and below the folder that belongs to another user or group; links are not followed."""
    seen = os.lstat(folder)
    if (seen.st_uid, seen.st_gid) != (uid, uid):
        yield folder, seen
    left = [folder]
    while left:
        try:
            entries = os.scandir(left.pop())
        except FileNotFoundError:  # it is in use
            continue
        with entries:
            for entry in entries:
                try:
                    seen = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if (seen.st_uid, seen.st_gid) != (uid, uid):
                    yield entry.path, seen
                if entry.is_dir(follow_symlinks=False):
                    left.append(entry.path)


def _note(ctx: Context, owners: Iterable[tuple[str, int, int]]) -> None:
    """On the disk before anything changes hands. A try that was interrupted left its lines, the last one maybe cut."""
    with open(os.open(os.path.join(ctx.folder, _KEPT), os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "a") as file:
        file.write("".join(f"\n{json.dumps(one)}" for one in owners))
        file.flush()
        os.fsync(file.fileno())


def _noted(ctx: Context) -> Iterator[tuple[str, int, int]]:
    try:
        with open(os.path.join(ctx.folder, _KEPT), encoding="utf-8") as file:
            for line in file:
                try:
                    name, uid, gid = json.loads(line)
                except ValueError:  # cut off, so nothing of it has changed hands; or the empty one at the beginning
                    continue
                yield str(name), int(uid), int(gid)
    except FileNotFoundError:
        return
