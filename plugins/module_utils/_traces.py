# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.

"""A model call as a backend of traces shows it, and which of several a question of ours was. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

# Dify does things before it calls the model, so its span begins after the question. A clock may be a little behind.
_CLOCKS = 2.0
CHAT = "chat"


class TracesError(Exception):
    """The place where spans should be cannot be asked. `final`: nothing that time alone mends."""

    def __init__(self, detail: str, advice: str, final: bool = False) -> None:
        super().__init__(f"{detail}. {advice}")
        self.detail, self.advice, self.final = detail, advice, final


@dataclass
class Span:
    trace_id: str
    span_id: str
    name: str
    # Moments are seconds since the epoch; None where the source does not tell.
    started: float | None = None
    ended: float | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict, repr=False)
    url: str = ""

    def _first(self, *names: str) -> Any:
        return next((self.attributes[name] for name in names if self.attributes.get(name) is not None), None)

    def _count(self, *names: str) -> int | None:
        value = self._first(*names)
        return int(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None

    # The second name of each is the one into which Arize Phoenix translates the first.
    @property
    def model(self) -> str:
        return str(self._first("gen_ai.request.model", "llm.model_name") or "")

    @property
    def operation(self) -> str:
        return str(self._first("gen_ai.operation.name", "llm.request.type") or "")

    @property
    def input_tokens(self) -> int | None:
        return self._count("gen_ai.usage.input_tokens", "llm.token_count.prompt")

    @property
    def output_tokens(self) -> int | None:
        return self._count("gen_ai.usage.output_tokens", "llm.token_count.completion")

    @property
    def counted(self) -> bool:
        return bool(self.input_tokens or self.output_tokens)

    @property
    def outcome(self) -> str:
        return str(self.attributes.get("dify.outcome") or "")

    @property
    def time_to_first_chunk(self) -> float | None:
        value = self.attributes.get("gen_ai.response.time_to_first_chunk")
        return round(float(value), 3) if isinstance(value, (int, float)) else None

    @property
    def duration(self) -> float | None:
        return None if self.started is None or self.ended is None else round(self.ended - self.started, 3)

    def public(self) -> dict[str, Any]:
        return {
            "trace_id": self.trace_id,
            "span_id": self.span_id,
            "name": self.name,
            "model": self.model,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "time_to_first_chunk": self.time_to_first_chunk,
            "duration": self.duration,
            "outcome": self.outcome,
            "url": self.url,
        }


@dataclass(frozen=True)
class Question:
    """A chat that was asked: what its answer's usage said, and when it began by the clock of the host that answered."""

    began: float
    input_tokens: int | None = None
    output_tokens: int | None = None
    model: str = ""

    @property
    def since(self) -> float:
        return self.began - _CLOCKS

    @property
    def counted(self) -> bool:
        return bool(self.input_tokens or self.output_tokens)


def question(began: float, usage: Mapping[str, Any], model: str = "") -> Question:
    """From the usage in the last event of a chat."""
    tokens = [
        usage[name] if isinstance(usage.get(name), int) else None for name in ("prompt_tokens", "completion_tokens")
    ]
    return Question(began, tokens[0], tokens[1], model)


def candidates(spans: Iterable[Span], asked: Question) -> list[Span]:
    """Chats of the right model and time, the nearest first."""
    found = [
        one
        for one in spans
        if one.operation == CHAT
        and one.outcome  # only a span of this collection's runtime has that
        and (not asked.model or one.model == asked.model)
        and (one.started is None or one.started >= asked.since)
        and (one.ended is None or one.ended >= asked.began)
    ]
    return sorted(found, key=lambda one: abs((one.started or asked.began) - asked.began))


def exact(spans: Iterable[Span], asked: Question) -> Span | None:
    """The span with the very tokens of the answer; where those are not known, the nearest that counted any."""
    for one in candidates(spans, asked):
        same = (one.input_tokens, one.output_tokens) == (asked.input_tokens, asked.output_tokens)
        if one.counted and (same or not asked.counted):
            return one
    return None


def likely(spans: Iterable[Span], asked: Question) -> Span | None:
    """What there is when the right one did not come: of calls that went well, one that counted tokens before others.

    An answer that took several calls of a model has the tokens of all of them, and each span those of one.
    """
    found = [one for one in candidates(spans, asked) if one.outcome == "ok"]
    return next((one for one in found if one.counted), found[0] if found else None)


def line(trace: Mapping[str, Any]) -> str:
    """One line for people, from C(public())."""

    def count(name: str) -> str:
        return "?" if trace.get(name) is None else str(trace[name])

    parts = [
        f"{trace.get('model') or trace.get('name')}: {count('input_tokens')} tokens in, {count('output_tokens')} out"
    ]
    if trace.get("time_to_first_chunk") is not None:
        parts.append(f"first token after {trace['time_to_first_chunk']:.2f} s")
    if trace.get("duration") is not None:
        parts.append(f"{trace['duration']:.2f} s in all")
    return ", ".join([*parts, str(trace.get("outcome") or "")]).rstrip(", ")
