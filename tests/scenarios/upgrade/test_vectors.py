"""Knowledge over the life of one Dify: Weaviate changes its files at 1.9.2, and what is asked of it at 1.13.1."""

from __future__ import annotations

import time

import node
import pytest
import seed as seeds
from node import HOME, ROOT, on_node
from people import Program
from state import State

LATE = ROOT / "build" / "world" / f"late-knowledge-{node.MACHINE.name}.txt"
WEAVIATE = f"{HOME}/volumes/weaviate"


def learn(program: Program, text: str) -> str:
    """A knowledge base with one document; its id, when the worker has embedded it."""
    body = {"name": "late", "indexing_technique": "high_quality"}
    dataset = str(program.ask("POST", "datasets", json=body).json()["id"])
    document = {"name": "late.txt", "text": text, "indexing_technique": "high_quality"}
    more = {"process_rule": {"mode": "automatic"}}
    made = program.ask("POST", f"datasets/{dataset}/document/create_by_text", json={**document, **more}).json()
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        path = f"datasets/{dataset}/documents/{made['batch']}/indexing-status"
        (status,) = program.ask("GET", path).json()["data"]
        if status["indexing_status"] == "completed":
            return dataset
        assert status["indexing_status"] != "error", status
        time.sleep(0.5)
    raise AssertionError("the document was not embedded in time")


def found(program: Program, dataset: str, query: str) -> list[str]:
    body = {"query": query, "retrieval_model": {"search_method": "semantic_search", "top_k": 2}}
    answer = program.ask("POST", f"datasets/{dataset}/retrieve", json=body).json()
    return [str(one["segment"]["content"]) for one in answer["records"]]


@pytest.mark.long
@pytest.mark.at("1.0.0")
def test_what_is_in_the_way_is_said_before_anything_stops(untouched: State) -> None:
    """A folder that another upgrade has left: nobody can say whose data it is."""
    started = node.containers()
    on_node(f"mkdir {WEAVIATE}.before")
    try:
        node.refused("1.12.1", "weaviate.before is there, from another upgrade")
        assert node.containers() == started
    finally:
        on_node(f"rmdir {WEAVIATE}.before")
    assert on_node(f"ls -d {WEAVIATE}*") == WEAVIATE


@pytest.mark.at("1.12.1")
def test_knowledge_of_a_release_that_knows_no_doc_type(seed: seeds.Seed) -> None:
    """Made here, and looked for after the chain has passed 1.13.1 (below)."""
    assert on_node(f"ls -d {WEAVIATE}*") == WEAVIATE, "nothing is left of the change of places at 1.9.2"
    program = Program(seed.dataset_key)
    LATE.write_text(learn(program, "The lamp hangs in the hall.\n\nIt is never lit."))
    assert "The lamp hangs in the hall." in found(program, LATE.read_text(), "The lamp hangs in the hall.")


@pytest.mark.at("1.16.0")
def test_it_is_found_by_one_that_asks_for_it(seed: seeds.Seed) -> None:
    program = Program(seed.dataset_key)
    assert "The lamp hangs in the hall." in found(program, LATE.read_text(), "The lamp hangs in the hall.")
