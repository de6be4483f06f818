# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""tools/stages: what runs beside what, what waits, and how one failure ends all of it. Its `make` is a script here."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "tools" / "stages"

LONG = f"30.{os.getpid()}"  # seconds, and a number to know the process by
# A stage is called name, or name:other, which ends only once the other one has begun.
MAKE = f"""#!/bin/sh
echo "+${{1%:*}}" >>"$SAID"
case "$1" in
  *:*) for i in $(seq 200); do ! grep -qx "+${{1#*:}}" "$SAID" || break; sleep 0.05; done ;;
esac
case "$1" in
  fails*) echo "why it failed"; exit 2 ;;
  again) echo '{{"passed": 1, "rerun": 2}}' >"$LLMOPS_TALLY/1.json" ;;
  counts) echo '{{"passed": 3, "failed": 1, "error": 0, "skipped": 2}}' >"$LLMOPS_TALLY/1.json"; exit 2 ;;
  stubborn) trap '' INT; for i in 1 2 3 4 5 6 7 8 9; do sleep 1; done ;;
  priority) sleep 0.5; echo "$(nice) $(cat /proc/self/autogroup 2>/dev/null)" >"$SAID.priority" ;;
  slow) sleep {LONG} & wait; exit 0 ;;
  *) echo '{{"passed": 1, "failed": 0, "error": 0, "skipped": 0}}' >"$LLMOPS_TALLY/1.json" ;;
esac
echo "-${{1%:*}}" >>"$SAID"
"""


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """As they are for a program in the foreground; the program's own are taken back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def tool(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    loader = importlib.machinery.SourceFileLoader("stages_under_test", str(PROGRAM))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader.exec_module(module)
    (tmp_path / "bin").mkdir()
    make = tmp_path / "bin" / "make"
    make.write_text(MAKE)
    make.chmod(0o755)
    monkeypatch.setenv("PATH", f"{make.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SAID", str(tmp_path / "said"))
    for name in ("LANES", "KEEP_WORLD"):  # what whoever runs the tests has for himself
        monkeypatch.delenv(name, raising=False)
    for name in ("ROOT", "LOGS", "TALLY"):
        monkeypatch.setattr(module, name, tmp_path if name == "ROOT" else tmp_path / name.lower())
    (tmp_path / "logs").mkdir()
    return module


def said(tool: Any) -> list[str]:
    return (tool.ROOT / "said").read_text().split()


def left_over() -> str:
    found = subprocess.run(["pgrep", "-f", f"sleep {LONG}"], stdout=subprocess.PIPE, text=True, check=False)
    return found.stdout


def run(tool: Any, *plan: list[Any], lanes: int = 2) -> dict[str, str]:
    stages = tool.Stages(plan, lanes)
    stages.run()
    return {name: result.status for name, result in stages.results.items()}


def test_two_chains_at_a_time_each_in_its_order(tool: Any) -> None:
    found = run(tool, [tool.Chain(["a:c", "b:d"]), tool.Chain(["c:a", "d:b"]), tool.Chain(["e"])])
    assert list(found.values()) == ["ok"] * 5
    lines = said(tool)
    assert {lines[0], lines[1]} == {"+a", "+c"}
    assert lines.index("-a") < lines.index("+b") and lines.index("-c") < lines.index("+d")
    assert lines.index("+e") > min(lines.index("-b"), lines.index("-d")), "no third lane"


def test_one_lane_is_one_after_the_other(tool: Any) -> None:
    run(tool, [tool.Chain(["a", "b"]), tool.Chain(["c"])], lanes=1)
    assert said(tool) == ["+a", "-a", "+b", "-b", "+c", "-c"]


def test_a_chain_waits_for_what_it_needs_and_others_pass_it(tool: Any) -> None:
    chains = [tool.Chain(["world:lint"]), tool.Chain(["node"], after="world:lint"), tool.Chain(["lint", "sanity:node"])]
    run(tool, chains)
    lines = said(tool)
    assert lines.index("+lint") < lines.index("-world") < lines.index("+node") < lines.index("-sanity")


def test_the_next_list_has_no_company(tool: Any) -> None:
    run(tool, [tool.Chain(["a"]), tool.Chain(["b", "c"])], [tool.Chain(["bench"])])
    assert said(tool)[-2:] == ["+bench", "-bench"]


def test_a_quiet_chain_runs_beside_the_only_lane(tool: Any) -> None:
    found = run(tool, [tool.Chain(["a:lint", "b"]), tool.Chain(["lint:a", "sanity:b"], quiet=True)], lanes=1)
    assert list(found.values()) == ["ok"] * 4
    lines = said(tool)
    assert lines.index("-a") < lines.index("+b") and lines.index("+b") < lines.index("-sanity")


@pytest.mark.parametrize("quiet", [True, False])
def test_a_quiet_chain_yields_the_processors(tool: Any, quiet: bool) -> None:
    run(tool, [tool.Chain(["priority"], quiet=quiet)], lanes=1)
    nice, *session = (tool.ROOT / "said.priority").read_text().split()
    wanted = "19" if quiet else str(os.getpriority(os.PRIO_PROCESS, 0))
    assert nice == wanted
    assert not session or session[-1] == (wanted if quiet else "0")


def test_the_next_list_waits_for_a_quiet_chain(tool: Any) -> None:
    run(tool, [tool.Chain(["a"]), tool.Chain(["quiet:a"], quiet=True)], [tool.Chain(["bench"])])
    assert said(tool)[-2:] == ["+bench", "-bench"]


def test_a_quiet_chain_that_fails_ends_the_lane(tool: Any) -> None:
    found = run(tool, [tool.Chain(["slow", "b"]), tool.Chain(["fails:slow"], quiet=True)], lanes=1)
    assert found == {"slow": "stopped", "fails:slow": "failed"}


def test_a_failure_ends_the_other_lane_and_begins_nothing(tool: Any, capsys: pytest.CaptureFixture[str]) -> None:
    begun = time.monotonic()
    chains = [tool.Chain(["slow", "b"]), tool.Chain(["fails:slow", "d"]), tool.Chain(["e"])]
    stages = tool.Stages([chains, [tool.Chain(["f"])]], 2)
    stages.run()
    assert time.monotonic() - begun < 20
    assert {name: result.status for name, result in stages.results.items()} == {
        "slow": "stopped",
        "fails:slow": "failed",
    }
    assert sorted(said(tool)) == ["+fails", "+slow"]
    assert not left_over(), "nor what a stage had started"
    printed = capsys.readouterr().out
    assert "why it failed" in printed and "<== fails:slow: failed after" in printed
    table = tool.told(["slow", "fails:slow", "e"], stages.results, 1.0).splitlines()
    assert [line.split()[:2] for line in table[2:5]] == [["slow", "stopped"], ["fails:slow", "failed"], ["e", "not"]]


def test_who_waits_for_a_failed_stage_does_not_wait_for_ever(tool: Any) -> None:
    assert run(tool, [tool.Chain(["fails"]), tool.Chain(["a"], after="fails")]) == {"fails": "failed"}


def test_a_stage_that_does_not_listen_is_killed(tool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool, "PATIENCE", 0.5)
    found = run(tool, [tool.Chain(["stubborn"]), tool.Chain(["fails:stubborn"])])
    assert found == {"stubborn": "stopped", "fails:stubborn": "failed"}
    assert "-stubborn" not in said(tool)


def test_counts_are_those_of_each_stage(tool: Any) -> None:
    stages = tool.Stages([[tool.Chain(["a", "b", "counts"])]], 2)
    stages.run()
    table = tool.told(["a", "b", "counts"], stages.results, 12.0).splitlines()
    assert table[-1] == "5 passed, 1 failed, 2 skipped"
    assert table[-2].split()[-1] == "12"


def test_what_was_run_again_is_told(tool: Any) -> None:
    stages = tool.Stages([[tool.Chain(["again"])]], 1)
    stages.run()
    table = tool.told(["again"], stages.results, 1.0).splitlines()
    assert table[-2:] == ["run again after a failure, as the logs say: 2", "1 passed, 0 failed, 0 skipped"]


def test_a_failure_outside_pytest_counts(tool: Any) -> None:
    stages = tool.Stages([[tool.Chain(["fails"])]], 1)
    stages.run()
    assert stages.results["fails"].counts["failed"] == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing_behind(tool: Any, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a job in the background begins so
    monkeypatch.setattr(tool, "PLANS", {"test": [[tool.Chain(["world"]), tool.Chain(["slow"])]]})
    monkeypatch.setattr(tool, "STAGES", {"test": ["world", "slow"]})

    def interrupt() -> None:
        while "-world" not in said(tool) or "+slow" not in said(tool):
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    (tool.ROOT / "said").touch()
    threading.Thread(target=interrupt, daemon=True).start()
    assert tool.main("test") == 1
    assert sorted(said(tool)) == ["+slow", "+world", "+world-down", "-world", "-world-down"]
    assert not left_over()


def test_the_environment_says_how_many_lanes(tool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool, "PLANS", {"test": [[tool.Chain(["a"]), tool.Chain(["b"])]]})
    monkeypatch.setattr(tool, "STAGES", {"test": ["a", "b"]})
    monkeypatch.setenv("LANES", "1")
    assert tool.main("test") == 0
    assert said(tool) == ["+a", "-a", "+b", "-b"]


def test_every_chain_waits_for_a_stage_that_there_is(tool: Any) -> None:
    for plan in tool.PLANS.values():
        for chains in plan:
            stages = [stage for chain in chains for stage in chain.stages]
            assert len(set(stages)) == len(stages)
            for chain in chains:
                assert not chain.after or chain.after in stages
                assert chain.after not in chain.stages
