# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Recorded steps of Dify's API, read from the fact files, and the comparison of a live reply with a recorded one.

The files cut what they show: arrays to one element plus "...(N more)", objects with "..." as a key, long texts with
"<cut>", and have <placeholders> for whatever differs from run to run. Where something was cut the comparison stops;
everything else must agree: the status, the keys of every object, the events of a stream, and the plain values of errors
and states.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HEADING = re.compile(r"^### (?P<release>[\w.-]+)/(?P<number>\d+) (?P<title>.+)$")
SAME = re.compile(r"^- (?P<release>[\w.-]+)/(?P<number>\d+) (?:\*\*)?(?P<title>.+?)(?:\*\*)?: (?P<rest>.*)$")
REFERENCE = re.compile(
    r"(?:same request and reply as|request and reply identical to) (?P<release>[\w.-]+)/(?P<number>\d+)"
)
REQUEST = re.compile(r"^(GET|POST|PUT|PATCH|DELETE|HEAD) (\S+)(?:\s+\[(session|app key)\])?\s*$")
STATUS = re.compile(r"^< (\d{3})(?: (?P<type>[\w/-]+\S*))?(?: .*)?$")
HEADER = re.compile(r"^(?:Content-Type|Cookie|Authorization|X-[\w-]+): ")
PLACEHOLDER = re.compile(r"<[^<>]*>")
# Addresses of the recording inside error texts.
ADDRESS = re.compile(r"host='[^']*', port=\d+|0x[0-9a-f]{6,}|(?<=http://)[\w.-]+:\d+|(?<=http://)marketplace-host")
# Keys whose plain values are part of the protocol and not of the recording's circumstances.
TELLING = {
    "code",
    "message",
    "status",
    "error",
    "result",
    "params",
    "type",
    "event",
    "mode",
    "step",
    "custom",
    "success",
    "details",
    "all_installed",
    "answer",
    "enabled",
    "role",
    "model_type",
    "app_mode",
    "imported_dsl_version",
    "current_dsl_version",
    "credential_name",
    "current_credential_name",
    "total_tokens",
    "version",
    "interface_language",
    "strategy_setting",
}


@dataclass
class Step:
    release: str
    number: int
    title: str
    file: str = ""
    method: str = ""
    path: str = ""
    who: str = ""  # "session", "app key" or nobody
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""
    status: int = 0
    reply_headers: dict[str, str] = field(default_factory=dict)
    reply: str = ""

    @property
    def events(self) -> list[dict[str, Any]]:
        """The complete events of a stream; a cut one has only its kind."""
        found = []
        for line in self.reply.splitlines():
            line = re.sub(r"^\[[\d.]+s\] ", "", line)
            if line.startswith("data:"):
                found.append(_event(line[5:].strip()))
        return found


def _event(text: str) -> dict[str, Any]:
    try:
        return dict(json.loads(text.replace(": <time>", ":0").replace(":<time>", ":0")))
    except ValueError:
        kind = re.search(r'"event": ?"(\w+)"', text)
        return {"event": kind.group(1) if kind else "", "...": ""}


def read(path: Path) -> dict[tuple[str, int], Step]:
    """All steps of a file by release and number; references are resolved, also to steps of another release."""
    steps: dict[tuple[str, int], Step] = {}
    lines = path.read_text(encoding="utf-8").splitlines()
    index = 0
    while index < len(lines):
        heading, same = HEADING.match(lines[index]), SAME.match(lines[index])
        index += 1
        if heading:
            step = Step(heading["release"], int(heading["number"]), heading["title"], path.name)
            if index < len(lines) and lines[index].startswith("```"):
                end = next(place for place in range(index + 1, len(lines)) if lines[place].startswith("```"))
                _fill(step, lines[index + 1 : end])
                index = end
            steps.setdefault((step.release, step.number), step)
        elif same and (reference := REFERENCE.search(same["rest"])):
            source = steps.get((reference["release"], int(reference["number"])))
            if source is not None:
                copy = Step(
                    **{
                        **source.__dict__,
                        "release": same["release"],
                        "number": int(same["number"]),
                        "title": same["title"],
                    }
                )
                steps.setdefault((copy.release, copy.number), copy)
    return steps


def _fill(step: Step, lines: list[str]) -> None:
    request = REQUEST.match(lines[0])
    if request is None:
        return
    step.method, step.path, step.who = request[1], request[2], request[3] or ""
    body: list[str] = []
    reply: list[str] = []
    part = "request"
    for line in lines[1:]:
        if line.startswith("-- requests to"):
            break
        status = STATUS.match(line) if part == "request" else None
        if status:
            step.status, part = int(status[1]), "reply"
        elif part == "reply" and line.startswith("< ") and not reply:
            name, _, value = line[2:].partition(": ")
            step.reply_headers[name] = value
        elif part == "reply":
            reply.append(line)
        elif line.startswith("> ") and HEADER.match(line[2:]) and not body:
            name, _, value = line[2:].partition(": ")
            step.headers[name] = value
        else:
            body.append(line[2:] if line.startswith("> ") else line)
    step.body, step.reply = "\n".join(body).strip("\n"), "\n".join(reply).strip("\n")


def load(text: str) -> Any:
    """A recorded reply as JSON; None where it is none or was cut."""
    try:
        return json.loads(re.sub(r":\s*<(?:time|credentials)>", ": 0", text))
    except ValueError:
        return None


class Mismatch(AssertionError):
    """Where a live reply differs from the recorded one."""


def compare(expected: Any, actual: Any, names: dict[str, str], where: str = "$") -> None:
    """Raises Mismatch; placeholders that stand for one whole value are learned into `names` on the way."""
    if isinstance(expected, dict):
        _compare_object(expected, actual, names, where)
    elif isinstance(expected, list):
        _compare_array(expected, actual, names, where)
    elif isinstance(expected, str) and ADDRESS.search(expected):
        compare(ADDRESS.sub("<address>", expected), actual, names, where)
    elif isinstance(expected, str) and PLACEHOLDER.search(expected):
        _compare_pattern(expected, actual, where)
        _learn(expected, actual, names)
    else:
        _compare_plain(expected, actual, where)


def _compare_object(expected: dict[str, Any], actual: Any, names: dict[str, str], where: str) -> None:
    if not isinstance(actual, dict):
        raise Mismatch(f"{where}: an object was recorded, here is {actual!r:.200}")
    missing = [key for key in expected if key != "..." and key not in actual]
    extra = [key for key in actual if key not in expected] if "..." not in expected else []
    if missing or extra:
        raise Mismatch(f"{where}: missing keys {missing}, extra keys {extra}")
    for key, value in expected.items():
        if key != "...":
            compare(value, actual[key], names, f"{where}.{key}")


def _compare_array(expected: list[Any], actual: Any, names: dict[str, str], where: str) -> None:
    if not isinstance(actual, list):
        raise Mismatch(f"{where}: an array was recorded, here is {actual!r:.200}")
    cut = any(isinstance(item, str) and item.startswith("...(") for item in expected)
    shown = [item for item in expected if not (isinstance(item, str) and item.startswith("...("))]
    if (len(actual) < len(shown)) if cut else (len(actual) != len(shown)):
        raise Mismatch(
            f"{where}: {len(shown)}{' or more' if cut else ''} elements were recorded, here are {len(actual)}"
        )
    for place, item in enumerate(shown):
        compare(item, actual[place], names, f"{where}[{place}]")


def _compare_pattern(expected: str, actual: Any, where: str) -> None:
    """A text with placeholders: what lies between them must be there."""
    if where.rsplit(".", 1)[-1] in TELLING and isinstance(actual, str):
        pattern = ".*".join(re.escape(part) for part in PLACEHOLDER.split(expected))
        if re.fullmatch(pattern, actual, re.DOTALL) is None:
            raise Mismatch(f"{where}: {expected!r} was recorded, here is {actual!r}")


def _learn(expected: str, actual: Any, names: dict[str, str]) -> None:
    if isinstance(actual, str) and PLACEHOLDER.fullmatch(expected) and len(expected) < 40:
        names[expected] = actual


def _compare_plain(expected: Any, actual: Any, where: str) -> None:
    if expected is None or actual is None:
        return  # whether something is set depends on the recording's history
    kinds = [
        (int, float) if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value)
        for value in (expected, actual)
    ]
    if kinds[0] != kinds[1]:
        raise Mismatch(f"{where}: {expected!r:.100} was recorded, here is {actual!r:.100}")
    if where.rsplit(".", 1)[-1] in TELLING and not where.endswith(".site.code") and expected != actual:
        raise Mismatch(f"{where}: {expected!r} was recorded, here is {actual!r}")
