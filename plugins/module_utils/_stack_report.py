# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""The table at the end of playbooks/verify.yml: each Ollama node, what it runs, and whether calls get there. Pure.

Made of what the verification has left in the variables of each host, also of those on which it failed in the middle.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._dify_nodes import ollama_nodes
from ansible_collections.llmops.stack.plugins.module_utils._ollama_names import key_of

__all__ = ["report"]

Hostvars = Mapping[str, Mapping[str, Any]]
_HEAD = ("NODE", "KIND", "GPU", "OLLAMA", "MODEL", "DIGEST", "TOKENS/S", "ON GPU", "GATEWAY", "DIFY")
_OWN = 4  # the columns of the node, which are said once


def report(
    hostvars: Hostvars, nodes: Iterable[str], gateway: Mapping[str, Any], difys: Iterable[str]
) -> dict[str, Any]:
    """C(nodes) for programs, C(lines) for people, and C(failures) for the end of the run.

    The failures are sentences by the hosts that this run has found well, and to which the gateway sends no calls.

    Args:
        hostvars: of the run.
        nodes: the Ollama hosts in it.
        gateway: what M(llmops.stack.gateway_info) returned; empty where there is no gateway.
        difys: the hosts of Dify in it.
    """
    names, askers = list(nodes), list(difys)
    rows = [_row(hostvars, name, names, gateway, askers) for name in names]
    problems = [_told(str(row["node"]), str(row[what])) for row in rows for what in ("problem", "remark") if row[what]]
    failures = {str(row["node"]): str(row["problem"]) for row in rows if _is_well(hostvars[str(row["node"])])}
    failures = {name: problem for name, problem in failures.items() if problem}
    return {"nodes": rows, "lines": [*_table(rows), *problems], "failures": failures}


def _is_well(found: Mapping[str, Any]) -> bool:
    return bool(found.get("__ollama_info")) and not found.get("__report_failure")


def _row(
    hostvars: Hostvars, name: str, nodes: Sequence[str], gateway: Mapping[str, Any], difys: Sequence[str]
) -> dict[str, Any]:
    found = hostvars[name]
    info: Mapping[str, Any] = found.get("__ollama_info") or {}
    routed = _routed(gateway, name)
    models = _models(found, info, routed)
    return {
        "node": name,
        "kind": _kind(found),
        "gpu": _gpus((found.get("ansible_facts") or {}).get("llmops_stack", {}).get("gpus") or [], found),
        "version": str(info.get("version") or ""),
        "models": models,
        "gateway": _state(gateway, routed),
        "dify": _reached(hostvars, name, nodes, _state(gateway, routed), difys),
        "problem": str(
            found.get("__report_failure")
            or (_unserved(gateway, routed) if info else "it was not looked at in this run, or could not be reached")
        ),
        "remark": " ".join(filter(None, (_idle_gpu(found, models), _passed_by(models, _state(gateway, routed))))),
    }


# -- the node ----------------------------------------------------------------------------------------------------------


def _kind(found: Mapping[str, Any]) -> str:
    """Of a node that was not looked at, as far as its variables say."""
    gpu = str((found.get("__ollama_plan") or {}).get("gpu") or found.get("ollama_gpu") or "")
    return "" if gpu in ("", "auto") else "cpu" if gpu == "cpu" else "gpu"


def _gpus(cards: Sequence[Mapping[str, Any]], found: Mapping[str, Any]) -> str:
    """Those that it may use, each kind once."""
    vendor = (found.get("__ollama_plan") or {}).get("gpu")
    shown = [_card(one) for one in cards if one.get("vendor") == vendor]
    return ", ".join(f"{shown.count(one)} x {one}" if shown.count(one) > 1 else one for one in dict.fromkeys(shown))


def _idle_gpu(found: Mapping[str, Any], models: Mapping[str, Mapping[str, Any]]) -> str:
    """What is no failure with C(ollama_gpu=auto), and hardly what somebody wants."""
    shares = [one["gpu_share"] for one in models.values() if one["gpu_share"] is not None]
    if (found.get("__ollama_plan") or {}).get("gpu") in ("", "cpu", None) or not shares or max(shares) > 0:
        return ""
    return (
        "it has a GPU, and its models run on the CPU; journalctl -u ollama says why. With ollama_gpu: nvidia or amd "
        "that is a failure, with cpu it is what is wanted."
    )


def _card(card: Mapping[str, Any]) -> str:
    name = str(card.get("name") or {"nvidia": "NVIDIA", "amd": "AMD"}.get(str(card.get("vendor")), ""))
    memory = int(card.get("memory_mb") or 0)
    return f"{name} {memory / 1024:.0f} GiB" if memory >= 1024 else name


def _models(found: Mapping[str, Any], info: Mapping[str, Any], routed: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    proved = (found.get("__ollama_models_checked") or {}).get("models") or []
    loaded = {key_of(str(one.get("name"))): one for one in info.get("models") or []}
    routes = {key_of(str(name)): one for name, one in (routed.get("models") or {}).items()}
    models = {}
    for one in proved:
        key = key_of(str(one["name"]))
        probe = one.get("probe") or {}
        models[str(one["name"])] = {
            "digest": str(one.get("digest") or ""),
            "verified": bool(one.get("verified")),
            "tokens_per_second": probe.get("tokens_per_second") or None,
            "gpu_share": loaded.get(key, {}).get("gpu_share"),
            "gateway": str(routes.get(key, {}).get("status") or ""),
        }
    return models


# -- who gets there ----------------------------------------------------------------------------------------------------


def _routed(gateway: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return (gateway.get("nodes") or {}).get(name) or {}


def _state(gateway: Mapping[str, Any], routed: Mapping[str, Any]) -> str:
    """Of one that is in service it matters whether it answers; one that is not there by intention is only called so."""
    if not gateway:
        return ""
    if "nodes" not in gateway:
        return "unknown"
    if not routed:
        return "absent"
    state, status = str(routed.get("state") or ""), str(routed.get("status") or "")
    return status if state == "ready" and status in ("down", "unknown") else state


def _unserved(gateway: Mapping[str, Any], routed: Mapping[str, Any]) -> str:
    """Why a node that is well gets no calls; of a gateway that does not answer, the gateway itself fails."""
    state = _state(gateway, routed)
    if state in ("", "ready", "unknown"):
        return ""
    if state == "down":
        errors = [str(one["error"]) for one in (routed.get("models") or {}).values() if one.get("error")]
        return (
            f"the gateway does not get to it{f': {errors[0]}' if errors else ''}. See that its host reaches "
            f"{routed.get('address')}:{routed.get('port')}, then run site.yml."
        )
    what = "does not know it" if state == "absent" else "sends it no calls, as it is drained"
    return f"the gateway {what}. Run site.yml, which proves it and has calls go there."


def _passed_by(models: Mapping[str, Mapping[str, Any]], state: str) -> str:
    """Which models of a node in service get no calls there: wanted with C(gateway_digests), and easily overlooked."""
    idle = [name for name, one in models.items() if not one["gateway"]]
    if state != "ready" or not idle:
        return ""
    return (
        f"the gateway passes no calls for {', '.join(idle)} to it: gateway_digests names another digest, or site.yml "
        "has not proved it there yet."
    )


def _reached(hostvars: Hostvars, name: str, nodes: Sequence[str], state: str, difys: Sequence[str]) -> bool | None:
    """Whether Dify's containers get to it, through the gateway where there is one; None where nobody has tried."""
    answers = [_reached_from(hostvars, dify, name, nodes, state) for dify in difys]
    known = [one for one in answers if one is not None]
    return all(known) if known else None


def _reached_from(hostvars: Hostvars, dify: str, name: str, nodes: Sequence[str], state: str) -> bool | None:
    checks = (hostvars[dify].get("__dify_health") or {}).get("checks") or []
    check = next((one for one in checks if one["name"] == "model_servers" and one["status"] != "skipped"), None)
    if check is None:
        return None
    if state:
        return bool(check["status"] == "ok" and state == "ready")
    url = next((one["url"] for one in ollama_nodes(hostvars, nodes, dify) if one["name"] == name), "")
    # The check tells the addresses that it has tried; of several it stops at the first that does not answer.
    return bool(check["status"] == "ok") if url and url in str(check["detail"]) else None


# -- for people --------------------------------------------------------------------------------------------------------


def _table(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    cells: list[tuple[str, ...]] = [_HEAD]
    for row in rows:
        own = (row["node"], row["kind"], row["gpu"], row["version"])
        reach = {True: "yes", False: "no", None: ""}[row["dify"]]
        models = [_model_cells(name, one) for name, one in row["models"].items()] or [("", "", "", "")]
        for number, about in enumerate(models):
            cells.append((*own, *about, row["gateway"], reach) if not number else ("",) * _OWN + (*about, "", ""))
    shown = [tuple(cell or ("" if not row[0] else "-") for cell in row) for row in cells]
    widths = [max(len(row[column]) for row in shown) for column in range(len(_HEAD))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in shown]


def _told(node: str, problem: str) -> str:
    """Most sentences name their host already."""
    return problem if problem.startswith(node) else f"{node}: {problem}"


def _model_cells(name: str, model: Mapping[str, Any]) -> tuple[str, str, str, str]:
    speed, share = model["tokens_per_second"], model["gpu_share"]
    return (
        name,
        model["digest"][:12],
        f"{speed:.1f}" if speed else "",
        "" if share is None else f"{100 * share:.0f} %",
    )
