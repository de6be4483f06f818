# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The benchmark of the monitoring plugins: most of its measurements decide, and they are taken in pairs."""

from __future__ import annotations

import pytest
from ansible_collections.llmops.stack.tests.bench import hook, hook_child


@pytest.mark.parametrize(
    ("measured", "good", "made"),
    [
        ([True, True], True, 2),
        ([False, False], False, 2),
        ([False, True, True], True, 3),
        ([True, False, False], False, 3),
    ],
)
def test_two_failures_of_three_are_not_hidden(measured: list[bool], good: bool, made: int) -> None:
    left = iter(measured)
    assert hook.in_most(lambda: next(left)) is good
    assert len(measured) - len(list(left)) == made


def test_what_slows_both_calls_of_a_pair_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the call beside it tells what the machine did at that moment."""
    times = {"plain": 0, "seen": 0}

    def drain(which: str) -> float:
        times[which] += 1
        return 1000.0 * (times[which] % 7) + (50.0 if which == "seen" else 0.0)

    monkeypatch.setattr(hook_child, "drain", drain)
    monkeypatch.setattr(hook_child.time, "sleep", lambda _seconds: None)
    medians, p99s = hook_child.paired(lambda: "plain", lambda: "seen")
    assert set(medians) == set(p99s) == {50.0}
    assert len(medians) == hook_child.ROUNDS and times["plain"] == hook_child.ROUNDS * hook_child.PAIRS
