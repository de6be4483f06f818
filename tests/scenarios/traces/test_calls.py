"""Every call of a model is one span, with the tokens that Dify tells its client."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import images
import pytest
import requests
from _build import Builder
from database import sql
from node import ANSWER, MACHINE, MODEL, QUESTION, ROOT, Phoenix, Span, Told, ask, get, on_node, until
from states import be
from workspace import Workspace, keep, put_back

EMBEDDER = "all-minilm:latest"
TITLE_TOKENS = 500  # what Dify allows a title


class Calls:
    """What clients were told, and the spans of it."""

    def __init__(self, told: dict[str, Told], spans: list[Span]) -> None:
        self.told, self.spans = told, spans

    def of(self, model: str, **attributes: object) -> Span:
        """The one span of this model that has these attributes."""
        wanted = {name.replace("__", "."): value for name, value in attributes.items()}
        (only,) = [
            span
            for span in self.spans
            if span.attributes["gen_ai.request.model"] == model
            and all(span.attributes.get(name) == value for name, value in wanted.items())
        ]
        return only


@pytest.fixture(scope="module")
def calls(url: str, key: str) -> Iterator[Calls]:
    be("phoenix")
    keep(MACHINE)
    try:
        workspace = Workspace(MACHINE)
        spans = Phoenix()
        told = {"streaming": ask(url, key), "blocking": ask(url, key, streaming=False, named=True)}
        for model, leave_after in (("mid", 0), ("pause", 1)):
            workspace.add_model(model)
            told[model] = ask(url, workspace.chat_key(model), leave_after=leave_after)
        told["embedding"] = embedded(workspace)
        yield Calls(told, spans.arrived(6, patience=60))
    finally:
        put_back(MACHINE)


def embedded(workspace: Workspace) -> Told:
    """A text of a dataset, which the worker embeds."""
    key = workspace.ask("POST", "datasets/api-keys")["token"]

    def api(method: str, path: str, **body: str) -> Any:
        headers = {"Authorization": f"Bearer {key}"}
        answer = requests.request(method, f"{workspace.url}/v1/datasets{path}", headers=headers, json=body, timeout=30)
        assert answer.ok, f"{path}: HTTP {answer.status_code} {answer.text[:500]}"
        return answer.json()

    dataset = api("POST", "", name="sweets", indexing_technique="high_quality")["id"]
    made = api("POST", f"/{dataset}/document/create-by-text", name="one", text=QUESTION)
    status = f"/{dataset}/documents/{made['batch']}/indexing-status"
    until(lambda: api("GET", status)["data"][0]["indexing_status"] == "completed", "the text is embedded")
    tokens = MACHINE.on(f"{sql()} -At -c \"select tokens from documents where id = '{made['document']['id']}'\"")
    return Told(usage={"prompt_tokens": int(tokens)})


def test_streaming(calls: Calls) -> None:
    span = calls.of(MODEL, gen_ai__request__stream=True)
    assert ANSWER in calls.told["streaming"].answer
    finished(span, calls.told["streaming"])
    assert 0 < span.attributes["gen_ai.response.time_to_first_chunk"] < span.seconds


def test_blocking(calls: Calls) -> None:
    (span,) = [one for one in calls.spans if one.attributes.get("gen_ai.request.stream") is False and not is_title(one)]
    assert ANSWER in calls.told["blocking"].answer
    finished(span, calls.told["blocking"])
    assert "gen_ai.response.time_to_first_chunk" not in span.attributes


def test_a_title(calls: Calls) -> None:
    """Dify asks for it by itself, beside the first answer of a conversation."""
    (span,) = filter(is_title, calls.spans)
    assert span.outcome == "ok"
    assert min(span.tokens) > 0


def is_title(span: Span) -> bool:
    return span.attributes.get("gen_ai.request.max_tokens") == TITLE_TOKENS


def finished(span: Span, told: Told) -> None:
    assert span.name == f"chat {MODEL}"
    assert span.tokens == told.tokens
    assert min(span.tokens) > 0
    assert span.outcome == "ok"
    assert span.attributes["gen_ai.provider.name"] == "ollama"
    assert span.attributes["server.address"] == "host.docker.internal"


def test_a_stream_that_fails(calls: Calls) -> None:
    """Its text came, and then an error: for the client, and in the span."""
    told, span = calls.told["mid"], calls.of("mid")
    assert told.error
    assert span.outcome == "error"
    assert span.status == "ERROR"
    assert span.attributes["error.type"]
    assert "unexpected EOF" not in str(span), "messages of errors quote prompts"


def test_a_client_that_goes_away(calls: Calls) -> None:
    """This release of Dify lets the model go on to its end; the span tells of all of it."""
    told, span = calls.told["pause"], calls.of("pause")
    assert told.answer
    assert not told.usage
    assert span.outcome in ("ok", "cancelled")


def test_an_embedding_in_the_worker(calls: Calls) -> None:
    span = calls.of(EMBEDDER)
    assert span.name == f"embeddings {EMBEDDER}"
    assert span.outcome == "ok"
    assert span.attributes["gen_ai.usage.input_tokens"] == calls.told["embedding"].usage["prompt_tokens"] > 0


def test_each_call_reaches_the_daemon_as_part_of_its_trace(calls: Calls) -> None:
    log = on_node("docker logs dify-plugin_daemon-1 2>&1")
    assert [span.name for span in calls.spans if f"trace_id={span.trace_id}" not in log] == []


def test_nobody_repeats_what_was_asked(calls: Calls, key: str) -> None:
    """Neither Phoenix nor any log: no question, no answer, no key."""
    assert "marzipan" not in str(calls.spans)
    assert ANSWER not in str(calls.spans)
    logs = on_node("for one in api worker otel_collector phoenix; do docker logs dify-$one-1 2>&1; done")
    assert len(logs) > 1000
    assert [word for word in ("marzipan", ANSWER, key) if word in logs] == []


def test_the_page_of_a_trace(calls: Calls) -> None:
    """As a browser on the node shows it: the model, and what it counted."""
    project = get("http://127.0.0.1:6006/v1/projects/default")["data"]["id"]
    span = calls.of(MODEL, gen_ai__request__stream=True)
    command = [
        *(sys.executable, "tests/monitoring/screenshot.py"),
        *(f"http://127.0.0.1:6006/projects/{project}/traces/{span.trace_id}", "build/screenshots/trace.png"),
        *(
            "--image",
            Builder([images.CHROMIUM]).ensure(images.CHROMIUM.name),
            "--network",
            f"container:{MACHINE.container}",
        ),
        *("--word", MODEL, "--word", "gen_ai"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
