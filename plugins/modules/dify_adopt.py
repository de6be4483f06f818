#!/usr/bin/python
# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: dify_adopt
short_description: Take over a Dify that was set up by hand
version_added: 0.1.0
description:
  - Reads a Dify that somebody set up the usual way, from a release archive or a git checkout with C(docker compose up),
    and hands it over to this collection without moving its data.
  - What its containers really run with counts for more than what C(.env) says, because a C(.env) may have been edited
    since.
  - Its secrets become C(<home>/secrets.json), also the ones that are public defaults, because its data depends on them.
    Its other values become C(<home>/adopted.json), which M(llmops.stack.dify_env) lays below what the inventory says.
    What is rendered for each release anyway, and what nothing reads, is left out.
  - C(<home>/volumes) becomes a link to the folder C(volumes) there.
  - The role C(llmops.stack.dify) calls this module with one state after the other when O(source) is given as
    C(dify_adopt); it is not needed besides.
author:
  - llmops.stack contributors (@llmops)
attributes:
  check_mode:
    description: Can run in check mode and tell what would change, without writing or stopping anything.
    support: full
  diff_mode:
    description: What is written has secrets in it, so there is no diff. RV(values) shows the rest.
    support: none
options:
  source:
    description: Folder of the Dify that was set up by hand, the one with C(docker-compose.yaml) or the one above it.
    type: path
    required: true
  home:
    description: The folder that Dify is kept in from now on.
    type: path
    default: /opt/dify
  project:
    description: Name of the Compose project that takes its place.
    type: str
    default: dify
  version:
    description: The release that is wanted. It has to be the one that is there.
    type: str
    required: true
  http_port:
    description: Port on which Dify will be published. It has to be the one on which it is.
    type: int
    default: 80
  https_port:
    description: The same for HTTPS.
    type: int
    default: 443
  state:
    description:
      - V(found) only looks and reports.
      - V(prepared) writes values and secrets and links the data, with everything still running there. The release has
        to be unpacked by M(llmops.stack.dify_release).
      - V(compared) compares the containers there with the project that M(llmops.stack.dify_env) rendered, and refuses
        when data would be lost from sight, or when files of the release were edited there and O(accept) does not say
        so. It changes nothing.
      - V(taken) compares in the same way and stops them.
      - V(returned) removes the new project's containers and starts the old ones again.
      - V(finished) removes the old containers, and gives the compose file there another name.
    type: str
    choices: [found, prepared, compared, taken, returned, finished]
    default: found
  accept:
    description: V(edited_files) when the release's own files may take the place of those that were edited there.
    type: list
    elements: str
    choices: [edited_files]
    default: []
"""

EXAMPLES = r"""
- name: See what taking over would mean
  llmops.stack.dify_adopt:
    source: /srv/dify
    version: "1.11.4"
  register: found

- name: Say it
  ansible.builtin.debug:
    msg: "{{ found.refusals + found.warnings }}"
"""

RETURN = r"""
finished:
  description: Whether this was taken over already; then everything else is empty.
  type: bool
  returned: always
  sample: false
version:
  description: The release that is there.
  type: str
  returned: always
  sample: 1.11.4
compose_project:
  description: The Compose project that is there.
  type: str
  returned: always
  sample: docker
containers:
  description: Names of its containers.
  type: list
  elements: str
  returned: always
  sample: [docker-api-1, docker-nginx-1]
values:
  description: Values that are taken over, those of secrets hidden.
  type: dict
  returned: always
  sample: {"LOG_LEVEL": "DEBUG", "SMTP_PASSWORD": "(hidden)"}
secrets:
  description: Names of the secrets that are taken over.
  type: list
  elements: str
  returned: always
  sample: [DB_PASSWORD, SECRET_KEY]
public_secrets:
  description: Those of them that everybody can read in Dify's repository.
  type: list
  elements: str
  returned: always
  sample: [SECRET_KEY]
refusals:
  description: What speaks against it, with the next step.
  type: list
  elements: str
  returned: always
  sample: []
warnings_found:
  description: What to know about it.
  type: list
  elements: str
  returned: always
  sample: ["SECRET_KEY has the value that everybody can read in Dify's repository. It is kept."]
differences:
  description: For O(state=compared) and O(state=taken) what the new containers do otherwise.
  type: list
  elements: str
  returned: always
  sample: ["api, worker: other values of FILES_URL."]
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmops.stack.plugins.module_utils._dify_adopt import Found, Report, report
from ansible_collections.llmops.stack.plugins.module_utils._dify_adopt_look import (
    beforehand,
    compose_folder,
    containers_of,
    look,
)
from ansible_collections.llmops.stack.plugins.module_utils._dify_adopt_take import (
    EDITED,
    FINISHED,
    TAKEN,
    AdoptError,
    Adoption,
)
from ansible_collections.llmops.stack.plugins.module_utils._dify_env import PUBLISHED
from ansible_collections.llmops.stack.plugins.module_utils._docker_cli import DockerError


class DifyAdopt:
    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.wanted = module.params
        folder = os.path.realpath(compose_folder(self.wanted["source"]))
        self.adoption = Adoption(self.wanted["home"], folder, self.wanted["project"])

    def run(self) -> dict[str, Any]:
        adoption, state = self.adoption, self.wanted["state"]
        blocked = adoption.refusals()
        if adoption.phase == FINISHED and not blocked:
            return self._result(Report(), [], finished=True)
        if adoption.phase == TAKEN and not blocked:
            found, seen = self._under_way()
        else:
            found = look(adoption.source, adoption.docker)
            seen = report(found, self.wanted)
            self.module.no_log_values.update(set(seen.secrets.values()) - PUBLISHED)
            seen.warnings += beforehand(found)
            changed = adoption.edited(found, seen.version)
            if changed:
                seen.warnings.append(
                    f"These files of the release were edited there and are not carried along: {', '.join(changed)}."
                )
        seen.refusals[:0] = blocked
        known: list[str] = []
        if state != "found":
            if seen.refusals and state != "returned":
                raise AdoptError(" ".join(seen.refusals))
            known = self._act(state, found, seen)
        return self._result(seen, [one.name for one in found.containers], known)

    def _under_way(self) -> tuple[Found, Report]:
        """A run that died after it had stopped the old containers: all was looked at, and maybe parts are gone."""
        noted = self.adoption.journal
        source = self.adoption.source
        found = Found(folder=source, containers=containers_of(source, self.adoption.docker))
        seen = Report(version=str(noted.get("version")), project=str(noted.get("project")))
        if seen.version != self.wanted["version"]:
            seen.refusals.append(
                f"Dify {seen.version} of {source} was being taken over when a run died, and dify_version asks for "
                f"{self.wanted['version']}. Set dify_version to {seen.version} and run site.yml to finish that first."
            )
        return found, seen

    def _act(self, state: str, found: Found, seen: Report) -> list[str]:
        adoption, pretend = self.adoption, self.module.check_mode
        if state == "prepared":
            if adoption.phase != TAKEN:
                adoption.prepare(found, seen, pretend)
        elif state == "compared":
            # Of one that was taken already some containers may be gone.
            return [] if adoption.phase == TAKEN else adoption.compare(found, seen.version, self.wanted["accept"])
        elif pretend:
            adoption.changed = True
        elif state == "taken":
            known = adoption.compare(found, seen.version, self.wanted["accept"])
            adoption.take(found.containers)
            return known
        elif state == "returned":
            adoption.give_back()
        else:
            adoption.finish()
        return []

    def _result(
        self, seen: Report, containers: list[str], differences: list[str] | None = None, finished: bool = False
    ) -> dict[str, Any]:
        return {
            "changed": self.adoption.changed,
            "finished": finished,
            "version": seen.version,
            "compose_project": seen.project,
            "containers": containers,
            "values": seen.shown(),
            "secrets": sorted(seen.secrets),
            "public_secrets": seen.public,
            "refusals": seen.refusals,
            "warnings_found": seen.warnings,
            "differences": differences or [],
        }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "source": {"type": "path", "required": True},
            "home": {"type": "path", "default": "/opt/dify"},
            "project": {"type": "str", "default": "dify"},
            "version": {"type": "str", "required": True},
            "http_port": {"type": "int", "default": 80},
            "https_port": {"type": "int", "default": 443},
            "state": {
                "type": "str",
                "choices": ["found", "prepared", "compared", "taken", "returned", "finished"],
                "default": "found",
            },
            "accept": {"type": "list", "elements": "str", "choices": [EDITED], "default": []},
        },
        supports_check_mode=True,
    )
    try:
        result = DifyAdopt(module).run()
    except (AdoptError, DockerError, OSError) as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
