# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two fingerprints beside each other, and the statement that takes one."""

from __future__ import annotations

import pytest
from ansible_collections.llmops.stack.plugins.module_utils._dify_fingerprint import (
    TABLES,
    columns_of,
    compare,
    fingerprint_of,
    fingerprint_sql,
)

BEFORE = {
    "accounts": [2, "11"],
    "messages": [300003, "22"],
    "message_annotations": [1, "33"],
    "tenant_default_models": [3, "44"],
    "secrets": [5, "55"],
    "child_chunks": [0, "0"],
}


def changed(**items: list[object]) -> dict[str, list[object]]:
    return {**BEFORE, **items}


def test_the_same_is_the_same() -> None:
    assert compare(BEFORE, dict(BEFORE)) == []


def test_more_tables_are_no_loss() -> None:
    assert compare(BEFORE, changed(tags=[4, "1"])) == []


@pytest.mark.parametrize(
    ("after", "sentence"),
    [
        ({"messages": [300001, "21"]}, "messages: 300003 rows before, 300001 after"),
        ({"messages": [300004, "23"]}, "messages: 300003 rows before, 300004 after"),
        ({"accounts": [2, "12"]}, "accounts: as many rows as before (2), but not the same contents"),
        ({"secrets": [5, "56"]}, "secrets: as many rows as before (5), but not the same contents"),
    ],
)
def test_what_differs_is_said(after: dict[str, list[object]], sentence: str) -> None:
    for releases in ((), ("1.11.4", "1.16.0")):
        assert compare(BEFORE, changed(**after), *releases) == [sentence]


def test_a_table_that_is_gone() -> None:
    assert compare(BEFORE, {name: one for name, one in BEFORE.items() if name != "message_annotations"}) == [
        "message_annotations: 1 row before, and the table is gone"
    ]
    assert compare(BEFORE, {name: one for name, one in BEFORE.items() if name != "child_chunks"}) == []


@pytest.mark.parametrize(
    ("old", "new", "allowed"),
    [("1.11.4", "1.12.1", True), ("0.15.3", "1.16.0", True), ("1.12.0", "1.12.1", False), ("1.9.2", "1.11.4", False)],
)
def test_annotations_without_a_question_get_one_at_1_12_0(old: str, new: str, allowed: bool) -> None:
    assert (compare(BEFORE, changed(message_annotations=[1, "34"]), old, new) == []) is allowed
    # No release takes one away.
    assert compare(BEFORE, changed(message_annotations=[0, "0"]), old, new)


@pytest.mark.parametrize(
    ("old", "new", "allowed"), [("1.12.1", "1.13.3", True), ("1.13.3", "1.14.1", False), ("1.11.4", "1.12.1", False)]
)
def test_doubled_default_models_go_at_1_13_0(old: str, new: str, allowed: bool) -> None:
    assert (compare(BEFORE, changed(tenant_default_models=[2, "40"]), old, new) == []) is allowed
    assert compare(BEFORE, changed(tenant_default_models=[4, "40"]), old, new)


def test_new_names_of_model_types_may_merge_rows() -> None:
    after = changed(tenant_default_models=[2, "40"], secrets=[4, "50"])
    assert compare(BEFORE, after, legacy_types=True) == []
    assert len(compare(BEFORE, after)) == 2


def test_nothing_is_allowed_where_no_release_was_crossed() -> None:
    assert len(compare(BEFORE, changed(message_annotations=[1, "34"], tenant_default_models=[2, "40"]))) == 2


def test_a_release_without_any_table_has_an_empty_fingerprint() -> None:
    assert "WHERE false" in fingerprint_sql({})
    assert fingerprint_of([]) == {}


def test_columns_that_a_release_lacks_count_as_null() -> None:
    statement = fingerprint_sql(columns_of([("accounts", "id"), ("accounts", "name")]))
    assert "coalesce(\"name\"::text, '-') || '|' || '-'" in statement
    assert "messages" not in statement


def test_every_column_is_named_once() -> None:
    for table, wanted in TABLES.items():
        names = [name.rstrip("*%~") for name in wanted.split()]
        assert len(names) == len(set(names)), table
