# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Files that come over the network, however often it breaks, and files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

from ansible_collections.llmops.stack.plugins.module_utils._stack_mirror import lacks
from ansible_collections.llmops.stack.plugins.module_utils._urls import mask_urls

try:
    import requests
except ImportError:
    HAS_REQUESTS = False
    REQUESTS_IMPORT_ERROR: str | None = traceback.format_exc()
else:
    HAS_REQUESTS = True
    REQUESTS_IMPORT_ERROR = None

__all__ = [
    "HAS_REQUESTS",
    "REQUESTS_IMPORT_ERROR",
    "Download",
    "Interrupted",
    "NotThere",
    "ReleaseError",
    "Wording",
    "bare_digest",
    "existing",
    "local_path",
    "reason_of",
    "room",
    "sha256_of",
    "sync_path",
    "until",
    "write_atomically",
]

_CHUNK = 256 * 1024
_ABSENT = (404, 410)
_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "llmops.stack"}
T = TypeVar("T")


class ReleaseError(Exception):
    """What went wrong and what to do about it; nothing of the release was left behind."""


class Interrupted(ReleaseError):
    """The rest can be fetched later."""


class NotThere(ReleaseError):
    """The server is reached and does not have the file."""


class Wording(NamedTuple):
    """What an operator of a role has to know to mend it."""

    role: str  # prefix of its variables: <role>_version, <role>_archive_url, <role>_download_timeout, <role>_home
    versions: str  # where all of them are listed


def bare_digest(checksum: str) -> str:
    """The hex digits of a checksum that may have its algorithm before them."""
    return checksum.strip().lower().split(":")[-1]


def sha256_of(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for chunk in iter(lambda: file.read(_CHUNK), b""):
            digest.update(chunk)
    return digest.hexdigest()


def write_atomically(path: str, text: str, mode: int) -> None:
    """The whole text or the old file, also after a power cut; the mode is right from the first byte on."""
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), mode)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_path(os.path.dirname(path) or ".")
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def sync_path(path: str) -> None:
    """A file, or the names in a folder, as they are now, also after a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def local_path(source: str) -> str:
    """The path that a source names on this host, empty for a URL."""
    if source.startswith("file://"):
        return unquote(urlsplit(source).path)
    return "" if "://" in source else source


def existing(path: str) -> str:
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path


@contextlib.contextmanager
def room(home: str, words: Wording) -> Iterator[None]:
    """Writing below the home; what the system refuses comes out as a sentence."""
    try:
        yield
    except OSError as exc:
        if exc.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise ReleaseError(f"{exc.strerror or exc} ({exc.filename or home}).") from exc
        raise ReleaseError(
            f"the disk with {home} is full ({shutil.disk_usage(existing(home)).free // 1024} KB free). "
            f"Nothing was left behind. Make room, or put {words.role}_home on a larger disk."
        ) from exc


@contextlib.contextmanager
def until(deadline: float, late: Callable[[], Exception]) -> Iterator[None]:
    """Raise C(late()) at a moment of C(time.monotonic), whatever goes on.

    An alarm, because a timeout of a socket starts anew with every byte that trickles in. It rings again each second: an
    exception that comes while a destructor runs is ignored by Python. Other threads than the first have no alarms; what
    runs in one has to look at the clock itself.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(_number: int, _frame: Any) -> None:
        raise late()

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(0.01, deadline - time.monotonic()), 1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Download:
    """One file over HTTP into a partial file that survives the process, with its source noted beside it.

    Attributes:
        received: bytes that came over the network.
        digest: sha256 of the whole file, once it is there; what arrives is hashed on its way.
    """

    def __init__(
        self,
        url: str,
        part: str,
        deadline: float,
        words: Wording,
        piece: int = 8192,
        proxies: Mapping[str, str] | None = None,
    ) -> None:
        self.url = url
        self.proxies = dict(proxies or {})  # without any, those of the environment
        self.part = part
        self.note = f"{part}.json"
        self.deadline = deadline
        self.words = words
        self.piece = piece  # what does not arrive whole is lost, and so is fetched again
        self.received = 0
        self.digest = ""
        self._hash = hashlib.sha256()
        self._hashed = 0

    def forget(self) -> None:
        for path in (self.part, self.note):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def size(self) -> int:
        """How large the file is, 0 where the server does not tell."""
        with until(self.deadline, self._late):
            return self._persist(self._ask_size)

    def run(self) -> str:
        """Fetch until all is there or the time is up; a cut connection is taken up where it broke."""
        with until(self.deadline, self._late):
            self._persist(self._attempt)
        self.digest = self._hash.hexdigest()
        return self.part

    def _late(self) -> Interrupted:
        return Interrupted(
            f"{mask_urls(self.url)} was not fetched in time; what arrived is kept ({self.received} bytes in "
            f"this run) and the next one goes on from there. Raise {self.words.role}_download_timeout, or set "
            "stack_mirror to a nearer host."
        )

    def _persist(self, action: Callable[[], T]) -> T:
        idle = 0
        while True:
            before = self.received
            try:
                return action()
            except requests.exceptions.InvalidSchema as exc:
                if "SOCKS" in str(exc):
                    raise ReleaseError(
                        "a SOCKS proxy needs the Python library PySocks on this host. Install it (python3-socks or "
                        "python3-pysocks), or use a proxy of another kind."
                    ) from exc
                raise ReleaseError(f"{mask_urls(self.url)} is no URL. Correct {self.words.role}_archive_url.") from exc
            except requests.exceptions.RequestException as exc:
                idle = 0 if self.received > before else idle + 1
                if idle >= 3:
                    raise self._trouble(exc) from exc
                time.sleep(2.0**idle)

    def _ask_size(self) -> int:
        with requests.head(
            self.url, headers=dict(_HEADERS), proxies=self.proxies, allow_redirects=True, timeout=(10, 30)
        ) as answer:
            if answer.status_code in _ABSENT:
                self._check_status(answer.status_code)
            # Some servers do not know HEAD, and signed addresses allow nothing but GET: that one shall say what is.
            length = answer.headers.get("Content-Length", "") if answer.status_code == 200 else ""
            return int(length) if length.isdigit() else 0

    def _attempt(self) -> None:
        headers = dict(_HEADERS)
        start = self._resume_at(headers)
        with requests.get(self.url, headers=headers, proxies=self.proxies, stream=True, timeout=(10, 30)) as answer:
            if answer.status_code == 416:
                if answer.headers.get("Content-Range") == f"bytes */{start}":
                    self._hash_kept(start)
                    return
                # The partial file is longer than what the server has now.
                self.forget()
                raise requests.exceptions.ConnectionError("the file changed while it was fetched")
            self._check_status(answer.status_code)
            if answer.status_code != 206:
                start = 0
            self._write_note(answer.headers)
            self._hash_kept(start)
            expected = answer.headers.get("Content-Length", "")
            got = 0
            with open(self.part, "r+b" if start else "wb") as file:
                file.truncate(start)
                file.seek(start)
                for chunk in answer.iter_content(self.piece):
                    file.write(chunk)
                    self._hash.update(chunk)
                    self._hashed += len(chunk)
                    got += len(chunk)
                    self.received += len(chunk)
                    if time.monotonic() > self.deadline:  # in a thread that no alarm reaches
                        raise self._late()
            if expected.isdigit() and got != int(expected):
                raise requests.exceptions.ConnectionError(f"{got} of {expected} bytes arrived")

    def _hash_kept(self, size: int) -> None:
        """Have the hash of the first bytes of the file: nothing to do where this process has just written them."""
        if self._hashed == size:
            return
        self._hash, self._hashed = hashlib.sha256(), size
        if size:
            with open(self.part, "rb") as file:
                while size > 0:
                    chunk = file.read(min(size, _CHUNK))
                    if not chunk:
                        raise requests.exceptions.ConnectionError("the partial file became shorter")
                    self._hash.update(chunk)
                    size -= len(chunk)

    def _resume_at(self, headers: dict[str, str]) -> int:
        try:
            size = os.path.getsize(self.part)
            with open(self.note, encoding="utf-8") as file:
                note = json.load(file)
        except (OSError, ValueError):
            return 0
        if not size or note.get("url") != self.url or not note.get("validator"):
            return 0
        headers["Range"] = f"bytes={size}-"
        headers["If-Range"] = note["validator"]
        return size

    def _write_note(self, headers: Mapping[str, str]) -> None:
        etag = headers.get("ETag", "")
        validator = "" if etag.startswith("W/") else etag or headers.get("Last-Modified", "")
        write_atomically(self.note, json.dumps({"url": self.url, "validator": validator}), 0o600)

    def _check_status(self, status: int) -> None:
        shown, role = mask_urls(self.url), self.words.role
        if status in _ABSENT:
            public = urlsplit(self.words.versions).hostname
            mirror = self.url if public and urlsplit(self.url).hostname != public else ""
            raise NotThere(
                f"there is no release at {shown} (HTTP {status}). Check {role}_version against {self.words.versions}. "
                f"{lacks(mirror, 'such release')}".rstrip()
            )
        if status in (401, 403, 407):
            raise ReleaseError(f"{shown} refuses access (HTTP {status}). Check the login, proxy or mirror behind it.")
        if status >= 500 or status == 429:
            raise requests.exceptions.ConnectionError(f"the server answered HTTP {status}")
        if status not in (200, 206):
            raise ReleaseError(f"{shown} answered HTTP {status}, which is no archive. Check {role}_archive_url.")

    def _trouble(self, exc: Exception) -> ReleaseError:
        host = urlsplit(self.url).netloc.rpartition("@")[2]
        through = f" through the proxy {mask_urls(self.proxies['https'])}" if self.proxies else ""
        if self.received:
            return Interrupted(
                f"the download of {mask_urls(self.url)} broke off again and again ({reason_of(exc)}); what arrived "
                "is kept and the next run goes on from there."
            )
        return Interrupted(
            f"{host} cannot be used as a source of release archives{through}: {reason_of(exc)}. If this host has no "
            f"way to it, set stack_mirror to a host that serves it, or {self.words.role}_archive_url to a URL or a "
            "file that is within reach."
        )


def reason_of(exc: BaseException) -> str:
    """The innermost words: requests wraps urllib3 wraps the socket."""
    seen: set[int] = set()
    inner: BaseException = exc
    while id(inner) not in seen:
        seen.add(id(inner))
        candidates = [getattr(inner, "reason", None), inner.__cause__, inner.__context__, *inner.args]
        inner = next((one for one in candidates if isinstance(one, BaseException)), inner)
    if isinstance(inner, OSError) and inner.strerror:
        return inner.strerror
    return mask_urls(re.sub(r"<[^>]*>:? ?", "", str(inner))) or type(inner).__name__
