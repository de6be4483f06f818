# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Credentials in URLs: proxies and mirrors may carry a name and password, or a token alone, before their host."""

from __future__ import annotations

import re
import typing as t

__all__ = ["logins", "mask_urls"]

# Up to the last @ before the path: a password may hold an @ itself.
_USERINFO = re.compile(r"(?<=://)[^/\s]+@")


def mask_urls(value: t.Any) -> t.Any:
    """The same structure with whatever stands before the host of a URL blanked."""
    if isinstance(value, str):
        return _USERINFO.sub("***@", value)
    if isinstance(value, list):
        return [mask_urls(item) for item in value]
    if isinstance(value, dict):
        return {key: mask_urls(item) for key, item in value.items()}
    return value


def logins(text: str) -> set[str]:
    """What C(no_log_values) must hold for a text with URLs. With the @, so that a short name blanks no other word."""
    return set(_USERINFO.findall(text))
