# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Taking a Dify over: its values and secrets are written down, its data gets a second name, its containers give way.

No file of the data is moved or changed. Until the new containers are proved, the old ones stay: stopped, and with
C(restart: no), because two databases that a reboot starts on the same files would destroy them. Giving back starts them
again. At the end the old compose file gets another name, so that nobody starts them from it.
"""

from __future__ import annotations

import filecmp
import json
import os
import shutil
from collections.abc import Collection, Sequence
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._dify_adopt import Found, Old, Report
from ansible_collections.llmops.stack.plugins.module_utils._dify_adopt_look import (
    COMPOSE_NAMES,
    TAKEN_ENDING,
    containers_of,
    differences,
    edited,
)
from ansible_collections.llmops.stack.plugins.module_utils._dify_compose import Project
from ansible_collections.llmops.stack.plugins.module_utils._dify_layout import read_marker
from ansible_collections.llmops.stack.plugins.module_utils._docker_cli import Container, Docker
from ansible_collections.llmops.stack.plugins.module_utils._download import write_atomically

__all__ = ["ADOPTED", "EDITED", "FILE", "FINISHED", "AdoptError", "Adoption"]

FILE = ".llmops-adopt.json"
EDITED = "edited_files"
ADOPTED = "adopted.json"
PREPARED, TAKEN, FINISHED = "prepared", "taken", "finished"
NOTE = "TAKEN-OVER.txt"
_SHIPPED = "volumes.shipped"
_LABEL = "com.docker.compose."
_DATA = ("db", "db_postgres", "db_mysql", "redis")  # the last to stop and the first to start
_LOOK, _STOP = 60.0, 30


class AdoptError(Exception):
    """The text says what was expected, what was found and what to do; it holds no secret."""


class Adoption:
    def __init__(self, home: str, source: str, project: str = "dify", docker: Docker | None = None) -> None:
        self.home, self.source = home, source
        self.docker = docker or Docker()
        self.project = Project(home, project, self.docker)
        self.path = os.path.join(home, FILE)
        self.journal: dict[str, Any] = _object(self.path)
        self.changed = False

    @property
    def phase(self) -> str:
        return str(self.journal.get("phase", ""))

    def refusals(self) -> list[str]:
        """What is at home already and does not go with this adoption."""
        noted = str(self.journal.get("source", ""))
        if noted and noted != self.source:
            return [
                f"{self.home} has the Dify of {noted}, and dify_adopt names {self.source}. One dify_home takes over "
                "one installation; remove dify_adopt, or set another dify_home."
            ]
        volumes = os.path.join(self.home, "volumes")
        ours = os.path.realpath(os.path.join(self.source, "volumes"))
        there = os.path.realpath(volumes)
        if there != ours and any(os.path.isdir(os.path.join(there, name, "data")) for name in ("db", "mysql")):
            return [
                f"{volumes} has a database of its own, so {self.source} cannot be taken over there. Remove dify_adopt "
                "to go on with it, or set another dify_home."
            ]
        return []

    # -- what is written down, with everything still running as before

    def prepare(self, found: Found, report: Report, pretend: bool = False) -> None:
        """Values, secrets and the second name of the data. Every part is left alone where it is as it should be."""
        self._secrets(report, pretend)
        wanted = json.dumps(report.values, indent=1, sort_keys=True) + "\n"
        self._put(os.path.join(self.home, ADOPTED), wanted, pretend)
        self._link(report.version, pretend)
        self._certificates(found, report.version, pretend)
        if not self.phase and not pretend:
            self._note(phase=PREPARED, source=self.source, project=report.project, version=report.version)

    def _secrets(self, report: Report, pretend: bool) -> None:
        path = os.path.join(self.home, "secrets.json")
        kept = _object(path)
        # Until our containers run, what the old ones run with counts, also when it was corrected since the last run.
        # From then on what the operator changes in secrets.json counts for more.
        if self.phase in ("", PREPARED):
            self._put(path, json.dumps({**kept, **report.secrets}, indent=1, sort_keys=True) + "\n", pretend)

    def _link(self, version: str, pretend: bool) -> None:
        link, target = os.path.join(self.home, "volumes"), os.path.join(self.source, "volumes")
        if os.path.realpath(link) == os.path.realpath(target):
            return
        self.changed = True
        if pretend:
            return
        if os.path.isdir(link) and not os.path.islink(link):
            shipped = os.path.join(self.home, "releases", version, _SHIPPED)
            strange = _strange(link, shipped)
            if strange:
                raise AdoptError(
                    f"{link} has files of its own ({', '.join(strange[:5])}), so it cannot become a link to {target}. "
                    "Move it away; nothing was changed."
                )
            shutil.rmtree(link)
        temporary = os.path.join(self.home, f".volumes.{os.getpid()}")
        os.symlink(target, temporary)
        os.replace(temporary, link)

    def _certificates(self, found: Found, version: str, pretend: bool) -> None:
        """What HTTPS is served with lies in the release itself."""
        for name in found.certificates:
            there = os.path.join(found.folder, "nginx", "ssl", name)
            here = os.path.join(self.home, "releases", version, "nginx", "ssl", name)
            if not os.path.isfile(there) or (os.path.isfile(here) and filecmp.cmp(there, here, shallow=False)):
                continue  # one that was renewed there since an earlier try is taken again
            self.changed = True
            if not pretend:
                os.makedirs(os.path.dirname(here), exist_ok=True)
                shutil.copy2(there, here)

    # -- the containers

    def edited(self, found: Found, version: str) -> list[str]:
        """Files of the release that somebody edited there; none are known before the release is unpacked here."""
        return edited(found.folder, read_marker(os.path.join(self.home, "releases", version)).get("files") or {})

    def compare(self, found: Found, version: str, accepted: Collection[str] = ()) -> list[str]:
        """What the new project would do otherwise, as sentences to know.

        Args:
            found: what is there.
            version: the release, rendered here.
            accepted: C(edited_files) when those may be left behind.

        Raises:
            AdoptError: something of the old installation would be lost; nothing was changed.
        """
        against, known = differences(found.folder, found.containers, self.project.definition(version))
        if against:
            raise AdoptError(" ".join([*against, f"{self.source} runs as before."]))
        changed = self.edited(found, version)
        if changed and EDITED not in accepted:
            raise AdoptError(
                f"These files of the release were edited in {found.folder}, and the release's own would be used here: "
                f"{', '.join(changed)}. Put what is to stay into dify_env, dify_compose_override or, for nginx, "
                f"its own settings; then say dify_adopt_accept: [{EDITED}]. {self.source} runs as before."
            )
        if changed:
            known.append(f"The release's own files take the place of edited ones: {', '.join(changed)}.")
        return known

    def take(self, containers: list[Old]) -> None:
        """The old containers stop, and stay as they are; nothing starts them again but give_back()."""
        policies = {one.id: one.policy for one in containers}
        noted = self.journal.get("policies") or {}
        if self.phase != TAKEN or set(policies) - set(noted):
            self._note(phase=TAKEN, policies={**policies, **noted})
        alive = [one.id for one in containers if one.policy != "no"]
        if alive:
            self.changed = True
            self.docker.output(["update", "--restart", "no", *alive], _LOOK)
        self._stop([one for one in containers if one.state in ("running", "restarting", "paused")])

    def give_back(self) -> None:
        """The old installation runs again, as it did; the new containers are taken away first."""
        ours = self.project.containers()
        if ours:
            self._stop([one for one in ours if one.running])
            self.docker.output(["rm", "-f", *(one.id for one in ours)], _LOOK)
            self.changed = True
        there = containers_of(self.source, self.docker)
        policies = self.journal.get("policies") or {}
        for policy in sorted(set(policies.values()) - {"no"}):
            ids = [one.id for one in there if policies.get(one.id) == policy]
            if ids:
                self.docker.output(["update", "--restart", policy, *ids], _LOOK)
        wanted = [one for one in there if policies.get(one.id, "no") != "no" and not one.running]
        for group in _in_order(wanted):
            self.changed = True
            self.docker.output(["start", *(one.id for one in group)], _STOP + _LOOK)
        self._note(phase=PREPARED)

    def finish(self) -> None:
        """The new containers are proved: the old ones go, and nobody can start them by habit."""
        there = containers_of(self.source, self.docker)
        if there:
            self.changed = True
            self.docker.output(["rm", *(one.id for one in there)], _LOOK)
        project = str(self.journal.get("project", ""))
        arguments = ["network", "ls", "-q", "--filter", f"label={_LABEL}project={project}"]
        networks = self.docker.output(arguments, _LOOK).split() if project and project != self.project.name else []
        if networks:
            # One that somebody has attached a container of his own to stays.
            self.docker.run(["network", "rm", *networks], _LOOK)
        for name in COMPOSE_NAMES:
            path = os.path.join(self.source, name)
            if os.path.isfile(path):
                self.changed = True
                os.rename(path, f"{path}{TAKEN_ENDING}")
        write_atomically(os.path.join(self.source, NOTE), _farewell(self.home, self.project.name), 0o644)
        self._note(phase=FINISHED)

    def _stop(self, containers: Sequence[Old | Container]) -> None:
        for group in reversed(_in_order(containers)):
            self.changed = True
            self.docker.output(["stop", "-t", str(_STOP), *(one.id for one in group)], _STOP + _LOOK)

    # -- files

    def _put(self, path: str, text: str, pretend: bool) -> None:
        try:
            with open(path, encoding="utf-8") as file:
                if file.read() == text and os.stat(path).st_mode & 0o777 == 0o600:
                    return
        except FileNotFoundError:
            pass
        self.changed = True
        if not pretend:
            write_atomically(path, text, 0o600)

    def _note(self, **what: Any) -> None:
        self.journal.update(what)
        write_atomically(self.path, json.dumps(self.journal, indent=1, sort_keys=True) + "\n", 0o600)


def _in_order(containers: Sequence[Old | Container]) -> list[list[Old | Container]]:
    """In the order in which they start: nginx asks for the addresses of the others, once."""
    groups: list[list[Old | Container]] = [[], [], []]
    for one in containers:
        groups[0 if one.service in _DATA else 2 if one.service == "nginx" else 1].append(one)
    return [group for group in groups if group]


def _object(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except FileNotFoundError:
        return {}
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise AdoptError(f"{path} is damaged: it must be a JSON object. Restore it, or move it away.")
    return found


def _strange(folder: str, shipped: str) -> list[str]:
    """Files below a folder that are not what the release ships for it."""
    found = []
    for place, _folders, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            relative = os.path.relpath(path, folder)
            same = os.path.join(shipped, relative)
            if not os.path.isfile(same) or not filecmp.cmp(path, same, shallow=False):
                found.append(relative)
    return sorted(found)


def _farewell(home: str, project: str) -> str:
    return (
        f"This Dify was taken over by llmops.stack. It runs from {home}, as the Compose project {project}.\n"
        "Its data is still here, in the folder volumes: do not remove it.\n"
        "The compose file has another name now, because a second database started on the same files would destroy "
        "them.\n"
    )
