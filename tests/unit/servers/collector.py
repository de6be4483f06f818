# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lines of the log of an OpenTelemetry Collector 0.155.0, in the form in which it was seen to write them."""

from __future__ import annotations

import json

MODEL = "deepseek-r1:1.5b"
TRACE, SPAN = "ad7ddeee647161c5a004eb2097f183b7", "f2a4c293eb33e9a7"
STAMP = "2026-11-26T01:34:34.008Z"
ABOUT = {"resource": {"service.name": "otelcol", "service.version": ""}, "otelcol.component.kind": "exporter"}
# Behind each error comes where in the program that was.
PLACE = "go.opentelemetry.io/collector/exporter/exporterhelper/internal.NewQueueSender.func1\n\tqueue_sender.go:50\n"


def span(tokens: tuple[int, int] | None = (38, 4), more: dict[str, str] | None = None) -> str:
    """What the debug exporter writes about one span at verbosity normal; values are as they are, without quotes."""
    usage = ""
    if tokens is not None:
        usage = f" gen_ai.usage.input_tokens={tokens[0]} gen_ai.usage.output_tokens={tokens[1]}"
    extra = "".join(f" {name}={value}" for name, value in (more or {}).items())
    about = json.dumps({**ABOUT, "otelcol.component.id": "debug/calls", "otelcol.signal": "traces"})
    return (
        f'{STAMP}\tinfo\tTraces\t{about[:-1]}, "resource spans": 1, "spans": 1}}\n'
        f"{STAMP}\tinfo\tResourceTraces #0 service.name=dify-api host.name=api process.pid=21\n"
        "ScopeTraces #0 llmops.monitoring.traceloop\n"
        f"chat {MODEL} {TRACE} {SPAN} gen_ai.operation.name=chat gen_ai.request.model={MODEL} llm.request.type=chat "
        "gen_ai.request.stream=true dify.outcome=ok gen_ai.response.model=m "
        f'gen_ai.response.finish_reasons=["stop"] gen_ai.response.time_to_first_chunk=0.2143{usage}{extra}\n'
        f"\t{about}\n"
    )


def trouble(error: str, retried: bool = False, signal: str = "traces", rejected: bool = False) -> str:
    about = {**ABOUT, "otelcol.component.id": "otlphttp/traces", "otelcol.signal": signal, "error": error}
    if retried:
        said = {**about, "interval": "1.3s"}
        text = "Exporting failed. Will retry the request after interval."
        return f"{STAMP}\tinfo\tinternal/retry_sender.go:133\t{text}\t{json.dumps(said)}\n"
    what = "Rejecting" if rejected else "Dropping"
    return f"{STAMP}\terror\tinternal/queue_sender.go:50\tExporting failed. {what} data.\t{json.dumps(about)}\n{PLACE}"


def refused(status: int) -> str:
    """An answer after which it does not try again; 500 is one of them."""
    code = {401: "Unauthenticated", 404: "Unimplemented"}.get(status, "Unknown")
    return trouble(
        f"not retryable error: Permanent error: rpc error: code = {code} desc = error exporting items, request to "
        f"http://backend:4318/v1/traces responded with HTTP Status Code {status}, Message=, Details=[]"
    )


def unreachable(why: str) -> str:
    return trouble(f'failed to make an HTTP request: Post "http://backend:4318/v1/traces": {why}', retried=True)


UNKNOWN_NAME = unreachable("dial tcp: lookup backend on 127.0.0.11:53: no such host")
NOBODY_LISTENS = unreachable("dial tcp 172.18.0.9:4318: connect: connection refused")
SILENCE = unreachable("context deadline exceeded (Client.Timeout exceeded while awaiting headers)")
FULL = trouble("sending queue is full", rejected=True)
