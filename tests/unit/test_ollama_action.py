# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action plugin of ollama_model in real runs of ansible-playbook: over a module that does what it is told, and over
the real one with a server that lists a store."""

from __future__ import annotations

import importlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from ansible_collections.llmops.stack.plugins.module_utils._ollama_line import is_same, progress_line
from ansible_collections.llmops.stack.tests.unit.servers.ollama_registry import Models
from ansible_collections.llmops.stack.tests.unit.servers.scripted import Reply, Request, Scripted, as_json

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Defers what takes time, then takes it, and says how far it is.
MODULE = """#!/usr/bin/python
import json, os, signal, time
from ansible.module_utils.basic import AnsibleModule

def main():
    module = AnsibleModule(argument_spec=dict(
        name=dict(type="str"), take=dict(type="float", default=0), die=dict(type="str", default=""),
        deadline=dict(type="float", default=30), secret=dict(type="str", no_log=True), fail=dict(type="bool"),
        defer=dict(type="bool", default=False), progress_file=dict(type="path")), supports_check_mode=True)
    wish, one = module.params, {"name": module.params["name"], "healed": []}
    if wish["take"] and wish["defer"]:
        module.warn("seen in the first run")
        module.exit_json(changed=False, deferred=True, models=[{**one, "healed": ["a link"]}], diff={"before": "0"})
    began = time.time()
    while time.time() - began < wish["take"] and not module.check_mode:
        part = (time.time() - began) / wish["take"]
        with open(wish["progress_file"] + ".new", "w") as file:
            json.dump({"model": wish["name"], "phase": "pulling", "completed": int(part * 1.1e9),
                       "total": 1100000000, "speed": 12000000, "eta": 5, "digest": ""}, file)
        os.replace(wish["progress_file"] + ".new", wish["progress_file"])
        time.sleep(0.2)
        if wish["die"] == "alone" and part > 0.3:
            os._exit(3)
        if wish["die"] == "with its job" and part > 0.3:
            os.kill(os.getppid(), signal.SIGKILL)  # not the group: Ansible may put only one of the two into it
            os._exit(3)
    if wish["take"]:
        module.warn("seen in the second run")
    if wish["fail"]:
        module.fail_json(msg="no: " + str(wish["secret"]), models=[one])
    module.exit_json(changed=wish["take"] > 0, models=[one], said=wish["secret"], deferred=False,
                     diff={"before": "1", "after": "2"})

main()
"""


class Playbook:
    """Runs tasks at a host "node1" that is this machine, with a home of its own."""

    def __init__(self, folder: pathlib.Path, collections: pathlib.Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir()
        self.tmp = str(folder / "tmp")
        self.counted = folder / "counted.json"
        (folder / "ansible.cfg").write_text("[defaults]\n")  # and no other one
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_REMOTE_TMP": self.tmp,
            "ANSIBLE_COLLECTIONS_PATH": str(collections),
            "ANSIBLE_CONFIG": str(folder / "ansible.cfg"),
            "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "tests" / "bench" / "callback_plugins"),
            "ANSIBLE_CALLBACKS_ENABLED": "bench_count",
            "BENCH_RESULT": str(self.counted),
        }

    def start(self, tasks: list[dict[str, Any]], *arguments: str, **play: Any) -> subprocess.Popen[str]:
        path = self.folder / "play.yml"
        path.write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, "tasks": tasks, **play}]))
        program = str(pathlib.Path(sys.executable).with_name("ansible-playbook"))
        variables = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        return subprocess.Popen(
            [program, "-i", "node1,", str(path), "-e", json.dumps(variables), *arguments],
            env=self.env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.folder,
        )

    def run(self, tasks: list[dict[str, Any]], *arguments: str, **play: Any) -> str:
        process = self.start(tasks, *arguments, **play)
        said, _nothing = process.communicate(timeout=120)
        assert process.returncode == 0, said
        return said

    def executions(self) -> dict[str, int]:
        """How often each module was executed, without what saves the result."""
        counted = json.loads(self.counted.read_text())["modules"]
        return {name: count for name, count in counted.items() if not name.endswith((".stat", ".copy"))}

    def result(self) -> dict[str, Any]:
        return json.loads((self.folder / "result.json").read_text())

    def leftovers(self) -> list[str]:
        """Files of jobs, where Ansible has its folder for them at all."""
        return [path.name for path in self.home.glob(".ansible_async/*")]

    def jobs(self) -> list[str]:
        """The programs of jobs that still run; their watchers notice within seconds and are no matter."""
        found = []
        for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
            try:
                command = path.read_bytes().decode(errors="replace")
            except OSError:
                continue
            if "AnsiballZ_ollama_model.py" in command and self.tmp in command and "async_wrapper" not in command:
                found.append(command)
        return found


def task(**options: Any) -> dict[str, Any]:
    return {"llmops.stack.ollama_model": options, "register": "result"}


SAVE = {"ansible.builtin.copy": {"content": "{{ result | to_json }}", "dest": "{{ playbook_dir }}/result.json"}}


@pytest.fixture
def stub(tmp_path: pathlib.Path) -> Playbook:
    collection = tmp_path / "collections" / "ansible_collections" / "llmops" / "stack"
    (collection / "plugins" / "modules").mkdir(parents=True)
    (collection / "plugins" / "modules" / "ollama_model.py").write_text(MODULE)
    for folder in ("action", "module_utils"):
        (collection / "plugins" / folder).symlink_to(ROOT / "plugins" / folder)
    return Playbook(tmp_path, tmp_path / "collections")


def lines(said: str) -> list[str]:
    return re.findall(r"^node1: .*$", said, re.MULTILINE)


class TestLine:
    def test_of_a_pull(self) -> None:
        progress = {
            "model": "deepseek-r1:1.5b",
            "phase": "pulling",
            "total": 1.1e9,
            "completed": 0.476e9,
            "speed": 12e6,
        }
        assert progress_line("node1", progress) == "node1: deepseek-r1:1.5b 43% of 1.1 GB, 12 MB/s, 52 s left"

    @pytest.mark.parametrize(
        ("progress", "line"),
        [
            ({"model": "m", "phase": "probing", "total": 0}, "m probing"),
            (
                {"model": "m", "phase": "hashing", "total": 4e10, "completed": 1e10, "speed": 1e8},
                "m hashing 25% of 40 GB, 100 MB/s, 5 min left",
            ),
            (
                {"model": "m", "phase": "pulling", "total": 1000, "completed": 0, "speed": 0, "eta": -1},
                "m 0% of 1.0 kB",
            ),
            ({"model": "m", "phase": "pulling", "total": 1000, "completed": 1000, "speed": 5}, "m 100% of 1.0 kB"),
            (
                {"model": "m", "phase": "pulling", "total": 9e12, "completed": 0, "speed": 1e8},
                "m 0% of 9.0 TB, 100 MB/s, 25 h 0 min left",
            ),
            ({"total": "x", "completed": None}, "models"),
        ],
    )
    def test_of_other_phases(self, progress: dict[str, Any], line: str) -> None:
        assert progress_line("n", progress) == f"n: {line}"

    def test_of_a_pull_that_stands_still(self) -> None:
        progress = {"model": "m", "phase": "pulling", "total": 1000, "completed": 430, "speed": 9}
        assert progress_line("n", progress, 31.0) == "n: m 43% of 1.0 kB, no progress for 31 s"
        assert is_same(progress, {**progress, "speed": 3})
        assert not is_same(progress, {**progress, "completed": 431})


class TestRun:
    def test_nothing_to_fetch_is_one_execution(self, stub: Playbook) -> None:
        said = stub.run([task(name="a", secret="hush"), SAVE], "-v")
        assert stub.executions() == {"llmops.stack.ollama_model": 1}
        assert lines(said) == []
        assert stub.result()["changed"] is False
        assert stub.leftovers() == []

    def test_a_pull_says_how_far_it_is_and_ends_as_a_direct_run_does(self, stub: Playbook) -> None:
        said = stub.run([task(name="big:1b", take=8, secret="hush"), SAVE], "--diff")
        found = lines(said)
        assert len(found) == 2, said  # at once, and after five seconds
        percents = [int(number) for number in re.findall(r"big:1b (\d+)% of 1\.1 GB, 12 MB/s, \d+ s left", said)]
        assert len(percents) == 2
        assert percents == sorted(percents)
        result = stub.result()
        assert result["changed"] is True
        assert result["said"] == "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"
        assert "hush" not in said
        # What the first run saw is kept.
        assert result["models"] == [{"name": "big:1b", "healed": ["a link"]}]
        assert result["diff"] == {"before": "0", "after": "2"}
        assert sorted(result["warnings"]) == ["seen in the first run", "seen in the second run"]
        assert not {"ansible_job_id", "finished", "started", "results_file", "stdout", "stderr"} & set(result)
        assert stub.leftovers() == []

    def test_a_failure_is_the_modules_own(self, stub: Playbook) -> None:
        said = stub.run([{**task(name="a", take=1, fail=True, secret="hush"), "ignore_errors": True}, SAVE])
        assert stub.result()["msg"] == "no: ********"
        assert stub.result()["models"] == [{"name": "a", "healed": ["a link"]}]
        assert "hush" not in said
        assert stub.leftovers() == []

    def test_no_log_shows_nothing(self, stub: Playbook) -> None:
        said = stub.run([{**task(name="hidden", take=2), "no_log": True}])
        assert lines(said) == []
        assert "hidden" not in said

    def test_check_mode_is_a_plain_run(self, stub: Playbook) -> None:
        stub.run([task(name="a", take=60)], "--check")
        assert stub.executions() == {"llmops.stack.ollama_model": 1}

    def test_loops_hosts_and_a_free_strategy(self, stub: Playbook) -> None:
        looped = {**task(name="{{ item }}", take=1), "loop": ["a", "b"]}
        said = stub.run([looped, SAVE], strategy="free")
        assert [one["models"][0]["name"] for one in stub.result()["results"]] == ["a", "b"]
        assert [line.split()[1] for line in lines(said)] == ["a", "b"]

    def test_an_operators_own_async_is_left_to_ansible(self, stub: Playbook) -> None:
        own = {**task(name="a", take=0), "async": 30, "poll": 1}
        stub.env["ANSIBLE_ASYNC_DIR"] = str(stub.home / "jobs")
        said = stub.run([own, SAVE])
        assert "ASYNC OK on node1" in said
        assert stub.result()["models"] == [{"name": "a", "healed": []}]
        assert stub.executions()["llmops.stack.ollama_model"] == 1

    @pytest.mark.parametrize(("callback", "stderr"), [("default", False), ("ansible.posix.jsonl", True)])
    def test_programs_get_their_output_undisturbed(
        self, monkeypatch: pytest.MonkeyPatch, callback: str, stderr: bool
    ) -> None:
        plugin = importlib.import_module("ansible_collections.llmops.stack.plugins.action.ollama_model")
        monkeypatch.setattr(plugin.C, "DEFAULT_STDOUT_CALLBACK", callback)
        assert plugin._Screen("node1", False).stderr is stderr


class TestEnd:
    @pytest.mark.parametrize(
        ("die", "text"),
        [("alone", "ended without a result"), ("with its job", "is gone without a result")],
    )
    def test_a_job_that_dies_is_a_sentence(self, stub: Playbook, die: str, text: str) -> None:
        stub.run([{**task(name="a", take=3, die=die), "ignore_errors": True}, SAVE])
        assert text in stub.result()["msg"]
        assert stub.result()["msg"].startswith("The job that pulls on node1 ")
        assert stub.leftovers() == []

    def test_a_timeout_of_the_task_ends_the_job(self, stub: Playbook) -> None:
        # Long enough for the job to have started on a busy machine: where its result will be is known from then on.
        stub.run([{**task(name="a", take=60), "timeout": 15, "ignore_errors": True}, SAVE])
        assert "imed out" in stub.result()["msg"] or "timeout" in stub.result()["msg"]
        assert stub.jobs() == []
        assert stub.leftovers() == []

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_ends_the_job(self, stub: Playbook, number: signal.Signals) -> None:
        process = stub.start([task(name="a", take=60)])
        until = time.monotonic() + 30
        while not list(stub.home.glob(".ansible_async/*.progress")) and time.monotonic() < until:
            time.sleep(0.2)
        assert len(stub.jobs()) == 1
        process.send_signal(number)
        process.communicate(timeout=30)
        until = time.monotonic() + 10
        while (stub.jobs() or stub.leftovers()) and time.monotonic() < until:
            time.sleep(0.2)
        assert stub.jobs() == []
        assert stub.leftovers() == []


@pytest.fixture
def server(tmp_path: pathlib.Path) -> Iterator[Scripted]:
    """As much of Ollama as an import needs: it lists what is in the store."""
    manifests = tmp_path / "store" / "manifests"

    def answer(request: Request) -> Reply:
        if request.path == "/api/version":
            return as_json({"version": "0.17.4"})
        names = [f"{path.parent.name}:{path.name}" for path in manifests.glob("*/*/*/*")]
        return as_json({"models": [{"name": name, "capabilities": ["completion"]} for name in names]})

    with Scripted(answer).running() as scripted:
        yield scripted


def test_the_real_module_imports_once(tmp_path: pathlib.Path, server: Scripted) -> None:
    bundle, store = Models(tmp_path / "bundle"), Models(tmp_path / "store")
    bundle.put("small:1b", b"GGUF" + bytes(100_000))
    folder = tmp_path / "playbook"
    folder.mkdir()
    playbook = Playbook(folder, ROOT / "collections")
    wish = task(name="small:1b", url=server.url, models_dir=str(store.folder), bundle=str(bundle.folder))
    playbook.run([wish, SAVE])
    first = playbook.result()
    assert first["models"][0]["action"] == "imported"
    assert first["models"][0]["verified"] is True
    assert first["changed"] is True
    assert store.manifest_path("small:1b").read_bytes() == bundle.manifest_path("small:1b").read_bytes()
    assert playbook.executions() == {"llmops.stack.ollama_model": 2, "ansible.legacy.async_status": 1}
    assert playbook.leftovers() == []
    playbook.run([wish, SAVE])
    assert playbook.result()["changed"] is False
    assert playbook.result()["models"][0]["verified"] is True
    assert playbook.executions() == {"llmops.stack.ollama_model": 1}
