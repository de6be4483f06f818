# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`flask create-tenant`: one more account with a workspace of its own."""

from __future__ import annotations

import argparse
import secrets
from collections.abc import Sequence

from standin.api import basics, db


def create(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="flask create-tenant")
    parser.add_argument("--email", required=True)
    parser.add_argument("--name", default="")
    parser.add_argument("--language", default="en-US")
    given = parser.parse_args(arguments)
    password = secrets.token_urlsafe(12) + "1a"
    name = given.name or given.email.split("@")[0]
    with db.transaction() as cursor:
        basics.add_account(
            cursor, {"email": given.email, "name": name, "password": password, "language": given.language}
        )
    print(f"Account and tenant created.\nAccount: {given.email}\nPassword: {password}")
    return 0
