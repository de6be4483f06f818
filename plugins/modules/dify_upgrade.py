#!/usr/bin/python
# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: dify_upgrade
short_description: Take Dify to another release, or leave it as it is, with all its data in either case
version_added: 0.1.0
description:
  - Carries out the plan that the filter P(llmops.stack.dify_upgrade_plan#filter) made, on the host and in one process.
  - Nothing that people write is lost by going back. nginx answers 503 from before the writers stop until the new
    release is proved, and the databases are copied inside the server before they are migrated. If nginx is found open
    on the way back, as after a restart of the host, the newer databases are kept under another name.
  - Redis is not put back. A task that a worker of the new release took from the queue is not queued again.
  - Whatever fails before the new release is proved leads back at once. The old release is started with its data and
    proved, and the module fails with one paragraph that says so.
  - A run that was killed is settled by the next one. Before the proof it goes back, after the proof it goes on.
  - Images and backup are not made here; the role dify does that before, while everything runs.
author:
  - llmops.stack contributors (@llmops)
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target.
    support: full
  diff_mode:
    description: Returns which release is current before and after.
    support: full
requirements:
  - requests
  - docker with the compose plugin
options:
  home:
    description: Folder for releases, data and secrets.
    type: path
    default: /opt/dify
  project:
    description: Name of the compose project.
    type: str
    default: dify
  state:
    description:
      - V(upgraded) carries out O(plan).
      - V(settled) waits for a run that is under way, and brings one that was killed to its end. It is no failure when
        that end is the old release.
      - V(rolled_back) goes back to the release before the last upgrade. Where the database schema differs, the
        databases come from the backup of that upgrade.
    type: str
    choices: [upgraded, settled, rolled_back]
    default: upgraded
  plan:
    description: The plan, with O(state=upgraded).
    type: dict
    default: {}
  info:
    description: What M(llmops.stack.dify_info) returned before the upgrade.
    type: dict
    default: {}
  backup:
    description: Folder of the backup that was made for this upgrade.
    type: path
    default: ""
  accept_loss:
    description: With O(state=rolled_back), whether what was written since the upgrade may be lost.
    type: bool
    default: false
  url:
    description: Address of nginx, as the host itself reaches it.
    type: str
    default: http://127.0.0.1
  plugin_daemon_url:
    description: Address of the plugin daemon, as the host itself reaches it.
    type: str
    default: http://127.0.0.1:5002
  secrets_file:
    description: File with the secrets of this Dify. By default C(secrets.json) in O(home).
    type: path
    default: ""
  app_key_file:
    description: File with the key of the app that is asked a question, to prove a release. Without one, none is asked.
    type: path
    default: ""
  model_servers:
    description: Base URLs of Ollama servers that must answer from inside the container that calls models.
    type: list
    elements: str
    default: []
  plugins:
    description: Plugins that the workspace is to have, as in O(llmops.stack.dify_plugin#module:plugins).
    type: list
    elements: raw
    default: []
  marketplace_url:
    description: Marketplace from which plugins are fetched that Dify 0.15 had built in.
    type: str
    default: https://marketplace.dify.ai
  plugin_timeout:
    description: Seconds that an installation of plugins may take.
    type: int
    default: 900
  drain_seconds:
    description: Seconds that calls in flight get to end.
    type: int
    default: 60
  migration_timeout:
    description: Seconds for the migration of the database.
    type: int
    default: 1800
  health_deadline:
    description: Seconds for a release to be healthy after it was started.
    type: int
    default: 600
  timeout:
    description: Seconds for everything up to the proof, and for waiting for another run. Going back is not cut off.
    type: int
    default: 7200
seealso:
  - module: llmops.stack.dify_info
  - module: llmops.stack.dify_health
"""

EXAMPLES = r"""
- name: Look at what runs
  llmops.stack.dify_info:
  register: info

- name: Upgrade; the host goes on with it when the connection is lost
  llmops.stack.dify_upgrade:
    plan: "{{ '1.11.4' | llmops.stack.dify_upgrade_plan('1.12.1', info) }}"
    info: "{{ info }}"
    backup: /opt/dify/backups/20261126T060000Z-1.11.4-upgrade
    app_key_file: /opt/dify/.llmops-probe.key

- name: Bring an upgrade that was cut off to its end
  llmops.stack.dify_upgrade:
    state: settled

- name: Back to the release before it
  llmops.stack.dify_upgrade:
    state: rolled_back
    accept_loss: true
"""

RETURN = r"""
phase:
  description: >-
    How the last upgrade stands, V(done), V(rolled_back), V(proved) (it serves, and something after that is not done),
    V(rolling_back) (going back failed), or V(running) in check mode. Empty where there was none.
  returned: always
  type: str
  sample: done
id:
  description: Its name.
  returned: always
  type: str
  sample: 20261126T060000Z-1.11.4-to-1.12.1
source:
  description: Release it began from.
  returned: always
  type: str
  sample: 1.11.4
target:
  description: Release it was for.
  returned: always
  type: str
  sample: 1.12.1
folder:
  description: Folder with its journal, logs and fingerprints.
  returned: always
  type: str
  sample: /opt/dify/upgrades/20261126T060000Z-1.11.4-to-1.12.1
message:
  description: What is said of it, where it did not end well.
  returned: always
  type: str
  sample: ""
seconds:
  description: Seconds of each step.
  returned: always
  type: dict
  sample: {"migrate": 9.1, "start": 11.4}
plan:
  description: The plan of going back, with its refusals.
  returned: when O(state) is V(rolled_back)
  type: dict
  sample: {"kind": "same_head", "from": "1.14.2", "to": "1.14.1", "steps": [], "warnings": [], "refusals": []}
"""

import os
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.llmops.stack.plugins.module_utils._dify_backup_manifest import BackupError, verify
from ansible_collections.llmops.stack.plugins.module_utils._dify_compose import Project
from ansible_collections.llmops.stack.plugins.module_utils._dify_release import Store
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade import Machine, Outcome, UpgradeFailed
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_child import ChildKilled, in_child
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_context import Options
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_journal import Journal
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_rollback import plan_back
from ansible_collections.llmops.stack.plugins.module_utils._http import HAS_REQUESTS, REQUESTS_IMPORT_ERROR


class DifyUpgrade:
    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        params: dict[str, Any] = module.params
        self.params = params
        self.store = Store(params["home"])
        self.machine = Machine(
            Project(params["home"], params["project"]),
            Options(
                secrets_file=params["secrets_file"] or os.path.join(params["home"], "secrets.json"),
                **{
                    name: params[name]
                    for name in (
                        "timeout",
                        "migration_timeout",
                        "drain_seconds",
                        "health_deadline",
                        "url",
                        "plugin_daemon_url",
                        "app_key_file",
                        "model_servers",
                        "marketplace_url",
                        "plugins",
                        "plugin_timeout",
                    )
                },
            ),
        )

    def run(self) -> None:
        before = self.store.current()
        extra: dict[str, Any] = {}
        try:
            outcome = getattr(self, f"_{self.params['state']}")(extra)
        except UpgradeFailed as exc:
            self.module.fail_json(msg=str(exc), **self._told(exc.outcome, before), **extra)
        self.module.exit_json(**self._told(outcome, before), **extra)

    def _told(self, outcome: Outcome, before: str) -> dict[str, Any]:
        diff = {"before": {"current": before}, "after": {"current": self.store.current()}}
        return {**asdict(outcome), "diff": diff}

    def _look(self, changed: bool) -> Outcome:
        """What there is to say without doing anything."""
        return self._of(Journal.read(self.params["home"]), changed)

    def _of(self, journal: Journal, changed: bool) -> Outcome:
        outcome = Outcome(changed=changed, phase=journal.phase)
        for name, key in (
            ("id", "id"),
            ("source", "from"),
            ("target", "to"),
            ("folder", "folder"),
            ("message", "message"),
        ):
            setattr(outcome, name, journal.state.get(key, ""))
        return outcome

    def _upgraded(self, _extra: dict[str, Any]) -> Outcome:
        plan = self.params["plan"]
        if not plan.get("steps") or plan.get("refusals"):
            self.module.fail_json(
                msg=" ".join(["This plan cannot be carried out.", *(plan.get("refusals") or ["It has no steps."])])
            )
        if self.module.check_mode:
            return self._look(changed=True)
        return self._work(lambda: self.machine.upgrade(plan, self.params["info"], self.params["backup"]))

    def _settled(self, _extra: dict[str, Any]) -> Outcome:
        if self.module.check_mode:
            return self._look(changed=Journal.read(self.params["home"]).unfinished)
        return self._work(self.machine.settle)

    def _rolled_back(self, extra: dict[str, Any]) -> Outcome:
        journal = Journal.read(self.params["home"])
        last = journal.last_done()
        older = str(last.get("from", ""))
        plan = plan_back(
            last,
            self.store.current(),
            [older] if older and self.store.is_complete(older) else [],
            _is_whole(str(last.get("backup") or "")),
            self.params["accept_loss"],
            journal.state if journal.unfinished else {},
        )
        plan["seen"] = journal.state.get("id", "")
        extra["plan"] = plan
        if self.module.check_mode:
            return self._look(changed=not plan["refusals"])
        if plan["refusals"]:
            self.module.fail_json(msg=" ".join(["Nothing was changed.", *plan["refusals"]]), **extra)
        return self._work(lambda: self.machine.upgrade(plan, self.params["info"]))

    def _work(self, work: Callable[[], Outcome]) -> Outcome:
        """In a process that outlives this one. If that is killed, this one brings things to their end at once."""

        def told() -> dict[str, Any]:
            try:
                return {"outcome": asdict(work())}
            except UpgradeFailed as exc:
                return {"outcome": asdict(exc.outcome), "failed": str(exc)}

        before = Journal.read(self.params["home"]).state.get("id", "")
        try:
            found = in_child(told)
        except ChildKilled:
            outcome = self.machine.settle()
            if outcome.id == before and self.params["state"] != "settled":
                raise UpgradeFailed(
                    "The process was killed before it had begun; nothing was changed.", outcome
                ) from None
            if outcome.phase == "rolled_back":
                raise UpgradeFailed(outcome.message, outcome) from None
            return outcome
        outcome = Outcome(**found["outcome"])
        if "failed" in found:
            raise UpgradeFailed(found["failed"], outcome)
        return outcome


def _is_whole(backup: str) -> bool:
    """Read to its end: what is found out later is found out in the outage."""
    try:
        verify(backup, lambda: None)
    except BackupError:
        return False
    return True


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "home": {"type": "path", "default": "/opt/dify"},
            "project": {"type": "str", "default": "dify"},
            "state": {"type": "str", "choices": ["upgraded", "settled", "rolled_back"], "default": "upgraded"},
            "plan": {"type": "dict", "default": {}},
            "info": {"type": "dict", "default": {}},
            "backup": {"type": "path", "default": ""},
            "accept_loss": {"type": "bool", "default": False},
            "url": {"type": "str", "default": "http://127.0.0.1"},
            "plugin_daemon_url": {"type": "str", "default": "http://127.0.0.1:5002"},
            "secrets_file": {"type": "path", "default": "", "no_log": False},
            "app_key_file": {"type": "path", "default": "", "no_log": False},
            "model_servers": {"type": "list", "elements": "str", "default": []},
            "plugins": {"type": "list", "elements": "raw", "default": []},
            "marketplace_url": {"type": "str", "default": "https://marketplace.dify.ai"},
            "plugin_timeout": {"type": "int", "default": 900},
            "drain_seconds": {"type": "int", "default": 60},
            "migration_timeout": {"type": "int", "default": 1800},
            "health_deadline": {"type": "int", "default": 600},
            "timeout": {"type": "int", "default": 7200},
        },
        supports_check_mode=True,
    )
    if not HAS_REQUESTS:
        module.fail_json(msg=missing_required_lib("requests"), exception=REQUESTS_IMPORT_ERROR)
    DifyUpgrade(module).run()


if __name__ == "__main__":
    main()
