#!/usr/bin/python
# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: dify_release
short_description: Keep releases of Dify as folders on a host
version_added: 0.1.0
description:
  - Fetches the source archive of a Dify release, checks it, and unpacks its C(docker) folder to
    C(<home>/releases/<version>). Other releases stay as they are, and so does what is running.
  - The folder appears in one step when everything is in it. A run that was killed leaves at most a partial download,
    which the next run continues where the server allows that.
  - Data lives outside of the releases, in C(<home>/volumes); each release has a link to it. Files that a release ships
    for its data folder are copied there when they are missing, and never over an existing one. The shipped state is
    kept in C(volumes.shipped).
  - C(<home>/current) points to the release in use. It moves only with O(activate) or O(state=current).
author:
  - llmops.stack contributors (@llmops)
requirements:
  - requests (Python library, for a O(source) that is a URL)
  - PyYAML (Python library)
attributes:
  check_mode:
    description: Can run in check mode and tell what would change, without changing or fetching anything.
    support: full
  diff_mode:
    description: Returns the state before and after.
    support: full
options:
  home:
    description: The folder of the Dify installation.
    type: path
    default: /opt/dify
  version:
    description: Tag of the release, without a leading C(v).
    type: str
    required: true
  source:
    description:
      - Where the archive is; a URL, or the absolute path (also as C(file://)) of a file on the managed host.
      - Needed while the release is not there.
    type: str
    default: ""
  checksum:
    description: The sha256 of the archive, also with a leading C(sha256:). Empty means that any archive is taken.
    type: str
    default: ""
  deadline:
    description: Seconds after which a download is given up, whatever it is doing.
    type: int
    default: 900
  activate:
    description: Let C(current) point to the release.
    type: bool
    default: false
  state:
    description:
      - V(present) has the release unpacked.
      - V(current) is V(present) with O(activate).
      - V(absent) removes the folder of the release; the one in use is never removed.
    type: str
    choices: [present, current, absent]
    default: present
"""

EXAMPLES = r"""
- name: Fetch a release
  llmops.stack.dify_release:
    version: "1.12.1"
    source: https://github.com/langgenius/dify/archive/refs/tags/1.12.1.tar.gz

- name: Take one that was brought along, and let current point to it
  llmops.stack.dify_release:
    version: "1.16.0"
    source: /srv/bundle/dify-1.16.0.tar.gz
    checksum: sha256:0f343b0931126a20f133d67c2b018a3b5c8d8f4a6c7a0a3d6cb7a8a4f1d5c7de
    state: current
"""

RETURN = r"""
path:
  description: The folder of the release.
  type: str
  returned: always
  sample: /opt/dify/releases/1.12.1
current:
  description: The release that C(current) points to, empty without one.
  type: str
  returned: always
  sample: "1.12.1"
sha256:
  description: Checksum of the archive that the release came from; empty in check mode for one that is not there yet.
  type: str
  returned: when O(state) is not V(absent)
  sample: 0f343b0931126a20f133d67c2b018a3b5c8d8f4a6c7a0a3d6cb7a8a4f1d5c7de
bytes_downloaded:
  description: What this run fetched over the network.
  type: int
  returned: when O(state) is not V(absent)
  sample: 18874368
seeded_volumes:
  description: Files that were copied to the data folder, relative to it.
  type: list
  elements: str
  returned: when O(state) is not V(absent)
  sample: [sandbox/conf/config.yaml]
"""

import os
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.llmops.stack.plugins.module_utils import _dify_release as release
from ansible_collections.llmops.stack.plugins.module_utils._dify_versions import parse_version
from ansible_collections.llmops.stack.plugins.module_utils._urls import logins


class DifyRelease:
    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.tag: str = module.params["version"]
        self.source: str = module.params["source"]
        self.store = release.Store(module.params["home"])
        self.changed = False
        self.after: dict[str, str] = {}

    def run(self) -> dict[str, Any]:
        try:
            parse_version(self.tag)
        except ValueError as exc:
            raise release.ReleaseError(f"{exc}. Correct dify_version.") from exc
        before = {"release": self._described(), "current": self.store.current()}
        self.after = dict(before)
        found = self._absent() if self.module.params["state"] == "absent" else self._present()
        return {
            **found,
            "changed": self.changed,
            "path": self.store.path(self.tag),
            "current": self.after["current"],
            "diff": {"before": before, "after": self.after},
        }

    def _described(self) -> str:
        if self.store.is_complete(self.tag):
            return "unpacked"
        return "incomplete" if os.path.lexists(self.store.path(self.tag)) else "absent"

    def _may_change(self, **after: str) -> bool:
        """Note a change; whether it may be made now."""
        self.changed = True
        self.after.update(after)
        return not self.module.check_mode

    def _absent(self) -> dict[str, Any]:
        if os.path.lexists(self.store.path(self.tag)):
            if self.store.current() == self.tag:
                raise release.ReleaseError(
                    f"Dify {self.tag} is the release in use, so its folder is not removed. Activate another one first."
                )
            if self._may_change(release="absent"):
                self.store.remove(self.tag)
        return {}

    def _present(self) -> dict[str, Any]:
        found = self._described_archive() if self.store.is_complete(self.tag) else self._install()
        seeded = self.store.missing_volume_files(self.tag)
        if seeded and self._may_change():
            self.store.seed_volumes(self.tag)
        activate = self.module.params["activate"] or self.module.params["state"] == "current"
        if activate and self.store.current() != self.tag and self._may_change(current=self.tag):
            self.store.activate(self.tag)
        return {**found, "seeded_volumes": seeded}

    def _described_archive(self) -> dict[str, Any]:
        noted = self.store.marker(self.tag).get("sha256", "")
        wanted = release.bare_digest(self.module.params["checksum"])
        if wanted and wanted != noted:
            raise release.ReleaseError(
                f"{self.store.path(self.tag)} came from an archive with the sha256 {noted}, and {wanted} is wanted. "
                "Correct dify_archive_checksum, or remove the release with state: absent."
            )
        return {"sha256": noted, "bytes_downloaded": 0}

    def _install(self) -> dict[str, Any]:
        if not self.source:
            raise release.ReleaseError(f"Dify {self.tag} is not on this host, and source does not say where to get it.")
        if not self._may_change(release="unpacked"):
            return {"sha256": "", "bytes_downloaded": 0}
        if not release.HAS_YAML:
            self.module.fail_json(msg=missing_required_lib("PyYAML"), exception=release.YAML_IMPORT_ERROR)
        if not release.local_path(self.source) and not release.HAS_REQUESTS:
            self.module.fail_json(msg=missing_required_lib("requests"), exception=release.REQUESTS_IMPORT_ERROR)
        deadline = time.monotonic() + self.module.params["deadline"]
        done = self.store.install(self.tag, self.source, self.module.params["checksum"], deadline)
        for warning in done.pop("warnings"):
            self.module.warn(warning)
        return done


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "home": {"type": "path", "default": "/opt/dify"},
            "version": {"type": "str", "required": True},
            "source": {"type": "str", "default": ""},
            "checksum": {"type": "str", "default": ""},
            "deadline": {"type": "int", "default": 900},
            "activate": {"type": "bool", "default": False},
            "state": {"type": "str", "choices": ["present", "current", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    module.no_log_values.update(logins(module.params["source"]))
    try:
        result = DifyRelease(module).run()
    except (release.ReleaseError, OSError) as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
