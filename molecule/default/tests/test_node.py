"""The finished node, looked at from outside: files and containers on it, and HTTP through its published port."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from typing import Any

import pytest
import requests

NODE = "llmops-dify1"
VERSION = "1.12.1"
SERVICES = {
    "api",
    "worker",
    "worker_beat",
    "web",
    "db_postgres",
    "redis",
    "sandbox",
    "plugin_daemon",
    "ssrf_proxy",
    "nginx",
    "weaviate",
}
testinfra_hosts = [f"docker://{NODE}"]


def control(*command: str) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def url() -> str:
    """Port 80 of the node, as the control machine reaches it."""
    return "http://" + control("docker", "port", NODE, "80/tcp").splitlines()[0].replace("0.0.0.0", "127.0.0.1")


@pytest.fixture(scope="module")
def address() -> str:
    form = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
    return control("docker", "inspect", "--format", form, NODE).split()[0]


@pytest.fixture
def containers(host: Any) -> dict[str, dict[str, Any]]:
    found = host.check_output("docker ps --all --quiet --filter label=com.docker.compose.project=dify").split()
    inspected = json.loads(host.check_output("docker inspect " + " ".join(found)))
    return {item["Config"]["Labels"]["com.docker.compose.service"]: item for item in inspected}


def test_engine_runs_and_starts_at_boot(host: Any) -> None:
    assert host.service("docker").is_running
    assert host.service("docker").is_enabled
    assert json.loads(host.file("/etc/docker/daemon.json").content_string)["registry-mirrors"]


def test_layout(host: Any) -> None:
    assert host.file("/opt/dify/current").linked_to == f"/opt/dify/releases/{VERSION}"
    assert host.file("/opt/dify/current/volumes").linked_to == "/opt/dify/volumes"
    for name in ("secrets.json", "current/.env"):
        assert host.check_output(f"stat --dereference --format='%a %U' /opt/dify/{name}") == "600 root", name
    assert host.check_output("stat --format=%u /opt/dify/volumes/app/storage") == "1001"


def test_no_public_default_secret_is_left(host: Any) -> None:
    settings = host.check_output("grep --invert-match '^ *#' /opt/dify/current/.env")
    for public in ("difyai123456", "sk-9f73s3ljTXVcMT3Blb3ljTqtsKiGHXVcMT3BlbkFJLK7U"):
        assert public not in settings
    assert not re.search(r"(?m)^\w*API_KEY=dify-sandbox$", settings)


def test_every_service_runs_and_none_restarts(containers: dict[str, dict[str, Any]]) -> None:
    assert set(containers) >= SERVICES
    for service in SERVICES:
        state = containers[service]["State"]
        assert state["Status"] == "running", service
        assert state.get("Health", {}).get("Status", "healthy") == "healthy", service
        assert containers[service]["RestartCount"] == 0, service


def test_log_files_cannot_fill_the_disk(containers: dict[str, dict[str, Any]]) -> None:
    for service in SERVICES:
        assert "max-size" in containers[service]["HostConfig"]["LogConfig"]["Config"], service


def test_only_what_must_be_is_reachable(host: Any, address: str) -> None:
    assert host.socket("tcp://127.0.0.1:5002").is_listening
    listening = host.check_output("ss --no-header --listening --tcp --numeric")
    for port in (5002, 5003, 5432, 6379, 8194):
        with socket.socket() as probe:
            probe.settimeout(3)
            assert probe.connect_ex((address, port)) != 0, f"{port} is open to the network:\n{listening}"


def test_the_api_says_its_release(url: str) -> None:
    answer = requests.get(f"{url}/console/api/setup", timeout=10)
    assert answer.status_code == 200
    assert answer.json()["step"] == "finished"
    assert answer.headers["X-Version"] == VERSION


def test_the_web_page_is_served(url: str) -> None:
    answer = requests.get(f"{url}/install", timeout=10)
    assert answer.status_code == 200
    assert "text/html" in answer.headers["Content-Type"]


def test_the_database_is_migrated(host: Any) -> None:
    query = "psql -U postgres -d dify -At -c 'select version_num from alembic_version'"
    assert host.check_output(f"docker compose -p dify exec -T db_postgres {query}").strip()
