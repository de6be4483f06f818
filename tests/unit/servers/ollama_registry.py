# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A model store on disk, and a registry over one, in the form in which Ollama can pull from it."""

from __future__ import annotations

import hashlib
import json
import pathlib
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

from ansible_collections.llmops.stack.tests.unit.servers.quiet import QuietHandler, QuietServer

DEFAULT = "registry.ollama.ai/library"


class Models:
    """Writes a store as Ollama lays it out."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        for name in ("manifests", "blobs"):
            folder.joinpath(name).mkdir(parents=True, exist_ok=True)

    def blob(self, data: bytes) -> str:
        sha = hashlib.sha256(data).hexdigest()
        self.blob_path(sha).write_bytes(data)
        return sha

    def blob_path(self, sha: str) -> pathlib.Path:
        return self.folder / "blobs" / f"sha256-{sha}"

    def manifest_path(self, name: str) -> pathlib.Path:
        model, _colon, tag = name.rpartition(":")
        return self.folder / "manifests" / (model if "/" in model else f"{DEFAULT}/{model}") / tag

    def put(self, name: str, weights: bytes, extra: bytes = b"{{ .Prompt }}", indent: int | None = None) -> str:
        """A model of weights and a template; returns the sha256 of its manifest."""
        layers = [("model", weights), ("template", extra)]
        digests = [self.blob(data) for _kind, data in layers]
        config = {
            "model_format": "gguf",
            "model_family": "llama",
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{one}" for one in digests]},
        }
        described = [
            {"mediaType": f"application/vnd.ollama.image.{kind}", "digest": f"sha256:{sha}", "size": len(data)}
            for (kind, data), sha in zip(layers, digests)
        ]
        text = json.dumps(config).encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": {
                "mediaType": "application/vnd.docker.container.image.v1+json",
                "digest": f"sha256:{self.blob(text)}",
                "size": len(text),
            },
            "layers": described,
        }
        path = self.manifest_path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        separators = (",", ":") if indent is None else None
        path.write_text(json.dumps(manifest, separators=separators, indent=indent))
        return hashlib.sha256(path.read_bytes()).hexdigest()

    def weights_of(self, name: str) -> pathlib.Path:
        """The file with the weights of a model."""
        return self.blob_of(name, "model")

    def blob_of(self, name: str, kind: str) -> pathlib.Path:
        layers = json.loads(self.manifest_path(name).read_text())["layers"]
        return next(
            self.blob_path(one["digest"].partition(":")[2]) for one in layers if one["mediaType"].endswith(f".{kind}")
        )


class Registry:
    """Serves a store under /v2/, with ranges, and misbehaves as told."""

    def __init__(self, models: Models) -> None:
        self.models = models
        self.requests: list[tuple[str, str]] = []
        self.sent = 0  # bytes of blobs
        self.status = 0  # answer everything with this
        self.location = True  # a plain container registry sends none
        self.ranges = True  # without, all of a blob comes, whatever part of it was asked for
        # The bytes of a blob, or of a range of it, become these.
        self.spoil: Callable[[bytes], bytes] = lambda data: data
        # After how many bytes the next blob breaks off; none where it is negative.
        self.cut: Callable[[], int] = lambda: -1
        self.stall_at = -1  # behind so many bytes of a blob nothing comes any more
        self.hang = ""  # requests with this method get no answer
        self.released = threading.Event()
        owner = self

        class Handler(QuietHandler):
            def do_GET(self) -> None:
                owner.answer(self)

            do_HEAD = do_GET

        self.server = QuietServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server.server_address[1]}"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.requests.append((handler.command, handler.path))
        if handler.command == self.hang:
            handler.close_connection = True
            self.released.wait(60)
            return
        manifest = re.fullmatch(r"/v2/(.+)/manifests/([^/]+)", handler.path)
        blob = re.fullmatch(r"/v2/.+/blobs/sha256:([0-9a-f]{64})", handler.path)
        path = pathlib.Path("/nowhere")
        if manifest:
            path = self.models.folder / "manifests/registry.ollama.ai" / manifest[1] / manifest[2]
        elif blob:
            path = self.models.blob_path(blob[1])
        if self.status or not path.is_file():
            handler.send_response(self.status or 404)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        self._send(handler, path.read_bytes(), bool(blob))

    def _send(self, handler: BaseHTTPRequestHandler, data: bytes, is_blob: bool) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", handler.headers.get("Range", ""))
        part = asked and self.ranges
        body = data[int(asked[1]) : int(asked[2]) + 1] if asked and part else data
        handler.send_response(206 if part else 200)
        handler.send_header("Content-Length", str(len(body)))
        if is_blob and self.location:
            handler.send_header("Location", handler.path)
        if asked and part:
            handler.send_header("Content-Range", f"bytes {asked[1]}-{asked[2]}/{len(data)}")
        handler.end_headers()
        if handler.command == "HEAD" or (is_blob and not asked):
            # Only the address is wanted of this one, and the body would be counted.
            handler.close_connection = True
            return
        if is_blob:
            handler.close_connection = True
            body = self.spoil(body)
            start = int(asked[1]) if asked else 0
            stalls = 0 <= self.stall_at < start + len(body)
            end = max(0, self.stall_at - start) if stalls else self.cut()
            if 0 <= end < len(body):
                handler.wfile.write(body[:end])
                handler.wfile.flush()
                if stalls:
                    self.released.wait(60)
                return
            self.sent += len(body)
        handler.wfile.write(body)

    def asked(self, word: str) -> list[str]:
        return [path for _method, path in self.requests if word in path]

    @contextmanager
    def running(self) -> Iterator[Registry]:
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield self
        finally:
            self.released.set()
            self.server.shutdown()
            self.server.server_close()
