# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""The secrets that dify_env keeps on the host, for the modules that need one of them."""

from __future__ import annotations

import json

from ansible.module_utils.basic import AnsibleModule

__all__ = ["secrets_of"]


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
    module.no_log_values.update(value for value in found.values() if value)
    return found
