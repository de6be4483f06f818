# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is made of Chromium's picture and document; the program itself is tried where its image is."""

from __future__ import annotations

import pathlib
import random
import struct
import zlib

import pytest
from ansible_collections.llmops.stack.tests.monitoring.screenshot import Page, PageError, colours, photograph, text

WIDTH, HEIGHT = 40, 24


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(rows: list[bytes], size: int, how: int) -> bytes:
    """Written with one of the five ways in which a row can refer to what is left of it and above."""
    data, above = b"", bytes(WIDTH * size)
    for row in rows:
        data += bytes([how])
        for place, value in enumerate(row):
            left, corner = (row[place - size], above[place - size]) if place >= size else (0, 0)
            up = above[place]
            nearest = min(
                (abs(up - corner), 0, left), (abs(left - corner), 1, up), (abs(left + up - 2 * corner), 2, corner)
            )
            data += bytes([(value - (0, left, up, (left + up) // 2, nearest[2])[how]) & 255])
        above = row
    head = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2 if size == 3 else 6, 0, 0, 0)
    packed = zlib.compress(data)
    pieces = chunk(b"IDAT", packed[:50]) + chunk(b"IDAT", packed[50:])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + pieces + chunk(b"IEND", b"")


@pytest.mark.parametrize("how", range(5))
@pytest.mark.parametrize("size", [3, 4])
def test_colours_of_a_picture(how: int, size: int) -> None:
    chance = random.Random(7)
    palette = [bytes(chance.randrange(256) for _ in range(size)) for _ in range(9)]
    pixels = [[chance.choice(palette) for _ in range(WIDTH)] for _ in range(HEIGHT)]
    width, height, counted = colours(png([b"".join(row) for row in pixels], size, how))
    assert (width, height) == (WIDTH, HEIGHT)
    assert dict(counted) == {one: sum(row.count(one) for row in pixels[::4]) for one in palette}


def test_what_is_blank() -> None:
    assert Page("", 1, 1, 1, 1.0).blank
    assert Page("an error page", 1, 1, 346, 0.99).blank
    assert not Page("a page", 1, 1, 474, 0.64).blank


def test_no_picture() -> None:
    with pytest.raises(PageError, match="no PNG"):
        colours(b"<html>")


def test_what_a_reader_sees() -> None:
    document = """<!DOCTYPE html><html><head><title>T</title><style>a {}</style></head>
        <body><script>let a = "<p>no</p>"</script><p>llm.<wbr>token_count. prompt</p> <b>7 &amp;</b></body></html>"""
    assert text(document) == "llm. token_count. prompt 7 &"


def test_a_browser_that_fails(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "docker"
    script.write_text(
        f'#!/bin/sh\necho "$@" >{tmp_path}/asked\necho "dbus x" >&2; echo "no such image" >&2; exit 125\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(PageError, match=r"http://h:1/ could not be shown \(exit status 125\): no such image"):
        photograph("http://h:1/", tmp_path / "new" / "a.png", "chromium", "container:llmops-a")
    asked = (tmp_path / "asked").read_text()
    assert "--network container:llmops-a" in asked
    assert f"--volume {tmp_path}/new:/pictures" in asked
