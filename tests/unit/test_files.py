# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may do what with a file."""

from __future__ import annotations

import grp
import os
import pwd

import pytest
from ansible_collections.llmops.stack.plugins.module_utils import _files as files


@pytest.mark.parametrize(
    ("owner", "group", "mode", "bits", "granted"),
    [
        (7, 1, 0o400, files.READ, True),
        (7, 1, 0o044, files.READ, False),
        (7, 8, 0o070, files.READ, False),
        (1, 8, 0o040, files.READ, True),
        (1, 9, 0o040, files.READ, True),
        (1, 9, 0o004, files.READ, False),
        (1, 1, 0o004, files.READ, True),
        (1, 1, 0o440, files.READ, False),
        (1, 1, 0o005, files.READ | files.ENTER, True),
        (1, 1, 0o004, files.READ | files.ENTER, False),
        (1, 8, 0o660, files.READ | files.WRITE, True),
    ],
)
def test_bits(owner: int, group: int, mode: int, bits: int, granted: bool) -> None:
    seen = os.stat_result((0o100000 | mode, 0, 0, 1, owner, group, 0, 0, 0, 0))
    assert files.granted(seen, 7, {8, 9}, bits) is granted
    assert files.granted(seen, 0, set(), bits) is True


def test_an_account_has_its_own_groups_and_the_given_one(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = [grp.struct_group((name, "x", gid, members)) for name, gid, members in (
        ("render", 105, ["ollama"]), ("adm", 4, ["ann"]),
    )]  # fmt: skip
    monkeypatch.setattr(grp, "getgrall", lambda: groups)
    monkeypatch.setattr(
        pwd, "getpwuid", lambda uid: pwd.struct_passwd(("ollama", "x", uid, 997, "", "/", "/bin/false"))
    )
    assert files.account(998, 50) == files.Account(998, 50, frozenset({50, 105, 997}), "ollama")


def test_a_number_without_an_account() -> None:
    assert files.account(49901, 50) == files.Account(49901, 50, frozenset({50}), "uid 49901")
