# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""What role traceloop tells people: where model calls are to be seen, what is sent, and what is not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._traceloop_target import LGTM, PHOENIX

__all__ = ["no_hook", "notes", "summary"]


def no_hook(given: Mapping[str, Any], lost: bool) -> str:
    """Of a release that this collection does not know, and that has nothing of what it knows, or did not say so."""
    if lost:
        return (
            f"The image of Dify {given['dify_version']} could not be asked whether its model calls can be seen, so "
            "nothing looks for them (traceloop_required: false)."
        )
    return (
        f"Dify {given['dify_version']} has none of the functions that this version of llmops.stack knows model calls "
        "to pass through, so none would be seen."
    )


def notes(
    given: Mapping[str, Any], where: Mapping[str, Any], release: Mapping[str, Any], otel: Mapping[str, bool]
) -> list[str]:
    """What goes ahead, and may not be what somebody meant."""
    said = []
    if given["dify_otel"] and not otel["dify_otel"]:
        said.append("traceloop_dify_otel: Dify sends spans of its own from 1.3.0 on, so this release sends none.")
    elif given["dify_otel"] and not otel["daemon_otel"]:
        said.append(
            "traceloop_dify_otel: the plugin daemon sends spans of its own from 0.5.4 on, so the one of this release "
            "sends none; those of api and worker are sent."
        )
    if where["own"] and str(given["bind_address"]) not in ("127.0.0.1", "::1", "[::1]"):
        said.append(
            f"The page of {where['words']} is open to all who reach {given['bind_address']}, without a password."
        )
    if given["metrics"] and not where["metrics_url"] and given["backend"] == PHOENIX:
        said.append("Arize Phoenix takes traces only. traceloop_metrics_url says where metrics could go.")
    if release["agent_services"]:
        said.append(
            "Dify's agent backend asks models by itself, without api and worker, so the calls of agents that it runs "
            "are not seen."
        )
    return said


def summary(given: Mapping[str, Any], where: Mapping[str, Any], plugins: list[str], no_hook: str) -> list[str]:
    """Lines for the end of a run."""
    host = str(given["host"])
    if no_hook:
        return [f"{host}: model calls are not seen. {no_hook}"]
    to = where["words"]
    if given["collector"]:
        to += ", through a collector, which keeps on disk what cannot be delivered at once"
    what = "as spans and metrics" if where["metrics_url"] else "as spans, without metrics"
    lines = [
        f"{host}: every model call of Dify goes to {to}.",
        f"Sent {what}: model, tokens, times, outcome and app.",
        f"What users and models say is sent, too, each text up to {given['content_limit']} characters."
        if given["trace_content"]
        else "What users and models say is not sent (traceloop_trace_content).",
    ]
    if where["headers"]:
        place = "collector/collector.env" if given["collector"] else "dify.env"
        lines.append(f"The key is in {given['home']}/{place}, for root only.")
    if where["page"]:
        lines.append(f"Look at {where['page']}{_how(given, where)}.")
    if where["own"] == LGTM:
        lines.append("Grafana's otel-lgtm is made for trying things out; have a server of its own for more.")
    if plugins:
        lines.append(f"Own monitoring plugins: {', '.join(plugins)}.")
    return lines


def _how(given: Mapping[str, Any], where: Mapping[str, Any]) -> str:
    if not where["own"] or str(given["bind_address"]) not in ("127.0.0.1", "::1", "[::1]"):
        return ""
    port = given[f"{where['own']}_port"]
    return f", from elsewhere after: ssh -L {port}:127.0.0.1:{port} {given['ssh']}"
