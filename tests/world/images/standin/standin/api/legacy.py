# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The providers that 0.15.3 has built in. Only Ollama works here; the others are names in a list."""

from __future__ import annotations

from typing import Any

# fmt: off
NAMES = [
    "openai", "deepseek", "anthropic", "azure_openai", "google", "vertex_ai", "nvidia", "nvidia_nim", "cohere",
    "upstage", "bedrock", "togetherai", "openrouter", "ollama", "mistralai", "groq", "replicate", "huggingface_hub",
    "xinference", "triton_inference_server", "zhipuai", "baichuan", "spark", "minimax", "tongyi", "wenxin",
    "moonshot", "tencent", "jina", "chatglm", "yi", "openllm", "localai", "volcengine_maas",
    "openai_api_compatible", "hunyuan", "siliconflow", "perfxcloud", "zhinao", "fireworks", "mixedbread", "nomic",
    "voyage", "huggingface_tei", "stepfun", "vessl_ai", "gpustack", "sagemaker", "leptonai", "oci", "x",
    "fishaudio", "gitee_ai", "novita", "azure_ai_studio",
]
# fmt: on


def _field(
    variable: str, label: str, default: str | None = None, *, required: bool = True, placeholder: str = ""
) -> dict[str, Any]:
    return {
        "variable": variable,
        "label": {"en_US": label, "zh_Hans": label},
        "type": "text-input",
        "required": required,
        "default": default,
        "options": None,
        "placeholder": {"en_US": placeholder, "zh_Hans": placeholder},
        "max_length": 0,
        "show_on": [],
    }


OLLAMA: dict[str, Any] = {
    "provider": "ollama",
    "label": {"zh_Hans": "Ollama", "en_US": "Ollama"},
    "description": None,
    "icon_small": {"zh_Hans": "icon_s_en.svg", "en_US": "icon_s_en.svg"},
    "icon_large": {"zh_Hans": "icon_l_en.svg", "en_US": "icon_l_en.svg"},
    "background": "#F9FAFB",
    "help": {
        "title": {"zh_Hans": "如何集成 Ollama", "en_US": "How to integrate with Ollama"},
        "url": {
            "zh_Hans": "https://docs.dify.ai/tutorials/model-configuration/ollama",
            "en_US": "https://docs.dify.ai/tutorials/model-configuration/ollama",
        },
    },
    "supported_model_types": ["llm", "text-embedding"],
    "configurate_methods": ["customizable-model"],
    "provider_credential_schema": None,
    "model_credential_schema": {
        "model": {
            "label": {"en_US": "Model Name", "zh_Hans": "模型名称"},
            "placeholder": {"zh_Hans": "输入模型名称", "en_US": "Enter your model name"},
        },
        "credential_form_schemas": [
            _field("base_url", "Base URL", placeholder="Base url of Ollama server, e.g. http://192.168.1.100:11434"),
            _field("mode", "Completion mode", "chat"),
            _field("context_size", "Model context size", "4096"),
            _field("max_tokens", "Upper bound for max tokens", "4096"),
            _field("vision_support", "Vision support", "false", required=False),
            _field("function_call_support", "Function call support", "false", required=False),
        ],
    },
}


def declaration(name: str) -> dict[str, Any]:
    if name == "ollama":
        return OLLAMA
    return {
        **OLLAMA,
        "provider": name,
        "label": {"zh_Hans": name, "en_US": name},
        "model_credential_schema": None,
        "configurate_methods": ["predefined-model"],
    }


def model_schema(model: str, model_type: str, credentials: dict[str, Any]) -> dict[str, Any]:
    size = str(credentials.get("context_size") or "4096")
    features = [
        name
        for name, key in (("vision", "vision_support"), ("tool-call", "function_call_support"))
        if credentials.get(key) == "true"
    ]
    properties: dict[str, Any] = {"mode": credentials.get("mode", "chat"), "context_size": int(size)}
    if model_type == "text-embedding":
        properties = {"context_size": int(size), "max_chunks": 1}
    return {
        "model": model,
        "label": {"en_US": model, "zh_Hans": model},
        "model_type": model_type,
        "features": features,
        "fetch_from": "customizable-model",
        "model_properties": properties,
        "deprecated": False,
        "parameter_rules": PARAMETER_RULES,
    }


PARAMETER_RULES = [
    {
        "name": "temperature",
        "use_template": "temperature",
        "label": {"zh_Hans": "温度", "en_US": "Temperature"},
        "type": "float",
        "help": {"zh_Hans": "模型的温度。", "en_US": "The temperature of the model."},
        "required": False,
        "default": 0.1,
        "min": 0.0,
        "max": 1.0,
        "precision": 2,
        "options": [],
    },
    {
        "name": "num_predict",
        "use_template": "max_tokens",
        "label": {"zh_Hans": "最大令牌数预测", "en_US": "Num Predict"},
        "type": "int",
        "help": {
            "zh_Hans": "生成文本时预测的最大令牌数。",
            "en_US": "Maximum number of tokens to predict when generating text.",
        },
        "required": False,
        "default": 128,
        "min": -2,
        "max": 4096,
        "precision": 0,
        "options": [],
    },
]
