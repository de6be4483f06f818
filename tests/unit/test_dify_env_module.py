# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module dify_env on a home that dify_release made."""

from __future__ import annotations

import errno
import json
import os
import pathlib
import stat
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from ansible_collections.llmops.stack.plugins.module_utils import _dify_env as env
from ansible_collections.llmops.stack.plugins.module_utils import _dify_release as store_module

Run = Callable[..., dict[str, Any]]


class Home:
    def __init__(self, path: pathlib.Path, run_module: Run, pack: Callable[..., pathlib.Path]) -> None:
        self.path = path
        self.secrets_file = path / "secrets.json"
        self._run = run_module
        self._pack = pack

    def unpack(self, tag: str) -> pathlib.Path:
        self._run("dify_release", home=str(self.path), version=tag, source=str(self._pack(tag)))
        return self.path / "releases" / tag

    def render(self, tag: str, check: bool = False, **options: Any) -> dict[str, Any]:
        return self._run("dify_env", check=check, home=str(self.path), version=tag, **options)

    def secrets(self) -> dict[str, str]:
        return json.loads(self.secrets_file.read_text())

    def files(self) -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in self.path.rglob("*") if path.is_file()}


@pytest.fixture
def home(tmp_path: pathlib.Path, run_module: Run, pack: Callable[..., pathlib.Path]) -> Home:
    return Home(tmp_path / "dify", run_module, pack)


def mode(path: pathlib.Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_every_release(dify_tag: str, home: Home, compose: Any) -> None:
    folder = home.unpack(dify_tag)
    result = home.render(dify_tag, url="http://dify.example.com", settings={"cpus": 2, "memory_mb": 4096})
    assert result["changed"]
    assert result["env_path"] == str(folder / ".env")
    assert result["override_path"] == str(folder / "docker-compose.override.yaml")
    assert mode(folder / ".env") == mode(folder / "docker-compose.override.yaml") == mode(home.secrets_file) == 0o600
    assert result["generated_secrets"] == sorted(set(home.secrets()) - {"ADMIN_PASSWORD_UNTRIED"})
    assert "DB_PASSWORD" in result["replaced_defaults"] and result["unknown_keys"] == []
    assert "api" in result["services"] and "weaviate" in result["profiles"]
    assert result["images"]["api"] == f"langgenius/dify-api:{dify_tag}"
    if dify_tag in ("0.15.3", "1.16.0"):
        services = compose.config(folder)["services"]
        assert sorted(services) == sorted(result["services"])
        assert {name: one["image"] for name, one in services.items()} == result["images"]

    again = home.render(dify_tag, url="http://dify.example.com", settings={"cpus": 2, "memory_mb": 4096})
    assert not again["changed"] and again["diff"] == [] and again["generated_secrets"] == []


def test_the_next_release_keeps_the_secrets(home: Home) -> None:
    home.unpack("1.9.2")
    home.render("1.9.2")
    before = home.secrets()
    folder = home.unpack("1.16.0")
    result = home.render("1.16.0")
    assert before.items() <= home.secrets().items()
    assert f"\nDB_PASSWORD={before['DB_PASSWORD']}\n" in (folder / ".env").read_text()
    assert "DIFY_AGENT_SERVER_SECRET_KEY" in result["generated_secrets"]


def test_what_was_taken_over(home: Home) -> None:
    """Its values count for less than the operator's; what everybody knows blanks no word of what comes back."""
    folder = home.unpack("1.12.1")
    home.secrets_file.write_text('{"SANDBOX_API_KEY": "dify-sandbox", "DB_PASSWORD": "difyai123456"}')
    (home.path / "adopted.json").write_text('{"LOG_LEVEL": "DEBUG", "UPLOAD_FILE_SIZE_LIMIT": "33"}')
    result = home.render("1.12.1", overrides={"LOG_LEVEL": "ERROR"})
    settings = (folder / ".env").read_text()
    assert "\nLOG_LEVEL=ERROR\n" in settings and "\nUPLOAD_FILE_SIZE_LIMIT=33\n" in settings
    assert "\nDB_PASSWORD=difyai123456\n" in settings
    assert result["images"]["sandbox"].startswith("langgenius/dify-sandbox:")


def test_certificates_go_along_to_the_next_release(home: Home) -> None:
    ssl = home.unpack("1.12.1") / "nginx" / "ssl"
    (ssl / "dify.key").write_text("a key")
    (ssl / "dify.key").chmod(0o600)
    (home.path / "current").symlink_to("releases/1.12.1")
    new = home.unpack("1.14.1") / "nginx" / "ssl" / "dify.key"
    home.render("1.14.1", check=True)
    assert not new.exists()
    assert home.render("1.14.1")["changed"] and new.read_text() == "a key" and mode(new) == 0o600
    assert not home.render("1.14.1")["changed"]
    new.write_text("put there for the new release")
    home.render("1.14.1")
    assert new.read_text() == "put there for the new release"
    # renewed where it is in use, after a try of the upgrade that came to nothing
    (ssl / "dify.key").write_text("renewed")
    later = new.stat().st_mtime_ns + 1_000_000_000
    os.utime(ssl / "dify.key", ns=(later, later))
    assert home.render("1.14.1")["changed"] and new.read_text() == "renewed" and mode(new) == 0o600
    assert not home.render("1.14.1")["changed"]
    # once it is the current release, nothing comes from elsewhere
    (home.path / "current").unlink()
    (home.path / "current").symlink_to("releases/1.14.1")
    os.utime(ssl / "dify.key", ns=(later + 10**9, later + 10**9))
    (ssl / "dify.key").write_text("of the old release")
    assert not home.render("1.14.1")["changed"]


def test_check_mode_writes_nothing_and_says_all(home: Home) -> None:
    bare = home.render("1.12.1", check=True)
    assert bare["changed"] and bare["services"] == [] and not home.path.exists()
    home.unpack("1.12.1")
    before = home.files()
    result = home.render("1.12.1", check=True, overrides={"NEW_THING": 1})
    assert result["changed"] and result["unknown_keys"] == ["NEW_THING"] and "api" in result["services"]
    assert [one["after_header"].rsplit("/", 1)[1] for one in result["diff"]] == [
        "secrets.json",
        ".env",
        "docker-compose.override.yaml",
    ]
    assert home.files() == before
    home.render("1.12.1")
    assert not home.render("1.12.1", check=True)["changed"]


CALLER = {"environment": {"PYTHONPATH": "/opt/seen"}, "labels": {"seen.digest": "1"}}
COLLECTOR = {"image": "otel/opentelemetry-collector-contrib:0.155.0", "environment": {"API_TOKEN": "open-sesame-3"}}
FRAGMENTS = [{"services": {"api": CALLER, "worker_beat": CALLER}}, {"services": {"otel_collector": COLLECTOR}}]


class TestFragments:
    @pytest.fixture
    def folder(self, home: Home) -> pathlib.Path:
        folder = home.unpack("1.0.0")
        home.render("1.0.0")
        (folder / ".llmops-pending").unlink()
        return folder

    def added(self, folder: pathlib.Path) -> dict[str, Any]:
        return yaml.safe_load((folder / "docker-compose.override.yaml").read_text())["services"]

    def test_services_that_they_bring_are_started_like_any_other(self, home: Home, folder: pathlib.Path) -> None:
        plain = home.render("1.0.0")
        assert not plain["changed"] and not plain["pending"]
        wish = {"compose_fragments": FRAGMENTS, "registry": "r:5000"}
        result = home.render("1.0.0", settings=wish)
        assert result["pending"] and result["services"] == [*plain["services"], "otel_collector"]
        image = "r:5000/otel/opentelemetry-collector-contrib:0.155.0"
        assert result["images"]["otel_collector"] == image == self.added(folder)["otel_collector"]["image"]
        assert "worker_beat" not in self.added(folder), "this release has none"
        assert self.added(folder)["otel_collector"]["logging"]["options"] == {"max-size": "50m", "max-file": "3"}
        assert "open-sesame-3" not in json.dumps(result)

    def test_only_another_one_asks_for_an_up(self, home: Home, folder: pathlib.Path) -> None:
        for fragments, changed in ((FRAGMENTS, True), (FRAGMENTS, False), (FRAGMENTS[:1], True), ([], True)):
            result = home.render("1.0.0", settings={"compose_fragments": fragments})
            assert (result["changed"], result["pending"]) == (changed, changed)
            assert ("otel_collector" in result["services"]) == (fragments == FRAGMENTS)
            (folder / ".llmops-pending").unlink(missing_ok=True)

    def test_a_check_run_shows_it(self, home: Home, folder: pathlib.Path) -> None:
        before = home.files()
        result = home.render("1.0.0", check=True, settings={"compose_fragments": FRAGMENTS})
        assert result["changed"] and result["pending"] and home.files() == before
        (diff,) = result["diff"]
        assert "otel_collector" in diff["after"] and "otel_collector" not in diff["before"]
        assert "open-sesame-3" not in diff["after"]

    def test_the_operators_word_is_the_last(self, home: Home, folder: pathlib.Path) -> None:
        own = {"services": {"api": {"environment": ["PYTHONPATH=/mine"]}, "otel_collector": {"image": "mine:1"}}}
        result = home.render("1.0.0", settings={"compose_fragments": FRAGMENTS, "compose_override": own})
        assert result["images"]["otel_collector"] == "mine:1"
        ours = {"EXPOSE_PLUGIN_DEBUGGING_PORT": "5003"}
        assert self.added(folder)["api"]["environment"] == {**ours, "PYTHONPATH": "/mine"}

    @pytest.mark.parametrize(
        ("settings", "expected"),
        [
            ({"compose_fragments": [{"services": ["api"]}]}, r"services must be a mapping.*dify_compose_fragments"),
            ({"compose_fragments": [{"services": {"api": "x"}}]}, r"The service api must be a mapping"),
            (
                {"compose_override": {"services": {"api": ["x"]}}},
                r"api must be a mapping.*Correct dify_compose_override",
            ),
        ],
    )
    def test_what_is_no_compose_file(
        self, home: Home, folder: pathlib.Path, failed: Any, settings: dict[str, Any], expected: str
    ) -> None:
        before = home.files()
        with pytest.raises(failed, match=expected):
            home.render("1.0.0", settings=settings)
        assert home.files() == before


def test_no_secret_comes_back(home: Home) -> None:
    home.unpack("1.16.0")
    wanted = {
        "DB_PASSWORD": "correct-horse-1",
        "SMTP_PASSWORD": "battery-staple-1",
        "HTTP_PROXY": "http://u:pw-99@proxy:1",
    }
    api = {"environment": {"MY_TOKEN": "open-sesame-1"}, "labels": ["X_TOKEN=open-sesame-2"]}
    laid_over = {"services": {"api": api}}
    first = home.render("1.16.0", overrides=wanted, settings={"compose_override": laid_over})
    wanted["SMTP_PASSWORD"] = "battery-staple-2"
    second = home.render("1.16.0", overrides=wanted)
    shown = json.dumps(first) + json.dumps(second)
    hidden = {*home.secrets().values(), *wanted.values(), "battery-staple-1", "open-sesame-1", "open-sesame-2", "pw-99"}
    assert [value for value in hidden if value in shown] == []
    assert "SMTP_PASSWORD=(hidden, changed)" in second["diff"][0]["after"]
    assert home.secrets()["DB_PASSWORD"] == "correct-horse-1", "an operator's secret is kept like a generated one"
    assert "invocation" in first, "the options of the call are among what was searched"


def test_modes_are_put_right(home: Home) -> None:
    folder = home.unpack("1.12.1")
    home.render("1.12.1")
    for path in (home.secrets_file, folder / ".env"):
        path.chmod(0o644)
    assert home.render("1.12.1")["changed"]
    assert mode(home.secrets_file) == mode(folder / ".env") == 0o600
    assert not home.render("1.12.1")["changed"]


def test_a_changed_template_marks_its_service(home: Home) -> None:
    folder = home.unpack("1.12.1")
    home.render("1.12.1")
    (folder / "nginx/conf.d/default.conf").write_text("written by nginx's entry point at each start")
    assert not home.render("1.12.1")["changed"]
    with (folder / "nginx/nginx.conf.template").open("a") as file:
        file.write("# changed\n")
    result = home.render("1.12.1")
    assert [one["after_header"] for one in result["diff"]] == [result["override_path"]]
    (folder / "nginx/ssl/dify.crt").write_text("a certificate of the operator")
    assert home.render("1.12.1")["changed"]


def test_keys_that_came_along_from_another_release(home: Home) -> None:
    home.unpack("1.0.0")
    home.unpack("1.16.0")
    result = home.render("1.16.0", overrides={"CODE_GENERATION_MAX_TOKENS": 1024, "LOG_LEVLE": "INFO"})
    assert result["unknown_keys"] == ["CODE_GENERATION_MAX_TOKENS", "LOG_LEVLE"]
    assert result["carried_unknown"] == ["CODE_GENERATION_MAX_TOKENS"]


def test_absent(home: Home) -> None:
    folder = home.unpack("1.12.1")
    home.render("1.12.1")
    assert home.render("1.12.1", check=True, state="absent")["changed"] and (folder / ".env").exists()
    assert home.render("1.12.1", state="absent")["changed"]
    assert not (folder / ".env").exists() and not (folder / "docker-compose.override.yaml").exists()
    assert home.secrets_file.exists()
    assert not home.render("1.12.1", state="absent")["changed"]


def test_the_owners_password_restarts_nothing(home: Home) -> None:
    folder = home.unpack("1.12.1")
    home.render("1.12.1")
    (folder / ".llmops-pending").unlink()
    # As it was before there was one.
    old = {key: value for key, value in home.secrets().items() if "ADMIN_PASSWORD" not in key}
    home.secrets_file.write_text(json.dumps(old, indent=1, sort_keys=True) + "\n")
    for check in (True, False):
        result = home.render("1.12.1", check=check)
        assert (result["changed"], result["pending"], result["generated_secrets"]) == (True, False, ["ADMIN_PASSWORD"])
        assert [one["after_header"] for one in result["diff"]] == [str(home.secrets_file)]
    password = home.secrets()["ADMIN_PASSWORD"]
    for check in (True, False):
        again = home.render("1.12.1", check=check)
        assert (again["changed"], again["pending"], again["diff"]) == (False, False, [])
    assert home.secrets() == {**old, "ADMIN_PASSWORD": password, "ADMIN_PASSWORD_UNTRIED": password}

    # The only copy of what opens Dify gives way to nothing that nobody has tried.
    chosen = home.render("1.12.1", settings={"admin_password": "chosen-by-0perator"})
    assert (chosen["changed"], home.secrets()["ADMIN_PASSWORD"]) == (False, password)
    shown = json.dumps([result, again, chosen])
    assert password not in shown and "chosen-by-0perator" not in shown
    assert not any(password in path.read_text() for path in folder.iterdir() if path.is_file())


def test_pending_until_somebody_says_otherwise(home: Home) -> None:
    folder = home.unpack("1.12.1")
    assert home.render("1.12.1", check=True)["pending"]
    assert home.render("1.12.1")["pending"] and home.render("1.12.1")["pending"]
    (folder / ".llmops-pending").unlink()
    assert not home.render("1.12.1")["pending"]
    assert home.render("1.12.1", check=True, overrides={"LOG_LEVEL": "DEBUG"})["pending"]


class TestOwnMigration:
    @pytest.fixture
    def folder(self, home: Home) -> pathlib.Path:
        folder = home.unpack("1.12.1")
        home.render("1.12.1")
        data = home.path / "volumes" / "db" / "data"
        data.mkdir(parents=True)
        (data / "PG_VERSION").write_text("15")
        return folder

    def enabled(self, folder: pathlib.Path) -> str:
        return env.parse_env((folder / ".env").read_text())["MIGRATION_ENABLED"]

    def test_a_first_install_migrates_by_itself(self, home: Home, folder: pathlib.Path) -> None:
        home.render("1.12.1")
        assert self.enabled(folder) == "true"

    def test_what_an_upgrade_migrates_does_not_and_stays_so(self, home: Home, folder: pathlib.Path) -> None:
        home.render("1.12.1", settings={"own_migration": True}, check=True)
        assert not (folder / ".llmops-migrated").exists()
        home.render("1.12.1", settings={"own_migration": True})
        assert self.enabled(folder) == "false"
        assert not home.render("1.12.1")["changed"] and self.enabled(folder) == "false"

    def test_the_operators_value_wins(self, home: Home, folder: pathlib.Path) -> None:
        home.render("1.12.1", settings={"own_migration": True}, overrides={"MIGRATION_ENABLED": True})
        assert self.enabled(folder) == "true"

    def test_an_empty_database_gets_its_tables_from_the_containers(self, home: Home, folder: pathlib.Path) -> None:
        home.render("1.12.1", settings={"own_migration": True})
        (home.path / "volumes/db/data/PG_VERSION").unlink()
        # one elsewhere cannot be looked at from here, and is not empty because this folder is
        home.render("1.12.1", overrides={"DB_HOST": "postgres.example.com"})
        assert self.enabled(folder) == "false"
        home.render("1.12.1")
        assert self.enabled(folder) == "true"
        (home.path / "volumes/db/data/PG_VERSION").write_text("15")
        assert not home.render("1.12.1")["changed"]


KEYS = [f"-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----" for text in ("MIIBIjAN", "MIIBIjAO")]


def test_keys_and_wheels(home: Home, tmp_path: pathlib.Path, failed: type[Exception]) -> None:
    folder, wheels = home.unpack("1.12.1"), tmp_path / "wheels"
    home.render("1.12.1")
    plain = home.files()
    wanted = {"plugin_public_keys": KEYS, "plugin_wheels": str(wheels), "plugin_index": "http://me:pw-99@mirror/simple"}
    with pytest.raises(failed, match=r"no wheels \(\*.whl\) in such a folder on this host. Copy them there"):
        home.render("1.12.1", settings=wanted)
    assert home.files() == plain
    would = home.render("1.12.1", check=True, settings=wanted)
    assert would["changed"] and "no wheels" in str(would["warnings"]) and home.files() == plain
    wheels.mkdir()
    (wheels / "some-1-py3-none-any.whl").write_text("")
    did = home.render("1.12.1", settings=wanted)
    assert did["diff"] == would["diff"] and "pw-99" not in json.dumps([would, did])
    names = sorted(path.name for path in (folder / "plugin-keys").iterdir())
    assert [mode(folder / "plugin-keys" / name) for name in names] == [0o644, 0o644]
    assert sorted((folder / "plugin-keys" / name).read_text().strip() for name in names) == sorted(KEYS)
    assert not home.render("1.12.1", settings=wanted)["changed"]

    fewer = home.render("1.12.1", settings={**wanted, "plugin_public_keys": KEYS[:1]})
    assert fewer["changed"] and len(list((folder / "plugin-keys").iterdir())) == 1
    assert home.render("1.12.1", check=True)["changed"]
    assert home.render("1.12.1")["changed"] and not (folder / "plugin-keys").exists()
    assert home.files() == plain


def test_a_release_without_plugins(home: Home, tmp_path: pathlib.Path) -> None:
    home.unpack("0.15.3")
    home.render("0.15.3")
    wanted = {"plugin_public_keys": KEYS, "plugin_wheels": str(tmp_path / "none"), "plugin_max_mb": 100}
    assert not home.render("0.15.3", settings={**wanted, "plugin_index": "http://m/s", "marketplace_url": "http://m"})[
        "changed"
    ]


class TestRefusals:
    @pytest.fixture
    def refused(self, home: Home, failed: type[Exception]) -> Callable[..., str]:
        home.unpack("1.12.1")
        home.render("1.12.1")

        def run(version: str = "1.12.1", **options: Any) -> str:
            before = home.files()
            with pytest.raises(failed) as caught:
                home.render(version, **options)
            assert home.files() == before, "nothing was touched"
            return str(caught.value)

        return run

    def test_bad_wishes(self, refused: Callable[..., str]) -> None:
        assert "SMTP_PASSWORD holds a line break" in refused(overrides={"SMTP_PASSWORD": "a-secret\nDEBUG=true"})
        assert "a-secret" not in refused(overrides={"SMTP_PASSWORD": "a-secret\nDEBUG=true"})
        assert "no name for a key" in refused(overrides={"bad key": "x"})
        assert "must hold the same value" in refused(overrides={"SANDBOX_API_KEY": "a", "CODE_EXECUTION_API_KEY": "b"})
        assert "url must be" in refused(url="dify.example.com")
        assert "plugin_index must begin with" in refused(settings={"plugin_index": "mirror"})
        assert "is no public key" in refused(settings={"plugin_public_keys": ["x"]})
        assert "8 characters or more" in refused(settings={"admin_password": "short"})
        assert "is not a release tag" in refused(version="../etc")
        assert "dify_release first" in refused(version="1.13.3")

    def test_damaged_secrets(self, refused: Callable[..., str], home: Home) -> None:
        for text in ("{", "[]", '{"DB_PASSWORD": 1}', ""):
            home.secrets_file.write_text(text)
            assert "secrets.json is damaged" in refused()

    def test_lost_secrets_with_a_database(self, refused: Callable[..., str], home: Home) -> None:
        known = {"DB_PASSWORD": "still-known-1", "SECRET_KEY": "still-known-2"}
        for folder in ("volumes/mysql/data/ibdata1", "volumes/db/data/pgdata"):
            home.secrets_file.unlink()
            data = home.path / folder
            data.mkdir(parents=True)
            message = refused()
            assert "Restore the file from a backup, or set DB_PASSWORD and SECRET_KEY" in message
            assert str(data.parent) in message
            for left, name in (("SECRET_KEY", "DB_PASSWORD"), ("DB_PASSWORD", "SECRET_KEY")):
                assert f"or set {left} in dify_env" in refused(overrides={name: known[name]})
            home.render("1.12.1", overrides=known)
            assert known.items() <= home.secrets().items()
            data.rmdir()

    def test_full_disk(self, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
        def full(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(store_module.os, "fsync", full)
        assert "is full" in refused(overrides={"LOG_LEVEL": "DEBUG"})

    def test_a_script_of_an_optional_service_is_missing(
        self, home: Home, pack: Callable[..., pathlib.Path], run_module: Run, failed: type[Exception]
    ) -> None:
        archive = pack("1.16.0", leave_out=("docker/pgvector/docker-entrypoint.sh",))
        run_module("dify_release", home=str(home.path), version="1.16.0", source=str(archive))
        home.render("1.16.0")
        with pytest.raises(failed, match=r"pgvector/docker-entrypoint.sh \(for pgvector\)"):
            home.render("1.16.0", overrides={"VECTOR_STORE": "pgvector"})


def test_a_kill_between_two_files_loses_no_secret(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets are on disk before any file that uses them."""
    folder = home.unpack("1.12.1")
    written: list[str] = []
    original = store_module.write_atomically

    def stop_after_one(path: str, text: str, mode: int) -> None:
        if written:
            raise KeyboardInterrupt
        written.append(os.path.basename(path))
        original(path, text, mode)

    monkeypatch.setattr(store_module, "write_atomically", stop_after_one)
    with pytest.raises(KeyboardInterrupt):
        home.render("1.12.1")
    assert written == ["secrets.json"] and not (folder / ".env").exists()
    kept = home.secrets()
    monkeypatch.setattr(store_module, "write_atomically", original)
    home.render("1.12.1")
    assert home.secrets() == kept
    assert env.parse_env((folder / ".env").read_text())["DB_PASSWORD"] == kept["DB_PASSWORD"]
