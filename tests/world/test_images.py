# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The world's images do what the stock compose files of the releases ask of them.

Every container below is started the way a release's own docker-compose.yaml starts it: image name, environment,
command, entry point and health check come from there. Releases that say the same share one run.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import images
import pytest
import yaml
from _build import Builder
from _engine import docker, inspect
from _settings import RELEASES, WORLD

TAGS = images.known_tags()
DEFAULT_PROFILES = {"", "postgresql", "weaviate"}
SCRIPT = "/docker-entrypoint-mount.sh"  # where the compose files mount a release's entry script

pytestmark = pytest.mark.skipif(not TAGS, reason=f"no release data in {RELEASES}")


def interpolated(value: Any) -> Any:
    """A compose value as it is without any .env: ${NAME:-default} is the default, $$ is $."""
    if isinstance(value, dict):
        return {key: interpolated(item) for key, item in value.items()}
    if isinstance(value, list):
        return [interpolated(item) for item in value]
    if not isinstance(value, str):
        return value
    return re.sub(r"\$\$|\$\{\w+(?::-([^}]*))?\}", lambda found: "$" if found[0] == "$$" else found[1] or "", value)


def services(tag: str) -> dict[str, dict[str, Any]]:
    """The services that `docker compose up` starts by default."""
    compose = yaml.safe_load((RELEASES / tag / "docker" / "docker-compose.yaml").read_text(encoding="utf-8"))
    return {
        name: interpolated(service)
        for name, service in compose["services"].items()
        if DEFAULT_PROFILES & set(service.get("profiles", [""]))
    }


def variants(image_prefix: str) -> list[Any]:
    """The different ways in which releases start an image, as parameters (tag, service name, service)."""
    seen: dict[str, tuple[str, str, dict[str, Any]]] = {}
    for tag in TAGS:
        for name, service in services(tag).items():
            if service["image"].startswith(image_prefix):
                seen.setdefault(f"{name} {json.dumps(service, sort_keys=True)}", (tag, name, service))
    return [pytest.param(*item, id=f"{item[0]}-{item[1]}") for item in seen.values()]


def templates(pattern: str) -> list[str]:
    """One tag for each different content of the files that match."""
    seen: dict[str, str] = {}
    for tag in TAGS:
        files = sorted((RELEASES / tag / "docker").glob(pattern))
        seen.setdefault("".join(file.read_text(encoding="utf-8") for file in files), tag)
    return list(seen.values())


class Started:
    """A container of one stock service."""

    def __init__(self, name: str, service: dict[str, Any]) -> None:
        self.name = name
        self.service = service

    def exec(self, *command: str, env: dict[str, str] | None = None, timeout: float = 30) -> tuple[int, str]:
        options = [f"--env={key}={value}" for key, value in (env or {}).items()]
        done = subprocess.run(
            ["docker", "exec", *options, self.name, *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        return done.returncode, done.stdout + done.stderr

    def healthy(self, deadline: float = 60) -> None:
        """Waits until the compose file's own health check passes."""
        kind, *command = self.service["healthcheck"]["test"]
        self.until(*(command if kind == "CMD" else ["/bin/sh", "-c", *command]), deadline=deadline)

    def until(self, *command: str, deadline: float = 60) -> str:
        end = time.monotonic() + deadline
        while True:
            code, output = self.exec(*command)
            if code == 0:
                return output
            if time.monotonic() > end:
                pytest.fail(f"{command} in {self.name}: {output}\n{self.logs()}")
            time.sleep(0.3)

    def logs(self) -> str:
        """Standard output, then standard error."""
        done = subprocess.run(["docker", "logs", self.name], capture_output=True, text=True, check=True)
        return done.stdout + done.stderr

    def logged(self, text: str, deadline: float = 10) -> None:
        """Waits for a line in the log, which arrives a little after what it tells of."""
        end = time.monotonic() + deadline
        while text not in self.logs():
            assert time.monotonic() < end, f"no {text!r} in\n{self.logs()}"
            time.sleep(0.2)

    def stop(self) -> int:
        docker("stop", "--time", "10", self.name)
        return int((inspect("container", self.name) or {})["State"]["ExitCode"])


Start = Callable[..., Started]


@pytest.fixture(scope="session")
def service_image() -> Callable[[str], str]:
    """From the name in a compose file to the world's image, built now if need be."""
    table = images.table()
    builder = Builder(table)
    names = {tag.removeprefix("library/"): image.name for image in table for tag in image.tags}
    return lambda reference: builder.ensure(names[reference])


@pytest.fixture(scope="session")
def network() -> Iterator[str]:
    name = f"llmops-test-{uuid.uuid4().hex[:8]}"
    docker("network", "create", name)
    yield name
    docker("network", "rm", name)


@pytest.fixture
def start(network: str, service_image: Callable[[str], str]) -> Iterator[Start]:
    """Starts a stock service the way compose does; `files` (host path -> container path) takes its volumes' place."""
    names: list[str] = []

    def run(
        service_name: str, service: dict[str, Any], files: dict[Path, str] | None = None, more: Iterable[str] = ()
    ) -> Started:
        name = f"llmops-test-{uuid.uuid4().hex[:8]}"
        options = [f"--env={key}={value}" for key, value in service.get("environment", {}).items()]
        for source, target in (files or {}).items():
            options.append(f"--volume={source}:{target}")
        command = service.get("command", [])
        if isinstance(command, str):
            command = shlex.split(command)
        entry = service.get("entrypoint", [])
        if entry:
            options.append(f"--entrypoint={entry[0]}")
            command = [*entry[1:], *command]
        names.append(name)
        docker(
            "run", "--detach", "--name", name, "--network", network, "--network-alias", service_name,
            *options, *more, service_image(service["image"]), *command,
        )  # fmt: skip
        return Started(name, service)

    yield run
    for name in names:
        docker("rm", "--force", "--volumes", name, check=False)


def test_every_stock_image_is_in_the_table() -> None:
    for tag in TAGS:
        served = {name.removeprefix("library/") for image in images.table({tag}) for name in image.tags}
        wanted = {service["image"] for service in services(tag).values()}
        assert wanted <= served, tag


def test_the_table_is_small_when_few_tags_are_asked_for() -> None:
    few, everything = images.table({TAGS[0]}), images.table()
    assert {image.name for image in few} < {image.name for image in everything}
    assert len({image.name for image in everything}) == len(everything)
    with pytest.raises(images.WorldError, match=r"9\.9\.9"):
        images.table({"9.9.9"})


@pytest.mark.world
@pytest.mark.parametrize(("tag", "name", "service"), variants("postgres:"))
def test_postgres(tag: str, name: str, service: dict[str, Any], start: Start, tmp_path: Path) -> None:
    environment = service["environment"]
    user = environment.get("POSTGRES_USER", "postgres")
    data = tmp_path / "data"
    volumes = {data: "/var/lib/postgresql/data"}
    database = start(name, service, volumes)
    database.healthy()

    query = ["psql", "-U", user, "-d", environment["POSTGRES_DB"], "-Atc"]
    # The old releases' health check passes while the data directory is still being prepared; TCP comes after that.
    database.until("pg_isready", "-h", name)
    assert database.until(*query, "show server_version_num").startswith("15")
    max_connections = re.search(r"max_connections=(\d+)", service["command"])
    assert max_connections and database.until(*query, "show max_connections").strip() == max_connections[1]
    database.until(*query, 'create extension "uuid-ossp"; create table kept as select 1')
    over_tcp = [query[0], "-h", name, *query[1:], "select 1"]
    assert database.exec(*over_tcp, env={"PGPASSWORD": environment["POSTGRES_PASSWORD"]})[0] == 0
    code, output = database.exec(*over_tcp, env={"PGPASSWORD": "wrong"})
    assert code and "password authentication failed" in output
    assert "CREATE TABLE public.kept" in database.until("pg_dump", "-U", user, environment["POSTGRES_DB"])
    assert (data / "pgdata").stat().st_uid == 70
    assert database.stop() == 0

    again = start(name, service, volumes)
    assert again.until(*query, "select * from kept").strip() == "1"


@pytest.mark.world
def test_postgres_without_a_password_says_so(start: Start) -> None:
    database = start("db", {"image": "postgres:15-alpine"})
    assert docker("wait", database.name, timeout=60).strip() == "1"
    database.logged("POSTGRES_PASSWORD")


@pytest.mark.world
@pytest.mark.parametrize(("tag", "name", "service"), variants("redis:"))
def test_redis(tag: str, name: str, service: dict[str, Any], start: Start, tmp_path: Path) -> None:
    volumes = {tmp_path / "data": "/data"}
    redis = start(name, service, volumes)
    redis.healthy()
    assert "OK" in redis.until("redis-cli", "set", "kept", "1")
    assert "NOAUTH" in redis.exec("redis-cli", "get", "kept", env={"REDISCLI_AUTH": ""})[1]
    assert redis.stop() == 0
    assert (tmp_path / "data" / "dump.rdb").stat().st_uid == 999

    again = start(name, service, volumes)
    again.healthy()
    assert again.until("redis-cli", "get", "kept").strip() == "1"


@pytest.mark.world
@pytest.mark.parametrize("tag", templates("nginx/**/*.template"))
def test_nginx(tag: str, start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "nginx"
    shutil.copytree(RELEASES / tag / "docker" / "nginx", folder)
    (folder / "ssl").mkdir(exist_ok=True)
    volumes: dict[Path, str] = {file: f"/etc/nginx/{file.name}" for file in folder.glob("*.template")}
    volumes |= {
        folder / "conf.d": "/etc/nginx/conf.d",
        folder / "ssl": "/etc/ssl",
        WORLD / "entrypoints" / "nginx.sh": SCRIPT,
    }
    # nginx wants to resolve at its start whom it forwards to.
    names = ["api", "web", "plugin_daemon"]
    nginx = start("nginx", services(tag)["nginx"], volumes, [f"--add-host={name}:127.0.0.1" for name in names])
    client = start("client", {"image": "busybox:latest", "command": "sleep 600"})
    # Nothing listens behind it, which is nginx' own answer.
    client.until("sh", "-c", "wget -O- http://nginx/v1/ 2>&1 | grep 'HTTP/1.1 502'", deadline=20)
    nginx.logged('"GET /v1/ HTTP/1.1" 502')
    nginx.logged("connect() failed")


@pytest.mark.world
@pytest.mark.parametrize("tag", templates("ssrf_proxy/*.template"))
def test_squid(tag: str, start: Start, tmp_path: Path) -> None:
    service = services(tag)["ssrf_proxy"]
    template = RELEASES / tag / "docker" / "ssrf_proxy" / "squid.conf.template"
    script = WORLD / "entrypoints" / "ssrf_proxy.sh"
    squid = start("ssrf_proxy", service, {template: "/etc/squid/squid.conf.template", script: SCRIPT})
    squid.until("squid", "-k", "check")
    assert squid.exec("squid", "-k", "parse")[0] == 0

    client = start("client", {"image": "busybox:latest", "command": "sh -c 'echo inside >/index.html; httpd -f -h /'"})
    get = "http_proxy=http://ssrf_proxy:3128 wget -O- http://client/index.html 2>&1"
    refuses_private = "deny to_private_networks" in template.read_text(encoding="utf-8")
    client.until("sh", "-c", f"{get} | grep -q '{'HTTP/1.1 403' if refuses_private else 'inside'}'", deadline=20)


@pytest.mark.world
@pytest.mark.parametrize(("tag", "name", "service"), variants("semitechnologies/weaviate:"))
def test_weaviate(tag: str, name: str, service: dict[str, Any], start: Start, tmp_path: Path) -> None:
    weaviate = start(name, service, {tmp_path / "data": "/var/lib/weaviate"})
    client = start("client", {"image": "busybox:latest", "command": "sleep 600"})
    client.until("wget", "-q", "-O-", f"http://{name}:8080/v1/.well-known/ready")
    meta = ["wget", "-q", "-O-", f"http://{name}:8080/v1/meta"]
    assert client.exec(*meta)[0] != 0
    key = service["environment"]["AUTHENTICATION_APIKEY_ALLOWED_KEYS"]
    answer = json.loads(client.until(*meta, "--header", f"Authorization: Bearer {key}"))
    assert service["image"] == f"semitechnologies/weaviate:{answer['version']}"
    assert any((tmp_path / "data").iterdir())
    assert weaviate.stop() == 0


@pytest.mark.world
@pytest.mark.parametrize(("tag", "name", "service"), variants("busybox:"))
def test_busybox(tag: str, name: str, service: dict[str, Any], start: Start, tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    (storage / "upload_files").mkdir(parents=True)
    init = start(name, service, {storage: "/app/api/storage"})
    assert docker("wait", init.name, timeout=60).strip() == "0"
    assert (storage / "upload_files").stat().st_uid == 1001
    assert (storage / ".init_permissions").exists()
