#!/usr/bin/python
# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: dify_backup
short_description: Back up a Dify that goes on serving, and put a backup back onto an empty host
version_added: 0.1.0
description:
  - Dumps the databases of a Dify, archives its files, reads all of it back, and only then gives the backup its name.
    Nothing is stopped. The databases come first and the files after them, so every file that a row names is there,
    unless somebody deleted it in between.
  - A backup is a folder C(<UTC>-<version>-<reason>) that only root can read. Its C(manifest.json) names each file with
    size and checksum, the revision of the schema, and a fingerprint of the data at the moment of the dump.
  - It holds C(dify.dump) and C(dify_plugin.dump) (custom format of pg_dump), C(storage.tar), C(plugin_daemon.tar)
    without the unpacked plugins, C(sandbox.tar), C(certbot.tar), C(ssl.tar) with certificates in C(nginx/ssl), the
    secrets of this collection, C(env), C(docker-compose.override.yaml), and in C(vectors) what Weaviate holds when it
    is a container of this installation. Other vector stores are not in it, which is said.
  - A backup that fails leaves nothing behind. On the disk that Dify itself writes to, 256 MB stay free.
  - A backup is put back only onto a host that has no data, and only for the release that it is of. A restore that was
    interrupted is begun anew by the next one with the same backup; a second restore of it changes nothing.
author:
  - llmops.stack contributors (@llmops)
requirements:
  - docker with the compose plugin
attributes:
  check_mode:
    description:
      Can run in check mode and tell what would be done, without writing anything. For O(state=restored) this
      reads the whole backup and looks at the host, so it refuses what a restore would refuse at its beginning.
    support: full
  diff_mode:
    description: A backup has no state before it that could be shown.
    support: none
options:
  home:
    description: The folder of the Dify installation.
    type: path
    default: /opt/dify
  project:
    description: Name of its Compose project.
    type: str
    default: dify
  directory:
    description: The folder for backups. By default C(backups) in O(home).
    type: path
  reason:
    description:
      - Why it is made, as the last part of its name. One word of small letters, digits and underscores.
    type: str
    default: manual
  keep:
    description:
      - How many backups are kept once a new one is verified. V(0) keeps all. Those with the O(reason) V(upgrade) are
        counted apart, so that upgrades that were tried again and again push out none of the others.
      - The one that C(rollback.yml) would go back to stays, however old it is, and so does the newest that holds the
        uploaded files.
    type: int
    default: 3
  storage:
    description: Whether the uploaded files are in it, too. The private keys of the workspaces always are.
    type: bool
    default: true
  path:
    description: The folder of the backup that is put back, verified or removed.
    type: path
  version:
    description: The release that is to run on this host. A backup of another one is refused.
    type: str
  stage:
    description:
      - V(settings) puts the secrets in place. It comes before the release is rendered, which would make new ones.
      - V(data) puts files and databases in place. It needs the release rendered, and nothing of it running.
    type: str
    choices: [settings, data]
    default: data
  deadline:
    description: Seconds for all of it.
    type: float
    default: 3600
  state:
    description:
      - V(present) makes one more backup, whatever is there.
      - V(restored) puts the one in O(path) back.
      - V(verified) reads the one in O(path) and fails if it is not as it was made.
      - V(absent) removes the one in O(path).
    type: str
    choices: [present, restored, verified, absent]
    default: present
"""

EXAMPLES = r"""
- name: Back up Dify before something happens to it
  llmops.stack.dify_backup:
    directory: /srv/backups/dify
    keep: 7
  register: backup

- name: Say where it is
  ansible.builtin.debug:
    msg: "{{ backup.path }} holds Dify {{ backup.version }}"

- name: Find out whether a copy is whole
  llmops.stack.dify_backup:
    state: verified
    path: /srv/copies/20261126T053012Z-1.12.1-manual

- name: Put the data in place, between rendering the release and starting it
  llmops.stack.dify_backup:
    state: restored
    path: /srv/copies/20261126T053012Z-1.12.1-manual
    version: "1.12.1"
"""

RETURN = r"""
path:
  description: The folder of the backup.
  type: str
  returned: always
  sample: /opt/dify/backups/20261126T053012Z-1.12.1-manual
version:
  description: The release that was backed up.
  type: str
  returned: when O(state) is not V(absent)
  sample: "1.12.1"
head:
  description: Revision of the database's schema.
  type: str
  returned: when O(state) is not V(absent)
  sample: 788d3099ae3a
files:
  description: What is in the folder. Empty when check mode announces a backup.
  type: list
  elements: dict
  returned: when O(state) is not V(absent)
  sample: [{name: dify.dump, bytes: 184021, sha256: 7f0c...}]
databases:
  description: Name, file, number of tables and size on the server of each database, by C(dify) and C(dify_plugin).
  type: dict
  returned: when O(state) is not V(absent)
  sample: {dify: {name: dify, file: dify.dump, tables: 113, bytes: 12345678}}
fingerprint:
  description: Rows and checksum of everything that has to survive a restore. Empty when check mode announces a backup.
  type: dict
  returned: when O(state) is not V(absent)
  sample: {accounts: [1, "943716386717888031"]}
notes:
  description: What the backup does not hold, what is wrong with what was backed up, or what is otherwise on this host.
  type: list
  elements: str
  returned: when O(state) is not V(absent)
  sample: ["Not in the backup: uploaded files and the workspaces' private keys are in s3."]
seconds:
  description: How long it took.
  type: float
  returned: when O(state) is not V(absent)
  sample: 12.4
pruned:
  description: Backups that were removed because there are newer ones. In check mode, those that would be.
  type: list
  elements: str
  returned: when O(state) is V(present)
  sample: [/opt/dify/backups/20261101T053012Z-1.12.1-manual]
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmops.stack.plugins.module_utils import _dify_backup_manifest as manifests
from ansible_collections.llmops.stack.plugins.module_utils._dify_backup import Backup, Clock, Options, alone
from ansible_collections.llmops.stack.plugins.module_utils._dify_backup_manifest import BackupError, Location
from ansible_collections.llmops.stack.plugins.module_utils._dify_backup_restore import Restore, Wish
from ansible_collections.llmops.stack.plugins.module_utils._dify_compose import Project

_SHOWN = ("version", "head", "files", "databases", "fingerprint")


class DifyBackup:
    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params: dict[str, Any] = module.params
        self.path: str = self.params["path"] or ""
        self.project = Project(self.params["home"], self.params["project"])

    def run(self) -> dict[str, Any]:
        result: dict[str, Any] = getattr(self, f"_{self.params['state']}")()
        for note in result.get("notes", []):
            self.module.warn(note)
        return result

    # -- present

    def _present(self) -> dict[str, Any]:
        params = self.params
        backup = Backup(
            self.project,
            Options(
                home=params["home"],
                directory=params["directory"] or "",
                keep=params["keep"],
                storage=params["storage"],
                reason=params["reason"],
                timeout=params["deadline"],
            ),
        )
        made = self._announced(backup) if self.module.check_mode else backup.make()
        return {**made, "changed": True}

    def _announced(self, backup: Backup) -> dict[str, Any]:
        look = backup.look()
        name = backup.free_name(look.version)
        names = [name, *(one.name for one in backup.location.backups())]
        expired = manifests.expired(names, self.params["keep"], backup.needed(self.params["storage"]))
        return {
            "path": backup.location.at(name),
            "version": look.version,
            "head": look.head,
            "files": [],
            "databases": {},
            "fingerprint": {},
            "notes": look.warnings,
            "seconds": 0.0,
            "pruned": [backup.location.at(one) for one in expired],
        }

    # -- restored

    def _restored(self) -> dict[str, Any]:
        params = self.params
        restore = Restore(self.project, Wish(params["home"], self.path, params["version"], params["deadline"]))
        done: dict[str, Any]
        if self.module.check_mode:
            done = {"changed": restore.check()}
        elif params["stage"] == "settings":
            done = {"changed": bool(restore.settings())}
        else:
            done = restore.data()
        return {"notes": [], "seconds": 0.0, **self._shown(restore.manifest), **done}

    # -- verified

    def _verified(self) -> dict[str, Any]:
        clock = Clock(self.params["deadline"], "Reading the backup")
        manifest = manifests.verify(self.path, clock.tick)
        return {**self._shown(manifest), "changed": False, "notes": manifest["warnings"], "seconds": clock.spent()}

    def _shown(self, manifest: dict[str, Any]) -> dict[str, Any]:
        return {"path": self.path, **{key: manifest[key] for key in _SHOWN}}

    # -- absent

    def _absent(self) -> dict[str, Any]:
        location, name = Location(os.path.dirname(self.path)), os.path.basename(self.path)
        there = os.path.lexists(self.path)
        if there:
            manifests.read(self.path)  # nothing is removed that is no backup
            if not self.module.check_mode:
                with alone(self.params["home"], Clock(self.params["deadline"], "Removing the backup"), "removal"):
                    location.remove(name)
        return {"path": self.path, "changed": there}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "home": {"type": "path", "default": "/opt/dify"},
            "project": {"type": "str", "default": "dify"},
            "directory": {"type": "path"},
            "reason": {"type": "str", "default": "manual"},
            "keep": {"type": "int", "default": 3},
            "storage": {"type": "bool", "default": True},
            "path": {"type": "path"},
            "version": {"type": "str"},
            "stage": {"type": "str", "choices": ["settings", "data"], "default": "data"},
            "deadline": {"type": "float", "default": 3600},
            "state": {"type": "str", "choices": ["present", "restored", "verified", "absent"], "default": "present"},
        },
        required_if=[
            ("state", "restored", ["path", "version"]),
            ("state", "verified", ["path"]),
            ("state", "absent", ["path"]),
        ],
        supports_check_mode=True,
    )
    try:
        result = DifyBackup(module).run()
    except BackupError as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
