# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""What is said of an upgrade that did not end well: what happened, what serves now, where to look, what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["KILLED", "gone_back", "not_back", "not_finished", "sentence"]

KILLED = "The process that carried it out was killed, or the host went down."


def sentence(text: str) -> str:
    text = text.strip()
    return text if not text or text[-1] in ".!?" else f"{text}."


def _where(state: Mapping[str, Any]) -> str:
    backup = f", the backup from before it in {state['backup']}" if state.get("backup") else ""
    return f"Logs and journal are in {state['folder']}{backup}."


def _begin(state: Mapping[str, Any]) -> str:
    failed = state.get("failed") or {"step": state.get("step", ""), "cause": ""}
    titles = {one["id"]: one.get("title", "") for one in state["plan"]["steps"]}
    title = titles.get(failed["step"]) or ""
    step = f"{failed['step']} ({title})" if title else failed["step"] or "before its first step"
    cause = sentence(failed["cause"])
    return f"The change from Dify {state['from']} to {state['to']} failed at {step}: {cause}".strip()


def _kept(state: Mapping[str, Any]) -> str:
    """Where what people may have written is, when nginx was found open before the new release was proved."""
    notes = state.get("notes", {}).get("copy_databases", {})
    if not notes.get("written"):
        return ""
    names = " and ".join(sorted(notes.get("undone", {}).values()))
    return (
        f" nginx was found open, as after a restart of the host, so people may have used Dify {state['to']} before it "
        f"was proved: what they wrote is not lost, it is in {names} of the same server. Drop them if nobody needs them."
    )


def gone_back(state: Mapping[str, Any], trouble: str) -> str:
    """The old release is back; C(trouble) is what is wrong with it."""
    old = state["from"]
    if trouble:
        return (
            f"{_begin(state)} Everything was put back and Dify {old} was started with its data as it was, but it is "
            f"not well: {sentence(trouble)}{_kept(state)} {_where(state)} "
            "Mend that first; playbooks/verify.yml says when it is well."
        )
    return (
        f"{_begin(state)} Dify {old} serves again with its data as it was before; that was proved.{_kept(state)} "
        f"{_where(state)} Run site.yml again once the cause is gone, or set dify_version back to {old}."
    )


def not_back(state: Mapping[str, Any], error: str) -> str:
    """The way back failed, too."""
    copies = (state.get("notes", {}).get("copy_databases", {}).get("copies") or {}).items()
    names = "; ".join(f"that of {name} is {copy}, unless it has its name back already" for name, copy in copies)
    there = f" The databases from before are copied in the same server: {names}." if names else ""
    return (
        f"{_begin(state)} The way back to Dify {state['from']} failed as well: {sentence(error)} Nothing is lost, but "
        f"Dify may not serve now.{there} {_where(state)} Remove that cause and run site.yml again: it goes on going "
        "back."
    )


def not_finished(state: Mapping[str, Any], error: str) -> str:
    """The new release is proved, and something behind that failed."""
    return (
        f"Dify {state['to']} is proved and kept, but {state['step'] or 'the end'} of the change from {state['from']} "
        f"failed: {sentence(error)} {_where(state)} Run site.yml again: it finishes what is left."
    )
