"""A run that is killed or has to go back: the next one finds what was to be undone, and the port stays guarded."""

from __future__ import annotations

import re
import subprocess

import pytest
from server import MACHINE, NODE, on_node, play, process, version

pytestmark = pytest.mark.long

NOTE = "/etc/ollama/way-back.json"
DROP_IN = "/etc/systemd/system/ollama.service.d/10-llmops.conf"
PORT, OTHER = 11434, 11500


def current() -> str:
    return on_node("readlink /opt/ollama/current")


def left_behind() -> str:
    names = "-name '*.llmops-before' -o -name way-back.json -o -name '*~'"
    return on_node(f"find /etc/systemd /etc/ollama /opt/ollama -maxdepth 4 {names}")


def environment() -> list[str]:
    return on_node(f"tr '\\0' '\\n' </proc/{process()}/environ").splitlines()


def guarded() -> set[int]:
    """The ports that the kernel has rules of ours for."""
    rules = on_node("nft list table inet llmops_ollama")
    (ports,) = re.findall(r"tcp dport (.+) jump who", rules)
    return set(map(int, re.findall(r"\d+", ports)))


def stranger_gets_in(port: int) -> bool:
    """Whether a host that is not in ollama_allow can connect."""
    script = f"import socket; socket.create_connection(('{NODE}', {port}), timeout=5)"
    done = subprocess.run(
        ["docker", "exec", "llmops-upstream", "python3", "-c", script], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 or "ConnectionRefusedError" in done.stderr, done.stderr
    return done.returncode == 0


def as_before() -> None:
    """Everything is as the inventory has it, and nothing tells of what happened."""
    assert (version(), current()) == ("0.17.4", "0.17.4")
    assert guarded() == {PORT}
    assert not stranger_gets_in(PORT)
    assert left_behind() == ""
    again = play()
    assert again.status == 0, again.output[-6000:]
    assert again.changed == 0, again.output[-6000:]


@pytest.fixture(autouse=True)
def nothing_left() -> None:
    assert left_behind() == ""


def test_killed_after_the_files_were_written() -> None:
    before = process()
    MACHINE.kill_when("Forget earlier starts", ollama_keep_alive="7m")
    assert "KEEP_ALIVE=7m" in on_node(f"cat {DROP_IN}")
    assert process() == before
    assert on_node(f"test -e {NOTE} && echo noted") == "noted"

    finished = play(ollama_keep_alive="7m")
    assert finished.status == 0, finished.output[-6000:]
    assert "OLLAMA_KEEP_ALIVE=7m" in environment()
    assert left_behind() == ""
    assert play(ollama_keep_alive="7m").changed == 0
    assert play().status == 0
    as_before()


def test_a_way_back_leads_to_what_was_before_the_killed_run() -> None:
    MACHINE.kill_when("Forget earlier starts", ollama_keep_alive="7m")
    broken = play(ollama_version="0.18.0", ollama_keep_alive="9m")
    assert broken.status != 0
    assert "0.17.4 serves again" in broken.message, broken.message
    assert "KEEP_ALIVE" not in on_node(f"cat {DROP_IN}")
    assert not [line for line in environment() if line.startswith("OLLAMA_KEEP_ALIVE=")]
    as_before()


def test_killed_after_the_link_was_switched() -> None:
    before = process()
    MACHINE.kill_when("Forget earlier starts", ollama_version="0.18.0")
    assert current() == "0.18.0"
    assert (version(), process()) == ("0.17.4", before)

    # For this run the link is right and the server is old; it is the server that counts.
    broken = play(ollama_version="0.18.0")
    assert broken.status != 0
    for word in (NODE, "0.18.0", "0.17.4 serves again"):
        assert word in broken.message, broken.message
    as_before()


def test_a_port_is_guarded_for_as_long_as_somebody_listens_there() -> None:
    MACHINE.kill_when("Forget earlier starts", ollama_port=OTHER)
    assert guarded() == {PORT, OTHER}
    assert version() == "0.17.4"
    assert not stranger_gets_in(PORT)

    # The wanted server does not start, so the old one is asked at its old port.
    broken = play(ollama_port=OTHER, ollama_version="0.18.0")
    assert broken.status != 0
    assert "0.17.4 serves again" in broken.message, broken.message
    as_before()

    moved = play(ollama_port=OTHER)
    assert moved.status == 0, moved.output[-6000:]
    assert guarded() == {OTHER}
    assert not stranger_gets_in(OTHER)
    assert left_behind() == ""
    assert play().status == 0
    as_before()


def test_to_the_inside_and_a_start_that_fails() -> None:
    inside = {"ollama_bind": "127.0.0.1", "ollama_containers": False, "ollama_allow": []}
    broken = play(ollama_version="0.18.0", **inside)
    assert broken.status != 0
    assert "0.17.4 serves again" in broken.message, broken.message
    as_before()
