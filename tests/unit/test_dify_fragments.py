# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pieces of compose files, laid over each other. What compose itself makes of them is in test_dify_override."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils import _dify_fragments as fragments

RELEASE: dict[str, Any] = {"api": {}, "nginx": {}}


def combined(*given: dict[str, Any], **env: str) -> dict[str, Any]:
    before = copy.deepcopy(given)
    found = fragments.combine(given, RELEASE, env)
    assert given == before, "what is given stays as it is"
    return found


def test_services_of_no_release_and_of_any() -> None:
    found = combined(
        {"services": {"api": None, "worker_beat": {"environment": {"A": "1"}}, "collector": {"labels": {"a": "1"}}}},
        {"services": {"collector": {"image": "otel"}, "built": {"build": "."}}, "volumes": {"queue": None}},
        {"networks": {"mine": {"external": True}}, "volumes": {"data": {}}},
    )
    assert list(found["services"]) == ["api", "collector", "built"]
    assert found["services"]["collector"] == {"labels": {"a": "1"}, "image": "otel"}
    assert found["volumes"] == {"queue": None, "data": {}} and found["networks"] == {"mine": {"external": True}}
    assert combined() == {"services": {}}


def test_both_forms_of_compose_merge() -> None:
    first = {"environment": ["A=1=2", "B", "C=3"], "labels": ["x=1"], "env_file": "/a.env", "depends_on": ["api"]}
    second = {
        "environment": {"C": "4"},
        "labels": {"y": "2"},
        "env_file": ["/b.env"],
        "depends_on": {"db": {"condition": "service_healthy"}},
        "extra_hosts": {"llm": "10.0.0.9"},
    }
    found = combined({"services": {"api": first}}, {"services": {"api": second}})["services"]["api"]
    assert found["environment"] == {"A": "1=2", "B": None, "C": "4"}
    assert found["labels"] == {"x": "1", "y": "2"}
    assert found["env_file"] == ["/a.env", "/b.env"]
    assert found["depends_on"] == {"api": {"condition": "service_started"}, "db": {"condition": "service_healthy"}}
    assert found["extra_hosts"] == ["llm:10.0.0.9"]
    long = combined({"services": {"api": {"env_file": {"path": "/c.env", "required": False}}}})["services"]["api"]
    assert long["env_file"] == [{"path": "/c.env", "required": False}]


def test_lists_grow_and_commands_do_not() -> None:
    base = {"command": ["a"], "healthcheck": {"test": ["CMD", "a"], "retries": 3}, "dns": ["1.1.1.1"]}
    extra = {"command": ["b"], "healthcheck": {"test": ["CMD", "b"]}, "dns": ["1.1.1.1", "9.9.9.9"]}
    merged = fragments.merge(base, extra)
    assert merged["command"] == ["b"] and merged["dns"] == ["1.1.1.1", "9.9.9.9"]
    assert merged["healthcheck"] == {"test": ["CMD", "b"], "retries": 3}


def test_of_two_mounts_in_one_place_the_later_one_counts() -> None:
    base = [
        "./a:/data:ro",
        "${X:-./b}:/logs/",
        {"type": "bind", "source": "/c", "target": "/keys"},
        "/scratch",
        "v:/stay",
    ]
    extra = ["/own:/data", "/own:/logs", "/own:/keys:ro", "/own:/scratch"]
    assert fragments.merge({"volumes": base}, {"volumes": extra})["volumes"] == ["v:/stay", *extra]


@pytest.mark.parametrize(
    ("port", "expected"),
    [
        ("4318:4318", "127.0.0.1:4318:4318"),
        (4318, "127.0.0.1::4318"),
        ("4318/udp", "127.0.0.1::4318/udp"),
        ("3000-3001:3000-3001", "127.0.0.1:3000-3001:3000-3001"),
        ("${P:-3000}:3000", "127.0.0.1:${P:-3000}:3000"),
        ("${P:-3000}", "127.0.0.1::${P:-3000}"),
        ("${BOUND:-3000}:3000", "${BOUND:-3000}:3000"),
        ("0.0.0.0:3000:3000", "0.0.0.0:3000:3000"),
        ("[::1]:3000:3000", "[::1]:3000:3000"),
        ({"target": 1, "published": "1"}, {"target": 1, "published": "1", "host_ip": "127.0.0.1"}),
        ({"target": 1, "host_ip": "10.0.0.1"}, {"target": 1, "host_ip": "10.0.0.1"}),
    ],
)
def test_a_port_without_an_address_is_this_hosts_own(port: Any, expected: Any) -> None:
    given = {"services": {"new": {"image": "x", "ports": [port]}, "nginx": {"ports": [port]}}}
    found = combined(given, BOUND="10.0.0.1:3000")["services"]
    assert found["new"]["ports"] == [expected]
    assert found["nginx"]["ports"] == [port], "nginx is what the world may reach"
