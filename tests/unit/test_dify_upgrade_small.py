# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two small steps of an upgrade: the sandbox's interpreters at 1.13.3, the owner of the storage at 1.10.1."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils import _dify_sandbox_config as sandbox
from ansible_collections.llmops.stack.plugins.module_utils import _dify_storage_owner as owner
from ansible_collections.llmops.stack.plugins.module_utils._dify_compose import Project
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_context import Context, Options, StepError

RELEASES = pathlib.Path(
    os.environ.get("DIFY_RELEASES_DIR", pathlib.Path(__file__).parents[2] / "../shared/dify-releases")
)
CONF = "docker/volumes/sandbox/conf/config.yaml"


class Journal:
    def __init__(self) -> None:
        self.notes: dict[tuple[str, str], Any] = {}

    def get(self, step: str, key: str, default: Any = None) -> Any:
        return self.notes.get((step, key), default)

    def put(self, step: str, key: str, value: Any) -> None:
        self.notes[step, key] = value

    def step(self, name: str) -> str:
        return ""


@pytest.fixture
def ctx(tmp_path: pathlib.Path) -> Context:
    home, folder = tmp_path / "dify", tmp_path / "evidence"
    (home / "volumes/sandbox/conf").mkdir(parents=True)
    (home / "volumes/app/storage/privkeys/t1").mkdir(parents=True)
    (home / "volumes/app/storage/privkeys/t1/private.pem").write_text("key\n")
    folder.mkdir(mode=0o700)
    plan = {"from": "1.9.2", "to": "1.16.0"}
    return Context(Project(str(home)), plan, Options(), Journal(), str(folder), step="a_step")


def shipped(tag: str) -> str:
    return (RELEASES / tag / CONF).read_text()


class TestSandboxConfiguration:
    @pytest.mark.parametrize("old", ["0.15.3", "1.9.2", "1.12.1"])
    @pytest.mark.parametrize("new", ["1.13.3", "1.15.0", "1.16.0"])
    def test_between_what_the_releases_ship(self, old: str, new: str) -> None:
        adapted = sandbox.adapt(shipped(old), shipped(new))
        assert sorted(adapted.text.splitlines()) == sorted(shipped(new).splitlines())
        assert adapted.foreign == [] and "python_path" in adapted.changed
        assert sandbox.adapt(adapted.text, shipped(new)) == (adapted.text, [], [])

    def test_the_rest_stays_as_somebody_wrote_it(self) -> None:
        mine = (
            "# python_path: see the wiki\napp:\n  key: my own\n"
            "python_path: '/usr/local/bin/python3'  # where it was\nmax_workers: 9"
        )
        adapted = sandbox.adapt(mine, shipped("1.13.3"))
        assert adapted.text == (
            "# python_path: see the wiki\napp:\n  key: my own\npython_path: /opt/python/bin/python3\nmax_workers: 9\n"
            "nodejs_path: /usr/local/bin/node\n"
        )

    def test_a_path_of_somebody_is_left_and_said(self) -> None:
        mine = shipped("1.12.1").replace("/usr/local/bin/python3", "/srv/python/bin/python3")
        adapted = sandbox.adapt(mine, shipped("1.16.0"))
        assert adapted == (mine, [], ["python_path: /srv/python/bin/python3"])

    def test_step_and_undo(self, ctx: Context) -> None:
        path = pathlib.Path(ctx.project.home) / "volumes/sandbox/conf/config.yaml"
        new = pathlib.Path(ctx.project.folder("1.16.0"))
        (new / "volumes.shipped/sandbox/conf").mkdir(parents=True)
        (new / "volumes.shipped/sandbox/conf/config.yaml").write_text(shipped("1.16.0"))
        (new / "volumes").symlink_to("../../volumes")  # what all releases share, and not what this one ships
        path.write_text(shipped("1.9.2"))
        path.chmod(0o640)
        sandbox.apply(ctx)
        sandbox.apply(ctx)  # a run that goes on does it again
        assert path.read_text() == shipped("1.16.0") and path.stat().st_mode & 0o777 == 0o640
        sandbox.undo(ctx)
        assert path.read_text() == shipped("1.9.2") and path.stat().st_mode & 0o777 == 0o640
        path.write_text("python_path: /mine\n")
        sandbox.undo(ctx)
        assert path.read_text() == "python_path: /mine\n", "there was nothing to undo"
        assert sorted(os.listdir(path.parent)) == ["config.yaml"]

    def test_without_a_file(self, ctx: Context) -> None:
        sandbox.apply(ctx)
        sandbox.undo(ctx)
        assert os.listdir(os.path.join(ctx.project.home, "volumes/sandbox/conf")) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
class TestStorageOwner:
    @pytest.fixture
    def storage(self, ctx: Context) -> pathlib.Path:
        return pathlib.Path(ctx.project.home) / "volumes/app/storage"

    def test_everything_and_back(self, ctx: Context, storage: pathlib.Path, tmp_path: pathlib.Path) -> None:
        outside = tmp_path / "outside"
        outside.write_text("not Dify's\n")
        (storage / "link").symlink_to(outside)
        (storage / "others").write_text("")
        os.chown(storage / "others", 33, 33)
        (storage / ".init_permissions").write_text("")  # the note says nothing about the owners
        owner.prepare(ctx)
        assert list(owner.foreign(str(storage), 1001)) == []
        assert outside.stat().st_uid == 0 and (storage / "link").lstat().st_uid == 1001
        owner.undo(ctx)
        assert (storage / "others").stat().st_uid == 33 and storage.stat().st_uid == 0
        assert (storage / "privkeys/t1/private.pem").stat().st_uid == 0

    def test_what_came_meanwhile_follows_and_the_release_has_nothing_left_to_do(
        self, ctx: Context, storage: pathlib.Path
    ) -> None:
        owner.prepare(ctx)
        assert not (storage / ".init_permissions").exists()
        (storage / "meanwhile").write_text("")
        (storage / "gone").write_text("")
        owner.apply(ctx)
        assert list(owner.foreign(str(storage), 1001)) == [] and (storage / ".init_permissions").exists()
        (storage / "gone").unlink()
        owner.undo(ctx)
        assert not (storage / ".init_permissions").exists()
        assert {path.stat().st_uid for path in [storage, *storage.rglob("*")]} == {0}
        owner.undo(ctx)  # once more, as a run that was killed does

    @pytest.mark.parametrize("cut", ["", '\n["privkeys/t1/pri'])
    def test_an_interrupted_try_forgets_nothing(
        self, ctx: Context, storage: pathlib.Path, monkeypatch: pytest.MonkeyPatch, cut: str
    ) -> None:
        real, calls = os.chown, 0

        def dies(path: str, uid: int, gid: int, **more: Any) -> None:
            nonlocal calls
            calls += 1
            if calls == 3:
                raise KeyboardInterrupt
            real(path, uid, gid, **more)

        with monkeypatch.context() as patch:
            patch.setattr(owner.os, "chown", dies)
            with pytest.raises(KeyboardInterrupt):
                owner.prepare(ctx)
        with open(os.path.join(ctx.folder, "storage-owners.jsonl"), "a") as file:
            file.write(cut)
        owner.prepare(ctx)
        assert list(owner.foreign(str(storage), 1001)) == []
        owner.undo(ctx)
        assert {path.stat().st_uid for path in [storage, *storage.rglob("*")]} == {0}

    def test_owners_are_on_the_disk_before_they_change(
        self, ctx: Context, storage: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_arguments: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(owner.os, "fsync", full)
        with pytest.raises(StepError, match="No space left"):
            owner.prepare(ctx)
        assert {path.stat().st_uid for path in [storage, *storage.rglob("*")]} == {0}

    def test_nothing_below_1_10_1(self, ctx: Context, storage: pathlib.Path) -> None:
        ctx.plan = {"from": "1.9.2", "to": "1.10.0"}
        owner.apply(ctx)
        assert storage.stat().st_uid == 0 and not (storage / ".init_permissions").exists()

    def test_the_note_is_of_releases_that_look_at_it(self, ctx: Context, storage: pathlib.Path) -> None:
        ctx.plan = {"from": "1.9.2", "to": "1.10.1"}
        owner.apply(ctx)
        assert storage.stat().st_uid == 1001 and not (storage / ".init_permissions").exists()

    def test_refused(self, ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuses(path: str, *_args: Any, **_more: Any) -> None:
            raise PermissionError(1, "Operation not permitted", path)

        monkeypatch.setattr(owner.os, "chown", refuses)
        with pytest.raises(StepError, match=r"cannot be given to uid 1001, as which Dify 1\.16\.0 runs") as caught:
            owner.prepare(ctx)
        assert "network file system" in caught.value.advice
