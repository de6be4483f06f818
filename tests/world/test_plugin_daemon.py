# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plugin daemon's image runs our plugin, written against the real SDK, in an environment that uv really builds."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import _plugins
import _wheels
import images
import pytest
import test_images
from _engine import docker
from _settings import CACHE
from test_images import Start, Started

TENANT = "11111111-1111-4111-8111-111111111111"
PLUGIN = _plugins.PLUGIN
INSIDE = Path("/packages")
MODEL = {
    "provider": "ollama",
    "model_type": "llm",
    "model": "llama3.2",
    "credentials": {"base_url": "http://ollama:11434", "mode": "chat", "context_size": "4096", "max_tokens": "4096"},
}
QUESTION = {
    **MODEL,
    "prompt_messages": [{"role": "user", "content": "hi"}],
    "model_parameters": {"num_predict": 5},
    "stream": True,
}

network, service_image, start = test_images.network, test_images.service_image, test_images.start
pytestmark = [pytest.mark.world, pytest.mark.skipif(not images.known_tags(), reason="no release data")]


class Plugins:
    """A daemon, asked as Dify's API asks it."""

    def __init__(self, container: Started, index: Started) -> None:
        self.container = container
        self.index = index
        self._key = container.service["environment"]["SERVER_KEY"]

    def ask(self, path: str, *options: str) -> str:
        url = f"http://127.0.0.1:5002/plugin/{TENANT}/{path}"
        command = ["curl", "--silent", "--max-time", "30", "--header", f"X-Api-Key: {self._key}", *options, url]
        return self.container.exec(*command, timeout=60)[1]

    def send(self, path: str, body: dict[str, Any]) -> str:
        headers = ["--header", "Content-Type: application/json", "--header", f"X-Plugin-ID: {PLUGIN}"]
        return self.ask(path, *headers, "--data", json.dumps(body))

    def install(self, version: str) -> tuple[str, str]:
        """Status and message of the task."""
        (package,) = (one for one in _plugins.packages() if one.version == version)
        form = f"dify_pkg=@{INSIDE / package.file_name}"
        identifier = json.loads(self.ask("management/install/upload/package", "--form", form))["data"][
            "unique_identifier"
        ]
        body = {"plugin_unique_identifiers": [identifier], "source": "package", "metas": [{}]}
        task = json.loads(self.send("management/install/identifiers", body))["data"]["task_id"]
        end = time.monotonic() + 180
        while True:
            found = json.loads(self.ask(f"management/install/tasks/{task}"))["data"]
            if found["status"] not in ("pending", "running"):
                return found["status"], found["plugins"][0]["message"]
            assert time.monotonic() < end, found
            time.sleep(0.5)

    def fault(self, **values: str) -> None:
        self.container.exec("sh", "-c", f"echo '{json.dumps(values)}' >/app/storage/.standin.json")

    def alive(self) -> str:
        return self.send(
            "dispatch/model/validate_provider_credentials", {"data": {"provider": "ollama", "credentials": {}}}
        )

    def until(self, text: str, deadline: float = 60) -> None:
        end = time.monotonic() + deadline
        while text not in (found := self.alive()):
            assert time.monotonic() < end, f"no {text!r} in {found}\n{self.container.logs()[-3000:]}"
            time.sleep(0.2)

    def chat(self) -> list[dict[str, Any]]:
        reply = self.send("dispatch/llm/invoke", {"user_id": "somebody", "data": QUESTION})
        return [json.loads(line.removeprefix("data: ")) for line in reply.split("\n\n") if line]


@pytest.fixture
def daemon(start: Start, tmp_path: Path) -> Iterator[Plugins]:
    """The newest release's daemon, beside what it needs: database, Redis, an index with wheels, a model server."""
    services = test_images.services(images.known_tags()[-1])
    database = start("db_postgres", services["db_postgres"])
    start("redis", services["redis"])
    packages = tmp_path / "packages"
    packages.mkdir()
    for package in _plugins.packages():
        if not package.ballast:
            (packages / package.file_name).write_bytes(_plugins.pack(_plugins.contents(package), package.key))
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:  # that of world.py, which swaps the same folder
        fcntl.flock(lock, fcntl.LOCK_EX)
        _wheels.ensure()
    image = services["plugin_daemon"]["image"]
    python = {"image": image, "entrypoint": ["python3"]}
    index = start(
        "index", {**python, "command": f"-m http.server --directory {INSIDE} 80"}, {_wheels.FOLDER: str(INSIDE)}
    )
    start("ollama", {**python, "command": "-m standin.fake_ollama"})
    environment = {
        **services["plugin_daemon"]["environment"],
        "DB_HOST": "db_postgres",
        "DB_PORT": "5432",
        "DB_USERNAME": "postgres",
        "DB_PASSWORD": services["db_postgres"]["environment"]["POSTGRES_PASSWORD"],
        "REDIS_HOST": "redis",
        "REDIS_PORT": "6379",
        "REDIS_PASSWORD": "difyai123456",
        "PIP_MIRROR_URL": "http://index/simple/",
        "PIP_EXTRA_ARGS": "--allow-insecure-host index",
    }
    database.until("pg_isready", "-h", "db_postgres")
    found = start("plugin_daemon", {"image": image, "environment": environment}, {packages: str(INSIDE)})
    found.until("curl", "--silent", "--fail", "http://127.0.0.1:5002/health/check")
    yield Plugins(found, index)


def processes(container: Started) -> list[int]:
    listing = "for file in /proc/[0-9]*/cmdline; do tr '\\0' ' ' <$file | sed \"s,^,$file ,\"; echo; done 2>/dev/null"
    lines = container.exec("sh", "-c", listing)[1].splitlines()
    return [int(line.split("/")[2]) for line in lines if "/.venv/bin/python -m main" in line]


def test_a_plugin_lives_dies_and_comes_back(daemon: Plugins) -> None:
    container = daemon.container
    assert daemon.install("0.1.0") == ("success", "installed"), container.logs()
    container.logged("pip install -i http://index/simple/ -r requirements.txt -vvv --allow-insecure-host index")

    events = daemon.chat()
    assert [event["code"] for event in events] == [0] * len(events), events
    deltas = [event["data"]["delta"] for event in events]
    assert "".join(delta["message"]["content"] for delta in deltas).startswith("Hello")
    assert (deltas[-1]["finish_reason"], deltas[-1]["usage"]["total_price"]) == ("stop", "0")
    assert len(deltas) > 2, "nothing was streamed"

    missing = daemon.send("dispatch/model/validate_model_credentials", {"data": {**MODEL, "model": "missing"}})
    assert "CredentialsValidateFailedError" in missing and "status code 404" in missing

    (process,) = processes(container)
    container.exec("sh", "-c", f"kill -9 {process}")
    daemon.until("no proper instance", deadline=5)
    daemon.until('"result":true')
    assert processes(container) != [process]

    for fault in ("dead", "crashloop"):
        daemon.fault(plugin=fault)
        daemon.until("no proper instance", deadline=5)
        daemon.fault()
        daemon.until('"result":true', deadline=90)

    # What was built once needs no index any more.
    docker("stop", "--time", "1", daemon.index.name)
    docker("restart", "--time", "10", container.name)
    daemon.until('"result":true')
    assert container.logs().count("uv command") == 1


def test_what_cannot_be_installed_says_so(daemon: Plugins) -> None:
    status, message = daemon.install("0.3.4")
    assert status == "failed"
    twice = "failed to install dependencies: failed to install dependencies"
    assert message.startswith(f"failed to launch plugin: {twice}: exit status 1, output: ")
    assert f"{_plugins.NO_SUCH} was not found in the package registry" in message.replace("\n", " ")
    assert message.endswith("\n\nfailed to init environment") and len(message) < 1300

    status, message = daemon.install("0.3.5")
    assert status == "failed"
    assert message.startswith("failed to launch plugin: plugin failed to start: ")
    assert "this plugin ends before it has begun" in message
