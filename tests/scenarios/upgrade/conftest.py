"""One Dify over its life (`make upgrade`, `make upgrade-long`): begun in 0.15.3, upgraded, and spared no fault.

A test that is marked `at("1.0.0")` has the node at that release when it begins. They are put into the order of these
releases, the ones that leave it for good (`last=True`) behind the others, so one node and one life serve all of them.
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterator

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import node
import seed as seeds
from people import PLUGINS_SINCE, key
from state import State


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "short: part of the short life alone; the long one has the same elsewhere")
    config.addinivalue_line("markers", "at(release, last=False): the node is at this release when the test begins")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def order(item: pytest.Item) -> tuple[tuple[int, ...], bool]:
        mark = item.get_closest_marker("at")
        return (key(mark.args[0]), bool(mark.kwargs.get("last"))) if mark else ((), False)

    items.sort(key=order)


@pytest.fixture(scope="session")
def sown() -> seeds.Seed:
    """What two workspaces made; made once for a node, in the release that it begins with."""
    if not seeds.FILE.is_file() or node.sql("SELECT count(*) FROM accounts") == [["1"]]:
        return seeds.sow()
    return seeds.load()


@pytest.fixture
def seed(request: pytest.FixtureRequest, sown: seeds.Seed) -> seeds.Seed:
    """The same, on a node that is at the release of the test."""
    release = request.node.get_closest_marker("at").args[0]
    at = node.current()
    if at != release:
        assert key(at) < key(release), f"{node.MACHINE.name} is at {at}: `make molecule SCENARIO=upgrade KEEP=1` anew"
        node.upgraded(release)
    found = seeds.load()
    if key(release) >= PLUGINS_SINCE and not found.with_secret:
        found = seeds.add_secret(found)
    return found


@pytest.fixture
def untouched(seed: seeds.Seed) -> Iterator[State]:
    """After a failed upgrade the old release serves, and all that it had is there and is what it was."""
    before = State.now()
    yield before
    before.is_back(seed)


@pytest.fixture
def back(seed: seeds.Seed) -> Iterator[State]:
    """An upgrade that succeeds, and then the old release again, from its backup."""
    before = State.now()
    yield before
    if node.current() != before.release:
        run = node.roll_back(before.release)
        assert run.status == 0, f"{run.message}\n{run.output[-4000:]}"
        before.is_rolled_back(seed)
