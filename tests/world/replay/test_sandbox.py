# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sandbox stand-in: what a compose health check and a code-execution probe rely on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from ports import free_port

STANDIN_ROOT = Path(__file__).resolve().parents[1] / "images" / "standin"
KEY = {"X-Api-Key": "sandbox-key"}


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[str]:
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(STANDIN_ROOT),
        "SANDBOX_PORT": str(port),
        "API_KEY": KEY["X-Api-Key"],
        "WORKER_TIMEOUT": "1",
        "STANDIN_FAULTS": str(tmp_path / "faults.json"),
    }
    process = subprocess.Popen([sys.executable, "-m", "standin.sandbox"], env=environment)
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 15
    while True:
        try:
            requests.get(f"{url}/health", timeout=5)
            break
        except requests.ConnectionError:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
    yield url
    process.kill()
    process.wait()


def run(url: str, code: str, headers: dict[str, str] = KEY, language: str = "python3") -> requests.Response:
    body = {"language": language, "code": code, "enable_network": False}
    return requests.post(f"{url}/v1/sandbox/run", json=body, headers=headers, timeout=20)


def test_health_and_key(sandbox: str) -> None:
    assert requests.get(f"{sandbox}/health", timeout=5).json() == "ok"
    assert run(sandbox, "print(1)", {}).status_code == 401
    assert run(sandbox, "print(1)", {"X-Api-Key": "other"}).status_code == 401


def test_code_runs_alone(sandbox: str) -> None:
    assert run(sandbox, "print(6 * 7)").json() == {
        "code": 0,
        "message": "success",
        "data": {"stdout": "42\n", "error": ""},
    }
    failed = run(sandbox, "raise ValueError('no')").json()["data"]
    assert failed["stdout"] == "" and "ValueError: no" in failed["error"]
    assert run(sandbox, "import os; print(os.environ.get('API_KEY'))").json()["data"]["stdout"] == "None\n"
    assert run(sandbox, "while True: pass").json()["data"]["error"] == "error: timeout\n"
    assert run(sandbox, "x", language="cobol").json()["code"] == -400


def test_faults(sandbox: str, tmp_path: Path) -> None:
    (tmp_path / "faults.json").write_text('{"sandbox": "500"}', encoding="utf-8")
    assert requests.get(f"{sandbox}/health", timeout=5).status_code == 500
    (tmp_path / "faults.json").write_text('{"sandbox": "hang"}', encoding="utf-8")
    with pytest.raises(requests.Timeout):
        requests.get(f"{sandbox}/health", timeout=1)
