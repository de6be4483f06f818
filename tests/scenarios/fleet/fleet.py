"""The fleet of Molecule's scenario fleet: who is in it, who says what, and what would tell that one was touched."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import pathlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import requests
import yaml
from machine import ROOT, Machine, Run

sys.path.insert(0, str(ROOT / "tests" / "world"))

import _traffic

INVENTORY = ROOT / "molecule" / "fleet" / "inventory.yml"
WRITTEN: dict[str, Any] = yaml.safe_load(INVENTORY.read_text(encoding="utf-8"))["all"]
GROUPS = {name: group["hosts"] for name, group in WRITTEN["children"]["scenario"]["children"].items()}
(HUB,) = GROUPS["mirror"]
(GATEWAY,) = GROUPS["gateway"]
(DIFY,) = GROUPS["dify"]
OLLAMA = tuple(GROUPS["ollama"])
CANARIES = ("fgpu1", "fcpu1")  # the first of each kind
ONLY, LONE = "lone", "fcpu2"  # a model, and the one node that has it
PARALLEL = int(WRITTEN["vars"]["ollama_num_parallel"])
OLD, NEW, BROKEN = str(WRITTEN["vars"]["ollama_version"]), "0.17.4", "0.18.0"
SENTENCES = {node: f"The {about['scenario_edition']} node says this." for node, about in GROUPS["ollama"].items()}
CHECK_INTERVAL = 2.0  # gateway_check_interval


@dataclasses.dataclass(frozen=True)
class Fleet(Machine):
    """All of an inventory, played at together; `on` is for the host of its name."""

    inventory: pathlib.Path = INVENTORY

    @property
    def inventories(self) -> tuple[pathlib.Path, ...]:
        return (self.inventory,)

    def of(self, name: str) -> Fleet:
        """One host of it."""
        return Fleet(name, self.scenario, self.inventory)

    def _command(self, variables: dict[str, Any]) -> list[str]:
        return ["ansible-playbook", f"--inventory={self.inventory}", f"--extra-vars={json.dumps(variables)}"]


FLEET = Fleet(HUB, "fleet")
play, kill_when = FLEET.play, FLEET.kill_when


def on(node: str, script: str, check: bool = True) -> str:
    return FLEET.of(node).on(script, check)


# -- what a run told


def recap(run: Run) -> dict[str, dict[str, int]]:
    """What the run counted, by host."""
    lines = re.findall(r"(?m)^(\S+)\s+: (ok=.*)$", run.output.rsplit("PLAY RECAP", 1)[-1])
    return {
        host: {name: int(count) for name, count in (word.split("=") for word in counts.split())}
        for host, counts in lines
    }


def changed(run: Run) -> dict[str, int]:
    return {host: counts["changed"] for host, counts in recap(run).items() if counts["changed"]}


def finished(*options: str, **variables: Any) -> Run:
    return finished_at(FLEET, *options, **variables)


def finished_at(hosts: Fleet, *options: str, playbook: str = "site.yml", **variables: Any) -> Run:
    run = hosts.play(playbook, *options, **variables)
    assert run.status == 0, f"{run.message}\n{run.output[-6000:]}"
    return run


def complaints(run: Run) -> str:
    """All that hosts failed with, folded: of a batch each says its own."""
    texts = re.findall(r"(?ms)^fatal: (.*?)(?=^(?:fatal|ok|changed|skipping|PLAY|TASK|NO MORE)\b)", run.output)
    return " ".join(" ".join(texts).split())


def refused(*words: str, playbook: str = "site.yml", options: tuple[str, ...] = (), **variables: Any) -> Run:
    """The run fails, and what an operator reads has these words."""
    run = play(playbook, *options, **variables)
    assert run.status != 0, run.output[-4000:]
    assert "Traceback" not in run.output, run.output[-6000:]
    for word in words:
        assert word in complaints(run), f"{word!r} is not in: {complaints(run) or run.output[-6000:]}"
    return run


def report(name: str = "report.json", **variables: Any) -> dict[str, dict[str, Any]]:
    """The table at the end of verify.yml, by node."""
    out = ROOT / "build" / f"fleet-{name}"
    out.unlink(missing_ok=True)
    run = play("playbooks/verify.yml", stack_report=str(out), **variables)
    assert out.exists(), run.output[-6000:]
    return {row["node"]: row for row in json.loads(out.read_text(encoding="utf-8"))["nodes"]}


# -- what there is


def version(node: str) -> str:
    """Of the server, as itself says."""
    ask = (
        "import urllib.request as r; print(r.urlopen('http://127.0.0.1:11434/api/version', timeout=9).read().decode())"
    )
    return str(json.loads(on(node, f'python3 -c "{ask}"'))["version"])


def versions() -> dict[str, str]:
    return {node: version(node) for node in OLLAMA}


def server(node: str) -> str:
    """The process that serves, and the checksums of all that decides how."""
    return on(
        node,
        """readlink /opt/ollama/current
        systemctl show --property=MainPID,ExecMainStartTimestampMonotonic ollama.service
        cd /etc && sha256sum systemd/system/ollama.service systemd/system/ollama.service.d/* ollama/* | sort""",
    )


def state() -> dict[str, str]:
    """Of every host, what would tell that it was touched."""
    found = {node: server(node) for node in OLLAMA}
    found[f"{GATEWAY}: gateway"] = on(
        GATEWAY,
        """systemctl show --property=MainPID,ExecMainStartTimestampMonotonic llmops-gateway.service
        find /etc/haproxy -type f -exec sha256sum {} + | sort""",
    )
    # The proxy of the apt cache writes logs, so only what is served counts.
    found[f"{HUB}: mirror"] = on(
        HUB, "cd /srv/llmops-mirror && find . -path ./apt -prune -o -type f -printf '%p %s\\n' | sort"
    )
    containers = (
        "docker ps --all --format '{{.ID}} {{.Image}}' | sort; sha256sum /opt/dify/secrets.json /opt/dify/current/.env"
    )
    found[DIFY] = on(DIFY, containers)
    return found


# -- the gateway


def gateway() -> str:
    """Where this machine reaches it."""
    command = ["docker", "port", f"llmops-{GATEWAY}", "11434/tcp"]
    place = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()[0]
    return f"http://{place.replace('0.0.0.0', '127.0.0.1')}"


def ask(model: str = "speak", **body: Any) -> requests.Response:
    return requests.post(
        f"{gateway()}/api/generate", json={"model": model, "prompt": "Hello", "stream": False, **body}, timeout=120
    )


def answer(model: str = "speak") -> tuple[str, str]:
    """The node that answered, as the gateway says, and what it said."""
    got = ask(model)
    assert got.ok, f"HTTP {got.status_code} {got.text[:500]}"
    return got.headers["X-Node"], got.json()["response"]


def answering(calls: int = 4 * len(OLLAMA)) -> set[str]:
    """The nodes that share these calls; what each says is its own sentence."""
    seen = set()
    for _number in range(calls):
        node, said = answer()
        assert said == SENTENCES[node], f"{node} said {said!r}"
        seen.add(node)
    return seen


def wait_until_all_answer(seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while (seen := answering()) != set(OLLAMA):
        assert time.monotonic() < end, f"only {sorted(seen)} answer"
        time.sleep(1)


# -- hosts that die


@contextlib.contextmanager
def off(node: str) -> Iterator[float]:
    """Without power for as long as a test asks: what is sent to it gets no answer, and it keeps its address."""
    route = on(node, "ip -4 route show default")
    on(node, "ip link set eth0 down")
    moment = time.monotonic()
    try:
        with paused(node):
            yield moment
    finally:
        on(node, f"ip link set eth0 up && ip route replace {route}")
        wait_until_all_answer(120)


@contextlib.contextmanager
def paused(node: str) -> Iterator[None]:
    """A kernel that is busy does not always freeze all processes in time, and the engine then gives up."""
    command = ["docker", "pause", f"llmops-{node}"]
    tries = (subprocess.run(command, stdout=subprocess.DEVNULL, check=False, timeout=120) for _number in range(3))
    assert any(one.returncode == 0 for one in tries), f"{node} cannot be frozen"
    try:
        yield
    finally:
        control("docker", "unpause", f"llmops-{node}")


def control(*command: str) -> None:
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True, timeout=120)


# -- the way out


def fetched(since: float, until: float = float("inf"), nodes: tuple[str, ...] = (HUB, DIFY, *OLLAMA)) -> dict[str, int]:
    """Bytes that came to each host from outside: from the upstream, and for the mirror also packages of Debian."""
    asked = _traffic.by_node(_traffic.asked(since, until), nodes)
    found = {node: _traffic.bytes_of(requests) for node, requests in asked.items()}
    found[nodes[0]] += packages(nodes[0], since, until)
    return found


def twice(node: str, since: float, until: float, least: int = 65536) -> list[str]:
    """What is not small and came more than once from the upstream."""
    whole: dict[str, int] = collections.Counter()
    for one in _traffic.by_node(_traffic.asked(since, until), [node])[node]:
        whole[one.path] += one.method == "GET" and one.status == 200 and one.bytes >= least
    return sorted(path for path, times in whole.items() if times > 1)


def packages(hub: str, since: float, until: float) -> int:
    """Bytes of distribution packages and their lists that the mirror's proxy has fetched from outside."""
    lines = on(hub, "cat /var/log/llmops-mirror-apt/apt-cacher.log").splitlines()
    rows = (line.split("|") for line in lines)
    return sum(int(row[2]) for row in rows if row[1] == "I" and since <= float(row[0]) <= until)
