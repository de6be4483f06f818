# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The model call of a chat: pieces, usage and errors, in the words of a reply."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import Any

from standin import versions
from standin.api import credentials, daemon_client, invoking, legacy_ollama, providers, replies
from standin.api.credentials import Model
from standin.api.providers import Provider

INVOKE_ERRORS = (
    "InvokeConnectionError",
    "InvokeServerUnavailableError",
    "InvokeRateLimitError",
    "InvokeAuthorizationError",
    "InvokeBadRequestError",
)
PRICES = (
    "prompt_unit_price",
    "prompt_price_unit",
    "prompt_price",
    "completion_unit_price",
    "completion_price_unit",
    "completion_price",
    "total_price",
)
TITLE_PROMPT = (
    'Name this conversation in a few words of its own language, as JSON with the key "Your Output".\n\nUser Input:\n'
)


class ChatError(Exception):
    """`code` and the two texts of one error: the blocking reply's and the stream's."""

    def __init__(self, code: str, blocking: str, streaming: str = "") -> None:
        super().__init__(blocking)
        self.code, self.blocking, self.streaming = code, blocking, streaming or blocking


@dataclass
class Call:
    """One question to a model."""

    tenant_id: str
    provider: Provider
    model: str
    credentials: dict[str, str]
    messages: list[dict[str, Any]]
    parameters: dict[str, Any]
    user_id: str = "unknown"
    app_id: str = ""
    started: float = field(default_factory=time.monotonic)


def prepare(tenant_id: str, app_config: dict[str, Any]) -> tuple[Provider, dict[str, str]]:
    """Provider and credentials of an app's model; errors here are plain JSON, also for a streaming request."""
    model = app_config["model"]
    provider = providers.find(tenant_id, str(model.get("provider")))
    current = credentials.current(tenant_id, provider, str(model.get("name")), "llm")
    missing = replies.invalid(f"Model {model.get('name')} not exist.")
    if current is None or current["encrypted_config"] is None:
        raise missing
    config = credentials.decrypt(Model(tenant_id, provider, str(model["name"]), "llm"), current["encrypted_config"])
    if (
        versions.has("schema_before_chat")
        and versions.has("plugins")
        and providers.model_schema(tenant_id, provider, "llm", str(model["name"]), config) is None
    ):
        raise missing
    return provider, config


def events(call: Call) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """Pieces of text; the last one comes with the usage."""
    try:
        for chunk in _invoke(call, stream=True):
            yield _text(chunk.delta.message.content), _counted(chunk.delta.usage)
    except Exception as error:
        raise _error(call, error) from error


def answer(call: Call) -> tuple[str | None, dict[str, Any] | None]:
    """Text and usage of a blocking call; no text where the daemon said nothing at all."""
    try:
        result = _invoke(call, stream=False)
    except Exception as error:
        raise _error(call, error) from error
    return None if result.message.content == [] else _text(result.message.content), _counted(result.usage)


def _invoke(call: Call, *, stream: bool) -> Any:
    return invoking.language_model(call.tenant_id, call.provider, call.app_id).invoke(
        model=call.model,
        credentials=call.credentials,
        prompt_messages=invoking.messages(call.messages),
        model_parameters=call.parameters,
        tools=None,
        stop=None,
        stream=stream,
        user=call.user_id,
        callbacks=None,
    )


def _counted(usage: Any) -> dict[str, Any] | None:
    if usage is None:
        return None
    return {name: str(value) if isinstance(value, Decimal) else value for name, value in asdict(usage).items()}


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(part.get("data", "") for part in content)
    return content or ""


def _error(call: Call, error: Exception) -> Exception:
    """What the reply says of an exception, which tells what it comes from."""
    if isinstance(error.__cause__, daemon_client.DaemonError):
        return _chat_error(call, error.__cause__)
    if isinstance(error.__cause__, legacy_ollama.ModelServerError):
        cause = error.__cause__
        mark = ":" if cause.family == "Error" else ","
        return ChatError("completion_request_error", f"[{call.provider.label}] {cause.family}{mark} {cause.text}")
    return error


def _chat_error(call: Call, error: daemon_client.DaemonError) -> ChatError:
    if not isinstance(error, daemon_client.DaemonRefusal):
        return ChatError("invalid_param", str(error))
    if error.code in (-404, -401) or error.error_type in ("PluginNotFoundError", "PluginDaemonUnauthorizedError"):
        return ChatError("invalid_param", f"plugin daemon: {error.raw}, code: {error.code}")
    inner = error.invoke_error()
    if not inner:
        return ChatError(
            "completion_request_error", f"[{call.provider.label}] Error: req_id:  {error.error_type}: {error.text}"
        )
    if inner.get("error_type") in INVOKE_ERRORS:
        description = (inner.get("args") or {}).get("description")
        return ChatError("completion_request_error", str(description or inner.get("message")))
    text = f"req_id: {daemon_client.request_id()} PluginInvokeError: {error.text}"
    if versions.has("plugin_exception_invalid_param"):
        return ChatError("invalid_param", text, error.text)
    return ChatError("completion_request_error", f"[{call.provider.label}] Error: {text}")


def usage(given: dict[str, Any] | None, started: float, *, streaming: bool = False) -> dict[str, Any]:
    """The usage object of a reply, in its recorded order."""
    given = given or {
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "total_tokens": 0,
        **dict.fromkeys(PRICES, "0.0"),
        "currency": "USD",
    }
    data: dict[str, Any] = {}
    for kind in ("prompt", "completion"):
        data[f"{kind}_tokens"] = given.get(f"{kind}_tokens", 0)
        data |= {name: given.get(name, "0") for name in (f"{kind}_unit_price", f"{kind}_price_unit", f"{kind}_price")}
    data |= {
        "total_tokens": given.get("total_tokens", 0),
        "total_price": given.get("total_price", "0"),
        "currency": given.get("currency", "USD"),
        "latency": time.monotonic() - started,
    }
    if versions.has("usage_timings") and not (streaming and versions.has("lean_stream_metadata")):
        data |= {"time_to_first_token": None, "time_to_generate": None}
    return data


def metadata(used: dict[str, Any], *, streaming: bool = False) -> dict[str, Any]:
    data: dict[str, Any] = {}
    if versions.has("retriever_resources"):
        if not (streaming and versions.has("lean_stream_metadata")):
            data["annotation_reply"] = None
        data["retriever_resources"] = []
    data["usage"] = used
    if versions.has("reasoning_metadata"):
        data["reasoning"] = {}
    return data


def title(call: Call, query: str) -> str:
    """The second call of a new conversation. Whatever goes wrong, the question itself is the title."""
    parameters = (
        {"max_tokens": 500, "temperature": 1} if versions.has("plugins") else {"temperature": 1, "num_predict": 100}
    )
    asked = Call(
        call.tenant_id,
        call.provider,
        call.model,
        call.credentials,
        [{"role": "user", "content": TITLE_PROMPT + query, "name": None}],
        parameters,
    )
    try:
        return str(json.loads(answer(asked)[0] or "")["Your Output"])[:75]
    except (ChatError, ValueError, KeyError, TypeError):
        return query[:75]
