# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Key pairs as OpenSSL makes them, in the forms that PEM has for RSA."""

from __future__ import annotations

import functools
import subprocess

import pytest
from ansible_collections.llmops.stack.plugins.module_utils._dify_backup_keys import compare, key_path, modulus

A, B = "3b4a9a7f-5f94-420d-ae23-4202e778f735", "b1f0c2aa-0000-4000-8000-000000000001"


def openssl(*arguments: str, given: str = "") -> str:
    done = subprocess.run(["openssl", *arguments], input=given, capture_output=True, text=True, check=True)
    return done.stdout


@functools.cache
def pair(number: int) -> dict[str, str]:
    """Dify's own forms are `private` (PKCS #1) and `public`."""
    plain = openssl("genrsa", "2048")
    return {
        "private": openssl("rsa", "-traditional", given=plain),
        "private 8": openssl("pkcs8", "-topk8", "-nocrypt", given=plain),
        "public": openssl("rsa", "-pubout", given=plain),
        "public 1": openssl("rsa", "-RSAPublicKey_out", given=plain),
        "modulus": openssl("rsa", "-noout", "-modulus", given=plain).strip().partition("=")[2],
    }


@pytest.mark.parametrize("form", ["private", "private 8", "public", "public 1"])
def test_every_form_has_the_modulus(form: str) -> None:
    assert modulus(pair(1)[form]) == int(pair(1)["modulus"], 16)


def test_the_lines_may_end_otherwise() -> None:
    assert modulus(pair(1)["public"].replace("\n", "\r\n")) == modulus(pair(1)["public"])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no key",
        "-----BEGIN PUBLIC KEY-----\n\n-----END PUBLIC KEY-----",
        "-----BEGIN PUBLIC KEY-----\n????\n-----END PUBLIC KEY-----",
        "-----BEGIN PUBLIC KEY-----\nMAA=\n-----END PUBLIC KEY-----",
    ],
)
def test_what_is_no_key(text: str) -> None:
    assert modulus(text) is None


def test_a_key_that_was_cut() -> None:
    lines = pair(1)["private"].splitlines()
    assert modulus("\n".join([*lines[:5], lines[-1]])) is None


class TestPairs:
    def test_right_ones(self) -> None:
        public = {A: pair(1)["public"], B: pair(2)["public"]}
        private = {key_path(A): pair(1)["private"].encode(), key_path(B): pair(2)["private"].encode()}
        found = compare(public, private)
        assert found.complete and found.checked == 2

    def test_a_missing_one(self) -> None:
        found = compare({A: pair(1)["public"], B: pair(2)["public"]}, {key_path(A): pair(1)["private"].encode()})
        assert (found.checked, found.missing, found.foreign) == (2, [B], [])

    def test_one_of_another_pair(self) -> None:
        found = compare({A: pair(1)["public"]}, {key_path(A): pair(2)["private"].encode()})
        assert (found.missing, found.foreign) == ([], [A])

    def test_a_file_that_is_no_key(self) -> None:
        assert compare({A: pair(1)["public"]}, {key_path(A): b"\xff\xfe"}).foreign == [A]

    def test_a_workspace_of_which_nothing_can_be_said(self) -> None:
        assert compare({A: ""}, {}).checked == 0
