# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host with Dify in a few variables: containers, databases, nginx, and a fuse that blows at any operation on them."""

from __future__ import annotations

import os
import pathlib
import shutil
from collections.abc import Iterable
from typing import Any, NamedTuple

from ansible_collections.llmops.stack.plugins.module_utils._dify_database import DatabaseError
from ansible_collections.llmops.stack.plugins.module_utils._docker_cli import Container, DockerError

OLD, NEW = "1.9.2", "1.10.1"
_APP = ["api", "nginx", "plugin_daemon", "redis", "web", "worker"]


class Release(NamedTuple):
    head: str
    database: str
    services: list[str]


# The heads differ, the database service has another name, and there is a worker more.
RELEASES = {OLD: Release("old", "db", _APP), NEW: Release("new", "db_postgres", [*_APP, "worker_beat"])}
_IMAGES = {"api": "dify-api", "worker": "dify-api", "worker_beat": "dify-api", "web": "dify-web"}
_IMAGES["plugin_daemon"] = "dify-plugin-daemon"
_FIXED = {"nginx": "nginx:latest", "redis": "redis:6-alpine", "db": "postgres:15", "db_postgres": "postgres:15"}


class Killed(BaseException):
    """SIGKILL: nothing that follows is done by this process."""


class Fuse:
    """Counts operations on the host; the one with the number `at` fails, or is the last one of the process."""

    def __init__(self, at: int = 0, kind: type[BaseException] = DockerError, times: int = 1) -> None:
        self.at, self.kind, self.times = at, kind, times
        self.count = 0
        self.blown = ""

    def before(self, what: str) -> None:
        self.count += 1
        if self.at and self.at <= self.count < self.at + self.times:
            self.blown = what
            raise self.kind(f"{what} does not work")


class World:
    """What an operation changes is changed at once, after the fuse."""

    def __init__(self, home: pathlib.Path) -> None:
        self.home = str(home)
        for tag in RELEASES:
            os.makedirs(home / "releases" / tag)
        self.anew()

    def anew(self, same_head: bool = False) -> None:
        """The old release runs, and nothing has ever been upgraded."""
        self.releases = dict(RELEASES)
        if same_head:
            self.releases[NEW] = Release("old", "db", RELEASES[NEW].services)
        self.fuse = Fuse()
        self.closed = False
        self.databases = {"dify": "old", "dify_plugin": "old"}
        self.forgotten: set[str] = set()
        self.ended: list[str] = []
        self.closings = 0
        self.containers: dict[str, Container] = {}
        home = pathlib.Path(self.home)
        shutil.rmtree(home / "upgrades", ignore_errors=True)
        for name in (".llmops-upgrade.json", "current"):
            (home / name).unlink(missing_ok=True)
        os.symlink(f"releases/{OLD}", home / "current")
        for service in self.services(OLD):
            self.put(service)

    def forget(self, patterns: Iterable[str]) -> int:
        """Redis."""
        self.fuse.before("forget caches")
        self.forgotten |= set(patterns)
        return len(self.forgotten)

    def services(self, tag: str) -> list[str]:
        return sorted([*self.releases[tag].services, self.releases[tag].database])

    @property
    def current(self) -> str:
        return os.path.basename(os.readlink(os.path.join(self.home, "current")))

    def put(self, service: str) -> None:
        self.containers[service] = made(service, self.current)
        servers = [one for one in ("db", "db_postgres") if one in self.containers]
        assert len(servers) < 2, "two servers on one folder"
        if service in ("api", "worker", "worker_beat"):
            head = self.releases[self.current].head
            assert self.databases.get("dify") == head, f"{service} of {self.current} on the schema of another release"

    def is_all_of(self, tag: str) -> bool:
        expected = {service: made(service, tag).image for service in self.services(tag)}
        return (
            self.current == tag
            and {name: one.image for name, one in self.containers.items() if one.running} == expected
            and len(self.containers) == len(expected)
            and self.databases == {"dify": self.releases[tag].head, "dify_plugin": "old"}
            and not self.closed
        )


def made(service: str, tag: str) -> Container:
    image = _FIXED.get(service) or f"langgenius/{_IMAGES[service]}:{tag}"
    return Container(
        id=service,
        name=f"dify-{service}-1",
        service=service,
        image=image,
        state="running",
        health="",
        exit_code=0,
        restarts=0,
        started="",
        error="",
        out_of_memory=False,
        restart_policy="always",
        health_output="",
    )


def names_of(given: Iterable[str | Container]) -> list[str]:
    return [one if isinstance(one, str) else one.service for one in given]


class FakeDocker:
    def logs(self, one: Container, *_unused: Any, **_more: Any) -> str:
        return f"{one.image} said password=a-secret-of-the-database"

    def output(self, *_unused: Any) -> str:
        return ""

    def run(self, *_unused: Any) -> tuple[int, str, str]:
        return 0, "", ""


class FakeProject:
    """Project, as far as the machine uses it, on a World."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.home, self.name, self.docker = world.home, "dify", FakeDocker()

    def folder(self, tag: str = "") -> str:
        return os.path.join(self.home, "releases", tag) if tag else os.path.join(self.home, "current")

    def settings(self, tag: str = "") -> dict[str, str]:
        return {"DB_PASSWORD": "a-secret-of-the-database"}

    def services(self, tag: str = "") -> list[str]:
        return self.world.services(tag or self.world.current)

    def definition(self, tag: str = "") -> dict[str, Any]:
        tag = tag or self.world.current
        return {"services": {name: {"image": made(name, tag).image} for name in self.world.services(tag)}}

    def compose(self, *_unused: Any) -> str:
        return ""

    def containers(self) -> list[Container]:
        return list(self.world.containers.values())

    def container(self, service: str) -> Container | None:
        return self.world.containers.get(service)

    def up(
        self, services: Iterable[str] = (), timeout: float = 0, wait: bool = False, extra: Iterable[str] = ()
    ) -> None:
        known = self.world.services(self.world.current)
        for service in list(services) or known:
            self.world.fuse.before(f"up {service}")
            if made(service, self.world.current) != self.world.containers.get(service):
                self.world.put(service)
        if "--remove-orphans" in extra:
            for service in set(self.world.containers) - set(known):
                del self.world.containers[service]

    def sums(self, tag: str, services: Iterable[str]) -> dict[str, str]:
        return {}

    def stop(self, services: Iterable[str | Container], seconds: int = 0) -> None:
        for service in names_of(services):
            self.world.fuse.before(f"stop {service}")
            if service in self.world.containers:
                self.world.containers[service].state = "exited"

    def remove(self, services: Iterable[str | Container]) -> None:
        for service in names_of(services):
            self.world.fuse.before(f"remove {service}")
            self.world.containers.pop(service, None)


class FakeDatabase:
    """Database on a World. It needs the server of the release that is current."""

    name, plugin_name = "dify", "dify_plugin"
    names = ("dify", "dify_plugin")
    internal = True

    def __init__(self, project: FakeProject) -> None:
        self.world = project.world

    def _use(self, what: str) -> None:
        server = self.world.releases[self.world.current].database
        one = self.world.containers.get(server)
        if one is None or not one.running:
            raise DatabaseError(f"{what}: {server} does not run")
        self.world.fuse.before(what)

    def head(self) -> str:
        return self.world.databases[self.name]

    def exists(self, name: str) -> bool:
        self._use("exists")
        return name in self.world.databases

    def sql(self, _statement: str, _name: str = "") -> list[list[str]]:
        return [[""]]

    def sessions(self, name: str) -> list[dict[str, Any]]:
        return []

    def terminate(self, name: str) -> None:
        self.world.ended.append(name)

    def copy(self, source: str, target: str, timeout: float = 0) -> None:
        self._use(f"copy {source}")
        assert target not in self.world.databases
        assert not [one for one in self.world.containers.values() if one.service == "api"], "somebody writes"
        self.world.databases[target] = self.world.databases[source]

    def rename(self, old: str, new: str) -> None:
        self._use(f"rename {old}")
        assert new not in self.world.databases
        self.world.databases[new] = self.world.databases.pop(old)

    def drop(self, name: str) -> None:
        self._use(f"drop {name}")
        self.world.databases.pop(name, None)

    def restore(self, path: str, name: str, timeout: float = 0) -> None:
        self._use(f"restore {name}")
        self.world.databases[name] = pathlib.Path(path).read_text()

    def fingerprint(self, name: str = "", timeout: float = 0) -> dict[str, Any]:
        return {"messages": [1, "as they were"]}

    def open_snapshot(self, timeout: float = 0) -> FakeDatabase:
        return self

    def close(self) -> None:
        """A snapshot's."""


class FakeFront:
    def __init__(self, project: FakeProject) -> None:
        self.world = project.world

    def close(self) -> None:
        self.world.fuse.before("close")
        self.world.closed = True
        self.world.closings += 1

    def open(self) -> None:
        self.world.fuse.before("open")
        self.world.closed = False

    def is_due(self) -> bool:
        return False

    def is_closed(self) -> bool:
        return self.world.closed

    def reload(self) -> None:
        self.world.fuse.before("reload")

    def headers(self) -> dict[str, str]:
        return {}
