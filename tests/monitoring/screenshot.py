#!/usr/bin/env python3
"""A web page as a headless Chromium in a container renders it: its text, and a picture that is more than one colour.

screenshot.py URL PICTURE --image IMAGE [--network container:NAME] [--word REGEX ...]
"""

from __future__ import annotations

import argparse
import collections
import html.parser
import os
import pathlib
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

SIZE = (1280, 800)
# Time as the page's scripts see it, which passes faster than the clock while nothing is being fetched.
SCRIPTS = 20
PATIENCE = 120
LEAST_COLOURS = 50  # letters with smooth edges alone have more
LARGEST_SHARE = 0.97  # of one colour


class PageError(Exception):
    """What could not be shown, in one sentence."""


@dataclass
class Page:
    text: str
    width: int
    height: int
    colours: int
    # How much of the picture has the most frequent one.
    share: float

    @property
    def blank(self) -> bool:
        return self.colours < LEAST_COLOURS or self.share > LARGEST_SHARE


def photograph(url: str, picture: pathlib.Path, image: str, network: str = "host") -> Page:
    """One visit: text and picture are of one moment. With the network `container:NODE` it looks from inside a node."""
    picture = picture.resolve()
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.unlink(missing_ok=True)
    name = f"llmops-screenshot-{os.getpid()}"
    command = ["docker", "run", "--rm", "--name", name, "--label", "llmops.world=1", "--network", network]
    command += ["--user", f"{os.getuid()}:{os.getgid()}", "--env", "HOME=/tmp"]
    # Fonts of the internet would be waited for.
    command += [
        "--volume",
        f"{picture.parent}:/pictures",
        image,
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ]
    command += [f"--window-size={SIZE[0]},{SIZE[1]}", f"--virtual-time-budget={SCRIPTS * 1000}"]
    command += [f"--screenshot=/pictures/{picture.name}", "--dump-dom", url]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        subprocess.run(["docker", "rm", "--force", name], capture_output=True, check=False, timeout=60)
        raise PageError(f"{url} was not shown within {PATIENCE} s") from None
    except OSError as exc:
        raise PageError(f"{url} could not be shown: {exc}") from exc
    if done.returncode or not picture.exists():
        # It complains much about the desktop that it does not have.
        said = [line for line in done.stderr.splitlines() if "dbus" not in line]
        raise PageError(f"{url} could not be shown (exit status {done.returncode}): {' | '.join(said[-5:])}")
    width, height, counted = colours(picture.read_bytes())
    return Page(text(done.stdout), width, height, len(counted), max(counted.values()) / counted.total())


def text(document: str) -> str:
    """What a reader sees of a rendered document, in one line."""
    reader = _Reader()
    reader.feed(document)
    return " ".join(" ".join(reader.words).split())


class _Reader(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self._hidden += tag in ("script", "style", "head")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("script", "style", "head")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.words.append(data)


def colours(png: bytes) -> tuple[int, int, collections.Counter[bytes]]:
    """Width, height, and how many pixels of every fourth row have which colour. For what Chromium writes."""
    chunks = dict(_chunks(png))
    width, height, depth, kind = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    if depth != 8 or kind not in (2, 6):
        raise PageError(f"a PNG of {depth} bits and colour type {kind} was not expected")
    size = 3 if kind == 2 else 4
    counted: collections.Counter[bytes] = collections.Counter()
    for number, row in enumerate(_rows(zlib.decompress(chunks[b"IDAT"]), width * size, size)):
        if number % 4 == 0:
            counted.update(row[place : place + size] for place in range(0, len(row), size))
    return width, height, counted


def _chunks(png: bytes) -> Iterable[tuple[bytes, bytes]]:
    """Name and content, the pieces of the image data as one."""
    if png[:8] != b"\x89PNG\r\n\x1a\n":
        raise PageError("that is no PNG")
    place, data = 8, b""
    while place < len(png):
        (length,) = struct.unpack(">I", png[place : place + 4])
        name, content = png[place + 4 : place + 8], png[place + 8 : place + 8 + length]
        if name == b"IDAT":
            data += content
        else:
            yield name, content
        place += 12 + length
    yield b"IDAT", data


def _rows(data: bytes, length: int, size: int) -> Iterator[bytes]:
    """The rows of an image, each of which is written as differences from its neighbours."""
    above = bytes(length)
    for begin in range(0, len(data), length + 1):
        how, row = data[begin], bytearray(data[begin + 1 : begin + 1 + length])
        if how == 2:
            row = bytearray((one + up) & 255 for one, up in zip(row, above))
        elif how:
            for place in range(length):
                left = row[place - size] if place >= size else 0
                corner = above[place - size] if place >= size else 0
                row[place] = (row[place] + _expected(how, left, above[place], corner)) & 255
        above = bytes(row)
        yield above


def _expected(how: int, left: int, up: int, corner: int) -> int:
    if how == 1:
        return left
    if how == 3:
        return (left + up) // 2
    guess = left + up - corner
    return min((left, up, corner), key=lambda one: abs(guess - one))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("url")
    parser.add_argument("picture", type=pathlib.Path)
    parser.add_argument("--image", required=True, help="image whose program is Chromium, such as the world's")
    parser.add_argument("--network", default="host", help="docker's network to look from (default: %(default)s)")
    parser.add_argument("--word", action="append", default=[], help="regular expression that the text must have")
    given = parser.parse_args()
    try:
        page = photograph(given.url, given.picture, given.image, given.network)
    except PageError as exc:
        print(f"screenshot: {exc}", file=sys.stderr)
        return 1
    print(f"{given.picture}: {page.width} x {page.height}, {page.colours} colours, {page.share:.0%} of it one")
    missing = [word for word in given.word if not re.search(word, page.text)]
    if page.blank or missing:
        what = "it is blank" if page.blank else f"the page lacks {', '.join(missing)}"
        print(f"screenshot: {what}. Its text: {page.text[:2000]}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
