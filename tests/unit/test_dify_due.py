# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What compose's dry run says, and what the kernel knows of connections."""

from __future__ import annotations

import pytest
from ansible_collections.llmops.stack.plugins.module_utils import _dify_connections as connections
from ansible_collections.llmops.stack.plugins.module_utils._dify_due import would_make
from ansible_collections.llmops.stack.plugins.module_utils._docker_cli import Docker

# Compose 2.40.3, where a setting of some services changed and one has no container yet.
PRINTED = """\
 DRY-RUN MODE -  Container dify-db_postgres-1  Running
 DRY-RUN MODE -  Container dify-api-1  Recreate
 DRY-RUN MODE -  Container dify-local_sandbox-1  Creating
 DRY-RUN MODE -  Container oceanbase  Recreate
 DRY-RUN MODE -  Container dify-local_sandbox-1  Created
 DRY-RUN MODE -  Container dify-api-1  Recreated
 DRY-RUN MODE -  Container 36e6eb7dab5f_dify-api-1  Starting
 DRY-RUN MODE -  Container 36e6eb7dab5f_dify-api-1  Started
 DRY-RUN MODE -  Container dify-init_permissions-1  Starting
"""
# api:5001 (0x1389) answers two from elsewhere and its own health check; one has gone, one is a call of its own.
TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:1389 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1001        0 1 1 0 100 0 0 10 0
   1: 0A0014AC:1389 020014AC:D431 01 00000000:00000000 00:00000000 00000000  1001        0 2 1 0 20 4 30 10 -1
   2: 0100007F:1389 0100007F:A431 01 00000000:00000000 00:00000000 00000000  1001        0 3 1 0 20 4 30 10 -1
   3: 0A0014AC:1389 020014AC:D433 06 00000000:00000000 00:00000000 00000000     0        0 4 1 0 20 4 30 10 -1
   4: 0A0014AC:C001 030014AC:1389 01 00000000:00000000 00:00000000 00000000  1001        0 5 1 0 20 4 30 10 -1
"""
TCP6 = """\
  sl  local_address                         remote_address                        st tx_queue rx_queue
   0: 0000000000000000FFFF00000A0014AC:1389 0000000000000000FFFF0000020014AC:D435 01 00000000:00000000
   1: 0000000000000000FFFF00000100007F:1389 0000000000000000FFFF00000100007F:D436 01 00000000:00000000
"""


def test_services_that_would_be_made() -> None:
    known = {"dify-api-1": "api", "oceanbase": "oceanbase"}
    assert would_make(PRINTED, "dify", known) == ["api", "local_sandbox", "oceanbase"]
    assert would_make("", "dify", known) == []


@pytest.mark.parametrize(("table", "count"), [(TCP, 1), (TCP6, 1), ("", 0)])
def test_calls_from_elsewhere(table: str, count: int) -> None:
    assert connections.established(table, 5001) == count
    assert connections.established(table, 3000) == 0


def test_a_container_drains(monkeypatch: pytest.MonkeyPatch) -> None:
    open_calls = iter([2, 1, 0, 0])
    monkeypatch.setattr(connections, "connections", lambda *_one: next(open_calls))
    settled = iter([False, True])
    assert connections.drain(Docker(), "api", 5001, 5, also=lambda: next(settled), step=0.01)
    assert next(open_calls, None) is None


def test_a_call_that_does_not_end_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "connections", lambda *_one: 1)
    assert not connections.drain(Docker(), "api", 5001, 0.05, step=0.01)
