# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of Ollama releases: what its archives are called and what must be in them."""

from __future__ import annotations

import pytest
from ansible_collections.llmops.stack.plugins.module_utils import _ollama_versions as versions


def test_order() -> None:
    ordered = [
        "0.5.0",
        "0.5.13",
        "0.13.5",
        "0.14.0-rc2",
        "0.14.0-rc10",
        "0.14.0",
        "0.30.0",
        "0.32.9",
        "0.32.15",
        "1.0.0",
    ]
    assert sorted(set(ordered), key=versions.parse_version) == ordered
    assert versions.compare("0.9.0", "0.13.5") < 0 < versions.compare("0.33.0", "0.33.0-rc2")
    assert versions.compare("0.17.4", "0.17.4") == 0


@pytest.mark.parametrize("text", ["v0.17.4", "0.17", "latest", "", "0.17.4/..", "../0.17.4", "0.17.4\n", "0.17.4-rc"])
def test_what_is_no_version(text: str) -> None:
    with pytest.raises(ValueError, match="not a version of Ollama"):
        versions.release_info(text)


@pytest.mark.parametrize(
    ("version", "arch", "overlays", "files"),
    [
        ("0.5.0", "amd64", [], ["ollama-linux-amd64.tgz"]),
        ("0.13.5", "x86_64", ["rocm"], ["ollama-linux-amd64.tgz", "ollama-linux-amd64-rocm.tgz"]),
        ("0.13.5", "aarch64", ["jetpack5"], ["ollama-linux-arm64.tgz", "ollama-linux-arm64-jetpack5.tgz"]),
        ("0.14.0-rc2", "amd64", [], ["ollama-linux-amd64.tar.zst"]),
        ("0.14.0", "arm64", ["jetpack6"], ["ollama-linux-arm64.tar.zst", "ollama-linux-arm64-jetpack6.tar.zst"]),
        (
            "0.32.15",
            "amd64",
            ["rocm", "mlx", "rocm"],
            ["ollama-linux-amd64.tar.zst", "ollama-linux-amd64-mlx.tar.zst", "ollama-linux-amd64-rocm.tar.zst"],
        ),
    ],
)
def test_archives(version: str, arch: str, overlays: list[str], files: list[str]) -> None:
    info = versions.release_info(version, arch, overlays)
    assert info["files"] == files
    assert all(name.endswith(info["suffix"]) for name in files)


def test_what_a_tree_needs() -> None:
    assert versions.release_info("0.24.0")["required"] == ["bin/ollama"]
    for version in ("0.30.0-rc1", "0.30.0", "0.32.15"):
        required = versions.release_info(version)["required"]
        assert required == ["bin/ollama", "lib/ollama/llama-server", "lib/ollama/llama-quantize"]


@pytest.mark.parametrize(
    ("version", "arch", "overlays", "said"),
    [
        ("0.4.7", "amd64", [], "older than 0.5.0"),
        ("0.17.4", "riscv64", [], "no Ollama for the architecture 'riscv64'"),
        ("0.17.4", "amd64", ["cuda"], "no overlay 'cuda'; there are jetpack5, jetpack6, mlx, rocm"),
        ("0.17.4", "arm64", ["rocm"], r"rocm \(AMD GPUs\) is made for amd64, and this host is arm64"),
        ("0.17.4", "x86_64", ["jetpack5"], "is made for arm64, and this host is amd64"),
        ("0.17.4", "amd64", ["mlx"], "0.17.4 has no overlay mlx; it came with 0.23.1"),
    ],
)
def test_refusals(version: str, arch: str, overlays: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        versions.release_info(version, arch, overlays)


@pytest.mark.parametrize(
    ("version", "driver"),
    [("0.17.4", 531), ("0.29.9", 531), ("0.30.0-rc0", 550), ("0.30.0", 550), ("1.0.0", 550), ("", 531), ("main", 531)],
)
def test_the_oldest_driver_of_nvidia(version: str, driver: int) -> None:
    assert versions.oldest_driver(version) == driver
