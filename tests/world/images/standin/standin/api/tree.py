# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the modules of /app/api that a release's model calls pass: `python3 -m standin.api.tree /app/api`.

Whatever wraps Dify's own functions finds them under the release's own names. The sources are in dify/, under the names
of 1.3.1 to 1.12; a line that ends with `# has: <property>` or `# lacks: <property>` (of versions.py) is for these
releases only.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from standin import versions

SOURCES = Path(__file__).resolve().parents[2] / "dify"
TOP = ("core", "dify_graph", "graphon")
_MARK = re.compile(r"  # (has|lacks): (\w+)$")


def folders(version: str) -> dict[str, str]:
    """Folder of the sources -> folder of the release."""
    runtime = versions.pick(versions.MODEL_RUNTIME, version).replace(".", "/")
    bases = f"{runtime}/model_providers/{versions.pick(versions.MODEL_BASES, version)}"
    if not versions.has("plugins", version):
        return {"runtime": runtime, "builtin/ollama": f"{runtime}/model_providers/ollama", "builtin": bases}
    return {"runtime": runtime, "bases": bases, "clients": versions.pick(versions.CLIENTS, version).replace(".", "/")}


def text(source: str, version: str) -> str:
    """A source as this release has it."""
    lines = []
    for line in source.splitlines():
        mark = _MARK.search(line)
        if mark is None or versions.has(mark[2], version) == (mark[1] == "has"):
            lines.append(line[: mark.start()] if mark else line)
    found = "\n".join(lines) + "\n"
    found = found.replace("core.plugin.impl", versions.pick(versions.CLIENTS, version))
    found = found.replace("core.model_runtime", versions.pick(versions.MODEL_RUNTIME, version))
    if not versions.has("clients", version):
        found = re.sub(r"\b(\w+)Client\b", lambda name: f"{name[1]}Manager", found)
    return found


def write(target: Path, version: str) -> None:
    for name in TOP:
        shutil.rmtree(target / name, ignore_errors=True)
    done: set[Path] = set()
    for source, place in folders(version).items():
        for path in sorted((SOURCES / source).rglob("*.py")):
            if path in done:
                continue  # `builtin` has a folder of its own in it
            done.add(path)
            file = target / place / path.relative_to(SOURCES / source)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text(path.read_text(encoding="utf-8"), version), encoding="utf-8")
    for name in TOP:
        for folder in (target / name).glob("**/"):
            if folder.is_dir():
                (folder / "__init__.py").touch()


if __name__ == "__main__":
    write(Path(sys.argv[1]), versions.current())
