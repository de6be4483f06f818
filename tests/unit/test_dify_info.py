# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a look at an installation says of room and images; its databases are looked at in tests/world/replay."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils import _dify_info as info
from ansible_collections.llmops.stack.plugins.module_utils import _dify_info_host as host
from ansible_collections.llmops.stack.plugins.module_utils._dify_info import DifyInfo

API, WEB = "registry.example.com:5000/langgenius/dify-api:1.16.0", "langgenius/dify-web:1.16.0"


class Engine:
    def __init__(self, code: int, err: str) -> None:
        self.answer = (code, "", err)
        self.asked: list[list[str]] = []

    def run(self, arguments: list[str], timeout: float) -> tuple[int, str, str]:
        self.asked.append(arguments)
        return self.answer


class Installation:
    def __init__(self, home: pathlib.Path, docker: Engine) -> None:
        self.home, self.docker, self.name = str(home), docker, "dify"


def looked(tmp_path: pathlib.Path, images: list[str], code: int = 0, err: str = "") -> dict[str, Any]:
    look = DifyInfo(Installation(tmp_path, Engine(code, err)), images=images)
    look._images()
    return look._result


@pytest.mark.parametrize(
    ("code", "err", "missing"),
    [
        (0, "", []),
        (1, f"Error: No such image: {API}\n", [API]),
        (1, f"Error response from daemon: No such image: {API}\nError: No such image: {WEB}", [WEB, API]),
        (1, "permission denied", [WEB, API]),  # not known is not there
    ],
)
def test_images_that_the_engine_lacks(tmp_path: pathlib.Path, code: int, err: str, missing: list[str]) -> None:
    assert looked(tmp_path, [API, WEB, API], code, err)["images_missing"] == missing


def test_nobody_asked_for_images(tmp_path: pathlib.Path) -> None:
    assert "images_missing" not in looked(tmp_path, [])


def test_room_of_a_folder_that_is_not_there_yet(tmp_path: pathlib.Path) -> None:
    free, device = host.room(str(tmp_path / "not" / "yet"))
    assert free > 0 and device == os.stat(tmp_path).st_dev


def test_a_redis_behind_sentinels_is_told_apart_from_what_was_not_found_out(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "releases/1.12.1").mkdir(parents=True)
    (tmp_path / "current").symlink_to("releases/1.12.1")
    here = Installation(tmp_path, Engine(0, ""))
    monkeypatch.setattr(here, "settings", lambda _tag="": {"REDIS_USE_SENTINEL": "true"}, raising=False)
    look = DifyInfo(here)
    for part in ("_databases", "_vector", "_free"):
        monkeypatch.setattr(look, part, lambda *_: None)
    monkeypatch.setattr(info, "Database", lambda _project: None)
    found = look.collect()
    assert "REDIS_USE_SENTINEL" in found["redis_error"] and found["errors"] == []
