# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""What Dify's compose project gets for its model calls to be seen: mounts, environment, containers. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils import _traceloop_collector as collector
from ansible_collections.llmops.stack.plugins.module_utils._traceloop_target import LGTM, PHOENIX, bracketed

__all__ = ["CALLERS", "COLLECTOR", "COLLECTOR_URL", "LABEL", "LGTM_DATA", "PHOENIX_USER", "fragment"]

LABEL = "llmops.stack.monitoring"
COLLECTOR = "otel_collector"
COLLECTOR_URL = f"http://{COLLECTOR}:4318"
MOUNT = "/opt/llmops-monitoring"
# They call models in their own processes. worker_beat only says when, api_websocket only carries editors' events, and
# agent_backend is another program.
CALLERS = ("api", "worker")
PHOENIX_USER = 65532  # the image runs as root unless told otherwise; this is the user of its nonroot variant
LGTM_DATA = "/data"
_PHOENIX_ASKS = (
    "import http.client as h; c = h.HTTPConnection('127.0.0.1', 6006, timeout=5); c.request('GET', '/healthz'); "
    "raise SystemExit(c.getresponse().status != 200)"
)


def fragment(given: Mapping[str, Any], made: Mapping[str, Any]) -> dict[str, Any]:
    """One compose file.

    Args:
        given: the variables of the role, without C(traceloop_) before their names.
        made: C(files) and C(secret_files) of C(traceloop_home), C(hooked) (whether model calls can be seen in this
            release), C(own) (the backend that is a container here), C(queue) (the collector's folder for what waits),
            C(dify_otel) and C(daemon_otel) (whose own spans are sent).
    """
    home = str(given["home"])
    services: dict[str, dict[str, Any]] = {}
    if made["hooked"]:
        for name in CALLERS:
            services[name] = {
                "environment": {"PYTHONPATH": MOUNT},
                "env_file": [f"{home}/dify.env"],
                "volumes": [f"{home}/monitoring:{MOUNT}:ro"],
                "labels": {LABEL: _digest(made, "monitoring/", "dify.env")},
            }
    for name in CALLERS if made["dify_otel"] else ():
        services.setdefault(name, {}).setdefault("environment", {}).update(_otel("OTLP_API_KEY"))
    if made["daemon_otel"]:
        services["plugin_daemon"] = {"environment": _otel("OTEL_API_KEY")}
    if given["collector"]:
        services[COLLECTOR] = _collector(given, made)
    if made["own"] == PHOENIX:
        services[PHOENIX] = _phoenix(given)
    if made["own"] == LGTM:
        services[LGTM] = _lgtm(given, made)
    return {"services": services}


def _otel(key: str) -> dict[str, str]:
    """Stock compose files set these in C(environment), which wins over any env_file; so it is said there, too."""
    return {
        "ENABLE_OTEL": "true",
        "OTLP_BASE_ENDPOINT": COLLECTOR_URL,
        "OTEL_EXPORTER_TYPE": "otlp",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http",
        "OTEL_SAMPLING_RATE": "1.0",
        key: "",
    }


def _collector(given: Mapping[str, Any], made: Mapping[str, Any]) -> dict[str, Any]:
    home = str(given["home"])
    return {
        "image": str(given["collector_image"]),
        "command": ["--config", collector.CONFIG],
        "restart": "always",
        "env_file": [f"{home}/collector/collector.env"],
        "environment": {"GOMEMLIMIT": "300MiB"},
        "volumes": [
            f"{home}/collector/config.yaml:{collector.CONFIG}:ro",
            f"{home}/{made['queue']}:{collector.QUEUE}",
        ],
        "mem_limit": "400m",
        "networks": ["default"],
        "labels": {LABEL: _digest(made, "collector/")},
    }


def _phoenix(given: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "image": str(given["phoenix_image"]),
        "restart": "always",
        "user": f"{PHOENIX_USER}:{PHOENIX_USER}",
        "environment": {
            "PHOENIX_HOST": "0.0.0.0",  # noqa: S104 - inside of its container; published as bind_address says
            "PHOENIX_PORT": "6006",
            "PHOENIX_WORKING_DIR": "/data",
            "PHOENIX_DEFAULT_RETENTION_POLICY_DAYS": str(given["retention_days"]),
            "PHOENIX_TELEMETRY_ENABLED": "false",
            "PHOENIX_ALLOW_EXTERNAL_RESOURCES": "false",
        },
        "volumes": [f"{given['home']}/phoenix:/data"],
        "ports": [_published(given, "phoenix_port", 6006)],
        "healthcheck": {
            "test": ["CMD", "python3", "-c", _PHOENIX_ASKS],
            "interval": "5s",
            "timeout": "10s",
            "retries": 12,
            "start_period": "180s",
        },
        "networks": ["default"],
    }


def _lgtm(given: Mapping[str, Any], made: Mapping[str, Any]) -> dict[str, Any]:
    home, root = str(given["home"]), "/otel-lgtm"
    return {
        "image": str(given["lgtm_image"]),
        "restart": "always",
        "environment": {
            "PROMETHEUS_EXTRA_ARGS": f"--storage.tsdb.retention.time={given['retention_days']}d",
            "GF_ANALYTICS_REPORTING_ENABLED": "false",
            "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
        },
        "volumes": [
            f"{home}/lgtm:{LGTM_DATA}",
            f"{home}/grafana:{root}/llmops/grafana:ro",
            f"{home}/prometheus:{root}/llmops/prometheus:ro",
            f"{home}/provision/grafana.yaml:{root}/grafana/conf/provisioning/dashboards/llmops.yaml:ro",
            f"{home}/provision/prometheus.yaml:{root}/prometheus.yaml:ro",
        ],
        "ports": [_published(given, "lgtm_port", 3000)],
        "healthcheck": {"interval": "5s"},  # the image's own asks after half a minute, for which every run would wait
        "networks": ["default"],
        "labels": {LABEL: _digest(made, "grafana/", "prometheus/", "provision/")},
    }


def _published(given: Mapping[str, Any], variable: str, inside: int) -> str:
    return f"{bracketed(given['bind_address'])}:{given[variable]}:{inside}"


def _digest(made: Mapping[str, Any], *below: str) -> str:
    """Of the files that a service reads, so that compose recreates it when they change, and only it."""
    lines = []
    for kind in ("files", "secret_files"):
        for path, text in sorted(made[kind].items()):
            if path.startswith(below):
                digest = hashlib.sha256(text.encode()).hexdigest()
                # Of a file with secrets so little that nobody can try passwords against it.
                lines.append(f"{path}\0{digest if kind == 'files' else digest[:5]}\n")
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]
