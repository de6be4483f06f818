# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ollama for tests: the real one, and a small one that keeps a store as the real one does and fails as it is told.

The tests that run on both hold the small one to what the real one does.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils._ollama_names import parse
from ansible_collections.llmops.stack.plugins.module_utils._ollama_store import Manifest, Store
from ansible_collections.llmops.stack.tests.unit.servers.quiet import QuietHandler, QuietServer

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "world"))

from _settings import CACHE

Event = dict[str, Any]


def binary(version: str) -> pathlib.Path:
    """A release that the world has built. Without it nothing is proved, so that its absence is a failure."""
    path = CACHE / "bin" / f"ollama-{version}"
    if not path.is_file():
        pytest.fail(f"{path} is not there; the world builds it: tests/world/world.py build")
    return path


class Refused(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Fake:
    def __init__(self, folder: pathlib.Path) -> None:
        self.models_dir = folder / "models"
        self.store = Store(str(self.models_dir))
        self.requests: list[tuple[str, dict[str, Any]]] = []
        # Instead of an answer: path -> what to do with the body of the request.
        self.script: dict[str, Callable[[dict[str, Any]], Event]] = {}
        # Instead of a pull: its lines; None is silence until the client goes.
        self.pulls: list[list[Event | None]] = []
        # Instead of every pull.
        self.instead: Callable[[Event], Iterator[Event]] = self.pulled
        self.loaded: dict[str, Manifest] = {}
        self.over = threading.Event()
        owner = self

        class Handler(QuietHandler):
            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                body = json.loads(data) if data else {}
                owner.requests.append((self.path, body))
                if self.path == "/api/pull":
                    owner.pull(self, body)
                    return
                try:
                    answer = owner.script[self.path](body) if self.path in owner.script else owner.answer(self, body)
                    self.reply(200, answer)
                except Refused as exc:
                    self.reply(exc.status, {"error": str(exc)})

            do_GET = do_DELETE = do_POST

            def reply(self, status: int, answer: Event) -> None:
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self.server = QuietServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def asked(self, path: str) -> list[dict[str, Any]]:
        return [body for one, body in self.requests if one == path]

    def answer(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> Event:
        names = {"/api/version": self.version, "/api/tags": self.tags, "/api/ps": self.ps}
        if handler.path in names:
            return names[handler.path]()
        return getattr(self, handler.path.rpartition("/")[2])(body)

    def version(self) -> Event:
        return {"version": "0.17.4"}

    def manifests(self) -> dict[str, Manifest]:
        found = {}
        for path in self.models_dir.glob("manifests/*/*/*/*"):
            if not path.exists():
                raise Refused(500, f"stat {path}: no such file or directory")
            try:
                found[self.store.name_of(str(path))] = Manifest(path.read_bytes())
            except ValueError:
                continue
        return found

    def tags(self) -> Event:
        return {"models": [self.described(name, one) for name, one in self.manifests().items()]}

    def ps(self) -> Event:
        return {"models": [{**self.described(name, one), "context_length": 4096} for name, one in self.loaded.items()]}

    def described(self, name: str, manifest: Manifest) -> Event:
        return {"name": name, "model": name, "digest": manifest.sha, "size": manifest.size}

    def existing(self, body: dict[str, Any]) -> tuple[str, Manifest]:
        wanted = parse(body["model"]).key
        for name, manifest in self.manifests().items():
            if parse(name).key == wanted:
                return name, manifest
        raise Refused(404, f"model '{body['model']}' not found")

    def show(self, body: dict[str, Any]) -> Event:
        return {"capabilities": ["embedding" if self.embeds(body) else "completion"]}

    def embeds(self, body: dict[str, Any]) -> bool:
        _name, manifest = self.existing(body)
        return b"pooling_type" in pathlib.Path(self.store.blob_path(manifest.layers[0].sha)).read_bytes()

    def embed(self, body: dict[str, Any]) -> Event:
        if not self.embeds(body):
            raise Refused(501, "This server does not support embeddings.")
        self.loaded.update([self.existing(body)])
        return {"embeddings": [[0.1, 0.2]], "prompt_eval_count": 3, "total_duration": 10**9, "load_duration": 5 * 10**8}

    def generate(self, body: dict[str, Any]) -> Event:
        name, manifest = self.existing(body)
        if body.get("keep_alive") == 0:
            self.loaded.pop(name, None)
            return {"model": name, "response": "", "done": True, "done_reason": "unload"}
        for blob in manifest.blobs:
            if self.store.fault(blob):
                raise Refused(500, "unable to load model")
        self.loaded[name] = manifest
        return {"done": True, "eval_count": 8, "eval_duration": 2 * 10**9, "load_duration": 5 * 10**8}

    def copy(self, body: dict[str, Any]) -> Event:
        target = pathlib.Path(self.store.find(parse(body["destination"])).path)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.store.find(parse(body["source"])).path, target)
        return {}

    def delete(self, body: dict[str, Any]) -> Event:
        name, manifest = self.existing(body)
        path = pathlib.Path(self.store.find(parse(name)).path)
        path.unlink()
        for folder in list(path.parents)[:3]:
            if not os.listdir(folder):
                folder.rmdir()
        used = {blob.sha for one in self.manifests().values() for blob in one.blobs}
        for blob in manifest.blobs:
            if blob.sha not in used:
                self.store.drop(blob.sha)
        return {}

    def pull(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        handler.close_connection = True
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for event in self.pulls.pop(0) if self.pulls else self.instead(body):
            if event is None:
                self.over.wait(20)
                return
            line = json.dumps(event).encode() + b"\n"
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
            handler.wfile.flush()
        handler.wfile.write(b"0\r\n\r\n")

    def pulled(self, body: dict[str, Any]) -> Iterator[Event]:
        yield {"status": "pulling manifest"}
        name = parse(body["model"])
        at = f"http://{name.host}/v2/{name.namespace}/{name.model}"
        try:
            with urllib.request.urlopen(f"{at}/manifests/{name.tag}", timeout=5) as answer:
                manifest = Manifest(answer.read())
        except urllib.error.HTTPError:
            yield {"error": "pull model manifest: file does not exist"}
            return
        for blob in manifest.blobs:
            status = {"status": f"pulling {blob.shown}", "digest": f"sha256:{blob.sha}", "total": blob.size}
            path = pathlib.Path(self.store.blob_path(blob.sha))
            if not path.exists():
                yield status
                asked = {"Range": f"bytes=0-{blob.size - 1}"}
                request = urllib.request.Request(f"{at}/blobs/sha256:{blob.sha}", headers=asked)
                with urllib.request.urlopen(request, timeout=5) as answer:
                    path.write_bytes(answer.read())
            yield {**status, "completed": path.stat().st_size}
        yield {"status": "verifying sha256 digest"}
        target = pathlib.Path(self.store.find(name).path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(json.loads(manifest.raw), separators=(",", ":")))
        yield {"status": "success"}

    @contextmanager
    def running(self) -> Iterator[Fake]:
        for name in ("blobs", "manifests"):
            (self.models_dir / name).mkdir(parents=True, exist_ok=True)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield self
        finally:
            self.over.set()
            self.server.shutdown()
            self.server.server_close()


class Real:
    """A server of a real release, as root sees it: everything below one folder."""

    def __init__(self, binary: pathlib.Path, folder: pathlib.Path) -> None:
        self.binary = binary
        self.folder = folder
        self.models_dir = folder / "models"
        self.url = ""
        self.process: subprocess.Popen[bytes] | None = None

    @contextmanager
    def running(self) -> Iterator[Real]:
        with socket.create_server(("127.0.0.1", 0)) as free:
            host = f"127.0.0.1:{free.getsockname()[1]}"
        self.url = f"http://{host}"
        environment = {"HOME": str(self.folder), "OLLAMA_HOST": host, "OLLAMA_MODELS": str(self.models_dir)}
        with open(self.folder / "log", "ab") as log:
            server = subprocess.Popen(
                [self.binary, "serve"], stdout=log, stderr=log, env={"PATH": os.environ["PATH"], **environment}
            )
        self.process = server
        try:
            self._wait(server)
            yield self
        finally:
            server.terminate()
            server.wait(30)

    def _wait(self, server: subprocess.Popen[bytes]) -> None:
        end = time.monotonic() + 30
        while time.monotonic() < end and server.poll() is None:
            try:
                urllib.request.urlopen(f"{self.url}/api/version", timeout=1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise AssertionError(f"{self.binary} does not come up: {(self.folder / 'log').read_text()[-2000:]}")
