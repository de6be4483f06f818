"""The monitoring runtime in the servers that Dify runs in: every call told once, every plugin closed, nothing said.

And the traceloop plugin with it, which sends nothing before the end: a graceful stop loses no span.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from ansible_collections.llmops.stack.tests.unit.monitoring import (
    ASK,
    MONITORING,
    WITNESS,
    write,
    write_dify,
    write_plugin,
)
from ansible_collections.llmops.stack.tests.unit.monitoring_collector import Collector, wait

pytest_plugins = ["ansible_collections.llmops.stack.tests.unit.monitoring_fixtures"]

CALLS = [f"m{number}" for number in range(12)]
APP = f"""
import player
from core.plugin.impl.model import PluginModelClient

player.answer[:] = [player.chunk("a"), player.chunk("", player.usage(7, 3), "stop")]


def ask(model):
    return list(PluginModelClient().invoke_llm(**{{**{ASK!r}, "prompt_messages": [], "model": model}}))


def app(environ, start_response):
    if environ["PATH_INFO"] != "/":
        ask(environ["PATH_INFO"][1:])
    start_response("200 OK", [])
    return [b""]
"""
TASKS = """
import celery as library
from app import ask

celery = library.Celery("tasks", broker="filesystem://")
celery.conf.update(
    broker_transport_options={{
        "data_folder_in": {queue!r}, "data_folder_out": {queue!r}, "control_folder": {control!r},
    }},
    worker_enable_remote_control=False,
    task_ignore_result=True,
)


@celery.task
def chat(model):
    ask(model)
"""


class Site:
    """A folder with Dify's modules, an application and the plugin that writes down what it is told."""

    def __init__(self, root: pathlib.Path, collector: Collector) -> None:
        self.collector = collector
        self.api = write_dify(root / "api", "1.16")
        self.witness = root / "witness"
        write(self.api / "app.py", APP)
        for name in ("queue", "control"):
            (root / name).mkdir()
        write(self.api / "tasks.py", TASKS.format(queue=str(root / "queue"), control=str(root / "control")))
        write_plugin(root / "plugins" / "witness", WITNESS, hooks={"after_invoke": "tell"})
        self.env = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join([str(MONITORING), str(self.api), os.environ.get("PYTHONPATH", "")]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "LLMOPS_MONITORING_PLUGINS": f"{root / 'plugins'}{os.pathsep}{MONITORING / 'plugins'}",
            "TRACELOOP_BASE_URL": collector.url,
            "LLMOPS_TRACELOOP_INTERVAL_MS": "600000",
            "WITNESS": str(self.witness),
            "C_FORCE_ROOT": "1",
        }

    @contextlib.contextmanager
    def running(self, *command: str) -> Iterator[None]:
        """The server; at the end it is asked to stop, and must do so without a word of the runtime."""
        log = self.witness.with_name("log")
        with log.open("w") as out:
            server = subprocess.Popen(
                [sys.executable, "-m", *command], cwd=self.api, env=self.env, stdout=out, stderr=out
            )
            try:
                yield
                server.send_signal(signal.SIGTERM)
                server.wait(20)
            finally:
                server.kill()
                server.wait()
        said = log.read_text()
        assert "llmops-monitoring" not in said
        assert "Traceback" not in said

    def told(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.witness.read_text().splitlines()] if self.witness.exists() else []

    def check(self) -> None:
        calls = [line for line in self.told() if "model" in line]
        assert sorted(line["model"] for line in calls) == sorted(CALLS)
        closed = Counter(line["pid"] for line in self.told() if "closed" in line)
        assert closed == Counter({line["pid"] for line in calls})
        spans = self.collector.spans
        assert sorted(span["name"] for span in spans) == sorted(f"chat {model}" for model in CALLS)
        instances = {span["resource"]["service.instance.id"] for span in spans}
        assert {int(instance.split(":")[1]) for instance in instances} == set(closed)
        assert len(instances) == len(closed)


@pytest.fixture
def site(tmp_path: pathlib.Path, collector: Collector) -> Site:
    return Site(tmp_path, collector)


@pytest.mark.parametrize("preload", [[], ["--preload"]], ids=["plain", "preload"])
def test_gunicorn(site: Site, preload: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    def get(path: str) -> bool:
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=20).status == 200
        except OSError:
            return False

    address = f"127.0.0.1:{port}"
    # One worker: gunicorn loses a SIGTERM that meets a second one while it boots. No control socket: as Dify has it.
    options = ("--no-control-socket", "-k", "gevent", "-w", "1", *preload, "-b", address)
    with site.running("gunicorn", *options, "app:app"):
        wait(lambda: get(""), within=30)
        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(get, CALLS))
    site.check()


@pytest.mark.parametrize("pool", ["gevent", "prefork"])
def test_celery(site: Site, pool: str) -> None:
    send = f"from tasks import chat\nfor model in {CALLS!r}: chat.delay(model)"
    subprocess.run([sys.executable, "-c", send], cwd=site.api, env=site.env, timeout=60, check=True)
    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat")
    with site.running("celery", "-A", "tasks.celery", "worker", "-P", pool, "-c", "2", *quiet):
        wait(lambda: len(site.told()) >= len(CALLS), within=30)
    site.check()


PLAIN = """
import sys, time
from app import ask
for model in sys.argv[1:]:
    ask(model)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("first", ["", "from gevent import monkey; monkey.patch_all()"], ids=["threads", "gevent"])
def test_sigterm_without_a_server(site: Site, first: str) -> None:
    """It ends by the signal as it would have, and the spans are out before."""
    command = [sys.executable, "-c", f"{first}\n{PLAIN}", *CALLS]
    process = subprocess.Popen(command, cwd=site.api, env=site.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stdout and process.stdout.readline() == b"ready\n"
        assert site.collector.spans == []
        process.send_signal(signal.SIGTERM)
        _out, said = process.communicate(timeout=20)
    finally:
        process.kill()
    assert (process.returncode, said) == (-signal.SIGTERM, b"")
    site.check()
