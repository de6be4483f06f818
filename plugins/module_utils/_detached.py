# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Programs that outlive the module which starts them."""

from __future__ import annotations

import subprocess

__all__ = ["start_detached"]


def start_detached(argv: list[str], log_file: str) -> None:
    """Start a program in a session of its own, with no terminal, its output appended to a file, and do not wait."""
    with open(log_file, "ab") as log:
        subprocess.Popen(  # pylint: disable=consider-using-with  # nobody is there to wait for it
            argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True
        )
