# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Apps: what a DSL is, and workflows, which are imported over and answer only after a publish."""

from __future__ import annotations

import contextlib
import json
import pathlib
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils import _dify_app as app
from ansible_collections.llmops.stack.plugins.module_utils._dify_app import AppError, Options, Wish
from ansible_collections.llmops.stack.plugins.module_utils._dify_console import ConsoleError
from ansible_collections.llmops.stack.plugins.module_utils._dify_model_record import Record

FLOW = {"kind": "app", "version": "0.5.0", "app": {"name": "x", "mode": "advanced-chat"}, "workflow": {"graph": {}}}


class Dify:
    """A console in memory with workflows."""

    def __init__(self) -> None:
        self.apps = self
        self.stored: dict[str, dict[str, Any]] = {}
        self.edits = 0
        self.calls: list[str] = []
        self.publishes = True
        self.has_owner = True
        self.missing: list[str] = []
        self.error: ConsoleError | None = None

    def setup_status(self) -> str:
        return "finished" if self.has_owner else "not_started"

    def find(self, name: str = "") -> list[dict[str, Any]]:
        return [one for one in self.stored.values() if one["name"] == name]

    def get(self, app_id: str) -> dict[str, Any]:
        return dict(self.stored[app_id])

    def import_dsl(self, content: str, name: str = "", app_id: str = "") -> dict[str, Any]:
        self.calls.append("import over" if app_id else "import")
        if self.error:
            raise self.error
        one = app_id or f"id-{len(self.stored) + 1}"
        kept = self.stored.get(one, {"keys": [], "published": {}, "enable_api": True, "id": one})
        about = json.loads(content)["app"]
        self.stored[one] = {**kept, "dsl": content, "mode": about["mode"], "name": name or about["name"]}
        self.edit(one)
        return {"app_id": one}

    def edit(self, app_id: str) -> None:
        self.edits += 1
        self.stored[app_id]["draft"] = {"updated_at": self.edits}

    def missing_plugins(self, app_id: str) -> list[str]:
        return self.missing

    def draft(self, app_id: str) -> dict[str, Any]:
        return self.stored[app_id]["draft"]

    def published(self, app_id: str) -> dict[str, Any]:
        return self.stored[app_id]["published"]

    def publish(self, app_id: str) -> None:
        self.calls.append("publish")
        if self.publishes:
            self.stored[app_id]["published"] = {"dsl": self.stored[app_id]["dsl"]}

    def keys(self, app_id: str) -> list[dict[str, Any]]:
        return self.stored[app_id]["keys"]

    def create_key(self, app_id: str) -> dict[str, Any]:
        key = {"id": f"key-{len(self.keys(app_id)) + 1}", "token": f"app-{len(self.keys(app_id)) + 1}"}
        self.keys(app_id).append(key)
        return key


Have = Callable[..., dict[str, Any]]


@pytest.fixture
def dify() -> Dify:
    return Dify()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def have(dify: Dify, said: list[str], tmp_path: pathlib.Path) -> Have:
    def run(dsl: Any = FLOW, check: bool = False, overwrite: bool = False, **wish: Any) -> dict[str, Any]:
        console: Any = dify
        options = Options(overwrite, check, said.append)
        return app.App(console, Record(str(tmp_path / "record.json")), options, Wish("flow", dsl, **wish)).run()

    return run


def test_a_workflow_is_imported_and_published(dify: Dify, have: Have) -> None:
    assert have(check=True)["action"] == "created"
    assert dify.calls == []
    assert have()["action"] == "created"
    assert dify.calls == ["import", "publish"]
    assert not have()["changed"]
    assert dify.calls == ["import", "publish"]


def test_a_new_dsl_goes_over_the_old_one_and_is_published(dify: Dify, have: Have) -> None:
    have()
    newer = {**FLOW, "workflow": {"graph": {"nodes": []}}}
    assert have(newer, check=True)["action"] == "updated"
    assert have(newer)["action"] == "updated"
    assert dify.calls == ["import", "publish", "import over", "publish"]
    assert dify.stored["id-1"]["published"]["dsl"] == app.text_of(newer)
    assert not have(newer)["changed"]


def test_an_edited_draft_is_reported_and_left_alone(dify: Dify, have: Have) -> None:
    have()
    dify.edit("id-1")
    assert have()["drift"] == [{"key": "content", "overwritten": False}]
    assert have({**FLOW, "version": "0.6.0"})["changed"] is False
    assert dify.calls == ["import", "publish"]
    assert have(overwrite=True)["action"] == "updated"
    assert not have()["changed"]


def test_one_that_was_made_anew_by_hand_is_not_ones_own(dify: Dify, have: Have) -> None:
    have()
    dify.stored["id-2"] = {**dify.stored.pop("id-1"), "id": "id-2"}
    assert have()["drift"] == [{"key": "content", "overwritten": False}]


def test_a_workflow_that_was_never_published_is(dify: Dify, have: Have) -> None:
    have()
    dify.stored["id-1"]["published"] = {}
    assert have(check=True)["action"] == "updated"
    assert have()["action"] == "updated"
    assert dify.stored["id-1"]["published"]


def test_a_publish_without_effect_is_an_error(dify: Dify, have: Have) -> None:
    dify.publishes = False
    with pytest.raises(AppError, match="told to publish flow and did not"):
        have()


def test_what_broke_off_is_still_ones_own(dify: Dify, have: Have) -> None:
    dify.publishes = False
    with pytest.raises(AppError):
        have()
    dify.publishes = True
    done = have()
    assert (done["action"], done["drift"]) == ("updated", [])
    assert not have()["changed"]


class Killed(BaseException):
    """The process is gone: nothing after it is done."""


@pytest.fixture
def killed(dify: Dify, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], contextlib.AbstractContextManager[None]]:
    @contextlib.contextmanager
    def at(step: str) -> Iterator[None]:
        def die(*_: Any) -> None:
            patch.setattr(Record, "save", lambda _: None)
            raise Killed

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(dify, step, die)
            yield

    return at


def test_a_run_that_is_killed_after_the_import_knows_its_app(dify: Dify, have: Have, killed: Any) -> None:
    with killed("missing_plugins"):
        have()
    done = have()
    assert (done["action"], done["drift"]) == ("updated", [])
    assert dify.calls == ["import", "publish"]
    assert not have()["changed"]
    dify.edit("id-1")
    assert have()["drift"] == [{"key": "content", "overwritten": False}]


@pytest.mark.parametrize("step", ["import_dsl", "publish"])
def test_a_change_that_is_killed_is_made_by_the_next_run(dify: Dify, have: Have, killed: Any, step: str) -> None:
    have()
    newer = {**FLOW, "version": "0.6.0"}
    with killed(step):
        have(newer)
    done = have(newer)
    assert (done["action"], done["drift"]) == ("updated", [])
    assert dify.stored["id-1"]["published"]["dsl"] == app.text_of(newer)
    assert not have(newer)["changed"]


def test_a_refused_change_does_not_make_later_edits_ones_own(dify: Dify, have: Have) -> None:
    have()
    dify.error = ConsoleError("invalid", "no such model", 400)
    with pytest.raises(ConsoleError):
        have({**FLOW, "version": "0.6.0"})
    dify.error = None
    dify.edit("id-1")
    assert have({**FLOW, "version": "0.6.0"})["drift"] == [{"key": "content", "overwritten": False}]


def test_an_import_over_an_app_keeps_its_name(dify: Dify, have: Have) -> None:
    have()
    have({**FLOW, "version": "0.6.0"})
    assert [one["name"] for one in dify.stored.values()] == ["flow"]


def test_missing_plugins_are_named(dify: Dify, have: Have, said: list[str]) -> None:
    dify.missing = ["langgenius/ollama:0.0.6@abc"]
    assert have()["missing_plugins"] == dify.missing
    assert "plugins that are not installed: langgenius/ollama:0.0.6@abc" in said[0]


def test_a_marketplace_out_of_reach_is_explained(dify: Dify, have: Have) -> None:
    dify.error = ConsoleError("invalid", "[Errno 111] Connection refused", 400)
    with pytest.raises(AppError, match=r"could not reach it .*write version: 0\.3\.1 or newer"):
        have()
    dify.error = ConsoleError("invalid", "Invalid YAML format", 400)
    with pytest.raises(ConsoleError, match="Invalid YAML format"):
        have()


def test_without_an_owner_a_check_says_what_would_be(dify: Dify, have: Have, said: list[str]) -> None:
    dify.has_owner = False
    assert have(check=True)["action"] == "created"
    assert "no owner yet" in said[0]
    assert not have(check=True, state="absent")["changed"]


def test_a_key_of_the_file_is_found_again(dify: Dify, have: Have, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "key"
    have(key=False)
    for _ in range(3):
        dify.create_key("id-1")
    file.write_text("app-2\n")
    assert have(key_file=str(file))["key_id"] == "key-2"
    (tmp_path / "record.json").unlink()
    result = have(key_file=str(file))
    assert (result["key_id"], result["changed"], len(dify.keys("id-1"))) == ("key-2", False, 3)


def test_a_key_that_others_may_read_is_written_anew(have: Have, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "key"
    have(key_file=str(file))
    file.chmod(0o644)
    assert have(key_file=str(file), check=True)["changed"]
    assert file.stat().st_mode & 0o777 == 0o644
    assert have(key_file=str(file))["changed"]
    assert (file.stat().st_mode & 0o777, file.read_text()) == (0o600, "app-1\n")
    assert not have(key_file=str(file))["changed"]


def test_no_key_is_asked_for(dify: Dify, have: Have) -> None:
    assert have(key=False)["key_id"] == ""
    assert dify.stored["id-1"]["keys"] == []


def test_text_and_mapping_are_the_same_dsl() -> None:
    assert app.parsed(app.text_of(FLOW)) == FLOW
    assert app.parsed("app: {mode: chat}") == {"app": {"mode": "chat"}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nkey: [s3cret", "expected ',' or ']', but got '<stream end>' (line 2, column 13)"),
        ("key: *s3cret", "found undefined alias … (line 1, column 6)"),
        ("key: !s3cret x", "could not determine a constructor for the tag … (line 1, column 6)"),
        ("key: !a%20s3cret x", "could not determine a constructor for the tag … (line 1, column 6)"),
        ("key: !!int s3cret", "a value is not what its kind asks for"),
        ("key: @s3cret", "found character '@' that cannot start any token (line 1, column 6)"),
        ("key: s3cret\x00", "special characters are not allowed"),
    ],
)
def test_what_is_wrong_with_yaml_is_told_without_its_text(text: str, said: str) -> None:
    with pytest.raises(AppError) as caught:
        app.parsed(text)
    assert str(caught.value) == f"The DSL is not valid YAML: {said}."
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


def test_json_is_told_in_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "HAS_YAML", False)
    with pytest.raises(AppError, match=r"Expecting ',' delimiter \(line 1, column 18\)"):
        app.parsed('{"key": "s3cret" "a"}')


def test_of_a_chat_only_what_it_runs_with_counts() -> None:
    chat = {"app": {"mode": "chat", "icon": "x"}, "model_config": {"pre_prompt": "a"}}
    known = app.digest(chat, "chat")
    assert app.digest({**chat, "app": {"mode": "chat", "icon": "y"}}, "chat") == known
    assert app.digest("app: {mode: chat}\nmodel_config: {pre_prompt: a}", "chat") == known
    assert app.digest({**chat, "model_config": {"pre_prompt": "b"}}, "chat") != known
    assert app.digest({**FLOW, "app": {"mode": "workflow", "icon": "y"}}, "workflow") != app.digest(FLOW, "workflow")


def test_yaml_is_needed_only_for_yaml(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not app.needs_yaml("app: {}")
    monkeypatch.setattr(app, "HAS_YAML", False)
    assert app.needs_yaml("app: {}")
    assert not any(app.needs_yaml(dsl) for dsl in (FLOW, json.dumps(FLOW), None))
    assert app.parsed(json.dumps(FLOW)) == FLOW
