# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""What Dify's compose file says, and what this collection adds to it.

The additions are plain compose without YAML tags: C(!override) needs Compose 2.24.4, and older releases are content
with less. Published ports therefore are narrowed through the variables that the release interpolates into them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._dify_fragments import (
    PUBLIC,
    FragmentError,
    combine,
    merge,
    plain,
    published,
)

__all__ = [
    "FILES_LABEL",
    "LITERALS",
    "FragmentError",
    "active_services",
    "bind_sources",
    "data_free_sources",
    "environment",
    "images",
    "local_ports",
    "merge",
    "missing_files",
    "open_ports",
    "render_override",
    "through",
    "variables",
]

FILES_LABEL = "llmops.stack.files"

# They, or processes that they start, open connections to model servers.
_MODEL_CALLERS = ("api", "worker", "plugin_daemon", "agent_backend")

# Passwords that a release's compose file spells out, or leaves to the default of an image, while .env holds the one
# that Dify uses: without these lines a secret in .env would lock Dify out of its own vector store.
LITERALS: dict[str, dict[str, str]] = {
    "milvus-standalone": {
        "MINIO_ACCESS_KEY_ID": "${MINIO_ACCESS_KEY}",
        "MINIO_SECRET_ACCESS_KEY": "${MINIO_SECRET_KEY}",
    },
    "vastbase": {"VB_PASSWORD": "${VASTBASE_PASSWORD}"},
    "kibana": {"XPACK_ENCRYPTEDSAVEDOBJECTS_ENCRYPTIONKEY": "${KIBANA_ENCRYPTION_KEY}"},
}
_COUCHBASE_CHECK = (
    'curl -s -f -u "$${COUCHBASE_ADMINISTRATOR_USERNAME}:$${COUCHBASE_ADMINISTRATOR_PASSWORD}" '
    "http://localhost:8091/pools/default/buckets | grep -q '\\[{' || exit 1"
)

# They migrate the database or fail at start without it. Before 1.3.0 nothing made them wait, and up to 1.12.1 a
# migration that cannot connect exits 0: the API then serves an empty database for ever.
_DATABASE_USERS = ("api", "worker", "plugin_daemon")

_HOST_PORT = re.compile(r"\$\{(\w+):-(\d+)\}:(.+)")
_WHOLE = re.compile(r"\$\{(\w+)(?::?-[^${}]*)?\}")

_VARIABLE = re.compile(r"(?<!\$)\$\{([A-Za-z_][A-Za-z0-9_]*)")


def variables(text: str) -> set[str]:
    """Names that compose interpolates in this text, also nested ones as in C(${A:-redis://:${B}@redis})."""
    return set(_VARIABLE.findall(text))


def active_services(compose: Mapping[str, Any], profiles: Iterable[str]) -> list[str]:
    """Services that C(docker compose up) starts with these profiles, in the order of the file."""
    wanted = set(profiles) or {""}
    found = []
    for name, service in (compose.get("services") or {}).items():
        own = [str(profile) for profile in service.get("profiles") or []]
        if not own or wanted.intersection(own):
            found.append(name)
    return found


def environment(service: Mapping[str, Any]) -> dict[str, str]:
    """The C(environment) of a service as a mapping, whichever of the two forms the file uses."""
    given = service.get("environment") or {}
    if isinstance(given, Mapping):
        return {str(key): "" if value is None else str(value) for key, value in given.items()}
    pairs = (str(item).partition("=") for item in given)
    return {key: value for key, _separator, value in pairs}


def images(compose: Mapping[str, Any], services: Iterable[str], registry: str = "") -> dict[str, str]:
    """Image of each service as it will be pulled; services that are built on the host are left out."""
    found = {}
    for name in services:
        image = str(compose["services"][name].get("image") or "")
        if image:
            found[name] = through(registry, image) if registry else image
    return found


def local_ports(compose: Mapping[str, Any], services: Iterable[str]) -> dict[str, str]:
    """Variables of .env that can bind a published port to one address, and the port that each has by default.

    An address fits where the release writes C(${X:-5601}:5601) and names X nowhere else but as the whole value of an
    environment variable, which the override gives as the plain number that a program wants.
    """
    found: dict[str, str] = {}
    unfit: set[str] = set()
    for name in services:
        service = compose["services"][name]
        unfit |= variables(repr([value for key, value in service.items() if key not in ("ports", "environment")]))
        for value in environment(service).values():
            if not _WHOLE.fullmatch(value):
                unfit |= variables(value)
        for port in service.get("ports") or []:
            match = _HOST_PORT.fullmatch(str(port))
            if match and name != PUBLIC:
                found[match[1]] = match[2]
                unfit |= variables(match[3])
            else:
                unfit |= variables(str(port))
    return {key: port for key, port in found.items() if key not in unfit}


def open_ports(compose: Mapping[str, Any], services: Iterable[str], env: Mapping[str, str]) -> dict[str, list[str]]:
    """Ports that a service other than nginx publishes on all addresses of the host, by service."""
    found: dict[str, list[str]] = {}
    for name in services:
        for port in (compose["services"][name].get("ports") or []) if name != PUBLIC else []:
            address, host_port, container_port = published(port, env)
            if not address:
                found.setdefault(name, []).append(host_port or f"a free one for {container_port}")
    return found


def bind_sources(service: Mapping[str, Any]) -> list[str]:
    """Paths relative to the project folder that a service mounts, without a leading C(./)."""
    found = []
    for volume in service.get("volumes") or []:
        source = str(volume.get("source", "")) if isinstance(volume, Mapping) else str(volume).split(":", 1)[0]
        if source.startswith("./"):
            found.append(source[2:].rstrip("/"))
    return found


def data_free_sources(service: Mapping[str, Any]) -> list[str]:
    """Bind mounts that come from the release archive: everything but the data folder."""
    return [source for source in bind_sources(service) if source.split("/", 1)[0] != "volumes"]


def missing_files(compose: Mapping[str, Any], services: Iterable[str], present: Iterable[str]) -> dict[str, list[str]]:
    """Files that services mount from the release and that are not there, by service.

    Docker would create a folder in the place of each, and the container would fail in a way that nobody understands.
    A source without a suffix (C(startupscripts), C(vastbase/lic)) is a folder, which Docker rightly creates.
    """
    have = set(present)
    folders = {path.rsplit("/", depth)[0] for path in have for depth in range(1, path.count("/") + 1)}
    found: dict[str, list[str]] = {}
    for name in services:
        for source in data_free_sources(compose["services"][name]):
            if "." in source.rsplit("/", 1)[-1] and source not in have and source not in folders:
                found.setdefault(name, []).append(source)
    return found


def render_override(compose: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The content of docker-compose.override.yaml.

    Args:
        compose: the release's parsed compose file, not interpolated.
        settings: C(env) (the rendered .env as a mapping), C(profiles), C(files) (path relative to the release: sha256),
            C(env_files) (name of an optional env file: the keys its example knows), C(overrides) (the operator's keys),
            C(registry), C(log_max_size), C(log_max_file), C(plugin_daemon) (more for that service),
            C(compose_fragments), C(compose_override). C(env) and C(profiles) are required.
    """
    env = settings["env"]
    services: dict[str, dict[str, Any]] = {}
    active = active_services(compose, settings["profiles"])
    # .env may carry an address with these; a program that is handed one wants a number.
    numbers = {
        key: env[key].rsplit(":", 1)[1] or port
        for key, port in local_ports(compose, active).items()
        if ":" in env.get(key, "")
    }
    for name in active:
        service = compose["services"][name]
        added: dict[str, Any] = {}
        extra_env = _environment(name, service, settings, numbers)
        if extra_env:
            added["environment"] = extra_env
        if name in _MODEL_CALLERS:
            added["extra_hosts"] = ["host.docker.internal:host-gateway"]
        if name == "plugin_daemon":
            port = env.get("EXPOSE_PLUGIN_DAEMON_PORT") or "5002"
            added["ports"] = [f"127.0.0.1:{port}:{env.get('PLUGIN_DAEMON_PORT') or '5002'}"]
            added = merge(added, settings.get("plugin_daemon") or {})
        if name in _DATABASE_USERS and _waits_for_nothing(service, compose):
            added["depends_on"] = {"db": {"condition": "service_healthy"}}
        if name == "db" and _asks_the_socket(service):
            added["healthcheck"] = {"test": ["CMD", "pg_isready", "-h", "db"]}
        if name == "couchbase-server":
            added["healthcheck"] = {"test": ["CMD-SHELL", _COUCHBASE_CHECK]}
        added.update(_logging(settings))
        if settings.get("registry") and service.get("image"):
            added["image"] = through(settings["registry"], str(service["image"]))
        digest = _digest(service, settings.get("files") or {})
        if digest:
            added["labels"] = {FILES_LABEL: digest}
        if added:
            services[name] = added
    fragment = combine(settings.get("compose_fragments") or (), compose["services"], env)
    for name, service in fragment.get("services", {}).items():
        if name not in compose["services"]:
            services[name] = _logging(settings)
        if settings.get("registry") and service.get("image"):
            service["image"] = through(settings["registry"], str(service["image"]))
    found = merge({"services": services}, fragment)
    return merge(found, plain(settings.get("compose_override") or {}, "dify_compose_override"))


def _logging(settings: Mapping[str, Any]) -> dict[str, Any]:
    if not settings.get("log_max_size"):
        return {}
    options = {"max-size": str(settings["log_max_size"]), "max-file": str(settings.get("log_max_file") or 3)}
    return {"logging": {"driver": "json-file", "options": options}}


def _waits_for_nothing(service: Mapping[str, Any], compose: Mapping[str, Any]) -> bool:
    return "db" in compose["services"] and not isinstance(service.get("depends_on"), Mapping)


def _asks_the_socket(service: Mapping[str, Any]) -> bool:
    """While PostgreSQL prepares an empty data folder it listens on its socket only, and already counts as ready."""
    return (service.get("healthcheck") or {}).get("test") == ["CMD", "pg_isready"]


def _environment(
    name: str, service: Mapping[str, Any], settings: Mapping[str, Any], plain: Mapping[str, str]
) -> dict[str, str]:
    found = dict(LITERALS.get(name, {}))
    for key, value in environment(service).items():
        match = _WHOLE.fullmatch(value)
        if match and match[1] in plain:
            found[key] = plain[match[1]]
    # A service that reads its own optional env file but not .env would never see the operator's value.
    own_files = _env_files(service)
    if ".env" in own_files:
        found.update({key: port for key, port in plain.items() if key not in environment(service)})
    if own_files and ".env" not in own_files:
        known = {key for file in own_files for key in (settings.get("env_files") or {}).get(file, ())}
        for key in settings.get("overrides") or {}:
            if key in known:
                found[key] = f"${{{key}}}"
    return found


def _env_files(service: Mapping[str, Any]) -> list[str]:
    given = service.get("env_file") or []
    given = [given] if isinstance(given, (str, Mapping)) else given
    paths = [str(item.get("path", "")) if isinstance(item, Mapping) else str(item) for item in given]
    return [path[2:] if path.startswith("./") else path for path in paths]


def _digest(service: Mapping[str, Any], files: Mapping[str, str]) -> str:
    """One sum over the release's files that a service mounts.

    The mounts name paths below the C(current) link, which stay the same from release to release; the label is what
    makes compose recreate a service whose template changed, and only that one.
    """
    sources = data_free_sources(service)
    mounted = sorted(path for path in files for one in sources if path == one or path.startswith(one + "/"))
    if not mounted:
        return ""
    lines = "".join(f"{path}\0{files[path]}\n" for path in mounted)
    return hashlib.sha256(lines.encode()).hexdigest()


def through(registry: str, image: str) -> str:
    """The image under a registry that mirrors Docker Hub names; the host of any other registry is left out."""
    first, _slash, rest = image.partition("/")
    if rest and ("." in first or ":" in first or first == "localhost"):
        path = rest
    else:
        path = image if rest else f"library/{image}"
    return f"{registry.rstrip('/')}/{path}"
