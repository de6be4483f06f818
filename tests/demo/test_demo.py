"""`make demo` as a newcomer meets it, for a release of each era; again it changes nothing; then nothing is left."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import urllib.request
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PORT = "18088"


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


def containers() -> list[str]:
    listed = ["docker", "ps", "--all", "--quiet", "--filter", "label=llmops.world=1"]
    return subprocess.run(listed, stdout=subprocess.PIPE, check=True, text=True).stdout.split()


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    make("demo-down")
    assert containers() == []


@pytest.mark.parametrize("version", ["0.15.3", "1.11.4", "1.12.1", "1.14.1", "1.16.0"])
def test_demo(version: str) -> None:
    subprocess.run(["python3", "tests/world/world.py", "down", "demo"], cwd=ROOT, check=True)
    settings = (f"DIFY_VERSION={version}", f"DEMO_PORT={PORT}", "DEMO_SOURCE=world")
    first = make("demo", *settings)
    url = f"http://127.0.0.1:{PORT}"
    assert url in first
    assert version in first
    assert re.search(r"\bok +api\b", first), "no health table"
    with urllib.request.urlopen(f"{url}/console/api/setup", timeout=10) as answer:
        assert answer.headers["X-Version"] == version
    again = make("demo", *settings)
    assert re.search(r"\bchanged=0\b", again)
    assert not re.search(r"\bchanged=[1-9]", again)
