#!/usr/bin/python
# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ollama_release
short_description: Keep releases of Ollama as folders on a host
version_added: 0.1.0
description:
  - Fetches the archives of an Ollama release, checks their sha256, and unpacks them over each other to
    C(<home>/<version>). Other releases stay as they are, and so does the one that is in use.
  - Nothing is unpacked whose checksum is not known, from O(checksums) or from the C(sha256sum.txt) of the release.
  - The folder appears in one step when everything is in it, and only with what a server of that version needs. A run
    that was killed leaves at most a partial download, which the next run continues where the server allows that.
  - C(<home>/current) points to the release in use, and O(link) to the program in it. They move only with
    O(state=current), so that going back to an older release is one call that fetches nothing.
author:
  - llmops.stack contributors (@llmops)
requirements:
  - requests (Python library, for a O(source) that is a URL)
  - zstd (program, for releases from 0.14.0 on; not needed with Python 3.14)
attributes:
  check_mode:
    description: Can run in check mode and tell what would change, without changing or fetching anything.
    support: full
  diff_mode:
    description: Returns the state before and after.
    support: full
options:
  home:
    description: The folder of the releases.
    type: path
    default: /opt/ollama
  link:
    description:
      - Link to the program of the current release, for O(state=current).
      - A program that is there already, as Ollama's install script leaves it, is kept beside it with the ending
        C(.before-llmops).
    type: path
    default: /usr/local/bin/ollama
  version:
    description:
      - Version of the release, without a leading C(v), 0.5.0 or newer.
      - Needed unless O(state=pruned), which keeps this version, too, when it is given.
    type: str
  source:
    description:
      - Where the archives lie under their published names; a base URL, or the absolute path (also as C(file://)) of a
        folder on the managed host.
      - Needed for O(state=present) while the release is not there.
    type: str
    default: ""
  arch:
    description: Architecture of the release, C(amd64) or C(arm64). Empty means that of the managed host.
    type: str
    default: ""
  overlays:
    description:
      - Further archives of the release that are laid over the base, V(rocm) or V(mlx) (amd64), V(jetpack5) or
        V(jetpack6) (arm64).
      - A release that is there with others is made anew beside itself and exchanged.
    type: list
    elements: str
    default: []
  checksums:
    description:
      - The sha256 of archives by file name, also with a leading C(sha256:).
      - What is not named here is checked against C(sha256sum.txt) at O(source).
      - A release that is there from an archive with another checksum is made anew beside itself and exchanged.
    type: dict
    default: {}
  proxy:
    description:
      - Proxy through which a O(source) with C(https) is fetched, as a URL. Without one that of the environment is used.
      - One of SOCKS needs the Python library PySocks.
    type: str
    default: ""
  no_proxy:
    description: Hosts and networks, separated by commas, that are not asked through O(proxy).
    type: str
    default: ""
  keep:
    description: How many releases O(state=pruned) leaves beside the current one.
    type: int
    default: 2
  deadline:
    description: Seconds after which fetching and unpacking is given up, whatever it is doing.
    type: int
    default: 1800
  state:
    description:
      - V(present) has the release unpacked.
      - V(current) lets O(link) and C(current) lead to a release that is unpacked.
      - V(served) notes that a server from a release has answered, for V(pruned).
      - V(pruned) removes releases, those that never served first and then those that served longest ago, and also
        those that lost files and what killed runs left. The current release is never removed, and neither is what
        this module did not unpack.
    type: str
    choices: [present, current, served, pruned]
    default: present
"""

EXAMPLES = r"""
- name: Fetch a release
  llmops.stack.ollama_release:
    version: "0.32.15"
    source: https://github.com/ollama/ollama/releases/download/v0.32.15
    overlays: [rocm]

- name: Take one that was brought along
  llmops.stack.ollama_release:
    version: "0.17.4"
    source: /srv/bundle/ollama-0.17.4
    checksums:
      ollama-linux-amd64.tar.zst: 0f343b0931126a20f133d67c2b018a3b5c8d8f4a6c7a0a3d6cb7a8a4f1d5c7de

- name: Use it
  llmops.stack.ollama_release:
    version: "0.17.4"
    state: current
  register: switched

- name: Note that it answered
  llmops.stack.ollama_release:
    version: "0.17.4"
    state: served

- name: Go back
  llmops.stack.ollama_release:
    version: "{{ switched.previous }}"
    state: current

- name: Keep the current release and one to go back to
  llmops.stack.ollama_release:
    keep: 1
    state: pruned
"""

RETURN = r"""
path:
  description: The folder of the release.
  type: str
  returned: when O(state) is not V(pruned)
  sample: /opt/ollama/0.32.15
action:
  description:
    - What was done with the folder (in check mode, what would be), V(none), V(unpacked) where it was not there,
      V(repaired) where it had lost files, or V(rebuilt) where it came from other archives.
    - A server that ran from a folder that was repaired or rebuilt has to be restarted.
  type: str
  returned: when O(state=present)
  sample: unpacked
files:
  description: The archives that the release came from, with their sha256; empty in check mode for one to be fetched.
  type: dict
  returned: when O(state=present)
  sample: {"ollama-linux-amd64.tar.zst": "0f343b0931126a20f133d67c2b018a3b5c8d8f4a6c7a0a3d6cb7a8a4f1d5c7de"}
bytes_downloaded:
  description: What this run fetched over the network.
  type: int
  returned: when O(state=present)
  sample: 1890123776
current:
  description: The release that C(current) points to after this run, empty without one.
  type: str
  returned: always
  sample: "0.32.15"
previous:
  description: The release that C(current) pointed to before this run, empty without one.
  type: str
  returned: when O(state=current)
  sample: "0.17.4"
moved_aside:
  description: Where a program that was in the way of O(link) is now, empty without one.
  type: str
  returned: when O(state=current)
  sample: /usr/local/bin/ollama.before-llmops
removed:
  description: The releases that were removed.
  type: list
  elements: str
  returned: when O(state=pruned)
  sample: ["0.13.5"]
leftovers:
  description: What killed runs had left in O(home) and is gone now.
  type: list
  elements: str
  returned: when O(state=pruned)
  sample: [".0.17.4.unpacking"]
"""

import os
import platform
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.llmops.stack.plugins.module_utils import _download as download
from ansible_collections.llmops.stack.plugins.module_utils import _ollama_layout as layout
from ansible_collections.llmops.stack.plugins.module_utils._ollama_release import Store
from ansible_collections.llmops.stack.plugins.module_utils._ollama_versions import parse_version, release_info
from ansible_collections.llmops.stack.plugins.module_utils._urls import logins

_ACTIONS = {"absent": "unpacked", "incomplete": "repaired", "unpacked": "rebuilt"}


class OllamaRelease:
    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params: dict[str, Any] = module.params
        self.version: str = self.params["version"] or ""
        self.store = Store(*(self.params[key] for key in ("home", "link", "proxy", "no_proxy")))
        self.changed = False

    def run(self) -> dict[str, Any]:
        try:
            if self.version:
                parse_version(self.version)
        except ValueError as exc:
            raise download.ReleaseError(f"{exc}. Correct ollama_version.") from exc
        states = {
            "present": self._present,
            "current": self._current,
            "served": self._served,
            "pruned": self._pruned,
        }
        return {**states[self.params["state"]](), "changed": self.changed}

    def _may_change(self) -> bool:
        """Note a change; whether it may be made now."""
        self.changed = True
        return not self.module.check_mode

    def _present(self) -> dict[str, Any]:
        try:
            info = release_info(self.version, self.params["arch"] or platform.machine(), self.params["overlays"])
        except ValueError as exc:
            raise download.ReleaseError(f"{exc}. Correct ollama_version or ollama_overlays.") from exc
        self.store.refuse_foreign(self.version)
        found = self.store.describe(self.version)
        noted = layout.read_marker(self.store.path(self.version))
        before = {"release": found, "overlays": noted.get("overlays", [])}
        result: dict[str, Any] = {
            "path": self.store.path(self.version),
            "current": self.store.current(),
            "action": "none",
            "files": noted.get("files", {}),
            "bytes_downloaded": 0,
        }
        if found == "unpacked" and not self.store.differs(info, self.params["checksums"]):
            return {**result, "diff": {"before": before, "after": before}}
        result.update(action=_ACTIONS[found], files={})
        if not self.params["source"]:
            raise download.ReleaseError(
                f"Ollama {self.version} is not on this host as it is wanted ({found}), and source does not say where "
                "to get it. Set ollama_archive_url."
            )
        if self._may_change():
            result.update(self._install(info))
        after = {"release": "unpacked", "overlays": info["overlays"]}
        return {**result, "diff": {"before": before, "after": after}}

    def _install(self, info: dict[str, Any]) -> dict[str, Any]:
        source = self.params["source"]
        folder = download.local_path(source)
        if folder and not os.path.isabs(folder):
            raise download.ReleaseError(
                f"'{source}' is neither a URL nor an absolute path. Correct ollama_archive_url."
            )
        if not folder and not download.HAS_REQUESTS:
            self.module.fail_json(msg=missing_required_lib("requests"), exception=download.REQUESTS_IMPORT_ERROR)
        deadline = time.monotonic() + self.params["deadline"]
        done = self.store.install(info, source, self.params["checksums"], deadline)
        self._label()
        return done

    def _label(self) -> None:
        """Under SELinux a file keeps the label of the name it was made under, and a service starts no such program."""
        if not self.module.selinux_enabled():
            return
        for folder, folders, names in os.walk(self.store.path(self.version)):
            for name in (".", *folders, *names):
                self.module.set_default_selinux_context(os.path.normpath(os.path.join(folder, name)), False)

    def _current(self) -> dict[str, Any]:
        found = self.store.describe(self.version)
        # In check mode it may be that the run would have unpacked it before.
        if found != "unpacked" and not (self.module.check_mode and found == "absent"):
            raise download.ReleaseError(
                f"Ollama {self.version} cannot become the release in use: {self.store.path(self.version)} is {found}. "
                "Unpack it first with state: present."
            )
        before = {"current": self.store.current(), "linked": self.store.is_linked()}
        after = {"current": self.version, "linked": True}
        aside = self.store.in_the_way()
        if before != after and self._may_change():
            self.store.activate(self.version)
        return {
            "path": self.store.path(self.version),
            "current": self.version,
            "previous": before["current"],
            "moved_aside": aside,
            "diff": {"before": before, "after": after},
        }

    def _served(self) -> dict[str, Any]:
        found = self.store.describe(self.version)
        if found != "unpacked" and not (self.module.check_mode and found == "absent"):
            raise download.ReleaseError(
                f"Ollama {self.version} cannot have served: {self.store.path(self.version)} is {found}. "
                "Unpack it first with state: present."
            )
        if not self.store.is_last_to_serve(self.version) and self._may_change():
            self.store.note_served(self.version)
        return {"path": self.store.path(self.version), "current": self.store.current()}

    def _pruned(self) -> dict[str, Any]:
        keep = self.params["keep"]
        if keep < 0:
            raise download.ReleaseError(f"{keep} releases cannot be kept. Correct ollama_keep.")
        releases = sorted(layout.releases(self.store.home), key=parse_version)
        removed, leftovers = self.store.superfluous(keep, self.version), self.store.leftovers()
        if (removed or leftovers) and self._may_change():
            self.store.clear_leftovers()
            for version in removed:
                self.store.remove(version)
        return {
            "current": self.store.current(),
            "removed": removed,
            "leftovers": leftovers,
            "diff": {
                "before": {"releases": releases},
                "after": {"releases": [one for one in releases if one not in removed]},
            },
        }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "home": {"type": "path", "default": "/opt/ollama"},
            "link": {"type": "path", "default": "/usr/local/bin/ollama"},
            "version": {"type": "str"},
            "source": {"type": "str", "default": ""},
            "arch": {"type": "str", "default": ""},
            "overlays": {"type": "list", "elements": "str", "default": []},
            "checksums": {"type": "dict", "default": {}},
            "proxy": {"type": "str", "default": "", "no_log": True},
            "no_proxy": {"type": "str", "default": ""},
            "keep": {"type": "int", "default": 2},
            "deadline": {"type": "int", "default": 1800},
            "state": {"type": "str", "choices": ["present", "current", "served", "pruned"], "default": "present"},
        },
        required_if=[("state", state, ("version",)) for state in ("present", "current", "served")],
        supports_check_mode=True,
    )
    module.no_log_values.update(logins(module.params["source"]))
    try:
        result = OllamaRelease(module).run()
    except (download.ReleaseError, OSError) as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
