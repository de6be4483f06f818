# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""The Python packages that plugins are made of, and an index of them as PEP 503 says, for the plugin daemon's uv.

pip resolves and fetches. It takes markers such as C(python_version < "3.11") from the Python that it runs on, so it is
told about that of the daemon.
"""

from __future__ import annotations

import html
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections import defaultdict
from collections.abc import Sequence
from urllib.parse import urlsplit

from ansible_collections.llmops.stack.plugins.module_utils._download import sha256_of, write_atomically
from ansible_collections.llmops.stack.plugins.module_utils._mirror_fetch import Fetcher, MirrorError
from ansible_collections.llmops.stack.plugins.module_utils._mirror_index import Index
from ansible_collections.llmops.stack.plugins.module_utils._mirror_plugins import package_path, requirements_of
from ansible_collections.llmops.stack.plugins.module_utils._urls import mask_urls

__all__ = ["Wheels"]

FOLDER = "www/pypi"
# What the C library of the daemon's image takes; pip does not know that a newer one takes the wheels for an older one.
_PLATFORMS = ("manylinux2014", "manylinux_2_17", "manylinux_2_24", "manylinux_2_28", "manylinux_2_34")
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
# pip's own resolver, which asks this function what it runs on.
_PIP = """
import sys
from pip._vendor.packaging import markers
version, machine = sys.argv[1:3]
found = markers.default_environment
def told():
    return {**found(), "python_version": version, "python_full_version": version + ".0", "platform_machine": machine,
            "implementation_name": "cpython", "implementation_version": version + ".0", "sys_platform": "linux",
            "platform_system": "Linux", "os_name": "posix", "platform_python_implementation": "CPython"}
markers.default_environment = told
from pip._internal.cli.main import main
sys.exit(main(sys.argv[3:]))
"""


class Wheels:
    def __init__(self, fetcher: Fetcher, index: Index) -> None:
        self.fetcher = fetcher
        self.index = index
        self._lock = threading.Lock()

    def held(self, identifier: str, python: str, architecture: str) -> bool:
        names = ((self.index.get("plugins", identifier) or {}).get("wheels") or {}).get(f"{python} {architecture}")
        return names is not None and all(self.index.holds(_file(name)) for name in names)

    def bring(self, identifier: str, python: str, architecture: str) -> int:
        """Have everything that the plugin's environment needs; returns how many bytes of wheels came.

        Raises:
            MirrorError: not all of it can be had.
        """
        requirements = self._requirements(identifier)
        if not requirements:
            self._note(identifier, python, architecture, [])
            return 0
        with self._lock:  # what plugins have in common comes once
            return self._bring(requirements, identifier, python, architecture)

    def _bring(self, requirements: list[str], identifier: str, python: str, architecture: str) -> int:
        files = self.index.absolute(f"{FOLDER}/files")
        os.makedirs(files, mode=0o755, exist_ok=True)
        os.makedirs(self.fetcher.staging, mode=0o755, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.fetcher.staging, prefix="wheels-") as scratch:
            target = os.path.join(scratch, "files")
            os.mkdir(target)
            for name in os.listdir(files):
                # What is there under the right sum pip does not fetch again.
                os.link(os.path.join(files, name), os.path.join(target, name))
            listed = os.path.join(scratch, "requirements.txt")
            with open(listed, "w", encoding="utf-8") as file:
                file.write("\n".join(requirements) + "\n")
            report = self._pip(listed, target, identifier, python, architecture)
            return self._keep(report, target, identifier, python, architecture)

    def _requirements(self, identifier: str) -> list[str]:
        kind, text = requirements_of(self.index.absolute(package_path(identifier)))
        if kind == "requirements":
            return [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith(("#", "-"))]
        return _dependencies(text, identifier)

    def _pip(self, listed: str, target: str, identifier: str, python: str, architecture: str) -> list[str]:
        """Run it; returns the names of the wheels that the plugin needs."""
        machine = _MACHINES[architecture]
        arguments = ["download", "--disable-pip-version-check", "--no-input", "--no-cache-dir", "--progress-bar=off"]
        arguments += [f"--platform={platform}_{machine}" for platform in _PLATFORMS]
        arguments += ["--only-binary=:all:", f"--python-version={python}", "--implementation=cp"]
        arguments += [f"--abi={abi}" for abi in (f"cp{python.replace('.', '')}", "abi3", "none")]
        arguments += self._index_arguments()
        arguments += [f"--dest={target}", "--requirement", listed]
        try:
            done = subprocess.run(
                [sys.executable, "-c", _PIP, python, machine, *arguments],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=self.fetcher.left(),
                check=False,
                env={**os.environ, "LC_ALL": "C.UTF-8"},
            )
        except subprocess.TimeoutExpired as exc:
            raise MirrorError(
                f"the Python packages of {identifier} did not come in time.",
                "Run again. mirror_timeout is the time that it has.",
            ) from exc
        if done.returncode:
            if "No module named" in done.stderr and "pip" in done.stderr:
                raise MirrorError(
                    "there is no pip on this host, which fetches Python packages.", "Install python3-pip."
                )
            raise MirrorError(
                f"the Python packages of {identifier} for Python {python} on {architecture} cannot all be had: "
                f"{_reason(done.stderr)}.",
                "Wheels are taken and no sources. See what the index has, and whether mirror_plugin_python "
                "is the Python of the plugin daemon.",
            )
        said = re.findall(r"(?m)(?:Saved|File was already downloaded) (?:.*/)?([^/\s]+\.whl)\s*$", done.stdout)
        return sorted(dict.fromkeys(said))

    def _index_arguments(self) -> list[str]:
        index = self.fetcher.sources.index
        if not index:
            return []
        host = urlsplit(index).hostname or ""
        return ["--index-url", index, *(["--trusted-host", host] if index.startswith("http://") else [])]

    def _keep(self, names: Sequence[str], target: str, identifier: str, python: str, architecture: str) -> int:
        received = 0
        for name in names:
            path = os.path.join(target, name)
            if self.index.holds(_file(name)):
                continue
            try:
                with zipfile.ZipFile(path) as wheel:
                    damaged = wheel.testzip()
            except (OSError, zipfile.BadZipFile):
                damaged = name
            if damaged:
                raise MirrorError(f"{name} is no whole wheel; it was not taken.", "Run again.")
            received += os.path.getsize(path)
            os.chmod(path, 0o644)
            os.replace(path, self.index.absolute(_file(name)))
            self.index.note(_file(name), sha256_of(self.index.absolute(_file(name))), identifier)
        self._note(identifier, python, architecture, names)
        return received

    def _note(self, identifier: str, python: str, architecture: str, names: Sequence[str]) -> None:
        with self.index.lock:
            entry = self.index.data["plugins"].setdefault(identifier, {})
            entry.setdefault("wheels", {})[f"{python} {architecture}"] = list(names)
        self.index.save()

    def publish(self) -> bool:
        """Write the index of what is there; whether it has changed."""
        with self.index.lock:
            noted = {
                path: one["sha256"]
                for path, one in self.index.data["files"].items()
                if path.startswith(f"{FOLDER}/files/")
            }
        pages: defaultdict[str, list[str]] = defaultdict(list)
        for path, sha in sorted(noted.items()):
            name = os.path.basename(path)
            address = f"../../files/{html.escape(name)}#sha256={sha}"
            pages[_normalized(name.partition("-")[0])].append(f'<a href="{address}">{html.escape(name)}</a>')
        simple = self.index.absolute(f"{FOLDER}/simple")
        wanted = {name: _page(links) for name, links in pages.items()}
        wanted[""] = _page([f'<a href="{name}/">{name}</a>' for name in sorted(pages)])
        changed = False
        for name, text in wanted.items():
            changed = _write(os.path.join(simple, name, "index.html"), text) or changed
        for name in os.listdir(simple):
            if name != "index.html" and name not in wanted:
                shutil.rmtree(os.path.join(simple, name))
                changed = True
        return changed


def _file(name: str) -> str:
    return f"{FOLDER}/files/{name}"


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _page(links: list[str]) -> str:
    body = "<br>\n".join(links)
    meta = '<meta name="pypi:repository-version" content="1.0">'
    return f"<!DOCTYPE html>\n<html><head>{meta}</head><body>\n{body}\n</body></html>\n"


def _write(path: str, text: str) -> bool:
    try:
        with open(path, encoding="utf-8") as file:
            if file.read() == text:
                return False
    except OSError:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    write_atomically(path, text, 0o644)
    return True


def _dependencies(text: str, identifier: str) -> list[str]:
    """Those of a pyproject.toml."""
    try:
        import tomllib
    except ImportError:
        try:
            from pip._vendor import tomli as tomllib  # type: ignore[no-redef]  # before Python 3.11
        except ImportError as exc:
            raise MirrorError(
                f"{identifier} says in a pyproject.toml what it needs, and this host's Python cannot read that.",
                "Have a mirror with Python 3.11 or newer, or install python3-pip.",
            ) from exc
    try:
        found = tomllib.loads(text)["project"].get("dependencies") or []
    except (ValueError, KeyError, AttributeError) as exc:
        raise MirrorError(
            f"the pyproject.toml of {identifier} cannot be read ({exc}).", "Take another version."
        ) from exc
    return [str(one) for one in found]


def _reason(text: str) -> str:
    errors = [line.partition("ERROR: ")[2] for line in text.splitlines() if line.startswith("ERROR: ")]
    lines = errors or text.strip().splitlines()[-1:] or ["no reason was given"]
    return str(mask_urls(" ".join(lines[:3]))).strip()[-500:].rstrip(".")
