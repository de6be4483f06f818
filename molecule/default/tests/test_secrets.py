"""No secret is in the -vvv log of the runs before this: check, install, no-op, check, verify."""

from __future__ import annotations

import base64
import json
import pathlib
import re
import urllib.parse
from collections.abc import Iterator
from typing import Any

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
LOG = ROOT / "build" / "logs" / "default-vvv.log"
testinfra_hosts = ["docker://llmops-dify1"]


def strings(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from strings(inner, f"{name}.{key}".strip("."))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from strings(inner, f"{name}[{number}]")
    elif isinstance(value, str):
        yield name, value


def forms(value: str) -> tuple[str, ...]:
    """A secret as it stands, in a URL, and in base64."""
    encoded = base64.b64encode(value.encode()).decode().rstrip("=")[:-1]
    return value, urllib.parse.quote(value, safe=""), encoded


@pytest.fixture(scope="module")
def log() -> str:
    return LOG.read_text(errors="replace")


def test_the_log_is_of_a_full_run_at_vvv(log: str) -> None:
    assert re.search(r"TASK \[llmops\.stack\.dify : .*pull", log, re.IGNORECASE)
    assert re.search(r"TASK \[llmops\.stack\.dify : .*sign of life", log)
    assert "invocation:" in log or '"invocation"' in log
    assert log.count("PLAY RECAP") >= 5


def test_no_secret_is_in_it(host: Any, log: str) -> None:
    secrets = dict(strings(json.loads(host.check_output("cat /opt/dify/secrets.json"))))
    assert len(secrets) >= 5
    assert [name for name, value in secrets.items() if len(value) < 16] == []
    # Names only: pytest prints what it compares, and a secret must not end in the log of the test that guards it.
    assert sorted(name for name, value in secrets.items() if any(form in log for form in forms(value))) == []


def test_no_key_token_or_cookie_is_in_it(host: Any, log: str) -> None:
    """Those that the node keeps, and whatever else looks like one: a session of an earlier run is kept nowhere."""
    kept = host.check_output("cat /opt/dify/.llmops-probe.key").strip()
    assert kept.startswith("app-")
    found = re.findall(r"\bapp-[A-Za-z0-9]{20,}|\beyJ[\w-]{10,}\.[\w-]+|(?:access|csrf|refresh)_token=[^*;\s]+", log)
    assert len(found) == 0, f"{len(found)} of them, the first is {found[0][:12]}..."
    assert "Bearer ey" not in log
    sessions = host.check_output("find /run/llmops.stack -type f -exec cat {} + 2>/dev/null || true")
    for number, value in enumerate(re.findall(r'"([\w.~-]{32,})"', sessions)):
        assert not any(form in log for form in forms(value)), f"value {number} of a session file"
