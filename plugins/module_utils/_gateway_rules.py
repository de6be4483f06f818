# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""What HAProxy does with a request before it knows the node: who may ask, for what, and which model is meant."""

from __future__ import annotations

__all__ = ["error", "rules"]

import json

# A value of JSON, in possessive pieces so that no text makes it try twice.
_STRING = r"\"(?:[^\"\\\\]++|\\\\.)*+\""
_VALUE = rf"(?:[^\s,{{}}\[\]\"]++|{_STRING}|(?<nested>[{{\[](?:[^{{}}\[\]\"]++|{_STRING}|(?&nested))*+[}}\]]))"
# "model" of the outermost object and of no other.
_MODEL = (
    rf"(?s)\A\s*+\{{(?:\s*+(?!\"model\"){_STRING}\s*+:\s*+{_VALUE}\s*+,)*+"
    r"\s*+\"model\"\s*+:\s*+\"((?:[^\"\\\\]++|\\\\/)*+)\".*+\z"
)


def error(text: str, openai: bool = False) -> str:
    """The body of an error, as Ollama writes it, as an argument."""
    body = {"error": {"message": text, "type": "not_found_error", "param": None, "code": None} if openai else text}
    escaped = json.dumps(body, separators=(",", ":")).replace("\\", "\\\\").replace('"', '\\"')
    return f'content-type application/json string "{escaped}"'


def _refuse(status: int, text: str, when: str) -> str:
    return f"http-request return status {status} {error(text)} {when}"


def rules(home: str, buffer: int, key: bool) -> list[str]:
    """The lines of the frontend, in the order that is their meaning. They set txn.backend, or answer themselves.

    Args:
        home: the folder of the files that they read.
        buffer: how much of a request HAProxy looks into.
        key: whether a caller has to know one.
    """
    missing = error("model '%[var(txn.asked)]' not found").replace(" string ", " lf-string ")
    missing_openai = error("model '%[var(txn.asked)]' not found", openai=True).replace(" string ", " lf-string ")
    return [
        "acl asks path /api/chat /api/generate /api/embed /api/embeddings /api/show",
        "acl asks path /v1/chat/completions /v1/completions /v1/embeddings /v1/responses /v1/messages",
        "acl one_model path_beg /v1/models/",
        "acl openai path_beg /v1/",
        "acl changes path /api/pull /api/push /api/create /api/copy /api/delete",
        "acl changes path_beg /api/blobs/",
        "acl reads method GET HEAD",
        "acl alive path / /api/version",
        "acl routed var(txn.backend) -m found",
        "acl asked var(txn.asked) -m len gt 0",
        "acl is_name var(txn.asked) -m reg ^[A-Za-z0-9_./:-]{1,512}$",
        "acl has_tag var(txn.model) -m reg :[^/]+$",
        "acl itself src 127.0.0.0/8 ::1",
        "acl itself src,strcmp(txn.here) eq 0",
        *(_key(home) if key else []),
        # A proof goes to the node that it is about; nobody but the host itself may choose one.
        "http-request set-var(txn.here) dst",
        "http-request set-var(txn.node) req.hdr(X-Llmops-Node) if itself",
        "http-request del-header X-Llmops-Node",
        _refuse(
            403, "The gateway changes no models. Ask Ollama on the node itself, or have Ansible do it.", "if changes"
        ),
        "http-request set-var(txn.backend) str(node_),concat(,txn.node) if { var(txn.node) -m found }",
        f"http-request return status 200 content-type application/json file {home}/tags.json"
        " if reads { path /api/tags } !routed",
        f"http-request return status 200 content-type application/json file {home}/openai-models.json"
        " if reads { path /v1/models } !routed",
        "http-request set-var(txn.backend) str(any) if reads { path / /api/version /api/ps } !routed",
        _refuse(405, "Only POST is answered here.", "if asks !METH_POST !routed"),
        _refuse(405, "Only GET is answered here.", "if one_model !reads !routed"),
        _refuse(404, "The gateway knows no such path.", "if !asks !one_model !routed"),
        "http-request set-var(txn.asked) path,regsub(^/v1/models/,) if one_model",
        "http-request wait-for-body time 60s if asks",
        # It reads whole bodies. In one that does not end in the buffer, the expression looks.
        "http-request set-var(txn.asked) req.body,json_query('$.model') if asks",
        "http-request set-var(txn.asked) req.body,json_query('$.name') if { path /api/show } !asked",
        # What does not match is left as it is, and could be a name by chance: so what does gets a mark.
        f'http-request set-var(txn.seen) \'req.body,regsub("{_MODEL}","=\\2")\' if asks !asked',
        'http-request set-var(txn.asked) \'var(txn.seen),regsub("^=",),regsub("\\\\\\\\/","/",g)\''
        " if { var(txn.seen) -m beg = }",
        _refuse(
            413,
            "The request is longer than the gateway looks into, and names no model in what it sees. "
            "Write the model before the messages.",
            f"if !routed !asked {{ req.body_len gt {buffer * 3 // 4} }}",
        ),
        _refuse(400, "model is required", "if !routed !asked"),
        _refuse(400, "invalid model name", "if !routed !is_name"),
        'http-request set-var(txn.model) \'var(txn.asked),lower,regsub("^[a-z]+://",),'
        'regsub("^registry[.]ollama[.]ai/",),regsub("^library/",)\' if !routed',
        "http-request set-var(txn.model) var(txn.model),concat(:latest) if !routed !has_tag",
        f"http-request set-var(txn.backend) var(txn.model),map_str({home}/models.map) if !routed",
        f"http-request return status 404 {missing_openai} if openai !routed",
        f"http-request return status 404 {missing} if !routed",
        "use_backend %[var(txn.backend)]",
    ]


def _key(home: str) -> list[str]:
    text = "This gateway wants a key, as in the header Authorization: Bearer KEY."
    return [
        # Whether it is there, everybody who gets to it may ask, as checks of health do.
        _refuse(401, text, f"unless alive reads or {{ req.hdr(Authorization) -m str -f {home}/keys.lst }}"),
        "http-request del-header Authorization",
    ]
