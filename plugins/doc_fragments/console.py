# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """What all modules that speak to Dify's console take; a module words an option anew where it means more to it."""

    DOCUMENTATION = r"""
requirements:
  - requests (Python library)
options:
  url:
    description:
      - Address of Dify's web server, as the managed host reaches it, without a path.
    type: str
    default: http://127.0.0.1
  version:
    description:
      - Release of Dify. Needed only where a proxy takes the header C(X-Version) away.
    type: str
  email:
    description:
      - Email address of the account. It must be the owner or an administrator of its workspace.
    type: str
    required: true
  password:
    description:
      - Its password, by default C(ADMIN_PASSWORD) of O(secrets_file).
      - A refused one is never tried again, because Dify locks an account for 24 hours at the seventh.
    type: str
  secrets_file:
    description:
      - File on the managed host in which M(llmops.stack.dify_env) keeps the secrets. None of them leaves the host.
      - A file that does not exist holds none.
    type: path
  session_file:
    description:
      - File on the managed host in which the modules of a run leave their session for each other, in check mode, too,
        so that there is one login. A folder that is missing is made, for its owner only.
      - It is readable by its owner only, belongs to this address, account and password, holds no password, and is good
        for an hour.
    type: path
  timeout:
    description:
      - Seconds that a single answer of Dify may take.
    type: float
    default: 30
  validate_certs:
    description:
      - Whether to check the certificate of an https O(url).
    type: bool
    default: true
  ca_path:
    description:
      - File with the certificates to check it against. By default those of the Python library C(requests).
    type: path
"""
