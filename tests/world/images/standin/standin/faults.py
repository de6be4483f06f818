# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults on command: a JSON object in a file, read whenever somebody asks, so that a test can switch them at any time.

    {"migration": "fail", "start": "slow:30", "api": "hang", "head": "0123456789ab"}

A key may be limited to one process of an image: "worker.start" beats "start" in the process that runs as "worker". It
may be limited to one release as well, because the file outlives an upgrade: "1.12.1:start", "1.12.1:worker.start".

    start      crash | slow:<s> | unhealthy   every program (api, worker, beat, web, ...), before it listens; an
                                      unhealthy one lives and never listens
    api        500 | hang | slow:<s>  every request, /health included
    login      locked                 every login: 429, as for a day after seven wrong passwords
    web        500 | hang | slow:<s>
    install    fail:<text> | slow:<s> the installer of a plugin's environment; too slow is killed, as a silent one is
               lies                   every installation ends with "success", and nothing is listed as installed
    plugin     dead | crashloop | hang | slow:<s>  every plugin; the light one can do more, see daemon_plugin.py
    migration  fail                   in the last revision, in the words and with the exit code of the release
               silent | loud          the same, with exit 0 and no word, and with exit 1 and a sentence
               skip | lies            nothing is done; "skipped", and "successful!", both with exit 0
               late                   done, but the lock is gone: LockNotOwnedError, exit 1
               slow:<s> | hang        in the last revision, inside the transaction
               kill[:<revision>]      dies in it (the last one without a name) as by SIGKILL: the lock stays
    head       <revision>             written as the database's head after a successful migration
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

NEVER = 10.0**6
PLACES = {
    "api": "/app/api/storage/.standin.json",
    "plugin_daemon": "/app/storage/.standin.json",
    "sandbox": "/dependencies/.standin.json",
}


def path() -> Path:
    return Path(os.environ.get("STANDIN_FAULTS") or PLACES.get(os.environ.get("STANDIN", ""), "/standin.json"))


def get(name: str, process: str = "") -> str:
    """The value of a fault, "" when it is not set. A broken file is loud: a test must not pass because of a typo."""
    try:
        content = json.loads(path().read_text(encoding="utf-8"))
    except (FileNotFoundError, PermissionError, NotADirectoryError):
        return ""
    release = f"{os.environ.get('STANDIN_VERSION', '')}:"
    keys = (f"{release}{process}.{name}", f"{release}{name}", f"{process}.{name}", name)
    return str(next((content[key] for key in keys if key in content), "") or "")


def seconds(value: str, kind: str = "slow") -> float:
    """30.0 of "slow:30", 0.0 of anything else."""
    name, _, amount = value.partition(":")
    return float(amount or 5) if name == kind else 0.0


def at_start(process: str) -> None:
    value = get("start", process)
    if value == "crash":
        sys.stderr.write("Traceback (most recent call last):\nRuntimeError: told to crash at start\n")
        raise SystemExit(1)
    time.sleep(NEVER if value == "unhealthy" else seconds(value))
