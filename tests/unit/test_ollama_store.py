# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A store on disk: manifests found and judged, blobs hashed and remembered."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils import _ollama_digest as digest_module
from ansible_collections.llmops.stack.plugins.module_utils._ollama_digest import Digests
from ansible_collections.llmops.stack.plugins.module_utils._ollama_names import parse
from ansible_collections.llmops.stack.plugins.module_utils._ollama_store import Manifest, Store
from ansible_collections.llmops.stack.tests.unit.servers.ollama_registry import Models
from hypothesis import given
from hypothesis import strategies as st


@pytest.fixture
def models(tmp_path: pathlib.Path) -> Models:
    models = Models(tmp_path / "models")
    models.put("Talk:Latest", b"w" * 5000)
    models.put("other:1", b"w" * 5000, extra=b"other")
    return models


@pytest.fixture
def store(models: Models) -> Store:
    return Store(str(models.folder))


def manifest(store: Store, name: str = "talk") -> Manifest:
    found = store.find(parse(name)).manifest
    assert found
    return found


class TestManifests:
    def test_found_in_any_case(self, store: Store, models: Models) -> None:
        for name in ("talk", "TALK:LATEST", "Library/Talk:latest"):
            found = store.find(parse(name))
            assert found.state == "ok" and store.name_of(found.path) == "Talk:Latest"
        assert manifest(store).sha == hashlib.sha256(models.manifest_path("Talk:Latest").read_bytes()).hexdigest()
        assert manifest(store).size == sum(one.size for one in manifest(store).blobs)

    def test_an_exact_name_wins(self, store: Store, models: Models) -> None:
        models.put("talk:latest", b"x")
        assert store.name_of(store.find(parse("talk")).path) == "talk:latest"
        assert store.name_of(store.find(parse("Talk:Latest")).path) == "Talk:Latest"

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("", "is no JSON object"),
            ("[]", "is no JSON object"),
            ("{}", "names no weights"),
            ('{"layers": 1}', "has no list of layers"),
            ('{"layers": [{"digest": "sha256:0", "size": 1}]}', "without a digest and a size"),
            ('{"layers": [null]}', "without a digest and a size"),
            (
                json.dumps({"layers": [], "config": {"digest": "sha256:" + "0" * 64, "size": 1}}),
                "names no weights",
            ),
        ],
    )
    def test_garbage(self, store: Store, models: Models, text: str, reason: str) -> None:
        models.manifest_path("other:1").write_text(text)
        found = store.find(parse("other:1"))
        assert found.state == "garbage" and reason in found.reason

    @given(st.binary(max_size=200))
    def test_any_bytes_are_judged(self, raw: bytes) -> None:
        with pytest.raises(ValueError):
            Manifest(raw)

    def test_a_folder_in_its_place(self, store: Store, models: Models) -> None:
        models.manifest_path("third:1").mkdir(parents=True)
        assert store.find(parse("third:1")).state == "garbage"

    def test_dangling_links(self, store: Store, models: Models) -> None:
        hidden = models.manifest_path("other:1").with_name(".hidden")
        hidden.symlink_to("/nowhere")
        # Not where the server looks for manifests, so it breaks nothing.
        (models.folder / "manifests/registry.ollama.ai/elsewhere").symlink_to("/nowhere")
        models.manifest_path("good:1").parent.mkdir()
        models.manifest_path("good:1").symlink_to(models.manifest_path("other:1"))
        assert store.dangling() == [str(hidden)] and store.find(parse("good:1")).state == "ok"

    def test_formatting_makes_no_other_model(self, store: Store, models: Models) -> None:
        raw = models.manifest_path("other:1").read_bytes()
        pretty = Manifest(json.dumps(json.loads(raw), indent=3).encode())
        assert pretty.sha != manifest(store, "other:1").sha and pretty.same_as(manifest(store, "other:1"))
        assert not pretty.same_as(manifest(store))


class TestBytes:
    def test_shared_blobs_count_once(self, store: Store, tmp_path: pathlib.Path) -> None:
        blobs = [*manifest(store).blobs, *manifest(store, "other:1").blobs]
        empty = Store(str(tmp_path / "empty"))
        whole = sum(one.size for one in {one.sha: one for one in blobs}.values())
        assert empty.missing_bytes(blobs) == whole < sum(one.size for one in blobs)
        assert store.missing_bytes(blobs) == 0 and store.missing_bytes(blobs, [blobs[0].sha]) == 5000

    def test_notes_of_a_stopped_pull(self, store: Store, models: Models) -> None:
        (weights, *_rest) = manifest(store).blobs
        path = models.blob_path(weights.sha)
        path.unlink()
        for number, completed in enumerate((1000, 500)):
            path.with_name(f"{path.name}-partial-{number}").write_text(json.dumps({"Completed": completed}))
        assert store.partial(weights.sha) == 0, "without the data the notes are worth nothing"
        path.with_name(f"{path.name}-partial").write_bytes(b"")
        assert store.partial(weights.sha) == 1500 and store.missing_bytes([weights]) == 3500


class TestDigests:
    def faults(self, store: Store, **options: Any) -> tuple[dict[str, str], int]:
        digests = Digests(store, **options)
        found = digests.faults([*manifest(store).blobs, *manifest(store, "other:1").blobs])
        digests.save()
        return found, digests.hashed_bytes

    def test_each_once_and_then_never(self, store: Store, models: Models) -> None:
        whole = sum(path.stat().st_size for path in models.folder.glob("blobs/*"))
        assert self.faults(store) == ({}, whole)
        assert self.faults(store) == ({}, 0)
        assert self.faults(store, force=True) == ({}, whole)

    @pytest.mark.parametrize("change", ["size", "time", "inode"])
    def test_what_changed_is_read_again(self, store: Store, models: Models, change: str) -> None:
        self.faults(store)
        path = models.weights_of("Talk:Latest")
        before = path.stat()
        if change == "size":
            path.write_bytes(b"w" * 4999)
        elif change == "time":
            path.write_bytes(b"v" * 5000)
        else:
            copy = path.with_name("copy")
            copy.write_bytes(b"v" * 5000)
            copy.replace(path)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + (change == "time")))
        expected = "size" if change == "size" else "digest"
        assert self.faults(store)[0] == {path.name[len("sha256-") :]: expected}
        assert self.faults(store)[0], "and never remembered as good"

    def test_a_disk_that_cannot_read(self, store: Store) -> None:
        def broken(_count: int) -> None:
            raise OSError(5, "Input/output error")

        faults = Digests(store).faults(manifest(store).blobs, broken)
        assert set(faults.values()) == {"Input/output error"} and len(faults) == 3

    @pytest.mark.parametrize("text", ["", "[]", '{"blobs": []}', '{"blobs": {"x": null}}', '{"blobs": {"x": ["y"]}}'])
    def test_a_damaged_memory_is_no_memory(self, store: Store, models: Models, text: str) -> None:
        path = models.folder / digest_module.MEMORY
        path.write_text(text)
        assert self.faults(store)[1] > 0 and self.faults(store)[1] == 0

    def test_the_memory_is_no_way_out(self, store: Store, models: Models, tmp_path: pathlib.Path) -> None:
        outside = tmp_path / "outside"
        outside.write_text("precious")
        (models.folder / digest_module.MEMORY).symlink_to(outside)
        self.faults(store)
        assert outside.read_text() == "precious", "the store belongs to a user with less rights than this module"
