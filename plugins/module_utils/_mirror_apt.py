# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Packages of the distribution: fetched once through the mirror's cache, as a bare host would, so that it holds them.

apt does that with folders of its own, in which nothing is installed: what comes is the packages with all that they
depend on, for a release and an architecture that need not be the mirror's.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._mirror_fetch import Fetcher, MirrorError
from ansible_collections.llmops.stack.plugins.module_utils._mirror_index import Index

__all__ = ["AptCache", "local_sources"]

_KEYS = ("/etc/apt/trusted.gpg.d", "/etc/apt/trusted.gpg", "/usr/share/keyrings")


class AptCache:
    def __init__(self, fetcher: Fetcher, index: Index, need: Mapping[str, Any], proxy: str) -> None:
        self.fetcher = fetcher
        self.index = index
        self.need = need
        self.proxy = proxy
        self.folder = index.absolute("apt")

    def stranger(self) -> str:
        """What this host runs, where that is not what is wanted: it then knows no package sources to fetch from."""
        own = _release()["ID"]
        return "" if own == self.need["base"] else own

    def held(self) -> bool:
        noted = self.index.get("repositories", str(self.need["name"]))
        return noted is not None and noted["wish"] == self._wish() and _weight(self.folder) > 0

    def _wish(self) -> str:
        return f"{self._wanted()} [{' '.join(self.need['architectures'])}]"

    def _wanted(self) -> str:
        """In the words of a package that depends on all of it: what hosts install, and what Docker's packages want."""
        with self.index.lock:
            others = [
                str(one.get("depends") or "")
                for one in self.index.data["repositories"].values()
                if any(f"/dists/{self.need['suite']}/" in path or "/stable/deb/" in path for path in one["files"])
            ]
        return ", ".join(dict.fromkeys([*self.need["packages"], *(one for one in others if one)]))

    def bring(self) -> int:
        """Have the cache hold them; returns by how many bytes it grew.

        Raises:
            MirrorError: it cannot be.
        """
        for program in ("apt-get", "dpkg"):
            if not shutil.which(program):
                raise MirrorError(
                    f"packages of {self.need['base']} {self.need['suite']} are fetched by {program}; it is not here.",
                    "Have a mirror of the Debian family, or give the hosts package sources of their own.",
                )
        before = _weight(self.folder)
        lines = self._lines()
        for architecture in self.need["architectures"]:
            with tempfile.TemporaryDirectory(prefix="llmops-apt-") as root:
                self._fetch(root, lines, architecture)
        self.index.put("repositories", str(self.need["name"]), {"wish": self._wish(), "files": []})
        self.index.save()
        return max(0, _weight(self.folder) - before)

    def _lines(self) -> list[str]:
        """This host's own sources, for the release that is wanted of the same distribution."""
        own = _release()
        form = "$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(ORIGIN)"
        found = self._run(["apt-get", "indextargets", "--format", form, "Created-By: Packages"], {}).splitlines()
        lines = []
        for line in found:
            uri, suite, component, origin = ([*line.split("|"), "", "", "", ""])[:4]
            base = suite.split("-")[0].split("/")[0]
            # Not those of others, such as Docker's, which have keys of their own.
            ours = origin.lower() == own["ID"] and base == own.get("VERSION_CODENAME")
            if uri.startswith("http://") and ours:
                wanted = str(self.need["suite"]) + suite[len(base) :]
                lines.append(f"deb {uri} {wanted} {component}")
        if not lines:
            raise MirrorError(
                f"this host has no package sources of {own['ID']} that are reached by HTTP.",
                "Add them to /etc/apt/sources.list.d, with http:// and not https://, which no cache can read.",
            )
        return list(dict.fromkeys(lines))

    def _fetch(self, root: str, lines: list[str], architecture: str) -> None:
        for folder in ("etc/apt", "var/lib/apt/lists/partial", "var/cache/apt/archives/partial", "var/lib/dpkg"):
            os.makedirs(os.path.join(root, folder))
        for name, text in (("etc/apt/sources.list", "\n".join(lines) + "\n"), ("var/lib/dpkg/status", "")):
            with open(os.path.join(root, name), "w", encoding="utf-8") as file:
                file.write(text)
        os.chmod(root, 0o755)  # noqa: S103 - apt reads as a user of its own
        options = {
            "Dir::Etc": f"{root}/etc/apt",
            "Dir::Etc::Trusted": _KEYS[1],
            "Dir::Etc::TrustedParts": _KEYS[0] if os.listdir(_KEYS[0]) else _KEYS[2],
            "Dir::State": f"{root}/var/lib/apt",
            "Dir::State::status": f"{root}/var/lib/dpkg/status",
            "Dir::Cache": f"{root}/var/cache/apt",
            "APT::Architecture": architecture,
            "APT::Architectures::": architecture,
            "Acquire::http::Proxy": self.proxy,
            "Acquire::Retries": "3",
            "Acquire::Languages": "en",  # as a host asks that was told nothing
            "Debug::NoLocking": "true",
        }
        self._run(["apt-get", "update", "--error-on=any"], options)
        satisfy = ["apt-get", "satisfy", "--download-only", "--yes", "--no-install-recommends"]
        self._run([*satisfy, self._wanted()], options)

    def _run(self, command: list[str], options: Mapping[str, str]) -> str:
        given = [part for key, value in options.items() for part in ("-o", f"{key}={value}")]
        try:
            done = subprocess.run(
                [command[0], *given, *command[1:]],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=self.fetcher.left(),
                check=False,
                env={**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"},
            )
        except subprocess.TimeoutExpired as exc:
            raise MirrorError(
                f"{self.need['name']} did not come in time.", "Run again. mirror_timeout is the time."
            ) from exc
        if done.returncode:
            said = [
                line[3:] for line in done.stderr.splitlines() if line.startswith("E: ")
            ] or done.stderr.splitlines()[-1:]
            raise MirrorError(
                f"{self.need['name']}: {' '.join(said)[:400].rstrip('.')}.",
                f"Check the cache of packages at {self.proxy} and what it may reach.",
            )
        return done.stdout


def local_sources(home: str) -> list[str]:
    """Lines of a sources.list by which this host gets packages out of the cache's own files, without the cache."""
    own = _release().get("VERSION_CODENAME", "")
    found = []
    for folder, _folders, names in os.walk(os.path.join(home, "apt")):
        suite = os.path.basename(folder)
        root, dists = os.path.split(os.path.dirname(folder))
        if "InRelease" in names and dists == "dists" and own and suite.split("-")[0] == own:
            parts = sorted(name for name in os.listdir(folder) if glob.glob(os.path.join(folder, name, "binary-*")))
            found += [f"deb file:{root} {suite} {' '.join(parts)}"] if parts else []
    return sorted(found)


def _release() -> dict[str, str]:
    with open("/etc/os-release", encoding="utf-8") as file:
        return {key: value.strip('"') for key, value in re.findall(r"(?m)^(\w+)=(.*)$", file.read())}


def _weight(folder: str) -> int:
    total = 0
    for place, _folders, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_size
            except OSError:
                continue
    return total
