# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Release archives as GitHub packs them, from the releases' published data files and entry scripts of our own."""

from __future__ import annotations

import gzip
import io
import re
import tarfile
from pathlib import Path

from _releases import origin, renumbered, siblings
from _settings import RELEASES, WORLD, WorldError, content_hash, step, tree, tree_hash
from _upstream import WWW

FOLDER = WWW / "github" / "langgenius" / "dify" / "archive" / "refs" / "tags"
SCRIPTS = WORLD / "entrypoints"
# A file, not a folder, that a compose file mounts from the release: `- ./nginx/docker-entrypoint.sh:/…`
MOUNTED = re.compile(r"^\s*- \./(?!volumes/)([\w./-]+\.(?:sh|script)):", re.MULTILINE)


def tags() -> list[str]:
    found = sorted(path.parent.parent.name for path in RELEASES.glob("*/docker/docker-compose.yaml"))
    if not found:
        raise WorldError(
            f"No Dify release data in {RELEASES}. "
            "Set DIFY_RELEASES_DIR to a folder with <tag>/docker/docker-compose.yaml."
        )
    return sorted([*found, *siblings()])


def ensure() -> None:
    """Packs every release whose data or scripts changed since; the same input gives the same bytes."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    scripts = tree_hash(SCRIPTS)
    code = Path(__file__).read_bytes()
    stale = []
    for tag in tags():
        stamp = f"{content_hash([code, scripts, tree_hash(RELEASES / origin(tag))])}\n"
        seal = FOLDER / f".{tag}.stamp"
        if not (seal.is_file() and seal.read_text() == stamp and (FOLDER / f"{tag}.tar.gz").is_file()):
            stale.append((tag, seal, stamp))
    if not stale:
        return
    with step(f"{len(stale)} release archives"):
        for tag, seal, stamp in stale:
            (FOLDER / f"{tag}.tar.gz").write_bytes(pack(tag))
            seal.write_text(stamp)


def pack(tag: str) -> bytes:
    other = origin(tag)
    data = RELEASES / other
    files = {name: path.read_bytes() for name, path in tree(data)}
    if other != tag:
        files = {name: renumbered(content.decode(), tag, other).encode() for name, content in files.items()}
    for name in MOUNTED.findall((data / "docker" / "docker-compose.yaml").read_text()):
        files.setdefault(f"docker/{name}", _script(name))
    buffer = io.BytesIO()
    # GitHub's archives begin with a global header that carries the commit; readers have to cope with it.
    header = {"comment": content_hash([tag]).ljust(40, "0")}
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT, pax_headers=header) as archive,
    ):
        for folder in _folders(files):
            archive.addfile(_entry(f"dify-{tag}/{folder}".rstrip("/"), 0o775, tarfile.DIRTYPE))
        for name, content in sorted(files.items()):
            entry = _entry(f"dify-{tag}/{name}", 0o775 if name.endswith(".sh") else 0o664, tarfile.REGTYPE)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _folders(files: dict[str, bytes]) -> list[str]:
    return sorted({"" if str(parent) == "." else str(parent) for name in files for parent in Path(name).parents})


def _entry(name: str, mode: int, kind: bytes) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type = kind
    entry.mode = mode
    entry.mtime = 1700000000
    entry.uname = entry.gname = "root"
    return entry


def _script(name: str) -> bytes:
    """Our own entry script for a mounted one: nginx/docker-entrypoint.sh is made of entrypoints/nginx.sh."""
    own = SCRIPTS / f"{Path(name).parts[0]}.sh"
    return (own if own.is_file() else SCRIPTS / "absent.sh").read_bytes()
