# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filling a mirror: what comes, what is refused, what is told, and that nothing comes twice."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils._mirror_fetch import MirrorError
from ansible_collections.llmops.stack.plugins.module_utils._mirror_index import Index
from ansible_collections.llmops.stack.plugins.module_utils._mirror_packages import order
from ansible_collections.llmops.stack.plugins.module_utils._ollama_names import parse
from ansible_collections.llmops.stack.plugins.module_utils._ollama_store import Store
from ansible_collections.llmops.stack.tests.unit.servers.mirror_upstream import PLUGIN, Upstream
from ansible_collections.llmops.stack.tests.unit.servers.quiet import QuietHandler, QuietServer

Run = Callable[..., dict[str, Any]]
OLLAMA = "github/ollama/ollama/releases/download/v0.17.4"
BASE = f"{OLLAMA}/ollama-linux-amd64.tar.zst"
DIFY = "github/langgenius/dify/archive/refs/tags/1.12.1.tar.gz"
DOCKER = "docker-ce/linux/debian"
ENGINE = {"docker-ce": ["5:9.0~x", "5:28.0.1~x", "5:27.5.1~x"], "containerd.io": ["1.7.2-1", "1.7.10-1"]}


def ollama(name: str = BASE, sha256: str = "") -> dict[str, Any]:
    return {"kind": "archive", "name": "Ollama", "path": name, "sha256": sha256, "sums": f"{OLLAMA}/sha256sum.txt"}


def dify() -> dict[str, Any]:
    return {"kind": "archive", "name": "Dify 1.12.1", "path": DIFY, "check": "targz", "hosts": ["one"]}


def model(name: str) -> dict[str, Any]:
    return {"kind": "model", "name": name, "hosts": ["gpu1"]}


def plugin(version: str = "", *python: str) -> dict[str, Any]:
    return {
        "kind": "plugin",
        "name": f"{PLUGIN} {version}".strip(),
        "plugin": PLUGIN,
        "version": version,
        "checksum": "",
        "python": list(python),
        "architectures": ["amd64"],
        "hosts": ["one"],
    }


def docker(version: str = "") -> dict[str, Any]:
    return {
        "kind": "repository",
        "name": "Docker's packages",
        "form": "deb",
        "path": DOCKER,
        "key": f"{DOCKER}/gpg",
        "suite": "trixie",
        "component": "stable",
        "arch": "amd64",
        "packages": sorted(ENGINE),
        "version": version,
    }


@pytest.fixture
def upstream(tmp_path: pathlib.Path) -> Iterator[Upstream]:
    with Upstream(tmp_path / "upstream").running() as running:
        running.put(BASE, os.urandom(300_000))
        running.sums(OLLAMA)
        running.models.put("tiny:latest", b"weights" * 5000)
        yield running


@pytest.fixture
def home(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "mirror"


@pytest.fixture
def fill(home: pathlib.Path, upstream: Upstream, run_module: Run) -> Callable[..., dict[str, Any]]:
    def run(*needs: dict[str, Any], check: bool = False, **more: Any) -> dict[str, Any]:
        options = {"home": str(home), "upstream": upstream.url, "deadline": 60, "registry": "127.0.0.1:9", **more}
        return run_module("mirror_store", check=check, needs=list(needs), **options)

    return run


def kept(home: pathlib.Path, path: str) -> bytes:
    return (home / "www" / path).read_bytes()


class TestArchives:
    def test_one_comes_with_the_sums_that_hosts_check_by(
        self, fill: Run, home: pathlib.Path, upstream: Upstream
    ) -> None:
        found = fill(ollama())
        assert found["changed"]
        assert found["fetched"] == [{"kind": "archive", "name": "Ollama", "bytes": 300_000}]
        assert 300_000 < found["bytes_transferred"] < 301_000  # with the list of sums
        assert kept(home, BASE) == (upstream.www / BASE).read_bytes()
        assert hashlib.sha256(kept(home, BASE)).hexdigest().encode() in kept(home, f"{OLLAMA}/sha256sum.txt")
        assert (home / "www" / BASE).stat().st_mode & 0o777 == 0o644

    def test_the_second_run_asks_nobody(self, fill: Run, upstream: Upstream) -> None:
        needs = [ollama(), model("tiny")]
        fill(*needs)
        upstream.asked.clear()
        again = fill(*needs)
        assert (again["changed"], again["bytes_transferred"], again["present"]) == (False, 0, 2)
        assert upstream.asked == []

    def test_check_mode_says_how_much_and_fetches_nothing(self, fill: Run, home: pathlib.Path) -> None:
        found = fill(ollama(), model("tiny"), check=True)
        assert found["changed"]
        assert found["bytes_transferred"] == 0
        assert found["bytes_to_fetch"] > 335_000
        assert not home.exists()

    def test_another_file_than_the_published_one_is_refused(
        self, fill: Run, home: pathlib.Path, upstream: Upstream, failed: Any
    ) -> None:
        upstream.spoiled.add(f"/{BASE}")
        with pytest.raises(failed, match=r"and [0-9a-f]{64} was expected; it was not taken") as caught:
            fill(ollama(), model("tiny"))
        missing = caught.value.result["missing"]
        assert [(one["kind"], one["name"]) for one in missing] == [("archive", "Ollama")]
        assert not (home / "www" / BASE).exists()
        assert list((home / ".incoming").iterdir()) == []
        # It kept nothing else from coming.
        assert caught.value.result["fetched"][0]["name"] == "tiny"
        upstream.spoiled.clear()
        assert fill(ollama(), model("tiny"))["present"] == 1

    def test_the_inventory_s_own_sum_counts(self, fill: Run, failed: Any) -> None:
        with pytest.raises(failed, match="A checksum of your own stands in the inventory"):
            fill(ollama(sha256="0" * 64))

    def test_a_list_without_the_file(self, fill: Run, upstream: Upstream, failed: Any) -> None:
        upstream.put(f"{OLLAMA}/sha256sum.txt", b"nothing\n")
        with pytest.raises(failed, match=r"sha256sum.txt has no sha256 of ollama-linux-amd64.tar.zst"):
            fill(ollama())

    def test_one_that_breaks_off_goes_on_where_it_stopped(self, fill: Run, upstream: Upstream) -> None:
        upstream.cut[f"/{BASE}"] = 200_000
        assert 300_000 < fill(ollama())["bytes_transferred"] < 301_000
        assert upstream.asked.count(f"GET /{BASE}") == 2

    def test_what_came_before_the_deadline_is_kept(
        self, fill: Run, home: pathlib.Path, upstream: Upstream, failed: Any
    ) -> None:
        upstream.slow.add(f"/{BASE}")
        with pytest.raises(failed, match=r"The mirror lacks 1 of 2 things. What came is kept"):
            fill(ollama(), model("tiny"), deadline=1)
        assert (home / "models/manifests/registry.ollama.ai/library/tiny/latest").exists()

    def test_a_dify_archive_has_to_be_whole(
        self, fill: Run, upstream: Upstream, pack: Callable[..., pathlib.Path], failed: Any, home: pathlib.Path
    ) -> None:
        """Nobody publishes its sum."""
        whole = pack("1.12.1").read_bytes()
        upstream.put(DIFY, whole[: len(whole) // 2])
        with pytest.raises(failed, match=r"no whole .tar.gz .*it was not taken") as caught:
            fill(dify())
        assert "(for one)" in str(caught.value)
        upstream.put(DIFY, whole)
        fill(dify())
        assert kept(home, DIFY) == whole

    def test_what_is_not_there_is_told_with_its_next_step(self, fill: Run, failed: Any) -> None:
        with pytest.raises(failed, match=r"HTTP 404.*Correct the name or version") as caught:
            fill(dify())
        assert str(caught.value).startswith("The mirror lacks 1 of 1 things.\nDify 1.12.1 (for one): ")

    def test_an_upstream_that_is_not_there(self, fill: Run, failed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("time.sleep", lambda _seconds: None)
        with pytest.raises(failed, match=r"cannot be reached: Connection refused"):
            fill(dify(), upstream="http://127.0.0.1:9")

    def test_a_site_without_a_way_out(self, fill: Run, upstream: Upstream, failed: Any) -> None:
        fill(ollama())
        upstream.asked.clear()
        with pytest.raises(failed, match=r"this mirror does not have it. Run playbooks/mirror.yml .*mirror_bundle_to"):
            fill(ollama(), dify(), model("tiny"), plugin(), docker(), offline=True)
        assert fill(ollama(), offline=True, refresh=True)["present"] == 1
        assert upstream.asked == []

    def test_a_file_that_was_changed_here_is_fetched_again(self, fill: Run, home: pathlib.Path) -> None:
        fill(ollama())
        good = kept(home, BASE)
        (home / "www" / BASE).write_bytes(good[:-1] + b"x")
        assert fill(ollama())["bytes_transferred"] > 300_000
        assert kept(home, BASE) == good

    def test_one_that_somebody_put_there_is_taken_when_it_is_right(
        self, fill: Run, home: pathlib.Path, upstream: Upstream
    ) -> None:
        target = home / "www" / BASE
        target.parent.mkdir(parents=True)
        target.write_bytes((upstream.www / BASE).read_bytes())
        assert fill(ollama())["bytes_transferred"] < 1000
        assert f"GET /{BASE}" not in upstream.asked


class TestModels:
    def test_names_and_digests_are_those_of_the_registry(
        self, fill: Run, home: pathlib.Path, upstream: Upstream
    ) -> None:
        digest = upstream.models.put("registry.ollama.ai/me/other:7b", b"o" * 70_000, indent=2)
        fill(model("tiny"), model("me/other:7b"))
        store = Store(str(home / "models"))
        found = store.find(parse("me/other:7b"))
        assert found.manifest is not None
        assert found.manifest.sha == digest
        assert all(
            (home / "models/blobs" / f"sha256-{one.sha}").stat().st_size == one.size for one in found.manifest.blobs
        )

    def test_a_model_of_another_registry_is_found_by_hosts_that_leave_its_name_out(
        self, fill: Run, home: pathlib.Path, upstream: Upstream
    ) -> None:
        upstream.models.put("registry.ollama.ai/me/gguf:Q4", b"g" * 1000)
        fill(model("hf.co/me/gguf:Q4"))
        folder = home / "models/manifests"
        assert (folder / "hf.co/me/gguf/Q4").read_bytes() == (folder / "registry.ollama.ai/me/gguf/Q4").read_bytes()

    def test_a_damaged_blob_is_refused_and_its_model_is_not_there(
        self, fill: Run, home: pathlib.Path, upstream: Upstream, failed: Any
    ) -> None:
        sha = upstream.models.weights_of("tiny:latest").name.removeprefix("sha256-")
        upstream.spoiled.add(f"/v2/library/tiny/blobs/sha256:{sha}")
        with pytest.raises(failed, match="was not taken"):
            fill(model("tiny"))
        assert not (home / "models/manifests").exists()

    def test_a_name_that_no_registry_has(self, fill: Run, failed: Any) -> None:
        with pytest.raises(failed, match=r"has no model library/nope:latest. Correct the name in ollama_models."):
            fill(model("nope"))

    def test_a_newer_one_is_asked_for_when_told(self, fill: Run, upstream: Upstream) -> None:
        fill(model("tiny"))
        upstream.models.put("tiny:latest", b"newer" * 5000)
        assert not fill(model("tiny"))["changed"]
        assert fill(model("tiny"), refresh=True)["bytes_transferred"] > 25_000 - 1
        assert not fill(model("tiny"), refresh=True)["changed"]

    def test_tags_of_the_same_weights_bring_them_once(self, fill: Run, upstream: Upstream) -> None:
        for tag in "abcd":
            upstream.models.put(f"same:{tag}", b"w" * 200_000)
        assert fill(*(model(f"same:{tag}") for tag in "abcd"))["bytes_transferred"] < 201_000

    def test_a_lost_blob_comes_back(self, fill: Run, home: pathlib.Path, upstream: Upstream) -> None:
        fill(model("tiny"))
        (home / "models/blobs" / upstream.models.weights_of("tiny:latest").name).unlink()
        assert fill(model("tiny"))["bytes_transferred"] == 35_000


class TestImages:
    def test_a_registry_that_is_ill_is_told_with_its_own_log(self, fill: Run, home: pathlib.Path, failed: Any) -> None:
        """The package's own unit, docker-registry, is not the one that runs."""

        class Ill(QuietHandler):
            def do_HEAD(self) -> None:
                self.send_response(500)
                self.send_header("Content-Length", "0")
                self.end_headers()

        index = Index(str(home))
        index.put("images", "a/b:1", {"digest": "sha256:0", "architectures": ["amd64"]})
        index.save()
        need = {"kind": "image", "name": "a/b:1", "architectures": ["amd64"]}
        with QuietServer(("127.0.0.1", 0), Ill) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            with pytest.raises(failed, match=r"HTTP 500.* journalctl -u llmops-mirror-registry"):
                fill(need, registry=f"127.0.0.1:{server.server_address[1]}")
            server.shutdown()


class TestPlugins:
    def test_the_newest_with_what_it_needs(self, fill: Run, home: pathlib.Path, upstream: Upstream) -> None:
        upstream.plugin("0.1.0")
        identifier = upstream.plugin("0.2.0", requirements="# needs\nalpha>=1\n--index-url http://nowhere\n")
        upstream.wheel("alpha", "1.0", requires=('beta; python_version < "3.12"', 'gamma; python_version >= "3.12"'))
        upstream.wheel("alpha", "1.5", requires=('beta; python_version < "3.12"', 'gamma; python_version >= "3.12"'))
        upstream.wheel("beta", "1.0")
        upstream.wheel("gamma", "2.0", tag="cp312-cp312-manylinux_2_17_x86_64")
        found = fill(plugin("", "3.12"))
        assert [one["kind"] for one in found["fetched"]] == ["plugin", "wheels"]
        checksum = identifier.partition("@")[2]
        assert kept(home, f"marketplace/packages/{checksum}.difypkg") == upstream.packages[identifier]
        files = sorted(path.name for path in (home / "www/pypi/files").iterdir())
        assert files == ["alpha-1.5-py3-none-any.whl", "gamma-2.0-cp312-cp312-manylinux_2_17_x86_64.whl"]
        assert "gamma" in kept(home, "pypi/simple/index.html").decode()
        sha = hashlib.sha256((home / "www/pypi/files" / files[0]).read_bytes()).hexdigest()
        assert f'"../../files/{files[0]}#sha256={sha}"' in kept(home, "pypi/simple/alpha/index.html").decode()
        again = fill(plugin("", "3.12"))
        assert (again["changed"], again["bytes_transferred"], again["present"]) == (False, 0, 2)

    def test_the_marketplace_s_answers_name_what_is_here(
        self, fill: Run, home: pathlib.Path, upstream: Upstream
    ) -> None:
        old, new = upstream.plugin("0.9.0"), upstream.plugin("0.10.0")
        fill(plugin("0.9.0"), plugin("0.10.0"))
        upstream.plugin("0.11.0")
        assert not fill(plugin("0.9.0"), plugin("0.10.0"))["changed"]
        api = f"marketplace/api/v1/plugins/{PLUGIN}"
        versions = json.loads(kept(home, f"{api}/versions.json"))["data"]["versions"]
        assert [one["unique_identifier"] for one in versions] == [new, old]
        card = json.loads(kept(home, f"{api}.json"))["data"]["plugin"]
        assert (card["latest_version"], card["latest_package_identifier"]) == ("0.10.0", new)
        assert card["label"] == {"en_US": "Ollama"}
        assert json.loads(kept(home, "marketplace/api/v1/plugins/batch.json"))["data"]["plugins"] == [card]

    def test_another_package_than_it_says(self, fill: Run, upstream: Upstream, failed: Any, home: pathlib.Path) -> None:
        identifier = upstream.plugin("0.2.0")
        other = upstream.packages[upstream.plugin("0.2.0", requirements="evil\n")]
        upstream.packages = {identifier: other}
        with pytest.raises(failed, match="by its content; it was refused"):
            fill(plugin())
        upstream.packages = {identifier: other[:50]}
        with pytest.raises(failed, match="no package of a plugin"):
            fill(plugin())
        assert not (home / "www/marketplace/packages").exists()

    def test_what_its_project_needs_where_there_are_no_requirements(
        self, fill: Run, home: pathlib.Path, upstream: Upstream
    ) -> None:
        upstream.plugin("0.2.0", project='[project]\nname = "x"\ndependencies = ["beta~=1.0"]\n')
        upstream.wheel("beta", "1.0")
        fill(plugin("", "3.12"))
        assert (home / "www/pypi/files/beta-1.0-py3-none-any.whl").exists()

    def test_a_package_that_no_index_has(self, fill: Run, upstream: Upstream, failed: Any) -> None:
        upstream.plugin("0.2.0", requirements="delta==3\n")
        with pytest.raises(failed, match=r"cannot all be had: .*delta==3.*mirror_plugin_python"):
            fill(plugin("", "3.12"))

    def test_a_version_that_the_marketplace_has_not(self, fill: Run, upstream: Upstream, failed: Any) -> None:
        upstream.plugin("0.2.0")
        with pytest.raises(failed, match=r"has no version 9.9 of langgenius/ollama; it has 0.2.0"):
            fill(plugin("9.9"))


class TestPackages:
    @pytest.mark.parametrize(("version", "engine"), [("", "5:28.0.1~x"), ("27.5", "5:27.5.1~x")])
    def test_the_lists_as_they_are_and_the_packages_that_are_wanted(
        self, fill: Run, home: pathlib.Path, upstream: Upstream, version: str, engine: str
    ) -> None:
        upstream.apt(DOCKER, ENGINE)
        found = fill(docker(version))
        assert found["bytes_transferred"] > 0
        packages = sorted(path.name for path in (home / "www" / DOCKER).rglob("*.deb"))
        assert packages == ["containerd.io_1.7.10-1_amd64.deb", f"docker-ce_{engine.replace(':', '%3a')}_amd64.deb"]
        for path in ("gpg", "dists/trixie/InRelease", "dists/trixie/stable/binary-amd64/Packages.gz"):
            assert kept(home, f"{DOCKER}/{path}") == (upstream.www / DOCKER / path).read_bytes()
        upstream.asked.clear()
        assert not fill(docker(version))["changed"]
        assert upstream.asked == []

    def test_by_hash_where_the_repository_has_it(self, fill: Run, home: pathlib.Path, upstream: Upstream) -> None:
        upstream.apt(DOCKER, ENGINE, by_hash=True)
        fill(docker())
        folder = home / "www" / DOCKER / "dists/trixie/stable/binary-amd64"
        sha = hashlib.sha256((folder / "Packages.gz").read_bytes()).hexdigest()
        assert (folder / "by-hash/SHA256" / sha).read_bytes() == (folder / "Packages.gz").read_bytes()

    def test_a_package_that_is_not_what_the_list_says(
        self, fill: Run, home: pathlib.Path, upstream: Upstream, failed: Any
    ) -> None:
        upstream.apt(DOCKER, ENGINE)
        upstream.spoiled.add(f"/{DOCKER}/dists/trixie/pool/containerd.io_1.7.10-1_amd64.deb")
        with pytest.raises(failed, match="was not taken"):
            fill(docker())
        # Nothing leads to what is half there.
        assert not (home / "www" / DOCKER / "dists/trixie/InRelease").exists()

    def test_a_newer_engine_is_asked_for_when_told(self, fill: Run, home: pathlib.Path, upstream: Upstream) -> None:
        upstream.apt(DOCKER, ENGINE)
        fill(docker())
        upstream.apt(DOCKER, {**ENGINE, "docker-ce": ["5:29.0.0~x"]})
        assert not fill(docker())["changed"]
        assert fill(docker(), refresh=True)["changed"]
        assert (home / "www" / DOCKER / "dists/trixie/pool/docker-ce_5%3a29.0.0~x_amd64.deb").exists()

    def test_a_version_that_is_not_listed(self, fill: Run, upstream: Upstream, failed: Any) -> None:
        upstream.apt(DOCKER, ENGINE)
        with pytest.raises(failed, match=r"lists no package docker-ce 26.1. Correct docker_version"):
            fill(docker("26.1"))

    def test_check_mode_knows_the_bytes(self, fill: Run, upstream: Upstream, home: pathlib.Path) -> None:
        upstream.apt(DOCKER, ENGINE)
        assert fill(docker(), check=True)["bytes_to_fetch"] == 50 * len("docker-ce 5:28.0.1~xcontainerd.io 1.7.10-1")
        assert not (home / "www").exists()

    def test_dnf_s_lists_and_packages(self, fill: Run, home: pathlib.Path, upstream: Upstream, failed: Any) -> None:
        folder = "docker-ce/linux/centos/9/x86_64/stable"
        upstream.dnf(folder, {"docker-ce": ["27.5.1-1", "28.0.1-1"], "other": ["1-1"]})
        upstream.put("docker-ce/linux/centos/gpg", b"a key")
        need = {
            **docker(),
            "form": "rpm",
            "path": folder,
            "key": "docker-ce/linux/centos/gpg",
            "packages": ["docker-ce"],
        }
        fill(need)
        assert [path.name for path in (home / "www" / folder).rglob("*.rpm")] == ["docker-ce-28.0.1-1.x86_64.rpm"]
        for path in ("repodata/repomd.xml", "repodata/primary.xml.gz", "repodata/filelists.xml.gz"):
            assert kept(home, f"{folder}/{path}") == (upstream.www / folder / path).read_bytes()
        assert not fill(need)["changed"]
        upstream.spoiled.add(f"/{folder}/repodata/primary.xml.gz")
        with pytest.raises(failed, match="was not taken"):
            fill({**need, "name": "again"}, home=str(home.parent / "other"))

    def test_what_docker_wants_of_the_distribution_is_noted(
        self, fill: Run, home: pathlib.Path, upstream: Upstream
    ) -> None:
        wants = "containerd.io (>= 1.7), docker-ce-cli, iptables, libseccomp2 (>= 2.3.0)"
        upstream.apt(DOCKER, {**ENGINE, "docker-ce-cli": ["5:28.0.1~x"]}, depends={"docker-ce": wants})
        fill({**docker(), "packages": ["containerd.io", "docker-ce", "docker-ce-cli"]})
        noted = Index(str(home)).get("repositories", "Docker's packages")
        assert noted is not None
        assert noted["depends"] == "iptables, libseccomp2 (>= 2.3.0)"

    @pytest.mark.parametrize(
        ("older", "newer"),
        [("1.9", "1.10"), ("5:1.0", "6:0.9"), ("1.0~rc1", "1.0"), ("1.0", "1.0a"), ("28.0.1-1~debian.13", "28.0.1-2")],
    )
    def test_versions(self, older: str, newer: str) -> None:
        assert order(older) < order(newer)


class TestPrune:
    def test_what_no_need_stands_for_goes(self, fill: Run, home: pathlib.Path, upstream: Upstream) -> None:
        other = f"{OLLAMA}/ollama-linux-arm64.tar.zst"
        upstream.put(other, b"arm" * 1000)
        upstream.sums(OLLAMA)
        upstream.models.put("big:latest", b"big" * 9000)
        upstream.plugin("0.1.0", requirements="beta\n")
        upstream.plugin("0.2.0", requirements="alpha\n")
        for name in ("alpha", "beta"):
            upstream.wheel(name, "1.0")
        upstream.apt(DOCKER, ENGINE)
        everything = [ollama(), {**ollama(other), "name": "Ollama for arm64"}, model("tiny"), model("big"), docker()]
        fill(*everything, plugin("0.1.0", "3.12"), plugin("0.2.0", "3.12"))
        mine = home / "www/github/mine"
        mine.write_text("mine")
        wanted = [ollama(), model("tiny"), plugin("0.2.0", "3.12")]
        announced = fill(*wanted, prune=True, check=True)["removed"]
        found = fill(*wanted, prune=True)
        assert found["removed"] == announced
        assert set(found["removed"]) == {
            "Docker's packages",
            "Ollama for arm64",
            "model big:latest",
            f"plugin {PLUGIN}:0.1.0",
        }
        index = Index(str(home))
        assert index.holds(BASE.join(["www/", ""]))
        assert not (home / "www" / other).exists()
        assert not (home / "www/docker-ce").exists()
        assert [path.name for path in (home / "www/pypi/files").iterdir()] == ["alpha-1.0-py3-none-any.whl"]
        assert not (home / "www/pypi/simple/beta").exists()
        assert [path.name for path in (home / "models/manifests/registry.ollama.ai/library").iterdir()] == ["tiny"]
        assert len(list((home / "models/blobs").iterdir())) == 3
        assert mine.exists()
        assert not fill(*wanted, prune=True)["changed"]

    def test_nothing_goes_while_something_is_missing(
        self, fill: Run, home: pathlib.Path, upstream: Upstream, failed: Any
    ) -> None:
        fill(ollama(), model("tiny"))
        with pytest.raises(failed, match="lacks 1 of 2"):
            fill(ollama(), model("nope"), prune=True)
        assert (home / "models/manifests/registry.ollama.ai/library/tiny/latest").exists()


def test_an_unknown_part_of_a_mirror(fill: Run, failed: Any) -> None:
    with pytest.raises(failed, match="mirror_sources has docker, and the parts of a mirror are github, docker-ce"):
        fill(ollama(), sources={"docker": "http://x"})


def test_a_login_of_the_upstream_is_never_shown(fill: Run, upstream: Upstream, failed: Any) -> None:
    url = upstream.url.replace("://", "://me:secret@")
    with pytest.raises(failed) as caught:
        fill(dify(), upstream=url)
    assert "secret" not in json.dumps(caught.value.result)


@pytest.mark.parametrize("path", ["/etc/passwd", "../outside", "www/docker-ce/../../../etc/cron.d/x", "models/.."])
def test_nothing_is_written_outside_of_the_home(tmp_path: pathlib.Path, path: str) -> None:
    """The lists of package sources name files, and whoever serves them chooses the names."""
    index = Index(str(tmp_path))
    with pytest.raises(MirrorError, match="outside of"):
        index.absolute(path)
    assert index.absolute("www/a..b/c") == f"{tmp_path}/www/a..b/c"
