#!/usr/bin/python
# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: dify_backup
short_description: Back up a Dify that goes on serving
version_added: 0.1.0
description:
  - Dumps the databases of a Dify, archives its files, reads all of it back, and only then gives the backup its name.
  - Nothing is stopped. The databases come first and the files after them, so every file that a row names is there.
  - A backup is a folder C(<UTC>-<version>-<reason>) that only root can read. Its C(manifest.json) names each file with
    size and checksum, the revision of the schema, and a fingerprint of the data at the moment of the dump.
  - It holds C(dify.dump) and C(dify_plugin.dump) (custom format of pg_dump), C(storage.tar), C(plugin_daemon.tar)
    without the unpacked plugins, C(sandbox.tar), C(certbot.tar), the secrets of this collection, C(env) and
    C(docker-compose.override.yaml).
  - A backup that fails leaves nothing behind. On the disk that Dify itself writes to, 256 MB stay free.
author:
  - llmops.stack contributors (@llmops)
requirements:
  - docker with the compose plugin, and the database of the release running
attributes:
  check_mode:
    description: Can run in check mode and tell what would be done, without writing anything.
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
      - The newest backup with the reason V(upgrade) is never pruned: C(rollback.yml) goes back to it.
    type: str
    default: manual
  keep:
    description: How many backups are kept once a new one is verified. V(0) keeps all.
    type: int
    default: 3
  storage:
    description: Whether the uploaded files are in it, too. The private keys of the workspaces always are.
    type: bool
    default: true
  deadline:
    description: Seconds for all of it.
    type: float
    default: 3600
  state:
    description: V(present) makes one more backup, whatever is there.
    type: str
    choices: [present]
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
  returned: always
  sample: "1.12.1"
head:
  description: Revision of the database's schema.
  type: str
  returned: always
  sample: 788d3099ae3a
files:
  description: What is in the folder. Empty in check mode.
  type: list
  elements: dict
  returned: always
  sample: [{name: dify.dump, bytes: 184021, sha256: 7f0c...}]
databases:
  description: Name, file and number of tables of each database, by C(dify) and C(dify_plugin).
  type: dict
  returned: always
  sample: {dify: {name: dify, file: dify.dump, tables: 113}}
fingerprint:
  description: Rows and checksum of everything that has to survive a restore. Empty in check mode.
  type: dict
  returned: always
  sample: {accounts: [1, "943716386717888031"]}
notes:
  description: What the backup does not hold, and what is wrong with what was backed up.
  type: list
  elements: str
  returned: always
  sample: ["Not in the backup: uploaded files and the workspaces' private keys are in s3."]
seconds:
  description: How long it took.
  type: float
  returned: always
  sample: 12.4
pruned:
  description: Backups that were removed because there are newer ones. In check mode, those that would be.
  type: list
  elements: str
  returned: always
  sample: [/opt/dify/backups/20261101T053012Z-1.12.1-manual]
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmops.stack.plugins.module_utils import _dify_backup_manifest as manifests
from ansible_collections.llmops.stack.plugins.module_utils._dify_backup import Backup, Options
from ansible_collections.llmops.stack.plugins.module_utils._dify_backup_manifest import BackupError
from ansible_collections.llmops.stack.plugins.module_utils._dify_compose import Project


class DifyBackup:
    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        params = module.params
        self.options = Options(
            home=params["home"],
            directory=params["directory"] or "",
            keep=params["keep"],
            storage=params["storage"],
            reason=params["reason"],
            timeout=params["deadline"],
        )
        self.project = Project(params["home"], params["project"])

    def run(self) -> dict[str, Any]:
        backup = Backup(self.project, self.options)
        made = self._announced(backup) if self.module.check_mode else backup.make()
        warnings = made.pop("warnings")
        for warning in warnings:
            self.module.warn(warning)
        return {**made, "changed": True, "notes": warnings}

    def _announced(self, backup: Backup) -> dict[str, Any]:
        look = backup.look()
        name = backup.free_name(look.version)
        names = [name, *(one.name for one in backup.location.backups())]
        return {
            "path": backup.location.at(name),
            "version": look.version,
            "head": look.head,
            "files": [],
            "databases": {},
            "fingerprint": {},
            "warnings": look.warnings,
            "seconds": 0.0,
            "pruned": [os.path.join(backup.location.path, one) for one in manifests.expired(names, self.options.keep)],
        }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "home": {"type": "path", "default": "/opt/dify"},
            "project": {"type": "str", "default": "dify"},
            "directory": {"type": "path"},
            "reason": {"type": "str", "default": "manual"},
            "keep": {"type": "int", "default": 3},
            "storage": {"type": "bool", "default": True},
            "deadline": {"type": "float", "default": 3600},
            "state": {"type": "str", "choices": ["present"], "default": "present"},
        },
        supports_check_mode=True,
    )
    try:
        result = DifyBackup(module).run()
    except BackupError as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
