# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nodes: containers that behave like freshly installed hosts with systemd."""

from __future__ import annotations

import re
import tarfile
import time
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import _host
from _build import Builder
from _engine import docker, inspect, labelled, run, systemd_options
from _settings import DARK, LABEL, NETWORK, WorldError, node_container, say, step

SYSTEMS = {"trixie": "node-trixie", "bookworm": "node-bookworm", "redhat": "node-redhat"}
BOOT_SECONDS = 120


@dataclass(frozen=True)
class Node:
    """`node1=trixie:8080,6006:6006`: the name, what it runs, the port of 127.0.0.1 that leads to its port 80 (0: none),
    and pairs of more such ports and what they lead to."""

    name: str
    system: str
    port: int = 0
    more: tuple[tuple[int, int], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Node:
        found = re.fullmatch(r"([a-z][a-z0-9-]+)=([a-z]+)(?::(\d+)((?:,\d+:\d+)*))?", text)
        if not found or found[2] not in SYSTEMS:
            raise WorldError(
                f"--node {text} is not understood; write NAME=SYSTEM, NAME=SYSTEM:PORT or "
                f"NAME=SYSTEM:PORT,PORT:NODEPORT…, with a NAME of two or more of a-z 0-9 -, and SYSTEM one of "
                f"{', '.join(SYSTEMS)}"
            )
        node = cls(found[1], found[2], int(found[3] or 0), _pairs(found[4] or ""))
        for end, where in ((0, "127.0.0.1"), (1, "the node")):
            ports = [pair[end] for pair in node.published]
            wrong = [port for port in ports if not 0 < port < 65536 or ports.count(port) > 1]
            if wrong:
                raise WorldError(f"--node {text}: {wrong[0]} is not a port of {where}, or is named twice")
        return node

    @property
    def published(self) -> list[tuple[int, int]]:
        """All pairs: a port of 127.0.0.1, and the node's port that it leads to."""
        return [*([(self.port, 80)] if self.port else []), *self.more]


def _pairs(text: str) -> tuple[tuple[int, int], ...]:
    return tuple((int(outer), int(inner)) for outer, inner in re.findall(r"(\d+):(\d+)", text))


def existing() -> list[Node]:
    """The nodes that there are, running or not, by name."""
    nodes = []
    for container in labelled("container"):
        found = inspect("container", container)
        labels = found["Config"]["Labels"] if found else {}
        if "llmops.node" in labels:
            more = _pairs(labels.get("llmops.ports", ""))
            nodes.append(Node(labels["llmops.node"], labels["llmops.system"], int(labels["llmops.port"]), more))
    return sorted(nodes, key=lambda node: node.name)


def ensure(wanted: list[Node], builder: Builder) -> None:
    """Starts the nodes that are missing, one after another: booting at once starves a small machine."""
    there = {node.name: node for node in existing()}
    options: list[str] | None = None
    for node in wanted:
        if node.name in there:
            _keep(node, there[node.name])
            continue
        image = builder.ensure(SYSTEMS[node.system])
        if options is None:
            options = systemd_options(image)
        with step(f"node {node.name} ({node.system})"):
            _start(node, image, options)


def _keep(node: Node, old: Node) -> None:
    if old != node:
        ports = ", ".join(f"{outer}:{inner}" for outer, inner in old.published)
        raise WorldError(
            f"{node.name} is there already, with {old.system} and host ports {ports or 'none'}. "
            f"Remove it first: world.py down {node.name}"
        )
    container = node_container(node.name)
    found = inspect("container", container)
    if found and not found["State"]["Running"]:
        docker("start", container)
        _wait_for_systemd(container)


def _start(node: Node, image: str, options: list[str]) -> None:
    container = node_container(node.name)
    labels = {
        "llmops.node": node.name,
        "llmops.system": node.system,
        "llmops.port": str(node.port),
        "llmops.ports": ",".join(f"{outer}:{inner}" for outer, inner in node.more),
    }
    command = ["create", "--name", container, "--hostname", node.name, "--label", LABEL]
    command += [f"--label={key}={value}" for key, value in labels.items()]
    command += ["--network", NETWORK, "--cgroupns", "private", "--stop-signal", "SIGRTMIN+3"]
    command += ["--tmpfs", "/run", "--tmpfs", "/run/lock", *options, *_host.container_options()]
    # systemd 257 gives up on control groups v1 unless told that it is meant.
    command += ["--env=container=docker", "--env=SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1"]
    # An overlay cannot lie on an overlay, so what the inner engine stores needs a real file system.
    for folder in ("docker", "containerd"):
        volume = f"{container}-{folder}"
        docker("volume", "create", "--label", LABEL, volume)
        command += ["--volume", f"{volume}:/var/lib/{folder}"]
    for outer, inner in node.published:
        command += ["--publish", f"127.0.0.1:{outer}:{inner}"]
    docker(*command, image)
    try:
        _hand_on_authorities(container)
        docker("start", container)
        _wait_for_systemd(container)
    except WorldError:
        remove(node.name)
        raise
    if _host.authorities():
        docker("exec", container, "update-ca-certificates")


def _hand_on_authorities(container: str) -> None:
    certificates = _host.authorities()
    if not certificates:
        return
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for number, path in enumerate(certificates):
            archive.add(path, f"usr/local/share/ca-certificates/{number}-{path.name}")
    docker("cp", "-", f"{container}:/", stdin=buffer.getvalue())


def _wait_for_systemd(container: str) -> None:
    deadline = time.monotonic() + BOOT_SECONDS
    state = ""
    while time.monotonic() < deadline:
        # --wait answers when the boot is over; before the bus is there it fails at once.
        state = docker(
            "exec", container, "systemctl", "is-system-running", "--wait", check=False, timeout=BOOT_SECONDS
        ).strip()
        if state in ("running", "degraded"):
            if state == "degraded":
                failed = docker("exec", container, "systemctl", "--failed", "--plain", "--no-legend", check=False)
                say(f"{container} is up but degraded: {', '.join(line.split()[0] for line in failed.splitlines())}")
            return
        time.sleep(0.5)
    logs = run("docker", "logs", "--tail", "20", container, check=False)
    watches = Path("/proc/sys/fs/inotify/max_user_instances").read_text(encoding="ascii").strip()
    raise WorldError(
        f"systemd in {container} is not up after {BOOT_SECONDS} s (it says {state or 'nothing'}). A node needs about "
        f"six inotify instances, and this kernel has {watches} for all: with many nodes, sysctl "
        f"fs.inotify.max_user_instances=1024 helps.\n{logs}"
    )


def remove(name: str) -> None:
    container = node_container(name)
    docker("rm", "-f", "-v", container, check=False)
    docker("volume", "rm", "-f", f"{container}-docker", f"{container}-containerd", check=False)


def cut(name: str) -> None:
    """Takes every way out from a node: it reaches nothing but the other nodes that were cut, and their doors."""
    container = node_container(name)
    networks = _join_the_dark(container)
    for network in networks - {DARK}:
        docker("network", "disconnect", network, container)


def door(name: str) -> None:
    """Lets nodes that were cut reach this one, which keeps its own way out."""
    _join_the_dark(node_container(name))


def _join_the_dark(container: str) -> set[str]:
    """The networks that the container was in."""
    found = inspect("container", container)
    if not found:
        raise WorldError(f"there is no container {container}; world.py status shows what is")
    if DARK not in labelled("network"):
        docker("network", "create", "--internal", "--label", LABEL, DARK)
    networks = set(found["NetworkSettings"]["Networks"])
    if DARK not in networks:
        docker("network", "connect", DARK, container)
    return networks
