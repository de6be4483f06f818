"""From outside: each call of the model is a span at Phoenix and a line of the cost log, and nothing more is seen."""

from __future__ import annotations

import json
import pathlib
import socket
import subprocess
import time
from shlex import quote
from typing import Any

import pytest
import requests

NODE = "llmops-dify1"
MODEL = "deepseek-r1:1.5b"
QUESTION = "Which marzipan keeps longest?"  # a word of it is nowhere else
PHOENIX = "http://127.0.0.1:6006"
COST_LOG = "/opt/dify/volumes/app/storage/cost-log.jsonl"
LOG = pathlib.Path(__file__).resolve().parents[3] / "build" / "logs" / "default-vvv.log"
testinfra_hosts = [f"docker://{NODE}"]


@pytest.fixture(scope="module")
def containers(host: Any) -> dict[str, dict[str, Any]]:
    found = host.check_output("docker ps --all --quiet --filter label=com.docker.compose.project=dify").split()
    inspected = json.loads(host.check_output("docker inspect " + " ".join(found)))
    return {item["Config"]["Labels"]["com.docker.compose.service"]: item for item in inspected}


@pytest.fixture(scope="module")
def usage(host: Any) -> dict[str, int]:
    """What one chat cost, as Dify told the one who asked."""
    key = host.check_output("cat /opt/dify/.llmops-probe.key").strip()
    command = ["docker", "port", NODE, "80/tcp"]
    address = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout.split()[0]
    body = {"inputs": {}, "query": QUESTION, "user": "test", "response_mode": "blocking"}
    answer = requests.post(
        f"http://{address}/v1/chat-messages", json=body, headers={"Authorization": f"Bearer {key}"}, timeout=120
    )
    assert answer.ok, f"HTTP {answer.status_code} {answer.text[:500]}"
    return dict(answer.json()["metadata"]["usage"])


def spans(host: Any) -> list[dict[str, Any]]:
    ask = (
        f"import urllib.request as u; print(u.urlopen('{PHOENIX}/v1/projects/default/spans?limit=100').read().decode())"
    )
    return list(json.loads(host.check_output(f"python3 -c {quote(ask)}"))["data"])


def test_api_and_worker_have_it_read_only(containers: dict[str, dict[str, Any]]) -> None:
    mounted = {
        service: [mount["RW"] for mount in one["Mounts"] if mount["Destination"] == "/opt/llmops-monitoring"]
        for service, one in containers.items()
    }
    assert {service: found for service, found in mounted.items() if found} == {"api": [False], "worker": [False]}


def test_secrets_are_for_root_and_in_the_collector_only(host: Any, containers: dict[str, dict[str, Any]]) -> None:
    for name in ("dify.env", "collector/collector.env"):
        assert host.check_output(f"stat --format='%a %U' /opt/traceloop/{name}") == "600 root", name
    (line,) = host.check_output("grep ^SPARE_TOKEN= /opt/traceloop/collector/collector.env").splitlines()
    token = line.partition("=")[2]
    # Names only: pytest prints what it compares.
    assert [name for name, one in containers.items() if token in json.dumps(one)] == ["otel_collector"]
    assert (token in LOG.read_text(errors="replace")) is False, "the log of the runs at -vvv"
    for service in ("api", "worker", "otel_collector"):
        assert token not in host.check_output(f"docker logs dify-{service}-1 2>&1"), service


def test_collector_and_backend_run(containers: dict[str, dict[str, Any]]) -> None:
    for service in ("otel_collector", "phoenix"):
        state = containers[service]["State"]
        assert state["Status"] == "running", service
        assert state.get("Health", {}).get("Status", "healthy") == "healthy", service
        assert containers[service]["RestartCount"] == 0, service
        assert "max-size" in containers[service]["HostConfig"]["LogConfig"]["Config"], service


def test_a_chat_is_a_span_with_its_tokens(host: Any, usage: dict[str, int]) -> None:
    end = time.monotonic() + 30
    tokens = (usage["prompt_tokens"], usage["completion_tokens"])
    assert all(tokens)
    while True:
        found = [one for one in spans(host) if (MODEL in one["name"] and counted(one) == tokens)]
        if found:
            break
        assert time.monotonic() < end, [(one["name"], counted(one)) for one in spans(host)]
        time.sleep(1)
    assert {one["status_code"] for one in found} <= {"OK", "UNSET"}


def counted(span: dict[str, Any]) -> tuple[int, int]:
    said = span["attributes"]
    return said.get("llm.token_count.prompt", 0), said.get("llm.token_count.completion", 0)


def test_nobody_reads_what_was_asked(host: Any, usage: dict[str, int]) -> None:
    assert usage
    assert "marzipan" not in json.dumps(spans(host))
    assert "marzipan" not in host.check_output("docker logs dify-otel_collector-1 2>&1")
    assert "marzipan" not in host.check_output(f"cat {COST_LOG}")


def test_the_operators_own_plugin_has_written_it_down(host: Any, usage: dict[str, int]) -> None:
    lines = [json.loads(line) for line in host.check_output(f"cat {COST_LOG}").splitlines()]
    same = [one for one in lines if one["completion_tokens"] == usage["completion_tokens"]]
    assert {one["model"] for one in same} == {MODEL}
    assert all(one["cost"] > 0 for one in same)


def test_the_page_is_the_hosts_own_and_the_collector_nobodys(host: Any) -> None:
    assert host.socket("tcp://127.0.0.1:6006").is_listening
    form = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
    command = ["docker", "inspect", "--format", form, NODE]
    address = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout.split()[0]
    for port in (6006, 4317, 4318, 13133, 8888):
        with socket.socket() as probe:
            probe.settimeout(3)
            assert probe.connect_ex((address, port)) != 0, f"{port} is open to the network"
    assert not host.socket("tcp://127.0.0.1:4318").is_listening
