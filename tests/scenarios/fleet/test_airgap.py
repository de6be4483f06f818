"""A site without any network: the mirror is filled from a bundle, and everything else from the mirror."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator

import fleet
import pytest
from fleet import HUB, Fleet, finished_at, on, play
from hosts import hosts, world

pytestmark = pytest.mark.long

MIRROR, DIFY = "fdark0", "fdark1"
BUNDLE = "/srv/fleet-bundle"


@pytest.fixture(scope="module")
def site(current: str) -> Iterator[Fleet]:
    """Two bare hosts that reach nothing but each other, and a bundle that somebody has carried there."""
    written = play("playbooks/mirror.yml", mirror_bundle_to=BUNDLE, ollama_version=current)
    assert written.status == 0, written.output[-6000:]
    groups = {"mirror": [MIRROR], "gateway": [MIRROR], "ollama": [DIFY], "dify": [DIFY]}
    with hosts(groups, ollama_version=current, ollama_models=["talker", "lone"], mirror_upstream="") as dark:
        world("cut", MIRROR, DIFY)
        carry = f"docker cp llmops-{HUB}:{BUNDLE} - | docker cp - llmops-{MIRROR}:/srv/"
        subprocess.run(carry, shell=True, check=True, timeout=600)
        on(HUB, f"rm -rf {BUNDLE}")
        yield dark


def test_there_is_no_way_out(site: Fleet) -> None:
    for host in (MIRROR, DIFY):
        assert on(host, "ip route show default") == ""
        assert on(host, "getent hosts upstream || true") == ""


def refused(site: Fleet, *words: str) -> None:
    run = site.play("playbooks/mirror.yml", mirror_bundle_from=BUNDLE)
    assert run.status != 0
    for word in words:
        assert word in run.message, run.message
    assert on(MIRROR, "ls /srv/llmops-mirror 2>/dev/null || true") == "", "something was taken from a bad bundle"


def largest(site: Fleet) -> str:
    return on(MIRROR, f"find {BUNDLE} -type f -printf '%s %p\\n' | sort -n | tail -n 1 | cut -d' ' -f2-")


def test_a_flipped_byte_is_found_before_anything_is_taken(site: Fleet) -> None:
    file = largest(site)
    flip = f"""python3 - <<'END'
with open({file!r}, 'r+b') as file:
    file.seek(-4096, 2)
    byte = file.read(1)[0]
    file.seek(-1, 1)
    file.write(bytes([byte ^ 1]))
END"""
    on(MIRROR, flip)
    try:
        refused(site, MIRROR, file.rpartition("/")[2])
    finally:
        on(MIRROR, flip)


def test_a_missing_file_is_found_before_anything_is_taken(site: Fleet) -> None:
    file = largest(site)
    on(MIRROR, f"mv {file} /root/missing")
    try:
        refused(site, MIRROR, file.rpartition("/")[2])
    finally:
        on(MIRROR, f"mv /root/missing {file}")


def test_the_whole_stack_comes_up_from_it(site: Fleet) -> None:
    begun = time.time()
    filled = site.play("playbooks/mirror.yml", mirror_bundle_from=BUNDLE)
    assert filled.status == 0, filled.output[-6000:]
    finished_at(site)
    assert on(DIFY, ask_dify()) != ""
    assert fleet.packages(MIRROR, begun, time.time()) == 0
    again = finished_at(site)
    assert not fleet.changed(again)


def ask_dify() -> str:
    """A chat as a program on the host has it: the words of the answer."""
    return """python3 - <<'END'
import json, urllib.request
body = {"inputs": {}, "query": "Hello", "user": "test", "response_mode": "blocking"}
key = open("/opt/dify/.llmops-probe.key").read().strip()
headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
request = urllib.request.Request("http://127.0.0.1/v1/chat-messages", json.dumps(body).encode(), headers)
print(json.load(urllib.request.urlopen(request, timeout=120))["answer"])
END"""
