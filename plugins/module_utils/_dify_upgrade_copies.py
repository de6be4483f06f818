# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Copies of the databases beside them, in the same server: what any way back between different heads gives back.

The copies are made when nobody writes any more and nobody writes until the new release is proved. So a copy that is
there is what the database was, and giving it the database's name again loses nothing, whoever has begun what since.
What it takes the place of is never dropped at once: renaming takes no time, and if nginx was found open, people may
have written into it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils import _dify_migration as migration
from ansible_collections.llmops.stack.plugins.module_utils import _dify_redis as dify_redis
from ansible_collections.llmops.stack.plugins.module_utils import _dify_vectors as vectors
from ansible_collections.llmops.stack.plugins.module_utils._dify_database import IN_USE, DatabaseError
from ansible_collections.llmops.stack.plugins.module_utils._dify_front import Front
from ansible_collections.llmops.stack.plugins.module_utils._dify_network import addresses, own_names
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_context import Context, StepError

__all__ = [
    "beside",
    "copies_back",
    "copies_of",
    "copy_databases",
    "demand_alone",
    "drop_undone",
    "forget",
    "forget_caches",
]

_COPIES = "copy_databases"
_EMPTY_SECONDS = 20
# With less than this, what failed goes at once, for the old release needs the room to come back.
_SHORT = 1024 * 1024 * 1024
# Read from a database, kept for up to a day, and wrong beside another one: without these a call of a model passes by
# what Redis remembers, and fails when that is over.
_CACHES = ("tenant_privkey:*", "*_credentials:tenant_id:*", "plugin_model_providers*")


def beside(name: str, word: str) -> str:
    """A name for another database: short enough for the server, and never the same for two databases."""
    short = re.sub(r"\W", "_", name, flags=re.ASCII)[:20]
    return f"{short}_{hashlib.sha256(name.encode()).hexdigest()[:4]}_{word}"


def copies_of(ctx: Context) -> dict[str, str]:
    """Database: name of its copy."""
    found: dict[str, str] = ctx.journal.get(_COPIES, "copies", {})
    return found


def ends_sessions(ctx: Context) -> bool:
    """The operator's word that others may be thrown out of the databases."""
    step: Mapping[str, Any] = next((one for one in ctx.plan["steps"] if one["id"] == "migrate"), {})
    return bool(step.get("end_foreign_sessions", False))


def demand_alone(ctx: Context) -> None:
    """Before the doors close: which databases there are, and that nobody else would be in the way of a copy.

    Raises:
        StepError: somebody is there, and the operator did not say that this may end.
    """
    here = ctx.database
    ctx.live["present"] = [name for name in here.names if here.exists(name)]
    if ends_sessions(ctx):
        return
    seen: set[int] = set()
    for attempt in (1, 2):  # who is there for a moment only is in nobody's way
        others = [one for name in ctx.live["present"] for one in _others(ctx, name)]
        staying = [one for one in others if attempt == 2 and one["pid"] in seen]
        if not others:
            return
        if staying:
            one = staying[0]
            raise StepError(
                f"Somebody else is in the databases: {one['application'] or 'a program without a name'} of "
                f"{one['user']} from {one['client'] or 'the container of the database'}, {one['state']} since "
                f"{one['since']}.",
                "End that session, or add foreign_sessions to dify_upgrade_accept, which ends it for the upgrade.",
            )
        seen = {one["pid"] for one in others}
        time.sleep(1)


def _others(ctx: Context, name: str) -> list[dict[str, Any]]:
    """Sessions of none of this project's containers. From outside the project one cannot tell whose they are."""
    found: list[dict[str, Any]] = ctx.database.sessions(name)
    if not found or not ctx.database.internal:
        return []
    own = {f"container {one}" for one in own_names(ctx.project)}
    ours = {address for address, who in addresses(ctx.project).items() if who in own}
    return [one for one in found if one["client"] not in ours]


def copy_databases(ctx: Context) -> None:
    """A copy of every database beside it, named after this upgrade."""
    stamp, _dash, rest = os.path.basename(ctx.folder).partition("-")
    mark = re.sub(r"\D", "", stamp) + rest.rpartition(f"-to-{ctx.new}")[2].replace("-", "_")
    here = ctx.database
    present = ctx.live.get("present") or [name for name in here.names if here.exists(name)]
    copies = {name: beside(name, f"before_{mark}") for name in present}
    ctx.remember("copies", copies)
    with ThreadPoolExecutor(max_workers=2) as pool:
        list(pool.map(lambda pair: _copy(ctx, *pair), copies.items()))


def _copy(ctx: Context, name: str, copy: str) -> None:
    """The sessions of containers that have just been stopped end within moments; anybody else's are ended only if the
    operator said so."""
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
        if ends_sessions(ctx):
            ctx.database.terminate(name)
        time.sleep(0.2)


def copies_back(ctx: Context) -> None:
    """Every copy that is whole takes the place of its database; what was there is kept aside, see drop_undone()."""
    # A migration outlives the process that was killed, and would go on with the database that is put back.
    migration.end_runs(ctx.project)
    copies = copies_of(ctx)
    if len(set(copies.values())) != len(copies):
        raise StepError(f"Two databases have one copy: {copies}.", "Restore them from the backup; nothing was dropped.")
    written = ctx.journal.get(_COPIES, "written")
    if written is None:
        written = any(map(ctx.journal.step, ("start_api", "start"))) and _was_open(ctx)
        ctx.journal.put(_COPIES, "written", written)
    undone = {name: "_undone_".join(copy.rsplit("_before_", 1)) for name, copy in copies.items()}
    ctx.journal.put(_COPIES, "undone", undone)
    at_once = not written and shutil.disk_usage(ctx.project.home).free < _SHORT
    for name, copy in copies.items():
        ctx.database.drop(f"{copy}_partial")
        if not ctx.database.exists(copy):
            continue  # never made, or back already
        if at_once or ctx.database.exists(undone[name]):
            ctx.database.drop(name)
        elif ctx.database.exists(name):
            ctx.database.rename(name, undone[name])
        ctx.database.rename(copy, name)
        ctx.log(f"database {name}: put back as it was")
    forget_caches(ctx)


def _was_open(ctx: Context) -> bool:
    """Whether anybody may have been let in to the release that is not proved."""
    nginx = ctx.project.container("nginx")
    stayed_down = nginx is None or (not nginx.running and nginx.restart_policy in ("", "no"))
    return not stayed_down and not Front(ctx.project).is_closed()


def drop_undone(ctx: Context) -> None:
    """The databases of the release that failed, when the old one serves again: dropping takes time. They stay where
    people may have written into them."""
    undone: dict[str, str] = ctx.journal.get(_COPIES, "undone", {})
    for name in undone.values():
        if not ctx.journal.get(_COPIES, "written"):
            ctx.database.drop(name)
        elif ctx.database.exists(name):
            ctx.log(f"database {name} stays: nginx was open, so somebody may have written into it")


def forget(ctx: Context) -> None:
    """What was kept for a way back that is not needed any more."""
    for copy in copies_of(ctx).values():
        ctx.database.drop(copy)
    vectors.forget(ctx)


def forget_caches(ctx: Context) -> None:
    """What Redis remembers of databases that have just been exchanged. It forgets by itself, so no failure is one."""
    try:
        count = dify_redis.delete_keys(ctx.project, _CACHES)
        ctx.log(f"Redis: {count} values read from the other databases are deleted")
    except dify_redis.RedisError as exc:
        ctx.log(f"Redis may remember values of the other databases for up to a day: {exc}")
