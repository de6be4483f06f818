"""A backend that refuses, fails, hangs or is away: no chat notices, and verify.yml says it to whoever asks."""

from __future__ import annotations

import pytest
from node import NODE, Traceloop, chats, says, switch
from states import KEY, be, verified

pytestmark = pytest.mark.long

# What the backend does, what is said of it, what to do about it, and whether it is tried again until it is well.
TROUBLES = {
    "key=another-one-of-sixteen": ("does not take the spans.*401", "traceloop_api_key", False),
    "status=500": ("does not take the spans.*500", "does not send again", False),
    "drop=true": ("does not take the spans.*EOF", "log", True),
}


@pytest.fixture(autouse=True)
def traceloop() -> None:
    be("traceloop")


@pytest.mark.parametrize("trouble", TROUBLES)
def test_trouble(url: str, key: str, trouble: str) -> None:
    found, advice, kept = TROUBLES[trouble]
    spans = Traceloop()
    switch("traceloop", trouble)
    try:
        chats(url, key, 2)
        run = verified()
    finally:
        switch("traceloop", f"{trouble.split('=')[0]}=")
    assert run.status != 0
    assert KEY not in run.output
    says(run.message, NODE, found, advice)
    if kept:
        spans.arrived(2, patience=60)


def test_a_backend_that_hangs(url: str, key: str) -> None:
    """It may still take them, so there is nothing to say; and nobody waits."""
    spans = Traceloop()
    switch("traceloop", "wait=5")
    try:
        chats(url, key, 2)
        assert spans.new() == []
    finally:
        switch("traceloop", "wait=")
    spans.arrived(2)
