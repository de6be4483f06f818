# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The api's image as the monitoring plugins meet it: nothing but a read-only folder and PYTHONPATH is added.

One release of each generation: built-in providers, managers, clients, and each OpenTelemetry that the images have.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import images
import pytest
from _build import Builder
from _engine import docker, inspect
from _settings import REPO

MONITORING = REPO / "roles" / "traceloop" / "files" / "monitoring"
# Release -> generation of its hook point, how its spans travel, the user.
RELEASES = {
    "0.15.3": ("0.15", "application/json", 0),
    "1.0.0": ("1.0", "application/json", 0),
    "1.3.1": ("1.3.1", "application/x-protobuf", 0),
    "1.13.3": ("1.3.1", "application/x-protobuf", 1001),
    "1.16.0": ("1.3.1", "application/x-protobuf", 1001),
}
# A process of the api that calls a model twice, with a plugin daemon and a model server of its own words.
CALLS = """
import http.server, json, os, threading

received = []


class Collector(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        received.append((self.path, self.headers["Content-Type"], self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 4318), Collector)
threading.Thread(target=server.serve_forever, daemon=True).start()

from llmops_monitoring import counters, plugins
from standin.api import daemon_client, invoking, legacy_ollama

invoking.load()
usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
delta = {"index": 0, "message": {"content": "hi"}, "usage": usage, "finish_reason": "stop"}
headers = []


def lines(method, path, query, given, body):
    headers.append(given)
    yield json.dumps({"code": 0, "data": {"model": "m", "delta": delta}})


class Provider:
    plugin_id, short_name = "langgenius/ollama", "ollama"


daemon_client.lines = lines
legacy_ollama.chat = lambda *arguments, **options: iter([("hi", {"prompt_tokens": 3, "completion_tokens": 2})])
model = invoking.language_model("tenant", Provider())
for stream in (True, False):
    list(x) if (x := model.invoke("m", {"base_url": "http://o:11434"}, [], {}, stream=stream)) and stream else x
plugins.close()
traces = [(kind, body) for path, kind, body in received if path == "/v1/traces"]
print(json.dumps({
    "user": os.getuid(),
    "counters": counters.counters(),
    "kinds": sorted({kind for kind, _ in traces}),
    "spans": sum(body.count(b"chat m") for _, body in traces),
    "traceparents": [given.get("traceparent", "") for given in headers],
}))
"""

pytestmark = [pytest.mark.world, pytest.mark.skipif(not images.known_tags(), reason="no release data")]


def image(release: str) -> str:
    table = images.table([release])
    return Builder(table).ensure(f"dify-api-{release}")


def run(release: str, *command: str, stdin: bytes | None = None) -> str:
    name = f"llmops-test-{uuid.uuid4().hex[:8]}"
    options = ["--rm", "--interactive", "--name", name, "--network", "none", "--entrypoint", "python"]
    options += [f"--volume={MONITORING}:/opt/llmops-monitoring:ro", "--env=PYTHONPATH=/opt/llmops-monitoring"]
    options += ["--env=TRACELOOP_BASE_URL=http://127.0.0.1:4318"]
    return docker("run", *options, image(release), *command, stdin=stdin)


@pytest.mark.parametrize("release", RELEASES)
def test_calls_are_seen_and_sent_with_what_the_image_has(release: str) -> None:
    generation, kind, user = RELEASES[release]
    asked = json.loads(run(release, "-m", "llmops_monitoring", "/app/api"))
    assert (asked["generation"], asked["missing"]) == (generation, [])
    found = json.loads(run(release, "-", stdin=CALLS.encode()).splitlines()[-1])
    assert found["user"] == user
    assert (found["counters"]["calls"], found["counters"]["ok"]) == (2, 2), found
    assert not [name for name in found["counters"] if name.startswith(("internal", "plugin", "hook_errors"))], found
    assert (found["kinds"], found["spans"]) == ([kind], 2)
    assert [bool(one) for one in found["traceparents"]] == ([True, True] if release != "0.15.3" else [])


@pytest.fixture
def api() -> Iterator[str]:
    name = f"llmops-test-{uuid.uuid4().hex[:8]}"
    options = ["--detach", "--name", name, "--network", "none", "--env=MODE=api", "--env=MIGRATION_ENABLED=false"]
    docker("run", *options, image("1.16.0"))
    yield name
    docker("rm", "--force", "--volumes", name, check=False)


def test_the_api_ends_by_itself_when_its_container_is_stopped(api: str, tmp_path: Path) -> None:
    deadline = time.monotonic() + 30
    command = ["exec", api, "curl", "--silent", "--fail", "http://localhost:5001/health"]
    while "ok" not in docker(*command, check=False):
        assert time.monotonic() < deadline
        time.sleep(0.3)
    docker("stop", "--time", "10", api)
    assert (inspect("container", api) or {})["State"]["ExitCode"] == 0  # 137 is a killed one
