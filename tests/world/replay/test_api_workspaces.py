# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What makes an upgrade worth testing: a second workspace from the command line, and files that lie in the storage."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from typing import Any

import pytest
from instance_api import Instance, interpreter

OWNER = {"email": "admin@example.com", "name": "Admin", "password": "Passw0rd!x"}
CONTENT = b"\x00kept\r\n as it is\xff"


@pytest.fixture(params=["0.15.3", "1.16.0"])
def instance(request: pytest.FixtureRequest, postgres: Any, redis_server: Any) -> Iterator[Instance]:
    if not interpreter():
        pytest.skip("no Python with psycopg2, redis and yaml (Debian: python3-psycopg2 python3-redis python3-yaml)")
    made = Instance(request.param, postgres, redis_server, 60)
    assert made.flask("upgrade-db").returncode == 0
    made.start()
    assert made.send("POST", "/console/api/setup", body=OWNER).status == 201
    yield made
    made.close()


def sign_in(instance: Instance, email: str, password: str) -> int:
    sent = password if instance.release == "0.15.3" else base64.b64encode(password.encode()).decode()
    body = {"email": email, "password": sent, "remember_me": True}
    return instance.send("POST", "/console/api/login", body=body).status


def test_a_second_workspace_has_an_account_and_keys_of_its_own(instance: Instance) -> None:
    done = instance.flask("create-tenant", "--email", "second@example.com", "--name", "Second", "--language", "en-US")
    found = re.search(r"^Account: (\S+)\nPassword: (\S+)$", done.stdout, re.MULTILINE)
    assert done.returncode == 0 and found, done.stdout + done.stderr
    assert sign_in(instance, found[1], found[2]) == 200
    assert sign_in(instance, found[1], found[2] + "x") >= 400
    keys = list((instance.home / "storage" / "privkeys").glob("*/private.pem"))
    assert len(keys) == 2


def test_an_uploaded_file_lies_in_the_storage_under_its_key(instance: Instance) -> None:
    assert sign_in(instance, OWNER["email"], OWNER["password"]) == 200
    parts = [
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="notes.txt"\r\n\r\n' + CONTENT,
        b"\r\n--b--\r\n",
    ]
    headers = {"Content-Type": "multipart/form-data; boundary=b", **instance.session()}
    made = instance.send("POST", "/console/api/files/upload", body=b"".join(parts), headers=headers)
    assert made.status == 201, made.body
    assert made.json["size"] == len(CONTENT)
    (row,) = instance.postgres.query("SELECT key, name FROM upload_files", database=instance.database)
    assert (instance.home / "storage" / row[0]).read_bytes() == CONTENT
    assert row[1] == "notes.txt"
