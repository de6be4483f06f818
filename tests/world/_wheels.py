# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Python packages by lock files: for the package index, which serves what our own plugin needs as PEP 503 says, and for
images that have some. pip fetches each once.

python3 tests/world/_wheels.py [LOCK]…     # writes lock files (or these only) anew, from the requirements beside them
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
import threading
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import _host
import _wheelprogram
import images
from _engine import run
from _settings import CACHE, IMAGES, MACHINE, REPO, WORLD, WorldError, content_hash, say, step
from _upstream import WWW, swapped

FOLDER = WWW / "pypi"
CACHED = CACHE / "wheels"
LOCK = WORLD / "plugins" / "requirements.lock"
PHOENIX = IMAGES / "phoenix" / "wheels" / "requirements.lock"
# Lock -> the requirements that it is made of, and the Python that it is for: the plugin daemon's and Phoenix's, which
# is Debian 13's, and the api's, which is Debian 12's.
RECIPES = {
    LOCK: (WORLD / "plugins" / "ollama" / "requirements.txt", "3.13"),
    PHOENIX: (PHOENIX.with_suffix(".txt"), "3.13"),
} | {path.with_suffix(".lock"): (path, "3.11") for path in sorted((IMAGES / "standin" / "wheels").glob("*.txt"))}
# What a C library of that image takes; pip does not know that a newer one takes the wheels for an older one, too.
PLATFORMS = ("manylinux2014", "manylinux_2_17", "manylinux_2_24", "manylinux_2_28", "manylinux_2_34")
MACHINES = ("x86_64", "aarch64")

_LOCK = threading.Lock()
_LINE = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)((?: --hash=sha256:[0-9a-f]{64})+)$")


def ensure() -> None:
    """Fetches what the lock names and the cache lacks, and writes the index where the lock has changed."""
    stamp = content_hash([Path(__file__).read_bytes(), LOCK.read_bytes(), MACHINE]) + "\n"
    seal = FOLDER.with_name(".pypi.stamp")
    if seal.is_file() and seal.read_text() == stamp and FOLDER.is_dir():
        return
    wheels = of(LOCK)
    seal.unlink(missing_ok=True)
    with swapped(FOLDER) as folder:
        write(folder, wheels)
    seal.write_text(stamp)


def of(lock: Path) -> list[Path]:
    """The wheels that a lock names for this machine, fetched now if need be."""
    wanted = locked(lock.read_text())
    with _LOCK:
        if not _found(wanted):
            with step(f"{len(wanted)} Python packages of {lock.name}"):
                _fetch(lock)
        wheels = _found(wanted)
    if not wheels:
        raise WorldError(f"pip fetched other files than {lock} names; write it anew: python3 tests/world/_wheels.py")
    return wheels


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


def _fetch(lock: Path) -> None:
    CACHED.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="wheels-") as scratch:
        options = ("--no-deps", "--require-hashes", "--requirement", str(lock))
        _pip(Path(scratch), MACHINE, *options, python=RECIPES[lock][1])
        fetched = sorted(Path(scratch).glob("*.whl"))
        say(f"{len(fetched)} wheels, {sum(path.stat().st_size for path in fetched) / 1e6:.0f} MB")
        for path in fetched:
            path.replace(CACHED / path.name)


def _pip(target: Path, machine: str, *what: str, python: str = "3.13") -> None:
    options = [f"--platform={platform}_{machine}" for platform in PLATFORMS]
    abi = f"cp{python.replace('.', '')}"
    options += ["--only-binary=:all:", f"--python-version={python}", "--implementation=cp", "--abi=none", "--abi=abi3"]
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


def lock(requirements: Path, python: str) -> str:
    """The newest packages that the requirements allow, with the digests of their wheels for all machines."""
    digests: defaultdict[str, set[str]] = defaultdict(set)
    with tempfile.TemporaryDirectory() as scratch:
        for machine in MACHINES:
            pins = Path(scratch, f"{machine}.txt")
            pins.write_text(_resolved(requirements, python, machine))
            _pip(Path(scratch, machine), machine, "--no-deps", "--requirement", str(pins), python=python)
        for path in Path(scratch).glob("*/*.whl"):
            name, version = path.name.split("-")[:2]
            digests[f"{normalized(name)}=={version}"].add(_digest(path))
    source = f"{requirements.parent.name}/{requirements.name}"
    head = f"# Written by tests/world/_wheels.py out of {source}: wheels for Python {python} on Linux.\n"
    lines = [
        " \\\n    ".join([name, *(f"--hash=sha256:{one}" for one in sorted(digests[name]))]) for name in sorted(digests)
    ]
    return head + "\n".join(lines) + "\n"


def _resolved(requirements: Path, python: str, machine: str) -> str:
    """What uv takes for that Python; pip reads `python_version < "3.11"` as its own interpreter's."""
    uv = _wheelprogram.ensure(images.UV)
    where = [f"--python-version={python}", f"--python-platform={machine}-{PLATFORMS[-1]}"]
    options = [*where, "--only-binary=:all:", "--no-annotate", "--no-header", "--quiet"]
    return run(str(uv), "pip", "compile", *options, str(requirements), timeout=900)


if __name__ == "__main__":
    for path in [Path(name).resolve() for name in sys.argv[1:]] or RECIPES:
        path.write_text(lock(*RECIPES[path]))
