# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The other side of the API in the recordings: a plugin daemon and a model server that misbehave on command."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
import urllib.parse
import uuid
from collections.abc import Iterator
from typing import Any

KEY = "daemon-key"
CHECKSUM = hashlib.sha256(b"package").hexdigest()
IDENTIFIER = f"langgenius/ollama:0.0.6@{CHECKSUM}"
NAMES = dict.fromkeys(("en_US", "zh_Hans", "pt_BR", "ja_JP"), "Ollama")
USAGE = {
    "prompt_tokens": 11,
    "prompt_unit_price": "0",
    "prompt_price_unit": "0",
    "prompt_price": "0",
    "completion_tokens": 3,
    "completion_unit_price": "0",
    "completion_price_unit": "0",
    "completion_price": "0",
    "total_tokens": 14,
    "total_price": "0",
    "currency": "USD",
    "latency": 0.1,
}
INVOKE = "PluginInvokeError"


def _field(name: str, *, required: bool = True) -> dict[str, Any]:
    kind = "secret-input" if name == "api_key" else "text-input"
    return {
        "variable": name,
        "label": {"en_US": name, "zh_Hans": name},
        "type": kind,
        "required": required,
        "default": None,
        "options": [],
        "placeholder": {"en_US": name, "zh_Hans": name},
        "max_length": 0,
        "show_on": [],
    }


PROVIDER = {
    "provider": "ollama",
    "label": NAMES,
    "description": NAMES,
    "icon_small": {"zh_Hans": "s.svg", "en_US": "s.svg"},
    "icon_large": {"zh_Hans": "l.svg", "en_US": "l.svg"},
    "icon_small_dark": None,
    "background": "#F9FAFB",
    "help": {"title": {"zh_Hans": "h", "en_US": "h"}, "url": {"zh_Hans": "u", "en_US": "u"}},
    "supported_model_types": ["llm", "text-embedding"],
    "configurate_methods": ["customizable-model"],
    "models": [],
    "provider_credential_schema": None,
    "model_credential_schema": {
        "model": {"label": {"en_US": "Model Name", "zh_Hans": "m"}, "placeholder": {"zh_Hans": "m", "en_US": "m"}},
        "credential_form_schemas": [
            _field("base_url"),
            _field("mode"),
            _field("context_size"),
            _field("max_tokens"),
            _field("vision_support", required=False),
            _field("function_call_support", required=False),
            _field("api_key", required=False),
        ],
    },
}
MANIFEST: dict[str, Any] = {
    "version": "0.0.6",
    "author": "langgenius",
    "name": "ollama",
    "description": NAMES,
    "icon": "icon.svg",
    "icon_dark": "",
    "label": NAMES,
    "category": "model",
    "created_at": "2024-09-20T00:13:50.292989-04:00",
    "resource": {
        "memory": 268435456,
        "permission": {
            "tool": None,
            "model": {
                "enabled": True,
                "llm": True,
                "text_embedding": True,
                "rerank": False,
                "tts": False,
                "speech2text": False,
                "moderation": False,
            },
            "node": None,
            "endpoint": None,
            "storage": None,
        },
    },
    "plugins": {
        "tools": None,
        "models": ["provider/ollama.yaml"],
        "endpoints": None,
        "datasources": [],
        "triggers": [],
    },
    "tags": [],
    "repo": "",
    "verified": False,
    "tool": None,
    "model": {**PROVIDER, "position": {}},
    "endpoint": None,
    "agent_strategy": None,
    "datasource": None,
    "trigger": None,
    "meta": {"minimum_dify_version": None, "version": "0.0.1"},
}


def refusal(code: int, kind: str, message: str) -> dict[str, Any]:
    return {"code": code, "message": json.dumps({"message": message, "error_type": kind, "args": None}), "data": None}


def exception(kind: str, message: str, args: dict[str, Any] | None = None) -> dict[str, Any]:
    """An exception inside the plugin, packed twice."""
    return refusal(-500, INVOKE, json.dumps({"args": args or {}, "error_type": kind, "message": message}))


def data(value: Any) -> dict[str, Any]:
    return {"code": 0, "message": "success", "data": value}


class Daemon:
    """`management` and `dispatch` choose the trouble of the two groups of routes; "" is none."""

    def __init__(self, release: str) -> None:
        self.provider = {name: value for name, value in PROVIDER.items() if name != "icon_large" or release == "1.7.2"}
        self.manifest = {
            name: value
            for name, value in MANIFEST.items()
            if release != "1.7.2" or name not in ("datasource", "trigger")
        }
        self.manifest["model"] = {**self.provider, "position": {}}
        if release == "1.7.2":
            self.manifest["model"]["icon_large_dark"] = None
            self.manifest["plugins"] = {name: MANIFEST["plugins"][name] for name in ("tools", "models", "endpoints")}
        self.management = ""  # unauthorized | html502 | code500
        self.dispatch = ""  # the same, and those of _dispatch and _answer
        self.installed = False
        self.forgotten = False  # installed by its rows, but missing when asked for by identifier
        self.installation = str(uuid.uuid4())
        self.honours_blocking = True
        self.task_fails = False
        self.real = release == "1.16.0"  # recorded with the real daemon and plugin: one empty piece more, compact texts
        self.signature = "bad signature"  # what an upload of BADSIG is told
        self.decode = ""  # unknown | malformed: how identifiers are received
        self.tasks: dict[str, int] = {}
        self.requests: list[tuple[str, str, dict[str, str], Any]] = []
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(self.answer))
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def answer(self, method: str, path: str, headers: dict[str, str], body: Any) -> tuple[int, Iterator[bytes]]:
        self.requests.append((method, path, headers, body))
        area = self.dispatch if "/dispatch/" in path else self.management
        if area == "unauthorized" or headers.get("x-api-key") != KEY:
            unauthorized = refusal(-401, "PluginDaemonUnauthorizedError", "unauthorized")
            if self.real:
                unauthorized["message"] = json.dumps(json.loads(unauthorized["message"]), separators=(",", ":"))
            return 401, _lines([unauthorized])
        if area == "html502":
            return 502, iter([b"<html>502 Bad Gateway</html>"])
        if area == "code500":
            return 200, _lines([refusal(-500, "PluginDaemonInternalServerError", "database is down")])
        if "/dispatch/" in path:
            return self._dispatch(path.partition("/dispatch/")[2], body)
        if "/decode/" in path and self.decode == "malformed":
            return 400, _lines([refusal(-400, "PluginDaemonBadRequestError", "invalid identifier")])
        return 200, _lines([self._manage(method, path, body)])

    def _manage(self, method: str, path: str, body: Any) -> dict[str, Any]:
        place = urllib.parse.urlsplit(path).path.partition("/management/")[2]
        item = {
            "id": self.installation,
            "tenant_id": path.split("/")[2],
            "plugin_id": "langgenius/ollama",
            "plugin_unique_identifier": IDENTIFIER,
            "created_at": "2026-11-22T20:00:00Z",
            "updated_at": "2026-11-22T20:00:00Z",
        }
        if place == "models":
            return data([{**item, "provider": "ollama", "declaration": self.provider}] if self.installed else [])
        if place in ("list", "installation/fetch/batch"):
            full = {
                **item,
                "endpoints_setups": 0,
                "endpoints_active": 0,
                "runtime_type": "local",
                "source": "package",
                "meta": {},
                "version": "0.0.6",
                "checksum": CHECKSUM,
                "declaration": self.manifest,
            }
            found = [full] if self.installed else []
            return data({"list": found, "total": len(found)} if place == "list" else found)
        if place.startswith("install/tasks"):
            return self._task(place.removeprefix("install/tasks").strip("/"))
        if place == "install/upload/package":
            if b"BADSIG" in body:
                return refusal(-400, "PluginDaemonBadRequestError", self.signature)
            return data(
                {
                    "unique_identifier": IDENTIFIER,
                    "manifest": self.manifest,
                    "verification": {"authorized_category": "langgenius"},
                }
            )
        if place == "decode/from_identifier" and self.decode == "unknown":
            return refusal(-400, "PluginDaemonBadRequestError", "plugin package not found, please upload it firstly")
        if place == "install/identifiers":
            return self._install()
        if place == "installation/missing":
            gone = [
                {"plugin_unique_identifier": name, "current_identifier": ""}
                for name in body["plugin_unique_identifiers"]
            ]
            return data(gone if self.forgotten else [])
        if place == "uninstall":
            self.installed = False
            return data(True)
        return data(self.manifest)

    def _install(self) -> dict[str, Any]:
        if self.installed and not self.task_fails:
            return data({"all_installed": True, "task_id": ""})
        task_id = str(uuid.uuid4())
        self.tasks[task_id] = 0
        return data({"all_installed": False, "task_id": task_id})

    def _task(self, task_id: str) -> dict[str, Any]:
        if not task_id:
            return data([self._task_object(name, polls) for name, polls in self.tasks.items()])
        if task_id not in self.tasks:
            return refusal(-500, "PluginDaemonInternalServerError", "record not found")
        self.tasks[task_id] += 1
        return data(self._task_object(task_id, self.tasks[task_id]))

    def _task_object(self, task_id: str, polls: int) -> dict[str, Any]:
        done = polls >= 3
        status = "running" if not done else "failed" if self.task_fails else "success"
        self.installed = self.installed or status == "success"
        message = {
            "running": "installing",
            "success": "installed",
            "failed": "failed to launch plugin: init process exited",
        }[status]
        plugin = {
            "plugin_unique_identifier": IDENTIFIER,
            "plugin_id": "langgenius/ollama",
            "status": status,
            "message": message,
            "icon": "icon.svg",
            "icon_dark": "",
            "labels": NAMES,
            "source": "package",
        }
        return {
            "id": task_id,
            "tenant_id": "t",
            "created_at": "2026-11-22T20:00:00Z",
            "updated_at": "2026-11-22T20:00:01Z",
            "status": status,
            "total_plugins": 1,
            "completed_plugins": int(status == "success"),
            "plugins": [plugin],
        }

    def _dispatch(self, route: str, body: Any) -> tuple[int, Iterator[bytes]]:
        if self.dispatch == "not_found":
            return 404, _lines([refusal(-404, "PluginNotFoundError", "plugin not found")])
        if self.dispatch == "no_node":
            return 404, _lines(
                [refusal(-500, "PluginDaemonInternalServerError", "no available node, plugin runtime not found")]
            )
        if self.dispatch == "no_instance":
            return 200, _events([refusal(-500, "PluginDaemonInternalServerError", "no proper instance")])
        if route == "model/validate_model_credentials":
            if body["data"]["model"] == "missing":
                text = "An error occurred during credentials validation: HTTPConnectionPool(host='x', port=1): refused"
                return 200, _events([exception("CredentialsValidateFailedError", text)])
            return 200, _events([data({"result": True, "credentials": {}})])
        if route == "model/schema":
            return 200, _events(
                [
                    data(
                        {
                            "model_schema": {
                                "model": body["data"]["model"],
                                "label": {"en_US": body["data"]["model"], "zh_Hans": "m"},
                                "features": [],
                                "model_type": body["data"]["model_type"],
                                "model_properties": {"mode": "chat", "context_size": 4096},
                                "parameter_rules": RULES,
                            }
                        }
                    )
                ]
            )
        return 200, _events(self._answer(body["data"]))

    def _answer(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        whole = self.honours_blocking and not asked["stream"]
        words, usage = ["Hello", " from", " fake"], USAGE
        if self.real:
            words, usage = [*words, " Ollama", ""], {**USAGE, "completion_tokens": 4, "total_tokens": 15}
        events = [_chunk(word) for word in words[:-1]] + [_chunk(words[-1], usage)]
        if whole:
            events = [_chunk("".join(words), usage)]
        trouble = {
            "connection": exception(
                "InvokeConnectionError",
                "refused",
                {"description": "[models] Connection Error, HTTPConnectionPool refused"},
            ),
            "unavailable": exception("InvokeServerUnavailableError", "boom"),
            "value": exception("ValueError", "odd value", {"traceback": "Traceback ..."}),
            "timeout": refusal(-500, "PluginDaemonInternalServerError", "killed by timeout"),
        }
        if self.dispatch == "nothing":
            return []
        if self.dispatch == "empty":
            return [_chunk("", {**USAGE, "total_tokens": 15})]
        if self.dispatch in ("unavailable", "connection_at_once"):
            return [trouble["unavailable" if self.dispatch == "unavailable" else "connection"]]
        if self.dispatch == "value" and whole:
            return [trouble["value"]]
        if self.dispatch in trouble:
            return [events[0], trouble[self.dispatch]]
        return events


RULES: list[dict[str, Any]] = [
    {
        "name": name,
        "use_template": name,
        "label": {"en_US": name, "zh_Hans": name},
        "type": "float",
        "help": {"zh_Hans": "t", "en_US": "t"},
        "required": False,
        "default": 0.1,
        "min": 0.0,
        "max": 1.0,
        "precision": 2,
        "options": [],
    }
    for name in ("temperature", "top_p")
]


def _chunk(text: str, usage: dict[str, Any] | None = None) -> dict[str, Any]:
    message = {"role": "assistant", "content": text, "name": "", "tool_calls": []}
    return data(
        {
            "model": "llama3.2",
            "system_fingerprint": "",
            "delta": {"index": 0, "message": message, "usage": usage, "finish_reason": "stop" if usage else None},
        }
    )


def _lines(values: list[Any]) -> Iterator[bytes]:
    return iter([json.dumps(value).encode() for value in values])


def _events(values: list[Any]) -> Iterator[bytes]:
    return iter([f"data: {json.dumps(value)}\n\n".encode() for value in values])


class Ollama:
    """The model server that 0.15.3 asks itself. `mode`: "", "missing" or "mid" (an error line in the stream)."""

    def __init__(self) -> None:
        self.mode = ""
        self.port = 0
        self.server: http.server.ThreadingHTTPServer | None = None
        self.start()

    def start(self) -> None:
        if self.server is None:
            self.server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), _handler(self.answer))
            self.server.daemon_threads = True
            self.port = self.server.server_address[1]
            threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server = None

    def answer(self, method: str, path: str, headers: dict[str, str], body: Any) -> tuple[int, Iterator[bytes]]:
        model = body["model"]
        if model == "missing" or self.mode == "missing":
            return 404, _lines([{"error": f'model "{model}" not found, try pulling it first'}])
        end = {"done": True, "done_reason": "stop", "prompt_eval_count": 11, "eval_count": 3}
        if not body["stream"]:
            return 200, _lines([{"message": {"role": "assistant", "content": "Hello from fake"}, **end}])
        pieces: list[dict[str, Any]] = [
            {"message": {"role": "assistant", "content": text}, "done": False} for text in ("Hello", " from", " fake")
        ]
        if self.mode == "mid":
            return 200, _rows([pieces[0], {"error": "llama runner process has terminated"}])
        return 200, _rows([*pieces, {"message": {"role": "assistant", "content": ""}, **end}])


def _rows(values: list[Any]) -> Iterator[bytes]:
    return iter([json.dumps(value).encode() + b"\n" for value in values])


def _handler(answer: Any) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def _serve(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            is_json = self.headers.get_content_type() == "application/json"
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, pieces = answer(self.command, self.path, headers, json.loads(raw) if is_json and raw else raw)
            self.send_response(status)
            self.end_headers()
            for piece in pieces:
                self.wfile.write(piece)

        do_GET = do_POST = _serve

        def log_message(self, format: str, *args: Any) -> None:
            return

    return Handler
