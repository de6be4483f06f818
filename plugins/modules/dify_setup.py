#!/usr/bin/python
# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: dify_setup
short_description: Give Dify its owner account
version_added: 0.1.0
description:
  - Does what Dify's install page does, so that nobody who finds that page first becomes the owner.
  - Works with every release from 0.15.3 on. The release that answers is recognised by itself.
  - A Dify that was set up already is left as it is. The module then logs in, once, to see that the owner is the wanted
    one; another owner and another password are errors, never changes.
  - A refused password is not tried again, because Dify locks an account for 24 hours at the seventh wrong one. One that
    M(llmops.stack.dify_env) made and that never opened this Dify is not tried at all.
  - A O(password) that opened Dify becomes C(ADMIN_PASSWORD) in O(secrets_file), where that file is there.
author:
  - llmops.stack contributors (@llmops)
extends_documentation_fragment:
  - llmops.stack.console
attributes:
  check_mode:
    description: Says whether Dify would be set up, and creates nothing. It logs in to a Dify that is set up already.
    support: full
  diff_mode:
    description: Shows the step before and after, never a password.
    support: full
options:
  email:
    description:
      - E-mail address of the owner. Older releases, at least those up to 1.7.2, tell capital letters in it from small
        ones.
  password:
    description:
      - Password of the owner, of 8 characters or more, with letters and digits. By default C(ADMIN_PASSWORD) of
        O(secrets_file).
  name:
    description:
      - Name of the owner, of up to 30 characters. Dify names the workspace after it. Not changed later.
    type: str
    default: Admin
  language:
    description:
      - Language that Dify shows to the owner, for example V(en-US) or V(zh-Hans). Older releases, at least those up to
        1.7.2, ignore it. Not changed later.
    type: str
  init_password:
    description:
      - The value of C(INIT_PASSWORD) of this Dify, which guards its setup. By default taken from O(secrets_file).
    type: str
  secrets_file:
    description:
      - File on the host in which M(llmops.stack.dify_env) keeps the secrets, C(ADMIN_PASSWORD) and C(INIT_PASSWORD)
        among them. None of them leaves the host.
      - A file that does not exist counts as no password.
  deadline:
    description:
      - Seconds to wait for an API that is still starting.
    type: float
    default: 60
  timeout:
    description:
      - Seconds that a single answer may take. The setup itself may take 60 seconds.
seealso:
  - module: llmops.stack.dify_health
"""

EXAMPLES = r"""
- name: Give a fresh Dify its owner
  llmops.stack.dify_setup:
    url: http://dify.example.com
    email: admin@example.com
    password: "{{ dify_admin_password }}"
    secrets_file: /opt/dify/secrets.json
    deadline: 300

- name: See that the owner is the one of the inventory
  llmops.stack.dify_setup:
    email: admin@example.com
    password: "{{ dify_admin_password }}"
  check_mode: true
  register: owner
  failed_when: owner is failed or owner is changed
"""

RETURN = r"""
step:
  description: >-
    V(finished) when Dify has its owner, V(not_started) where check mode left it without one.
  returned: success
  type: str
  sample: finished
version:
  description: Release that answered.
  returned: success
  type: str
  sample: 1.12.1
tenant_id:
  description: Id of the owner's workspace, empty where check mode left Dify without one.
  returned: success
  type: str
  sample: 7f5b2c1e-5ad0-4c0e-9f7b-1f2a3b4c5d6e
email:
  description: E-mail address of the owner.
  returned: success
  type: str
  sample: admin@example.com
reason:
  description: Kind of the failure, for conditions. For example V(wrong_password), V(locked) and V(no_answer).
  returned: failure
  type: str
  sample: wrong_password
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmops.stack.plugins.module_utils._dify_console import FINISHED, Console, ConsoleError
from ansible_collections.llmops.stack.plugins.module_utils._dify_console_module import (
    console_arguments,
    console_of,
    fail,
    password_of,
)
from ansible_collections.llmops.stack.plugins.module_utils._dify_owner import (
    ADMIN_PASSWORD,
    NAME_LENGTH,
    PASSWORD_RULE,
    UNTRIED,
    is_email,
    is_name,
    is_password,
)
from ansible_collections.llmops.stack.plugins.module_utils._dify_secrets import keep_admin_password, secrets_of

_INIT_LENGTH = 30


class DifySetup:
    """Options in, an owner or an error out."""

    def __init__(self, module: AnsibleModule, console: Console) -> None:
        self.module = module
        self.console = console
        self.params: dict[str, Any] = module.params
        self.password = password_of(module)
        self.secrets_file: str = self.params["secrets_file"] or ""
        self.secrets = secrets_of(module, self.secrets_file)
        self.init_password = self.params["init_password"] or self.secrets.get("INIT_PASSWORD", "")

    def run(self) -> dict[str, Any]:
        before = self.console.wait(time.monotonic() + self.params["deadline"])
        after, tenant, kept = before, "", False
        changed = before != FINISHED
        replaced = bool(self.secrets and self.password) and self.secrets.get(ADMIN_PASSWORD) != self.password
        if not changed:
            self._check_password()
        else:
            self._check_owner()
            guarded = self.console.init_needed()
            if guarded:
                self._check_init()
            if not self.module.check_mode:
                self._set_up(guarded)
                after = FINISHED
        if after == FINISHED:
            tenant = self._see_owner(ours=changed)
            kept = keep_admin_password(self.module, self.secrets_file, self.password)
        return {
            "changed": changed or kept,
            "step": after,
            "version": self.console.version,
            "tenant_id": tenant,
            "email": self.params["email"],
            "diff": {
                "before": {"step": before, **({ADMIN_PASSWORD: "(hidden)"} if replaced else {})},
                "after": {
                    "step": FINISHED,
                    **({"owner": self.params["email"]} if changed else {}),
                    **({ADMIN_PASSWORD: "(hidden, the one that opened Dify)"} if replaced else {}),
                },
            },
        }

    def _check_password(self) -> None:
        """Nothing is sent to a Dify with an owner that cannot be right: seven runs would lock the account."""
        if not self.password:
            found = f"password is not given, and {self.secrets_file} holds no {ADMIN_PASSWORD}"
        elif not self.params["password"] and self.password == self.secrets.get(UNTRIED):
            found = f"{ADMIN_PASSWORD} of {self.secrets_file} was made without it and never opened it"
        else:
            return
        raise ConsoleError(
            "no_password", f"{self.params['url']} has an owner already, whose password is not known: {found}"
        )

    def _check_owner(self) -> None:
        if not is_email(self.params["email"]):
            raise ConsoleError("invalid", f"email '{self.params['email']}' is no address that Dify accepts")
        if self.password and not is_password(self.password):
            raise ConsoleError("invalid", f"password must have {PASSWORD_RULE}")
        if not is_name(self.params["name"]):
            raise ConsoleError("invalid", f"name must have 1 to {NAME_LENGTH} characters")

    def _check_init(self) -> None:
        if not self.init_password:
            raise ConsoleError("init_required", "Dify's setup is guarded by INIT_PASSWORD, and none was given")
        if len(self.init_password) > _INIT_LENGTH:
            raise ConsoleError(
                "invalid",
                f"INIT_PASSWORD has {len(self.init_password)} characters, and Dify takes {_INIT_LENGTH} at most",
                advice="Shorten it in the environment of Dify's container api too, and recreate that container.",
            )

    def _set_up(self, guarded: bool) -> None:
        email, name, language = (self.params[option] or "" for option in ("email", "name", "language"))
        try:
            if guarded:
                self.console.init(self.init_password)
            if self.password == self.secrets.get(ADMIN_PASSWORD):
                # Before it is sent: a run that is killed in between must leave a password that the next one tries.
                keep_admin_password(self.module, self.secrets_file, self.password)
            self.console.setup(email, name, self.password, language)
        except ConsoleError as error:
            # An answer that was lost, and somebody else who was faster: both are seen at the next look.
            if error.kind not in ("no_answer", "gateway", "already_setup") or self.console.setup_status() != FINISHED:
                raise

    def _see_owner(self, ours: bool) -> str:
        try:
            self.console.login(fresh=True)
            workspace = self.console.workspace()
        except ConsoleError as error:
            if error.kind in ("wrong_password", "unknown_email") and not ours:
                error.message = (
                    f"{self.params['url']} was set up before, with another owner or password: {error.message}"
                )
                if not self.params["password"]:
                    error.advice = (
                        f"The password was {ADMIN_PASSWORD} of {self.secrets_file}, which is not the one that the "
                        f"owner has. Give the owner's. {error.advice}"
                    )
            raise
        role = workspace.get("role")
        if role != "owner":
            raise ConsoleError(
                "forbidden",
                f"{self.params['email']} is '{role}' in the workspace '{workspace.get('name')}', not its owner",
                advice="Give the account of the owner.",
            )
        return str(workspace.get("id") or "")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **console_arguments(),
            "name": {"type": "str", "default": "Admin"},
            "language": {"type": "str"},
            "init_password": {"type": "str", "no_log": True},
            "deadline": {"type": "float", "default": 60.0},
        },
        supports_check_mode=True,
    )
    console = console_of(module)
    if module.params["deadline"] < 0:
        module.fail_json(msg="deadline must not be negative")
    try:
        result = DifySetup(module, console).run()
    except ConsoleError as error:
        fail(module, console, error)
    else:
        module.exit_json(**result)


if __name__ == "__main__":
    main()
