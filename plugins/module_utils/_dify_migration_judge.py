# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""What a run of C(flask upgrade-db) came to: from what it said and from where the database is now.

The exit code proves nothing. Until 1.12.1 a migration that failed ends with 0, from 1.8.0 on without a word, and one
that took longer than its lock ends with 1 although all is done. Only the success line together with the release's own
head says that it is done.
"""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["HALF_COMMITTED", "SUCCESS", "HalfCommitted", "Verdict", "judge", "reason"]

SUCCESS = "Database migration successful!"
SKIPPED = "Database migration skipped"


class HalfCommitted(NamedTuple):
    """A revision that commits in its middle, because it builds an index concurrently."""

    revision: str  # the one that is then neither done nor undone
    first: str  # release that brought it
    left_over: str  # SQL: a row when its remains are there
    mend: str  # SQL that takes them away; the revision can run again after it
    what: str


# Head that such a revision starts from, where the database stays when it, or one after it, fails.
HALF_COMMITTED: dict[str, HalfCommitted] = {
    "2adcbe1f5dfb": HalfCommitted(
        "4474872b0ee6",
        "1.4.2",
        "SELECT 1 WHERE to_regclass('public.workflow_node_executions_tenant_id_idx') IS NOT NULL",
        "DROP INDEX IF EXISTS public.workflow_node_executions_tenant_id_idx",
        "the index workflow_node_executions_tenant_id_idx",
    ),
    "0ec65df55790": HalfCommitted(
        "6b5f9f8b1a2c",
        "1.13.1",
        "SELECT 1 FROM pg_attribute WHERE attrelid = to_regclass('public.workflow_draft_variables')"
        " AND attname = 'user_id' AND NOT attisdropped",
        # Its index goes with it; the release that the database is at does not know the column.
        "ALTER TABLE public.workflow_draft_variables DROP COLUMN IF EXISTS user_id",
        "the column user_id of workflow_draft_variables",
    ),
}


class Verdict(NamedTuple):
    """kind is empty when the migration is done; cause is what the run itself said, often nothing.

    failed, skipped (the lock was held), lied (success line, but another head), unproved (the head without the success
    line), half_committed, timeout, killed, wrong_owner, read_only, login, unreachable, redis, newer_schema,
    broken_image.
    """

    kind: str
    cause: str


# First match wins: (kind, pattern in what was said). Groups, joined, are the cause.
_CAUSES: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        ("newer_schema", r"(Can't locate revision identified by '[^'\n]*')"),
        ("broken_image", r"(No such command '(?:upgrade-db|db)')"),
        ("login", r"(password authentication failed for user [^\n]*)"),
        ("login", r"(no pg_hba\.conf entry for [^\n]*)"),
        ("read_only", r"(cannot execute [A-Z ]+ in a read-only transaction)"),
        ("wrong_owner", r"(must be owner of [^\n]+|permission denied for [^\n]+)"),
        ("redis", r"redis\.exceptions\.(?:ConnectionError|TimeoutError|ResponseError|AuthenticationError): ([^\n]*)"),
        (
            "unreachable",
            r"(Connection refused|could not translate host name [^\n]*|server closed the connection[^\n]*)",
        ),
        ("failed", r"Database migration failed: (?:\([\w.]+\) )?([^\n]*)"),
        ("failed", r"\(psycopg2\.errors\.\w+\) ([^\n]*)"),
        ("failed", r"(?:FATAL|ERROR):  ([^\n]*)"),
    )
)


def reason(text: str) -> tuple[str, str]:
    """Kind and cause, as far as an output (the command's, or the server's log) tells them."""
    for kind, pattern in _CAUSES:
        found = pattern.search(text)
        if found:
            return kind, found.group(1).strip().rstrip(".")
    return "failed", ""


def judge(
    code: int, output: str, head: str, expected: str, start: str, timed_out: bool = False, left_over: bool = False
) -> Verdict:
    """Whether the migration is done, and if not, what it is that happened.

    `head` is where the database is now, `start` where it was, `expected` the head of the release (never empty);
    `left_over` says that the remains of a half-committed revision are there.
    """
    at_head = head == expected
    if at_head and SUCCESS in output:
        return Verdict("", "")
    kind, cause = reason(output)
    half = HALF_COMMITTED.get(head)
    # Not where the database was: what came before the revision is committed. Where it was: what it began with is.
    if half is not None and not at_head and (head != start or left_over):
        return Verdict("half_committed", cause)
    if at_head:
        return Verdict("unproved", cause)
    if timed_out:
        return Verdict("timeout", "")
    if SKIPPED in output:
        return Verdict("skipped", "")
    if SUCCESS in output:
        return Verdict("lied", "")
    if kind == "failed" and not cause and code in (137, 143, -9, -15):
        return Verdict("killed", "")
    return Verdict(kind, cause)
