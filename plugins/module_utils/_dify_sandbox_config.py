# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""The sandbox's own configuration at release 1.13.3, whose image keeps its interpreters elsewhere.

A release never touches a configuration file that is there, so the C(python_path) that releases up to 1.13.2 shipped
stays in C(volumes/sandbox/conf/config.yaml) and names a file that the new image does not have: every code node fails
(langgenius/dify#36587). Only what is as those releases shipped it is changed, to what the new release ships; a path
that somebody wrote is left and said. Everything else in the file stays byte for byte.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from typing import NamedTuple

from ansible_collections.llmops.stack.plugins.module_utils._dify_release import SHIPPED_VOLUMES
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_context import Context, StepError

__all__ = ["Adapted", "adapt", "apply", "undo"]

_FILE = os.path.join("sandbox", "conf", "config.yaml")
# What releases up to 1.13.2 shipped; they had no nodejs_path, and a missing key is the image's own default.
_SHIPPED_BEFORE: Mapping[str, str] = {"python_path": "/usr/local/bin/python3", "nodejs_path": ""}
_KEPT = "sandbox-config.yaml"


class Adapted(NamedTuple):
    text: str
    changed: list[str]  # keys that got the new release's value
    foreign: list[str]  # "key: value" of those that nobody shipped


def adapt(text: str, shipped: str) -> Adapted:
    """The file's text with the interpreters of the new release. Pure, and the same again when done twice."""
    changed, foreign = [], []
    for key, before in _SHIPPED_BEFORE.items():
        line, wanted = _line(text, key), _line(shipped, key)
        have, want = _value(line), _value(wanted)
        if have == want:
            continue
        if have != before:
            foreign.append(f"{key}: {have}")
            continue
        if line and wanted:
            text = text.replace(line, wanted, 1)
        elif line:
            text = text.replace(line, "", 1)
        else:
            text = text + ("" if not text or text.endswith("\n") else "\n") + wanted
        changed.append(key)
    return Adapted(text, changed, foreign)


def apply(ctx: Context) -> None:
    """Give the sandbox of the new release interpreters that it has. The file as it was is among the evidence."""
    path = os.path.join(ctx.project.home, "volumes", _FILE)
    try:
        with open(os.path.join(ctx.project.folder(ctx.new), SHIPPED_VOLUMES, _FILE), encoding="utf-8") as file:
            shipped = file.read()
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError as exc:
        ctx.log(f"{exc.filename} is not there: nothing to adapt")
        return
    except (OSError, UnicodeDecodeError) as exc:
        raise StepError(f"The configuration of the sandbox, {path}, cannot be read ({exc}).") from None
    adapted = adapt(text, shipped)
    for one in adapted.foreign:
        ctx.log(f"{path} has {one}, which no release shipped; it is left as it is, check that the new image has it")
    if not adapted.changed:
        return
    kept = os.path.join(ctx.folder, _KEPT)
    if not os.path.exists(kept):
        _write(kept, text, os.stat(path))
    _write(path, adapted.text, os.stat(path))
    ctx.log(f"{path}: {' and '.join(adapted.changed)} as {ctx.new} ships them")


def undo(ctx: Context) -> None:
    """Put the file back, if apply() changed it."""
    path = os.path.join(ctx.project.home, "volumes", _FILE)
    kept = os.path.join(ctx.folder, _KEPT)
    try:
        with open(kept, encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        return
    _write(path, text, os.stat(kept))
    os.unlink(kept)


def _line(text: str, key: str) -> str:
    """The line of a top-level key with its end, or nothing. A comment that names the key is none."""
    found = re.search(rf"^{key}[ \t]*:.*(?:\n|\Z)", text, re.MULTILINE)
    return found[0] if found else ""


def _value(line: str) -> str:
    value = re.sub(r"\s+#.*", "", line.partition(":")[2]).strip()
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value


def _write(path: str, text: str, like: os.stat_result) -> None:
    """Whole or not at all, with the owner and the mode of the file that it takes the place of."""
    handle, name = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".config-")
    try:
        with open(handle, "w", encoding="utf-8") as file:
            os.fchmod(handle, like.st_mode & 0o7777)
            os.fchown(handle, like.st_uid, like.st_gid)
            file.write(text)
            file.flush()
            os.fsync(handle)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
