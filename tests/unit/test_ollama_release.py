# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Trees of Ollama: what arrives, what is refused before it is unpacked, what is left behind, and what the links say."""

from __future__ import annotations

import errno
import gzip
import hashlib
import http.server
import io
import json
import os
import pathlib
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import threading
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmops.stack.plugins.module_utils import _download as download_module
from ansible_collections.llmops.stack.plugins.module_utils import _ollama_archive as archive_module
from ansible_collections.llmops.stack.plugins.module_utils import _ollama_layout as layout
from ansible_collections.llmops.stack.plugins.module_utils import _ollama_release as store_module
from ansible_collections.llmops.stack.tests.unit.servers.proxy import running_proxy

Run = Callable[..., dict[str, Any]]
Files = dict[str, Any]

needs_zstd = pytest.mark.skipif(not shutil.which("zstd"), reason="no program zstd")
BASE: Files = {
    "bin/ollama": b"#!/bin/sh\necho ollama\n",
    "lib/ollama/libggml.so.1": b"\x7fELF" + bytes(range(256)) * 64,
    "lib/ollama/libggml.so": "libggml.so.1",
}
SINCE_0_30: Files = {"lib/ollama/llama-server": b"#!/bin/sh\n", "lib/ollama/llama-quantize": b"#!/bin/sh\n"}
ROCM: Files = {"lib/ollama/rocm/libhip.so": b"hip" * 1000}


def member(name: str, content: Any, mode: int = 0o755) -> tuple[tarfile.TarInfo, Any]:
    """A text is the target of a link, bytes are a file, a TarInfo type is that."""
    info = tarfile.TarInfo(name)
    info.mode, info.uid, info.gid = mode, 1234, 1234
    if isinstance(content, str):
        info.type, info.linkname = tarfile.SYMTYPE, content
        return info, None
    info.size = len(content)
    return info, io.BytesIO(content)


class Source:
    """A folder with archives as a release has them."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        folder.mkdir()

    def tar(self, name: str, members: list[tuple[tarfile.TarInfo, Any]]) -> pathlib.Path:
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w") as packed:
            for info, content in members:
                packed.addfile(info, content)
        target = self.folder / name
        if name.endswith(".tgz"):
            target.write_bytes(gzip.compress(raw.getvalue(), 1))
        else:
            command = ["zstd", "-q", "-f", "-o", str(target)]
            subprocess.run(command, input=raw.getvalue(), check=True)
        return target

    def pack(self, name: str, files: Files) -> pathlib.Path:
        target = self.tar(name, [member(path, content) for path, content in files.items()])
        self.publish()
        return target

    def publish(self) -> None:
        archives = sorted(self.folder.glob("ollama-*"))
        lines = [f"{self.digest(path.name)}  ./{path.name}\n" for path in archives]
        self.folder.joinpath("sha256sum.txt").write_text("".join(lines))

    def digest(self, name: str) -> str:
        return hashlib.sha256((self.folder / name).read_bytes()).hexdigest()


class Server:
    """Serves a folder, with ranges, and misbehaves as told."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.status: dict[str, int] = {}  # file: what to answer for it
        self.cut_after: list[int] = []  # the next answers to a GET of an archive break off after so many bytes
        self.stall_after = 0  # after so many bytes of an archive nothing comes any more
        self.head = True
        self.requests: list[tuple[str, str, str]] = []  # method, file, range
        self.released = threading.Event()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.answer(self)

            def do_HEAD(self) -> None:
                outer.answer(self)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/v0"

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        name = handler.path.rpartition("/")[2]
        asked = handler.headers.get("Range", "")
        self.requests.append((handler.command, name, asked))
        handler.close_connection = True
        path = self.folder / name
        status = self.status.get(name, 200 if path.is_file() else 404)
        if handler.command == "HEAD" and not self.head:
            status = 501
        content = path.read_bytes() if status == 200 else b""
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        start = 0
        if status == 200 and asked and handler.headers.get("If-Range") == etag:
            start = int(asked[len("bytes=") : -1])
            status = 206 if start < len(content) else 416
        body = content[start:]
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        handler.send_header("ETag", etag)
        if status == 206:
            handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if status == 416:
            handler.send_header("Content-Range", f"bytes */{len(content)}")
        handler.end_headers()
        if handler.command == "HEAD":
            return
        if name.startswith("ollama-") and self.stall_after:
            handler.wfile.write(body[: self.stall_after])
            handler.wfile.flush()
            self.released.wait(20)
            return
        cut = self.cut_after.pop(0) if self.cut_after and name.startswith("ollama-") else len(body)
        handler.wfile.write(body[:cut])

    def got(self, name: str) -> list[str]:
        return [asked for method, file, asked in self.requests if method == "GET" and file == name]

    def close(self) -> None:
        self.released.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download_module.time, "sleep", lambda seconds: None)


@pytest.fixture
def source(tmp_path: pathlib.Path) -> Source:
    return Source(tmp_path / "source")


@pytest.fixture
def server(source: Source) -> Iterator[Server]:
    serving = Server(source.folder)
    yield serving
    serving.close()


@pytest.fixture
def home(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "opt" / "ollama"


@pytest.fixture
def link(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "local" / "bin" / "ollama"


@pytest.fixture
def release(run_module: Run, home: pathlib.Path, link: pathlib.Path) -> Run:
    def run(version: str | None = None, state: str = "present", check: bool = False, **options: Any) -> dict[str, Any]:
        given = {"arch": "amd64", **options, **({"version": version} if version else {})}
        return run_module("ollama_release", check=check, home=str(home), link=str(link), state=state, **given)

    return run


@pytest.fixture
def refused(release: Run, failed: type[Exception], home: pathlib.Path) -> Callable[..., str]:
    """A run that fails and leaves nothing behind; returns what it says."""

    def run(version: str, **options: Any) -> str:
        before = sorted(os.listdir(home)) if home.exists() else []
        with pytest.raises(failed) as caught:
            release(version, **options)
        assert (sorted(os.listdir(home)) if home.exists() else []) == before
        return str(caught.value)

    return run


class TestUnpacking:
    @pytest.mark.parametrize("version", ["0.13.5", pytest.param("0.17.4", marks=needs_zstd)])
    def test_from_a_folder(self, version: str, source: Source, home: pathlib.Path, release: Run) -> None:
        suffix = ".tgz" if version == "0.13.5" else ".tar.zst"
        name = f"ollama-linux-amd64{suffix}"
        source.pack(name, {f"./{path}": content for path, content in BASE.items()})
        result = release(version, source=str(source.folder))
        assert result["changed"] and result["action"] == "unpacked" and result["bytes_downloaded"] == 0
        assert result["files"] == {name: source.digest(name)} and result["path"] == str(home / version)
        assert result["diff"]["before"] == {"release": "absent", "overlays": []}
        assert (home / version / "lib/ollama/libggml.so.1").read_bytes() == BASE["lib/ollama/libggml.so.1"]
        assert os.readlink(home / version / "lib/ollama/libggml.so") == "libggml.so.1"
        marker = json.loads((home / version / ".llmops-release.json").read_text())
        assert marker["version"] == version and marker["overlays"] == [] and marker["files"] == result["files"]
        assert os.listdir(home) == [version], "no partial file, no hidden folder"
        again = release(version, source="/nowhere", check=True)
        assert not again["changed"] and again["action"] == "none" and again["files"] == result["files"]
        assert not release(version)["changed"], "what is whole needs no source"
        assert layout.releases(str(home)) == {version: {"complete": True, "checksums": result["files"], "overlays": []}}

    def test_check_mode_touches_nothing(self, server: Server, home: pathlib.Path, release: Run) -> None:
        result = release("0.13.5", source=server.url, check=True)
        assert result["changed"] and result["action"] == "unpacked" and result["files"] == {}
        assert server.requests == [] and not home.exists()

    def test_owner_and_modes(self, source: Source, home: pathlib.Path, release: Run) -> None:
        members = [member("bin", b""), member("bin/ollama", b"x", 0o6775), member("lib/ollama/a.so", b"x", 0o600)]
        members[0][0].type, members[0][0].mode = tarfile.DIRTYPE, 0o2777
        source.tar("ollama-linux-amd64.tgz", members)
        source.publish()
        before = os.umask(0o077)
        try:
            release("0.13.5", source=str(source.folder))
            assert os.umask(0o077) == 0o077
        finally:
            os.umask(before)
        tree = home / "0.13.5"
        modes = {path: stat.S_IMODE(os.stat(tree / path).st_mode) for path in ("", "bin", "lib/ollama", "bin/ollama")}
        assert set(modes.values()) == {0o755}, "setuid is dropped, and a strict umask shuts nobody out"
        assert stat.S_IMODE((tree / "lib/ollama/a.so").stat().st_mode) == 0o644
        assert {path.lstat().st_uid for path in tree.rglob("*")} == {os.geteuid()}

    def test_overlays(self, source: Source, home: pathlib.Path, release: Run) -> None:
        source.pack("ollama-linux-amd64.tgz", BASE)
        source.pack("ollama-linux-amd64-rocm.tgz", {**ROCM, "lib/ollama/libggml.so": b"of rocm"})
        release("0.13.5", source=str(source.folder))
        told = release("0.13.5", source=str(source.folder), overlays=["rocm"], check=True)
        assert told["action"] == "rebuilt" and not (home / "0.13.5/lib/ollama/rocm").exists()
        done = release("0.13.5", source=str(source.folder), overlays=["rocm"])
        assert done["changed"] and done["action"] == "rebuilt"
        assert done["diff"] == {
            "before": {"release": "unpacked", "overlays": []},
            "after": {"release": "unpacked", "overlays": ["rocm"]},
        }
        assert sorted(done["files"]) == ["ollama-linux-amd64-rocm.tgz", "ollama-linux-amd64.tgz"]
        assert (home / "0.13.5/lib/ollama/rocm/libhip.so").read_bytes() == ROCM["lib/ollama/rocm/libhip.so"]
        assert (home / "0.13.5/lib/ollama/libggml.so").read_bytes() == b"of rocm"
        assert (home / "0.13.5/lib/ollama/libggml.so.1").read_bytes() == BASE["lib/ollama/libggml.so.1"]
        assert not release("0.13.5", overlays=["rocm"])["changed"]
        assert release("0.13.5", source=str(source.folder))["action"] == "rebuilt"
        assert not (home / "0.13.5/lib/ollama/rocm").exists() and os.listdir(home) == ["0.13.5"]

    def test_a_failed_rebuild_keeps_what_runs(self, source: Source, home: pathlib.Path, release: Run) -> None:
        source.pack("ollama-linux-amd64.tgz", BASE)
        release("0.13.5", source=str(source.folder))
        with pytest.raises(Exception, match="no archive at"):
            release("0.13.5", source=str(source.folder), overlays=["rocm"])
        assert layout.is_complete(str(home / "0.13.5"), "0.13.5")

    @pytest.mark.parametrize("loss", ["gone", "truncated", "link"])
    def test_a_tree_that_lost_something(self, source: Source, home: pathlib.Path, release: Run, loss: str) -> None:
        source.pack("ollama-linux-amd64.tgz", BASE)
        release("0.13.5", source=str(source.folder))
        damaged = home / "0.13.5" / ("lib/ollama/libggml.so" if loss == "link" else "bin/ollama")
        damaged.unlink()
        if loss != "gone":
            damaged.write_bytes(b"")
        assert not layout.releases(str(home))["0.13.5"]["complete"]
        with pytest.raises(Exception, match=r"cannot become the release in use: .* is incomplete. Unpack it first"):
            release("0.13.5", state="current")
        with pytest.raises(Exception, match=r"not on this host as it is wanted \(incomplete\).*ollama_archive_url"):
            release("0.13.5")
        assert release("0.13.5", source=str(source.folder))["action"] == "repaired"
        assert not release("0.13.5")["changed"] and os.listdir(home) == ["0.13.5"]

    def test_other_archive_pinned(self, source: Source, release: Run) -> None:
        source.pack("ollama-linux-amd64.tgz", BASE)
        release("0.13.5", source=str(source.folder))
        source.pack("ollama-linux-amd64.tgz", {**BASE, "lib/ollama/new.so": b"new"})
        assert not release("0.13.5", source=str(source.folder))["changed"], "nobody asked for the new one"
        pins = {"ollama-linux-amd64.tgz": f"sha256:{source.digest('ollama-linux-amd64.tgz').upper()}"}
        assert release("0.13.5", source=f"file://{source.folder}", checksums=pins)["action"] == "rebuilt"
        assert not release("0.13.5", checksums=pins)["changed"]

    def test_leftovers_of_a_killed_run(self, source: Source, home: pathlib.Path, release: Run) -> None:
        source.pack("ollama-linux-amd64.tgz", BASE)
        home.joinpath(".0.13.5.unpacking/bin").mkdir(parents=True)
        home.joinpath(".0.9.0.removed").mkdir()
        home.joinpath(".0.9.0.ollama-linux-amd64.tgz.part").write_text("x")
        home.joinpath(".0.9.0.ollama-linux-amd64.tgz.part.json").write_text("{}")
        home.joinpath(".operator").write_text("mine")
        release("0.13.5", source=str(source.folder))
        assert sorted(os.listdir(home)) == [".operator", "0.13.5"]

    @needs_zstd
    def test_python_that_reads_zstandard(
        self, source: Source, release: Run, failed: type[Exception], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class ZstdError(Exception):
            pass

        def read(path: str, mode: str) -> io.BytesIO:
            done = subprocess.run(["zstd", "-dcq", path], capture_output=True, check=False)
            if done.returncode:
                raise ZstdError("Compressed data ended early")
            return io.BytesIO(done.stdout)

        archive = source.pack("ollama-linux-amd64.tar.zst", BASE)
        monkeypatch.setattr(archive_module, "_zstd_program", lambda: "")
        monkeypatch.setattr(archive_module, "zstd", types.SimpleNamespace(open=read, ZstdError=ZstdError))
        monkeypatch.setattr(archive_module, "_DAMAGE", (*archive_module._DAMAGE, ZstdError))
        assert release("0.17.4", source=str(source.folder))["action"] == "unpacked"
        archive.write_bytes(archive.read_bytes()[:-20])
        source.publish()
        with pytest.raises(failed, match=r"damaged \(Compressed data ended early\)"):
            release("0.17.3", source=str(source.folder))

    def test_labels_under_selinux(
        self, source: Source, home: pathlib.Path, release: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        labelled: list[str] = []
        monkeypatch.setattr(AnsibleModule, "selinux_enabled", lambda self: True)
        monkeypatch.setattr(AnsibleModule, "selinux_context", lambda self, path: ["u", "r", "bin_t", "s0"])
        monkeypatch.setattr(
            AnsibleModule, "set_default_selinux_context", lambda self, path, changed: labelled.append(path)
        )
        source.pack("ollama-linux-amd64.tgz", BASE)
        release("0.13.5", source=str(source.folder))
        tree = home / "0.13.5"
        assert set(labelled) == {str(path) for path in (tree, *tree.rglob("*"))}

    @needs_zstd
    def test_the_era_of_llama_server(self, source: Source, home: pathlib.Path, release: Run) -> None:
        source.pack("ollama-linux-amd64.tar.zst", {**BASE, **SINCE_0_30})
        release("0.30.0", source=str(source.folder))
        assert os.access(home / "0.30.0/lib/ollama/llama-server", os.X_OK)


class TestRefusals:
    @needs_zstd
    def test_without_llama_server(self, source: Source, refused: Callable[..., str]) -> None:
        source.pack("ollama-linux-amd64.tar.zst", BASE)
        said = refused("0.30.0", source=str(source.folder))
        assert "lacks lib/ollama/llama-server and lib/ollama/llama-quantize, which Ollama 0.30.0 needs" in said
        assert "would list models and answer none" in said
        source.pack("ollama-linux-amd64.tar.zst", {**BASE, **SINCE_0_30, "lib/ollama/llama-quantize": "nowhere"})
        assert "lacks lib/ollama/llama-quantize, which" in refused("0.30.0", source=str(source.folder))

    def test_without_a_program(self, source: Source, refused: Callable[..., str]) -> None:
        source.pack("ollama-linux-amd64.tgz", {"share/x": b"x"})
        said = refused("0.13.5", source=str(source.folder))
        assert "lacks bin/ollama, which Ollama 0.13.5 needs. Use the unchanged archive" in said

    def test_nothing_to_check_against(self, source: Source, server: Server, refused: Callable[..., str]) -> None:
        source.pack("ollama-linux-amd64.tgz", BASE)
        sums = source.folder / "sha256sum.txt"
        sums.write_text(sums.read_text().replace("amd64", "arm64"))
        for options in ({}, {"checksums": {"another.tgz": "0" * 64}}):
            assert "nothing to check ollama-linux-amd64.tgz" in refused("0.13.5", source=str(source.folder), **options)
        sums.unlink()
        for where in (str(source.folder), server.url):
            said = refused("0.13.5", source=where)
            assert f"neither ollama_checksums nor {where}/sha256sum.txt has its sha256. Put sha256sum.txt" in said
        assert server.got("ollama-linux-amd64.tgz") == []

    def test_mismatch(self, source: Source, server: Server, refused: Callable[..., str]) -> None:
        archive = source.pack("ollama-linux-amd64.tgz", BASE)
        pins = {archive.name: "0" * 64}
        for where in (str(source.folder), server.url):
            said = refused("0.13.5", source=where, checksums=pins)
            assert source.digest(archive.name) in said and "0" * 64 in said and "correct ollama_checksums" in said
        archive.write_bytes(archive.read_bytes() + b"x")
        for where in (str(source.folder), server.url):
            assert "was expected" in refused("0.13.5", source=where)

    def test_a_pin_that_is_none(self, refused: Callable[..., str]) -> None:
        said = refused("0.13.5", source="/x", checksums={"ollama-linux-amd64.tgz": "sha256:abc"})
        assert "ollama_checksums has 'abc' for ollama-linux-amd64.tgz, which is no sha256" in said

    @pytest.mark.parametrize("suffix", [".tgz", pytest.param(".tar.zst", marks=needs_zstd)])
    def test_truncated_or_damaged(self, source: Source, refused: Callable[..., str], suffix: str) -> None:
        version = "0.13.5" if suffix == ".tgz" else "0.17.4"
        archive = source.pack(f"ollama-linux-amd64{suffix}", {**BASE, "lib/ollama/big.so": os.urandom(300000)})
        content = archive.read_bytes()
        damaged = bytearray(content)
        damaged[len(content) // 2] ^= 0x55
        cut = [content[:size] for size in (0, 1, 100, len(content) // 2, len(content) - 3)]
        for bad in (*cut, bytes(damaged), b"<html>404</html>" * 100):
            archive.write_bytes(bad)
            source.publish()
            said = refused(version, source=str(source.folder))
            assert "is truncated or damaged" in said and "ollama_archive_url" in said

    def test_the_checksum_at_the_end(self, source: Source, refused: Callable[..., str]) -> None:
        """The stream ends where a read ends, so that nothing but one more read meets the checksum behind it."""
        archive = source.pack("ollama-linux-amd64.tgz", BASE)
        whole = gzip.decompress(archive.read_bytes()).ljust(archive_module._CHUNK, b"\0")
        damaged = bytearray(gzip.compress(whole))
        damaged[-6] ^= 0x55
        archive.write_bytes(bytes(damaged))
        source.publish()
        assert "is truncated or damaged (CRC check failed" in refused("0.13.5", source=str(source.folder))

    def test_empty(self, source: Source, refused: Callable[..., str]) -> None:
        source.pack("ollama-linux-amd64.tgz", BASE)
        source.pack("ollama-linux-amd64-rocm.tgz", {})
        said = refused("0.13.5", source=str(source.folder), overlays=["rocm"])
        assert "ollama-linux-amd64-rocm.tgz holds no file" in said

    @pytest.mark.parametrize("name", ["../evil", "/etc/evil", "lib/../../evil", "./../evil"])
    def test_paths_that_lead_out(
        self, source: Source, refused: Callable[..., str], tmp_path: pathlib.Path, name: str
    ) -> None:
        source.pack("ollama-linux-amd64.tgz", {**BASE, name: b"x"})
        assert "leads out of the archive" in refused("0.13.5", source=str(source.folder))
        assert not list(tmp_path.rglob("evil"))

    @pytest.mark.parametrize(
        ("path", "target"), [("lib/l", "/etc/shadow"), ("lib/l", "../../x"), ("l", ".."), ("lib/a/l", "../../../x")]
    )
    def test_links_that_lead_out(self, source: Source, refused: Callable[..., str], path: str, target: str) -> None:
        source.pack("ollama-linux-amd64.tgz", {**BASE, path: target})
        said = refused("0.13.5", source=str(source.folder))
        assert "holds a link that leads out of it" in said and repr(target) in said

    def test_an_absolute_link_to_where_it_is_unpacked(
        self, source: Source, refused: Callable[..., str], home: pathlib.Path
    ) -> None:
        source.pack("ollama-linux-amd64.tgz", {**BASE, "lib/l": f"{home}/.0.13.5.unpacking/bin/ollama"})
        assert "leads out of it" in refused("0.13.5", source=str(source.folder))

    def test_a_link_over_a_link(self, source: Source, refused: Callable[..., str]) -> None:
        source.pack("ollama-linux-amd64.tgz", {**BASE, "lib/a/root": "../..", "lib/a/b/out": "../root/../x"})
        assert "leads out of it" in refused("0.13.5", source=str(source.folder))
        source.pack("ollama-linux-amd64.tgz", {**BASE, "lib/l": "ollama", "lib/l/evil.so": b"x"})
        assert "has a folder where a file or a link is already: 'lib/l'" in refused("0.13.5", source=str(source.folder))

    def test_hard_links(self, source: Source, home: pathlib.Path, release: Run, refused: Callable[..., str]) -> None:
        for target in ("/etc/passwd", "../../../../etc/passwd", "lib/ollama/libggml.so"):
            bad = tarfile.TarInfo("lib/ollama/copy")
            bad.type, bad.linkname = tarfile.LNKTYPE, target
            source.tar("ollama-linux-amd64.tgz", [*(member(*one) for one in BASE.items()), (bad, None)])
            source.publish()
            assert "leads out of it" in refused("0.13.5", source=str(source.folder))
        bad.linkname = "./lib/ollama/libggml.so.1"
        source.tar("ollama-linux-amd64.tgz", [*(member(*one) for one in BASE.items()), (bad, None)])
        source.publish()
        release("0.13.5", source=str(source.folder))
        assert (home / "0.13.5/lib/ollama/copy").read_bytes() == BASE["lib/ollama/libggml.so.1"]

    @pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
    def test_devices(self, source: Source, refused: Callable[..., str], kind: bytes) -> None:
        bad = tarfile.TarInfo("lib/ollama/null")
        bad.type = kind
        source.tar("ollama-linux-amd64.tgz", [*(member(*one) for one in BASE.items()), (bad, None)])
        source.publish()
        assert "is no file and no link" in refused("0.13.5", source=str(source.folder))

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"version": "v0.17.4"}, "is not a version of Ollama.*Correct ollama_version"),
            ({"version": "0.4.0", "source": "/x"}, "older than 0.5.0"),
            ({"version": "0.17.4", "arch": "s390x"}, "no Ollama for the architecture"),
            ({"version": "0.17.4", "overlays": ["jetpack5"]}, "made for arm64.*Correct ollama_version or ollama_ov"),
            ({"version": "0.17.4", "source": "archives"}, "neither a URL nor an absolute path"),
            ({"version": "0.17.4"}, r"not on this host as it is wanted \(absent\).*source does not say"),
            ({"version": "0.17.4", "state": "current"}, "is absent. Unpack it first"),
            ({"state": "current"}, "missing: version"),
            ({"version": "0.17.4", "state": "served"}, "cannot have served.*is absent"),
            ({"state": "served"}, "missing: version"),
            ({"state": "pruned", "keep": -1}, "Correct ollama_keep"),
        ],
    )
    def test_wishes_that_cannot_be(
        self, release: Run, failed: type[Exception], options: dict[str, Any], said: str, home: pathlib.Path
    ) -> None:
        with pytest.raises(failed, match=said):
            release(**options)
        assert not home.exists()

    def test_no_archive_in_the_folder(self, source: Source, refused: Callable[..., str]) -> None:
        assert f"no archive at {source.folder}/ollama-linux" in refused("0.13.5", source=str(source.folder))

    def test_a_folder_of_somebody_else(self, source: Source, home: pathlib.Path, release: Run) -> None:
        source.pack("ollama-linux-amd64.tgz", BASE)
        own = home / "0.13.5" / "notes"
        own.parent.mkdir(parents=True)
        own.write_text("precious")
        for check in (True, False):
            with pytest.raises(Exception, match="was not unpacked by this module"):
                release("0.13.5", source=str(source.folder), check=check)
        own.with_name(".llmops-release.json").write_text("{}")
        with pytest.raises(Exception, match="was not unpacked by this module"):
            release("0.13.5", source=str(source.folder))
        assert own.read_text() == "precious"

    def test_no_zstd(self, server: Server, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(archive_module.shutil, "which", lambda *args, **more: None)
        monkeypatch.setattr(archive_module, "zstd", None)
        assert "no program zstd. Install the package zstd" in refused("0.17.4", source=server.url)
        assert server.requests == [], "said before gigabytes are fetched"

    def test_too_little_room(
        self, source: Source, server: Server, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        archive = source.pack("ollama-linux-amd64.tgz", {**BASE, "lib/ollama/big.so": os.urandom(3 << 20)})
        usage = shutil.disk_usage("/")
        size = archive.stat().st_size
        monkeypatch.setattr(store_module.shutil, "disk_usage", lambda path: usage._replace(free=4 * size - 1))
        said = refused("0.13.5", source=server.url)
        assert "MB free, and Ollama 0.13.5 needs 13 MB: 3 MB to fetch and up to 10 MB unpacked. Nothing was" in said
        assert server.got(archive.name) == []
        monkeypatch.setattr(store_module.shutil, "disk_usage", lambda path: usage._replace(free=3 * size - 1))
        assert "0 MB to fetch" in refused("0.13.5", source=str(source.folder))

    def test_full_disk(
        self, source: Source, server: Server, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*args: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        source.pack("ollama-linux-amd64.tgz", BASE)
        monkeypatch.setattr(archive_module, "_write", full)
        said = refused("0.13.5", source=server.url)
        assert "is full" in said and "Nothing was left behind" in said and "ollama_home" in said


class TestDownload:
    @pytest.fixture
    def archive(self, source: Source) -> pathlib.Path:
        return source.pack("ollama-linux-amd64.tgz", {**BASE, "lib/ollama/big.so": os.urandom(400000)})

    @pytest.fixture
    def pieces(self, archive: pathlib.Path) -> int:
        return store_module._PIECE

    def test_plain(self, archive: pathlib.Path, server: Server, home: pathlib.Path, release: Run) -> None:
        result = release("0.13.5", source=f"{server.url}/")
        assert result["bytes_downloaded"] == sum(
            (server.folder / name).stat().st_size for name in (archive.name, "sha256sum.txt")
        )
        assert [(method, name) for method, name, _asked in server.requests] == [
            ("HEAD", archive.name),
            ("GET", "sha256sum.txt"),
            ("GET", archive.name),
        ]
        assert os.listdir(home) == ["0.13.5"]
        assert not release("0.13.5", source=server.url)["changed"] and len(server.requests) == 3

    def test_pinned_asks_for_no_sums(self, archive: pathlib.Path, server: Server, source: Source, release: Run) -> None:
        release("0.13.5", source=server.url, checksums={archive.name: source.digest(archive.name)})
        assert server.got("sha256sum.txt") == []

    def test_hashed_on_the_way(
        self, archive: pathlib.Path, server: Server, release: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delattr(store_module, "sha256_of")
        server.cut_after = [200000, 100000]
        release("0.13.5", source=server.url)

    def test_taken_up_where_it_broke(self, archive: pathlib.Path, server: Server, pieces: int, release: Run) -> None:
        server.cut_after = [3 * pieces + 5, pieces]
        result = release("0.13.5", source=server.url)
        assert server.got(archive.name) == ["", f"bytes={3 * pieces}-", f"bytes={4 * pieces}-"]
        assert result["bytes_downloaded"] < archive.stat().st_size + 1000

    def test_deadline_and_the_next_run(
        self, archive: pathlib.Path, server: Server, pieces: int, home: pathlib.Path, release: Run
    ) -> None:
        server.stall_after = 2 * pieces + 1
        began = time.monotonic()
        with pytest.raises(Exception, match=r"not fetched in time.*goes on from there.*ollama_download_timeout"):
            release("0.13.5", source=server.url, deadline=1)
        assert time.monotonic() - began < 5
        part = home / ".0.13.5.ollama-linux-amd64.tgz.part"
        assert part.stat().st_size == 2 * pieces
        assert sorted(os.listdir(home)) == [part.name, f"{part.name}.json"]
        server.stall_after = 0
        result = release("0.13.5", source=server.url)
        assert server.got(archive.name)[-1] == f"bytes={2 * pieces}-"
        assert result["bytes_downloaded"] < archive.stat().st_size and os.listdir(home) == ["0.13.5"]

    def test_a_part_that_is_whole_is_not_fetched_again(
        self, archive: pathlib.Path, server: Server, home: pathlib.Path, source: Source, release: Run
    ) -> None:
        overlay = source.pack("ollama-linux-amd64-rocm.tgz", ROCM)
        server.status[overlay.name] = 503
        with pytest.raises(Exception, match=r"HTTP 503"):
            release("0.13.5", source=server.url, overlays=["rocm"])
        assert home.joinpath(f".0.13.5.{archive.name}.part").stat().st_size == archive.stat().st_size
        server.status.clear()
        result = release("0.13.5", source=server.url, overlays=["rocm"])
        assert server.got(archive.name) == ["", f"bytes={archive.stat().st_size}-"]
        assert result["bytes_downloaded"] < 2000

    def test_a_part_of_something_else(
        self, archive: pathlib.Path, server: Server, home: pathlib.Path, release: Run
    ) -> None:
        home.mkdir(parents=True)
        part = home / f".0.13.5.{archive.name}.part"
        part.write_bytes(b"old bytes of another file")
        note = {"url": f"{server.url}/{archive.name}", "validator": '"another"'}
        home.joinpath(f"{part.name}.json").write_text(json.dumps(note))
        assert release("0.13.5", source=server.url)["action"] == "unpacked"

    def test_killed_in_between(
        self, archive: pathlib.Path, server: Server, pieces: int, home: pathlib.Path, link: pathlib.Path, release: Run
    ) -> None:
        server.stall_after = 2 * pieces + 1
        options = {"home": str(home), "link": str(link), "version": "0.13.5", "source": server.url, "arch": "amd64"}
        arguments = json.dumps({"ANSIBLE_MODULE_ARGS": options})
        module = "ansible_collections.llmops.stack.plugins.modules.ollama_release"
        process = subprocess.Popen([sys.executable, "-m", module, arguments], stdout=subprocess.DEVNULL)
        part = home / f".0.13.5.{archive.name}.part"
        wait = threading.Event()
        for _ in range(200):
            if part.exists() and part.stat().st_size:
                break
            wait.wait(0.1)
        process.send_signal(signal.SIGKILL)
        process.wait()
        size = part.stat().st_size
        assert size
        server.stall_after = 0
        release("0.13.5", source=server.url)
        assert server.got(archive.name)[-1] == f"bytes={size}-"
        assert os.listdir(home) == ["0.13.5"]

    def test_a_server_without_head(self, archive: pathlib.Path, server: Server, release: Run) -> None:
        server.head = False
        assert release("0.13.5", source=server.url)["action"] == "unpacked"

    def test_through_a_proxy(self, refused: Callable[..., str], server: Server, archive: pathlib.Path) -> None:
        with running_proxy() as proxy:
            given = {"proxy": proxy.url.replace("://", "://me:pa55@"), "no_proxy": "127.0.0.1"}
            said = refused("0.13.5", source="https://github.invalid/v0", **given)
            assert set(proxy.asked) == {"CONNECT github.invalid:443"}
            assert "github.invalid cannot be used as a source" in said and "pa55" not in said
            assert f"through the proxy http://***@{proxy.place}:" in said
            proxy.asked.clear()
            assert "Connection refused" in refused("0.13.5", source="https://127.0.0.1:1/v0", **given)
            assert proxy.asked == []

    def test_a_proxy_that_needs_a_library(self, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
        def missing(*_unused: Any, **_options: Any) -> None:
            raise download_module.requests.exceptions.InvalidSchema("Missing dependencies for SOCKS support.")

        monkeypatch.setattr(download_module.requests, "get", missing)
        said = refused("0.13.5", source="https://github.invalid/v0", proxy="socks5://127.0.0.1:1")
        assert "PySocks" in said

    def test_no_such_release(self, archive: pathlib.Path, server: Server, refused: Callable[..., str]) -> None:
        said = refused("0.12.0", source=server.url, overlays=["rocm"])
        assert f"no release at {server.url}/ollama-linux-amd64-rocm.tgz (HTTP 404). Check ollama_version" in said
        assert "github.com/ollama/ollama/releases" in said
        assert server.got(archive.name) == [], "known before the base was fetched"

    def test_damaged_at_the_source_is_dropped(
        self, archive: pathlib.Path, source: Source, server: Server, refused: Callable[..., str]
    ) -> None:
        archive.write_bytes(archive.read_bytes()[:100000])
        source.publish()
        assert "is truncated or damaged" in refused("0.13.5", source=server.url)

    def test_unpacking_has_the_same_deadline(
        self, archive: pathlib.Path, server: Server, release: Run, home: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(archive_module, "_write", lambda *args: threading.Event().wait(20))
            with pytest.raises(Exception, match=r"not unpacked in time; what was fetched is kept"):
                release("0.13.5", source=server.url, deadline=1)
        assert sorted(name.rpartition("/")[2] for name in os.listdir(home)) == [
            f".0.13.5.{archive.name}.part",
            f".0.13.5.{archive.name}.part.json",
        ]
        assert release("0.13.5", source=server.url)["bytes_downloaded"] < 1000

    def test_no_login_is_printed_or_kept(
        self, archive: pathlib.Path, server: Server, home: pathlib.Path, release: Run, refused: Callable[..., str]
    ) -> None:
        url = server.url.replace("://", "://user:sesame-open@")
        for options in ({"checksums": {archive.name: "0" * 64}}, {"overlays": ["rocm"]}):
            said = refused("0.13.5", source=url, **options)
            assert "sesame" not in said and "***@127.0.0.1" in said
        result = release("0.13.5", source=url)
        assert "sesame" not in (home / "0.13.5/.llmops-release.json").read_text() + json.dumps(result)


class TestSwitching:
    @pytest.fixture(autouse=True)
    def unpacked(self, source: Source, release: Run) -> None:
        source.pack("ollama-linux-amd64.tgz", BASE)
        for version in ("0.9.0", "0.13.5"):
            release(version, source=str(source.folder))

    def test_to_and_back(self, home: pathlib.Path, link: pathlib.Path, release: Run) -> None:
        told = release("0.9.0", state="current", check=True)
        assert told["changed"] and told["previous"] == "" and not (home / "current").exists()
        assert release("0.9.0", state="current")["changed"]
        assert os.readlink(home / "current") == "0.9.0"
        assert os.readlink(link) == f"{home}/current/bin/ollama"
        assert os.path.realpath(link) == str(home / "0.9.0/bin/ollama")
        again = release("0.9.0", state="current")
        assert not again["changed"] and again["previous"] == "0.9.0"
        assert not release("0.9.0", state="current", check=True)["changed"]
        up = release("0.13.5", state="current")
        assert (up["changed"], up["previous"], up["current"], up["moved_aside"]) == (True, "0.9.0", "0.13.5", "")
        assert up["diff"] == {
            "before": {"current": "0.9.0", "linked": True},
            "after": {"current": "0.13.5", "linked": True},
        }
        back = release(up["previous"], state="current")
        assert back["changed"] and os.readlink(home / "current") == "0.9.0"

    def test_a_release_with_overlays_stays_as_it_is(self, source: Source, home: pathlib.Path, release: Run) -> None:
        source.pack("ollama-linux-amd64-rocm.tgz", ROCM)
        release("0.13.5", source=str(source.folder), overlays=["rocm"])
        release("0.13.5", state="current")
        assert (home / "current/lib/ollama/rocm/libhip.so").exists()

    @pytest.mark.parametrize("kind", ["file", "link"])
    def test_what_the_install_script_left(
        self, link: pathlib.Path, home: pathlib.Path, release: Run, kind: str
    ) -> None:
        link.parent.mkdir(parents=True)
        aside = link.with_name("ollama.before-llmops")
        if kind == "file":
            link.write_text("of install.sh")
        else:
            link.symlink_to("/usr/bin/ollama")
        assert release("0.9.0", state="current", check=True)["moved_aside"] == str(aside) and not aside.exists()
        result = release("0.9.0", state="current")
        assert result["moved_aside"] == str(aside)
        if kind == "file":
            assert aside.read_text() == "of install.sh"
        else:
            assert os.readlink(aside) == "/usr/bin/ollama"
        assert os.readlink(link) == f"{home}/current/bin/ollama"
        assert sorted(os.listdir(link.parent)) == ["ollama", "ollama.before-llmops"]
        # The script was run once more: only the link is repaired.
        link.unlink()
        link.write_text("newer one of install.sh")
        result = release("0.9.0", state="current")
        assert result["changed"] and aside.read_text() == "newer one of install.sh"

    def test_a_folder_in_the_way(self, link: pathlib.Path, home: pathlib.Path, release: Run) -> None:
        link.mkdir(parents=True)
        with pytest.raises(Exception, match="is a folder, and a link has to be there"):
            release("0.9.0", state="current")
        assert not os.path.lexists(home / "current"), "nothing was switched"

    def test_check_mode_before_the_first_run(self, release: Run) -> None:
        assert release("0.12.0", state="current", check=True)["changed"]


class TestPruning:
    @pytest.fixture(autouse=True)
    def unpacked(self, source: Source, release: Run) -> None:
        source.pack("ollama-linux-amd64.tgz", BASE)
        for version in ("0.9.0", "0.10.0", "0.11.0", "0.13.5"):
            release(version, source=str(source.folder))

    def test_the_newest_stay(self, home: pathlib.Path, release: Run) -> None:
        release("0.9.0", state="current")
        (home / "0.5.0").mkdir()
        told = release(state="pruned", keep=1, check=True)
        assert told["changed"] and told["removed"] == ["0.11.0", "0.10.0"] and len(os.listdir(home)) == 6
        done = release(state="pruned", keep=1)
        assert done["removed"] == told["removed"] and done["current"] == "0.9.0"
        assert done["diff"]["after"] == {"releases": ["0.9.0", "0.13.5"]}
        assert sorted(os.listdir(home)) == ["0.13.5", "0.5.0", "0.9.0", "current"], "0.5.0 is not ours"
        assert not release(state="pruned", keep=1)["changed"]
        assert release(state="pruned", keep=0)["removed"] == ["0.13.5"]

    def test_those_that_served_stay_before_those_that_did_not(self, home: pathlib.Path, release: Run) -> None:
        for version in ("0.10.0", "0.9.0"):
            release(version, state="current")
            assert release(version, state="served", check=True)["changed"]
            assert release(version, state="served")["changed"]
            assert not release(version, state="served")["changed"]
        assert layout.releases(str(home))["0.9.0"]["complete"], "the note is part of no archive"
        # 0.11.0 and 0.13.5 were fetched and did not come up.
        assert release(state="pruned", keep=2)["removed"] == ["0.11.0"]
        assert release("0.10.0", state="served")["changed"], "the last one is another now"
        assert release(state="pruned", keep=1)["removed"] == ["0.13.5"]

    def test_one_that_lost_files_takes_no_place(self, home: pathlib.Path, release: Run) -> None:
        release("0.13.5", state="current")
        (home / "0.11.0/bin/ollama").unlink()
        assert release(state="pruned", keep=2)["removed"] == ["0.11.0"]

    def test_a_given_version_stays(self, home: pathlib.Path, release: Run) -> None:
        release("0.13.5", state="current")
        assert release("0.9.0", state="pruned", keep=0)["removed"] == ["0.11.0", "0.10.0"]

    def test_leftovers(self, home: pathlib.Path, release: Run) -> None:
        home.joinpath(".0.32.15.unpacking/bin").mkdir(parents=True)
        home.joinpath(".0.32.15.ollama-linux-amd64.tar.zst.part").write_text("x")
        names = [".0.32.15.ollama-linux-amd64.tar.zst.part", ".0.32.15.unpacking"]
        assert release(state="pruned", keep=9, check=True)["leftovers"] == names
        done = release(state="pruned", keep=9)
        assert done["changed"] and done["leftovers"] == names and done["removed"] == []
        assert not release(state="pruned", keep=9)["changed"]

    def test_a_bare_host(self, release: Run, home: pathlib.Path) -> None:
        shutil.rmtree(home)
        assert not release(state="pruned")["changed"]


def test_lines_of_sha256sum() -> None:
    one, two = "a" * 64, "B" * 64
    text = f"{one}  ./ollama-linux-amd64.tgz\n{two} *install.sh\r\nnonsense\n{one[:10]}  short\n"
    assert store_module.published(text) == {"ollama-linux-amd64.tgz": one, "install.sh": two.lower()}


@needs_zstd
def test_the_real_program(source: Source, server: Server, link: pathlib.Path, release: Run) -> None:
    """A real Ollama, packed as its releases are, says its version through the links."""
    cache = pathlib.Path(os.environ.get("LLMOPS_CACHE", "~/.cache/llmops.stack")).expanduser()
    program = cache / "bin" / "ollama-0.17.4"
    if not program.is_file():
        pytest.skip(f"no {program}: tests/world/world.py build makes it")
    source.pack("ollama-linux-amd64.tar.zst", {**BASE, "bin/ollama": program.read_bytes()})
    release("0.17.4", source=server.url)
    release("0.17.4", state="current")
    nobody = {"PATH": os.environ["PATH"], "HOME": str(link.parent), "OLLAMA_HOST": "127.0.0.1:9"}
    said = subprocess.run([link, "--version"], env=nobody, capture_output=True, text=True, check=True)
    assert "0.17.4" in said.stdout + said.stderr
