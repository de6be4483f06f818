#!/usr/bin/python
# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: mirror_store
short_description: Have a mirror hold what the hosts of an inventory need
version_added: 0.1.0
description:
  - Fetches what is not there yet, several things at a time - release archives, images, models, packages of plugins with
    their wheels, and packages for hosts.
  - Each thing is checked on arrival and appears at its place whole or not at all. Archives are checked against the sums
    that are published beside them or stand in the inventory, images and models against their digests, plugins by their
    content, packages against the signed lists of their repository.
  - What broke off goes on with the next run. What cannot be had keeps nothing else from coming, and is told at the end.
  - What is there is not asked for again; a run that finds everything fetches nothing.
author:
  - llmops.stack contributors (@llmops)
requirements:
  - requests (Python library)
  - PyYAML (Python library, for images of a Dify release and for plugins)
  - skopeo (program, for images)
  - pip (Python library, for wheels of plugins)
  - apt-get (program, for packages of the distribution)
attributes:
  check_mode:
    description: Can run in check mode and tell what would be fetched, and how many bytes where that is known.
    support: full
  diff_mode:
    description: Returns the names of what came and what went.
    support: full
options:
  home:
    description: The folder with everything that the mirror serves.
    type: path
    default: /srv/llmops-mirror
  needs:
    description: What there has to be, as the filter P(llmops.stack.mirror_needs#filter) makes it out of an inventory.
    type: list
    elements: dict
    required: true
  upstream:
    description:
      - Another mirror of the same layout, as a URL, from which this one fetches. Empty means the internet.
      - Its images are those of a registry on port 5000 of the same host.
    type: str
    default: ""
  sources:
    description:
      - Addresses of single parts, which count more than O(upstream).
      - Keys are V(github), V(docker-ce), V(libnvidia-container), V(marketplace), V(pypi) (an index of Python packages),
        V(models) (a registry of models) and V(images) (a registry that has every image under Docker Hub's names).
    type: dict
    default: {}
  registry:
    description: The mirror's own registry of images, as C(host:port). It is written to without TLS.
    type: str
    default: 127.0.0.1:5000
  apt_proxy:
    description: The mirror's own cache of distribution packages, as a URL. Without one no such package is fetched.
    type: str
    default: ""
  refresh:
    description: Also ask whether what is there has changed, such as a tag C(latest) or the newest version of a plugin.
    type: bool
    default: false
  offline:
    description: Ask nobody else; what is not there is told. For a site without a way out.
    type: bool
    default: false
  prune:
    description:
      - Remove what none of O(needs) stands for, once they are all there. Only what this module brought is ever removed.
    type: bool
    default: false
  registry_config:
    description: The configuration file of the registry, by which O(prune) frees the room of images that are gone.
    type: path
  parallel:
    description: How many things are fetched at a time.
    type: int
    default: 4
  deadline:
    description: Seconds after which fetching is given up; what came is kept.
    type: int
    default: 14400
"""

EXAMPLES = r"""
- name: Fetch what the inventory needs
  llmops.stack.mirror_store:
    home: /srv/llmops-mirror
    needs: "{{ (hostvars | llmops.stack.mirror_needs({'dify': groups['dify'], 'ollama': groups['ollama']})).needs }}"

- name: Fetch it from the mirror of another site, and remove what nobody needs any more
  llmops.stack.mirror_store:
    needs: "{{ needed }}"
    upstream: http://mirror.example.com
    prune: true
    registry_config: /etc/llmops-mirror/registry.yml
"""

RETURN = r"""
fetched:
  description: What came, or would come in check mode.
  type: list
  elements: dict
  returned: always
  contains:
    kind: {description: "Such as V(image).", type: str}
    name: {description: What it is called., type: str}
    bytes: {description: "How many, or null where that is not known beforehand.", type: int}
  sample: [{kind: model, name: "deepseek-r1:1.5b", bytes: 1117322599}]
present:
  description: How many things were there already.
  type: int
  returned: always
  sample: 31
missing:
  description: What cannot be had; a run with any of these fails.
  type: list
  elements: dict
  returned: always
  contains:
    kind: {description: "Such as V(image).", type: str}
    name: {description: What it is called., type: str}
    reason: {description: "Why, in a sentence.", type: str}
    advice: {description: How to add it., type: str}
    hosts: {description: Who needs it., type: list, elements: str}
bytes_transferred:
  description: What this run fetched.
  type: int
  returned: always
  sample: 1117322599
bytes_to_fetch:
  description: What check mode knows of the bytes that would be fetched.
  type: int
  returned: in check mode
  sample: 1117322599
removed:
  description: What was removed because nobody needs it.
  type: list
  elements: str
  returned: always
  sample: ["image langgenius/dify-api:1.11.4"]
notes:
  description: What an operator should know, in sentences.
  type: list
  elements: str
  returned: always
"""

import fcntl
import os
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.llmops.stack.plugins.module_utils import _download as download
from ansible_collections.llmops.stack.plugins.module_utils._dify_release import HAS_YAML, YAML_IMPORT_ERROR
from ansible_collections.llmops.stack.plugins.module_utils._mirror_fetch import Sources
from ansible_collections.llmops.stack.plugins.module_utils._mirror_prune import prune
from ansible_collections.llmops.stack.plugins.module_utils._mirror_store import Mirror, Outcome
from ansible_collections.llmops.stack.plugins.module_utils._urls import logins

_PARTS = ("github", "docker-ce", "libnvidia-container", "marketplace", "pypi", "models", "images")


class MirrorStore:
    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params: dict[str, Any] = module.params

    def run(self) -> dict[str, Any]:
        unknown = sorted(set(self.params["sources"]) - set(_PARTS))
        if unknown:
            self.module.fail_json(
                msg=f"mirror_sources has {', '.join(unknown)}, and the parts of a mirror are {', '.join(_PARTS)}."
            )
        if not (download.HAS_REQUESTS and HAS_YAML):
            return self._unprepared()
        if not self.module.check_mode:
            self._lock()
        mirror = Mirror(
            self.params["home"],
            Sources(self.params["upstream"], self.params["sources"]),
            time.monotonic() + self.params["deadline"],
            self.params["registry"],
            check=self.module.check_mode,
            **{name: self.params[name] for name in ("apt_proxy", "refresh", "offline", "parallel")},
        )
        outcomes = mirror.run(self.params["needs"])
        missing = [one for one in outcomes if one.action == "missing"]
        fetched = [one for one in outcomes if one.action == "fetched"]
        removed: list[str] = []
        if self.params["prune"] and not missing:
            removed = prune(mirror, self.params["needs"], outcomes, self.params["registry_config"] or "")
        known = sum(one.size or 0 for one in fetched)
        carried = sum(one.size or 0 for one in fetched if one.kind in ("image", "packages", "wheels"))
        result: dict[str, Any] = {
            "changed": bool(fetched or removed),
            "fetched": [{"kind": one.kind, "name": one.name, "bytes": one.size} for one in fetched],
            "present": sum(1 for one in outcomes if one.action == "none"),
            "missing": [_missing(one) for one in missing],
            "bytes_transferred": 0 if self.module.check_mode else mirror.fetcher.received + carried,
            "removed": removed,
            "notes": sorted(dict.fromkeys(mirror.notes)),
            "diff": {"before": _listed(removed), "after": _listed(f"{one.kind} {one.name}" for one in fetched)},
        }
        if self.module.check_mode:
            result["bytes_to_fetch"] = known
        if missing:
            self.module.fail_json(msg=_failure(missing, len(outcomes), result), **result)
        return result

    def _unprepared(self) -> dict[str, Any]:
        """In a check run of a bare host everything is still to come; otherwise a library is missing."""
        if not self.module.check_mode:
            name, trace = ("requests", download.REQUESTS_IMPORT_ERROR) if HAS_YAML else ("PyYAML", YAML_IMPORT_ERROR)
            self.module.fail_json(msg=missing_required_lib(name), exception=trace)
        needs = self.params["needs"]
        return {
            "changed": bool(needs),
            "fetched": [{"kind": one["kind"], "name": one["name"], "bytes": None} for one in needs],
            "present": 0,
            "missing": [],
            "bytes_transferred": 0,
            "bytes_to_fetch": 0,
            "removed": [],
            "notes": [],
        }

    def _lock(self) -> None:
        """One at a time: two runs would write the same files and the same notes."""
        home = self.params["home"]
        os.makedirs(home, mode=0o755, exist_ok=True)
        self.lock = open(os.path.join(home, ".lock"), "w", encoding="utf-8")  # noqa: SIM115 - held until the end
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.module.fail_json(msg=f"Another run is filling {home} right now. Wait for its end, then run again.")


def _missing(one: Outcome) -> dict[str, Any]:
    return {**{part: getattr(one, part) for part in ("kind", "name", "reason", "advice")}, "hosts": list(one.hosts)}


def _listed(names: Any) -> str:
    return "".join(f"{name}\n" for name in names)


def _failure(missing: list[Outcome], total: int, result: dict[str, Any]) -> str:
    lines = [
        f"{one.name}{f' (for {_some(one.hosts)})' if one.hosts else ''}: {one.reason} {one.advice}".rstrip()
        for one in missing
    ]
    came = result["bytes_transferred"]
    kept = f" What came is kept ({came} bytes)." if came else ""
    return f"The mirror lacks {len(missing)} of {total} things.{kept}\n" + "\n".join(lines)


def _some(hosts: tuple[str, ...]) -> str:
    return ", ".join(hosts[:3]) + (f" and {len(hosts) - 3} more" if len(hosts) > 3 else "")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "home": {"type": "path", "default": "/srv/llmops-mirror"},
            "needs": {"type": "list", "elements": "dict", "required": True},
            "upstream": {"type": "str", "default": ""},
            "sources": {"type": "dict", "default": {}},
            "registry": {"type": "str", "default": "127.0.0.1:5000"},
            "apt_proxy": {"type": "str", "default": ""},
            "refresh": {"type": "bool", "default": False},
            "offline": {"type": "bool", "default": False},
            "prune": {"type": "bool", "default": False},
            "registry_config": {"type": "path"},
            "parallel": {"type": "int", "default": 4},
            "deadline": {"type": "int", "default": 14400},
        },
        supports_check_mode=True,
    )
    for url in (module.params["upstream"], *module.params["sources"].values()):
        module.no_log_values.update(logins(str(url)))
    try:
        result = MirrorStore(module).run()
    except OSError as exc:
        module.fail_json(msg=f"{exc.strerror or exc} ({exc.filename or module.params['home']}).")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
