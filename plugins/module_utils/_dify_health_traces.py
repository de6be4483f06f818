# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.

"""Whether the chat that was asked has left a span at the backend, and if not, where it was lost."""

from __future__ import annotations

import json
import time
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._dify_health_engine import (
    Look,
    Result,
    failed,
    ok,
    skipped,
)
from ansible_collections.llmops.stack.plugins.module_utils._dify_health_host import inventory
from ansible_collections.llmops.stack.plugins.module_utils._docker_cli import Container, DockerError, last_line
from ansible_collections.llmops.stack.plugins.module_utils._traces import (
    Question,
    Span,
    TracesError,
    exact,
    likely,
    line,
)
from ansible_collections.llmops.stack.plugins.module_utils._traces_collector import Refusal, refusals, spans
from ansible_collections.llmops.stack.plugins.module_utils._traces_phoenix import Phoenix

_PAUSE = 0.5
# A backend that refuses says so within milliseconds; one that is only slow may be waited for by the next look.
_SETTLE = 2.0
# A miss may be the start of a backend, two in a row are none.
_MISSES = 2
# The runtime's own lines on the stderr of Dify's processes begin with this.
_SAYS = "llmops-monitoring"
_WELL = "delivered again"
_SELF_CHECK = "docker compose exec api python3 -m llmops_monitoring"
_AGAIN = "Run site.yml again, which writes the runtime, its settings and the mounts of api and worker."

_REFUSED = {
    "unauthorized": "The key is wrong: correct traceloop_api_key or traceloop_headers, and run site.yml again.",
    "dns": "The name is unknown in the collector's container: correct traceloop_base_url, or the DNS of this host.",
    "refused": "Nothing listens there: start the backend, or correct the port in traceloop_base_url.",
    "unreachable": "There is no way to that address: look at the routes and firewalls of this host.",
    "slow": "The backend takes connections and does not answer, or a firewall drops the packets: look at both.",
    "tls": "The certificate is not one that the collector trusts: correct it, or give the collector the authority's "
    "(traceloop_collector_config).",
    "full": "The backend has taken nothing for so long that the collector's queue is full, and spans are lost: the "
    "collector's log says since when and why. traceloop_queue_mb makes the queue longer.",
    "status": "The backend, or something in front of it, is in trouble: read its log.",
    "other": "Read the collector's log, and see that the backend speaks OTLP over HTTP at this address.",
}
_STATUS = {
    404: "Nothing takes spans at that address: correct traceloop_base_url, to which /v1/traces is added.",
    413: "The backend takes no batch of this size: give the collector's batch processor a smaller send_batch_max_size.",
    415: "The backend does not speak OTLP over HTTP as protobuf at this address: correct traceloop_base_url.",
    429: "The backend takes no more for now: its quota is used up, or its limit of requests is too low.",
    500: "The backend is in trouble: read its log. The collector does not send again what got this answer.",
}


def check_traces(look: Look) -> Result:
    wanted = look.options.traces
    if not wanted:
        return skipped("No spans of model calls are expected here")
    if wanted["backend"] == "none":
        whom = wanted.get("target") or "the backend"
        return skipped(f"{whom} cannot be asked about a span, and there is no collector whose log would tell")
    if not look.options.wants("llm"):
        return skipped(f"Only the chat of probe llm leaves a span to look for (probe is {look.options.probe})")
    if wanted["backend"] == "collector" and not look.options.project:
        return skipped("No project was given, so the collector's log cannot be read")
    if look.chat is None:
        return skipped("No chat was asked, so there is no span to look for")
    search = _Search(look, look.chat)
    result = search.stopped() or (search.at_phoenix() if wanted["backend"] == "phoenix" else search.at_collector())
    if result.status == "failed" and not search.starting():
        look.lost_spans += 1
        result.final = result.final or look.lost_spans >= _MISSES
    return result


class _Search:
    def __init__(self, look: Look, asked: Question) -> None:
        wanted = look.options.traces
        self.look = look
        self.asked = asked
        self.service = str(wanted.get("collector") or "")
        self.services = [str(name) for name in wanted.get("services") or [self.service]]
        self.target = str(wanted.get("target") or wanted.get("url") or "the backend")
        self.patience = look.cap(float(wanted["wait"]))
        self.until = time.monotonic() + self.patience

    def _goes_on(self) -> bool:
        left = self.until - time.monotonic()
        if left > 0:
            time.sleep(min(_PAUSE, left))
        return left > 0

    def stopped(self) -> Result | None:
        """Nothing is waited for where somebody has stopped what it comes through."""
        if not self.look.options.project:
            return None
        try:
            found = [one for one in inventory(self.look) if one.service in self.services]
        except DockerError:
            return None
        one = next((one for one in found if not one.running and one.state != "restarting"), None)
        if one is None:
            return None
        waits = "in the processes that made them" if one.service == self.service else "before it"
        return failed(
            f"{one.name}, through which every span goes, is {one.state}; spans wait {waits}",
            f"Start it with `docker start {one.name}`, and read its log if it does not stay.",
            final=True,
        )

    # The backend that can be asked

    def at_phoenix(self) -> Result:
        wanted = self.look.options.traces
        phoenix = Phoenix(
            self.look.http,
            str(wanted["url"]),
            wanted.get("headers"),
            str(wanted.get("project") or ""),
            str(wanted.get("page") or ""),
        )
        found: list[Span] = []
        while True:
            trouble = None
            try:
                found = phoenix.spans(self.asked.since, self.look.timeout)
            except TracesError as exc:
                trouble = exc
            one = exact(found, self.asked)
            if one:
                return self._found(one, f"Its span is at {self.target}")
            if (trouble and trouble.final) or not self._goes_on():
                break
        near = likely(found, self.asked)
        if near:
            return self._nearly(near, f"at {self.target}")
        return self._lost(trouble, phoenix.project)

    # The backend that cannot

    def at_collector(self) -> Result:
        try:
            while True:
                log, missing = self._collector_log()
                if missing:
                    return missing
                one = exact(spans(log), self.asked)
                if one or not self._goes_on():
                    break
            if not one:
                near = likely(spans(log), self.asked)
                return self._nearly(near, "at the collector") if near else self._never_sent()
            time.sleep(min(_SETTLE, max(0.0, self.until - time.monotonic())))
            log, _missing = self._collector_log()
        except DockerError as exc:
            return self._blind(exc)
        refused = _telling(refusals(log))
        return (
            self._refused(refused)
            if refused
            else self._found(one, f"Its span went to {self.target}, which refused nothing")
        )

    # Verdicts

    def _found(self, one: Span, where: str) -> Result:
        trace = one.public()
        result = ok(f"{where}: {self.look.clean(line(trace))}")
        result.trace = trace
        return result

    def _nearly(self, one: Span, where: str) -> Result:
        """Spans of this moment, and none with the answer's own numbers."""
        if one.counted:
            return self._found(one, f"A span of this moment is {where}, of one of several calls or of another chat")
        what = self.look.clean(line(one.public()), 160)
        return failed(
            f"The span {where} has no tokens ({what})",
            "The answer said how many there were, so the monitoring runtime does not find them in what this release of "
            "Dify hands on: please report it, with the release.",
        )

    def _lost(self, trouble: TracesError | None, project: str) -> Result:
        """Phoenix does not have it. Whoever had it last knows why."""
        asked = failed(trouble.detail, trouble.advice, trouble.final) if trouble else None
        if not self.look.options.project:
            return asked or failed(
                f"No span of the chat is at {self.target} after {self.patience:g} s",
                f"See on the host that runs Dify whether the runtime is loaded: `{_SELF_CHECK}`.",
            )
        try:
            if not self.service:
                return asked or self._never_sent()
            log, missing = self._collector_log()
            if missing:
                return missing
            refused = _telling(refusals(log))
            if refused:
                return self._refused(refused)
            if asked:
                return asked
            if not exact(spans(log), self.asked) and not likely(spans(log), self.asked):
                return self._never_sent()
        except DockerError as exc:
            return asked or self._blind(exc)
        return failed(
            f"The collector has the span of the chat, and after {self.patience:g} s {self.target} does not show it in "
            f"its project {project}",
            "See that the collector sends to this very Phoenix, and that traces.project is where its spans go.",
        )

    def _refused(self, refused: Refusal) -> Result:
        return failed(
            f"{self.target} does not take the spans; the collector says: {self.look.clean(refused.text)}",
            _STATUS.get(refused.status) or _REFUSED[refused.kind],
            final=refused.kind in ("unauthorized", "status") and not refused.retried,
        )

    def _blind(self, exc: DockerError) -> Result:
        return failed(
            f"The log of {self.service} cannot be read: {self.look.clean(str(exc))}", "Check the Docker daemon."
        )

    # What the host tells

    def _container(self, service: str) -> Container | None:
        found = [one for one in inventory(self.look) if one.service == service]
        return next((one for one in found if one.running), found[0] if found else None)

    def starting(self) -> bool:
        if not self.look.options.project:
            return False
        try:
            return any(one.running and one.health == "starting" for one in inventory(self.look))
        except DockerError:
            return False

    def _collector_log(self) -> tuple[str, Result | None]:
        """What it wrote since the chat, or what is wrong with it."""
        one = self._container(self.service)
        if one is None:
            return "", failed(f"There is no container of the service {self.service}", _AGAIN)
        return self.look.docker.logs(one, self.look.timeout, "--since", f"{self.asked.since:.3f}"), None

    def _never_sent(self) -> Result:
        """No span has left the api container: the runtime there knows why."""
        lost = f"No span of the chat {'reached the collector' if self.service else f'is at {self.target}'}"
        api = self._container("api")
        if api is None or not api.running:
            return failed(f"{lost}, and there is no running api container", "Start it with `docker compose up -d`.")
        trouble = self._self_check(api)
        if trouble:
            return failed(f"{lost}: {trouble}", _AGAIN)
        said = self._last_words(api)
        if said:
            return failed(f"{lost}; the last that the runtime says in {api.name} is: {said}", _advice(said))
        return failed(
            f"{lost} within {self.patience:g} s, though the runtime is in {api.name} and says nothing",
            f"The running processes may be older than it: restart api and worker; `{_SELF_CHECK}` shows what is seen.",
        )

    def _self_check(self, api: Container) -> str:
        """What keeps a new process in this container from seeing model calls; "" if nothing does."""
        code, out, err = self.look.docker.run(
            ["exec", api.id, "python3", "-m", "llmops_monitoring"], self.look.cap(max(20.0, self.look.options.timeout))
        )
        found = _json(out)
        if not found:
            if "No module named" in err:
                return f"{api.name} runs without the monitoring runtime"
            return (
                f"the runtime cannot be asked in {api.name} ({self.look.clean(last_line(err)) or f'exit code {code}'})"
            )
        if not found.get("generation"):
            missing = ", ".join(found.get("missing") or []) or "none of the functions that it knows"
            return (
                f"the runtime finds no place in this release of Dify to see model calls at ({self.look.clean(missing)})"
            )
        plugins = {str(one.get("name")): str(one.get("refused") or "") for one in found.get("plugins") or []}
        if "traceloop" not in plugins:
            return f"{api.name} has no monitoring plugin named traceloop"
        return (
            f"its plugin traceloop is refused: {self.look.clean(plugins['traceloop'])}" if plugins["traceloop"] else ""
        )

    def _last_words(self, api: Container) -> str:
        try:
            log = self.look.docker.logs(api, self.look.timeout, "--tail", "5000")
        except DockerError:
            return ""
        told = [text for text in log.splitlines() if text.startswith(_SAYS)]
        return self.look.clean(told[-1], 200) if told and _WELL not in told[-1] else ""


def _telling(found: list[Refusal]) -> Refusal | None:
    """The last one; a full queue is only what others have led to."""
    told = [one for one in found if one.kind != "full"] or found
    return told[-1] if told else None


def _advice(said: str) -> str:
    if "nothing is sent" in said:
        return _AGAIN
    if "dropped" in said or "waiting" in said:
        return (
            "The processes of Dify cannot deliver to the address in TRACELOOP_BASE_URL of that container: look at what "
            "it leads to, and at its key."
        )
    return f"See what `{_SELF_CHECK}` says, and report it if it says that all is well."


def _json(text: str) -> dict[str, Any]:
    """From the first brace on: Dify's images print notes of their own before it."""
    try:
        found = json.loads(text[max(0, text.find("{")) :])
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
