#!/usr/bin/python
# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: signing_key
short_description: Put a package repository's signing key on a host, by fingerprint
version_added: 0.1.0
description:
  - Downloads an OpenPGP public key, compares its fingerprint with the expected one, and stores it ASCII armoured for
    C(Signed-By) of apt or C(gpgkey) of dnf.
  - A key with any other primary key in it is refused, and what is on the host stays as it is.
  - Needs neither gpg nor rpm. A key file that is in place and has the right fingerprint is not downloaded again.
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target.
    support: full
    details:
      - Nothing is downloaded in check mode.
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: full
options:
  url:
    description: Address of the key, armoured or binary.
    type: str
    required: true
  fingerprint:
    description: The 40 hexadecimal digits of the primary key's fingerprint, with or without spaces.
    type: str
    required: true
  path:
    description: File to store the key in.
    type: path
    required: true
  deadline:
    description: Seconds that the download may take.
    type: float
    default: 30.0
author:
  - llmops.stack contributors (@llmops)
"""

EXAMPLES = r"""
- name: Trust Docker's package key
  llmops.stack.signing_key:
    url: https://download.docker.com/linux/debian/gpg
    fingerprint: 9DC8 5822 9FC7 DD38 854A E2D8 8D81 803C 0EBF CD88
    path: /etc/apt/keyrings/docker.asc
"""

RETURN = r"""
fingerprint:
  description: Fingerprint of the key that is, or in check mode would be, in place.
  returned: success
  type: str
  sample: 9DC858229FC7DD38854AE2D88D81803C0EBFCD88
"""

import os
import tempfile
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url
from ansible_collections.llmops.stack.plugins.module_utils import _openpgp
from ansible_collections.llmops.stack.plugins.module_utils._urls import logins, mask_urls

LIMIT = 1048576  # a key is some kilobytes; more is not a key


class SigningKey:
    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.url: str = module.params["url"]
        self.path: str = module.params["path"]

    def run(self) -> dict[str, t.Any]:
        try:
            wanted = _openpgp.normalise(self.module.params["fingerprint"])
        except ValueError as exc:
            self.module.fail_json(msg=f"Bad fingerprint: {exc}.")
        before = self._in_place()
        result = {
            "changed": before != [wanted],
            "fingerprint": wanted,
            "diff": {
                "before": "".join(f"{one}\n" for one in before), "before_header": self.path,
                "after": f"{wanted}\n", "after_header": self.path,
            },
        }  # fmt: skip
        if result["changed"] and not self.module.check_mode:
            self._store(self._download(wanted))
        return result

    def _in_place(self) -> list[str]:
        try:
            with open(self.path, "rb") as handle:
                return _openpgp.fingerprints(handle.read(LIMIT))
        except (OSError, _openpgp.NotAKey):
            return []

    def _download(self, wanted: str) -> bytes:
        shown = mask_urls(self.url)
        try:
            with open_url(self.url, timeout=self.module.params["deadline"], http_agent="llmops.stack") as answer:
                data = answer.read(LIMIT)
        except Exception as exc:  # open_url lets everything from ssl to socket through
            self.module.fail_json(
                msg=f"Cannot fetch the signing key from {shown}: {mask_urls(str(exc))}. Without a route to it, point "
                "the repository's variable (docker_repo_url) or stack_mirror at a mirror that this host can reach."
            )
        try:
            found = _openpgp.fingerprints(data)
        except _openpgp.NotAKey as exc:
            self.module.fail_json(
                msg=f"What {shown} serves is not a signing key: {exc}. Check the repository's address."
            )
        if set(found) != {wanted}:
            self.module.fail_json(
                msg=f"The signing key at {shown} is not the expected one: expected fingerprint {wanted}, "
                f"found {', '.join(found)}. Nothing was stored. Check the mirror; only if its key is known to differ, "
                "set the fingerprint variable."
            )
        return _openpgp.dearmor(data)

    def _store(self, packets: bytes) -> None:
        os.makedirs(os.path.dirname(self.path), mode=0o755, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=self.module.tmpdir)
        with os.fdopen(descriptor, "w", encoding="ascii") as handle:
            handle.write(_openpgp.armor(packets))
        os.chmod(name, 0o644)  # apt reads it as its own unprivileged user
        self.module.atomic_move(name, self.path)
        os.chmod(self.path, 0o644)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "fingerprint": {"type": "str", "required": True},
            "path": {"type": "path", "required": True},
            "deadline": {"type": "float", "default": 30.0},
        },
        supports_check_mode=True,
    )
    module.no_log_values.update(logins(module.params["url"]))
    module.exit_json(**SigningKey(module).run())


if __name__ == "__main__":
    main()
