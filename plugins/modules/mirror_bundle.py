#!/usr/bin/python
# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: mirror_bundle
short_description: Carry what a mirror holds to a site without a network
version_added: 0.1.0
description:
  - Writes everything that a mirror holds into one file, or fills a mirror from such a file.
  - The file is a plain tar with a list of contents, C(SHA256SUMS) of all files in it. The sum of the whole lies beside
    it.
  - A bundle is read to its end and compared with its list before anything is changed. What is damaged, missing or not
    listed is named.
  - What the mirror has already stays; a bundle that is read again changes nothing.
author:
  - llmops.stack contributors (@llmops)
attributes:
  check_mode:
    description: Can run in check mode. A bundle that would be read is verified whole.
    support: full
  diff_mode:
    description: Returns how many files and bytes there would be.
    support: full
options:
  home:
    description: The folder with everything that the mirror serves.
    type: path
    default: /srv/llmops-mirror
  path:
    description: The bundle, a file on the mirror.
    type: path
    required: true
  state:
    description:
      - V(written) has the bundle hold what the mirror holds. One that does already is left alone.
      - V(read) has the mirror hold what the bundle holds.
    type: str
    choices: [written, read]
    required: true
  deadline:
    description: Seconds after which it is given up.
    type: int
    default: 14400
"""

EXAMPLES = r"""
- name: Write a bundle
  llmops.stack.mirror_bundle:
    path: /srv/llmops-bundle.tar
    state: written

- name: Fill a mirror from it
  llmops.stack.mirror_bundle:
    path: /media/usb/llmops-bundle.tar
    state: read
"""

RETURN = r"""
path:
  description: The bundle.
  type: str
  returned: always
  sample: /srv/llmops-bundle.tar
files:
  description: How many files the bundle holds.
  type: int
  returned: always
  sample: 2718
bytes:
  description: How many bytes they have.
  type: int
  returned: always
  sample: 9663676416
digest:
  description: A sha256 over all sums in it, equal for bundles of equal content.
  type: str
  returned: always
  sample: 7f83b1657ff1fc53b92dc18148a1d65dfc2d4b1fa3d677284addd200126d9069
new_files:
  description: How many files of it the mirror did not have.
  type: int
  returned: when O(state=read) and not in check mode
  sample: 12
new_bytes:
  description: How many bytes they have.
  type: int
  returned: when O(state=read) and not in check mode
  sample: 1117322599
package_sources:
  description: >-
    Lines of a sources.list by which the mirror itself gets packages of its distribution out of what the bundle has
    brought, while nothing serves that yet. Empty where the bundle has none for its release.
  type: list
  elements: str
  returned: when O(state=read) and not in check mode
  sample: ["deb file:/srv/llmops-mirror/apt/debian.example.com/debian trixie main"]
"""

import os
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmops.stack.plugins.module_utils import _mirror_bundle as bundle
from ansible_collections.llmops.stack.plugins.module_utils import _mirror_bundle_read as reading
from ansible_collections.llmops.stack.plugins.module_utils._mirror_apt import local_sources
from ansible_collections.llmops.stack.plugins.module_utils._mirror_fetch import Fetcher, Sources
from ansible_collections.llmops.stack.plugins.module_utils._mirror_index import Index
from ansible_collections.llmops.stack.plugins.module_utils._mirror_plugins import Plugins
from ansible_collections.llmops.stack.plugins.module_utils._mirror_wheels import Wheels


class MirrorBundle:
    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.home: str = module.params["home"]
        self.path: str = module.params["path"]
        self.deadline = time.monotonic() + module.params["deadline"]

    def run(self) -> dict[str, Any]:
        return self._written() if self.module.params["state"] == "written" else self._read()

    def _written(self) -> dict[str, Any]:
        if os.path.realpath(self.path).startswith(os.path.realpath(self.home) + os.sep):
            raise bundle.BundleError(
                f"{self.path} is inside of {self.home}, where it would hold itself. Choose another place."
            )
        before = self._before()
        if before and before.digest == bundle.fresh_digest(self.home):
            return {**self._about(before), "changed": False}
        if self.module.check_mode:
            paths = bundle.contents(self.home)
            size = sum(os.path.getsize(os.path.join(self.home, path)) for path in paths)
            return {"path": self.path, "files": len(paths), "bytes": size, "digest": "", "changed": True}
        return {**self._about(bundle.write(self.home, self.path, self.deadline)), "changed": True}

    def _before(self) -> bundle.Contents | None:
        try:
            return bundle.listed(self.path)
        except bundle.BundleError:
            return None  # none yet, or one that is to be replaced

    def _read(self) -> dict[str, Any]:
        said = reading.verify(self.path)
        index = Index(self.home)
        missing = reading.lacking(index, said)
        if self.module.check_mode:
            return {**self._about(said), "changed": bool(missing)}
        os.makedirs(self.home, mode=0o755, exist_ok=True)
        new = reading.read(self.path, self.home, said, self.deadline)
        index = Index(self.home)
        fetcher = Fetcher(self.home, Sources(), self.deadline)
        os.makedirs(index.absolute("www/pypi/simple"), mode=0o755, exist_ok=True)
        pages = [Plugins(fetcher, index).publish(), Wheels(fetcher, index).publish()]
        return {
            **self._about(said),
            "new_files": new["files"],
            "new_bytes": new["bytes"],
            "package_sources": local_sources(self.home),
            "changed": bool(new["files"]) or any(pages),
        }

    def _about(self, found: bundle.Contents) -> dict[str, Any]:
        size = sum(one.size for one in found.files.values())
        return {"path": self.path, "files": len(found.files), "bytes": size, "digest": found.digest}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "home": {"type": "path", "default": "/srv/llmops-mirror"},
            "path": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["written", "read"], "required": True},
            "deadline": {"type": "int", "default": 14400},
        },
        supports_check_mode=True,
    )
    try:
        result = MirrorBundle(module).run()
    except bundle.BundleError as exc:
        module.fail_json(msg=str(exc))
    except OSError as exc:
        module.fail_json(msg=f"{exc.strerror or exc} ({exc.filename or module.params['path']}).")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
