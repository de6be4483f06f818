# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A mirror in one file: what is in it, and what is said about one that is not as it was written."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pathlib
import subprocess
import tarfile
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils import _mirror_bundle as bundle
from ansible_collections.llmops.stack.plugins.module_utils._mirror_index import Index
from ansible_collections.llmops.stack.tests.unit.servers.ollama_registry import Models

Run = Callable[..., dict[str, Any]]
ARCHIVE = "www/github/langgenius/dify/archive/refs/tags/1.12.1.tar.gz"


def put(home: pathlib.Path, path: str, content: bytes) -> str:
    target = home / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def snapshot(home: pathlib.Path) -> dict[str, bytes]:
    return {str(path.relative_to(home)): path.read_bytes() for path in sorted(home.rglob("*")) if path.is_file()}


def timeless(index: bytes) -> Any:
    found = json.loads(index)
    for one in found["files"].values():
        del one["mtime_ns"]
    return found


@pytest.fixture
def home(tmp_path: pathlib.Path) -> pathlib.Path:
    """A small mirror with one of everything."""
    home = tmp_path / "mirror"
    index = Index(str(home))
    index.data["files"] = {}
    for path, content in ((ARCHIVE, b"an archive" * 500), ("www/pypi/files/a-1-py3-none-any.whl", b"a wheel")):
        sha = put(home, path, content)
        index.note(path, sha, path)
    models = Models(home / "models")
    index.put("models", "tiny:latest", {"digest": models.put("tiny:latest", b"weights" * 1000), "size": 1})
    layer = put(home, "layer", b"a layer")
    (home / "layer").unlink()
    put(home, f"registry/docker/registry/v2/blobs/sha256/{layer[:2]}/{layer}/data", b"a layer")
    put(home, "registry/docker/registry/v2/repositories/a/_manifests/tags/1/current/link", b"sha256:00")
    index.put("images", "a:1", {"digest": "sha256:00", "size": 7, "architectures": ["amd64"]})
    put(home, "apt/debrep/pool/x.deb", b"a package")
    # What no bundle has: pages that follow from the rest, uploads that never ended, what is fetched right now.
    put(home, "www/pypi/simple/a/index.html", b"a page")
    put(home, "registry/docker/registry/v2/repositories/a/_uploads/1/data", b"half")
    put(home, ".incoming/x.part", b"half")
    index.save()
    return home


@pytest.fixture
def written(home: pathlib.Path, tmp_path: pathlib.Path, run_module: Run) -> pathlib.Path:
    path = tmp_path / "bundle.tar"
    assert run_module("mirror_bundle", home=str(home), path=str(path), state="written")["changed"]
    return path


def rebuilt(path: pathlib.Path, change: Callable[[dict[str, bytes]], dict[str, bytes]]) -> pathlib.Path:
    """The same bundle with other files in it; its list stays what it was."""
    with tarfile.open(path) as archive:
        files = {one.name: archive.extractfile(one).read() for one in archive}  # type: ignore[union-attr]  # all are files
    with tarfile.open(path, "w") as archive:
        for name, content in change(files).items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def read(run_module: Run, path: pathlib.Path, home: pathlib.Path, **more: Any) -> dict[str, Any]:
    return run_module("mirror_bundle", home=str(home), path=str(path), state="read", **more)


class TestWrite:
    def test_it_holds_what_the_mirror_serves_and_nothing_else(self, written: pathlib.Path) -> None:
        with tarfile.open(written) as archive:
            names = archive.getnames()
        assert names[-2:] == ["llmops-bundle.json", "SHA256SUMS"]
        assert ARCHIVE in names
        assert [name for name in names if "simple" in name or "_uploads" in name or ".incoming" in name] == []
        assert names[:-2] == sorted(names[:-2])

    def test_it_can_be_checked_by_hand(self, written: pathlib.Path, tmp_path: pathlib.Path) -> None:
        subprocess.run(["sha256sum", "--check", "--status", f"{written}.sha256"], check=True, cwd=written.parent)
        unpacked = tmp_path / "unpacked"
        unpacked.mkdir()
        subprocess.run(["tar", "xf", str(written), "-C", str(unpacked)], check=True)
        subprocess.run(["sha256sum", "--check", "--status", "--strict", "SHA256SUMS"], check=True, cwd=unpacked)

    def test_one_that_says_the_same_stays(self, home: pathlib.Path, written: pathlib.Path, run_module: Run) -> None:
        before = written.stat().st_mtime_ns
        again = run_module("mirror_bundle", home=str(home), path=str(written), state="written")
        assert not again["changed"]
        assert written.stat().st_mtime_ns == before
        put(home, "www/new", b"new")
        announced = run_module("mirror_bundle", check=True, home=str(home), path=str(written), state="written")
        assert announced["changed"]
        assert written.stat().st_mtime_ns == before
        assert run_module("mirror_bundle", home=str(home), path=str(written), state="written")["changed"]

    @pytest.mark.parametrize("which", [ARCHIVE, "models/blobs", "registry/docker/registry/v2/blobs"])
    def test_a_damaged_mirror_writes_none(
        self, home: pathlib.Path, tmp_path: pathlib.Path, run_module: Run, failed: Any, which: str
    ) -> None:
        victim = next(path for path in [*sorted((home / which).rglob("*")), home / which] if path.is_file())
        content = bytearray(victim.read_bytes())
        content[3] ^= 1
        victim.write_bytes(content)
        target = tmp_path / "bundle.tar"
        with pytest.raises(failed, match="is damaged") as caught:
            run_module("mirror_bundle", home=str(home), path=str(target), state="written")
        assert str(victim.relative_to(home)) in str(caught.value)
        assert [path.name for path in tmp_path.iterdir()] == ["mirror"]

    def test_not_into_itself(self, home: pathlib.Path, run_module: Run, failed: Any) -> None:
        with pytest.raises(failed, match="hold itself"):
            run_module("mirror_bundle", home=str(home), path=str(home / "www/bundle.tar"), state="written")


class TestRead:
    def test_into_an_empty_mirror(
        self, home: pathlib.Path, written: pathlib.Path, tmp_path: pathlib.Path, run_module: Run
    ) -> None:
        other = tmp_path / "other"
        found = read(run_module, written, other)
        assert found["changed"]
        assert found["new_files"] == found["files"] > 5
        have, had = snapshot(other), snapshot(home)
        own = ("www/marketplace/api/", "www/pypi/simple/", "index.json", ".incoming/")
        assert {name: text for name, text in have.items() if not name.startswith(own)} == {
            name: text for name, text in had.items() if not name.startswith(own) and "_uploads" not in name
        }
        index = Index(str(other))
        assert index.holds(ARCHIVE)
        assert index.get("images", "a:1") and index.get("models", "tiny:latest")
        assert b"a-1-py3-none-any.whl" in have["www/pypi/simple/a/index.html"]
        assert not (other / ".incoming/bundle").exists()

    def test_again_changes_nothing(self, written: pathlib.Path, tmp_path: pathlib.Path, run_module: Run) -> None:
        other = tmp_path / "other"
        read(run_module, written, other)
        before = {path: path.stat().st_mtime_ns for path in other.rglob("*") if path.is_file()}
        assert not read(run_module, written, other)["changed"]
        assert {path: path.stat().st_mtime_ns for path in other.rglob("*") if path.is_file()} == before

    def test_check_mode_reads_all_and_writes_nothing(
        self, written: pathlib.Path, tmp_path: pathlib.Path, run_module: Run
    ) -> None:
        assert read(run_module, written, tmp_path / "other", check=True)["changed"]
        assert not (tmp_path / "other").exists()

    def test_what_the_mirror_has_besides_stays(
        self, written: pathlib.Path, tmp_path: pathlib.Path, run_module: Run
    ) -> None:
        other = tmp_path / "other"
        sha = put(other, "www/github/own.tar.gz", b"own")
        index = Index(str(other))
        index.note("www/github/own.tar.gz", sha, "own")
        index.put("images", "b:1", {"digest": "sha256:11", "size": 1, "architectures": ["amd64"]})
        index.save()
        read(run_module, written, other)
        index = Index(str(other))
        assert index.holds("www/github/own.tar.gz")
        assert set(index.data["images"]) == {"a:1", "b:1"}

    def test_a_damaged_file_here_is_put_right(
        self, written: pathlib.Path, tmp_path: pathlib.Path, run_module: Run
    ) -> None:
        other = tmp_path / "other"
        read(run_module, written, other)
        (other / ARCHIVE).write_bytes(b"An archive" * 500)
        assert read(run_module, written, other)["new_files"] == 1
        assert (other / ARCHIVE).read_bytes() == b"an archive" * 500


class TestBroken:
    """Each is named, and the mirror that was to be filled is as it was."""

    def refused(
        self, run_module: Run, failed: Any, path: pathlib.Path, folder: pathlib.Path, match: str, check: bool = False
    ) -> str:
        other = folder / "other"
        put(other, "www/mine", b"mine")
        with pytest.raises(failed, match=match) as caught:
            read(run_module, path, other, check=check)
        assert snapshot(other) == {"www/mine": b"mine"}
        return str(caught.value)

    @pytest.mark.parametrize("check", [False, True])
    def test_a_flipped_byte(
        self, written: pathlib.Path, tmp_path: pathlib.Path, run_module: Run, failed: Any, check: bool
    ) -> None:
        content = bytearray(written.read_bytes())
        content[content.index(b"an archive") + 7] ^= 1
        written.write_bytes(content)
        said = self.refused(run_module, failed, written, tmp_path, "damaged: ", check)
        assert ARCHIVE in said
        assert "bundle.tar.sha256" in said

    def test_a_flipped_byte_in_every_place(
        self, written: pathlib.Path, tmp_path: pathlib.Path, run_module: Run, failed: Any
    ) -> None:
        """Wherever it is, in headers, lists or padding, nothing wrong is taken."""
        good = written.read_bytes()
        other = tmp_path / "whole"
        read(run_module, written, other)
        right = snapshot(other)
        for place in range(0, len(good), 997):
            content = bytearray(good)
            content[place] ^= 0x40
            written.write_bytes(content)
            target = tmp_path / f"other-{place}"
            try:
                read(run_module, written, target)
            except failed:
                assert not target.exists()
                continue
            found = snapshot(target)
            assert {**found, "index.json": b""} == {**right, "index.json": b""}, place
            assert timeless(found["index.json"]) == timeless(right["index.json"]), place

    def test_a_missing_file(self, written: pathlib.Path, tmp_path: pathlib.Path, run_module: Run, failed: Any) -> None:
        rebuilt(written, lambda files: {name: text for name, text in files.items() if name != ARCHIVE})
        assert f"missing: {ARCHIVE}." in self.refused(run_module, failed, written, tmp_path, "missing")

    def test_a_file_too_many(self, written: pathlib.Path, tmp_path: pathlib.Path, run_module: Run, failed: Any) -> None:
        rebuilt(written, lambda files: {"www/evil": b"evil", **files})
        assert "not listed: www/evil." in self.refused(run_module, failed, written, tmp_path, "not listed")

    @pytest.mark.parametrize("name", ["../etc/passwd", "/etc/passwd", "etc/passwd", "www/../../x", "www", "index.json"])
    def test_a_path_that_leads_elsewhere(
        self, written: pathlib.Path, tmp_path: pathlib.Path, run_module: Run, failed: Any, name: str
    ) -> None:
        rebuilt(written, lambda files: {name: b"x", **files})
        self.refused(run_module, failed, written, tmp_path, "which no bundle has")

    def test_a_link(self, written: pathlib.Path, tmp_path: pathlib.Path, run_module: Run, failed: Any) -> None:
        with tarfile.open(written, "a") as archive:
            member = tarfile.TarInfo("www/link")
            member.type, member.linkname = tarfile.SYMTYPE, "/etc"
            archive.addfile(member)
        self.refused(run_module, failed, written, tmp_path, "which no bundle has")

    @pytest.mark.parametrize("share", [0.2, 0.5, 0.8, 1.0])
    def test_cut_off(
        self, written: pathlib.Path, tmp_path: pathlib.Path, run_module: Run, failed: Any, share: float
    ) -> None:
        with tarfile.open(written) as archive:
            last = archive.getmembers()[-1]
        os.truncate(written, int((last.offset_data + last.size - 1) * share))
        self.refused(run_module, failed, written, tmp_path, "is not whole")

    def test_a_list_that_was_changed_with_its_file(
        self, written: pathlib.Path, tmp_path: pathlib.Path, run_module: Run, failed: Any
    ) -> None:
        """A model's weights are named by their sum, whatever the lists say."""

        def change(files: dict[str, bytes]) -> dict[str, bytes]:
            blob = next(name for name in files if name.startswith("models/blobs/"))
            files[blob] = b"others"
            said = json.loads(files["llmops-bundle.json"])
            said["files"][blob] = {"sha256": hashlib.sha256(b"others").hexdigest(), "size": 6}
            files["llmops-bundle.json"] = json.dumps(said).encode()
            sums = {name: bundle.entry_of(text) for name, text in files.items() if name != "SHA256SUMS"}
            return {**files, "SHA256SUMS": bundle.sums_of(sums)}

        rebuilt(written, change)
        assert "models/blobs/" in self.refused(run_module, failed, written, tmp_path, "damaged")

    def test_another_format(self, written: pathlib.Path, tmp_path: pathlib.Path, run_module: Run, failed: Any) -> None:
        rebuilt(
            written,
            lambda files: {
                **files,
                "llmops-bundle.json": files["llmops-bundle.json"].replace(b'"format": 1', b'"format": 7'),
            },
        )
        self.refused(run_module, failed, written, tmp_path, "format 7")

    def test_no_bundle_at_all(self, tmp_path: pathlib.Path, run_module: Run, failed: Any) -> None:
        self.refused(run_module, failed, tmp_path / "nothing.tar", tmp_path, "No such file")
        (tmp_path / "text.tar").write_text("hello " * 1000)
        self.refused(run_module, failed, tmp_path / "text.tar", tmp_path, "is no bundle|not whole")

    def test_no_room(
        self,
        written: pathlib.Path,
        tmp_path: pathlib.Path,
        run_module: Run,
        failed: Any,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def usage(_path: str) -> Any:
            return type("Usage", (), {"free": 10})()

        monkeypatch.setattr(bundle.shutil, "disk_usage", usage)
        self.refused(run_module, failed, written, tmp_path, "MB are needed")

    def test_one_that_changes_while_it_is_read(
        self,
        written: pathlib.Path,
        tmp_path: pathlib.Path,
        run_module: Run,
        failed: Any,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        module = "ansible_collections.llmops.stack.plugins.module_utils._mirror_bundle_read.verify"

        def late(path: str) -> bundle.Contents:
            said = bundle.listed(path)
            rebuilt(
                pathlib.Path(path), lambda files: {**files, ARCHIVE: files[ARCHIVE].replace(b"archive", b"other!!")}
            )
            return said

        monkeypatch.setattr(module, late)
        self.refused(run_module, failed, written, tmp_path, "has changed while it was read")
