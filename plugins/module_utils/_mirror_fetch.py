# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Where a mirror's own things come from, and files that are fetched, checked and put in place."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ansible_collections.llmops.stack.plugins.module_utils._download import (
    HAS_REQUESTS,
    Download,
    Interrupted,
    NotThere,
    ReleaseError,
    Wording,
    reason_of,
    sync_path,
)
from ansible_collections.llmops.stack.plugins.module_utils._urls import mask_urls

if HAS_REQUESTS:
    import requests

__all__ = ["ORIGINS", "Fetched", "Fetcher", "MirrorError", "Sources", "check_targz"]

# What the internet has, by the folder below the mirror's www/ under which hosts ask for it.
ORIGINS = {
    "github": "https://github.com",
    "docker-ce": "https://download.docker.com",
    "libnvidia-container": "https://nvidia.github.io/libnvidia-container",
    "marketplace": "https://marketplace.dify.ai",
}
WORDS = Wording("mirror", "")
_CHUNK = 1 << 20
_TEXT = 32 << 20


class MirrorError(Exception):
    """What cannot be had, in a sentence, and what to do about it."""

    def __init__(self, reason: str, advice: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.advice = advice


class Sources:
    """The addresses behind the paths of a mirror.

    Args:
        upstream: another mirror of the same layout, or nothing for the internet.
        given: addresses of single parts: those of C(ORIGINS), C(pypi) (an index), C(models) (a registry of models), and
            C(images) (C(host[:port]) of a registry that has every image under Docker Hub's names).
    """

    def __init__(self, upstream: str = "", given: Mapping[str, str] | None = None) -> None:
        self.upstream = upstream.rstrip("/")
        self.given = {name: str(url).rstrip("/") for name, url in (given or {}).items() if url}

    def url(self, path: str) -> str:
        """Of a path below www/."""
        part, _slash, rest = path.partition("/")
        base = self.given.get(part) or (f"{self.upstream}/{part}" if self.upstream else ORIGINS[part])
        return f"{base}/{rest}"

    @property
    def marketplace(self) -> str:
        return self.url("marketplace/").rstrip("/")

    @property
    def index(self) -> str:
        """The index of Python packages; empty means what pip itself is set to."""
        return self.given.get("pypi") or (f"{self.upstream}/pypi/simple" if self.upstream else "")

    def registry_of_models(self, host: str) -> str:
        """Scheme and host of the registry that has the models of C(host)."""
        given = self.given.get("models", "")
        if not given and self.upstream:
            given = _origin(self.upstream)
        return (given if "://" in given else f"https://{given}") if given else f"https://{host}"

    def image(self, name: str, stored: str) -> tuple[str, bool]:
        """The name under which an image is pulled, and whether its registry is one without TLS."""
        given = self.given.get("images", "")
        if not given and self.upstream:
            parts = urlsplit(self.upstream)
            given = f"{parts.scheme}://{parts.hostname}:5000"
        if not given:
            return name, False
        return f"{given.rpartition('://')[2]}/{stored}", given.startswith("http://")


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


class Fetched(NamedTuple):
    sha256: str
    size: int
    received: int


class _File(Download):
    """One file, in the words of a mirror."""

    def _late(self) -> Interrupted:
        return Interrupted(f"it did not come in time; the {self.received} bytes that came are kept")

    def _check_status(self, status: int) -> None:
        shown = mask_urls(self.url)
        if status in (404, 410):
            raise NotThere(f"{shown} is not there (HTTP {status})")
        if status in (401, 403, 407):
            raise ReleaseError(f"{shown} refuses access (HTTP {status})")
        if status >= 500 or status == 429:
            raise requests.exceptions.ConnectionError(f"the server answered HTTP {status}")
        if status not in (200, 206):
            raise ReleaseError(f"{shown} answers HTTP {status}")

    def _trouble(self, exc: Exception) -> ReleaseError:
        shown, reason = mask_urls(self.url), reason_of(exc)
        if self.received:
            return Interrupted(f"{shown} broke off again and again ({reason}); what came is kept")
        return Interrupted(f"{shown} cannot be reached: {reason}")


class Fetcher:
    """Fetches below a home. C(deadline) is a moment of C(time.monotonic)."""

    def __init__(self, home: str, sources: Sources, deadline: float) -> None:
        self.home = home
        self.sources = sources
        self.deadline = deadline
        self.staging = os.path.join(home, ".incoming")
        self.received = 0  # of all files together
        self._lock = threading.Lock()
        self._busy: dict[str, threading.Lock] = {}

    def left(self) -> float:
        return max(1.0, self.deadline - time.monotonic())

    def size(self, url: str) -> int | None:
        """What a file weighs, None where the server does not tell.

        Raises:
            MirrorError: it is not there, or cannot be asked for.
        """
        with self._in_words():
            return _File(url, self._part(url), self.deadline, WORDS).size() or None

    def text(self, url: str) -> str:
        """A small file.

        Raises:
            MirrorError: it cannot be had.
        """
        return self.content(url).decode("utf-8", "replace")

    def content(self, url: str) -> bytes:
        part = os.path.join(self.staging, f"{_name(url)}.text")
        with self._alone(part), self._in_words():
            self._make(self.staging)
            file = _File(url, part, self.deadline, WORDS)
            try:
                file.forget()
                file.run()
                if os.path.getsize(part) > _TEXT:
                    raise MirrorError(f"{mask_urls(url)} is larger than any such file.")
                with open(part, "rb") as opened:
                    return opened.read()
            finally:
                self._count(file)
                file.forget()

    def file(self, url: str, target: str, sha256: str = "", check: Callable[[str], None] | None = None) -> Fetched:
        """Have the file at its place, whole and as it is expected, or not at all.

        Raises:
            MirrorError: it cannot be had, or is another one; what came of one that broke off is kept for the next run.
        """
        file = _File(url, self._part(url), self.deadline, WORDS, piece=1 << 16)
        with self._alone(file.part), self._in_words():
            self._make(self.staging)
            try:
                path = file.run()
            finally:
                self._count(file)
            if sha256 and file.digest != sha256:
                file.forget()
                raise MirrorError(
                    f"{mask_urls(url)} has the sha256 {file.digest}, and {sha256} was expected; it was not taken.",
                    "Ask whoever serves it which one is right. A checksum of your own stands in the inventory.",
                )
            if check:
                try:
                    check(path)
                except MirrorError:
                    file.forget()
                    raise
            self._make(os.path.dirname(target))
            size = os.path.getsize(path)
            os.chmod(path, 0o644)
            sync_path(path)
            os.replace(path, target)
            sync_path(os.path.dirname(target))
            file.forget()
        return Fetched(file.digest, size, file.received)

    def _count(self, file: Download) -> None:
        with self._lock:
            self.received += file.received

    def _alone(self, part: str) -> threading.Lock:
        """Several things may need the same file at the same time, such as the list of a release's sums."""
        with self._lock:
            return self._busy.setdefault(part, threading.Lock())

    def _part(self, url: str) -> str:
        return os.path.join(self.staging, f"{_name(url)}.part")

    def _make(self, folder: str) -> None:
        os.makedirs(folder, mode=0o755, exist_ok=True)

    @contextlib.contextmanager
    def _in_words(self) -> Any:
        try:
            yield
        except NotThere as exc:
            raise MirrorError(f"{exc}.", "Correct the name or version, or let the mirror's upstream have it.") from exc
        except Interrupted as exc:
            raise MirrorError(
                f"{exc}.", "Run again: it goes on where it stopped. mirror_timeout is the time that it has."
            ) from exc
        except ReleaseError as exc:
            raise MirrorError(f"{exc}.", "Check mirror_upstream, and proxies and logins on the way.") from exc
        except OSError as exc:
            raise MirrorError(
                f"{self.home} takes nothing: {exc.strerror or exc}.", "Make room there, or put mirror_home elsewhere."
            ) from exc


def _name(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()[:32]


def check_targz(path: str) -> None:
    """A compressed archive has a sum of its own content at its end, and nothing else to be checked against."""
    try:
        with gzip.open(path, "rb") as file:
            while file.read(_CHUNK):
                pass
    except (OSError, EOFError, zlib.error) as exc:
        raise MirrorError(f"what came is no whole .tar.gz ({exc}); it was not taken.", "Run again.") from exc
