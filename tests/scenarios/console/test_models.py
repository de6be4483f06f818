"""Models that Dify cannot use, and models that somebody changed by hand."""

from __future__ import annotations

import pytest
from node import DSL, MODEL, NODE, OLLAMA, Owner, finished, green, ollama, refused, says

CREDENTIALS = {"base_url": OLLAMA, "mode": "chat", "context_size": "2048", "max_tokens": "512"}


@pytest.mark.usefixtures("nothing_is_lost")
class TestRefused:
    def test_model_that_ollama_does_not_have(self, owner: Owner) -> None:
        refused(
            owner, "dify_model", "does not accept nobody:1b at http://host.docker.internal:11434", "404|not found",
            "pull the model there", model="nobody:1b", credentials=CREDENTIALS,
        )  # fmt: skip

    def test_address_that_only_the_host_can_reach(self, owner: Owner) -> None:
        """Ollama listens there, and a container that asks itself finds nobody."""
        refused(
            owner, "dify_model", "cannot be reached", "host.docker.internal", "never localhost", model="other",
            credentials={**CREDENTIALS, "base_url": "http://127.0.0.1:11434"},
        )  # fmt: skip

    def test_provider_without_its_plugin(self, owner: Owner) -> None:
        refused(
            owner, "dify_model", "no provider langgenius/openai/openai", "Install it with dify_plugin",
            provider="openai", model="gpt", credentials={},
        )  # fmt: skip

    def test_credential_that_the_provider_does_not_know(self, owner: Owner) -> None:
        refused(
            owner, "dify_model", "knows no contextsize", "its credentials are", "context_size", model=MODEL,
            credentials={"contextsize": "1"},
        )  # fmt: skip


def test_changed_by_hand_and_on_two_nodes(owner: Owner) -> None:
    """What a hand changed is reported and left alone by a run, and set back by one that is told to.

    The latter has an app from the inventory, too. The community edition uses one address for a model; which one it is
    where two nodes have it, is said.
    """
    before = owner.belongings()
    given = owner.credentials(MODEL)["credentials"]["max_tokens"]
    owner.change_model(MODEL, max_tokens="777")

    run = finished(owner, dify_ollama_nodes=[ollama(owner), ollama(owner, "other", "http://other:11434")])
    says(
        run.output,
        f"{MODEL}: max_tokens is 777 in Dify, where {given} is wanted",
        "dify_models_overwrite: true sets it",
    )
    says(run.output, f"{MODEL} is on {NODE} and other: Dify asks {NODE}", "choose another one by dify_models")
    assert run.changed == 0
    assert owner.credentials(MODEL)["credentials"]["max_tokens"] == "777"

    app = {"name": "of the inventory", "dsl": DSL}
    told = finished(owner, dify_models_overwrite=True, dify_apps=[app])
    assert told.changed == 2
    assert len(owner.apps(app["name"])) == 1
    assert green(owner, "dify_app", name=app["name"], state="absent").changed
    assert owner.belongings() == before
