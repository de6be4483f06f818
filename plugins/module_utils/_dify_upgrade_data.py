# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Steps of an upgrade that touch what is in the databases: migrated, compared, proved, or restored from a backup."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils import _dify_migration as migration
from ansible_collections.llmops.stack.plugins.module_utils._dify_backup_manifest import BackupError, read
from ansible_collections.llmops.stack.plugins.module_utils._dify_fingerprint import compare
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_context import Context, StepError
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_copies import (
    beside,
    copies_of,
    ends_sessions,
    forget_caches,
)
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_gate import demand_health
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_services import (
    WORKERS,
    demand_closed,
    services_of_new,
    start_workers,
)
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_voices import demand_plugins, demand_voices

__all__ = ["migrate", "prove", "prove_old", "restore_databases", "unrestore"]

# Seconds for reading a database: these, and what a slow disk takes for its size.
_READ_SECONDS = 600
_READ_MB_PER_SECOND = 5


# -- the migration, and what it must not have changed


def migrate(ctx: Context) -> None:
    """The release's own migration, once. The API's start is what the outage waits for then, so what to compare is read
    meanwhile: what was before in the copy, as soon as there is one, and what is after in a snapshot of this moment."""
    ctx.live["before"] = _read_copy(ctx)
    plan = ctx.plan
    done = migration.run(
        ctx.project,
        ctx.database,
        {
            "from": ctx.old,
            "to": ctx.new,
            "start_head": plan.get("from_head", ""),
            "expected_head": plan.get("to_head", ""),
            "end_foreign_sessions": ends_sessions(ctx),
        },
        ctx.remaining(ctx.options.migration_timeout),
        os.path.join(ctx.folder, "migration.log"),
    )
    ctx.remember("seconds", round(done.seconds, 2))
    ctx.live["after"] = _read_snapshot(ctx)


def _limit(ctx: Context) -> float:
    size = (ctx.info.get("database") or {}).get("size_mb") or 0
    return _READ_SECONDS + float(size) / _READ_MB_PER_SECOND


class _Reading(threading.Thread):
    """A fingerprint that is taken while other things happen."""

    def __init__(self, read: Callable[[], dict[str, Any]]) -> None:
        super().__init__(daemon=True)
        self.read = read
        self.found: dict[str, Any] = {}
        self.error = ""
        self.start()

    def run(self) -> None:
        try:
            self.found = self.read()
        except Exception as exc:
            self.error = str(exc) or type(exc).__name__


def _read_copy(ctx: Context) -> _Reading:
    database, copy, limit = ctx.database, copies_of(ctx)[ctx.database.name], _limit(ctx)
    return _Reading(lambda: database.fingerprint(copy, timeout=limit))


def _read_snapshot(ctx: Context) -> _Reading:
    snapshot = ctx.database.open_snapshot(timeout=_limit(ctx))

    def read() -> dict[str, Any]:
        try:
            found: dict[str, Any] = snapshot.fingerprint()
            return found
        finally:
            snapshot.close()

    return _Reading(read)


def _demand_the_same_data(ctx: Context) -> None:
    after: _Reading | None = ctx.live.get("after")
    if after is None:
        return
    limit = _limit(ctx)
    before: _Reading = ctx.live["before"]
    before.join(ctx.remaining(limit))
    if before.error:  # a server that was started anew meanwhile took the session along
        before = _read_copy(ctx)
    for one in (before, after):
        one.join(ctx.remaining(limit))
        if one.is_alive() or one.error:
            raise StepError(
                f"The data before and after the migration could not be compared ({one.error or 'time is over'})."
            )
    ctx.keep("fingerprint.json", json.dumps({"before": before.found, "after": after.found}, indent=1))
    differences = compare(before.found, after.found, ctx.old, ctx.new)
    if differences:
        raise StepError(f"The migration changed data that it must not change: {' '.join(differences)}")


def prove(ctx: Context) -> None:
    """The new release, before the doors open: the same data, every part well, a chat where there is an app for it. Its
    workers come last, because they begin to work at once."""
    known = [one for one in services_of_new(ctx) if one not in WORKERS]
    ctx.meanwhile(lambda: demand_plugins(ctx))
    demand_health(ctx, ctx.new, ctx.options.health_deadline, known)
    _demand_the_same_data(ctx)
    ctx.catch_up()
    start_workers(ctx)
    demand_closed(ctx)


def prove_old(ctx: Context) -> None:
    """What a way back has to end with."""
    demand_health(ctx, ctx.old, ctx.options.health_deadline)
    demand_voices(ctx, ctx.options.health_deadline)


# -- back to a release with another head, from its dump


def _restored(name: str) -> str:
    return beside(name, "restored")


def restore_databases(ctx: Context) -> None:
    """The databases as they are in the backup, in place of the ones that were copied. They are compared with what the
    backup noted before anything is exchanged."""
    folder = str(ctx.plan.get("backup", ""))
    here = ctx.database
    try:
        noted = read(folder)
    except BackupError as exc:
        raise StepError(str(exc)) from None

    def restore(name: str) -> None:
        dump = os.path.join(folder, f"{'dify_plugin' if name == here.plugin_name else 'dify'}.dump")
        here.drop(_restored(name))
        here.restore(dump, _restored(name), ctx.remaining(ctx.options.timeout))

    with ThreadPoolExecutor(max_workers=2) as pool:
        list(pool.map(restore, here.names))
    found = here.fingerprint(_restored(here.name), timeout=_limit(ctx))
    differences = compare(noted.get("fingerprint") or {}, found)
    if differences:
        raise StepError(f"What was restored is not what was backed up: {' '.join(differences[:5])}")
    for name in here.names:
        here.drop(name)
        here.rename(_restored(name), name)
    forget_caches(ctx)


def unrestore(ctx: Context) -> None:
    for name in ctx.database.names:
        ctx.database.drop(_restored(name))
