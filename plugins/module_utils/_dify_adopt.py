# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""A Dify that somebody set up by hand, read as what it really is: its values, its secrets, and what is odd about it.

Pure: what _dify_adopt_look found goes in, a report comes out. The values of a running container count for more than
those of C(.env), because a .env may have been edited since, or a shell may have set something.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._dify_env import (
    SECRETS,
    Secret,
    is_sensitive,
    parse_env,
)
from ansible_collections.llmops.stack.plugins.module_utils._dify_override import variables
from ansible_collections.llmops.stack.plugins.module_utils._dify_versions import parse_version, since

__all__ = ["Found", "Mount", "Old", "Report", "report"]

# What these hold is rendered for each release or comes from a variable of the role, so it is never carried along.
_RENDERED = {"EXPOSE_NGINX_PORT", "EXPOSE_NGINX_SSL_PORT", "COMPOSE_PROJECT_NAME", "COMPOSE_FILE", "COMPOSE_PROFILES"}
_DB_SERVICES = ("db", "db_postgres", "db_mysql", "")
_GUIDE_KEYS = ("CUSTOM_MODEL_ENABLED", "OLLAMA_API_BASE_URL")
# Always in use, whatever their value; the ones of other stores are in use when somebody has set them.
_IN_USE = (
    "SECRET_KEY",
    "INIT_PASSWORD",
    "DB_PASSWORD",
    "REDIS_PASSWORD",
    "SANDBOX_API_KEY",
    "PLUGIN_DAEMON_KEY",
    "PLUGIN_DIFY_INNER_API_KEY",
    "DIFY_AGENT_SERVER_SECRET_KEY",
    "DIFY_AGENT_LOCAL_SANDBOX_AUTH_TOKEN",
)
# Nothing that is stored depends on them, so a new one costs a restart.
_EASY = ("REDIS_PASSWORD", "SANDBOX_API_KEY", "PLUGIN_DAEMON_KEY", "PLUGIN_DIFY_INNER_API_KEY", "WEAVIATE_API_KEY")

_WAYS = {
    "DB_PASSWORD": "set a new one in the database first (ALTER USER ... PASSWORD ...), then write it into secrets.json "
    "in dify_home and run site.yml; one that is only in a file would lock Dify out",
    "SECRET_KEY": "with which sessions and links to files can be forged, write another into secrets.json in dify_home "
    "and run site.yml; everybody signs in again then, and old links to files end",
}

_DEFAULT = re.compile(r"(?<!\$)\$\{([A-Za-z_][A-Za-z0-9_]*):-([^${}]*)\}")
_SELF = re.compile(r"(?m)^\s*(?:- )?([A-Z_][A-Z0-9_]*)\s*[:=]\s*['\"]?\$\{\1(?::?-[^\n]*)?\}['\"]?\s*$")
_REFERENCE = re.compile(r"\$\{(\w+)(?::?-([^${}]*))?\}|\$(\w+)")
_IMAGE = re.compile(r"(?:(.+)/)?langgenius/dify-api:([\w.-]+)")


@dataclass(frozen=True)
class Mount:
    kind: str  # bind | volume
    source: str  # a path with its links resolved, or the name of a volume
    target: str
    writable: bool


@dataclass
class Old:
    """A container of the installation."""

    id: str
    name: str
    service: str
    image: str
    state: str
    policy: str
    project: str = ""
    env: dict[str, str] = field(default_factory=dict, repr=False)
    mounts: list[Mount] = field(default_factory=list)
    ports: dict[str, list[tuple[str, str]]] = field(default_factory=dict)  # "80/tcp": [(address, port)]

    @property
    def running(self) -> bool:
        return self.state == "running"


@dataclass
class Found:
    """What lies in the folder and what the engine has of it."""

    folder: str  # the one with docker-compose.yaml
    compose_text: str = ""
    env_text: str = field(default="", repr=False)
    template: str = ""
    has_override: bool = False
    database_files: bool = False
    storage_key: str = field(default="", repr=False)  # that the API of 1.14.1 and later made for itself
    certificates: list[str] = field(default_factory=list)
    containers: list[Old] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)  # containers of anybody else that write to its data
    postmaster: str = ""  # the file by which PostgreSQL says that it runs, or did until it was killed

    @property
    def project(self) -> str:
        """Compose's own rule without containers: the name of the folder."""
        return self.containers[0].project if self.containers else os.path.basename(self.folder).lower()


@dataclass
class Report:
    version: str = ""
    project: str = ""
    values: dict[str, str] = field(default_factory=dict, repr=False)  # for dify_env, below what the inventory says
    secrets: dict[str, str] = field(default_factory=dict, repr=False)
    public: list[str] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def shown(self) -> dict[str, str]:
        return {key: "(hidden)" if is_sensitive(key, value) else value for key, value in self.values.items()}


def report(found: Found, wanted: Mapping[str, Any]) -> Report:
    """What an adoption would take over, and what speaks against it.

    Args:
        found: what is there.
        wanted: C(version) (dify_version), C(http_port), C(https_port).
    """
    return _Reader(found, wanted).report()


class _Reader:
    def __init__(self, found: Found, wanted: Mapping[str, Any]) -> None:
        self.found, self.wanted = found, wanted
        self.template = _expanded(parse_env(found.template))
        self.file = _expanded(parse_env(found.env_text))
        self.defaults: dict[str, str] = dict(_DEFAULT.findall(found.compose_text))
        self.api = next((one for one in found.containers if one.service == "api"), None)
        self.running = self.api.env if self.api else {}
        # From 1.14.1 on the containers read .env as it is; before, what the compose file does not name reaches nobody.
        self.whole_file = "env_file:" in found.compose_text
        self.same_name = set(_SELF.findall(found.compose_text)) | (set(self.file) if self.whole_file else set())
        self.result = Report(project=found.project)

    def report(self) -> Report:
        self._version()
        if self.result.refusals:
            return self.result
        self._secrets()
        self._values()
        self._data()
        self._one_writer()
        self._ports()
        self._oddities()
        return self.result

    def refuse(self, sentence: str) -> None:
        self.result.refusals.append(sentence)

    def warn(self, sentence: str) -> None:
        self.result.warnings.append(sentence)

    def value(self, key: str) -> str:
        """What is in effect; a container counts for more than the file."""
        if key in self.running and (key in self.same_name or key not in self.file):
            return self.running[key]
        return self.file.get(key, self.defaults.get(key, ""))

    def _version(self) -> None:
        folder = self.found.folder
        if not self.found.compose_text:
            self.refuse(
                f"There is no docker-compose.yaml in {folder} and none in its folder docker. dify_adopt must name the "
                "folder of a Dify release or git checkout."
            )
            return
        in_file = _IMAGE.search(self.found.compose_text)
        in_use = _IMAGE.search(self.api.image) if self.api else in_file
        if not in_use:
            image = self.api.image if self.api else "none that Dify publishes"
            self.refuse(
                f"The api in {folder} has the image {image}, so which release of Dify this is cannot be told. Only "
                "Dify's own images can be taken over."
            )
            return
        self.result.version = tag = in_use.group(2)
        try:
            parse_version(tag)
        except ValueError as error:
            self.refuse(f"{error}. Start a release of Dify in {folder} first.")
            return
        if in_file and in_file.group(2) != tag:
            self.warn(
                f"docker-compose.yaml in {folder} is of Dify {in_file.group(2)}, but {tag} runs: it was exchanged and "
                f"never started. {tag} is what is taken over."
            )
        if in_use.group(1) and in_use.group(1) != "docker.io":
            self.warn(f"Images come from {in_use.group(1)}; set dify_registry if the host does not reach Docker Hub.")
        if tag != str(self.wanted["version"]):
            self.refuse(
                f"Dify {tag} is in {folder} and dify_version asks for {self.wanted['version']}. Taking over and "
                f"upgrading are two runs: set dify_version to {tag} for this one."
            )

    def _secrets(self) -> None:
        store = self.value("VECTOR_STORE") or "weaviate"
        for secret in SECRETS:
            value = self._secret(secret)
            in_use = secret.name in _IN_USE or secret.name.startswith(store.upper().replace("-", "_"))
            if not value or not (in_use or value not in secret.public):
                continue
            self.result.secrets[secret.name] = value
            if value in secret.public:
                self.result.public.append(secret.name)
        self.result.warnings += _rotation(self.result.public)

    def _secret(self, secret: Secret) -> str:
        values: list[str] = [self.value(key) for key in secret.keys if self.value(key)]
        if not values and secret.name == "SECRET_KEY":
            return self.found.storage_key
        return values[0] if values else ""

    def _values(self) -> None:
        members = {key for secret in SECRETS for key in secret.keys}
        read = variables(self.found.compose_text)
        edited = []
        for key in sorted(set(self.file) | (self.same_name & set(self.running))):
            value = self.value(key)
            if not re.fullmatch("[A-Z_][A-Z0-9_]*", key):
                continue
            if key in self.file and value != self.file[key]:
                edited.append(key)
            if key in members or key in _RENDERED or value == self.template.get(key, self.defaults.get(key, "")):
                continue
            if (key not in read and not self.whole_file) or key in _GUIDE_KEYS:
                self.result.dead.append(key)
            elif not self._follows(key, value):
                self.result.values[key] = value
        self._profiles()
        if edited:
            self.warn(
                f"{_few(edited)}: .env was edited after the containers were made, and they never got it. What they run "
                "with is taken over."
            )
        if self.result.dead:
            self.warn(
                f"{_few(self.result.dead)}: nothing in Dify {self.result.version} reads these keys of .env. They are "
                "left out; models are registered through dify_models."
            )

    def _follows(self, key: str, value: str) -> bool:
        """Whether a value follows from others, and is rendered for each release."""
        if key == "DB_HOST" and value in _DB_SERVICES:
            self.warn(
                f"DB_HOST={value} is written out in .env. It is the name that the database service has in some "
                "releases, so it is not carried along but rendered for each."
            )
            return True
        password = self.result.secrets.get("REDIS_PASSWORD", "")
        return key == "CELERY_BROKER_URL" and value == f"redis://:{password}@redis:6379/1"

    def _profiles(self) -> None:
        """Only what somebody added: the database's and the store's profile follow from their own keys."""
        given = [name for name in re.split(r"[,\s]+", self.file.get("COMPOSE_PROFILES", "")) if name]
        own = {self.value("VECTOR_STORE") or "weaviate", self.value("DB_TYPE") or "postgresql", "collaboration"}
        if set(given) - own:
            self.result.values["COMPOSE_PROFILES"] = ",".join(given)

    def _data(self) -> None:
        kind = self.value("DB_TYPE") or "postgresql"
        host = self.value("DB_HOST")
        if kind != "postgresql":
            self.warn(f"The database is {kind}. It can be taken over, but this collection upgrades PostgreSQL only.")
        elif host in _DB_SERVICES and not self.found.database_files:
            self.refuse(
                f"There is no database in {self.found.folder}/volumes/db/data, so there is nothing to take over. If "
                "the data is in another folder, make volumes a link to it."
            )
        if since(self.result.version, "own_secret_key") and "SECRET_KEY" not in self.result.secrets:
            self.refuse(
                "SECRET_KEY is empty, and volumes/app/storage has no .dify_secret_key. Start Dify there once, or set "
                "SECRET_KEY in its .env."
            )
        for one in self.found.containers:
            for mount in one.mounts:
                if mount.kind == "volume" and not re.fullmatch("[0-9a-f]{64}", mount.source):
                    self.refuse(
                        f"{one.service} keeps {mount.target} in the volume {mount.source} of Docker, and this "
                        "collection keeps data in folders. Copy it into a folder below volumes and mount that one "
                        "first."
                    )

    def _one_writer(self) -> None:
        """A second PostgreSQL on the same files destroys them: it cannot see the first one's lock over containers."""
        found = self.found
        if found.strangers:
            self.refuse(
                f"{_few(found.strangers)} runs with {found.folder}/volumes and is none of the containers that Compose "
                f"made from {found.folder}: the folder was moved, or another project was started on its data. Take it "
                f"down where it was started, run docker compose up -d in {found.folder}, and try again."
            )
        elif found.postmaster and not found.containers:
            self.refuse(
                f"{found.postmaster} says that a database runs on these files, or was killed, and no container "
                f"of {found.folder} is there. End what runs there, on this host or another, or run docker compose up "
                f"-d in {found.folder}, and try again."
            )
        project = str(self.wanted.get("project", ""))
        if found.containers and found.project == project:
            self.refuse(
                f"The Compose project there is called {project}, as the one that takes its place, and the old "
                f"containers could not be kept until the new ones are proved. Give it another name: in {found.folder} "
                f"run docker compose -p {project} down, then docker compose -p {project}_old up -d, and try again."
            )

    def _ports(self) -> None:
        nginx = next((one for one in self.found.containers if one.service == "nginx"), None)
        for inside, key, variable in (
            ("80", "EXPOSE_NGINX_PORT", "http_port"),
            ("443", "EXPOSE_NGINX_SSL_PORT", "https_port"),
        ):
            published = nginx.ports.get(f"{inside}/tcp") if nginx else None
            port = published[0][1] if published else (self.value(key) or inside).rpartition(":")[2]
            if port and str(self.wanted[variable]) != port:
                self.refuse(
                    f"Dify is published on port {port} there and dify_{variable} is {self.wanted[variable]}. Set "
                    f"dify_{variable}: {port} to keep it where people look for it."
                )
            address = published[0][0] if published else ""
            if address.strip("0.:") and inside == "80":
                self.warn(f"Dify is published on {address} only; set dify_bind_address: {address} to keep that.")

    def _oddities(self) -> None:
        if self.found.has_override:
            self.warn(
                "There is a docker-compose.override.yaml. It is not carried along: put what is in it into "
                "dify_compose_override."
            )
        stopped = [one.service for one in self.found.containers if not one.running and one.policy not in ("no", "")]
        if not self.found.containers:
            self.warn("No containers of this folder are there, so its values come from its files.")
        elif stopped:
            self.warn(f"These do not run: {_few(stopped)}.")


def _rotation(names: list[str]) -> list[str]:
    """What public defaults mean, and how each is changed later."""
    found = []
    easy = [name for name in names if name in _EASY]
    if easy:
        one = len(easy) == 1
        found.append(
            f"{_few(easy)} {'has the value' if one else 'have the values'} that everybody can read in Dify's "
            f"repository. {'It is' if one else 'They are'} kept, though nothing stored depends on "
            f"{'it' if one else 'them'}: to have another made, remove the name from secrets.json in dify_home and run "
            "site.yml."
        )
    for name in names:
        if name not in easy:
            way = _WAYS.get(
                name, "change it in that service first, then in secrets.json in dify_home, and run site.yml"
            )
            found.append(
                f"{name} has the value that everybody can read in Dify's repository. It is kept, for data depends on "
                f"it; to change it, {way}."
            )
    return found


def _expanded(values: Mapping[str, str]) -> dict[str, str]:
    """References to other keys of the file replaced, as Compose does when it reads a .env."""

    def resolve(found: re.Match[str]) -> str:
        name = found[1] or found[3]
        return str(values.get(name) or found[2] or "")

    return {key: _REFERENCE.sub(resolve, value) for key, value in values.items()}


def _few(names: list[str], most: int = 8) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
