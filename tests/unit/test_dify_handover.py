# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A handover that is killed at any moment serves on, and the next one ends where the release says.

The stage looks at every change: a request that comes right then must find a container that has proved itself.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils import _dify_handover as handovers
from ansible_collections.llmops.stack.plugins.module_utils._dify_handover import handover
from ansible_collections.llmops.stack.plugins.module_utils._dify_handover_proof import NotProved
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_context import Context, Options, StepError

SERVICES = ("api", "web", "worker", "plugin_daemon", "nginx")


class Killed(BaseException):
    """SIGKILL: no `except Exception` and no clean-up of the code under test sees it."""


@dataclasses.dataclass
class One:
    name: str
    service: str
    made_of: str
    address: str
    id: str
    beside: bool = False
    state: str = "running"
    started: str = ""
    proved: bool = False

    @property
    def running(self) -> bool:
        return self.state == "running"


class Stage:
    """Containers, where nginx sends requests, and what was noticed from outside."""

    def __init__(self, home: pathlib.Path) -> None:
        self.numbers = itertools.count(1)
        self.home, self.name, self.docker = str(home), "dify", self
        self.release = dict.fromkeys(SERVICES, "old")
        self.all: list[One] = []
        for service in SERVICES:
            self._make(service).proved = True
        self.pointing: dict[str, str] = {}
        self.asleep = False
        self.broken: set[tuple[str, str]] = set()  # service and definition that never get well
        self.calls = 0
        self.fuse = 0
        self.events: list[str] = []
        self.resolved = {service: self._known(service) for service in handovers.BESIDE}

    def _make(self, service: str, beside: str = "") -> One:
        number = next(self.numbers)
        name = beside or f"dify-{service}-1"
        one = One(name, service, self.release[service], f"172.20.0.{number}", f"id{number}", bool(beside))
        self.all.append(one)
        return one

    def _known(self, service: str) -> list[str]:
        return [one.address for one in self.all if one.service == service and one.running]

    def did(self, what: str) -> None:
        """One more thing has happened; users must be fine, and the process may die right here."""
        self.events.append(what)
        for service in handovers.BESIDE:
            targets = [self.pointing[service]] if service in self.pointing else self.resolved[service]
            good = {one.address for one in self.all if one.running and one.proved}
            assert self.asleep or (targets and set(targets) <= good), f"{service} fails after {what}: {self.events}"
        self.calls += 1
        if self.calls == self.fuse:
            raise Killed(what)

    # -- Project

    def containers(self) -> list[Any]:
        return [one for one in self.all if not one.beside]

    def container(self, service: str) -> Any:
        return next((one for one in self.containers() if one.service == service), None)

    def address(self, name: str) -> str:
        return next((one.address for one in self.all if one.name == name and one.running), "")

    def up(
        self, services: Iterable[str] = (), timeout: float = 0, wait: bool = False, extra: Iterable[str] = ()
    ) -> None:
        for service in list(services) or list(self.release):
            own = self.container(service)
            if own is None or own.made_of != self.release[service]:
                if own is not None:
                    self.all.remove(own)
                self._make(service)
                self.did(f"up {service}")

    def run(self, arguments: list[str], timeout: float = 0, *_more: Any) -> tuple[int, str, str]:
        if arguments[0] == "run":  # docker compose run
            self._make(arguments[-1], beside=arguments[arguments.index("--name") + 1])
            self.did(f"beside {arguments[-1]}")
        elif arguments[0] == "rm":
            one = next(one for one in self.all if one.id == arguments[-1])
            self.all.remove(one)
            self.did(f"rm {one.name}")
        return 0, "", ""

    # -- Docker

    def output(self, arguments: list[str], timeout: float = 0) -> str:
        if arguments[0] == "ps":
            service = arguments[-1].rsplit("=", 1)[1]
            return "\n".join(one.id for one in self.all if one.beside and one.service == service)
        return self.run(arguments)[1]

    def inspect(self, ids: list[str], timeout: float = 0) -> list[Any]:
        return [one for one in self.all if one.id in ids]

    def log_tail(self, one: Any, timeout: float = 0) -> list[str]:
        return ["Traceback", "password=hunter2222 is wrong"]

    def logs(self, one: Any, timeout: float = 0) -> str:
        return "the whole log"


class StageFront:
    def __init__(self, project: Stage) -> None:
        self.stage = project

    def _reload(self, what: str) -> None:
        self.stage.resolved = {service: self.stage._known(service) for service in handovers.BESIDE}
        self.stage.did(what)

    def point(self, service: str, address: str) -> None:
        self.stage.pointing[service] = address
        self._reload(f"point {service}")

    def unpoint(self, service: str) -> None:
        self.stage.pointing.pop(service, None)
        self._reload(f"unpoint {service}")

    def pointed(self) -> dict[str, str]:
        return dict(self.stage.pointing)

    def reload(self) -> None:
        self._reload("reload")

    def missing(self) -> list[str]:
        return []

    def settled(self) -> bool:
        return True

    @contextlib.contextmanager
    def hold(self, seconds: float) -> Iterator[bool]:
        self.stage.asleep = True
        try:
            yield True
        finally:
            self.stage.asleep = False


@pytest.fixture
def stage(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    made = Stage(tmp_path)

    def proved(_ctx: Context, service: str, container: str, _url: str, _version: str) -> None:
        one = next(one for one in made.all if one.name == container)
        if (service, one.made_of) in made.broken:
            raise NotProved("nobody answers.")
        one.proved = True

    def due(_project: Stage, services: Iterable[str] = ()) -> list[str]:
        names = list(services) or list(made.release)
        return sorted(name for name in names if made.container(name).made_of != made.release[name])

    monkeypatch.setattr(handovers, "Front", StageFront)
    monkeypatch.setattr(handovers, "prove", proved)
    monkeypatch.setattr(handovers, "prove_plugins", lambda *_one: None)
    monkeypatch.setattr(handovers, "due", due)
    monkeypatch.setattr(
        handovers, "fingerprints", lambda _project: {name: one * 8 for name, one in made.release.items()}
    )
    monkeypatch.setattr(handovers, "drain", lambda *_one, **_more: True)
    monkeypatch.setattr(handovers, "connections", lambda *_one: 0)
    return made


def context(stage: Stage, folder: str = "") -> Context:
    project: Any = stage
    journal: Any = None
    made: Any = Context(project, {}, Options(drain_seconds=1), journal, folder)
    made.log = lambda text: None
    return made


def assert_settled(stage: Stage) -> None:
    assert {one.service: one.made_of for one in stage.all} == stage.release
    assert len(stage.all) == len(SERVICES)
    assert stage.pointing == {}
    assert not stage.asleep


def change(stage: Stage, *services: str) -> None:
    for name in services:
        stage.release[name] = "new"


def test_nothing_to_do(stage: Stage) -> None:
    assert handover(context(stage)) == []
    assert stage.events == []


@pytest.mark.parametrize("services", [("api",), ("web",), ("api", "web", "worker"), ("worker",), ("plugin_daemon",)])
def test_a_change(stage: Stage, services: tuple[str, ...]) -> None:
    change(stage, *services)
    assert handover(context(stage)) == sorted(services)
    assert_settled(stage)
    assert handover(context(stage)) == []


def test_only_what_was_asked_for(stage: Stage) -> None:
    change(stage, "api", "worker")
    assert handover(context(stage), ["api"]) == ["api"]
    assert stage.container("worker").made_of == "old"


def _until_killed(stage: Stage, moment: int) -> bool:
    stage.calls, stage.fuse = 0, moment
    try:
        handover(context(stage))
    except Killed:
        stage.asleep = False  # the watch that hold() sets up does this
        return True
    finally:
        stage.fuse = 0
    return False


def _moments(run: Callable[[int], bool]) -> int:
    """Kill at the first moment, at the second, and so on, until nothing is left to kill; how many there were."""
    return next(moment for moment in itertools.count(1) if not run(moment)) - 1


@pytest.mark.parametrize("then", ["on", "back", "elsewhere"])
def test_killed_at_any_moment(tmp_path: pathlib.Path, stage: Stage, then: str) -> None:
    """The next run goes on, or back to the old release, or to settings that nobody had thought of before."""

    def run(moment: int) -> bool:
        fresh = Stage(tmp_path)
        stage.__dict__.update(fresh.__dict__, docker=stage)
        change(stage, "api", "web", "worker", "plugin_daemon")
        killed = _until_killed(stage, moment)
        if then != "on":
            stage.release = {name: "old" if then == "back" else "third" for name in SERVICES if name != "nginx"}
            stage.release["nginx"] = "old"
        handover(context(stage))
        assert_settled(stage)
        return killed

    assert _moments(run) > 12


@pytest.mark.parametrize("others", [(), ("plugin_daemon",)], ids=["alone", "with the daemon"])
def test_a_new_one_that_never_gets_well(stage: Stage, tmp_path: pathlib.Path, others: tuple[str, ...]) -> None:
    change(stage, "api", *others)
    stage.broken.add(("api", "new"))
    with pytest.raises(StepError, match="goes on serving: nobody answers") as caught:
        handover(context(stage, str(tmp_path)))
    assert "hunter2222" not in caught.value.message
    assert "ends with: Traceback" in caught.value.message
    assert (tmp_path / "api-beside.log").read_text() == "the whole log"
    assert [one.made_of for one in stage.all if one.service == "api"] == ["old"]
    stage.release = dict.fromkeys(SERVICES, "old")
    handover(context(stage))
    assert_settled(stage)


def test_an_api_that_is_away_is_just_started(stage: Stage) -> None:
    change(stage, "api")
    stage.container("api").state = "exited"
    stage.asleep = True  # nobody is served, and nobody can be
    assert handover(context(stage)) == ["api"]
    assert not any("beside" in one for one in stage.events)


def test_plugins_that_come_late_are_waited_for_after_requests_flow_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    def proved(_ctx: Context, _container: str, _version: str, _seconds: float) -> None:
        seen.append(stage.asleep)
        if len(seen) == 1:
            raise NotProved("no available node.")

    monkeypatch.setattr(handovers, "prove_plugins", proved)
    change(stage, "plugin_daemon")
    assert handover(context(stage)) == ["plugin_daemon"]
    assert seen == [True, False]


def test_a_daemon_that_does_not_get_well(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def proved(*_one: Any) -> None:
        raise NotProved("It ends again and again.")

    monkeypatch.setattr(handovers, "prove_plugins", proved)
    change(stage, "plugin_daemon", "api")
    with pytest.raises(StepError, match="plugin_daemon: It ends again and again"):
        handover(context(stage))
    monkeypatch.setattr(handovers, "prove_plugins", lambda *_one: None)
    stage.release = dict.fromkeys(SERVICES, "old")
    handover(context(stage))
    assert_settled(stage)


@pytest.mark.parametrize(
    ("check", "others", "needed"),
    [
        ("", [], False),
        ("", ["plugin_daemon"], False),
        ("api", ["plugin_daemon"], False),
        ("llm", ["plugin_daemon"], True),  # the daemon's key may be another one
        ("", ["weaviate"], False),
        ("", ["redis"], True),  # so may its password be
        ("api", ["plugin_daemon", "db_postgres"], True),
    ],
)
def test_one_that_fails_for_want_of_what_is_replaced_after_it(check: str, others: list[str], needed: bool) -> None:
    assert handovers._needs(NotProved("It does not answer.", check), others) is needed
