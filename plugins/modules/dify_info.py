#!/usr/bin/python
# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: dify_info
short_description: Look at a Dify installation as the plan of an upgrade does
version_added: 0.1.0
author:
  - llmops.stack contributors (@llmops)
description:
  - One look at the databases, files and containers of a Dify, for everything on which an upgrade to another release
    depends.
  - Nothing is changed, and no value of a secret is returned.
  - The module does not fail because something is missing or does not answer. What cannot be found out is empty, and
    RV(errors) says why.
  - The database is asked over the address, the user and the password that Dify's API uses.
attributes:
  check_mode:
    description: Can run in C(check_mode) and return changed status prediction without modifying the target.
    support: full
    details:
      - Nothing is changed in either mode.
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in C(check_mode)), in diff mode.
    support: none
    details:
      - There is nothing to compare.
requirements:
  - Docker with Compose 2 on the host
options:
  home:
    description:
      - Folder of the installation, the O(llmops.stack.dify_release#module:home) of M(llmops.stack.dify_release).
    type: path
    default: /opt/dify
  project:
    description:
      - Name of the Compose project.
    type: str
    default: dify
  backup_dir:
    description:
      - Folder in which backups are made, for the room that is free there. By default C(backups) in O(home).
    type: path
  images:
    description:
      - Images of which to say whether the engine has them, such as those of the release that an upgrade goes to.
    type: list
    elements: str
    default: []
  deadline:
    description:
      - Seconds for the whole look. What has not been looked at by then is left empty.
    type: int
    default: 120
seealso:
  - module: llmops.stack.dify_health
  - module: llmops.stack.stack_facts
"""

EXAMPLES = r"""
- name: Look at the installation
  llmops.stack.dify_info:
  register: dify

- name: Say what is in it
  ansible.builtin.debug:
    msg: >-
      Dify {{ dify.release }} at {{ dify.head }}: {{ dify.counts.apps }} apps, {{ dify.counts.messages }} messages,
      {{ dify.database.size_mb }} MB

- name: Refuse a half-migrated database
  ansible.builtin.assert:
    that: dify.head == dify.expected_head
"""

RETURN = r"""
release:
  description: Release that C(current) leads to, empty without one. All else is empty then, too.
  type: str
  returned: always
  sample: 1.12.1
head:
  description: Revision at which the database is. Empty for a database that has none.
  type: str
  returned: always
  sample: 788d3099ae3a
expected_head:
  description: Revision that belongs to the release, empty for a release that this collection does not know.
  type: str
  returned: always
  sample: 788d3099ae3a
database:
  description: The PostgreSQL server, as Dify reaches it.
  type: dict
  returned: always
  contains:
    type:
      description: Value of E(DB_TYPE).
      type: str
    internal:
      description: Whether it is the release's own service.
      type: bool
    host:
      description: Its name or address.
      type: str
    user:
      description: The role that Dify has there.
      type: str
    server_version:
      description: Version of the server.
      type: str
    size_mb:
      description: Size of Dify's database.
      type: int
    plugin_size_mb:
      description: Size of the plugin daemon's database.
      type: int
    superuser:
      description: Whether the role may do everything.
      type: bool
    createdb:
      description: Whether the role may create databases.
      type: bool
    not_owned:
      description: Tables, sequences and views that belong to another role, which no migration can change.
      type: list
      elements: str
    invalid_indexes:
      description: Indexes that an interrupted build left behind.
      type: list
      elements: str
    foreign_sessions:
      description:
        - Sessions in Dify's databases that come from none of its containers. Each has C(database), C(pid), C(user),
          C(application), C(client), C(from) (who has that address), C(state), C(query) (without its values), C(since)
          and C(age) in seconds.
      type: list
      elements: dict
    error:
      description: Why the server could not be asked, empty when it was.
      type: str
lock_ttl_ms:
  description: How long the lock of a migration is still held, V(0) when nobody holds it, V(-1) for ever.
  type: int
  returned: always
redis_error:
  description: Why Redis, where that lock is, could not be asked; empty when it was.
  type: str
  returned: always
counts:
  description: Rows of C(tenants), C(accounts), C(apps), C(datasets), C(documents), C(messages), C(upload_files).
  type: dict
  returned: always
legacy_model_types:
  description: Rows with the name that a model type had before 1.14.1.
  type: int
  returned: when the database could be asked
old_upgrade_strategies:
  description: Workspaces whose automatic upgrades of plugins are kept in the form from before 1.15.
  type: int
  returned: when the database could be asked
short_providers:
  description: Rows with a provider's name from before plugins.
  type: int
  returned: always
colliding_providers:
  description: Such rows for which there is one with the new name as well, on which Dify's own renaming does not end.
  type: list
  elements: str
  returned: always
  sample: ["providers: ollama in workspace 3c2f1d0e-0000-4000-8000-000000000000"]
plugins:
  description:
    - Installed plugins, each with C(tenant), C(id), C(identifier) and C(file), which says whether its package is there.
      C(file) is null for a plugin that has none on this host.
  type: list
  elements: dict
  returned: always
plugin_files_without_row:
  description: Packages that the plugin daemon starts and that nobody has installed.
  type: list
  elements: str
  returned: always
plugins_needed:
  description: For a release before 1.0, the plugins that each workspace needs from then on, by its id.
  type: dict
  returned: always
  sample: {3c2f1d0e-0000-4000-8000-000000000000: [langgenius/ollama]}
models:
  description: Models of all workspaces, each with C(tenant), C(provider), C(model) and C(type) under their new names.
  type: list
  elements: dict
  returned: always
private_keys:
  description:
    - Whether each workspace has the private key that reads its credentials. C(checked) is how many were looked at,
      C(missing) those without a file, C(foreign) those whose file belongs to another pair.
  type: dict
  returned: always
  sample: {checked: 2, missing: [], foreign: []}
storage:
  description:
    - The API's storage. C(type) of E(STORAGE_TYPE), C(local) (whether its files are on this host), C(size_mb), and
      C(uid) of the folder's owner, V(-1) without one.
  type: dict
  returned: always
  sample: {type: opendal, local: true, size_mb: 12, uid: 1001}
vector:
  description:
    - The vector store. C(store), C(internal) (whether it is one of the installation's services), and for Weaviate
      C(collections), C(objects) and C(size_mb).
  type: dict
  returned: always
  sample: {store: weaviate, internal: true, collections: 3, objects: 1200, size_mb: 40}
sandbox_config:
  description: Whether the sandbox has settings of its own (C(present)), and the C(python_path) in them.
  type: dict
  returned: always
  sample: {present: true, python_path: /usr/local/bin/python3}
set_keys:
  description: Keys of C(.env) that have a value which a later release makes a mistake of, such as C(CELERY_QUEUES).
  type: list
  elements: str
  returned: always
secret_key:
  description: Whether E(SECRET_KEY) is set, and whether it is the C(public) one of Dify's repository.
  type: dict
  returned: always
  sample: {set: true, public: false}
free_mb:
  description:
    - Room where the C(backup) will be, where an internal C(database) is, and where C(docker) keeps its images.
  type: dict
  returned: always
  sample: {backup: 50000, database: 50000, docker: 50000}
devices:
  description: For each of RV(free_mb) the number of the device that it is on, so that one which is shared is known.
  type: dict
  returned: always
  sample: {backup: 2049, database: 2049, docker: 2065}
images_missing:
  description: Those of O(images) that the engine does not have.
  type: list
  elements: str
  returned: when some were asked for and the engine answered
errors:
  description: What could not be found out, and why.
  type: list
  elements: str
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmops.stack.plugins.module_utils._dify_compose import Project
from ansible_collections.llmops.stack.plugins.module_utils._dify_info import DifyInfo


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "home": {"type": "path", "default": "/opt/dify"},
            "project": {"type": "str", "default": "dify"},
            "backup_dir": {"type": "path"},
            "images": {"type": "list", "elements": "str", "default": []},
            "deadline": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    project = Project(wanted["home"], wanted["project"])
    info = DifyInfo(project, wanted["backup_dir"] or "", wanted["deadline"], wanted["images"])
    module.exit_json(changed=False, **info.collect())


if __name__ == "__main__":
    main()
