# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.filter.dify import dify_release_info
from ansible_collections.llmops.stack.plugins.module_utils._dify_preflight import refusals

FACTS: dict[str, Any] = {
    "cpu": {"count": 4},
    "memory": {"total_mb": 8000},
    "disks": {
        "/opt/dify": {"mount": "/", "total_mb": 90000, "free_mb": 50000},
        "/var/lib/docker": {"mount": "/", "total_mb": 90000, "free_mb": 50000},
        "/": {"mount": "/", "total_mb": 90000, "free_mb": 50000},
    },
    "ports": {},
    "dify": {"current": "", "releases": {}, "containers": []},
}
WANTED = {
    "version": "1.12.1",
    "known": True,
    "allow_unknown": False,
    "nearest": "1.12.1",
    "ports": [80, 443, 5002],
    "paths": ["/opt/dify", "/var/lib/docker"],
    "min_cpus": 2,
    "min_memory_mb": 3700,
    "min_disk_mb": 20000,
}


def facts(**changes: object) -> dict:
    return {**copy.deepcopy(FACTS), **changes}


def wanted(**changes: object) -> dict:
    return {**WANTED, **changes}


def test_a_good_host_is_not_refused() -> None:
    assert refusals(facts(), wanted()) == []


def test_half_a_restore_is_not_started_on() -> None:
    here = {**FACTS["dify"], "restore": "/root/backup"}
    (sentence,) = refusals(facts(dify=here), wanted())
    assert "/root/backup" in sentence and "restore.yml" in sentence
    assert refusals(facts(dify=here), wanted(restoring=True)) == []


def test_an_unknown_tag_needs_a_word_from_the_operator() -> None:
    (sentence,) = refusals(facts(), wanted(version="9.9.9", known=False))
    assert "9.9.9" in sentence and "dify_allow_unknown_version" in sentence
    assert refusals(facts(), wanted(version="9.9.9", known=False, allow_unknown=True)) == []


@pytest.mark.parametrize("version", ["v1.16.0", "latest", "main", "1.16"])
def test_what_is_no_tag_is_said_and_nothing_else(version: str) -> None:
    found = dify_release_info(version)
    assert found["tag"] == version and not found["known"]
    (sentence,) = refusals({}, {"version": version, **found})
    assert f"'{version}' is not a release tag of Dify" in sentence and "no leading v" in sentence
    assert "Set dify_version to" in sentence and found["nearest"] in sentence


def test_an_unknown_release_is_not_also_told_the_stops_on_the_way_to_it() -> None:
    here = {"dify": {"current": "1.14.1", "containers": [{"name": "a"}]}}
    assert len(refusals(facts(**here), wanted(version="1.99.0", known=False))) == 1


def test_the_role_alone_says_what_has_to_run_before_it() -> None:
    asked = wanted(compose_min="2.24.0")
    (sentence,) = refusals(facts(engine={"running": False, "error": "connection refused"}), asked)
    assert "connection refused" in sentence and "llmops.stack.docker" in sentence
    running = {"running": True}
    (sentence,) = refusals(facts(engine=running, compose={"version": "2.9.0"}), asked)
    assert "is 2.9.0" in sentence and "needs 2.24.0" in sentence
    assert refusals(facts(engine=running, compose={"version": "2.24.0"}), asked) == []
    assert "is not installed" in refusals(facts(engine=running, compose={"version": ""}), asked)[0]


def test_a_port_in_dify_env_is_sent_to_its_variable() -> None:
    (sentence,) = refusals(facts(), wanted(env_keys=["EXPOSE_NGINX_PORT", "LOG_LEVEL"]))
    assert "EXPOSE_NGINX_PORT" in sentence and "dify_http_port" in sentence


def test_every_shortage_is_named_in_one_round() -> None:
    small = facts(
        cpu={"count": 1},
        memory={"total_mb": 1000},
        disks={"/opt/dify": {"mount": "/opt", "total_mb": 9000, "free_mb": 100}},
    )
    text = " ".join(refusals(small, wanted()))
    assert "1 CPU" in text and "1000 MB of memory" in text and "/opt/dify (on /opt) has 100 MB" in text


def test_one_full_filesystem_is_named_once() -> None:
    full = {path: {"mount": "/", "total_mb": 9000, "free_mb": 100} for path in ("/opt/dify", "/var/lib/docker")}
    assert len(refusals(facts(disks=full), wanted())) == 1


def test_a_small_root_does_not_matter_where_the_data_is_elsewhere() -> None:
    disks = {
        "/": {"mount": "/", "total_mb": 4000, "free_mb": 900},
        "/opt/dify": {"mount": "/data", "total_mb": 90000, "free_mb": 50000},
    }
    assert refusals(facts(disks=disks), wanted()) == []


def test_a_running_host_is_not_asked_for_the_room_of_a_first_install() -> None:
    low = {"/opt/dify": {"mount": "/", "total_mb": 9000, "free_mb": 100}}
    running = {"current": "1.12.1", "releases": {}, "containers": [{"name": "dify-api-1"}]}
    assert refusals(facts(disks=low, dify=running), wanted()) == []


def test_a_taken_port_names_its_owner_and_our_own_does_not_count() -> None:
    by_process = {"80": {"pid": 17, "process": "apache2", "container": ""}}
    (sentence,) = refusals(facts(ports=by_process), wanted())
    assert "Port 80 is taken by apache2 (pid 17)" in sentence and "dify_http_port" in sentence
    by_stranger = {"80": {"pid": 18, "process": "docker-proxy", "container": "shop-nginx-1"}}
    (sentence,) = refusals(facts(ports=by_stranger), wanted())
    assert "container shop-nginx-1" in sentence and "dify_adopt" in sentence
    ours = {"80": {"pid": 19, "process": "docker-proxy", "container": "dify-nginx-1"}}
    running = {"current": "1.12.1", "containers": [{"name": "dify-nginx-1"}]}
    assert refusals(facts(ports=ours, dify=running), wanted()) == []
    # another project whose name begins like ours is a stranger
    assert "container dify-nginx-1" in refusals(facts(ports=ours), wanted())[0]


def test_a_release_goes_forward_and_never_back() -> None:
    running = {"current": "1.11.4", "releases": {}, "containers": [{"name": "dify-api-1"}]}
    assert refusals(facts(dify=running), wanted()) == []
    assert refusals(facts(dify=running), wanted(version="1.11.4")) == []
    (sentence,) = refusals(facts(dify=running), wanted(version="1.10.0"))
    assert "older 1.10.0" in sentence and "rollback.yml" in sentence
    stopped = {"current": "1.11.4", "containers": [], "data": True}
    assert refusals(facts(dify=stopped), wanted(version="1.10.0"))
    # an install that never got as far as containers may still change its mind
    assert refusals(facts(dify={"current": "1.11.4", "containers": []}), wanted(version="1.10.0")) == []
    # what a died upgrade had made the current release is not what an upgrade starts from
    died = {**running, "current": "1.12.1", "upgrade": {"from": "1.11.4", "to": "1.12.1", "phase": "running"}}
    assert refusals(facts(dify=died), wanted(version="1.11.4")) == []
    assert refusals(facts(dify={**died, "upgrade": {}}), wanted(version="1.11.4"))


def test_what_is_adopted_gives_its_ports_and_has_its_images() -> None:
    low = {"/opt/dify": {"mount": "/", "total_mb": 9000, "free_mb": 100}}
    taken = {"80": {"pid": 18, "process": "docker-proxy", "container": "docker-nginx-1"}}
    found = {"containers": ["docker-nginx-1"], "refusals": []}
    assert len(refusals(facts(ports=taken, disks=low), wanted())) == 2
    assert refusals(facts(ports=taken, disks=low), wanted(adopt=found)) == []
    assert refusals(facts(ports=taken), wanted(adopt={**found, "refusals": ["No."]})) == ["No."]


def test_wishes_for_the_console_are_refused_in_the_same_round() -> None:
    (sentence,) = refusals(facts(), wanted(console={"admin_email": "admin", "admin_name": "Admin"}))
    assert "dify_admin_email" in sentence
