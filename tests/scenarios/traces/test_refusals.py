"""What cannot end well is refused before anything is touched, and the sentence says what to do."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any

import pytest
from node import MACHINE, NODE, Run, on_node, says
from states import TRACELOOP, play

pytestmark = pytest.mark.usefixtures("untouched")
NO_MANIFEST = str(pathlib.Path(__file__).parent)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        pytest.param({"traceloop_backend": "traceloop"}, ["traceloop_api_key"], id="no key"),
        pytest.param(
            {**TRACELOOP, "traceloop_base_url": "grpc://upstream:4317"}, ["OTLP over HTTP", "4318"], id="grpc address"
        ),
        pytest.param({"traceloop_plugins": [NO_MANIFEST]}, ["traceloop_plugins", "plugin.json"], id="no manifest"),
        pytest.param(
            {"traceloop_collector_config": {"exporters": {"nonsense": {}}}},
            ["nonsense", "traceloop_collector_config"],
            id="collector's configuration",
        ),
    ],
)
def test_refused(given: dict[str, Any], words: list[str]) -> None:
    run = play(**{"traceloop_backend": "phoenix", **given})
    assert run.status != 0
    says(run.message, NODE, *words)


# Releases that nobody has written about: one has what the known ones have, the other lacks it.
API = "langgenius/dify-api"
ALIKE, OTHER = "1.98.0", "1.99.0"


@pytest.fixture(scope="module")
def unknown_releases() -> Iterator[None]:
    on_node(f"docker tag $(docker inspect --format '{{{{.Config.Image}}}}' dify-api-1) {API}:{ALIKE}")
    remove = f"docker run --name other --user root --entrypoint rm {API}:{ALIKE} /app/api/core/plugin/impl/model.py"
    on_node(f"{remove} && docker commit other {API}:{OTHER} && docker rm other")
    yield
    on_node(f"docker rmi {API}:{ALIKE} {API}:{OTHER}")


def asked(version: str, **variables: Any) -> Run:
    given = {"traceloop_backend": "phoenix", "traceloop_plugins": [], "dify_version": version, **variables}
    return MACHINE.play("tests/scenarios/traces/unknown_release.yml", **given)


@pytest.mark.usefixtures("unknown_releases")
def test_an_unknown_release_is_asked_itself() -> None:
    run = asked(ALIKE)
    assert run.status == 0, run.output[-4000:]
    run = asked(OTHER)
    assert run.status != 0
    says(run.message, NODE, f"Dify {OTHER}", "traceloop_required: false")
    run = asked(OTHER, traceloop_required=False)
    assert run.status == 0, run.output[-4000:]
