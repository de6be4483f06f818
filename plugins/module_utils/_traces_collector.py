# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.

"""What the OpenTelemetry Collector's log tells: each span (debug exporter, verbosity normal), and refusals. Pure.

The debug exporter says no moments, so a span from here has no duration.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._traces import Span

_SPAN = re.compile(r"^(?P<name>\S.*?) (?P<trace>[0-9a-f]{32}) (?P<span>[0-9a-f]{16})(?P<attributes>| .*)$")
_STAMP = re.compile(r"^\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:?\d\d)\t")
# Values are not quoted. Those before what users and models say come first, so the first of a name is ours.
_COUNTS = ("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens")
_NUMBERS = ("gen_ai.response.time_to_first_chunk",)
_WORDS = ("gen_ai.operation.name", "gen_ai.request.model", "dify.outcome", "error.type")
_FAILED = "Exporting failed."


@dataclass(frozen=True)
class Refusal:
    """A batch that a backend did not take. `kind`: unauthorized, status, dns, refused, slow, tls, full or other."""

    kind: str
    text: str
    status: int = 0
    # The collector tries again, so nothing is lost yet.
    retried: bool = False


def spans(log: str) -> list[Span]:
    return [found for line in _lines(log) for found in [_span(line)] if found]


def refusals(log: str) -> list[Refusal]:
    """Of spans, in the order of their coming; what became of metrics is another matter."""
    return [_refusal(line) for line in _lines(log) if _FAILED in line and '"traces"' in line]


def _lines(log: str) -> Iterator[str]:
    """Lines of the console's form; those of a collector that writes JSON are brought into it."""
    for line in log.splitlines():
        record = _json(line) if line.startswith("{") else None
        if record is None:
            yield line
            continue
        rest = {name: value for name, value in record.items() if name != "msg"}
        for part in str(record.get("msg") or "").splitlines():
            yield f"{part}\t{json.dumps(rest)}" if part.startswith(_FAILED) else part


def _json(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _span(line: str) -> Span | None:
    found = None if _STAMP.match(line) else _SPAN.match(line)
    if not found:
        return None
    text = found["attributes"] + " "
    attributes: dict[str, Any] = {}
    for names, form, convert in ((_COUNTS, r"\d+", int), (_NUMBERS, r"[\d.e+-]+", float), (_WORDS, r".*?", str)):
        for name in names:
            value = re.search(rf" {re.escape(name)}=({form})(?= [\w.]+=| $)", text)
            if value:
                attributes[name] = convert(value[1])
    return Span(found["trace"], found["span"], found["name"], attributes=attributes)


def _refusal(line: str) -> Refusal:
    about = _json(line[line.find("{") :]) or {}
    text = str(about.get("error") or line.split("\t")[-1])
    for noise in (
        "not retryable error: ",
        "no more retries left: ",
        "Permanent error: ",
        "failed to make an HTTP request: ",
    ):
        text = text.replace(noise, "")
    text = re.sub(r"^rpc error: code = \w+ desc = (error exporting items, )?", "", text)
    text = re.sub(r", Message=, Details=\[\]$", "", text)
    number = re.search(r"HTTP Status Code (\d{3})", text)
    return Refusal(
        kind=_kind(text, int(number[1]) if number else 0),
        text=text,
        status=int(number[1]) if number else 0,
        retried="Will retry" in line,
    )


def _kind(text: str, status: int) -> str:
    if status:
        return "unauthorized" if status in (401, 403) else "status"
    for kind, sign in (
        ("full", "queue is full"),
        ("dns", "no such host"),
        ("refused", "connection refused"),
        ("slow", "deadline exceeded|Client.Timeout|i/o timeout"),
        ("tls", "tls:|x509:|certificate"),
        ("dns", "server misbehaving"),
        ("unreachable", "no route to host|network is unreachable"),
    ):
        if re.search(sign, text):
            return kind
    return "other"
