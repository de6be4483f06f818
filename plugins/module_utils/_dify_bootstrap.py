# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""What the modules of Dify's console are asked for, out of the variables of role dify, and words about it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._dify_nodes import (
    OLLAMA_PLUGIN,
    PROVIDER,
    default_models,
    node_notes,
)
from ansible_collections.llmops.stack.plugins.module_utils._dify_versions import since

__all__ = ["bootstrap", "default_plugins", "failure", "probe_dsl"]

# Newer releases take it as it is or after a confirmation; for files of 0.1.5 and older they ask the marketplace.
_DSL_VERSION = "0.3.1"
_PROBE_TOKENS = 256

_STEPS = {
    "dify_setup": "the owner account is not as wanted",
    "dify_plugin": "not all plugins are as wanted",
    "dify_model": "not all models are as wanted",
    "dify_app": "not all apps are as wanted",
}


def default_plugins(models: Iterable[Mapping[str, Any]]) -> list[str]:
    """The plugin that brings the provider of the models, where they are of Ollama."""
    wanted = (one for one in models if isinstance(one, Mapping) and one.get("state") != "absent")
    brought = (PROVIDER, f"{OLLAMA_PLUGIN}/{PROVIDER}")
    return [OLLAMA_PLUGIN] if any(str(one.get("provider") or PROVIDER) in brought for one in wanted) else []


def bootstrap(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """C(plugins), C(models) and C(apps) for one call of each module, C(notes) in sentences, and as they were given
    C(nodes) and C(model_servers).

    Args:
        wanted: C(version), C(plugins), C(models), C(apps), C(overwrite), C(nodes), C(model_servers), C(probe_app),
            C(probe_model) and C(probe_key_file).
    """
    version = str(wanted["version"])
    has_plugins = since(version, "plugin_daemon")
    plugins = [_plugin(one) for one in wanted["plugins"]]
    models = [dict(one) for one in wanted["models"]]
    nodes = [dict(one) for one in wanted["nodes"]]
    notes = node_notes(nodes, models)
    if not has_plugins:
        extra = [_called(one) for one in plugins if _called(one).partition(":")[0] != OLLAMA_PLUGIN]
        if extra:
            notes.append(f"Dify {version} has no plugins, so {', '.join(extra)} waits for a release from 1.0 on.")
    asked = _probe_model(models, nodes, str(wanted["probe_model"])) if wanted["probe_app"] else None
    apps = [dict(one) for one in wanted["apps"]]
    if asked:
        dsl = probe_dsl(str(wanted["probe_app"]), asked, has_plugins)
        key_file = str(wanted["probe_key_file"])
        probe = {"name": str(wanted["probe_app"]), "dsl": dsl, "key_file": key_file, "overwrite": wanted["overwrite"]}
        apps.append(probe)
    return {
        "plugins": plugins if has_plugins else [],
        "models": models,
        "apps": apps,
        "nodes": nodes,
        "model_servers": list(wanted["model_servers"]),
        "notes": notes,
    }


def _plugin(entry: str | Mapping[str, Any]) -> str | dict[str, Any]:
    """As M(llmops.stack.dify_plugin) names the keys."""
    if isinstance(entry, str):
        return entry
    return {"plugin_version" if key == "version" else key: value for key, value in entry.items()}


def _called(entry: str | Mapping[str, Any]) -> str:
    return entry if isinstance(entry, str) else str(entry.get("plugin") or entry.get("package") or entry.get("repo"))


def _probe_model(models: list[dict[str, Any]], nodes: list[dict[str, Any]], name: str) -> dict[str, Any] | None:
    """The one of this name, which may be in Dify without being among the models; the first that chats without one.

    None leaves the app as it is: the first that chats may be one that this run did not ask.
    """
    chatting = [one for one in models if one.get("model_type", "llm") == "llm" and one.get("state") != "absent"]
    if name:
        return next((one for one in chatting if one["model"] == name), {"model": name})
    if models == default_models(nodes):
        chatting = [one for one in chatting if one["default"]]
    return chatting[0] if chatting else None


def _probe_tokens(model: Mapping[str, Any]) -> int:
    """Dify refuses an app that asks for more than the model's max_tokens allow."""
    allowed = str((model.get("credentials") or {}).get("max_tokens") or "")
    return min(_PROBE_TOKENS, int(allowed)) if allowed.isdecimal() else _PROBE_TOKENS


def probe_dsl(app: str, model: Mapping[str, Any], has_plugins: bool) -> dict[str, Any]:
    """A small chat app around a model, in the form that every release from 0.15.3 on can import."""
    provider = str(model.get("provider") or PROVIDER)
    short = provider.rpartition("/")[2]
    if not has_plugins:
        provider = short
    elif "/" not in provider:
        provider = f"langgenius/{provider}/{provider}"
    off = {"enabled": False}
    # Other providers name the limit otherwise, and some refuse a parameter that they do not know.
    limited = {"num_predict": _probe_tokens(model), "temperature": 0} if short == PROVIDER else {}
    return {
        "kind": "app",
        "version": _DSL_VERSION,
        "dependencies": [],
        "app": {
            "name": app,
            "mode": "chat",
            "icon": "\N{STETHOSCOPE}",
            "icon_background": "#E4FBCC",
            "description": "Asked by llmops.stack to see that models answer. Its key stays on the host.",
            "use_icon_as_answer_icon": False,
        },
        "model_config": {
            "model": {
                "provider": provider,
                "name": str(model["model"]),
                "mode": "chat",
                "completion_params": {**limited, "stop": []},
            },
            "pre_prompt": "Answer in one short sentence.",
            "prompt_type": "simple",
            "chat_prompt_config": {},
            "completion_prompt_config": {},
            "user_input_form": [],
            "dataset_query_variable": "",
            "dataset_configs": {"retrieval_model": "multiple", "datasets": {"datasets": []}},
            "agent_mode": {"enabled": False, "max_iteration": 5, "strategy": "react", "tools": []},
            "opening_statement": "",
            "suggested_questions": [],
            "suggested_questions_after_answer": off,
            "speech_to_text": off,
            "text_to_speech": {"enabled": False, "language": "", "voice": ""},
            "retriever_resource": off,
            "sensitive_word_avoidance": off,
            "annotation_reply": off,
            "more_like_this": off,
            "external_data_tools": [],
        },
    }


def failure(result: Mapping[str, Any], action: str, health: Mapping[str, Any], host: str) -> str:
    """One paragraph: the host, what the module said, what health found, and the next step.

    Args:
        result: of the module that failed.
        action: its name, with or without its collection.
        health: the result of M(llmops.stack.dify_health) that was asked afterwards; empty where it could not be.
    """
    found = _STEPS.get(action.rpartition(".")[2], "Dify is not as wanted")
    said = _sentence(str(result.get("msg") or "The module ended without a word."))
    return f"{host}: {found}. {said} {_health(health)} Run site.yml again after that: it goes on where it stopped."


def _health(health: Mapping[str, Any]) -> str:
    checks = health.get("checks") or []
    failed = [one for one in checks if one["status"] == "failed"]
    if failed:
        found = " ".join(_sentence(str(one["detail"])) for one in failed)
        return f"Health found: {found} {_sentence(str(failed[0].get('advice') or ''))}".rstrip()
    if checks:
        return "Health found nothing wrong with Dify's own services."
    return f"Health could not be asked: {_sentence(str(health.get('msg') or 'no answer'))}"


def _sentence(text: str) -> str:
    """On one line, with a full stop."""
    text = re.sub(r"\s+", " ", text).strip()
    return text if not text or text[-1] in ".!?" else f"{text}."
