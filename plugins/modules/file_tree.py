#!/usr/bin/python
# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: file_tree
short_description: A folder that holds exactly these files
version_added: 0.1.0
description:
  - Writes all files of a folder in one execution, and removes everything in it that is not asked for.
  - Files are replaced one by one, each in one step, and only where they differ. New ones come before old ones go.
  - The folder, and the folders below it that files need, belong to the user who runs the module (with C(become), root)
    and have the mode C(0755). Links in it are not followed; they are replaced or removed like any other foreign file.
  - The folder is marked with a file C(.llmops-tree). One that holds something else and has no such file is refused, for
    both states, and so is a link. Folders without a file in them are nothing to be careful with.
author:
  - llmops.stack contributors (@llmops)
attributes:
  check_mode:
    description: Can run in check mode and tell what would change, without writing anything.
    support: partial
    details:
      - The programs of O(validate) are not run, because they may change something themselves.
  diff_mode:
    description: Returns the text of each file before and after.
    support: full
    details:
      - Of files in O(secret_files), and of those that only their owner could read before, only that they changed.
options:
  path:
    description:
      - The folder. It must be absolute and two folders deep or deeper. It is made, and so are the folders above it.
    type: path
    required: true
  files:
    description: The text of each file, by its path below O(path). Everybody may read them (C(0644)).
    type: dict
    default: {}
  secret_files:
    description: The same for files that only their owner may read (C(0600)).
    type: dict
    default: {}
  directories:
    description: Folders below O(path) that others fill. Whatever is in them is left alone.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The folder, by its path below O(path). No file of O(files) may be below it.
        type: str
        required: true
      owner:
        description: Name or number of its owner. By default it is the user who runs the module.
        type: str
      group:
        description: Name or number of its group. By default it is the group of the user who runs the module.
        type: str
      mode:
        description: Its mode, best as a text like V("0750"). By default V("0755").
        type: raw
  prune:
    description:
      - Whether everything that is not asked for is removed. With V(false) only what is in the way of a wanted file
        goes, and RV(unwanted) says what another run would remove, once nobody uses it any more.
    type: bool
    default: true
  keep:
    description: Paths below O(path) that are neither made nor removed, files or folders with all that is in them.
    type: list
    elements: str
    default: []
  validate:
    description:
      - Programs that look at a file before anything is replaced. Each runs only if its file differs, on a copy in a
        folder of its own that a container may mount. The copy has the mode of the file.
      - If one ends with another code than 0, nothing in O(path) is changed and the module fails with what it said.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: One of O(files) or O(secret_files).
        type: str
        required: true
      argv:
        description: >-
          Program and arguments; C(%s) in them stands for the path of the copy, and C(%d) for the folder that it lies
          in, with copies of all files that are to be in one folder with it.
        type: list
        elements: str
        required: true
  deadline:
    description: Seconds that each of these programs may take.
    type: float
    default: 120.0
  state:
    description: V(absent) removes the folder with all that is in it, also what is in O(directories) and O(keep).
    type: str
    choices: [present, absent]
    default: present
"""

EXAMPLES = r"""
- name: Configure a collector
  llmops.stack.file_tree:
    path: /opt/traceloop
    files:
      collector/config.yaml: "{{ collector_config | to_nice_yaml }}"
    secret_files:
      collector/collector.env: "TRACELOOP_API_KEY={{ traceloop_api_key }}\n"
    directories:
      - path: queue
        owner: "10001"
        group: "10001"
        mode: "0700"
    validate:
      - path: collector/config.yaml
        argv: [docker, run, --rm, --network, none, -v, "%s:/config.yaml:ro",
               "otel/opentelemetry-collector-contrib:0.155.0", validate, --config, /config.yaml]

- name: Remove it with all its data
  llmops.stack.file_tree:
    path: /opt/traceloop
    state: absent
"""

RETURN = r"""
path:
  description: The folder.
  type: str
  returned: success
  sample: /opt/traceloop
changed_files:
  description: Files that were written, or whose owner or mode was set, by their path below the folder.
  type: list
  elements: str
  returned: success
  sample: [collector/config.yaml]
changed_directories:
  description: The same for folders; V(.) is the folder itself.
  type: list
  elements: str
  returned: success
  sample: [., collector]
removed:
  description: Paths below the folder that were removed. Folders end with a slash.
  type: list
  elements: str
  returned: success
  sample: [collector/old.yaml, grafana/]
unwanted:
  description: Those that were left alone because of O(prune).
  type: list
  elements: str
  returned: success
  sample: [grafana/]
validated:
  description: Files that a program of O(validate) found good.
  type: list
  elements: str
  returned: success
  sample: [collector/config.yaml]
stdout:
  description: The end of what the program of O(validate) wrote that failed.
  type: str
  returned: when one failed
  sample: ""
stderr:
  description: The same for its errors.
  type: str
  returned: when one failed
  sample: "Error: 'exporters' unknown type: otlphtp"
"""

import os
import shutil
import tempfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmops.stack.plugins.module_utils import _file_tree as trees

_SHOWN = 4000


class Invalid(Exception):
    """A program of O(validate) refuses a file."""

    def __init__(self, text: str, out: str, err: str) -> None:
        super().__init__(text)
        self.out = out
        self.err = err


class FileTree:
    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.options: dict[str, Any] = module.params
        self.tree = trees.Tree(module.params["path"])
        self.result: dict[str, Any] = {
            "path": self.tree.path,
            "changed": False,
            "changed_files": [],
            "changed_directories": [],
            "removed": [],
            "unwanted": [],
            "validated": [],
            "diff": [],
        }

    def run(self) -> dict[str, Any]:
        if self.options["state"] == "absent":
            self._absent()
        else:
            self._present()
        return self.result

    def _absent(self) -> None:
        if not self.tree.exists():
            return
        names = sorted(os.listdir(self.tree.path))
        folders = {name for name in names if _is_folder(self.tree.at(name))}
        self.result["removed"] = [f"{name}/" if name in folders else name for name in names]
        self.result["changed"] = True
        self._show(self.tree.path, "present\n", "absent\n")
        if not self.module.check_mode:
            self.tree.remove()

    def _present(self) -> None:
        wish = trees.wanted(*(self.options[name] for name in ("files", "secret_files", "directories", "keep")))
        for one in self.options["validate"]:
            if one["path"] not in wish.files:
                raise trees.TreeError(f"validate names {one['path']}, which is not among the files. Correct it.")
        found = self.tree.difference(wish)
        if not self.options["prune"]:
            self.result["unwanted"] = [name for name in found.removed if not wish.wants(name)]
            found.removed = [name for name in found.removed if wish.wants(name)]
        self.result.update(
            changed=bool(found),
            changed_files=found.files,
            changed_directories=[name or "." for name in found.folders],
            removed=found.removed,
        )
        self._show_all(wish, found)
        if not found or self.module.check_mode:
            return
        self._validate(wish, found)
        self.tree.apply(wish, found)

    def _show_all(self, wish: trees.Wanted, found: trees.Difference) -> None:
        for name in found.removed:
            self._show(self.tree.at(name), "present\n", "absent\n")
        for name in found.folders:
            like = wish.folders.get(name, self.tree.own)
            self._show(self.tree.at(name), *_attributes(self.tree.at(name), like))
        for name in found.files:
            path = self.tree.at(name)
            if name not in found.content:
                self._show(path, *_attributes(path, self.tree.like(wish, name)))
            elif name in wish.secret:
                self._show(path, "", "(secret) changed\n")
            else:
                hidden = os.path.lexists(path) and name not in found.before
                before = "(hidden)\n" if hidden else _text(found.before.get(name, b""))
                self._show(path, before, _text(wish.files[name]))

    def _show(self, path: str, before: str, after: str) -> None:
        self.result["diff"].append({"before_header": path, "after_header": path, "before": before, "after": after})

    def _validate(self, wish: trees.Wanted, found: trees.Difference) -> None:
        staged = tempfile.mkdtemp(prefix="llmops-tree-", dir=self.module.tmpdir)
        try:
            os.chmod(staged, 0o755)  # noqa: S103 - a container that mounts it may run as anybody
            for one in self.options["validate"]:
                name = one["path"]
                if name not in found.content:
                    continue
                copy = self._stage(wish, name, staged)
                folder = os.path.dirname(copy)
                argv = [part.replace("%s", copy).replace("%d", folder) for part in one["argv"]]
                self._ask(wish, name, argv)
                if name not in self.result["validated"]:
                    self.result["validated"].append(name)
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def _stage(self, wish: trees.Wanted, name: str, staged: str) -> str:
        folder = os.path.dirname(name)
        os.makedirs(os.path.join(staged, folder), mode=0o755, exist_ok=True)
        for one in (one for one in wish.files if os.path.dirname(one) == folder):
            copy = os.path.join(staged, one)
            with open(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, wish.mode(one)), "wb") as file:
                file.write(wish.files[one])
                os.fchmod(file.fileno(), wish.mode(one))
        return os.path.join(staged, name)

    def _ask(self, wish: trees.Wanted, name: str, argv: list[str]) -> None:
        try:
            code, out, err = trees.run(argv, self.options["deadline"])
        except TimeoutError:
            self._refuse(wish, name, f"{argv[0]} did not finish within {self.options['deadline']:g} s", "", "")
        except OSError as exc:
            self._refuse(wish, name, f"{argv[0]} cannot be started ({exc.strerror})", "", "")
        else:
            if code:
                self._refuse(wish, name, f"{argv[0]} ended with {code}", out, err)

    def _refuse(self, wish: trees.Wanted, name: str, what: str, out: str, err: str) -> None:
        hidden = [wish.files[one] for one in wish.secret]
        out, err = (trees.mask(text.strip(), hidden)[-_SHOWN:] for text in (out, err))
        words = (err or out).splitlines()[-8:]
        said = f" It said: {' / '.join(line.strip() for line in words)}" if words else ""
        raise Invalid(
            f"{name} for {self.tree.path} was not found good, so nothing was replaced: {what}. Correct it.{said}",
            out,
            err,
        )


def _attributes(path: str, like: trees.Attributes) -> tuple[str, str]:
    try:
        seen = os.lstat(path)
    except FileNotFoundError:
        before = "absent\n"
    else:
        before = f"owner {seen.st_uid}, group {seen.st_gid}, mode {seen.st_mode & 0o7777:04o}\n"
    return before, f"owner {like.owner}, group {like.group}, mode {like.mode:04o}\n"


def _is_folder(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def _text(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return f"(no text, {len(content)} bytes)\n"


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "files": {"type": "dict", "default": {}},
            "secret_files": {"type": "dict", "default": {}, "no_log": True},
            "directories": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "path": {"type": "str", "required": True},
                    "owner": {"type": "str"},
                    "group": {"type": "str"},
                    "mode": {"type": "raw"},
                },
            },
            "prune": {"type": "bool", "default": True},
            "keep": {"type": "list", "elements": "str", "default": [], "no_log": False},
            "validate": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "path": {"type": "str", "required": True},
                    "argv": {"type": "list", "elements": "str", "required": True},
                },
            },
            "deadline": {"type": "float", "default": 120.0},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        # All the files would be a line of the host's log, and come back with every result.
        no_log=True,
        supports_check_mode=True,
    )
    named = {name: sorted(module.params[name]) for name in ("files", "secret_files")}
    invocation = {"module_args": {**module.params, **named}}
    try:
        result = FileTree(module).run()
    except Invalid as exc:
        module.fail_json(msg=str(exc), stdout=exc.out, stderr=exc.err, invocation=invocation)
    except (trees.TreeError, OSError) as exc:
        module.fail_json(msg=str(exc), invocation=invocation)
    module.exit_json(**result, invocation=invocation)


if __name__ == "__main__":
    main()
