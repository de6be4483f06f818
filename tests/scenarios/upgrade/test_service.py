"""Who works with a Dify while it changes: between releases of the same head and for a setting, nobody notices anything.

Durations are printed; only what the machine's load cannot change is asserted.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import node
import pytest
from killing import Killer
from node import HOME, on_node
from people import key
from traffic import Traffic

pytestmark = pytest.mark.long

# A call takes this long at the plugin, so that some are in flight at every moment.
SLOW = "plugin=slow:2"


@pytest.fixture(autouse=True)
def release(request: pytest.FixtureRequest) -> str:
    """The node is at the release of the test; what is in its Dify does not matter here."""
    wanted = str(request.node.get_closest_marker("at").args[0])
    if node.current() != wanted:
        assert key(node.current()) < key(wanted), f"{node.MACHINE.name} is beyond {wanted}"
        node.upgraded(wanted)
    return wanted


@contextlib.contextmanager
def in_use() -> Iterator[Traffic]:
    traffic = Traffic(node.url(), on_node(f"cat {HOME}/.llmops-probe.key"))
    with node.told("plugin_daemon", SLOW), traffic:
        yield traffic
    print(traffic.told())


def leftovers() -> str:
    """What only a handover that is under way has."""
    beside = on_node("docker ps -aq --filter label=llmops.stack.next")
    pinned = on_node("docker exec dify-nginx-1 grep llmops /etc/hosts", check=False)
    return beside + pinned


def nobody_noticed(traffic: Traffic) -> None:
    assert len(traffic.answers) > 100
    assert any(one.what == "chat" for one in traffic.answers)
    assert traffic.failed == [], traffic.told()
    assert leftovers() == ""


@pytest.mark.at("1.12.1")
def test_a_setting_of_the_api_and_of_the_daemon() -> None:
    before = node.containers()
    with in_use() as traffic:
        run = node.upgrade("1.12.1", dify_env={"LOG_LEVEL": "DEBUG"})
    assert run.status == 0, run.output[-4000:]
    nobody_noticed(traffic)
    after = node.containers()
    for service in ("api", "worker", "plugin_daemon"):
        assert after[f"dify-{service}-1"] != before[f"dify-{service}-1"], f"{service} reads this setting"
    for service in ("nginx", "db_postgres", "redis", "weaviate"):
        assert after[f"dify-{service}-1"] == before[f"dify-{service}-1"], f"{service} does not read this setting"
    assert "LOG_LEVEL=DEBUG" in on_node("docker exec dify-api-1 env")
    assert node.upgrade("1.12.1").status == 0


@pytest.mark.at("1.12.1")
def test_a_setting_with_which_the_api_does_not_start() -> None:
    """It is tried beside the running one, which goes on serving."""
    before = node.containers()
    with node.told("api", "api.start=crash"), in_use() as traffic:
        run = node.upgrade("1.12.1", dify_env={"LOG_LEVEL": "WARNING"})
    assert run.status != 0
    assert "goes on serving" in run.message, run.message
    nobody_noticed(traffic)
    assert node.containers()["dify-api-1"] == before["dify-api-1"]
    back = node.upgrade("1.12.1")
    assert back.status == 0, back.output[-4000:]
    assert node.upgrade("1.12.1").changed == 0


@pytest.mark.at("1.12.0")
def test_killed_in_a_handover() -> None:
    """Whoever serves at that moment goes on, and the next run brings the new release in."""
    with in_use() as traffic:
        killer = Killer("handover")
        killer.has_killed(node.upgrade("1.12.1"))
        node.upgraded("1.12.1")
    nobody_noticed(traffic)
    assert node.serving() == "1.12.1"
    run = node.roll_back("1.12.0")
    assert run.status == 0, f"{run.message}\n{run.output[-4000:]}"
    assert node.serving() == "1.12.0" and leftovers() == ""


@pytest.mark.at("1.12.0", last=True)
def test_a_release_of_the_same_head() -> None:
    with in_use() as traffic:
        node.upgraded("1.12.1")
    nobody_noticed(traffic)
    assert node.serving() == "1.12.1"


@pytest.mark.at("1.14.1", last=True)
def test_a_release_of_the_same_head_with_another_plugin_daemon() -> None:
    with in_use() as traffic:
        node.upgraded("1.14.2")
    nobody_noticed(traffic)
    assert "plugin-daemon:0.6.1" in node.containers()["dify-plugin_daemon-1"][0]


@pytest.mark.at("1.12.1", last=True)
def test_a_release_of_another_head() -> None:
    """People see a page that says why, programs get JSON, nobody reaches a release that is not proved, and no longer
    than it takes to migrate and to start."""
    with in_use() as traffic:
        node.upgraded("1.13.3")
    spent = json.loads(on_node(f"cat {node.evidence()}/journal.json"))
    print({one["id"]: one.get("seconds") for one in spent["steps"]})
    assert {one.trouble for one in traffic.failed if one.what != "chat"} == {"HTTP 503"}, traffic.told()
    page = traffic.unavailable
    assert page is not None
    assert int(page.headers["Retry-After"]) > 0
    assert page.headers["Cache-Control"] == "no-store"
    assert "升级" in page.text
    assert leftovers() == ""
    assert on_node("docker exec dify-nginx-1 ls /etc/nginx/llmops", check=False) == ""
    # One that is older stays only where a container that no release has changed since still reads its files.
    older = set(on_node(f"ls {HOME}/releases").split()) - {"1.12.1", "1.13.3"}
    told = on_node(f"cat {node.evidence()}/steps.log")
    assert [tag for tag in older if f"release {tag} stays" not in told] == []
