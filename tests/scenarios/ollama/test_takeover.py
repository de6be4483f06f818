"""A host as Ollama's own install script leaves it: taken over with its models, or left as it was."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from server import (
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

UNIT = "/etc/systemd/system/ollama.service"
PROGRAM = "/usr/local/bin/ollama"
SYSTEM = "/etc/systemd/system"
OURS = (
    f"{UNIT} {UNIT}.d {SYSTEM}/ollama-firewall.service {SYSTEM}/nftables.service.d/ollama.conf /etc/ollama /opt/ollama"
)
THEIRS = f"""[Unit]
Description=Ollama Service

[Service]
ExecStart={PROGRAM} serve
User=ollama
Group=ollama
Restart=always
Environment="OLLAMA_KEEP_ALIVE=24h"

[Install]
WantedBy=default.target
"""


@pytest.fixture(scope="module", autouse=True)
def foreign() -> Iterator[None]:
    on_node(
        f"""systemctl disable --now ollama ollama-firewall
        cp --remove-destination $(readlink -f {PROGRAM}) {PROGRAM}
        rm -rf {OURS}
        printf '%s' '{THEIRS}' >{UNIT}
        usermod --shell /usr/sbin/nologin ollama
        systemctl daemon-reload
        systemctl enable --now ollama"""
    )
    wait_for_server()
    yield
    on_node(f"usermod --shell /bin/false ollama; rm -f {PROGRAM}.before-llmops {UNIT}.before-llmops")
    run = play()
    assert run.status == 0, run.output[-4000:]


def is_theirs() -> bool:
    return (
        on_node(f"cat {UNIT}") == THEIRS.strip()
        and on_node(f"test -f {PROGRAM} && stat -c %F {PROGRAM}") == "regular file"
    )


def test_a_version_that_does_not_start_leaves_it_as_it_was() -> None:
    assert version() == "0.17.4"
    checked = play("site.yml", "--check")
    assert checked.status == 0, checked.output[-6000:]
    broken = play(ollama_version="0.18.0")
    assert broken.status != 0
    for word in (NODE, "0.18.0", "0.17.4 serves again"):
        assert word in broken.message, broken.message
    assert is_theirs()
    assert version() == "0.17.4"
    assert on_node(f"find /etc/systemd/system {PROGRAM}* -name '*.llmops-before'") == ""


def test_it_is_taken_over_with_its_models() -> None:
    assert is_theirs()
    file = weights()
    good, written = digest_of(file), on_node(f"stat -c %Y {file}")
    taken = play()
    assert taken.status == 0, taken.output[-6000:]
    assert "OLLAMA_KEEP_ALIVE=24h" in taken.output
    assert version() == "0.17.4"
    assert on_node(f"readlink {PROGRAM}") == "/opt/ollama/current/bin/ollama"
    assert on_node(f"cat {UNIT}.before-llmops") == THEIRS.strip()
    assert on_node("getent passwd ollama").endswith(":/usr/share/ollama:/usr/sbin/nologin")
    assert on_node(f"find {MODELS} ! -user ollama") == ""
    assert (digest_of(file), on_node(f"stat -c %Y {file}")) == (good, written)
    proved = ollama_model(name=MODEL, verify="probe", force_digest=True)
    assert not proved.changed, proved.told
    assert proved.model["verified"]
    assert not answer_for("llmops-upstream")
    again = play()
    assert again.changed == 0, again.output[-6000:]
