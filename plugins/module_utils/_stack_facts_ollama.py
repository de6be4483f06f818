# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module util is PRIVATE to the collection; it may change without notice.

"""Ollama on a host: what is installed, what the files say, what runs, and whether the three agree."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import socket
import time
import typing as t

from ansible_collections.llmops.stack.plugins.module_utils import _ollama_layout, _stack_facts_store
from ansible_collections.llmops.stack.plugins.module_utils import _ollama_systemd as systemd
from ansible_collections.llmops.stack.plugins.module_utils._guard import let_in, places
from ansible_collections.llmops.stack.plugins.module_utils._stack_facts_host import Host
from ansible_collections.llmops.stack.plugins.module_utils._stack_facts_ports import listeners

UNITS = ("ollama.service", "ollama-firewall.service", "ollama-metrics.service", "firewalld.service")
PROPERTIES = ("Id", "ActiveState", "UnitFileState", "MainPID", "NeedDaemonReload")
UNIT_DIRS = ("etc/systemd/system", "run/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system",
             "lib/systemd/system")  # fmt: skip
UNIT = "/etc/systemd/system/ollama.service"
HOME = "/etc/ollama"
PLACES = places("ollama", HOME)
METRICS_UNIT = "/etc/systemd/system/ollama-metrics.service"
METRICS_PROGRAM = "ollama-metrics.py"  # below the home
SECRETS = f"{HOME}/secrets.env"
# What a run of the role notes before it changes the server, for as long as it may have to be taken back.
WAY_BACK = f"{HOME}/way-back.json"
DROPIN = "10-llmops.conf"
VITAL = ("OLLAMA_HOST", "OLLAMA_MODELS")
TABLE = ("inet", "llmops_ollama")
PROJECT = "llmops-ollama"
STAMP = "llmops.stamp"
OURS = re.compile(rb"# llmops\.stack ([0-9a-f]{64})\n")
# What a server is told by its environment; the rest of it is systemd's.
TOLD = re.compile(
    r"OLLAMA_|LLAMA_|GGML_|HSA_|CUDA_|HIP_|ROCR_|NVIDIA_|GPU_DEVICE_ORDINAL$|JETSON_|HOME$|(?:HTTPS?|NO)_PROXY$",
    re.IGNORECASE,
)
# Of these, systemd itself sets none, so one that runs and is in no file was taken out of it.
TAKEN_OUT = re.compile(r"OLLAMA_|(?:CUDA|HIP|ROCR)_VISIBLE_DEVICES$")
SPECIFIER = re.compile(r"%[A-Za-z]")

Units = dict[str, dict[str, str]]


def ask_version(address: str, port: int, seconds: float) -> str:
    """What /api/version says, empty where nothing says anything in time."""
    until = time.monotonic() + seconds
    answer = b""
    try:
        with socket.create_connection((address, port), timeout=seconds) as link:
            link.sendall(f"GET /api/version HTTP/1.0\r\nHost: localhost:{port}\r\n\r\n".encode())
            while len(answer) < 8192:
                link.settimeout(max(0.001, until - time.monotonic()))
                part = link.recv(4096)
                if not part:
                    break
                answer += part
        head, _separator, body = answer.partition(b"\r\n\r\n")
        said = json.loads(body) if b" 200 " in head.split(b"\r\n")[0] else {}
        return str(said.get("version", "")) if isinstance(said, dict) else ""
    except (OSError, ValueError):
        return ""


def rules_loaded(host: Host, table: tuple[str, str], signs: tuple[str, str]) -> str:
    """The marker in an nftables table of ours: the name of an empty chain ends in the digest of the rules.

    Args:
        signs: paths of which one is there where the table may be.
    """
    nft = host.which("nft")
    if not nft or not any(map(host.exists, signs)):
        return ""
    text = host.run([nft, "list", "table", *table], timeout=host.deadline)[1]
    found = re.search(r"chain rules_([0-9a-f]{12})\b", text)
    return found.group(1) if found else ""


class OllamaFacts:
    def __init__(self, host: Host, home: str, models_dir: str, port: int, user: str) -> None:
        self.host = host
        self.home = home.rstrip("/")
        self.models_dir = models_dir
        self.port = port
        self.user = host.user(user)

    # -- what has to be waited for; each runs beside the others ----------------

    def version(self) -> str:
        path = self.host.which("ollama")
        if not path:
            return ""
        known = self._release_of(path)
        if known:
            return known
        lines = self.host.run([path, "--version"], timeout=self.host.deadline)[1].splitlines()
        # Beside a server of another version it names the server's first, then warns of its own.
        lines.sort(key=lambda line: "client version" not in line)
        found = [re.search(r"\d+\.\d+\.\d+(?:-rc\d+)?", line) for line in lines]
        return next((number.group(0) for number in found if number), "")

    def _release_of(self, path: str) -> str:
        """The release of ours that a program is from; a program that is not started is one that does not wait."""
        current = _ollama_layout.current(self.host.at(self.home))
        if self.host.link(path) != f"{self.home}/{_ollama_layout.CURRENT}/bin/ollama" or not current:
            return ""
        return current if _ollama_layout.is_complete(self.host.at(f"{self.home}/{current}"), current) else ""

    def server(self) -> str:
        """Every address with a listener is this host's own, so the question never leaves it."""
        listening = [address for address, _inode in listeners(self.host).get(self.port, [])]
        everywhere = {"127.0.0.1", "0.0.0.0", "::"} & set(listening)  # noqa: S104 - looked for, not bound
        if not listening:
            return ""
        address = "127.0.0.1" if everywhere else min(listening)
        return ask_version(address, self.port, min(1.0, self.host.deadline))

    def table(self) -> str:
        return rules_loaded(self.host, TABLE, (HOME, PLACES.unit))

    # -- all of it -------------------------------------------------------------

    def describe(
        self, version: str, server: str, table: str, units: Units, containers: list[dict[str, t.Any]]
    ) -> dict[str, t.Any]:
        service, guard = units.get("ollama.service", {}), units.get("ollama-firewall.service", {})
        figures = units.get("ollama-metrics.service", {})
        ours = (
            UNIT, f"{UNIT}.d/{DROPIN}", SECRETS, *PLACES, f"{self.home}/compose.yaml",
            METRICS_UNIT, f"{self.home}/{METRICS_PROGRAM}",
        )  # fmt: skip
        active = service.get("ActiveState") == "active"
        pid = int(service.get("MainPID") or 0) if active else 0
        running = self._running_env(pid)
        container = self._container(containers)
        return {
            "home": self.home,
            "installed": bool(self._unit_path() or container["name"]),
            "version": version,
            "server": server,
            "active": active,
            "enabled": service.get("UnitFileState", "").startswith("enabled"),
            "pid": pid,
            "current": _ollama_layout.current(self.host.at(self.home)),
            "link": self.host.link("usr/local/bin/ollama"),
            "releases": _ollama_layout.releases(self.host.at(self.home)),
            "unit": self._unit(service, running),
            "way_back": self._way_back(),
            "files": {path: {"sha256": self.host.sha256(path)} for path in ours},
            "dropins": [os.path.basename(path) for path in self._dropins() if os.path.basename(path) != DROPIN],
            "running_env": systemd.masked({key: value for key, value in running.items() if TOLD.match(key)}),
            "user": self.user,
            "models_dir": self._models_dir(),
            "store": _stack_facts_store.look(self.host.at(self.models_dir), self._manifests(self.models_dir)),
            "zstd": bool(self.host.which("zstd")),
            "nft": bool(self.host.which("nft")),
            "firewall": {
                "firewalld": units.get("firewalld.service", {}).get("ActiveState") == "active",
                "ufw": self._ufw(),
                "table": table,
                "enabled": guard.get("UnitFileState", "").startswith("enabled"),
                "let_in": let_in(self.host.read(PLACES.rules)),
            },
            "metrics": {
                "active": figures.get("ActiveState") == "active",
                "enabled": figures.get("UnitFileState", "").startswith("enabled"),
            },
            "container": container,
        }

    # -- the unit --------------------------------------------------------------

    def _unit_path(self) -> str:
        paths = [f"/{directory}/ollama.service" for directory in UNIT_DIRS]
        return next((path for path in paths if os.path.lexists(self.host.at(path))), "")

    def _dropins(self) -> list[str]:
        """In the order in which systemd reads them: by name, and one name only from the first folder that has it."""
        found: dict[str, str] = {}
        for directory in UNIT_DIRS:
            for name in self.host.names(f"{directory}/ollama.service.d"):
                if name.endswith(".conf"):
                    found.setdefault(name, f"/{directory}/ollama.service.d/{name}")
        return [found[name] for name in sorted(found)]

    def _unit(self, service: dict[str, str], running: dict[str, str]) -> dict[str, t.Any]:
        path = self._unit_path()
        content = self.host.read_bytes(path) if path else b""
        mark = OURS.match(content)
        body = hashlib.sha256(content.partition(b"\n")[2]).hexdigest()
        texts = [self.host.read(path) if path else "", *map(self.host.read, self._dropins())]
        env = self._environment(texts)
        overrides, where = self._overrides()
        store = env.get("OLLAMA_MODELS", "") or self._default_store(texts, env)
        return {
            "exists": bool(path),
            "path": path,
            "masked": bool(path) and self.host.link(path) == "/dev/null",
            "ours": bool(mark),
            "edited": mark is not None and mark.group(1).decode() != body,
            "environment": systemd.masked(env),
            "overrides": systemd.masked(overrides),
            "overridden_in": where,
            "models_dir": store if path else "",
            "has_models": bool(path and store) and self._has_models(store),
            "pending": self._pending(env, running) if running else [],
            "reload": service.get("NeedDaemonReload") == "yes",
            "guarded": any(TABLE[1] in line for line in _all(texts, "ExecStartPre")),
            "writable": self._writable(texts),
        }

    def _writable(self, texts: list[str]) -> list[str]:
        """Below which folders the service may write; with looser protection that is everywhere, as far as is told."""
        if _last(texts, "ProtectSystem") != "strict":
            return ["/"]
        return [path.lstrip("-+") for value in _all(texts, "ReadWritePaths") for path in value.split()]

    def _way_back(self) -> dict[str, t.Any]:
        try:
            noted = json.loads(self.host.read(WAY_BACK))
        except ValueError:
            return {}
        return noted if isinstance(noted, dict) and {"version", "current", "url", "files"} <= noted.keys() else {}

    def _overrides(self) -> tuple[dict[str, str], dict[str, str]]:
        """What wins over our settings, and the file that each is from: drop-ins that sort after ours, and whatever is
        read from an EnvironmentFile=, wherever that is named."""
        found: dict[str, str] = {}
        where: dict[str, str] = {}

        def add(said: dict[str, str], path: str) -> None:
            found.update(said)
            where.update(dict.fromkeys(said, path))

        theirs = [path for path in self._dropins() if os.path.basename(path) != DROPIN]
        texts = {path: self.host.read(path) for path in theirs}
        for path in (path for path in theirs if os.path.basename(path) > DROPIN):
            if "" in systemd.values_of(texts[path], "Service", "Environment"):  # takes back all that was set before
                add(dict.fromkeys(VITAL, ""), path)
            add(systemd.parse_environment([texts[path]]), path)
        for text in texts.values():
            for value in systemd.values_of(text, "Service", "EnvironmentFile"):
                path = value.lstrip("-")
                add(systemd.parse_environment_file(self.host.read(path)) if path else {}, path)
        return found, where

    def _environment(self, texts: list[str]) -> dict[str, str]:
        env = systemd.parse_environment(texts)
        for text in texts:
            for value in systemd.values_of(text, "Service", "EnvironmentFile"):
                env.update(systemd.parse_environment_file(self.host.read(value.lstrip("-"))) if value else {})
        return env

    def _default_store(self, texts: list[str], env: dict[str, str]) -> str:
        user = _last(texts, "User")
        home = env.get("HOME") or (self.host.user(user)["home"] if user else "/root")
        return f"{home.rstrip('/')}/.ollama/models" if home else ""

    def _running_env(self, pid: int) -> dict[str, str]:
        pairs = self.host.read_bytes(f"proc/{pid}/environ").decode("utf-8", "replace").split("\0") if pid else []
        return dict(pair.split("=", 1) for pair in pairs if "=" in pair)

    def _pending(self, env: dict[str, str], running: dict[str, str]) -> list[str]:
        """Names that the files set otherwise than the server was started with, compared while secrets are whole."""
        changed = {key for key, value in env.items() if not SPECIFIER.search(value) and running.get(key) != value}
        return sorted(changed | {key for key in running if TAKEN_OUT.match(key) and key not in env})

    # -- the store -------------------------------------------------------------

    def _has_models(self, store: str) -> bool:
        return next(self._manifests(store), None) is not None

    def _manifests(self, store: str) -> t.Iterator[str]:
        return glob.iglob(f"{glob.escape(self.host.at(store))}/manifests/*/*/*/*")

    def _models_dir(self) -> dict[str, t.Any]:
        path = self.models_dir
        state: dict[str, t.Any] = {
            "path": path, "realpath": self.host.realpath(path), "exists": False, "owner": "", "group": "", "mode": ""
        }  # fmt: skip
        try:
            seen = os.stat(self.host.at(path))
        except OSError:
            pass
        else:
            state.update(
                exists=True,
                owner=self.host.name_of("etc/passwd", seen.st_uid),
                group=self.host.name_of("etc/group", seen.st_gid),
                mode=f"{seen.st_mode & 0o7777:04o}",
            )
        blocked = self.host.blocked_for(self.user, path)
        return {**state, "has_models": self._has_models(path), "blocked": blocked}

    # -- what is beside the service --------------------------------------------

    def _ufw(self) -> bool:
        """Its settings outlive the package."""
        enabled = re.search(r"(?im)^\s*ENABLED\s*=\s*yes", self.host.read("etc/ufw/ufw.conf"))
        return bool(enabled and self.host.which("ufw"))

    def _container(self, containers: list[dict[str, t.Any]]) -> dict[str, t.Any]:
        """The container of the role's own Compose project; one that runs before one that does not."""
        ours = [one for one in containers if self._is_ours(one.get("Labels") or {})]
        ours.sort(key=lambda one: one.get("State") != "running")
        first = ours[0] if ours else {}
        return {
            "name": (first.get("Names") or [""])[0].lstrip("/"),
            "running": first.get("State") == "running",
            "image": first.get("Image", ""),
            "stamp": (first.get("Labels") or {}).get(STAMP, ""),
        }

    def _is_ours(self, labels: dict[str, str]) -> bool:
        """Anybody may call a project so; only ours has its files in our home."""
        if labels.get("com.docker.compose.project") != PROJECT:
            return False
        said = [labels.get("com.docker.compose.project.working_dir", "")]
        said += labels.get("com.docker.compose.project.config_files", "").split(",")
        homes = [f"{home}/" for home in (self.home, self.host.realpath(self.home))]
        return any(f"{os.path.normpath(place)}/".startswith(home) for place in said if place for home in homes)


def _all(texts: list[str], key: str) -> list[str]:
    """All values of a list, of which an empty one takes back those before it."""
    found: list[str] = []
    for value in (value for text in texts for value in systemd.values_of(text, "Service", key)):
        found = [*found, value] if value else []
    return found


def _last(texts: list[str], key: str) -> str:
    return next((value for text in reversed(texts) for value in reversed(systemd.values_of(text, "Service", key))), "")
