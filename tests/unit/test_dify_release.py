# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetching and unpacking releases: what arrives, what is refused, and what is left behind."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pathlib
import socket
import stat
import tarfile
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils import _dify_release as store_module
from ansible_collections.llmops.stack.plugins.module_utils import _download as download_module

Run = Callable[..., dict[str, Any]]
Pack = Callable[..., pathlib.Path]


@pytest.fixture
def home(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "dify"


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download_module.time, "sleep", lambda seconds: None)


def left_behind(home: pathlib.Path) -> list[str]:
    """Everything below home but the empty frame of it."""
    return sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.name not in ("releases", "volumes"))


class TestUnpacking:
    def test_every_release(self, dify_tag: str, home: pathlib.Path, pack: Pack, run_module: Run) -> None:
        archive = pack(dify_tag)
        result = run_module("dify_release", home=str(home), version=dify_tag, source=str(archive))
        folder = home / "releases" / dify_tag
        assert result["changed"] and result["path"] == str(folder)
        assert result["sha256"] == hashlib.sha256(archive.read_bytes()).hexdigest()
        assert result["bytes_downloaded"] == 0 and result["current"] == "" and "warnings" not in result
        marker = json.loads((folder / ".llmops-release.json").read_text())
        assert (marker["tag"], marker["sha256"]) == (dify_tag, result["sha256"])
        for name, digest in marker["files"].items():
            assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
        assert os.readlink(folder / "volumes") == "../../volumes"
        assert (folder / "volumes").resolve() == home / "volumes"
        assert "sandbox/conf/config.yaml" in result["seeded_volumes"]
        assert (home / "volumes/sandbox/conf/config.yaml").is_file()
        assert os.access(folder / "nginx/docker-entrypoint.sh", os.X_OK)
        assert not (folder / "AUTHORS").exists() and not (home / "releases/AUTHORS").exists()

        again = run_module("dify_release", home=str(home), version=dify_tag, source="/nowhere.tar.gz")
        assert not again["changed"] and again["sha256"] == result["sha256"] and again["seeded_volumes"] == []

    def test_releases_live_side_by_side(self, home: pathlib.Path, pack: Pack, run_module: Run) -> None:
        run_module("dify_release", home=str(home), version="1.12.1", source=str(pack("1.12.1")), state="current")
        edited = home / "volumes/sandbox/conf/config.yaml"
        edited.write_text("mine: true\n")
        (home / "volumes/opensearch/opensearch_dashboards.yml").unlink()
        result = run_module("dify_release", home=str(home), version="1.13.3", source=f"file://{pack('1.13.3')}")
        assert result["seeded_volumes"] == ["opensearch/opensearch_dashboards.yml"]
        assert edited.read_text() == "mine: true\n", "a file of the operator is never touched"
        assert result["current"] == "1.12.1", "unpacking moves nothing"
        assert (home / "current").resolve() == home / "releases/1.12.1"

    def test_activation(self, home: pathlib.Path, pack: Pack, run_module: Run) -> None:
        wanted = {"home": str(home), "version": "1.12.1", "source": str(pack("1.12.1"))}
        announced = run_module("dify_release", check=True, **wanted, activate=True)
        assert announced["changed"] and announced["diff"]["after"] == {"release": "unpacked", "current": "1.12.1"}
        assert not home.exists(), "check mode writes nothing"
        run_module("dify_release", **wanted)
        assert run_module("dify_release", **wanted, activate=True)["changed"]
        assert os.readlink(home / "current") == "releases/1.12.1"
        assert not run_module("dify_release", **wanted, activate=True)["changed"]
        assert not run_module("dify_release", check=True, **wanted, state="current")["changed"]

    def test_removal(self, home: pathlib.Path, pack: Pack, run_module: Run, failed: type[Exception]) -> None:
        for tag in ("1.12.1", "1.13.3"):
            run_module("dify_release", home=str(home), version=tag, source=str(pack(tag)), activate=True)
        with pytest.raises(failed, match=r"1\.13\.3 is the release in use"):
            run_module("dify_release", home=str(home), version="1.13.3", state="absent")
        assert run_module("dify_release", check=True, home=str(home), version="1.12.1", state="absent")["changed"]
        assert run_module("dify_release", home=str(home), version="1.12.1", state="absent")["changed"]
        assert os.listdir(home / "releases") == ["1.13.3"]
        assert (home / "volumes/sandbox/conf/config.yaml").is_file()
        assert not run_module("dify_release", home=str(home), version="1.12.1", state="absent")["changed"]

    def test_a_lost_file_comes_back(self, home: pathlib.Path, pack: Pack, run_module: Run) -> None:
        wanted = {"home": str(home), "version": "1.16.0", "source": str(pack("1.16.0"))}
        run_module("dify_release", **wanted)
        folder = home / "releases/1.16.0"
        folder.joinpath(".env").write_text("KEEP=1\n")
        folder.joinpath("nginx/nginx.conf.template").unlink()
        folder.joinpath("envs/security.env.example").unlink()
        assert run_module("dify_release", **wanted)["changed"]
        assert folder.joinpath("nginx/nginx.conf.template").is_file()
        assert folder.joinpath("envs/security.env.example").is_file()
        assert folder.joinpath(".env").read_text() == "KEEP=1\n"
        assert not run_module("dify_release", **wanted)["changed"]

    def test_leftovers_of_a_killed_run(self, home: pathlib.Path, pack: Pack, run_module: Run) -> None:
        for name in ("releases/.1.12.1.unpacking/nginx", "releases/.1.3.1.removed"):
            home.joinpath(name).mkdir(parents=True)
        home.joinpath(".1.3.1.part").write_text("x")
        home.joinpath(".1.3.1.part.json").write_text("{}")
        run_module("dify_release", home=str(home), version="1.12.1", source=str(pack("1.12.1")))
        assert os.listdir(home / "releases") == ["1.12.1"]
        assert sorted(os.listdir(home)) == ["releases", "volumes"]


class TestRefusals:
    @pytest.fixture
    def refused(self, home: pathlib.Path, run_module: Run, failed: type[Exception]) -> Callable[..., str]:
        def run(source: str, version: str = "1.12.1", **options: Any) -> str:
            with pytest.raises(failed) as caught:
                run_module("dify_release", home=str(home), version=version, source=source, **options)
            assert left_behind(home) == []
            return str(caught.value)

        return run

    def test_not_an_archive_of_dify(self, refused: Callable[..., str], pack: Pack) -> None:
        for options in ({"top": "other-1.12.1"}, {"leave_out": ("docker/.env.example",)}):
            message = refused(str(pack("1.12.1", **options)))
            assert "is not a release archive of Dify: it has no dify-*/docker/" in message

    def test_truncated(self, refused: Callable[..., str], pack: Pack) -> None:
        archive = pack("1.12.1")
        content = archive.read_bytes()
        for size in (0, 1, 100, len(content) // 2, len(content) - 20):
            archive.write_bytes(content[:size])
            assert "is truncated or damaged" in refused(str(archive)), size
        archive.write_bytes(b"<html>404</html>" * 100)
        assert "is truncated or damaged" in refused(str(archive))

    def test_a_file_that_compose_mounts_is_missing(self, refused: Callable[..., str], pack: Pack) -> None:
        message = refused(str(pack("1.12.1", leave_out=("docker/nginx/docker-entrypoint.sh",))))
        assert "lacks files that its own compose file mounts: nginx/docker-entrypoint.sh (for nginx)" in message

    def test_paths_that_lead_out(self, refused: Callable[..., str], pack: Pack, tmp_path: pathlib.Path) -> None:
        for name in ("../../evil", "/etc/evil", "docker/../../../evil"):
            assert "leads out of the archive" in refused(str(pack("1.12.1", extra={name: "x"})))
        assert not (tmp_path / "evil").exists()

    def test_links_and_devices(self, refused: Callable[..., str], tmp_path: pathlib.Path) -> None:
        archive = tmp_path / "links.tar.gz"
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            member = tarfile.TarInfo("dify-1.12.1/docker/evil")
            member.type, member.linkname = kind, "/etc/shadow"
            with tarfile.open(archive, "w:gz") as packed:
                packed.addfile(member)
            assert "is no plain file" in refused(str(archive))

    def test_checksum(self, refused: Callable[..., str], pack: Pack, home: pathlib.Path, run_module: Run) -> None:
        archive = pack("1.12.1")
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        assert digest in refused(str(archive), checksum="sha256:" + "0" * 64)
        run_module("dify_release", home=str(home), version="1.12.1", source=str(archive), checksum=f"SHA256:{digest}")

    def test_checksum_of_what_is_there(
        self, pack: Pack, home: pathlib.Path, run_module: Run, failed: type[Exception]
    ) -> None:
        wanted = {"home": str(home), "version": "1.12.1", "source": str(pack("1.12.1"))}
        run_module("dify_release", **wanted)
        with pytest.raises(failed, match="is wanted"):
            run_module("dify_release", **wanted, checksum="0" * 64)

    def test_no_such_file(self, refused: Callable[..., str]) -> None:
        assert "no archive at /nowhere.tar.gz" in refused("/nowhere.tar.gz")
        assert "source does not say" in refused("")

    @pytest.mark.parametrize("version", ["v1.12.1", "../1.12.1", "latest", "1.12"])
    def test_not_a_tag(self, refused: Callable[..., str], version: str) -> None:
        assert "is not a release tag of Dify" in refused("/x", version=version)

    def test_a_folder_of_somebody_else(
        self, pack: Pack, home: pathlib.Path, run_module: Run, failed: type[Exception]
    ) -> None:
        own = home / "releases/1.12.1/.env"
        own.parent.mkdir(parents=True)
        own.write_text("SECRET_KEY=precious\n")
        with pytest.raises(failed, match="was not unpacked by this module"):
            run_module("dify_release", home=str(home), version="1.12.1", source=str(pack("1.12.1")))
        assert own.read_text() == "SECRET_KEY=precious\n"

    def test_full_disk(
        self, refused: Callable[..., str], pack: Pack, home: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*args: Any) -> str:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(store_module, "_write", full)
        message = refused(str(pack("1.12.1")))
        assert f"the disk with {home} is full" in message and "Nothing was left behind" in message

    def test_the_archive_of_another_release_is_noticed(self, pack: Pack, home: pathlib.Path, run_module: Run) -> None:
        result = run_module("dify_release", home=str(home), version="1.12.2", source=str(pack("1.12.1")))
        assert "langgenius/dify-api:1.12.1" in str(result["warnings"])


class TestDownload:
    @pytest.fixture
    def server(self, file_server: Any, pack: Pack) -> Any:
        file_server.content = pack("1.12.1").read_bytes()
        return file_server

    def fetch(self, run_module: Run, home: pathlib.Path, server: Any, **options: Any) -> dict[str, Any]:
        return run_module("dify_release", home=str(home), version="1.12.1", source=server.url, **options)

    def test_plain(self, server: Any, home: pathlib.Path, run_module: Run) -> None:
        result = self.fetch(run_module, home, server)
        assert result["bytes_downloaded"] == len(server.content)
        assert sorted(os.listdir(home)) == ["releases", "volumes"]
        assert len(server.requests) == 1
        assert not self.fetch(run_module, home, server)["changed"]
        assert len(server.requests) == 1, "what is there is not asked for again"

    def test_check_mode_asks_nobody(self, server: Any, home: pathlib.Path, run_module: Run) -> None:
        assert run_module("dify_release", check=True, home=str(home), version="1.12.1", source=server.url)["changed"]
        assert server.requests == [] and not home.exists()

    def test_taken_up_where_it_broke(self, server: Any, home: pathlib.Path, run_module: Run) -> None:
        server.cut_after = [20000, 9000]
        result = self.fetch(run_module, home, server)
        assert result["bytes_downloaded"] == len(server.content)
        assert [one.get("Range") for one in server.requests] == [None, "bytes=16384-", "bytes=24576-"]

    def test_a_server_without_ranges(self, server: Any, home: pathlib.Path, run_module: Run) -> None:
        server.cut_after, server.ranges = [20000], False
        assert self.fetch(run_module, home, server)["bytes_downloaded"] == len(server.content) + 16384

    def test_the_file_changed_in_between(self, server: Any, home: pathlib.Path, run_module: Run) -> None:
        home.mkdir()
        home.joinpath(".1.12.1.part").write_bytes(b"old bytes of another file")
        note = {"url": server.url, "validator": '"another"'}
        home.joinpath(".1.12.1.part.json").write_text(json.dumps(note))
        self.fetch(run_module, home, server)

    def test_busy_at_first(self, server: Any, home: pathlib.Path, run_module: Run) -> None:
        server.failures = 2
        assert self.fetch(run_module, home, server)["changed"]

    def test_deadline_and_the_next_run(
        self, server: Any, home: pathlib.Path, run_module: Run, failed: type[Exception]
    ) -> None:
        server.stall = True
        with pytest.raises(failed, match=r"was not fetched in time.*goes on from there.*dify_download_timeout"):
            self.fetch(run_module, home, server, deadline=1)
        assert sorted(os.listdir(home)) == [".1.12.1.part", ".1.12.1.part.json", "releases"]
        assert stat.S_IMODE(home.joinpath(".1.12.1.part.json").stat().st_mode) == 0o600
        server.stall = False
        size = home.joinpath(".1.12.1.part").stat().st_size
        result = self.fetch(run_module, home, server)
        assert size == 16384 and result["bytes_downloaded"] == len(server.content) - size
        assert sorted(os.listdir(home)) == ["releases", "volumes"]

    @pytest.mark.parametrize(
        ("status", "said"),
        [
            (404, "there is no release at .*1.12.1.tar.gz .HTTP 404.*Check dify_version.*mirror"),
            (403, "refuses access .HTTP 403"),
            (503, "HTTP 503.*stack_mirror"),
            (302, "HTTP 302|cannot be used"),
            (204, "HTTP 204, which is no archive"),
        ],
    )
    def test_answers_without_an_archive(
        self, server: Any, home: pathlib.Path, run_module: Run, failed: type[Exception], status: int, said: str
    ) -> None:
        server.status = status
        with pytest.raises(failed, match=said):
            self.fetch(run_module, home, server)
        assert left_behind(home) == []

    def test_nobody_there(self, home: pathlib.Path, run_module: Run, failed: type[Exception]) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            url = f"http://user:sesame@127.0.0.1:{unused.getsockname()[1]}/1.12.1.tar.gz"
            with pytest.raises(failed) as caught:
                run_module("dify_release", home=str(home), version="1.12.1", source=url)
        message = str(caught.value)
        assert "Connection refused" in message and "set stack_mirror" in message and "dify_archive_url" in message
        assert "sesame" not in message
        assert left_behind(home) == []

    def test_truncated_at_the_source(
        self, server: Any, home: pathlib.Path, run_module: Run, failed: type[Exception]
    ) -> None:
        server.content = server.content[: len(server.content) // 2]
        with pytest.raises(failed, match="is truncated or damaged"):
            self.fetch(run_module, home, server)
        assert left_behind(home) == [], "a damaged file is not continued by the next run"

    def test_the_login_in_a_url_is_not_kept(self, server: Any, home: pathlib.Path, run_module: Run) -> None:
        url = server.url.replace("://", "://user:sesame-open@")
        result = run_module("dify_release", home=str(home), version="1.12.1", source=url)
        marker = (home / "releases/1.12.1/.llmops-release.json").read_text()
        assert "sesame-open" not in marker + json.dumps(result)

    @pytest.mark.parametrize("login", ["user:sesame-open", "sesame-open", "user:pa@sesame-open"])
    def test_no_login_is_printed(
        self, server: Any, home: pathlib.Path, run_module: Run, failed: type[Exception], login: str
    ) -> None:
        url = server.url.replace("://", f"://{login}@")

        def refused(**options: Any) -> str:
            with pytest.raises(failed) as caught:
                run_module("dify_release", home=str(home), version="1.12.1", source=url, **options)
            return str(caught.value)

        messages = [refused(checksum="0" * 64)]
        server.content = server.content[: len(server.content) // 2]
        messages.append(refused())
        server.status = 404
        messages.append(refused())
        for message in messages:
            assert "sesame" not in message and "***@127.0.0.1" in message
