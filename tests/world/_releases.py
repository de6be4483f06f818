# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dify's release data, fetched from the published release archives where nobody has put it on this machine."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import tarfile
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath

from _settings import FETCHED, RELEASES, WorldError, step

# The releases that the tests look at; any other tag is fetched when it is asked for.
KNOWN = (
    *("0.15.3", "1.0.0", "1.3.1", "1.7.0", "1.9.2", "1.10.1", "1.11.0", "1.11.4"),
    *("1.12.1", "1.13.3", "1.14.0", "1.14.1", "1.14.2", "1.15.0", "1.16.0"),
)
# Releases with nothing but other numbers of api and web, made of the other one where nobody has the real data: two of
# the same database head between which nothing else changes.
SIBLINGS = {"1.12.0": "1.12.1"}
ARCHIVES = os.environ.get("DIFY_ARCHIVES_URL") or "https://github.com/langgenius/dify/archive/refs/tags"
MARK = Path("docker") / "docker-compose.yaml"
ATTEMPTS = 3
SILENCE = 30.0  # seconds without a byte
DEADLINE = 900.0  # seconds for one archive, all attempts together
PASSING = (429, 500, 502, 503, 504)


def ensure(tags: Iterable[str] = ()) -> Path:
    """Fetches these tags, or all known ones, unless the data is somebody else's; returns the folder in use."""
    if RELEASES == FETCHED:
        fetch(tuple(tags) or KNOWN, FETCHED, ARCHIVES)
    return RELEASES


def origin(tag: str, releases: Path = RELEASES) -> str:
    """The release whose data stands for this one: itself, unless only its sibling's is there."""
    return tag if (releases / tag).is_dir() else SIBLINGS.get(tag, tag)


def siblings(releases: Path = RELEASES) -> list[str]:
    """The tags that are made of another one's data here."""
    return [tag for tag, other in SIBLINGS.items() if not (releases / tag).is_dir() and (releases / other).is_dir()]


def renumbered(text: str, tag: str, other: str) -> str:
    """A file of a release with the images of another one."""
    return re.sub(rf"(langgenius/dify-(?:api|web):){re.escape(other)}\b", rf"\g<1>{tag}", text)


def fetch(tags: Iterable[str], folder: Path, base: str) -> None:
    missing = [tag for tag in dict.fromkeys(tags) if not (folder / tag / MARK).is_file()]
    if not missing:
        return
    folder.mkdir(parents=True, exist_ok=True)
    with step(f"fetching Dify {', '.join(missing)} from {base}"), ThreadPoolExecutor(max_workers=4) as pool:
        pending = [pool.submit(_fetch, tag, folder, base) for tag in missing]
        try:
            for one in pending:
                one.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _fetch(tag: str, folder: Path, base: str) -> None:
    """One release, complete or not at all: it is made beside the folder and moved in."""
    url = f"{base.rstrip('/')}/{urllib.parse.quote(tag, safe='')}.tar.gz"
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".release-") as work:
        archive, made = Path(work, "archive.tar.gz"), Path(work, "made")
        try:
            _download(url, archive)
            _unpack(archive, made)
        except (OSError, EOFError, ValueError, http.client.HTTPException, tarfile.TarError) as error:
            raise WorldError(_sentence(tag, url, error)) from error
        made.chmod(0o755)
        try:
            made.rename(folder / tag)
        except OSError:
            if not (folder / tag / MARK).is_file():  # somebody else was faster, which is as good
                raise


def _sentence(tag: str, url: str, error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError) and error.code == 404:
        found = "there is no such archive (404); is that a tag of Dify?"
    else:
        found = str(getattr(error, "reason", "") or error or type(error).__name__)
    return (
        f"No release data of Dify {tag}: {url}: {found}. "
        "Set DIFY_RELEASES_DIR to a folder that holds <tag>/docker/docker-compose.yaml, or DIFY_ARCHIVES_URL to where "
        "<tag>.tar.gz can be fetched (a proxy is taken from https_proxy). What has arrived is kept."
    )


def _download(url: str, target: Path) -> None:
    """Tries again what may pass by itself; a host that cannot be reached is told at once."""
    end = time.monotonic() + DEADLINE
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with urllib.request.urlopen(url, timeout=SILENCE) as reply, target.open("wb") as out:
                for piece in iter(partial(reply.read, 1 << 18), b""):
                    out.write(piece)
                    if time.monotonic() > end:
                        raise ValueError(f"not here after {DEADLINE:.0f} s")
                length = reply.headers["Content-Length"]
                if length and out.tell() != int(length):
                    raise OSError(f"broke off after {out.tell()} of {length} bytes")
            return
        except urllib.error.HTTPError as error:
            if error.code not in PASSING or attempt == ATTEMPTS:
                raise
        except urllib.error.URLError:
            raise
        except (OSError, http.client.HTTPException):
            if attempt == ATTEMPTS:
                raise
        time.sleep(attempt)


def _unpack(archive: Path, target: Path) -> None:
    """Only docker/ of the archive's one top folder, and of that only files: nothing a release needs is a link."""
    with tarfile.open(archive, "r:gz") as opened:
        for member in opened:
            parts = PurePosixPath(member.name).parts[1:]
            source = opened.extractfile(member) if member.isfile() and parts[:1] == ("docker",) else None
            if source is None:
                continue
            if ".." in parts:
                raise ValueError(f"the archive holds {member.name}, which leads out of it")
            path = target.joinpath(*parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            with source, path.open("wb") as out:
                shutil.copyfileobj(source, out)
            path.chmod(0o755 if member.mode & 0o100 else 0o644)
    if not (target / MARK).is_file():
        raise ValueError(f"the archive has no {MARK}")
