# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Our own plugin as packages that the daemon takes, and some that it must refuse; equal sources give equal bytes."""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from _settings import WORLD, WorldError, content_hash, step, tree, tree_hash
from _upstream import WWW, swapped

FOLDER = WWW / "plugins"
SOURCES = WORLD / "plugins" / "ollama"
OPERATOR_KEY = WORLD / "plugins" / "operator.pem"
PLUGIN = "langgenius/ollama"
# What stands for the publisher's key: standin/daemon_package.py knows it, and says how a signature is made here.
OFFICIAL_KEY = b"llmops.stack world: official marketplace key"
EPOCH = (2024, 9, 20, 0, 0, 0)
CREATED = "2024-09-20T00:13:50Z"
TOO_LARGE = 50 * 1024 * 1024 + 1  # more than a daemon takes that was told nothing
NO_SUCH = "llmops-world-no-such-package"
CRASH = b'raise SystemExit("this plugin ends before it has begun")\n'


@dataclass(frozen=True)
class Package:
    """A package to serve: the plugin under this version, and what is different about it."""

    version: str
    about: str = ""  # part of the file's name
    key: bytes | None = OFFICIAL_KEY
    good: bool = True  # the marketplace lists it
    replace: Mapping[str, bytes] = field(default_factory=dict)
    ballast: int = 0

    @property
    def file_name(self) -> str:
        return f"{'_'.join(filter(None, [PLUGIN.replace('/', '-'), self.version, self.about]))}.difypkg"


def packages() -> list[Package]:
    """Newest first among the good ones."""
    requirements = (SOURCES / "requirements.txt").read_bytes().rstrip() + f"\n{NO_SUCH}==1.0\n".encode()
    return [
        Package("0.2.0"),
        Package("0.1.0"),
        Package("0.3.1", "unsigned", key=None, good=False),
        Package("0.3.2", "operator", key=OPERATOR_KEY.read_bytes(), good=False),
        Package("0.3.3", "large", good=False, ballast=TOO_LARGE),
        Package("0.3.4", "dependency", good=False, replace={"requirements.txt": requirements}),
        Package("0.3.5", "crashes", good=False, replace={"main.py": CRASH}),
    ]


def ensure() -> None:
    """Packs what has changed since."""
    if not SOURCES.is_dir():
        raise WorldError(f"{SOURCES} is missing: the plugin that the world serves")
    stamp = content_hash([Path(__file__).read_bytes(), tree_hash(SOURCES), OPERATOR_KEY.read_bytes()]) + "\n"
    seal = FOLDER.with_name(".plugins.stamp")
    if seal.is_file() and seal.read_text() == stamp and FOLDER.is_dir():
        return
    with step("plugin packages"):
        seal.unlink(missing_ok=True)
        with swapped(FOLDER) as folder:
            write(folder)
        seal.write_text(stamp)


def write(folder: Path) -> None:
    """The packages, and the index.json that the marketplace answers from."""
    listed = []
    for package in packages():
        files = contents(package)
        (folder / package.file_name).write_bytes(pack(files, package.key))
        listed.append(
            {
                "plugin_id": PLUGIN,
                "version": package.version,
                "identifier": identifier(package.version, files),
                "file": package.file_name,
                "good": package.good,
                "created_at": CREATED,
            }
        )
    (folder / "index.json").write_text(json.dumps(listed, indent=2) + "\n")


def contents(package: Package) -> dict[str, bytes]:
    files = {name: path.read_bytes() for name, path in tree(SOURCES)}
    manifest, found = re.subn(rb"(?m)^version:.*$", f"version: {package.version}".encode(), files["manifest.yaml"])
    if found != 1:
        raise WorldError(f"{SOURCES / 'manifest.yaml'} needs one line that begins with `version:`, it has {found}")
    files |= {"manifest.yaml": manifest, **package.replace}
    if package.ballast:
        # Nothing that could be packed smaller, and the same every time.
        files["_assets/ballast.bin"] = hashlib.shake_256(b"ballast").digest(package.ballast)
    if package.key is not None:
        files[".verification.dify.json"] = json.dumps({"authorized_category": PLUGIN.split("/")[0]}).encode()
    return files


def identifier(version: str, files: Mapping[str, bytes]) -> str:
    return f"{PLUGIN}:{version}@{checksum(files)}"


def checksum(files: Mapping[str, bytes]) -> str:
    total = hashlib.sha256()
    for name in sorted(files):
        total.update(hashlib.sha256(name.encode()).digest())
        total.update(hashlib.sha256(files[name]).digest())
    return total.hexdigest()


def pack(files: Mapping[str, bytes], key: bytes | None) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name in sorted(files):
            # Stored: what a compressor makes of the same bytes depends on its version.
            archive.writestr(zipfile.ZipInfo(name, EPOCH), files[name], zipfile.ZIP_STORED)
        if key is not None:
            signature = hmac.new(key, checksum(files).encode(), hashlib.sha256).hexdigest()
            archive.comment = json.dumps({"signature": signature}).encode()
    return target.getvalue()
