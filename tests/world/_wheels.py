# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The package index: the wheels that our own plugin needs, fetched once by pip and served as PEP 503 says.

python3 tests/world/_wheels.py        # writes plugins/requirements.lock anew, from the plugin's requirements.txt
"""

from __future__ import annotations

import hashlib
import html
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import _host
import _wheelprogram
import images
from _engine import run
from _settings import CACHE, MACHINE, REPO, WORLD, WorldError, content_hash, say, step
from _upstream import WWW, swapped

FOLDER = WWW / "pypi"
CACHED = CACHE / "wheels"
LOCK = WORLD / "plugins" / "requirements.lock"
REQUIREMENTS = WORLD / "plugins" / "ollama" / "requirements.txt"
PYTHON = "3.13"  # of the plugin daemon's image, which is Debian 13
# What a C library of that image takes; pip does not know that a newer one takes the wheels for an older one, too.
PLATFORMS = ("manylinux2014", "manylinux_2_17", "manylinux_2_24", "manylinux_2_28", "manylinux_2_34")
MACHINES = ("x86_64", "aarch64")

_LINE = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)((?: --hash=sha256:[0-9a-f]{64})+)$")


def ensure() -> None:
    """Fetches what the lock names and the cache lacks, and writes the index where the lock has changed."""
    stamp = content_hash([Path(__file__).read_bytes(), LOCK.read_bytes(), MACHINE]) + "\n"
    seal = FOLDER.with_name(".pypi.stamp")
    if seal.is_file() and seal.read_text() == stamp and FOLDER.is_dir():
        return
    wanted = locked(LOCK.read_text())
    if not _found(wanted):
        with step(f"{len(wanted)} Python packages for the plugin"):
            _fetch()
    wheels = _found(wanted)
    if not wheels:
        raise WorldError(f"pip fetched other files than {LOCK} names; write it anew: python3 tests/world/_wheels.py")
    seal.unlink(missing_ok=True)
    with swapped(FOLDER) as folder:
        write(folder, wheels)
    seal.write_text(stamp)


def locked(text: str) -> dict[str, set[str]]:
    """The lock's packages, by their names in an index, with the digests of their wheels for every kind of machine."""
    found = {}
    for line in text.replace("\\\n", "").splitlines():
        if line.strip() and not line.startswith("#"):
            match = _LINE.match(re.sub(r"\s+", " ", line.strip()))
            if not match:
                raise WorldError(f"{LOCK}: {line.strip()!r} is not name==version with a --hash=sha256:… or more")
            found[normalized(match[1])] = set(re.findall(r"[0-9a-f]{64}", match[3]))
    return found


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _found(wanted: dict[str, set[str]]) -> list[Path]:
    """The cached wheels, one for each package of the lock; none at all where one is missing."""
    by_digest = {_digest(path): path for path in sorted(CACHED.glob("*.whl"))}
    wheels = [next((by_digest[one] for one in digests if one in by_digest), None) for digests in wanted.values()]
    there = [wheel for wheel in wheels if wheel]
    return there if len(there) == len(wheels) else []


def _fetch() -> None:
    CACHED.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="wheels-") as scratch:
        _pip(Path(scratch), MACHINE, "--no-deps", "--require-hashes", "--requirement", str(LOCK))
        fetched = sorted(Path(scratch).glob("*.whl"))
        say(f"{len(fetched)} wheels, {sum(path.stat().st_size for path in fetched) / 1e6:.0f} MB")
        for path in fetched:
            path.replace(CACHED / path.name)


def _pip(target: Path, machine: str, *what: str) -> None:
    options = [f"--platform={platform}_{machine}" for platform in PLATFORMS]
    abi = f"cp{PYTHON.replace('.', '')}"
    options += ["--only-binary=:all:", f"--python-version={PYTHON}", "--implementation=cp", "--abi=none", "--abi=abi3"]
    options += [f"--abi={abi}", "--disable-pip-version-check", "--no-cache-dir", "--quiet", f"--dest={target}"]
    run(*_client(), "download", *options, *what, timeout=900)


def _client() -> list[str]:
    """This machine's pip, with its own settings; Debian's where there is none."""
    for python in (sys.executable, "python3", str(REPO / ".venv" / "bin" / "python")):
        command = [python, "-m", "pip"]
        if shutil.which(python) and not subprocess.run([*command, "-V"], capture_output=True, check=False).returncode:
            return command
    _host.require("pip3")
    return ["pip3"]


def write(folder: Path, wheels: Iterable[Path]) -> None:
    """files/<wheel>, simple/ with a page for each package, and wheels.tar for a host that has no index at all."""
    pages: defaultdict[str, list[str]] = defaultdict(list)
    (folder / "files").mkdir(parents=True)
    with tarfile.open(folder / "wheels.tar", "w") as archive:
        for wheel in wheels:
            shutil.copyfile(wheel, folder / "files" / wheel.name)
            archive.add(wheel, wheel.name)
            address = f"../../files/{html.escape(wheel.name)}#sha256={_digest(wheel)}"
            pages[normalized(wheel.name.split("-")[0])].append(_link(address, wheel.name))
    for name, links in pages.items():
        _page(folder / "simple" / name, links)
    _page(folder / "simple", [_link(f"{name}/", name) for name in sorted(pages)])


def _page(folder: Path, links: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    meta = '<meta name="pypi:repository-version" content="1.0">'
    body = "<br>\n".join(links)
    (folder / "index.html").write_text(f"<!DOCTYPE html>\n<html><head>{meta}</head><body>\n{body}\n</body></html>\n")


def _link(address: str, text: str) -> str:
    return f'<a href="{address}">{html.escape(text)}</a>'


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def lock() -> str:
    """The newest packages that the plugin's requirements allow, with the digests of their wheels for all machines."""
    digests: defaultdict[str, set[str]] = defaultdict(set)
    with tempfile.TemporaryDirectory() as scratch:
        for machine in MACHINES:
            pins = Path(scratch, f"{machine}.txt")
            pins.write_text(_resolved(machine))
            _pip(Path(scratch, machine), machine, "--no-deps", "--requirement", str(pins))
        for path in Path(scratch).glob("*/*.whl"):
            name, version = path.name.split("-")[:2]
            digests[f"{normalized(name)}=={version}"].add(_digest(path))
    head = (
        "# Written by tests/world/_wheels.py out of ollama/requirements.txt: wheels for the daemon's Python on Linux.\n"
    )
    lines = [
        " \\\n    ".join([name, *(f"--hash=sha256:{one}" for one in sorted(digests[name]))]) for name in sorted(digests)
    ]
    return head + "\n".join(lines) + "\n"


def _resolved(machine: str) -> str:
    """What uv takes for the daemon's Python; pip reads `python_version < "3.11"` as its own interpreter's."""
    uv = _wheelprogram.ensure(images.UV)
    where = [f"--python-version={PYTHON}", f"--python-platform={machine}-{PLATFORMS[-1]}"]
    options = [*where, "--only-binary=:all:", "--no-annotate", "--no-header", "--quiet"]
    return run(str(uv), "pip", "compile", *options, str(REQUIREMENTS), timeout=900)


if __name__ == "__main__":
    LOCK.write_text(lock())
