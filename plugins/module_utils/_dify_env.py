# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""A release's .env, from the release's own template, the operator's overrides and the secrets. Pure: text in, text out.

Nothing here looks at the version of a release: what a release understands is read from its own files.

From 1.14.1 on, a release ships a short template and many optional files under envs/. They are not created, as in
Dify's own default deployment: the containers read .env last and it wins over them, so .env can stay the one file that
an operator looks at, and the examples would only bring more public passwords. The one exception are the settings of
the chosen vector store and database: the API has no defaults for most of them, so the lines of their examples are
added to .env.
"""

from __future__ import annotations

import re
import secrets as _random
import string
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote as _percent
from urllib.parse import urlsplit

from ansible_collections.llmops.stack.plugins.module_utils import _dify_env_plugins as plugins
from ansible_collections.llmops.stack.plugins.module_utils._dify_override import (
    LITERALS,
    active_services,
    local_ports,
    open_ports,
    variables,
)
from ansible_collections.llmops.stack.plugins.module_utils._dify_owner import (
    ADMIN_PASSWORD,
    PASSWORD_RULE,
    UNTRIED,
    is_password,
)
from ansible_collections.llmops.stack.plugins.module_utils._dify_versions import RENAMED_KEYS

__all__ = [
    "ADMIN",
    "DATABASE_SERVICES",
    "PUBLIC_DEFAULTS",
    "PUBLISHED",
    "SECRETS",
    "EnvError",
    "Release",
    "Rendered",
    "check_overrides",
    "generate",
    "is_sensitive",
    "known_keys",
    "mask_env",
    "mask_text",
    "parse_env",
    "quote",
    "render",
    "sensitive_values",
]


class EnvError(Exception):
    """The wishes of the operator cannot be met; the text says why and what to do, and never holds a value."""


class Secret(NamedTuple):
    name: str  # under which it is kept
    keys: tuple[str, ...]  # of .env; all of them always hold the same value
    public: tuple[str, ...]  # what Dify's repository publishes for it
    length: int = 48


# Lengths: INIT_PASSWORD takes 30 characters at most, Oracle 30, openGauss and Vastbase 32, MinIO's user 20 by custom.
SECRETS: tuple[Secret, ...] = (
    Secret("SECRET_KEY", ("SECRET_KEY",), ("sk-9f73s3ljTXVcMT3Blb3ljTqtsKiGHXVcMT3BlbkFJLK7U",)),
    Secret("INIT_PASSWORD", ("INIT_PASSWORD",), (), 24),
    Secret("DB_PASSWORD", ("DB_PASSWORD", "POSTGRES_PASSWORD", "MYSQL_PASSWORD"), ("difyai123456",), 32),
    Secret("REDIS_PASSWORD", ("REDIS_PASSWORD",), ("difyai123456",), 32),
    Secret("SANDBOX_API_KEY", ("SANDBOX_API_KEY", "CODE_EXECUTION_API_KEY"), ("dify-sandbox",)),
    Secret("PLUGIN_DAEMON_KEY", ("PLUGIN_DAEMON_KEY",), ("lYkiYYT6owG+71oLerGzA7GXCgOT++6ovaezWAjpCjf+Sjc3ZtU+qUEi",)),
    Secret(
        "PLUGIN_DIFY_INNER_API_KEY",
        ("PLUGIN_DIFY_INNER_API_KEY", "INNER_API_KEY_FOR_PLUGIN"),
        ("QaHbTe77CtuXmsfyhR7+vRjI/+XbV1AaFy691iy+kGDv2Jvy0/eAh8Y1",),
    ),
    Secret(
        "WEAVIATE_API_KEY",
        ("WEAVIATE_API_KEY", "WEAVIATE_AUTHENTICATION_APIKEY_ALLOWED_KEYS"),
        ("WVF5YThaHlkYwhGUSmCRgsX3tD5ngdN8pkih",),
    ),
    # 32 bytes in URL-safe base64: the agent backend derives an encryption key from it.
    Secret(
        "DIFY_AGENT_SERVER_SECRET_KEY",
        ("DIFY_AGENT_SERVER_SECRET_KEY",),
        ("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY",),
        43,
    ),
    Secret(
        "DIFY_AGENT_LOCAL_SANDBOX_AUTH_TOKEN",
        ("DIFY_AGENT_LOCAL_SANDBOX_AUTH_TOKEN", "DIFY_AGENT_SHELLCTL_AUTH_TOKEN"),
        (),
    ),
    Secret("QDRANT_API_KEY", ("QDRANT_API_KEY",), ("difyai123456",), 32),
    Secret(
        "PGVECTOR_PASSWORD",
        ("PGVECTOR_PASSWORD", "PGVECTOR_POSTGRES_PASSWORD", "PGVECTO_RS_PASSWORD"),
        ("difyai123456",),
        32,
    ),
    Secret("CHROMA_PASSWORD", ("CHROMA_AUTH_CREDENTIALS", "CHROMA_SERVER_AUTHN_CREDENTIALS"), ("difyai123456",), 32),
    Secret("OCEANBASE_VECTOR_PASSWORD", ("OCEANBASE_VECTOR_PASSWORD",), ("difyai123456",), 24),
    Secret(
        "OPENSEARCH_PASSWORD",
        ("OPENSEARCH_PASSWORD", "OPENSEARCH_INITIAL_ADMIN_PASSWORD"),
        ("admin", "Qazwsxedc!@#123"),
        32,
    ),
    Secret("ELASTICSEARCH_PASSWORD", ("ELASTICSEARCH_PASSWORD",), ("elastic",), 32),
    Secret("KIBANA_ENCRYPTION_KEY", ("KIBANA_ENCRYPTION_KEY",), ("d1a66dfd-c4d3-4a0a-8290-2abcb83ab3aa",)),
    Secret("COUCHBASE_PASSWORD", ("COUCHBASE_PASSWORD",), ("password",), 24),
    Secret("ORACLE_PWD", ("ORACLE_PWD",), ("Dify123456",), 24),
    Secret("OPENGAUSS_PASSWORD", ("OPENGAUSS_PASSWORD",), ("Dify@123",), 24),
    Secret("VASTBASE_PASSWORD", ("VASTBASE_PASSWORD",), ("Difyai123456",), 24),
    Secret("MINIO_ACCESS_KEY", ("MINIO_ACCESS_KEY",), ("minioadmin",), 20),
    Secret("MINIO_SECRET_KEY", ("MINIO_SECRET_KEY",), ("minioadmin",), 40),
    # Servers outside of the compose project; the placeholder is a password that everybody knows all the same.
    Secret("RELYT_PASSWORD", ("RELYT_PASSWORD",), ("difyai123456",), 32),
    Secret("ALIBABACLOUD_MYSQL_PASSWORD", ("ALIBABACLOUD_MYSQL_PASSWORD",), ("difyai123456",), 32),
)

# The password of the owner of Dify, which is set up through the API: no container has it, and no .env.
ADMIN = Secret(ADMIN_PASSWORD, (), (), 24)

_MEMBER = {key: secret for secret in SECRETS for key in secret.keys}

# Values that are a password wherever they stand, also under a key that a later release invents.
PUBLIC_DEFAULTS = frozenset(
    value for secret in SECRETS for value in secret.public if value not in ("admin", "elastic", "password")
)

# Nobody's secret: hiding one would only blank other words, as dify-sandbox would the name of an image.
PUBLISHED = frozenset(value for secret in SECRETS for value in secret.public)

# Passwords that the image or an init script of the release sets by itself: a value in .env cannot change them.
_FIXED = {
    "iris": "IRIS_PASSWORD",
    "matrixone": "MATRIXONE_PASSWORD",
    "milvus": "MILVUS_PASSWORD",
    "oracle": "ORACLE_PASSWORD",
}

# What follows from DB_TYPE where the database is one of the release's own services.
_DB_TYPES = {
    "mysql": {"DB_HOST": "db_mysql", "DB_PORT": "3306", "DB_USERNAME": "root"},
    "oceanbase": {"DB_HOST": "oceanbase", "DB_PORT": "2881"},
    "seekdb": {"DB_HOST": "seekdb", "DB_PORT": "2881"},
}
# Names that the database service had in some release: as an override they are left-overs, not addresses.
DATABASE_SERVICES = ("db", "db_postgres")

_GUIDE_KEYS = {"CUSTOM_MODEL_ENABLED": "true", "OLLAMA_API_BASE_URL": "host.docker.internal:11434"}

_KEY = re.compile(r"[A-Z_][A-Z0-9_]*")
_LINE = re.compile(r"^\s*([A-Za-z_][A-Za-z0-9_.]*)\s*=(.*)$")
_COMMENTED = re.compile(r"^\s*#\s*([A-Z_][A-Z0-9_]*)=")
_DEFAULT = re.compile(r"(?<!\$)\$\{([A-Za-z_][A-Za-z0-9_]*):-([^${}]*)\}")
_BARE = re.compile(r"[A-Za-z0-9_./:@%+,=~*{}()?&;<>!^|\[\]-]*")
_SENSITIVE = re.compile(
    r"(PASSWORD|PASSWD|PWD|SECRET|TOKEN|API_?KEY|ACCESS_KEY|_KEYS?|KEY_ID|CREDENTIALS|_DSN|CONNECTION_STRING|_PEPPER)$"
    r"|SECRET_|_CERT_DATA$|_KEY_DATA$|_JSON_BASE64$|ALLOWED_KEYS$"
)
_USERINFO = re.compile(r"://[^/\s@]*:[^/\s@]+@")
# The compose files put REDIS_PASSWORD unquoted into a command line and into a shell.
_REDIS_SAFE = re.compile(r"[A-Za-z0-9_.~!*+,:=@%^/-]+")
_URL = re.compile(r"https?://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


class Release(NamedTuple):
    """What a release says about its own settings."""

    compose_text: str
    compose: Mapping[str, Any]
    template: str  # .env.example
    examples: Mapping[str, str]  # path below the release, such as envs/vectorstores/qdrant.env.example: text


class Rendered(NamedTuple):
    text: str
    env: dict[str, str]
    secrets: dict[str, str]  # all that are kept: the old ones, the new ones, those that the operator set
    profiles: list[str]
    replaced_defaults: list[str]
    unknown_keys: list[str]
    warnings: list[str]
    daemon_env: dict[str, str]  # for the plugin daemon: what the release's own files do not hand to it


def check_overrides(given: Mapping[Any, Any]) -> dict[str, str]:
    """The operator's keys as text.

    Raises:
        EnvError: a key or value that no .env can hold.
    """
    found = {}
    for key, value in given.items():
        if not _KEY.fullmatch(str(key)):
            raise EnvError(
                f"{key!r} is no name for a key of .env: capital letters, digits and _ only. Correct it in dify_env."
            )
        if key == ADMIN.name:
            raise EnvError(
                f"{key} is no key of Dify, and .env is no place for it. Set dify_admin_password, and remove it from "
                "dify_env."
            )
        if isinstance(value, (dict, list, tuple)):
            raise EnvError(
                f"{key} is a {type(value).__name__}; a value of .env is a single text. Correct it in dify_env."
            )
        text = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        if re.search("[\n\r\0]", text):
            raise EnvError(
                f"{key} holds a line break or a NUL, which no .env can carry. Give it on one line in dify_env."
            )
        found[str(key)] = text
    return found


def quote(value: str) -> str:
    """The value as it must stand in .env, so that compose and python-dotenv read exactly this value.

    Single quotes where they do, because nothing is expanded in them. One thing has no form that both understand:
    python-dotenv expands C(${NAME}) wherever it stands; compose reads it as it is.
    """
    if _BARE.fullmatch(value):
        return value
    broken_by_single = value.endswith("\\") or "\\'" in value
    if not broken_by_single and ("'" not in value or "$" in value):
        return "'" + value.replace("'", "\\'") + "'"
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$") + '"'


def parse_env(text: str) -> dict[str, str]:
    """What a .env says, without expanding variables."""
    found = {}
    for line in text.split("\n"):
        match = _LINE.match(line)
        if match:
            found[match.group(1)] = _unquote(match.group(2))
    return found


def _unquote(raw: str) -> str:
    raw = raw.strip()
    if raw[:1] == "'":
        match = re.match(r"'((?:\\'|[^'])*)'", raw)
        return match.group(1).replace("\\'", "'") if match else raw
    if raw[:1] == '"':
        match = re.match(r'"((?:\\.|[^"\\])*)"', raw)
        return re.sub(r"\\(.)", r"\1", match.group(1)) if match else raw
    return raw.split(" #", 1)[0].rstrip()


def generate(length: int, marks: str = "_-") -> str:
    """A secret of letters, digits, _ and - that passes every rule for passwords known to these services.

    It begins with a letter, so that no program takes it for an option.
    """
    kinds = [kind for kind in (string.ascii_lowercase, string.ascii_uppercase, string.digits, marks) if kind]
    while True:
        value = "".join(_random.choice("".join(kinds)) for _place in range(length))
        if value[0].isalpha() and all(set(value).intersection(kind) for kind in kinds):
            return value


def _generate(secret: Secret) -> str:
    if secret.name == ADMIN.name:
        # Somebody types it.
        return generate(secret.length, "")
    if secret.name != "DIFY_AGENT_SERVER_SECRET_KEY":
        return generate(secret.length)
    while True:
        value = _random.token_urlsafe(32)
        if value[0].isalpha():
            return value


def is_sensitive(key: str, value: str = "") -> bool:
    """Whether the value of this key must not be shown."""
    return bool(_SENSITIVE.search(key) or key in _MEMBER or _USERINFO.search(value))


def sensitive_values(values: Mapping[str, str]) -> set[str]:
    """Values that must not be shown. Anything shorter than six characters would blank half of any text."""
    return {value for key, value in values.items() if is_sensitive(key, value) and len(value) >= 6}


def known_keys(release: Release) -> set[str]:
    """Every key that some file of the release mentions, commented examples included."""
    found = variables(release.compose_text)
    for text in (release.template, *release.examples.values()):
        found.update(parse_env(text))
        found.update(match.group(1) for match in map(_COMMENTED.match, text.split("\n")) if match)
    return found


def render(
    release: Release,
    overrides: Mapping[str, str],
    secrets: Mapping[str, str],
    settings: Mapping[str, Any],
    url: str = "",
    make: Callable[[Secret], str] = _generate,
) -> Rendered:
    """Everything at once; see the module C(dify_env) for the meaning of the settings.

    Raises:
        EnvError: the overrides contradict each other or hold what Dify cannot take.
    """
    return _Renderer(release, overrides, secrets, settings, url, make).result()


class _Renderer:
    def __init__(
        self,
        release: Release,
        overrides: Mapping[str, str],
        secrets: Mapping[str, str],
        settings: Mapping[str, Any],
        url: str,
        make: Callable[[Secret], str],
    ) -> None:
        self.release = release
        self.overrides = dict(overrides)
        self.secrets = dict(secrets)
        self.settings = settings
        self.url = url.rstrip("/")
        self.make = make
        self.template = parse_env(release.template)
        self.warnings: list[str] = []
        self.replaced: set[str] = set()
        self.sources: dict[str, str] = {}  # keys that are not in the template: where their line comes from
        self.env = dict(self.template)
        self.daemon_env: dict[str, str] = {}
        self.profiles: list[str] = []
        # Keys that reach a container, or its definition, through the compose file or the override.
        services = active_services(release.compose, self._wanted_profiles())
        self.interpolated = variables(repr([release.compose["services"][name] for name in services]))
        self.interpolated |= variables(repr([LITERALS[name] for name in services if name in LITERALS]))

    def result(self) -> Rendered:
        self._take_examples()
        self._size()
        self._publish()
        if self.settings.get("own_migration"):
            self._set("MIGRATION_ENABLED", "false")
        self._addresses()
        self._database()
        self._plugins()
        self._secrets()
        self._admin()
        self.env.update(self._plain_overrides())
        self._redis()
        self._profiles()
        self._fixed_passwords()
        self._local_ports()
        for key, value in _GUIDE_KEYS.items():
            self.env.setdefault(key, value)
        known = known_keys(self.release)
        known |= set(self.daemon_env).union(_GUIDE_KEYS)
        unknown = sorted(key for key in self.overrides if key not in known)
        return Rendered(
            text=self._text(unknown),
            env=self.env,
            secrets=self.secrets,
            profiles=self.profiles,
            replaced_defaults=sorted(self.replaced),
            unknown_keys=unknown,
            warnings=self.warnings,
            daemon_env=self.daemon_env,
        )

    def _set(self, key: str, value: str) -> None:
        """A value of ours, for a key that the release has, unless the operator gave one."""
        if key not in self.overrides and (key in self.env or key in self.interpolated):
            self.env[key] = value

    def _wish(self, key: str, default: str = "") -> str:
        return self.overrides.get(key, self.env.get(key, default))

    def _take_examples(self) -> None:
        """Settings of the chosen vector store and database that the short template leaves to the files below envs/."""
        store = re.sub("-ja$", "", self._wish("VECTOR_STORE", "weaviate"))
        files = [f"envs/vectorstores/{store}.env.example"]
        files.append(f"envs/databases/db-{self._wish('DB_TYPE', 'postgresql')}.env.example")
        # Some keys of a store stand among the shared ones; seekdb is addressed through those of OceanBase.
        prefix = {"seekdb": "OCEANBASE"}.get(store, store.upper().replace("-", "_")) + "_"
        for path, text in self.release.examples.items():
            for key, value in parse_env(text).items():
                if key not in self.env and (path in files or key.startswith(prefix)):
                    self.env[key] = value
                    self.sources[key] = path

    def _size(self) -> None:
        """The stock API serves ten requests at a time: twelve chats to a model that hangs stop even /health."""
        cpus = int(self.settings.get("cpus") or 2)
        memory_mb = int(self.settings.get("memory_mb") or 4096)
        # A kernel reports some percent less than the machine has.
        gib = round(memory_mb / 1024 + 0.3)
        workers = int(self.settings.get("api_workers") or 0) or max(1, min(cpus // 2, gib // 4, 8))
        connections = int(self.settings.get("api_connections") or 0) or (100 if gib < 8 else 200 if gib < 16 else 400)
        celery = int(self.settings.get("celery_workers") or 0) or max(4, min(2 * cpus, 16))
        self._set("SERVER_WORKER_AMOUNT", str(workers))
        self._set("SERVER_WORKER_CONNECTIONS", str(connections))
        self._set("CELERY_WORKER_AMOUNT", str(celery))
        # Each API process may hold 40 connections to the database, and so may the worker and the plugin daemon.
        stock = self.env.get("POSTGRES_MAX_CONNECTIONS", "")
        if stock.isdigit() and int(stock) < 100 * workers:
            self._set("POSTGRES_MAX_CONNECTIONS", str(100 * workers))

    def _publish(self) -> None:
        address = str(self.settings.get("bind_address") or "")
        prefix = f"[{address}]:" if ":" in address else f"{address}:" if address else ""
        for key, name in (("EXPOSE_NGINX_PORT", "http_port"), ("EXPOSE_NGINX_SSL_PORT", "https_port")):
            port = self.settings.get(name)
            if port == 0:
                # No number after the address: Docker takes a free port, and nobody outside reaches it.
                self._set(key, "127.0.0.1:")
            elif port or prefix:
                self._set(key, f"{prefix}{port or self.env.get(key)}")
        if self.settings.get("plugin_daemon_port"):
            self._set("EXPOSE_PLUGIN_DAEMON_PORT", str(self.settings["plugin_daemon_port"]))
        # 1.0.0 publishes PostgreSQL; no number, because a host may well have one of its own.
        self._set("EXPOSE_DB_PORT", "127.0.0.1:")
        wanted = self._wish("EXPOSE_PLUGIN_DAEMON_PORT", "5002")
        if not wanted.isdigit() or not 0 < int(wanted) < 65536:
            raise EnvError(
                "EXPOSE_PLUGIN_DAEMON_PORT must be a port number; the daemon is published on 127.0.0.1 only."
            )

    def _addresses(self) -> None:
        """The browser finds console and API under the address it came from, so their two URLs stay empty.

        Absolute addresses are needed where something leaves that browser: links in mails, files that a model or plugin
        fetches, the address that the console shows for API calls, webhooks, and the collaboration socket.
        """
        self._set("INTERNAL_FILES_URL", "http://api:5001")
        if not self.url:
            return
        if not _URL.fullmatch(self.url):
            raise EnvError(
                "url must be http:// or https:// with a host name and at most a port, such as "
                "https://dify.example.com: Dify cannot live under a path."
            )
        for key in ("CONSOLE_WEB_URL", "SERVICE_API_URL", "APP_WEB_URL", "FILES_URL", "TRIGGER_URL"):
            self._set(key, self.url)
        self._set("ENDPOINT_URL_TEMPLATE", f"{self.url}/e/{{hook_id}}")
        self._set("NEXT_PUBLIC_SOCKET_URL", re.sub("^http", "ws", self.url))

    def _database(self) -> None:
        """DB_HOST names a service, and the service changed its name: it is rendered, never carried over."""
        services = self.release.compose.get("services") or {}
        if "DB_TYPE" in self.template:
            for key, value in _DB_TYPES.get(self._wish("DB_TYPE"), {}).items():
                self._set(key, value)
        wanted = self.overrides.get("DB_HOST", "")
        if wanted in DATABASE_SERVICES and wanted not in services and self.env.get("DB_HOST") in services:
            del self.overrides["DB_HOST"]
            self.warnings.append(
                f"dify_env sets DB_HOST={wanted}, the database service of another Dify release; this one calls it "
                f"{self.env['DB_HOST']}, which was written. Remove DB_HOST from dify_env."
            )

    def _plugins(self) -> None:
        """Keys of the release go into .env; what its compose file does not hand to the daemon, the override does."""
        daemon = (self.release.compose.get("services") or {}).get("plugin_daemon")
        if not daemon:
            return
        try:
            wanted = plugins.environment(self.settings, self.overrides)
        except plugins.PluginSettingsError as exc:
            raise EnvError(str(exc)) from exc
        for key, value in wanted.items():
            if key in self.env or key in self.interpolated:
                self._set(key, value)
            else:
                self.daemon_env[key] = value.replace("$", "$$")
        # Also the operator's, who may know better: without this they would be in .env and nowhere else.
        for key in plugins.DAEMON_KEYS.intersection(self.overrides):
            if key not in self.template and key not in self.interpolated:
                self.daemon_env[key] = f"${{{key}}}"
        self._package_size()
        if self.settings.get("plugin_public_keys") and re.search(r":0\.0\.[0-6](-|$)", str(daemon.get("image"))):
            self.warnings.append(
                "plugin_public_keys have no effect in this release, whose plugin daemon knows Dify's own key only. "
                "With dify_plugin_signatures: false it takes packages of others, unchecked."
            )

    def _package_size(self) -> None:
        megabytes = int(self.settings.get("plugin_max_mb") or 0)
        key = "NGINX_CLIENT_MAX_BODY_SIZE"
        if not megabytes or key not in self.env:
            return
        current = self._wish(key)
        needed = plugins.body_size(current, megabytes)
        if needed != current and key in self.overrides:
            self.warnings.append(
                f"{key} is {current} in dify_env, so nginx refuses plugin packages of the {megabytes} MB that are "
                f"allowed. Set it to {needed}, or remove it."
            )
        self._set(key, needed)

    def _admin(self) -> None:
        given = str(self.settings.get("admin_password") or "")
        if given and not is_password(given):
            raise EnvError(
                f"admin_password must have {PASSWORD_RULE}: Dify takes no other. Correct dify_admin_password."
            )
        # One that is kept may be the only copy of what opens Dify: dify_setup replaces it by one that does, too.
        if not self.secrets.get(ADMIN.name):
            self.secrets[ADMIN.name] = self.secrets[UNTRIED] = given or self.make(ADMIN)

    def _secrets(self) -> None:
        self._secret_groups()
        # Groups that the table does not have: a key of a later release with a value that everybody knows.
        defaults = dict(_DEFAULT.findall(self.release.compose_text))
        for key in sorted(set(self.env) | self.interpolated.intersection(defaults)):
            value = self.env.get(key, defaults.get(key, ""))
            if value in PUBLIC_DEFAULTS and key not in _MEMBER and key not in self.overrides:
                self._secret(Secret(key, (key,), (value,)), [key])

    def _secret_groups(self) -> None:
        for secret in SECRETS:
            keys = [key for key in secret.keys if key in self.env or key in self.interpolated]
            if keys:
                self._secret(secret, keys)

    def _secret(self, secret: Secret, keys: list[str]) -> None:
        value = self._agreed(secret)
        given = value is not None
        if value is None:
            value = self.secrets.get(secret.name) or self.make(secret)
        if value in secret.public:
            where = "dify_env sets" if given else "secrets.json has for"
            self.warnings.append(f"{where} {secret.name} the default that Dify publishes; everybody knows it.")
        if value:
            self.secrets[secret.name] = value
        for key in keys:
            old = self.env.get(key, "")
            if old in secret.public and old != value:
                self.replaced.add(key)
            self.env[key] = value

    def _agreed(self, secret: Secret) -> str | None:
        """The operator's value for all keys of the secret, None without one."""
        given = {key: self.overrides[key] for key in secret.keys if key in self.overrides}
        if not given:
            return None
        for key, value in given.items():
            if key == "INIT_PASSWORD":
                if len(value) > 30:
                    raise EnvError(
                        "INIT_PASSWORD may have 30 characters at most; Dify refuses a longer one at its setup."
                    )
            elif not value:
                raise EnvError(
                    f"{key} is empty in dify_env: Dify would fall back to a password that everybody knows. "
                    "Set one, or remove the key to have one generated."
                )
        # Weaviate takes a list of keys; Dify uses one of them.
        first, *others = given.values()
        allowed = given.get("WEAVIATE_AUTHENTICATION_APIKEY_ALLOWED_KEYS")
        if allowed is not None:
            chosen = given.get("WEAVIATE_API_KEY", allowed.split(",")[0].strip())
            agree = chosen in [one.strip() for one in allowed.split(",")]
        else:
            chosen, agree = first, all(other == first for other in others)
        if not agree:
            raise EnvError(f"{' and '.join(given)} must hold the same value, and dify_env gives two. Keep one of them.")
        return chosen

    def _plain_overrides(self) -> dict[str, str]:
        return {key: value for key, value in self.overrides.items() if key != "COMPOSE_PROFILES"}

    def _redis(self) -> None:
        """URLs that hold the Redis password follow it; the ones that are empty are derived by Dify itself."""
        password = self.env.get("REDIS_PASSWORD", "")
        if not _REDIS_SAFE.fullmatch(password):
            raise EnvError(
                "REDIS_PASSWORD may hold letters, digits and _.~!*+,:=@%^/- only: Dify's compose file puts it unquoted "
                "into a command line. Choose another in dify_env, or remove it to have one generated."
            )
        user = _percent(self.env.get("REDIS_USERNAME", ""), safe="")
        login = f"{user}:{_percent(password, safe='')}"
        host, port = self.env.get("REDIS_HOST") or "redis", self.env.get("REDIS_PORT") or "6379"
        scheme = "rediss" if self.env.get("REDIS_USE_SSL", "").lower() == "true" else "redis"
        if "CELERY_BROKER_URL" not in self.overrides:
            self.env["CELERY_BROKER_URL"] = f"{scheme}://{login}@{host}:{port}/1"
            self.replaced.add("CELERY_BROKER_URL")
        else:
            broker = urlsplit(self.env["CELERY_BROKER_URL"])
            given, _at, address = broker.netloc.rpartition("@")
            if broker.hostname == host and given != login:
                self.env["CELERY_BROKER_URL"] = broker._replace(netloc=f"{login}@{address}").geturl()
                self.warnings.append("The login in CELERY_BROKER_URL did not match REDIS_PASSWORD; it was made to.")
        agent = "DIFY_AGENT_REDIS_URL"
        # What the compose file derives from an empty value is right for the bundled Redis and a plain password only.
        if not self.env.get(agent) and f"{scheme}://{login}@{host}:{port}" != f"redis://:{password}@redis:6379":
            self._set(agent, f"{scheme}://{login}@{host}:{port}/2")

    def _wanted_profiles(self) -> list[str]:
        env = {**self.env, **self.overrides}
        text = self.overrides.get("COMPOSE_PROFILES") or self.template.get("COMPOSE_PROFILES", "")
        text = re.sub(r"\$\{(\w+)(?::?-([^}]*))?\}", lambda found: env.get(found[1]) or found[2] or "", text)
        return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))

    def _profiles(self) -> None:
        """Rendered, never carried over: an old list lacks the database of a release that puts it into a profile."""
        services = self.release.compose.get("services") or {}
        profiles = self._wanted_profiles()
        host = self.env.get("DB_HOST", "")
        needed = [str(one) for one in (services.get(host) or {}).get("profiles") or []]
        if needed and not set(needed).intersection(profiles):
            profiles.append(needed[0])
            self.warnings.append(
                f"COMPOSE_PROFILES in dify_env lacks {needed[0]}, without which the database {host} would not start; "
                "it was added."
            )
        if host not in services and "COMPOSE_PROFILES" not in self.overrides:
            # The database is elsewhere; an empty one beside it would only confuse.
            idle = {
                str(one)
                for name in ("db_postgres", "db_mysql")
                for one in (services.get(name) or {}).get("profiles") or []
            }
            profiles = [name for name in profiles if name not in idle]
        self.profiles = profiles
        self.env["COMPOSE_PROFILES"] = ",".join(profiles)

    def _local_ports(self) -> None:
        """Debug port, databases and vector stores of a release listen on all addresses of the host by themselves."""
        services = active_services(self.release.compose, self.profiles)
        for key, port in local_ports(self.release.compose, services).items():
            value = self.env.get(key) or port
            if ":" not in value:
                self._set(key, f"127.0.0.1:{value}")
        for name, ports in open_ports(self.release.compose, services, self.env).items():
            self.warnings.append(
                f"{name} listens on all addresses of the host, port {' and '.join(ports)}: close it in the firewall, "
                "in the chain DOCKER-USER, because Docker publishes past the usual rules."
            )

    def _fixed_passwords(self) -> None:
        key = _FIXED.get(self.env.get("VECTOR_STORE", ""))
        if key and self.env.get(key) and key not in self.overrides:
            self.warnings.append(
                f"{key} is a public default that this vector store sets by itself at its first start; it was left "
                f"alone. Change it in the store, then set {key} in dify_env."
            )

    def _text(self, unknown: list[str]) -> str:
        lines = [
            "# Written by llmops.stack from this release's .env.example: changes made here are lost.",
            "# Set keys in dify_env of the inventory instead.",
            "",
        ]
        for line in self.release.template.rstrip("\n").split("\n"):
            match = _LINE.match(line)
            if match and self.env[match.group(1)] != _unquote(match.group(2)):
                line = f"{match.group(1)}={quote(self.env[match.group(1)])}"
            lines.append(line)
        added = [key for key in self.env if key not in self.template]
        notes: dict[str, list[str]] = {}
        for key in sorted(added):
            notes.setdefault(self._note(key, unknown), []).append(key)
        lines += ["", "# " + "-" * 66, "# Added by llmops.stack", "# " + "-" * 66]
        for note in sorted(notes):
            lines += ["", f"# {note}"]
            lines += [f"{key}={quote(self.env[key])}" for key in notes[note]]
        return "\n".join(lines) + "\n"

    def _note(self, key: str, unknown: list[str]) -> str:
        if key in _GUIDE_KEYS:
            return (
                "Many guides ask for these two. No Dify release reads them; a model is registered through Dify's API."
            )
        if key in unknown:
            successor = RENAMED_KEYS.get(key)
            if successor and successor in self.env:
                return f"Of another Dify release: this one reads {successor} instead."
            return "No file of this release mentions these keys: a typing error, or of another release?"
        if key in self.sources:
            return f"From {self.sources[key]}."
        for path, text in self.release.examples.items():
            if re.search(rf"(?m)^#?\s*{key}=", text):
                return f"Known from {path}."
        return "Read by docker-compose.yaml or its override."


def mask_env(before: str, after: str, values: set[str]) -> tuple[str, str]:
    """Both texts for a diff: secrets hidden, and a changed one told apart from an unchanged one.

    Args:
        values: what must not be shown wherever it stands, besides the values under keys that hold secrets.
    """
    old, new = parse_env(before), parse_env(after)
    hidden = {value for env in (old, new) for key, value in env.items() if key in _MEMBER and len(value) > 8} | values

    def show(text: str, env: Mapping[str, str], other: Mapping[str, str]) -> str:
        lines = []
        for line in text.rstrip("\n").split("\n"):
            match, commented = _LINE.match(line), _COMMENTED.match(line)
            if match and env[match[1]] and is_sensitive(match[1], env[match[1]]):
                changed = match[1] in other and other[match[1]] != env[match[1]]
                line = f"{match[1]}=(hidden{', changed' if changed else ''})"
            elif commented and is_sensitive(commented[1]) and line.split("=", 1)[1]:
                line = f"# {commented[1]}=(hidden)"
            lines.append(_hide(line, hidden))
        return "".join(f"{line}\n" for line in lines)

    return show(before, old, {}), show(after, new, old)


def mask_text(text: str, values: set[str]) -> str:
    """YAML for a diff: these values, and whatever stands under a key that holds secrets, hidden."""
    lines = []
    for line in text.rstrip("\n").split("\n"):
        match = re.match(r"^(\s*(?:- )?['\"]?)([A-Za-z0-9_.]+)(['\"]?\s*[:=]\s*)(.+)$", line)
        if match and is_sensitive(match[2].upper(), match[4]) and not re.match(r"^['\"]?\$\{\w+\}['\"]?$", match[4]):
            line = f"{match[1]}{match[2]}{match[3]}(hidden)"
        lines.append(_hide(line, values))
    return "".join(f"{line}\n" for line in lines)


def _hide(line: str, values: set[str]) -> str:
    for value in values:
        if value in line:
            line = line.replace(value, "(hidden)")
    return line
