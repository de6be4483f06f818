# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Messages, as a call takes and an answer gives them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class PromptMessageRole(Enum):
    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


@dataclass
class PromptMessage:
    role: PromptMessageRole
    content: Any = ""
    name: str | None = None


@dataclass
class AssistantPromptMessage:
    content: Any = ""
    tool_calls: list[Any] = field(default_factory=list)
    name: str | None = None
    role: PromptMessageRole = PromptMessageRole.ASSISTANT
