# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The client of Ollama's API: what an answer means, whatever its status."""

from __future__ import annotations

import pytest
from ansible_collections.llmops.stack.plugins.module_utils._ollama_api import ApiError, Ollama, Silence
from ansible_collections.llmops.stack.tests.unit.servers.scripted import Reply, Scripted, as_json


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (as_json({"error": "boom"}, 500), "answers HTTP 500, 'boom'"),
        (as_json({"error": {"message": "boom"}}, 404), "answers HTTP 404, 'boom'"),
        (as_json({"error": "boom"}), "says 'boom'"),
        (Reply(502, "<html>bad</html>"), "answers HTTP 502, '<html>bad</html>'"),
        (Reply(403, ""), "answers HTTP 403, 'nothing else'"),
        (as_json(["x"]), "something else than Ollama"),
        (Reply(200, "Ollama is running"), "something else than Ollama"),
    ],
)
def test_no_answer_is_taken_for_success(reply: Reply, said: str) -> None:
    with Scripted(lambda _request: reply).running() as server, pytest.raises(ApiError, match=said) as caught:
        Ollama(server.url).tags()
    assert caught.value.status == reply.status


def test_missing_models() -> None:
    with Scripted(lambda _request: as_json({"error": "model 'x' not found"}, 404)).running() as server:
        api = Ollama(f"{server.url}/")
        assert api.show("x") is None
        with pytest.raises(ApiError, match="HTTP 404"):
            api.copy("x", "y")


def test_lists_hold_what_they_should() -> None:
    with Scripted(lambda _request: as_json({"models": [None, {"name": "x"}, 1]})).running() as server:
        assert Ollama(server.url).tags() == [{"name": "x"}] == Ollama(server.url).ps()
    with Scripted(lambda _request: as_json({"models": None})).running() as server:
        assert Ollama(server.url).tags() == []


@pytest.mark.parametrize(
    ("reply", "kind", "said"),
    [
        (Reply(pieces=['{"status":"success"}\n']), None, ""),
        (Reply(pieces=['{"status":"pulling manifest"}\n', '{"status":', '"success"}\n']), None, ""),
        (Reply(pieces=['{"status":"success"}\n', '{"error":"late"}\n']), ApiError, "says 'late'"),
        (Reply(pieces=['{"status":"verifying"}\n']), Silence, "without a word of success"),
        (Reply(pieces=['{"status":"pulling"}\n'], ending="torn"), Silence, "closed the connection"),
        (Reply(pieces=["<html>\n"]), ApiError, "not the line of an Ollama stream"),
        (as_json({"error": "invalid model name"}, 400), ApiError, "HTTP 400, 'invalid model name'"),
        (Reply(500, ""), ApiError, "HTTP 500"),
    ],
)
def test_pulls(reply: Reply, kind: type[ApiError] | None, said: str) -> None:
    with Scripted(lambda _request: reply).running() as server:
        events = Ollama(server.url).pull("x", True, 5)
        if kind is None:
            assert list(events)[-1] == {"status": "success"}
        else:
            with pytest.raises(kind, match=said):
                list(events)
        assert server.requests[0].json() == {"model": "x", "insecure": True, "stream": True}


def test_silence_is_told_second_by_second() -> None:
    with Scripted(lambda _request: Reply(pieces=['{"status":"a"}\n'], ending="silence")).running() as server:
        events = Ollama(server.url).pull("x", False, 10)
        assert [next(events), next(events)] == [{"status": "a"}, {}]
        events.close()
