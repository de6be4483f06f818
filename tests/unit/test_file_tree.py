# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module file_tree on folders of this machine."""

from __future__ import annotations

import json
import os
import pathlib
import stat
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils import _file_tree as trees

Run = Callable[..., dict[str, Any]]
KEY = "tl-7f3a9c5e1b"
FILES = {"plugin/main.py": "print(1)\n", "plugin/plugin.json": "{}\n", "collector/config.yaml": "a: 1\n"}
SECRETS = {"collector/collector.env": f"# keys\nTRACELOOP_API_KEY={KEY}\n"}


class Folder:
    def __init__(self, path: pathlib.Path, run_module: Run) -> None:
        self.path = path
        self._run = run_module

    def have(self, check: bool = False, **options: Any) -> dict[str, Any]:
        return self._run("file_tree", check=check, path=str(self.path), **options)

    def holds(self) -> dict[str, str]:
        """Everything in it: a file's text, a link's target, nothing for a folder."""
        found = {}
        for path in sorted(self.path.rglob("*")):
            name = str(path.relative_to(self.path))
            if path.is_symlink():
                found[name] = f"-> {os.readlink(path)}"
            else:
                found[name] = path.read_text() if path.is_file() else ""
        return {name: text for name, text in found.items() if name != trees.MARKER}


@pytest.fixture
def folder(tmp_path: pathlib.Path, run_module: Run) -> Folder:
    return Folder(tmp_path / "opt" / "traceloop", run_module)


def mode(path: pathlib.Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


class TestPresent:
    def test_from_nothing_to_no_change(self, folder: Folder) -> None:
        umask = os.umask(0o077)
        try:
            made = folder.have(files=FILES, secret_files=SECRETS)
        finally:
            os.umask(umask)
        assert made["changed"] and made["path"] == str(folder.path)
        assert made["changed_files"] == sorted({**FILES, **SECRETS})
        assert made["changed_directories"] == [".", "collector", "plugin"]
        assert folder.holds() == {**FILES, **SECRETS, "collector": "", "plugin": ""}
        assert mode(folder.path) == mode(folder.path / "plugin") == 0o755
        assert mode(folder.path / "plugin/main.py") == 0o644
        assert mode(folder.path / "collector/collector.env") == 0o600
        before = {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")}
        again = folder.have(files=FILES, secret_files=SECRETS)
        assert not again["changed"] and again["diff"] == []
        assert {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")} == before

    def test_only_what_differs_is_written(self, folder: Folder) -> None:
        folder.have(files=FILES)
        kept = (folder.path / "plugin/main.py").stat().st_ino
        changed = folder.have(files={**FILES, "collector/config.yaml": "a: 2\n"})
        assert changed["changed_files"] == ["collector/config.yaml"] and changed["changed_directories"] == []
        assert (folder.path / "plugin/main.py").stat().st_ino == kept
        (diff,) = changed["diff"]
        assert (diff["before"], diff["after"]) == ("a: 1\n", "a: 2\n")
        assert diff["after_header"] == str(folder.path / "collector/config.yaml")

    def test_everything_else_goes(self, folder: Folder, tmp_path: pathlib.Path) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "precious").write_text("x")
        folder.have(files={**FILES, "old/deep/file": "1"})
        (folder.path / "plugin/__pycache__").mkdir()
        (folder.path / "plugin/__pycache__/main.pyc").write_text("")
        (folder.path / "away").symlink_to(outside)
        (folder.path / f"{trees.MARKER}-k1ll3d").write_text("half")
        changed = folder.have(files=FILES)
        assert changed["removed"] == [f"{trees.MARKER}-k1ll3d", "away", "old/", "plugin/__pycache__/"]
        assert changed["changed_files"] == []
        assert set(folder.holds()) == {*FILES, "collector", "plugin"}
        assert (outside / "precious").read_text() == "x"

    def test_what_goes_can_wait_until_nobody_uses_it(self, folder: Folder) -> None:
        folder.have(files={**FILES, "old/deep/file": "1", "away": "1", "in/the": "way"})
        changed = folder.have(files={**FILES, "in": "new"}, prune=False)
        assert (changed["removed"], changed["unwanted"]) == (["in/"], ["away", "old/"])
        assert folder.holds()["old/deep/file"] == "1" and folder.holds()["in"] == "new"
        again = folder.have(files={**FILES, "in": "new"}, prune=False)
        assert not again["changed"] and again["diff"] == [] and again["unwanted"] == ["away", "old/"]
        gone = folder.have(files={**FILES, "in": "new"})
        assert (gone["removed"], gone["unwanted"]) == (["away", "old/"], [])
        assert set(folder.holds()) == {*FILES, "collector", "plugin", "in"}

    def test_what_docker_makes_in_the_place_of_a_mount_is_adopted(self, folder: Folder) -> None:
        (folder.path / "collector/config.yaml").mkdir(parents=True)
        (folder.path / "queue").mkdir()
        folder.have(files=FILES)
        assert folder.holds() == {**FILES, "collector": "", "plugin": ""}

    def test_what_others_fill_stays(self, folder: Folder) -> None:
        wish: dict[str, Any] = {
            "files": FILES,
            "directories": [{"path": "queue", "mode": "0750"}, {"path": "data/phoenix"}],
        }
        made = folder.have(**wish, keep=["own", "deep/down"])
        assert made["changed_directories"] == [".", "collector", "data", "data/phoenix", "plugin", "queue"]
        assert mode(folder.path / "queue") == 0o750 and not (folder.path / "deep").exists()
        for name in ("queue/a/b", "data/phoenix/phoenix.db", "data/other", "own/x", "deep/down/x", "deep/not/x"):
            (folder.path / name).parent.mkdir(parents=True, exist_ok=True)
            (folder.path / name).write_text(name)
        (folder.path / "queue/out").symlink_to("/etc")
        changed = folder.have(**wish, keep=["own", "deep/down"])
        assert changed["removed"] == ["data/other", "deep/not/"]
        held = folder.holds()
        assert {"queue/a/b", "queue/out", "data/phoenix/phoenix.db", "own/x", "deep/down/x"} <= set(held)
        assert not folder.have(**wish, keep=["own", "deep/down"])["changed"]
        assert sorted(folder.have(files=FILES)["removed"]) == ["data/", "deep/", "own/", "queue/"]

    def test_owners_and_modes(self, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[tuple[int, int]] = []
        monkeypatch.setattr(trees.os, "fchown", lambda _handle, uid, gid: asked.append((uid, gid)))
        folder.have(directories=[{"path": "queue", "owner": "10001", "group": "10002", "mode": 0o700}])
        assert asked == [(10001, 10002)] and mode(folder.path / "queue") == 0o700
        folder.have(directories=[{"path": "queue", "owner": "root", "group": "root", "mode": 0o700}])
        folder.have(files=FILES, secret_files=SECRETS)
        (folder.path / "plugin/main.py").chmod(0o600)
        (folder.path / "collector/collector.env").chmod(0o640)
        (folder.path / "collector").chmod(0o700)
        changed = folder.have(files=FILES, secret_files=SECRETS)
        assert changed["changed_files"] == ["collector/collector.env", "plugin/main.py"]
        assert changed["changed_directories"] == ["collector"]
        assert [diff["before"].split("mode ")[1] for diff in changed["diff"]] == ["0700\n", "0640\n", "0600\n"]
        assert mode(folder.path / "collector/collector.env") == 0o600 and mode(folder.path / "collector") == 0o755

    def test_one_kind_in_the_place_of_another(self, folder: Folder, tmp_path: pathlib.Path) -> None:
        target = tmp_path / "target"
        target.mkdir()
        (target / "file").write_text("theirs")
        folder.have(files={"a/b": "1", "c": "2", "d": "3"})
        (folder.path / "d").unlink()
        (folder.path / "d").symlink_to(target / "file")
        (folder.path / "e").symlink_to(target)
        changed = folder.have(files={"a": "1", "c/x": "2", "d": "3", "e/file": "4"})
        assert folder.holds() == {"a": "1", "c": "", "c/x": "2", "d": "3", "e": "", "e/file": "4"}
        assert changed["removed"] == ["a/", "c", "e"] and changed["changed_files"] == ["a", "c/x", "d", "e/file"]
        assert (target / "file").read_text() == "theirs"
        assert not folder.have(files={"a": "1", "c/x": "2", "d": "3", "e/file": "4"})["changed"]

    def test_a_check_run_writes_nothing(self, folder: Folder) -> None:
        said = folder.have(check=True, files=FILES, directories=[{"path": "queue"}])
        assert said["changed"] and said["changed_files"] == sorted(FILES)
        assert said["diff"][-1]["after"] == "{}\n" and not folder.path.parent.exists()
        folder.have(files=FILES)
        held = folder.holds()
        said = folder.have(
            check=True,
            files={"new": "1"},
            validate=[{"path": "new", "argv": ["touch", str(folder.path / "ran")]}],
        )
        assert said["removed"] == ["collector/", "plugin/"] and said["validated"] == []
        assert folder.holds() == held

    def test_an_empty_folder_is_taken(self, folder: Folder) -> None:
        folder.path.mkdir(parents=True)
        folder.have(files=FILES)
        assert (folder.path / trees.MARKER).is_file()

    def test_a_file_that_cannot_be_written_leaves_the_old_one(
        self, folder: Folder, failed: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder.have(files=FILES)

        def broken(*_args: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(trees.os, "replace", broken)
        with pytest.raises(failed, match="No space left"):
            folder.have(files={**FILES, "plugin/main.py": "print(2)\n"})
        assert set(folder.holds()) == {*FILES, "collector", "plugin"}
        assert (folder.path / "plugin/main.py").read_text() == "print(1)\n"

    def test_the_files_do_not_come_back_with_the_result(self, folder: Folder, failed: Any) -> None:
        folder.have(files=FILES, secret_files=SECRETS)
        result = folder.have(files=FILES, secret_files=SECRETS)
        assert result["invocation"]["module_args"]["files"] == sorted(FILES)
        assert "print(1)" not in json.dumps(result)
        with pytest.raises(failed) as raised:
            folder.have(files={**FILES, "../x": "1"})
        assert "print(1)" not in json.dumps(raised.value.result)


class TestSecrets:
    def test_are_in_no_result(self, folder: Folder) -> None:
        seen = [folder.have(files=FILES, secret_files=SECRETS)]
        other = {"collector/collector.env": SECRETS["collector/collector.env"].replace("7f", "8f")}
        seen.append(folder.have(files=FILES, secret_files=other))
        assert seen[-1]["changed_files"] == ["collector/collector.env"]
        (diff,) = seen[-1]["diff"]
        assert (diff["before"], diff["after"]) == ("", "(secret) changed\n")
        # What was a secret before is one as long as it is on the disk.
        seen.append(folder.have(files={**FILES, "collector/collector.env": "none\n"}))
        (diff,) = seen[-1]["diff"]
        assert (diff["before"], diff["after"]) == ("(hidden)\n", "none\n")
        folder.have(files=FILES, secret_files=SECRETS)
        seen.append(folder.have(files=FILES))
        assert seen[-1]["removed"] == ["collector/collector.env"]
        assert "f3a9c5e1b" not in json.dumps(seen)

    def test_are_taken_out_of_what_a_program_says(self) -> None:
        text = f"error in Authorization=Bearer {KEY}, near 'password-of-tempo' of TRACELOOP_API_KEY; try true"
        secrets = f'# error in comments\nA=Authorization=Bearer {KEY}\n{{"b": "password-of-tempo"}}\nC=true\n'
        said = trees.mask(text, [secrets.encode()])
        assert KEY not in said and "password-of-tempo" not in said
        assert said.startswith("error in ") and said.endswith("of TRACELOOP_API_KEY; try true")


class TestValidate:
    def test_runs_for_what_differs_only(self, folder: Folder) -> None:
        argv = [sys.executable, "-c", "import sys; open(sys.argv[1])", "%s"]
        wish = [{"path": "collector/config.yaml", "argv": argv}]
        assert folder.have(files=FILES, validate=wish)["validated"] == ["collector/config.yaml"]
        changed = folder.have(files={**FILES, "plugin/main.py": "print(2)\n"}, validate=wish)
        assert changed["changed"] and changed["validated"] == []

    def test_sees_the_new_file_as_a_container_would(self, folder: Folder, tmp_path: pathlib.Path) -> None:
        look = (
            "import os, sys; path = sys.argv[1].split(':')[0]; said = open(sys.argv[2], 'a');"
            "print(path, oct(os.stat(path).st_mode)[-3:], oct(os.stat(os.path.dirname(path)).st_mode)[-3:],"
            "open(path).read(), end='', file=said)"
        )
        said = tmp_path / "said"
        argv = [sys.executable, "-c", look, "%s:/etc/config.yaml:ro", str(said)]
        wish = [{"path": name, "argv": argv} for name in ("collector/config.yaml", "collector/collector.env")]
        folder.have(files=FILES, secret_files=SECRETS, validate=wish)
        first, second, *rest = said.read_text().splitlines()
        path, *modes = first.split(" ", 3)
        assert modes == ["644", "755", "a: 1"] and not path.startswith(str(folder.path))
        assert second.split(" ")[1] == "600" and rest == [f"TRACELOOP_API_KEY={KEY}"]
        assert not os.path.exists(path), "the copy is gone"

    def test_has_what_is_to_lie_beside_it(self, folder: Folder, failed: Any) -> None:
        """Also what does not differ, and with its own mode: a collector cannot tell without its environment."""
        look = (
            "import os, sys; sys.exit(oct(os.stat(sys.argv[1]).st_mode)[-3:] + ' ' + ' '.join(os.listdir(sys.argv[2])))"
        )
        argv = [sys.executable, "-c", look, "%d/collector.env", "%d"]
        folder.have(files=FILES, secret_files=SECRETS)
        with pytest.raises(failed) as raised:
            folder.have(
                files={**FILES, "collector/config.yaml": "a: 2\n"},
                secret_files=SECRETS,
                validate=[{"path": "collector/config.yaml", "argv": argv}],
            )
        mode, *names = raised.value.result["msg"].rpartition("said: ")[2].split(" ")
        assert mode == "600" and sorted(names) == ["collector.env", "config.yaml"]

    @pytest.mark.parametrize(
        ("argv", "expected"),
        [
            ([sys.executable, "-c", "import sys; sys.exit(f'bad {open(sys.argv[1]).read()}')", "%s"], "ended with 1"),
            (["/nonexistent/otelcol", "%s"], "/nonexistent/otelcol cannot be started (No such file or directory)"),
            (["sleep", "30"], "sleep did not finish within 0.2 s"),
        ],
    )
    def test_a_bad_file_changes_nothing(self, folder: Folder, failed: Any, argv: list[str], expected: str) -> None:
        folder.have(files=FILES, secret_files=SECRETS)
        held = folder.holds()
        started = time.monotonic()
        with pytest.raises(failed) as raised:
            folder.have(
                files={"plugin/main.py": "print(2)\n", "collector/config.yaml": f"key: {KEY}\n"},
                secret_files=SECRETS,
                validate=[{"path": "collector/config.yaml", "argv": argv}],
                deadline=0.2 if argv[0] == "sleep" else 20,
            )
        result = raised.value.result
        assert expected in result["msg"] and "nothing was replaced" in result["msg"]
        assert time.monotonic() - started < 15
        assert folder.holds() == held
        if argv[0] == sys.executable:
            assert result["stderr"] == "bad key: (hidden)" and "It said: bad key: (hidden)" in result["msg"]
        assert KEY not in json.dumps(result)

    def test_of_no_file(self, folder: Folder, failed: Any) -> None:
        with pytest.raises(failed, match=r"validate names other\.yaml, which is not among the files"):
            folder.have(files=FILES, validate=[{"path": "other.yaml", "argv": ["true"]}])
        assert not folder.path.exists()


class TestRefusals:
    @pytest.mark.parametrize("state", ["present", "absent"])
    @pytest.mark.parametrize("path", ["/", "/opt", "//opt/x", "/opt/../etc", "opt/x", "/opt/x/.."])
    def test_of_a_place(self, run_module: Run, failed: Any, path: str, state: str) -> None:
        with pytest.raises(failed, match="it must be absolute"):
            run_module("file_tree", path=path, state=state, check=True)

    @pytest.mark.parametrize(
        ("wish", "expected"),
        [
            ({"files": {"../x": ""}}, "must be a path below the folder"),
            ({"files": {"/etc/passwd": ""}}, "must be a path below the folder"),
            ({"secret_files": {"a//b": ""}}, "must be a path below the folder"),
            ({"directories": [{"path": "."}]}, "must be a path below the folder"),
            ({"keep": ["a/../../b"]}, "must be a path below the folder"),
            ({"files": {".llmops-tree": ""}}, "are this module's own"),
            ({"files": {"a": "1"}, "secret_files": {"a": "1"}}, "both in files and in secret_files"),
            ({"files": {"a": "1", "a/b": "1"}}, "below a, which is a file"),
            ({"files": {"a/b": "1"}, "directories": [{"path": "a"}]}, "below a, whose content is left alone"),
            ({"keep": ["a/b"], "directories": [{"path": "a"}]}, "below a, whose content is left alone"),
            ({"keep": ["a"], "directories": [{"path": "a"}]}, "is given twice"),
            ({"files": {"a": {"b": 1}}}, "must be text, and is of the type dict"),
            ({"directories": [{"path": "a", "owner": "nobody-here"}]}, "nobody-here, which this host does not know"),
            ({"directories": [{"path": "a", "mode": "u+x"}]}, "mode u\\+x, which is none"),
            ({"directories": [{"path": "a", "mode": 488.5}]}, "which is none"),
        ],
    )
    def test_of_a_wish(self, folder: Folder, failed: Any, wish: dict[str, Any], expected: str) -> None:
        with pytest.raises(failed, match=expected):
            folder.have(**wish)
        assert not folder.path.exists()

    @pytest.mark.parametrize("state", ["present", "absent"])
    def test_of_a_folder_of_somebody_else(self, folder: Folder, failed: Any, state: str) -> None:
        folder.path.mkdir(parents=True)
        (folder.path / "precious").write_text("x")
        with pytest.raises(failed, match=r"holds precious and no \.llmops-tree"):
            folder.have(files=FILES if state == "present" else {}, state=state)
        assert folder.holds() == {"precious": "x"}

    @pytest.mark.parametrize("state", ["present", "absent"])
    def test_of_a_folder_with_a_file_or_a_link_far_below(self, folder: Folder, failed: Any, state: str) -> None:
        for name in ("file", "link"):
            (folder.path / name).mkdir(parents=True)
        (folder.path / "file/precious").write_text("x")
        (folder.path / "link/away").symlink_to("/")
        for name in ("file/precious", "link/away"):
            with pytest.raises(failed, match=r"holds file, link and no \.llmops-tree|holds link and no"):
                folder.have(state=state)
            (folder.path / name).unlink()
            (folder.path / name).parent.rmdir()

    @pytest.mark.parametrize("state", ["present", "absent"])
    def test_of_a_link_and_of_a_file(self, folder: Folder, failed: Any, state: str, tmp_path: pathlib.Path) -> None:
        folder.path.parent.mkdir()
        folder.path.symlink_to(tmp_path)
        with pytest.raises(failed, match="is a link to"):
            folder.have(state=state)
        folder.path.unlink()
        folder.path.write_text("x")
        with pytest.raises(failed, match="is no folder"):
            folder.have(state=state)
        assert folder.path.read_text() == "x"

    @pytest.mark.parametrize("name", ["queue", "data"])
    def test_of_a_link_where_others_keep_things(
        self, folder: Folder, failed: Any, tmp_path: pathlib.Path, name: str
    ) -> None:
        wish: dict[str, Any] = {"directories": [{"path": "queue"}, {"path": "data/phoenix"}]}
        folder.have(**wish)
        elsewhere = tmp_path / "elsewhere"
        (folder.path / name).rename(elsewhere)
        (folder.path / name).symlink_to(elsewhere)
        with pytest.raises(failed, match=rf"{name} must be a folder and is a link, which is not followed"):
            folder.have(**wish)
        assert (folder.path / name).is_symlink()


class TestAbsent:
    def test_all_goes_and_then_nothing(self, folder: Folder) -> None:
        folder.have(files=FILES, directories=[{"path": "queue"}])
        (folder.path / "queue/x").write_text("x")
        held = folder.holds()
        said = folder.have(check=True, state="absent")
        assert said["changed"] and folder.holds() == held
        gone = folder.have(state="absent")
        assert gone["changed"] and gone["removed"] == [trees.MARKER, "collector/", "plugin/", "queue/"]
        assert not folder.path.exists() and folder.path.parent.exists()
        assert not folder.have(state="absent")["changed"]

    def test_a_removal_that_was_cut_off_is_finished(
        self, folder: Folder, failed: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder.have(files=FILES)
        with monkeypatch.context() as patched, pytest.raises(failed, match="busy"):
            patched.setattr(trees.os, "rmdir", lambda *_args, **_names: (_ for _ in ()).throw(OSError("busy")))
            folder.have(state="absent")
        folder.have(state="absent")
        assert not folder.path.exists()
