# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module before a real HAProxy: what is proved and what is not, what changes, and what a killed run left behind."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils import _gateway_calls, _gateway_nodes
from ansible_collections.llmops.stack.tests.unit.servers.gateway import DIGEST, OTHER, Node, Stack, free_port, gateway


@pytest.fixture
def stack(
    tmp_path: pathlib.Path, run_module: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Stack]:
    with gateway(run_module, tmp_path, monkeypatch) as made:
        yield made


def files(home: pathlib.Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in home.iterdir()} if home.exists() else {}


class TestPresent:
    def test_a_gateway_without_nodes_serves_and_says_that_it_has_none(self, stack: Stack) -> None:
        told = stack.begin()
        assert (told["changed"], told["nodes"], told["healthy"]) == (True, {}, [])
        assert stack.client.chat().status == 404
        assert stack.client.get("/api/version").status == 503
        assert stack.client.get("/api/tags").lines == [{"models": []}]

    def test_the_second_time_nothing_changes(self, stack: Stack) -> None:
        node = Node("one")
        assert stack.begin(node)["reloaded"]
        before = files(stack.home)
        again = stack.begin(node)
        assert (again["changed"], again["reloaded"]) == (False, False)
        assert files(stack.home) == before

    def test_a_check_run_tells_and_touches_nothing(self, stack: Stack) -> None:
        node = Node("one")
        told = stack.tell(check=True, settings=stack.settings, nodes=[node.record()])
        assert told["changed"]
        assert told["nodes"]["one"]["models"]["speak:latest"]["status"] == "unknown"
        assert not stack.home.exists()
        stack.begin(node)
        before = files(stack.home)
        assert not stack.tell(check=True, nodes=[node.record()], prove=True)["changed"]
        for change in ({"nodes": [node.record(parallel=3)]}, {"state": "drained", "names": ["one"]},
                       {"state": "absent", "names": ["one"]}, {"purge": True}):  # fmt: skip
            assert stack.tell(check=True, **change)["changed"], change
        assert files(stack.home) == before
        assert node.asked == []

    def test_nodes_stay_unless_they_are_to_go(self, stack: Stack) -> None:
        one, two, three = Node("one"), Node("two"), Node("three")
        stack.begin(one, two, three)
        assert sorted(stack.tell(nodes=[one.record()])["nodes"]) == ["one", "three", "two"]
        assert sorted(stack.tell(nodes=[one.record()], names=["two"], purge=True)["nodes"]) == ["one", "two"]
        assert sorted(stack.tell(state="absent", names=["two", "nobody"])["nodes"]) == ["one"]
        assert not stack.tell(state="absent", names=["two"])["changed"]

    def test_without_settings_those_of_the_last_time_count(self, stack: Stack, failed: type[Exception]) -> None:
        with pytest.raises(failed, match="Run role gateway first"):
            stack.tell(nodes=[])
        assert stack.seen()["nodes"] == {}
        stack.begin(Node("one"), max_queue=7)
        stack.tell(nodes=[Node("two").record()])
        assert json.loads((stack.home / "settings.json").read_text())["max_queue"] == 7

    def test_names_of_models_are_made_one(self, stack: Stack) -> None:
        stack.begin()
        record = {**Node("one").record(), "models": {"registry.ollama.ai/library/Speak": f"sha256:{DIGEST.upper()}"}}
        assert list(stack.tell(nodes=[record])["nodes"]["one"]["models"]) == ["speak:latest"]
        assert stack.client.chat("speak").status == 200

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"name": "gpu one"}, "cannot be the name of a node"),
            ({"address": "127.0.0.1 check"}, "neither an IP address"),
            ({"port": 0}, "is none"),
            ({"models": {"a b": DIGEST}}, "no name of a model"),
        ],
    )
    def test_what_haproxy_could_not_be_told_is_refused(
        self, stack: Stack, failed: type[Exception], change: dict[str, Any], words: str
    ) -> None:
        stack.begin()
        before = files(stack.home)
        with pytest.raises(failed, match=words):
            stack.tell(nodes=[{**Node("one").record(), **change}])
        assert files(stack.home) == before

    def test_a_name_that_nobody_knows_keeps_nobody_else_from_being_served(self, stack: Stack) -> None:
        lost = {**Node("lost", "other").record(), "address": "nobody.invalid"}
        stack.begin(Node("one"))
        told = stack.tell(nodes=[lost])
        assert told["nodes"]["lost"]["models"]["other:latest"]["status"] == "down"
        assert told["healthy"] == ["one"]
        assert stack.client.chat().status == 200


class TestNames:
    def test_a_name_that_leads_somewhere_at_last_is_followed(
        self, stack: Stack, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        node = {**Node("one").record(), "address": "one.invalid"}
        stack.begin()
        assert stack.tell(nodes=[node])["healthy"] == []
        monkeypatch.setattr(_gateway_calls, "resolved", lambda names: {name: ["127.0.0.1"] for name in names})
        assert stack.tell(settings=stack.settings)["reloaded"]
        assert stack.tell(nodes=[node], prove=True)["healthy"] == ["one"]
        assert stack.client.chat().status == 200

    def test_a_new_address_under_the_same_name_is_followed(self, stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
        leads = {"one.invalid": ["127.0.0.9"]}
        monkeypatch.setattr(_gateway_calls, "resolved", lambda names: {name: leads[name] for name in names})
        node = {**Node("one").record(), "address": "one.invalid"}
        stack.begin()
        stack.tell(nodes=[node])
        assert not stack.tell(nodes=[node])["changed"]
        leads["one.invalid"] = ["127.0.0.1"]
        assert stack.tell(nodes=[node])["reloaded"]
        assert stack.client.chat().status == 200
        asked: list[Any] = []

        def wait(ends: Any, _seconds: float) -> dict[str, int]:
            asked.append(ends)
            return {}

        monkeypatch.setattr(_gateway_calls, "wait_until_none", wait)
        stack.tell(state="drained", names=["one"])
        assert asked == [{"one": {("127.0.0.1", node["port"])}}]


class TestProof:
    def test_nodes_that_pass_get_calls(self, stack: Stack) -> None:
        stack.begin()
        one, two = Node("one"), Node("two", "speak:latest", "other:latest")
        told = stack.tell(nodes=[one.record(), two.record()], prove=True)
        assert (told["changed"], told["unproved"], told["healthy"]) == (True, {}, ["one", "two"])
        assert {model: seen["proved"] for model, seen in told["nodes"]["two"]["models"].items()} == {
            "other:latest": True,
            "speak:latest": True,
        }
        assert {stack.client.chat().node for _ in range(6)} == {"one", "two"}
        again = stack.tell(nodes=[one.record(), two.record()], prove=True)
        assert (again["changed"], again["reloaded"]) == (False, False)
        assert again["nodes"]["one"]["models"]["speak:latest"]["proved"]

    def test_a_key_is_brought_along(self, stack: Stack) -> None:
        stack.begin(key="s3cret")
        told = stack.tell(nodes=[Node("one").record()], prove=True)
        assert told["healthy"] == ["one"]
        assert "s3cret" not in json.dumps(told)

    def test_another_digest_is_another_model(self, stack: Stack) -> None:
        stack.begin()
        node = Node("one")
        told = stack.tell(nodes=[{**node.record(), "models": {"speak": OTHER}}], prove=True)
        assert "it lists aaaaaaaaaaaa, not bbbbbbbbbbbb" in told["unproved"]["one"]
        assert told["nodes"]["one"]["state"] == "drained"
        assert stack.client.chat().status == 404

    def test_a_model_that_does_not_answer_is_not_passed_on(self, stack: Stack) -> None:
        node = Node("one")
        stack.begin(node)
        node.models["other:latest"] = DIGEST
        node.broken_models = {"other:latest"}
        told = stack.tell(nodes=[node.record()], prove=True)
        assert "other:latest is in the store but does not answer" in told["unproved"]["one"]
        assert told["nodes"]["one"]["state"] == "drained"
        assert list(told["nodes"]["one"]["models"]) == ["speak:latest"]
        assert stack.client.chat("other").status == 404
        assert stack.client.chat("speak").status == 503
        node.broken_models = set()
        mended = stack.tell(nodes=[node.record()], prove=True)
        assert mended["healthy"] == ["one"]
        assert stack.client.chat("other").status == 200

    def test_a_node_that_cannot_be_reached_says_so(self, stack: Stack) -> None:
        one, two = Node("one"), Node("two")
        stack.begin(two)
        one.kill()
        told = stack.tell(nodes=[one.record(), two.record()], prove=True, deadline=5)
        assert list(told["unproved"]) == ["one"]
        assert told["unproved"]["one"].startswith("one did not pass its proof through the gateway: ")
        assert told["healthy"] == ["two"]

    def test_a_node_that_has_moved_is_proved_where_it_is_now(self, stack: Stack) -> None:
        node = Node("one")
        stack.begin(node)
        moved = Node("one")
        node.kill()
        told = stack.tell(nodes=[moved.record()], prove=True)
        assert told["nodes"]["one"]["port"] == moved.port
        assert told["healthy"] == ["one"]
        assert stack.client.chat().status == 200


class TestDigests:
    def test_two_models_under_one_name_are_refused(self, stack: Stack) -> None:
        one, two = Node("one"), Node("two", digest=OTHER)
        stack.begin(one)
        for prove in (False, True):
            told = stack.tell(nodes=[two.record(), one.record()], prove=prove)
            assert "two has another speak:latest than one: bbbbbbbbbbbb, not aaaaaaaaaaaa" in told["unproved"]["two"]
            assert told["healthy"] == ["one"]
            assert {stack.client.chat().node for _ in range(4)} == {"one"}

    def test_one_model_may_have_two_digests(self, stack: Stack) -> None:
        one, two = Node("one"), Node("two", digest=OTHER)
        stack.begin()
        same = {"contents": {"Speak": "c1"}}
        told = stack.tell(nodes=[one.record(**same), two.record(**same)], prove=True)
        assert (told["unproved"], told["healthy"]) == ({}, ["one", "two"])
        assert not stack.tell(nodes=[one.record(**same), two.record(**same)], prove=True)["changed"]
        told = stack.tell(nodes=[one.record(**same), two.record(contents={"speak": "c2"})], prove=True)
        assert "two has another speak:latest than one" in told["unproved"]["two"]

    def test_any_of_them_will_do_where_that_is_said(self, stack: Stack) -> None:
        one, two = Node("one"), Node("two", digest=OTHER)
        told = stack.begin(one, two, digests={"speak": "any"})
        assert told["unproved"] == {}
        assert {stack.client.chat().node for _ in range(4)} == {"one", "two"}

    def test_calls_go_to_the_one_that_is_named(self, stack: Stack) -> None:
        one, two = Node("one"), Node("two", "speak:latest", "only2:latest", digest=OTHER)
        told = stack.begin(one, two, digests={"speak": f"sha256:{OTHER}"})
        assert told["unproved"] == {}
        assert {stack.client.chat().node for _ in range(4)} == {"two"}
        assert sorted(told["models"]) == ["only2:latest", "speak:latest"]

    def test_a_batch_that_has_the_new_one_throughout_may_have_it(self, stack: Stack) -> None:
        one, two = Node("one"), Node("two")
        stack.begin(one, two)
        for node in (one, two):
            node.models["speak:latest"] = OTHER
        told = stack.tell(nodes=[one.record(), two.record()], prove=True)
        assert (told["unproved"], told["healthy"]) == ({}, ["one", "two"])

    @pytest.mark.parametrize("prove", [False, True])
    @pytest.mark.parametrize(
        "more", [{"names": ["two"]}, {"names": ["one", "two"], "outdated": {"one": ["Speak", "never:there"]}}]
    )
    def test_what_is_no_more_gives_way(self, stack: Stack, more: dict[str, Any], prove: bool) -> None:
        """A node that left the inventory, or one whose model was deleted, to be pulled again in a later batch."""
        one, two = Node("one", "speak:latest", "only1:latest"), Node("two", digest=OTHER)
        stack.begin(one)
        told = stack.tell(nodes=[two.record()], prove=prove, **more)
        assert (told["unproved"], told["healthy"]) == ({}, ["one", "two"])
        assert told["models"]["speak:latest"]["nodes"] == ["two"]
        assert told["models"]["only1:latest"]["nodes"] == ["one"], "what nobody else has is left as it is"
        assert not stack.tell(nodes=[two.record()], prove=prove, **more)["changed"]

    def test_a_node_that_is_refused_takes_nobody_anything(self, stack: Stack) -> None:
        one, two, three = Node("one"), Node("two", digest=OTHER), Node("three")
        stack.begin(one, three)
        told = stack.tell(nodes=[two.record()], prove=True, names=["one", "two", "three"], outdated={"one": ["speak"]})
        assert "two has another speak:latest than three" in told["unproved"]["two"]
        assert told["models"]["speak:latest"]["nodes"] == ["one", "three"]

    def test_what_is_outdated_has_the_name_of_a_model(self, stack: Stack, failed: type[Exception]) -> None:
        stack.begin(Node("one"))
        with pytest.raises(failed, match="outdated: "):
            stack.tell(nodes=[Node("two").record()], outdated={"one": ["no/such/name/at all"]})


class TestDamaged:
    @pytest.mark.parametrize("name", ["nodes.json", "settings.json"])
    @pytest.mark.parametrize("text", ['{"one": ', "[]", ""])
    def test_what_cannot_be_read_is_not_taken_for_nothing(
        self, stack: Stack, failed: type[Exception], name: str, text: str
    ) -> None:
        stack.begin(Node("one"))
        (stack.home / name).write_text(text)
        before = files(stack.home)
        with pytest.raises(failed, match=rf"{name} should be JSON.*Put the file back from a backup, or remove it"):
            stack.tell(settings=stack.settings, nodes=[Node("two").record()])
        assert files(stack.home) == before
        assert stack.client.chat().node == "one"
        if name == "nodes.json":
            with pytest.raises(failed, match=r"nodes\.json should be JSON"):
                stack.seen()


class TestInterrupted:
    def test_what_was_written_and_not_told_is_told(self, stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
        one, two = Node("one"), Node("two", "other")
        stack.begin(one)
        with monkeypatch.context() as killed:
            killed.setattr(_gateway_nodes.Gateway, "_reload", lambda *_unused: None)
            stack.tell(nodes=[two.record()])
        assert stack.client.chat("other").status == 404
        told = stack.tell(nodes=[two.record()])
        assert (told["changed"], told["reloaded"]) == (True, True)
        assert stack.client.chat("other").status == 200

    def test_a_share_that_was_written_and_not_told_is_told(self, stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
        stack.begin(Node("one"), Node("two"))
        with monkeypatch.context() as killed:
            killed.setattr(_gateway_nodes.Gateway, "_weigh", lambda _self: None)
            stack.tell(state="drained", names=["one"])
        told = stack.tell(state="drained", names=["one"])
        assert (told["changed"], told["reloaded"]) == (True, False)
        assert {stack.client.chat().node for _ in range(4)} == {"two"}

    def test_a_gateway_that_was_stopped_is_started(self, stack: Stack) -> None:
        node = Node("one")
        stack.begin(node)
        stack.machine.stop()
        assert stack.tell(check=True, nodes=[node.record()])["changed"]
        assert stack.seen()["nodes"]["one"]["status"] == "unknown"
        assert stack.tell(nodes=[node.record()])["reloaded"]
        assert stack.client.chat().status == 200

    def test_what_haproxy_refuses_does_not_land(self, stack: Stack, failed: type[Exception]) -> None:
        stack.begin(Node("one"))
        before = files(stack.home)
        with pytest.raises(failed, match=r"nothing was changed: parsing .*nobody\.invalid"):
            stack.tell(settings={**stack.settings, "bind": "nobody.invalid"})
        assert files(stack.home) == before
        assert stack.client.chat().status == 200

    def test_a_reload_that_fails_is_an_error_and_is_tried_again(
        self, stack: Stack, failed: type[Exception], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stack.begin(Node("one"))
        two = Node("two", "other")
        with monkeypatch.context() as broken:
            reload = stack.machine.reload
            broken.setattr(stack.machine, "command", lambda *argv: "exit code 1" if argv == reload else "")
            with pytest.raises(failed, match="did not take over its new configuration: exit code 1"):
                stack.tell(nodes=[two.record()])
        assert stack.tell(nodes=[two.record()])["reloaded"]


def test_another_port_is_taken_over_by_a_reload(stack: Stack) -> None:
    stack.begin(Node("one"))
    before = stack.client.port
    stack.client.port = stack.settings["port"] = free_port()
    assert stack.tell(settings=stack.settings)["reloaded"]
    assert stack.client.chat().status == 200
    stack.client.port = before
    with pytest.raises(ConnectionRefusedError):
        stack.client.chat()
