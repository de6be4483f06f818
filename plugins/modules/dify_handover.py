#!/usr/bin/python
# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: dify_handover
short_description: Bring running services of Dify to what the current release says, without a failing request
version_added: 0.1.0
author:
  - llmops.stack contributors (@llmops)
description:
  - Does what C(docker compose up) does for an installation that is in use, and lets nobody notice.
  - The api and the web pages are started a second time beside the running container. The second container has to answer
    as the release does; then nginx is pointed at it, the first one finishes its calls, is replaced, and takes over
    again. A container that does not get well is removed, and the running one goes on serving.
  - The worker finishes its tasks before it is replaced.
  - Other services, such as the plugin daemon, are replaced at a moment without calls. Requests that come in the few
    seconds that this takes wait in front of nginx.
  - A new container of nginx itself cannot be hidden. For about a second nobody answers.
  - Where nobody is served yet everything is started at once.
  - Upgrades, backups and restores of the same installation are waited for. After an upgrade that was cut off nothing is
    started, because the database may be that of another release; M(llmops.stack.dify_upgrade) brings it to an end.
  - It may be interrupted and run again; it finishes what it finds.
attributes:
  check_mode:
    description: Can run in check mode and tell what would change, without changing anything.
    support: full
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check mode), in diff mode.
    support: none
    details:
      - RV(services) names what was replaced; M(llmops.stack.dify_env) shows which settings differ.
requirements:
  - requests (Python library)
options:
  home:
    description: The folder of the Dify installation.
    type: path
    default: /opt/dify
  project:
    description: Name of the Compose project.
    type: str
    default: dify
  version:
    description:
      - The release that has to be the current one. Nothing is touched where it is another one.
      - An empty string takes whatever is current.
    type: str
    default: ""
  drain_seconds:
    description: Seconds for which a container that leaves may go on with calls that it has begun. Longer ones are cut.
    type: int
    default: 60
  deadline:
    description: Seconds after which a new container that does not answer is given up.
    type: int
    default: 300
  timeout:
    description:
      - Seconds after which everything is given up. Whoever is waited for before that has the same time.
    type: int
    default: 900
  plugin_daemon_url:
    description: Address of the plugin daemon's port 5002, to see that its plugins answer again.
    type: str
    default: http://127.0.0.1:5002
  secrets_file:
    description: The file on the host in which M(llmops.stack.dify_env) keeps the secrets.
    type: path
    default: /opt/dify/secrets.json
seealso:
  - module: llmops.stack.dify_env
  - module: llmops.stack.dify_health
"""

EXAMPLES = r"""
- name: Let a changed setting take effect while users go on working
  llmops.stack.dify_handover:
    drain_seconds: 120
"""

RETURN = r"""
done:
  description:
    - Whether the containers are what the release says. V(false) in check mode, and where no release is current.
  type: bool
  returned: always
  sample: true
services:
  description: Services that were replaced or started; in check mode those that would be replaced.
  type: list
  elements: str
  returned: always
  sample: [api, worker]
log:
  description: What was done, and how long requests had to wait.
  type: list
  elements: str
  returned: always
  sample: ["api: replaced"]
"""

import os
import time
from dataclasses import dataclass, field
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.llmops.stack.plugins.module_utils import _http
from ansible_collections.llmops.stack.plugins.module_utils._dify_compose import Project
from ansible_collections.llmops.stack.plugins.module_utils._dify_due import due
from ansible_collections.llmops.stack.plugins.module_utils._dify_handover import handover, start
from ansible_collections.llmops.stack.plugins.module_utils._dify_secrets import secrets_of
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_context import Context, Options, StepError
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_journal import Busy, Journal, locked
from ansible_collections.llmops.stack.plugins.module_utils._docker_cli import DockerError


class _NoNotes:
    """A handover needs no journal: what runs says how far it has come."""

    def get(self, step: str, key: str, default: Any = None) -> Any:
        return default

    def put(self, step: str, key: str, value: Any) -> None:
        """Nothing is kept."""

    def step(self, name: str) -> str:
        return ""


@dataclass
class _Said(Context):
    """A context without a folder for evidence; what is logged becomes part of the result."""

    lines: list[str] = field(default_factory=list)

    def log(self, text: str) -> None:
        self.lines.append(self.mask(text))


class Manager:
    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params = module.params
        self.project = Project(self.params["home"], self.params["project"])

    def run(self) -> dict[str, Any]:
        result: dict[str, Any] = {"changed": False, "done": False, "services": [], "log": []}
        if not os.path.isdir(self.project.folder()):
            return result
        try:
            if self.module.check_mode:
                found = due(self.project)
                result.update(changed=bool(found), services=found)
            else:
                with locked(self.params["home"], self.params["timeout"]):
                    self._refuse_another_release()
                    result.update(self._bring())
        except Busy:
            self.module.fail_json(
                msg=f"An upgrade, backup or restore of {self.params['home']} still runs after "
                f"{self.params['timeout']} s. Run it again when that is over; nothing was started."
            )
        except DockerError as exc:
            self.module.fail_json(msg=f"{str(exc)[:1].upper()}{str(exc)[1:]}.")
        return result

    def _refuse_another_release(self) -> None:
        """Who waited may find another Dify than the one that was looked at before."""
        journal = Journal.read(self.params["home"])
        if journal.unfinished:
            self.module.fail_json(
                msg=f"The upgrade from {journal.state.get('from')} to {journal.state.get('to')} was cut off, so it is "
                "not known which release the database belongs to; nothing was started. Run site.yml again: it ends "
                "that first."
            )
        here, wanted = os.path.basename(os.path.realpath(self.project.folder())), self.params["version"]
        if wanted and here != wanted:
            self.module.fail_json(
                msg=f"Dify {here} is the current release in {self.params['home']}, expected was {wanted}: somebody has "
                "changed it meanwhile. Nothing was started; run site.yml again with the release that you want."
            )

    def _bring(self) -> dict[str, Any]:
        running = {one.service for one in self.project.containers() if one.running}
        ctx = self._context()
        try:
            services = handover(ctx) if {"nginx", "api"} <= running else start(ctx)
        except StepError as exc:
            self.module.fail_json(msg=f"{exc.message} {exc.advice}".strip(), log=ctx.lines)
        return {"changed": bool(services), "done": True, "services": services, "log": ctx.lines}

    def _context(self) -> _Said:
        secrets = secrets_of(self.module, self.params["secrets_file"])
        return _Said(
            project=self.project,
            plan={},
            options=Options(
                timeout=self.params["timeout"],
                drain_seconds=self.params["drain_seconds"],
                health_deadline=self.params["deadline"],
                plugin_daemon_url=self.params["plugin_daemon_url"],
                secrets_file=self.params["secrets_file"],
            ),
            journal=_NoNotes(),
            folder="",
            deadline=time.monotonic() + self.params["timeout"],
            secrets=frozenset(value for value in secrets.values() if value),
        )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "home": {"type": "path", "default": "/opt/dify"},
            "project": {"type": "str", "default": "dify"},
            "version": {"type": "str", "default": ""},
            "drain_seconds": {"type": "int", "default": 60},
            "deadline": {"type": "int", "default": 300},
            "timeout": {"type": "int", "default": 900},
            "plugin_daemon_url": {"type": "str", "default": "http://127.0.0.1:5002"},
            "secrets_file": {"type": "path", "default": "/opt/dify/secrets.json", "no_log": False},
        },
        supports_check_mode=True,
    )
    if not _http.HAS_REQUESTS:
        module.fail_json(msg=missing_required_lib("requests"), exception=_http.REQUESTS_IMPORT_ERROR)
    module.exit_json(**Manager(module).run())


if __name__ == "__main__":
    main()
