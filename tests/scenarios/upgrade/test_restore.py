"""A backup put back onto another, empty host; and what is refused before anything is changed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import node
import pytest
import seed as seeds
from machine import ROOT, Machine, Run
from node import HOME, MACHINE, on_node
from state import State
from test_backup import RELEASE, backup, made

sys.path.insert(0, str(ROOT / "tests" / "world"))

from _nodes import remove

COPY = "/root/backup"
SECOND = os.environ.get("LLMOPS_SECOND_NODE", "restore1=trixie:18229")

pytestmark = [pytest.mark.at(RELEASE), pytest.mark.long]


class Copied:
    """The backup of the first node in a folder of a second one that has nothing."""

    def __init__(self) -> None:
        self.machine = Machine(SECOND.partition("=")[0], MACHINE.scenario)
        self.on = self.machine.on

    def restore(self, *options: str, **variables: Any) -> Run:
        given = {"dify_version": RELEASE, "dify_restore_from": COPY, **variables}
        return self.machine.play("playbooks/restore.yml", *options, **given)

    def copy(self, folder: str) -> None:
        self.on(f"rm -rf {COPY} && mkdir -m 0700 {COPY}")
        read = ["docker", "exec", MACHINE.container, "tar", "-C", folder, "-cf", "-", "."]
        write = ["docker", "exec", "-i", self.machine.container, "tar", "-C", COPY, "-xf", "-"]
        with subprocess.Popen(read, stdout=subprocess.PIPE) as reading:
            subprocess.run(write, stdin=reading.stdout, check=True, timeout=120)

    def serves(self) -> None:
        """Everything that the first node's people do, here: the helpers speak to the node that their process is for."""
        program = f"import pathlib, seed; seed.grown(seed.load(pathlib.Path({str(seeds.FILE)!r})), {RELEASE!r})"
        done = self._here(program)
        assert done.returncode == 0, done.stderr[-4000:]

    def state(self) -> str:
        done = self._here(
            "import state; one = state.State.now(); print(sorted(one.files.items()), sorted(one.plugins))"
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return done.stdout.strip()

    def _here(self, program: str) -> subprocess.CompletedProcess[str]:
        folder = ROOT / "tests" / "scenarios"
        path = os.pathsep.join([str(folder), str(folder / "upgrade"), os.environ.get("PYTHONPATH", "")])
        env = {**os.environ, "LLMOPS_NODE": self.machine.name, "PYTHONPATH": path}
        return subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def copied(sown: seeds.Seed) -> Iterator[Copied]:
    there = Copied()
    remove(there.machine.name)  # with what its engine would start again
    world = [sys.executable, str(ROOT / "tests" / "world" / "world.py"), "up", "--dify", RELEASE, "--node", SECOND]
    subprocess.run(world, check=True, timeout=600)
    yield there
    remove(there.machine.name)


@pytest.fixture
def fresh(seed: seeds.Seed, copied: Copied) -> Copied:
    """A whole backup, beside a host without Docker."""
    if not copied.on(f"ls {COPY} 2>/dev/null || true"):
        copied.copy(made(backup()))
    return copied


class TestBeforeAnythingIsChanged:
    @pytest.fixture(autouse=True)
    def nothing_changed(self, fresh: Copied) -> Iterator[None]:
        yield
        assert fresh.on(f"ls -d {HOME} /usr/bin/docker /etc/docker 2>/dev/null || true") == ""

    def refused(self, fresh: Copied, *words: str, **variables: Any) -> None:
        run = fresh.restore(**variables)
        assert run.status != 0
        for word in (fresh.machine.name, *words):
            assert word in run.message, run.message

    def test_no_word_which(self, fresh: Copied) -> None:
        self.refused(fresh, "dify_restore_from must name", dify_restore_from="")

    def test_a_folder_that_is_not_there(self, fresh: Copied) -> None:
        self.refused(fresh, "/root/nowhere", "no such folder", dify_restore_from="/root/nowhere")

    def test_a_flipped_byte(self, fresh: Copied) -> None:
        flip = "import sys; b = bytearray(sys.stdin.buffer.read()); b[5000] ^= 1; sys.stdout.buffer.write(b)"
        fresh.on(f'cd {COPY} && python3 -c "{flip}" < dify.dump > other && mv other dify.dump')
        try:
            self.refused(fresh, "dify.dump is damaged", "Copy the whole folder")
        finally:
            fresh.on(f'cd {COPY} && python3 -c "{flip}" < dify.dump > other && mv other dify.dump')

    def test_a_missing_file(self, fresh: Copied) -> None:
        fresh.on(f"mv {COPY}/secrets.json /root/")
        try:
            self.refused(fresh, "secrets.json is missing")
        finally:
            fresh.on(f"mv /root/secrets.json {COPY}/")

    def test_another_release(self, fresh: Copied) -> None:
        self.refused(fresh, f"is of Dify {RELEASE}, and dify_version is 1.14.1", dify_version="1.14.1")

    def test_a_check_run_tells(self, fresh: Copied) -> None:
        run = fresh.restore("--check")
        assert run.status == 0, run.message
        assert f"would put {COPY} back" in " ".join(run.output.split())


def test_a_host_that_has_data(seed: seeds.Seed) -> None:
    before, started = State.now(), node.containers()
    folder = made(backup())
    run = MACHINE.play("playbooks/restore.yml", dify_version=RELEASE, dify_restore_from=folder)
    assert run.status != 0 and "This host has a Dify already" in run.message, run.message
    assert node.containers() == started
    before.is_kept()


class TestOntoAnEmptyHost:
    def test_all_of_it_is_there_and_works(self, fresh: Copied) -> None:
        run = fresh.restore()
        assert run.status == 0, f"{run.message}\n{run.output[-4000:]}"
        now = State.now()
        assert fresh.state() == f"{sorted(now.files.items())} {sorted(now.plugins)}"
        fresh.serves()
        assert fresh.on(f"cat {HOME}/secrets.json") == on_node(f"cat {HOME}/secrets.json")

    def test_a_second_restore_changes_nothing(self, fresh: Copied) -> None:
        again = fresh.restore()
        assert (again.status, again.changed) == (0, 0), f"{again.message}\n{again.output[-4000:]}"
        site = fresh.machine.play("site.yml", dify_version=RELEASE)
        assert (site.status, site.changed) == (0, 0), f"{site.message}\n{site.output[-4000:]}"
        fresh.serves()

    def test_its_own_backup_is_the_same(self, fresh: Copied) -> None:
        """What was restored can be backed up, with the keys that fit."""
        run = fresh.machine.play("playbooks/backup.yml", dify_version=RELEASE)
        assert run.status == 0, run.message
        keys = fresh.on(f"grep -A4 '\"keys\"' {HOME}/backups/*/manifest.json")
        assert '"checked": 2' in keys and '"missing": []' in keys and '"foreign": []' in keys


class TestInterrupted:
    @pytest.fixture
    def emptied(self, fresh: Copied) -> Copied:
        """The host without its data, as its operator would empty it: the files of the release are still there."""
        if fresh.on(f"readlink {HOME}/current", check=False) == "":
            run = fresh.restore()
            assert run.status == 0, run.message
        fresh.on(
            f"docker compose --project-directory {HOME}/current -p dify down --timeout 5 2>&1;"
            f"rm -rf {HOME}/volumes.before; mv {HOME}/volumes {HOME}/volumes.before"
        )
        return fresh

    def test_what_a_killed_restore_has_left_is_begun_anew_and_not_started_on(self, emptied: Copied) -> None:
        killer = (ROOT / "tests" / "scenarios" / "upgrade" / "killer.py").read_text(encoding="utf-8")
        files = f"{HOME}/volumes/app/storage/privkeys"
        script = f'until [ -d {files} ]; do sleep 0.02; done; exec python3 -c "$0" {HOME} backup 60'
        command = ["docker", "exec", emptied.machine.container, "sh", "-c", script, killer]
        killing = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        run = emptied.restore()
        try:
            said = killing.communicate(timeout=60)[0]
        except subprocess.TimeoutExpired:
            killing.kill()
            said = "nobody was killed"
        assert said.startswith("killed"), f"{said}: {run.message or run.output[-4000:]}"
        assert run.status != 0, run.output[-4000:]
        site = emptied.machine.play("site.yml", dify_version=RELEASE)
        assert site.status != 0 and "was begun here and is not finished" in site.message, site.message
        again = emptied.restore()
        assert again.status == 0, f"{again.message}\n{again.output[-4000:]}"
        emptied.serves()
