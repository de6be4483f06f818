# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Packages of the distribution through the mirror's cache, with an apt-get that writes down what it is told."""

from __future__ import annotations

import json
import pathlib
import sys
import time
from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils import _mirror_apt as apt_module
from ansible_collections.llmops.stack.plugins.module_utils._mirror_apt import AptCache, local_sources
from ansible_collections.llmops.stack.plugins.module_utils._mirror_fetch import Fetcher, MirrorError, Sources
from ansible_collections.llmops.stack.plugins.module_utils._mirror_index import Index
from ansible_collections.llmops.stack.plugins.module_utils._mirror_store import Mirror, Outcome

TARGETS = """http://one.example/debian/|trixie|main|Debian
http://one.example/debian/|trixie-updates|main|Debian
http://one.example/debian-security/|trixie-security|main|Debian
http://mirror.example/docker-ce/linux/debian/|trixie|stable|Docker
https://two.example/debian/|trixie|main|Debian
http://one.example/debian/|sid|main|Debian
"""
# Into the cache goes what satisfy is told to have, and nothing where the test has put a file in the way.
PROGRAM = f"""#!{sys.executable}
import json, os, pathlib, sys
folder = pathlib.Path(__file__).parent
said = sys.argv[1:]
if "indextargets" in said:
    print((folder / "targets").read_text(), end="")
    sys.exit()
root = next(one.partition("=")[2] for one in said if one.startswith("Dir::State=")).partition("/var/")[0]
note = {{"said": said, "sources": pathlib.Path(root, "etc/apt/sources.list").read_text()}}
with open(folder / "log", "a") as log:
    log.write(json.dumps(note) + "\\n")
if (folder / "broken").exists():
    sys.exit("W: never mind\\nE: Unable to locate package nope\\nE: Broken packages")
if "satisfy" in said:
    (folder / "home/apt").mkdir(parents=True, exist_ok=True)
    (folder / "home/apt" / str(abs(hash(said[-1])))).write_bytes(b"x" * 1000)
"""


class Cache:
    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.index = Index(str(folder / "home"))
        program = folder / "apt-get"
        program.write_text(PROGRAM)
        program.chmod(0o755)
        (folder / "dpkg").symlink_to("/bin/true")
        (folder / "targets").write_text(TARGETS)

    def of(self, suite: str = "trixie", base: str = "debian", packages: tuple[str, ...] = ("zstd",)) -> AptCache:
        need = {"name": f"packages of {base} {suite}", "base": base, "suite": suite, "architectures": ["amd64"]}
        fetcher = Fetcher(str(self.folder / "home"), Sources(), time.monotonic() + 60)
        return AptCache(fetcher, self.index, {**need, "packages": list(packages)}, "http://127.0.0.1:3142")

    @property
    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "log").read_text().splitlines()]


@pytest.fixture
def cache(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setattr(apt_module, "_release", lambda: {"ID": "debian", "VERSION_CODENAME": "trixie"})
    return Cache(tmp_path)


def test_the_host_s_own_sources_through_the_cache(cache: Cache) -> None:
    one = cache.of()
    assert not one.held()
    assert one.bring() == 1000
    assert one.held()
    update, satisfy = cache.log
    assert update["sources"].splitlines() == [
        "deb http://one.example/debian/ trixie main",
        "deb http://one.example/debian/ trixie-updates main",
        "deb http://one.example/debian-security/ trixie-security main",
    ]
    assert "Acquire::http::Proxy=http://127.0.0.1:3142" in update["said"]
    assert satisfy["said"][-5:] == ["satisfy", "--download-only", "--yes", "--no-install-recommends", "zstd"]


def test_another_release_than_the_mirror_s(cache: Cache) -> None:
    cache.of("bookworm").bring()
    assert "deb http://one.example/debian-security/ bookworm-security main" in cache.log[0]["sources"]


def test_what_docker_s_packages_want_comes_along(cache: Cache) -> None:
    files = ["www/docker-ce/linux/debian/dists/trixie/InRelease"]
    cache.index.put("repositories", "Docker's", {"wish": "", "files": files, "depends": "iptables, libc6 (>= 2.34)"})
    one = cache.of()
    one.bring()
    assert cache.log[1]["said"][-1] == "zstd, iptables, libc6 (>= 2.34)"
    other = cache.of("bookworm")
    other.bring()
    assert cache.log[3]["said"][-1] == "zstd"
    assert one.held() and other.held()
    assert not cache.of(packages=("zstd", "haproxy")).held()


def test_what_cannot_be_had_is_told_in_apt_s_words(cache: Cache) -> None:
    (cache.folder / "broken").touch()
    one = cache.of()
    with pytest.raises(MirrorError, match="Unable to locate package nope Broken packages") as caught:
        one.bring()
    assert "the cache of packages at http://127.0.0.1:3142" in caught.value.advice
    assert not one.held()


@pytest.mark.parametrize("check", [True, False])
def test_a_distribution_that_the_mirror_does_not_run(cache: Cache, check: bool) -> None:
    """Its hosts get their packages through the cache, unless that has no way out either."""

    def filled(offline: bool) -> tuple[Outcome, list[str]]:
        home, proxy = str(cache.folder / "home"), "http://127.0.0.1:3142"
        mirror = Mirror(home, Sources(), time.monotonic() + 60, "127.0.0.1:9", proxy, check=check, offline=offline)
        need = {**cache.of("noble", base="ubuntu").need, "kind": "packages", "hosts": ["u1"]}
        return mirror.run([need])[0], mirror.notes

    outcome, (note,) = filled(offline=False)
    assert outcome.action == "none"
    assert "The packages of ubuntu noble will come through the cache when u1 ask" in note and "runs debian" in note
    outcome, notes = filled(offline=True)
    assert (outcome.action, notes) == ("missing", [])
    assert "this mirror runs debian" in outcome.reason and "mirror_apt_port: 0" in outcome.advice


def test_sources_that_no_cache_can_read(cache: Cache) -> None:
    (cache.folder / "targets").write_text("https://two.example/debian/|trixie|main|Debian\n")
    with pytest.raises(MirrorError, match="no package sources of debian that are reached by HTTP") as caught:
        cache.of().bring()
    assert "http:// and not https://" in caught.value.advice


def test_what_a_bundle_brings_is_found_by_the_mirror_itself(cache: Cache) -> None:
    root = cache.folder / "home/apt/one.example/debian"
    for suite in ("trixie", "trixie-updates", "bookworm"):
        (root / "dists" / suite / "main/binary-amd64").mkdir(parents=True)
        (root / "dists" / suite / "main/i18n").mkdir(parents=True)
        (root / "dists" / suite / "InRelease").touch()
    (root / "dists/trixie-security").mkdir()  # without anything of it
    assert local_sources(str(cache.folder / "home")) == [
        f"deb file:{root} trixie main",
        f"deb file:{root} trixie-updates main",
    ]
