# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""The secrets that dify_env keeps on the host: read by the modules that need one, and which one is the owner's."""

from __future__ import annotations

import json

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmops.stack.plugins.module_utils._dify_env import PUBLISHED
from ansible_collections.llmops.stack.plugins.module_utils._dify_owner import ADMIN_PASSWORD, UNTRIED
from ansible_collections.llmops.stack.plugins.module_utils._download import write_atomically

__all__ = ["keep_admin_password", "secrets_of"]


def secrets_of(module: AnsibleModule, path: str | None) -> dict[str, str]:
    """The secrets that dify_env keeps. They never leave the host; a file that does not exist counts as no secret."""
    if not path:
        return {}
    try:
        with open(path, encoding="utf-8") as file:
            found = {str(name): str(value) for name, value in json.load(file).items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as exc:
        module.fail_json(msg=f"secrets_file {path} cannot be used as the file of dify_env's secrets: {exc}")
    module.no_log_values.update(set(found.values()) - {""} - PUBLISHED)
    return found


def keep_admin_password(module: AnsibleModule, path: str | None, password: str) -> bool:
    """Have this one in the file, as one that is not new to Dify, and say whether it was otherwise.

    A file that does not exist is not made: dify_env takes one that is gone for a loss.
    """
    kept = secrets_of(module, path)
    wanted = {name: value for name, value in {**kept, ADMIN_PASSWORD: password}.items() if name != UNTRIED}
    if not path or not kept or wanted == kept:
        return False
    if not module.check_mode:
        try:
            write_atomically(path, json.dumps(wanted, indent=1, sort_keys=True) + "\n", 0o600)
        except OSError as exc:
            module.fail_json(msg=f"secrets_file {path} cannot be written, so the owner's password is not kept: {exc}")
    return True
