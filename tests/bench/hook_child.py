"""The processes of hook.py: what is measured, and the collectors that it talks to. Prints JSON.

`slice`: the longest the exporter's thread computed without letting others run, in CPU microseconds.
"""

from __future__ import annotations

import sys

if "gevent" in sys.argv:
    from gevent import monkey

    monkey.patch_all()

import contextlib
import http.server
import json
import os
import pathlib
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

MONITORING = pathlib.Path(__file__).resolve().parents[2] / "roles" / "traceloop" / "files" / "monitoring"
sys.path.insert(0, str(MONITORING))

LENGTH = 500  # chunks of a long answer
ROUNDS = 9
PAIRS = 100
SHORT = 20  # chunks of a call whose added time is measured
SLOW = 30.0
NOOP = {hook: lambda _event: None for hook in ("before_invoke", "on_first_chunk", "after_invoke", "on_error")}


def answer(length: int) -> list[Any]:
    def chunk(text: str, usage: Any = None, reason: str | None = None) -> Any:
        delta = SimpleNamespace(message=SimpleNamespace(content=text), usage=usage, finish_reason=reason)
        return SimpleNamespace(model="m", delta=delta)

    usage = SimpleNamespace(prompt_tokens=7, completion_tokens=length, total_tokens=7 + length)
    return [*[chunk("word ") for _ in range(length - 1)], chunk("", usage, "stop")]


ASK: dict[str, Any] = {
    "tenant_id": "t-1",
    "user_id": "u-1",
    "plugin_id": "langgenius/ollama",
    "provider": "langgenius/ollama/ollama",
    "model": "deepseek-r1:1.5b",
    "credentials": {"base_url": "http://ollama.example.com:11434"},
    "prompt_messages": [SimpleNamespace(role="user", content="Why is the sky blue?")],
    "model_parameters": {"temperature": 0.7, "num_predict": 512},
    "app_id": "a-1",
}


class Client:
    """The shape of Dify's client of the plugin daemon. Between two chunks others may run, as in a read of a socket."""

    def __init__(self, length: int, pause: Callable[[], Any] | None = None) -> None:
        self.answer, self.pause = answer(length), pause

    def invoke_llm(
        self,
        tenant_id: str,
        user_id: str,
        plugin_id: str,
        provider: str,
        model: str,
        credentials: Any,
        prompt_messages: Any,
        model_parameters: Any = None,
        tools: Any = None,
        stop: Any = None,
        stream: bool = True,
        app_id: str | None = None,
    ) -> Iterator[Any]:
        for chunk in self.answer:
            if self.pause:
                self.pause()
            yield chunk


def _waited() -> int:
    """Nanoseconds that this thread could have run in, and the machine ran something else."""
    try:
        with open("/proc/thread-self/schedstat", "rb") as file:
            return int(file.read().split()[1])
    except (OSError, IndexError):
        return 0


def drain(stream: Iterator[Any]) -> float:
    """Microseconds that reading it takes, without what other programs took of them."""
    waited, began = _waited(), time.perf_counter_ns()
    for _chunk in stream:
        pass
    return (time.perf_counter_ns() - began - _waited() + waited) / 1e3


def in_turns(kinds: dict[str, Callable[[], float]], base: str) -> dict[str, float]:
    """Median of what each costs more than the base that ran right before it."""
    found: dict[str, list[float]] = {name: [] for name in kinds}
    for _round in range(ROUNDS * 3):
        for name, measure in kinds.items():
            plain = kinds[base]()
            found[name].append(plain if name == base else measure() - plain)
    return {name: statistics.median(values) for name, values in found.items()}


def watched(length: int, pause: Callable[[], Any] | None = None) -> tuple[Callable[[], Any], Callable[[], Any], Any]:
    """A call that nobody watches, the same one watched, and the function that sets which plugins watch."""
    from llmops_monitoring import plugins, wrap
    from llmops_monitoring.manifest import Plugin

    plugin = Plugin(MONITORING / "plugins" / "traceloop").load()
    plugin.run()
    noop = SimpleNamespace(name="noop", hooks=NOOP)
    known = {"traceloop": plugins.Dispatcher([plugin]), "noop": plugins.Dispatcher([noop])}
    plugins._state.started = True

    def choose(name: str) -> None:
        plugins._state.dispatcher = known[name]

    choose("traceloop")
    client, seen = Client(length, pause), wrap.wrap(Client.invoke_llm, "chat")
    return lambda: client.invoke_llm(**ASK), lambda: seen(client, **ASK), choose


def chunks() -> dict[str, Any]:
    plain, seen, choose = watched(LENGTH)
    settings = sys.modules["llmops_monitoring_plugin_traceloop"]._settings

    def run(name: str, content: bool = False) -> Callable[[], float]:
        def measure() -> float:
            choose(name)
            settings.content = content
            return drain(seen())

        return measure

    kinds = {
        "unwatched": lambda: drain(plain()),
        "a plugin that does nothing": run("noop"),
        "traceloop": run("traceloop"),
        "traceloop with content": run("traceloop", content=True),
    }
    found = {name: value / LENGTH for name, value in in_turns(kinds, "unwatched").items()}
    return {"chunks": LENGTH, "unwatched": found.pop("unwatched"), "added": found}


def openllmetry() -> dict[str, Any]:
    """Their wrapper around a client whose request is a list of the same length."""
    import ollama
    from opentelemetry.instrumentation.ollama import OllamaInstrumentor
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    class Nowhere(SpanExporter):
        def export(self, _spans: Any) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    message = ollama.Message(role="assistant", content="word ")
    words = [ollama.ChatResponse(model="m", message=message) for _ in range(LENGTH - 1)]
    last = ollama.ChatResponse(model="m", message=message, done=True, prompt_eval_count=7, eval_count=LENGTH)
    kind = ollama.Client
    kind._request = lambda _self, *_args, **_options: iter([*words, last])
    client = kind()
    ask = {"json": {"model": "m", "messages": [{"role": "user", "content": "Why?"}], "stream": True}, "stream": True}
    plain = kind._request
    tracers = TracerProvider()
    tracers.add_span_processor(BatchSpanProcessor(Nowhere()))
    OllamaInstrumentor().instrument(
        tracer_provider=tracers, meter_provider=MeterProvider([InMemoryMetricReader()]), skip_dep_check=True
    )

    def run(content: str) -> Callable[[], float]:
        def measure() -> float:
            os.environ["TRACELOOP_TRACE_CONTENT"] = content
            return drain(client._request(ollama.ChatResponse, "POST", "/api/chat", **ask))

        return measure

    kinds = {"base": lambda: drain(plain(client)), "no content": run("false"), "with content": run("true")}
    found = in_turns(kinds, "base")
    return {"added": {name: value / LENGTH for name, value in found.items() if name != "base"}}


def calls() -> dict[str, Any]:
    plain, seen, _choose = watched(SHORT, lambda: time.sleep(0))
    session = sys.modules["llmops_monitoring_plugin_traceloop"]._session
    slices = _measure_slices(session)
    drain(seen())
    medians, p99s = paired(plain, seen)
    pipeline = session.pipeline
    return {"medians": medians, "p99s": p99s, "dropped": pipeline.dropped, "slice": max(slices, default=0.0)}


def paired(plain: Callable[[], Any], seen: Callable[[], Any]) -> tuple[list[float], list[float]]:
    """Median and 99th percentile, by round, of what the watched call took more than the one beside it."""
    medians, p99s = [], []
    for _round in range(ROUNDS):
        added: list[float] = []
        for pair in range(PAIRS):
            took = {}
            for call in (plain, seen) if pair % 2 else (seen, plain):
                took[call] = drain(call())
                time.sleep(0.0005)
            added.append(took[seen] - took[plain])
        medians.append(statistics.median(added))
        p99s.append(_p99(added))
    return medians, p99s


def _p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99) - 1]


def _measure_slices(session: Any) -> list[float]:
    """CPU time of each piece of work that the exporter's thread does in one go."""
    found: list[float] = []

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def measure(*arguments: Any, **options: Any) -> Any:
            began = time.thread_time()
            result = function(*arguments, **options)
            found.append((time.thread_time() - began) * 1e6)
            return result

        return measure

    session.backend.join = timed(session.backend.join)
    session.backend.metric = timed(session.backend.metric)
    session.pipeline._next_batch = timed(session.pipeline._next_batch)
    session.pipeline._put_back = timed(session.pipeline._put_back)
    return found


def collectors() -> dict[str, Any]:
    def serve(status: int, delay: float) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                time.sleep(delay)
                with contextlib.suppress(OSError):
                    self.send_response(status)
                    self.send_header("Content-Length", "0")
                    self.end_headers()

            def log_message(self, *_arguments: Any) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    return {
        "live": serve(200, 0),
        "dead": "http://127.0.0.1:1",
        "slow": serve(200, SLOW),
        "500": serve(500, 0),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(globals()[sys.argv[1]]()) + "\n")
    sys.stdout.flush()
    if sys.argv[1] == "collectors":
        sys.stdin.read()
    os._exit(0)  # what still waits for a slow collector is not part of this
