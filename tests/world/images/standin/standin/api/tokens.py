# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Passwords, JSON web tokens, signed session cookies and the tenant's key pair."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import subprocess
import time
from pathlib import Path
from typing import Any

from standin.api import cache, settings

SECRET_MARK = "HYBRID:"


def hash_password(password: str, salt: bytes) -> str:
    digest = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, 10000)
    return base64.b64encode(digest.hex().encode()).decode()


def new_password(password: str) -> tuple[str, str]:
    salt = secrets.token_bytes(16)
    return hash_password(password, salt), base64.b64encode(salt).decode()


def check_password(password: str, hashed: str, salt: str) -> bool:
    return hmac.compare_digest(hash_password(password, base64.b64decode(salt)), hashed)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _signature(text: str) -> str:
    return _encode(hmac.new(settings.secret_key().encode(), text.encode(), hashlib.sha256).digest())


def jwt(seconds: int, **claims: Any) -> str:
    head = _encode(b'{"alg":"HS256","typ":"JWT"}')
    body = _encode(json.dumps({**claims, "exp": int(time.time()) + seconds}).encode())
    return f"{head}.{body}.{_signature(f'{head}.{body}')}"


class BadToken(Exception):
    """Its text is the reason in Dify's words."""


def read_jwt(token: str) -> dict[str, Any]:
    parts = token.split(".")
    if len(parts) != 3:
        raise BadToken("Invalid token.")
    if not hmac.compare_digest(_signature(f"{parts[0]}.{parts[1]}"), parts[2]):
        raise BadToken("Invalid token signature.")
    claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    if claims["exp"] < time.time():
        raise BadToken("Token has expired.")
    return dict(claims)


def sign(text: str) -> str:
    """The value of the `session` cookie."""
    value = _encode(text.encode())
    return f"{value}.{_signature(value)}"


def unsign(cookie: str) -> str:
    value, _, signature = cookie.partition(".")
    if not value or not hmac.compare_digest(_signature(value), signature):
        return ""
    return base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)).decode()


def private_key_path(tenant_id: str) -> Path:
    return settings.storage() / "privkeys" / tenant_id / "private.pem"


def _openssl(*arguments: str, data: bytes = b"") -> bytes:
    return subprocess.run(["openssl", *arguments], input=data, check=True, capture_output=True, timeout=60).stdout


def new_key_pair(tenant_id: str) -> str:
    """Writes the private key into the storage, returns the public one. OSError where it cannot be written."""
    private = _openssl("genrsa", "-traditional", "2048")
    place = private_key_path(tenant_id)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(private)
    return _openssl("rsa", "-pubout", data=private).decode()


def _stream(key: bytes, length: int) -> bytes:
    return b"".join(hashlib.sha256(key + bytes([i])).digest() for i in range(length // 32 + 1))[:length]


def _mix(data: bytes, key: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(data, _stream(key, len(data)), strict=True))


def encrypt(secret: str, public_key: str) -> str:
    key = hashlib.sha256(public_key.encode()).digest()
    return base64.b64encode(SECRET_MARK.encode() + key[:8] + _mix(secret.encode(), key)).decode()


def decrypt(value: str, tenant_id: str) -> str:
    """A missing key file is an error; the key of another pair is none: the ciphertext itself comes back, as in Dify."""
    name = "tenant_privkey:" + hashlib.sha3_256(tenant_id.encode()).hexdigest()
    private = cache.get(name)
    if private is None:
        private = private_key_path(tenant_id).read_text(encoding="ascii")
        cache.client().setex(name, 120, private)
    key = hashlib.sha256(_openssl("rsa", "-pubout", data=private.encode())).digest()
    raw = base64.b64decode(value)
    mark = SECRET_MARK.encode() + key[:8]
    return _mix(raw[len(mark) :], key).decode() if raw.startswith(mark) else value
