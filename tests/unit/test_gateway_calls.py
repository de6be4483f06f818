# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls that are counted in the kernel's tables, and what HAProxy's statistics and files say."""

from __future__ import annotations

import pathlib
import socket
from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils import _gateway_calls as calls
from ansible_collections.llmops.stack.plugins.module_utils._gateway_config import backend_of, render
from ansible_collections.llmops.stack.plugins.module_utils._gateway_socket import Server, parse_stat
from ansible_collections.llmops.stack.plugins.module_utils._gateway_state import placed
from ansible_collections.llmops.stack.plugins.module_utils._ollama_names import parse

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def row(remote: str, state: str, inode: int) -> str:
    return f"   0: 0100007F:1F90 {remote} {state} 00000000:00000000 00:00000000 00000000     0        0 {inode} 1\n"


@pytest.fixture
def proc(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "net").mkdir()
    (tmp_path / "net/tcp").write_text(
        HEAD
        + row("0B0200C0:2CAA", "01", 1)  # 192.0.2.11:11434
        + row("0B0200C0:2CAA", "01", 2)
        + row("0B0200C0:2CAA", "06", 3)  # over
        + row("0B0200C0:2CAA", "01", 4)  # of another program
        + row("0C0200C0:2CAA", "01", 5)
    )
    (tmp_path / "net/tcp6").write_text(
        HEAD
        + row("0000000000000000FFFF00000B0200C0:2CAA", "01", 6)
        + row("B80D0120000000000000000007000000:2CAA", "01", 7)  # 2001:db8::7
    )
    for pid, name, inodes in ((10, "haproxy", (1, 3, 5)), (11, "haproxy", (2, 6, 7)), (12, "curl", (4,))):
        (tmp_path / f"{pid}/fd").mkdir(parents=True)
        (tmp_path / f"{pid}/comm").write_text(f"{name}\n")
        for inode in inodes:
            (tmp_path / f"{pid}/fd/{inode}").symlink_to(f"socket:[{inode}]")
        (tmp_path / f"{pid}/fd/100").symlink_to("/dev/null")
    return tmp_path


def test_the_calls_of_every_process_are_counted(proc: pathlib.Path) -> None:
    assert calls.count({("192.0.2.11", 11434)}, str(proc)) == 3
    assert calls.count({("192.0.2.12", 11434)}, str(proc)) == 1
    assert calls.count({("2001:db8::7", 11434)}, str(proc)) == 1
    assert calls.count({("192.0.2.11", 11435)}, str(proc)) == 0
    assert calls.endpoints("192.0.2.11", 11434) == {("192.0.2.11", 11434)}


def test_names_lead_to_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    def look(name: str, *_args: Any, **_more: Any) -> list[Any]:
        if name == "nobody":
            raise OSError
        return [(socket.AF_INET6, 0, 0, "", ("2001:db8::7", 0)), (socket.AF_INET, 0, 0, "", ("192.0.2.7", 0))]

    monkeypatch.setattr(calls.socket, "getaddrinfo", look)
    assert calls.resolved(["gpu1", "nobody"]) == {"gpu1": ["192.0.2.7", "2001:db8::7"], "nobody": []}
    assert calls.resolved([]) == {}


def test_the_address_in_use_stays_where_a_name_has_several() -> None:
    node = nodes(address="gpu1")["one"]
    first = placed({"one": node}, {}, {"gpu1": ["192.0.2.7", "192.0.2.8"]})
    assert first["one"]["ip"] == "192.0.2.7"
    same: list[dict[str, list[str]]] = [{"gpu1": ["192.0.2.8", "192.0.2.7"]}, {"gpu1": []}, {}]
    for found in same:
        assert placed({"one": node}, first, found) == first
    assert placed({"one": node}, first, {"gpu1": ["192.0.2.8"]})["one"]["ip"] == "192.0.2.8"
    assert "ip" not in placed({"one": {**first["one"], "address": "192.0.2.9"}}, first, {})["one"]
    assert "server one 192.0.2.7:11434 " in render(SETTINGS, first, "/home").files["haproxy.cfg"]


def test_none_is_none_twice_in_a_row() -> None:
    seen = {"one": iter([2, 0, 1, 0, 0]), "two": iter([0, 0])}
    ends: dict[str, Any] = {name: {(name, 1)} for name in seen}

    def look(wanted: set[tuple[str, int]]) -> int:
        ((name, _port),) = wanted
        return next(seen[name])

    assert calls.wait_until_none(ends, 10, look, pause=0) == {}
    assert next(seen["one"], "all was asked") == "all was asked"
    assert next(seen["two"], "all was asked") == "all was asked"
    assert calls.wait_until_none(ends, 0, lambda wanted: 3 if ("one", 1) in wanted else 0, pause=0) == {"one": 3}


@pytest.mark.parametrize(
    ("looks", "lasting"),
    [([2, 1], {"one": 1}), ([1, 2], {"one": 1}), ([2, 2], {"one": 2}), ([0, 1], {}), ([1, 0], {})],
)
def test_a_check_of_health_is_no_call_that_lasts(looks: list[int], lasting: dict[str, int]) -> None:
    """Its connection is there at one look, and not at the next one."""
    seen = iter(looks)
    assert calls.wait_until_none({"one": {("one", 1)}}, 0, lambda wanted: next(seen), pause=0) == lasting


STAT = """# pxname,svname,qcur,qmax,scur,status,weight,check_desc,last_chk
ollama,FRONTEND,,,3,OPEN,,,
speak:latest,one,1,2,4,UP,4,Layer7 check passed,HTTP content check matched
speak:latest,two,0,0,0,DOWN,4,Layer4 connection problem,Connection refused
speak:latest,three,0,0,2,DRAIN,0,,
speak:latest,four,0,0,0,MAINT (resolution),1,,
speak:latest,BACKEND,5,9,6,UP,8,,
"""


def test_statistics() -> None:
    found = parse_stat(STAT)
    assert found["speak:latest", "one"] == Server(True, 4, 4, 1, "")
    assert found["speak:latest", "two"] == Server(False, 4, 0, 0, "Layer4 connection problem Connection refused")
    assert found["speak:latest", "three"] == Server(True, 0, 2, 0, "")
    assert found["speak:latest", "four"].up is False
    assert found["speak:latest", ""].queued == 5
    assert ("ollama", "FRONTEND") not in found


SETTINGS = {
    "bind": "::", "port": 11434, "key": "", "max_queue": 100, "queue_timeout": 300, "stream_timeout": 14400,
    "check_interval": 2, "stats_port": 11436, "metrics_bind": "192.0.2.1", "metrics_port": 11437, "digests": {},
    "socket": "/run/admin.sock", "user": "haproxy", "buffer": 1048576,
}  # fmt: skip


def nodes(**changes: Any) -> dict[str, dict[str, Any]]:
    one = {"address": "2001:db8::1", "port": 11434, "parallel": 4, "models": {"speak:latest": "a"}, "state": "ready"}
    return {"one": {**one, **changes}, "two": {**one, "address": "192.0.2.2", "models": {"hf.co/you/repo:q4": "b"}}}


def test_what_takes_a_reload() -> None:
    stamp = render(SETTINGS, nodes(), "/home").stamp
    assert render(SETTINGS, nodes(), "/elsewhere").stamp == stamp
    assert render(SETTINGS, nodes(state="drained"), "/home").stamp == stamp
    for change in ({"parallel": 5}, {"address": "192.0.2.9"}, {"models": {"other:latest": "a"}}):
        assert render(SETTINGS, nodes(**change), "/home").stamp != stamp, change
    assert render({**SETTINGS, "key": "s3cret"}, nodes(), "/home").stamp != stamp


def test_the_configuration() -> None:
    text = render(SETTINGS, nodes(parallel=400, state="drained"), "/home").files["haproxy.cfg"]
    assert "\tbind [::]:11434\n" in text
    assert "\tbind 192.0.2.1:11437\n" in text
    assert "\tserver one [2001:db8::1]:11434 check maxconn 400 weight 0\n" in text
    assert "backend hf.co::you::repo:q4\n" in text
    for hours in ("timeout client 14400s", "timeout server 14400s", "hard-stop-after 14400s"):
        assert hours in text
    assert "weight 256" in render(SETTINGS, nodes(parallel=400), "/home").files["haproxy.cfg"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("Speak", "speak:latest"), ("registry.ollama.ai/library/a:B", "a:b"), ("hf.co/You/Repo:Q4", "hf.co/you/repo:q4")],
)
def test_names(name: str, expected: str) -> None:
    assert parse(name).key == expected
    assert "/" not in backend_of(parse(name).key)
