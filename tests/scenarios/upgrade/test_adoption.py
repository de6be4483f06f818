"""A Dify that somebody set up by hand is taken over without moving its data, and upgraded as any other from then on."""

from __future__ import annotations

import json
import re
from typing import Any

import node
import pytest
import rows as kept
from by_hand import FOLDER, MODEL, NEXT, PUBLIC, RELEASE, SECRET, Hand, hand
from people import Program
from seed import ANSWER, MASK

__all__ = ["hand"]
pytestmark = pytest.mark.long


def grown(hand: Hand, release: str) -> None:
    """The owner's password, model and app are what they were, old keys chat, and secrets can be decrypted."""
    owner = hand.owner
    assert owner.release == release
    assert owner.models().get(MODEL) == "llm" and "made by hand" in owner.apps()
    assert MASK.fullmatch(str(owner.credentials(MODEL)["api_key"]))
    program = Program(hand.key)
    assert "What is kept?" in program.questions(hand.conversation)
    assert ANSWER in program.chat(f"Still there in {release}?", hand.conversation)["text"]


def test_a_check_run_tells_the_story_and_touches_nothing(hand: Hand) -> None:
    files, running = hand.files(), hand.containers("docker")
    run = hand.play("--check")
    assert run.status == 0, run.output[-4000:]
    told = " ".join(run.output.split())
    assert f"Dify {RELEASE} of {FOLDER} would be taken over" in told
    assert re.search(r"Values that are kept: .*LOG_LEVEL=DEBUG.*UPLOAD_FILE_SIZE_LIMIT=33", told)
    for word in ("CUSTOM_MODEL_ENABLED, OLLAMA_API_BASE_URL", "SECRET_KEY has the value that everybody", "ALTER USER"):
        assert word in told, word
    assert "docker-compose.override.yaml" in told
    assert PUBLIC not in told and SECRET not in told
    assert (hand.files(), hand.containers("docker")) == (files, running)
    assert hand.machine.on(f"ls -A {node.HOME} 2>/dev/null || true") == ""


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"version": NEXT}, f"two runs: set dify_version to {RELEASE}"),
        ({"dify_http_port": 8080}, "dify_http_port: 80"),
        ({"dify_adopt": "/etc"}, "no docker-compose.yaml"),
    ],
)
def test_what_cannot_end_well_is_refused_before_anything_changed(
    hand: Hand, variables: dict[str, Any], words: str
) -> None:
    files, running = hand.files(), hand.containers("docker")
    run = hand.play("--tags=dify", **variables)
    assert run.status != 0 and words in run.message, run.message or run.output[-3000:]
    assert (hand.files(), hand.containers("docker")) == (files, running)


def test_new_containers_that_do_not_come_up_give_way_to_the_old_ones(hand: Hand) -> None:
    """A container of ours cannot be made; the old ones serve again, the same that did before."""
    names = set(hand.containers("docker"))
    broken = {"services": {"api": {"volumes": ["/proc/nothing/there:/nothing"]}}}
    run = hand.play(dify_compose_override=broken, dify_up_timeout=120, dify_health_deadline=60)
    assert run.status != 0, run.output[-3000:]
    assert f"of {FOLDER} was not taken over; its data is as it was. It runs there as before." in run.message
    assert set(hand.containers("docker")) == names and hand.containers("dify") == {}
    hand.wait()
    grown(hand, RELEASE)


def test_taken_over_with_everything_that_it_had(hand: Hand) -> None:
    rows, stored, session = kept.rows(), hand.stored(), hand.owner
    run = hand.play()
    assert run.status == 0, f"{run.message}\n{run.output[-4000:]}"
    assert kept.lost(rows, kept.rows()) == {}
    assert stored <= hand.stored()
    assert "made by hand" in session.apps(), "whoever is signed in stays signed in"
    assert hand.containers("docker") == {}
    assert node.serving() == RELEASE
    grown(hand, RELEASE)
    # The data is where it was, under a second name.
    assert hand.machine.on(f"readlink -f {node.HOME}/volumes") == f"{FOLDER}/docker/volumes"
    settings = hand.machine.on(f"cat {node.HOME}/current/.env")
    assert "\nLOG_LEVEL=DEBUG\n" in settings and "\nUPLOAD_FILE_SIZE_LIMIT=33\n" in settings
    taken = json.loads(hand.machine.on(f"cat {node.HOME}/adopted.json"))
    assert taken["LOG_LEVEL"] == "DEBUG" and not {"CUSTOM_MODEL_ENABLED", "DB_HOST", "SECRET_KEY"} & set(taken)
    secrets = json.loads(hand.machine.on(f"cat {node.HOME}/secrets.json"))
    assert (secrets["DB_PASSWORD"], secrets["SECRET_KEY"]) == (PUBLIC, hand.secret_key())
    modes = hand.machine.on(f"stat -c %a {node.HOME}/adopted.json {node.HOME}/secrets.json").split()
    assert modes == ["600", "600"]
    # Nobody starts a second database on the same files by habit.
    assert hand.machine.on(f"cd {FOLDER}/docker && docker compose up -d 2>&1 || echo refused").endswith("refused")


def test_a_second_run_changes_nothing(hand: Hand) -> None:
    run = hand.play()
    assert run.status == 0, f"{run.message}\n{run.output[-4000:]}"
    assert run.changed == 0, run.output[-4000:]


def test_and_from_then_on_it_is_upgraded_like_any_other(hand: Hand) -> None:
    run = hand.play(version=NEXT)
    assert run.status == 0, f"{run.message}\n{run.output[-4000:]}"
    assert node.serving() == NEXT
    grown(hand, NEXT)
    assert "\nLOG_LEVEL=DEBUG\n" in hand.machine.on(f"cat {node.HOME}/current/.env")
    assert hand.machine.on(f"readlink -f {node.HOME}/volumes") == f"{FOLDER}/docker/volumes"
