"""The module itself: options in, JSON out, and no secret in it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.llmops.stack.plugins.modules import dify_health
from ansible_collections.llmops.stack.tests.unit.servers.daemon import KEY, PLUGIN, TENANT, FakeDaemon
from ansible_collections.llmops.stack.tests.unit.servers.dify import APP_KEY, FakeDify, message, message_end
from ansible_collections.llmops.stack.tests.unit.servers.phoenix import TRACE, FakePhoenix, chat_span
from ansible_collections.llmops.stack.tests.unit.servers.scripted import Reply, Request, Scripted, events

Run = Callable[..., dict[str, Any]]
MODEL_SECRET = "model-api-key-777"
MODEL = {
    "plugin_id": PLUGIN,
    "provider": "ollama",
    "model": "llama3.2",
    "credentials": {
        "base_url": "http://ollama-host:11434",
        "mode": "chat",
        "context_size": 4096,
        "vision_support": False,
        "api_key": MODEL_SECRET,
    },
}


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(**arguments: Any) -> dict[str, Any]:
        with patch_module_args(arguments), pytest.raises(SystemExit):
            dify_health.main()
        out = capsys.readouterr().out
        assert not any(secret in out for secret in (KEY, APP_KEY, MODEL_SECRET))
        return json.loads(out)

    return call


def test_all_of_it(run: Run) -> None:
    with Scripted(FakeDify()).running() as dify, Scripted(FakeDaemon()).running() as daemon:
        result = run(
            url=dify.url + "/",
            plugin_daemon_url=daemon.url,
            plugin_daemon_key=KEY,
            tenant_id=TENANT,
            expect_plugins=[PLUGIN],
            probe="llm",
            probe_model=MODEL,
            app_key=APP_KEY,
        )
        sent = daemon.asked(f"/plugin/{TENANT}/dispatch/llm/invoke")[0].json()["data"]
    assert result["healthy"] is True
    assert result["changed"] is False
    assert result["version"] == "1.12.1"
    assert {one["name"]: one["status"] for one in result["checks"]}["llm"] == "ok"
    keys = {"name", "status", "detail", "advice", "seconds"}
    by_name = {one["name"]: one for one in result["checks"]}
    llm = by_name.pop("llm")
    assert all(set(one) == keys for one in by_name.values())
    assert set(llm) == {*keys, "tokens", "tokens_per_second"}
    assert (by_name["traces"]["status"], result["trace"]) == ("skipped", {})
    # Plugins take strings; and a word of a credential must not blank out a word of a sentence.
    assert sent["credentials"] == {
        "base_url": "http://ollama-host:11434",
        "mode": "chat",
        "context_size": "4096",
        "vision_support": "false",
        "api_key": MODEL_SECRET,
    }
    assert "answered a chat" in llm["detail"]


def test_the_span_of_its_own_chat(run: Run) -> None:
    """What the chat was told goes on to the search, and what is found comes back."""
    key = "phoenix-key-888"
    dify, phoenix = FakeDify(version="0.15.3"), FakePhoenix([chat_span(time.time() - 60)], key=key)
    dify.chat = events(message("Hello"), message_end(42, prompt_tokens=38, completion_tokens=4))

    def answer(request: Request) -> Reply:
        if request.path == "/v1/chat-messages":
            phoenix.spans.append(chat_span(time.time(), 0.25))
        return dify(request)

    with Scripted(answer).running() as dify_server, Scripted(phoenix).running() as server:
        traces = {"backend": "phoenix", "url": server.url, "headers": {"Authorization": f"Bearer {key}"}}
        options = {"url": dify_server.url, "probe": "llm", "app_key": APP_KEY, "deadline": 0, "traces": traces}
        result = run(**options)
        assert key not in json.dumps(result)
        found = {one["name"]: one for one in result["checks"]}["traces"]
        assert found["detail"].startswith(f"Its span is at {server.url}: deepseek-r1:1.5b: 38 tokens in, 4 out, ")
        trace = result["trace"]
        assert (trace["trace_id"], trace["duration"], trace["input_tokens"]) == (TRACE, 0.25, 38)
        phoenix.key = "another-key"
        result = run(**options)
    assert result["failed"] is True
    assert ": traces: Phoenix at " in result["msg"]
    assert "refuses the key that it was given (HTTP 401). A Phoenix with logins wants a key of its own" in result["msg"]
    assert result["trace"] == {}


def test_the_key_from_the_secrets_file(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "secrets.json"
    file.write_text(json.dumps({"PLUGIN_DAEMON_KEY": KEY}))
    with Scripted(FakeDify()).running() as dify, Scripted(FakeDaemon()).running() as daemon:
        where = {"url": dify.url, "plugin_daemon_url": daemon.url, "deadline": 0}
        states = {one["name"]: one["status"] for one in run(secrets_file=str(file), **where)["checks"]}
        assert states["daemon_key"] == "ok"
        states = {one["name"]: one["status"] for one in run(secrets_file=str(tmp_path / "none"), **where)["checks"]}
        assert states["daemon_key"] == "skipped"


def test_the_app_key_from_a_file(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "probe.key"
    with Scripted(FakeDify()).running() as dify:
        where = {"url": dify.url, "plugin_daemon_url": "http://127.0.0.1:1", "fail": False, "deadline": 0}
        options = {**where, "probe": "llm", "app_key_file": str(file), "probe_model": MODEL}

        def llm() -> dict[str, Any]:
            (found,) = [one for one in run(**options)["checks"] if one["name"] == "llm"]
            return found

        with Scripted(FakeDaemon()).running() as daemon:
            options.update(plugin_daemon_url=daemon.url, plugin_daemon_key=KEY, tenant_id=TENANT)
            for content in (None, "\n"):
                if content:
                    file.write_text(content)
                found = llm()
                assert found["status"] == "skipped"
                assert found["detail"].startswith(f"There is no app key in {file}; dify_app makes one")
            assert not dify.asked("/v1/chat-messages")
            file.write_text(APP_KEY + "\n")
            assert llm()["status"] == "ok"
            assert run(**options)["healthy"] is True
    file.unlink()
    file.mkdir()
    assert "app_key_file cannot be read" in run(**options)["msg"]


@pytest.mark.parametrize("content", ["not json", "[1]"])
def test_a_broken_secrets_file(run: Run, tmp_path: Path, content: str) -> None:
    file = tmp_path / "secrets.json"
    file.write_text(content)
    result = run(secrets_file=str(file))
    assert result["failed"] is True
    assert f"secrets_file {file} cannot be used" in result["msg"]


def test_the_message_is_finding_and_next_step(run: Run) -> None:
    with Scripted(FakeDify(version="1.11.4")).running() as dify:
        result = run(url=dify.url, expect_version="1.12.1", deadline=0)
    assert result["failed"] is True
    assert result["msg"] == (
        f"Dify at {dify.url} is not healthy: api: Dify 1.11.4 runs, expected was 1.12.1. "
        "Run site.yml, which goes over to 1.12.1 or says why it cannot; or set dify_version to what runs."
    )
    assert result["checks"][0]["status"] == "failed"


def test_without_fail_it_only_says_so(run: Run) -> None:
    result = run(url="http://127.0.0.1:1", plugin_daemon_url="http://127.0.0.1:1", deadline=0, fail=False)
    assert result["healthy"] is False
    assert "failed" not in result


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"url": "dify.example.com"}, "url must begin with http"),
        ({"plugin_daemon_url": "plugin_daemon:5002"}, "plugin_daemon_url must begin with http"),
        ({"tenant_id": "default"}, "tenant_id must be a UUID"),
        ({"probe": "model"}, "probe_model"),
        ({"probe": "llm"}, "app_key"),
        ({"successes": 0}, "successes must be greater than 0"),
        ({"traces": {"backend": "phoenix"}}, "backend is phoenix but all of the following are missing: url"),
        ({"traces": {"backend": "collector"}}, "all of the following are missing: collector"),
        ({"traces": {"backend": "phoenix", "url": "phoenix:6006"}}, "traces.url must begin with http"),
        ({"traces": {"wait": 0}}, "traces.wait must be greater than 0"),
        ({"interval": -1}, "interval must not be negative"),
    ],
)
def test_bad_options(run: Run, arguments: dict[str, Any], said: str) -> None:
    result = run(**arguments)
    assert result["failed"] is True
    assert said in result["msg"]


def test_requests_is_missing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dify_health, "HAS_REQUESTS", False)
    assert "Failed to import the required Python library (requests)" in run()["msg"]
