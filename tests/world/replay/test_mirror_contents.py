# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From one mirror into another and by a bundle into a third, with real registries, nginx and skopeo, on loopback."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ansible_collections.llmops.stack.plugins.filter.mirror import mirror_needs
from ansible_collections.llmops.stack.plugins.module_utils._dify_env import Release
from ansible_collections.llmops.stack.plugins.module_utils._dify_release import load_compose
from ansible_collections.llmops.stack.plugins.module_utils._mirror_release import release_images
from console_run import RunModule, runner
from mirror_host import MirrorHost

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _settings import RELEASES

TAG = "1.12.1"
PROGRAMS = ("skopeo", "docker-registry")
pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, PROGRAMS)) or not os.path.exists("/usr/sbin/nginx") or not (RELEASES / TAG).is_dir(),
    reason="needs skopeo, docker-registry, nginx and the release data of Dify",
)
SUM = hashlib.sha256(b"").hexdigest()
OS = {"base": "centos", "major": "9", "arch": "amd64", "machine": "x86_64"}
HOSTVARS: dict[str, Any] = {
    "one": {
        "ansible_facts": {"llmops_stack": {"os": OS, "gpus": [], "gpu": {}, "dify": {}}},
        "dify_version": TAG,
        "dify_plugins": [],
        "docker_source": "none",
        "ollama_version": "0.17.4",
        "ollama_models": ["tiny"],
    }
}
SEVERAL = "acme/several:1"  # made for two kinds of machines


def skopeo(*arguments: str) -> str:
    done = subprocess.run(["skopeo", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Layout:
    """Images in a folder, as OCI lays them out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entries: list[dict[str, Any]] = []
        (folder / "blobs/sha256").mkdir(parents=True)
        (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def blob(self, content: bytes, kind: str) -> dict[str, Any]:
        sha = hashlib.sha256(content).hexdigest()
        (self.folder / "blobs/sha256" / sha).write_bytes(content)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{sha}", "size": len(content)}

    def image(self, text: str, architecture: str, base: Sequence[bytes] = ()) -> dict[str, Any]:
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as archive:
            member = tarfile.TarInfo("text")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
        layer = gzip.compress(file.getvalue(), mtime=0)
        diff = f"sha256:{hashlib.sha256(file.getvalue()).hexdigest()}"
        diffs = [f"sha256:{hashlib.sha256(gzip.decompress(one)).hexdigest()}" for one in base]
        about = {"architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": [*diffs, diff]}}
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": self.blob(json.dumps(about).encode(), "config.v1+json"),
            "layers": [self.blob(one, "layer.v1.tar+gzip") for one in [*base, layer]],
        }
        return self.blob(json.dumps(manifest).encode(), "manifest.v1+json")

    def name(self, name: str, *architectures: str, text: str = "", base: Sequence[bytes] = ()) -> None:
        images = [
            {**self.image(f"{text or name} {one}", one, base), "platform": {"architecture": one, "os": "linux"}}
            for one in architectures
        ]
        entry = images[0]
        if len(images) > 1:
            index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": images}
            entry = self.blob(json.dumps(index).encode(), "index.v1+json")
        self.entries.append({**entry, "annotations": {"org.opencontainers.image.ref.name": name.replace(":", "_")}})
        whole = {"schemaVersion": 2, "manifests": self.entries}
        (self.folder / "index.json").write_text(json.dumps(whole))

    def push(self, name: str, registry: str) -> None:
        target = f"docker://{registry}/{name if '/' in name else f'library/{name}'}"
        source = f"oci:{self.folder}:{name.replace(':', '_')}"
        skopeo("copy", "--quiet", "--multi-arch", "all", "--dest-tls-verify=false", source, target)


class Sites(NamedTuple):
    upstream: MirrorHost
    site: MirrorHost
    needs: list[dict[str, Any]]
    run: RunModule

    def fill(self, host: MirrorHost | None = None, check: bool = False, **more: Any) -> dict[str, Any]:
        host = host or self.site
        options = {
            "home": str(host.home),
            "needs": self.needs,
            "upstream": f"http://127.0.0.1:{self.upstream.port}",
            "sources": {"images": f"http://127.0.0.1:{self.upstream.registry_port}"},
            "registry": f"127.0.0.1:{host.registry_port}",
            "registry_config": str(host.folder / "etc/registry.yml"),
            "deadline": 120,
            **more,
        }
        return self.run("mirror_store", check=check, **options)

    def asked(self) -> int:
        """How many requests the upstream's nginx has answered."""
        log = self.upstream.folder / "access.log"
        return len(log.read_text().splitlines()) if log.exists() else 0


def raw(host: MirrorHost, name: str) -> str:
    return skopeo("inspect", "--raw", "--tls-verify=false", f"docker://127.0.0.1:{host.registry_port}/{name}")


def digest(host: MirrorHost, name: str) -> str:
    return hashlib.sha256(raw(host, name).encode()).hexdigest()


def release() -> bytes:
    folder, file = RELEASES / TAG / "docker", io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name in ("docker-compose.yaml", ".env.example"):
            archive.add(folder / name, f"dify-{TAG}/docker/{name}")
    return file.getvalue()


def images_of_the_release() -> list[str]:
    folder = RELEASES / TAG / "docker"
    text = (folder / "docker-compose.yaml").read_text()
    return release_images(Release(text, load_compose(text, TAG), (folder / ".env.example").read_text(), {}), {}, {})


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[MirrorHost, MirrorHost]]:
    """The one that has everything, and an empty one."""
    upstream, site = MirrorHost(), MirrorHost()
    upstream.start()
    site.start()
    try:
        base = "home/www/github/ollama/ollama/releases/download/v0.17.4"
        archive = upstream.write(f"{base}/ollama-linux-amd64.tar.zst", os.urandom(200_000))
        sha = hashlib.sha256(archive.read_bytes()).hexdigest()
        upstream.write(f"{base}/sha256sum.txt", f"{sha}  ./ollama-linux-amd64.tar.zst\n")
        upstream.write(f"home/www/github/langgenius/dify/archive/refs/tags/{TAG}.tar.gz", release())
        compose = "home/www/github/docker/compose/releases/download/v2.40.3/docker-compose-linux-x86_64"
        sha = hashlib.sha256(upstream.write(compose, b"compose" * 1000).read_bytes()).hexdigest()
        upstream.write(f"{compose}.sha256", f"{sha} *docker-compose-linux-x86_64\n")
        weights = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{SUM}", "size": 0}
        upstream.write(
            "home/models/manifests/registry.ollama.ai/library/tiny/latest", json.dumps({"layers": [weights]})
        )
        upstream.write(f"home/models/blobs/sha256-{SUM}", b"")
        layout = Layout(tmp_path_factory.mktemp("images"))
        for name in images_of_the_release():
            layout.name(name, "amd64")
            layout.push(name, f"127.0.0.1:{upstream.registry_port}")
        layout.name(SEVERAL, "amd64", "arm64")
        layout.push(SEVERAL, f"127.0.0.1:{upstream.registry_port}")
        yield upstream, site
    finally:
        upstream.stop()
        site.stop()


@pytest.fixture
def sites(hosts: tuple[MirrorHost, MirrorHost], capsys: pytest.CaptureFixture[str]) -> Sites:
    found = mirror_needs(HOSTVARS, {"dify": ["one"], "ollama": ["one"]}, {"images": [SEVERAL]})
    assert [note.split(" for ")[0] for note in found["notes"]] == ["The mirror holds no packages of the distribution"]
    return Sites(*hosts, found["needs"], runner(capsys))


@pytest.fixture
def filled(sites: Sites) -> Sites:
    """With all that is needed, whichever tests came before."""
    assert sites.fill()["missing"] == []
    return sites


def test_check_mode_knows_what_is_known_before(sites: Sites) -> None:
    before = sorted(sites.site.home.rglob("*"))
    found = sites.fill(check=True)
    assert found["changed"]
    assert found["bytes_to_fetch"] > 200_000
    assert {"kind": "release", "name": f"images of Dify {TAG}", "bytes": None} in found["fetched"]
    assert sorted(sites.site.home.rglob("*")) == before


def test_everything_comes_once_with_the_digests_that_it_has(sites: Sites) -> None:
    found = sites.fill()
    assert found["missing"] == []
    wanted = images_of_the_release()
    came = [one["name"] for one in found["fetched"] if one["kind"] == "image"]
    assert sorted(came) == sorted([*wanted, SEVERAL])
    for name in ("langgenius/dify-api:1.12.1", "library/nginx:latest"):
        assert digest(sites.site, name) == digest(sites.upstream, name)
    for path in (f"/github/langgenius/dify/archive/refs/tags/{TAG}.tar.gz", "/v2/library/tiny/manifests/latest"):
        assert sites.site.ask(path) == sites.site.ask(path)
        assert sites.site.ask(path).body == sites.upstream.ask(path).body
    before = sites.asked()
    again = sites.fill()
    assert (again["changed"], again["bytes_transferred"], again["missing"]) == (False, 0, [])
    assert sites.asked() == before


def test_of_several_machines_the_one_that_hosts_are(filled: Sites) -> None:
    whole = json.loads(raw(filled.upstream, SEVERAL))
    own = next(one["digest"] for one in whole["manifests"] if one["platform"]["architecture"] == "amd64")
    assert f"sha256:{digest(filled.site, SEVERAL)}" == own
    more = [{**one, "architectures": ["amd64", "arm64"]} if one["name"] == SEVERAL else one for one in filled.needs]
    found = filled._replace(needs=more).fill()
    assert [one["name"] for one in found["fetched"]] == [SEVERAL]
    assert digest(filled.site, SEVERAL) == digest(filled.upstream, SEVERAL)
    assert not filled._replace(needs=more).fill()["changed"]


def test_what_images_have_in_common_comes_once(sites: Sites, tmp_path: Path) -> None:
    """Also where all of them are fetched at the same time."""
    base = gzip.compress(os.urandom(3_000_000), mtime=0)
    layout = Layout(tmp_path / "images")
    names = [f"acme/part{number}:1" for number in range(4)]
    for name in names:
        layout.name(name, "amd64", base=[base])
        layout.push(name, f"127.0.0.1:{sites.upstream.registry_port}")
    needs = [{"kind": "image", "name": name, "hosts": [], "architectures": ["amd64"]} for name in names]
    found = sites._replace(needs=needs).fill()
    assert len(base) < found["bytes_transferred"] < len(base) + 20_000
    log = (sites.upstream.folder / "access.log").read_text().splitlines()
    layer = f"/blobs/sha256:{hashlib.sha256(base).hexdigest()}"
    assert len([line for line in log if "GET /v2/acme/part" in line and layer in line]) == 1
    for name in names:
        assert digest(sites.site, name) == digest(sites.upstream, name)


def test_an_image_that_is_nowhere(sites: Sites) -> None:
    gone = {"kind": "image", "name": "acme/none:1", "hosts": ["one"], "architectures": ["amd64"]}
    found = sites._replace(needs=[gone]).fill()
    assert found["failed"]
    assert "acme/none:1 (for one): acme/none:1 cannot be copied: " in found["msg"]
    assert "Correct the image's name" in found["msg"]


def test_a_newer_image_under_the_same_tag(filled: Sites, tmp_path: Path) -> None:
    before = digest(filled.upstream, "library/nginx:latest")
    newer = Layout(tmp_path / "newer")
    newer.name("nginx:latest", "amd64", text="a newer nginx")
    newer.push("nginx:latest", f"127.0.0.1:{filled.upstream.registry_port}")
    assert digest(filled.upstream, "library/nginx:latest") != before
    assert not filled.fill()["changed"]
    found = filled.fill(refresh=True)
    assert [one["name"] for one in found["fetched"]] == ["nginx:latest"]
    assert digest(filled.site, "library/nginx:latest") == digest(filled.upstream, "library/nginx:latest")


def test_a_bundle_makes_a_mirror_where_nothing_else_is_reached(filled: Sites, tmp_path: Path) -> None:
    bundle = str(tmp_path / "bundle.tar")
    written = filled.run("mirror_bundle", home=str(filled.site.home), path=bundle, state="written")
    assert written["changed"]
    dark = MirrorHost()
    try:
        read = filled.run("mirror_bundle", home=str(dark.home), path=bundle, state="read")
        assert read["new_files"] == written["files"]
        dark.start()
        found = filled.fill(dark, offline=True, upstream="http://127.0.0.1:9", sources={})
        assert (found["changed"], found["missing"], found["bytes_transferred"]) == (False, [], 0)
        for name in ("langgenius/dify-api:1.12.1", "library/nginx:latest"):
            assert digest(dark, name) == digest(filled.site, name)
        assert dark.ask(f"/v2/library/tiny/blobs/sha256:{SUM}").headers["Location"].endswith(SUM)
        more = [*filled.needs, {"kind": "model", "name": "other:latest", "hosts": ["one"]}]
        missing = filled._replace(needs=more).fill(dark, offline=True)
        assert [one["name"] for one in missing["missing"]] == ["other:latest"]
        assert "mirror_bundle_to" in missing["msg"]
    finally:
        dark.stop()


def test_images_that_nobody_needs_free_their_room(filled: Sites) -> None:
    blobs = filled.site.home / "registry/docker/registry/v2/blobs/sha256"
    before = len(list(blobs.rglob("data")))
    kept = [one for one in filled.needs if one["kind"] not in ("release",) and one["name"] != SEVERAL]
    kept.append({"kind": "image", "name": "redis:6-alpine", "hosts": [], "architectures": ["amd64"]})
    found = filled._replace(needs=kept).fill(prune=True)
    assert "image langgenius/dify-api:1.12.1" in found["removed"]
    assert "image library/redis:6-alpine" not in found["removed"]
    assert found["notes"] == []
    assert len(list(blobs.rglob("data"))) == 3 < before
    assert filled.site.ask("/v2/langgenius/dify-api/manifests/1.12.1", port=filled.site.registry_port).status == 404
    assert digest(filled.site, "library/redis:6-alpine") == digest(filled.upstream, "library/redis:6-alpine")
    # And they come back when they are wanted again.
    assert filled.fill()["missing"] == []
    assert digest(filled.site, "langgenius/dify-api:1.12.1") == digest(filled.upstream, "langgenius/dify-api:1.12.1")
