"""A Dify as its documentation says to set it up: an archive unpacked, .env edited, docker compose up."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import node
import pytest
import requests
from machine import ROOT, Machine
from people import Person, Program

NAME, PORT = "hand1", 18221
FOLDER = "/srv/dify"
RELEASE, NEXT = "1.11.4", "1.12.1"
MODEL = "deepseek-r1:1.5b"
SECRET = "sk-of-a-proxy-0123456789-ab"
OWNER = {"email": "owner@example.com", "password": "by-hand-2026"}
PUBLIC = "difyai123456"
# The two keys that many guides ask for, what an operator behind a mirror has to set, and a service that needs the host.
SET_UP = f"""
mkdir -p {FOLDER}
archive=http://upstream/github/langgenius/dify/archive/refs/tags/{RELEASE}.tar.gz
python3 -c "import sys, urllib.request as u; sys.stdout.buffer.write(u.urlopen('$archive').read())" |
  tar -xz --strip-components=1 -C {FOLDER}
cd {FOLDER}/docker
cp .env.example .env
sed -i 's/^LOG_LEVEL=.*/LOG_LEVEL=DEBUG/; s/^UPLOAD_FILE_SIZE_LIMIT=.*/UPLOAD_FILE_SIZE_LIMIT=33/' .env
sed -i 's#^MARKETPLACE_API_URL=.*#MARKETPLACE_API_URL=http://upstream/marketplace#' .env
sed -i 's#^PIP_MIRROR_URL=.*#PIP_MIRROR_URL=http://upstream/pypi/simple#; s/^DB_HOST=.*/DB_HOST=db_postgres/' .env
printf '%s\\n' CUSTOM_MODEL_ENABLED=true OLLAMA_API_BASE_URL=host.docker.internal:11434 >> .env
cat > docker-compose.override.yaml <<'END'
services:
  plugin_daemon:
    extra_hosts: ["host.docker.internal:host-gateway"]
END
docker compose up -d --quiet-pull
"""


class Hand:
    """The node, its Dify by hand, and who uses it."""

    def __init__(self) -> None:
        self.machine = Machine(NAME, "upgrade")
        self.key = ""
        self.conversation = ""

    @property
    def owner(self) -> Person:
        return Person(**OWNER).sign_in()

    def play(self, *options: str, version: str = RELEASE, **variables: Any) -> node.Run:
        wanted = {"dify_version": version, "dify_adopt": FOLDER, "dify_admin_password": OWNER["password"]}
        return self.machine.play("site.yml", *options, **{**wanted, **variables})

    def set_up(self) -> None:
        run = self.play("--tags=docker,compose,ollama", dify_adopt="")
        assert run.status == 0, run.output[-4000:]
        self.machine.on(SET_UP)
        self.wait()
        made = self.machine.play(
            "tests/scenarios/upgrade/by_hand.yml", password=OWNER["password"], model=MODEL, secret=SECRET
        )
        assert made.status == 0, made.output[-4000:]
        self.key = self.owner.add_app("made by hand", MODEL)
        self.conversation = str(Program(self.key).chat("What is kept?")["conversation"])

    def wait(self, seconds: float = 300) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if requests.get(f"{node.url()}/console/api/setup", timeout=10).ok:
                    return
            except requests.RequestException:
                pass
            time.sleep(1)
        raise AssertionError("the Dify that was set up by hand does not answer")

    def containers(self, project: str) -> dict[str, str]:
        of_project = f"--filter label=com.docker.compose.project={project}"
        listed = self.machine.on(f"docker ps -a {of_project} --format '{{{{.Names}}}} {{{{.State}}}}'")
        return dict(line.split() for line in listed.splitlines())

    def files(self) -> str:
        """Everything below the old folder but its data, which is compared by what it answers."""
        found = "find . -path ./docker/volumes -prune -o -type f -exec sha256sum {} +"
        return self.machine.on(f"cd {FOLDER} && {found} | sort")

    def stored(self) -> set[str]:
        """Files that people have stored, and private keys, with their digests."""
        found = "find . -type f ! -name '.standin*' -exec sha256sum {} +"
        return set(self.machine.on(f"cd {FOLDER}/docker/volumes/app/storage && {found}").splitlines())

    def secret_key(self) -> str:
        return self.machine.on(f"sed -n 's/^SECRET_KEY=//p' {FOLDER}/docker/.env")


@pytest.fixture(scope="module")
def hand() -> Iterator[Hand]:
    world = [sys.executable, str(ROOT / "tests/world/world.py")]
    tags = [f"--dify={tag}" for tag in (RELEASE, NEXT)]
    subprocess.run([*world, "up", *tags, f"--node={NAME}=trixie:{PORT}"], check=True, timeout=1800)
    before, one = node.MACHINE, Hand()
    node.MACHINE = one.machine
    try:
        one.set_up()
        yield one
    finally:
        node.MACHINE = before
        subprocess.run([*world, "down", NAME], check=True, timeout=300)
