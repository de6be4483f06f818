"""From the service to a container and back: the same models, the same port, the same rules."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from server import (
    MACHINE,
    MODEL,
    MODELS,
    NODE,
    answer_for,
    digest_of,
    ollama_model,
    on_node,
    play,
    version,
    wait_for_server,
    weights,
)

pytestmark = pytest.mark.long

CONTAINER = "llmops-ollama-ollama-1"
COMPOSE = "/opt/ollama/compose.yaml"
KEY = "/usr/share/ollama/.ollama/id_ed25519"
DOWN = f"[ ! -e {COMPOSE} ] || docker compose -f {COMPOSE} down"
HERE = {"ollama_install": "container"}


@pytest.fixture(autouse=True)
def server_answers() -> None:
    """Instead of the one that starts the service after each test."""


@pytest.fixture(scope="module", autouse=True)
def back_to_the_service() -> Iterator[None]:
    yield
    on_node(f"{DOWN}; rm -rf {COMPOSE}*")
    run = play()
    assert run.status == 0, run.output[-4000:]
    wait_for_server()


def running() -> dict[str, str]:
    """The labels and the environment of the container, in one."""
    (seen,) = json.loads(on_node(f"docker inspect {CONTAINER}"))
    assert seen["State"]["Running"]
    return {**seen["Config"]["Labels"], **dict(pair.split("=", 1) for pair in seen["Config"]["Env"])}


def stamp_in_file() -> str:
    return on_node(f"sed -n 's/.*llmops.stamp: //p' {COMPOSE}")


def answers() -> None:
    proved = ollama_model(name=MODEL, verify="probe", force_digest=True)
    assert not proved.failed, proved.message
    assert not proved.changed
    assert proved.model["verified"]


def test_there_and_back() -> None:
    """In one, as each step begins with what the one before has left."""
    file = weights()
    good, written = digest_of(file), on_node(f"stat -c %Y {file}")

    refused = play(**HERE)
    assert refused.status != 0
    for word in (NODE, "systemctl disable --now ollama"):
        assert word in refused.message, refused.message
    assert version() == "0.17.4"

    # As a host that never ran the service: no folder of versions, no key of a server, a home made by the engine.
    on_node(f"systemctl disable --now ollama && rm -rf /opt/ollama {KEY}* && chown root:root $(dirname {KEY})")
    there = play(**HERE)
    assert there.status == 0, there.output[-6000:]
    assert version() == "0.17.4"
    assert running()["llmops.stamp"] == stamp_in_file()
    answers()
    assert answer_for("llmops-ollama1"), "ollama2 lets ollama1 in"
    assert not answer_for("llmops-upstream")
    again = play(**HERE)
    assert again.changed == 0, again.output[-6000:]

    # Ended between the file and the container, which the file alone would not tell.
    MACHINE.kill_when("Container | Pull the image", **HERE, ollama_keep_alive="30m")
    assert "OLLAMA_KEEP_ALIVE" not in running()
    assert running()["llmops.stamp"] != stamp_in_file()
    mended = play(**HERE, ollama_keep_alive="30m")
    assert mended.status == 0, mended.output[-6000:]
    assert running()["OLLAMA_KEEP_ALIVE"] == "30m"
    assert running()["llmops.stamp"] == stamp_in_file()

    before = on_node(f"cat {COMPOSE}")
    broken = play(**HERE, ollama_keep_alive="30m", ollama_version="0.16.99")
    assert broken.status != 0
    for word in (NODE, "0.16.99", "0.17.4 serves again"):
        assert word in broken.message, broken.message
    assert (version(), on_node(f"cat {COMPOSE}")) == ("0.17.4", before)
    assert on_node("ls -A /opt/ollama") == "compose.yaml"

    refused = play()
    assert refused.status != 0
    for word in (NODE, f"docker compose -f {COMPOSE} down"):
        assert word in refused.message, refused.message
    on_node(DOWN)
    on_node(f"chown root:root {file}")
    back = play()
    assert back.status == 0, back.output[-6000:]
    assert version() == "0.17.4"
    assert on_node("systemctl is-active ollama") == "active"
    assert on_node(f"stat -c %U {KEY}") == "ollama"
    assert on_node(f"find {MODELS} ! -user ollama") == ""
    assert on_node("ls -A /opt/ollama | sort | tr '\\n' ' '").split() == ["0.17.4", "current"]
    answers()
    assert answer_for("llmops-ollama1")
    assert not answer_for("llmops-upstream")
    assert (digest_of(file), on_node(f"stat -c %Y {file}")) == (good, written)
    again = play()
    assert again.changed == 0, again.output[-6000:]
