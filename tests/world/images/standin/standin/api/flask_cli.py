# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The `flask` command inside the api image, as far as an operator needs it."""

from __future__ import annotations

import sys

from standin.api import migrate, settings

COMMANDS = {
    ("upgrade-db",): migrate.upgrade_db,
    ("db", "upgrade"): migrate.plain_upgrade,
    ("db", "heads"): migrate.heads,
    ("db", "current"): migrate.show_current,
}


def main(arguments: list[str]) -> int:
    words = tuple(word for word in arguments if not word.startswith("-"))
    settings.prepare_storage()
    command = COMMANDS.get(words[:2]) or COMMANDS.get(words[:1])
    if command is None:
        sys.stderr.write(
            "Usage: flask [OPTIONS] COMMAND [ARGS]...\nTry 'flask --help' for help.\n\n"
            f"Error: No such command '{words[0] if words else ''}'.\n"
        )
        return 2
    # A Redis that is gone ends in Python's own report and exit 1, in every release.
    return command()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
