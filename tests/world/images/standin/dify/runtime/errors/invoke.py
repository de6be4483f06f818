# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a model could not be called; `description` is what a user reads."""

from __future__ import annotations


class InvokeError(ValueError):
    def __init__(self, description: str | None = None) -> None:
        super().__init__(description or type(self).__name__)
        self.description = description


class InvokeConnectionError(InvokeError):
    pass


class InvokeServerUnavailableError(InvokeError):
    pass


class InvokeRateLimitError(InvokeError):
    pass


class InvokeAuthorizationError(InvokeError):
    pass


class InvokeBadRequestError(InvokeError):
    pass
