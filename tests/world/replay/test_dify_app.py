# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""dify_app against the stand-ins of four releases: check, run, check, run; one app, one key, a chat with that key."""

from __future__ import annotations

import json
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import console_pair
import pytest
import yaml
from console_pair import EMAIL, PASSWORD, Pair
from console_run import RunModule, runner
from instance_api import CHAT


class Desk:
    """One release, the module on it, and its console as the operator's browser."""

    def __init__(self, pair: Pair, run: RunModule, directory: Path) -> None:
        self.pair, self.run_module = pair, run
        self.directory = directory
        self.record, self.key_file = directory / "record.json", directory / "app.key"
        self.browser = pair.console()

    def dsl(self, version: str = "0.3.1", prompt: str = "You are a probe.") -> dict[str, Any]:
        model = {"provider": self.browser.models.provider_id("ollama"), "name": "llama3.2", "mode": "chat"}
        return {
            "kind": "app",
            "version": version,
            "dependencies": [],
            "app": {"name": "in the file", "mode": "chat", "icon": "x", "icon_background": "#FFEAD5"},
            "model_config": {"model": {**model, "completion_params": {}}, "pre_prompt": prompt},
        }

    def run(self, check: bool = False, **options: Any) -> dict[str, Any]:
        given = {
            "url": self.pair.url,
            "email": EMAIL,
            "password": PASSWORD,
            "session_file": str(self.directory / "session.json"),
            "record": str(self.record),
            "name": "probe",
            "dsl": self.dsl(),
        }
        options = {name: value for name, value in {**given, **options}.items() if value is not None}
        return self.run_module("dify_app", check=check, **options)

    def apps(self) -> list[dict[str, Any]]:
        return self.browser.apps.find("probe")

    def prompt(self) -> str:
        return str(self.browser.apps.get(self.apps()[0]["id"])["model_config"]["pre_prompt"])

    def make(self) -> None:
        look = {"icon_type": "emoji", "icon": "x", "icon_background": "#FFEAD5", "description": ""}
        self.browser.request("POST", "apps", json={"name": "probe", "mode": "chat", **look})

    def edit(self, prompt: str) -> None:
        time.sleep(1.1)  # Dify tells edits apart by the second
        self.browser.apps.set_model_config(self.apps()[0]["id"], self.dsl(prompt=prompt)["model_config"])


@pytest.fixture(scope="module", params=console_pair.DAEMONS)
def pair(
    request: pytest.FixtureRequest, postgres: Any, redis_server: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    directory: Path = tmp_path_factory.mktemp(f"app-{request.param}")
    with console_pair.running(request.param, postgres, redis_server, directory, 56) as running:
        console = running.set_up()
        if running.daemon:
            running.install(console)
        console.models.save("ollama", "llama3.2", "llm", running.credentials)
        yield running


@pytest.fixture
def desk(pair: Pair, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(pair, runner(capsys), tmp_path)
    yield desk
    for one in desk.browser.apps.find():
        desk.browser.apps.delete(one["id"])


def test_check_run_check_run_and_a_chat_with_the_key(desk: Desk) -> None:
    foreseen = desk.run(check=True, key_file=str(desk.key_file))
    assert (foreseen["changed"], foreseen["action"], foreseen["mode"]) == (True, "created", "chat")
    assert desk.apps() == [] and not desk.record.exists() and not desk.key_file.exists()
    done = desk.run(key_file=str(desk.key_file))
    assert (done["changed"], done["action"], done["missing_plugins"]) == (True, "created", [])
    # What a check promises is what a run does.
    assert done["diff"] == foreseen["diff"]
    for check in (True, False):
        again = desk.run(check=check, key_file=str(desk.key_file))
        assert (again["changed"], again["action"], again["drift"]) == (False, "none", [])
        assert again["diff"]["before"] == again["diff"]["after"] == done["diff"]["after"]
        assert (again["id"], again["key_id"]) == (done["id"], done["key_id"])
    assert len(desk.apps()) == len(desk.browser.apps.keys(done["id"])) == 1
    assert stat.S_IMODE(desk.key_file.stat().st_mode) == 0o600
    headers = {"Authorization": f"Bearer {desk.key_file.read_text().strip()}"}
    body = {**CHAT, "query": "hi", "response_mode": "blocking"}
    reply = desk.pair.instance.send("POST", "/v1/chat-messages", body=body, headers=headers)
    assert (reply.status, reply.json["answer"]) == (200, "Hello from fake")


def test_the_key_is_shown_only_where_it_is_asked_for(desk: Desk) -> None:
    created = desk.run(return_key=True)
    assert created["api_key"].startswith("app-")
    again = desk.run(key_file=str(desk.key_file))
    assert (again["changed"], desk.key_file.read_text().strip()) == (True, created["api_key"])
    for result in (desk.run(), desk.run(check=True), desk.run(key_file=str(desk.key_file))):
        assert not result["changed"]
        assert created["api_key"] not in json.dumps(result)
        assert PASSWORD not in json.dumps(result)
    assert created["api_key"] not in desk.record.read_text()


def test_one_key_is_kept(desk: Desk) -> None:
    created = desk.run()
    desk.browser.apps.create_key(created["id"])
    assert desk.run()["key_id"] == created["key_id"]
    assert len(desk.browser.apps.keys(created["id"])) == 2
    desk.browser.request("DELETE", f"apps/{created['id']}/api-keys/{created['key_id']}")
    # The other is used: a third would be one more that nobody knows of.
    assert not desk.run()["changed"]
    assert len(desk.browser.apps.keys(created["id"])) == 1


def test_a_new_dsl_is_written_over_the_old_one(desk: Desk) -> None:
    created = desk.run()
    changed = desk.dsl(prompt="Answer in verse.")
    assert desk.run(check=True, dsl=changed)["action"] == "updated"
    assert desk.prompt() == "You are a probe."
    done = desk.run(dsl=changed)
    assert (done["action"], done["id"], done["drift"]) == ("updated", created["id"], [])
    assert (desk.prompt(), len(desk.apps())) == ("Answer in verse.", 1)
    assert not desk.run(dsl=changed)["changed"]


def test_the_icon_of_a_chat_is_left_alone(desk: Desk) -> None:
    desk.run()
    looks = desk.dsl()
    looks["app"] = {**looks["app"], "icon": "y", "description": "Another one."}
    for check in (True, False):
        assert not desk.run(check=check, dsl=looks)["changed"]


def test_a_key_without_a_place_is_said_before_anything_is_done(desk: Desk) -> None:
    file = desk.directory / "none" / "app.key"
    said = f"The folder {file.parent} is not there, and key_file of the app probe is to be in it"
    assert said in json.dumps(desk.run(check=True, key_file=str(file))["warnings"])
    assert desk.run(key_file=str(file))["msg"].startswith(said)
    assert desk.apps() == []
    assert desk.run(key_file=str(file), key=False)["changed"]


def test_an_edited_app_is_reported_and_left_alone(desk: Desk) -> None:
    desk.run()
    desk.edit("Edited by hand.")
    for dsl in (desk.dsl(), desk.dsl(prompt="Newer.")):
        for check in (True, False):
            seen = desk.run(check=check, dsl=dsl)
            assert (seen["changed"], seen["drift"]) == (False, [{"key": "content", "overwritten": False}])
            assert "edited or made in the browser" in json.dumps(seen["warnings"])
    assert desk.prompt() == "Edited by hand."
    assert desk.run(overwrite=True)["drift"] == [{"key": "content", "overwritten": True}]
    assert desk.prompt() == "You are a probe."
    assert not desk.run()["changed"]


def test_an_app_made_by_hand_is_left_alone(desk: Desk) -> None:
    desk.make()
    seen = desk.run()
    assert len(seen["drift"]) == len(desk.apps()) == 1
    # Without a record the name is all that counts.
    assert desk.run(record="")["drift"] == []


def test_the_api_is_opened_and_closed(desk: Desk) -> None:
    created = desk.run()
    desk.browser.apps.enable_api(created["id"], False)
    assert desk.run(check=True)["changed"]
    assert desk.run()["action"] == "updated"
    assert desk.browser.apps.get(created["id"])["enable_api"] is True
    assert desk.run(enable_api=False)["changed"]
    assert not desk.run(enable_api=False)["changed"]


def test_absent(desk: Desk) -> None:
    desk.run(key_file=str(desk.key_file))
    gone: dict[str, Any] = {"state": "absent", "key_file": str(desk.key_file), "dsl": None}
    assert desk.run(check=True, **gone)["action"] == "deleted"
    assert len(desk.apps()) == 1 and desk.key_file.exists()
    assert desk.run(**gone)["changed"]
    assert desk.apps() == [] and not desk.key_file.exists()
    assert not desk.run(**gone)["changed"]


@pytest.mark.parametrize("version", ["99.0.0", "0.1.6"])
def test_a_dsl_of_another_version_is_confirmed(desk: Desk, version: str) -> None:
    text = yaml.safe_dump(desk.dsl(version))
    file = desk.directory / "probe.yml"
    file.write_text(text)
    assert desk.run(dsl=None, src=str(file))["action"] == "created"
    assert not desk.run(dsl=text)["changed"]


def test_a_name_that_is_there_twice_is_refused(desk: Desk) -> None:
    for _ in range(2):
        desk.make()
    assert "Dify has 2 apps with the name probe" in desk.run()["msg"]


@pytest.mark.parametrize(
    ("dsl", "said"),
    [
        ("a: [b", "not valid YAML"),
        ("just text", "no mapping `app`"),
        ({"version": "0.3.1", "kind": "app"}, "no mapping `app`"),
        (None, "no DSL to make it from"),
    ],
)
def test_what_is_no_app_is_refused(desk: Desk, dsl: Any, said: str) -> None:
    for check in (True, False):
        assert said in desk.run(check=check, dsl=dsl)["msg"]
    assert desk.apps() == []


def test_another_kind_is_refused(desk: Desk) -> None:
    desk.run()
    dsl = desk.dsl()
    dsl["app"]["mode"] = "workflow"
    assert "is a chat and the DSL a workflow" in desk.run(dsl=dsl)["msg"]


def test_several_in_one_call(desk: Desk) -> None:
    closed = {"name": "closed", "dsl": desk.dsl(), "enable_api": False, "key": False}
    apps: list[dict[str, Any]] = [{"name": "probe", "dsl": desk.dsl(), "key_file": str(desk.key_file)}, closed]

    def run(check: bool = False, **options: Any) -> dict[str, Any]:
        return desk.run(check=check, **{"name": None, "dsl": None, "apps": apps, **options})

    foreseen = run(check=True)
    assert foreseen["changed"] and [one["action"] for one in foreseen["apps"]] == ["created", "created"]
    assert desk.apps() == []
    done = run()
    assert done["diff"] == foreseen["diff"]
    assert [(one["name"], one["enable_api"], bool(one["key_id"])) for one in done["apps"]] == [
        ("probe", True, True),
        ("closed", False, False),
    ]
    for check in (True, False):
        again = run(check=check)
        assert not again["changed"] and again["diff"]["before"] == again["diff"]["after"] == done["diff"]["after"]
        assert [one["id"] for one in again["apps"]] == [one["id"] for one in done["apps"]]
    desk.edit("Edited by hand.")
    assert [one["drift"] for one in run()["apps"]] == [[{"key": "content", "overwritten": False}], []]
    apps[0]["overwrite"] = True
    assert [one["action"] for one in run()["apps"]] == ["updated", "none"]
    gone = run(apps=[{"name": one["name"], "state": "absent"} for one in apps])
    assert [one["action"] for one in gone["apps"]] == ["deleted", "deleted"]


def test_the_app_that_fails_is_named_and_the_others_are_done(desk: Desk) -> None:
    apps = [
        {"name": "broken", "dsl": "a: [b"},
        {"name": "probe", "dsl": desk.dsl()},
        {"name": "lost", "src": str(desk.directory / "none.yml")},
    ]
    for check in (True, False):
        result = desk.run(check=check, name=None, dsl=None, apps=apps)
        assert result["failed"] and result["changed"]
        assert result["msg"].startswith("2 of 3 apps are not as wanted. broken: The DSL is not valid YAML")
        assert " lost: The DSL cannot be read from src" in result["msg"]
        assert ["error" in one for one in result["apps"]] == [True, False, True]
    assert len(desk.apps()) == 1
    wrong = desk.run(password="An0ther-one", name=None, dsl=None, apps=apps[1:2] + apps[:1])
    assert wrong["msg"].startswith(f"Dify refuses email and password of {EMAIL}. Correct email")
    assert wrong["reason"] == "wrong_password"
    twice = desk.run(name=None, dsl=None, apps=apps[1:2] * 2)
    assert twice["msg"] == "The app probe is given twice."


def test_overwrite_needs_a_record(desk: Desk) -> None:
    assert "overwrite needs record" in desk.run(overwrite=True, record="")["msg"]


@console_pair.on(*console_pair.WITH_DAEMON)
def test_an_old_dsl_that_makes_dify_ask_the_marketplace(desk: Desk) -> None:
    assert "write version: 0.3.1 or newer" in desk.run(dsl=desk.dsl("0.1.5"))["msg"]
