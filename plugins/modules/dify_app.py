#!/usr/bin/python
# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: dify_app
short_description: Have an app in a workspace of Dify, from its DSL
version_added: 0.1.0
description:
  - Imports an app from a DSL, as Dify exports it, publishes it where its kind needs that, opens it to the API, and
    keeps one key for it.
  - An app is known by its name. One that exists is never imported a second time.
  - With O(record) the module knows which DSL it imported and whether somebody edited the app since. A new DSL is then
    written over the old one; an edited app is reported in RV(drift) and left alone unless O(overwrite) says otherwise.
author:
  - llmops.stack contributors (@llmops)
requirements:
  - PyYAML (Python library), unless O(dsl) is a mapping or JSON
extends_documentation_fragment:
  - llmops.stack.console
attributes:
  check_mode:
    description: Tells what would be done. The DSL is read, and not shown to Dify.
    support: full
  diff_mode:
    description: Returns kind, API, key and the sha256 of what the DSL changes before and after.
    support: full
options:
  email:
    description: The account's email address. It must be the owner, an administrator or an editor of its workspace.
  timeout:
    description: Seconds that a request may take, except an import.
  name:
    description: The name of the app. It replaces the one in the DSL.
    type: str
  dsl:
    description:
      - The DSL, as text or as a mapping. Needed if the app is not there yet, and to change it.
      - In an app that exists, a workflow is changed as a whole. Of another kind only C(model_config) is, what it runs
        with; its icon and description are taken from the DSL when it is made, and are left alone after that.
      - Give the task C(no_log) if it holds secrets, for example environment variables of a workflow.
      - Names of providers must be those of the release, V(ollama) before Dify 1.0 and
        V(langgenius/ollama/ollama) since.
    type: raw
  src:
    description: A file with the DSL on the managed host, instead of O(dsl).
    type: path
  state:
    description: Whether the app is there. V(absent) deletes it with its keys, its conversations and O(key_file).
    type: str
    choices: [present, absent]
    default: present
  enable_api:
    description: Whether the app answers over the API.
    type: bool
    default: true
  key:
    description:
      - Whether the app has a key for the API. One that exists is used and none is added; with O(record) or O(key_file)
        it stays the same one.
    type: bool
    default: true
  key_file:
    description:
      - A file on the managed host that gets the key. Its folder must be there. Its mode is 0600; a file that others
        than its owner may read is written anew.
    type: path
  return_key:
    description: Whether the key is in the result, as RV(api_key). Give the task C(no_log) then.
    type: bool
    default: false
  overwrite:
    description: Whether an app that somebody edited is set back to the DSL. Needs O(record).
    type: bool
    default: false
  apps:
    description:
      - Several apps in one call, with one login. One that fails is named in the error, and the others are done all the
        same.
    type: list
    elements: dict
    suboptions:
      name:
        description: As O(name).
        type: str
        required: true
      dsl:
        description: As O(dsl).
        type: raw
      src:
        description: As O(src).
        type: path
      state:
        description: As O(state).
        type: str
        choices: [present, absent]
        default: present
      enable_api:
        description: As O(enable_api).
        type: bool
        default: true
      key:
        description: As O(key).
        type: bool
        default: true
      key_file:
        description: As O(key_file).
        type: path
      return_key:
        description: As O(return_key).
        type: bool
        default: false
      overwrite:
        description: As O(overwrite).
        type: bool
        default: false
  record:
    description:
      - A file on the managed host, made with mode 0600, in which the module remembers what it imported. It may be the
        one of M(llmops.stack.dify_model).
      - Without it an app that exists is left as it is, whatever its DSL says.
    type: path
"""

EXAMPLES = r"""
- name: Have a chat app, and its key in a file
  llmops.stack.dify_app:
    url: http://dify.example.com
    email: admin@example.com
    password: "{{ dify_admin_password }}"
    name: helpdesk
    dsl: "{{ lookup('ansible.builtin.file', 'helpdesk.yml') }}"
    key_file: /opt/dify/helpdesk.key
    record: /opt/dify/.llmops-console.json

- name: Have a small app to ask a model
  llmops.stack.dify_app:
    email: admin@example.com
    password: "{{ dify_admin_password }}"
    name: probe
    dsl:
      kind: app
      version: 0.3.1
      dependencies: []
      app: {name: probe, mode: chat, icon: "🤖", icon_background: "#FFEAD5"}
      model_config:
        model: {provider: langgenius/ollama/ollama, name: "deepseek-r1:1.5b", mode: chat, completion_params: {}}
    return_key: true
  register: probe
  no_log: true

- name: Have several apps with one login
  llmops.stack.dify_app:
    email: admin@example.com
    secrets_file: /opt/dify/secrets.json
    record: /opt/dify/.llmops-console.json
    apps:
      - name: helpdesk
        src: /srv/apps/helpdesk.yml
        key_file: /opt/dify/helpdesk.key
      - name: translator
        src: /srv/apps/translator.yml
        enable_api: false
        key: false

- name: Delete an app
  llmops.stack.dify_app:
    email: admin@example.com
    password: "{{ dify_admin_password }}"
    name: probe
    state: absent
"""

RETURN = r"""
action:
  description: What was done, or would be in check mode; V(none), V(created), V(updated) or V(deleted).
  type: str
  returned: with O(name), when Dify was asked
name:
  description: The name of the app.
  type: str
  returned: with O(name), when Dify was asked
id:
  description: Its id; empty where there is none.
  type: str
  returned: with O(name), when Dify was asked
mode:
  description: Its kind, for example V(chat) or V(workflow).
  type: str
  returned: with O(name), when Dify was asked
  sample: chat
enable_api:
  description: Whether it answers over the API.
  type: bool
  returned: with O(name), when Dify was asked
key_id:
  description: The id of its key; empty without O(key), and where one would be made in check mode.
  type: str
  returned: with O(name), when Dify was asked
api_key:
  description: The key.
  type: str
  returned: with O(name) and O(return_key), where there is one
missing_plugins:
  description: What the DSL of an app that was just imported asks for and is not installed.
  type: list
  elements: str
  returned: with O(name), when Dify was asked
drift:
  description: One entry if somebody edited the app, or made it, by hand.
  type: list
  elements: dict
  returned: with O(name), when Dify was asked
  contains:
    key:
      description: What differs, V(content).
      type: str
    overwritten:
      description: Whether it was set back, or would be in check mode.
      type: bool
reason:
  description: >-
    Kind of the failure, for conditions. For example V(wrong_password), V(locked) and V(no_answer).
  returned: failure, where Dify let the module do nothing
  type: str
  sample: wrong_password
"""

import dataclasses
import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.llmops.stack.plugins.module_utils._dify_app import (
    YAML_IMPORT_ERROR,
    App,
    AppError,
    Options,
    Wish,
    needs_yaml,
)
from ansible_collections.llmops.stack.plugins.module_utils._dify_console import NOT_STARTED, ConsoleError
from ansible_collections.llmops.stack.plugins.module_utils._dify_console_module import (
    console_arguments,
    console_of,
    fail,
)
from ansible_collections.llmops.stack.plugins.module_utils._dify_model_record import Record

ONE: dict[str, Any] = {
    "dsl": {"type": "raw"},
    "src": {"type": "path"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "enable_api": {"type": "bool", "default": True},
    # The name of a switch: a key comes in by no option.
    "key": {"type": "bool", "default": True, "no_log": False},
    "key_file": {"type": "path", "no_log": False},
    "return_key": {"type": "bool", "default": False, "no_log": False},
    "overwrite": {"type": "bool", "default": False},
}


class DifyApp:
    """Options in, one result for each app."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params: dict[str, Any] = module.params
        self.wanted: list[dict[str, Any]] = self.params["apps"] or (
            [{name: self.params[name] for name in ("name", *ONE)}] if self.params["name"] else []
        )
        self._validate()
        self.console = console_of(module)
        self.record = Record(self.params["record"] or "")

    def _validate(self) -> None:
        names = [one["name"] for one in self.wanted]
        for name in names:
            if names.count(name) > 1:
                self.module.fail_json(msg=f"The app {name} is given twice.")
        if (self.params["overwrite"] or any(one["overwrite"] for one in self.wanted)) and not self.params["record"]:
            self.module.fail_json(
                msg="overwrite needs record: without it nobody knows whether the app is as the DSL says."
            )
        for one in self.wanted:
            self._validate_folder(one)

    def _validate_folder(self, one: dict[str, Any]) -> None:
        """Before anything is done: an app whose key has no place is no use."""
        if not one["key_file"] or not one["key"] or one["state"] == "absent":
            return
        folder = os.path.dirname(os.path.abspath(one["key_file"]))
        if os.path.isdir(folder):
            return
        said = f"The folder {folder} is not there, and key_file of the app {one['name']} is to be in it: make it first."
        if not self.module.check_mode:
            self.module.fail_json(msg=said)
        self.module.warn(said)  # the run that is checked may make it

    def run(self) -> None:
        try:
            # At once: whatever is wrong with the address or the password is said once, and not for each app.
            if not (self.module.check_mode and self.console.setup_status() == NOT_STARTED):
                self.console.login()
        except ConsoleError as exc:
            fail(self.module, self.console, exc)
        results = [self._one(wanted) for wanted in self.wanted]
        before = {one["name"]: one.pop("before") for one in results}
        after = {one["name"]: one.pop("after") for one in results}
        errors = [f"{one['name']}: {one['error']}" for one in results if "error" in one]
        changed = [one.pop("changed") for one in results]
        result: dict[str, Any] = {"apps": results, "changed": any(changed)}
        if self.params["name"]:
            (single,) = results
            single.pop("error", None)
            result = {**single, "changed": any(changed)}
            before, after = before[single["name"]], after[single["name"]]
        if self.module._diff:
            result["diff"] = {"before": before, "after": after}
        if errors:
            some = f"{len(errors)} of {len(results)} apps are not as wanted. " if len(errors) > 1 else ""
            self.module.fail_json(msg=some + " ".join(errors), **result)
        self.module.exit_json(**result)

    def _one(self, wanted: dict[str, Any]) -> dict[str, Any]:
        names = ("name", "state", "enable_api", "key")
        wish = Wish(**{name: wanted[name] for name in names}, key_file=wanted["key_file"] or "")
        overwrite = self.params["overwrite"] or wanted["overwrite"]
        app = App(self.console, self.record, Options(overwrite, self.module.check_mode, self.module.warn), wish)
        try:
            app.wish = dataclasses.replace(wish, dsl=self._dsl(wanted))
            app.run()
        except (AppError, ConsoleError, OSError) as exc:
            app.result["error"] = self.console.hide(str(exc))
        if any(not one["overwritten"] for one in app.result["drift"]):
            self.module.warn(
                f"The app {wish.name} was edited or made in the browser and is left alone; overwrite: true sets it "
                "back to the DSL."
            )
        if wanted["return_key"] and app.token:
            app.result["api_key"] = app.token
        return app.result

    def _dsl(self, wanted: dict[str, Any]) -> Any:
        dsl = wanted["dsl"]
        if wanted["src"]:
            try:
                with open(wanted["src"], encoding="utf-8") as file:
                    dsl = file.read()
            except (OSError, ValueError) as exc:
                raise AppError(f"The DSL cannot be read from src: {exc}") from exc
        if needs_yaml(dsl):
            self.module.fail_json(msg=missing_required_lib("PyYAML"), exception=YAML_IMPORT_ERROR)
        return dsl


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **console_arguments(),
            "name": {"type": "str"},
            **ONE,
            "apps": {
                "type": "list",
                "elements": "dict",
                "options": {"name": {"type": "str", "required": True}, **ONE},
                "mutually_exclusive": [("dsl", "src")],
            },
            "record": {"type": "path"},
        },
        mutually_exclusive=[("dsl", "src"), ("name", "apps")],
        required_one_of=[("name", "apps")],
        supports_check_mode=True,
    )
    DifyApp(module).run()


if __name__ == "__main__":
    main()
