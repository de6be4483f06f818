# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The environment variables that Dify's API reads, with its defaults (none for the database password)."""

from __future__ import annotations

import os
import secrets
import sys
import traceback
from pathlib import Path

from standin import versions


def text(name: str, default: str = "") -> str:
    return os.environ.get(name, default)


def number(name: str, default: int) -> int:
    return int(float(os.environ.get(name) or default))  # 1.16 writes some seconds as 5.0


def flag(name: str, default: bool = False) -> bool:
    return (os.environ.get(name) or str(default)).lower() in ("true", "1", "yes")


def storage() -> Path:
    place = Path(text("OPENDAL_FS_ROOT", "storage") or "storage")
    return place if place.is_absolute() else Path(text("STANDIN_HOME", "/app/api")) / place


def prepare_storage() -> None:
    """A directory that cannot be made ends every process at start; one that cannot be written is found out later."""
    try:
        storage().mkdir(parents=True, exist_ok=True)
    except OSError:
        traceback.print_exc()
        raise SystemExit(1) from None


def secret_key() -> str:
    """From 1.14.1 an empty SECRET_KEY means: make one and keep it in the storage."""
    given = text("SECRET_KEY")
    if given or not versions.has("generates_secret_key"):
        return given
    place = storage() / ".dify_secret_key"
    try:
        if not place.exists():
            place.write_text(secrets.token_urlsafe(48) + "\n", encoding="utf-8")
        return place.read_text(encoding="utf-8").strip()
    except OSError:
        traceback.print_exc()
        sys.stderr.write(f"SECRET_KEY is empty and {place} cannot be written\n")
        raise SystemExit(1) from None


def slots() -> int:
    return number("SERVER_WORKER_AMOUNT", 1) * number("SERVER_WORKER_CONNECTIONS", 10)
