# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What daemon.json should say, and what a change of it costs a running engine."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils import _docker_daemon as rules
from ansible_collections.llmops.stack.plugins.modules import docker_daemon

BASELINE = {"live-restore": True, "log-opts": {"max-size": "20m", "max-file": "5"}}


def test_merging_keeps_what_others_wrote() -> None:
    found = {"bip": "10.0.0.1/24", "log-opts": {"max-size": "1g", "labels": "a"}, "registry-mirrors": ["https://old"]}
    config = {"log-opts": {"max-file": "9"}, "registry-mirrors": ["https://new"]}
    assert rules.wanted_config(found, config, BASELINE) == {
        "bip": "10.0.0.1/24",
        "live-restore": True,
        "log-opts": {"max-size": "1g", "max-file": "9", "labels": "a"},
        "registry-mirrors": ["https://new"],
    }


def test_merging_twice_is_merging_once_and_inputs_stay() -> None:
    found: dict[str, Any] = {"runtimes": {"kata": {"path": "k"}}}
    config = {"runtimes": {"nvidia": {"path": "n", "args": []}}}
    once = rules.wanted_config(found, config, BASELINE)
    assert rules.wanted_config(once, config, BASELINE) == once
    assert found == {"runtimes": {"kata": {"path": "k"}}}
    once["runtimes"]["nvidia"]["args"].append("x")
    assert config["runtimes"]["nvidia"]["args"] == []


def test_none_takes_a_key_away_at_any_depth() -> None:
    found = {"debug": True, "log-opts": {"max-size": "1g", "labels": "a"}}
    assert rules.deep_merge(
        found, {"debug": None, "log-opts": {"labels": None}, "bip": None, "new": {"a": None, "b": 1}}
    ) == {
        "log-opts": {"max-size": "1g"},
        "new": {"b": 1},
    }


def test_proxies() -> None:
    assert rules.with_proxies({"debug": True}, {"http_proxy": "http://p", "https_proxy": None, "no_proxy": ""}) == {
        "debug": True,
        "proxies": {"http-proxy": "http://p"},
    }
    assert rules.with_proxies({}, {}) == {}


@pytest.mark.parametrize(
    ("before", "after", "action"),
    [
        ({}, {}, ""),
        ({"debug": True}, {"debug": True}, ""),
        ({}, {"registry-mirrors": ["x"], "insecure-registries": ["y"], "live-restore": True}, "reload"),
        ({}, {"runtimes": {"nvidia": {}}}, "reload"),
        ({}, {"log-opts": {"max-size": "1m"}}, "restart"),
        ({"data-root": "/a"}, {"data-root": "/b"}, "restart"),
        ({}, {"registry-mirrors": ["x"], "bip": "10.0.0.1/24"}, "restart"),
        # SIGHUP keeps the old value of a key that is gone from the file
        ({"registry-mirrors": ["x"]}, {}, "restart"),
        ({"registry-mirrors": ["x"]}, {"registry-mirrors": []}, "reload"),
        ({"features": {"buildkit": True}}, {}, "reload"),
    ],
)
def test_the_gentlest_action(before: dict[str, Any], after: dict[str, Any], action: str) -> None:
    assert rules.needed_action(before, after) == action


def test_a_pending_restart_outranks_a_reload() -> None:
    assert rules.stronger("reload", "restart") == rules.stronger("restart", "") == "restart"
    assert rules.stronger("", "reload") == "reload"


def test_containers_are_spared_unless_the_data_moves() -> None:
    assert rules.keep_containers({}, {"live-restore": True, "bip": "x"})
    assert not rules.keep_containers({}, {"live-restore": True, "data-root": "/b"})
    assert not rules.keep_containers({}, {"bip": "x"})


def test_whether_a_reload_was_followed() -> None:
    config = {
        "live-restore": True,
        "registry-mirrors": ["http://m:5000"],
        "insecure-registries": ["m:5000", "10.0.0.0/8"],
    }
    info: dict[str, Any] = {
        "LiveRestoreEnabled": True,
        "RegistryConfig": {"Mirrors": ["http://m:5000/"], "IndexConfigs": {"docker.io": {}, "m:5000": {}}},
    }
    assert rules.follows(info, config)
    assert not rules.follows({}, config)
    assert not rules.follows({**info, "LiveRestoreEnabled": False}, config)
    assert not rules.follows(info, {**config, "registry-mirrors": []})
    assert not rules.follows(info, {**config, "insecure-registries": ["other:5000"]})
    assert not rules.follows(info, {**config, "runtimes": {"nvidia": {}}})


class Exit(Exception):
    pass


@pytest.fixture
def run(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module without an engine: check mode, or up to the point where it would need one."""

    def run(text: str | None, check_mode: bool = True, **params: Any) -> dict[str, Any]:
        path = tmp_path / "daemon.json"
        if text is not None:
            path.write_text(text)
        monkeypatch.setattr(docker_daemon, "SOCKET", str(tmp_path / "none.sock"))
        monkeypatch.setattr(docker_daemon, "PENDING", str(tmp_path / "pending"))

        class Module:
            def __init__(self) -> None:
                self.check_mode = check_mode
                self.params = {
                    "config": {},
                    "baseline": {},
                    "proxies": None,
                    "path": str(path),
                    "log_file": "",
                    "deadline": 1.0,
                    **params,
                }

            def get_bin_path(self, name: str) -> None:
                return None

            from_json = staticmethod(json.loads)

        module: Any = Module()
        return docker_daemon.DockerDaemon(module).run()

    return run


def test_check_mode_on_a_bare_host(run: Any) -> None:
    result = run(None, baseline=BASELINE)
    assert (result["changed"], result["action"], result["changed_keys"]) == (
        True,
        "start",
        ["live-restore", "log-opts"],
    )
    assert result["diff"]["before"] == ""


@pytest.mark.parametrize("text", ['{"a": 1', "[]", "\x00"])
def test_a_broken_file_is_refused_and_kept(run: Any, tmp_path: pathlib.Path, text: str) -> None:
    with pytest.raises(
        docker_daemon.DaemonError, match=r"daemon\.json is not valid JSON \(line 1.*Nothing was changed"
    ):
        run(text, check_mode=False, config={"debug": True})
    assert (tmp_path / "daemon.json").read_text() == text


def test_no_engine_no_change(run: Any, tmp_path: pathlib.Path) -> None:
    with pytest.raises(docker_daemon.DaemonError, match="no dockerd on this host"):
        run("{}", check_mode=False, config={"debug": True})
    assert (tmp_path / "daemon.json").read_text() == "{}"


def test_no_password_in_the_diff(run: Any) -> None:
    result = run(
        '{"proxies": {"https-proxy": "http://me:old5ecret@p"}}',
        proxies={"http_proxy": "http://me:pa55@p:1", "https_proxy": None, "no_proxy": "x"},
    )
    assert result["changed_keys"] == ["proxies"]
    assert "pa55" not in str(result)
    assert "old5ecret" not in str(result)
    assert "***@p:1" in result["diff"]["after"]


# -- who may read the file ----------------------------------------------------

SECRET = {"proxies": {"http-proxy": "http://me:pa55@p:1"}}


@pytest.mark.parametrize(
    ("before", "config", "mode"),
    [
        (None, {"debug": True}, 0o644),
        (None, SECRET, 0o600),
        (None, {"registry-mirrors": ["https://t0ken@m"]}, 0o600),
        ("{}", SECRET, 0o600),
        ("{}", {"debug": True}, 0o640),
        (json.dumps(SECRET), {}, 0o600),
    ],
)
def test_only_root_reads_credentials(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    run_module: Any,
    before: str | None,
    config: dict[str, Any],
    mode: int,
) -> None:
    path = tmp_path / "daemon.json"
    if before is not None:
        path.write_text(before)
        path.chmod(0o640)
    for name in ("SOCKET", "PENDING"):
        monkeypatch.setattr(docker_daemon, name, str(tmp_path / name))
    monkeypatch.setattr(docker_daemon.DockerDaemon, "_validate", lambda self, config: None)
    monkeypatch.setattr(docker_daemon.DockerDaemon, "_answers", lambda self, deadline: True)
    monkeypatch.setattr(docker_daemon.DockerDaemon, "_enabled", lambda self: True)
    monkeypatch.setattr(docker_daemon.DockerDaemon, "_apply", lambda self, *given, **options: None)
    monkeypatch.setattr(docker_daemon.AnsibleModule, "get_bin_path", lambda self, name: "/usr/bin/dockerd")
    assert run_module("docker_daemon", config=config, path=str(path))["changed"]
    assert path.stat().st_mode & 0o777 == mode
    assert not run_module("docker_daemon", config=config, path=str(path))["changed"]
