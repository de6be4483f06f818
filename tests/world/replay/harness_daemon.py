# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Driving the plugin daemon stand-in: a process per test, requests from the record, replies held against the record."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import transcript_daemon as transcript
from standin import daemon_package, fake_ollama
from transcript_daemon import Step, Transcript

STANDIN_ROOT = Path(__file__).resolve().parents[1] / "images" / "standin"

TENANT = "11111111-1111-4111-8111-111111111111"
OTHER_TENANT = "22222222-2222-4222-8222-222222222222"
KEY = "k-right"
PLUGIN = "langgenius/ollama"
HANGS = "no answer"
# How long a call may take before it counts as hanging: far above any answer, far below the recorder's 30 s.
PATIENCE = 1.5


def facts() -> Path:
    """The directory of the recorded facts, which is published beside the repository and not part of it."""
    default = Path(__file__).resolve().parents[3].parent / "shared" / "facts"
    return Path(os.environ.get("LLMOPS_FACTS_DIR") or default)


def transcripts() -> Transcript:
    path = facts() / "plugin-daemon-transcripts.md"
    if not path.is_file():
        pytest.skip(f"no transcripts at {path} (set LLMOPS_FACTS_DIR)")
    return transcript.read(path.read_text(encoding="utf-8"))


class Daemon:
    """One stand-in daemon with a fresh database, storage and Redis."""

    def __init__(self, version: str, directory: Path, postgres: Any, redis_server: Any, port: int) -> None:
        self.version = version
        self.directory = directory
        self.storage = directory / "storage"
        self.working = directory / "cwd"
        self.database = f"plugin_{uuid.uuid4().hex[:12]}"
        self.postgres = postgres
        self.redis = redis_server
        self.url = f"http://127.0.0.1:{port}"
        self.log = directory / "daemon.log"
        self.storage.mkdir(parents=True)
        self._index = directory / "index"
        self._index.mkdir()
        self._faults = directory / "faults.json"
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None

    def environment(self, **changes: str | None) -> dict[str, str]:
        found: dict[str, str | None] = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(STANDIN_ROOT),
            "STANDIN_VERSION": self.version,
            "STANDIN_FAULTS": str(self._faults),
            "STANDIN_INSTALL_SECONDS": "0.6",
            "SERVER_KEY": KEY,
            "SERVER_HOST": "127.0.0.1",
            "SERVER_PORT": str(self._port),
            "PLATFORM": "local",
            "DIFY_INNER_API_URL": "http://127.0.0.1:9",
            "DIFY_INNER_API_KEY": "inner",
            "DB_USERNAME": "postgres",
            "DB_PASSWORD": self.postgres.password,
            "DB_HOST": self.postgres.host,
            "DB_PORT": str(self.postgres.port),
            "DB_DATABASE": self.database,
            "REDIS_HOST": self.redis.host,
            "REDIS_PORT": str(self.redis.port),
            "REDIS_PASSWORD": self.redis.password,
            "PLUGIN_WORKING_PATH": str(self.working),
            "PLUGIN_STORAGE_LOCAL_ROOT": str(self.storage),
            "PLUGIN_REMOTE_INSTALLING_ENABLED": "false",
            "FORCE_VERIFYING_SIGNATURE": "false",
            # Packages that need something find an index with nothing in it.
            "UV_PATH": shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"),
            "PYTHON_INTERPRETER_PATH": sys.executable,
            "PIP_MIRROR_URL": self._index.as_uri(),
        }
        return {name: value for name, value in {**found, **changes}.items() if value is not None}

    def run(self, command: str, **changes: str | None) -> tuple[int | None, str]:
        """Exit status and output of a start that should fail; None when the daemon kept running."""
        return self.run_with(command, self.environment(**changes))

    def run_with(self, command: str, environment: dict[str, str]) -> tuple[int | None, str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "standin.daemon", command],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            output, _ = process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            return None, process.communicate()[0]
        return process.returncode, output

    def start(self, *, migrate: bool = True, **changes: str | None) -> None:
        environment = self.environment(**changes)
        if migrate:
            assert self.run_with("migrate", environment)[0] == 0
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "standin.daemon", "serve"], env=environment, stdout=log, stderr=log
            )
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(requests.ConnectionError):
                requests.get(f"{self.url}/health/check", timeout=5)
                return
            assert self._process.poll() is None, self.log.read_text(errors="replace")[-2000:]
            assert time.monotonic() < deadline, "the stand-in does not listen"
            time.sleep(0.02)

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(10)

    def restart(self, **changes: str | None) -> None:
        self.stop()
        self.start(migrate=False, **changes)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def fault(self, **values: str) -> None:
        self._faults.write_text(json.dumps(values), encoding="utf-8")

    def plugin_pids(self) -> list[int]:
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and (entry / "cmdline").read_bytes().startswith(f"{self.working}/".encode()):
                    found.append(int(entry.name))
        return found

    def kill_plugins(self, number: int = signal.SIGKILL) -> None:
        """Returns when they are dead: like the real daemon, the stand-in never answers a call that meets one dying."""
        pids = self.plugin_pids()
        for pid in pids:
            os.kill(pid, number)
        deadline = time.monotonic() + 10
        while any(Path(f"/proc/{pid}").exists() for pid in pids):  # until the daemon has seen it, too
            assert time.monotonic() < deadline, f"of the plugins {pids} one does not die"
            time.sleep(0.005)


@contextlib.contextmanager
def model_server(port: int) -> Iterator[None]:
    server = fake_ollama.server(port)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield
    server.shutdown()
    server.server_close()


class Replay:
    """Replays recorded steps of one version and collects every difference before it complains."""

    def __init__(self, record: Transcript, daemon: Daemon, section: int, model_port: int) -> None:
        self.record = record
        self.daemon = daemon
        self.section = section
        self.done: list[str] = []
        self.different: list[str] = []
        self._model_port = model_port
        self._bound: dict[str, str] = {}
        self._packages: dict[str, str] = {}

    # Replaying

    def steps(self, *titles: str, **options: Any) -> None:
        for title in titles:
            self.step(title, **options)

    def step(
        self,
        title: str,
        *,
        raw: bytes | None = None,
        files: dict[str, Any] | None = None,
        form: dict[str, str] | None = None,
        tenant: str = TENANT,
        bind: str = "",
        headers: dict[str, str] | None = None,
    ) -> requests.Response | None:
        """Replay one step if this version has it; bind: what its placeholder of an id stands for."""
        step = self.record.find(self.daemon.version, self.section, title)
        if step is None:
            return None
        if bind:
            self._bound.update(dict.fromkeys(re.findall(r"<uuid-\d+>", step.path + step.body), bind))
        response = self.send(
            step.method,
            step.path,
            step.body,
            step.headers,
            raw=raw,
            files=files,
            form=form,
            tenant=tenant,
            more=headers,
        )
        self.compare(step, response)
        return response

    def send(
        self,
        method: str,
        path: str,
        body: str = "",
        headers: dict[str, str | None] | None = None,
        *,
        raw: bytes | None = None,
        files: dict[str, Any] | None = None,
        form: dict[str, str] | None = None,
        tenant: str = TENANT,
        more: dict[str, str] | None = None,
        timeout: float = 60,
        stream: bool = False,
    ) -> requests.Response:
        path = (
            self._filled(path)
            .replace("M/", f"/plugin/{tenant}/management/")
            .replace("X/", f"/plugin/{tenant}/dispatch/")
        )
        content = raw if raw is not None else self._filled(transcript.request_body(body)).encode()
        sent: dict[str, str | None] = {"X-Api-Key": KEY, "Accept-Encoding": "identity"}
        if "/dispatch/" in path:
            sent["X-Plugin-ID"] = PLUGIN
        if content:
            sent["Content-Type"] = "application/json"
        sent.update({name: self._filled(value) if value else value for name, value in (headers or {}).items()})
        sent.update(more or {})
        request = requests.Request(
            method,
            self.daemon.url,
            data=form if files else content or None,
            files=files,
            headers={name: value for name, value in sent.items() if value},
        ).prepare()
        # Not through the library's own URL handling, which would tidy up "//" and placeholders.
        request.url = f"{self.daemon.url}{path}"
        with requests.Session() as session:
            return session.send(request, timeout=timeout, allow_redirects=False, stream=stream)

    def _filled(self, text: str) -> str:
        text = text.replace("<tenant-id-2>", OTHER_TENANT).replace("<tenant-id>", TENANT)
        text = re.sub(r"<64 x (\w)>", lambda match: match[1] * 64, text)
        text = re.sub(r"<ID ([\d.]+)>", lambda match: self._packages[f"{PLUGIN}:{match[1]}"], text)
        text = re.sub(r"(\w+/\w+:[\d.]+)@<(?:hex64|sum [^>]*)>", lambda match: self._packages[match[1]], text)
        text = re.sub(r"<uuid-\d+>", lambda match: self._bound.setdefault(match[0], str(uuid.uuid4())), text)
        text = text.replace("http://ollama-host:11434", f"http://127.0.0.1:{self._model_port}")
        return re.sub(r"http://(?:ollama|closed)-host:", "http://127.0.0.1:", text)

    # Comparing

    def compare(self, step: Step, response: requests.Response) -> None:
        self.done.append(f"{step.version}/{step.number}")
        problem = self._problem(step, response)
        if problem:
            self.different.append(f"{self.daemon.version}: {step.number} {step.title}: {problem}")
        self._bind_task(step, response)

    def _problem(self, step: Step, response: requests.Response) -> str:
        kind = response.headers.get("Content-Type", "")
        kinds = {"json": "application/json; charset=utf-8", "SSE": "text/event-stream"}
        wanted_kind = kinds.get(step.kind, step.kind)
        if response.status_code != step.status or not kind.startswith(wanted_kind):
            return f"expected {step.status} {wanted_kind}, got {response.status_code} {kind} {response.text[:300]}"
        if step.status == 301:
            return "" if response.headers["Location"] in step.reply else f"Location {response.headers['Location']}"
        wanted = transcript.expected(
            step,
            lambda number: (
                self.record.steps[step.version].get(number) or self.record.steps[transcript.REFERENCE].get(number)
            ),
        )
        if step.method == "HEAD" or wanted in ("", "(zero bytes)"):
            return "" if not response.content else f"expected no body, got {response.text[:200]}"
        if step.kind != "SSE":
            return self._not_as(wanted, response.text)
        return self._stream_problem(wanted, response.text)

    def _stream_problem(self, wanted: str, text: str) -> str:
        events = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
        recorded = transcript.events_of(wanted)
        for index, event in enumerate(recorded):
            omitted = re.fullmatch(r"\.\.\.\((\d+) more events\)", event)
            if omitted:
                # Streams against the clock: how many pieces fit varies by a few.
                left = len(recorded) - index - 1
                if abs(len(events) - index - left - int(omitted[1])) > 3:
                    return f"expected about {omitted[1]} events between, got {len(events) - index - left}"
                tail = zip(recorded[index + 1 :], events[len(events) - left :])
                return next((problem for one, other in tail if (problem := self._not_as(one, other))), "")
            if index >= len(events):
                return f"the stream ended before {event}: {text[-300:]}"
            problem = self._not_as(event, events[index])
            if problem:
                return problem
        return f"more events than recorded: {text[-300:]}" if len(events) > len(recorded) else ""

    def _not_as(self, wanted: str, text: str) -> str:
        wanted = transcript.NAMES.get(wanted, wanted)
        if wanted == "NO-NODE":
            wanted = f'{{-500 "{self.no_node()}"}}'
        try:
            forms = transcript.short_forms(json.loads(text))
        except ValueError:
            forms = [text]
        allowed = transcript.pattern(wanted)
        actual = [self.shown(form) for form in forms]
        return "" if any(allowed.match(form) for form in actual) else f"\n  recorded {wanted}\n  got      {actual[-1]}"

    def shown(self, text: str) -> str:
        """A reply with this run's names replaced by the record's placeholders."""
        places = {
            f"127.0.0.1:{self._model_port}": "ollama-host:11434",
            "host='127.0.0.1'": "host='ollama-host'",
            f"port={self._model_port}": "port=11434",
            "vocabulary.invalid": "<tokenizer-data-host>",
            str(self.daemon.storage): "<storage-root>",
            TENANT: "<tenant-id>",
            OTHER_TENANT: "<tenant-id-2>",
            f"127.0.0.1:{self.daemon.postgres.port}": "db-host:5432",
            f"127.0.0.1:{self.daemon.redis.port}": "redis-host:6379",
            "host=127.0.0.1": "host=db-host",
            "user=postgres": "user=<db-user>",
            f"database={self.daemon.database}": "database=dify_plugin",
        }
        for actual, placeholder in places.items():
            text = text.replace(actual, placeholder)
        text = re.sub(r"\b([a-d])\1{63}\b", r"<64 x \1>", text)
        text = re.sub(r"\b[0-9a-f]{64}\b", "<hex64>", text)
        text = re.sub(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "<uuid>", text)
        return transcript.normal(text)

    def no_node(self) -> str:
        return "no available node, plugin " + ("runtime " if self.daemon.version >= "0.5" else "") + "not found"

    def _bind_task(self, step: Step, response: requests.Response) -> None:
        match = re.search(r'"task_id":"(<uuid-\d+>)"', step.reply)
        if match:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                self._bound[match[1]] = response.json()["data"]["task_id"]

    # Moving the daemon along

    def upload(self, plugin_id: str = PLUGIN, version: str = "0.0.6", **options: Any) -> str:
        data = daemon_package.pack(plugin_id, version, **options)
        reply = self.send("POST", "M/install/upload/package", files={"dify_pkg": ("plugin.difypkg", data)})
        self._packages[f"{plugin_id}:{version}"] = reply.json()["data"]["unique_identifier"]
        return self._packages[f"{plugin_id}:{version}"]

    def know(self, identifier: str) -> None:
        self._packages[identifier.split("@")[0]] = identifier

    def identifier(self, name: str) -> str:
        return self._packages[name]

    def finished(self, response: requests.Response | None, seconds: float = 30) -> dict[str, Any]:
        """The last state of the task that a reply names; {} when there was none."""
        task = (response.json()["data"] or {}).get("task_id") if response is not None else ""
        deadline = time.monotonic() + seconds
        while task:
            state = self.send("GET", f"M/install/tasks/{task}").json()["data"]
            if state["status"] not in ("pending", "running"):
                return dict(state)
            assert time.monotonic() < deadline, f"task still {state}"
            time.sleep(0.1)
        return {}

    def install(self, identifier: str) -> dict[str, Any]:
        body = json.dumps({"plugin_unique_identifiers": [identifier], "source": "package", "metas": [{}]})
        return self.finished(self.send("POST", "M/install/identifiers", body))

    def message(self, title: str, state: dict[str, Any]) -> None:
        """Hold a failed task's message against the recorded 'poll of <title> at ...: failed, "<message>"'."""
        note = self.record.note(self.daemon.version, self.section, f"poll of {title} at ")
        match = re.search(r': (failed), "(.*)"$', note, re.DOTALL)
        if match is None or not state:
            return
        self.done.append(f"{self.daemon.version}/{self.section} poll of {title}")
        text = json.dumps(state["plugins"][-1]["message"], ensure_ascii=False)[1:-1]
        allowed = transcript.pattern(match[2].rstrip("\\n"))
        if state["status"] != "failed" or not allowed.match(self.shown(text).rstrip("\\n")):
            self.different.append(f"{self.daemon.version}: poll of {title}\n  recorded {match[2]}\n  got      {text}")

    def probe(self, seconds: float = PATIENCE) -> str:
        """The state of the plugin in the record's words."""
        try:
            reply = self.send("POST", "X/model/validate_provider_credentials", "PROV", timeout=seconds)
        except requests.Timeout:
            return HANGS
        if reply.status_code == 500 and not reply.content:
            return "empty"
        if reply.status_code == 404 and self.no_node() in reply.text:
            return "NO-NODE"
        text = reply.text.removeprefix("data: ").strip()
        forms = transcript.short_forms(json.loads(text))
        return next((name for name, form in transcript.NAMES.items() if form in forms), text)

    def wait_for(self, state: str, seconds: float = 15) -> None:
        deadline = time.monotonic() + seconds
        while (found := self.probe()) != state:
            assert time.monotonic() < deadline, f"{self.daemon.version}: expected {state}, still {found}"
            time.sleep(0.1)

    def timeline(self, title: str, trigger: Callable[[], Any], seconds: float = 12) -> None:
        """The states that follow a trigger, in their recorded order. Times are the machine's and are not compared."""
        note = self.record.note(self.daemon.version, self.section, f"{title} timeline: ")
        if not note:
            return
        recorded = [_state(part) for part in note.split("; ") if part]
        self.done.append(f"{self.daemon.version}/{self.section} {title}")
        # Where the real daemon answered each call, one that waits for a plugin to start is given its time here, too.
        patience = PATIENCE if HANGS in recorded else seconds
        trigger()
        seen: list[str] = []
        # A single recorded state is one that stays: watched for a while. Otherwise the last one ends the watch.
        deadline = time.monotonic() + (4 if len(recorded) == 1 else seconds)
        while time.monotonic() < deadline:
            state = self.probe(patience)
            if not seen or seen[-1] != state:
                seen.append(state)
            if len(recorded) > 1 and state == recorded[-1]:
                break
            time.sleep(0.05)
        if self.daemon.version < "0.5":  # a phase of some 50 ms in these versions, which a recorder meets or misses
            for states in (recorded, seen):
                if len(states) > 1 and states[0] == "NO-NODE":
                    del states[0]
        if seen != recorded:
            self.different.append(f"{self.daemon.version}: {title}: recorded {recorded}, seen {seen}")

    def finish(self, at_least: int) -> None:
        assert not self.different, f"{len(self.different)} of {len(self.done)} steps differ:\n" + "\n".join(
            self.different
        )
        assert len(self.done) >= at_least, f"only {len(self.done)} steps were found in the record, expected {at_least}"


def _state(part: str) -> str:
    """'3.99s: 200 OK-PROV (after 1.05s)' is OK-PROV."""
    text = re.sub(r" \(after [\d.]+s\)?.*$", "", part.split("s: ", 1)[1])
    if "TimeoutError" in text:
        return HANGS
    return "empty" if "(empty body)" in text else text.split(" ", 1)[1]
