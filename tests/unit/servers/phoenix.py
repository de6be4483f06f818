# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Arize Phoenix 20.26.1 answers about the spans of a project, as recorded, as far as it is asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any
from urllib.parse import parse_qs

from ansible_collections.llmops.stack.tests.unit.servers.scripted import Reply, Request, as_json

PROJECT_ID = "UHJvamVjdDox"
MODEL = "deepseek-r1:1.5b"
TRACE, SPAN = "21c0fa9cd547d38dc97bcb2924942efa", "5599791b0bcc15ec"
_COUNTS = (
    ("gen_ai.usage.input_tokens", "llm.token_count.prompt"),
    ("gen_ai.usage.output_tokens", "llm.token_count.completion"),
)
# For an address that it does not know it sends the start page of its browser application, with status 200.
START_PAGE = Reply(200, "<!DOCTYPE html>\n<html>\n  <head>\n    <title>Phoenix</title>", "text/html; charset=utf-8")


def chat_span(
    began: float,
    seconds: float = 0.5,
    tokens: tuple[int, int] | None = (38, 4),
    attributes: dict[str, Any] | None = None,
) -> Any:
    """A span of the traceloop plugin: Phoenix keeps its attributes and adds its own names for some of them."""
    counted: dict[str, Any] = {}
    if tokens is not None:
        for names, count in zip(_COUNTS, tokens):
            counted.update(dict.fromkeys(names, count))
    return {
        "id": "U3Bhbjoz",
        "name": f"chat {MODEL}",
        "context": {"trace_id": TRACE, "span_id": SPAN},
        "span_kind": "LLM",
        "parent_id": None,
        "start_time": _moment(began),
        "end_time": _moment(began + seconds),
        "status_code": "UNSET",
        "status_message": "",
        "attributes": {
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": MODEL,
            "llm.model_name": MODEL,
            "gen_ai.response.time_to_first_chunk": 0.2143,
            "dify.outcome": "ok",
            **counted,
            **(attributes or {}),
        },
        "events": [],
    }


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat()


@dataclass
class FakePhoenix:
    spans: list[Any] = field(default_factory=list)
    project: str = "default"
    key: str = ""
    page_size: int = 1000
    # Instead of any answer.
    reply: Reply | None = None

    def __call__(self, request: Request) -> Reply:
        if self.reply:
            return self.reply
        if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            return Reply(401, "Invalid token", "text/plain")
        parts = request.path.strip("/").split("/")
        if parts[:2] != ["v1", "projects"] or len(parts) < 3:
            return START_PAGE
        if parts[2] != self.project:
            return Reply(404, f"Project with name {parts[2]} not found", "text/plain")
        if parts[3:] == ["spans"]:
            return self._spans(parse_qs(request.query))
        return as_json({"data": {"name": self.project, "description": None, "id": PROJECT_ID}})

    def _spans(self, query: dict[str, list[str]]) -> Reply:
        since = datetime.fromisoformat(query["start_time"][0])
        found = [one for one in self.spans if datetime.fromisoformat(one["start_time"]) >= since]
        begin = int((query.get("cursor") or ["0"])[0])
        end = begin + min(self.page_size, int(query["limit"][0]))
        return as_json({"data": found[begin:end], "next_cursor": str(end) if end < len(found) else None})
