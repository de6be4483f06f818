"""The finished node of Molecule's default scenario, its console modules, and what tells that it was touched."""

from __future__ import annotations

import base64
import dataclasses
import functools
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from machine import ROOT, Machine, Run
from owner import HOME, PROVIDER, Owner, chat

__all__ = ["HOME", "Owner"]

# Another node that has the same variables will do, too.
MACHINE = Machine(os.environ.get("LLMOPS_NODE", "dify1"), "default")
NODE = MACHINE.name
on_node = MACHINE.on
MODEL = "deepseek-r1:1.5b"
PLUGIN = "langgenius/ollama"
ANSWER = "This node is ready"
OLLAMA = "http://host.docker.internal:11434"
SESSION = "/run/llmops-console-tests/session"
RECORD = "/root/console-tests.json"
DAEMON = "dify-plugin_daemon-1"
SWITCH = [sys.executable, str(ROOT / "tests" / "world" / "world.py"), "switch", NODE]
DSL: dict[str, Any] = {
    "kind": "app",
    "version": "0.3.1",
    "dependencies": [],
    "app": {"name": "from a file", "mode": "chat", "icon": "x", "icon_background": "#FFEAD5"},
    "model_config": {
        "model": {"provider": PROVIDER, "name": MODEL, "mode": "chat", "completion_params": {}},
        "pre_prompt": "Be brief.",
    },
}
# What each module is told, beside what a test is about.
OPTIONS: dict[str, dict[str, Any]] = {
    "dify_health": {},
    "dify_setup": {"session_file": SESSION},
    "dify_plugin": {"session_file": SESSION, "marketplace_url": "http://upstream/marketplace", "verify": "process"},
    "dify_model": {"session_file": SESSION, "record": RECORD},
    "dify_app": {"session_file": SESSION, "record": RECORD},
}


@dataclasses.dataclass(frozen=True)
class Result:
    """What a module returned."""

    told: dict[str, Any]

    @property
    def failed(self) -> bool:
        return bool(self.told.get("failed"))

    @property
    def changed(self) -> bool:
        return bool(self.told.get("changed"))

    @property
    def message(self) -> str:
        return " ".join(str(self.told.get("msg", "")).split())

    def __repr__(self) -> str:
        return json.dumps({key: value for key, value in self.told.items() if key != "invocation"}, indent=1)[:4000]


@dataclasses.dataclass(frozen=True)
class Step:
    """One task of a module."""

    module: str
    options: dict[str, Any]
    check: bool = False


def ask_all(owner: Owner, steps: Iterable[Step]) -> list[Result]:
    """What the modules return on the node, one after the other, and none of it shows a secret, at -vvv either."""
    given = []
    for step in steps:
        account = {} if step.module == "dify_health" else {"email": owner.email}
        options = {"secrets_file": f"{HOME}/secrets.json", **account, **OPTIONS[step.module], **step.options}
        given.append({"module": f"llmops.stack.{step.module}", "options": options, "check": step.check})
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "answers.json")
        run = MACHINE.play("tests/scenarios/console/steps.yml", "-vvv", steps=given, out=str(out))
        assert out.exists(), run.output[-6000:]
        assert "Traceback" not in run.output, run.output[-6000:]
        shows_no_secret(run.output)
        return [Result(told) for told in json.loads(out.read_text(encoding="utf-8"))]


def one(owner: Owner, module: str, check: bool = False, **options: Any) -> Result:
    (only,) = ask_all(owner, [Step(module, options, check)])
    return only


def green(owner: Owner, module: str, **options: Any) -> Result:
    result = one(owner, module, **options)
    assert not result.failed, result
    return result


def refused(owner: Owner, module: str, *words: str, **options: Any) -> Result:
    """It fails, and its message has these words (regular expressions, whatever their case) in their order."""
    result = one(owner, module, **options)
    assert result.failed, result
    says(result.message, *words)
    return result


def says(message: str, *words: str) -> None:
    message = " ".join(message.split())
    assert re.search(".*".join(words), message, re.IGNORECASE | re.DOTALL), f"{words} are not in: {message[:4000]}"


@functools.cache
def context(owner: Owner) -> int:
    """Of the model: what Dify was told is what Ollama was given."""
    return int(owner.credentials(MODEL)["credentials"]["context_size"])


def ollama(owner: Owner, name: str = NODE, url: str = OLLAMA) -> dict[str, Any]:
    """An Ollama host as a run of site.yml sees it."""
    model = {"name": MODEL, "capabilities": ["completion"], "context_length": context(owner)}
    return {"name": name, "url": url, "models": [model]}


def play(owner: Owner, *options: str, **variables: Any) -> Run:
    """The part of site.yml that is about Dify, told at -vvv: nothing secret may be in what it says."""
    given = {"dify_ollama_nodes": [ollama(owner)], **variables}
    run = MACHINE.play("site.yml", "--tags=dify", "-vvv", *options, **given)
    shows_no_secret(run.output)
    return run


def finished(owner: Owner, **variables: Any) -> Run:
    run = play(owner, **variables)
    assert run.status == 0, run.output[-8000:]
    return run


def shows_no_secret(text: str) -> None:
    # Names only: pytest prints what it compares.
    assert sorted({name for name, value in secrets() if any(form in text for form in (value, encoded(value)))}) == []


def encoded(value: str) -> str:
    """As Dify is sent a password; without the end, which depends on what follows."""
    return base64.b64encode(value.encode()).decode().rstrip("=")[:-1]


def secrets() -> Iterator[tuple[str, str]]:
    """All that the node keeps and nobody is to see: passwords, keys, tokens and cookies."""
    files = f"{HOME}/secrets.json {HOME}/.llmops-probe.key $(find /run/llmops.stack {SESSION} -type f 2>/dev/null)"
    script = f'for file in {files}; do echo "== $file"; cat $file 2>/dev/null || true; echo; done'
    for part in on_node(script).split("== ")[1:]:
        name, _newline, content = part.partition("\n")
        try:
            found = list(_strings(json.loads(content), name))
        except ValueError:
            found = [(name, content.strip())]
        yield from (one for one in found if len(one[1]) >= 16)


def _strings(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _strings(inner, f"{name} {key}")
    elif isinstance(value, str):
        yield name, value


def switch(service: str, *settings: str) -> None:
    subprocess.run([*SWITCH, service, *settings], stdout=subprocess.PIPE, check=True, timeout=60)


def served(path: str) -> str:
    """Where this machine finds something that the world serves."""
    command = ["docker", "port", "llmops-upstream", "80/tcp"]
    place = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()[0]
    return f"http://{place.replace('0.0.0.0', '127.0.0.1')}/{path}"


def logins() -> int:
    """How often somebody has sent a password to the node's Dify."""
    return int(on_node("docker logs dify-nginx-1 2>&1 | grep -c 'POST /console/api/login' || true"))


def probe_answers(owner: Owner) -> bool:
    """A chat goes the whole way: api, plugin daemon, the plugin's process, Ollama."""
    return ANSWER in chat(owner.url, on_node(f"cat {HOME}/.llmops-probe.key"))
