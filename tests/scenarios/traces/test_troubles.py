"""A backend that refuses, fails, hangs or is away: no chat notices, and verify.yml says it to whoever asks."""

from __future__ import annotations

import pytest
from node import NODE, arrived, chats, on_traceloop, says, switch
from states import KEY, be, verified

# What the backend does, what is said of it, what to do about it, and whether it is tried again until it is well.
TROUBLES = {
    "status=401": ("refuses.*401", "traceloop_api_key", False),
    "status=500": ("500", "upstream", False),
    "status=503": ("503", "upstream", True),
    "hang=true": ("no answer|timed? ?out|deadline", "upstream", True),
    "away=true": ("refuse|reach|connect|EOF", "traceloop_base_url", True),
}


@pytest.fixture(autouse=True)
def traceloop() -> None:
    be("traceloop")


@pytest.mark.parametrize("trouble", TROUBLES)
def test_trouble(url: str, key: str, trouble: str) -> None:
    found, advice, kept = TROUBLES[trouble]
    switch("traceloop", trouble)
    try:
        began = chats(url, key, 2)
        run = verified()
    finally:
        switch("traceloop", f"{trouble.split('=')[0]}=")
    assert run.status != 0
    assert KEY not in run.output
    says(run.message, NODE, found, advice)
    if kept:
        arrived(3, began, on_traceloop, patience=60)  # verify.yml asked, too
