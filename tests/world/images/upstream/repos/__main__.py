# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes Docker's package repositories out of Debian's own engine.

Runs in the upstream image: `python3 repos key` prints a new private key; `python3 repos build < inputs.tar > www.tar`
turns the key and the Compose binary into the folder docker-ce, laid out as Docker's own site. Only the two archives
pass in and out, so it works with any engine, also with one that cannot mount this machine's folders.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

import deb
import engine
import rpm

CODENAMES = {"trixie": "13", "bookworm": "12"}
KEY_RECIPE = """%no-protection
Key-Type: RSA
Key-Length: 3072
Key-Usage: sign
Name-Real: llmops.stack world
Name-Email: world@llmops.invalid
Expire-Date: 0
%commit
"""


def gpg(*args: str, stdin: bytes = b"") -> bytes:
    return subprocess.run(["gpg", "--batch", "--quiet", *args], input=stdin, stdout=subprocess.PIPE, check=True).stdout


def make_key() -> None:
    gpg("--generate-key", stdin=KEY_RECIPE.encode())
    sys.stdout.buffer.write(gpg("--armor", "--export-secret-keys"))


def build(work: Path) -> None:
    with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as archive:
        archive.extractall(work / "in")
    gpg("--import", str(work / "in" / "key.asc"))
    public = gpg("--armor", "--export")
    listing = gpg("--list-keys", "--with-colons").decode()
    fingerprint = next(line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr:"))
    site = work / "www" / "docker-ce" / "linux"
    for codename, number in CODENAMES.items():
        packages = engine.packages(codename, work / codename, work / "in" / "docker-compose")
        deb.repository(packages, codename, number, site / "debian")
        if codename == "trixie":  # the emulated Red Hat node is a Debian 13
            rpm.repository(packages, work / "rpmbuild", site / "centos")
    for family in ("debian", "centos"):
        (site / family / "gpg").write_bytes(public)
    (site / "rhel").symlink_to("centos")
    (site.parent / "key.fingerprint").write_text(fingerprint + "\n")
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as archive:
        archive.add(work / "www", ".")


if __name__ == "__main__":
    if sys.argv[1:] == ["key"]:
        make_key()
    else:
        build(Path("/work"))
