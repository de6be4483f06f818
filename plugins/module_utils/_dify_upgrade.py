# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""The machine that carries out the plan of an upgrade: forward, or all the way back, and on where another one died.

It is one process on the host, so neither a lost connection nor a lost controller stops it half-way. A step is noted as
begun before it does anything. Whatever goes wrong before the new release is proved leads back, at once and by itself;
what a killed process left is settled by the next one that comes: back before the proof, forward after it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils import _dify_upgrade_journal as journals
from ansible_collections.llmops.stack.plugins.module_utils._dify_compose import Project
from ansible_collections.llmops.stack.plugins.module_utils._dify_database import Database, DatabaseError
from ansible_collections.llmops.stack.plugins.module_utils._dify_env import sensitive_values
from ansible_collections.llmops.stack.plugins.module_utils._dify_migration_judge import HALF_COMMITTED
from ansible_collections.llmops.stack.plugins.module_utils._dify_release import Store
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_context import Context, Options, StepError
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_copies import drop_undone
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_data import prove_old
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_journal import Busy, Journal, locked
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_leftovers import clear_leftovers, mark
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_steps import AFTER_PROOF, BY_THE_ROLE, STEPS
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_texts import (
    KILLED,
    gone_back,
    not_back,
    not_finished,
    sentence,
)
from ansible_collections.llmops.stack.plugins.module_utils._docker_cli import DockerError

__all__ = ["Machine", "Outcome", "UpgradeFailed"]

FOLDER = "upgrades"
# Two segments of PostgreSQL's log, for by default its data is on the same file system.
_ROOM = 32 * 1024 * 1024
_RESERVE = "room-for-the-way-back"
_TRIES = 3
_PAUSE = 5.0


class UpgradeFailed(Exception):
    """One paragraph for the operator. C(outcome) has the same for machines."""

    def __init__(self, text: str, outcome: Outcome) -> None:
        super().__init__(text)
        self.outcome = outcome


@dataclass
class Outcome:
    changed: bool = False
    phase: str = ""  # of the journal
    id: str = ""
    source: str = ""
    target: str = ""
    folder: str = ""
    message: str = ""
    seconds: dict[str, float] = field(default_factory=dict)


class Machine:
    def __init__(self, project: Project, options: Options, pause: float = _PAUSE) -> None:
        self.project = project
        self.options = options
        self.pause = pause

    # -- what is asked of it

    def upgrade(self, plan: Mapping[str, Any], info: Mapping[str, Any], backup: str = "") -> Outcome:
        """Carry out a plan.

        Raises:
            UpgradeFailed: the new release is not there; the text says what is.
        """
        try:
            with locked(self.project.home, self.options.timeout) as waited:
                settled = self._settle()
                if Store(self.project.home).current() == plan["to"] and (waited or settled.changed):
                    return settled  # another process was faster
                self._refuse_a_stale(plan, settled)
                return self._run(plan, info, backup)
        except Busy:
            raise UpgradeFailed(self._busy(), self._outcome(Journal.read(self.project.home))) from None

    def settle(self) -> Outcome:
        """Wait for an upgrade that runs, and bring one that was killed to an end: changed says whether it had to."""
        try:
            with locked(self.project.home, self.options.timeout) as waited:
                outcome = self._settle()
                outcome.changed = outcome.changed or waited
                return outcome
        except Busy:
            raise UpgradeFailed(self._busy(), self._outcome(Journal.read(self.project.home))) from None

    # -- its parts

    def _run(self, plan: Mapping[str, Any], info: Mapping[str, Any], backup: str) -> Outcome:
        began = time.gmtime()
        name = f"{time.strftime('%Y%m%dT%H%M%SZ', began)}-{plan['from']}-to-{plan['to']}"
        try:
            folder = self._new_folder(name)
            journal = Journal.begin(
                self.project.home,
                id=name,
                began=time.strftime("%Y-%m-%dT%H:%M:%SZ", began),
                folder=folder,
                backup=backup,
                info=dict(info),
                plan=dict(plan),
                **{key: plan.get(key, "") for key in ("kind", "from", "to", "from_head", "to_head")},
            )
        except OSError as exc:
            raise UpgradeFailed(
                f"{self.project.home} cannot be written to ({exc.strerror}). Nothing was begun. Make room there, and "
                "run the same again.",
                self._outcome(Journal.read(self.project.home)),
            ) from None
        ctx = self._context(journal)
        ctx.deadline = time.monotonic() + self.options.timeout
        try:
            self._forward(ctx, journal)
        except Exception as exc:
            if journal.phase == journals.PROVED:
                raise self._unfinished(ctx, journal, exc) from exc
            raise self._back(ctx, journal, exc) from exc
        return self._finished(journal)

    def _refuse_a_stale(self, plan: Mapping[str, Any], settled: Outcome) -> None:
        """A plan is for what was there when it was made. What is put back after a failure is that, too."""
        found = ""
        current = Store(self.project.home).current()
        if current != plan["from"]:
            found = f"and Dify {current or 'of no release'} is current now"
        elif "seen" in plan and (settled.changed or settled.id != plan["seen"]):
            found = f"and meanwhile there was another change, from {settled.source} to {settled.target}"
        elif plan.get("from_head"):
            try:
                head = Database(self.project).head()
            except (DatabaseError, DockerError) as exc:
                found = f"and its database cannot be asked ({exc})"
            else:
                if head not in (plan["from_head"], *HALF_COMMITTED):
                    found = f"with its database at {plan['from_head']}, and it is at {head or 'no revision'}"
        if found:
            raise UpgradeFailed(
                f"This plan is for going from Dify {plan['from']} to {plan['to']}, {found}. Nothing was begun. Run the "
                "same again: it looks at what there is now, and plans anew.",
                self._outcome(Journal.read(self.project.home)),
            )

    def _new_folder(self, name: str) -> str:
        parent = os.path.join(self.project.home, FOLDER)
        os.makedirs(parent, mode=0o700, exist_ok=True)
        folder, count = os.path.join(parent, name), 1
        while os.path.exists(folder):
            count += 1
            folder = os.path.join(parent, f"{name}-{count}")
        os.mkdir(folder, 0o700)
        _set_room_aside(folder)
        return folder

    def _forward(self, ctx: Context, journal: Journal) -> None:
        for step in journal.state["plan"]["steps"]:
            name = str(step["id"])
            if name in BY_THE_ROLE or journal.step(name) == journals.FINISHED:
                continue
            ctx.step = name
            if journal.phase == journals.RUNNING and ctx.late():
                raise StepError(f"The upgrade did not end within {self.options.timeout:g} s.")
            began = time.monotonic()
            journal.mark(name, journals.BEGUN, at=round(time.time(), 2))
            ctx.log("begins")
            STEPS[name].do(ctx)
            seconds = round(time.monotonic() - began, 2)
            ctx.log(f"done in {seconds} s")
            journal.mark(name, journals.FINISHED, seconds=seconds)
            if name == AFTER_PROOF:
                journal.update(phase=journals.PROVED)
        journal.update(phase=journals.DONE, step="")

    def _back(self, ctx: Context, journal: Journal, cause: Exception | str) -> UpgradeFailed:
        """Undo what was begun, the last step first, and prove the old release.

        Returns:
            What to raise. A way back that failed stays in the phase rolling_back, and the next run tries it again.
        """
        failed = journal.state.get("failed") or {"step": journal.state["step"], "cause": _told(cause)}
        _use_room(journal.state["folder"])
        journal.insist(False)
        journal.update(phase=journals.ROLLING_BACK, failed=failed, message=sentence(failed["cause"]))
        ctx.log(f"fails: {failed['cause']}")
        ctx.deadline = 0.0  # the way back is not cut off by a time that is over
        ctx.catch_up(quiet=True)
        for name in journal.to_undo():
            ctx.step = name
            error = self._undo(ctx, name)
            if error is not None:
                journal.update(message=not_back(journal.state, _told(error)))
                self._keep_journal(journal)
                return UpgradeFailed(journal.state["message"], self._outcome(journal))
            journal.mark(name, journals.UNDONE)
        ctx.step = "prove_old"
        trouble = ""
        try:
            prove_old(ctx)
        except Exception as exc:
            trouble = _told(exc)
        self._drop_undone(ctx)
        ctx.log(f"the old release is back{': ' + trouble if trouble else ', and well'}")
        text = gone_back(journal.state, trouble)
        journal.update(phase=journals.ROLLED_BACK, message=text, step=failed["step"])
        self._keep_journal(journal)
        return UpgradeFailed(text, self._outcome(journal))

    def _undo(self, ctx: Context, name: str) -> Exception | None:
        undo = STEPS[name].undo
        if undo is None:
            return None
        error: Exception | None = None
        for attempt in range(1, _TRIES + 1):
            try:
                undo(ctx)
                ctx.log("undone")
                return None
            except Exception as exc:
                error = exc
                ctx.log(f"could not be undone (attempt {attempt}): {_told(exc)}")
                time.sleep(self.pause if attempt < _TRIES else 0)
        return error

    def _drop_undone(self, ctx: Context) -> None:
        for attempt in range(1, _TRIES + 1):
            try:
                return drop_undone(ctx)
            except Exception as exc:
                ctx.log(f"the databases of the release that failed could not be dropped: {_told(exc)}")
                time.sleep(self.pause if attempt < _TRIES else 0)

    def _settle(self) -> Outcome:
        journal = Journal.read(self.project.home)
        if not journal.unfinished:
            return self._outcome(journal)
        clear_leftovers(self.project)
        ctx = self._context(journal)
        if journal.phase == journals.PROVED:
            try:
                self._forward(ctx, journal)
            except Exception as exc:
                raise self._unfinished(ctx, journal, exc) from exc
            return self._finished(journal)
        failure = self._back(ctx, journal, KILLED)
        if journal.phase != journals.ROLLED_BACK:
            raise failure
        outcome = failure.outcome
        outcome.changed = True
        return outcome

    def _unfinished(self, ctx: Context, journal: Journal, exc: Exception) -> UpgradeFailed:
        ctx.log(f"fails: {_told(exc)}")
        journal.update(message=not_finished(journal.state, _told(exc)))
        self._keep_journal(journal)
        return UpgradeFailed(journal.state["message"], self._outcome(journal))

    def _finished(self, journal: Journal) -> Outcome:
        self._keep_journal(journal)
        outcome = self._outcome(journal)
        outcome.changed = True
        return outcome

    def _keep_journal(self, journal: Journal) -> None:
        _use_room(journal.state["folder"])
        kept = os.path.join(journal.state["folder"], "journal.json")
        with contextlib.suppress(OSError):
            shutil.copyfile(journal.path, kept)
            os.chmod(kept, 0o600)

    def _context(self, journal: Journal) -> Context:
        mark(self.project.home)
        state = journal.state
        with contextlib.suppress(OSError):
            os.makedirs(state["folder"], mode=0o700, exist_ok=True)
        known: set[str] = set()
        for tag in (state["from"], state["to"]):
            known |= sensitive_values(self.project.settings(tag))
        return Context(
            project=self.project,
            plan={"backup": state["backup"], **state["plan"]},
            options=self.options,
            journal=journal,
            folder=state["folder"],
            info=state["info"],
            database=Database(self.project),
            secrets=frozenset(known),
        )

    def _outcome(self, journal: Journal) -> Outcome:
        state = journal.state
        steps = state.get("steps") or []
        return Outcome(
            phase=journal.phase,
            id=state.get("id", ""),
            source=state.get("from", ""),
            target=state.get("to", ""),
            folder=state.get("folder", ""),
            message=state.get("message", ""),
            seconds={one["id"]: one["seconds"] for one in steps if "seconds" in one},
        )

    def _busy(self) -> str:
        return (
            f"Another upgrade, backup or restore of {self.project.home} still runs after {self.options.timeout:g} s. "
            "Wait for it, or raise dify_upgrade_timeout; nothing was begun."
        )


def _set_room_aside(folder: str) -> None:
    """A migration or a copy may fill the disk that the way back has to write on: something to begin with."""
    if shutil.disk_usage(folder).free < 8 * _ROOM:
        return
    with contextlib.suppress(OSError), open(os.path.join(folder, _RESERVE), "wb") as file:
        os.posix_fallocate(file.fileno(), 0, _ROOM)


def _use_room(folder: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(os.path.join(folder, _RESERVE))


def _told(cause: Exception | str) -> str:
    """An error as sentences, with the advice that came with it."""
    if isinstance(cause, StepError):
        return f"{cause.message} {cause.advice}".strip()
    text = str(cause).strip() or type(cause).__name__
    if isinstance(cause, (KeyError, TypeError, AttributeError, IndexError)):
        return f"This collection has an error there ({type(cause).__name__}: {text}); please report it."
    return text
