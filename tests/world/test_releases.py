# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where release data is taken from, and how it gets there when nobody has put it there."""

from __future__ import annotations

import http.server
import io
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import _releases
import pytest
from _settings import REPO, WorldError, release_data

COMPOSE = b"services: {}\n"
FILES = {
    "api/app.py": b"print()\n",
    "docker/docker-compose.yaml": COMPOSE,
    "docker/.env.example": b"A=1\n",
    "docker/nginx/docker-entrypoint.sh": b"#!/bin/sh\n",
    "web/docker/entrypoint.sh": b"#!/bin/sh\n",
}


def archive(tag: str, files: dict[str, bytes] = FILES) -> bytes:
    """As GitHub packs it: one top folder, a link among the files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as packed:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"dify-{tag}/{name}")
            entry.size = len(content)
            entry.mode = 0o775 if name.endswith(".sh") else 0o664
            packed.addfile(entry, io.BytesIO(content))
        link = tarfile.TarInfo(f"dify-{tag}/docker/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        packed.addfile(link)
    return buffer.getvalue()


class Archives(http.server.ThreadingHTTPServer):
    """Serves archives by tag; `failing` requests come to nothing first."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.content: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.failing: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}/tags"


class Answer(http.server.BaseHTTPRequestHandler):
    server: Archives

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        failure = self.server.failing.pop(0) if self.server.failing else ""
        body = self.server.content.get(self.path[len("/tags/") : -len(".tar.gz")])
        if failure == "503" or body is None:
            self.send_error(503 if failure else 404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if failure == "cut" else body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def archives(monkeypatch: pytest.MonkeyPatch) -> Iterator[Archives]:
    monkeypatch.setattr(_releases.time, "sleep", lambda seconds: None)
    server = Archives()
    server.content = {tag: archive(tag) for tag in ("1.0.0", "1.1.0")}
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_release_data_is_where_it_is_named_else_beside_the_checkout_else_fetched(tmp_path: Path) -> None:
    neighbour, fetched = tmp_path / "neighbour", tmp_path / "fetched"
    assert release_data({}, neighbour, fetched) == fetched
    neighbour.mkdir()
    assert release_data({"DIFY_RELEASES_DIR": ""}, neighbour, fetched) == neighbour
    assert release_data({"DIFY_RELEASES_DIR": "/named"}, neighbour, fetched) == Path("/named")


def test_nothing_is_fetched_where_release_data_is_somebody_elses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_releases, "RELEASES", tmp_path / "theirs")
    monkeypatch.setattr(_releases, "ARCHIVES", "http://127.0.0.1:9")
    assert _releases.ensure(["1.0.0"]) == tmp_path / "theirs"
    assert list(tmp_path.iterdir()) == []


def test_only_docker_is_kept_and_fetched_once(archives: Archives, tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "releases"
    _releases.fetch(["1.0.0", "1.1.0"], folder, archives.url)
    kept = {name: content for name, content in FILES.items() if name.startswith("docker/")}
    assert files(folder) == {f"{tag}/{name}": content for tag in ("1.0.0", "1.1.0") for name, content in kept.items()}
    assert not (folder / "1.0.0" / "docker" / "link").is_symlink()
    assert os.access(folder / "1.0.0" / "docker" / "nginx" / "docker-entrypoint.sh", os.X_OK)
    assert sorted(archives.asked) == ["/tags/1.0.0.tar.gz", "/tags/1.1.0.tar.gz"]

    archives.asked.clear()
    _releases.fetch(["1.0.0", "1.1.0"], folder, archives.url)
    assert archives.asked == []
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.parametrize("failing", [["503", "503"], ["cut"]])
def test_what_passes_by_itself_is_tried_again(archives: Archives, tmp_path: Path, failing: list[str]) -> None:
    archives.failing = list(failing)
    _releases.fetch(["1.0.0"], tmp_path / "releases", archives.url)
    assert len(archives.asked) == len(failing) + 1
    assert (tmp_path / "releases" / "1.0.0" / "docker" / "docker-compose.yaml").read_bytes() == COMPOSE


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (None, r"no such archive \(404\)"),
        (b"<html>", "not a gzip file"),
        (archive("1.9.9")[:-200], "ended before|unexpected end"),
        (archive("1.9.9", {"README.md": b"x"}), "has no docker/docker-compose.yaml"),
        (archive("1.9.9", {"docker/docker-compose.yaml": COMPOSE, "docker/../../x": b""}), "leads out of it"),
    ],
)
def test_an_archive_that_is_none_leaves_nothing(
    archives: Archives, tmp_path: Path, content: bytes | None, found: str
) -> None:
    if content is not None:
        archives.content["1.9.9"] = content
    with pytest.raises(
        WorldError, match=rf"Dify 1\.9\.9: {archives.url}/1\.9\.9\.tar\.gz: .*({found}).*DIFY_RELEASES_DIR"
    ):
        _releases.fetch(["1.0.0", "1.9.9"], tmp_path / "releases", archives.url)
    assert [path.name for path in (tmp_path / "releases").iterdir()] == ["1.0.0"]
    assert [path.name for path in tmp_path.iterdir()] == ["releases"]


def command(cache: Path, url: str, *tags: str) -> subprocess.CompletedProcess[str]:
    environment = {"LLMOPS_CACHE": str(cache), "DIFY_RELEASES_DIR": str(cache / "releases"), "DIFY_ARCHIVES_URL": url}
    return subprocess.run(
        [sys.executable, str(REPO / "tools" / "fetch-releases"), *tags],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_command_takes_archives_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "archives").mkdir()
    for tag in _releases.KNOWN:
        (tmp_path / "archives" / f"{tag}.tar.gz").write_bytes(archive(tag))
    done = command(tmp_path / "cache", (tmp_path / "archives").as_uri())
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'cache' / 'releases'}\n"), done.stderr
    assert {path.name for path in (tmp_path / "cache" / "releases").iterdir()} == set(_releases.KNOWN)


def test_the_command_says_what_to_do_where_nothing_answers(tmp_path: Path) -> None:
    done = command(tmp_path / "cache", "http://127.0.0.1:9/tags", "1.0.0")
    assert (done.returncode, done.stdout) == (1, "")
    assert "http://127.0.0.1:9/tags/1.0.0.tar.gz" in done.stderr
    assert "refused" in done.stderr
    assert "Set DIFY_RELEASES_DIR" in done.stderr
    assert "Traceback" not in done.stderr
