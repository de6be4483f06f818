# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in of Dify's API as a process: migrations and their exit codes, slots, storage, worker.

What is expected of each release is what the observed upgrade runs and the recordings of Dify with its daemon show.
"""

from __future__ import annotations

import ast
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from instance_api import Instance, interpreter
from plugin_daemon_api import Daemon, Ollama

OWNER = {"email": "admin@example.com", "name": "Admin", "password": "Passw0rd!x"}
HEADS = {"1.7.0": "8bcc02c9bd07", "1.12.1": "788d3099ae3a", "1.14.1": "a4f2d8c9b731", "1.16.0": "7a1c2d9e4b60"}
Make = Callable[..., Instance]


@pytest.fixture
def make(postgres: Any, redis_server: Any) -> Iterator[Make]:
    if not interpreter():
        pytest.skip("no Python with psycopg2, redis and yaml (Debian: python3-psycopg2 python3-redis python3-yaml)")
    made: list[Instance] = []

    def new(release: str) -> Instance:
        made.append(Instance(release, postgres, redis_server, 40 + len(made)))
        return made[-1]

    yield new
    for instance in made:
        instance.close()


def head(instance: Instance) -> str:
    query = "SELECT version_num FROM alembic_version"
    return str(instance.postgres.query(query, database=instance.database)[0][0])


def fault(instance: Instance, text: str) -> None:
    (instance.home / "faults.json").write_text(text, encoding="utf-8")


@pytest.mark.parametrize("release", HEADS)
def test_migration_reaches_the_head_of_the_release(make: Make, release: str) -> None:
    instance = make(release)
    first = instance.flask("upgrade-db")
    assert first.returncode == 0
    assert first.stdout.splitlines() == [
        "Preparing database migration...",
        "Starting database migration.",
        "Database migration successful!",
    ]
    assert head(instance) == HEADS[release]
    assert instance.flask("db", "heads").stdout == f"{HEADS[release]} (head)\n"
    assert instance.flask("db", "current").stdout == f"{HEADS[release]} (head)\n"
    second = instance.flask("upgrade-db")
    assert second.stdout == first.stdout
    assert "Running upgrade" not in second.stderr


def test_every_release_upgrades_to_the_newest(make: Make) -> None:
    instance = make("0.15.3")
    for release in (
        "0.15.3",
        "1.0.0",
        "1.3.1",
        "1.7.0",
        "1.9.2",
        "1.10.1",
        "1.11.0",
        "1.11.4",
        "1.12.1",
        "1.13.3",
        "1.14.0",
        "1.14.1",
        "1.14.2",
        "1.15.0",
        "1.16.0",
    ):
        done = instance.flask("upgrade-db", STANDIN_VERSION=release)
        assert done.returncode == 0, done.stderr
        assert "Database migration successful!" in done.stdout
    assert head(instance) == HEADS["1.16.0"]


@pytest.mark.parametrize(
    ("release", "before", "code"),
    [("1.7.0", "1.3.1", 0), ("1.12.1", "1.11.4", 0), ("1.14.1", "1.13.3", 1), ("1.16.0", "1.15.0", 1)],
)
def test_a_failing_migration_says_what_the_release_says(make: Make, release: str, before: str, code: int) -> None:
    instance = make(release)
    instance.flask("upgrade-db", STANDIN_VERSION=before)
    old = head(instance)
    fault(instance, '{"migration": "fail"}')
    failed = instance.flask("upgrade-db")
    assert failed.returncode == code
    assert "Database migration successful!" not in failed.stdout
    assert ("Database migration failed: " in failed.stdout) == (code == 1)
    assert ("ERROR [root] Failed to execute database migration" in failed.stderr) == (release == "1.7.0")
    # All in one transaction, but for the revision of 1.4.2 that builds its index outside of it.
    assert head(instance) == ("2adcbe1f5dfb" if release == "1.7.0" else old)
    fault(instance, "{}")
    again = instance.flask("upgrade-db")
    assert ("Database migration successful!" in again.stdout) == (release != "1.7.0")


def test_exit_codes_of_what_surrounds_a_migration(make: Make, redis_server: Any) -> None:
    instance = make("1.12.1")
    assert instance.flask("upgrade-db", DB_PASSWORD="wrong").returncode == 0
    assert instance.flask("db", "upgrade", DB_PASSWORD="wrong").returncode == 1
    assert instance.flask("upgrade-db", STANDIN_VERSION="1.14.1", DB_PASSWORD="wrong").returncode == 1
    no_redis = instance.flask("upgrade-db", REDIS_PORT="1")
    assert no_redis.returncode == 1
    assert no_redis.stderr.splitlines()[-1].startswith("redis.exceptions.ConnectionError: Error 111 connecting to")
    assert instance.flask("upgrade-db", STANDIN_VERSION="1.16.0").returncode == 0
    newer = instance.flask("upgrade-db")
    assert newer.returncode == 1
    assert "ERROR [flask_migrate] Error: Can't locate revision identified by '7a1c2d9e4b60'" in newer.stderr


def test_the_lock_makes_a_second_migration_skip(make: Make) -> None:
    instance = make("1.16.0")
    fault(instance, '{"migration": "slow:3"}')
    first = threading.Thread(target=instance.flask, args=("upgrade-db",))
    first.start()
    time.sleep(1.5)
    second = instance.flask("upgrade-db")
    first.join()
    assert (second.returncode, second.stdout.splitlines()[-1]) == (0, "Database migration skipped")
    assert head(instance) == HEADS["1.16.0"]


def test_a_wrong_head_can_be_ordered(make: Make) -> None:
    instance = make("1.12.1")
    fault(instance, '{"head": "0123456789ab"}')
    assert instance.flask("upgrade-db").returncode == 0
    assert head(instance) == "0123456789ab"


def test_revision_files_form_one_chain(make: Make, tmp_path: Path) -> None:
    instance = make("1.12.1")
    command = [interpreter(), "-m", "standin.api.revisions", str(tmp_path)]
    subprocess.run(command, check=True, env=instance.environment, timeout=60)
    down = {}
    for path in tmp_path.glob("*.py"):
        values = {
            node.targets[0].id: ast.literal_eval(node.value)
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }
        down[values["revision"]] = values["down_revision"]
    assert len(down) == 161
    assert set(down) - set(down.values()) == {HEADS["1.12.1"]}
    assert list(down.values()).count(None) == 1


def test_storage_that_cannot_be_written_fails_the_setup_only(make: Make) -> None:
    instance = make("1.12.1")
    instance.flask("upgrade-db")
    instance.start()
    # A file in the place of the folder stops root as well.
    blocker = instance.home / "storage" / "privkeys"
    blocker.write_text("", encoding="utf-8")
    assert instance.send("POST", "/console/api/setup", body=OWNER).status == 500
    assert instance.send("GET", "/console/api/setup").json["step"] == "not_started"
    blocker.unlink()
    assert instance.send("POST", "/console/api/setup", body=OWNER).status == 201
    assert len(list(blocker.glob("*/private.pem"))) == 1


def test_storage_that_cannot_be_made_ends_the_process(make: Make) -> None:
    instance = make("1.16.0")
    (instance.home / "storage").write_text("", encoding="utf-8")
    done = instance.flask("upgrade-db")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


@pytest.mark.parametrize(("release", "written"), [("1.14.0", False), ("1.14.1", True)])
def test_an_empty_secret_key_is_generated_from_1_14_1_on(make: Make, release: str, written: bool) -> None:
    instance = make(release)
    instance.flask("upgrade-db")
    instance.start(SECRET_KEY="")
    key = instance.home / "storage" / ".dify_secret_key"
    assert key.exists() == written
    if written:
        assert len(key.read_bytes()) == 65


def test_hanging_calls_take_the_slots_of_health(make: Make) -> None:
    instance = make("1.12.1")
    instance.flask("upgrade-db")
    instance.start(SERVER_WORKER_AMOUNT="1", SERVER_WORKER_CONNECTIONS="2")
    fault(instance, '{"api": "slow:4"}')
    clients = [threading.Thread(target=instance.send, args=("GET", "/console/api/ping")) for _ in range(2)]
    for client in clients:
        client.start()
    time.sleep(0.5)
    fault(instance, "{}")
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        instance.send("GET", "/health", timeout=1)
    for client in clients:
        client.join()
    assert instance.send("GET", "/health", timeout=5).status == 200
    assert time.monotonic() - started < 10


def test_faults_of_the_api(make: Make) -> None:
    instance = make("1.12.1")
    instance.flask("upgrade-db")
    instance.start()
    fault(instance, '{"api": "500"}')
    assert instance.send("GET", "/health").status == 500
    fault(instance, '{"worker.start": "crash"}')
    assert instance.send("GET", "/health").status == 200
    worker = run_worker(instance)
    assert worker.wait(timeout=20) == 1


def run_worker(instance: Instance, role: str = "worker") -> subprocess.Popen[bytes]:
    return instance.spawn("celery_cli", role, log="worker.log")


def wait_for(condition: Callable[[], bool], seconds: float = 15) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize("role", ["worker", "beat"])
def test_worker_and_beat_end_on_sigterm(make: Make, role: str) -> None:
    instance = make("1.16.0")
    process = run_worker(instance, role)
    word = b"ready" if role == "worker" else b"Starting"
    assert wait_for(lambda: word in (instance.home / "worker.log").read_bytes())
    process.terminate()
    assert process.wait(timeout=10) == 0


def test_worker_without_its_broker_keeps_trying(make: Make) -> None:
    instance = make("1.12.1")
    instance.environment["CELERY_BROKER_URL"] = "redis://:secret@127.0.0.1:1/1"
    process = run_worker(instance)
    log = instance.home / "worker.log"
    assert wait_for(lambda: b"Cannot connect to redis://:**@127.0.0.1:1/1" in log.read_bytes())
    assert process.poll() is None
    assert b"secret" not in log.read_bytes()
    process.terminate()
    assert process.wait(timeout=10) == 0


def test_health_check_of_the_worker(make: Make) -> None:
    instance = make("1.16.0")
    ping = [interpreter(), "-m", "standin.api.celery_cli", "-A", "celery_healthcheck.celery", "inspect", "ping"]
    assert subprocess.run(ping, check=False, env=instance.environment, capture_output=True, timeout=30).returncode == 69
    process = run_worker(instance)
    try:
        assert wait_for(lambda: subprocess.run(ping, check=False, env=instance.environment, timeout=30).returncode == 0)
    finally:
        process.terminate()
        process.wait(timeout=10)


def test_the_same_credentials_survive_an_upgrade(make: Make) -> None:
    """A model of 1.7.0 is there in 1.12.1, under the name that the migration gives its credential."""
    daemon, ollama = Daemon("1.7.2"), Ollama()
    daemon.installed = True
    instance = make("1.7.0")
    instance.environment["PLUGIN_DAEMON_URL"] = daemon.url
    instance.flask("upgrade-db")
    instance.start()
    instance.send("POST", "/console/api/setup", body=OWNER)
    instance.send("POST", "/console/api/login", body={"email": OWNER["email"], "password": OWNER["password"]})
    base = "/console/api/workspaces/current/model-providers/langgenius/ollama/ollama/models"
    given = {
        "base_url": ollama.url,
        "mode": "chat",
        "context_size": "4096",
        "max_tokens": "4096",
        "api_key": "secret-key-1",
    }
    model = {"model": "llama3.2", "model_type": "llm", "credentials": given}
    assert instance.send("POST", base, body=model, headers=instance.session()).status == 200
    instance.stop()
    instance.environment["STANDIN_VERSION"] = "1.12.1"
    assert instance.flask("upgrade-db").returncode == 0
    instance.start()
    old_token = instance.session()
    assert instance.send("GET", "/console/api/workspaces", headers=old_token).status == 401
    instance.tokens = {}
    login = {"email": OWNER["email"], "password": "UGFzc3cwcmQheA=="}
    assert instance.send("POST", "/console/api/login", body=login).status == 200
    found = instance.send("GET", f"{base}/credentials?model=llama3.2&model_type=llm", headers=instance.session()).json
    assert found["current_credential_name"] == "API_KEY1"
    assert found["credentials"]["api_key"] == "secret************-1"
    for path in instance.home.glob("storage/privkeys/*/private.pem"):
        other = subprocess.run(
            ["openssl", "genrsa", "-traditional", "2048"], check=True, capture_output=True, timeout=60
        )
        path.write_bytes(other.stdout)
    clear_private_keys(instance)
    broken = instance.send("GET", f"{base}/credentials?model=llama3.2&model_type=llm", headers=instance.session()).json
    assert broken["credentials"]["api_key"].startswith("SFlCUk******")
    daemon.close()
    ollama.close()


def clear_private_keys(instance: Instance) -> None:
    redis = pytest.importorskip("redis")
    environment = instance.environment
    client = redis.Redis(
        port=int(environment["REDIS_PORT"]), password=environment["REDIS_PASSWORD"], db=int(environment["REDIS_DB"])
    )
    for key in client.scan_iter("tenant_privkey:*"):
        client.delete(key)
    client.close()
