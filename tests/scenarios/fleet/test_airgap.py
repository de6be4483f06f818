"""A site without any network: the mirror is filled from a bundle, and everything else from the mirror."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import fleet
import pytest
from fleet import HUB, Fleet, complaints, finished, finished_at, on
from hosts import hosts, world

pytestmark = pytest.mark.long

MIRROR, DIFY = "fdark0", "fdark1"
BUNDLE = "/srv/fleet-bundle.tar"
# The middle of the largest file in the bundle, and the file taken out of it, as a copy that went wrong has it.
FLIP = f"""
import tarfile
with tarfile.open({BUNDLE!r}) as bundle:
    largest = max(bundle, key=lambda one: one.size)
with open({BUNDLE!r}, "r+b") as file:
    file.seek(largest.offset_data + largest.size // 2)
    byte = file.read(1)[0]
    file.seek(-1, 1)
    file.write(bytes([byte ^ 1]))
print(largest.name)
"""
CHAT = """
import json, urllib.request
body = {"inputs": {}, "query": "Hello", "user": "test", "response_mode": "blocking"}
key = open("/opt/dify/.llmops-probe.key").read().strip()
headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
request = urllib.request.Request("http://127.0.0.1/v1/chat-messages", json.dumps(body).encode(), headers)
print(json.load(urllib.request.urlopen(request, timeout=120))["answer"])
"""


@pytest.fixture(scope="module")
def site(current: str) -> Iterator[Fleet]:
    """Two bare hosts that reach nothing but each other, and a bundle that somebody has carried there."""
    finished(playbook="playbooks/mirror.yml", mirror_bundle_to=BUNDLE, ollama_version=current)
    groups = {"mirror": [MIRROR], "gateway": [MIRROR], "ollama": [DIFY], "dify": [DIFY]}
    with hosts(groups, ollama_version=current, ollama_models=["lone"], mirror_upstream="", mirror_offline=True) as dark:
        world("cut", MIRROR, DIFY)
        pack = f"docker exec llmops-{HUB} sh -c 'cd / && tar -cf - .{BUNDLE}*'"
        carry = f"{pack} | docker exec -i llmops-{MIRROR} tar -xf - -C /"
        subprocess.run(["bash", "-ec", f"set -o pipefail; {carry}"], check=True, timeout=600)
        on(HUB, f"rm {BUNDLE}*")
        yield dark


def test_there_is_no_way_out(site: Fleet) -> None:
    """Not by name, and not to the address that other nodes reach."""
    address = on(HUB, "getent hosts upstream").split()[0]
    knock = f"timeout 5 bash -c '</dev/tcp/{address}/80' 2>/dev/null && echo open || true"
    assert on(HUB, knock) == "open"
    for host in (MIRROR, DIFY):
        assert on(host, "getent hosts upstream || true") == ""
        assert on(host, knock) == ""


def python(host: str, program: str) -> str:
    return on(host, f"python3 - <<'END'{program}END")


def refused(site: Fleet, *words: str) -> None:
    run = site.play("playbooks/mirror.yml", mirror_bundle_from=BUNDLE)
    assert run.status != 0
    for word in words:
        assert word in complaints(run), complaints(run)
    held = on(MIRROR, "find /srv/llmops-mirror/www /srv/llmops-mirror/models -type f 2>/dev/null || true")
    assert held == "", "something was taken from a bad bundle"


def test_a_flipped_byte_is_found_before_anything_is_taken(site: Fleet) -> None:
    name = python(MIRROR, FLIP)
    try:
        refused(site, MIRROR, "damaged", name)
    finally:
        assert python(MIRROR, FLIP) == name


def test_a_missing_file_is_found_before_anything_is_taken(site: Fleet) -> None:
    name = on(MIRROR, f"tar -tf {BUNDLE} | grep '^[^/]*/models/blobs/\\|^models/blobs/' | tail -n 1")
    assert name
    on(MIRROR, f"cp --reflink=auto {BUNDLE} {BUNDLE}.whole && tar --delete -f {BUNDLE} {name}")
    try:
        refused(site, MIRROR, "missing", name)
    finally:
        on(MIRROR, f"mv {BUNDLE}.whole {BUNDLE}")


def test_the_whole_stack_comes_up_from_it(site: Fleet) -> None:
    finished_at(site, playbook="playbooks/mirror.yml", mirror_bundle_from=BUNDLE)
    finished_at(site)
    assert python(DIFY, CHAT) == "Only one node has this."
    again = finished_at(site)
    assert not fleet.changed(again)
