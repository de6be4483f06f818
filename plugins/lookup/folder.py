# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: folder
short_description: The text of every file of a folder
version_added: 0.1.0
author:
  - llmops.stack contributors (@llmops)
description:
  - Reads all files below a folder of the controller, so that M(llmops.stack.file_tree) can write them in one execution.
  - Leaves out what begins with a dot, C(__pycache__) and C(*.pyc). Files that are encrypted with Ansible Vault are
    decrypted.
  - Refuses what is no text in UTF-8, files larger than 1 MB, and links to folders.
options:
  _terms:
    description:
      - The folders. A relative one is looked for where P(ansible.builtin.file#lookup) looks for files, which is
        C(files) of the role and of the playbook, and beside them.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Write a folder of the role to the host
  llmops.stack.file_tree:
    path: /opt/monitoring
    files: "{{ lookup('llmops.stack.folder', 'monitoring') }}"
"""

RETURN = r"""
_raw:
  description: For each folder the text of its files, by their path below it.
  type: list
  elements: dict
  sample: [{"plugin.json": "{}", "src/main.py": "print(1)"}]
"""

import os
from collections.abc import Iterator
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

_LARGEST = 1 << 20


class LookupModule(LookupBase):
    def run(self, terms: list[Any], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[dict[str, str]]:
        self.set_options(var_options=variables, direct=kwargs)
        return [self._read(str(term), variables) for term in terms]

    def _read(self, term: str, variables: dict[str, Any] | None) -> dict[str, str]:
        found = self.find_file_in_search_path(variables, "files", term, ignore_missing=True)
        if not found or not os.path.isdir(found):
            what = f"{found}, which is none" if found else "none of that name"
            raise AnsibleLookupError(
                f"There must be a folder {term} on the controller, and there is {what}. Correct the path; a relative "
                "one is looked for below files and beside the role and the playbook."
            )
        return {os.path.relpath(path, found): self._text(path) for path in _files(found)}

    def _text(self, path: str) -> str:
        size = os.path.getsize(path)
        if size > _LARGEST:
            raise AnsibleLookupError(f"{path} has {size} bytes, and {_LARGEST} is the most. Move it out of the folder.")
        plain = self._loader.get_real_file(path)
        try:
            with open(plain, "rb") as file:
                text = file.read().decode("utf-8")
        except UnicodeDecodeError:
            text = "\0"
        finally:
            self._loader.cleanup_tmp_file(plain)
        if "\0" in text:
            raise AnsibleLookupError(f"{path} is no text in UTF-8. Move it out of the folder.")
        return text


def _files(folder: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        inside = sorted(entries, key=lambda entry: entry.name)
    for entry in inside:
        if entry.name.startswith(".") or entry.name == "__pycache__" or entry.name.endswith(".pyc"):
            continue
        if not entry.is_dir():
            yield entry.path
        elif entry.is_symlink():
            raise AnsibleLookupError(
                f"{entry.path} is a link to a folder, which is not followed. Copy what it leads to."
            )
        else:
            yield from _files(entry.path)
