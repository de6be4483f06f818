"""What Dify answers through nginx, as recorded from releases 1.12.1 and 1.16.0."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from ansible_collections.llmops.stack.tests.unit.servers.scripted import Reply, Request, as_json, events

APP_KEY = "app-0123456789abcdef"
NGINX_502 = (
    "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad Gateway</h1></center>\r\n"
    "<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
)
FLASK_500 = "<!doctype html>\n<html lang=en>\n<title>500 Internal Server Error</title>\n"


def message(answer: str) -> str:
    return json.dumps({"event": "message", "task_id": "t", "answer": answer, "from_variable_selector": None})


def message_end(tokens: int, **usage: int) -> str:
    usage = {"total_tokens": tokens, **usage}
    return json.dumps({"event": "message_end", "task_id": "t", "metadata": {"usage": usage}})


def chat_error(text: str, code: str = "completion_request_error") -> str:
    return json.dumps({"event": "error", "task_id": "t", "code": code, "status": 400, "message": text})


def html(status: int, body: str) -> Reply:
    return Reply(status, body, "text/html; charset=utf-8")


@dataclass
class FakeDify:
    version: str = "1.12.1"
    ping: Reply | None = None
    setup: Reply | None = None
    web: Reply = field(default_factory=lambda: html(200, "<!DOCTYPE html><html><head></head></html>"))
    chat: Reply = field(default_factory=lambda: events(message("Hello"), message(""), message_end(14)))

    def __call__(self, request: Request) -> Reply:
        stamp = {"X-Version": self.version, "X-Env": "PRODUCTION"}
        if request.path == "/console/api/ping":
            return self.ping or as_json({"result": "pong"}, headers=stamp)
        if request.path == "/console/api/setup":
            return self.setup or as_json({"step": "finished", "setup_at": "2026-11-22T20:33:31"}, headers=stamp)
        if request.path == "/v1/chat-messages":
            if request.headers.get("authorization") != "Bearer " + APP_KEY:
                return as_json({"code": "unauthorized", "message": "Access token is invalid", "status": 401}, 401)
            return self.chat
        return self.web
