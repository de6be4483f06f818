# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of releases, against the releases themselves."""

from __future__ import annotations

import re

import pytest
from ansible_collections.llmops.stack.plugins.module_utils import _dify_versions as versions
from ansible_collections.llmops.stack.plugins.module_utils._dify_env import Release


def test_order_of_tags() -> None:
    ordered = ["0.15.3", "1.0.0", "1.9.2", "1.10.1", "1.10.1-fix.1", "1.11.0", "1.16.0-rc1", "1.16.0", "1.16.1"]
    assert sorted(set(ordered), key=versions.parse_version) == ordered
    assert sorted(versions.HEADS, key=versions.parse_version) == list(versions.HEADS)


@pytest.mark.parametrize("tag", ["v1.12.1", "1.12", "main", "", "1.12.1/..", "../1.12.1", "1.12.1\n", "latest"])
def test_what_is_no_tag(tag: str) -> None:
    with pytest.raises(ValueError, match="not a release tag"):
        versions.parse_version(tag)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("1.12.1", "1.12.1"),
        ("1.12.9", "1.12.1"),
        ("2.0.0", "1.16.0"),
        ("0.14.0", "0.15.3"),
        ("1.16.0-rc2", "1.16.0-rc1"),
    ],
)
def test_nearest(wanted: str, expected: str) -> None:
    assert versions.nearest(wanted) == expected


def test_unknown_tag_is_said_and_nothing_guessed() -> None:
    info = versions.release_info("1.17.3")
    assert not info["known"] and info["head"] == "" and info["plugin_daemon_version"] == ""
    assert "1.17.3" in info["warning"] and "1.16.0" in info["warning"]
    assert info["agent_services"] and info["compose_min"] == "2.24.0"
    assert versions.release_info("1.18.0")["compose_min"] == "2.35.0"
    assert "older" in versions.release_info("0.6.0")["warning"]


class TestAgainstTheReleaseItself:
    def test_features(self, dify_tag: str, release: Release) -> None:
        info = versions.release_info(dify_tag)
        services = release.compose["services"]
        assert info["known"] and info["warning"] == ""
        for name in ("plugin_daemon", "worker_beat", "init_permissions", "api_websocket"):
            assert info[name] == (name in services)
        assert info["db_profile"] == ("db_postgres" in services)
        assert info["agent_services"] == ("agent_backend" in services)
        assert info["env_layout"] == bool(release.examples)
        assert info["api_healthcheck"] == ("healthcheck" in services["api"])
        assert info["sandbox_conf_mounted"] == ("./volumes/sandbox/conf:/conf" in services["sandbox"]["volumes"])
        assert info["weaviate_1_27"] == services["weaviate"]["image"].endswith(":1.27.0")

    def test_plugin_daemon(self, dify_tag: str, release: Release) -> None:
        expected = release.compose["services"].get("plugin_daemon", {}).get("image", "")
        assert versions.release_info(dify_tag)["plugin_daemon_version"] == expected.rpartition(":")[2].replace(
            "-local", ""
        )

    def test_lowest_compose(self, dify_tag: str, release: Release) -> None:
        text = release.compose_text
        expected = "2.24.0" if "- path: ./envs" in text else "2.20.0" if "required: false" in text else "2.18.0"
        assert versions.release_info(dify_tag)["compose_min"] == expected

    def test_head_looks_like_one(self, dify_tag: str) -> None:
        assert re.fullmatch("[0-9a-f]{12}", versions.release_info(dify_tag)["head"])
