"""Each way in which a model is there and not available: found, healed where it can be, never called available."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from server import MANIFEST, MODEL, MODELS, NODE, digest_of, ollama_model, on_node, weights

# What happens to the weights -> what the check run says about it.
DAMAGES = {
    "missing": ("rm {file}", "missing"),
    "truncated": ("truncate --size=-4096 {file}", "bytes"),
    "flipped": (
        "printf '\\1\\2\\3\\4' | dd of={file} bs=1 seek=1000000 conv=notrunc status=none",
        "does not have the bytes",
    ),
    "unreadable": ("chown root:root {file} && chmod 0600 {file}", "could not read"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_weights_are_found_and_healed(damage: str) -> None:
    file = weights()
    good = digest_of(file)
    script, word = DAMAGES[damage]
    on_node(script.format(file=file))

    check = ollama_model(check=True, name=MODEL, verify="digest")
    assert check.model["verified"] is False
    assert check.changed
    assert word in str(check.told), check.told

    healed = ollama_model(name=MODEL, verify="probe")
    assert not healed.failed, healed.message
    assert healed.changed
    assert healed.model["verified"]
    assert healed.model["healed"]
    assert healed.model["probe"]["tokens"] >= 1
    assert digest_of(file) == good
    assert on_node(f"stat -c '%U %a' {file}") == "ollama 644"

    again = ollama_model(name=MODEL, verify="probe")
    assert not again.changed
    assert again.told["bytes_transferred"] == 0


def test_a_dangling_manifest_link_of_the_model_is_healed() -> None:
    on_node(f"mv {MANIFEST} /tmp/manifest && ln -s /nowhere/manifest {MANIFEST}")
    check = ollama_model(check=True, name=MODEL)
    assert check.model["verified"] is False
    healed = ollama_model(name=MODEL)
    assert not healed.failed, healed.message
    assert healed.model["verified"]
    assert on_node(f"cmp {MANIFEST} /tmp/manifest && rm /tmp/manifest && echo same") == "same"


def test_a_dangling_link_of_another_model_is_removed_and_named() -> None:
    """It breaks the list of all models, and what it led to is gone already."""
    link = f"{MODELS}/manifests/registry.ollama.ai/library/other"
    on_node(f"mkdir -p {link} && ln -s /nowhere/manifest {link}/latest")
    try:
        for check in (True, False):
            found = ollama_model(check=check, name=MODEL)
            assert not found.failed, found.message
            assert found.changed
            assert "library/other/latest" in str(found.told["healed"])
        assert not ollama_model(name=MODEL).changed
    finally:
        on_node(f"rm -rf {link}")


def test_a_stopped_server_is_not_an_available_model() -> None:
    on_node("systemctl stop ollama.service")
    stopped = ollama_model(name=MODEL, verify="probe")
    assert stopped.failed
    assert "refuses connections" in stopped.message
    assert not any(model["verified"] for model in stopped.told.get("models", []))


@pytest.fixture
def small_disk() -> Iterator[None]:
    """The store on a disk of 64 MB."""
    on_node(
        f"systemctl stop ollama.service && mkdir -p /mnt/small && mount -t tmpfs -o size=64m small /mnt/small"
        f" && cp -a {MODELS}/. /mnt/small/ && chown ollama: /mnt/small && mount --bind /mnt/small {MODELS}"
        " && systemctl start ollama.service"
    )
    yield
    on_node(f"systemctl stop ollama.service && umount {MODELS} /mnt/small && systemctl start ollama.service")


@pytest.mark.usefixtures("small_disk")
def test_a_model_that_does_not_fit_is_refused_before_its_download() -> None:
    for check in (True, False):
        refused = ollama_model(check=check, name="bulky")
        assert refused.failed
        assert "MB" in refused.message
        assert MODELS in refused.message
    assert on_node(f"find {MODELS} -name '*partial*'") == ""


FAULTY = {"registry": "upstream:8081", "insecure": True, "verify": "digest"}


def test_a_registry_that_stalls_is_given_up() -> None:
    stalled = ollama_model(name="stalls", stall=6, deadline=40, **FAULTY)
    assert stalled.failed
    assert "stalls" in stalled.message
    assert "6 s" in stalled.message or "no progress" in stalled.message.lower()


def test_a_registry_that_hands_out_something_else() -> None:
    wrong = ollama_model(name="wrong-digest", deadline=60, **FAULTY)
    assert wrong.failed
    assert "digest mismatch" in wrong.message


def test_a_registry_that_breaks_is_asked_again() -> None:
    done = ollama_model(name="breaks", deadline=120, **FAULTY)
    try:
        assert not done.failed, done.message
        assert done.model["verified"]
    finally:
        ollama_model(name="breaks", state="absent")


def test_an_answer_of_200_that_ends_in_an_error() -> None:
    unknown = ollama_model(name="nobody-made-this")
    assert unknown.failed
    assert "nobody-made-this" in unknown.message
    assert "upstream" in unknown.message
    assert f"fatal: [{NODE}]" in unknown.output
