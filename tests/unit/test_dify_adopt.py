# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a Dify that was set up by hand is taken for."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from ansible_collections.llmops.stack.plugins.module_utils import _dify_adopt_take as take
from ansible_collections.llmops.stack.plugins.module_utils._dify_adopt import Found, Mount, Old, Report, report
from ansible_collections.llmops.stack.plugins.module_utils._dify_adopt_look import (
    beforehand,
    compose_folder,
    differences,
    edited,
    look,
    old_container,
    strangers,
)
from ansible_collections.llmops.stack.plugins.modules import dify_adopt
from ansible_collections.llmops.stack.plugins.modules.dify_adopt import DifyAdopt

PUBLIC_KEY = "sk-9f73s3ljTXVcMT3Blb3ljTqtsKiGHXVcMT3BlbkFJLK7U"
COMPOSE = """
x-shared-env: &shared
  LOG_LEVEL: ${LOG_LEVEL:-INFO}
  SECRET_KEY: ${SECRET_KEY:-""}
  DB_HOST: ${DB_HOST:-db_postgres}
  DB_PASSWORD: ${DB_PASSWORD:-difyai123456}
  REDIS_PASSWORD: ${REDIS_PASSWORD:-difyai123456}
  CELERY_BROKER_URL: ${CELERY_BROKER_URL:-redis://:difyai123456@redis:6379/1}
  SMTP_PASSWORD: ${SMTP_PASSWORD:-}
  UPLOAD_FILE_SIZE_LIMIT: ${UPLOAD_FILE_SIZE_LIMIT:-15}
services:
  api:
    image: langgenius/dify-api:1.11.4
    environment: {<<: *shared, MODE: api}
  nginx:
    image: nginx:latest
    ports: ["${EXPOSE_NGINX_PORT:-80}:80"]
"""
TEMPLATE = f"""
LOG_LEVEL=INFO
SECRET_KEY={PUBLIC_KEY}
DB_HOST=db_postgres
DB_PASSWORD=difyai123456
REDIS_PASSWORD=difyai123456
CELERY_BROKER_URL=redis://:difyai123456@redis:6379/1
UPLOAD_FILE_SIZE_LIMIT=15
EXPOSE_NGINX_PORT=80
COMPOSE_PROFILES=${{VECTOR_STORE:-weaviate}},${{DB_TYPE:-postgresql}}
"""
WANTED = {"version": "1.11.4", "http_port": 80, "https_port": 443}


def container(service: str, **changes: Any) -> Old:
    values: dict[str, Any] = {
        "id": f"id-{service}", "name": f"docker-{service}-1", "service": service, "image": "langgenius/dify-api:1.11.4",
        "state": "running", "policy": "always", "project": "docker",
    }  # fmt: skip
    return Old(**{**values, **changes})


def found(env: str = TEMPLATE, **changes: Any) -> Found:
    values: dict[str, Any] = {
        "folder": "/srv/dify/docker", "compose_text": COMPOSE, "env_text": env, "template": TEMPLATE,
        "database_files": True,
    }  # fmt: skip
    return Found(**{**values, **changes})


def read(env: str = TEMPLATE, wanted: dict[str, Any] | None = None, **changes: Any) -> Report:
    return report(found(env, **changes), {**WANTED, **(wanted or {})})


class TestValues:
    def test_a_template_that_nobody_touched_gives_nothing_but_its_secrets(self) -> None:
        seen = read()
        assert seen.values == {} and seen.refusals == [] and seen.version == "1.11.4"
        assert seen.secrets["DB_PASSWORD"] == "difyai123456" and seen.secrets["SECRET_KEY"] == PUBLIC_KEY

    def test_what_was_changed_is_carried_and_secrets_are_not_shown(self) -> None:
        seen = read(TEMPLATE.replace("LIMIT=15", "LIMIT=50") + "SMTP_PASSWORD=correct-horse\n")
        assert seen.values == {"UPLOAD_FILE_SIZE_LIMIT": "50", "SMTP_PASSWORD": "correct-horse"}
        assert seen.shown() == {"UPLOAD_FILE_SIZE_LIMIT": "50", "SMTP_PASSWORD": "(hidden)"}
        assert "correct-horse" not in " ".join(seen.warnings)

    def test_a_running_container_counts_for_more_than_the_file(self) -> None:
        api = container("api", env={"LOG_LEVEL": "DEBUG", "DB_PASSWORD": "in-use-123", "LANG": "C.UTF-8"})
        seen = read(TEMPLATE.replace("LEVEL=INFO", "LEVEL=ERROR"), containers=[api])
        assert seen.values == {"LOG_LEVEL": "DEBUG"}
        assert seen.secrets["DB_PASSWORD"] == "in-use-123"
        told = next(text for text in seen.warnings if "edited after" in text)
        assert "LOG_LEVEL" in told and "in-use-123" not in told

    def test_a_default_of_the_compose_file_that_the_template_has_otherwise(self) -> None:
        """A key that .env lacks has the compose file's default, and must keep it."""
        without = TEMPLATE.replace("UPLOAD_FILE_SIZE_LIMIT=15\n", "")
        api = container("api", env={"UPLOAD_FILE_SIZE_LIMIT": "15"})
        template = TEMPLATE.replace("LIMIT=15", "LIMIT=20")
        assert read(without, containers=[api], template=template).values == {"UPLOAD_FILE_SIZE_LIMIT": "15"}

    def test_the_guides_keys_and_others_that_reach_nobody_are_left_out(self) -> None:
        guide = "CUSTOM_MODEL_ENABLED=true\nOLLAMA_API_BASE_URL=host.docker.internal:11434\nTYPOO=1\nlower=1\n"
        seen = read(TEMPLATE + guide)
        assert seen.values == {} and seen.dead == ["CUSTOM_MODEL_ENABLED", "OLLAMA_API_BASE_URL", "TYPOO"]
        assert any("CUSTOM_MODEL_ENABLED" in text and "dify_models" in text for text in seen.warnings)

    def test_a_release_that_hands_on_the_whole_file_keeps_unknown_keys(self) -> None:
        compose = COMPOSE.replace("services:", "services:\n  worker:\n    env_file: [.env]")
        seen = read(TEMPLATE + "OF_A_PLUGIN=1\nCUSTOM_MODEL_ENABLED=true\n", compose_text=compose)
        assert seen.values == {"OF_A_PLUGIN": "1"} and seen.dead == ["CUSTOM_MODEL_ENABLED"]

    @pytest.mark.parametrize(("host", "carried"), [("db", False), ("db_postgres", False), ("db.example.com", True)])
    def test_the_name_of_a_service_is_no_address(self, host: str, carried: bool) -> None:
        template = TEMPLATE.replace("DB_HOST=db_postgres\n", "")
        seen = read(
            TEMPLATE.replace("DB_HOST=db_postgres", f"DB_HOST={host}"), template=template, database_files=not carried
        )
        assert ("DB_HOST" in seen.values) == carried and not seen.refusals
        assert carried or host == "db_postgres" or any("DB_HOST=db is written out" in text for text in seen.warnings)

    def test_the_broker_follows_the_password_and_profiles_follow_their_keys(self) -> None:
        env = TEMPLATE.replace("difyai123456", "another-1").replace("${VECTOR_STORE:-weaviate}", "weaviate")
        seen = read(env)
        assert seen.values == {} and seen.secrets["REDIS_PASSWORD"] == "another-1"
        assert read(TEMPLATE + "COMPOSE_PROFILES=weaviate,certbot\n").values == {"COMPOSE_PROFILES": "weaviate,certbot"}

    def test_references_in_the_file_are_followed(self) -> None:
        seen = read(TEMPLATE + "BASE=debug\nLOG_LEVEL=${BASE:-x}\nSMTP_PASSWORD=$BASE\n")
        assert seen.values["LOG_LEVEL"] == "debug" and seen.values["SMTP_PASSWORD"] == "debug"


class TestSecrets:
    def test_public_defaults_are_kept_and_said_with_the_way_to_change_them(self) -> None:
        seen = read()
        assert set(seen.public) == {"SECRET_KEY", "DB_PASSWORD", "REDIS_PASSWORD"}
        told = {name: next(text for text in seen.warnings if text.startswith(name)) for name in seen.public}
        assert "ALTER USER" in told["DB_PASSWORD"] and "signs in again" in told["SECRET_KEY"]
        assert "remove the name from secrets.json" in told["REDIS_PASSWORD"]
        assert all(text.endswith(".") for text in seen.warnings)
        assert all("difyai123456" not in text and PUBLIC_KEY not in text for text in seen.warnings)

    def test_a_key_that_dify_made_for_itself_is_found(self) -> None:
        env = TEMPLATE.replace(PUBLIC_KEY, "")
        new: dict[str, Any] = {"compose_text": COMPOSE.replace("1.11.4", "1.14.1"), "wanted": {"version": "1.14.1"}}
        assert read(env, storage_key="made-by-dify", **new).secrets["SECRET_KEY"] == "made-by-dify"
        assert "SECRET_KEY is empty" in read(env, **new).refusals[0]

    def test_a_store_that_nobody_uses_keeps_no_public_password(self) -> None:
        seen = read(TEMPLATE + "QDRANT_API_KEY=difyai123456\nPGVECTOR_PASSWORD=of-another-server\n")
        assert "QDRANT_API_KEY" not in seen.secrets and seen.secrets["PGVECTOR_PASSWORD"] == "of-another-server"
        assert "QDRANT_API_KEY" in read(TEMPLATE + "QDRANT_API_KEY=difyai123456\nVECTOR_STORE=qdrant\n").secrets


class TestRefusals:
    def only(self, seen: Report) -> str:
        assert len(seen.refusals) == 1, seen.refusals
        return seen.refusals[0]

    def test_another_release_than_the_wanted_one(self) -> None:
        assert "two runs: set dify_version to 1.11.4" in self.only(read(wanted={"version": "1.12.1"}))

    def test_no_dify(self) -> None:
        assert "no docker-compose.yaml" in self.only(read(compose_text=""))
        assert "cannot be told" in self.only(read(containers=[container("api", image="mine/api:7")]))
        assert "no docker" not in self.only(read(containers=[container("api", image="langgenius/dify-api:main")]))

    def test_no_data(self) -> None:
        assert "nothing to take over" in self.only(read(database_files=False))

    def test_data_in_a_volume_of_docker(self) -> None:
        named = container("db_postgres", mounts=[Mount("volume", "docker_pg", "/var/lib/postgresql/data", True)])
        assert "docker_pg" in self.only(read(containers=[named]))
        nameless = container("redis", mounts=[Mount("volume", "0" * 64, "/data", True)])
        assert read(containers=[nameless]).refusals == []

    def test_another_port(self) -> None:
        nginx = container("nginx", ports={"80/tcp": [("", "8080")], "443/tcp": [("", "443")]})
        assert "dify_http_port: 8080" in self.only(read(containers=[nginx]))
        assert read(containers=[nginx], wanted={"http_port": 8080}).refusals == []
        assert "dify_http_port: 81" in self.only(read(TEMPLATE.replace("PORT=80", "PORT=127.0.0.1:81")))

    def test_whoever_else_writes_to_the_data(self) -> None:
        told = self.only(read(strangers=["moved-db-1"], containers=[container("api")]))
        assert told.startswith("moved-db-1 runs with /srv/dify/docker/volumes") and "docker compose up -d" in told
        assert "postmaster.pid" in self.only(read(postmaster="/v/postmaster.pid"))
        assert read(postmaster="/v/postmaster.pid", containers=[container("api")]).refusals == []

    def test_a_project_of_the_same_name(self) -> None:
        """Compose would take the old containers for its own and replace them, so they could not come back."""
        same = [container("api", project="dify")]
        assert "docker compose -p dify down" in self.only(read(containers=same, wanted={"project": "dify"}))
        assert read(containers=[container("api")], wanted={"project": "dify"}).refusals == []


class TestStrangers:
    """Real folders: what counts is which one a container's process sees."""

    class Engine:
        def __init__(self, *described: dict[str, Any]) -> None:
            self.described = described

        def output(self, arguments: list[str], _timeout: float) -> str:
            assert arguments[:2] == ["ps", "-q"]
            return " ".join(one["Id"] for one in self.described)

        def run(self, _arguments: list[str], _timeout: float) -> tuple[int, str, str]:
            return 0, json.dumps(self.described), ""

    def running(self, source: Path, target: str, writable: bool = True, pid: int = 0) -> Any:
        mount = {"Type": "bind", "Source": str(source), "Destination": target, "RW": writable}
        return self.Engine({"Id": "1", "Name": "/other-db-1", "State": {"Pid": pid}, "Mounts": [mount]})

    def test_a_writer_is_found_by_path_and_by_what_its_process_sees(self, tmp_path: Path) -> None:
        data = tmp_path / "volumes" / "db" / "data"
        data.mkdir(parents=True)
        folder, mine = str(tmp_path), os.getpid()
        assert strangers(folder, [], self.running(data, "/pg")) == ["other-db-1"]
        # moved since: the engine's source is gone, the mount is not
        assert strangers(folder, [], self.running(Path("/was/here"), str(data), pid=mine)) == ["other-db-1"]
        assert strangers(folder, [container("db_postgres", id="1")], self.running(data, "/pg")) == []
        assert strangers(folder, [], self.running(data, "/pg", writable=False)) == []
        assert strangers(folder, [], self.running(tmp_path / "mine", str(tmp_path), pid=mine)) == []


class TestBeforehand:
    def test_what_shows_before_anything_is_rendered(self, tmp_path: Path) -> None:
        mounts = [Mount("bind", str(tmp_path), "/data", True), Mount("bind", "/srv/dify/docker/volumes/x", "/x", True)]
        beside, known = container("ollama"), container("api", mounts=mounts)
        told = beforehand(found(containers=[beside, known]))
        assert len(told) == 2 and "ollama runs beside" in told[0] and str(tmp_path) in told[1]
        assert beforehand(found(containers=[container("ollama", state="exited"), container("api")])) == []


class TestWarnings:
    def test_the_file_is_newer_than_what_runs(self) -> None:
        api = container("api", image="langgenius/dify-api:1.11.3")
        seen = read(containers=[api], wanted={"version": "1.11.3"})
        assert not seen.refusals and any("1.11.4, but 1.11.3 runs" in text for text in seen.warnings)

    def test_what_else_is_odd(self) -> None:
        nginx = container("nginx", ports={"80/tcp": [("10.0.0.5", "80")], "443/tcp": [("", "443")]}, state="exited")
        told = " ".join(read(TEMPLATE + "DB_TYPE=mysql\n", has_override=True, containers=[nginx]).warnings)
        for word in (
            "dify_compose_override",
            "dify_bind_address: 10.0.0.5",
            "do not run: nginx",
            "The database is mysql",
        ):
            assert word in told


class TestDifferences:
    DATA = "/srv/dify/docker/volumes/db/data"

    def ours(self, source: str = DATA) -> dict[str, Any]:
        mount = {"type": "bind", "source": source, "target": "/var/lib/postgresql/data"}
        return {
            "services": {
                "db_postgres": {"image": "postgres:15-alpine", "volumes": [mount]},
                "api": {
                    "image": "langgenius/dify-api:1.11.4",
                    "environment": {"DB_PASSWORD": "a", "LOG_LEVEL": "INFO"},
                },
            }
        }

    def test_the_same_folder_in_the_same_place(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("os.path.isdir", lambda _path: True)
        mounts = [Mount("bind", self.DATA, "/var/lib/postgresql/data", True)]
        mounts.append(Mount("bind", "/srv/dify/docker/nginx/conf.d", "/etc/nginx/conf.d", True))  # the release's own
        database = container("db_postgres", mounts=mounts, image="postgres:15-alpine")
        assert differences("/srv/dify/docker", [database], self.ours()) == ([], [])
        (against,), _known = differences("/srv/dify/docker", [database], self.ours("/opt/dify/volumes/db/data"))
        assert self.DATA in against and "/opt/dify/volumes/db/data" in against
        elsewhere = container("db_postgres", mounts=[Mount("bind", "/data/pg", "/var/lib/postgresql/data", True)])
        assert "/data/pg" in differences("/srv/dify/docker", [elsewhere], self.ours())[0][0]

    def test_another_secret_a_lost_service_and_other_values(self) -> None:
        api = container("api", env={"DB_PASSWORD": "b", "LOG_LEVEL": "DEBUG"})
        extra = container("ollama", image="ollama/ollama:latest")
        against, known = differences("/srv/dify/docker", [api, extra], self.ours())
        assert "another DB_PASSWORD" in against[0] and "ollama runs beside Dify" in against[1]
        assert known == ["api: other values of LOG_LEVEL."]
        stopped = container("ollama", state="exited")
        assert differences("/srv/dify/docker", [stopped], self.ours()) == ([], [])


def test_what_the_engine_says_of_a_container() -> None:
    ports = {"80/tcp": [{"HostIp": "", "HostPort": "80"}]}
    described = {
        "Id": "1", "Name": "/docker-nginx-1", "State": {"Status": "running"},
        "Config": {"Image": "nginx:latest", "Env": ["A=b=c"],
                   "Labels": {"com.docker.compose.service": "nginx", "com.docker.compose.project": "docker"}},
        "HostConfig": {"RestartPolicy": {"Name": "always"}, "PortBindings": ports},
        "Mounts": [{"Type": "volume", "Name": "v", "Destination": "/d", "RW": True}],
    }  # fmt: skip
    one = old_container(described)
    assert (one.name, one.service, one.project, one.policy, one.env) == (
        "docker-nginx-1", "nginx", "docker", "always", {"A": "b=c"})  # fmt: skip
    assert one.ports == {"80/tcp": [("", "80")]} and one.mounts == [Mount("volume", "v", "/d", True)]


def test_the_folder_of_a_checkout_and_what_was_edited_in_it(tmp_path: Path) -> None:
    docker = tmp_path / "docker"
    docker.mkdir()
    (docker / "docker-compose.yaml").write_text(COMPOSE)
    assert compose_folder(str(tmp_path)) == str(docker) == compose_folder(str(docker))
    shipped = {"docker-compose.yaml": "0" * 64, ".env.example": "0" * 64, "gone": "0" * 64}
    assert edited(str(docker), shipped) == ["docker-compose.yaml"]
    (docker / "docker-compose.yaml").rename(docker / "docker-compose.yaml.adopted")
    assert compose_folder(str(tmp_path)) == str(docker)


def test_the_files_of_a_newer_release_count_for_less_than_its_env(tmp_path: Path) -> None:
    for name, text in (
        ("docker-compose.yaml", COMPOSE),
        (".env", "LOG_LEVEL=INFO\n"),
        (".env.example", "LOG_LEVEL=INFO\n"),
        ("envs/core-services/shared.env", "LOG_LEVEL=DEBUG\nSMTP_SERVER=mail\nKEPT=1\n"),
        ("envs/core-services/shared.env.example", "SMTP_SERVER=\nKEPT=1\n"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    seen = look(str(tmp_path), cast(Any, FakeDocker([])))
    compose = COMPOSE.replace("services:", "services:\n  worker:\n    env_file: [.env]")
    values = report(found(seen.env_text, template=seen.template, compose_text=compose), WANTED).values
    assert values == {"SMTP_SERVER": "mail"}


class FakeDocker:
    def __init__(self, containers: list[Old]) -> None:
        self.containers = containers
        self.calls: list[list[str]] = []

    def output(self, arguments: list[str], timeout: float, stdin: str | None = None) -> str:
        self.calls.append(arguments)
        if arguments[0] == "stop":
            for one in self.containers:
                if one.id in arguments:
                    one.state = "exited"
        if arguments[0] == "update":
            for one in self.containers:
                if one.id in arguments:
                    one.policy = arguments[2]
        if arguments[0] == "start":
            for one in self.containers:
                if one.id in arguments:
                    one.state = "running"
        if arguments[0] == "rm":
            self.containers[:] = [one for one in self.containers if one.id not in arguments]
        return "net1\n" if arguments[:2] == ["network", "ls"] else ""

    def run(self, arguments: list[str], timeout: float, *_more: Any, **_kept: Any) -> tuple[int, str, str]:
        self.calls.append(arguments)
        return 0, "", ""

    def project(self, _name: str, _timeout: float) -> list[Any]:
        return []


class TestTaking:
    @pytest.fixture
    def old(self) -> list[Old]:
        oneshot = container("init_permissions", state="exited", policy="no")
        return [container("api"), container("db_postgres"), container("nginx"), oneshot]

    @pytest.fixture
    def adoption(self, tmp_path: Path, old: list[Old], monkeypatch: pytest.MonkeyPatch) -> take.Adoption:
        source = tmp_path / "srv"
        (source / "volumes" / "db" / "data").mkdir(parents=True)
        (source / "docker-compose.yaml").write_text(COMPOSE)
        (tmp_path / "home").mkdir()
        docker = FakeDocker(old)
        monkeypatch.setattr(take, "containers_of", lambda _folder, _docker: docker.containers)
        return take.Adoption(str(tmp_path / "home"), str(source), docker=cast(Any, docker))

    def prepared(self, adoption: take.Adoption) -> Report:
        seen = Report("1.11.4", "docker", {"LOG_LEVEL": "DEBUG"}, {"SECRET_KEY": PUBLIC_KEY})
        adoption.prepare(Found(folder=adoption.source), seen)
        return seen

    def test_written_down_once_and_readable_by_nobody_else(self, adoption: take.Adoption) -> None:
        self.prepared(adoption)
        home = Path(adoption.home)
        assert adoption.changed and (home / "volumes").resolve() == Path(adoption.source, "volumes")
        assert json.loads((home / "adopted.json").read_text()) == {"LOG_LEVEL": "DEBUG"}
        for name in ("adopted.json", "secrets.json", ".llmops-adopt.json"):
            assert (home / name).stat().st_mode & 0o777 == 0o600
        adoption.changed = False
        self.prepared(adoption)
        assert not adoption.changed

    def test_a_secret_that_was_corrected_there_counts_until_ours_run(self, adoption: take.Adoption) -> None:
        self.prepared(adoption)
        secrets = Path(adoption.home, "secrets.json")
        for phase, expected in (("prepared", PUBLIC_KEY), ("finished", "new")):
            adoption.journal["phase"] = phase
            secrets.write_text('{"SECRET_KEY": "new", "OF_OURS": "x"}')
            self.prepared(adoption)
            assert json.loads(secrets.read_text()) == {"SECRET_KEY": expected, "OF_OURS": "x"}

    def test_a_certificate_that_was_renewed_there_is_taken_again(self, adoption: take.Adoption) -> None:
        there = Path(adoption.source, "nginx", "ssl", "dify.crt")
        there.parent.mkdir(parents=True)
        for text in ("March", "May"):
            there.write_text(text)
            adoption.prepare(Found(folder=adoption.source, certificates=["dify.crt"]), Report("1.11.4", "docker"))
            assert Path(adoption.home, "releases", "1.11.4", "nginx", "ssl", "dify.crt").read_text() == text

    def test_edited_files_are_left_behind_only_when_somebody_says_so(
        self, adoption: take.Adoption, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(type(adoption.project), "definition", lambda _self, _tag: {"services": {}})
        monkeypatch.setattr(take, "read_marker", lambda _folder: {"files": {"docker-compose.yaml": "0" * 64}})
        seen = Found(folder=adoption.source)
        with pytest.raises(take.AdoptError, match=r"docker-compose\.yaml.*dify_adopt_accept: \[edited_files\]"):
            adoption.compare(seen, "1.11.4")
        assert "docker-compose.yaml" in adoption.compare(seen, "1.11.4", ["edited_files"])[0]

    def test_a_check_run_writes_nothing(self, adoption: take.Adoption) -> None:
        adoption.prepare(Found(folder=adoption.source), Report("1.11.4", "docker", {}, {"A": "b"}), pretend=True)
        assert adoption.changed and list(Path(adoption.home).iterdir()) == []

    def test_a_folder_of_shipped_files_gives_way_and_one_with_others_does_not(self, adoption: take.Adoption) -> None:
        shipped = Path(adoption.home, "releases", "1.11.4", "volumes.shipped", "sandbox")
        volumes = Path(adoption.home, "volumes", "sandbox")
        for folder in (shipped, volumes):
            folder.mkdir(parents=True)
            (folder / "config.yaml").write_text("a: 1\n")
        (volumes / "mine.txt").write_text("?")
        with pytest.raises(take.AdoptError, match=r"mine\.txt"):
            self.prepared(adoption)
        (volumes / "mine.txt").unlink()
        self.prepared(adoption)
        assert Path(adoption.home, "volumes").is_symlink()

    def test_the_old_ones_stop_for_good_and_can_come_back(self, adoption: take.Adoption, old: list[Old]) -> None:
        self.prepared(adoption)
        adoption.take(old)
        assert {one.policy for one in old} == {"no"} and {one.state for one in old} == {"exited"}
        stops = [call for call in cast(Any, adoption.docker).calls if call[0] == "stop"]
        assert [call[-1] for call in stops] == ["id-nginx", "id-api", "id-db_postgres"]  # the database last
        again = take.Adoption(adoption.home, adoption.source, docker=adoption.docker)
        again.take(old)  # a second process finds what the first one noted
        again.give_back()
        assert {one.service: (one.state, one.policy) for one in old} == {
            "api": ("running", "always"), "db_postgres": ("running", "always"), "nginx": ("running", "always"),
            "init_permissions": ("exited", "no"),
        }  # fmt: skip
        assert again.phase == "prepared"

    def test_at_the_end_nobody_can_start_them_by_habit(self, adoption: take.Adoption, old: list[Old]) -> None:
        self.prepared(adoption)
        adoption.take(old)
        adoption.finish()
        source = Path(adoption.source)
        assert old == [] and adoption.phase == "finished"
        assert not (source / "docker-compose.yaml").exists() and (source / "docker-compose.yaml.adopted").exists()
        assert "do not remove it" in (source / "TAKEN-OVER.txt").read_text()
        assert (source / "volumes" / "db" / "data").is_dir()

    def test_one_home_takes_over_one_installation(self, adoption: take.Adoption, tmp_path: Path) -> None:
        assert adoption.refusals() == []
        self.prepared(adoption)
        assert "takes over one" in take.Adoption(adoption.home, "/srv/other").refusals()[0]
        own = tmp_path / "own"
        (own / "volumes" / "db" / "data").mkdir(parents=True)
        assert "a database of its own" in take.Adoption(str(own), adoption.source).refusals()[0]


class TestModule:
    """The module's own part: which state may follow which, and what a run that died left."""

    def module(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: list[Old], **options: Any) -> DifyAdopt:
        params = {**WANTED, "source": str(tmp_path / "srv"), "home": str(tmp_path / "home"), "project": "dify",
                  "state": "found", "accept": [], **options}  # fmt: skip
        one = DifyAdopt(cast(Any, SimpleNamespace(params=params, check_mode=False, no_log_values=set())))
        docker = FakeDocker(old)
        one.adoption.docker = one.adoption.project.docker = cast(Any, docker)
        for where in (dify_adopt, take):
            monkeypatch.setattr(where, "containers_of", lambda _folder, _docker: docker.containers)
        seen = found(folder=one.adoption.source, containers=old)
        monkeypatch.setattr(dify_adopt, "look", lambda _folder, _docker: seen)
        return one

    @pytest.fixture
    def old(self, tmp_path: Path) -> list[Old]:
        (tmp_path / "home").mkdir()
        (tmp_path / "srv" / "volumes" / "db" / "data").mkdir(parents=True)
        (tmp_path / "srv" / "docker-compose.yaml").write_text(COMPOSE)
        return [container("api", env={"LOG_LEVEL": "DEBUG", "DB_PASSWORD": "in-use-123"}), container("db_postgres")]

    def test_a_report_hides_what_it_must(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: list[Old]) -> None:
        one = self.module(tmp_path, monkeypatch, old)
        told = one.run()
        assert told["version"] == "1.11.4" and told["compose_project"] == "docker" and not told["changed"]
        assert told["values"] == {"LOG_LEVEL": "DEBUG"} and "DB_PASSWORD" in told["secrets"]
        assert "in-use-123" not in json.dumps(told) and "in-use-123" in one.module.no_log_values

    def test_nothing_follows_a_refusal(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: list[Old]) -> None:
        one = self.module(tmp_path, monkeypatch, old, version="1.12.1", state="prepared")
        with pytest.raises(take.AdoptError, match="two runs"):
            one.run()
        assert list((tmp_path / "home").iterdir()) == []

    def test_a_run_that_died_is_finished_by_the_next(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: list[Old]
    ) -> None:
        self.module(tmp_path, monkeypatch, old, state="prepared").run()
        one = self.module(tmp_path, monkeypatch, old, state="compared")
        services: dict[str, Any] = {"services": {"api": {}, "db_postgres": {}}}
        monkeypatch.setattr(type(one.adoption.project), "definition", lambda _self, _tag: services)
        monkeypatch.setattr(take, "read_marker", lambda _folder: {})
        assert not one.run()["changed"] and {one.state for one in old} == {"running"}
        self.module(tmp_path, monkeypatch, old, state="taken").run()
        assert {one.state for one in old} == {"exited"}
        assert not self.module(tmp_path, monkeypatch, old, state="compared").run()["changed"]
        # another version cannot be begun in between, and "finished" may die between its own steps
        (tmp_path / "srv" / "docker-compose.yaml").rename(tmp_path / "srv" / "docker-compose.yaml.adopted")
        told = self.module(tmp_path, monkeypatch, old, version="1.12.1").run()
        assert "Set dify_version to 1.11.4" in told["refusals"][0] and not told["finished"]
        self.module(tmp_path, monkeypatch, old, state="finished").run()
        assert old == []
        told = self.module(tmp_path, monkeypatch, old, version="1.12.1").run()
        assert told["finished"] and told["refusals"] == [] and not told["changed"]
