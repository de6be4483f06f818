"""check -> run -> check -> run of each console module: a check announces what a run does, and it is done once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import database
import pytest
from node import (
    DSL,
    HOME,
    MACHINE,
    MODEL,
    OLLAMA,
    PLUGIN,
    Owner,
    Result,
    Step,
    ask_all,
    green,
    on_node,
    one,
    probe_answers,
)
from owner import chat

KEY = "/root/console-tests.key"
SECOND = "second:latest"
CREDENTIALS = {"base_url": OLLAMA, "mode": "chat", "context_size": "2048", "max_tokens": "512"}


def does(owner: Owner, module: str, **options: Any) -> Result:
    """What the run returned, after it was seen that only the first run has something to do."""
    steps = [Step(module, options, check) for check in (True, False, True, False)]
    check, run, check_again, run_again = results = ask_all(owner, steps)
    assert not any(result.failed for result in results), results
    assert [result.changed for result in results] == [True, True, False, False], results
    assert check.told["diff"]["before"] == run.told["diff"]["before"]
    assert check_again.told["diff"] == run_again.told["diff"]
    return run


@pytest.fixture(scope="module")
def second_model() -> Iterator[str]:
    """One more name for what Ollama has."""
    on_node(f"ollama cp {MODEL} {SECOND}")
    yield SECOND
    on_node(f"ollama rm {SECOND}")


def test_model(owner: Owner, second_model: str) -> None:
    wanted = {"model": second_model, "credentials": CREDENTIALS}
    does(owner, "dify_model", **wanted)
    assert owner.credentials(second_model)["credentials"]["context_size"] == "2048"

    wanted["credentials"] = {**CREDENTIALS, "context_size": "4096"}
    does(owner, "dify_model", **wanted)
    stored = owner.credentials(second_model)
    assert stored["credentials"]["context_size"] == "4096"
    assert len(stored["available_credentials"]) == 1

    does(owner, "dify_model", model=second_model, state="absent")
    assert second_model not in owner.models()


def test_app(owner: Owner) -> None:
    """An app as code: made, changed, edited by hand and then left alone, set back when told so, and deleted."""
    wanted = {"name": "as code", "dsl": DSL, "key_file": KEY}
    does(owner, "dify_app", **wanted)
    assert on_node(f"stat --format='%a %U' {KEY}") == "600 root"
    key = on_node(f"cat {KEY}")
    assert owner.keys(owner.app("as code")["id"]) == [key]
    assert chat(owner.url, key)

    wanted["dsl"] = {**DSL, "model_config": {**DSL["model_config"], "pre_prompt": "Be polite."}}
    does(owner, "dify_app", **wanted)
    assert owner.prompt("as code") == "Be polite."

    owner.change_prompt("as code", "Be yourself.")
    reported = green(owner, "dify_app", **wanted)
    assert not reported.changed
    assert [one["key"] for one in reported.told["drift"]] == ["content"]
    assert owner.prompt("as code") == "Be yourself."

    does(owner, "dify_app", overwrite=True, **wanted)
    assert owner.prompt("as code") == "Be polite."
    assert owner.keys(owner.app("as code")["id"]) == [key]

    does(owner, "dify_app", name="as code", state="absent", key_file=KEY)
    assert owner.apps("as code") == []
    assert on_node(f"ls {KEY} 2>/dev/null || true") == ""


def test_plugin(owner: Owner) -> None:
    """To another version and back: models keep their credentials, and the process is the one of that version."""
    before = owner.belongings()
    does(owner, "dify_plugin", plugin=PLUGIN, plugin_version="0.1.0", pin=False)
    assert f"{PLUGIN}:0.1.0@" in owner.plugins()[PLUGIN]
    assert running() == ["0.1.0"]
    assert probe_answers(owner)
    does(owner, "dify_plugin", plugin=PLUGIN, state="latest")
    assert running() == ["0.2.0"]
    assert owner.belongings() == before


def running() -> list[str]:
    """The versions of the plugin of which a process runs, by the folders that they run in."""
    script = "for one in /proc/[0-9]*; do readlink $one/cwd || true; done | sort -u"
    folders = on_node(f"docker exec dify-plugin_daemon-1 sh -c '{script}'").splitlines()
    return [folder.rpartition("ollama-")[2].partition("@")[0] for folder in folders if "/langgenius/ollama-" in folder]


@pytest.fixture
def empty_database() -> Iterator[None]:
    """A Dify that nobody has set up; the one with an owner comes back."""
    database.keep(MACHINE)
    database.empty(MACHINE)
    yield
    database.put_back(MACHINE)


@pytest.mark.usefixtures("empty_database")
def test_setup(owner: Owner) -> None:
    run = does(owner, "dify_setup", name="Somebody", language="en-US")
    assert run.told["step"] == "finished"
    assert run.told["email"] == owner.email


def test_setup_of_what_has_an_owner(owner: Owner) -> None:
    """After the test above: the owner of before is the owner again."""
    assert not green(owner, "dify_setup").changed
    assert probe_answers(owner)


def test_health_asks_through_dify(owner: Owner) -> None:
    asked = {"probe": "llm", "app_key_file": f"{HOME}/.llmops-probe.key", "expect_plugins": [PLUGIN], "project": "dify"}
    answer = one(owner, "dify_health", **asked)
    assert not answer.failed, answer
    (llm,) = [check for check in answer.told["checks"] if check["name"] == "llm"]
    assert llm["status"] == "ok"
    assert llm["tokens"] >= 1
    assert llm["seconds"] > 0
    assert llm["tokens_per_second"] > 0
