# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""A gateway as it is seen: its nodes and models with what HAProxy says of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._gateway_config import backend_of, holders, node_backend
from ansible_collections.llmops.stack.plugins.module_utils._gateway_proof import Proof
from ansible_collections.llmops.stack.plugins.module_utils._gateway_socket import Server

__all__ = ["described"]

Servers = Mapping["tuple[str, str]", Server]


def described(
    shown: Mapping[str, Mapping[str, Any]],
    nodes: Mapping[str, Mapping[str, Any]],
    proofs: Mapping[str, Proof],
    servers: Servers,
) -> dict[str, Any]:
    """Args: C(shown): the nodes to tell of. C(nodes): all of them. C(servers): empty where HAProxy does not answer."""
    return {
        "nodes": {name: _node(name, node, proofs.get(name), servers) for name, node in shown.items()},
        "models": {model: _model(model, names, nodes, servers) for model, names in holders(nodes).items()},
        "healthy": [
            name
            for name, node in nodes.items()
            if node["state"] == "ready" and _status(name, node_backend(name), servers) == "up"
        ],
    }


def _status(name: str, backend: str, servers: Servers) -> str:
    server = servers.get((backend, name))
    return "unknown" if server is None else "up" if server.up else "down"


def _node(name: str, node: Mapping[str, Any], proof: Proof | None, servers: Servers) -> dict[str, Any]:
    models = {}
    for model, digest in node["models"].items():
        server = servers.get((backend_of(model), name))
        status = "drained" if node["state"] == "drained" else _status(name, backend_of(model), servers)
        models[model] = {
            "digest": digest,
            "proved": proof is not None and model in proof.proved,
            "status": status,
            "running": server.running if server else 0,
            "queued": server.queued if server else 0,
            "error": server.error if server else "",
        }
    return {
        **{key: node[key] for key in ("address", "port", "parallel", "state")},
        "status": _status(name, node_backend(name), servers),
        "running": sum(model["running"] for model in models.values()),
        "models": models,
    }


def _model(model: str, names: list[str], nodes: Mapping[str, Mapping[str, Any]], servers: Servers) -> dict[str, Any]:
    backend = servers.get((backend_of(model), ""))
    up = [
        name for name in names if nodes[name]["state"] == "ready" and _status(name, backend_of(model), servers) == "up"
    ]
    return {"nodes": names, "up": len(up), "queued": backend.queued if backend else 0}
