"""States of the finished node, dify_health asked in each of them, and its answers held against what was done."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._dify_health import CHECKS
from node import NODE, ROOT, play

SWITCH = [sys.executable, str(ROOT / "tests" / "world" / "world.py"), "switch", NODE]
DEFAULTS: dict[str, Any] = {
    "secrets_file": "/opt/dify/secrets.json",
    "project": "dify",
    "deadline": 0,
    "fail": False,
}
# What the healthcheck of a container that was started again says for up to half a minute: mended, not broken.
STARTING = re.compile(r"(\w+ is still starting(; |\.$))+")


@dataclasses.dataclass(frozen=True)
class State:
    """Something to break on the node, how to mend it, and which checks find what and advise what (regular expressions).

    `switch` goes to a stand-in (world.py switch), the scripts run on the node, the options are dify_health's.
    """

    name: str
    finds: dict[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    provoke: str = ""
    mend: str = ""
    switch: tuple[str, ...] = ()
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Answer:
    """One answer of dify_health: its checks by name, in their order."""

    checks: dict[str, dict[str, Any]]

    @property
    def failed(self) -> list[str]:
        return [
            name
            for name, check in self.checks.items()
            if check["status"] == "failed" and not STARTING.fullmatch(check["detail"])
        ]

    def seconds(self, without: Collection[str]) -> float:
        """When the last check was over, each begun as soon as those before it were."""
        over: dict[str, float] = {}
        for check in CHECKS:
            before = [over[name] for name in check.needs + check.after]
            over[check.name] = max(before, default=0.0) + self.checks[check.name]["seconds"]
        return max(seconds for name, seconds in over.items() if name not in without)

    def found(self, expected: dict[str, tuple[str, str]]) -> None:
        """Exactly these checks failed, each for this reason and with this advice."""
        assert self.failed == list(expected), self
        for name, (detail, advice) in expected.items():
            check = self.checks[name]
            assert re.search(detail, check["detail"]), f"{name}: {detail!r} is not in {check}"
            assert re.search(advice, check["advice"]), f"{name}: {advice!r} is not in {check}"

    def __repr__(self) -> str:
        return "\n".join(
            f"{one['status']} {one['name']} ({one['seconds']:.1f} s): {one['detail']} {one['advice']}"
            for one in self.checks.values()
        )


def answers(states: Sequence[State], **variables: str) -> dict[str, Answer]:
    """What dify_health says in each of these states, one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "answers.json"
        run = play(
            "tests/scenarios/dify/broken_states.yml",
            states=[dataclasses.asdict(state) for state in states],
            switch=SWITCH,
            defaults=DEFAULTS,
            answers_file=str(file),
            **variables,
        )
        assert run.status == 0, run.output[-6000:]
        found = json.loads(file.read_text(encoding="utf-8"))
    return {name: Answer({check["name"]: check for check in checks}) for name, checks in found.items()}
