# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""What an account may do with a file, as far as owner, group and mode tell."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Collection
from typing import NamedTuple

__all__ = ["ENTER", "READ", "WRITE", "Account", "account", "granted"]

READ, WRITE, ENTER = 0o4, 0o2, 0o1


class Account(NamedTuple):
    uid: int
    gid: int
    groups: Collection[int]
    name: str


def account(uid: int, gid: int) -> Account:
    """The account of a number, with this group and those that the host's tables have for it."""
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return Account(uid, gid, frozenset([gid]), f"uid {uid}")
    own = {one.gr_gid for one in grp.getgrall() if entry.pw_name in one.gr_mem}
    return Account(uid, gid, frozenset(own | {gid, entry.pw_gid}), entry.pw_name)


def granted(seen: os.stat_result, uid: int, groups: Collection[int], bits: int) -> bool:
    """Whether all of these bits are granted; the owner has what the owner has, also where others have more."""
    if uid == 0:
        return True
    shift = 6 if seen.st_uid == uid else 3 if seen.st_gid in groups else 0
    return (seen.st_mode >> shift) & bits == bits
