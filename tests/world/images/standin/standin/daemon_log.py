# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The daemon's log, in the two formats it has had."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from standin.daemon_versions import Generation

_COLOURS = {"INFO": "34", "WARN": "33", "ERROR": "31", "PANIC": "31"}


class Log:
    def __init__(self, behaviour: Generation) -> None:
        self._structured = behaviour.structured_log

    def write(self, level: str, place: str, text: str, **fields: Any) -> None:
        if self._structured:
            stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            rest = "".join(f" {key}={_quoted(value)}" for key, value in fields.items())
            line = f"{stamp} {level} dify-plugin-daemon {place} {text}{rest}"
        else:
            rest = "".join(f": {value}" for value in fields.values())
            line = f"{time.strftime('%Y/%m/%d %H:%M:%S')} {place}: \x1b[{_COLOURS[level]}m[{level}]{text}{rest}\x1b[0m"
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def _quoted(value: Any) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(mark in text for mark in ' "\n=') else text
