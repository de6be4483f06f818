# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules of Dify that model calls pass, in the shape of each generation, and plugins that watch them."""

from __future__ import annotations

import json
import pathlib
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[2]
MONITORING = ROOT / "roles" / "traceloop" / "files" / "monitoring"

# What a model server is told to answer, and what passes; every generation's client plays from it.
PLAYER = """
import contextvars

answer = []      # chunks to give, exceptions to raise
asked = []       # keyword arguments of each request that was really sent
current = contextvars.ContextVar("current", default="nobody")
inside = []      # the context variable as the request sees it
closed = []


class Thing:
    def __init__(self, **fields):
        self.__dict__.update(fields)


def usage(prompt, completion, **more):
    return Thing(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion, **more)


def chunk(text, usage=None, finish_reason=None):
    message = Thing(content=text, tool_calls=[])
    return Thing(model="m", prompt_messages=[], delta=Thing(index=0, message=message, usage=usage,
                                                          finish_reason=finish_reason))


def play():
    try:
        for item in list(answer):
            inside.append(current.get())
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        closed.append(True)
"""
CLIENT = """
import player


class {cls}:
    def invoke_llm(self, tenant_id, user_id, plugin_id, provider, model, credentials, prompt_messages,
                   model_parameters=None, tools=None, stop=None, stream=True{more}):
        player.asked.append(model)
        yield from player.play()

    def invoke_text_embedding(self, tenant_id, user_id, plugin_id, provider, model, credentials, texts, input_type):
        for item in player.play():
            return item
        raise ValueError("nothing came")

    def invoke_rerank(self, tenant_id, user_id, plugin_id, provider, model, credentials, query, docs,
                      score_threshold=None, top_n=None):
        for item in player.play():
            return item
        raise ValueError("nothing came")
"""
BASE = """
import player


class LargeLanguageModel:
    def invoke(self, model, credentials, prompt_messages, model_parameters=None, tools=None, stop=None, stream=True,
               user=None, callbacks=None):
        player.asked.append(model)
        if not stream:
            for item in player.play():
                return item
        return player.play()
"""
PROVIDER = """
from core.model_runtime.model_providers.__base.large_language_model import LargeLanguageModel


class Ollama(LargeLanguageModel):
    pass
"""
EMBEDDING_BASE = """
import player


class TextEmbeddingModel:
    def invoke(self, model, credentials, texts, user=None, input_type=None):
        for item in player.play():
            return item
"""
RECORDER = """
seen = []
ran = []
closed = []
keep = 0
at_before = None


def run():
    ran.append(True)


def close():
    closed.append(True)


def before(event):
    if keep:
        event.keep_content(keep)
    if at_before:
        at_before(event)
    seen.append(("before_invoke", event))


def first(event):
    seen.append(("on_first_chunk", event))


def after(event):
    seen.append(("after_invoke", event))


def error(event):
    seen.append(("on_error", event))
"""
# Writes one line for each call it is told of, and one when it is closed.
WITNESS = """
import json, os

_file = -1


def run():
    global _file
    _file = os.open(os.environ["WITNESS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def tell(event):
    line = json.dumps({"pid": os.getpid(), "model": event.model, "outcome": event.outcome, "runs": _file >= 0})
    os.write(_file, (line + "\\n").encode())


def close():
    os.write(_file, (json.dumps({"pid": os.getpid(), "closed": True}) + "\\n").encode())
"""
HOOKS = {"before_invoke": "before", "on_first_chunk": "first", "after_invoke": "after", "on_error": "error"}
MODEL_BASE = "core.model_runtime.model_providers.__base"
GENERATIONS = {
    "1.0": ("core.plugin.manager.model", "PluginModelManager", ""),
    "1.3.1": ("core.plugin.impl.model", "PluginModelClient", ""),
    "1.16": ("core.plugin.impl.model", "PluginModelClient", ", app_id=None"),
}
ASK = {
    "tenant_id": "t-1",
    "user_id": "u-1",
    "plugin_id": "langgenius/ollama",
    "provider": "langgenius/ollama/ollama",
    "model": "deepseek-r1:1.5b",
    "credentials": {"base_url": "http://me:secret@ollama.example.com:11434/api", "api_key": "secret"},
}


def write(path: pathlib.Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def write_module(root: pathlib.Path, name: str, text: str) -> None:
    folder = root
    for part in name.split(".")[:-1]:
        folder = folder / part
        write(folder / "__init__.py", "")
    write(folder / f"{name.split('.')[-1]}.py", text)


def write_dify(root: pathlib.Path, generation: str) -> pathlib.Path:
    """Modules of one generation, where and as Dify has them. Those of 1.x keep the older base classes."""
    write(root / "player.py", PLAYER)
    write_module(root, f"{MODEL_BASE}.large_language_model", BASE)
    write_module(root, f"{MODEL_BASE}.text_embedding_model", EMBEDDING_BASE)
    write_module(root, "core.model_runtime.model_providers.ollama.llm.llm", PROVIDER)
    if generation in GENERATIONS:
        module, cls, more = GENERATIONS[generation]
        write_module(root, module, CLIENT.format(cls=cls, more=more))
    return root


def write_plugin(folder: pathlib.Path, code: str = RECORDER, **changes: Any) -> pathlib.Path:
    found = {
        "name": folder.name,
        "version": "1.0.0",
        "description": "a test's",
        "main": "main.py",
        "dependencies": {},
        "hooks": HOOKS,
    }
    write(folder / "plugin.json", json.dumps({k: v for k, v in {**found, **changes}.items() if v is not None}))
    write(folder / "main.py", code)
    return folder
