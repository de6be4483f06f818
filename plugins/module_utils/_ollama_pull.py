# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Pulls that end: an error line is a failure, a stall is noticed, and what broke off is taken up while it gets on."""

from __future__ import annotations

import contextlib
import os
import re
import time
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._ollama_api import ApiError, Ollama, Silence
from ansible_collections.llmops.stack.plugins.module_utils._ollama_progress import Progress
from ansible_collections.llmops.stack.plugins.module_utils._ollama_store import Manifest, Store

# So many attempts in a row may bring nothing. Those that bring something are bounded by the deadline, and by this.
IDLE_ATTEMPTS = 2
ATTEMPTS = 20
# Seconds before the next attempt: the server needs a moment to give up a transfer whose client went away.
PAUSE = 2.0

# A part of the server's words, whether another attempt is in vain, and what to do. Of those that may pass, another one
# is made, however much had arrived.
_KNOWN = (
    (r"file does not exist", True, "Check the name and tag; the registry does not have it."),
    (r"invalid model name", True, "Correct the name."),
    (r"permission denied|read-only file system", True, "Check that the service user may write to {dir} and below."),
    (r"no space left|disk quota", True, "Make room on the disk of {dir}, or put the store on a larger one."),
    (
        r"HTTP response to HTTPS|look like a TLS handshake",
        True,
        "The registry speaks plain http: set insecure (in ollama_registry: http:// before the host).",
    ),
    (
        r"no Location header",
        True,
        "A plain container registry cannot serve models: let its answers to blobs carry one.",
    ),
    (r"unauthorized|\b401\b|\b403\b", True, "Use a registry without a login; Ollama has no way to give one."),
    (r"newer version of Ollama|\b412\b", True, "Raise ollama_version."),
    (r"x509|certificate", True, "Add the authority of the registry's certificate to those that the host trusts."),
    (r"no such host", False, "Check the name of the registry and the DNS of this host, or set a mirror."),
    (r"connection refused|no route", False, "Check that the registry runs and can be reached, or set a mirror."),
    (r"digest mismatch", False, "The registry serves damaged data: repair it, or set a mirror."),
)
_GO_ON = (
    "What arrived is kept, and the next run goes on from there. Check the way to the registry, or set a nearer mirror."
)


class PullError(Exception):
    """The model was not pulled; the text says why and what to do."""


class Pull:
    """One model, attempt after attempt. `received` counts the bytes that came, also those of attempts that failed."""

    def __init__(self, api: Ollama, store: Store, progress: Progress, deadline: float, stall: float) -> None:
        self.api = api
        self.store = store
        self.progress = progress
        self.deadline = deadline
        self.stall = stall
        self.received = 0
        self._completed: dict[str, int] = {}
        self._totals: dict[str, int] = {}
        self._there: set[str] = set()

    def run(self, name: str, insecure: bool, shown: str, manifest: Manifest | None) -> None:
        """Pull until it is done, or gets no further.

        Raises:
            PullError: It was not pulled.
        """
        self._there = self._listing()
        self._totals = {one.sha: one.size for one in manifest.blobs} if manifest else {}
        self._completed = {sha: self._at_start(sha, size) for sha, size in self._totals.items()}
        self.progress.start()
        seen: set[str] = set()
        try:
            self._attempts(name, insecure, shown, seen)
        finally:
            # Small blobs may come without any line about them.
            for file in self._listing() - self._there:
                if re.fullmatch(r"sha256-[0-9a-f]{64}", file) and file[7:] not in seen:
                    self.received += os.path.getsize(os.path.join(self.store.blobs, file))

    def _listing(self) -> set[str]:
        try:
            return set(os.listdir(self.store.blobs))
        except FileNotFoundError:
            return set()

    def _at_start(self, sha: str, size: int) -> int:
        return size if f"sha256-{sha}" in self._there else min(size, self.store.partial(sha))

    def _attempts(self, name: str, insecure: bool, shown: str, seen: set[str]) -> None:
        idle = 0
        for _attempt in range(ATTEMPTS):
            best = sum(self._completed.values())
            try:
                self._attempt(name, insecure, shown, seen)
                return
            except ApiError as exc:
                final, advice = _advice(exc, self.store.models_dir)
                idle = 0 if advice == _GO_ON and sum(self._completed.values()) > best else idle + 1
                if final or idle >= IDLE_ATTEMPTS or time.monotonic() + PAUSE >= self.deadline:
                    raise PullError(f"{shown} was not pulled: {exc} {advice}") from exc
                time.sleep(PAUSE)
        raise PullError(f"{shown} was not pulled: the transfer broke off {ATTEMPTS} times. {_GO_ON}")

    def _attempt(self, name: str, insecure: bool, shown: str, seen: set[str]) -> None:
        best, since, status = -1, time.monotonic(), "pulling"
        # The request outlives the deadline a little, so that it is here that it is noticed.
        with contextlib.closing(self.api.pull(name, insecure, max(1.0, self.deadline - since) + 5)) as events:
            for event in events:
                status = str(event.get("status", status))
                self._note(event, seen)
                done, now = sum(self._completed.values()), time.monotonic()
                # While the server checks and writes it says nothing, however long that takes.
                if done > best or not status.startswith("pulling"):
                    best, since = max(best, done), now
                elif now - since > self.stall:
                    raise Silence(f"Nothing has arrived for {self.stall:g} s.")
                if now > self.deadline:
                    raise Silence(f"It takes longer than the deadline allows (ollama_pull_timeout; now: {status}).")
                self.progress.say(
                    shown, status.split(" ", maxsplit=1)[0], done, sum(self._totals.values()), _sha(event)
                )

    def _note(self, event: dict[str, Any], seen: set[str]) -> None:
        sha, total, completed = _sha(event), event.get("total"), event.get("completed", 0)
        if not sha or not isinstance(total, int) or not isinstance(completed, int):
            return
        seen.add(sha)
        self._totals[sha] = total
        before = self._completed.setdefault(sha, self._at_start(sha, total))
        # It goes backwards where the server takes back what a broken connection brought.
        self.received += max(0, completed - before)
        self._completed[sha] = completed


def _sha(event: dict[str, Any]) -> str:
    return str(event.get("digest") or "").partition(":")[2]


def _advice(exc: ApiError, models_dir: str) -> tuple[bool, str]:
    words = re.sub(r"[0-9a-f]{12,}", "", exc.text)
    for pattern, final, advice in _KNOWN:
        if re.search(pattern, words, re.IGNORECASE):
            return final, advice.format(dir=models_dir)
    return False, _GO_ON
