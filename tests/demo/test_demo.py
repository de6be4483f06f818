"""`make demo` as a newcomer meets it, for a release of each era: it ends with an answer and its span, again it changes
nothing, and at the end nothing is left."""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import urllib.request
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
NODE = "llmops-demo"
PORT, TRACES_PORT = "18088", "16088"
WORKSPACE = "/console/api/workspaces/current"
# Dify has these as POST, and they change nothing.
QUESTIONS = (f"POST {WORKSPACE}", f"POST {WORKSPACE}/plugin/list/latest-versions")
PAGES = f"http://127.0.0.1:{TRACES_PORT}"
ANSWER = r"""Question \({mode}\): .+
Answer: Hello! This node is ready\.
 +(\d+) tokens in \d+\.\d\d s, .+, \d+\.\d tokens/s
Span:   deepseek-r1:1\.5b: \d+ tokens in, (\d+) out, (first token after \d+\.\d\d s, )?\d+\.\d\d s in all, ok
 +({pages}/projects/\w+/traces/[0-9a-f]{{32}})
"""


def make(*arguments: str) -> str:
    done = subprocess.run(
        ["make", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env={**os.environ, "ANSIBLE_FORCE_COLOR": "0"},
    )
    assert done.returncode == 0, done.stdout[-8000:]
    return done.stdout


def output(*command: str) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True, text=True).stdout


def containers() -> list[str]:
    return output("docker", "ps", "--all", "--quiet", "--filter", "label=llmops.world=1").split()


def console_calls() -> list[str]:
    """What Dify's console was asked to do since its nginx was started, as "METHOD path"."""
    log = output("docker", "exec", NODE, "docker", "logs", "dify-nginx-1")
    calls = re.findall(r'"((?:POST|PUT|PATCH|DELETE) /console/api/[^ ?"]+)', log)
    return [call for call in calls if call not in QUESTIONS]


def page(printed: str, mode: str) -> str:
    """Where the span of this answer is shown. It has its tokens, and the first one's moment in a stream."""
    found = re.search(ANSWER.format(mode=mode, pages=re.escape(PAGES)), printed)
    assert found, printed[-3000:]
    counted, in_span, first, shown_at = found.groups()
    assert int(counted) == int(in_span) > 0
    assert bool(first) == (mode == "streaming")
    return shown_at


def spans() -> list[str]:
    """Of all chats, the trace of each."""
    with urllib.request.urlopen(f"{PAGES}/v1/projects/default/spans?limit=100", timeout=10) as answer:
        return [one["context"]["trace_id"] for one in json.load(answer)["data"]]


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    make("demo-down")
    assert containers() == []


@pytest.mark.parametrize("version", ["0.15.3", "1.7.0", "1.9.2", "1.11.4", "1.12.1", "1.16.0"])
def test_demo(version: str) -> None:
    subprocess.run(["python3", "tests/world/world.py", "down", "demo"], cwd=ROOT, check=True)
    settings = (f"DIFY_VERSION={version}", f"DEMO_PORT={PORT}", f"DEMO_TRACES_PORT={TRACES_PORT}", "DEMO_SOURCE=world")
    first = make("demo", *settings)
    url = f"http://127.0.0.1:{PORT}"
    assert url in first
    assert version in first
    assert re.search(r"\bok +api\b", first), "no health table"
    with urllib.request.urlopen(f"{url}/console/api/setup", timeout=10) as answer:
        assert answer.headers["X-Version"] == version
    shown = [page(first, mode) for mode in ("blocking", "streaming")]
    assert first.endswith(f"{shown[-1]}\n"), "the last words are those of the last chat"
    assert re.search(rf"Trace: deepseek-r1:1\.5b: .+, {re.escape(PAGES)}/projects/\w+/traces/", first), "nor of its own"
    with urllib.request.urlopen(shown[-1], timeout=10) as answer:
        assert "<title>Phoenix</title>" in answer.read().decode()
    seen = spans()
    assert len(set(seen)) == len(seen) == 3, "one span of the run's own chat and of each of these two"
    assert {one.rpartition("/")[2] for one in shown} < set(seen)
    calls = console_calls()
    assert calls.count("POST /console/api/login") == 1, "the owner is set up and the rest is done with one login"

    again = make("demo", *settings)
    assert re.search(r"\bchanged=0\b", again)
    assert not re.search(r"\bchanged=[1-9]", again)
    assert page(again, "streaming") not in shown
    assert len(spans()) == 6
    assert console_calls()[len(calls) :] == ["POST /console/api/login"], "one login, and nothing is written"
