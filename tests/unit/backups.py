# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Dify on disk with a database that is a dictionary, for the tests of backups and restores."""

from __future__ import annotations

import copy
import json
import os
import pathlib
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._dify_database import DatabaseError
from ansible_collections.llmops.stack.plugins.module_utils._dify_env import parse_env
from ansible_collections.llmops.stack.plugins.module_utils._docker_cli import Container

TENANT = "3b4a9a7f-5f94-420d-ae23-4202e778f735"
HEAD = "788d3099ae3a"
PLUGIN = "langgenius/ollama:0.2.0@0c78"
ENV = f"""SECRET_KEY=sk-{"x" * 40}
DB_TYPE=postgresql
DB_HOST=db_postgres
STORAGE_TYPE=opendal
OPENDAL_SCHEME=fs
VECTOR_STORE=qdrant
CONSOLE_WEB_URL=http://one.example.com
PLUGIN_STORAGE_TYPE=local
"""


class FakeDatabase:
    """Databases by name: their tables with rows. A dump is their JSON."""

    def __init__(self, databases: dict[str, dict[str, list[Any]]] | None = None) -> None:
        self.databases = databases if databases is not None else {}
        self.internal, self.service, self.host = True, "db_postgres", "db_postgres"
        self.name, self.plugin_name = "dify", "dify_plugin"
        self.trouble: dict[str, Exception] = {}  # by the name of a method
        self.lost_tables = 0
        self.done: list[str] = []

    @property
    def names(self) -> list[str]:
        return [name for name in (self.name, self.plugin_name) if name]

    def _note(self, what: str) -> None:
        self.done.append(what)
        trouble = self.trouble.get(what.split()[0])
        if trouble:
            raise trouble

    def ping(self) -> str:
        self._note("ping")
        return "15.8"

    def head(self) -> str:
        return str(self.databases.get(self.name, {}).get("alembic_version", [""])[0])

    def exists(self, name: str) -> bool:
        return name in self.databases

    def size_bytes(self, name: str) -> int:
        return 1000 if name in self.databases else 0

    def tables(self, name: str) -> int:
        return len(self.databases[name])

    def sql(self, statement: str, database: str = "") -> list[list[str]]:
        if "to_regclass" in statement:
            return [["plugin_installations" if "plugin_installations" in self.databases[database] else ""]]
        table = "plugin_installations" if "plugin_installations" in statement else "tenants"
        return [[str(value) for value in row] for row in self.databases[database or self.name][table]]

    def fingerprint(self, timeout: float = 0) -> dict[str, list[Any]]:
        return {table: [len(rows), json.dumps(rows)] for table, rows in self.databases[self.name].items()}

    def open_snapshot(self, timeout: float = 0) -> Any:
        outer, moment = self, FakeDatabase(copy.deepcopy(self.databases))

        class Snapshot:
            fingerprint = staticmethod(moment.fingerprint)

            def public_keys(self) -> dict[str, str]:
                return {str(row[0]): str(row[1]) for row in moment.databases[moment.name]["tenants"]}

            def export(self) -> str:
                return "00000003-0000001B-1"

            def close(self) -> None:
                outer.done.append("closed")

        return Snapshot()

    def dump(self, name: str, path: str, timeout: float, snapshot: str = "") -> None:
        self._note(f"dump {name} {snapshot}".rstrip())
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            json.dump(self.databases[name], file)

    def check_dump(self, path: str, timeout: float) -> dict[str, int]:
        self._note("check_dump")
        return {"tables": len(json.loads(pathlib.Path(path).read_text())) - self.lost_tables}

    def restore(self, path: str, name: str, timeout: float) -> None:
        self._note(f"restore {name}")
        if name in self.databases:
            raise DatabaseError(f"database {name} exists already", "42P04")
        self.databases[name] = json.loads(pathlib.Path(path).read_text())

    def drop(self, name: str) -> None:
        self._note(f"drop {name}")
        self.databases.pop(name, None)

    def rename(self, old: str, new: str) -> None:
        self._note(f"rename {old} {new}")
        self.databases[new] = self.databases.pop(old)


class FakeProject:
    def __init__(self, home: pathlib.Path) -> None:
        self.home, self.name = str(home), "dify"
        self.started: list[str] = []
        self.services: list[str] = []  # of containers that are there

    def settings(self, tag: str = "") -> dict[str, str]:
        path = pathlib.Path(self.home, "current", ".env")
        return parse_env(path.read_text()) if path.exists() else {}

    def containers(self) -> list[Container]:
        return [
            Container("1", f"dify-{service}-1", service, "", "running", "", 0, 0, "", "", False, "no", "")
            for service in self.services
        ]

    def up(self, services: list[str], timeout: float, wait: bool = False) -> None:
        self.started += services


def rendered(home: pathlib.Path, version: str = "1.12.1", env: str = ENV) -> None:
    """A release as it is after unpacking and rendering."""
    release = home / "releases" / version
    release.mkdir(parents=True)
    (release / ".env").write_text(env)
    (release / "docker-compose.override.yaml").write_text("services: {}\n")
    (home / "current").symlink_to(f"releases/{version}")


def installed(home: pathlib.Path, private_key: str = "") -> None:
    rendered(home)
    for name, text in {
        "secrets.json": '{"SECRET_KEY": "one"}\n',
        ".llmops-console.json": "{}\n",
        ".llmops-probe.key": "app-1\n",
        f"volumes/app/storage/privkeys/{TENANT}/private.pem": private_key,
        "volumes/app/storage/.init_permissions": "",
        "volumes/app/storage/upload_files/report.pdf": "pages\n" * 1000,
        f"volumes/plugin_daemon/plugin/{PLUGIN}": "package\n",
        "volumes/plugin_daemon/cwd/langgenius/ollama-0.2.0@0c78/.venv/big": "made again\n",
        "volumes/sandbox/conf/config.yaml": "app: {}\n",
        "volumes/db/data/PG_VERSION": "15\n",
    }.items():
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def databases(public_key: str = "") -> dict[str, dict[str, list[Any]]]:
    return {
        "dify": {
            "alembic_version": [HEAD],
            "tenants": [[TENANT, public_key]],
            "accounts": [["1", "owner@example.com"]],
            "messages": [],
        },
        "dify_plugin": {"plugins": [["langgenius/ollama"]], "plugin_installations": [[PLUGIN]]},
    }
