# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Files that the rows of a restored database name and that are gone since: uploads, private keys, plugins.

Only what is missing is put back. What is there is newer or the same, and stays.
"""

from __future__ import annotations

import os
import shutil
import tarfile

from ansible_collections.llmops.stack.plugins.module_utils._dify_backup_manifest import BackupError, read
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_context import Context, StepError

__all__ = ["put_missing", "restore_files"]

_ARCHIVES = ("storage", "plugin_daemon")


def restore_files(ctx: Context) -> None:
    folder = str(ctx.plan.get("backup", ""))
    try:
        archives = read(folder).get("archives") or {}
        for name in _ARCHIVES:
            one = archives.get(name) or {}
            if one.get("file"):
                place = os.path.join(ctx.project.home, one["folder"])
                ctx.log(f"{place}: {put_missing(os.path.join(folder, one['file']), place)} missing files are back")
            else:
                ctx.log(f"the backup has no files of {name}; those that are gone stay away")
    except (BackupError, OSError, tarfile.TarError) as exc:
        raise StepError(f"The files of the backup cannot be put back: {exc}.") from None


def put_missing(archive: str, folder: str) -> int:
    """Write the files of an archive that the folder does not have, with their owners; how many there were."""
    count = 0
    root = os.path.realpath(folder)
    with tarfile.open(archive, "r|") as members:
        for member in members:
            target = os.path.normpath(os.path.join(root, member.name.lstrip("/")))
            # Neither a name nor a link among what is there may lead out of the folder.
            above = os.path.dirname(target)
            if not f"{above}/".startswith(f"{root}/") or os.path.realpath(above) != above or os.path.lexists(target):
                continue
            if member.isdir():
                os.mkdir(target, 0o700)
            elif member.isreg():
                _write(members, member, target)
                count += 1
            else:
                continue
            os.chown(target, member.uid, member.gid)
            os.chmod(target, member.mode & 0o7777)
    return count


def _write(members: tarfile.TarFile, member: tarfile.TarInfo, target: str) -> None:
    source = members.extractfile(member)
    # Under a hidden name first: the plugin daemon starts what it finds.
    partial = os.path.join(os.path.dirname(target), f".{os.path.basename(target)}.partial")
    if source is not None:
        with source, open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            shutil.copyfileobj(source, file)
        os.utime(partial, (member.mtime, member.mtime))
        os.rename(partial, target)
