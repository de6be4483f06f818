# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs that come in wheels: for an image that shall run what pip would install."""

from __future__ import annotations

import tempfile
import threading
import zipfile
from pathlib import Path

from _images import WheelProgram
from _settings import CACHE, MACHINE, step

_LOCK = threading.Lock()


def ensure(program: WheelProgram) -> Path:
    """The program's path in the cache, fetched now if need be."""
    target = CACHE / "bin" / program.file_name
    with _LOCK:
        if not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            with step(f"{program.name} {program.version} from its wheel"):
                _fetch(program, target)
    return target


def _fetch(program: WheelProgram, target: Path) -> None:
    import _wheels  # which itself needs what builds images

    with tempfile.TemporaryDirectory(dir=CACHE, prefix="wheel-") as scratch:
        wanted = Path(scratch) / "requirements.txt"
        wanted.write_text(f"{program.name}=={program.version} --hash=sha256:{program.sha256[MACHINE]}\n")
        _wheels._pip(Path(scratch), MACHINE, "--no-deps", "--require-hashes", "--requirement", str(wanted))
        (wheel,) = Path(scratch).glob("*.whl")
        new = Path(scratch) / program.name
        with zipfile.ZipFile(wheel) as archive:
            new.write_bytes(archive.read(f"{program.file_name}.data/scripts/{program.name}"))
        new.chmod(0o755)
        new.replace(target)
