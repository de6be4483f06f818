# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A light plugin for packages that install nothing: the Ollama plugin as it was recorded, without its SDK.

It speaks the SDK's protocol, so that the daemon cannot tell the two apart. It ends with its stdin, so that no plugin
outlives its daemon. The fault "plugin" has more values here than the daemon itself knows (see faults.py).
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from standin import daemon_ollama as ollama
from standin import daemon_protocol, faults
from standin.daemon_ollama import ModelError

HEARTBEAT_SECONDS = 10.0
ROLES = ("system", "user", "assistant", "tool")
PRICES = ("unit_price", "price_unit", "price")
VOCABULARY = (
    "HTTPSConnectionPool(host='vocabulary.invalid', port=443): Max retries exceeded with url: "
    '/gpt-2/encodings/main/vocab.bpe (Caused by NameResolutionError("HTTPSConnection: Failed to resolve '
    "'vocabulary.invalid' ([Errno -2] Name or service not known)\"))"
)
RULES = (
    "temperature",
    "top_p",
    "top_k",
    "repeat_penalty",
    "num_predict",
    "mirostat",
    "mirostat_eta",
    "mirostat_tau",
    "num_ctx",
    "num_gpu",
    "num_thread",
    "repeat_last_n",
    "tfs_z",
    "seed",
    "stop",
    "format",
    "keep_alive",
)


class Plugin:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        manifest = yaml.safe_load((directory / "manifest.yaml").read_text(encoding="utf-8"))
        provider = yaml.safe_load((directory / manifest["plugins"]["models"][0]).read_text(encoding="utf-8"))
        self.provider = str(provider["provider"])
        self.version = tuple(int(part) for part in str(manifest["version"]).split("-")[0].split("."))

    def answer(self, action: str, data: dict[str, Any]) -> Iterator[dict[str, Any]]:
        fault = faults.get("plugin", "plugin_daemon")
        if action == "model/validate_provider_credentials":
            self._check_provider(data)
            yield {"result": True, "credentials": data.get("credentials") or {}}
        elif action.split("/")[0] in ("llm", "text_embedding", "model", "rerank"):
            self._check_model(data)
            yield from self._model(action, data, fault)
        else:
            self._check_provider(data, missing=True)

    def _model(self, action: str, data: dict[str, Any], fault: str) -> Iterator[dict[str, Any]]:
        vocabulary_lost = fault == "tokenizer"
        if action == "model/validate_model_credentials":
            if vocabulary_lost and data["model_type"] == "text-embedding":
                raise ModelError(
                    "CredentialsValidateFailedError", f"An error occurred during credentials validation: {VOCABULARY}"
                )
            yield ollama.validate(data)
        elif action == "model/schema":
            yield {"model_schema": self._schema(data)}
        elif action == "llm/invoke":
            # The client library of the real plugin loads its parts when the first call needs them.
            if not self.directory.is_dir():
                raise ModelError("InvokeError", "[models] Error: No module named 'gevent.resolver'", True)
            yield from self._invoke(data, fault)
        elif vocabulary_lost:
            if action == "text_embedding/invoke":
                raise ModelError(
                    "InvokeServerUnavailableError", f"[models] Server Unavailable Error, {VOCABULARY}", True
                )
            raise ModelError("ConnectionError", VOCABULARY)
        elif action == "llm/num_tokens":
            yield {
                "num_tokens": sum(4 + ollama.tokens_of(str(message["content"])) for message in data["prompt_messages"])
            }
        elif action == "text_embedding/num_tokens":
            yield {"num_tokens": [ollama.tokens_of(text) for text in data["texts"]]}
        elif action == "text_embedding/invoke":
            yield ollama.embed(data)

    def _check_provider(self, data: dict[str, Any], missing: bool = False) -> None:
        if missing or data.get("provider") != self.provider:
            raise ModelError("ValueError", f"Provider `{data.get('provider')}` not found")

    def _check_model(self, data: dict[str, Any]) -> None:
        kinds = ["llm", "text-embedding"]
        if data.get("provider") != self.provider or data.get("model_type") not in kinds:
            kind = str(data.get("model_type")).upper().replace("-", "_")
            raise ModelError("ValueError", f"Model `ModelType.{kind}` not found for provider `{data.get('provider')}`")

    def _schema(self, data: dict[str, Any]) -> dict[str, Any]:
        credentials = data["credentials"]
        llm = data["model_type"] == "llm"
        languages = ("en_US", "zh_Hans", "pt_BR") if self.version < (1,) else ("en_US", "zh_Hans", "pt_BR", "ja_JP")
        properties = {"mode": credentials.get("mode", "chat")} if llm else {"max_chunks": 1}
        properties = {"context_size": int(credentials.get("context_size", 4096)), **properties}
        rules = [*RULES, *(("think", "num_keep") if self.version >= (1,) else ())] if llm else []
        return {
            "model": data["model"],
            "label": dict.fromkeys(languages, data["model"]),
            "model_type": data["model_type"],
            "features": [] if llm else None,
            "fetch_from": "customizable-model",
            "model_properties": properties,
            "deprecated": False,
            "parameter_rules": [self._rule(name) for name in rules],
            "pricing": {"input": "0", "output": "0" if llm else None, "unit": "0", "currency": "USD"},
        }

    def _rule(self, name: str) -> dict[str, Any]:
        """Temperature's limits are recorded, the others only by their number."""
        warm = name == "temperature"
        return {
            "name": name,
            "use_template": name if name in RULES[:3] else None,
            "label": {"en_US": name},
            "type": "float" if name in RULES[:2] else "int",
            "help": None,
            "required": False,
            "default": (0 if self.version >= (1,) else 0.1) if warm else None,
            "min": 0 if warm else None,
            "max": 1 if warm else None,
            "precision": 2 if warm else None,
            "options": [],
        }

    def _invoke(self, data: dict[str, Any], fault: str) -> Iterator[dict[str, Any]]:
        started = time.monotonic()
        messages = _messages(data)
        if fault in ("html", "empty"):
            usage = _usage(1, 0, started) if fault == "html" else _usage(11, 4, started)
            yield self._chunk(data, 0, "", usage, "Non-JSON encountered." if fault == "html" else "stop")
            return
        stream = bool(data.get("stream"))
        response = ollama.ask(data, stream, messages)
        if not stream:
            reply = ollama.whole(response)
            usage = _usage(reply.get("prompt_eval_count", 0), reply.get("eval_count", 0), started)
            yield self._chunk(data, 0, ollama.text_of(reply), None if fault == "nousage" else usage, None)
            return
        for index, line in enumerate(ollama.lines(response)):
            try:
                reply = json.loads(line)
            except ValueError:
                if fault == "tokenizer":
                    raise ModelError("ConnectionError", VOCABULARY) from None
                yield self._chunk(data, index, "", _usage(1, 0, started), "Non-JSON encountered.")
                return
            if "done" not in reply:
                if self.version >= (1,):
                    return  # this line of plugins swallows an error in the middle of a stream
                raise ModelError("KeyError", "'done'")
            if reply["done"]:
                if fault == "tokenizer":
                    raise ModelError("ConnectionError", VOCABULARY)
                if fault != "nousage":
                    usage = _usage(reply.get("prompt_eval_count", 0), reply.get("eval_count", 0), started)
                    yield self._chunk(data, index, ollama.text_of(reply), usage, "stop")
                return
            yield self._chunk(data, index, ollama.text_of(reply), None, None)

    def _chunk(
        self, data: dict[str, Any], index: int, text: str, usage: dict[str, Any] | None, reason: str | None
    ) -> dict[str, Any]:
        message: dict[str, Any] = {
            "role": "assistant",
            "content": text,
            "name": "",
            "tool_calls": [],
            "tool_call_id": "",
        }
        if self.version >= (1,):
            message["opaque_body"] = None
        return {
            "model": data["model"],
            "system_fingerprint": "",
            "delta": {"index": index, "message": message, "usage": usage, "finish_reason": reason},
            "prompt_messages": [],
        }


def _usage(prompt: int, completion: int, started: float) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part, count in (("prompt", prompt), ("completion", completion)):
        found[f"{part}_tokens"] = count
        found.update({f"{part}_{name}": "0" for name in PRICES})
    total = prompt + completion
    return {
        **found,
        "total_tokens": total,
        "total_price": "0",
        "currency": "USD",
        "latency": time.monotonic() - started,
    }


def _messages(data: dict[str, Any]) -> list[dict[str, Any]]:
    messages = data.get("prompt_messages")
    if not isinstance(messages, list):
        raise _invalid(
            1,
            "prompt_messages\n  Value error, prompt_messages must be a list [type=value_error, input_value=None, "
            "input_type=NoneType]",
            "value_error",
        )
    for message in messages:
        if message.get("role") in ROLES:
            continue
        if data.get("model_parameters") is None:
            raise _invalid(
                2,
                "prompt_messages.role\n  Input should be 'system', 'user', 'assistant' or 'tool' [type=enum, "
                "input_value='', input_type=str]\n    For further information visit "
                "https://errors.pydantic.dev/2.14/v/enum\nmodel_parameters\n  Input should be a valid dictionary "
                "[type=dict_type, input_value=None, input_type=NoneType]",
                "dict_type",
            )
        raise _invalid(
            1,
            "prompt_messages.role\n  Input should be 'system', 'user', 'assistant' or 'tool' [type=enum, "
            f"input_value='{message.get('role')}', input_type=str]",
            "enum",
        )
    return [{"role": message["role"], "content": message.get("content") or ""} for message in messages]


def _invalid(count: int, detail: str, kind: str) -> ModelError:
    plural = "s" if count > 1 else ""
    return ModelError(
        "ValidationError",
        f"{count} validation error{plural} for ModelInvokeLLMRequest\n{detail}\n    "
        f"For further information visit https://errors.pydantic.dev/2.14/v/{kind}",
    )


class Speaker:
    """stdout, one whole line at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def say(self, event: dict[str, Any]) -> None:
        with self._lock:
            sys.stdout.write(json.dumps(event, ensure_ascii=False) + "\n")
            sys.stdout.flush()


def _serve(plugin: Plugin, speaker: Speaker, request: dict[str, Any]) -> None:
    session, data = request["session_id"], request["data"]

    def say(kind: str, content: dict[str, Any]) -> None:
        speaker.say({"event": "session", "session_id": session, "data": {"type": kind, "data": content}})

    try:
        try:
            for piece in plugin.answer(daemon_protocol.ROUTES[data["type"], data["action"]], data):
                say("stream", piece)
        except ModelError as error:
            args = {"description": error.message} if error.described else {}
            say("error", {"args": args, "error_type": error.kind, "message": error.message})
        say("end", {})
    except BrokenPipeError:
        os._exit(0)


def _beat(speaker: Speaker) -> None:
    while True:
        speaker.say({"event": "heartbeat", "session_id": None, "data": {}})
        time.sleep(HEARTBEAT_SECONDS)


def main() -> None:
    plugin = Plugin(Path.cwd())
    speaker = Speaker()
    threading.Thread(target=_beat, args=(speaker,), daemon=True).start()
    for line in sys.stdin:
        threading.Thread(target=_serve, args=(plugin, speaker, json.loads(line)), daemon=True).start()
    os._exit(0)
