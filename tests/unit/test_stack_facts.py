# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""stack_facts on made-up machines: a file tree, canned program answers, and an engine behind a real socket."""

from __future__ import annotations

import http.server
import json
import os
import pathlib
import socketserver
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils import _file_tree
from ansible_collections.llmops.stack.plugins.module_utils import _stack_facts as facts
from ansible_collections.llmops.stack.tests.unit.machine import TRIXIE, Machine

ROCKY = 'NAME="Rocky Linux"\nVERSION_ID="9.4"\nID="rocky"\nID_LIKE="rhel centos fedora"\n'
MINT = 'ID=linuxmint\nID_LIKE="ubuntu debian"\nVERSION_ID="22"\nVERSION_CODENAME=wilma\nUBUNTU_CODENAME=noble\n'
TCP = (
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
    "   0: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0\n"
    "   1: 0100007F:138A 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 100 0 0 10 0\n"
    "   2: 0100007F:9999 0100007F:0050 01 00000000:00000000 00:00000000 00000000     0        0 4713 1 0 100 0 0 10 0\n"
)


@pytest.fixture
def machine(tmp_path: pathlib.Path) -> Machine:
    return Machine(tmp_path)


class Engine(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    answers: dict[str, Any]


class Handler(http.server.BaseHTTPRequestHandler):
    def address_string(self) -> str:
        return "socket"

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        server: Any = self.server
        answer = server.answers.get(self.path)
        if answer == "hang":
            time.sleep(1.5)
            return
        body = json.dumps(answer).encode()
        self.send_response(200 if answer is not None else 404)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def engine(machine: Machine) -> Iterator[Engine]:
    (machine.root / "run").mkdir(exist_ok=True)
    here = os.getcwd()
    os.chdir(machine.root)  # a socket's path has room for 108 bytes
    server = Engine("run/docker.sock", Handler)
    os.chdir(here)
    server.answers = {"/version": {"Version": "26.1.5+dfsg1"}, "/info": {}, "/containers/json?all=true": []}
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_an_empty_root_fails_nowhere(tmp_path: pathlib.Path) -> None:
    seen = facts.StackFacts(root=str(tmp_path), run=lambda *a, **k: (127, "")).collect()
    assert seen["engine"]["installed"] is False
    assert seen["engine"]["origin"] == ""
    assert seen["daemon_json"] == {"exists": False, "valid": True, "content": {}, "error": "", "pending": ""}
    assert seen["compose"] == {"version": "", "path": "", "v1_version": ""}
    assert seen["dify"] == {
        "home": "/opt/dify",
        "current": "",
        "releases": {},
        "data": False,
        "upgrade": {},
        "restore": "",
        "backup_schedule": "",
        "containers": [],
    }
    assert seen["traceloop"] == {"present": False}
    assert (seen["gpus"], seen["ports"], seen["docker_group"], seen["systemd"]) == ([], {}, [], False)
    json.dumps(seen)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (TRIXIE, ("Debian", "debian", "debian", "13", "trixie")),
        (MINT, ("Debian", "linuxmint", "ubuntu", "22", "noble")),
        (ROCKY, ("RedHat", "rocky", "centos", "9", "")),
        ('ID="rhel"\nVERSION_ID="9.4"\nID_LIKE="fedora"\n', ("RedHat", "rhel", "rhel", "9", "")),
        ("ID=fedora\nVERSION_ID=41\n", ("RedHat", "fedora", "fedora", "41", "")),
        ("ID=arch\n", ("Arch", "arch", "arch", "", "")),
        ("ID=debian\nVERSION_CODENAME=forky\n", ("Debian", "debian", "debian", "", "forky")),
    ],
)
def test_systems(text: str, expected: tuple[str, ...]) -> None:
    seen = facts.describe_os(text, "x86_64")
    assert (seen["family"], seen["distribution"], seen["base"], seen["major"], seen["codename"]) == expected
    assert (seen["arch"], seen["machine"]) == ("amd64", "x86_64")


def test_memory_of_a_kernel_without_available() -> None:
    assert facts.parse_meminfo("MemTotal: 2048 kB\nMemFree: 1 kB\n") == {"total_mb": 2, "available_mb": 2}
    assert facts.parse_meminfo("") == {"total_mb": 0, "available_mb": 0}


def test_disks_of_paths_still_to_be_made(machine: Machine) -> None:
    machine.write(
        "proc/self/mountinfo",
        "1 0 8:1 / / rw - ext4 /dev/a rw\n"
        "2 1 8:2 / /opt rw - ext4 /dev/b rw\n"
        "3 1 8:3 / /my\\040disk rw - xfs /dev/c rw\n",
    )
    (machine.root / "opt").mkdir()
    (machine.root / "my disk").mkdir()
    disks = machine.facts(paths=["/my disk/x/y", "/options"])["disks"]
    assert {path: disk["mount"] for path, disk in disks.items()} == {
        "/": "/", "/opt/dify": "/opt", "/var/lib/docker": "/", "/my disk/x/y": "/my disk", "/options": "/",
        "/opt/ollama": "/opt", "/usr/share/ollama/.ollama/models": "/",
    }  # fmt: skip
    assert all(disk["total_mb"] >= disk["free_mb"] > 0 for disk in disks.values())


# -- packages and programs ----------------------------------------------------


def test_packages_of_debian(machine: Machine) -> None:
    machine.program("usr/sbin/dockerd", "Docker version 26.1.5+dfsg1, build a72d7cd\n")
    machine.answers["dpkg-query"] = (
        1,
        "ii  docker.io 26.1.5+dfsg1-9\nrc  docker-ce 5:20.10.1\nun  containerd.io \nhi  runc 1.1\n",
    )
    engine = machine.facts()["engine"]
    assert engine["packages"] == {"docker.io": "26.1.5+dfsg1-9", "runc": "1.1"}
    assert (engine["origin"], engine["version"], engine["installed"], engine["running"]) == (
        "distro",
        "26.1.5",
        True,
        False,
    )


def test_packages_of_red_hat(machine: Machine) -> None:
    machine.write("etc/os-release", ROCKY)
    machine.answers["rpm"] = (1, "docker-ce 28.5.2-1.el9\npackage docker.io is not installed\n")
    engine = machine.facts()["engine"]
    assert (engine["packages"], engine["origin"]) == ({"docker-ce": "28.5.2-1.el9"}, "docker")


def test_an_engine_of_no_package(machine: Machine) -> None:
    machine.program("usr/local/bin/dockerd", "Docker version 28.0.1, build x\n")
    engine = machine.facts()["engine"]
    assert (engine["origin"], engine["path"], engine["version"]) == ("unknown", "/usr/local/bin/dockerd", "28.0.1")


def test_units(machine: Machine) -> None:
    (machine.root / "run/systemd/system").mkdir(parents=True)
    machine.program(
        "usr/local/bin/ollama", "Warning: could not connect to a running Ollama instance\nclient version is 0.17.4\n"
    )
    machine.answers["systemctl"] = (
        0,
        "Id=docker.service\nActiveState=active\nUnitFileState=enabled\n\nId=ollama.service\nActiveState=active\nUnitFileState=\n",
    )
    seen = machine.facts()
    assert (seen["systemd"], seen["engine"]["enabled"]) == (True, True)
    assert (seen["ollama"]["version"], seen["ollama"]["active"], seen["ollama"]["enabled"]) == ("0.17.4", True, False)


def test_repositories_are_found_without_keys_comments_and_passwords(machine: Machine) -> None:
    machine.write(
        "etc/apt/sources.list.d/docker.list",
        "# deb https://old.example.com/linux/debian trixie stable\n"
        "deb [signed-by=/etc/apt/keyrings/docker.asc] "
        "https://me:secret@mirror.example.com/docker-ce/linux/debian/ trixie stable\n",
    )
    machine.write("etc/apt/sources.list.d/debian.sources", "URIs: http://deb.example.org/debian\n")
    machine.write(
        "etc/yum.repos.d/d.repo",
        "baseurl=https://x.example.com/linux/centos/9\ngpgkey=https://x.example.com/linux/centos/gpg\n",
    )
    assert machine.facts()["engine"]["repositories"] == {
        "/etc/apt/sources.list.d/docker.list": ["https://***@mirror.example.com/docker-ce/linux/debian"],
        "/etc/yum.repos.d/d.repo": ["https://x.example.com/linux/centos/9"],
    }


# A real OpenPGP packet needs no more than its frame to have a fingerprint.
KEY = b"\x98\x06\x04\x00\x00\x00\x00\x01"
KEY_PRINT = "BCC1653DA4E4393ADE89C8208E6D399CC45DFE81"


def test_what_a_source_says_and_which_key_it_trusts(machine: Machine) -> None:
    machine.write("etc/apt/keyrings/docker.asc").write_bytes(KEY)
    machine.write(
        "etc/apt/sources.list.d/docker.sources",
        "# Suites: old\nTypes: deb\nURIs: https://token@m.example.com/docker-ce/linux/debian\nSuites: trixie\n"
        "Components: stable\nSigned-By: /etc/apt/keyrings/docker.asc\n",
    )
    machine.write(
        "etc/yum.repos.d/d.repo",
        "[docker-ce]\nbaseurl = https://x.example.com/linux/centos/9\ngpgkey = file:///gone\ngpgcheck = 1\n",
    )
    sources = machine.facts()["engine"]["sources"]
    assert sources["/etc/apt/sources.list.d/docker.sources"] == {
        "settings": {
            "types": "deb",
            "uris": "https://***@m.example.com/docker-ce/linux/debian",
            "suites": "trixie",
            "components": "stable",
            "signed-by": "/etc/apt/keyrings/docker.asc",
        },
        "fingerprints": [KEY_PRINT],
    }
    assert sources["/etc/yum.repos.d/d.repo"] == {
        "settings": {
            "baseurl": "https://x.example.com/linux/centos/9",
            "gpgkey": "file:///gone",
            "gpgcheck": "1",
        },
        "fingerprints": [],
    }


# -- Compose ------------------------------------------------------------------


def test_the_plugin_that_the_cli_would_take_wins(machine: Machine) -> None:
    machine.program("usr/libexec/docker/cli-plugins/docker-compose", "2.40.3\n")
    machine.program("usr/local/lib/docker/cli-plugins/docker-compose", "v2.20.0\n")
    assert machine.facts()["compose"] == {
        "version": "2.20.0", "path": "/usr/local/lib/docker/cli-plugins/docker-compose", "v1_version": "",
    }  # fmt: skip


def test_python_v1_is_told_from_v2_of_the_same_name(machine: Machine) -> None:
    machine.program("usr/bin/docker-compose", "1.29.2\n", text="#!/usr/bin/python3\n")
    assert machine.facts()["compose"] == {"version": "", "path": "", "v1_version": "1.29.2"}
    machine.program("usr/bin/docker-compose", "2.26.1\n")
    assert machine.facts()["compose"]["v1_version"] == ""


# -- daemon.json --------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "valid", "error"),
    [
        ("", True, ""),
        ('{"debug": true}', True, ""),
        ('{"debug": true,\n}', False, "line 2, column 1"),
        ("[]", False, "expected an object"),
        ("not json", False, "line 1, column 1"),
    ],
)
def test_daemon_json(machine: Machine, text: str, valid: bool, error: str) -> None:
    machine.write("etc/docker/daemon.json", text)
    seen = machine.facts()["daemon_json"]
    assert (seen["exists"], seen["valid"]) == (True, valid)
    assert error in seen["error"] if error else seen["error"] == ""


def test_daemon_json_that_is_not_text_or_a_dangling_link(machine: Machine) -> None:
    target = machine.write("etc/docker/daemon.json")
    target.write_bytes(b"\xff\xfe{}")
    assert machine.facts()["daemon_json"]["error"] == "not UTF-8 text"
    target.unlink()
    target.symlink_to("nowhere")
    assert machine.facts()["daemon_json"]["valid"] is False


def test_passwords_in_urls_never_leave_the_host(machine: Machine) -> None:
    machine.write(
        "etc/docker/daemon.json",
        '{"proxies": {"http-proxy": "http://me:pa55@proxy:3128"}, "registry-mirrors": ["https://u:pa55@m"]}',
    )
    seen = machine.facts()
    assert "pa55" not in json.dumps(seen)
    assert seen["daemon_json"]["content"]["proxies"] == {"http-proxy": "http://***@proxy:3128"}


def test_what_a_killed_run_left_to_do(machine: Machine) -> None:
    machine.write("run/llmops.stack/docker-pending", "restart\n")
    assert machine.facts()["daemon_json"]["pending"] == "restart"


# -- the engine ---------------------------------------------------------------


def test_what_the_engine_says(machine: Machine, engine: Engine) -> None:
    engine.answers["/info"] = {
        "CgroupDriver": "systemd",
        "Driver": "overlay2",
        "DockerRootDir": "/data",
        "LiveRestoreEnabled": True,
        "Swarm": {"LocalNodeState": "active"},
        "Containers": 3,
        "ContainersRunning": 2,
        "Runtimes": {"runc": {}, "nvidia": {}},
        "RegistryConfig": {
            "Mirrors": ["http://upstream:5000/"],
            "IndexConfigs": {"docker.io": {"Secure": True}, "upstream:5000": {"Secure": False}},
        },
    }
    seen = machine.facts()
    assert seen["engine"] == {
        **seen["engine"],
        "installed": True, "running": True, "version": "26.1.5", "error": "", "cgroup_driver": "systemd",
        "storage_driver": "overlay2", "data_root": "/data", "live_restore": True, "swarm": True,
        "containers": {"total": 3, "running": 2}, "registry_mirrors": ["http://upstream:5000"],
        "insecure_registries": ["upstream:5000"], "runtimes": ["nvidia", "runc"],
    }  # fmt: skip
    assert "/data" in seen["disks"]


def test_containers_of_the_project_only(machine: Machine, engine: Engine) -> None:
    labels = {"com.docker.compose.project": "dify", "com.docker.compose.service": "api"}
    engine.answers["/containers/json?all=true"] = [
        {"Id": "a1", "Names": ["/dify-api-1"], "Labels": labels, "Ports": []},
        {"Id": "b2", "Names": ["/other"], "Labels": None, "Ports": None},
    ]
    engine.answers["/containers/a1/json"] = {
        "Name": "/dify-api-1",
        "RestartCount": 4,
        "Config": {"Image": "langgenius/dify-api:1.12.1", "Labels": labels, "Env": ["SECRET_KEY=sk-hidden"]},
        "State": {"Status": "running", "ExitCode": 0, "Health": {"Status": "unhealthy"}},
    }
    seen = machine.facts()
    assert seen["dify"]["containers"] == [
        {
            "name": "dify-api-1", "service": "api", "image": "langgenius/dify-api:1.12.1", "state": "running",
            "health": "unhealthy", "exit_code": 0, "restarts": 4,
        }
    ]  # fmt: skip
    assert "sk-hidden" not in json.dumps(seen)


def test_an_engine_that_hangs_is_an_answer(machine: Machine, engine: Engine) -> None:
    engine.answers["/info"] = "hang"
    began = time.monotonic()
    seen = machine.facts(deadline=0.5)
    assert time.monotonic() - began < 2.5
    assert "did not answer within 0.5 s" in seen["engine"]["error"]


def test_a_socket_that_nobody_listens_on(machine: Machine, engine: Engine) -> None:
    engine.shutdown()
    engine.server_close()
    seen = machine.facts()["engine"]
    assert seen["running"] is False
    assert "nothing listens" in seen["error"]


# -- ports --------------------------------------------------------------------


def test_owners_of_ports(machine: Machine, engine: Engine) -> None:
    machine.write("proc/net/tcp", TCP)
    machine.write("proc/812/comm", "docker-proxy\n")
    machine.write("proc/812/cgroup", "12:pids:/system.slice/docker.service\n0::/system.slice/docker.service\n")
    (machine.root / "proc/812/fd").mkdir()
    (machine.root / "proc/812/fd/4").symlink_to("socket:[4711]")
    engine.answers["/containers/json?all=true"] = [
        {
            "Id": "a1",
            "Names": ["/dify-nginx-1"],
            "Labels": {},
            "Ports": [
                {"PrivatePort": 80, "PublicPort": 80, "Type": "tcp"},
                {"PrivatePort": 443, "PublicPort": 443, "Type": "tcp"},  # published without a proxy process
                {"PrivatePort": 53, "PublicPort": 53, "Type": "udp"},
                {"PrivatePort": 9000, "Type": "tcp"},
            ],
        }
    ]
    assert machine.facts()["ports"] == {
        "80": {"pid": 812, "process": "docker-proxy", "container": "dify-nginx-1", "unit": "docker.service"},
        "443": {"pid": 0, "process": "", "container": "dify-nginx-1", "unit": ""},
        "5002": {"pid": 0, "process": "", "container": "", "unit": ""},
    }
    assert list(machine.facts(ports=[5002, 8080])["ports"]) == ["5002"]


# -- Dify ---------------------------------------------------------------------


def test_releases(machine: Machine) -> None:
    home = "opt/dify/releases"
    machine.write(f"{home}/1.12.1/docker-compose.yaml")
    machine.write(f"{home}/1.12.1/.llmops-release.json", '{"tag": "1.12.1", "sha256": "abc"}')
    machine.write(f"{home}/1.11.4/docker-compose.yaml")
    machine.write(f"{home}/1.10.0/.llmops-release.json", "{cut off")
    machine.write(f"{home}/.unpacking/docker-compose.yaml")
    (machine.root / "opt/dify/current").symlink_to("releases/1.12.1")
    dify = machine.facts()["dify"]
    assert dify["current"] == "1.12.1"
    assert dify["releases"] == {
        "1.10.0": {"complete": False, "checksum": ""},
        "1.11.4": {"complete": False, "checksum": ""},
        "1.12.1": {"complete": True, "checksum": "abc"},
    }


def test_a_release_that_lost_a_file_is_not_complete(machine: Machine) -> None:
    home = "opt/dify/releases/1.12.1"
    noted = {"tag": "1.12.1", "files": {"docker-compose.yaml": "1", "nginx/nginx.conf.template": "2"}}
    machine.write(f"{home}/docker-compose.yaml")
    machine.write(f"{home}/.llmops-release.json", json.dumps(noted))
    assert machine.facts()["dify"]["releases"]["1.12.1"]["complete"] is False
    machine.write(f"{home}/nginx/nginx.conf.template")
    assert machine.facts()["dify"]["releases"]["1.12.1"]["complete"] is True
    (machine.root / home / "volumes").symlink_to("../../volumes")
    assert machine.facts()["dify"]["releases"]["1.12.1"]["complete"] is False, "its data folder was moved away"
    (machine.root / "opt/dify/volumes").mkdir()
    assert machine.facts()["dify"]["releases"]["1.12.1"]["complete"] is True
    (machine.root / home).rename(machine.root / "opt/dify/releases/1.13.3")
    assert machine.facts()["dify"]["releases"]["1.13.3"]["complete"] is False


@pytest.mark.parametrize("place", ["volumes/db/data/PG_VERSION", "volumes/mysql/data/ibdata1", "volumes/app/storage/x"])
def test_a_dify_has_worked_here_when_it_left_data(machine: Machine, place: str) -> None:
    machine.write(f"opt/dify/{place}")
    assert machine.facts()["dify"]["data"] is True


def test_a_dify_with_its_data_elsewhere_has_worked_here_once_containers_had_its_settings(machine: Machine) -> None:
    machine.write("opt/dify/releases/1.12.1/.env", "DB_HOST=postgres.example.com\nSTORAGE_TYPE=s3\n")
    assert machine.facts()["dify"]["data"] is False  # it is not the current release
    (machine.root / "opt/dify/current").symlink_to("releases/1.12.1")
    pending = machine.write("opt/dify/releases/1.12.1/.llmops-pending")
    assert machine.facts()["dify"]["data"] is False  # a first install that got no further than its files
    pending.unlink()
    assert machine.facts()["dify"]["data"] is True


def test_an_upgrade_by_its_journal(machine: Machine) -> None:
    noted = {"id": "u1", "from": "1.11.4", "to": "1.12.1", "phase": "running", "step": "migrate", "notes": {"a": {}}}
    machine.write("opt/dify/.llmops-upgrade.json", json.dumps(noted))
    upgrade = machine.facts()["dify"]["upgrade"]
    assert upgrade == {"id": "u1", "from": "1.11.4", "to": "1.12.1", "phase": "running", "step": "migrate",
                       "message": "", "folder": "", "backup": ""}  # fmt: skip
    machine.write("opt/dify/.llmops-upgrade.json", "{cut off")
    assert machine.facts()["dify"]["upgrade"]["phase"] == "unreadable"


def test_a_restore_by_its_note(machine: Machine) -> None:
    for text, found in (
        ('{"state": "begun", "path": "/root/backup"}', "/root/backup"),
        ('{"state": "done", "path": "/root/backup"}', ""),
        ("{cut off", "unreadable"),
    ):
        machine.write("opt/dify/.llmops-restore.json", text)
        assert machine.facts()["dify"]["restore"] == found


def test_the_schedule_of_backups(machine: Machine) -> None:
    machine.write("etc/systemd/system/dify-backup.timer", "[Timer]\nOnCalendar=*-*-* 03:30:00\nPersistent=true\n")
    assert machine.facts()["dify"]["backup_schedule"] == "*-*-* 03:30:00"


def test_what_the_role_traceloop_made(machine: Machine) -> None:
    machine.write("opt/traceloop/dify.env")
    assert machine.facts()["traceloop"] == {"present": False}, "a folder of somebody else"
    machine.write(f"srv/traceloop/{_file_tree.MARKER}")
    assert machine.facts()["traceloop"] == {"present": False}
    assert machine.facts(traceloop_home="/srv/traceloop")["traceloop"] == {"present": True}


def test_group_members(machine: Machine) -> None:
    machine.write("etc/group", "root:x:0:\ndocker:x:999:ann,bob\ndockerroot:x:998:eve\n")
    assert machine.facts()["docker_group"] == ["ann", "bob"]


def test_a_stuck_program_is_given_up() -> None:
    began = time.monotonic()
    assert facts.run_command(["sleep", "5"], timeout=0.2) == (127, "")
    assert time.monotonic() - began < 3
    assert facts.run_command(["/no/such/program"]) == (127, "")
