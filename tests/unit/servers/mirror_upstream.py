# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a mirror fetches from: files with ranges, a registry of models, a marketplace; and trouble with them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import pathlib
import re
import threading
import urllib.parse
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

from ansible_collections.llmops.stack.tests.unit.servers.ollama_registry import Models
from ansible_collections.llmops.stack.tests.unit.servers.quiet import QuietHandler, QuietServer

PLUGIN = "langgenius/ollama"


class Upstream:
    """`www` is served as it is. `cut` and `spoiled` name paths that break off once, or are not what they were."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.www = folder / "www"
        self.models = Models(folder / "models")
        self.packages: dict[str, bytes] = {}  # by identifier, the newest last
        self.asked: list[str] = []
        self.sent = 0
        self.cut: dict[str, int] = {}
        self.spoiled: set[str] = set()
        self.slow: set[str] = set()
        self.released = threading.Event()
        owner = self

        class Handler(QuietHandler):
            def do_GET(self) -> None:
                owner.answer(self)

            do_HEAD = do_POST = do_GET

        self.server = QuietServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    @contextmanager
    def running(self) -> Iterator[Upstream]:
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield self
        finally:
            self.released.set()
            self.server.shutdown()
            self.server.server_close()

    # -- what there is

    def put(self, path: str, content: bytes) -> str:
        """A file; returns its sha256."""
        target = self.www / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        return hashlib.sha256(content).hexdigest()

    def sums(self, folder: str, name: str = "sha256sum.txt") -> None:
        files = [path for path in sorted((self.www / folder).iterdir()) if path.name != name]
        lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  ./{path.name}\n" for path in files]
        self.put(f"{folder}/{name}", "".join(lines).encode())

    def plugin(self, version: str, requirements: str = "", project: str = "") -> str:
        """A package; returns its identifier."""
        author, name = PLUGIN.split("/")
        manifest = f"version: {version}\nauthor: {author}\nname: {name}\ntype: plugin\n"
        files = {"manifest.yaml": manifest, "requirements.txt": requirements, "pyproject.toml": project}
        packed = {path: text.encode() for path, text in files.items() if text}
        whole = hashlib.sha256()
        for path in sorted(packed):
            whole.update(hashlib.sha256(path.encode()).digest() + hashlib.sha256(packed[path]).digest())
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w") as archive:
            for path in sorted(packed):
                archive.writestr(zipfile.ZipInfo(path), packed[path])
        identifier = f"{PLUGIN}:{version}@{whole.hexdigest()}"
        self.packages[identifier] = target.getvalue()
        return identifier

    def wheel(self, name: str, version: str, requires: tuple[str, ...] = (), tag: str = "py3-none-any") -> str:
        """A wheel in the index; returns its file name."""
        info = f"{name}-{version}.dist-info"
        needs = "".join(f"Requires-Dist: {one}\n" for one in requires)
        files = {
            f"{name}.py": "",
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
            f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n",
            f"{info}/RECORD": "",
        }
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w") as archive:
            for path, text in files.items():
                archive.writestr(zipfile.ZipInfo(path), text)
        file = f"{name}-{version}-{tag}.whl"
        self.put(f"pypi/files/{file}", target.getvalue())
        links = [
            f'<a href="../../files/{path.name}#sha256={hashlib.sha256(path.read_bytes()).hexdigest()}">{path.name}</a>'
            for path in sorted((self.www / "pypi/files").glob(f"{name}-*.whl"))
        ]
        page = f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>"
        self.put(f"pypi/simple/{name.replace('_', '-')}/index.html", page.encode())
        return file

    def apt(
        self,
        folder: str,
        packages: dict[str, list[str]],
        suite: str = "trixie",
        by_hash: bool = False,
        depends: dict[str, str] | None = None,
    ) -> None:
        """A repository of these packages, each in these versions."""
        stanzas = []
        for name, versions in packages.items():
            for version in versions:
                file = f"dists/{suite}/pool/{name}_{version.replace(':', '%3a')}_amd64.deb"
                sha = self.put(f"{folder}/{file}", f"{name} {version}".encode() * 50)
                size = (self.www / folder / file).stat().st_size
                fields: dict[str, Any] = {
                    "Package": name,
                    "Version": version,
                    "Filename": file,
                    "Size": size,
                    "SHA256": sha,
                }
                if depends and name in depends:
                    fields["Depends"] = depends[name]
                stanzas.append("".join(f"{key}: {value}\n" for key, value in fields.items()))
        text = "\n".join(stanzas).encode()
        lists = {"Packages": text, "Packages.gz": gzip.compress(text, mtime=0)}
        lines = []
        for file, content in lists.items():
            path = f"stable/binary-amd64/{file}"
            lines.append(f" {self.put(f'{folder}/dists/{suite}/{path}', content)} {len(content)} {path}\n")
        # Listed, as publishers do, and not there.
        lines.append(f" {'0' * 64} 100 stable/binary-amd64/Packages.xz\n")
        head = f"Suite: {suite}\n{'Acquire-By-Hash: yes' if by_hash else 'Components: stable'}\nSHA256:\n"
        self.put(f"{folder}/dists/{suite}/InRelease", (head + "".join(lines)).encode())
        self.put(f"{folder}/gpg", b"a key")

    def dnf(self, folder: str, packages: dict[str, list[str]]) -> None:
        """A repository of these packages, each in these versions."""
        entries = []
        for name, versions in packages.items():
            for version in versions:
                ver, _dash, rel = version.partition("-")
                file = f"Packages/{name}-{version}.x86_64.rpm"
                content = f"{name} {version}".encode() * 50
                entries.append(
                    f'<package type="rpm"><name>{name}</name><arch>x86_64</arch>'
                    f'<version epoch="0" ver="{ver}" rel="{rel}"/>'
                    f'<checksum type="sha256" pkgid="YES">{self.put(f"{folder}/{file}", content)}</checksum>'
                    f'<size package="{len(content)}"/><location href="{file}"/></package>'
                )
        text = f'<metadata xmlns="http://linux.duke.edu/metadata/common">{"".join(entries)}</metadata>'
        lists = {"primary": gzip.compress(text.encode(), mtime=0), "filelists": gzip.compress(b"<filelists/>", mtime=0)}
        sums = {kind: self.put(f"{folder}/repodata/{kind}.xml.gz", content) for kind, content in lists.items()}
        data = [
            f'<data type="{kind}"><checksum type="sha256">{sha}</checksum>'
            f'<location href="repodata/{kind}.xml.gz"/></data>'
            for kind, sha in sums.items()
        ]
        head = f'<repomd xmlns="http://linux.duke.edu/metadata/repo">{"".join(data)}</repomd>'
        self.put(f"{folder}/repodata/repomd.xml", head.encode())

    # -- how it is served

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        path, _mark, query = handler.path.partition("?")
        path = urllib.parse.unquote(path)
        self.asked.append(f"{handler.command} {path}")
        content = self._content(path, query)
        if content is None:
            return self._send(handler, 404, b"")
        if path in self.slow:
            self.released.wait(20)
        if path in self.spoiled:
            content = content[:-1] + bytes([content[-1] ^ 1])
        self._file(handler, path, content)

    def _content(self, path: str, query: str) -> bytes | None:
        if path.startswith("/marketplace/api/v1/"):
            return self._market(path[len("/marketplace/api/v1/") :], urllib.parse.parse_qs(query))
        manifest = re.fullmatch(r"/v2/(.+)/manifests/([^/]+)", path)
        blob = re.fullmatch(r"/v2/.+/blobs/sha256:([0-9a-f]{64})", path)
        file = self.www / path.lstrip("/")
        if manifest:
            file = self.models.folder / "manifests/registry.ollama.ai" / manifest[1] / manifest[2]
        elif blob:
            file = self.models.blob_path(blob[1])
        elif file.is_dir():
            file = file / "index.html"
        return file.read_bytes() if file.is_file() else None

    def _market(self, path: str, query: dict[str, list[str]]) -> bytes | None:
        if path == "plugins/download":
            return self.packages.get(query["unique_identifier"][0])
        newest = list(self.packages)[-1] if self.packages else ""
        if path == "plugins/batch" and newest:
            card = {"plugin_id": PLUGIN, "label": {"en_US": "Ollama"}, "latest_package_identifier": newest}
            return json.dumps({"code": 0, "data": {"plugins": [card]}}).encode()
        if path == f"plugins/{PLUGIN}/versions":
            listed = [{"unique_identifier": one} for one in self.packages]
            return json.dumps({"code": 0, "data": {"versions": listed}}).encode()
        return None

    def _file(self, handler: BaseHTTPRequestHandler, path: str, content: bytes) -> None:
        etag = f'"{hashlib.sha256(content).hexdigest()[:12]}"'
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        start = int(asked[1]) if asked and handler.headers.get("If-Range") == etag else 0
        headers = {"ETag": etag, "Location": handler.path}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        body = content[start:]
        end = self.cut.pop(path, -1) if handler.command == "GET" else -1
        self._send(handler, 206 if start else 200, body, end, headers)

    def _send(
        self, handler: BaseHTTPRequestHandler, status: int, body: bytes, end: int = -1, headers: Any = None
    ) -> None:
        handler.close_connection = True
        handler.send_response(status)
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.send_header(
            "Content-Type", "text/html" if body.startswith(b"<!DOCTYPE") else "application/octet-stream"
        )
        handler.end_headers()
        if handler.command != "HEAD":
            sent = body if end < 0 else body[:end]
            self.sent += len(sent)
            handler.wfile.write(sent)
