# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Have a mirror hold what is needed: several things at a time, each whole and checked or not at all.

What cannot be had keeps nothing else from coming. Which images a release has and which wheels a plugin needs is known
when its archive or package is there, so those are jobs that follow from it.
"""

from __future__ import annotations

import concurrent.futures
import os
import shutil
import zipfile
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from ansible_collections.llmops.stack.plugins.module_utils import _mirror_fetch as fetch
from ansible_collections.llmops.stack.plugins.module_utils._dify_env import EnvError
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_names import Wanted
from ansible_collections.llmops.stack.plugins.module_utils._download import ReleaseError
from ansible_collections.llmops.stack.plugins.module_utils._mirror_apt import AptCache
from ansible_collections.llmops.stack.plugins.module_utils._mirror_fetch import Fetcher, MirrorError, Sources
from ansible_collections.llmops.stack.plugins.module_utils._mirror_images import Images
from ansible_collections.llmops.stack.plugins.module_utils._mirror_index import Index
from ansible_collections.llmops.stack.plugins.module_utils._mirror_models import Models
from ansible_collections.llmops.stack.plugins.module_utils._mirror_packages import Repository
from ansible_collections.llmops.stack.plugins.module_utils._mirror_plugins import Plugins
from ansible_collections.llmops.stack.plugins.module_utils._mirror_release import (
    elsewhere,
    read_release,
    release_images,
    stored_name,
)
from ansible_collections.llmops.stack.plugins.module_utils._mirror_wheels import Wheels
from ansible_collections.llmops.stack.plugins.module_utils._ollama_names import parse
from ansible_collections.llmops.stack.plugins.module_utils._ollama_release import published

__all__ = ["Mirror", "Outcome"]

Need = Mapping[str, Any]
_CHECKS: dict[str, Callable[[str], None]] = {"targz": fetch.check_targz}


class Outcome(NamedTuple):
    kind: str
    name: str
    action: str  # none, fetched (in a check run: would be), missing
    size: int | None = 0  # bytes that came, or are to come; None where nobody knows
    reason: str = ""
    advice: str = ""
    hosts: tuple[str, ...] = ()
    follows: tuple[Need, ...] = ()
    identifier: str = ""  # of a plugin


class Mirror:
    """What is below C(home). C(check) looks and fetches nothing, C(offline) does not even look elsewhere."""

    def __init__(
        self,
        home: str,
        sources: Sources,
        deadline: float,
        registry: str,
        apt_proxy: str = "",
        refresh: bool = False,
        check: bool = False,
        offline: bool = False,
        parallel: int = 4,
    ) -> None:
        self.index = Index(home)
        self.fetcher = Fetcher(home, sources, deadline)
        self.images = Images(self.fetcher, self.index, registry)
        self.models = Models(self.fetcher, self.index)
        self.plugins = Plugins(self.fetcher, self.index)
        self.wheels = Wheels(self.fetcher, self.index)
        self.apt_proxy = apt_proxy
        self.refresh = refresh and not offline
        self.check = check
        self.offline = offline
        self.parallel = max(1, parallel)
        self.notes: list[str] = []
        self._jobs: dict[str, Callable[[Need], Outcome]] = {
            "archive": self._archive,
            "release": self._release,
            "image": self._image,
            "model": self._model,
            "plugin": self._plugin,
            "wheels": self._wheels,
            "repository": self._repository,
            "packages": self._packages,
        }

    def run(self, needs: Iterable[Need]) -> list[Outcome]:
        """What became of each need, and of those that followed from it, in a stable order."""
        done: list[Outcome] = []
        waiting = list(needs)
        with concurrent.futures.ThreadPoolExecutor(self.parallel) as pool:
            # Archives before what stands in them, and what follows from several needs once, for all of them.
            for kinds in (("archive", "model", "plugin", "repository"), ("release", "packages"), ("image", "wheels")):
                wave = _together(one for one in waiting if one["kind"] in kinds)
                waiting = [one for one in waiting if one["kind"] not in kinds]
                for outcome in pool.map(self._one, wave):
                    done.append(outcome)
                    waiting += outcome.follows
        if not self.check:
            self.publish()
            self.index.save()
        return sorted(done, key=lambda one: (one.kind, one.name))

    def publish(self) -> bool:
        """The pages that follow from what is there; whether any has changed."""
        os.makedirs(self.index.absolute("www/pypi/simple"), mode=0o755, exist_ok=True)
        return any([self.plugins.publish(), self.wheels.publish()])

    def _one(self, need: Need) -> Outcome:
        kind, name, hosts = str(need["kind"]), str(need["name"]), tuple(need.get("hosts") or ())
        try:
            return self._jobs[kind](need)._replace(hosts=hosts)
        except MirrorError as exc:
            return Outcome(kind, name, "missing", 0, exc.reason, exc.advice, hosts)
        except (OSError, ReleaseError, EnvError, zipfile.BadZipFile) as exc:
            said = (exc.strerror or str(exc)) if isinstance(exc, OSError) else str(exc)
            return Outcome(kind, name, "missing", 0, f"{said.rstrip('.')}.", "", hosts)

    def _outside(self) -> None:
        """Before anything is asked for elsewhere."""
        if self.offline:
            raise MirrorError(
                "this mirror does not have it.",
                "Run playbooks/mirror.yml with this inventory and mirror_bundle_to on a mirror that has a way out, "
                "and bring the bundle here.",
            )

    # -- one kind each

    def _archive(self, need: Need) -> Outcome:
        path, kept = str(need["path"]), f"www/{need['path']}"
        sums = str(need.get("sums") or "")
        if self.index.holds(kept, str(need.get("sha256") or "")) and (not sums or self.index.holds(f"www/{sums}")):
            return _there(need)
        self._outside()
        url = self.fetcher.sources.url(path)
        if self.check:
            return _came(need, self.fetcher.size(url))
        sha256 = str(need.get("sha256") or "") or self._published(need)
        received = 0
        if not self.index.holds(kept, sha256):
            check = _CHECKS.get(str(need.get("check") or ""))
            got = self.fetcher.file(url, self.index.absolute(kept), sha256, check)
            self.index.note(kept, got.sha256, str(need["name"]))
            received = got.received
        if sums:
            # Hosts check by it.
            got = self.fetcher.file(self.fetcher.sources.url(sums), self.index.absolute(f"www/{sums}"))
            self.index.note(f"www/{sums}", got.sha256, str(need["name"]))
        self.index.save()
        return _came(need, received)

    def _published(self, need: Need) -> str:
        """The sum that is published beside a file."""
        if not need.get("sums"):
            return ""
        name = os.path.basename(str(need["path"]))
        text = self.fetcher.text(self.fetcher.sources.url(str(need["sums"])))
        found = published(text).get(name, "")
        if not found:
            raise MirrorError(
                f"{os.path.basename(str(need['sums']))} has no sha256 of {name}, so nothing says whether it is whole.",
                "Put its sha256 into the inventory, or have the release's own list where the mirror fetches from.",
            )
        return found

    def _release(self, need: Need) -> Outcome:
        kept = f"www/{need['path']}"
        if not self.index.holds(kept):
            if self.check and not self.offline:
                return _came(need, None)
            raise MirrorError(f"which images Dify {need['version']} has stands in its archive, which is not there.")
        names = release_images(read_release(self.index.absolute(kept)), need["env"], need["images"])
        self.notes += elsewhere(names)
        more = {"hosts": need.get("hosts"), "architectures": need["architectures"]}
        return _there(need)._replace(follows=tuple({"kind": "image", "name": name, **more} for name in names))

    def _image(self, need: Need) -> Outcome:
        name, architectures = str(need["name"]), list(need["architectures"])
        held = self._held(name, architectures)
        if held and not self.refresh:
            return _there(need)
        self._outside()
        if self.check:
            return _came(need, self.images.size(name, architectures) if shutil.which("skopeo") else None)
        before = self.index.get("images", stored_name(name))
        size = self.images.bring(name, architectures)
        same = held and before == self.index.get("images", stored_name(name))
        return _there(need) if same else _came(need, size)

    def _held(self, name: str, architectures: list[str]) -> bool:
        try:
            return self.images.held(name, architectures)
        except MirrorError:
            if not self.check:
                raise
            return False  # a check run may come before the registry

    def _model(self, need: Need) -> Outcome:
        name = parse(str(need["name"])).short
        held = self.models.held(name)
        if held and not self.refresh:
            return _there(need)
        self._outside()
        if self.check:
            return _came(need, self.models.size(name))
        before = self.index.get("models", name)
        size = self.models.bring(name, self.refresh)
        return _there(need) if held and before == self.index.get("models", name) else _came(need, size)

    def _plugin(self, need: Need) -> Outcome:
        wanted = Wanted(str(need["plugin"]), str(need["version"]), str(need["checksum"]))
        held = self.plugins.held(wanted)
        identifier, size = held, 0
        if not held or (self.refresh and not wanted.version):
            self._outside()
            if self.check:
                return _came(need, None) if not held else _there(need)
            identifier, size = self.plugins.bring(wanted)
        follows = tuple(
            {
                "kind": "wheels",
                "name": f"Python packages of {identifier.partition('@')[0]} for Python {python} on {architecture}",
                "plugin": identifier,
                "python": python,
                "architecture": architecture,
                "hosts": need.get("hosts"),
            }
            for python in need["python"]
            for architecture in need["architectures"]
        )
        done = _there(need) if identifier == held else _came(need, size)
        return done._replace(follows=follows, identifier=identifier)

    def _wheels(self, need: Need) -> Outcome:
        wanted = (str(need["plugin"]), str(need["python"]), str(need["architecture"]))
        if self.wheels.held(*wanted):
            return _there(need)
        self._outside()
        return _came(need, None if self.check else self.wheels.bring(*wanted))

    def _repository(self, need: Need) -> Outcome:
        one = Repository(self.fetcher, self.index, need)
        held = one.held()
        if held and not self.refresh:
            return _there(need)
        self._outside()
        if self.check:
            return _came(need, one.size())
        before = self.index.get("repositories", str(need["name"]))
        size = one.bring()
        return (
            _there(need) if held and before == self.index.get("repositories", str(need["name"])) else _came(need, size)
        )

    def _packages(self, need: Need) -> Outcome:
        one = AptCache(self.fetcher, self.index, need, self.apt_proxy)
        if not self.apt_proxy or (one.held() and not self.refresh):
            return _there(need)
        own = one.stranger()
        if own:
            return self._passed_on(need, own)
        self._outside()
        return _came(need, None if self.check else one.bring())

    def _passed_on(self, need: Need, own: str) -> Outcome:
        """Hosts name their package sources themselves, so the cache gets for them what the mirror could not ask for."""
        base, hosts = need["base"], ", ".join(need["hosts"])
        if self.offline:
            raise MirrorError(
                f"this mirror runs {own}, so neither it nor the one that wrote its bundle knows sources of {base}.",
                f"Have mirrors that run {base}, or give those hosts package sources of their own, and this mirror "
                "mirror_apt_port: 0, which says that it serves none.",
            )
        self.notes.append(
            f"The {need['name']} will come through the cache when {hosts} ask for them, because this mirror runs {own} "
            f"and knows no package sources of {base}. A bundle lacks them: write one for those hosts on a mirror that "
            f"runs {base}."
        )
        return _there(need)


def _there(need: Need) -> Outcome:
    return Outcome(str(need["kind"]), str(need["name"]), "none")


def _came(need: Need, size: int | None) -> Outcome:
    return Outcome(str(need["kind"]), str(need["name"]), "fetched", size)


def _together(needs: Iterable[Need]) -> list[Need]:
    """Each once, for all hosts and kinds of machines that want it."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for need in needs:
        key = tuple(str(need.get(part) or "") for part in ("kind", "name", "env", "images"))
        one = found.setdefault(key, {**need})
        for part in ("hosts", "architectures"):
            if need.get(part):
                one[part] = sorted({*(one.get(part) or ()), *need[part]})
    return list(found.values())
