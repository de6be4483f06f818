"""From outside: the owner signs in, and the model answers over the service API through the plugin's own process."""

from __future__ import annotations

import base64
import datetime
import json
import pathlib
import re
import shlex
import subprocess
from typing import Any

import pytest
import requests

NODE = "llmops-dify1"
HOME = "/opt/dify"
EMAIL = "owner@example.com"
PLUGIN = "langgenius/ollama"
PROVIDER = f"workspaces/current/model-providers/{PLUGIN}/ollama/models"
APP = "llmops-health-check"
MODELS = {"deepseek-r1:1.5b": "llm", "all-minilm": "text-embedding"}
LOG = pathlib.Path(__file__).resolve().parents[3] / "build" / "logs" / "default-vvv.log"
testinfra_hosts = [f"docker://{NODE}"]


@pytest.fixture(scope="module")
def url() -> str:
    command = ["docker", "port", NODE, "80/tcp"]
    return "http://" + subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout.split()[0]


@pytest.fixture(scope="module")
def console(host: Any, url: str) -> Any:
    """Asks as somebody who signed in with the password that the run made."""
    password = json.loads(host.check_output(f"cat {HOME}/secrets.json"))["ADMIN_PASSWORD"]
    session = requests.Session()
    body = {"email": EMAIL, "password": base64.b64encode(password.encode()).decode(), "remember_me": True}
    answer = session.post(f"{url}/console/api/login", json=body, timeout=30)
    assert answer.ok, f"HTTP {answer.status_code}"
    session.headers["X-CSRF-Token"] = session.cookies["csrf_token"]

    def console(path: str, **query: str) -> Any:
        answer = session.get(f"{url}/console/api/{path}", params=query, timeout=60)
        assert answer.ok, f"{path}: HTTP {answer.status_code} {answer.text[:500]}"
        return answer.json()

    return console


def runs(log: str) -> list[tuple[str, float, float]]:
    """Playbook, first and last second of every run in the log."""
    found = []
    for text in re.split(r"(?m)^(?=.*\| ansible-playbook \[core )", log):
        playbook = re.search(r"\| PLAYBOOK: (\S+)", text)
        if playbook:
            times = re.findall(r"(?m)^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),(\d{3}) p=\d+ ", text)
            first, last = (datetime.datetime.fromisoformat(".".join(times[one])).timestamp() for one in (0, -1))
            found.append((playbook[1], first, last))
    return found


def test_a_run_sends_the_password_once(host: Any) -> None:
    """No run more than once, verify.yml never, and the last one of site.yml, which cannot do without, once."""
    sent: dict[str, list[int]] = {"converge.yml": [], "verify.yml": []}
    for playbook, first, last in runs(LOG.read_text(errors="replace")):
        if playbook in sent:  # node and log are of one machine, and so of one clock
            logs = f"docker logs --since {first:.3f} --until {last:.3f} dify-nginx-1"
            sent[playbook].append(host.check_output(f"{logs} 2>&1").count("POST /console/api/login"))
    assert sent["converge.yml"], f"no run of site.yml in {LOG}"
    assert max(sent["converge.yml"]) <= 1, sent
    assert sent["converge.yml"][-1] == 1, sent
    assert not any(sent["verify.yml"]), sent


def test_the_owner_is_the_one_of_the_inventory(console: Any) -> None:
    assert console("account/profile")["email"] == EMAIL


def test_what_is_secret_is_readable_by_root_only(host: Any) -> None:
    for name in ("secrets.json", ".llmops-probe.key", ".llmops-console.json"):
        assert host.check_output(f"stat --format='%a %U' {HOME}/{name}") == "600 root", name
    assert host.check_output("find /run/llmops.stack -type f ! -perm 600") == ""


def test_nothing_was_made_twice(console: Any) -> None:
    assert [one["plugin_id"] for one in console("workspaces/current/plugin/list")["plugins"]] == [PLUGIN]
    listed = {one["model"].removesuffix(":latest"): one["model_type"] for one in console(PROVIDER)["data"]}
    assert listed == MODELS
    for one in console(PROVIDER)["data"]:
        stored = console(f"{PROVIDER}/credentials", model=one["model"], model_type=one["model_type"])
        assert len(stored["available_credentials"]) == 1, one["model"]
    (app,) = console("apps", limit="100")["data"]
    assert app["name"] == APP
    assert len(console(f"apps/{app['id']}/api-keys")["data"]) == 1


def test_the_context_is_what_ollama_was_given(console: Any, host: Any) -> None:
    ask = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:11434/api/ps').read().decode())"
    loaded = {
        one["name"]: one["context_length"] for one in json.loads(host.check_output(f'python3 -c "{ask}"'))["models"]
    }
    stored = console(f"{PROVIDER}/credentials", model="deepseek-r1:1.5b", model_type="llm")["credentials"]
    assert stored["context_size"] == str(loaded["deepseek-r1:1.5b"])
    assert stored["base_url"] == "http://host.docker.internal:11434"


def test_they_are_the_defaults(console: Any) -> None:
    for model, kind in MODELS.items():
        found = console("workspaces/current/default-model", model_type=kind)["data"]
        assert found["model"].removesuffix(":latest") == model


def test_the_plugin_is_a_process_of_the_real_sdk(host: Any) -> None:
    """Its environment was built by uv out of the index, and the process runs in it."""
    find = "for one in /proc/[0-9]*; do echo $(readlink $one/cwd) $(tr '\\0' ' ' <$one/cmdline); done"
    seen = host.check_output(f"docker exec dify-plugin_daemon-1 sh -c {shlex.quote(find)}").splitlines()
    (running,) = [line for line in seen if f"{PLUGIN}-" in line.split(" ")[0] and "-m main" in line]
    folder = running.split()[0]
    version = "import importlib.metadata as m; print(m.version('dify_plugin'))"
    asked = host.check_output(f'docker exec dify-plugin_daemon-1 {folder}/.venv/bin/python -c "{version}"')
    assert re.fullmatch(r"0\.\d+\.\d+", asked)
    assert "uv = " in host.check_output(f"docker exec dify-plugin_daemon-1 cat {folder}/.venv/pyvenv.cfg")


@pytest.mark.parametrize("mode", ["blocking", "streaming"])
def test_the_model_answers(host: Any, url: str, mode: str) -> None:
    key = host.check_output(f"cat {HOME}/.llmops-probe.key").strip()
    body = {"inputs": {}, "query": "Hello", "user": "test", "response_mode": mode}
    headers = {"Authorization": f"Bearer {key}"}
    answer = requests.post(f"{url}/v1/chat-messages", json=body, headers=headers, timeout=120)
    assert answer.ok, f"HTTP {answer.status_code} {answer.text[:500]}"
    if mode == "blocking":
        said, usage = answer.json()["answer"], answer.json()["metadata"]["usage"]
    else:
        events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
        said = "".join(one["answer"] for one in events if one["event"] == "message")
        usage = events[-1]["metadata"]["usage"]
        assert sum(one["event"] == "message" for one in events) > 1
    assert "This node is ready" in said
    assert usage["completion_tokens"] > 0
