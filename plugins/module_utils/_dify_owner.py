# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Dify's rules for the account of its owner, which newer releases enforce without naming the field. Pure."""

from __future__ import annotations

import re

__all__ = ["ADMIN_PASSWORD", "NAME_LENGTH", "PASSWORD_RULE", "UNTRIED", "is_email", "is_name", "is_password"]

# Names in dify_env's file of secrets: the owner's password, and a copy of it for as long as Dify was never sent it.
ADMIN_PASSWORD = "ADMIN_PASSWORD"  # noqa: S105 - the name of one
UNTRIED = "ADMIN_PASSWORD_UNTRIED"

NAME_LENGTH = 30
PASSWORD_RULE = "8 characters or more, with letters and digits"  # noqa: S105 - what one is like
_EMAIL = re.compile(r"[\w.!#$%&'*+\-/=?^`{|}~]+@([\w-]+\.)+[A-Za-z]{2,}")
_PASSWORD = re.compile(r"(?=.*[a-zA-Z])(?=.*\d).{8,}")


def is_email(text: str) -> bool:
    return bool(_EMAIL.fullmatch(text))


def is_password(text: str) -> bool:
    return bool(_PASSWORD.fullmatch(text))


def is_name(text: str) -> bool:
    return 0 < len(text) <= NAME_LENGTH
