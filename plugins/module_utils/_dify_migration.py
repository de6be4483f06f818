# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""The migration of Dify's database as one controlled step: one process, nobody else in the database, a time limit.

What an earlier run left (its lock, a statement that the server goes on with, the remains of a half-committed revision)
is cleared first, when nobody owns it any more. Whatever happens, nothing of this run is at work in the server when it
returns: killing the process does not stop its statement.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from ansible_collections.llmops.stack.plugins.module_utils import _dify_redis as dify_redis
from ansible_collections.llmops.stack.plugins.module_utils._dify_compose import Done
from ansible_collections.llmops.stack.plugins.module_utils._dify_database import DatabaseError
from ansible_collections.llmops.stack.plugins.module_utils._dify_migration_judge import (
    HALF_COMMITTED,
    Verdict,
    judge,
    reason,
)
from ansible_collections.llmops.stack.plugins.module_utils._dify_network import addresses
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_context import StepError
from ansible_collections.llmops.stack.plugins.module_utils._docker_cli import DockerError, mask

__all__ = ["Migrated", "MigrationError", "clear_way", "end_runs", "mend_half_committed", "release_head", "run"]

SERVICE = "api"
_COMMAND = ["flask", "upgrade-db"]
# Sessions of containers that were just removed end by themselves within moments.
_GONE_SECONDS = 10
# A lock that somebody renews is not left over; one that nobody renews has ended by then.
_LOCK_SECONDS = 70
_HEAD = re.compile(r"^([0-9a-f]{12}) \(head\)", re.MULTILINE)

_ADVICE = {
    "half_committed": "The copy of the database is put back; do not start the migration again on what is there now",
    "skipped": "Look who else uses this Redis database (key db_upgrade_lock): two installations must not share one",
    "lied": "The image does not belong to this release: pull it again, and look where it comes from",
    "timeout": "Give it more time (dify_migration_timeout), or look in migration.log what it waited for",
    "killed": "Look in the host's log for the out-of-memory killer, and give it more memory",
    "wrong_owner": "Give the tables to the user of the .env (DB_USERNAME), for instance with REASSIGN OWNED",
    "read_only": "Make the database writable (default_transaction_read_only), or name its primary server in DB_HOST",
    "login": "Set DB_USERNAME and DB_PASSWORD to what the server knows",
    "unreachable": "Look at the database's container and its log",
    "redis": "Look at the container of redis and at REDIS_PASSWORD",
    "newer_schema": "The database belongs to a newer release: name that one in dify_version",
    "broken_image": "The image cannot start its own program: pull it again, and look where it comes from",
    "foreign_session": "End that session, and run the upgrade again",
    "locked": "Wait until that migration is done, or give each installation a Redis database of its own (REDIS_DB)",
}
_SENTENCES = {
    "half_committed": "The migration of the database to Dify {to} broke off after a part of it was committed",
    "skipped": "The migration of the database to Dify {to} did nothing and said 'skipped'",
    "lied": "The migration of the database to Dify {to} says that it is done, and the database is not there",
    "unproved": "The migration of the database to Dify {to} ended without saying that it is done",
    "timeout": "The migration of the database to Dify {to} was not done after {timeout:g} s, and was ended",
    "killed": "The migration of the database to Dify {to} was killed",
}


class Migrated(NamedTuple):
    seconds: float  # of the run itself; 0 when there was nothing to do
    output_tail: str


class MigrationError(StepError):
    """The migration is not done. `kind` is one of Verdict's, or foreign_session, locked, redis, database."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message, f"{_ADVICE[kind]}." if kind in _ADVICE else "")
        self.kind = kind


def run(project: Any, database: Any, info: Mapping[str, Any], timeout: float, log: str) -> Migrated:
    """Brings the database to the head of the current release, in a one-off container of its api.

    Args:
        info: from, to (releases), start_head (empty: not checked), expected_head (empty: the release is asked),
            end_foreign_sessions (the operator's word).
        log: the path of a file that gets all of the run's output, without secrets.

    Raises:
        MigrationError: it is not done, and nothing of it is running any more.
    """
    deadline = time.monotonic() + timeout
    known = _secrets(project)
    try:
        expected = info.get("expected_head") or release_head(project, min(timeout, 120))
        start = database.head()
        if start == expected:
            return Migrated(0.0, "")
        _demand_start(info, start)
        clear_way(project, database, bool(info.get("end_foreign_sessions")))
        mend_half_committed(database, start)
        seconds = 0.0
        for _attempt in (1, 2):
            since = time.time()
            done = project.once(SERVICE, _COMMAND, max(1.0, deadline - time.monotonic()))
            seconds += done.seconds
            output = mask(done.out, known)
            _keep(log, output)
            verdict = _verdict(database, done, output, expected, start)
            # All is there, only the word is missing: a second run has nothing to do but to say it.
            if verdict.kind != "unproved":
                break
        if not verdict.kind:
            return Migrated(seconds, "\n".join(output.splitlines()[-20:]))
        cause = verdict.cause or _server_cause(project, database, since, known)
        raise _error(verdict, cause, info, done, database.head(), expected, timeout)
    except DatabaseError as exc:
        raise MigrationError("database", f"The database cannot be asked during the migration: {exc}.") from None
    except DockerError as exc:
        raise MigrationError("broken_image", f"The migration cannot be started: {exc}.") from None


def release_head(project: Any, timeout: float = 120, tag: str = "") -> str:
    """The head that a release's own code names.

    Raises:
        MigrationError: it named none, or several.
    """
    done = project.once(SERVICE, ["flask", "db", "heads"], timeout, tag=tag)
    found = _HEAD.findall(done.out)
    if len(found) != 1:
        raise MigrationError(
            "broken_image",
            f"The release does not say which head its database must have ('flask db heads' ended with {done.code}).",
        )
    return str(found[0])


def mend_half_committed(database: Any, head: str) -> bool:
    """Takes the remains of a half-committed revision away, so that it can run again; whether there were any."""
    half = HALF_COMMITTED.get(head)
    if half is None or not database.sql(half.left_over):
        return False
    database.sql(half.mend)
    return True


def clear_way(project: Any, database: Any, end_foreign: bool = False) -> None:
    """Nobody is in the database, and no lock is left of a run that is gone.

    C(end_foreign) is the operator's word to end the sessions of others.

    Raises:
        MigrationError: somebody is there, or holds the lock.
    """
    end_runs(project)
    if end_foreign:
        database.terminate(database.name)
    else:
        _end_left_over(project, database)
    try:
        if not dify_redis.lock_ttl_ms(project):
            return
        settings = project.settings()
        # Its own Redis serves this project alone, and nobody of it is in the database.
        if (settings.get("REDIS_HOST") or dify_redis.OWN_SERVICE) == dify_redis.OWN_SERVICE:
            dify_redis.delete_lock(project)
            return
        until = time.monotonic() + _LOCK_SECONDS
        while dify_redis.lock_ttl_ms(project):
            if time.monotonic() > until:
                raise MigrationError(
                    "locked", f"Somebody else migrates a database with the lock of this Redis ({dify_redis.LOCK})."
                )
            time.sleep(1)
    except dify_redis.RedisError as exc:
        raise MigrationError("redis", f"The migration needs Redis for its lock: {exc}.") from None


def end_runs(project: Any) -> int:
    """Takes away one-off containers of the api that outlived the process which started them; how many there were.

    A database that is put back must have nobody left who would migrate it once more.
    """
    labels = [f"label=com.docker.compose.{name}" for name in (f"project={project.name}", "oneoff=True")]
    name = f"name=^/?{re.escape(project.name)}-once-{SERVICE}-"
    filters = [part for each in (*labels, name) for part in ("--filter", each)]
    found = project.docker.output(["ps", "-a", "-q", *filters], 30).split()
    if found:
        project.docker.run(["rm", "-f", *found], 60)
    return len(found)


def _end_left_over(project: Any, database: Any) -> None:
    """Ends sessions whose client is gone; anybody else's is not ours to end."""
    until = time.monotonic() + _GONE_SECONDS
    while True:
        sessions = database.sessions(database.name)
        if not sessions:
            return
        if time.monotonic() > until:
            living = addresses(project) if database.internal else None
            owned = [one for one in sessions if living is None or not one["client"] or one["client"] in living]
            if not owned:
                database.terminate(database.name)
                return
            one = owned[0]
            raise MigrationError(
                "foreign_session",
                f"Somebody is in database {database.name}: {one['application'] or 'a program without a name'} of "
                f"{one['user']} from {(living or {}).get(one['client']) or one['client'] or 'the database container'}, "
                f"{one['state']} since {one['since']}.",
            )
        time.sleep(0.3)


def _demand_start(info: Mapping[str, Any], start: str) -> None:
    wanted = info.get("start_head") or start
    # A run that broke off half-way may have moved it: that is mended, and gone on from.
    if start not in (wanted, *HALF_COMMITTED):
        raise MigrationError(
            "failed",
            f"The database is at head {start or '(none)'}, and Dify {info.get('from')} was said to be at {wanted}.",
        )


def _verdict(database: Any, done: Done, output: str, expected: str, start: str) -> Verdict:
    if done.timed_out or done.code:
        # Its statement may be at work in the server still.
        database.terminate(database.name)
    head = database.head()
    half = HALF_COMMITTED.get(head)
    left_over = half is not None and head != expected and bool(database.sql(half.left_over))
    return judge(done.code, output, head, expected, start, done.timed_out, left_over)


def _error(
    verdict: Verdict, cause: str, info: Mapping[str, Any], done: Done, head: str, expected: str, timeout: float
) -> MigrationError:
    kind = verdict.kind
    if kind == "failed" and cause:
        # The server's log tells what releases that fail without a word do not.
        kind = reason(f"ERROR:  {cause}")[0]
    sentence = _SENTENCES.get(kind, "The migration of the database to Dify {to} failed")
    text = sentence.format(to=info.get("to"), timeout=timeout) + (f": {cause}" if cause else "")
    where = f"exit code {done.code}, database at head {head or '(none)'}, wanted {expected}"
    half = HALF_COMMITTED.get(head) if kind == "half_committed" else None
    rest = f"; of revision {half.revision} it left {half.what}" if half else ""
    return MigrationError(kind, f"{text} ({where}{rest}).")


def _server_cause(project: Any, database: Any, since: float, known: set[str]) -> str:
    """The first error in the log of the database's container since then: 1.8.0 to 1.12.1 keep it to themselves."""
    if not database.internal:
        return ""
    try:
        one = project.container(database.service)
        if one is None:
            return ""
        text = project.docker.logs(one, 15, "--since", f"{since:.3f}")
    except DockerError:
        return ""
    found = re.search(r"(?:ERROR|FATAL):  (.*)", text)
    return mask(found.group(1).strip().rstrip("."), known) if found else ""


def _secrets(project: Any) -> set[str]:
    settings = project.settings()
    names = [key for key in settings if re.search(r"PASSWORD|SECRET|KEY|TOKEN", key)]
    return {settings[key] for key in names if len(settings[key]) >= 6}


def _keep(path: str, text: str) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a", encoding="utf-8") as file:
        file.write(text if text.endswith("\n") else text + "\n")
