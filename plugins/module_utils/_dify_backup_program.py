# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""The backup that a host's own timer makes, without Ansible: the same code as the module's, as a program."""

from __future__ import annotations

import argparse
import signal
import sys
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._dify_backup import Backup, Options
from ansible_collections.llmops.stack.plugins.module_utils._dify_backup_manifest import BackupError
from ansible_collections.llmops.stack.plugins.module_utils._dify_compose import Project

__all__ = ["main"]


def main(argv: list[str] | None = None) -> int:
    given = _arguments(argv)
    options = Options(
        home=given.home,
        directory=given.directory,
        keep=given.keep,
        storage=not given.without_storage,
        reason="scheduled",
        timeout=given.timeout,
    )
    # systemd ends a unit with SIGTERM; as an exception it lets what was begun be cleared away.
    signal.signal(signal.SIGTERM, _ended)
    try:
        made = Backup(Project(given.home, given.project), options).make()
    except BackupError as exc:
        sys.stderr.write(f"Dify was not backed up. {exc}\n")
        return 1
    for note in made["notes"]:
        sys.stderr.write(f"{note}\n")
    megabytes = sum(one["bytes"] for one in made["files"]) / 1024 / 1024
    done = f"{megabytes:.1f} MB in {made['seconds']:.0f} s"
    sys.stdout.write(f"Dify {made['version']} is backed up to {made['path']}: {done}.\n")
    for path in made["pruned"]:
        sys.stdout.write(f"Removed {path}.\n")
    return 0


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="dify-backup", description="Back up a Dify that goes on serving.")
    parser.add_argument("--home", default="/opt/dify")
    parser.add_argument("--project", default="dify")
    parser.add_argument("--directory", default="", help="folder for backups, <home>/backups by default")
    parser.add_argument("--keep", type=int, default=3, help="backups that are kept; 0 keeps all")
    parser.add_argument("--without-storage", action="store_true", help="leave the uploaded files out")
    parser.add_argument("--timeout", type=float, default=3600, help="seconds for all of it")
    return parser.parse_args(argv)


def _ended(_number: int, _frame: Any) -> None:
    raise BackupError("It was told to end before it was done. What it had written was removed.")


if __name__ == "__main__":
    raise SystemExit(main())
