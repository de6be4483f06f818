# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Images in the mirror's own registry, under the names by which hosts ask it, with the digests of their origin.

skopeo carries them: it knows every registry's logins (C(/root/.config/containers/auth.json)), tries again, checks each
blob against its digest, and leaves out what the registry has.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from ansible_collections.llmops.stack.plugins.module_utils._http import Http, HttpError
from ansible_collections.llmops.stack.plugins.module_utils._mirror_fetch import Fetcher, MirrorError
from ansible_collections.llmops.stack.plugins.module_utils._mirror_index import Index
from ansible_collections.llmops.stack.plugins.module_utils._mirror_release import full_name, stored_name

__all__ = ["Images", "reference"]

_ACCEPT = ", ".join(
    (
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.index.v1+json",
    )
)
_POLICY = "/etc/containers/policy.json"
_ASK = 20.0
_LOOK = 120.0


def reference(stored: str) -> tuple[str, str]:
    """Repository, and tag or digest."""
    repository, at, digest = stored.partition("@")
    return (repository, digest) if at else tuple(stored.rsplit(":", 1))  # type: ignore[return-value]  # two of them


class Offer(NamedTuple):
    """An image as its registry has it."""

    base: str  # its name there, without a tag
    insecure: bool
    digest: str  # what stands under the tag in the end
    several: bool  # it is a list, for several kinds of machines
    architectures: list[str]
    blobs: dict[str, int]


class Images:
    def __init__(self, fetcher: Fetcher, index: Index, registry: str) -> None:
        self.fetcher = fetcher
        self.index = index
        self.registry = registry
        self.http = Http()
        self._lock = threading.Lock()
        self._layers: dict[str, threading.Lock] = {}

    def held(self, image: str, architectures: Sequence[str]) -> bool:
        """Whether the registry serves what was once copied under the name."""
        stored = stored_name(image)
        noted = self.index.get("images", stored)
        if not noted or not set(architectures) <= set(noted["architectures"]):
            return False
        repository, tag = reference(stored)
        return self._served(repository, tag) == noted["digest"]

    def _served(self, repository: str, tag: str) -> str:
        """The digest of what the registry has under a tag; empty where it has nothing."""
        url = f"http://{self.registry}/v2/{repository}/manifests/{tag}"
        try:
            answer = self.http.request("HEAD", url, _ASK, headers={"Accept": _ACCEPT})
        except HttpError as exc:
            raise MirrorError(
                f"{exc}, and it is the mirror's own registry.", "Run site.yml for the mirror, which starts it."
            ) from exc
        if answer.status == 404:
            return ""
        if answer.status != 200:
            raise MirrorError(
                f"the mirror's own registry answers HTTP {answer.status} when asked for {repository}:{tag}.",
                "Look into its log: journalctl -u llmops-mirror-registry.",
            )
        return str(answer.headers.get("Docker-Content-Digest", ""))

    def size(self, image: str, architectures: Sequence[str]) -> int:
        """Bytes of layers that are still to come."""
        return self._coming(self._offer(image, architectures))

    def bring(self, image: str, architectures: Sequence[str]) -> int:
        """Copy it; returns how many bytes of layers that took.

        Raises:
            MirrorError: it cannot be had; layers that came whole are in the registry for the next run.
        """
        stored = stored_name(image)
        before = self.index.get("images", stored)
        # A kind of machine that once had it does not lose it to another one.
        offer = self._offer(image, sorted({*architectures, *(before["architectures"] if before else ())}))
        with self._alone(offer):
            coming = self._coming(offer)
            self._copy(image, offer, stored)
        known = {"digest": offer.digest, "size": sum(offer.blobs.values()), "architectures": offer.architectures}
        self.index.put("images", stored, known)
        self.index.save()
        return coming

    def _copy(self, image: str, offer: Offer, stored: str) -> None:
        command = ["copy", "--quiet", "--retry-times", "3", "--dest-tls-verify=false"]
        command += ["--src-tls-verify=false"] if offer.insecure else []
        command += ["--all"] if offer.several else []
        # By its digest: a tag may move between two questions.
        source, target = f"docker://{offer.base}@{offer.digest}", f"docker://{self.registry}/{stored}"
        self._skopeo([*command, source, target], image, self.fetcher.left())
        served = self._served(*reference(stored))
        if served != offer.digest:
            raise MirrorError(
                f"{image} was copied, and the mirror's own registry has {served or 'nothing'} where {offer.digest} was "
                "expected.",
                "Run again.",
            )

    @contextlib.contextmanager
    def _alone(self, offer: Offer) -> Iterator[None]:
        """Images have layers in common, and what two of them need at the same time would come twice."""
        with self._lock:
            locks = [self._layers.setdefault(one, threading.Lock()) for one in sorted(offer.blobs)]
        with contextlib.ExitStack() as held:
            for lock in locks:  # in one order for all, so that no two wait for each other
                held.enter_context(lock)
            yield

    def remove(self, repository: str, digest: str) -> None:
        """Take a manifest away from the mirror's own registry; its layers go when the registry collects them."""
        url = f"http://{self.registry}/v2/{repository}/manifests/{digest}"
        try:
            answer = self.http.request("DELETE", url, _ASK)
        except HttpError as exc:
            raise MirrorError(f"{exc}, and it is the mirror's own registry.", "Run site.yml for the mirror.") from exc
        if answer.status not in (202, 404):
            raise MirrorError(
                f"the mirror's own registry answers HTTP {answer.status} when {repository}@{digest} is removed.",
                "Its configuration has to allow that: storage.delete.enabled.",
            )

    def _offer(self, image: str, architectures: Sequence[str]) -> Offer:
        """What there is under the name, for these kinds of machines."""
        name, insecure = self.fetcher.sources.image(full_name(image), stored_name(image))
        base = name.partition("@")[0] if "@" in name else name.rsplit(":", 1)[0]
        raw = self._raw(name, insecure, image)
        manifest, digest = json.loads(raw), _digest(raw)
        parts = [one for one in manifest.get("manifests") or [] if isinstance(one, dict)]
        if not parts:
            return Offer(base, insecure, digest, False, sorted(architectures), _blobs([manifest]))
        fitting = [one for one in parts if _is_for(one.get("platform") or {}, architectures)]
        lacking = set(architectures) - {one["platform"]["architecture"] for one in fitting}
        if lacking:
            raise MirrorError(
                f"{image} is not made for {' and '.join(sorted(lacking))}.",
                "Choose another image, or correct mirror_architectures.",
            )
        if len(architectures) == 1:
            # Its own manifest stands under the tag then, unchanged.
            digest = str(fitting[0]["digest"])
            one = json.loads(self._raw(f"{base}@{digest}", insecure, image))
            return Offer(base, insecure, digest, False, sorted(architectures), _blobs([one]))
        every = [json.loads(self._raw(f"{base}@{one['digest']}", insecure, image)) for one in parts]
        return Offer(base, insecure, digest, True, sorted(architectures), _blobs(every))

    def _raw(self, name: str, insecure: bool, image: str) -> str:
        """A manifest, or a list of manifests, as it is."""
        command = ["inspect", "--raw", "--retry-times", "3", *(["--tls-verify=false"] if insecure else [])]
        out = self._skopeo([*command, f"docker://{name}"], image, min(_LOOK, self.fetcher.left()))
        try:
            found = json.loads(out)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise MirrorError(f"{name} has no manifest that can be read.", "Check what mirror_upstream serves.")
        return out

    def _coming(self, offer: Offer) -> int:
        return sum(size for digest, size in offer.blobs.items() if not os.path.exists(self._blob(digest)))

    def _blob(self, digest: str) -> str:
        """Where the registry keeps it: what one repository has brought is not fetched for another one."""
        kind, _colon, sha = digest.partition(":")
        return self.index.absolute(f"registry/docker/registry/v2/blobs/{kind}/{sha[:2]}/{sha}/data")

    def _skopeo(self, arguments: list[str], image: str, seconds: float) -> str:
        program = shutil.which("skopeo")
        # Whose images are trusted is the host's to say; where it says nothing, skopeo would refuse all of them.
        policy = [] if os.path.exists(_POLICY) else ["--insecure-policy"]
        if not program:
            raise MirrorError("there is no skopeo on this host, which carries images.", "Install the package skopeo.")
        try:
            done = subprocess.run(
                [program, *policy, *arguments],
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
                errors="replace",
            )
        except subprocess.TimeoutExpired as exc:
            raise MirrorError(
                f"{image} did not come in time; layers that came whole are kept.",
                "Run again: it goes on where it stopped. mirror_timeout is the time that it has.",
            ) from exc
        if done.returncode:
            raise MirrorError(f"{image} cannot be copied: {_reason(done.stderr)}.", _advice(done.stderr))
        return done.stdout


def _digest(raw: str) -> str:
    return f"sha256:{hashlib.sha256(raw.encode()).hexdigest()}"


def _blobs(manifests: Iterable[dict[str, Any]]) -> dict[str, int]:
    """Digest and size of everything that images are made of."""
    found = {}
    for manifest in manifests:
        for one in [manifest.get("config") or {}, *(manifest.get("layers") or [])]:
            if one.get("digest"):
                found[str(one["digest"])] = int(one.get("size") or 0)
    return found


def _is_for(platform: dict[str, Any], architectures: Sequence[str]) -> bool:
    return platform.get("architecture") in architectures and platform.get("os", "linux") == "linux"


def _reason(text: str) -> str:
    """The end of skopeo's chain of causes, which says what happened."""
    found = re.findall(r'msg="((?:[^"\\]|\\.)*)"', text)
    said = (found[-1] if found else text.strip().splitlines()[-1] if text.strip() else "no reason was given").strip()
    return re.sub(r"://[^/\s@]+@", "://***@", said.replace('\\"', '"'))[-400:].rstrip(".")


def _advice(text: str) -> str:
    if "unauthorized" in text or "authentication required" in text or "denied" in text:
        return "Correct the image's name, or log in on the mirror (skopeo login): both are refused in the same words."
    if "toomanyrequests" in text:
        return "Docker Hub has a limit for those who are not logged in: log in on the mirror (skopeo login docker.io)."
    if "manifest unknown" in text or "not found" in text:
        return "Correct the image's name, or let the mirror's upstream have it."
    return "Check mirror_upstream and the way there, then run again: what came is kept."
