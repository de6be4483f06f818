"""Bad input: an error that names host, finding and next step, and everything that ran before still runs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from node import INVENTORIES, NODE, ROOT, containers, environment, on_node, play

# A second home on ports of its own: a first install, as far as the role can see, beside the one that runs.
ELSEWHERE: dict[str, Any] = {
    "dify_home": "/opt/elsewhere",
    "dify_version": "1.13.3",
    "dify_http_port": 8081,
    "dify_https_port": 8444,
    "dify_plugin_daemon_port": 5102,
    "dify_min_disk_mb": 0,
}
ARCHIVE = "http://upstream/github/langgenius/dify/archive/refs/tags/1.12.1.tar.gz"


def refused(*words: str, **variables: Any) -> str:
    """Run site.yml with something wrong in it: it fails, and says the host and these words."""
    run = play(**variables)
    assert run.status != 0, run.output[-4000:]
    assert run.message, run.output[-4000:]
    for word in (NODE, *words):
        assert word.lower() in run.message.lower(), f"{word!r} is not in: {run.message[:4000]}"
    assert "Traceback" not in run.output
    return run.message


@pytest.fixture(scope="module", autouse=True)
def put_back() -> Iterator[None]:
    """Nothing of this module stays: the elsewhere home goes, and the node is again what its inventory says."""
    yield
    on_node("rm -rf /opt/elsewhere /tmp/*.tar.gz")
    run = play()
    assert run.status == 0, run.output[-6000:]


@pytest.mark.usefixtures("untouched")
class TestBeforeAnythingIsTouched:
    def test_tag_that_does_not_exist(self) -> None:
        refused("1.12.99", "1.12.1", "dify_allow_unknown_version", dify_version="1.12.99")

    def test_tag_that_does_not_exist_and_is_insisted_on(self) -> None:
        # With traces its image would be asked first whether model calls can be seen in it.
        variables = ELSEWHERE | {
            "dify_version": "1.12.99",
            "dify_allow_unknown_version": True,
            "traceloop_backend": "none",
        }
        refused("404", "1.12.99.tar.gz", "Check dify_version", **variables)

    def test_truncated_archive(self) -> None:
        fetch = f'import urllib.request as u; open("whole", "wb").write(u.urlopen("{ARCHIVE}").read())'
        on_node(f"cd /tmp && python3 -c '{fetch}'")
        on_node("cd /tmp && head -c $(($(stat -c %s whole) / 2)) whole > truncated.tar.gz && rm whole")
        refused(
            "/tmp/truncated.tar.gz",
            "truncated",
            "dify_archive_url",
            **ELSEWHERE | {"dify_archive_url": "/tmp/truncated.tar.gz"},
        )
        assert on_node("ls /opt/elsewhere/releases 2>/dev/null || true") == ""

    def test_archive_of_the_wrong_layout(self) -> None:
        on_node("mkdir -p /tmp/other && echo hello > /tmp/other/readme && tar -czf /tmp/layout.tar.gz -C /tmp other")
        refused("/tmp/layout.tar.gz", "docker-compose.yaml", **ELSEWHERE | {"dify_archive_url": "/tmp/layout.tar.gz"})
        assert on_node("ls /opt/elsewhere/releases 2>/dev/null || true") == ""

    def test_archive_with_the_wrong_checksum(self) -> None:
        refused("checksum", "dify_archive_checksum", **ELSEWHERE | {"dify_archive_checksum": "sha256:" + "0" * 64})

    def test_no_route_to_the_source(self) -> None:
        variables = ELSEWHERE | {"dify_archive_url": "http://nowhere.invalid/dify.tar.gz"}
        refused("nowhere.invalid", "stack_mirror", **variables)

    def test_env_value_with_a_newline(self) -> None:
        refused("LOG_LEVEL", "line", dify_env={"LOG_LEVEL": "INFO\nINJECTED=1"})

    def test_occupied_port(self) -> None:
        on_node("systemd-run --unit=squatter --collect python3 -m http.server 8099")
        try:
            refused("8099", "python3", "dify_http_port", dify_http_port=8099)
        finally:
            on_node("systemctl stop squatter")

    def test_daemon_json_that_is_not_json(self) -> None:
        on_node("cp /etc/docker/daemon.json /root/daemon.json && echo '{ not json' > /etc/docker/daemon.json")
        try:
            refused("/etc/docker/daemon.json", "JSON")
            assert on_node("cat /etc/docker/daemon.json") == "{ not json"
        finally:
            on_node("mv /root/daemon.json /etc/docker/daemon.json")

    def test_full_disk(self) -> None:
        """A file system of 300 kB, in memory: not every node may have a loop device, and ENOSPC is the same."""
        on_node("mkdir -p /opt/elsewhere && mount -t tmpfs -o size=300k tmpfs /opt/elsewhere")
        try:
            refused("/opt/elsewhere", "is full", "Make room", **ELSEWHERE)
        finally:
            on_node("umount /opt/elsewhere")

    def test_too_little_room_for_a_first_install(self) -> None:
        message = refused("dify_min_memory_mb", dify_min_memory_mb=10_000_000)
        assert "nothing was changed" in message


@pytest.mark.usefixtures("containers_untouched")
class TestImagesThatCannotBeHad:
    """The settings say what was asked for by then; the containers are the old ones until every image is there."""

    def test_unreachable_registry(self) -> None:
        refused("registry.invalid", "dify_registry", dify_registry="registry.invalid:5000")

    def test_mirror_with_a_missing_image(self) -> None:
        override = {"services": {"web": {"image": "langgenius/dify-web:no-such-tag"}}}
        refused("web", "docker_registry_mirrors", "stack_mirror", dify_compose_override=override)


@pytest.mark.usefixtures("untouched")
def test_wrong_plugin_key() -> None:
    """The daemon refuses the key: the check that says so is daemon_key, and its advice names the setting."""
    arguments = {"url": "http://127.0.0.1", "plugin_daemon_key": "wrong-" + "k" * 42, "deadline": 5}
    command = [
        "ansible",
        NODE,
        *(f"--inventory={path}" for path in INVENTORIES),
        "--module-name=llmops.stack.dify_health",
    ]
    done = subprocess.run(
        [*command, f"--args={json.dumps(arguments)}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env=environment(),
    )
    assert done.returncode != 0
    for word in (NODE, "daemon_key", "PLUGIN_DAEMON_KEY"):
        assert word in done.stdout
    assert "wrong-" + "k" * 42 not in done.stdout


def test_verify_says_which_container_is_down() -> None:
    """verify.yml on a node with a stopped worker names it; the next site.yml mends it."""
    on_node("docker stop dify-worker-1")
    run = play("playbooks/verify.yml", dify_health_deadline=5)
    assert run.status != 0
    assert NODE in run.message
    assert "worker" in run.message
    run = play()
    assert run.status == 0, run.output[-6000:]
    assert containers()["/dify-worker-1"]
