# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ollama_info over a server that says what a test tells it to, and units and containers as systemctl and docker have
them."""

from __future__ import annotations

import json
import os
import pathlib
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils import _docker_cli
from ansible_collections.llmops.stack.plugins.module_utils import _ollama_info as info
from ansible_collections.llmops.stack.plugins.module_utils._files import account
from ansible_collections.llmops.stack.plugins.modules import ollama_info as module
from ansible_collections.llmops.stack.tests.unit.servers.scripted import Reply, Request, Scripted, as_json

Run = Callable[..., dict[str, Any]]

DIGEST = "e0979632db5a88d1a53884cb2a941772d10ff5d055aabaa6801c4e36f3a6c2d7"
TIME = "time=2026-11-25T18:44:02.570Z level=INFO source=x.go:1"
LOG = [
    f'{TIME} msg="server config" env="map[HTTPS_PROXY:http://bob:pw@proxy:1 OLLAMA_MODELS:/none OLLAMA_HOST:http://x]"',
    f'{TIME} msg="inference compute" id=GPU-0 library=CUDA compute=12.0 name=CUDA0 description="RTX 5090" '
    'total="31.4 GiB" available="30.9 GiB"',
    f'{TIME} msg="vram-based default context" total_vram="31.4 GiB" default_num_ctx=32768',
]  # fmt: skip
UNIT = {
    "LoadState": "loaded", "ActiveState": "active", "SubState": "running", "Result": "success", "NRestarts": "0",
    "ExecMainStatus": "0", "ExecMainCode": "0", "MainPID": "0", "InvocationID": "1f2e",
}  # fmt: skip
CRASHING = {"ActiveState": "activating", "SubState": "auto-restart", "ExecMainCode": "1", "ExecMainStatus": "1"}
NVIDIA = {"vendor": "nvidia", "driver": "nvidia", "nodes": [], "driver_version": "575.1"}
GPU = {"nvidia_smi": {"found": True, "rc": 0, "error": ""}, "nvidia_driver": "575.1", "uvm": True, "kfd": False}


class Host:
    """systemctl and journalctl of a made-up host."""

    def __init__(self) -> None:
        self.unit: dict[str, str] | None = dict(UNIT)
        self.head = list(LOG)
        self.tail: list[str] = []
        self.restarts = 0  # more of them with each look
        self.asked: list[list[str]] = []

    def run(self, argv: list[str], timeout: float = 5.0) -> tuple[int, str]:
        self.asked.append(argv)
        if argv[0] == "journalctl":
            return 0, "\n".join(self.tail)
        if self.unit is None:
            return 127, ""
        said = dict(self.unit)
        if self.restarts:
            said["NRestarts"] = str(self.restarts)
            self.restarts += 1
        return 0, "\n".join(f"{name}={value}" for name, value in said.items())


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host()
    monkeypatch.setattr(info, "run_command", made.run)
    monkeypatch.setattr(info, "_head", lambda argv: list(made.head))
    monkeypatch.setattr(module, "INTERVAL", 0.02)
    monkeypatch.setattr(module, "STOPPED_FOR", 0.05)
    return made


class Ollama:
    """The answers of a server; a test changes them."""

    def __init__(self) -> None:
        self.versions = ["0.17.4"]  # one after the other, the last for ever
        self.answers: dict[str, Reply] = {
            "/api/tags": as_json({"models": [{"name": "deepseek-r1:1.5b", "digest": DIGEST, "size": 1117322768}]}),
            "/api/ps": as_json({"models": []}),
            "/api/show": as_json({"capabilities": ["completion", "thinking"]}),
        }

    def answer(self, request: Request) -> Reply:
        if request.path == "/api/version" and "/api/version" not in self.answers:
            return as_json({"version": self.versions.pop(0) if len(self.versions) > 1 else self.versions[0]})
        return self.answers[request.path]


@pytest.fixture
def ollama() -> Ollama:
    return Ollama()


@pytest.fixture
def url(ollama: Ollama) -> Iterator[str]:
    with Scripted(ollama.answer).running() as server:
        yield server.url


@pytest.fixture
def nobody() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def ask(run_module: Run, host: Host) -> Run:
    return lambda url, **options: run_module("ollama_info", url=url, **{"deadline": 0, "fail": False, **options})


class TestServer:
    def test_what_it_is_and_has(self, ask: Run, url: str, ollama: Ollama) -> None:
        loaded = {
            "name": "deepseek-r1:1.5b",
            "size": 2000,
            "size_vram": 1500,
            "context_length": 4096,
            "expires_at": "2026",
        }
        ollama.answers["/api/ps"] = as_json({"models": [loaded]})
        found = ask(url, expect_version="v0.17.4", gpus=[NVIDIA], gpu=GPU)
        assert (found["ok"], found["problems"], found["changed"], found["version"]) == (True, [], False, "0.17.4")
        assert found["url"] == url
        assert found["models"] == [
            {
                "name": "deepseek-r1:1.5b", "digest": DIGEST, "size": 1117322768, "loaded": True, "gpu_share": 0.75,
                "context_length": 4096, "expires_at": "2026", "capabilities": ["completion", "thinking"],
            }
        ]  # fmt: skip
        assert found["settings"]["HTTPS_PROXY"] == "http://***@proxy:1"
        assert (found["compute"][0]["library"], found["default_context"]) == ("CUDA", 32768)
        assert (found["gpu"]["decided"], found["gpu"]["ok"]) == ("nvidia", True)
        assert "75% on the GPU" in found["gpu"]["causes"][0]
        assert found["service"] == {"state": "active", "sub": "running", "result": "success", "restarts": 0}
        assert "pw" not in json.dumps(found)

    def test_capabilities_that_the_list_has_are_not_asked_for(self, ask: Run, url: str, ollama: Ollama) -> None:
        model = {"name": "a:1", "capabilities": ["embedding"], "details": {"context_length": 512}}
        ollama.answers["/api/tags"] = as_json({"models": [model]})
        ollama.answers["/api/show"] = Reply(500, "no")
        (found,) = ask(url)["models"]
        assert (found["capabilities"], found["loaded"], found["gpu_share"]) == (["embedding"], False, None)
        assert found["context_length"] == 512

    def test_a_model_without_weights_can_do_nothing(self, ask: Run, url: str, ollama: Ollama) -> None:
        ollama.answers["/api/show"] = as_json({"error": "model 'a' not found"}, status=404)
        assert ask(url)["models"][0]["capabilities"] == []

    def test_a_model_in_memory_that_is_no_longer_listed(self, ask: Run, url: str, ollama: Ollama) -> None:
        ollama.answers["/api/ps"] = as_json({"models": [{"name": "gone:1", "size": 10, "size_vram": 0}]})
        assert [(one["name"], one["loaded"]) for one in ask(url)["models"]] == [
            ("deepseek-r1:1.5b", False),
            ("gone:1", True),
        ]

    def test_it_waits_for_the_wanted_version(self, ask: Run, url: str, ollama: Ollama) -> None:
        ollama.versions = ["0.13.5", "0.13.5", "0.17.4"]
        assert ask(url, expect_version="0.17.4", deadline=10)["ok"]

    def test_check_mode_looks_too(self, ask: Run, url: str) -> None:
        assert ask(url, check=True)["version"] == "0.17.4"

    def test_without_systemd_the_server_alone_is_asked(self, ask: Run, url: str, host: Host) -> None:
        host.unit = None
        found = ask(url)
        assert (found["ok"], found["service"], found["settings"], found["log_tail"]) == (True, {}, {}, [])
        assert [argv[0] for argv in host.asked] == ["systemctl"]


class TestProblems:
    def test_another_version(self, ask: Run, url: str) -> None:
        (problem,) = ask(url, expect_version="0.18.0", deadline=0.1)["problems"]
        assert problem.startswith(
            f"Ollama 0.17.4 answers at {url} and 0.18.0 was expected. Unit ollama.service is running."
        )
        assert "systemctl restart ollama" in problem

    def test_another_server_than_the_units(self, ask: Run, url: str, host: Host) -> None:
        assert host.unit
        host.unit.update(ActiveState="inactive", SubState="dead")
        (problem,) = ask(url, expect_version="0.18.0")["problems"]
        assert "another server answers" in problem

    def test_the_right_version_from_somewhere_else(self, ask: Run, url: str, host: Host) -> None:
        assert host.unit
        host.unit.update(ActiveState="inactive", SubState="dead")
        (problem,) = ask(url)["problems"]
        assert "but not from where it should run" in problem
        host.unit.update(LoadState="not-found")
        assert ask(url)["ok"]

    def test_refused_with_the_last_words(self, ask: Run, nobody: str, host: Host) -> None:
        assert host.unit
        host.unit.update(CRASHING)
        host.restarts = 1
        host.tail = ["Error: mkdir /x: permission denied: ensure path elements are traversable"]
        found = ask(nobody, deadline=30)  # and it does not wait for that
        (problem,) = found["problems"]
        assert problem.startswith(
            f"{nobody} refuses connections. Unit ollama.service ends and is started again and again"
        )
        assert "It said last: 'Error: mkdir /x: permission denied" in problem
        assert found["log_tail"] == host.tail
        assert found["service"]["restarts"] >= 4

    @pytest.mark.parametrize(
        ("unit", "text"),
        [
            ({"ActiveState": "failed", "Result": "exit-code", "ExecMainCode": "1", "ExecMainStatus": "203"},
             "has failed (exit-code, its program ended with status 203)"),
            ({"ActiveState": "failed", "Result": "oom-kill", "ExecMainCode": "2", "ExecMainStatus": "9"},
             "has failed (oom-kill, its program ended by signal 9)"),
            ({"ActiveState": "inactive", "SubState": "dead"}, "is not running"),
        ],
    )  # fmt: skip
    def test_a_dead_unit_is_not_waited_for(
        self, ask: Run, nobody: str, host: Host, unit: dict[str, str], text: str
    ) -> None:
        assert host.unit
        host.unit.update(unit)
        (problem,) = ask(nobody, deadline=30)["problems"]
        assert f"Unit ollama.service {text}" in problem
        assert "systemctl restart ollama" in problem

    def test_a_unit_that_there_never_was(self, ask: Run, nobody: str, host: Host) -> None:
        assert host.unit
        host.unit.update(LoadState="not-found", ActiveState="inactive")
        (problem,) = ask(nobody, deadline=30)["problems"]
        assert problem.endswith(
            "Unit ollama.service does not exist on this host. The role llmops.stack.ollama creates it."
        )

    def test_a_hang(self, ask: Run, url: str, ollama: Ollama) -> None:
        ollama.answers["/api/version"] = Reply(hang=True)
        (problem,) = ask(url, timeout=0.2)["problems"]
        assert "accepts connections but does not answer within 0.2 s. The server hangs." in problem

    def test_no_ollama(self, ask: Run, url: str, ollama: Ollama) -> None:
        ollama.answers["/api/version"] = as_json({"hello": 1})
        assert "is no Ollama" in ask(url)["problems"][0]

    def test_a_dangling_link_is_named(self, ask: Run, url: str, ollama: Ollama, tmp_path: pathlib.Path) -> None:
        link = tmp_path / "manifests" / "registry.ollama.ai" / "library" / "x" / "latest"
        link.parent.mkdir(parents=True)
        link.symlink_to("/nowhere")
        ollama.answers["/api/tags"] = as_json({"error": "stat x: no such file or directory"}, status=500)
        found = ask(url, models_dir=str(tmp_path))
        assert f"{link} is a link that leads nowhere" in found["problems"][0]
        assert (found["ok"], found["version"], found["models"]) == (False, "0.17.4", [])

    def test_a_broken_list_without_the_store(self, ask: Run, url: str, ollama: Ollama) -> None:
        ollama.answers["/api/tags"] = as_json({"error": "stat x"}, status=500)
        assert "find -xtype l" in ask(url)["problems"][0]

    def test_it_fails_with_the_sentence(self, ask: Run, nobody: str, failed: type[Exception]) -> None:
        with pytest.raises(failed, match="refuses connections"):
            ask(nobody, fail=True)

    @pytest.mark.parametrize("options", [{"url": "ftp://x"}, {"timeout": 0}, {"deadline": -1}])
    def test_bad_options(self, ask: Run, failed: type[Exception], options: dict[str, Any]) -> None:
        with pytest.raises(failed, match="must"):
            ask(**{"url": "http://x", **options})


class TestGpu:
    def test_a_log_that_comes_late(self, ask: Run, url: str, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        heads = [LOG[:1], LOG]
        monkeypatch.setattr(info, "_head", lambda argv: heads.pop(0))
        assert ask(url)["gpu"]["decided"] == "nvidia"

    def test_a_silent_cpu_fails_where_a_gpu_was_wanted(
        self, ask: Run, url: str, host: Host, failed: type[Exception]
    ) -> None:
        host.head = [LOG[0], f'{TIME} msg="inference compute" id=cpu library=cpu name=cpu total="1.0 GiB"']
        facts = {"gpus": [NVIDIA], "gpu": {**GPU, "uvm": False}}
        found = ask(url, expect_gpu="nvidia", **facts)
        assert (
            "should compute on the NVIDIA GPU and computes on the CPU. /dev/nvidia-uvm is missing"
            in found["problems"][0]
        )
        with pytest.raises(failed, match="nvidia-uvm"):
            ask(url, expect_gpu="nvidia", fail=True, **facts)
        reported = ask(url, fail=True, **facts)
        assert (reported["ok"], reported["gpu"]["fallback"]) == (True, True)

    def test_a_server_that_is_down_is_one_problem(self, ask: Run, nobody: str) -> None:
        found = ask(nobody, expect_gpu="nvidia", gpus=[NVIDIA], gpu=GPU)
        assert len(found["problems"]) == 1
        assert found["gpu"]["decided"] == "unknown"


class TestUnit:
    def test_the_log_is_that_of_the_present_run(self, monkeypatch: pytest.MonkeyPatch, host: Host) -> None:
        asked: list[list[str]] = []
        monkeypatch.setattr(info, "_head", asked.append)
        unit = info.place("ollama.service", "")
        unit.look()
        unit.head()
        assert asked[0][0] == "journalctl"
        assert asked[0][-1] == "_SYSTEMD_INVOCATION_ID=1f2e"

    def test_what_its_process_may_open(self, tmp_path: pathlib.Path, host: Host) -> None:
        """A process of user 990 with the group of one node only, with a /dev that lacks another."""
        assert host.unit
        host.unit["MainPID"] = "7"
        process = tmp_path / "7"
        release = tmp_path / "release"
        for folder in (process / "root" / "dev", release / "bin", release / "lib" / "ollama" / "cuda_v13"):
            folder.mkdir(parents=True)
        (process / "exe").symlink_to(release / "bin" / "ollama")
        nodes = [tmp_path / name for name in ("open", "closed")]
        for node, mode in zip(nodes, (0o666, 0o600)):
            node.touch()
            node.chmod(mode)
        shown = process / "root" / str(nodes[0]).lstrip("/")
        shown.parent.mkdir(parents=True)
        shown.touch()
        (process / "status").write_text(
            "Name:\tollama\nUid:\t4990\t4990\t4990\t4990\nGid:\t4990\t4990\t0\t0\nGroups:\t44\n"
        )
        unit = info._Unit("ollama.service", proc=str(tmp_path))
        unit.look()
        found = unit.evidence([{"nodes": [str(node) for node in nodes]}])
        assert found["libraries"] == ["cuda_v13"]
        assert found["denied"] == ([str(nodes[1])] if os.stat(nodes[1]).st_uid != 4990 else [])
        assert found["hidden"] == [str(nodes[1])]
        assert (found["user"], found["container"]) == ("uid 4990", False)

    def test_a_group_opens(self, tmp_path: pathlib.Path) -> None:
        node = tmp_path / "node"
        node.touch()
        node.chmod(0o660)
        group = node.stat().st_gid
        who = account(4990, group)
        assert info._may(str(node), who)
        assert not info._may(str(node), who._replace(groups={group + 1}))
        assert info._may(str(node), account(0, group + 1))
        assert info._may(str(tmp_path / "missing"), who)

    def test_a_log_is_not_read_to_its_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(info, "HEAD_LINES", 3)
        assert info._head(["sh", "-c", "yes line"]) == ["line"] * 3
        assert info._head(["no-such-program-anywhere"]) == []


class Docker(_docker_cli.Docker):
    """The docker command line over a table of answers."""

    def __init__(self, **answers: tuple[int, str, str]) -> None:
        super().__init__()
        self.answers = answers

    def run(
        self,
        arguments: list[str],
        timeout: float,
        stdin: str | None = None,
        merged: bool = False,
        env: dict[str, str] | None = None,
    ) -> tuple[int, str, str]:
        return self.answers[arguments[0]]


def container(state: dict[str, Any], **more: Any) -> str:
    return json.dumps([{"State": state, "RestartCount": 0, "Config": {"Image": "ollama/ollama:0.17.4"}, **more}])


class TestContainer:
    @pytest.mark.parametrize(
        ("state", "running", "gone", "says"),
        [
            ({"Status": "running", "Running": True}, True, False, "is running"),
            ({"Status": "exited", "ExitCode": 137, "OOMKilled": True}, False, True, "killed for lack of memory"),
            ({"Status": "created", "Error": "could not select device driver"}, False, True, "could not select device"),
            ({"Status": "restarting", "ExitCode": 1}, False, False, "again and again"),
        ],
    )
    def test_states(self, state: dict[str, Any], running: bool, gone: bool, says: str) -> None:
        seen = info._Container("ollama", Docker(inspect=(0, container(state), ""))).look()
        assert (seen.running, seen.gone) == (running, gone)
        assert says in seen.says

    def test_none(self) -> None:
        answer = (1, "[]", "Error: No such container: ollama")
        seen = info._Container("ollama", Docker(inspect=answer)).look()
        assert (seen.gone, seen.says) == (True, "does not exist on this host")

    def test_an_engine_that_is_down(self) -> None:
        answer = (1, "[]", "Cannot connect to the Docker daemon at unix:///var/run/docker.sock.")
        seen = info._Container("ollama", Docker(inspect=answer)).look()
        assert (seen.gone, "Cannot connect" in seen.says) == (False, True)

    @pytest.mark.parametrize(
        ("host", "runtimes", "smi", "expected"),
        [
            ({}, {"runc": {}}, (0, "", ""), {"devices": False, "toolkit": False}),
            ({"DeviceRequests": [{"Driver": "nvidia"}]}, {"runc": {}, "nvidia": {}}, (0, "GPU 0", ""),
             {"devices": True, "toolkit": True, "smi": {"rc": 0, "error": ""}}),
            ({"DeviceRequests": [{"Driver": "nvidia"}]}, {"runc": {}, "nvidia": {}},
             (255, "Failed to initialize NVML", ""),
             {"devices": True, "toolkit": True, "smi": {"rc": 255, "error": "Failed to initialize NVML"}}),
        ],
    )  # fmt: skip
    def test_what_it_was_given(
        self, host: dict[str, Any], runtimes: dict[str, Any], smi: tuple[int, str, str], expected: dict[str, Any]
    ) -> None:
        inspected = container({"Status": "running", "Running": True}, HostConfig=host)
        answers = {"inspect": (0, inspected, ""), "info": (0, json.dumps({"Runtimes": runtimes}), ""), "exec": smi}
        one = info._Container("ollama", Docker(**answers))
        one.look()
        assert one.evidence([NVIDIA]) == {"container": True, "rocm_image": False, **expected}
        assert one.evidence([]) == {"container": True}
