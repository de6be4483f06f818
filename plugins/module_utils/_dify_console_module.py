# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""What all modules that speak to Dify's console have in common: options, checks of them, and the client."""

from __future__ import annotations

import re
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.llmops.stack.plugins.module_utils._dify_console import Console, ConsoleError
from ansible_collections.llmops.stack.plugins.module_utils._dify_owner import ADMIN_PASSWORD
from ansible_collections.llmops.stack.plugins.module_utils._dify_secrets import secrets_of
from ansible_collections.llmops.stack.plugins.module_utils._dify_versions import parse_version
from ansible_collections.llmops.stack.plugins.module_utils._http import HAS_REQUESTS, REQUESTS_IMPORT_ERROR

__all__ = ["console_arguments", "console_of", "fail", "password_of"]


def console_arguments() -> dict[str, Any]:
    return {
        "url": {"type": "str", "default": "http://127.0.0.1"},
        "version": {"type": "str"},
        "email": {"type": "str", "required": True},
        "password": {"type": "str", "no_log": True},
        "secrets_file": {"type": "path", "no_log": False},
        "session_file": {"type": "path"},
        "timeout": {"type": "float", "default": 30.0},
        "validate_certs": {"type": "bool", "default": True},
        "ca_path": {"type": "path"},
    }


def password_of(module: AnsibleModule) -> str:
    """The one that was given, else the one that dify_env made for the owner."""
    params = module.params
    password = params["password"] or secrets_of(module, params["secrets_file"]).get(ADMIN_PASSWORD, "")
    # In check mode dify_env has not made it yet, and a Dify without an owner asks for none.
    if not password and not (module.check_mode and params["secrets_file"]):
        found = f"{params['secrets_file']} holds no {ADMIN_PASSWORD}" if params["secrets_file"] else "no secrets_file"
        module.fail_json(
            msg=f"There is no password for {params['email']}: password is not given, and {found}. Give password, or "
            "secrets_file with the file in which dify_env keeps the secrets."
        )
    return str(password)


def console_of(module: AnsibleModule) -> Console:
    """The client for a module with these arguments. In check mode, too, it leaves its session to the next module."""
    params = module.params
    if not HAS_REQUESTS:
        module.fail_json(msg=missing_required_lib("requests"), exception=REQUESTS_IMPORT_ERROR)
    if not re.match(r"^https?://[^\s/]+", params["url"]):
        module.fail_json(msg="url must begin with http:// or https:// and name a host")
    if params["timeout"] <= 0:
        module.fail_json(msg="timeout must be greater than 0")
    if params["version"]:
        try:
            parse_version(params["version"])
        except ValueError as exc:
            module.fail_json(msg=f"version: {exc}")
    return Console(
        params["url"],
        version=params["version"] or "",
        email=params["email"],
        password=password_of(module),
        verify=(params["ca_path"] or True) if params["validate_certs"] else False,
        timeout=params["timeout"],
        session_file=params["session_file"] or "",
    )


def fail(module: AnsibleModule, console: Console, error: ConsoleError, **result: Any) -> None:
    """Ends a module with the console's error in words; `reason` is for machines."""
    module.no_log_values.update(console.secrets)
    module.fail_json(msg=console.hide(str(error)), reason=error.kind, **result)
