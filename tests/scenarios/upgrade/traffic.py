"""People and programs that use a Dify all the time, and what they notice of a change.

A prober asks ten times a second, whatever has become of the questions before; each stream is a chat that is read to its
end, and the next one begins at once.
"""

from __future__ import annotations

import collections
import concurrent.futures
import json
import threading
import time
from typing import Any, NamedTuple

import requests

RATE = 10  # questions of the prober in a second
PATHS = ("/apps", "/console/api/setup")  # a page and the API, in turn
PATIENCE = 60.0


class Answer(NamedTuple):
    moment: float
    seconds: float
    what: str
    trouble: str  # empty for a good one


class Traffic:
    """Traffic for as long as the `with` lasts."""

    def __init__(self, url: str, app_key: str = "", streams: int = 2) -> None:
        self.url = url
        self.app_key = app_key
        self.streams = streams if app_key else 0
        self.answers: list[Answer] = []
        self.unavailable: requests.Response | None = None  # the last 503 of a page
        self.over = threading.Event()
        self.pool = concurrent.futures.ThreadPoolExecutor(max_workers=RATE * 8 + self.streams)
        self.threads: list[threading.Thread] = []

    def __enter__(self) -> Traffic:
        readers = [threading.Thread(target=self._chat, args=(number,), daemon=True) for number in range(self.streams)]
        self.threads = [threading.Thread(target=self._probe, daemon=True), *readers]
        for thread in self.threads:
            thread.start()
        time.sleep(2)
        return self

    def __exit__(self, *unused: object) -> None:
        time.sleep(2)
        self.over.set()
        for thread in self.threads:
            thread.join(PATIENCE)
        self.pool.shutdown(wait=True)

    # -- what was noticed

    @property
    def failed(self) -> list[Answer]:
        return [one for one in self.answers if one.trouble]

    @property
    def outage(self) -> float:
        """Seconds in which the prober's questions failed."""
        return len([one for one in self.failed if one.what in PATHS]) / RATE

    @property
    def longest(self) -> float:
        """The longest wait for a good answer of the prober."""
        return max((one.seconds for one in self.answers if one.what in PATHS and not one.trouble), default=0.0)

    @property
    def cut(self) -> list[Answer]:
        """Chats that failed, or did not come to their end."""
        return [one for one in self.failed if one.what == "chat"]

    def told(self) -> str:
        counted = collections.Counter(f"{one.what}: {one.trouble}" for one in self.failed)
        chats = len([one for one in self.answers if one.what == "chat"])
        return (
            f"{len(self.answers) - chats} questions and {chats} chats; {self.outage:.1f} s of failed questions, "
            f"{len(self.cut)} chats cut, longest wait {self.longest:.1f} s. {dict(counted) or ''}"
        ).strip()

    # -- who asks

    def _probe(self) -> None:
        begun, number = time.monotonic(), 0
        while not self.over.is_set():
            self.pool.submit(self._ask, PATHS[number % len(PATHS)])
            number += 1
            self.over.wait(max(0.0, begun + number / RATE - time.monotonic()))

    def _ask(self, path: str) -> None:
        begun, trouble = time.monotonic(), ""
        try:
            answer = requests.get(self.url + path, timeout=PATIENCE, allow_redirects=False)
            trouble = "" if answer.status_code < 400 else f"HTTP {answer.status_code}"
            if answer.status_code == 503:
                self.unavailable = answer
        except requests.RequestException as problem:
            trouble = type(problem).__name__
        self.answers.append(Answer(begun, time.monotonic() - begun, path, trouble))

    def _chat(self, number: int) -> None:
        body = {"inputs": {}, "query": "Hello", "user": f"reader-{number}", "response_mode": "streaming"}
        while not self.over.is_set():
            begun = time.monotonic()
            trouble = self._read(body)
            self.answers.append(Answer(begun, time.monotonic() - begun, "chat", trouble))
            if trouble:
                self.over.wait(0.5)

    def _read(self, body: dict[str, Any]) -> str:
        headers = {"Authorization": f"Bearer {self.app_key}"}
        last = "the stream ended early"
        try:
            with requests.post(
                f"{self.url}/v1/chat-messages", json=body, headers=headers, stream=True, timeout=PATIENCE
            ) as answer:
                if answer.status_code != 200:
                    return f"HTTP {answer.status_code} {answer.text[:80]}"
                for line in answer.iter_lines():
                    event = json.loads(line[5:]) if line.startswith(b"data:") else {}
                    if event.get("event") == "error":
                        last = str(event.get("message"))[:120]
                    elif event.get("event") == "message_end":
                        last = ""
        except requests.RequestException as problem:
            return type(problem).__name__
        return last
