# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the READMEs quote is what the collection says: nobody is to search for a sentence that was reworded."""

from __future__ import annotations

import ast
import itertools
import pathlib
import re

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
SAYING = [
    *ROOT.glob("plugins/**/*.py"),
    *ROOT.glob("roles/*/files/**/*.py"),
    ROOT / "tools/ask",
]
HEAD = {"README.md": "| you see |", "README.zh-CN.md": "| 看到的话 |"}
VALUE = "\0"


def spoken(node: ast.AST) -> list[str]:
    """What an expression may say: its values are VALUE, and a choice of two texts is both."""
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else [VALUE]
    if isinstance(node, ast.FormattedValue):
        return spoken(node.value)
    if isinstance(node, ast.IfExp):
        return [*spoken(node.body), *spoken(node.orelse)]
    if isinstance(node, ast.JoinedStr):
        return ["".join(parts) for parts in itertools.product(*map(spoken, node.values))]
    return [VALUE]


def sentences() -> list[str]:
    found = {
        text
        for path in SAYING
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, (ast.Constant, ast.JoinedStr))
        for text in spoken(node)
    }
    return [*found, *(" ".join(path.read_text(encoding="utf-8").split()) for path in ROOT.glob("roles/*/[tv]*/*.yml"))]


def quotes(page: str) -> list[str]:
    """First cells of the table of troubles, without what is said about them in brackets."""
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(HEAD[page])) + 2
    rows = itertools.takewhile(lambda line: line.startswith("|"), lines[start:])
    return [re.sub(r"\s*[(\uff08].*[)\uff09]", "", row.split("|")[1]).strip() for row in rows]


def said(quote: str, texts: list[str]) -> bool:
    """`…` stands for what differs from run to run, and `…: ` goes on with what another function found. What is in
    backticks are words of another program.
    """
    for clause in re.sub(r"`[^`]*`(?:[,、]\s*)?", "", quote).split("…: "):
        parts = [part.strip() for part in clause.split("…")]
        pattern = re.compile(".{0,200}?".join(re.escape(part) for part in parts if part), re.DOTALL)
        if not any(pattern.search(text) for text in texts):
            return False
    return True


@pytest.mark.parametrize("page", HEAD)
def test_quoted_sentences_are_said(page: str) -> None:
    texts = sentences()
    assert len(quotes(page)) > 20
    assert [quote for quote in quotes(page) if not said(quote, texts)] == []


def test_both_readmes_quote_the_same() -> None:
    plain = [[re.sub(r"[`,、…\s]+", " ", quote) for quote in quotes(page)] for page in HEAD]
    assert plain[0] == plain[1]


def test_a_sentence_that_nobody_says_is_found_out() -> None:
    texts = sentences()
    assert said("No span of the chat reached the collector", texts)
    assert not said("No span of the chat reached the collectors", texts)
    assert not said("The provider does not accept …: the model server cannot be touched", texts)
    assert not said("The collector … is out, and spans wait in the processes that made them", texts)


def test_the_play_of_the_traceloop_role_is_that_of_the_site() -> None:
    """A shorter one, with the same roles in the same order and the same handed from one to the other."""
    text = (
        (ROOT / "roles/traceloop/README.md").read_text(encoding="utf-8").partition("```yaml\n")[2].partition("```")[0]
    )
    site = (ROOT / "playbooks/site.yml").read_text(encoding="utf-8")
    (short,) = yaml.safe_load(text)
    (full,) = (play for play in yaml.safe_load(site) if play["name"] == "Dify hosts")
    written = [role if isinstance(role, dict) else {"role": role} for role in short["roles"]]
    assert [role["role"] for role in written] == [role["role"] for role in full["roles"]]
    for mine, theirs in zip(written, full["roles"], strict=True):
        assert mine.items() <= theirs.items()
    given = {key for role in full["roles"] for key, value in role.items() if "__traceloop" in str(value)}
    assert given == {key for role in written for key in role} - {"role"}
    assert short["tasks"][0]["ansible.builtin.import_role"] == full["tasks"][0]["ansible.builtin.import_role"]
