"""What cannot end well is refused before anything is touched, in words that name the host and the variable."""

from __future__ import annotations

from typing import Any

import fleet
import pytest
from fleet import DIFY, GATEWAY, OLLAMA, refused

pytestmark = pytest.mark.usefixtures("untouched")


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"dify_models": [{"model": "nowhere:7b", "model_type": "llm"}]}, (DIFY, "nowhere:7b", "no node")),
        ({"stack_batches": [["fgpu1", "fcpu1"], ["fcpu1", "fgpu2"]]}, ("fcpu1", "stack_batches")),
        ({"stack_batches": ["half"]}, ("half", "stack_batches")),
        ({"stack_mirror": "http://llmops-nowhere"}, ("http://llmops-nowhere", "stack_mirror")),
        ({"gateway_digests": {}}, ("speak", "fgpu1", "fgpu2", "gateway_digests")),
        (
            {"ollama_context_length": 131072, "ollama_num_parallel": 4096},
            ("fcpu2", "talker", "GiB", "ollama_num_parallel"),
        ),
    ],
    ids=["model-nowhere", "two-batches", "no-batch", "mirror-nowhere", "two-digests", "does-not-fit"],
)
def test_refused(current: str, variables: dict[str, Any], words: tuple[str, ...]) -> None:
    refused(*words, ollama_version=current, **variables)


def test_a_gateway_without_a_healthy_node(current: str) -> None:
    """Dify is not told of an address at which nobody answers."""
    for node in OLLAMA:
        fleet.on(node, "systemctl kill --signal=STOP ollama.service")
    try:
        refused(
            GATEWAY,
            "no node that is proved and answers",
            options=(f"--limit={GATEWAY},{DIFY}",),
            ollama_version=current,
        )
    finally:
        for node in OLLAMA:
            fleet.on(node, "systemctl kill --signal=CONT ollama.service")
    fleet.wait_until_all_answer()
