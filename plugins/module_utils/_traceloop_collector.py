# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""The configuration of the OpenTelemetry Collector between Dify and a backend. Pure.

It takes spans and metrics at once, so that no model call ever waits for a backend, and keeps on disk what cannot be
delivered yet. Its log has one line for each call, which is where a delivery is seen that no backend can be asked about.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

__all__ = ["CONFIG", "HEADER", "QUEUE", "SECTIONS", "USER", "collector", "merge", "queue", "texts"]

USER = 10001  # of the published image
CONFIG = "/etc/otelcol-contrib/config.yaml"  # where that image looks for it
QUEUE = "/var/lib/otelcol/queue"
SECTIONS = ("receivers", "processors", "exporters", "connectors", "extensions", "service")
# Attributes with what users and models say: those of our plugin and of OpenLLMetry, and of the spans that Dify's own
# workflow nodes have for models, tools and knowledge.
CONTENT = (
    r"^(gen_ai\.(prompt|completion|input\.messages|output\.messages|system_instructions|tool\.call\.)"
    r"|(input|output)\.value|retrieval\.(query|document))"
)
# What an error says has the input of the call that failed in it.
_ERROR = r"^exception\.(message|stacktrace)$"
_OURS = "llmops.monitoring.traceloop"  # its spans have texts in both only if they were asked for
HEADER = "{}_HEADER_{}"  # variables of its environment with the values of headers, by signal and number
_RETRY = {"enabled": True, "initial_interval": "2s", "max_interval": "30s", "max_elapsed_time": "0s"}  # for ever
# Its own figures (queue, losses) go the way of all others, once a minute.
_ITSELF = {
    "metrics": {
        "readers": [
            {
                "periodic": {
                    "interval": 60000,
                    "exporter": {"otlp": {"protocol": "http/protobuf", "endpoint": "http://127.0.0.1:4318/v1/metrics"}},
                }
            }
        ]
    }
}


def collector(given: Mapping[str, Any], where: Mapping[str, Any]) -> dict[str, Any]:
    """C(config), and C(env): the secrets that it reads from its environment.

    Args:
        given: the variables of the role, without C(traceloop_) before their names.
        where: what C(target) returned.
    """
    # A proxy that Docker's own configuration gives to every container knows nothing of a backend beside it.
    env: dict[str, str] = {"NO_PROXY": where["own"]} if where["own"] else {}
    exporters: dict[str, Any] = {
        "debug/calls": {"verbosity": "normal"},
        "otlp_http/traces": _exporter("traces", where["traces_url"], where["headers"], given, env),
    }
    # Dify's own spans have the texts whether anybody asked for them or not.
    private = ["attributes/no_content", "transform/no_content"] if _is_private(given) else []
    pipelines: dict[str, Any] = {
        "traces": _pipeline("otlp_http/traces", *private),
        "traces/log": _pipeline("debug/calls", "filter/calls", "attributes/no_content"),
    }
    if where["metrics_url"]:
        exporters["otlp_http/metrics"] = _exporter(
            "metrics", where["metrics_url"], where["metrics_headers"], given, env
        )
        to = "otlp_http/metrics"
    elif given["dify_otel"]:  # Dify sends its own whether anybody wants them or not
        exporters["debug/metrics"] = {"verbosity": "basic"}
        to = "debug/metrics"
    else:
        to = ""
    if to:
        pipelines["metrics"] = _pipeline(to)
    ours: dict[str, Any] = {
        "extensions": {
            "file_storage/queue": {"directory": QUEUE, "compaction": {"directory": QUEUE, "on_rebound": True}}
        },
        "receivers": {"otlp": {"protocols": {"http": {"endpoint": "0.0.0.0:4318"}}}},
        "processors": {
            "memory_limiter": {"check_interval": "1s", "limit_percentage": 75, "spike_limit_percentage": 20},
            "batch": {"timeout": "500ms", "send_batch_size": 256, "send_batch_max_size": 256},
            "attributes/no_content": {"actions": [{"action": "delete", "pattern": CONTENT}]},
            **({"transform/no_content": _without_errors()} if private else {}),
            "filter/calls": {
                "error_mode": "ignore",
                "traces": {"span": ['attributes["gen_ai.operation.name"] == nil']},
            },
        },
        "exporters": exporters,
        "service": {"extensions": ["file_storage/queue"], "pipelines": pipelines},
    }
    if given["backend"] == "lgtm" and where["metrics_url"]:  # where the dashboard is that shows them
        ours["service"]["telemetry"] = _ITSELF
    return {"config": merge(ours, given["collector_config"] or {}), "env": {**env, **texts(given["collector_env"])}}


def queue(given: Mapping[str, Any], where: Mapping[str, Any]) -> str:
    """Folder of what waits: neither another backend nor one that is to have no texts any more gets that."""
    meant = "\0".join((where["traces_url"], where["metrics_url"], str(given["trace_content"])))
    return hashlib.sha256(meant.encode()).hexdigest()[:12]


def _is_private(given: Mapping[str, Any]) -> bool:
    return bool(given["dify_otel"]) and not given["trace_content"]


def _without_errors() -> dict[str, Any]:
    """The type of an error stays."""
    foreign = f'instrumentation_scope.name != "{_OURS}"'
    events = [f'delete_matching_keys(attributes, "{pattern}")' for pattern in (CONTENT, _ERROR)]
    return {
        "error_mode": "propagate",  # rather nothing than a text
        "trace_statements": [
            {"context": "span", "statements": [f'set(status.message, "") where {foreign}']},
            {"context": "spanevent", "statements": [one.replace("\\", "\\\\") for one in events]},
        ],
    }


def _exporter(
    signal: str, url: str, headers: Mapping[str, str], given: Mapping[str, Any], env: dict[str, str]
) -> dict[str, Any]:
    made: dict[str, Any] = {f"{signal}_endpoint": url}
    for number, (name, value) in enumerate(sorted(headers.items()), 1):
        variable = HEADER.format(signal.upper(), number)
        env[variable] = value
        made.setdefault("headers", {})[name] = f"${{env:{variable}}}"
    made["sending_queue"] = {
        "enabled": True,
        "storage": "file_storage/queue",
        "sizer": "bytes",
        "queue_size": int(given["queue_mb"]) * 1024 * 1024,
        "num_consumers": 4,
    }
    made["retry_on_failure"] = dict(_RETRY)
    return made


def _pipeline(to: str, *between: str) -> dict[str, Any]:
    return {"receivers": ["otlp"], "processors": ["memory_limiter", *between, "batch"], "exporters": [to]}


def texts(given: Any) -> dict[str, str]:
    """Environment as text; a truth of YAML is written as most programs read it."""
    return {
        str(key): ("true" if value else "false") if isinstance(value, bool) else str(value)
        for key, value in (given or {}).items()
    }


def merge(base: Any, extra: Any) -> Any:
    """Mappings merge; everything else, lists too, is replaced, as the collector does with several files."""
    if isinstance(base, Mapping) and isinstance(extra, Mapping):
        merged = dict(base)
        for key, value in extra.items():
            merged[key] = merge(merged[key], value) if key in merged else value
        return merged
    return extra
