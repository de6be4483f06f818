# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""How far a run is, in one line for people. Pure: what _ollama_progress writes goes in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["is_same", "progress_line"]

_UNITS = ("B", "kB", "MB", "GB", "TB")


def progress_line(host: str, progress: Mapping[str, Any], still: float = 0.0) -> str:
    """C(node1: deepseek-r1:1.5b 43% of 1.1 GB, 12 MB/s, 52 s left).

    Args:
        host: Who it is about.
        progress: What the run says.
        still: Seconds for which it has been saying the same; 0 while something moves.
    """
    parts = [f"{host}: {progress.get('model') or 'models'}"]
    phase = str(progress.get("phase") or "")
    total, completed = _number(progress.get("total")), _number(progress.get("completed"))
    if phase and phase != "pulling":
        parts[0] += f" {phase}"
    if total:
        parts[0] += f" {min(100, int(completed * 100 / total))}% of {_size(total)}"
    speed, left = _number(progress.get("speed")), total - completed
    if still:
        parts.append(f"no progress for {_duration(still)}")
    elif speed >= 1 and left > 0:
        parts += [f"{_size(speed)}/s", f"{_duration(left / speed)} left"]
    return ", ".join(parts)


def is_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether nothing has moved between the two."""
    return all(one.get(name) == other.get(name) for name in ("model", "digest", "completed", "phase"))


def _size(amount: float) -> str:
    unit = 0
    while amount >= 999.5 and unit < len(_UNITS) - 1:
        amount /= 1000
        unit += 1
    return f"{amount:.1f} {_UNITS[unit]}" if unit and amount < 9.95 else f"{amount:.0f} {_UNITS[unit]}"


def _duration(seconds: float) -> str:
    whole = max(1, round(seconds))
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{round(whole / 60)} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _number(value: Any) -> float:
    try:
        return max(0.0, float(value or 0))
    except (TypeError, ValueError):
        return 0.0
