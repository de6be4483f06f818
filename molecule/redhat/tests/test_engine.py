"""Engine and Compose from the signed dnf repository: installed, running, able to run a project."""

from __future__ import annotations

import json
from typing import Any

testinfra_hosts = ["docker://llmops-rocky"]


def test_packages_come_from_the_repository_and_are_signed(host: Any) -> None:
    for package in ("docker-ce", "docker-ce-cli", "containerd.io", "docker-compose-plugin"):
        assert host.run(f"rpm --query {package}").succeeded, package
        assert "Key ID" in host.check_output(f"rpm --query --info {package} | grep Signature"), package
    repository = host.check_output("cat /etc/yum.repos.d/docker-ce*.repo")
    assert "gpgcheck = 1" in repository or "gpgcheck=1" in repository


def test_engine_runs_and_starts_at_boot(host: Any) -> None:
    assert host.service("docker").is_running
    assert host.service("docker").is_enabled
    assert json.loads(host.check_output("docker version --format '{{json .Server.Version}}'"))


def test_compose_is_new_enough_and_runs_a_project(host: Any) -> None:
    version = host.check_output("docker compose version --short").lstrip("v")
    assert tuple(map(int, version.split(".")[:2])) >= (2, 24)
    project = "services: {hello: {image: busybox, command: [sleep, '60'], init: true}}"
    host.check_output(f"mkdir -p /tmp/hello && printf '%s' \"{project}\" > /tmp/hello/compose.yaml")
    host.check_output("docker compose --project-directory /tmp/hello up --detach --wait")
    assert "hello" in host.check_output("docker compose --project-directory /tmp/hello ps --services --status running")
    host.check_output("docker compose --project-directory /tmp/hello down")
