# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils._dify_preflight_console import console_refusals

GOOD: dict[str, Any] = {
    "admin_email": "admin@example.com",
    "admin_password": "",
    "admin_name": "Admin",
    "plugins": [
        "langgenius/ollama",
        "langgenius/openai:0.1.0",
        {"plugin": "a/b", "version": "0.10", "pin": True},
        {"source": "package", "package": "/srv/c.difypkg"},
        {"package": "/srv/d.difypkg"},
        {"plugin": "a/e", "repo": "a/e", "release": "v1", "release_file": "e.difypkg"},
        {"plugin": "a/f", "source": "github", "state": "absent"},
    ],
    "models": [
        {"model": "m", "default": True},
        {"model": "m", "provider": "other"},
        {"model": "m", "model_type": "text-embedding", "default": True},
        {"model": "n", "default": True, "state": "absent"},
    ],
    "apps": [
        {"name": "x", "dsl": {"kind": "app"}},
        {"name": "y", "src": "/srv/y.yml"},
        {"name": "z", "state": "absent"},
    ],
    "probe_app": "llmops-health-check",
    "plugin_public_keys": ["-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----\n"],
}


def test_good_wishes_are_not_refused() -> None:
    assert console_refusals(GOOD) == []
    assert console_refusals({}) == []


@pytest.mark.parametrize("email", ["admin", "admin@localhost", "a b@example.com", "admin@example.com "])
def test_an_address_that_dify_would_refuse(email: str) -> None:
    (sentence,) = console_refusals({**GOOD, "admin_email": email})
    assert f"dify_admin_email is '{email}'" in sentence and "admin@example.com" in sentence


@pytest.mark.parametrize("password", ["Sh0rt", "onlyletters", "1234567890"])
def test_a_password_that_dify_would_refuse_is_not_shown(password: str) -> None:
    (sentence,) = console_refusals({**GOOD, "admin_password": password})
    assert "8 characters or more, with letters and digits" in sentence and password not in sentence
    # Without an address nobody looks at it.
    assert console_refusals({**GOOD, "admin_email": "", "admin_password": password}) == []


def test_a_name_that_is_too_long() -> None:
    assert "31 characters" in console_refusals({**GOOD, "admin_name": "x" * 31})[0]


@pytest.mark.parametrize(
    ("key", "entries", "said"),
    [
        ("plugins", ["ollama"], "'ollama' is no name of a plugin"),
        ("plugins", [{"plugin": "a/b", "source": ["package"]}], "source is ['package'], expected was a text"),
        ("plugins", [{"version": "1.0.0"}], "plugin is missing"),
        ("plugins", ["a/b:1.0.0", {"plugin": "a/b", "package": "/srv/b.difypkg"}], "entry 2: a/b is given twice"),
        ("plugins", [{"package": "/b"}, {"package": "/b"}], "entry 2: /b is given twice"),
        ("models", ["m"], "entry 1: is no mapping"),
        ("models", [{"name": "m"}], "name is no key of it"),
        ("models", [{"model": ""}], "has no name in the key model"),
        ("models", [{"model": "m", "model_type": "chat"}], "model_type is 'chat'"),
        ("models", [{"model": "m", "state": "latest"}], "must be present or absent"),
        ("models", [{"model": "m", "credentials": ["secret"]}], "credentials are no mapping"),
        ("models", [{"model": "m", "credential_name": "x" * 31}], "more than 30 characters"),
        (
            "models",
            [{"model": "m"}, {"model": "m", "provider": "langgenius/ollama/ollama"}],
            "entry 2: m (llm) of ollama is given",
        ),
        (
            "models",
            [{"model": "m", "default": True}, {"model": "n", "default": True}],
            "n and m are both to be the default",
        ),
        ("apps", ["x"], "entry 1: is no mapping"),
        ("apps", [{"name": "x", "yaml": ""}], "yaml is no key of it"),
        ("apps", [{"dsl": "kind: app"}], "has no name"),
        ("apps", [{"name": "x"}], "x has neither dsl"),
        ("apps", [{"name": "x", "dsl": "a", "src": "/b"}], "both dsl and src"),
        ("apps", [{"name": "x", "dsl": "a", "state": "latest"}], "must be present or absent"),
        ("apps", [{"name": "x", "dsl": "a"}, {"name": "x", "dsl": "b"}], "entry 2: the app x is given twice"),
        ("apps", [{"name": "llmops-health-check", "dsl": "a"}], "dify_probe_app"),
        ("plugin_public_keys", ["ssh-rsa AAAA"], "entry 1: is no public key in PEM form"),
    ],
)
def test_an_entry_that_cannot_end_well_is_named_with_what_is_wrong(key: str, entries: list[Any], said: str) -> None:
    (sentence,) = console_refusals({**GOOD, key: entries})
    assert sentence.startswith(f"dify_{key}, entry") and said in sentence


def test_everything_is_named_in_one_round() -> None:
    assert len(console_refusals({**GOOD, "admin_email": "x", "plugins": ["y"], "models": [{}], "apps": [{}]})) == 4


NODES = [
    {"name": "gpu1", "url": "http://192.0.2.21:11434", "models": [{"name": "talk:latest"}, {"name": "big:70b"}]},
    {"name": "cpu1", "url": "http://192.0.2.22:11434/", "models": [{"name": "talk:latest"}]},
]


def at(url: str, model: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "credentials": {"base_url": url}, **more}


@pytest.mark.parametrize(
    "entry",
    [
        {"model": "Talk"},
        at("http://192.0.2.21:11434/", "big:70b"),
        at("http://192.0.2.22:11434", "talk"),
        at("http://models.example.com:11434", "other:7b"),
        {"model": "other:7b", "state": "absent"},
        {"model": "gpt-4o", "provider": "langgenius/openai/openai"},
    ],
)
def test_a_model_where_dify_is_to_ask_it(entry: dict[str, Any]) -> None:
    assert console_refusals({**GOOD, "models": [entry], "nodes": NODES}) == []


def test_a_model_on_no_node() -> None:
    for entry in ({"model": "other:7b"}, at("http://192.0.2.21:11434", "other:7b", provider="ollama")):
        assert console_refusals({**GOOD, "models": [entry], "nodes": []}) == []
        (sentence,) = console_refusals({**GOOD, "models": [entry], "nodes": NODES})
        assert sentence == (
            "dify_models, entry 1: other:7b is on no node: it is not among the ollama_models of gpu1, cpu1. Correct "
            "its name, or have it on one of them; where another server has it, write that one's credentials.base_url."
        )


KEYED = [{"name": "gw", "url": "http://192.0.2.9:11434", "models": [{"name": "talk:latest"}], "key": "s3cret"}]


@pytest.mark.parametrize(
    ("version", "plugin", "said"),
    [
        (
            "1.12.1",
            "langgenius/ollama:0.1.0",
            "langgenius/ollama:0.1.0, which cannot bring the gateway_key",
        ),
        (
            "1.12.1",
            {"plugin": "langgenius/ollama", "version": "0.0.9"},
            "Raise the version, or leave gateway_key",
        ),
        ("0.15.3", "langgenius/ollama", "Dify 0.15.3 cannot bring the gateway_key"),
        ("1.12.1", "langgenius/ollama:0.2.0", ""),
        ("1.12.1", "langgenius/ollama:1.0.0", ""),
        ("1.12.1", "langgenius/ollama", ""),
        ("1.12.1", {"plugin": "langgenius/ollama", "state": "absent"}, ""),
        ("1.12.1", "no plugin", "dify_plugins, entry 1"),
        ("2.0.0", "langgenius/openai:0.1.0", ""),
    ],
)
def test_a_key_that_nobody_could_bring(version: str, plugin: Any, said: str) -> None:
    found = console_refusals({**GOOD, "models": [], "plugins": [plugin], "nodes": KEYED, "version": version})
    assert (said in " ".join(found) and len(found) == 1) if said else not found
    assert "s3cret" not in " ".join(found)


def test_a_key_that_somebody_brings_by_hand() -> None:
    wanted = {**GOOD, "models": [], "plugins": ["langgenius/ollama:0.1.0"], "nodes": KEYED, "version": "1.12.1"}
    assert console_refusals({**wanted, "admin_email": ""}) == []


def test_a_model_on_another_node() -> None:
    (sentence,) = console_refusals({**GOOD, "models": [at("http://192.0.2.22:11434", "big:70b")], "nodes": NODES})
    assert "big:70b is not on cpu1, at which Dify is to ask it (http://192.0.2.22:11434), but on gpu1." in sentence
