"""Ollama from one release to the next, and back by itself where the next one does not come up."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from server import MODEL, NODE, digest_of, ollama_model, on_node, play, process, version, weights

DROP_IN = "/etc/systemd/system/ollama.service.d/override.conf"
UNIT = "/etc/systemd/system/ollama.service"


def current() -> str:
    return on_node("readlink /opt/ollama/current")


def answers() -> None:
    proved = ollama_model(name=MODEL, verify="probe", force_digest=True)
    assert not proved.failed, proved.message
    assert not proved.changed
    assert proved.model["verified"]


@pytest.fixture(scope="module", autouse=True)
def operators_drop_in() -> Iterator[None]:
    on_node(f"mkdir -p $(dirname {DROP_IN}) && printf '[Service]\\nEnvironment=OPERATOR=here\\n' > {DROP_IN}")
    yield
    on_node(f"rm -f {DROP_IN} && systemctl daemon-reload && systemctl restart ollama.service")
    run = play()
    assert run.status == 0, run.output[-4000:]


def test_up_and_back_by_itself() -> None:
    old = play(ollama_version="0.13.5")
    assert old.status == 0, old.output[-6000:]
    assert version() == "0.13.5"
    answers()
    file = weights()
    good = digest_of(file)
    written = on_node(f"stat -c %Y {file}")

    new = play(ollama_version="0.17.4")
    assert new.status == 0, new.output[-6000:]
    assert (version(), current()) == ("0.17.4", "0.17.4")
    answers()
    again = play(ollama_version="0.17.4")
    assert again.changed == 0, again.output[-6000:]

    broken = play(ollama_version="0.18.0")
    assert broken.status != 0
    for word in (NODE, "0.18.0", "0.17.4"):
        assert word in broken.message, broken.message
    assert "told not to start" in broken.message, broken.message  # the server's own last words
    assert (version(), current()) == ("0.17.4", "0.17.4")
    answers()

    # Nothing of all this touched a model, or what the operator wrote.
    assert (digest_of(file), on_node(f"stat -c %Y {file}")) == (good, written)
    assert "OPERATOR=here" in on_node(f"tr '\\0' '\\n' < /proc/{process()}/environ")
    back = play(ollama_version="0.17.4")
    assert back.status == 0
    assert back.changed == 0, back.output[-6000:]


def test_a_release_without_llama_server_does_not_pass_the_gate() -> None:
    before = process()
    refused = play(ollama_version="0.30.0")
    assert refused.status != 0
    for word in (NODE, "0.30.0", "llama-server"):
        assert word in refused.message, refused.message
    assert (version(), process()) == ("0.17.4", before)


def test_a_unit_edited_by_hand_is_reported_and_kept() -> None:
    on_node(f"cp {UNIT} /tmp/unit && sed -i '/^ExecStart=/i Nice=5' {UNIT} && systemctl daemon-reload")
    try:
        kept = play()
        assert kept.status == 0, kept.output[-4000:]
        assert UNIT in kept.output
        assert "by hand" in kept.output
        assert on_node(f"grep -c Nice=5 {UNIT}") == "1"
        replaced = play(ollama_unit_replace=True)
        assert replaced.status == 0, replaced.output[-4000:]
        assert on_node(f"cmp {UNIT} /tmp/unit && echo same") == "same"
    finally:
        on_node(f"cp /tmp/unit {UNIT} && rm /tmp/unit && systemctl daemon-reload")


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"ollama_bind": "http://0.0.0.0"}, ("ollama_bind", "port 80")),
        ({"ollama_port": 99999}, ("ollama_port", "99999")),
        ({"ollama_keep_alive": "5 minutes"}, ("ollama_keep_alive", "5m")),
        ({"ollama_env": {"OLLAMA_HOST": "0.0.0.0"}}, ("OLLAMA_HOST", "ollama_bind")),
        ({"ollama_allow": ["0.0.0.0/0"]}, ("ollama_allow", "0.0.0.0/0")),
        ({"ollama_gpu": "nvidia"}, ("ollama_gpu", "nvidia")),
        ({"ollama_version": "0.99.99"}, ("0.99.99",)),
    ],
    ids=["bind", "port", "keep_alive", "reserved", "world", "gpu", "version"],
)
def test_bad_input_is_refused_and_the_server_goes_on(variables: dict[str, object], words: tuple[str, ...]) -> None:
    before = process()
    refused = play(**variables)
    assert refused.status != 0
    for word in (NODE, *words):
        assert word in refused.message, refused.message
    assert "Traceback" not in refused.output
    assert (version(), process()) == ("0.17.4", before)
