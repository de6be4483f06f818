# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""The files of the gateway: what HAProxy is told, out of settings and nodes. Pure.

One backend for each model, with a server for each node on which the model is proved; one backend for each node, which
is there while the node takes no calls, too: its health check is the node's, and a proof is sent through it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ansible_collections.llmops.stack.plugins.module_utils._gateway_rules import error, rules

__all__ = ["ANY", "Rendered", "backend_of", "holders", "node_backend", "place_of", "render", "weight_of"]

CONFIG = "haproxy.cfg"
MAP = "models.map"
KEYS = "keys.lst"
TAGS = "tags.json"
OPENAI = "openai-models.json"
ANY = "any"  # the backend for what names no model
_NODE = "node_"
_WEIGHT = re.compile(r" weight \d+")
# HAProxy takes no more.
_HEAVIEST = 256


class Rendered(NamedTuple):
    files: dict[str, str]  # by their names below the home
    stamp: str  # of all that takes a reload; weights can be changed in the running process


def backend_of(model: str) -> str:
    """HAProxy's names know no slash; two colons can be in no name of a model."""
    return model.replace("/", "::")


def node_backend(name: str) -> str:
    return f"{_NODE}{name}"


def weight_of(node: Mapping[str, Any]) -> int:
    """Nodes get calls by what they can do at a time, and one that is drained gets none."""
    return 0 if node["state"] == "drained" else min(int(node["parallel"]), _HEAVIEST)


def place_of(node: Mapping[str, Any]) -> str:
    """Where calls go: where a name led when it was last looked up, or the name itself where it never led anywhere."""
    return str(node.get("ip") or node["address"])


def holders(nodes: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Each model with the nodes that have it, in the order of their names."""
    models: dict[str, list[str]] = {}
    for name in sorted(nodes):
        for model in nodes[name]["models"]:
            models.setdefault(model, []).append(name)
    return dict(sorted(models.items()))


def render(settings: Mapping[str, Any], nodes: Mapping[str, Mapping[str, Any]], home: str) -> Rendered:
    """The files for these settings and nodes.

    Args:
        settings: those of M(llmops.stack.gateway_nodes), with C(socket), C(user) and C(buffer) of the host.
        nodes: records by name, each with C(state).
        home: the folder in which the files will be.
    """
    models = holders(nodes)
    files = {
        MAP: "".join(f"{model} {backend_of(model)}\n" for model in models),
        KEYS: f"Bearer {settings['key']}\n" if settings["key"] else "",
        TAGS: _tags(models, nodes),
        OPENAI: _openai(models),
    }
    lines = [
        "# Written by Ansible.",
        *_global(settings),
        *_defaults(settings),
        *_statistics(settings),
        *_frontend(settings, home),
    ]
    for name in sorted(nodes):
        lines += _node(name, nodes[name], settings)
    lines += _any(nodes)
    for model, names in models.items():
        lines += _model(model, names, nodes, settings)
    text = "\n".join(lines) + "\n"
    stamp = _digest("\0".join([_WEIGHT.sub("", text).replace(home, ""), *(files[name] for name in sorted(files))]))
    files[CONFIG] = text.replace("stamp_@", stamp)
    return Rendered(files, stamp)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _global(settings: Mapping[str, Any]) -> list[str]:
    return [
        "global",
        "\tdescription llmops.stack stamp_@",
        f"\tstats socket {settings['socket']} mode 600 level admin expose-fd listeners",
        "\tlog stdout format raw daemon",
        *([f"\tuser {settings['user']}", f"\tgroup {settings['user']}"] if settings["user"] else []),
        # Each may hold two buffers; without it, HAProxy takes as many as it has files.
        "\tmaxconn 5000",
        # A model's name may be the last word of a body, and a call can only be repeated while all of it is here.
        f"\ttune.bufsize {settings['buffer']}",
        f"\thard-stop-after {settings['stream_timeout']}s",
    ]


def _defaults(settings: Mapping[str, Any]) -> list[str]:
    check = settings["check_interval"]
    return [
        "defaults",
        "\tmode http",
        "\tlog global",
        # Or a first token waits 200 ms for company.
        "\toption http-no-delay",
        # A connection is a call: so that what runs on a node can be counted, whichever process began it.
        "\toption http-server-close",
        "\thttp-reuse never",
        # Nobody computes for a client that has gone.
        "\toption abortonclose",
        "\toption clitcpka",
        # A dead host says nothing; that a model thinks for an hour is no sign of one.
        "\toption srvtcpka",
        "\tsrvtcpka-idle 15s",
        "\tsrvtcpka-intvl 5s",
        "\tsrvtcpka-cnt 3",
        "\ttimeout connect 3s",
        "\ttimeout http-request 60s",
        "\ttimeout http-keep-alive 60s",
        f"\ttimeout client {settings['stream_timeout']}s",
        f"\ttimeout server {settings['stream_timeout']}s",
        f"\ttimeout queue {settings['queue_timeout']}s",
        "\ttimeout check 5s",
        # HAProxy itself stops repeating once anything of an answer has come.
        "\tretries 3",
        "\toption redispatch 1",
        "\tretry-on conn-failure empty-response 404",
        "\toption httpchk",
        "\thttp-check send meth GET uri /api/version hdr Host localhost",
        "\thttp-check expect rstring version",
        f"\tdefault-server inter {check}s fastinter {max(check * 250, 100)}ms downinter {check}s fall 2 rise 1"
        # One name that cannot be resolved keeps nobody else from being served.
        " init-addr libc,none",
        f"\thttp-error status 408 {error('The request did not arrive in time.')}",
        f"\thttp-error status 502 {error('The node broke off before it answered.')}",
        f"\thttp-error status 503 {error('No node took the call in time: all are busy, or none can be reached.')}",
        f"\thttp-error status 504 {error('The node did not answer in time.')}",
    ]


def _statistics(settings: Mapping[str, Any]) -> list[str]:
    lines = [
        "frontend statistics",
        f"\tbind 127.0.0.1:{settings['stats_port']}",
        "\tno log",
        "\thttp-request use-service prometheus-exporter if { path /metrics }",
        "\tstats enable",
        "\tstats uri /",
        "\tstats refresh 5s",
    ]
    if settings["metrics_bind"]:
        lines += [
            "frontend metrics",
            f"\tbind {_bracketed(settings['metrics_bind'])}:{settings['metrics_port']}",
            "\tno log",
            "\thttp-request use-service prometheus-exporter if { path /metrics }",
            "\thttp-request return status 404",
        ]
    return lines


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _frontend(settings: Mapping[str, Any], home: str) -> list[str]:
    return [
        "frontend ollama",
        f"\tbind {_bracketed(settings['bind'])}:{settings['port']}",
        "\toption httplog",
        "\toption dontlognull",
        "\toption dontlog-normal",
        # A client may be about to write when a new process takes over.
        "\toption idle-close-on-response",
        "\toption forwardfor",
        *(f"\t{rule}" for rule in rules(home, settings["buffer"], bool(settings["key"]))),
    ]


def _server(name: str, node: Mapping[str, Any]) -> str:
    return f"\tserver {name} {_bracketed(place_of(node))}:{node['port']}"


def _node(name: str, node: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    return [
        f"backend {node_backend(name)}",
        "\tretry-on none",
        "\thttp-request set-header Host localhost",
        f"\thttp-response set-header X-Node {name}",
        f"{_server(name, node)} check",
    ]


def _any(nodes: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [
        f"backend {ANY}",
        "\tbalance leastconn",
        f"\thttp-request return status 503 {error('No Ollama node is up.')} if {{ nbsrv eq 0 }}",
        "\thttp-request set-header Host localhost",
        "\thttp-response set-header X-Node %s",
        *(
            f"{_server(name, nodes[name])} track {node_backend(name)}/{name} weight {weight_of(nodes[name])}"
            for name in sorted(nodes)
        ),
    ]


def _model(
    model: str, names: Iterable[str], nodes: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any]
) -> list[str]:
    waiting = settings["max_queue"]
    none = error(f"No node that has {model} is up.")
    full = error(f"All nodes that have {model} are busy and {waiting} calls wait already: try again later.")
    return [
        f"backend {backend_of(model)}",
        "\tbalance leastconn",
        # A node that refuses is out at once: or each call that waits would be given to it, since it always has room.
        "\tdefault-server observe layer4 error-limit 1 on-error mark-down",
        f"\thttp-request return status 503 {none} hdr Retry-After {settings['check_interval']} if {{ nbsrv eq 0 }}",
        f"\thttp-request return status 503 {full} hdr Retry-After 5"
        f" if {{ queue ge {waiting} }} !{{ be_conn_free gt 0 }}",
        "\thttp-request set-header Host localhost",
        "\thttp-response set-header X-Node %s",
        *(
            f"{_server(name, nodes[name])} check maxconn {nodes[name]['parallel']} weight {weight_of(nodes[name])}"
            for name in names
        ),
    ]


def _tags(models: Mapping[str, list[str]], nodes: Mapping[str, Mapping[str, Any]]) -> str:
    """As /api/tags answers; what only a node knows is left out."""
    listed = [
        {"name": model, "model": model, "size": 0, "digest": nodes[names[0]]["models"][model], "details": {}}
        for model, names in models.items()
    ]
    return json.dumps({"models": listed}) + "\n"


def _openai(models: Mapping[str, list[str]]) -> str:
    listed = [{"id": model, "object": "model", "created": 0, "owned_by": "library"} for model in models]
    return json.dumps({"object": "list", "data": listed}) + "\n"
