# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module util is PRIVATE to the collection; it may change without notice.

"""One look at a host. Nothing in here may fail: what cannot be seen is reported as empty, with the reason beside it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import platform
import re
import socket
import time
import typing as t
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from urllib.parse import quote

from ansible_collections.llmops.stack.plugins.module_utils import _dify_layout, _openpgp
from ansible_collections.llmops.stack.plugins.module_utils import _stack_facts_gateway as gateway_facts
from ansible_collections.llmops.stack.plugins.module_utils import _stack_facts_ollama as ollama_facts
from ansible_collections.llmops.stack.plugins.module_utils._stack_facts_gpu import GpuFacts
from ansible_collections.llmops.stack.plugins.module_utils._stack_facts_host import Host, Runner, run_command
from ansible_collections.llmops.stack.plugins.module_utils._stack_facts_mirror import MirrorFacts
from ansible_collections.llmops.stack.plugins.module_utils._stack_facts_ports import ports as port_owners
from ansible_collections.llmops.stack.plugins.module_utils._urls import mask_urls

# Where the Docker CLI looks for plugins, in its order; the first hit is the one that runs.
PLUGIN_DIRS = (
    "root/.docker/cli-plugins",
    "usr/local/lib/docker/cli-plugins",
    "usr/local/libexec/docker/cli-plugins",
    "usr/lib/docker/cli-plugins",
    "usr/libexec/docker/cli-plugins",
)
PACKAGES = (
    "docker-ce", "docker-ce-cli", "containerd.io", "docker-buildx-plugin", "docker-compose-plugin",
    "docker.io", "docker-cli", "docker-compose", "docker-compose-v2", "docker-doc", "containerd", "runc",
    "moby-engine", "docker", "docker-client", "docker-common", "docker-latest", "docker-engine", "podman-docker",
    "nvidia-container-toolkit", "python3-apt", "python3-requests", "ca-certificates", "iptables", "apparmor",
    "nginx", "docker-registry", "apt-cacher-ng", "skopeo",
)  # fmt: skip
PENDING_FILE = "run/llmops.stack/docker-pending"
TREE_MARKER = ".llmops-tree"  # of the module file_tree
RESTORE_NOTE = ".llmops-restore.json"  # of the module dify_backup
BACKUP_TIMER = "/etc/systemd/system/dify-backup.timer"  # of the role dify
PENDING_NOTE = ".llmops-pending"  # of the module dify_env: its files are not what containers run with yet
UPGRADE_JOURNAL = ".llmops-upgrade.json"  # of the module dify_upgrade
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "armhf"}


def version_number(text: str) -> str:
    """The first dotted number in a program's answer: '2.26.1' from 'Docker Compose version v2.26.1-ds1'."""
    found = re.search(r"\d+\.\d+(?:\.\d+)?", text)
    return found.group(0) if found else ""


def parse_os_release(text: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for line in text.splitlines():
        key, separator, value = line.strip().partition("=")
        if separator and not key.startswith("#"):
            values[key] = value.strip().strip("'\"")
    return values


def describe_os(text: str, machine: str) -> dict[str, str]:
    """What a package manager needs to know; `base` is the distribution whose packages fit a derivative."""
    release = parse_os_release(text)
    own = release.get("ID", "").lower()
    line = [own, *release.get("ID_LIKE", "").lower().split()]
    base, family = own, own.capitalize()
    if "debian" in line or "ubuntu" in line:
        family = "Debian"
        base = "ubuntu" if "ubuntu" in line else "debian"
    elif {"rhel", "centos", "fedora"} & set(line):
        family = "RedHat"
        base = own if own in ("rhel", "fedora", "amzn") else "centos"
    version = release.get("VERSION_ID", "")
    codename = release.get("VERSION_CODENAME", "")
    if base != own:
        codename = release.get(f"{base.upper()}_CODENAME", codename)
    return {
        "family": family,
        "distribution": own,
        "base": base,
        "version": version,
        "major": version.split(".")[0],
        "codename": codename,
        "pretty": release.get("PRETTY_NAME", own),
        "arch": ARCHITECTURES.get(machine, machine),
        "machine": machine,
    }


def parse_meminfo(text: str) -> dict[str, int]:
    kilobytes = {name: int(amount) for name, amount in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}
    total = kilobytes.get("MemTotal", 0)
    return {"total_mb": total // 1024, "available_mb": kilobytes.get("MemAvailable", total) // 1024}


def parse_mounts(mountinfo: str) -> list[str]:
    """Mount points, the most specific first."""
    points = set()
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        if len(fields) > 4:
            points.add(re.sub(r"\\(\d{3})", lambda octal: chr(int(octal.group(1), 8)), fields[4]))
    return sorted(points, key=len, reverse=True)


def mount_of(path: str, mounts: list[str]) -> str:
    for point in mounts:
        if path == point or path.startswith(point.rstrip("/") + "/"):
            return point
    return "/"


def parse_daemon_json(text: str) -> dict[str, t.Any]:
    """Parsed daemon.json, or where and why it is not one."""
    state: dict[str, t.Any] = {"exists": True, "valid": False, "content": {}, "error": ""}
    if not text.strip():  # dockerd takes an empty file for an empty configuration
        return {**state, "valid": True}
    try:
        content = json.loads(text)
    except ValueError as exc:
        line, column = getattr(exc, "lineno", 0), getattr(exc, "colno", 0)
        return {**state, "error": f"line {line}, column {column}: {getattr(exc, 'msg', 'not UTF-8 text')}"}
    if not isinstance(content, dict):
        return {**state, "error": f"line 1: expected an object {{…}}, found {type(content).__name__}"}
    return {**state, "valid": True, "content": mask_urls(content)}


def engine_origin(packages: dict[str, str], path: str) -> str:
    if "docker-ce" in packages:
        return "docker"
    if {"docker.io", "moby-engine", "docker", "docker-engine"} & set(packages):
        return "distro"
    return "unknown" if path else ""


class _UnixHTTPConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class DockerSocket:
    """The three questions asked of the engine, over its socket: no CLI start-up, no plugin, one deadline."""

    def __init__(self, path: str, deadline: float) -> None:
        self.path = path
        self.until = time.monotonic() + deadline

    def get(self, url: str) -> t.Any:
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError("no answer in time")
        connection = _UnixHTTPConnection(self.path, left)
        try:
            connection.request("GET", url)
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 200:
                raise OSError(f"{url.split('?')[0]} answered {answer.status}")
            return json.loads(body)
        finally:
            connection.close()


class StackFacts:
    """Collects the facts of one host; `root` and `run` let a test hand in a made-up one."""

    def __init__(
        self,
        root: str = "/",
        paths: t.Sequence[str] = (),
        ports: t.Sequence[int] = (),
        dify_home: str = "/opt/dify",
        dify_project: str = "dify",
        ollama_home: str = "/opt/ollama",
        ollama_models_dir: str = "/usr/share/ollama/.ollama/models",
        ollama_port: int = 11434,
        ollama_user: str = "ollama",
        traceloop_home: str = "/opt/traceloop",
        stack_mirror: str = "",
        deadline: float = 5.0,
        run: Runner = run_command,
    ) -> None:
        self.host = Host(root, deadline, run)
        self.paths = list(paths)
        self.ports = set(ports)
        self.dify_home = dify_home
        self.dify_project = dify_project
        self.traceloop_home = traceloop_home
        self.deadline = deadline
        self.gpu = GpuFacts(self.host)
        self.mirror = MirrorFacts(self.host, stack_mirror, deadline)
        self.ollama = ollama_facts.OllamaFacts(self.host, ollama_home, ollama_models_dir, ollama_port, ollama_user)

    def collect(self) -> dict[str, t.Any]:
        machine = self._os()
        with ThreadPoolExecutor(max_workers=10) as pool:  # every line is one wait on a program or a socket
            packages = pool.submit(self._packages, machine["family"])
            units = pool.submit(self._units)
            daemon = pool.submit(self._ask_engine)
            compose = pool.submit(self._compose)
            ollama = pool.submit(self.ollama.version)
            server = pool.submit(self.ollama.server)
            table = pool.submit(self.ollama.table)
            rules = pool.submit(ollama_facts.rules_loaded, self.host, gateway_facts.TABLE, gateway_facts.SIGNS)
            smi = pool.submit(self.gpu.ask_smi)
            dockerd_version = pool.submit(self._dockerd_version)
            mirror = pool.submit(self.mirror.ask)
        containers = daemon.result()["containers"]
        engine = self._engine(packages.result(), units.result(), daemon.result(), dockerd_version.result())
        return {
            "os": machine,
            "cpu": {"count": len(os.sched_getaffinity(0))},
            "memory": parse_meminfo(self.host.read("proc/meminfo")),
            "disks": self._disks(engine["data_root"]),
            "gpus": self.gpu.gpus(smi.result()["rows"]),
            "gpu": self.gpu.gpu(smi.result()),
            "security": self._security(),
            "systemd": os.path.isdir(self.host.at("run/systemd/system")),
            "python": {"requests": _distribution_version("requests"), "yaml": _distribution_version("PyYAML")},
            "engine": engine,
            "compose": compose.result(),
            "daemon_json": self._daemon_json(),
            "docker_group": self.host.groups().get("docker", (0, []))[1],
            "ports": port_owners(self.host, containers, self.ports),
            "dify": self._dify(daemon.result()["project"]),
            "ollama": self.ollama.describe(
                ollama.result(), server.result(), table.result(), units.result(), containers
            ),
            "gateway": gateway_facts.describe(self.host, units.result(), rules.result()),
            "mirror": self.mirror.describe(mirror.result(), machine["family"] == "Debian"),
            "traceloop": {"present": self.host.exists(os.path.join(self.traceloop_home, TREE_MARKER))},
        }

    # -- the machine -----------------------------------------------------------

    def _os(self) -> dict[str, str]:
        return describe_os(self.host.read("etc/os-release") or self.host.read("usr/lib/os-release"), platform.machine())

    def _disks(self, data_root: str) -> dict[str, t.Any]:
        mounts = parse_mounts(self.host.read("proc/self/mountinfo"))
        wanted = ["/", self.dify_home, data_root or "/var/lib/docker", self.ollama.home, self.ollama.models_dir]
        disks = {}
        for path in dict.fromkeys([*wanted, *self.paths]):
            there = path
            while there != "/" and not os.path.isdir(
                self.host.at(there)
            ):  # a path still to be made lives with its parent
                there = os.path.dirname(there)
            try:
                room = os.statvfs(self.host.at(there))
            except OSError:
                continue
            disks[path] = {
                "mount": mount_of(os.path.realpath(there) if self.host.root == "/" else there, mounts),
                "total_mb": room.f_blocks * room.f_frsize // 1048576,
                "free_mb": room.f_bavail * room.f_frsize // 1048576,
            }
        return disks

    def _security(self) -> dict[str, t.Any]:
        enforce = self.host.read("sys/fs/selinux/enforce").strip()
        return {
            "apparmor": os.path.isdir(self.host.at("sys/kernel/security/apparmor")),
            "selinux": {"1": "enforcing", "0": "permissive"}.get(enforce, "disabled"),
        }

    def _packages(self, family: str) -> dict[str, str]:
        if family == "Debian":
            argv = ["dpkg-query", "-W", "-f", "${db:Status-Abbrev} ${Package} ${Version}\\n", *PACKAGES]
            lines = self.host.run(argv, timeout=self.deadline)[1].splitlines()
            return {line.split()[1]: line.split()[2] for line in lines if re.match(r"[ih]i\s+\S+ \S+$", line)}
        if family == "RedHat":
            argv = ["rpm", "-q", "--qf", "%{NAME} %{VERSION}-%{RELEASE}\\n", *PACKAGES]
            lines = self.host.run(argv, timeout=self.deadline)[1].splitlines()
            return {line.split()[0]: line.split()[1] for line in lines if line.count(" ") == 1}
        return {}

    def _units(self) -> dict[str, dict[str, str]]:
        if not os.path.isdir(self.host.at("run/systemd/system")):
            return {}
        properties = f"--property={','.join(ollama_facts.PROPERTIES)}"
        argv = ["systemctl", "show", properties, "docker.service", *ollama_facts.UNITS, *gateway_facts.UNITS]
        text = self.host.run(argv, timeout=self.deadline)[1]
        blocks = [
            dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in text.split("\n\n")
        ]
        return {block["Id"]: block for block in blocks if "Id" in block}

    # -- Docker ----------------------------------------------------------------

    def _ask_engine(self) -> dict[str, t.Any]:
        state: dict[str, t.Any] = {"info": {}, "version": "", "containers": [], "project": [], "error": ""}
        path = next((p for p in ("run/docker.sock", "var/run/docker.sock") if os.path.exists(self.host.at(p))), "")
        if not path:
            return state
        engine = DockerSocket(self.host.at(path), self.deadline)
        try:
            state["version"] = engine.get("/version").get("Version", "")
            state["info"] = engine.get("/info")
            state["containers"] = engine.get("/containers/json?all=true")
            state["project"] = [
                engine.get(f"/containers/{quote(container['Id'])}/json")
                for container in state["containers"]
                if (container.get("Labels") or {}).get("com.docker.compose.project") == self.dify_project
            ]
        except (FileNotFoundError, ConnectionRefusedError):
            state["error"] = f"/{path} is there, but nothing listens on it"
        except PermissionError:
            state["error"] = f"no permission to ask /{path}; run the play with become"
        except (socket.timeout, TimeoutError):
            state["error"] = f"/{path} did not answer within {self.deadline:g} s"
        except (OSError, ValueError, http.client.HTTPException) as exc:
            state["error"] = f"/{path}: {exc}"
        return state

    def _dockerd_version(self) -> str:
        path = self.host.which("dockerd")
        return version_number(self.host.run([path, "--version"], timeout=self.deadline)[1]) if path else ""

    def _engine(
        self, packages: dict[str, str], units: dict[str, dict[str, str]], daemon: dict[str, t.Any], installed: str
    ) -> dict[str, t.Any]:
        info, path = daemon["info"], self.host.which("dockerd")
        registries = info.get("RegistryConfig") or {}
        insecure = sorted(
            name for name, index in (registries.get("IndexConfigs") or {}).items() if not index.get("Secure", True)
        )
        return {
            "installed": bool(path or daemon["version"]),
            "path": path,
            "version": version_number(daemon["version"]) or installed,
            "running": bool(daemon["version"]),
            "enabled": units.get("docker.service", {}).get("UnitFileState", "").startswith("enabled"),
            "origin": engine_origin(packages, path or daemon["version"]),
            "packages": packages,
            "repositories": self._repositories(),
            "sources": {path: self._source(path) for path in self._repositories()},
            "cgroup_driver": info.get("CgroupDriver", ""),
            "storage_driver": info.get("Driver", ""),
            "data_root": info.get("DockerRootDir", ""),
            "live_restore": bool(info.get("LiveRestoreEnabled")),
            "swarm": (info.get("Swarm") or {}).get("LocalNodeState", "inactive") not in ("", "inactive"),
            "containers": {"total": info.get("Containers", 0), "running": info.get("ContainersRunning", 0)},
            "registry_mirrors": [mask_urls(url).rstrip("/") for url in registries.get("Mirrors") or []],
            "insecure_registries": insecure,
            "runtimes": sorted(info.get("Runtimes") or {}),
            "error": mask_urls(daemon["error"]),
        }

    def _repositories(self) -> dict[str, list[str]]:
        """Package sources that name a Docker or NVIDIA toolkit repository: file → addresses."""
        found: dict[str, list[str]] = {}
        for directory in ("etc/apt/sources.list.d", "etc/yum.repos.d"):
            for name in self.host.names(directory):
                if not name.endswith((".list", ".sources", ".repo")):
                    continue
                text = re.sub(r"(?m)^\s*#.*$", "", self.host.read(f"{directory}/{name}"))
                urls = [url for url in re.findall(r"https?://[^\s\]]+", text) if re.search(r"/linux/|nvidia", url)]
                urls = [mask_urls(url).rstrip("/") for url in urls if not url.endswith(("gpg", "gpgkey", ".asc"))]
                if urls:
                    found[f"/{directory}/{name}"] = sorted(set(urls))
        return found

    def _source(self, path: str) -> dict[str, t.Any]:
        """What a package source says (deb822 and dnf both write one setting a line), and the keys it trusts."""
        found = re.findall(r"(?m)^([A-Za-z_-]+)[ \t]*[:=][ \t]*(.*?)[ \t]*$", self.host.read(path))
        settings = {key.lower(): mask_urls(value) for key, value in found}
        key = settings.get("signed-by", settings.get("gpgkey", "")).replace("file://", "")
        fingerprints: list[str] = []
        if key.startswith("/"):
            with contextlib.suppress(OSError, _openpgp.NotAKey), open(self.host.at(key), "rb") as handle:
                fingerprints = _openpgp.fingerprints(handle.read(1048576))
        return {"settings": settings, "fingerprints": fingerprints}

    def _daemon_json(self) -> dict[str, t.Any]:
        path = "etc/docker/daemon.json"
        pending = self.host.read(PENDING_FILE).strip()
        if not os.path.lexists(self.host.at(path)):
            return {"exists": False, "valid": True, "content": {}, "error": "", "pending": pending}
        try:
            with open(self.host.at(path), encoding="utf-8") as handle:
                return {**parse_daemon_json(handle.read()), "pending": pending}
        except (OSError, UnicodeDecodeError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else "not UTF-8 text"
            return {"exists": True, "valid": False, "content": {}, "error": str(reason), "pending": pending}

    def _compose(self) -> dict[str, str]:
        state = {"version": "", "path": "", "v1_version": ""}
        for directory in PLUGIN_DIRS:
            path = f"/{directory}/docker-compose"
            if os.access(self.host.at(path), os.X_OK):
                text = self.host.run([path, "version", "--short"], timeout=self.deadline)[1]
                state.update(path=path, version=version_number(text))
                break
        standalone = self.host.which("docker-compose")
        if (
            standalone and self.host.read(standalone)[:2] == "#!"
        ):  # v1 is a Python script, v2 a binary (or a link to it)
            text = self.host.run([standalone, "version", "--short"], timeout=self.deadline)[1]
            number = version_number(text)
            state["v1_version"] = number if number.startswith("1.") else ""
        return state

    # -- Dify ------------------------------------------------------------------

    def _dify(self, project: list[dict[str, t.Any]]) -> dict[str, t.Any]:
        releases = {}
        for tag in self.host.names(f"{self.dify_home}/releases"):
            folder = f"{self.dify_home}/releases/{tag}"
            if tag.startswith(".") or not os.path.isdir(self.host.at(folder)):
                continue
            volumes = self.host.at(f"{folder}/volumes")
            releases[tag] = {
                # One whose data folder was moved away lacks what it ships for that, and Docker mounts nothing below
                # a link that leads nowhere.
                "complete": _dify_layout.is_complete(self.host.at(folder), tag)
                and (os.path.isdir(volumes) or not os.path.islink(volumes)),
                "checksum": str(_dify_layout.read_marker(self.host.at(folder)).get("sha256", "")),
            }
        link = self.host.at(f"{self.dify_home}/current")
        current = os.path.basename(os.readlink(link)) if os.path.islink(link) else ""
        return {
            "home": self.dify_home,
            "current": current,
            "releases": releases,
            "data": self._has_data(current),
            "upgrade": self._upgrade(),
            "restore": self._restore(),
            "backup_schedule": self._backup_schedule(),
            "containers": sorted((_describe_container(one) for one in project), key=lambda one: one["name"]),
        }

    def _has_data(self, current: str) -> bool:
        """Whether a Dify has worked here. Its database may be on another host, its files in an object store and its
        containers gone; what is then left to tell it is that the release's settings reached containers once."""
        volumes = f"{self.dify_home}/volumes"
        if any(self.host.names(f"{volumes}/{place}") for place in ("db/data", "mysql/data", "app/storage")):
            return True
        release = f"{self.dify_home}/releases/{current}"
        return bool(
            current and self.host.exists(f"{release}/.env") and not self.host.exists(f"{release}/{PENDING_NOTE}")
        )

    def _upgrade(self) -> dict[str, str]:
        """The last upgrade by its journal, over or not; empty where there was none."""
        try:
            noted = json.loads(self.host.read(f"{self.dify_home}/{UPGRADE_JOURNAL}") or "{}")
        except ValueError:
            noted = {"phase": "unreadable"}
        if not isinstance(noted, dict) or not noted:
            return {}
        keys = ("id", "from", "to", "phase", "step", "message", "folder", "backup")
        return {key: str(noted.get(key) or "") for key in keys}

    def _restore(self) -> str:
        """The backup whose restore was begun and is not finished."""
        try:
            noted = json.loads(self.host.read(f"{self.dify_home}/{RESTORE_NOTE}") or "{}")
        except ValueError:
            noted = {"state": "begun", "path": "unreadable"}
        return str(noted.get("path", "")) if isinstance(noted, dict) and noted.get("state") == "begun" else ""

    def _backup_schedule(self) -> str:
        lines = self.host.read(BACKUP_TIMER).splitlines()
        return next((line.partition("=")[2] for line in lines if line.startswith("OnCalendar=")), "")


def _describe_container(detail: dict[str, t.Any]) -> dict[str, t.Any]:
    state, config = detail.get("State") or {}, detail.get("Config") or {}
    return {
        "name": detail.get("Name", "").lstrip("/"),
        "service": (config.get("Labels") or {}).get("com.docker.compose.service", ""),
        "image": config.get("Image", ""),
        "state": state.get("Status", ""),
        "health": (state.get("Health") or {}).get("Status", ""),
        "exit_code": state.get("ExitCode", 0),
        "restarts": detail.get("RestartCount", 0),
    }


def _distribution_version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
