# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings, from TRACELOOP_* as Traceloop documents them; OTEL_* where those are silent.

One default differs on purpose: what users and models say is sent only when TRACELOOP_TRACE_CONTENT is true.
"""

from __future__ import annotations

import os
import urllib.parse
from collections.abc import Mapping

HOSTED = "https://api.traceloop.com"
CONTENT_LIMIT = 8192
SERVICES = {"api": "dify-api", "worker": "dify-worker", "beat": "dify-beat"}


class Settings:
    """What to send and where. `reason` says why nothing is sent, and is empty when something is."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        env = os.environ if environ is None else environ
        key, headers = env.get("TRACELOOP_API_KEY", "").strip(), _pairs(env.get("TRACELOOP_HEADERS", ""))
        base = env.get("TRACELOOP_BASE_URL", "").strip()
        if not base and not key and env.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
            base = env["OTEL_EXPORTER_OTLP_ENDPOINT"].strip()
            headers = headers or _pairs(env.get("OTEL_EXPORTER_OTLP_HEADERS", ""))
        base = base or HOSTED
        if not headers and key:  # Traceloop: with headers the key is ignored
            headers = {"authorization": f"Bearer {key}"}
        self.headers = headers
        self.traces_url = _signal(base, "traces")
        metrics = env.get("TRACELOOP_METRICS_ENDPOINT", "").strip()
        self.metrics_url = _signal(metrics or base, "metrics")
        # Another endpoint gets no key of this one.
        self.metrics_headers = _pairs(env.get("TRACELOOP_METRICS_HEADERS", ""))
        if not self.metrics_headers and _origin(self.metrics_url) == _origin(self.traces_url):
            self.metrics_headers = headers
        self.content = _true(env.get("TRACELOOP_TRACE_CONTENT"), False)
        self.content_limit = _number(env.get("LLMOPS_TRACELOOP_CONTENT_LIMIT"), CONTENT_LIMIT)
        self.metrics = _true(env.get("TRACELOOP_METRICS_ENABLED"), True)
        self.quiet = _true(env.get("TRACELOOP_SUPPRESS_WARNINGS"), False)
        self.certificate = env.get("OTEL_EXPORTER_OTLP_CERTIFICATE", "")
        self.exporter = env.get("LLMOPS_TRACELOOP_EXPORTER", "auto")  # auto, sdk or stdlib
        self.interval = _number(env.get("LLMOPS_TRACELOOP_INTERVAL_MS"), 1000) / 1000
        self.metrics_interval = _number(env.get("LLMOPS_TRACELOOP_METRICS_INTERVAL_MS"), 60000) / 1000
        self.timeout = _number(env.get("LLMOPS_TRACELOOP_TIMEOUT_MS"), 10000) / 1000
        self.queue = _number(env.get("LLMOPS_TRACELOOP_QUEUE"), 2048)
        self.queue_bytes = _number(env.get("LLMOPS_TRACELOOP_QUEUE_BYTES"), 8 * 1024 * 1024)
        self.resource = _pairs(env.get("OTEL_RESOURCE_ATTRIBUTES", ""))
        self.service = (
            env.get("OTEL_SERVICE_NAME")
            or self.resource.get("service.name")
            or SERVICES.get(env.get("MODE", ""), "dify-api")
        )
        self.reason = ""
        if not _true(env.get("TRACELOOP_TRACING_ENABLED"), True):
            self.reason = "TRACELOOP_TRACING_ENABLED is false"
        elif _true(env.get("OTEL_SDK_DISABLED"), False):
            self.reason = "OTEL_SDK_DISABLED is true"
        elif not self.traces_url:
            self.reason = "TRACELOOP_BASE_URL is not an http:// or https:// address; OTLP over gRPC is not spoken here"
        elif not all(
            text.isascii() and text.isprintable() for text in (*headers.values(), *self.metrics_headers.values())
        ):
            self.reason = "the key or a header holds a character that HTTP does not allow"  # an error would quote it
        elif _origin(self.traces_url) == _origin(HOSTED) and not headers:
            self.reason = "TRACELOOP_API_KEY is not set, and api.traceloop.com takes nothing without one"
        if not self.metrics_url:
            self.metrics = False


def _signal(base: str, signal: str) -> str:
    """The address of one signal below `base`; empty for what is no HTTP address."""
    parts = urllib.parse.urlsplit(base)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return ""
    base = base.rstrip("/")
    return base if base.endswith(f"/v1/{signal}") else f"{base}/v1/{signal}"


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.hostname, parts.port


def _pairs(text: str) -> dict[str, str]:
    """`k=v,k2=v2` with %20, as W3C baggage and every OpenTelemetry variable write it."""
    pairs = (item.partition("=") for item in text.split(",") if "=" in item)
    return {urllib.parse.unquote(k).strip(): urllib.parse.unquote(v).strip() for k, _equals, v in pairs if k.strip()}


def _true(text: str | None, default: bool) -> bool:
    return default if text is None or not text.strip() else text.strip().lower() in ("true", "1", "yes", "on")


def _number(text: str | None, default: int) -> int:
    try:
        return max(1, int(text or default))
    except ValueError:
        return default
