# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The `flask` command inside the api image, as far as an operator needs it.

Every command but the migration's can be told by its name (a switch, see faults.py) how to go wrong:

    extract-plugins, extract-unique-identifiers, install-plugins, migrate-data-for-plugin, legacy-model-types,
    backfill-plugin-auto-upgrade        lies   says that it is done, has done nothing, exit 0
                                        fail   a traceback, exit 1
                                        hang   never ends
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence

from standin import faults, versions
from standin.api import data_commands, migrate, options, plugin_commands, settings, tenants

MIGRATION = {
    ("upgrade-db",): migrate.upgrade_db,
    ("db", "upgrade"): migrate.plain_upgrade,
    ("db", "heads"): migrate.heads,
    ("db", "current"): migrate.show_current,
}
# Words -> (name of the property that a release must have, what it does, what it says when it only says so).
COMMANDS: dict[tuple[str, ...], tuple[str, Callable[[Sequence[str]], int], str]] = {
    ("extract-plugins",): ("plugins", plugin_commands.extract, "Extract plugins completed."),
    ("extract-unique-identifiers",): (
        "plugins",
        plugin_commands.identifiers,
        "Extract unique plugins completed.",
    ),
    ("create-tenant",): ("create_tenant", tenants.create, "Account and tenant created."),
    ("install-plugins",): ("plugins", plugin_commands.install, "Install plugins completed."),
    ("migrate-data-for-plugin",): ("plugins", data_commands.migrate_names, "Migrate data for plugin completed."),
    ("old-metadata-migration",): ("old_metadata_command", data_commands.old_metadata, ""),
    ("data-migrate", "legacy-model-types"): ("category_commands", data_commands.migrate_types, ""),
    ("backfill-plugin-auto-upgrade",): (
        "category_commands",
        data_commands.backfill,
        "Backfill plugin auto-upgrade strategy categories completed. "
        "backfilled=0, created_rows=0, normalized=0, skipped=0, failed=0, elapsed=0.01s",
    ),
}


def main(arguments: list[str]) -> int:
    words = tuple(word for word in arguments if not word.startswith("-"))
    settings.prepare_storage()
    migration = MIGRATION.get(words[:2]) or MIGRATION.get(words[:1])
    if migration:
        # A Redis that is gone ends in Python's own report and exit 1, in every release.
        return migration()
    for length in (2, 1):
        name = arguments[:length]
        found = COMMANDS.get(tuple(name))
        if found and versions.has(found[0]):
            return _run(name[-1], found[1], arguments[length:], found[2])
    sys.stderr.write(
        "Usage: flask [OPTIONS] COMMAND [ARGS]...\nTry 'flask --help' for help.\n\n"
        f"Error: No such command '{words[0] if words else ''}'.\n"
    )
    return 2


def _run(name: str, command: Callable[[Sequence[str]], int], arguments: Sequence[str], done: str) -> int:
    told = faults.get(name)
    if told == "lies":
        print(done)
        return 0
    if told == "fail":
        raise RuntimeError(f"told to fail in {name}")
    while told == "hang":
        time.sleep(1)
    try:
        return command(arguments)
    except options.Aborted:
        sys.stderr.write("Aborted!\n")
        return 1
    except options.Usage as error:
        sys.stderr.write(f"Usage: flask {name} [OPTIONS]\nTry 'flask {name} --help' for help.\n\nError: {error}\n")
        return 2


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
