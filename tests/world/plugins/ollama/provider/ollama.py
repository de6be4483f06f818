# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The provider itself has no credentials: each model carries the address of its server."""

from __future__ import annotations

from collections.abc import Mapping

from dify_plugin import ModelProvider


class OllamaProvider(ModelProvider):
    def validate_provider_credentials(self, credentials: Mapping) -> None:
        pass
