# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""The configuration of the OpenTelemetry Collector between Dify and a backend. Pure.

It takes spans and metrics at once, so that no model call ever waits for a backend, and keeps on disk what cannot be
delivered yet. Its log has one line for each call, which is where a delivery is seen that no backend can be asked about.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["CONFIG", "QUEUE", "SECTIONS", "USER", "collector", "merge"]

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
    env: dict[str, str] = {}
    exporters: dict[str, Any] = {
        "debug/calls": {"verbosity": "normal"},
        "otlp_http/traces": _exporter("traces", where["traces_url"], where["headers"], given, env),
    }
    # Dify's own spans have the texts whether anybody asked for them or not.
    private = ["attributes/no_content"] if given["dify_otel"] and not given["trace_content"] else []
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
        "extensions": {"file_storage/queue": {"directory": QUEUE, "compaction": {"directory": QUEUE}}},
        "receivers": {"otlp": {"protocols": {"http": {"endpoint": "0.0.0.0:4318"}}}},
        "processors": {
            "memory_limiter": {"check_interval": "1s", "limit_percentage": 75, "spike_limit_percentage": 20},
            "batch": {"timeout": "500ms", "send_batch_size": 256, "send_batch_max_size": 256},
            "attributes/no_content": {"actions": [{"action": "delete", "pattern": CONTENT}]},
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
    return {"config": merge(ours, given["collector_config"] or {}), "env": {**env, **_texts(given["collector_env"])}}


def _exporter(
    signal: str, url: str, headers: Mapping[str, str], given: Mapping[str, Any], env: dict[str, str]
) -> dict[str, Any]:
    made: dict[str, Any] = {f"{signal}_endpoint": url}
    for number, (name, value) in enumerate(sorted(headers.items()), 1):
        variable = f"{signal.upper()}_HEADER_{number}"
        env[variable] = value
        made.setdefault("headers", {})[name] = f"${{env:{variable}}}"
    made["sending_queue"] = {
        "enabled": True,
        "storage": "file_storage/queue",
        "queue_size": int(given["queue_size"]),
        "num_consumers": 4,
    }
    made["retry_on_failure"] = dict(_RETRY)
    return made


def _pipeline(to: str, *between: str) -> dict[str, Any]:
    return {"receivers": ["otlp"], "processors": ["memory_limiter", *between, "batch"], "exporters": [to]}


def _texts(given: Any) -> dict[str, str]:
    return {str(key): str(value) for key, value in (given or {}).items()}


def merge(base: Any, extra: Any) -> Any:
    """Mappings merge; everything else, lists too, is replaced, as the collector does with several files."""
    if isinstance(base, Mapping) and isinstance(extra, Mapping):
        merged = dict(base)
        for key, value in extra.items():
            merged[key] = merge(merged[key], value) if key in merged else value
        return merged
    return extra
