# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real servers and a registry that stalls, breaks off or sends something else."""

from __future__ import annotations

import json
import os
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ansible_collections.llmops.stack.tests.unit.servers.ollama import Real, binary
from ansible_collections.llmops.stack.tests.unit.servers.ollama_registry import Models, Registry

Run = Callable[..., dict[str, Any]]
SIZE = 3_000_000


@pytest.fixture(scope="module", params=["0.13.5", "0.17.4"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    with Real(binary(request.param), tmp_path_factory.mktemp("ollama")).running() as running:
        yield running


@pytest.fixture
def registry(tmp_path: pathlib.Path) -> Iterator[Registry]:
    source = Models(tmp_path / "source")
    # Other bytes in each test: the store is not emptied.
    source.put("some:latest", os.urandom(SIZE), extra=os.urandom(20))
    with Registry(source).running() as running:
        yield running


@pytest.fixture
def run(run_module: Run, server: Real, registry: Registry) -> Run:
    return lambda **options: run_module(
        "ollama_model",
        names=["some"],
        **{
            "url": server.url,
            "models_dir": str(server.models_dir),
            "registry": registry.host,
            "insecure": True,
            "stall": 2,
            **options,
        },
    )


def partials(server: Real) -> list[pathlib.Path]:
    return sorted(server.models_dir.glob("blobs/*-partial-*"))


def kept(server: Real, patience: float = 10) -> int:
    """Bytes that the server noted. It empties its note and writes it anew after its client left, in its own time."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return int(json.loads(partials(server)[0].read_text())["Completed"])
        except ValueError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def test_stalls_and_is_taken_up(run: Run, server: Real, registry: Registry, failed: type[Exception]) -> None:
    registry.stall_at = 1_000_000
    with pytest.raises(failed, match=r"Nothing has arrived for 2 s.*goes on from there"):
        run(state="latest")
    assert kept(server) >= 1_000_000
    registry.stall_at, registry.sent = -1, 0
    announced = run(state="latest", check=True)["missing_bytes"]
    result = run(state="latest")
    assert result["models"][0]["verified"] and partials(server) == []
    assert 0 < announced == result["bytes_transferred"] == registry.sent < SIZE - 900_000


def test_a_silent_registry_does_not_cost_the_server(
    run: Run, server: Real, registry: Registry, failed: type[Exception]
) -> None:
    # A pull that joins another one, whose question for a size is not answered, crashes the server when it leaves.
    registry.hang = "HEAD"
    with pytest.raises(failed, match=r"Nothing has arrived for 2 s"):
        run(state="latest")
    registry.hang = ""
    assert server.process and server.process.poll() is None
    assert run(state="latest")["models"][0]["verified"]


def test_breaks_off_and_goes_on(run: Run, registry: Registry) -> None:
    cuts = [1_000_000, 500_000]
    registry.cut = lambda: cuts.pop() if cuts else -1
    result = run(state="latest")
    assert result["models"][0]["verified"] and cuts == []


def test_sends_something_else(run: Run, server: Real, registry: Registry, failed: type[Exception]) -> None:
    registry.spoil = lambda data: data[::-1]
    with pytest.raises(failed, match=r"digest mismatch.*serves damaged data"):
        run(state="latest")
    registry.spoil = lambda data: data
    assert run(state="latest")["models"][0]["verified"]


@pytest.mark.parametrize(
    ("status", "location", "insecure", "said"),
    [
        (500, True, True, r"pull model manifest: 500"),
        (0, False, True, r"no Location header.*plain container registry"),
        (0, True, False, r"set insecure .in ollama_registry"),
    ],
)
def test_refuses(
    run: Run, registry: Registry, failed: type[Exception], status: int, location: bool, insecure: bool, said: str
) -> None:
    run(state="absent")
    registry.status, registry.location = status, location
    with pytest.raises(failed, match=said):
        run(insecure=insecure)
