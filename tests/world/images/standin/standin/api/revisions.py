# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The chain of Alembic revisions: one line from the first release's first revision to 1.16.0's head.

The facts name the heads and a few revisions between; the others get a stable made-up name. The files that this module
writes look like Alembic's, so that whoever computes the head from them (also without a database) gets the release's.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from standin import versions


def chain(version: str | None = None) -> list[str]:
    """All revisions of a release, oldest first; the last one is its head."""
    known = {number: revision for revision, number in (*versions.HEADS.values(), *versions.WAYPOINTS.values())}
    known.update(versions.NAMED_REVISIONS)
    last = versions.head(version)[1]
    return [known.get(number) or _made_up(number) for number in range(1, last + 1)]


def _made_up(number: int) -> str:
    return hashlib.sha256(f"standin revision {number}".encode()).hexdigest()[:12]


def message(number: int) -> str:
    return "increase max length of builtin tool provider" if number == 119 else f"revision {number}"


FILE = '''"""{message}

Revision ID: {revision}
Revises: {down}
"""
# revision identifiers, used by Alembic.
revision = {revision!r}
down_revision = {down_revision!r}
branch_labels = None
depends_on = None
'''


def write(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    down = None
    for number, revision in enumerate(chain(), 1):
        text = FILE.format(message=message(number), revision=revision, down=down or "", down_revision=down)
        (directory / f"{revision}_revision_{number}.py").write_text(text, encoding="utf-8")
        down = revision


if __name__ == "__main__":
    write(Path(sys.argv[1]))
