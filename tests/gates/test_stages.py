"""`make test` and `make test-long` run every scenario: a file that no stage names is run by nobody."""

from __future__ import annotations

import pathlib
import runpy
import shlex
import subprocess
from typing import NamedTuple

import pytest
from _pytest.mark.expression import Expression

ROOT = pathlib.Path(__file__).resolve().parents[2]
STAGES: dict[str, list[str]] = runpy.run_path(str(ROOT / "tools" / "stages"), run_name="stages")["STAGES"]
FOLDERS = ("tests/scenarios", "tests/monitoring")
SCENARIOS = [str(file.relative_to(ROOT)) for folder in FOLDERS for file in (ROOT / folder).rglob("test_*.py")]


class Call(NamedTuple):
    """One call of pytest by a stage."""

    paths: tuple[str, ...]
    ignored: tuple[str, ...]
    marks: str

    def runs(self, file: str, marks: set[str]) -> bool:
        def below(tops: tuple[str, ...]) -> bool:
            return any(file == top or file.startswith(f"{top}/") for top in tops)

        if not below(self.paths) or below(self.ignored):
            return False

        def marked(name: str, /, **unused: str | int | bool | None) -> bool:
            return name in marks

        return not self.marks or Expression.compile(self.marks).evaluate(marked)


def calls(stages: list[str]) -> list[Call]:
    found = []
    for stage in stages:
        command = ["make", "--no-print-directory", "--dry-run", *stage.split()]
        said = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
        for words in (shlex.split(line) for line in said.splitlines() if line.startswith("pytest ")):
            ignored = tuple(word.split("=", 1)[1] for word in words if word.startswith("--ignore="))
            marks = words[words.index("-m") + 1] if "-m" in words else ""
            paths = tuple(word for word in words[1:] if (ROOT / word).exists())
            found.append(Call(paths, ignored, marks))
    return found


@pytest.fixture(scope="module")
def long() -> list[Call]:
    return calls(STAGES["test-long"])


@pytest.mark.parametrize("file", SCENARIOS)
@pytest.mark.parametrize("mark", ["", "long", "short"])
def test_a_stage_runs_it(long: list[Call], file: str, mark: str) -> None:
    if mark and f"mark.{mark}" not in (ROOT / file).read_text(encoding="utf-8"):
        mark = ""
    assert any(call.runs(file, {mark}) for call in long), f"no stage runs what is marked {mark or 'with nothing'} here"


def test_the_short_ones_are_part_of_make_test() -> None:
    upgrade = [file for file in SCENARIOS if file.startswith("tests/scenarios/upgrade/")]
    assert all(any(call.runs(file, {"short"}) for call in calls(["upgrade"])) for file in upgrade)
    assert "upgrade" in STAGES["test"]
