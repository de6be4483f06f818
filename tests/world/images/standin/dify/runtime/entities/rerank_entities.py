# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a rerank model answers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class RerankDocument:
    index: int
    text: str
    score: float


@dataclass
class RerankResult:
    model: str
    docs: list[RerankDocument]
