"""Nothing in the repository that must not be there: secrets, other people's files, names of one machine."""

from __future__ import annotations

import hashlib
import pathlib
import re
import subprocess
import sys
import urllib.parse

import pytest
import yaml

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "world"))

from _settings import RELEASES

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Hosts the collection is about; where they are a package source of this machine too, naming them is right.
OWN_SUBJECT = {
    "download.docker.com",
    "github.com",
    "mirrors.aliyun.com",
    "mirrors.tuna.tsinghua.edu.cn",
    "nvidia.github.io",
}


def committed() -> list[pathlib.Path]:
    """Tracked files, and new ones that git does not ignore."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
    paths = [ROOT / name for name in listed.split("\0") if name]
    return [path for path in paths if path.is_file() and not path.is_symlink()]


def lines_with(pattern: str) -> list[str]:
    found = []
    for path in committed():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if re.search(pattern, line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}")
    return found


def test_no_private_key_and_no_token() -> None:
    begin = "-----BEGIN "  # split, so that this file does not find itself
    assert lines_with(begin + r"(\w+ )?PRIVATE KEY( BLOCK)?-----") == []
    assert lines_with(r"\b(ghp_[A-Za-z0-9]{36}|github_pat_\w{40,}|AKIA[0-9A-Z]{16}|xox[bp]-[0-9]+-\w+)\b") == []


def test_no_path_of_the_machine_it_was_written_on() -> None:
    assert lines_with(re.escape(str(ROOT)) + r"\b|" + re.escape(str(ROOT.parent)) + "/" + r"(shared|main)\b") == []


def registry_hosts() -> list[str]:
    """Where this machine's package clients really go, when that is not the client's own default."""
    texts = []
    for pattern in ("/etc/apt/sources.list", "/etc/apt/sources.list.d/*", "/etc/pip.conf", "/etc/npmrc"):
        for path in pathlib.Path("/").glob(pattern.lstrip("/")):
            texts.append(path.read_text(errors="replace"))
    for command in (["pip", "config", "list"], ["go", "env", "GOPROXY"]):
        try:
            texts.append(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)
        except (OSError, subprocess.CalledProcessError):
            continue
    urls = re.findall(r"https?://[^\s'\",|]+", "\n".join(texts))
    return sorted({urllib.parse.urlsplit(url).hostname or "" for url in urls} - {""} - OWN_SUBJECT)


def test_no_package_registry_is_named() -> None:
    for host in registry_hosts():
        assert lines_with(rf"(?<![\w.-]){re.escape(host)}(?![\w-])") == []


@pytest.mark.skipif(not RELEASES.is_dir(), reason="no release data: run tools/fetch-releases")
def test_no_upstream_file_is_copied() -> None:
    upstream = {
        hashlib.sha256(path.read_bytes()).hexdigest(): path
        for path in RELEASES.rglob("*")
        if path.is_file() and path.stat().st_size
    }
    ours = {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in committed()}
    assert [str(ours[digest]) for digest in ours.keys() & upstream.keys()] == []


def test_nothing_is_left_for_later() -> None:
    words = "|".join(("TO" + "DO", "FIX" + "ME", "X" * 3))
    assert lines_with(rf"(#|//)\s*({words})\b") == []


def test_a_silenced_check_has_its_reason() -> None:
    """`noqa`, `type: ignore` and skips carry a word why, on the line or on the line above."""
    silent = r"(#\s*noqa\b[^-#]*$)|(#\s*type: ignore(\[[^]]*\])?\s*$)|pytest\.mark\.(skip|xfail)\b(?!if)\s*$"
    assert lines_with(silent) == []


def test_links_in_the_documentation_lead_somewhere() -> None:
    broken = []
    for page in [path for path in committed() if path.suffix == ".md"]:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            path = target.split("#")[0]
            if path and "://" not in target and not target.startswith("mailto:") and not (page.parent / path).exists():
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert broken == []


def test_the_build_holds_only_what_a_user_needs() -> None:
    """galaxy.yml leaves out every top-level entry that is for developers."""
    ignored = yaml.safe_load((ROOT / "galaxy.yml").read_text())["build_ignore"]
    shipped = {path.relative_to(ROOT).parts[0] for path in committed()} - set(ignored)
    allowed = {
        "CHANGELOG.md",
        "CHANGELOG.rst",
        "LICENSE",
        "README.md",
        "README.zh-CN.md",
        "changelogs",
        "docs",
        "examples",
        "galaxy.yml",
        "meta",
        "playbooks",
        "plugins",
        "requirements.yml",
        "roles",
        "site.yml",
    }
    assert shipped - allowed == set()
