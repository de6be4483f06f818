# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lookup plugin folder, as a template calls it."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import pytest
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible_collections.llmops.stack.plugins.lookup.folder import LookupModule


def read(*terms: Any, loader: DataLoader | None = None, **variables: Any) -> list[dict[str, str]]:
    return LookupModule(loader=loader or DataLoader()).run(list(terms), variables)


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "files" / "monitoring"
    for name, text in {
        "plugin.json": "{}",
        "src/z.py": "print('{{ 1 + 1 }}')\n",
        "src/a.py": "é\r\n",
        "src/.secret": "x",
        ".git/config": "x",
        "src/__pycache__/a.py": "x",
        "src/a.pyc": "x",
    }.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(text.encode())
    return path


def test_every_file_of_a_folder(folder: pathlib.Path) -> None:
    (found,) = read(str(folder))
    assert list(found.items()) == [
        ("plugin.json", "{}"),
        ("src/a.py", "é\r\n"),
        ("src/z.py", "print('{{ 1 + 1 }}')\n"),
    ]
    assert read() == [] and len(read(str(folder), str(folder / "src"))) == 2


def test_where_it_looks(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    for name in ("monitoring", "files/monitoring"):
        assert "plugin.json" in read(name, ansible_search_path=[str(tmp_path / "other"), str(tmp_path)])[0]


def test_links_to_files_and_vaults(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "shared.py").write_text("shared")
    (folder / "link.py").symlink_to(tmp_path / "shared.py")
    secret = VaultSecret(b"password")
    vault = VaultLib([("default", secret)])
    (folder / "vault.env").write_bytes(vault.encrypt("KEY=1\n", secret=secret))
    loader = DataLoader()
    loader.set_vault_secrets([("default", secret)])
    (found,) = read(str(folder), loader=loader)
    assert (found["link.py"], found["vault.env"]) == ("shared", "KEY=1\n")


def test_what_is_no_folder(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with pytest.raises(AnsibleError, match="must be a folder nowhere on the controller, and there is none"):
        read("nowhere", ansible_search_path=[str(tmp_path)])
    with pytest.raises(AnsibleError, match=r"and there is .*plugin\.json, which is none"):
        read(str(folder / "plugin.json"))


@pytest.mark.parametrize("content", [b"\x7fELF\x00\x01", b"caf\xe9"])
def test_what_is_no_text(folder: pathlib.Path, content: bytes) -> None:
    (folder / "src/program").write_bytes(content)
    with pytest.raises(AnsibleError, match=r"src/program is no text in UTF-8"):
        read(str(folder))


def test_what_is_too_large(folder: pathlib.Path) -> None:
    (folder / "large").write_text("x" * (1 << 20))
    read(str(folder))
    with (folder / "large").open("a") as file:
        file.write("x")
    with pytest.raises(AnsibleError, match="large has 1048577 bytes, and 1048576 is the most"):
        read(str(folder))


def test_links_that_cannot_be_followed(folder: pathlib.Path) -> None:
    os.symlink("..", folder / "src/up")
    with pytest.raises(AnsibleError, match=r"src/up is a link to a folder, which is not followed"):
        read(str(folder))
