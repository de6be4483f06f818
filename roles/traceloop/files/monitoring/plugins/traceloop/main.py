# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hooks of the traceloop plugin: one span and some measurements per model call."""

from __future__ import annotations

import importlib
import os
import socket
import sys
import time
import uuid
from typing import Any

from llmops_monitoring import counters

from . import config, describe, names, propagate
from .metrics import Metrics
from .pipeline import COMPLAIN_AFTER, Pipeline
from .transport import Answer, Delivery, Transport

DATA = "traceloop"  # our place in event.data
LEAVE_WITHIN = 5.0  # seconds that a stopping process may spend on what is still queued
REDUCED = "traceloop.reduced_spans"
BREATH = 0.0005  # seconds between two pieces of the metrics, for others to run in


class Session:
    """Span maker, metrics, queue and thread of one process."""

    def __init__(self, settings: config.Settings, module: Any) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.pipeline = Pipeline(
            self._post,
            self._tick,
            lambda text: say(text, settings),
            lambda name, spans: counters.count(f"traceloop.{name}", spans),
            spans=settings.queue,
            size=settings.queue_bytes,
            interval=settings.interval,
            tick_every=settings.metrics_interval,
            timeout=settings.timeout,
        )
        self.backend = module.Backend(resource(settings), self.pipeline.offer)
        more = (self.backend.content_type, settings.certificate)
        self._traces = Transport(settings.traces_url, settings.headers, *more)
        self._points = Transport(settings.metrics_url, settings.metrics_headers, *more)
        self._metrics_problem, self._metrics_failures, self._metrics_said = "", 0, False

    def _post(self, parts: list[bytes], within: float) -> Answer:
        return self._traces.post(self.backend.join("traces", parts), within)

    def _tick(self, within: float) -> None:
        """Send the metrics in so many seconds. They are cumulative: the next tick carries what this one could not."""
        if not self.settings.metrics:
            return
        counts = {names.DROPPED_SPANS: self.pipeline.dropped, names.EXPORTED_SPANS: self.pipeline.delivered}
        parts, end = [], time.monotonic() + within
        try:
            for piece in self.metrics.pieces(counts):
                parts.append(self.backend.metric(piece))
                time.sleep(BREATH)
                if time.monotonic() > end:
                    raise TimeoutError
            answer = self._points.post(self.backend.join("metrics", parts), end - time.monotonic())
        except Exception as error:  # whatever it is, the thread goes on
            answer = Answer(Delivery.RETRY, type(error).__name__)
        if answer.delivery is Delivery.TAKEN:
            self.metrics.taken()
        self._heard(answer)

    def _heard(self, answer: Answer) -> None:
        """Say once that the metrics are not taken, and once that they are again. A collector may restart unsaid."""
        self._metrics_problem = answer.problem
        if not answer.problem:
            if self._metrics_said:
                say("the metrics are taken again", self.settings)
            self._metrics_failures, self._metrics_said = 0, False
            return
        self._metrics_failures += 1
        if answer.delivery is not Delivery.RETRY or self._metrics_failures >= COMPLAIN_AFTER:
            self._complain()

    def _complain(self) -> None:
        if not self._metrics_said:
            self._metrics_said = True
            say(f"the metrics are not taken: {self._metrics_problem}", self.settings)

    def close(self) -> None:
        self.pipeline.close(LEAVE_WITHIN)
        if self._metrics_problem:  # there is no next tick
            self._complain()
        self._traces.close()
        self._points.close()


_session: Session | None = None


def run() -> None:
    """Once in a process, before its first call: queue and thread. All imports are done by then."""
    global _session
    if _settings.reason:
        say(f"nothing is sent: {_settings.reason}", _settings)
        return
    session = Session(_settings, _backend)
    session.pipeline.start()
    propagate.install()
    _session = session


def close() -> None:
    global _session
    propagate.remove()
    session, _session = _session, None
    if session:
        session.close()


def before_invoke(event: Any) -> None:
    session = _session
    if session is None or session.backend.suppressed():
        return
    if session.settings.content:
        event.keep_content(session.settings.content_limit)
    try:
        name, asked = describe.span_name(event), describe.request(event)
    except Exception as error:  # a call is told of whatever its arguments are
        counters.failed(REDUCED, error)
        name, asked = "unknown", {}
    span = session.backend.begin(name, asked, event.started_ns)
    event.data[DATA] = (session, span)
    propagate.outgoing.set(session.backend.activate(span))


def after_invoke(event: Any) -> None:
    session, span = event.data.pop(DATA, (None, None))
    if session is None:
        return
    limit = session.settings.content_limit if session.settings.content else 0
    ended = event.wall_ns(event.ended) if event.ended is not None else event.started_ns
    try:
        attributes = {**describe.response(event), **describe.content(event, limit)}
        session.backend.end(span, attributes, describe.status(event, limit), ended)
    except Exception as error:
        counters.failed(REDUCED, error)
        span.name, span.attributes = "unknown", {}
        session.backend.end(span, describe.bare(event), describe.status(event, 0), ended)
    if session.settings.metrics:
        for metric, value, of in describe.measurements(event):
            session.metrics.record(metric, value, of)


on_error = after_invoke  # the event says how it ended


def resource(settings: config.Settings) -> dict[str, Any]:
    """Who sends. The instance names the process: cumulative series of two processes must never look like one."""
    host = socket.gethostname()
    return {
        **settings.resource,
        names.SERVICE_NAME: settings.service,
        names.SERVICE_INSTANCE: f"{host}:{os.getpid()}:{uuid.uuid4().hex[:8]}",
        names.HOST_NAME: host,
        names.PROCESS_PID: os.getpid(),
    }


def say(text: str, settings: config.Settings) -> None:
    if settings.quiet:
        return
    try:
        sys.stderr.write(f"llmops-monitoring[{os.getpid()}]: traceloop: {text}\n")
    except (OSError, ValueError, AttributeError, RuntimeError):  # closed, gone, or in the middle of another write
        counters.count("internal.stderr")


def _choose(settings: config.Settings) -> Any:
    if settings.exporter != "stdlib":
        try:
            return importlib.import_module(".sdk", __package__)
        except Exception as error:  # absent, or a release that this code does not know
            if settings.exporter == "sdk":
                say(f"the image's OpenTelemetry cannot be used ({type(error).__name__}); OTLP/JSON is sent", settings)
    return importlib.import_module(".plain", __package__)


# While the application starts, not in somebody's call: OpenTelemetry takes a third of a second to import.
_settings = config.Settings()
_backend = _choose(_settings)
