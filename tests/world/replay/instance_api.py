# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A live stand-in of Dify's API on a database and a Redis database of its own, and a client that speaks as recorded."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transcripts_api as transcripts
from ports import free_port
from standin.api import tree

STANDIN_ROOT = Path(__file__).resolve().parents[1] / "images" / "standin"
MODULES = ("psycopg2", "redis", "yaml")
START_SECONDS = 30.0
CREDENTIALS = {
    "mode": "chat",
    "context_size": "4096",
    "max_tokens": "4096",
    "vision_support": "false",
    "function_call_support": "false",
}
CHAT = {"inputs": {}, "conversation_id": "", "user": "probe", "auto_generate_name": False}
TEXT = re.compile(r"<[^<>]+>")


def interpreter() -> str:
    """A Python that has what the image gets from Debian; "" where none has."""
    if all(importlib.util.find_spec(name) for name in MODULES):
        return sys.executable
    system = "/usr/bin/python3"
    check = [system, "-c", f"import {', '.join(MODULES)}"]
    return (
        system
        if Path(system).exists() and subprocess.run(check, check=False, capture_output=True).returncode == 0
        else ""
    )


@dataclass
class Reply:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Instance:
    """One release with its environment. `start()` migrates first, as the image's entry point does."""

    def __init__(self, release: str, postgres: Any, redis_server: Any, number: int) -> None:
        self.release, self.postgres = release, postgres
        self.home = Path(tempfile.mkdtemp(prefix="replay-api-"))
        self.port = free_port()
        self.database = f"api_{number}_{uuid.uuid4().hex[:8]}"
        postgres.query(f"CREATE DATABASE {self.database}")
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(STANDIN_ROOT),
            "STANDIN": "api",
            "STANDIN_VERSION": release,
            "STANDIN_HOME": str(self.home),
            "STANDIN_FAULTS": str(self.home / "faults.json"),
            "DIFY_PORT": str(self.port),
            "DIFY_BIND_ADDRESS": "127.0.0.1",
            "SECRET_KEY": "sk-replay",
            "DB_HOST": postgres.host,
            "DB_PORT": str(postgres.port),
            "DB_USERNAME": postgres.user,
            "DB_PASSWORD": postgres.password,
            "DB_DATABASE": self.database,
            "REDIS_HOST": redis_server.host,
            "REDIS_PORT": str(redis_server.port),
            "REDIS_PASSWORD": redis_server.password,
            "REDIS_DB": str(number),
            "PLUGIN_DAEMON_KEY": "daemon-key",
            "MARKETPLACE_API_URL": "http://127.0.0.1:1",
            "CELERY_BROKER_URL": f"redis://:{redis_server.password}@{redis_server.host}:{redis_server.port}/{number}",
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.cookies: dict[str, str] = {}
        self.tokens: dict[str, str] = {}
        self.used_refresh_token = ""
        self.app_key = ""
        self.names: dict[str, str] = {}

    def flask(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [interpreter(), "-m", "standin.api.flask_cli", *arguments],
            check=False,
            capture_output=True,
            text=True,
            env={**self.environment, **environment},
            timeout=120,
        )

    def spawn(self, module: str, *arguments: str, log: str = "log", **environment: str) -> subprocess.Popen[bytes]:
        """A process of the image, in the folder that /app/api is there."""
        environment = {**self.environment, **environment}
        tree.write(self.home, environment["STANDIN_VERSION"])
        with (self.home / log).open("ab") as file:
            command = [interpreter(), "-m", f"standin.api.{module}", *arguments]
            return subprocess.Popen(command, stdout=file, stderr=file, cwd=self.home, env=environment)

    def start(self, **environment: str) -> None:
        self.stop()
        self.process = self.spawn("app", **environment)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            try:
                self.send("GET", "/health")
                return
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.05)
        raise RuntimeError((self.home / "log").read_text(errors="replace")[-3000:])

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(timeout=40)
            self.process = None

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.home, ignore_errors=True)

    def send(
        self, method: str, path: str, *, body: Any = None, headers: dict[str, str] | None = None, timeout: float = 20
    ) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        headers = dict(headers or {})
        data = body.encode() if isinstance(body, str) else body
        if data is not None and not isinstance(data, bytes):
            data = json.dumps(data).encode()
        if data is not None:
            headers.setdefault("Content-Type", "application/json")
        try:
            connection.request(method, path, data, headers)
            reply = connection.getresponse()
            answer = Reply(reply.status, reply.getheaders(), reply.read())
        finally:
            connection.close()
        self._learn(path, answer)
        return answer

    def _learn(self, path: str, reply: Reply) -> None:
        """Keeps what a client keeps: cookies, bearer tokens."""
        for value in reply.header("Set-Cookie"):
            name, _, rest = value.partition("=")
            if rest.partition(";")[0]:  # a cookie that is cleared stays here: the recordings go on using it
                self.cookies[name] = rest.partition(";")[0]
        if path.startswith(("/console/api/login", "/console/api/refresh-token")) and reply.status == 200:
            self.used_refresh_token = self.tokens.get("refresh_token", "")
            self.tokens = reply.json.get("data") or self.tokens

    def session(self) -> dict[str, str]:
        if self.tokens:
            return {"Authorization": f"Bearer {self.tokens['access_token']}"}
        kept = {
            name: value for name, value in self.cookies.items() if name != "session" and not name.startswith("__Host-")
        }
        return {
            "Cookie": "; ".join(f"{name}={value}" for name, value in kept.items()),
            "X-CSRF-Token": kept.get("csrf_token", ""),
        }

    def replay(self, step: transcripts.Step) -> Reply:
        """Sends a recorded request with this run's values in place of the placeholders."""
        headers = {name: self._header(name, value, step) for name, value in step.headers.items()}
        if step.who == "session":
            headers |= self.session()
        elif step.who == "app key":
            headers["Authorization"] = f"Bearer {self.app_key}"
        path = urllib.parse.quote(self.fill(step.path), safe="/?=&%:@")
        body: Any = None
        if "reused" in step.title:
            body = {"refresh_token": self.used_refresh_token}
        elif step.body:
            body = self.fill(re.sub(r", \.\.\.}$", ', "...": ""}', step.body))
            if "Content-Type" in headers:
                body = body.replace("\n", "\r\n")
            elif isinstance(decoded := transcripts.load(body), dict):
                body = self.complete(decoded, step.path)
        return self.send(step.method, path, body=body, headers=headers)

    def _header(self, name: str, value: str, step: transcripts.Step) -> str:
        if name == "Cookie":
            wanted = [part.partition("=")[0].strip() for part in value.split(";")]
            found = {part: self.cookies.get(part, "") for part in wanted}
            if "tampered" in step.title:
                found["access_token"] = found["access_token"][:-4] + "AAAA"
            return "; ".join(f"{part}={text}" for part, text in found.items())
        if name == "X-CSRF-Token":
            prefix = "__Host-" if "__Host-" in step.headers.get("Cookie", "") else ""
            return self.cookies.get(f"{prefix}csrf_token", "")
        if name == "Authorization" and "<jwt>" in value:
            return f"Bearer {self.cookies.get('access_token', '')}"
        return self.fill(value).replace("app-<token>", self.app_key)

    def fill(self, text: str) -> str:
        """Placeholders by what earlier replies taught; an unknown id becomes one that nobody has."""

        def value(match: re.Match[str]) -> str:
            name = match[0]
            if name == "<128 hex characters>":
                return str(self.tokens.get("refresh_token", name))
            if name not in self.names and name.startswith("<uuid-"):
                self.names[name] = str(uuid.uuid4())
            return self.names.get(name, name)

        return TEXT.sub(value, text)

    def complete(self, body: dict[str, Any], path: str) -> dict[str, Any]:
        """What the recording abbreviated: credentials "as above" and chats "..."."""
        filled = {name: value for name, value in body.items() if name != "..."}
        if "..." in body and path == "/v1/chat-messages":
            filled = {**CHAT, **filled}
        given = filled.get("credentials")
        if given == 0:
            given = {"base_url": "http://ollama-host:11434", "...": ""}
        if isinstance(given, dict):
            filled["credentials"] = {
                **(CREDENTIALS if "..." in given else {}),
                **{k: v for k, v in given.items() if k != "..."},
            }
        return filled
