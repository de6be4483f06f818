"""The finished node of Molecule's default scenario: what it is asked, and the spans that arrive somewhere."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from shlex import quote
from typing import Any

import requests
from database import sql
from machine import ROOT, Machine, Run
from owner import HOME, Owner

__all__ = ["HOME", "ROOT", "Owner", "Run"]

# Another node that has the same variables will do, too.
MACHINE = Machine(os.environ.get("LLMOPS_NODE", "dify1"), "default")
NODE = MACHINE.name
on_node = MACHINE.on
MODEL = "deepseek-r1:1.5b"
ANSWER = "This node is ready"
QUESTION = "Which marzipan keeps longest?"  # a word of it is nowhere else
USER = "somebody"
FILES = "/opt/traceloop"
COLLECTOR = "dify-otel_collector-1"
SWITCH = [sys.executable, str(ROOT / "tests" / "world" / "world.py"), "switch", NODE]
PATIENCE = 30.0  # seconds for a span to arrive; it takes two where nothing is in its way
READ = "import sys, urllib.request as u; sys.stdout.write(u.urlopen(sys.argv[1], timeout=20).read().decode())"


def says(text: str, *words: str) -> None:
    """These words (regular expressions, whatever their case) in their order."""
    text = " ".join(text.split())
    assert re.search(".*".join(words), text, re.IGNORECASE | re.DOTALL), f"{words} are not in: {text[:4000]}"


def switch(service: str, *settings: str) -> None:
    subprocess.run([*SWITCH, service, *settings], stdout=subprocess.PIPE, check=True, timeout=60)


def until(true: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """What it gives, once it gives anything."""
    end = time.monotonic() + patience
    while not (found := true()):
        assert time.monotonic() < end, f"{what}: not within {patience:.0f} s"
        time.sleep(0.5)
    return found


def get(url: str) -> Any:
    """JSON, as the node itself gets it."""
    return json.loads(on_node(f'python3 -c "{READ}" {quote(url)}'))


def containers() -> dict[str, str]:
    """Every container of Dify with what would tell that it was touched."""
    form = "{{.Name}} {{.Id}} {{.State.StartedAt}}"
    script = f"docker ps -aq --filter label=com.docker.compose.project=dify | xargs -r docker inspect --format '{form}'"
    return {name: rest for name, _, rest in (line.partition(" ") for line in on_node(script).splitlines())}


def files() -> str:
    """Checksums of what the role keeps on the node, but for data."""
    return on_node(
        f"find {FILES} /opt/dify/current/ -maxdepth 4 -type f ! -path '*/volumes/*' ! -path '{FILES}/queue/*'"
        f" ! -path '{FILES}/phoenix/*' ! -path '{FILES}/lgtm/*' -exec sha256sum {{}} + | sort"
    )


# A question and its answer


@dataclasses.dataclass(frozen=True)
class Told:
    """What a client was told."""

    answer: str = ""
    usage: dict[str, Any] = dataclasses.field(default_factory=dict)
    error: str = ""

    @property
    def tokens(self) -> tuple[int, int]:
        return self.usage["prompt_tokens"], self.usage["completion_tokens"]


def ask(url: str, key: str, streaming: bool = True, named: bool = False, leave_after: int = 0) -> Told:
    """One chat. `named` has Dify ask for a title; after `leave_after` pieces of a stream the client goes away."""
    body = {
        "inputs": {},
        "query": QUESTION,
        "user": USER,
        "response_mode": "streaming" if streaming else "blocking",
        "auto_generate_name": named,
    }
    headers = {"Authorization": f"Bearer {key}"}
    with requests.post(f"{url}/v1/chat-messages", json=body, headers=headers, stream=streaming, timeout=120) as answer:
        if not answer.ok:
            return Told(error=answer.text)
        if not streaming:
            found = answer.json()
            return Told(found["answer"], found["metadata"]["usage"])
        text, pieces = "", 0
        for line in answer.iter_lines(decode_unicode=True):
            event = json.loads(line[6:]) if line.startswith("data: ") else {}
            if event.get("event") == "error":
                return Told(text, error=event["message"])
            if event.get("event") == "message_end":
                return Told(text, event["metadata"]["usage"])
            if event.get("event") == "message":
                text, pieces = text + event["answer"], pieces + 1
                if pieces == leave_after:
                    break
    return Told(text)


def chats(url: str, key: str, count: int) -> None:
    """So many chats, of which none fails."""
    told = [ask(url, key) for _ in range(count)]
    assert [one for one in told if one.error or ANSWER not in one.answer] == []


# Spans


@dataclasses.dataclass(frozen=True)
class Span:
    """As a backend keeps it."""

    id: str
    trace_id: str
    name: str
    attributes: dict[str, Any]
    status: str = ""
    seconds: float = 0.0

    @property
    def tokens(self) -> tuple[int, int]:
        return self.attributes["gen_ai.usage.input_tokens"], self.attributes["gen_ai.usage.output_tokens"]

    @property
    def outcome(self) -> str:
        return str(self.attributes["dify.outcome"])


class Spans:
    """Those that arrive at a backend from now on, of calls that the tests made: the runs' own questions have a user."""

    def __init__(self) -> None:
        self.known = {span.id for span in self.all()}

    def all(self) -> list[Span]:
        raise NotImplementedError

    def arrived(self, count: int, patience: float = PATIENCE) -> list[Span]:
        """As many as there were calls: all of them, and a moment later not one more."""
        until(lambda: len(self.new()) >= count, f"{count} spans", patience)
        time.sleep(2)
        found = self.new()
        assert len(found) == count, [span.name for span in found]
        return found

    def new(self) -> list[Span]:
        users = on_node(f"{sql()} -At -c \"select id from end_users where session_id <> '{USER}'\"").split()
        others = {hashlib.sha256(user.encode()).hexdigest()[:16] for user in users}
        found = [span for span in self.all() if span.id not in self.known]
        return [span for span in found if span.attributes.get("dify.user_hash") not in others]


class Phoenix(Spans):
    """As its own API gives them."""

    def all(self) -> list[Span]:
        try:
            found = get("http://127.0.0.1:6006/v1/projects/default/spans?limit=1000")["data"]
        except AssertionError:  # it is on its way up, and its project is made by the first span
            return []
        return [
            Span(
                one["context"]["span_id"],
                one["context"]["trace_id"],
                one["name"],
                one["attributes"],
                one["status_code"],
                moment(one["end_time"]) - moment(one["start_time"]),
            )
            for one in found
        ]


class Traceloop(Spans):
    """The world's, where a key is needed."""

    def all(self) -> list[Span]:
        found = get(f"http://upstream/otlp/received?node={NODE}")["spans"]
        return [Span(one["span_id"], one["trace_id"], one["name"], one["attributes"]) for one in found]


def moment(text: str) -> float:
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
