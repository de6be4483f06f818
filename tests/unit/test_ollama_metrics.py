# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ollama's own figures: lines that real servers wrote, answers of a server, and what Prometheus is given of them."""

from __future__ import annotations

import http.server
import importlib.util
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

PROGRAM = pathlib.Path(__file__).resolve().parents[2] / "roles/ollama/files/ollama-metrics.py"
# Ollama 0.17.4 with OLLAMA_MAX_QUEUE=2: one load, answers, a model that is not there, a full queue, and questions of
# others about the server.
LINES = """
time=2026-11-26T01:32:12.465Z level=INFO source=server.go:1350 msg="waiting for llama runner to start responding"
time=2026-11-26T01:32:12.716Z level=INFO source=server.go:1388 msg="llama runner started in 0.34 seconds"
time=2026-11-26T01:32:12.716Z level=INFO source=sched.go:566 msg="loaded runners" count=1
time=2026-11-26T01:32:12.716Z level=INFO source=server.go:1388 msg="llama runner started in 0.34 seconds"
[GIN] 2026/11/26 - 01:32:13 | 200 |  936.884429ms |       127.0.0.1 | POST     "/api/chat"
[GIN] 2026/11/26 - 01:32:13 | 200 |     126.227µs |       127.0.0.1 | GET      "/api/ps"
[GIN] 2026/11/26 - 01:32:13 | 404 |     317.521µs |       127.0.0.1 | POST     "/api/chat"
[GIN] 2026/11/26 - 01:32:15 | 200 |  2.455746921s |      172.18.0.1 | POST     "/api/generate"
[GIN] 2026/11/26 - 01:32:18 | 200 |    4.9145901s |       127.0.0.1 | POST     "/api/generate"
[GIN] 2026/11/26 - 01:32:38 | 503 |   11.811728ms |       127.0.0.1 | POST     "/api/generate"
[GIN] 2026/11/26 - 01:32:38 | 503 |   62.381098ms |       127.0.0.1 | POST     "/api/generate"
[GIN] 2026/11/26 - 01:32:39 | 200 |        1m23s |       127.0.0.1 | POST     "/api/generate"
[GIN] 2026/11/26 - 01:32:39 | 404 |      12.227µs |       127.0.0.1 | GET      "/wp-login.php"
""".strip().splitlines()
# llama-server, which Ollama starts since 0.30, prints its timings.
LLAMA_SERVER = [
    'time=2026-11-20T10:00:31.004Z level=INFO source=llama_server.go:1362 msg="llama-server started in 28.05 seconds"',
    "slot print_timing: id  0 | task 12 | prompt eval time =    1250.50 ms /"
    "    50 tokens (   25.01 ms per token,    39.98 tokens per second)",
    "slot print_timing: id  0 | task 12 |        eval time =   14500.25 ms /"
    "   400 tokens (   36.25 ms per token,    27.59 tokens per second)",
    "slot print_timing: id  0 | task 12 |       total time =   15750.75 ms /   450 tokens",
    "slot print_timing: id  0 | task 13 | n_gen =    100, tg =  28.40 t/s, tg_3s =  28.60 t/s",
]
MODEL = {
    "name": "deepseek-r1:1.5b",
    "size": 11014656,
    "size_vram": 0,
    "expires_at": "2026-11-26T01:37:13.267657688Z",
    "context_length": 4096,
}


@pytest.fixture(scope="module")
def metrics() -> Any:
    spec = importlib.util.spec_from_file_location("ollama_metrics", PROGRAM)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Ollama:
    """Answers as the API does; what it says can be changed."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {"/api/version": {"version": "0.17.4"}, "/api/ps": {"models": [MODEL]}}
        self.delay = 0.0
        ollama = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                time.sleep(ollama.delay)
                answer = ollama.answers[self.path]
                body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(500 if answer == b"" else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_args: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()


@pytest.fixture
def ollama() -> Iterator[Ollama]:
    server = Ollama()
    yield server
    server.server.shutdown()
    server.server.server_close()


def samples(source: Any) -> dict[str, float]:
    found = {}
    for line in source.lines():
        if not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            assert re.fullmatch(r"[a-z_]+(\{[a-z_]+=\".*\"\})?", name)
            assert name not in found
            found[name] = float(value)
    return found


def fed(metrics: Any, lines: list[str]) -> dict[str, float]:
    log = metrics.Log()
    log.readable = True
    for line in lines:
        log.take(line)
    return samples(log)


# -- the log ------------------------------------------------------------------------


def test_requests_to_models_are_counted_by_path_and_status(metrics: Any) -> None:
    found = fed(metrics, LINES)
    assert {name: value for name, value in found.items() if name.startswith("ollama_requests_total") and value} == {
        'ollama_requests_total{path="/api/chat",status="200"}': 1,
        'ollama_requests_total{path="/api/chat",status="404"}': 1,
        'ollama_requests_total{path="/api/generate",status="200"}': 3,
        'ollama_requests_total{path="/api/generate",status="503"}': 2,
    }


def test_durations_are_those_of_answers(metrics: Any) -> None:
    found = fed(metrics, LINES)
    chat, generate = '{path="/api/chat"}', '{path="/api/generate"}'
    assert found[f"ollama_request_duration_seconds_count{chat}"] == 1
    assert found[f"ollama_request_duration_seconds_sum{chat}"] == pytest.approx(0.936884429)
    assert found[f"ollama_request_duration_seconds_count{generate}"] == 3
    assert found[f"ollama_request_duration_seconds_sum{generate}"] == pytest.approx(2.455746921 + 4.9145901 + 83)
    bucket = 'ollama_request_duration_seconds_bucket{path="/api/generate",le="%s"}'
    assert [found[bucket % le] for le in ("1", "2.5", "5", "80", "160", "+Inf")] == [0, 1, 2, 2, 3, 3]


def test_a_load_that_is_said_twice_is_one(metrics: Any) -> None:
    found = fed(metrics, LINES)
    assert found["ollama_model_loads_total"] == 1
    assert found["ollama_model_load_seconds_total"] == pytest.approx(0.34)


def test_a_second_load_is_another(metrics: Any) -> None:
    now = [0.0]
    log = metrics.Log(lambda: now[0])
    log.readable = True
    for at, took in ((0.0, "0.34"), (0.001, "0.34"), (0.5, "2.10"), (60.0, "2.10")):
        now[0] = at
        log.take(f'msg="llama runner started in {took} seconds"')
    assert samples(log)["ollama_model_loads_total"] == 3


def test_timings_of_llama_server(metrics: Any) -> None:
    found = fed(metrics, LLAMA_SERVER)
    assert found["ollama_model_load_seconds_total"] == pytest.approx(28.05)
    assert found["ollama_prompt_tokens_total"] == 50
    assert found["ollama_prompt_seconds_total"] == pytest.approx(1.2505)
    assert found["ollama_output_tokens_total"] == 400
    assert found["ollama_output_seconds_total"] == pytest.approx(14.50025)


def test_what_a_log_does_not_say_is_not_zero(metrics: Any) -> None:
    assert not [name for name in fed(metrics, LINES) if "tokens" in name]
    assert samples(metrics.Log()) == {"ollama_log_readable": 0}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("126.227µs", 126.227e-6), ("936.884429ms", 0.936884429), ("4.9145901s", 4.9145901), ("1m23s", 83.0),
        ("2h3m4.5s", 7384.5), ("922ns", 922e-9), ("", None), ("12", None), ("1x", None), ("s", None),
    ],
)  # fmt: skip
def test_durations_of_go(metrics: Any, text: str, expected: float | None) -> None:
    assert metrics.seconds(text) == (expected if expected is None else pytest.approx(expected))


def test_no_line_makes_a_series_of_its_own(metrics: Any) -> None:
    """Whoever reaches the server can ask for any path."""
    odd = [f'[GIN] 2026/11/26 - 01:32:39 | 404 | 1ms | 10.0.0.9 | POST     "/api/chat{n}"' for n in range(50)]
    odd += ['[GIN] 2026/11/26 - 01:32:39 | 200 | 1ms | 10.0.0.9 | POST     "/api/chat?x=1"', "[GIN]", "", "\ufffd" * 9]
    assert fed(metrics, odd).keys() - fed(metrics, []).keys() == {
        name for name in fed(metrics, LINES) if name.startswith("ollama_request_duration") and '"/api/chat"' in name
    }


def test_the_first_refusal_is_an_increase(metrics: Any) -> None:
    """Prometheus sees how much a counter grew only where it was there before."""
    found = fed(metrics, [])
    assert found['ollama_requests_total{path="/api/chat",status="503"}'] == 0
    assert {name.split("{")[0] for name in found} == {
        *("ollama_log_readable", "ollama_requests_total", "ollama_model_loads_total", "ollama_model_load_seconds_total")
    }


def test_a_log_that_ends_is_followed_again(metrics: Any, tmp_path: pathlib.Path) -> None:
    log, ran = metrics.Log(), tmp_path / "ran"
    script = f"echo x >>{ran}; printf '%s\\n' '{LINES[4]}'; sleep 0.7"
    threading.Thread(target=metrics.follow, args=(log, ["sh", "-c", script], 0.05), daemon=True).start()
    end = time.monotonic() + 10
    while len(ran.read_text().split() if ran.exists() else []) < 2 or not log.readable:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert samples(log)['ollama_requests_total{path="/api/chat",status="200"}'] >= 1


def test_a_log_that_may_not_be_read_gives_no_figures(metrics: Any) -> None:
    log = metrics.Log()
    threading.Thread(target=metrics.follow, args=(log, ["false"], 0.05), daemon=True).start()
    time.sleep(0.8)
    assert samples(log) == {"ollama_log_readable": 0}


# -- the server -----------------------------------------------------------------------


def test_what_is_loaded_and_where(metrics: Any, ollama: Ollama) -> None:
    half = {**MODEL, "name": 'odd"name\\', "size": 1000, "size_vram": 500, "expires_at": "2318-01-01T00:00:00+02:00"}
    ollama.answers["/api/ps"] = {"models": [MODEL, half]}
    found = samples(metrics.Server(ollama.url, "nvidia"))
    name, odd = '{model="deepseek-r1:1.5b"}', '{model="odd\\"name\\\\"}'
    assert found["ollama_up"] == found['ollama_info{version="0.17.4"}'] == found["ollama_gpu_expected"] == 1
    assert found["ollama_models_loaded"] == 2
    assert found[f"ollama_model_memory_bytes{name}"] == 11014656
    assert [found[f"ollama_model_gpu_ratio{model}"] for model in (name, odd)] == [0, 0.5]
    assert found[f"ollama_model_gpu_memory_bytes{odd}"] == 500
    assert found[f"ollama_model_context_tokens{name}"] == 4096
    assert found[f"ollama_model_unload_timestamp_seconds{name}"] == 1795657033


def test_an_idle_server(metrics: Any, ollama: Ollama) -> None:
    ollama.answers["/api/ps"] = {"models": None}
    found = samples(metrics.Server(ollama.url, "cpu"))
    assert found == {
        "ollama_up": 1,
        'ollama_info{version="0.17.4"}': 1,
        "ollama_gpu_expected": 0,
        "ollama_models_loaded": 0,
    }


@pytest.mark.parametrize("answer", [b"", b"not JSON", b"[]"])
def test_a_server_that_does_not_answer_well_is_down(metrics: Any, ollama: Ollama, answer: bytes) -> None:
    ollama.answers["/api/ps"] = answer
    assert samples(metrics.Server(ollama.url, "")) == {"ollama_up": 0}


def test_a_server_that_hangs_is_down_before_the_scrape_gives_up(
    metrics: Any, ollama: Ollama, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 2 * metrics.PATIENCE < 10
    monkeypatch.setattr(metrics, "PATIENCE", 0.1)
    ollama.delay = 0.5
    assert samples(metrics.Server(ollama.url, "")) == {"ollama_up": 0}


# -- the program ------------------------------------------------------------------------


@pytest.fixture
def program(ollama: Ollama, tmp_path: pathlib.Path) -> Iterator[Callable[..., str]]:
    """Start it as the unit does, with a journalctl that says what the server said; give back its address."""
    journalctl = tmp_path / "journalctl"
    (tmp_path / "log").write_text("\n".join(LINES) + "\n")
    journalctl.write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/asked\ncat {tmp_path}/log\nexec sleep 60\n')
    journalctl.chmod(0o755)
    running = []

    def start(*options: str) -> str:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        argv = [sys.executable, "-I", str(PROGRAM), "--server", ollama.url, "--port", str(port), *options]
        environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        running.append(subprocess.Popen(argv, env=environment, start_new_session=True))
        end = time.monotonic() + 10
        while time.monotonic() < end:
            with socket.socket() as link:
                if link.connect_ex(("127.0.0.1", port)) == 0:
                    return f"http://127.0.0.1:{port}"
            time.sleep(0.02)
        raise AssertionError("it does not listen")

    yield start
    for process in running:
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait(5) == 0


def scrape(url: str, wanted: str) -> str:
    end = time.monotonic() + 5
    while time.monotonic() < end:
        with urllib.request.urlopen(f"{url}/metrics", timeout=5) as answer:
            assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
            text = answer.read().decode()
        if wanted in text:
            return text
        time.sleep(0.05)
    raise AssertionError(f"{wanted} is not in:\n{text}")


def test_the_program_serves_both(program: Callable[..., str], tmp_path: pathlib.Path) -> None:
    text = scrape(program("--unit", "ollama.service", "--gpu", "nvidia"), "ollama_requests_total{")
    assert "# TYPE ollama_request_duration_seconds histogram" in text
    assert "ollama_gpu_expected 1" in text
    assert (tmp_path / "asked").read_text().split() == [
        *("--quiet", "--follow", "--lines=0", "--output=cat", "--unit=ollama.service")
    ]


def test_without_a_log_there_is_the_server_alone(program: Callable[..., str]) -> None:
    text = scrape(program(), "ollama_up 1")
    assert "ollama_log_readable" not in text
    assert "ollama_requests_total" not in text


def test_nothing_but_figures_is_served(program: Callable[..., str]) -> None:
    url = program()
    for path in ("/", "/api/ps", "/metrics/../etc/passwd"):
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(f"{url}{path}", timeout=5)
        assert error.value.code == 404
