# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading the recorded transcripts of the plugin daemon: steps by version, with the request and the reply of each.

The notation is explained in the transcripts' section 0. Ids, times and hashes are compared as placeholders, and a reply
that was cut in the record is compared in what was kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

REFERENCE = "0.6.3"
EMB = '"provider":"ollama","model_type":"text-embedding","model":"emb"'
PROV = '{"user_id":"health-check","data":{"provider":"ollama","credentials":{}}}'
CRED = (
    '{"base_url":"http://ollama-host:11434","mode":"chat","context_size":"4096","max_tokens":"4096",'
    '"vision_support":"false","function_call_support":"false"}'
)
LLM = (
    '{"user_id":"health-check","data":{"provider":"ollama","model_type":"llm","model":"llama3.2","credentials":'
    + CRED
    + ","
    '"prompt_messages":[{"role":"user","content":"ping"}],"model_parameters":{"num_predict":5},"tools":[],"stop":[],'
    '"stream":true}}'
)
NAMES = {
    "UNAUTH": '{-401 "unauthorized"}',
    "OK-PROV": '{0 {"result":true,"credentials":{}}}',
    "NOT-FOUND": '{-404 PluginNotFoundError "plugin not found"}',
    "NO-INSTANCE": '{-500 "no proper instance"}',
    "KILLED": '{-500 "killed by timeout"}',
}
SHORTCUTS = {
    "LIST": ("GET", "M/list?page=1&page_size=100"),
    "TASKS": ("GET", "M/install/tasks?page=1&page_size=10"),
    "PROBE": ("POST", "X/model/validate_provider_credentials"),
    "VALIDATE": ("POST", "X/model/validate_model_credentials"),
    "INVOKE": ("POST", "X/llm/invoke"),
    "INSTALL": ("POST", "M/install/identifiers"),
}
_DEFAULT_TYPES = {
    -400: "PluginDaemonBadRequestError",
    -401: "PluginDaemonUnauthorizedError",
    -500: "PluginDaemonInternalServerError",
}
_CUT = re.compile(
    r' ?\.\.\.\(\d+ characters cut\)\.\.\. ?|\.\.\.\(cut\)\.\.\.|"\.\.\.\(\d+ more\)"|"\.\.\.":"\d+ more"'
    r'|\{"\.\.\.":"\d+ keys as in the first upload/list reply"\}| \.\.\. '
)
_SAME = re.compile(r"(\d+)\.(\d+)(?:-(\d+))?(?: \(there ([+-]\d+)\))?")
_REQUEST = re.compile(
    r"^(?P<title>.*?)[ \n]+"
    r"(?P<request>`(?:GET|POST|HEAD) [^`]*`|(?:LIST|TASKS|PROBE|VALIDATE|INVOKE|INSTALL)\b)(?P<after>.*)$",
    re.DOTALL,
)
_REPLY = re.compile(
    r"(?P<left>.*?)[ \n]+< (?P<status>\d{3})(?: (?P<type>json|SSE|text/[\w;= -]+?8|text/plain))?(?P<body>.*)$",
    re.DOTALL,
)


@dataclass
class Step:
    """One recorded exchange."""

    version: str
    number: str
    title: str
    method: str = ""
    path: str = ""
    headers: dict[str, str | None] = field(default_factory=dict)
    body: str = ""
    status: int = 0
    kind: str = ""
    reply: str = ""


@dataclass
class Transcript:
    """steps[version][number]; found by title, which the versions share."""

    steps: dict[str, dict[str, Step]]
    same: dict[str, dict[str, str]]
    notes: dict[str, dict[str, str]]

    def find(self, version: str, section: int, title: str) -> Step | None:
        """The step of a version's section, its own or the reference's where both were recorded as equal."""
        for step in self.steps[version].values():
            if step.number.split(".")[0] == str(section) and step.title == title:
                return step
        if version == REFERENCE:
            return None
        reference = self.find(REFERENCE, section, title)
        equal = set(self.same[version].values())
        return reference if reference is not None and reference.number in equal else None

    def note(self, version: str, section: int, title: str) -> str:
        """The text behind the title of a step that is not a single exchange, "" when it was not recorded."""
        for number, text in self.notes[version].items():
            if number.split(".")[0] == str(section) and text.startswith(title):
                return text.removeprefix(title)
        equal = set(self.same[version].values()) if version != REFERENCE else set()
        for number, text in self.notes[REFERENCE].items():
            if number in equal and number.split(".")[0] == str(section) and text.startswith(title):
                return text.removeprefix(title)
        return ""


def read(text: str) -> Transcript:
    found = Transcript({}, {}, {})
    version = ""
    for block in _blocks(text):
        header = re.match(r"### (\S+) - (\d+)\. ", block)
        if header:
            version = header.group(1)
            found.steps.setdefault(version, {})
            found.same.setdefault(version, {})
            found.notes.setdefault(version, {})
        elif version and block.startswith("Same as 0.6.3: "):
            _read_same(block, found.same[version])
        elif version:
            match = re.match(r"- (\d+\.\d+)( ff\.)? (.*)", block, re.DOTALL)
            if match and match.group(2) and "route not found" in match.group(3):
                _read_not_found(found.steps[version], version, match.group(1), match.group(3))
            elif match:
                step = _step(version, match.group(1), match.group(3))
                if step is None:
                    found.notes[version][match.group(1)] = match.group(3)
                else:
                    found.steps[version][step.number] = step
    return found


def _blocks(text: str) -> list[str]:
    """Lines, with the lines that continue a step attached to it."""
    blocks: list[str] = []
    for line in text.splitlines():
        if re.match(r"- \d+\.\d+ |#|Same as ", line) or not blocks:
            blocks.append(line)
        else:
            blocks[-1] += f"\n{line}"
    return [block.rstrip() for block in blocks]


def _read_same(block: str, same: dict[str, str]) -> None:
    for section, first, last, shift in _SAME.findall(block.split(": ", 1)[1]):
        for number in range(int(first), int(last or first) + 1):
            same[f"{section}.{number}"] = f"{section}.{number + int(shift or 0)}"


def _read_not_found(steps: dict[str, Step], version: str, number: str, text: str) -> None:
    """'2.5 ff. 404 json route not found: POST health `POST /health/check`; ...'"""
    match = re.match(r"404 (json|text/plain) route not found: (.*)", text, re.DOTALL)
    assert match is not None, text
    for index, part in enumerate(match.group(2).split("; ")):
        request = re.match(r"(?P<title>.*) `(?P<method>\w+) (?P<path>[^`]*)`?(?: > (?P<body>.*?))?;?$", part)
        if request is None or part.count("`") != 2:
            continue  # cut off in the record
        plain = "404 page not found" if match.group(1) != "json" else '{"code":"not_found","message":"route not found"}'
        key = f"{number}+{index}"
        steps[key] = Step(
            version,
            key,
            request["title"],
            request["method"],
            request["path"],
            {},
            request["body"] or "",
            404,
            match.group(1),
            plain,
        )


def _step(version: str, number: str, text: str) -> Step | None:
    install = re.match(r"(?P<title>.*?): INSTALL (?P<ids><[^>]*>) -> task (?P<task><uuid-\d+>)$", text)
    again = re.match(
        r"(?P<title>.*?): `POST M/install/identifiers` (?P<ids>.*) source (?P<source>\w+) -> all_installed "
        r"(?P<all>true|false), task_id (?P<task>\"\"|<uuid-\d+>)$",
        text,
    )
    if install or again:
        match = install or again
        assert match is not None
        source = again["source"] if again else "package"
        names = ",".join(f'"{name}"' for name in match["ids"].split(" + "))
        metas = ",".join("{}" for _ in match["ids"].split(" + "))
        body = f'{{"plugin_unique_identifiers":[{names}],"source":"{source}","metas":[{metas}]}}'
        done, task = (again["all"], again["task"].strip('"')) if again else ("false", match["task"])
        return Step(
            version,
            number,
            match["title"],
            "POST",
            "M/install/identifiers",
            {},
            body,
            200,
            "json",
            f'`{{0 {{"all_installed":{done},"task_id":"{task}"}}}}`',
        )
    reply = _REPLY.match(text)
    request = _REQUEST.match(reply["left"]) if reply else None
    if reply is None or request is None:
        return None
    title = re.sub(r", first seen at -?[\d.]+ s$", "", request["title"])
    if request["request"].startswith("`"):
        method, path = request["request"].strip("`").split(" ", 1)
    else:
        method, path = SHORTCUTS[request["request"]]
    step = Step(version, number, title, method, path, status=int(reply["status"]), kind=reply["type"] or "")
    step.reply = re.sub(r"^ \([\d.]+ s\)", "", reply["body"]).strip()
    after = request["after"].strip()
    brackets = re.match(r"\[([^\]]*)\]", after)
    if brackets:
        step.headers = _headers(brackets.group(1))
        after = after[brackets.end() :].strip()
    if request["request"] == "INSTALL":
        metas = (
            ",".join("{}" for _ in after.split(","))
            if "metas shorter" not in title and "one meta" not in title
            else "{}"
        )
        step.body = f'{{"plugin_unique_identifiers":[{after}],"source":"package","metas":[{metas}]}}'
    elif after.startswith(">"):
        step.body = after[1:].strip()
    elif request["request"] == "PROBE":
        step.body = "PROV"
    return step


def _headers(text: str) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for part in text.split("; "):
        if part in ("no key", "no X-Plugin-ID"):
            found["X-Api-Key" if part == "no key" else "X-Plugin-ID"] = None
        elif part == "wrong key":
            found["X-Api-Key"] = "k-wrong"
        else:
            name, value = part.split(": ", 1)
            found[name] = value
    return found


def request_body(text: str) -> str:
    """The body that a short form stands for."""
    if text.startswith("LLM"):
        return json.dumps(_changed_llm(text))
    if text.startswith("MODEL"):
        return json.dumps(_model(text))
    for name, value in (("PROV", PROV), ("EMB", EMB), ("CRED", CRED)):
        # No value holds a backslash, so each is a plain replacement.
        text = re.sub(rf"\b{name}\b", value, text)
    return text


def _changed_llm(text: str) -> dict[str, Any]:
    request: dict[str, Any] = json.loads(LLM)
    match = re.match(
        r"LLM(?: with (?P<with>\{.*\}))?(?: without (?P<without>\w+))?(?: plus top level (?P<top>\{.*\}))?$", text
    )
    assert match is not None, text
    for key, value in json.loads(match["with"] or "{}").items():
        if key == "credentials":
            request["data"]["credentials"].update(value)
        elif key == "credentials without":
            for name in value:
                del request["data"]["credentials"][name]
        else:
            request["data"][key] = value
    if match["without"]:
        del request[match["without"]]
    request.update(json.loads(match["top"] or "{}"))
    return request


def _model(text: str) -> dict[str, Any]:
    match = re.match(
        r"MODEL (?P<kind>\S+) (?P<model>\S+)(?: with credentials (?P<with>\{.*\}))?(?: without (?P<without>\S+))?$",
        text,
    )
    assert match is not None, text
    credentials = {**json.loads(CRED), **json.loads(match["with"] or "{}")}
    for name in (match["without"] or "").split(","):
        credentials.pop(name, None)
    data = {"provider": "ollama", "model_type": match["kind"], "model": match["model"], "credentials": credentials}
    return {"user_id": "u", "data": data}


# Comparing replies


def normal(text: str) -> str:
    """A recorded text with its placeholders made equal; what varies by nature is made one."""
    text = re.sub(r"<uuid-\d+>", "<uuid>", text)
    text = re.sub(r"langgenius/ollama:([\d.]+)@<sum olla(?= \.\.\.\()", r"<ID \1", text)  # cut inside an identifier
    # Cuts through a time or an identifier leave a piece that cannot be compared.
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]*(?= \.\.\.\()", "", text)
    text = re.sub(r'(?<= characters cut\)\.\.\.) [\d:.]*Z"', '"', text)
    text = re.sub(r"(?<= characters cut\)\.\.\.) <sum [^>]*>", ">", text)
    text = re.sub(r"<sum [^>]*>", "<hex64>", text)
    text = re.sub(r"<ID ([\d.]+) signed>", r"<ID \1>", text)
    text = re.sub(r"langgenius/ollama:([\d.]+)@<hex64>", r"<ID \1>", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", "<time>", text)
    text = re.sub(r'"latency":[\d.e-]+', '"latency":0', text)
    text = re.sub(r'"free":\d+,"busy":\d+', '"free":0,"busy":0', text)
    text = re.sub(
        r"\[Errno -[23]\] (?:Name or service not known|Temporary failure in name resolution)", "[Errno -2]", text
    )
    return text.replace(
        "failed to install dependencies: (2x) ", "failed to install dependencies: failed to install dependencies: "
    )


def pattern(recorded: str) -> re.Pattern[str]:
    """What a recorded, possibly cut text allows."""
    pieces = _CUT.split(normal(recorded))
    return re.compile(".*".join(re.escape(piece) for piece in pieces) + "$", re.DOTALL)


def short_forms(event: dict[str, Any]) -> list[str]:
    """The notations that one envelope can have in the record, longest first."""
    raw = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
    if "code" not in event or not isinstance(event["code"], int):
        return [raw]
    if event["code"] != 0:
        return [raw, _short_error(event)]
    data = event["data"]
    forms = [raw, f"{{0 {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}}}"]
    if isinstance(data, dict) and "delta" in data:
        forms.append(_short_chunk(data["delta"]))
    if isinstance(data, dict) and "unique_identifier" in data:
        tail = raw[raw.index('"unique_identifier"') : -1]
        forms += [f"code 0, {tail}", f"code 0, {tail[:-1]}"]  # the record is not of one mind about the last brace
    items = data.get("list") if isinstance(data, dict) else data
    if isinstance(items, list):
        shown = " ; ".join(
            f"{item['plugin_unique_identifier']} version {item['version']} source {item['source']}"
            for item in items
            if isinstance(item, dict) and "version" in item
        )
        forms.append(
            f"{{list: {shown}, total {data['total']}}}"
            if isinstance(data, dict) and "total" in data
            else f"{{array: {shown}}}"
        )
        if isinstance(data, dict) and not items:
            forms.append(f"{{0 list [] total {data.get('total')}}}")
        tasks = [item for item in items if isinstance(item, dict) and "total_plugins" in item]
        if tasks:
            forms.append("{tasks: " + " ; ".join(_short_task(task) for task in tasks) + "}")
    return forms


def _short_error(event: dict[str, Any]) -> str:
    inner = json.loads(event["message"])
    if inner["error_type"] == "PluginInvokeError":
        innermost = json.loads(inner["message"])
        described = "args has description " if "description" in innermost["args"] else ""
        return f"{{{event['code']} PIE {innermost['error_type']} {described}{_quoted(innermost['message'])}}}"
    named = "" if inner["error_type"] == _DEFAULT_TYPES.get(event["code"]) else f"{inner['error_type']} "
    return f"{{{event['code']} {named}{_quoted(inner['message'])}}}"


def _short_chunk(delta: dict[str, Any]) -> str:
    usage = delta["usage"]
    text = f"{{chunk {delta['index']} {_quoted(delta['message']['content'])}"
    if usage:
        reason = "null" if delta["finish_reason"] is None else _quoted(delta["finish_reason"])
        counts = "/".join(str(usage[f"{name}_tokens"]) for name in ("prompt", "completion", "total"))
        text += f" usage {counts} finish_reason {reason}"
    return text + "}"


def _short_task(task: dict[str, Any]) -> str:
    plugins = ", ".join(f'{plugin["status"]} "{plugin["message"]}"' for plugin in task["plugins"])
    return f"{task['id']} {task['status']} ({plugins})"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def events_of(recorded: str) -> list[str]:
    """The events of a recorded stream: whole lines after "data: ", else balanced short forms and names."""
    if recorded.startswith("data: "):
        return [line.strip().removeprefix("data: ") for line in recorded.splitlines() if line.strip()]
    found: list[str] = []
    rest = recorded.strip()
    while rest:
        if rest.startswith("{"):
            end = _balanced(rest)
        else:
            name = re.match(r"\.\.\.\(\d+ more events\)|\S+", rest)
            assert name is not None, rest
            end = name.end()
        found.append(rest[:end])
        rest = rest[end:].strip()
    return found


def _balanced(text: str) -> int:
    depth, quoted, skip = 0, False, False
    for index, char in enumerate(text):
        if skip:
            skip = False
        elif char == "\\":
            skip = True
        elif char == '"':
            quoted = not quoted
        elif not quoted:
            depth += (char == "{") - (char == "}")
            if depth == 0:
                return index + 1
    return len(text)


def expected(step: Step, find: Callable[[str], Step | None]) -> str:
    """The recorded reply itself: references followed, names spelt out, quoting removed."""
    text = re.sub(r" = [A-Z-]+$", "", step.reply).strip().strip("`")
    reference = re.fullmatch(r"reply as in (\d+\.\d+)", text)
    if reference:
        other = find(reference.group(1))
        assert other is not None, f"{step.number} refers to {reference.group(1)}, which was not read"
        return expected(other, find)
    return re.sub(r" = [A-Z-]+$", "", text).strip("`")
