# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in of Dify's API answers the recorded steps that it claims to support as Dify did.

Each block below is a stretch of recorded steps with the circumstances it was recorded under: variables of the API, the
state of the plugin daemon or of the model server. A release's blocks run in order on one instance, because later steps
use what earlier ones made.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import transcripts_api as transcripts
from instance_api import Instance, Reply, interpreter
from plugin_daemon_api import CHECKSUM, Daemon, Ollama
from transcripts_api import Mismatch, Step

FACTS = Path(os.environ.get("LLMOPS_FACTS_DIR") or Path(__file__).resolve().parents[4] / "shared" / "facts")
INIT = {"INIT_PASSWORD": "init-pass-1"}
HTTPS = {"CONSOLE_WEB_URL": "https://dify.example.com", "CONSOLE_API_URL": "https://dify.example.com"}
UPLOAD = (
    "multipart/form-data; boundary=----recboundary",
    '------recboundary\nContent-Disposition: form-data; name="pkg"; filename="ollama.difypkg"\n'
    "Content-Type: application/octet-stream\n\nBADSIG\n------recboundary--\n",
)
DSL = """app: {{name: probe, mode: chat, icon: x, icon_background: '#FFEAD5', description: ''}}
dependencies: []
kind: app
model_config: {{model: {{provider: langgenius/ollama/ollama, name: llama3.2, mode: chat, completion_params: {{}}}}}}
version: {version}
"""
ADMIN = {"ADMIN_API_KEY_ENABLE": "true", "ADMIN_API_KEY": "rec-admin-key"}


@dataclass(frozen=True)
class Block:
    """`steps`: "1-8 10 12-20". `daemon`: attributes of the recorded daemon; "down" closes its port."""

    steps: str
    environment: dict[str, str] = field(default_factory=dict)
    daemon: dict[str, Any] = field(default_factory=dict)
    model: str = ""
    new_database: bool = False
    file: str = "dify-transcripts.md"
    release: str = ""  # as the file names it, where that is not the release that runs
    outage: str = ""  # postgres | redis: stopped while the block runs
    compared: bool = True  # False: steps of another release that only prepare

    def numbers(self) -> list[int]:
        found: list[int] = []
        for part in self.steps.split():
            first, _, last = part.partition("-")
            found += range(int(first), int(last or first) + 1)
        return found


def management(trouble: str) -> dict[str, Any]:
    return {"management": trouble}


def dispatch(trouble: str) -> dict[str, Any]:
    return {"dispatch": trouble}


DOWN = {"down": True}
THREE = {"honours_blocking": False}  # the recorded daemon of section D ignored stream:false
BAD_SIGNATURE = "plugin verification has been enabled, and the plugin you want to install has a bad signature"
E2E, NEWEST = "dify-daemon-e2e.md", "dify-1.16.md"


def troubles(management_401: str, not_found: str, no_node: str, no_instance: str) -> list[Block]:
    """The steps about dispatches that fail, in the order of section C."""
    return [
        Block(management_401, daemon=management("unauthorized")),
        Block(not_found, daemon=dispatch("not_found")),
        Block(no_node, daemon=dispatch("no_node")),
        Block(no_instance, daemon=dispatch("no_instance")),
    ]


CLAIMS: dict[str, list[Block]] = {
    "0.15.3": [
        Block("1-20"),
        Block("21-63", INIT),
        Block("64-127"),
        Block("128 130", model="missing"),
        Block("129 131", model="mid"),
        Block("132-133", model="down"),
        Block("134-153 160-163 171-195"),
        Block("197-206", ADMIN),
        Block("207-210", new_database=True),
    ],
    "1.7.2": [
        Block("1-20"),
        Block("21-58", INIT),
        Block("59-77 79-112"),
        Block("113-116", daemon=DOWN),
        Block("117-119", daemon=management("unauthorized")),
        Block("120-122", daemon=management("html502")),
        Block("123-125", daemon=management("code500")),
        *troubles("126-127", "128-129", "130-131", "132-133"),
        Block("134-137", daemon={"task_fails": True}),
        Block("138-175", daemon=THREE),
        Block("176-177", daemon={**THREE, **dispatch("connection")}),
        Block("178-179", daemon=dispatch("unavailable")),
        Block("180-181", daemon=dispatch("no_node")),
        Block("182-183", daemon=dispatch("not_found")),
        Block("184-185", daemon=dispatch("no_instance")),
        Block("186-187", daemon=dispatch("nothing")),
        Block("188-189", daemon=management("unauthorized")),
        Block("190-191", daemon=DOWN),
        Block("192-208"),
        Block("209-210", daemon={"forgotten": True}),
        Block("211-214 221-224 232-237"),
        Block("238", daemon=dispatch("connection_at_once")),
        Block("239", daemon=dispatch("connection")),
        Block("240-241", daemon=dispatch("value")),
        Block("242-243", daemon=dispatch("timeout")),
        Block("249-275"),
        Block("277-286", ADMIN, {"installed": True}),
        Block("291-294", new_database=True),
    ],
    "1.12.1": [
        Block("1-20"),
        Block("21-47 50-63", INIT),
        Block("64-82 84-126"),
        Block("127-130", daemon=DOWN),
        Block("131-133", daemon=management("unauthorized")),
        Block("134-136", daemon=management("html502")),
        Block("137-139", daemon=management("code500")),
        *troubles("140-141", "142-143", "144-145", "146-147"),
        Block("148-151", daemon={"task_fails": True}),
        Block("152-189", daemon=THREE),
        Block("190-191", daemon={**THREE, **dispatch("connection")}),
        Block("192-193", daemon=dispatch("unavailable")),
        Block("194-195", daemon=dispatch("no_node")),
        Block("196-197", daemon=dispatch("not_found")),
        Block("198-199", daemon=dispatch("no_instance")),
        Block("200-201", daemon=dispatch("nothing")),
        Block("202-203", daemon=management("unauthorized")),
        Block("204-205", daemon=DOWN),
        Block("206-222"),
        Block("223-224", daemon={"forgotten": True}),
        Block("225-228 235-238 246-251"),
        Block("252", daemon=dispatch("connection_at_once")),
        Block("253", daemon=dispatch("connection")),
        Block("254-255", daemon=dispatch("value")),
        Block("256-257", daemon=dispatch("timeout")),
        Block("258-259", daemon=dispatch("unauthorized")),
        Block("260-261", daemon=dispatch("html502")),
        # Faults, as recorded with the real daemon.
        Block("1-2 4-5", daemon=DOWN, file=E2E),
        Block("46-48", daemon=dispatch("no_instance"), file=E2E),
        Block("49", daemon=dispatch("no_node"), file=E2E),
        Block("54-55", daemon=dispatch("empty"), file=E2E),
        Block("61-62", daemon=management("unauthorized"), file=E2E),
        Block("58", outage="postgres", file=E2E),
        Block("59-60", outage="redis", file=E2E),
        Block("263-274 276-290"),
        Block("292-302", {**HTTPS, **ADMIN}),
        Block("308-311", HTTPS, new_database=True),
    ],
    "1.16.0": [
        Block("1-2", file=NEWEST),
        Block("33 45 68", release="1.12.1", compared=False),
        Block("4", daemon=management("code500"), file=NEWEST),
        Block(
            "6",
            daemon={"signature": BAD_SIGNATURE},
            file=NEWEST,
        ),
        Block("7", daemon={"decode": "unknown"}, file=NEWEST),
        Block("8", daemon={"decode": "malformed"}, file=NEWEST),
        Block("9", file=NEWEST),
        Block("11", daemon={"installed": True}, file=NEWEST),
        Block("14", daemon=management("unauthorized"), file=NEWEST),
        Block("15 18-19", file=NEWEST),
        Block("16-17", release="1.16.0-upgraded", file=NEWEST),
        Block("99 119", release="1.12.1", compared=False),
        Block("3 20-22", file=NEWEST),
        Block("24-26", file=NEWEST),
        Block("27", daemon=dispatch("empty"), file=NEWEST),
        Block("29-31", daemon=DOWN, file=NEWEST),
        Block("32-33", daemon={**management("unauthorized"), **dispatch("unauthorized")}, file=NEWEST),
    ],
}


def build_blocks() -> list[Any]:
    return [pytest.param(release, id=release) for release in CLAIMS]


@pytest.fixture(scope="module")
def recorded() -> dict[str, dict[tuple[str, int], Step]]:
    if not (FACTS / "dify-transcripts.md").is_file():
        pytest.skip(f"no recordings in {FACTS} (set LLMOPS_FACTS_DIR)")
    if not interpreter():
        pytest.skip("no Python with psycopg2, redis and yaml (Debian: python3-psycopg2 python3-redis python3-yaml)")
    return {path.name: transcripts.read(path) for path in FACTS.glob("dify-*.md")}


class Replay:
    """One release: its instance, the daemon and the model server that it talks to."""

    def __init__(self, release: str, postgres: Any, redis_server: Any) -> None:
        self.release, self.postgres, self.redis_server = release, postgres, redis_server
        self.number = 20 + list(CLAIMS).index(release)
        self.daemon, self.ollama = Daemon(release), Ollama()
        self.instance = self._new()
        self.circumstances: Any = None
        self.model_config: dict[str, Any] = {}

    def _new(self) -> Instance:
        instance = Instance(self.release, self.postgres, self.redis_server, self.number)
        instance.environment["PLUGIN_DAEMON_URL"] = self.daemon.url
        assert instance.flask("upgrade-db").returncode == 0
        instance.names["<64 hex>"] = CHECKSUM
        return instance

    def close(self) -> None:
        self.instance.close()
        self.daemon.close()
        self.ollama.close()

    def enter(self, block: Block) -> None:
        """Puts the world into the state that a block was recorded in."""
        if block.new_database:
            names = self.instance.names
            self.instance.close()
            self.instance = self._new()
            self.instance.names |= {"<old>": "", **{key: value for key, value in names.items() if "64 hex" in key}}
            self.circumstances = None
        for name, value in {
            "management": "",
            "dispatch": "",
            "honours_blocking": True,
            "task_fails": False,
            "forgotten": False,
            "decode": "",
            "signature": "bad signature",
            **block.daemon,
        }.items():
            if name != "down":
                setattr(self.daemon, name, value)
        environment = dict(block.environment)
        if block.daemon.get("down"):
            environment["PLUGIN_DAEMON_URL"] = "http://127.0.0.1:1"
        self.ollama.mode = block.model
        if block.model == "down":
            self.ollama.close()
        else:
            self.ollama.start()
        if self.circumstances != environment:
            self.unlock()
            self.instance.start(**environment)
            self.circumstances = environment

    def unlock(self) -> None:
        """Between two server starts of the recordings the login counters were cleared."""
        redis = pytest.importorskip("redis")
        client = redis.Redis(
            host=self.redis_server.host,
            port=self.redis_server.port,
            password=self.redis_server.password,
            db=self.number,
        )
        client.delete(*(list(client.scan_iter("login_error_rate_limit:*")) or ["nothing"]))
        client.close()

    def prepare(self, step: Step) -> None:
        """What the recordings did around a step without showing it."""
        if step.title.endswith("until limit 0"):
            for _ in range(7):
                self.instance.replay(step)
        if "(not current)" in step.title:
            path = step.path + "?model=llama3.2&model_type=llm"
            found = self.instance.send("GET", path, headers=self.instance.session()).json
            other = next(
                item
                for item in found["available_credentials"]
                if item["credential_id"] != found["current_credential_id"]
            )
            self.instance.names["<uuid-6>"] = other["credential_id"]
        if "after several calls (no worker)" in step.title:
            made = self.instance.send("POST", self.instance.fill(step.path), body={}, headers=self.instance.session())
            self.instance.app_key = made.json["token"]
            self.instance.send("GET", "/v1/info", headers={"Authorization": f"Bearer {self.instance.app_key}"})

    @contextmanager
    def outage(self, block: Block) -> Iterator[None]:
        server = {"postgres": self.postgres, "redis": self.redis_server}.get(block.outage)
        if server is not None:
            server.stop()
        try:
            yield
        finally:
            if server is not None:
                server.start()
                self.instance.start(**self.circumstances)

    def step(self, step: Step, *, compared: bool = True) -> None:
        self.prepare(step)
        reply = self.instance.replay(self.adapted(step))
        if compared:
            check(step, reply, self.instance)
        else:
            with suppress(Mismatch):
                transcripts.compare(transcripts.load(step.reply), reply.json, self.instance.names)
        if step.status in (200, 201) and "api-keys" in step.path and step.method == "POST" and reply.json.get("token"):
            if not self.instance.app_key or "advanced" in step.title:
                self.instance.names.setdefault("<first key>", self.instance.app_key or reply.json["token"])
                self.instance.app_key = reply.json["token"]
        elif "advanced-chat chat-messages" in step.title:
            self.instance.app_key = self.instance.names["<first key>"]
        if "/export" in step.path:
            self.instance.names["<data of the export step>"] = reply.json["data"]

    def adapted(self, step: Step) -> Step:
        """The one thing a recording cannot bring along: where the model server is, and the file that was exported."""
        text = step.body.replace("http://ollama-host:11434", self.ollama.url)
        exported = re.search(r'"<data of the export step(?: with version: ([\d.]+))?>"', text)
        if exported:
            document = self.instance.names["<data of the export step>"]
            if exported[1]:
                document = re.sub(r"(?m)^version: .*$", f"version: {exported[1]}", document)
            text = text.replace(exported[0], json.dumps(document))
        if "BADSIG" not in text and "rejects signature" in step.title:
            text = text.replace("fake package bytes", "BADSIG")
        if step.title == "model-config POST":
            self.model_config = json.loads(text)
        elif "same body as model-config POST" in text:
            text = json.dumps({**self.model_config, "model": json.loads(text)["model"]})
        headers = dict(step.headers)
        if step.path.endswith("/upload/pkg") and not text:
            headers["Content-Type"], text = UPLOAD
        if step.title.endswith("Authorization: Basic x"):
            headers["Authorization"] = "Basic x"
        file = re.search(r'"<basic chat app, version: ([\d.]+), dependencies: \[\]>"', text)
        if file:
            text = text.replace(file[0], json.dumps(DSL.format(version=file[1])))
        who = step.who  # two of the files do not say whose session a step has
        if not who and "Authorization" not in headers and step.file in (E2E, NEWEST):
            who = "app key" if step.path.startswith("/v1/") else "session"
        return Step(**{**step.__dict__, "body": text, "who": who, "headers": headers})


def check(step: Step, reply: Reply, instance: Instance) -> None:
    if reply.status != step.status:
        raise Mismatch(f"status {step.status} was recorded, here is {reply.status}: {reply.body[:600]!r}")
    assert reply.header("X-Version") == [instance.release]
    assert reply.header("X-Env") == ["PRODUCTION"]
    check_headers(step, reply)
    if step.events:
        check_events(step, reply, instance)
    elif step.reply and not step.reply.startswith(("(empty", "<!doctype", "<as above")):
        expected = transcripts.load(step.reply)
        if expected is not None:
            transcripts.compare(expected, reply.json, instance.names)
    elif step.reply.startswith("(empty"):
        assert reply.body == b""


def check_headers(step: Step, reply: Reply) -> None:
    for name, value in step.reply_headers.items():
        actual = reply.header(name)
        if name == "Set-Cookie":
            wanted = (
                value.partition("=")[0],
                {part for part in ("HttpOnly", "Secure", "SameSite=Lax") if part in value},
            )
            found = [
                (text.partition("=")[0], {part for part in ("HttpOnly", "Secure", "SameSite=Lax") if part in text})
                for text in actual
            ]
            if wanted not in found:
                raise Mismatch(f"cookie {wanted} was recorded, here are {found}")
        elif name == "Allow":
            assert set(value.split(", ")) == set(actual[0].split(", "))
        elif name == "Location":
            assert actual[0].endswith(value.partition("dify-host")[2])
        else:
            assert actual == [value], name


def check_events(step: Step, reply: Reply, instance: Instance) -> None:
    live = [transcripts.load(line[5:].strip()) for line in reply.body.decode().splitlines() if line.startswith("data:")]
    recorded_events = step.events
    if re.search(r"(?m)^\.\.\. \(\d+ more\)", step.reply):  # only the ends of the stream are shown
        live = [live[0], *live[1 - len(recorded_events) :]]
    kinds = [[event["event"] for event in events] for events in (recorded_events, live)]
    if kinds[0] != kinds[1]:
        raise Mismatch(f"events {kinds[0]} were recorded, here are {kinds[1]}: {live[-1]}")
    for expected, actual in zip(recorded_events, live, strict=True):
        transcripts.compare(expected, actual, instance.names, "$data")


@pytest.fixture
def replay(request: pytest.FixtureRequest, postgres: Any, redis_server: Any) -> Iterator[Replay]:
    running = Replay(request.param, postgres, redis_server)
    yield running
    running.close()


@pytest.mark.parametrize("replay", build_blocks(), indirect=True)
def test_recorded_steps(replay: Replay, recorded: dict[str, dict[tuple[str, int], Step]]) -> None:
    """All differences of a release at once: one wrong step rarely comes alone."""
    wrong = []
    done = 0
    for block in CLAIMS[replay.release]:
        replay.enter(block)
        with replay.outage(block):
            for number in block.numbers():
                step = recorded[block.file][(block.release or replay.release, number)]
                try:
                    replay.step(step, compared=block.compared)
                    done += 1
                except (AssertionError, KeyError, ValueError, OSError) as error:
                    wrong.append(f"{step.release}/{number} {step.title}: {type(error).__name__} {error}")
    assert not wrong, f"{len(wrong)} of {done + len(wrong)} steps differ:\n" + "\n".join(wrong)
