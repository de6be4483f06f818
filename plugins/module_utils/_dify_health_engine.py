# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.

"""How checks are run: in parallel where they do not need each other, again until they hold or time is up."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._docker_cli import Docker, mask
from ansible_collections.llmops.stack.plugins.module_utils._http import Http
from ansible_collections.llmops.stack.plugins.module_utils._traces import Question

PROBES = ("none", "process", "model", "llm")
# A request that the deadline would cut shorter than this says nothing about the one it asks.
_LEAST_SECONDS = 1.0


@dataclass
class Options:
    url: str = "http://127.0.0.1"
    # Sent to `url` and nowhere else.
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    plugin_daemon_url: str = "http://127.0.0.1:5002"
    plugin_daemon_key: str = field(default="", repr=False)
    tenant_id: str = ""
    expect_version: str = ""
    expect_plugins: list[str] = field(default_factory=list)
    expect_providers: list[str] = field(default_factory=list)
    probe: str = "none"
    probe_model: dict[str, Any] = field(default_factory=dict, repr=False)
    app_key: str = field(default="", repr=False)
    # Where that key comes from, if from a file.
    app_key_file: str = ""
    # Where the span of the chat must arrive; empty: nobody looks.
    traces: dict[str, Any] = field(default_factory=dict, repr=False)
    project: str = ""
    services: list[str] = field(default_factory=list)
    # Base URLs as Dify uses them.
    model_servers: list[str] = field(default_factory=list)
    deadline: float = 60.0
    interval: float = 2.0
    successes: int = 1
    timeout: float = 5.0
    probe_timeout: float = 120.0
    install_limit: float = 900.0
    verify: bool | str = True
    read_only: bool = False
    # A container that Docker has not yet looked at is well, because somebody else has.
    starting_is_well: bool = False
    # Whatever must not be in a detail. Ansible masks these, too, but only what is left of them after a text was cut.
    secrets: frozenset[str] = field(default=frozenset(), repr=False)

    def wants(self, probe: str) -> bool:
        return PROBES.index(self.probe) >= PROBES.index(probe)


@dataclass
class Result:
    status: str
    detail: str
    advice: str = ""
    name: str = ""
    seconds: float = 0.0
    # Name of the failed check because of which this one was not run.
    because_of: str = ""
    # Asking again would do harm (a chat that hangs keeps a worker's slot), so the result stands.
    final: bool = False
    # What else there is to tell, for machines.
    measured: dict[str, Any] = field(default_factory=dict)
    # The span that was found.
    trace: dict[str, Any] = field(default_factory=dict)

    def public(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "status": self.status,
            "detail": self.detail,
            "advice": self.advice,
            "seconds": round(self.seconds, 3),
            **self.measured,
        }


def ok(detail: str, **measured: Any) -> Result:
    return Result("ok", detail, measured=measured)


def skipped(detail: str) -> Result:
    return Result("skipped", detail)


def failed(detail: str, advice: str, final: bool = False) -> Result:
    return Result("failed", detail, advice, final=final)


class Look:
    """One look at the installation: what the checks of one round share."""

    def __init__(self, options: Options, until: float | None = None, previous: Look | None = None) -> None:
        self.options = options
        self.http = Http(verify=options.verify, connect=min(3.0, options.timeout))
        self.docker = Docker()
        self.until = until
        self.secrets: set[str] = {options.plugin_daemon_key, options.app_key, *options.secrets}
        self.version = ""
        self.restarts: dict[str, int] = previous.restarts if previous else {}
        # The chat that was asked, if it was answered, and how often one has left no span.
        self.chat: Question | None = None
        self.lost_spans: int = previous.lost_spans if previous else 0
        # Passed model probes: they cost tokens, so they are not repeated while everything else goes on being well.
        self.proven: dict[str, Result] = {}
        self._memo: dict[str, Any] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def cap(self, seconds: float) -> float:
        """A timeout that keeps the deadline."""
        if self.until is None:
            return seconds
        return min(seconds, max(_LEAST_SECONDS, self.until - time.monotonic()))

    @property
    def timeout(self) -> float:
        return self.cap(self.options.timeout)

    def once(self, key: str, compute: Callable[[], Any]) -> Any:
        """A value that several checks need and only the first one fetches; an exception is kept like a value."""
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            if key not in self._memo:
                try:
                    self._memo[key] = (compute(), None)
                except Exception as exc:
                    self._memo[key] = (None, exc)
        value, error = self._memo[key]
        if error is not None:
            raise error
        return value

    def clean(self, text: str, limit: int = 300) -> str:
        """A text from outside, fit for a detail: one line, no secrets, not endless."""
        text = " ".join(mask(text, self.secrets).split())
        return text if len(text) <= limit else text[: limit - 3] + "..."


@dataclass(frozen=True)
class Check:
    name: str
    run: Callable[[Look], Result]
    # Without these it cannot say anything: it is skipped when one of them failed.
    needs: tuple[str, ...] = ()
    # These only have to be over, they leave something that it uses.
    after: tuple[str, ...] = ()


def run_round(checks: Sequence[Check], look: Look) -> list[Result]:
    """Every check once, each as soon as the ones before it are done."""
    results: dict[str, Result] = {}
    waiting = list(checks)
    running: dict[Future[Result], Check] = {}
    with ThreadPoolExecutor(max_workers=len(checks)) as pool:
        while waiting or running:
            for check in [one for one in waiting if all(name in results for name in one.needs + one.after)]:
                waiting.remove(check)
                cause = next((_blocked_by(results[name]) for name in check.needs if _blocked_by(results[name])), "")
                if cause:
                    results[check.name] = Result(
                        "skipped", f"Not checked because {cause} failed.", "", check.name, 0, cause
                    )
                else:
                    running[pool.submit(_timed, check, look)] = check
            if running:
                done, _pending = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    results[running.pop(future).name] = future.result()
    return [results[check.name] for check in checks]


def _blocked_by(result: Result) -> str:
    return result.name if result.status == "failed" else result.because_of


def _timed(check: Check, look: Look) -> Result:
    if check.name in look.proven:
        return look.proven[check.name]
    began = time.monotonic()
    try:
        result = check.run(look)
    except Exception as exc:
        # The report about all the others is worth more than a traceback about an answer of a form nobody has seen yet.
        result = failed(
            f"The check itself broke ({type(exc).__name__}: {look.clean(str(exc))})",
            "The answer had a form that this collection does not know: please report it.",
        )
    result.name = check.name
    result.detail, result.advice = _sentence(result.detail), _sentence(result.advice)
    result.seconds = time.monotonic() - began
    return result


def _sentence(text: str) -> str:
    text = text.strip()
    if not text:
        return ""
    # A name at the beginning (author/plugin, a container, nginx) keeps its small letter.
    first = text[0].upper() if re.match(r"(the|a|an|there|it|no)\b", text) else text[0]
    return first + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


@dataclass
class Verdict:
    healthy: bool
    version: str
    results: list[Result]
    # How often in a row everything was well.
    streak: int

    @property
    def trace(self) -> dict[str, Any]:
        return next((one.trace for one in self.results if one.trace), {})


def watch(checks: Sequence[Check], options: Options, repeatable: Sequence[str] = ()) -> Verdict:
    """Look until `successes` looks in a row found nothing wrong, or the deadline comes.

    Checks that are not `repeatable` keep their good result from one look to the next within such a row.
    """
    until = time.monotonic() + options.deadline if options.deadline > 0 else None
    streak, previous = 0, None
    proven: dict[str, Result] = {}
    while True:
        look = Look(options, until, previous)
        look.proven = proven
        results = run_round(checks, look)
        if any(one.status == "failed" for one in results):
            streak, proven = 0, {}
        else:
            streak += 1
            proven = {one.name: one for one in results if one.status == "ok" and one.name not in repeatable}
        verdict = Verdict(streak >= options.successes, look.version, results, streak)
        # The next look must have the time for an answer, else it would call everything a hang.
        late = until is None or until - time.monotonic() < options.interval + _LEAST_SECONDS
        if verdict.healthy or late or any(one.final and one.status == "failed" for one in results):
            return verdict
        previous = look
        time.sleep(options.interval)


def explain(verdict: Verdict, options: Options) -> str:
    """Why it is not healthy: the first failed check, what was found, and what to do."""
    where = f"Dify at {options.url} is not healthy"
    first = next((one for one in verdict.results if one.status == "failed"), None)
    if first is None:
        return (
            f"{where}: everything was well {verdict.streak} time(s) in a row, and {options.successes} were asked for. "
            "Raise deadline or lower successes."
        )
    return f"{where}: {first.name}: {first.detail} {first.advice}".rstrip()
