# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a monitoring plugin is told about one model call: never a credential, and no content unless it asks."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, NamedTuple

CHAT = "chat"
EMBEDDINGS = "embeddings"
RERANK = "rerank"

OK = "ok"
ERROR = "error"
CANCELLED = "cancelled"


class Error(NamedTuple):
    """A failed call. Messages of model errors quote prompts, so `message` is empty unless content is kept."""

    type: str  # class of the exception
    message: str
    cause: str  # the plugin's own error type behind a PluginInvokeError, or ""


class Content:
    """Prompt and answer of one call, each cut at `limit` characters."""

    __slots__ = ("_parts", "_room", "limit", "messages")

    def __init__(self, limit: int, messages: Iterable[tuple[str, str]]) -> None:
        self.limit = limit
        self.messages: list[tuple[str, str]] = []
        self._parts: list[str] = []
        self._room = limit
        room = limit
        for role, text in messages:
            self.messages.append((role, text[:room]))
            room = max(0, room - len(text))

    def add(self, text: str) -> None:
        if self._room > 0 and text:
            self._parts.append(text[: self._room])
            self._room -= len(text)

    @property
    def answer(self) -> str:
        return "".join(self._parts)


class Event:
    """One model call. The runtime fills it as the call goes on; `data` is the plugins' own.

    Moments (`started`, `first_chunk`, `last_chunk`, `ended`) are readings of time.monotonic(); `wall_ns` turns one into
    nanoseconds since the epoch. Every hook of a call runs in `context`, as does the call itself: a context variable
    that `before_invoke` sets is seen by the call's own requests and by nobody else.
    """

    __slots__ = (
        "_prompt",
        "app_id",
        "chunks",
        "content",
        "context",
        "data",
        "ended",
        "error",
        "finish_reason",
        "first_chunk",
        "inputs",
        "kind",
        "last_chunk",
        "model",
        "outcome",
        "parameters",
        "plugin_id",
        "provider",
        "response_model",
        "server_address",
        "server_port",
        "started",
        "started_ns",
        "stream",
        "tenant_id",
        "usage",
        "user",
    )

    def __init__(self, kind: str, provider: str, model: str) -> None:
        self.kind = kind
        self.provider = provider
        self.model = model
        self.parameters: dict[str, Any] = {}
        self.stream = False
        self.inputs: int | None = None  # texts to embed, documents to rank, messages of a prompt
        self.app_id: str | None = None
        self.user: str | None = None
        self.tenant_id: str | None = None
        self.plugin_id: str | None = None
        self.server_address: str | None = None
        self.server_port: int | None = None
        self.started_ns = 0
        self.started = 0.0
        self.first_chunk: float | None = None
        self.last_chunk: float | None = None
        self.ended: float | None = None
        self.chunks = 0
        # prompt_tokens, completion_tokens, total_tokens; total_price and currency where Dify knows a price
        self.usage: dict[str, Any] | None = None
        self.finish_reason: str | None = None
        self.response_model: str | None = None
        self.outcome: str | None = None
        self.error: Error | None = None
        self.content: Content | None = None
        self.context: Any = None
        self.data: dict[str, Any] = {}
        self._prompt: Any = None

    def start(self) -> None:
        self.started_ns = time.time_ns()
        self.started = time.monotonic()

    def wall_ns(self, moment: float) -> int:
        return self.started_ns + int((moment - self.started) * 1e9)

    @property
    def duration(self) -> float | None:
        return None if self.ended is None else self.ended - self.started

    @property
    def time_to_first_chunk(self) -> float | None:
        return None if self.first_chunk is None else self.first_chunk - self.started

    def keep_content(self, limit: int = 8192) -> None:
        """Ask for prompt and answer; only in `before_invoke`, for the prompt is let go of after it."""
        if self.content is None or self.content.limit < limit:
            self.content = Content(limit, self._prompt() if self._prompt else ())
