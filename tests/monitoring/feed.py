# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One process of Dify that makes model calls through the real runtime and plugin, in a time of its own.

    python feed.py ROOT <plan.json

The plan says when calls are made, how long each takes and what it ends with. Half an hour of them takes seconds, and
what arrives at the metrics' address is what half an hour would have brought. It needs the standard library alone, so
that an interpreter with OpenTelemetry in it can run it, too.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import os
import pathlib
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

REAL_SLEEP = time.sleep
for taken_before in ("requests", "queue", "selectors"):  # with the real clock, as what waits on it
    with contextlib.suppress(ImportError):
        __import__(taken_before)
_ = (socket, ssl)


class Clock:
    """What the plugin takes for the time. The thread that makes calls is ahead of the others while a call lasts."""

    def __init__(self) -> None:
        self.wall = 0.0
        self._ahead = threading.local()

    @property
    def ahead(self) -> float:
        return getattr(self._ahead, "seconds", 0.0)

    @ahead.setter
    def ahead(self, seconds: float) -> None:
        self._ahead.seconds = seconds

    def time(self) -> float:
        return self.wall + self.ahead

    def install(self, wall: float) -> None:
        self.wall = wall
        time.time = self.time
        time.monotonic = self.time
        time.time_ns = lambda: int(self.time() * 1e9)
        time.monotonic_ns = time.time_ns


CLOCK = Clock()
METRICS_SENT = [0]


def count_exports() -> None:
    """Every exporter, http.client's own and requests', comes through here."""
    connection = http.client.HTTPConnection
    put, get = connection.putrequest, connection.getresponse

    def putrequest(self: Any, method: str, url: str, *args: Any, **kwargs: Any) -> None:
        self.asked_for = url
        put(self, method, url, *args, **kwargs)

    def getresponse(self: Any) -> Any:
        answer = get(self)
        if self.asked_for.endswith("/v1/metrics"):
            METRICS_SENT[0] += 1
            if answer.status >= 300:
                sys.exit(f"the metrics were answered {answer.status}: {answer.read()[:300]!r}")
        return answer

    setattr(connection, "putrequest", putrequest)  # noqa: B010 - a plain assignment is no longer the class's own
    setattr(connection, "getresponse", getresponse)  # noqa: B010 - as above


def wait_for(condition: Any) -> None:
    for _round in range(2000):
        if condition():
            return
        REAL_SLEEP(0.005)
    sys.exit("the plugin did not send its metrics in time")


def play(player: Any, call: dict[str, Any]) -> Iterator[Any]:
    """What the model server does in one call."""
    if "error" in call:
        CLOCK.ahead = call["seconds"]
        raise type(call["error"], (ValueError,), {})("refused")
    if call.get("kind") == "embeddings":
        CLOCK.ahead = call["seconds"]
        yield player.Thing(usage=player.Thing(tokens=call["tokens"], total_tokens=call["tokens"]))
        return
    CLOCK.ahead = call["first"]
    yield player.chunk("The")
    CLOCK.ahead = call["seconds"]
    yield player.chunk("", player.usage(*call["tokens"]), "stop")


def make(client: Any, ask: dict[str, Any], call: dict[str, Any]) -> None:
    asked = {**ask, "model": call["model"], "app_id": call.get("app")}
    if call.get("kind") == "embeddings":
        del asked["app_id"]
        client.invoke_text_embedding(**asked, texts=["x"], input_type="document")
    else:
        stream = client.invoke_llm(**asked, prompt_messages=[])
        with contextlib.suppress(ValueError):
            next(stream)
            if not call.get("stopped"):
                list(stream)
        stream.close()
    CLOCK.ahead = 0.0


def main(root: pathlib.Path, plan: dict[str, Any]) -> None:
    spec = importlib.util.spec_from_file_location("fakes", pathlib.Path(__file__).parents[1] / "unit" / "monitoring.py")
    assert spec and spec.loader
    fakes = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fakes)
    fakes.write_dify(root, "1.16")
    os.environ.update(
        plan["environment"], LLMOPS_TRACELOOP_INTERVAL_MS="10", LLMOPS_TRACELOOP_METRICS_INTERVAL_MS="60000"
    )
    sys.path[:0] = [str(root), str(fakes.MONITORING)]
    CLOCK.install(plan["minutes"][0]["at"])
    count_exports()
    from llmops_monitoring import hook

    hook.install()
    import player
    from core.plugin.impl.model import PluginModelClient

    client = PluginModelClient()
    now: list[dict[str, Any]] = [{}]
    player.play = lambda: play(player, now[0])
    for minute in plan["minutes"]:
        CLOCK.wall = minute["at"]
        for call in minute["calls"]:
            now[0] = call
            for _time in range(call.get("times", 1)):
                make(client, fakes.ASK, call)
        REAL_SLEEP(plan.get("pause", 0.03))  # spans go out before the minute is over
        before = METRICS_SENT[0]
        CLOCK.wall = minute["at"] + 60
        wait_for(lambda before=before: METRICS_SENT[0] > before)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), json.loads(sys.stdin.readline()))
