"""A plugin daemon's answers, as recorded from versions 0.0.3, 0.2.0, 0.5.3 and 0.6.3."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.llmops.stack.tests.unit.servers.scripted import Reply, Request, as_json, events

KEY = "k-right-0123456789"
TENANT = "8f6c1f0e-33c5-4f0f-9a55-000000000001"
PLUGIN = "langgenius/ollama"
SUM = "0123456789abcdef" * 4
IDENTIFIER = f"{PLUGIN}:0.0.6@{SUM}"


def error(code: int, message: str, kind: str = "PluginDaemonInternalServerError") -> str:
    inner = json.dumps({"message": message, "error_type": kind, "args": None}, separators=(",", ":"))
    return json.dumps({"code": code, "message": inner, "data": None}, separators=(",", ":"))


def raised(kind: str, message: str) -> str:
    """An exception inside the plugin: the third level of JSON."""
    said = json.dumps({"args": {}, "error_type": kind, "message": message}, separators=(",", ":"))
    return error(-500, said, "PluginInvokeError")


def success(data: Any) -> str:
    return json.dumps({"code": 0, "message": "success", "data": data}, separators=(",", ":"))


def chunk(text: str, usage: dict[str, Any] | None = None, reason: str | None = None) -> str:
    message = {"role": "assistant", "content": text, "name": "", "tool_calls": [], "tool_call_id": ""}
    delta = {"index": 0, "message": message, "usage": usage, "finish_reason": reason}
    return success({"model": "llama3.2", "system_fingerprint": "", "delta": delta, "prompt_messages": []})


USAGE = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14, "currency": "USD", "latency": 0.06}
UNAUTHORIZED = (
    '{"code":-401,"message":"{\\"message\\":\\"unauthorized\\",'
    '\\"error_type\\":\\"PluginDaemonUnauthorizedError\\",\\"args\\":null}","data":null}'
)
NOT_FOUND = (
    '{"code":-404,"message":"{\\"message\\":\\"plugin not found\\",'
    '\\"error_type\\":\\"PluginNotFoundError\\",\\"args\\":null}","data":null}'
)
NO_NODE = error(-500, "no available node, plugin runtime not found")
NO_NODE_OLD = error(-500, "no available node, plugin not found")
NO_INSTANCE = error(-500, "no proper instance")
KILLED = error(-500, "killed by timeout")
NO_TABLES = (
    '{"code":-500,"message":"{\\"message\\":\\"ERROR: relation \\\\\\"plugin_installations\\\\\\" does not exist '
    '(SQLSTATE 42P01)\\",\\"error_type\\":\\"PluginDaemonInternalServerError\\",\\"args\\":null}","data":null}'
)
POSTGRES_DOWN = error(
    -500,
    "failed to connect to `user=postgres database=dify_plugin`: db:5432: dial error: dial tcp db:5432: connect: "
    "connection refused",
)
POSTGRES_GONE = error(-500, "FATAL: terminating connection due to administrator command (SQLSTATE 57P01)")
REDIS_DOWN = error(-500, "dial tcp redis-host:6379: connect: connection refused")
REDIRECT = error(
    -500,
    'redirect request failed: Post "http://172.18.0.9:5002/plugin/x/dispatch/model/validate_provider_credentials": '
    "dial tcp 172.18.0.9:5002: socket: too many open files",
)
ROUTE_NOT_FOUND = '{"code":"not_found","message":"route not found"}'
HEALTH = {
    "active_dispatch_requests": 0,
    "active_requests": 1,
    "build_time": "",
    "platform": "local",
    "pool_status": {"free": 10000, "busy": 0, "total": 10000},
    "status": "ok",
    "version": "",
}


def good_invoke(request: Request) -> Reply:
    if request.path.endswith("text_embedding/invoke"):
        return events(success({"model": "emb", "embeddings": [[0.1, 0.2, 0.3]], "usage": {"tokens": 1}}))
    return events(chunk("Hello"), chunk(" from"), chunk(" fake"), chunk("", USAGE, "stop"))


@dataclass
class FakeDaemon:
    """Answers like a daemon with one plugin installed; a test replaces what it wants to be broken."""

    key: str = KEY
    tenant: str = TENANT
    bare_list: bool = False
    plugins: list[dict[str, Any]] = field(
        default_factory=lambda: [
            {"plugin_id": PLUGIN, "version": "0.0.6", "checksum": SUM, "plugin_unique_identifier": IDENTIFIER}
        ]
    )
    models: list[dict[str, Any]] = field(default_factory=lambda: [{"plugin_id": PLUGIN, "provider": "ollama"}])
    tasks: list[dict[str, Any]] = field(default_factory=list)
    health: Reply = field(default_factory=lambda: as_json(HEALTH))
    # Answer to all of management behind the key check, instead of the lists.
    management: Reply | None = None
    process: Reply = field(default_factory=lambda: events(success({"result": True, "credentials": {}})))
    invoke: Reply | None = None

    def __call__(self, request: Request) -> Reply:
        parts = request.path.strip("/").split("/")
        if request.path == "/health/check":
            return self.health
        if parts[0] != "plugin" or len(parts) < 4:
            return Reply(404, ROUTE_NOT_FOUND)
        if request.headers.get("x-api-key") != self.key:
            return Reply(401, UNAUTHORIZED)
        if parts[2] == "management":
            return self._management(parts[1], "/".join(parts[3:]), request)
        if parts[1] != self.tenant:
            return Reply(404, NOT_FOUND)
        if parts[-1] == "validate_provider_credentials":
            return self.process
        return self.invoke or good_invoke(request)

    def _management(self, tenant: str, route: str, request: Request) -> Reply:
        if request.headers.get("content-type") or "page=" not in request.query:
            return Reply(400, error(-400, "Key: 'Page' Error:Field validation for 'Page' failed on the 'required' tag"))
        if self.management is not None:
            return self.management
        ours = tenant == self.tenant
        found = {"list": self.plugins, "models": self.models, "install/tasks": self.tasks}[route] if ours else []
        data: Any = found
        if route == "list" and not self.bare_list:
            data = {"list": found, "total": len(found)}
        return Reply(200, success(data))
