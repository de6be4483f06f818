# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What has to change for a model, from plain data: forms, masks, differences, and whose they are."""

from __future__ import annotations

import json
import pathlib
import stat
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils import _dify_model as manager
from ansible_collections.llmops.stack.plugins.module_utils import _dify_model_plan as plan
from ansible_collections.llmops.stack.plugins.module_utils import _dify_model_record as record
from ansible_collections.llmops.stack.plugins.module_utils._dify_console import ConsoleError
from ansible_collections.llmops.stack.plugins.module_utils._dify_model_plan import Field, Found, PlanError

KEY = "secret-key-number-1"
FIELDS = [
    Field("base_url", required=True),
    Field("api_key", secret=True),
    Field("mode", required=True, default="chat", conditions=(("__model_type", "llm"),)),
    Field("context_size", required=True, default="4096"),
    Field("vision_support", default="false", conditions=(("__model_type", "llm"), ("mode", "chat"))),
]
FOUND = {"base_url": "http://a:11434", "api_key": plan.mask(KEY), "mode": "chat", "context_size": "4096"}


def left(**changes: str) -> record.Remembered:
    return record.Remembered({**FOUND, **changes}, {"api_key": record.hashed(KEY)}, "id-1")


@pytest.mark.parametrize(
    ("value", "shown"),
    [("secret-key-1", "secret************-1"), ("12345678", "*" * 20), ("123456789", "123456************89"), ("", "")],
)
def test_a_secret_is_masked_as_dify_masks_it(value: str, shown: str) -> None:
    assert plan.mask(value) == shown


def test_a_form_is_read_from_the_entry_of_a_provider() -> None:
    shown = {"variable": "mode", "type": "select", "required": True, "default": "chat", "show_on": []}
    when = {"variable": "__model_type", "value": "llm"}
    key = {"variable": "api_key", "type": "secret-input", "required": False, "default": None, "show_on": [when]}
    entry = {"provider": "p", "model_credential_schema": {"credential_form_schemas": [shown, key]}}
    assert plan.form(entry) == [
        Field("mode", required=True, default="chat"),
        Field("api_key", secret=True, conditions=(("__model_type", "llm"),)),
    ]


def test_a_provider_without_models_by_name_is_refused() -> None:
    with pytest.raises(PlanError, match="openai has no models that are added by name"):
        plan.form({"provider": "openai", "model_credential_schema": None})


@pytest.mark.parametrize(
    ("value", "sent"), [(True, "true"), (False, "false"), (4096, "4096"), (0.5, "0.5"), ("4096", "4096")]
)
def test_every_value_is_sent_as_text(value: Any, sent: str) -> None:
    assert plan.wanted_values({"context_size": value}, FIELDS, "llm") == {"context_size": sent}


def test_a_value_that_is_no_scalar_is_refused_without_showing_it() -> None:
    with pytest.raises(PlanError) as raised:
        plan.wanted_values({"api_key": [KEY]}, FIELDS, "llm")
    assert "must be a text" in str(raised.value) and KEY not in str(raised.value)


def test_a_key_that_the_provider_does_not_know_is_refused() -> None:
    with pytest.raises(PlanError, match="knows no num_ctx; its credentials are base_url, api_key, mode"):
        plan.wanted_values({"num_ctx": 1}, FIELDS, "llm")


def test_a_key_of_another_model_type_is_left_out() -> None:
    given = {"base_url": "u", "mode": "chat", "vision_support": True}
    assert plan.wanted_values(given, FIELDS, "text-embedding") == {"base_url": "u"}
    assert plan.wanted_values({**given, "mode": "completion"}, FIELDS, "llm") == {"base_url": "u", "mode": "completion"}
    # The default of mode counts where none is given.
    assert plan.wanted_values({"vision_support": True}, FIELDS, "llm") == {"vision_support": "true"}


def test_what_is_missing_is_filled_from_defaults() -> None:
    whole = {"base_url": "u", "mode": "chat", "context_size": "4096", "vision_support": "false"}
    assert plan.complete({"base_url": "u"}, FIELDS, "llm") == whole
    assert plan.complete({"base_url": "u"}, FIELDS, "text-embedding") == {"base_url": "u", "context_size": "4096"}
    with pytest.raises(PlanError, match="needs base_url"):
        plan.complete({}, FIELDS, "llm")


def test_equal_values_are_no_difference_whatever_is_remembered() -> None:
    wanted = {"base_url": "http://a:11434", "api_key": KEY}
    for remembered in (None, left(), left(api_key="other"), record.Remembered({})):
        assert plan.differences(wanted, FOUND, FIELDS, remembered) == []


def test_a_value_as_it_was_left_was_changed_in_the_inventory() -> None:
    (one,) = plan.differences({"context_size": "8192"}, FOUND, FIELDS, left())
    assert (one.key, one.by_hand) == ("context_size", False)


@pytest.mark.parametrize("remembered", [None, left(context_size="2048"), record.Remembered({})])
def test_any_other_value_was_changed_by_hand(remembered: record.Remembered | None) -> None:
    (one,) = plan.differences({"context_size": "8192"}, FOUND, FIELDS, remembered)
    assert one.by_hand
    assert one.shown() == {"key": "context_size", "wanted": "8192", "found": "4096"}


def test_a_secret_that_differs_in_the_middle_is_seen_if_it_is_remembered() -> None:
    other = KEY.replace("key", "mey")
    assert plan.mask(other) == plan.mask(KEY)
    (one,) = plan.differences({"api_key": other}, FOUND, FIELDS, left())
    assert (one.by_hand, one.shown()["wanted"]) == (False, "(secret)")
    assert plan.differences({"api_key": other}, FOUND, FIELDS, None) == []


def test_a_secret_changed_by_hand_is_reported_without_it() -> None:
    (one,) = plan.differences({"api_key": KEY}, {**FOUND, "api_key": plan.mask("quite-another-1")}, FIELDS, left())
    assert one.by_hand
    assert one.shown() == {"key": "api_key", "wanted": "(secret)", "found": "another (secret)"}


def test_an_update_never_sends_a_mask_back() -> None:
    assert plan.body(FOUND, {"context_size": "8192"}, FIELDS) == {
        **FOUND,
        "api_key": "[__HIDDEN__]",
        "context_size": "8192",
    }
    assert plan.body(FOUND, {"api_key": KEY}, FIELDS)["api_key"] == KEY


def test_which_credential_is_managed() -> None:
    found = Found(FOUND, "id-2", "API KEY 2", {"id-2": "API KEY 2", "id-1": "API KEY 1"})
    assert plan.own(found, "llmops.stack", None) == "id-2"
    assert plan.own(found, "llmops.stack", left()) == "id-1"
    assert plan.own(found, "API KEY 2", left()) == "id-2"
    assert plan.own(Found(FOUND), "llmops.stack", left()) == ""


def test_an_equal_credential_is_found_behind_its_mask() -> None:
    shown = {"id-1": {**FOUND, "base_url": "http://b:11434"}, "id-2": FOUND}
    assert plan.equal_credential(shown, {"base_url": "http://a:11434", "api_key": KEY}, ["api_key"]) == "id-2"
    assert plan.equal_credential(shown, {"base_url": "http://c:11434"}, []) == ""


def test_the_record_holds_no_secret_and_only_its_owner_reads_it(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "models.json"
    one = record.Record(str(path))
    one.set("ollama llm m", left())
    one.save()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert KEY not in path.read_text()
    again = record.Record(str(path)).get("ollama llm m")
    assert again is not None and again.values == FOUND
    assert again.is_secret("api_key", KEY) and not again.is_secret("api_key", KEY + "x")
    assert again.is_secret("base_url", "of which no hash is there")
    assert [entry.name for entry in tmp_path.iterdir()] == ["models.json"]


def test_the_record_is_written_only_when_it_says_something_new(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "models.json"
    entry = left()
    one = record.Record(str(path))
    one.set("m", entry)
    one.save()
    before = path.stat().st_ino
    again = record.Record(str(path))
    again.set("m", entry)
    again.save()
    assert path.stat().st_ino == before
    again.set("m", None)
    again.save()
    assert json.loads(path.read_text()) == {}


def test_models_that_are_defaults_are_found_beside_apps(tmp_path: pathlib.Path) -> None:
    one = record.Record(str(tmp_path / "models.json"))
    one.put("app llm bot", {"app_id": "1"})
    one.set("p llm a", record.Remembered({}, is_default=True))
    one.set("p llm b", record.Remembered({}))
    assert one.defaults() == ["p llm a"]
    one.set_default("p llm a", False)
    one.set_default("p llm unknown", True)
    assert one.defaults() == [] and one.get("p llm a") == one.get("p llm b") and one.entry("p llm unknown") is None


@pytest.mark.parametrize("content", ["", "[]", "{", '{"m": 1}'])
def test_a_damaged_record_remembers_nothing(tmp_path: pathlib.Path, content: str) -> None:
    path = tmp_path / "models.json"
    path.write_text(content)
    assert record.Record(str(path)).get("m") is None


def test_without_a_path_nothing_is_remembered() -> None:
    one = record.Record()
    one.set("m", left())
    one.save()
    assert one.get("m") is None


class Dify:
    """A console in memory, with one provider: it keeps a secret where the word for it comes back, as Dify does."""

    def __init__(self) -> None:
        self.models = self
        self.secrets: set[str] = set()
        self.stored: dict[str, dict[str, Any]] = {}
        self.current = ""
        self.default_model = ("", "")
        self.broken: list[ConsoleError] = []  # raised by the next writes; all but "invalid" after they took effect
        self.refuses = False  # each of them before it took effect
        self.forgets_secrets = False
        self.listed_without_credential = False
        self.switches = True
        self.takes_default = True
        self.sent: list[dict[str, str]] = []

    def login(self) -> None: ...

    def hide(self, text: str) -> str:
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text

    def provider_id(self, name: str) -> str:
        return f"langgenius/{name}/{name}"

    def providers(self) -> list[dict[str, Any]]:
        fields = [
            {"variable": one.name, "type": "secret-input" if one.secret else "text-input", "default": one.default}
            for one in FIELDS
        ]
        schema = {"credential_form_schemas": fields}
        return [{"provider": self.provider_id("ollama"), "model_credential_schema": schema}]

    def of(self, provider: str) -> list[dict[str, Any]]:
        raise ConsoleError("plugin_dead", "no answer")

    def credentials(self, provider: str, model: str, model_type: str, credential_id: str = "") -> dict[str, Any]:
        one = self.stored.get(credential_id or self.current) or {"values": {}, "name": ""}
        shown = {key: plan.mask(value) if key == "api_key" else value for key, value in one["values"].items()}
        available = [{"credential_id": key, "credential_name": one["name"]} for key, one in self.stored.items()]
        return {"credentials": shown, "id": self.current, "name": one["name"], "available": available}

    def save(self, provider: str, model: str, kind: str, values: dict[str, str], one: str = "", name: str = "") -> None:
        if self.broken and (self.refuses or self.broken[0].kind == "invalid"):
            raise self.broken.pop()
        self.sent.append(values)
        old = self.stored.get(one, {"values": {}})["values"]
        if self.forgets_secrets:
            old = {}
        values = {key: old.get(key, "?") if value == plan.KEEP_SECRET else value for key, value in values.items()}
        one = one or f"id-{len(self.stored) + 1}"
        self.stored[one] = {"values": values, "name": name}
        if not self.listed_without_credential:
            self.current = self.current or one
        if self.broken:
            raise self.broken.pop()

    def switch(self, provider: str, model: str, model_type: str, one: str) -> None:
        self.current = one if self.switches else ""

    def default(self, model_type: str) -> tuple[str, str]:
        return self.default_model

    def set_default(self, model_type: str, provider: str, model: str) -> bool:
        if self.takes_default:
            self.default_model = (self.provider_id(provider), model)
        return self.takes_default


@pytest.fixture
def dify(monkeypatch: pytest.MonkeyPatch) -> Dify:
    monkeypatch.setattr(manager, "_PAUSE", 0.01)
    return Dify()


@pytest.fixture
def have(dify: Dify, tmp_path: pathlib.Path) -> Callable[..., dict[str, Any]]:
    def run(default: bool = False, deadline: float = 5, **credentials: Any) -> dict[str, Any]:
        options = manager.Options(deadline=deadline)
        console: Any = dify
        workspace = manager.Workspace(console, record.Record(str(tmp_path / "models.json")), options)
        (result,) = workspace.run([manager.Wish("m", credentials=credentials, default=default)])
        return result

    return run


Have = Callable[..., dict[str, Any]]


def test_a_secret_that_is_not_given_survives_an_update(dify: Dify, have: Have) -> None:
    have(base_url="u", api_key=KEY)
    assert have(base_url="other")["action"] == "updated"
    assert dify.sent[-1]["api_key"] == "[__HIDDEN__]"
    assert dify.stored["id-1"]["values"] == {**dify.sent[0], "base_url": "other"}


def test_a_secret_that_was_lost_is_no_success(dify: Dify, have: Have) -> None:
    have(base_url="u", api_key=KEY)
    dify.forgets_secrets = True
    assert "m: Dify did not keep api_key of m" in have(base_url="other")["error"]


def test_a_write_that_took_effect_in_spite_of_its_error_is_not_repeated(dify: Dify, have: Have) -> None:
    dify.broken = [ConsoleError("server_error", "Internal Server Error", 500)]
    result = have(base_url="u")
    assert (result["action"], "error" in result) == ("created", False)
    assert len(dify.sent) == len(dify.stored) == 1


def test_patience_ends(dify: Dify, have: Have) -> None:
    dify.broken = [ConsoleError("server_error", "Internal Server Error", 500)]
    assert "The plugin's process is dead or still starting" in have(deadline=0, base_url="u")["error"]


@pytest.mark.parametrize(
    ("error", "changed", "words"),
    [
        (
            ConsoleError("invalid", "An error occurred during credentials validation: Connection refused", 400),
            False,
            "The provider does not accept m at http://127.0.0.1:1: the model server cannot be reached. Dify asks from "
            "inside a container, and there 127.0.0.1 is that container: write http://host.docker.internal:11434 for a "
            "model server on Dify's own host, never localhost, and let it listen to containers (ollama_bind).",
        ),
        (
            ConsoleError(
                "invalid",
                "An error occurred during credentials validation: API request failed with status code 404: "
                '{"error":"model \\"m\\" not found, try pulling it first"}',
                400,
            ),
            False,
            "The provider does not accept m at http://127.0.0.1:1: the model is not found there. Correct its name, or "
            "pull the model there (ollama_models of that host).",
        ),
        (
            ConsoleError("no_answer", "it does not answer within 310 s", code="timeout_read"),
            True,
            "m: Dify tried the model at http://127.0.0.1:1 and did not answer in time. The plugin's process is dead, "
            "of which older plugin daemons say nothing, or the model server hangs: read the log of plugin_daemon and "
            "restart it, and ask the model server itself.",
        ),
        (ConsoleError("forbidden", "You may not", 403), False, "m: You may not. The account may not do this: it takes"),
    ],
)
def test_one_sentence_for_what_is_wrong_and_what_to_do(
    dify: Dify, have: Have, error: ConsoleError, changed: bool, words: str
) -> None:
    dify.broken = [error]
    dify.refuses = not changed
    result = have(deadline=0, base_url="http://127.0.0.1:1")
    assert result["error"].startswith(words)
    # What was refused was not done; of what was not answered nobody knows.
    assert (result["changed"], result["action"]) == (changed, "created" if changed else "none")


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("http://localhost:11434", "there localhost is that container"),
        ("http://[::1]:11434", "there ::1 is that container"),
        ("http://0.0.0.0:11434", "there 0.0.0.0 is that container"),
        ("http://host.docker.internal:11434", "see that the model server listens there"),
        ("http://10.0.0.5:11434", "see that the model server listens there"),
    ],
)
def test_addresses_that_only_the_host_can_reach(dify: Dify, have: Have, url: str, advice: str) -> None:
    dify.broken = [ConsoleError("invalid", f"{manager._PREFIX}NewConnectionError: [Errno 111] Connection refused", 400)]
    assert advice in have(base_url=url)["error"]


def test_how_long_it_was_tried_is_said(dify: Dify, have: Have) -> None:
    dify.broken = [ConsoleError("daemon_down", "Failed to request plugin daemon", 400) for _ in range(500)]
    dify.refuses = True
    error = have(deadline=0.2, base_url="u")["error"]
    assert error.endswith("It was tried again until the deadline of 0.2 s had passed.")
    assert "plugin_daemon" in error
    assert 2 < len(dify.broken) < 500


def test_what_a_provider_says_is_told_without_the_secret(dify: Dify, have: Have) -> None:
    text = f"An error occurred during credentials validation: API request failed with status code 401: key {KEY}"
    dify.broken = [ConsoleError("invalid", text, 400)]
    error = have(base_url="http://user:pw@gpu:1", api_key=KEY)["error"]
    assert error == (
        "The provider does not accept m at http://***@gpu:1: the model server refuses the credentials. "
        "Correct the api_key of the model."
    )
    dify.broken = [ConsoleError("invalid", text.replace("status code 401", "an odd thing"), 400)]
    assert "an odd thing: key ***." in have(base_url="v", api_key=KEY)["error"]


def test_a_model_whose_credential_was_deleted_gets_the_new_one(dify: Dify, have: Have) -> None:
    dify.listed_without_credential = True
    dify.stored["id-0"] = {"values": {"base_url": "elsewhere"}, "name": "by hand"}
    assert have(base_url="u")["credential_name"] == "llmops.stack"
    assert dify.stored[dify.current]["values"]["base_url"] == "u"
    assert not have(base_url="u")["changed"]


def test_an_equal_credential_that_is_not_in_use_is_used(dify: Dify, have: Have) -> None:
    dify.stored["id-0"] = {"values": {"base_url": "u", "api_key": KEY}, "name": "by hand"}
    result = have(base_url="u", api_key=KEY)
    assert (result["action"], result["credential_name"], dify.sent) == ("switched", "by hand", [])


def test_credentials_that_dify_does_not_use_are_no_success(dify: Dify, have: Have) -> None:
    dify.listed_without_credential, dify.switches = True, False
    assert "took the credentials and does not use them" in have(base_url="u")["error"]


def test_a_default_that_dify_does_not_take_is_an_error(dify: Dify, have: Have) -> None:
    dify.takes_default = False
    assert "told to make m the default llm and still has none" in have(base_url="u", default=True)["error"]


def test_what_may_be_shown() -> None:
    given = {"base_url": "u", "api_key": KEY, "context_size": 4096}
    assert plan.harmless_values(given, FIELDS) == ({"u", "4096"}, {KEY})
    assert plan.harmless_values({**given, "odd": "x"}, None) == ({"u", "4096"}, {KEY, "x"})
