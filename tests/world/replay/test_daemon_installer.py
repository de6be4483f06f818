# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the daemon runs uv: the recorded commands, the few variables that reach it, and what a silent index ends in."""

from __future__ import annotations

import dataclasses
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from standin import daemon_config, daemon_environment, daemon_installer, daemon_package, daemon_protocol
from standin.daemon_config import Config
from standin.daemon_log import Log
from standin.daemon_versions import generation

UV = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
INDEX = "http://index-host:8080/simple/"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    environment = {
        "PLATFORM": "local",
        "SERVER_KEY": "k",
        "DIFY_INNER_API_URL": "http://127.0.0.1:9",
        "DIFY_INNER_API_KEY": "k",
        "DB_USERNAME": "u",
        "DB_PASSWORD": "p",
        "DB_HOST": "h",
        "DB_DATABASE": "d",
        "PLUGIN_WORKING_PATH": str(tmp_path / "cwd"),
        "PLUGIN_REMOTE_INSTALLING_ENABLED": "false",
        "UV_PATH": UV or "uv",
        "PYTHON_INTERPRETER_PATH": sys.executable,
    }
    return daemon_config.load(environment, generation("0.6.3"))


@pytest.mark.parametrize(
    ("version", "files", "changes", "wanted"),
    [
        ("0.2.0", ["requirements.txt"], {"index": INDEX}, f"pip install -i {INDEX} -r requirements.txt"),
        ("0.6.3", ["requirements.txt"], {"index": INDEX}, f"pip install -i {INDEX} -r requirements.txt -vvv"),
        (
            "0.5.3",
            ["requirements.txt"],
            {"index_arguments": ("--system-certs",)},
            "pip install -r requirements.txt -vvv --system-certs",
        ),
        ("0.5.1", ["requirements.txt", "pyproject.toml"], {}, "pip install -r requirements.txt -vvv"),
        ("0.5.3", ["requirements.txt", "pyproject.toml", "uv.lock"], {}, "sync --no-dev -v"),
        ("0.6.3", ["requirements.txt", "pyproject.toml", "uv.lock"], {}, "sync --no-dev --frozen -v"),
        (
            "0.6.3",
            ["requirements.txt", "pyproject.toml"],
            {"index": INDEX},
            f"pip install -i {INDEX} -r requirements.txt -vvv",
        ),
    ],
)
def test_the_recorded_commands(
    config: Config, tmp_path: Path, version: str, files: list[str], changes: dict[str, Any], wanted: str
) -> None:
    for name in files:
        (tmp_path / name).touch()
    changed = dataclasses.replace(config, **changes)
    assert " ".join(daemon_installer._arguments(changed, generation(version), tmp_path)) == wanted


@pytest.mark.parametrize(("version", "cache"), [("0.5.3", False), ("0.6.3", True)])
def test_what_reaches_uv(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, cache: bool
) -> None:
    for name in ("UV_INDEX_URL", "UV_OFFLINE", "SSL_CERT_FILE", "PIP_CERT", "SERVER_KEY"):
        monkeypatch.setenv(name, "x")
    for name in daemon_installer.PROXIES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy-host:3128")
    found = daemon_installer._environment(config, generation(version), tmp_path)
    assert set(found) == {"VIRTUAL_ENV", "PATH", "HTTPS_PROXY", *(["UV_CACHE_DIR"] if cache else [])}


@pytest.fixture
def silent_index() -> Iterator[str]:
    """Takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/simple/"


@pytest.mark.skipif(UV is None, reason="uv is not installed")
def test_a_silent_index_is_given_up(
    config: Config, silent_index: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    identifier = f"langgenius/ollama:0.0.6@{'a' * 64}"
    package = config.working_path.parent / "package"
    package.write_bytes(daemon_package.pack(replace={"requirements.txt": "something==1.0\n"}))
    patient = dataclasses.replace(config, index=silent_index, env_init_seconds=5)
    before = time.monotonic()
    with pytest.raises(daemon_environment.EnvironmentFailed) as caught:
        daemon_environment.prepare(patient, generation("0.6.3"), identifier, package, Log(generation("0.6.3")))
    assert time.monotonic() - before < 60
    twice = "failed to install dependencies: failed to install dependencies"
    assert str(caught.value).startswith(f"{twice}: signal: killed, output: ")
    end = "\ninit process exited due to no activity for 5 seconds\nfailed to init environment"
    assert str(caught.value).endswith(end)
    assert not (daemon_environment.directory(patient, identifier) / daemon_environment.MARKER).exists()


def test_what_takes_too_long_to_compile_is_no_failure(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(*_told: Any, **_options: Any) -> None:
        raise subprocess.TimeoutExpired("python", 600)

    monkeypatch.setattr(subprocess, "run", late)
    behaviour = generation("0.6.3")
    daemon_installer.install(dataclasses.replace(config, uv="true"), behaviour, tmp_path, Log(behaviour))


def test_an_installer_that_is_slow_on_command_is_killed_like_a_silent_one(config: Config) -> None:
    impatient = dataclasses.replace(config, env_init_seconds=0.1)
    daemon_installer.silence(impatient, 0.05)
    with pytest.raises(daemon_installer.InstallerFailed, match=r"no activity for 0\.1 seconds$"):
        daemon_installer.silence(impatient, 5)


def test_long_output_keeps_its_beginning_and_its_end() -> None:
    text = str(daemon_installer.refused("exit status 2", f"{'a' * 600}{'b' * 600}\n"))
    twice = "failed to install dependencies: failed to install dependencies"
    assert text == f"{twice}: exit status 2, output: {'a' * 512}...{'b' * 511}\n"


@pytest.mark.parametrize(
    ("requirements", "needs"),
    [("# nothing\n\n--no-index\n", False), ("dify_plugin==0.9.0\n", True), ("# one\n  requests\n", True)],
)
def test_only_a_requirement_asks_for_an_installer(tmp_path: Path, requirements: str, needs: bool) -> None:
    (tmp_path / "requirements.txt").write_text(requirements)
    assert daemon_environment._needs_something(tmp_path) is needs


def test_a_piece_is_passed_on_as_the_daemon_writes_it() -> None:
    """The SDK's own spelling of a piece, and of prices that came out of a multiplication."""
    usage = {"prompt_tokens": 1, "prompt_price": "0E-7", "total_price": "0.10", "latency": 0.5}
    message: dict[str, Any] = {"role": "assistant", "content": "Hello", "name": None, "tool_calls": []}
    piece: dict[str, Any] = {
        "model": "m",
        "prompt_messages": [],
        "system_fingerprint": None,
        "delta": {"index": 0, "message": message, "usage": usage, "finish_reason": "stop"},
    }
    found = daemon_protocol.chunk(piece)
    assert list(found) == ["model", "system_fingerprint", "delta", "prompt_messages"]
    assert found["system_fingerprint"] == ""
    assert found["delta"]["message"] == {**message, "name": "", "tool_call_id": ""}
    assert found["delta"]["usage"] == {
        "prompt_tokens": 1,
        "prompt_price": "0",
        "total_price": "0.1",
        "latency": 0.5,
    }


@pytest.mark.parametrize(
    "line",
    [
        '{"version":"0.1.0","type":"plugin","author":"langgenius"}',
        '{"event": "log", "data": {"level": "INFO", "message": "Installed model: ollama"}}',
        '{"event": "session", "session_id": "one", "data": null}',
        '{"event": "session", "session_id": "one"}',
        '{"event": "session", "session_id": "one", "data": {}}',
        '{"event": "session", "data": {"type": "end", "data": {}}}',
        '{"event": "session", "session_id": "one", "data": {"type": ["end"], "data": {}}}',
        "Traceback (most recent call last):",
        "",
    ],
)
def test_other_lines_of_a_plugin_are_of_no_consequence(line: str) -> None:
    assert daemon_protocol.event(line)[0] == ""
