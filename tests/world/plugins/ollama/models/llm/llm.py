# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""/api/chat and /api/generate of an Ollama server as a large language model of Dify."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable
from typing import Any

import requests
from dify_plugin import LargeLanguageModel
from dify_plugin.entities.model import AIModelEntity, I18nObject, ModelFeature, ModelType, ParameterRule, ParameterType
from dify_plugin.entities.model.llm import LLMResult, LLMResultChunk, LLMResultChunkDelta
from dify_plugin.entities.model.message import (
    AssistantPromptMessage,
    ImagePromptMessageContent,
    PromptMessage,
    PromptMessageTool,
    TextPromptMessageContent,
    ToolPromptMessage,
)
from dify_plugin.errors.model import InvokeError
from models import server

# Ollama's option -> (type, Dify's template of the same meaning, lowest, highest). The highest num_predict is in the
# credentials.
RULES: dict[str, tuple[ParameterType, str | None, float | None, float | None]] = {
    "temperature": (ParameterType.FLOAT, "temperature", 0, 1),
    "top_p": (ParameterType.FLOAT, "top_p", 0, 1),
    "top_k": (ParameterType.INT, None, 1, 100),
    "repeat_penalty": (ParameterType.FLOAT, None, -2, 2),
    "num_predict": (ParameterType.INT, "max_tokens", -2, None),
    "num_ctx": (ParameterType.INT, None, 1, None),
    "num_gpu": (ParameterType.INT, None, -1, None),
    "num_thread": (ParameterType.INT, None, 1, None),
    "repeat_last_n": (ParameterType.INT, None, -1, None),
    "seed": (ParameterType.INT, None, None, None),
    "format": (ParameterType.STRING, None, None, None),
    "keep_alive": (ParameterType.STRING, None, None, None),
}
BESIDE_OPTIONS = ("format", "keep_alive")


class OllamaLargeLanguageModel(LargeLanguageModel):
    def _invoke(
        self,
        model: str,
        credentials: dict[str, Any],
        prompt_messages: list[PromptMessage],
        model_parameters: dict[str, Any],
        tools: list[PromptMessageTool] | None = None,
        stop: list[str] | None = None,
        stream: bool = True,
        user: str | None = None,
    ) -> LLMResult | Generator[LLMResultChunk, None, None]:
        body = _body(model, credentials, prompt_messages, model_parameters, stop)
        if tools and "messages" in body and credentials.get("function_call_support") == "true":
            body["tools"] = [_tool(tool) for tool in tools]
        response = server.post(credentials, _path(credentials), {**body, "stream": stream}, stream)
        if stream:
            return self._pieces(model, credentials, response)
        reply = response.json()
        return LLMResult(model=model, message=_message(reply), usage=self._usage(model, credentials, reply))

    def _pieces(
        self, model: str, credentials: dict[str, Any], response: requests.Response
    ) -> Generator[LLMResultChunk, None, None]:
        """One piece for each line of the answer; the last line counts the tokens."""
        for index, line in enumerate(line for line in response.iter_lines() if line.strip()):
            reply = json.loads(line)
            if reply.get("error"):
                raise InvokeError(f"[models] Error: {reply['error']}")
            usage = self._usage(model, credentials, reply) if reply["done"] else None
            yield LLMResultChunk(
                model=model,
                delta=LLMResultChunkDelta(
                    index=index, message=_message(reply), usage=usage, finish_reason="stop" if usage else None
                ),
            )

    def _usage(self, model: str, credentials: dict[str, Any], reply: dict[str, Any]) -> Any:
        return self._calc_response_usage(
            model, credentials, reply.get("prompt_eval_count", 0), reply.get("eval_count", 0)
        )

    def get_num_tokens(
        self,
        model: str,
        credentials: dict[str, Any],
        prompt_messages: list[PromptMessage],
        tools: list[PromptMessageTool] | None = None,
    ) -> int:
        return sum(4 + server.rough_tokens(_content(message)["content"]) for message in prompt_messages)

    def validate_credentials(self, model: str, credentials: dict[str, Any]) -> None:
        """Five tokens from the server itself: the only way to know that it has this model."""
        text = "messages" if _path(credentials) == "api/chat" else "prompt"
        said: Any = [{"role": "user", "content": "ping"}] if text == "messages" else "ping"
        body = {"model": model, "stream": False, "options": {"num_predict": 5}, text: said}
        try:
            server.post(credentials, _path(credentials), body).json()
        except Exception as error:
            raise server.refused(error) from error

    def get_customizable_model_schema(self, model: str, credentials: dict[str, Any]) -> AIModelEntity:
        features = []
        if credentials.get("vision_support") == "true":
            features.append(ModelFeature.VISION)
        if credentials.get("function_call_support") == "true":
            features += [ModelFeature.TOOL_CALL, ModelFeature.MULTI_TOOL_CALL]
        return server.schema(
            model,
            ModelType.LLM,
            credentials,
            {"mode": credentials.get("mode") or "chat"},
            features=features,
            parameter_rules=[_rule(name, int(credentials.get("max_tokens") or 4096)) for name in RULES],
        )

    @property
    def _invoke_error_mapping(self) -> dict[type[InvokeError], list[type[Exception]]]:
        return server.ERRORS


def _rule(name: str, most: int) -> ParameterRule:
    kind, template, lowest, highest = RULES[name]
    label = I18nObject(en_US=name.replace("_", " ").capitalize())
    highest = most if name == "num_predict" else highest
    return ParameterRule(name=name, label=label, type=kind, use_template=template, min=lowest, max=highest)


def _path(credentials: dict[str, Any]) -> str:
    return "api/generate" if credentials.get("mode") == "completion" else "api/chat"


def _body(
    model: str,
    credentials: dict[str, Any],
    prompt_messages: list[PromptMessage],
    parameters: dict[str, Any],
    stop: Iterable[str] | None,
) -> dict[str, Any]:
    options = {name: value for name, value in parameters.items() if name not in BESIDE_OPTIONS}
    if stop:
        options["stop"] = list(stop)
    body: dict[str, Any] = {name: parameters[name] for name in BESIDE_OPTIONS if parameters.get(name)}
    body.update({"model": model, "options": options})
    messages = [_content(message) for message in prompt_messages]
    if _path(credentials) == "api/chat":
        return {**body, "messages": messages}
    last = messages[-1] if messages else {"content": ""}
    return {
        **body,
        "prompt": last["content"],
        **{name: value for name, value in last.items() if name == "images"},
    }


def _content(message: PromptMessage) -> dict[str, Any]:
    """A message in Ollama's form: text in one string, pictures beside it."""
    found: dict[str, Any] = {"role": message.role.value, "content": message.content or ""}
    if isinstance(message.content, list):
        parts = message.content
        found["content"] = "\n".join(part.data for part in parts if isinstance(part, TextPromptMessageContent))
        pictures = [part.data.split(",", 1)[-1] for part in parts if isinstance(part, ImagePromptMessageContent)]
        if pictures:
            found["images"] = pictures
    if isinstance(message, AssistantPromptMessage) and message.tool_calls:
        found["tool_calls"] = [
            {"function": {"name": call.function.name, "arguments": json.loads(call.function.arguments or "{}")}}
            for call in message.tool_calls
        ]
    if isinstance(message, ToolPromptMessage) and message.name:
        found["tool_name"] = message.name
    return found


def _tool(tool: PromptMessageTool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}


def _message(reply: dict[str, Any]) -> AssistantPromptMessage:
    message = reply.get("message") or {"content": reply.get("response", "")}
    calls = [
        AssistantPromptMessage.ToolCall(
            id=str(index),
            type="function",
            function=AssistantPromptMessage.ToolCall.ToolCallFunction(
                name=call["function"]["name"], arguments=json.dumps(call["function"].get("arguments") or {})
            ),
        )
        for index, call in enumerate(message.get("tool_calls") or ())
    ]
    return AssistantPromptMessage(content=message.get("content") or "", tool_calls=calls)
