# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where traces and metrics go: the real collector, Phoenix and Prometheus, and a backend that wants a key."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import importlib.util
import json
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import _gobuild
import images
import pytest
import yaml
from _build import Builder
from _engine import docker, inspect, published_port
from _images import GoBinary
from _settings import IMAGES, REPO

TRACE, SPAN = "5b8efff798038103d269b633813fc60c", "eee19b7ec3c1b174"
KEY = "a-key-of-the-tests"


def value(what: object) -> dict[str, Any]:
    return {"intValue": str(what)} if isinstance(what, int) else {"stringValue": what}


def attributes(**named: object) -> list[dict[str, Any]]:
    return [{"key": name.replace("__", "."), "value": value(what)} for name, what in named.items()]


def trace() -> dict[str, Any]:
    """A model call as OTLP's JSON."""
    now = time.time_ns()
    span = {
        "traceId": TRACE,
        "spanId": SPAN,
        "name": "chat tiny",
        "kind": 3,
        "startTimeUnixNano": str(now - 10**9),
        "endTimeUnixNano": str(now),
        "attributes": attributes(
            gen_ai__operation__name="chat",
            gen_ai__request__model="tiny",
            gen_ai__usage__input_tokens=7,
            gen_ai__usage__output_tokens=3,
        ),
    }
    resource = {"attributes": attributes(service__name="dify-api")}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [span]}]}]}


def metric() -> dict[str, Any]:
    point = {"timeUnixNano": str(time.time_ns()), "asInt": "5"}
    gauge = {"name": "tests.answers", "gauge": {"dataPoints": [point]}}
    resource = {"attributes": attributes(service__name="dify-api", service__instance__id="api:1")}
    return {"resourceMetrics": [{"resource": resource, "scopeMetrics": [{"metrics": [gauge]}]}]}


# What is built


def test_a_collector_is_built_of_what_its_manifest_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = _gobuild._script(images.COLLECTOR, tmp_path / "out")
    named = yaml.safe_load((IMAGES / images.COLLECTOR.manifest).read_text())
    modules = [one["gomod"].replace(" ", "@") for kind in named.values() if isinstance(kind, list) for one in kind]
    (fetched,) = (line.split() for line in script.splitlines() if line.startswith("go get "))
    assert set(modules) < set(fetched)
    assert named["dist"]["version"] == images.COLLECTOR.version
    assert f"cd {Path(named['dist']['output_path'])}" in script.splitlines()


def test_another_manifest_is_another_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = set()
    for text in ("a: 1\n", "a: 2\n"):
        (tmp_path / "manifest.yaml").write_text(text)
        names.add(GoBinary("x", "y", "1", via="builder", manifest=str(tmp_path / "manifest.yaml")).file_name)
    assert len(names) == 2


def test_phoenix_is_the_release_that_its_tag_says() -> None:
    (tag,) = images.PHOENIX.tags
    lock = (IMAGES / images.PHOENIX.context / images.PHOENIX.wheels).read_text()
    assert f"\narize-phoenix=={tag.partition('version-')[2]} " in lock


def test_the_role_names_what_the_world_serves() -> None:
    defaults = yaml.safe_load((REPO / "roles" / "traceloop" / "defaults" / "main.yml").read_text())
    named = {defaults[f"traceloop_{what}_image"] for what in ("collector", "phoenix", "lgtm")}
    assert named == {tag for image in images.MONITORING for tag in image.tags}


# The backend that wants a key


@pytest.fixture(scope="module")
def traceloop() -> Iterator[ModuleType]:
    """The program itself; it imports its neighbour by name."""
    folder = str(IMAGES / "upstream")
    sys.path.insert(0, folder)
    spec = importlib.util.spec_from_file_location("world_traceloop", IMAGES / "upstream" / "traceloop.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path.remove(folder)
    yield module
    sys.modules.pop("shelves")


class Sender:
    """Posts to the program behind nginx, as the node at 127.0.0.1 or as another client."""

    def __init__(self, port: int, told: dict[str, object]) -> None:
        self.port, self.told = port, told

    def ask(
        self, method: str, path: str, body: bytes = b"", client: str = "127.0.0.1", **headers: str
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request(method, path, body, {"X-Real-IP": client, **headers})
        with connection.getresponse() as reply:
            return reply.status, reply.headers, reply.read()

    def post(self, signal: str, body: bytes, key: str = KEY, kind: str = "application/x-protobuf", **more: Any) -> int:
        headers = {"Content-Type": kind, **({"Authorization": f"Bearer {key}"} if key else {})}
        return self.ask("POST", f"/otlp/v1/{signal}", body, **headers, **more)[0]

    def received(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.ask("GET", "/otlp/received?node=localhost")[2])
        return found


@pytest.fixture
def sender(traceloop: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sender]:
    told: dict[str, object] = {}
    monkeypatch.setattr(traceloop, "trouble", lambda service, client: told if client == "127.0.0.1" else {})
    monkeypatch.setattr(traceloop, "CONTAINER", "{}")
    monkeypatch.setattr(traceloop, "RECEIVED", traceloop.Received())
    server = traceloop.Server(("127.0.0.1", 0), traceloop.Backend)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield Sender(server.server_address[1], told)
    server.shutdown()
    server.server_close()
    thread.join()


def field(number: int, content: bytes | int) -> bytes:
    """A field of a protobuf message; sizes here are below 128."""
    if isinstance(content, int):
        return bytes([number << 3, content])
    return bytes([number << 3 | 2, len(content)]) + content


def protobuf() -> bytes:
    pairs = (("model", field(1, b"tiny")), ("tokens", field(3, 7)), ("speed", b"\x21" + struct.pack("<d", 1.5)))
    span = field(1, bytes.fromhex(TRACE)) + field(2, bytes.fromhex(SPAN)) + field(5, b"chat tiny")
    span += b"\x39" + struct.pack("<Q", 1)  # the start
    for name, any_value in pairs:
        span += field(9, field(1, name.encode()) + field(2, any_value))
    resource = field(1, b"")
    return field(1, resource + field(2, field(2, span)))


def test_a_span_is_read_in_both_encodings_and_compressed(sender: Sender) -> None:
    assert sender.post("traces", protobuf()) == 200
    assert sender.post("traces", gzip.compress(protobuf()), **{"Content-Encoding": "gzip"}) == 200
    assert sender.post("traces", json.dumps(trace()).encode(), kind="application/json") == 200
    found = sender.received()
    assert found["requests"] == {"traces": {"200": 3}, "metrics": {}}
    first, second, third = found["spans"]
    assert (
        first
        == second
        == {
            "trace_id": TRACE,
            "span_id": SPAN,
            "name": "chat tiny",
            "attributes": {"model": "tiny", "tokens": 7, "speed": 1.5},
        }
    )
    assert (third["trace_id"], third["attributes"]["gen_ai.usage.output_tokens"]) == (TRACE, 3)


def test_metrics_are_counted_by_name(sender: Sender) -> None:
    message = field(1, field(2, field(2, field(1, b"tests.answers")) + field(2, field(1, b"tests.answers"))))
    assert sender.post("metrics", message) == 200
    assert sender.post("metrics", json.dumps(metric()).encode(), kind="application/json") == 200
    assert sender.received()["metrics"] == {"tests.answers": 3}


def test_a_key_is_needed_and_never_kept(sender: Sender) -> None:
    assert sender.post("traces", protobuf(), key="") == 401
    assert sender.post("traces", protobuf()) == 200
    sender.told["key"] = "another"
    assert sender.post("traces", protobuf()) == 401
    found = sender.received()
    assert found["requests"]["traces"] == {"401": 2, "200": 1}
    assert found["keys_sha256"] == ["", hashlib.sha256(KEY.encode()).hexdigest()]
    assert KEY not in json.dumps(found)


def test_trouble_is_for_the_node_that_was_told(sender: Sender) -> None:
    sender.told["status"] = 500
    assert (sender.post("traces", protobuf()), sender.post("traces", protobuf(), client="127.0.0.2")) == (500, 200)
    sender.told.clear()
    sender.told["drop"] = True
    _, headers, _ = sender.ask("POST", "/otlp/v1/traces", protobuf(), Authorization=f"Bearer {KEY}")
    assert headers["X-Accel-Redirect"] == "/drop"
    found = sender.received()
    assert (found["requests"]["traces"], found["spans"]) == ({"500": 1, "444": 1}, [])
    sender.told.clear()
    assert len(json.loads(sender.ask("GET", "/otlp/received")[2])["spans"]) == 1
    assert sender.ask("DELETE", "/otlp/received")[0] == 200
    assert sender.received()["requests"] == {"traces": {}, "metrics": {}}


@pytest.mark.parametrize("body", [protobuf()[:-3], b"\xff", b"\x0f", b"\x0b\x01"])
def test_what_is_no_message_is_refused(sender: Sender, body: bytes) -> None:
    assert sender.post("traces", body) == 400
    assert sender.post("traces", body, kind="application/json") == 400
    assert sender.post("logs", protobuf()) == 404
    assert sender.ask("GET", "/otlp/received?node=no.such.node.invalid")[0] == 404


# In containers


class Network:
    """Containers of the world's images on a network of their own, as compose starts them."""

    def __init__(self, builder: Builder) -> None:
        self._builder = builder
        self._names: list[str] = []
        self.name = f"llmops-test-{uuid.uuid4().hex[:8]}"
        docker("network", "create", self.name)

    def start(self, image: str, *options: str, port: int = 0, command: tuple[str, ...] = ()) -> str:
        name = f"{self.name}-{image}"
        self._names.append(name)
        options += ("--network", self.name, "--network-alias", image)
        options += ("--publish", f"127.0.0.1::{port}") if port else ()
        docker("run", "--detach", "--name", name, *options, self._builder.ensure(image), *command)
        return name

    def close(self) -> None:
        for name in self._names:
            docker("rm", "--force", "--volumes", name, check=False)
        docker("network", "rm", self.name, check=False)


@pytest.fixture(scope="session")
def builder() -> Builder:
    return Builder([*images.MONITORING, images.CHROMIUM])


@pytest.fixture
def network(builder: Builder) -> Iterator[Network]:
    made = Network(builder)
    yield made
    made.close()


def fetched(url: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as reply:
        text = reply.read()
    return json.loads(text) if text.startswith((b"{", b"[")) else text.decode()


def logs(container: str) -> str:
    done = subprocess.run(["docker", "logs", "--tail", "30", container], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def until(done: Callable[[], Any], seconds: float, container: str) -> Any:
    """The first true answer; what refuses or is not there yet is asked again."""
    deadline = time.monotonic() + seconds
    problem: object = "nothing yet"
    while time.monotonic() < deadline:
        try:
            found = done()
            if found:
                return found
        except (OSError, http.client.HTTPException) as error:
            problem = error
        time.sleep(0.3)
    pytest.fail(f"{container} after {seconds} s: {problem}\n{logs(container)}")


@pytest.mark.world
def test_a_span_goes_through_the_collector_to_phoenix(network: Network, tmp_path: Path) -> None:
    """With what the collection relies on: the queue on disk, filled while Phoenix is still away."""
    settings = {
        "extensions": {"file_storage": {"directory": "/queue"}},
        "receivers": {"otlp": {"protocols": {"http": {"endpoint": "0.0.0.0:4318"}}}},
        "processors": {"memory_limiter": {"check_interval": "1s", "limit_mib": 64}, "batch": {"timeout": "100ms"}},
        "exporters": {
            "otlp_http": {
                "endpoint": "http://phoenix:6006",
                "sending_queue": {"storage": "file_storage"},
                "retry_on_failure": {"initial_interval": "1s", "max_interval": "1s"},
            }
        },
        "service": {
            "extensions": ["file_storage"],
            "pipelines": {
                "traces": {
                    "receivers": ["otlp"],
                    "processors": ["memory_limiter", "batch"],
                    "exporters": ["otlp_http"],
                }
            },
        },
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    (tmp_path / "queue").mkdir()
    (tmp_path / "queue").chmod(0o777)
    collector = network.start(
        "otelcol",
        *("--volume", f"{tmp_path}/config.yaml:/etc/otelcol-contrib/config.yaml:ro"),
        *("--volume", f"{tmp_path}/queue:/queue"),
        port=4318,
    )
    assert (inspect("container", collector) or {})["Config"]["User"] == "10001:10001"
    address = f"http://127.0.0.1:{published_port(collector, 4318)}/v1/traces"
    assert until(lambda: fetched(address, trace()) == {"partialSuccess": {}}, 20, collector)
    assert any((tmp_path / "queue").iterdir())

    phoenix = network.start(
        "phoenix",
        *("--env", "PHOENIX_WORKING_DIR=/mnt/data", "--env", "PHOENIX_TELEMETRY_ENABLED=false"),
        *("--volume", "/mnt/data"),
        port=6006,
    )
    page = f"http://127.0.0.1:{published_port(phoenix, 6006)}"
    until(lambda: fetched(f"{page}/healthz") is not None, 240, phoenix)
    (span,) = until(lambda: fetched(f"{page}/v1/projects/default/spans?limit=10")["data"], 30, phoenix)
    assert (span["name"], span["span_kind"], span["context"]["trace_id"]) == ("chat tiny", "LLM", TRACE)
    assert span["attributes"]["llm.token_count.prompt"] == 7
    assert span["attributes"]["llm.token_count.completion"] == 3
    with pytest.raises(Exception, match="executable file not found"):
        docker("exec", phoenix, "sh", "-c", "true")


@pytest.mark.world
def test_lgtm_takes_metrics_with_rules_of_an_operator(network: Network, tmp_path: Path) -> None:
    shipped = yaml.safe_load((IMAGES / "lgtm" / "prometheus.yaml").read_text())
    rule = {"record": "tests:answers:double", "expr": "tests_answers * 2"}
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "t", "interval": "1s", "rules": [rule]}]}))
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump({**shipped, "rule_files": ["/rules.yml"]}))
    lgtm = network.start(
        "lgtm",
        *("--volume", f"{tmp_path}/prometheus.yaml:/otel-lgtm/prometheus.yaml:ro"),
        *("--volume", f"{tmp_path}/rules.yml:/rules.yml:ro"),
        *("--env", "PROMETHEUS_EXTRA_ARGS=--storage.tsdb.retention.time=3d"),
        *("--publish", "127.0.0.1::9090"),
        port=4318,
    )
    collector, prometheus = (f"http://127.0.0.1:{published_port(lgtm, port)}" for port in (4318, 9090))
    until(lambda: docker("exec", lgtm, "ls", "/tmp/ready", check=False), 60, lgtm)
    docker("exec", lgtm, "/otel-lgtm/docker/healthcheck.sh")
    assert fetched(f"{prometheus}/api/v1/status/flags")["data"]["storage.tsdb.retention.time"] == "3d"
    fetched(f"{collector}/v1/metrics", metric())

    def asked(query: str) -> Any:
        return fetched(f"{prometheus}/api/v1/query?query={query}")["data"]["result"]

    (found,) = until(lambda: asked("tests:answers:double"), 30, lgtm)
    assert found["value"][1] == "10"
    assert (found["metric"]["service_name"], found["metric"]["job"]) == ("dify-api", "dify-api")
    fetched(f"{collector}/v1/traces", trace())
    until(lambda: "chat tiny" in logs(lgtm), 10, lgtm)


@pytest.mark.world
def test_lgtm_ends_where_prometheus_refuses_its_configuration(network: Network, tmp_path: Path) -> None:
    (tmp_path / "prometheus.yaml").write_text("rules: []\n")
    lgtm = network.start("lgtm", "--volume", f"{tmp_path}/prometheus.yaml:/otel-lgtm/prometheus.yaml:ro")
    assert docker("wait", lgtm, timeout=60).strip() == "1"


@pytest.mark.world
def test_chromium_runs_the_scripts_of_a_page(builder: Builder) -> None:
    page = "data:text/html,<p id=x></p><script>document.getElementById('x').textContent = 6 * 7</script>"
    shown = docker("run", "--rm", "--network", "none", builder.ensure("chromium"), "--dump-dom", page, timeout=120)
    assert '<p id="x">42</p>' in shown
