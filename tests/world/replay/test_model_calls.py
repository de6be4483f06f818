# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The monitoring runtime in the stand-in's api and worker, found through PYTHONPATH alone: each model call is one span.

How a call ends in each release is what the recordings of its client show.
"""

from __future__ import annotations

import ast
import http.client
import http.server
import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import console_pair
import pytest
from console_pair import PAIRED, Pair
from instance_api import CHAT, STANDIN_ROOT
from standin import fake_ollama, versions
from standin.api import tree

MONITORING = Path(__file__).resolve().parents[3] / "roles" / "traceloop" / "files" / "monitoring"
RELEASES = ("0.15.3", "1.0.0", "1.7.2", "1.12.1", "1.16.0")
NEVER = "600000"  # milliseconds between two deliveries: only the end of a process brings its spans
SETTLE = 0.5  # as long as five rounds of the exporter: what has not come by then does not come
LONG = ("word ",) * 200  # four seconds of answer


class Receiver:
    """An OTLP/HTTP endpoint for JSON that keeps the spans."""

    def __init__(self) -> None:
        self.spans: list[dict[str, Any]] = []
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                for resource in body.get("resourceSpans", []):
                    of = _attributes(resource["resource"]["attributes"])
                    for scope in resource["scopeSpans"]:
                        receiver.spans += [{**span, "of": of} for span in scope["spans"]]
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def take(self, count: int, seconds: float = 15) -> list[dict[str, Any]]:
        """That many spans and no more, oldest first."""
        deadline = time.monotonic() + seconds
        while len(self.spans) < count and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(SETTLE)
        found, self.spans = self.spans, []
        assert len(found) == count, found
        for span in found:
            span["attributes"] = _attributes(span["attributes"])
        return sorted(found, key=lambda span: int(span["startTimeUnixNano"]))


def _attributes(given: list[dict[str, Any]]) -> dict[str, Any]:
    return {one["key"]: _value(one["value"]) for one in given}


def _value(given: dict[str, Any]) -> Any:
    ((kind, value),) = given.items()
    if kind == "arrayValue":
        return [_value(one) for one in value["values"]]
    return int(value) if kind == "intValue" else value


class Desk:
    """A release with its model, apps for that model's kinds of trouble, and what watches its calls."""

    def __init__(self, pair: Pair, receiver: Receiver) -> None:
        self.pair, self.receiver, self.release = pair, receiver, pair.release
        self.keys: dict[str, str] = {}
        self.console = pair.set_up()
        if pair.daemon:
            pair.install(self.console)

    def key(self, model: str) -> str:
        if model not in self.keys:
            self.console.models.save("ollama", model, "llm", self.pair.credentials)
            chosen = {"provider": self.console.models.provider_id("ollama"), "name": model, "mode": "chat"}
            dsl: dict[str, Any] = {
                "kind": "app",
                "version": "0.3.1" if self.pair.daemon else "0.1.5",
                "dependencies": [],
                "app": {"name": model, "mode": "chat", "icon_type": "emoji", "icon": "x", "icon_background": "#FFEAD5"},
                "model_config": {"model": {**chosen, "completion_params": {"temperature": 0.5}}},
            }
            app = self.console.apps.import_dsl(json.dumps(dsl), model)["app_id"]
            self.keys[model] = str(self.console.apps.create_key(app)["token"])
        return self.keys[model]

    def chat(self, mode: str, model: str = "llama3.2", **more: Any) -> Any:
        body = {**CHAT, "query": "hi", "response_mode": mode, **more}
        headers = {"Authorization": f"Bearer {self.key(model)}"}
        return self.pair.instance.send("POST", "/v1/chat-messages", body=body, headers=headers)

    def open(self, model: str) -> tuple[http.client.HTTPConnection, Iterator[dict[str, Any]]]:
        """A stream that is read event by event."""
        connection = http.client.HTTPConnection("127.0.0.1", self.pair.instance.port, timeout=20)
        headers = {"Authorization": f"Bearer {self.key(model)}", "Content-Type": "application/json"}
        body = json.dumps({**CHAT, "query": "hi", "response_mode": "streaming"})
        connection.request("POST", "/v1/chat-messages", body, headers)
        reply = connection.getresponse()
        return connection, (json.loads(line[5:]) for line in iter(reply.readline, b"") if line.startswith(b"data:"))

    def restart(self, **environment: str) -> None:
        self.pair.instance.start(**environment)


@pytest.fixture(scope="module", params=RELEASES)
def desk(
    request: pytest.FixtureRequest, postgres: Any, redis_server: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Desk]:
    receiver = Receiver()
    watched = {
        "PYTHONPATH": f"{MONITORING}{os.pathsep}{STANDIN_ROOT}",
        "TRACELOOP_BASE_URL": receiver.url,
        "TRACELOOP_METRICS_ENABLED": "false",
        "LLMOPS_TRACELOOP_EXPORTER": "stdlib",  # whatever this machine's Python has
        "LLMOPS_TRACELOOP_INTERVAL_MS": "100",
    }
    directory: Path = tmp_path_factory.mktemp(f"calls-{request.param}")
    with console_pair.running(request.param, postgres, redis_server, directory, 59, **watched) as pair:
        made = Desk(pair, receiver)
        made.key("llama3.2")
        receiver.take(0)  # to validate a model is no call of it
        yield made
    receiver.close()


def until(condition: Callable[[], bool], seconds: float = 15) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def on(*releases: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("desk", releases, indirect=True)


def of_chat(span: dict[str, Any], desk: Desk, stream: bool) -> dict[str, Any]:
    """Attributes of a span that is the chat of "hi" and its whole answer."""
    found: dict[str, Any] = span["attributes"]
    assert span["name"] == "chat llama3.2"
    assert span["of"]["service.name"] == "dify-api"
    assert found["gen_ai.provider.name"] == "ollama"
    assert (found["gen_ai.usage.input_tokens"], found["gen_ai.usage.output_tokens"]) == (11, 3)
    assert found["gen_ai.request.stream"] is stream
    assert found["dify.outcome"] == "ok"
    assert (found["server.address"], found["server.port"]) == ("127.0.0.1", int(desk.pair.model_url.rpartition(":")[2]))
    return found


def test_a_blocking_chat_is_one_span(desk: Desk) -> None:
    reply = desk.chat("blocking")
    assert (reply.status, reply.json["answer"]) == (200, "Hello from fake")
    (span,) = desk.receiver.take(1)
    found = of_chat(span, desk, stream=False)
    assert found["gen_ai.request.temperature"] == 0.5
    assert ("dify.app_id" in found) == (desk.release == "1.16.0")
    assert ("dify.tenant_id" in found) == (desk.pair.daemon is not None)


def test_a_streamed_chat_is_one_span(desk: Desk) -> None:
    body = desk.chat("streaming").body.decode()
    assert '"message_end"' in body
    (span,) = desk.receiver.take(1)
    found = of_chat(span, desk, stream=True)
    assert found["gen_ai.response.finish_reasons"] == ["stop"]
    assert 0 < found["gen_ai.response.time_to_first_chunk"] < 10


@pytest.mark.parametrize("mode", ["blocking", "streaming"])
def test_a_refused_chat_is_one_failed_span(desk: Desk, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fake_ollama.REFUSED, "llama3.2", (404, "model 'llama3.2' not found"))
    desk.chat(mode)
    (span,) = desk.receiver.take(1)
    found = span["attributes"]
    assert span["status"]["code"] == 2
    assert found["dify.outcome"] == "error"
    assert found["error.type"] == ("PluginInvokeError" if desk.pair.daemon else "InvokeError")
    assert found.get("dify.error.cause") == ("InvokeError" if desk.pair.daemon else None)
    assert "not found" not in json.dumps(span)


def test_a_model_server_that_is_gone_has_its_own_error(desk: Desk) -> None:
    desk.key("llama3.2")
    credentials = {**desk.pair.credentials, "base_url": "http://127.0.0.1:1"}
    table = "provider_model_credentials" if versions.has("credential_routes", desk.release) else "provider_models"
    change = f"UPDATE {table} SET encrypted_config = replace(encrypted_config, %s, %s)"
    pair = desk.pair
    pair.instance.postgres.query(change, pair.model_url, credentials["base_url"], database=pair.instance.database)
    try:
        assert desk.chat("blocking").status == 400
    finally:
        pair.instance.postgres.query(change, credentials["base_url"], pair.model_url, database=pair.instance.database)
    (span,) = desk.receiver.take(1)
    assert span["attributes"]["error.type"] == "InvokeServerUnavailableError"
    assert (span["attributes"]["server.address"], span["attributes"]["server.port"]) == ("127.0.0.1", 1)


def test_a_client_that_leaves_early_ends_the_call_in_the_newest_only(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = desk.release == "1.16.0"
    if newest:
        monkeypatch.setattr(fake_ollama, "WORDS", LONG)
    connection, events = desk.open("llama3.2")
    assert next(events)["event"] == "message"
    connection.close()
    (span,) = desk.receiver.take(1)
    if newest:
        assert span["attributes"]["dify.outcome"] == "cancelled"
        assert "gen_ai.usage.output_tokens" not in span["attributes"]
    else:
        of_chat(span, desk, stream=True)


@on("1.12.1", "1.16.0")
def test_a_stopped_answer_ends_its_call(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake_ollama, "WORDS", LONG)
    connection, events = desk.open("llama3.2")
    first = next(events)
    headers = {"Authorization": f"Bearer {desk.key('llama3.2')}"}
    path = f"/v1/chat-messages/{first['task_id']}/stop"
    assert desk.pair.instance.send("POST", path, body={"user": CHAT["user"]}, headers=headers).status == 200
    assert list(events)[-1]["event"] == "message_end"
    connection.close()
    (span,) = desk.receiver.take(1)
    assert span["attributes"]["dify.outcome"] == "cancelled"


def test_a_new_conversation_is_named_by_a_call_of_its_own(desk: Desk) -> None:
    user = uuid.uuid4().hex
    reply = desk.chat("blocking", user=user, auto_generate_name=True)
    chat, title = desk.receiver.take(2)
    if title["attributes"].get("gen_ai.request.temperature") == 0.5:
        chat, title = title, chat  # before 1.8 both begin at once
    of_chat(chat, desk, stream=False)
    assert of_chat(title, desk, stream=False)["gen_ai.request.temperature"] == 1
    assert "dify.app_id" not in title["attributes"]
    assert chat["traceId"] != title["traceId"]
    headers = {"Authorization": f"Bearer {desk.key('llama3.2')}"}
    path = f"/v1/conversations?user={user}"

    def name() -> str:
        return str(desk.pair.instance.send("GET", path, headers=headers).json["data"][0]["name"])

    assert until(lambda: name() == "hi")  # the model's answer was no title: the question is
    again = desk.chat("blocking", user=user, conversation_id=reply.json["conversation_id"], auto_generate_name=True)
    assert again.status == 200
    desk.receiver.take(1)


def test_a_title_that_cannot_be_had_is_nobodys_error(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def talk(handler: Any, model: str, stream: bool) -> None:
        if stream:
            return original(handler, model, stream)
        return handler._reply(500, {"error": "no title today"})

    original = fake_ollama.Handler._talk
    monkeypatch.setattr(fake_ollama.Handler, "_talk", talk)
    body = desk.chat("streaming", user=uuid.uuid4().hex, auto_generate_name=True).body.decode()
    assert '"message_end"' in body
    assert '"error"' not in body
    spans = desk.receiver.take(2)
    assert sorted(span["attributes"]["dify.outcome"] for span in spans) == ["error", "ok"]


def test_the_worker_embeds_a_text_in_spans_of_its_own(desk: Desk) -> None:
    instance, console = desk.pair.instance, desk.console
    address = {"base_url": desk.pair.model_url, "context_size": "4096"}
    credentials = address if desk.pair.daemon else desk.pair.credentials
    console.models.save("ollama", "emb", "text-embedding", credentials)
    key = console.request("POST", "datasets/api-keys", json={})["token"]
    headers = {"Authorization": f"Bearer {key}"}
    made = instance.send("POST", "/v1/datasets", body={"name": f"notes {uuid.uuid4().hex}"}, headers=headers).json
    text = {"name": "note", "text": "one two\n\nthree four five", "indexing_technique": "high_quality"}
    path = f"/v1/datasets/{made['id']}/document/create_by_text"
    document = instance.send("POST", path, body=text, headers=headers).json
    status = f"/v1/datasets/{made['id']}/documents/{document['batch']}/indexing-status"

    def state() -> dict[str, Any]:
        return dict(instance.send("GET", status, headers=headers).json["data"][0])

    assert state()["indexing_status"] == "waiting"
    desk.receiver.take(0)
    # So long between two deliveries that only the process's end can bring these spans.
    worker = instance.spawn(
        "celery_cli", "worker", log="worker.log", MODE="worker", LLMOPS_TRACELOOP_INTERVAL_MS="600000"
    )
    try:
        assert until(lambda: state()["indexing_status"] in ("completed", "error")), state()
        assert (state()["indexing_status"], state()["completed_segments"]) == ("completed", 2), state()
        worker.terminate()
        assert worker.wait(timeout=10) == 0
    finally:
        worker.kill()
        worker.wait()
    spans = desk.receiver.take(2)
    for span, tokens in zip(spans, (2, 3)):
        assert span["name"] == "embeddings emb"
        assert span["of"]["service.name"] == "dify-worker"
        assert span["attributes"]["gen_ai.usage.input_tokens"] == tokens
        assert span["attributes"]["gen_ai.provider.name"] == "ollama"


@on("1.12.1", "1.16.0")
def test_the_daemon_sees_the_trace_of_the_span(desk: Desk) -> None:
    desk.chat("streaming")
    (span,) = desk.receiver.take(1)
    assert desk.pair.daemon is not None
    line = f"trace_id={span['traceId']} span_id={span['spanId']}"
    lines = [one for one in desk.pair.daemon.log.read_text(encoding="utf-8").splitlines() if line in one]
    assert len(lines) == 1
    assert "/dispatch/llm/invoke" in lines[0]


def test_a_stopping_api_sends_what_it_holds(desk: Desk) -> None:
    desk.restart(LLMOPS_TRACELOOP_INTERVAL_MS=NEVER)
    try:
        desk.chat("blocking")
        desk.receiver.take(0)
    finally:
        desk.restart()
    (span,) = desk.receiver.take(1)
    of_chat(span, desk, stream=False)


@pytest.mark.parametrize("release", versions.HEADS)
def test_the_modules_of_a_release_are_where_that_release_has_them(release: str, tmp_path: Path) -> None:
    tree.write(tmp_path, release)
    plugins = release != "0.15.3"
    client, name = ("manager", "PluginModelManager") if release == "1.0.0" else ("impl", "PluginModelClient")
    place = tmp_path / "core" / "plugin" / client / "model.py"
    assert place.is_file() == plugins
    bases = tmp_path / "core" / "model_runtime" / "model_providers" / "__base" / "large_language_model.py"
    assert bases.is_file() == (versions.key(release) < (1, 13, 0))
    for path in tmp_path.rglob("*.py"):
        ast.parse(path.read_text(encoding="utf-8"), str(path))
    if not plugins:
        return
    classes = [node for node in ast.parse(place.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef)]
    assert [node.name for node in classes] == [name]
    call = next(node for node in classes[0].body if isinstance(node, ast.FunctionDef) and node.name == "invoke_llm")
    assert ("app_id" in [argument.arg for argument in call.args.args]) == (release == "1.16.0")


def test_every_release_here_is_paired() -> None:
    assert set(RELEASES) == set(PAIRED)
