# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real release data, a real compose, archives and a server for them, and modules run as Ansible runs them."""

from __future__ import annotations

import functools
import http.server
import importlib
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import threading
import unittest.mock
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import hypothesis
import pytest
import yaml
from ansible.module_utils import _internal
from ansible.module_utils.common import warnings
from ansible.module_utils.testing import patch_module_args
from ansible_collections.llmops.stack.plugins.module_utils import _dify_override as override
from ansible_collections.llmops.stack.plugins.module_utils._dify_env import Release, Rendered, render
from ansible_collections.llmops.stack.plugins.module_utils._dify_release import load_compose
from ansible_collections.llmops.stack.plugins.module_utils._dify_versions import parse_version

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "world"))

from _settings import RELEASES

ROOT = pathlib.Path(__file__).resolve().parents[2]
# The same examples everywhere, and nothing written into the checkout but to its build folder.
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(ROOT / "build" / "hypothesis"))
hypothesis.settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
hypothesis.settings.load_profile("repeatable")

TAGS = sorted((path.parent.parent.name for path in RELEASES.glob("*/docker/docker-compose.yaml")), key=parse_version)
NO_DATA = f"no release data in {RELEASES}: run tools/fetch-releases, or set DIFY_RELEASES_DIR"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "dify_tag" in metafunc.fixturenames:
        nothing = pytest.param("", marks=pytest.mark.skip(NO_DATA))
        metafunc.parametrize("dify_tag", TAGS or [nothing])


@functools.cache
def load_release(tag: str) -> Release:
    folder = RELEASES / tag / "docker"
    text = (folder / "docker-compose.yaml").read_text()
    examples = {str(path.relative_to(folder)): path.read_text() for path in folder.glob("envs/**/*.env.example")}
    return Release(text, load_compose(text, str(folder)), (folder / ".env.example").read_text(), examples)


@pytest.fixture(scope="session")
def load() -> Callable[[str], Release]:
    return load_release


@pytest.fixture
def release(dify_tag: str) -> Release:
    return load_release(dify_tag)


@pytest.fixture(scope="session")
def releases() -> dict[str, Release]:
    if not TAGS:
        pytest.skip(NO_DATA)
    return {tag: load_release(tag) for tag in TAGS}


def _compose_command() -> list[str]:
    cache = pathlib.Path(os.environ.get("LLMOPS_CACHE", "~/.cache/llmops.stack")).expanduser()
    binaries = [os.environ.get("LLMOPS_COMPOSE", ""), *map(str, sorted(cache.glob("bin/docker-compose-2*")))]
    for command in [*([one] for one in binaries if one), ["docker", "compose"], ["docker-compose"]]:
        if shutil.which(command[0]):
            done = subprocess.run([*command, "version", "--short"], capture_output=True, text=True, check=False)
            if done.returncode == 0 and not done.stdout.strip().lstrip("v").startswith("1."):
                return command
    return []


class Compose:
    """`docker compose config` of a folder, in an environment that has nothing to say."""

    def __init__(self, command: list[str]) -> None:
        self.command = command

    def config(self, folder: pathlib.Path) -> dict[str, Any]:
        done = subprocess.run(
            [*self.command, "--project-directory", str(folder), "-p", "dify", "config", "--format", "json"],
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": os.environ["PATH"], "HOME": str(folder)},
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="session")
def compose() -> Compose:
    command = _compose_command()
    if not command:
        pytest.skip("no docker compose 2: set LLMOPS_COMPOSE to one")
    return Compose(command)


def fragment(folder: pathlib.Path) -> dict[str, Any]:
    """What another role adds: to services that not every release has, and a service of its own."""
    caller = {
        "environment": ["PYTHONPATH=/opt/seen"],
        "env_file": str(folder / "seen.env"),
        "volumes": [f"{folder}/seen:/opt/seen:ro"],
        "labels": {"seen.digest": "1"},
    }
    collector = {
        "image": "otel/opentelemetry-collector-contrib:0.155.0",
        "env_file": [str(folder / "seen.env")],
        "ports": ["4318:4318", {"target": 13133, "published": "13133"}],
        "volumes": ["otel_queue:/queue"],
    }
    services = {**dict.fromkeys(("api", "worker", "worker_beat"), caller), "otel_collector": collector}
    return {"services": services, "volumes": {"otel_queue": {}}}


class Composed(NamedTuple):
    """A release with everything this collection adds to it, as compose sees it."""

    rendered: Rendered
    services: dict[str, Any]


@functools.cache
def _composed(tag: str, compose: Compose, folder: pathlib.Path) -> Composed:
    loaded = load_release(tag)
    rendered = render(loaded, {"UPLOAD_FILE_SIZE_LIMIT": "77"}, {}, {}, "http://dify.example.com")
    wishes = {
        "env": rendered.env,
        "profiles": rendered.profiles,
        "files": {"nginx/nginx.conf.template": "1"},
        "log_max_size": "50m",
        "registry": "registry.example.com:5000/hub",
        "compose_fragments": [fragment(folder)],
    }
    folder.joinpath("seen.env").write_text("TRACELOOP_BASE_URL=http://otel_collector:4318\nLOG_LEVEL=SEEN\n")
    folder.joinpath(".env").write_text(rendered.text)
    folder.joinpath("docker-compose.yaml").write_text(loaded.compose_text)
    laid_over = override.render_override(loaded.compose, wishes)
    folder.joinpath("docker-compose.override.yaml").write_text(yaml.safe_dump(laid_over, sort_keys=False))
    return Composed(rendered, compose.config(folder)["services"])


@pytest.fixture(scope="session")
def composed(compose: Compose, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Composed]:
    """One run of compose for each release: it takes most of the time of these tests."""
    folders = {tag: tmp_path_factory.mktemp("composed") for tag in TAGS}
    return lambda tag: _composed(tag, compose, folders[tag])


@pytest.fixture
def pack(tmp_path: pathlib.Path) -> Callable[..., pathlib.Path]:
    """Packs a release archive as GitHub does, with a small script where the release mounts one of its own."""

    def make(
        tag: str, leave_out: tuple[str, ...] = (), top: str = "", extra: dict[str, str] | None = None
    ) -> pathlib.Path:
        folder = RELEASES / tag / "docker"
        files = {
            f"docker/{path.relative_to(folder)}": path.read_bytes() for path in folder.rglob("*") if path.is_file()
        }
        loaded = load_release(tag)
        have = [name[len("docker/") :] for name in files]
        for names in override.missing_files(loaded.compose, loaded.compose["services"], have).values():
            files.update({f"docker/{name}": b"#!/bin/sh\nexec sleep infinity\n" for name in names})
        files.update({"AUTHORS": b"Dify\n", **{name: text.encode() for name, text in (extra or {}).items()}})
        target = tmp_path / f"{tag}.tar.gz"
        with tarfile.open(target, "w:gz") as archive:
            for name, content in sorted(files.items()):
                if name in leave_out:
                    continue
                member = tarfile.TarInfo(name if name.startswith(("/", "..")) else f"{top or f'dify-{tag}'}/{name}")
                member.size = len(content)
                member.mode = 0o755 if name.endswith(".sh") else 0o644
                archive.addfile(member, io.BytesIO(content))
        return target

    if not TAGS:
        pytest.skip(NO_DATA)
    return make


class FileServer:
    """Serves one file, with ranges, and misbehaves as told."""

    def __init__(self) -> None:
        self.content = b""
        self.etag = '"one"'
        self.status = 0  # answer this and nothing else
        self.failures = 0  # so many requests get a 503 first
        self.cut_after: list[int] = []  # the next answers break off after so many bytes
        self.ranges = True
        self.stall = False  # after the first bytes nothing comes any more
        self.requests: list[dict[str, str]] = []
        self.released = threading.Event()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/1.12.1.tar.gz"

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        self.requests.append(dict(handler.headers))
        handler.close_connection = True
        if self.failures or self.status:
            self.failures = max(0, self.failures - 1)
            handler.send_response(self.status or 503)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        start = 0
        asked = handler.headers.get("Range", "")
        if self.ranges and asked and handler.headers.get("If-Range") == self.etag:
            start = int(asked[len("bytes=") : -1])
        body = self.content[start:]
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(len(body)))
        handler.send_header("ETag", self.etag)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        handler.end_headers()
        if self.stall:
            handler.wfile.write(body[:20000])
            handler.wfile.flush()
            self.released.wait(10)
            return
        handler.wfile.write(body[: self.cut_after.pop(0)] if self.cut_after else body)

    def close(self) -> None:
        self.released.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def file_server() -> Iterator[FileServer]:
    server = FileServer()
    yield server
    server.close()


class ModuleFailed(Exception):
    """fail_json, with its message and the whole of its result."""

    def __init__(self, result: dict[str, Any]) -> None:
        super().__init__(result["msg"])
        self.result = result


@pytest.fixture
def run_module(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """Runs a module's main() with these options; returns what Ansible would get, after its masking."""

    def run(name: str, /, check: bool = False, **options: Any) -> dict[str, Any]:
        main = importlib.import_module(f"ansible_collections.llmops.stack.plugins.modules.{name}").main
        capsys.readouterr()
        arguments = {**options, "_ansible_check_mode": check, "_ansible_diff": True}
        # Ansible says a warning once in a process, and a module is a process of its own.
        said_before: Any = unittest.mock.patch.object(warnings, "_global_warnings", {})
        # A test that imports templating makes this process a controller, which shows warnings and returns none.
        a_module: Any = unittest.mock.patch.object(_internal, "is_controller", False)
        with patch_module_args(arguments), said_before, a_module, pytest.raises(SystemExit):
            main()
        result = json.loads(capsys.readouterr().out)
        if result.get("failed"):
            raise ModuleFailed(result)
        return result

    return run


@pytest.fixture
def failed() -> type[Exception]:
    return ModuleFailed
