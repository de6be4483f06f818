# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.

"""Which services `docker compose up` would make anew: asked beforehand, by the same sums that compose compares."""

from __future__ import annotations

import json
from collections.abc import Iterable

from ansible_collections.llmops.stack.plugins.module_utils._dify_compose import Project
from ansible_collections.llmops.stack.plugins.module_utils._docker_cli import DockerError

__all__ = ["due", "hashes"]

_LABEL = "com.docker.compose."
_LOOK = 60.0


def hashes(project: Project, services: Iterable[str] = ()) -> dict[str, str]:
    """The sum over what the current release says about each service, as compose notes it at a container."""
    printed = project.compose(["config", "--hash", ",".join(services) or "*"], _LOOK)
    pairs = (line.split() for line in printed.splitlines())
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}


def due(project: Project, services: Iterable[str] = ()) -> dict[str, str]:
    """Services without a container of this very definition and image, and the sum that each should have.

    A container that is stopped is not due: starting it is all that it needs.
    """
    wanted = hashes(project, services)
    found = {one.service: one for one in project.containers()}
    images = _images(project, {found[name].image for name in wanted if name in found})
    missing = {}
    for name, digest in wanted.items():
        one = found.get(name)
        image = images.get(one.image, "") if one else ""
        same = one is not None and one.labels.get(_LABEL + "config-hash") == digest
        if not same or (one is not None and image and one.labels.get(_LABEL + "image") not in (image, None)):
            missing[name] = digest
    return missing


def _images(project: Project, names: Iterable[str]) -> dict[str, str]:
    """What each name of an image means now; a tag may have been pulled anew since its container was made."""
    ordered = sorted(names)
    if not ordered:
        return {}
    # One that is gone makes inspect exit 1 and still print the others.
    _code, out, _err = project.docker.run(["image", "inspect", *ordered], _LOOK)
    try:
        described = json.loads(out)
    except ValueError:
        raise DockerError("docker image inspect answers with something that is not JSON") from None
    return {tag: str(one.get("Id")) for one in described for tag in one.get("RepoTags") or []}
