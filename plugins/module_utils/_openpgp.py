# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module util is PRIVATE to the collection; it may change without notice.

"""Fingerprints of OpenPGP public keys (RFC 4880), so that a bare host needs no gpg to check one."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import typing as t

PUBLIC_KEY = 6
ARMOR = re.compile(
    rb"-----BEGIN PGP PUBLIC KEY BLOCK-----\n(?:[\w-]+: [^\n]*\n)*\n(.*?)-----END PGP PUBLIC KEY BLOCK-----",
    re.DOTALL,
)


class NotAKey(ValueError):
    """The data holds no OpenPGP public key."""


def normalise(fingerprint: str) -> str:
    """40 capital hex digits, whatever way a person wrote them down."""
    digits = re.sub(r"[\s:]", "", fingerprint).upper()
    digits = digits[2:] if digits.startswith("0X") else digits
    if not re.fullmatch(r"[0-9A-F]{40}", digits):
        raise ValueError(f"a full fingerprint has 40 hexadecimal digits, this is not one: {fingerprint}")
    return digits


def dearmor(data: bytes) -> bytes:
    """The binary packets, with or without ASCII armour around them."""
    blocks = ARMOR.findall(data.replace(b"\r\n", b"\n"))
    if not blocks:
        return data
    packets = b""
    for block in blocks:
        lines = [line.strip() for line in block.splitlines() if line.strip()]
        body = b"".join(line for line in lines if not line.startswith(b"="))  # the last line is a checksum
        try:
            packets += base64.b64decode(body, validate=True)
        except binascii.Error as exc:
            raise NotAKey("the ASCII armour is damaged") from exc
    return packets


def armor(packets: bytes) -> str:
    body = base64.b64encode(packets).decode("ascii")
    lines = [body[at : at + 64] for at in range(0, len(body), 64)]
    checksum = base64.b64encode(_crc24(packets).to_bytes(3, "big")).decode("ascii")
    begin, end = "-----BEGIN PGP PUBLIC KEY BLOCK-----", "-----END PGP PUBLIC KEY BLOCK-----"
    return "\n".join([begin, "", *lines, f"={checksum}", end, ""])


def fingerprints(data: bytes) -> list[str]:
    """The fingerprints of all primary keys in the data, subkeys left out."""
    found = []
    for tag, body in _packets(dearmor(data)):
        if tag != PUBLIC_KEY:
            continue
        if body[:1] != b"\x04":
            raise NotAKey(f"a key of version {body[0] if body else '?'}; only version 4 is understood")
        digest = hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body)  # noqa: S324 - as RFC 4880 defines it
        found.append(digest.hexdigest().upper())
    if not found:
        raise NotAKey("no OpenPGP public key in it")
    return found


def _packets(data: bytes) -> t.Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        head = data[at]
        if not head & 0x80:
            raise NotAKey("no OpenPGP public key in it")
        at += 1
        try:
            if head & 0x40:
                tag, (size, at) = head & 0x3F, _new_length(data, at)
            else:
                width = 1 << (head & 3)
                if width == 8:
                    raise NotAKey("a packet of unknown length")
                tag, size, at = (head >> 2) & 0x0F, int.from_bytes(data[at : at + width], "big"), at + width
        except IndexError as exc:
            raise NotAKey("the key is cut off") from exc
        if at + size > len(data):
            raise NotAKey("the key is cut off")
        yield tag, data[at : at + size]
        at += size


def _new_length(data: bytes, at: int) -> tuple[int, int]:
    first = data[at]
    if first < 192:
        return first, at + 1
    if first < 224:
        return ((first - 192) << 8) + data[at + 1] + 192, at + 2
    if first == 255:
        return int.from_bytes(data[at + 1 : at + 5], "big"), at + 5
    raise NotAKey("a packet of unknown length")


def _crc24(data: bytes) -> int:
    crc = 0xB704CE
    for byte in data:
        crc ^= byte << 16
        for _bit in range(8):
            crc <<= 1
            if crc & 0x1000000:
                crc ^= 0x1864CFB
    return crc
