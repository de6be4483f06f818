# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ollama on made-up machines: what is installed, what the files say, what runs, and whether the three agree."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils import _stack_facts_ollama as ollama
from ansible_collections.llmops.stack.tests.unit.machine import Machine

UNIT = "etc/systemd/system/ollama.service"
DROPIN = f"{UNIT}.d/10-llmops.conf"
BODY = "[Unit]\nDescription=Ollama\n[Service]\nUser=ollama\nEnvironment=HOME=/usr/share/ollama\n"


@pytest.fixture
def machine(tmp_path: pathlib.Path) -> Machine:
    return Machine(tmp_path)


def ours(body: str) -> str:
    return f"# llmops.stack {hashlib.sha256(body.encode()).hexdigest()}\n{body}"


def release(machine: Machine, version: str, **noted: Any) -> None:
    folder = f"opt/ollama/{version}"
    machine.write(f"{folder}/bin/ollama", "x", 0o755)
    marker = {
        "version": version, "files": {"ollama-linux-amd64.tar.zst": "ab"}, "tree": {"bin/ollama": 1}, "overlays": [],
    }  # fmt: skip
    machine.write(f"{folder}/.llmops-release.json", json.dumps({**marker, **noted}))


def serve(machine: Machine, environ: dict[str, str], **said: str) -> None:
    """The service runs, with this environment."""
    machine.units(ollama={"ActiveState": "active", "UnitFileState": "enabled", "MainPID": "812", **said})
    machine.write("proc/812/environ", "".join(f"{key}={value}\0" for key, value in environ.items()))


def listen_at(machine: Machine, port: int, address: str = "0100007F") -> None:
    line = f"   0: {address}:{port:04X} 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0"
    machine.write("proc/net/tcp", f"  sl  local_address\n{line}\n")


# -- releases and programs -----------------------------------------------------


def test_nothing_is_there(machine: Machine) -> None:
    seen = machine.facts()["ollama"]
    assert (seen["version"], seen["server"], seen["active"], seen["current"], seen["releases"]) == (
        "",
        "",
        False,
        "",
        {},
    )
    assert seen["unit"]["exists"] is False
    assert seen["installed"] is False
    assert set(seen["files"]) == {
        "/etc/systemd/system/ollama.service", "/etc/systemd/system/ollama.service.d/10-llmops.conf",
        "/etc/ollama/secrets.env", "/etc/ollama/firewall.nft", "/etc/systemd/system/ollama-firewall.service",
        "/etc/systemd/system/nftables.service.d/ollama.conf", "/opt/ollama/compose.yaml",
        "/etc/systemd/system/ollama-metrics.service", "/opt/ollama/ollama-metrics.py",
    }  # fmt: skip
    assert {file["sha256"] for file in seen["files"].values()} == {""}
    assert seen["models_dir"] == {
        "path": "/usr/share/ollama/.ollama/models", "realpath": "/usr/share/ollama/.ollama/models", "exists": False,
        "owner": "", "group": "", "mode": "", "has_models": False, "blocked": "",
    }  # fmt: skip
    assert [argv[0] for argv in machine.calls] == ["dpkg-query"]


def test_releases_and_the_one_that_is_current(machine: Machine) -> None:
    release(machine, "0.13.5")
    release(machine, "0.17.4", tree={"bin/ollama": 1, "lib/ollama/libggml.so": 5}, overlays=["rocm"])
    machine.link("opt/ollama/current", "0.13.5")
    machine.link("usr/local/bin/ollama", "/opt/ollama/current/bin/ollama")
    seen = machine.facts()["ollama"]
    assert (seen["current"], seen["link"]) == ("0.13.5", "/opt/ollama/current/bin/ollama")
    assert {version: (one["complete"], one["overlays"]) for version, one in seen["releases"].items()} == {
        "0.13.5": (True, []), "0.17.4": (False, ["rocm"]),
    }  # fmt: skip
    assert seen["releases"]["0.13.5"]["checksums"] == {"ollama-linux-amd64.tar.zst": "ab"}


def test_a_release_of_ours_needs_no_start_to_say_its_version(machine: Machine) -> None:
    release(machine, "0.17.4")
    machine.link("opt/ollama/current", "0.17.4")
    machine.link("usr/local/bin/ollama", "/opt/ollama/current/bin/ollama")
    host = ollama.Host(str(machine.root), 1.0, machine.run)
    looking = ollama.OllamaFacts(host, "/opt/ollama", "/m", 11434, "ollama")
    # Asked for by its path: an absolute link leads out of a made-up root.
    assert looking._release_of("/usr/local/bin/ollama") == "0.17.4"
    (machine.root / "opt/ollama/0.17.4/bin/ollama").write_text("")  # a power cut
    assert looking._release_of("/usr/local/bin/ollama") == ""


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("Warning: could not connect to a running Ollama instance\nWarning: client version is 0.17.4\n", "0.17.4"),
        ("ollama version is 0.32.15\n", "0.32.15"),
        ("ollama version is 0.17.4\nWarning: client version is 0.18.0-rc1\n", "0.18.0-rc1"),
        ("", ""),
    ],
)
def test_the_version_of_the_program_and_not_of_the_server(machine: Machine, said: str, version: str) -> None:
    machine.program("usr/local/bin/ollama", said)
    assert machine.facts()["ollama"]["version"] == version


# -- the server ----------------------------------------------------------------


class Talker:
    """Accepts one connection after the other and says this, as slowly as told."""

    def __init__(self, answer: bytes, pause: float = 0.0) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.answer, self.pause = answer, pause
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        while True:
            try:
                link, _peer = self.socket.accept()
            except OSError:
                return
            with link:
                link.recv(4096)
                try:
                    for byte in self.answer if self.pause else [self.answer]:
                        link.sendall(bytes([byte]) if isinstance(byte, int) else byte)
                        time.sleep(self.pause)
                except OSError:
                    continue


@pytest.fixture
def talker() -> Iterator[Any]:
    made: list[Talker] = []

    def make(answer: bytes, pause: float = 0.0) -> Talker:
        made.append(Talker(answer, pause))
        return made[-1]

    yield make
    for one in made:
        one.socket.close()


GOOD = b'HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{"version":"0.17.4"}'


def test_what_the_server_says(machine: Machine, talker: Any) -> None:
    server = talker(GOOD)
    assert machine.facts(ollama_port=server.port)["ollama"]["server"] == ""  # nothing listens: nobody is asked
    listen_at(machine, server.port, "00000000")
    assert machine.facts(ollama_port=server.port)["ollama"]["server"] == "0.17.4"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.0 404 Not Found\r\n\r\n{}",
        b"HTTP/1.0 200 OK\r\n\r\n[1]",
        b"\xff" * 9000,
    ],
)
def test_a_server_of_something_else(machine: Machine, talker: Any, answer: bytes) -> None:
    server = talker(answer)
    listen_at(machine, server.port)
    assert machine.facts(ollama_port=server.port)["ollama"]["server"] == ""


def test_a_server_that_drips_is_given_up(machine: Machine, talker: Any) -> None:
    server = talker(GOOD, pause=0.1)
    listen_at(machine, server.port)
    began = time.monotonic()
    assert machine.facts(ollama_port=server.port, deadline=0.4)["ollama"]["server"] == ""
    assert time.monotonic() - began < 2


# -- the unit and its environment ----------------------------------------------


def test_a_unit_of_ours_and_one_that_was_edited(machine: Machine) -> None:
    machine.write(UNIT, ours(BODY))
    unit = machine.facts()["ollama"]["unit"]
    assert (unit["exists"], unit["ours"], unit["edited"]) == (True, True, False)
    assert machine.facts()["ollama"]["installed"]
    assert unit["models_dir"] == "/usr/share/ollama/.ollama/models"
    machine.write(UNIT, ours(BODY) + "Nice=5\n")
    unit = machine.facts()["ollama"]["unit"]
    assert (unit["ours"], unit["edited"]) == (True, True)


def test_a_unit_of_a_stranger_and_its_store(machine: Machine) -> None:
    machine.write("etc/passwd", "ollama:x:998:998::/usr/share/ollama:/bin/false\n")
    machine.write(UNIT, '[Service]\nUser=ollama\nEnvironment="PATH=/bin"\n')
    machine.write("usr/share/ollama/.ollama/models/manifests/registry.ollama.ai/library/tiny/latest", "{}")
    unit = machine.facts()["ollama"]["unit"]
    assert (unit["ours"], unit["models_dir"], unit["has_models"]) == (False, "/usr/share/ollama/.ollama/models", True)
    machine.write(f"{UNIT}.d/override.conf", "[Service]\nEnvironment='OLLAMA_MODELS=/data/models'\n")
    seen = machine.facts()["ollama"]
    assert (seen["unit"]["models_dir"], seen["unit"]["has_models"]) == ("/data/models", False)
    assert seen["dropins"] == ["override.conf"]


def test_what_a_unit_waits_for_and_may_write(machine: Machine) -> None:
    machine.write(UNIT, "[Service]\nUser=ollama\n")
    unit = machine.facts()["ollama"]["unit"]
    assert (unit["guarded"], unit["writable"]) == (False, ["/"])
    guard = 'ExecStartPre=+/bin/sh -c "exec nft list table inet llmops_ollama >/dev/null"\n'
    machine.write(UNIT, f"[Service]\n{guard}ProtectSystem=strict\nReadWritePaths=/usr/share/ollama -/srv/models\n")
    unit = machine.facts()["ollama"]["unit"]
    assert (unit["guarded"], unit["writable"]) == (True, ["/usr/share/ollama", "/srv/models"])
    machine.write(f"{UNIT}.d/override.conf", "[Service]\nExecStartPre=\nReadWritePaths=/data\n")
    unit = machine.facts()["ollama"]["unit"]
    assert (unit["guarded"], unit["writable"][-1]) == (False, "/data")


def test_the_note_of_a_run_that_was_ended(machine: Machine) -> None:
    assert machine.facts()["ollama"]["way_back"] == {}
    noted = {"version": "0.13.5", "current": "0.13.5", "url": "http://127.0.0.1:11434", "files": []}
    for text in ("", "[]", '{"version": "0.13.5"'):
        machine.write("etc/ollama/way-back.json", text)
        assert machine.facts()["ollama"]["way_back"] == {}
    machine.write("etc/ollama/way-back.json", json.dumps(noted))
    assert machine.facts()["ollama"]["way_back"] == noted


def test_a_masked_unit(machine: Machine) -> None:
    machine.link(UNIT, "/dev/null")
    assert machine.facts()["ollama"]["unit"]["masked"] is True


def test_environment_of_a_unit_and_all_its_dropins(machine: Machine) -> None:
    machine.write("usr/lib/systemd/system/ollama.service", "[Service]\nEnvironment=A=1 B=2\n")
    machine.write(DROPIN, '[Service]\nEnvironment="OLLAMA_HOST=0.0.0.0:11434"\nEnvironment="X=100%%"\n')
    machine.write(f"{UNIT}.d/override.conf", "[Service]\nEnvironment=OLLAMA_HOST=127.0.0.1 \\\n  B=3\n")
    machine.write("run/systemd/system/ollama.service.d/override.conf", "[Service]\nEnvironment=B=hidden\n")
    machine.write(
        f"{UNIT}.d/20-file.conf", "[Service]\nEnvironmentFile=-/etc/ollama/ollama.env\nEnvironmentFile=/gone\n"
    )
    machine.write(f"{UNIT}.d/notes.txt", "[Service]\nEnvironment=B=no\n")
    machine.write("etc/ollama/ollama.env", "# one\nMY_TOKEN='secret one'\nHTTPS_PROXY=http://me:pa55@proxy:3128\n")
    seen = machine.facts()["ollama"]
    assert seen["unit"]["environment"] == {
        "A": "1", "B": "3", "OLLAMA_HOST": "127.0.0.1", "X": "100%", "MY_TOKEN": "***",
        "HTTPS_PROXY": "http://***@proxy:3128",
    }  # fmt: skip
    assert seen["unit"]["overrides"] == {
        "OLLAMA_HOST": "127.0.0.1", "B": "3", "MY_TOKEN": "***", "HTTPS_PROXY": "http://***@proxy:3128",
    }  # fmt: skip
    folder = "/etc/systemd/system/ollama.service.d"
    assert seen["unit"]["overridden_in"] == {
        "OLLAMA_HOST": f"{folder}/override.conf", "B": f"{folder}/override.conf",
        "MY_TOKEN": "/etc/ollama/ollama.env", "HTTPS_PROXY": "/etc/ollama/ollama.env",
    }  # fmt: skip
    assert seen["dropins"] == ["20-file.conf", "override.conf"]
    assert "pa55" not in json.dumps(seen) and "secret one" not in json.dumps(seen)


def test_what_wins_over_ours_although_it_comes_before(machine: Machine) -> None:
    machine.write(
        DROPIN, '[Service]\nEnvironment="OLLAMA_HOST=127.0.0.1:11434"\nEnvironmentFile=/etc/ollama/secrets.env\n'
    )
    machine.write("etc/ollama/secrets.env", "HTTPS_PROXY=http://me:pa55@proxy\n")
    machine.write(
        f"{UNIT}.d/05-site.conf", "[Service]\nEnvironment=OLLAMA_HOST=0.0.0.0\nEnvironmentFile=/etc/site.env\n"
    )
    unit = machine.facts()["ollama"]["unit"]
    assert (unit["overrides"], unit["overridden_in"]) == ({}, {})
    machine.write("etc/site.env", "OLLAMA_HOST=0.0.0.0\n")
    unit = machine.facts()["ollama"]["unit"]
    assert unit["overrides"] == {"OLLAMA_HOST": "0.0.0.0"}
    assert unit["overridden_in"] == {"OLLAMA_HOST": "/etc/site.env"}


def test_a_drop_in_that_empties_the_environment(machine: Machine) -> None:
    machine.write(DROPIN, '[Service]\nEnvironment="OLLAMA_HOST=127.0.0.1:11434"\n')
    machine.write(f"{UNIT}.d/override.conf", "[Service]\nEnvironment=\nEnvironment=OLLAMA_MODELS=/data\n")
    unit = machine.facts()["ollama"]["unit"]
    assert unit["overrides"] == {"OLLAMA_HOST": "", "OLLAMA_MODELS": "/data"}


def test_settings_that_the_server_was_not_started_with(machine: Machine) -> None:
    machine.write(UNIT, ours(BODY))
    machine.write(DROPIN, '[Service]\nEnvironment="OLLAMA_KEEP_ALIVE=1h"\nEnvironment="HTTPS_PROXY=http://u:new@p:1"\n')
    running = {
        "HOME": "/usr/share/ollama", "OLLAMA_KEEP_ALIVE": "1h", "HTTPS_PROXY": "http://u:new@p:1", "PATH": "/bin",
        "INVOCATION_ID": "ab",
    }  # fmt: skip
    serve(machine, running)
    seen = machine.facts()["ollama"]
    assert seen["unit"]["pending"] == []
    assert (seen["pid"], seen["active"], seen["enabled"]) == (812, True, True)
    assert seen["running_env"] == {
        "HOME": "/usr/share/ollama", "OLLAMA_KEEP_ALIVE": "1h", "HTTPS_PROXY": "http://***@p:1",
    }  # fmt: skip
    # A password alone, one that is gone from the files, one that is new: the names are all that leaves the host.
    serve(machine, {**running, "HTTPS_PROXY": "http://u:old@p:1", "OLLAMA_DEBUG": "1", "OLLAMA_KEEP_ALIVE": "5m"})
    seen = machine.facts()["ollama"]
    assert seen["unit"]["pending"] == ["HTTPS_PROXY", "OLLAMA_DEBUG", "OLLAMA_KEEP_ALIVE"]
    assert "old" not in json.dumps(seen)


def test_a_specifier_is_not_taken_for_a_difference(machine: Machine) -> None:
    machine.write(UNIT, ours(BODY + "Environment=OLLAMA_MODELS=%h/models\n"))
    serve(machine, {"HOME": "/usr/share/ollama", "OLLAMA_MODELS": "/usr/share/ollama/models"})
    assert machine.facts()["ollama"]["unit"]["pending"] == []


def test_files_that_systemd_has_not_read_yet(machine: Machine) -> None:
    machine.write(UNIT, ours(BODY))
    serve(machine, {"HOME": "/usr/share/ollama"})
    assert machine.facts()["ollama"]["unit"]["reload"] is False
    serve(machine, {"HOME": "/usr/share/ollama"}, NeedDaemonReload="yes")
    assert machine.facts()["ollama"]["unit"]["reload"] is True


# -- the store -----------------------------------------------------------------


def test_the_store_and_the_way_to_it(machine: Machine) -> None:
    machine.write("etc/passwd", f"ollama:x:998:997::/usr/share/ollama:/bin/false\nme:x:{os.getuid()}:0::/:/bin/sh\n")
    machine.write("etc/group", f"ollama:x:997:\nvideo:x:44:ollama,ann\nmine:x:{os.getgid()}:\n")
    (machine.root / "srv/big/models").mkdir(parents=True)
    (machine.root / "srv/big").chmod(0o750)
    seen = machine.facts(ollama_models_dir="/srv/big/models")["ollama"]
    assert seen["models_dir"]["blocked"] == "/srv/big"
    assert (seen["models_dir"]["exists"], seen["models_dir"]["owner"], seen["models_dir"]["group"]) == (
        True,
        "me",
        "mine",
    )
    assert seen["user"] == {
        "name": "ollama", "exists": True, "uid": 998, "gid": 997, "group": "ollama", "home": "/usr/share/ollama",
    }  # fmt: skip
    (machine.root / "srv/big").chmod(0o751)
    (machine.root / "srv/big/models").chmod(0o700)  # the store itself is put right by the role
    seen = machine.facts(ollama_models_dir="/srv/big/models")["ollama"]["models_dir"]
    assert (seen["blocked"], seen["mode"]) == ("", "0700")


def test_a_store_behind_a_link(machine: Machine) -> None:
    machine.write("etc/passwd", "ollama:x:998:997::/usr/share/ollama:/bin/false\n")
    (machine.root / "data/deep/models").mkdir(parents=True)
    (machine.root / "data/deep").chmod(0o700)
    machine.link("srv/models", "../data/deep/models")
    seen = machine.facts(ollama_models_dir="/srv/models")["ollama"]["models_dir"]
    assert (seen["path"], seen["realpath"], seen["exists"]) == ("/srv/models", "/data/deep/models", True)
    assert seen["blocked"] == "/data/deep"  # and not /srv, through which nobody has to pass
    machine.link("srv/later", "../data/later")
    assert machine.facts(ollama_models_dir="/srv/later/models")["ollama"]["models_dir"]["realpath"] == (
        "/data/later/models"
    )


def test_a_member_of_the_group_may_pass(machine: Machine) -> None:
    machine.write("etc/passwd", "ollama:x:998:997::/usr/share/ollama:/bin/false\n")
    machine.write("etc/group", f"ollama:x:997:\nstorage:x:{os.getgid()}:ollama\n")
    (machine.root / "srv/big").mkdir(parents=True)
    (machine.root / "srv/big").chmod(0o710)
    if os.getgid() == os.stat(machine.root / "srv/big").st_gid:
        assert machine.facts(ollama_models_dir="/srv/big/models")["ollama"]["models_dir"]["blocked"] == ""
    machine.write("etc/group", "ollama:x:997:\n")
    assert machine.facts(ollama_models_dir="/srv/big/models")["ollama"]["models_dir"]["blocked"] == "/srv/big"


# -- firewall and container ----------------------------------------------------


def test_the_marker_in_our_table(machine: Machine) -> None:
    machine.program("usr/sbin/nft", "table inet llmops_ollama {\n\tchain rules_9f86d081884c {\n\t}\n\tchain input {\n")
    assert machine.facts()["ollama"]["firewall"]["table"] == ""  # no file of ours: nobody is asked
    assert [argv for argv in machine.calls if "nft" in argv[0]] == []
    machine.write("etc/ollama/firewall.nft", "table inet llmops_ollama {}\n")
    seen = machine.facts()["ollama"]
    assert (seen["firewall"]["table"], seen["nft"]) == ("9f86d081884c", True)
    assert (
        seen["files"]["/etc/ollama/firewall.nft"]["sha256"]
        == hashlib.sha256(b"table inet llmops_ollama {}\n").hexdigest()
    )
    machine.answers["/usr/sbin/nft"] = (1, "Error: No such file or directory\n")
    assert machine.facts()["ollama"]["firewall"]["table"] == ""


def test_other_firewalls(machine: Machine) -> None:
    machine.units(
        firewalld={"ActiveState": "active"}, ollama_firewall={"ActiveState": "active", "UnitFileState": "enabled"}
    )
    machine.write("etc/ufw/ufw.conf", "# ENABLED=yes\nENABLED=no\n")
    firewall = machine.facts()["ollama"]["firewall"]
    nobody: dict[str, list[str]] = {"addresses": [], "interfaces": []}
    assert firewall == {"firewalld": True, "ufw": False, "table": "", "enabled": True, "let_in": nobody}
    machine.write("etc/ufw/ufw.conf", "ENABLED=yes\n")
    assert machine.facts()["ollama"]["firewall"]["ufw"] is False  # removed, and its settings left behind
    machine.program("usr/sbin/ufw")
    assert machine.facts()["ollama"]["firewall"]["ufw"] is True


def one(name: str, state: str = "running", **labels: str) -> dict[str, Any]:
    keys = {key: f"com.docker.compose.project.{key}" for key in ("working_dir", "config_files")}
    said = {"com.docker.compose.project": "llmops-ollama", "llmops.stamp": f"of-{name}"}
    said.update({keys.get(key, f"com.docker.compose.{key}"): value for key, value in labels.items()})
    return {"Names": [f"/{name}"], "Labels": said, "State": state, "Image": "ollama/ollama:0.17.4"}


def container(machine: Machine, listed: list[dict[str, Any]], home: str = "/opt/ollama") -> dict[str, Any]:
    host = ollama.Host(str(machine.root), 1.0, machine.run)
    return ollama.OllamaFacts(host, home, "/m", 11434, "ollama")._container(listed)


def test_the_container_of_our_project(machine: Machine) -> None:
    old, here = one("old", "exited", working_dir="/opt/ollama"), one("new", working_dir="/opt/ollama")
    assert container(machine, [old, here]) == {
        "name": "new", "running": True, "image": "ollama/ollama:0.17.4", "stamp": "of-new",
    }  # fmt: skip
    assert container(machine, [old])["running"] is False
    assert container(machine, [{"Labels": None}]) == {"name": "", "running": False, "image": "", "stamp": ""}


@pytest.mark.parametrize(
    ("labels", "is_ours"),
    [
        ({}, False),
        ({"working_dir": "/opt/ollama"}, True),
        ({"working_dir": "/opt/ollama/../ollama/"}, True),
        ({"working_dir": "/root", "config_files": "/root/x.yaml,/opt/ollama/compose.yaml"}, True),
        ({"working_dir": "/data/ollama"}, True),  # where the home leads
        ({"working_dir": "/opt/ollama-ui"}, False),
        ({"working_dir": "/opt", "config_files": "/opt/compose.yaml"}, False),
        ({"working_dir": "/opt/ollama", "project": "ollama"}, False),
    ],
)
def test_a_project_that_only_has_the_name(machine: Machine, labels: dict[str, str], is_ours: bool) -> None:
    (machine.root / "data/ollama").mkdir(parents=True)
    machine.link("opt/ollama", "../data/ollama")
    assert (container(machine, [one("it", **labels)])["name"] == "it") is is_ours
