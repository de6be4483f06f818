"""Backups of a Dify that serves, asked for and by a timer; what becomes of one that cannot be finished."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import node
import pytest
import seed as seeds
from node import HOME, MACHINE, on_node
from people import Program
from state import State

RELEASE = "1.12.1"
FOLDER = f"{HOME}/backups"

pytestmark = [pytest.mark.at(RELEASE), pytest.mark.long]


def backup(*options: str, **variables: Any) -> node.Run:
    return MACHINE.play("playbooks/backup.yml", *options, dify_version=RELEASE, **variables)


def made(run: node.Run) -> str:
    """The folder that the run names."""
    assert run.status == 0, f"{run.message}\n{run.output[-4000:]}"
    found = re.search(r"backed up to\s+(\S+)", run.output)
    assert found, run.output[-2000:]
    return found[1]


def manifest(folder: str) -> dict[str, Any]:
    return dict(json.loads(on_node(f"cat {folder}/manifest.json")))


def names(folder: str = FOLDER) -> list[str]:
    return on_node(f"ls -1 {folder} 2>/dev/null || true").split()


@pytest.fixture
def nothing_written(seed: seeds.Seed) -> Iterator[State]:
    """The same containers on the same data, and not one folder of a backup more."""
    before, started, there = State.now(), node.containers(), names()
    yield before
    before.is_kept()
    assert (node.containers(), names()) == (started, there)


def test_while_it_serves(seed: seeds.Seed) -> None:
    before, started = State.now(), node.containers()
    folder = made(backup())
    assert node.containers() == started, "nothing was stopped or restarted for it"
    before.is_kept()
    said = manifest(folder)
    assert (said["version"], said["head"], said["warnings"]) == (RELEASE, before.head, [])
    assert said["keys"] == {"checked": 2, "missing": [], "foreign": []}
    ((segments,),) = node.sql("SELECT count(*) FROM document_segments WHERE status = 'completed'")
    assert sum(said["vectors"]["counts"].values()) == int(segments) >= 3
    sums = "\n".join(f"{one['sha256']}  {folder}/{one['name']}" for one in said["files"])
    on_node(f"sha256sum --check --quiet --strict <<'END'\n{sums}\nEND")
    assert set(on_node(f"find {folder} -type f -printf '%m '").split()) == {"600"}
    assert set(on_node(f"find {folder} -type d -printf '%m '").split()) == {"700"}
    listed = on_node(f"docker exec -i {node.database()} pg_restore --list < {folder}/dify.dump")
    tables = node.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    assert {row[0] for row in tables} <= set(re.findall(r"TABLE DATA public (\S+)", listed))
    assert f"privkeys/{said_tenant()}/private.pem" in on_node(f"tar -tf {folder}/storage.tar")
    assert seeds.ANSWER in Program(seed.owner_key).chat("Does it still serve?")["text"]


def said_tenant() -> str:
    return node.sql("SELECT id FROM tenants ORDER BY created_at LIMIT 1")[0][0]


def test_while_somebody_writes(seed: seeds.Seed) -> None:
    """The fingerprint is of the moment of the dump, whatever comes after it: what it counts is in the dump."""
    psql = f"docker exec -i {node.database()} psql -q -U postgres -d dify"
    row = "INSERT INTO tags (tenant_id, type, name, created_by) SELECT id, 'app', 'written', id FROM tenants LIMIT 1;"
    script = f'rm -f /tmp/enough; while [ ! -e /tmp/enough ]; do echo "{row}"; sleep 0.05; done | {psql}'
    writer = subprocess.Popen(["docker", "exec", MACHINE.container, "sh", "-c", script])
    try:
        folder = made(backup())
    finally:
        on_node("touch /tmp/enough")
        writer.wait(30)
    try:
        on_node(f"docker exec {node.database()} createdb -U postgres rehearsal")
        on_node(f"docker exec -i {node.database()} pg_restore --no-owner -U postgres -d rehearsal < {folder}/dify.dump")
        dumped = node.sql("SELECT count(*) FROM tags", "rehearsal")[0][0]
        assert 1 < int(dumped) < int(node.sql("SELECT count(*) FROM tags")[0][0])
        assert manifest(folder)["fingerprint"]["tags"][0] == int(dumped)
    finally:
        on_node(f"docker exec {node.database()} dropdb -U postgres --if-exists rehearsal")
        node.sql("DELETE FROM tags WHERE name = 'written'")


def test_the_oldest_go(seed: seeds.Seed) -> None:
    first = made(backup())
    second = made(backup(dify_backup_keep=1))
    assert first.rpartition("/")[2] not in names() and second.rpartition("/")[2] in names()
    assert len([name for name in names() if name.endswith("-manual")]) == 1


def test_a_check_run_tells(nothing_written: State) -> None:
    run = backup("--check")
    assert "would be" in " ".join(run.output.split()) and FOLDER in made(run)


def test_without_the_uploaded_files(seed: seeds.Seed) -> None:
    listed = on_node(f"tar -tf {made(backup(dify_backup_storage=False))}/storage.tar")
    assert "private.pem" in listed and "upload_files" not in listed


def test_a_disk_that_fills(nothing_written: State) -> None:
    with node.disk_that_fills() as small:
        run = backup(dify_backup_dir=small)
        assert run.status != 0
        for words in (MACHINE.name, "is full", "The unfinished backup was removed", "dify_backup_dir on another disk"):
            assert words in run.message, run.message
        assert names(small) == ["full"]


def test_no_room_from_the_beginning(nothing_written: State) -> None:
    small = "/mnt/small"
    on_node(f"mkdir -p {small} && mount -t tmpfs -o size=1m tmpfs {small}")
    try:
        run = backup(dify_backup_dir=small)
        assert run.status != 0 and "a backup needs about" in run.message, run.message
        assert names(small) == []
    finally:
        on_node(f"umount {small} && rmdir {small}")


def test_a_database_that_does_not_answer(nothing_written: State) -> None:
    on_node(f"docker pause {node.database()}")
    try:
        run = backup()
    finally:
        on_node("docker ps -q --filter status=paused | xargs docker unpause")
    assert run.status != 0 and "nothing else was touched" in run.message, run.message


class TestTheTimer:
    def scheduled(self, schedule: str, *options: str) -> node.Run:
        return MACHINE.play("site.yml", *options, dify_version=RELEASE, dify_backup_schedule=schedule)

    def test_its_life(self, seed: seeds.Seed) -> None:
        run = self.scheduled("*-*-* 03:30:00")
        assert run.status == 0, run.message
        assert "03:30:00" in on_node("systemctl list-timers dify-backup.timer --no-pager")
        on_node("systemctl start dify-backup.service")
        newest = max(names())
        assert newest.endswith(f"-{RELEASE}-scheduled")
        assert newest in on_node("journalctl -u dify-backup.service --no-pager --output cat -n 20")
        again = self.scheduled("*-*-* 03:30:00")
        assert (again.status, again.changed) == (0, 0), again.output[-4000:]
        assert self.scheduled("").status == 0
        assert on_node(f"ls -d {HOME}/lib /etc/systemd/system/dify-backup.* 2>/dev/null || true") == ""
        assert "dify-backup" not in on_node("systemctl list-timers --all --no-pager")

    def test_one_that_fails_is_a_unit_that_failed(self, seed: seeds.Seed) -> None:
        assert self.scheduled("daily").status == 0
        before = names()
        on_node(f"docker pause {node.database()}")
        try:
            assert on_node("systemctl start dify-backup.service && echo done || true") == ""
        finally:
            on_node("docker ps -q --filter status=paused | xargs docker unpause")
        assert names() == before
        assert "Dify was not backed up" in on_node("journalctl -u dify-backup.service --no-pager --output cat -n 5")
        assert self.scheduled("").status == 0

    def test_a_schedule_that_is_none(self, nothing_written: State) -> None:
        run = self.scheduled("every other tuesday")
        assert run.status != 0
        assert "every other tuesday" in run.message and "OnCalendar" in run.message, run.message
        assert on_node("ls /etc/systemd/system/dify-backup.* 2>/dev/null || true") == ""
