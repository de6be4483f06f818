# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Dify for the steps of an upgrade, without containers: its flask is the stand-in's, its PostgreSQL a real one."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils._dify_compose import Done
from ansible_collections.llmops.stack.plugins.module_utils._dify_database import DatabaseError
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_context import Context, Options
from instance_api import Instance, interpreter

psycopg2 = pytest.importorskip("psycopg2")


class Database:
    """The part of _dify_database.Database that steps ask; rows are texts, NULL is an empty one."""

    def __init__(self, instance: Instance, plugin_name: str = "") -> None:
        self.instance = instance
        self.name = instance.database
        self.plugin_name = plugin_name
        self.host, self.port, self.internal = instance.postgres.host, str(instance.postgres.port), True

    def sql(self, statement: str, database: str = "", timeout: float = 60) -> list[list[str]]:
        try:
            rows = self.instance.postgres.query(statement, database=database or self.name)
        except psycopg2.Error as exc:
            raise DatabaseError(str(exc).splitlines()[0], exc.pgcode or "") from exc
        return [["" if value is None else str(value) for value in row] for row in rows]

    def exists(self, name: str) -> bool:
        return bool(self.sql(f"SELECT 1 FROM pg_database WHERE datname = '{name}'", "postgres"))

    def drop(self, name: str) -> None:
        self.sql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)", "postgres")


class Docker:
    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def run(self, arguments: list[str], timeout: float, *rest: Any, **named: Any) -> tuple[int, str, str]:
        self.asked.append(arguments)
        return 0, "said by the container", ""


class Project:
    """C(new) is the release that the stand-in's flask takes part as when it is asked with a tag."""

    def __init__(self, instance: Instance, home: Path, settings: Mapping[str, str]) -> None:
        self.instance, self.home, self.name = instance, str(home), "dify"
        self.docker = Docker()
        self.ran: list[list[str]] = []
        self.environments: list[dict[str, str]] = []
        self.started: list[list[str]] = []
        self.on_run: Callable[[], None] = lambda: None
        self._settings = dict(settings)

    def settings(self, tag: str = "") -> dict[str, str]:
        return self._settings

    def once(
        self, service: str, command: list[str], timeout: float, env: Mapping[str, str] | None = None, tag: str = ""
    ) -> Done:
        self.ran.append(command)
        self.environments.append(dict(env or {}))
        begun = time.monotonic()
        line = " ".join(f"'{word}'" if " " in word else word for word in command)
        script = f'flask() {{ {interpreter()} -m standin.api.flask_cli "$@"; }}; {line}'
        if command[0] == "sh":
            script = script.split("; sh", 1)[0] + "; " + command[2]
        environment = {**self.instance.environment, **({"STANDIN_VERSION": tag} if tag else {}), **(env or {})}
        process = subprocess.Popen(
            ["bash", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            start_new_session=True,
        )
        try:
            out, _none = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            subprocess.run(["pkill", "-KILL", "-g", str(process.pid)], check=False)
            return Done(-9, process.communicate()[0], time.monotonic() - begun, True)
        return Done(process.returncode, out, time.monotonic() - begun)

    def compose(self, arguments: list[str], timeout: float, tag: str = "", **_more: Any) -> str:
        self.started.append([tag, *arguments])
        self.on_run()
        return ""

    def address(self, name: str) -> str:
        return "127.0.0.1"


class Notes:
    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], Any] = {}

    def get(self, step: str, key: str, default: Any = None) -> Any:
        return self.kept.get((step, key), default)

    def put(self, step: str, key: str, value: Any) -> None:
        self.kept[step, key] = value

    def step(self, name: str) -> str:
        return ""


def context(project: Any, database: Database, folder: Path, plan: Mapping[str, Any], **options: Any) -> Context:
    folder.mkdir(exist_ok=True)
    shown = {"from": "0.15.3", "to": project.instance.release, "steps": [], **plan}
    return Context(project, shown, Options(**options), Notes(), str(folder), database=database)
