# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Knowledge over release 1.9.2, with the real Weaviate 1.19.0 and 1.27.0 and Dify's two ways to talk to them."""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import images
import pytest
from _build import Builder
from _knowledge import Api, Installation, dataset, dify, tree
from _settings import RELEASES
from ansible_collections.llmops.stack.plugins.module_utils import _dify_vector_store as stores
from ansible_collections.llmops.stack.plugins.module_utils import _dify_vectors as vectors
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_context import Context, Options, StepError
from ansible_collections.llmops.stack.plugins.module_utils._dify_vector_form import missing
from ansible_collections.llmops.stack.plugins.module_utils._weaviate import Weaviate, WeaviateError

pytestmark = [
    pytest.mark.world,
    pytest.mark.skipif(not images.known_tags(), reason=f"no release data in {RELEASES}"),
]


@pytest.fixture(scope="session")
def server_images() -> dict[str, str]:
    builder = Builder(images.table())
    return {version: builder.ensure(f"weaviate-{version}") for version in ("1.19.0", "1.27.0")}


@pytest.fixture
def dify_at(tmp_path: Path, server_images: dict[str, str]) -> Iterator[Installation]:
    project = Installation(tmp_path / "dify", server_images)
    project.serve("1.7.0")
    yield project
    project.gone()


class Journal:
    def get(self, step: str, key: str, default: Any = None) -> Any:
        return default

    def put(self, step: str, key: str, value: Any) -> None:
        """Nothing of this is in the journal."""

    def step(self, name: str) -> str:
        return ""


@pytest.fixture
def ctx(dify_at: Installation, tmp_path: Path) -> Context:
    (tmp_path / "evidence").mkdir(mode=0o700)
    plan = {"from": "1.7.0", "to": "1.9.2"}
    return Context(dify_at, plan, Options(), Journal(), str(tmp_path / "evidence"), step="keep_vectors")


Release = Callable[[str], Api]


@pytest.fixture
def release(dify_at: Installation, monkeypatch: pytest.MonkeyPatch) -> Release:
    def at(tag: str) -> Api:
        dify_at.client().close()  # it is ready
        return Api(monkeypatch, dify_at, tag)

    return at


def test_without_the_steps_everything_is_lost(dify_at: Installation, release: Release) -> None:
    """Why the files are not handed on: the server comes up, is ready, and has nothing."""
    one = dataset()
    old = release("1.7.0")
    (segment,) = old.learn(one, 1)
    assert old.finds(one, segment)
    dify_at.stop(["weaviate"], 60)
    dify_at.serve("1.9.2")
    new = release("1.9.2")
    time.sleep(2)
    with dify_at.client() as client:
        (name,) = [one["class"] for one in client.classes()]
        assert client.count(name) == 0
    with pytest.raises(ValueError, match="default"):
        new.finds(one, segment)


def test_knowledge_crosses_1_9_2_and_goes_on(dify_at: Installation, release: Release, ctx: Context) -> None:
    one, two, late, gone = (dataset() for _ in range(4))
    old = release("1.7.0")
    kept = old.learn(one, 450) + old.learn(one, 10, 450)
    deleted, changed = kept.pop(), kept[3]
    old.learn(gone, 3)
    other = {"class": "SomebodysOwn", "vectorizer": "none", "properties": [{"name": "word", "dataType": ["text"]}]}
    with dify_at.client() as client:
        client.create(other)
        client.insert(
            [{"class": "SomebodysOwn", "id": str(uuid.uuid4()), "properties": {"word": "x"}, "vector": [1.0, 2.0]}]
        )
        before = {one["id"]: one["vector"] for page in client.pages(dify.collection(one), 100) for one in page}

    vectors.prepare(ctx)

    # Dify goes on serving and writing.
    second = old.learn(two, 20)
    deleted_two, kept_more = kept.pop(), old.learn(one, 5, 900)
    with dify_at.client() as client:
        for segment in (deleted, deleted_two):
            client.remove(dify.collection(one), segment["index_node_id"])
        found = client.get(dify.collection(one), changed["index_node_id"]) or {}
        found["properties"]["text"] = "other words"
        client.insert([found])
        client.drop(dify.collection(gone))

    vectors.keep(ctx)
    dify_at.serve("1.9.2")
    vectors.load(ctx)

    new = release("1.9.2")
    assert all(new.finds(one, segment) for segment in [*kept[:20], *kept[-20:], *kept_more])
    assert all(new.finds(two, segment) for segment in second)
    with dify_at.client() as client:
        assert client.version() == "1.27.0"
        assert {each["class"]: client.count(each["class"]) for each in client.classes()} == {
            dify.collection(one): len(kept) + len(kept_more),
            dify.collection(two): 20,
            "SomebodysOwn": 1,
        }
        after = {each["id"]: each["vectors"]["default"] for page in client.pages(dify.collection(one)) for each in page}
        assert {key: after[key] for key in before if key in after} == {
            key: before[key] for key in after if key in before
        }
        text = (client.get(dify.collection(one), changed["index_node_id"]) or {})["properties"]["text"]
        assert text == "other words"
        assert client.nearest("SomebodysOwn", [1.0, 2.0])[0]["distance"] < 1e-6
    # What the new release writes goes to the same classes and to new ones.
    assert new.finds(one, new.learn(one, 1, 1000)[0])
    assert new.finds(late, new.learn(late, 2)[0])
    # The class that the older release has made is asked for what a newer one knows.
    assert release("1.16.0").finds(one, kept[0])
    with pytest.raises(ValueError, match="doc_type"):
        release("1.16.0").finds(late, kept[0])
    ctx.plan = {"from": "1.12.1", "to": "1.16.0"}
    vectors.add_properties(ctx)
    vectors.add_properties(ctx)
    with dify_at.client() as client:
        assert [missing(each) for each in client.classes() if each["class"] != "SomebodysOwn"] == [[], [], []]
    release("1.16.0").finds(late, kept[0])

    vectors.forget(ctx)
    assert sorted(os.listdir(dify_at.data.parent)) == ["weaviate"]


def test_the_way_back(dify_at: Installation, release: Release, ctx: Context) -> None:
    one = dataset()
    old = release("1.7.0")
    segments = old.learn(one, 30)
    vectors.keep(ctx)  # without prepare: it is done now
    aside = tree(dify_at.data.parent / "weaviate.before")
    dify_at.serve("1.9.2")
    vectors.load(ctx)
    new = release("1.9.2")
    assert new.finds(one, segments[0])
    new.learn(one, 5, 100)
    vectors.unkeep(ctx)
    assert tree(dify_at.data) == aside, "the old files were moved, not written to"
    assert dify_at.container("weaviate") is None
    dify_at.serve("1.7.0")
    back = release("1.7.0")
    assert all(back.finds(one, segment) for segment in segments)
    with dify_at.client() as client:
        assert client.version() == "1.19.0" and client.count(dify.collection(one)) == 30
    vectors.unkeep(ctx)
    assert dify_at.container("weaviate") is not None, "there was nothing to undo"
    assert sorted(os.listdir(dify_at.data.parent)) == ["weaviate"]
    # And forward again.
    vectors.prepare(ctx)
    vectors.keep(ctx)
    dify_at.serve("1.9.2")
    vectors.load(ctx)
    assert release("1.9.2").finds(one, segments[7])


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_killed_while_they_change_places(
    dify_at: Installation, release: Release, ctx: Context, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    one = dataset()
    segments = release("1.7.0").learn(one, 5)
    vectors.prepare(ctx)
    real, left = os.rename, renames

    def killed(source: str, target: str) -> None:
        nonlocal left
        if not left:
            raise KeyboardInterrupt
        left -= 1
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(vectors.os, "rename", killed)
        if renames < 2:
            with pytest.raises(KeyboardInterrupt):
                vectors.keep(ctx)
        else:
            vectors.keep(ctx)
    vectors.unkeep(ctx)
    dify_at.serve("1.7.0")
    assert release("1.7.0").finds(one, segments[0])
    assert sorted(os.listdir(dify_at.data.parent)) == ["weaviate"]


def test_a_half_made_copy_is_no_copy(
    dify_at: Installation, release: Release, ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    release("1.7.0").learn(dataset(), 5)

    def loses_one(self: Weaviate, objects: list[dict[str, Any]]) -> None:
        insert(self, list(objects)[:-1])

    insert = Weaviate.insert
    with monkeypatch.context() as patch:
        patch.setattr(Weaviate, "insert", loses_one)
        with pytest.raises(StepError, match=r"is not what was written to it \(4 of 5 objects\)"):
            vectors.prepare(ctx)
    assert sorted(os.listdir(dify_at.data.parent)) == ["weaviate"]
    assert dify_at.address(f"{dify_at.name}-weaviate-next") == ""


def test_refused_while_everything_runs(
    dify_at: Installation, release: Release, ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    release("1.7.0").learn(dataset(), 2)
    with monkeypatch.context() as patch:
        patch.setattr(vectors.shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(10, 10, 0))
        with pytest.raises(StepError, match="for a second one only 0 MiB are free"):
            vectors.prepare(ctx)
    with monkeypatch.context() as patch:
        patch.setattr(vectors.os.path, "ismount", lambda path: path == str(dify_at.data))
        with pytest.raises(StepError, match="is a file system of its own"):
            vectors.prepare(ctx)
    dify_at.stop(["weaviate"], 10)
    with pytest.raises(StepError, match="the container of weaviate does not run"):
        vectors.prepare(ctx)
    assert sorted(os.listdir(dify_at.data.parent)) == ["weaviate"]


def test_an_empty_one_is_no_new_one(dify_at: Installation, release: Release, ctx: Context) -> None:
    """What a check that only counts what is there would let through."""
    release("1.7.0").learn(dataset(), 2)
    vectors.keep(ctx)
    shutil.rmtree(dify_at.data)
    dify_at.data.mkdir()
    dify_at.serve("1.9.2")
    with pytest.raises(StepError, match=r"it has no collection and should have Vector_index_.* \(2\)"):
        vectors.load(ctx)


@pytest.mark.parametrize("tag", ["1.7.0", "1.12.1"])
def test_backup_and_restore(dify_at: Installation, release: Release, tmp_path: Path, tag: str) -> None:
    one, later = dataset(), dataset()
    dify_at.stop(["weaviate"], 10)
    shutil.rmtree(dify_at.data)
    dify_at.data.mkdir()
    dify_at.serve(tag)
    api = release(tag)
    segments = api.learn(one, 230)
    folder = tmp_path / "backup"
    folder.mkdir()
    counts = stores.export(dify_at, str(folder), 60)
    assert counts == {dify.collection(one): 230}
    assert stores.describe(dify_at) == {
        "store": "weaviate",
        "internal": True,
        "collections": 1,
        "objects": 230,
        "size_mb": stores.size(str(dify_at.data)) >> 20,
        "error": "",
    }
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}

    api.learn(later, 3)
    with dify_at.client() as client:
        client.drop(dify.collection(one))
    api.learn(one, 2, 5000)
    assert stores.restore(dify_at, str(folder), 60) == counts
    assert all(api.finds(one, segment) for segment in segments[::20])
    with dify_at.client() as client:
        assert [each["class"] for each in client.classes()] == [dify.collection(one)]

    said = json.loads((folder / "schema.json").read_text())
    said["sums"][dify.collection(one)] = "0" * 64
    (folder / "schema.json").write_text(json.dumps(said))
    with pytest.raises(WeaviateError, match=r"is not whole: 230 of 230 objects"):
        stores.restore(dify_at, str(folder), 60)


def test_a_rollback_takes_the_vectors_of_the_backup(
    dify_at: Installation, release: Release, ctx: Context, tmp_path: Path
) -> None:
    one, later = dataset(), dataset()
    segments = release("1.7.0").learn(one, 12)
    backup = tmp_path / "backup"
    (backup / "vectors").mkdir(parents=True)
    stores.export(dify_at, str(backup / "vectors"), 60)
    vectors.keep(ctx)
    dify_at.serve("1.9.2")
    vectors.load(ctx)
    vectors.forget(ctx)
    new = release("1.9.2")
    new.learn(later, 2)

    ctx.plan = {"from": "1.9.2", "to": "1.7.0", "backup": str(backup)}
    ctx.folder = str(tmp_path / "evidence of the rollback")
    os.mkdir(ctx.folder)
    vectors.set_aside(ctx)
    vectors.set_aside(ctx)
    vectors.unkeep(ctx)  # it failed, and the newer release goes on
    dify_at.serve("1.9.2")
    assert release("1.9.2").finds(one, segments[0])
    vectors.set_aside(ctx)
    dify_at.serve("1.7.0")
    vectors.restore_backup(ctx)
    back = release("1.7.0")
    assert all(back.finds(one, segment) for segment in segments)
    with dify_at.client() as client:
        assert client.version() == "1.19.0"
        assert [each["class"] for each in client.classes()] == [dify.collection(one)]
    vectors.forget(ctx)
    assert sorted(os.listdir(dify_at.data.parent)) == ["weaviate"]


def test_it_is_said_what_is_missing(dify_at: Installation) -> None:
    dify_at.remove(["weaviate"])
    assert stores.describe(dify_at, 1)["error"] == "the container of weaviate does not run"
    with pytest.raises(WeaviateError):
        stores.connect(dify_at, seconds=1)
