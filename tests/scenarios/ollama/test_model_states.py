"""check -> run -> check -> run for each state of a model, and what a check run announces is what a run does."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator

import pytest
from server import MODELS, ollama_model, on_node

UPSTREAM = "llmops-upstream"


def bytes_of(name: str) -> int:
    return sum(model["missing_bytes"] for model in ollama_model(check=True, name=name, verify="none").told["models"])


@pytest.fixture
def nothing_of() -> Iterator[list[str]]:
    """Names that are absent before and after."""
    names = ["moving", "all-minilm", "bulky"]
    ollama_model(names=names, state="absent")
    yield names
    ollama_model(names=names, state="absent")


@pytest.mark.usefixtures("nothing_of")
def test_present_and_absent() -> None:
    expected = bytes_of("all-minilm")
    assert expected > 100_000
    assert not ollama_model(check=True, name="all-minilm", state="absent").changed

    announced = ollama_model(check=True, name="all-minilm")
    assert announced.changed
    assert announced.model["missing_bytes"] == expected

    pulled = ollama_model(name="all-minilm", verify="probe")
    assert pulled.changed
    assert pulled.model["action"] == "pulled"
    assert pulled.told["bytes_transferred"] == expected
    assert pulled.model["verified"]

    assert not ollama_model(check=True, name="all-minilm", verify="probe").changed
    again = ollama_model(name="all-minilm", verify="probe")
    assert not again.changed
    assert again.told["bytes_transferred"] == 0

    assert ollama_model(check=True, name="all-minilm", state="absent").changed
    assert ollama_model(name="ALL-MINILM:latest", state="absent").changed
    assert not ollama_model(name="all-minilm", state="absent").changed
    assert not ollama_model(check=True, name="all-minilm", state="absent").changed


@pytest.fixture
def second_edition() -> Iterator[Callable[[], None]]:
    """Call it, and from then on the registry has another `moving`."""
    override = "/srv/override/v2/library/moving/manifests"
    following = "/srv/www/models/manifests/registry.ollama.ai/library/moving/next"

    def upstream(script: str) -> None:
        subprocess.run(["docker", "exec", UPSTREAM, "sh", "-ec", script], check=True, timeout=60)

    yield lambda: upstream(f"mkdir -p {override} && cp {following} {override}/latest")
    upstream(f"rm -rf {override}")


@pytest.mark.usefixtures("nothing_of")
def test_latest_follows_the_registry_without_pulling_to_look(second_edition: Callable[[], None]) -> None:
    first = ollama_model(name="moving", state="latest", verify="probe")
    assert first.changed
    assert not ollama_model(check=True, name="moving", state="latest").changed
    assert not ollama_model(name="moving", state="latest").changed

    second_edition()
    assert not ollama_model(name="moving").changed  # present is content with what is there
    assert ollama_model(check=True, name="moving", state="latest").changed
    second = ollama_model(name="moving", state="latest", verify="probe")
    assert second.changed
    assert second.model["action"] == "updated"
    assert second.model["digest"] != first.model["digest"]
    assert not ollama_model(check=True, name="moving", state="latest").changed
    assert not ollama_model(name="moving", state="latest").changed


def test_latest_without_a_registry_fails_and_leaves_the_model() -> None:
    refused = ollama_model(name="deepseek-r1:1.5b", state="latest", registry="upstream:9")
    assert refused.failed
    assert "upstream:9" in refused.message
    assert not ollama_model(name="deepseek-r1:1.5b", verify="probe").changed


@pytest.mark.usefixtures("nothing_of")
def test_a_bundle_keeps_name_and_digest() -> None:
    pulled = ollama_model(name="all-minilm")
    on_node(f"rm -rf /srv/bundle && mkdir -p /srv && cp -a {MODELS} /srv/bundle")
    ollama_model(name="all-minilm", state="absent")

    offline = {"name": "all-minilm", "bundle": "/srv/bundle", "registry": "upstream:9", "verify": "probe"}
    assert ollama_model(check=True, **offline).changed
    imported = ollama_model(**offline)
    assert not imported.failed, imported.message
    assert imported.model["action"] == "imported"
    assert imported.model["digest"] == pulled.model["digest"]
    assert not ollama_model(check=True, **offline).changed
    assert not ollama_model(**offline).changed
    on_node("rm -rf /srv/bundle")


@pytest.mark.usefixtures("nothing_of")
def test_a_long_pull_shows_how_far_it_is() -> None:
    pulled = ollama_model(name="bulky", verify="digest")
    assert not pulled.failed, pulled.message
    assert pulled.changed
    assert "bulky" in pulled.output
    assert "MB/s" in pulled.output or "%" in pulled.output
