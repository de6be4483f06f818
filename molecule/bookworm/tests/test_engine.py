"""Engine and Compose from the signed apt repository on Debian 12."""

from __future__ import annotations

from typing import Any

testinfra_hosts = ["docker://llmops-bookworm1"]


def test_the_node_is_debian_12(host: Any) -> None:
    assert host.system_info.codename == "bookworm"


def test_packages_come_from_the_repository(host: Any) -> None:
    for package in ("docker-ce", "docker-ce-cli", "containerd.io", "docker-compose-plugin"):
        assert host.package(package).is_installed, package
        assert "/docker-ce/linux/debian" in host.check_output(f"apt-cache policy {package}"), package


def test_engine_runs_and_starts_at_boot(host: Any) -> None:
    assert host.service("docker").is_running
    assert host.service("docker").is_enabled


def test_compose_is_new_enough_and_a_container_runs(host: Any) -> None:
    version = host.check_output("docker compose version --short").lstrip("v")
    assert tuple(map(int, version.split(".")[:2])) >= (2, 24)
    assert host.check_output("docker run --rm busybox echo alive") == "alive"
