"""tools/ask, run as a person runs it, before a server that answers as Dify does."""

from __future__ import annotations

import email.utils
import json
import os
import pathlib
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from ansible_collections.llmops.stack.tests.unit.servers.phoenix import PROJECT_ID, TRACE, FakePhoenix, chat_span
from ansible_collections.llmops.stack.tests.unit.servers.scripted import Reply, Request, Scripted, as_json, events

ROOT = pathlib.Path(__file__).resolve().parents[2]
KEY = "app-0123456789abcdefghijklmn"
Ask = Callable[..., "subprocess.CompletedProcess[str]"]
Serve = Callable[[Reply], Scripted]


@pytest.fixture
def serve() -> Iterator[Serve]:
    with ExitStack() as stack:
        yield lambda reply: stack.enter_context(Scripted(lambda _request: reply).running())


@pytest.fixture
def ask(tmp_path: pathlib.Path) -> Ask:
    key_file = tmp_path / "key"
    key_file.write_text(f"{KEY}\n")

    def run(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(ROOT / "tools" / "ask"), "--url", url, "--key-file", str(key_file), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
        assert KEY not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


def usage(tokens: int) -> dict[str, object]:
    return {"usage": {"prompt_tokens": 11, "completion_tokens": tokens, "total_tokens": 11 + tokens}}


def blocking(answer: str, tokens: int = 4) -> Reply:
    return as_json({"event": "message", "mode": "chat", "answer": answer, "metadata": usage(tokens)})


def streaming(*pieces: str, tokens: int = 4, pause: float = 0.0) -> Reply:
    sent = [json.dumps({"event": "message", "answer": piece}) for piece in pieces]
    return events(*sent, json.dumps({"event": "message_end", "metadata": usage(tokens)}), pause=pause)


def error(message: str) -> str:
    return json.dumps({"event": "error", "code": "invalid_param", "status": 400, "message": message})


def test_a_stream_is_shown_with_its_numbers(ask: Ask, serve: Serve) -> None:
    server = serve(streaming("Hello", " there", "", pause=0.1))
    done = ask(server.url, "Who is it?")
    assert done.returncode == 0, done.stderr
    assert "Question (streaming): Who is it?\nAnswer: Hello there\n" in done.stdout
    assert "4 tokens in 0." in done.stdout
    assert ", first piece after 0.1" in done.stdout
    [asked] = server.requests
    assert asked.path == "/v1/chat-messages"
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    body = asked.json()
    assert (body["query"], body["response_mode"], body["auto_generate_name"]) == ("Who is it?", "streaming", False)


def test_a_whole_answer(ask: Ask, serve: Serve) -> None:
    done = ask(serve(blocking("Hello there")).url, "--mode", "blocking")
    assert "Answer: Hello there\n" in done.stdout
    assert "4 tokens in 0." in done.stdout
    assert "all at once" in done.stdout
    assert "tokens/s" in done.stdout


@pytest.mark.parametrize(
    "reply",
    [
        streaming("<th", "ink>\nA dog", "?</thi", "nk>\n\n", "A dog."),
        streaming("<details style='a: b' open> <summary> Thinking... </summary>\nA cat?", "</details>", "A dog."),
        streaming("<think>\n</think>\n\nA dog."),
        streaming("A ", "dog."),
    ],
)
def test_thoughts_are_not_shown(ask: Ask, serve: Serve, reply: Reply) -> None:
    assert "Answer: A dog.\n" in ask(serve(reply).url).stdout


def test_other_tags_are_text(ask: Ask, serve: Serve) -> None:
    assert "Answer: <thing> and <think>\n" in ask(serve(streaming("<thi", "ng> and <think>")).url).stdout


def test_a_model_that_thinks_too_long_has_answered(ask: Ask, serve: Serve) -> None:
    done = ask(serve(streaming("<think>\nIs it", " a dog?")).url)
    assert done.returncode == 0
    assert "Answer: (only thoughts: the app allows no more tokens)\n" in done.stdout


FAULTS = {
    "an error in the stream": (
        events(json.dumps({"event": "message", "answer": "Hel"}), error("[models] Error: 'done'")),
        "the model server failed during its answer",
    ),
    "an error before it": (as_json(json.loads(error("Failed to request plugin daemon")), 400), "Start plugin_daemon"),
    "one that nobody knows": (events(error("Something new.")), "Something new. Read the log of the container api."),
    "no text": (streaming("", "  "), "The answer has no text in it. "),
    "thoughts and no text": (streaming("<think>\nhm</think>\n"), "The answer has no text in it. "),
    "no token counted": (streaming("Hel", tokens=0), "The answer was cut"),
    "a stream without an end": (events(json.dumps({"event": "message", "answer": "Hel"})), "cut off before its end"),
    "a torn connection": (events(json.dumps({"event": "message", "answer": "Hel"}), ending="torn"), "No answer: "),
    "silence": (Reply(hang=True), "does not answer within 1 s. The model is slow or hangs"),
    "silence later": (
        events(json.dumps({"event": "message", "answer": "H"}), ending="silence"),
        "within 1 s. The model",
    ),
    "a key that is refused": (as_json({"code": "unauthorized", "status": 401}, 401), "refuses the app's key"),
    "another web server": (Reply(502, "<html>", "text/html"), "answers HTTP 502, but not as Dify's API does"),
    "no JSON": (Reply(200, "hello", "text/plain"), "something that is not JSON"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_one_sentence(ask: Ask, serve: Serve, name: str) -> None:
    reply, expected = FAULTS[name]
    done = ask(serve(reply).url, "--timeout", "1")
    assert done.returncode == 1
    assert done.stderr.strip().startswith("ask: ")
    assert expected in done.stderr
    assert "tokens/s" not in done.stdout


def test_nobody_there(ask: Ask) -> None:
    done = ask("http://127.0.0.1:9")
    assert done.returncode == 1
    assert "refuses connections. See that Dify's containers run." in done.stderr


# The span of the chat


@pytest.fixture
def phoenix() -> FakePhoenix:
    return FakePhoenix(key="px-key-1")


@pytest.fixture
def traced(serve: Serve, phoenix: FakePhoenix, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ask]:
    """Asks a Dify whose model calls leave spans, with a clock that is `ahead` of ours."""
    monkeypatch.setenv("PHOENIX_API_KEY", "px-key-1")
    with Scripted(phoenix).running() as backend, ExitStack() as stack:

        def run(*tokens: tuple[int, int], ahead: float = 0.0, **more: str) -> subprocess.CompletedProcess[str]:
            def answer(request: Request) -> Reply:
                now = time.time() + ahead
                phoenix.spans += [chat_span(now - 9, 1, (11, 4)), *(chat_span(now, 0.5, one) for one in tokens)]
                reply = blocking("Hello") if request.json()["response_mode"] == "blocking" else streaming("Hel", "lo")
                reply.headers["Date"] = email.utils.formatdate(now, usegmt=True)
                return reply

            server = stack.enter_context(Scripted(answer).running())
            options = {"spans": backend.url, "spans-wait": "0.1", **more}
            done = ask(server.url, *(f"--{name}={value}" for name, value in options.items()))
            assert "px-key-1" not in done.stdout + done.stderr
            return done

        yield run


@pytest.mark.parametrize("ahead", [0.0, 3600.0, -3600.0])
@pytest.mark.parametrize("mode", ["streaming", "blocking", "both"])
def test_the_span_of_the_chat(traced: Ask, mode: str, ahead: float) -> None:
    done = traced((7, 7), (11, 4), ahead=ahead, mode=mode)
    assert done.returncode == 0, done.stderr
    said = (
        "Span:   deepseek-r1:1.5b: 11 tokens in, 4 out, first token after 0.21 s, 0.50 s in all, ok\n"
        rf"        http://127\.0\.0\.1:\d+/projects/{PROJECT_ID}/traces/{TRACE}\n"
    )
    assert len(re.findall(said, done.stdout)) == (2 if mode == "both" else 1), done.stdout


def test_one_of_several_calls(traced: Ask) -> None:
    assert "\nSpan:   deepseek-r1:1.5b: 7 tokens in, 1 out, " in traced((7, 1)).stdout


def test_there_is_no_span(traced: Ask) -> None:
    done = traced()
    assert done.returncode == 1
    assert "Answer: Hello\n" in done.stdout
    assert "The answer came, and of its span http://127.0.0.1:" in done.stderr
    assert "shows none after 0.1 s (project default). playbooks/verify.yml says where spans are lost." in done.stderr
    assert "shows one without tokens after" in traced((0, 0)).stderr
    assert "(project other)" in traced((11, 4), **{"spans-project": "other"}).stderr


def test_a_backend_that_refuses(traced: Ask, phoenix: FakePhoenix) -> None:
    phoenix.key = "another"
    done = traced((11, 4))
    assert done.returncode == 1
    assert "refuses the key that it was given (HTTP 401). A Phoenix with logins wants" in done.stderr


def fake_docker(folder: pathlib.Path, port: str, key: str) -> dict[str, str]:
    script = folder / "docker"
    script.write_text(f"""#!/bin/sh
case "$*" in
  "port llmops-demo 80/tcp") {f"echo {port}" if port else "exit 1"} ;;
  "exec llmops-demo cat /opt/dify/.llmops-probe.key") {f"echo {key}" if key else "exit 1"} ;;
  *) exit 9 ;;
esac
""")
    script.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


@pytest.mark.parametrize(
    ("running", "key", "expected"),
    [
        (True, KEY, "Hello there"),
        (True, "", "The node demo has no app to ask"),
        (False, KEY, "The node demo does not run here. make demo starts it."),
    ],
)
def test_the_demo_is_found(serve: Serve, tmp_path: pathlib.Path, running: bool, key: str, expected: str) -> None:
    server = serve(streaming("Hello there"))
    place = server.url.removeprefix("http://") if running else ""
    done = subprocess.run(
        [str(ROOT / "tools" / "ask")],
        capture_output=True,
        text=True,
        check=False,
        env=fake_docker(tmp_path, place, key),
    )
    assert expected in done.stdout + done.stderr
    assert KEY not in done.stdout + done.stderr
