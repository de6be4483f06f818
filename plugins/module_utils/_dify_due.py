# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.

"""Which services `docker compose up` would make anew, asked beforehand.

Compose itself is asked, by a dry run: the sums that `config --hash` prints leave out what a service reads from its
env_file, and the sums at the containers do not.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable

from ansible_collections.llmops.stack.plugins.module_utils._dify_compose import Project
from ansible_collections.llmops.stack.plugins.module_utils._docker_cli import DockerError, last_line, mask

__all__ = ["due", "fingerprints", "would_make"]

_LOOK = 120.0
_MADE = re.compile(r"Container (\S+)\s+(?:Recreate|Creating)\s*$")


def due(project: Project, services: Iterable[str] = ()) -> list[str]:
    """Services without a container of the current definition and image. One that only has to be started is not due.

    Raises:
        DockerError: compose cannot say it; an image that is missing is the usual reason.
    """
    # The dry run looks for an image in its own registry only, so it must not look at all.
    code, out, err = project.run(["--dry-run", "up", "-d", "--no-deps", "--pull", "never", *services], _LOOK)
    if code:
        raise DockerError(f"docker compose cannot say what it would start: {mask(last_line(err or out))}")
    return would_make(f"{out}\n{err}", project.name, {one.name: one.service for one in project.containers()})


def would_make(printed: str, project: str, known: dict[str, str]) -> list[str]:
    """The services whose containers a dry run says it would make, by the names of those that are there."""
    own = re.compile(rf"{re.escape(project)}-(.+)-\d+")
    names = (found[1] for found in map(_MADE.search, printed.splitlines()) if found)
    found = {name: known.get(name) or ("".join(own.findall(name)) or name) for name in names}
    return sorted(set(found.values()))


def fingerprints(project: Project) -> dict[str, str]:
    """A sum over all that the current release says about each service, with the values of its env files."""
    described = project.definition().get("services") or {}
    return {
        name: hashlib.sha256(json.dumps(service, sort_keys=True).encode()).hexdigest()
        for name, service in described.items()
    }
