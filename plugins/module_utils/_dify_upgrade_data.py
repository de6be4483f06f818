# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Steps of an upgrade that touch the databases: copied inside the server, migrated, compared; and the way back.

The copies are made when nobody writes any more and nobody writes until the new release is proved. So a copy that is
there is what the database was, and giving it the database's name again loses nothing, whoever has begun what since.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils import _dify_migration as migration
from ansible_collections.llmops.stack.plugins.module_utils import _dify_vectors as vectors
from ansible_collections.llmops.stack.plugins.module_utils._dify_database import IN_USE, DatabaseError
from ansible_collections.llmops.stack.plugins.module_utils._dify_fingerprint import compare
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_context import Context, StepError
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_gate import demand_health
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_services import WORKERS, services_of_new

__all__ = ["copies_back", "copy_databases", "forget", "migrate", "prove", "prove_old", "restore_databases"]

_COPIES = "copy_databases"
_EMPTY_SECONDS = 20


def _copies(ctx: Context) -> dict[str, str]:
    """Database: name of its copy."""
    found: dict[str, str] = ctx.journal.get(_COPIES, "copies", {})
    return found


def copy_databases(ctx: Context) -> None:
    """A copy of every database beside it, named after this upgrade."""
    stamp, _dash, rest = os.path.basename(ctx.folder).partition("-")
    mark = re.sub(r"\D", "", stamp) + rest.rpartition(f"-to-{ctx.new}")[2].replace("-", "_")
    copies = {name: f"{name[:24]}_before_{mark}" for name in ctx.database.names if ctx.database.exists(name)}
    ctx.remember("copies", copies)
    with ThreadPoolExecutor(max_workers=2) as pool:
        list(pool.map(lambda pair: _copy(ctx, *pair), copies.items()))


def _copy(ctx: Context, name: str, copy: str) -> None:
    """The sessions of containers that have just been stopped end within moments; anybody else's is not ours to end."""
    until = time.monotonic() + ctx.remaining(_EMPTY_SECONDS)
    while True:
        try:
            ctx.database.copy(name, copy, timeout=ctx.remaining(ctx.options.timeout))
            ctx.log(f"database {name}: copied to {copy}")
            return
        except DatabaseError as exc:
            if exc.state != IN_USE:
                raise
            if time.monotonic() > until:
                raise StepError(
                    f"The database cannot be copied, because somebody is still in it: {exc}.",
                    "End that session, and run site.yml again.",
                ) from None
        time.sleep(0.3)


def copies_back(ctx: Context) -> None:
    """Every copy that is whole takes the place of its database; what was there is dropped."""
    # A migration outlives the process that was killed, and would go on with the database that is put back.
    migration.end_runs(ctx.project)
    for name, copy in _copies(ctx).items():
        if not ctx.database.exists(copy):
            continue  # never made, or back already
        ctx.database.drop(name)
        ctx.database.rename(copy, name)
        ctx.log(f"database {name}: put back as it was")


def forget(ctx: Context) -> None:
    """What was kept for a way back that is not needed any more."""
    for copy in _copies(ctx).values():
        ctx.database.drop(copy)
    vectors.forget(ctx)


# -- the migration, and what it must not have changed


def migrate(ctx: Context) -> None:
    """The release's own migration, once. The API's start is what the outage waits for then, so the comparison of before
    and after is read meanwhile: the one in the copy, the other in a snapshot of this moment."""
    plan = ctx.plan
    step: Mapping[str, Any] = next((one for one in plan["steps"] if one["id"] == "migrate"), {})
    done = migration.run(
        ctx.project,
        ctx.database,
        {
            "from": ctx.old,
            "to": ctx.new,
            "start_head": plan.get("from_head", ""),
            "expected_head": plan.get("to_head", ""),
            "end_foreign_sessions": step.get("end_foreign_sessions", False),
        },
        ctx.remaining(ctx.options.migration_timeout),
        os.path.join(ctx.folder, "migration.log"),
    )
    ctx.remember("seconds", round(done.seconds, 2))
    comparison = _Comparison(ctx)
    comparison.start()
    ctx.live["comparison"] = comparison


class _Comparison(threading.Thread):
    """Fingerprints of the copy and of the migrated database, taken while other things happen."""

    def __init__(self, ctx: Context) -> None:
        super().__init__(daemon=True)
        self.database = ctx.database
        self.copy = _copies(ctx)[ctx.database.name]
        self.snapshot = ctx.database.open_snapshot()
        self.before: dict[str, Any] = {}
        self.after: dict[str, Any] = {}
        self.error = ""

    def run(self) -> None:
        try:
            self.before = self.database.fingerprint(self.copy)
            self.after = self.snapshot.fingerprint()
        except Exception as exc:
            self.error = str(exc) or type(exc).__name__
        finally:
            self.snapshot.close()


def _demand_the_same_data(ctx: Context) -> None:
    comparison: _Comparison | None = ctx.live.get("comparison")
    if comparison is None:
        return
    comparison.join(ctx.remaining(600))
    if comparison.is_alive() or comparison.error:
        raise StepError(
            f"The data before and after the migration could not be compared ({comparison.error or 'time is over'})."
        )
    shown = {"before": comparison.before, "after": comparison.after}
    ctx.keep("fingerprint.json", json.dumps(shown, indent=1))
    differences = compare(comparison.before, comparison.after, ctx.old, ctx.new)
    if differences:
        raise StepError(f"The migration changed data that it must not change: {' '.join(differences)}")


def prove(ctx: Context) -> None:
    """The new release, before the doors open: the same data, every part well, a chat where there is an app for it. Its
    workers come last, because they begin to work at once."""
    everything = services_of_new(ctx)
    known = [one for one in everything if one not in WORKERS]
    demand_health(ctx, ctx.new, ctx.options.health_deadline, known)
    _demand_the_same_data(ctx)
    workers = [one for one in everything if one in WORKERS]
    ctx.project.up(workers, ctx.remaining(120), extra=["--no-deps"])
    here = {one.service: one for one in ctx.project.containers()}
    for service in workers:
        one = here.get(service)
        if one is None or not one.running or one.restarts:
            raise StepError(f"The container of {service} of Dify {ctx.new} does not run.")


def prove_old(ctx: Context) -> None:
    """What a way back has to end with."""
    demand_health(ctx, ctx.old, ctx.options.health_deadline)


# -- back to a release with another head, from its dump


def restore_databases(ctx: Context) -> None:
    """The databases as they are in the backup, in place of the ones that were copied."""
    folder = str(ctx.plan.get("backup", ""))
    for name in ctx.database.names:
        dump = os.path.join(folder, f"{'dify_plugin' if name == ctx.database.plugin_name else 'dify'}.dump")
        fresh = f"{name}_restored"
        ctx.database.drop(fresh)
        ctx.database.restore(dump, fresh, ctx.remaining(ctx.options.timeout))
        ctx.database.drop(name)
        ctx.database.rename(fresh, name)
