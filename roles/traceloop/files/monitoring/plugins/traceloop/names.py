# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every attribute and metric name that leaves this process, in one place.

Own strings, not a package's constants: the GenAI conventions moved and renamed theirs, and an image brings whatever
release it has. These are the names of the conventions' v1.37 to v1.44, which dashboards and Traceloop read; a test
pins them.
"""

from __future__ import annotations

# The span
OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
RESPONSE_MODEL = "gen_ai.response.model"
REQUEST_STREAM = "gen_ai.request.stream"
REQUEST_TEMPERATURE = "gen_ai.request.temperature"
REQUEST_TOP_P = "gen_ai.request.top_p"
REQUEST_TOP_K = "gen_ai.request.top_k"
REQUEST_MAX_TOKENS = "gen_ai.request.max_tokens"
REQUEST_FREQUENCY_PENALTY = "gen_ai.request.frequency_penalty"
REQUEST_PRESENCE_PENALTY = "gen_ai.request.presence_penalty"
REQUEST_SEED = "gen_ai.request.seed"
OUTPUT_TYPE = "gen_ai.output.type"
FINISH_REASONS = "gen_ai.response.finish_reasons"
TIME_TO_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
ERROR_TYPE = "error.type"

# Only when content is asked for
INPUT_MESSAGES = "gen_ai.input.messages"
OUTPUT_MESSAGES = "gen_ai.output.messages"
LEGACY_PROMPT = "gen_ai.prompt.{index}.{field}"
LEGACY_COMPLETION = "gen_ai.completion.{index}.{field}"

# What Traceloop's page still reads
LEGACY_SYSTEM = "gen_ai.system"
LEGACY_REQUEST_TYPE = "llm.request.type"
LEGACY_STREAMING = "llm.is_streaming"
LEGACY_TOTAL_TOKENS = "llm.usage.total_tokens"
TOTAL_TOKENS = "gen_ai.usage.total_tokens"
ASSOCIATION = "traceloop.association.properties.{key}"

# Ours
OUTCOME = "dify.outcome"
APP_ID = "dify.app_id"
TENANT_ID = "dify.tenant_id"
USER_HASH = "dify.user_hash"
ERROR_CAUSE = "dify.error.cause"

# The process
SERVICE_NAME = "service.name"
SERVICE_INSTANCE = "service.instance.id"
HOST_NAME = "host.name"
PROCESS_PID = "process.pid"
SCOPE = "llmops.monitoring.traceloop"

# Metrics: name, unit
DURATION = "gen_ai.client.operation.duration"
TOKEN_USAGE = "gen_ai.client.token.usage"  # noqa: S105 - a metric's name
TOKEN_TYPE = "gen_ai.token.type"  # noqa: S105 - an attribute's name
FIRST_CHUNK = "gen_ai.client.operation.time_to_first_chunk"
TOKEN_RATE = "dify.llm.output_tokens_per_second"  # noqa: S105 - a metric's name
DROPPED_SPANS = "llmops.monitoring.dropped_spans"
EXPORTED_SPANS = "llmops.monitoring.exported_spans"

# The unit of tokens has braces: Prometheus appends a bare one to the name, and dashboards look for the name without it.
UNITS = {
    DURATION: "s",
    TOKEN_USAGE: "{token}",
    FIRST_CHUNK: "s",
    TOKEN_RATE: "1",
    DROPPED_SPANS: "{span}",
    EXPORTED_SPANS: "{span}",
}
DESCRIPTIONS = {
    DURATION: "Duration of a model call",
    TOKEN_USAGE: "Tokens that a model call used",
    FIRST_CHUNK: "Time from the call to the first chunk of its answer",
    TOKEN_RATE: "Output tokens per second after the first chunk",
    DROPPED_SPANS: "Spans that were never delivered",
    EXPORTED_SPANS: "Spans that the backend took",
}

# A model on a CPU may think for minutes, so seconds go beyond the conventions' 81.92.
_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 160.0, 320.0)
BUCKETS = {
    DURATION: _SECONDS,
    FIRST_CHUNK: _SECONDS,
    TOKEN_USAGE: tuple(float(4**power) for power in range(14)),
    TOKEN_RATE: (1.0, 2.0, 5.0, 10.0, 20.0, 35.0, 50.0, 75.0, 100.0, 150.0, 200.0, 300.0, 500.0, 1000.0),
}

OPERATIONS = {"chat": "chat", "embeddings": "embeddings", "rerank": "rerank"}
# Dify's and Ollama's parameter names -> the conventions'
PARAMETERS = {
    "temperature": (REQUEST_TEMPERATURE, float),
    "top_p": (REQUEST_TOP_P, float),
    "top_k": (REQUEST_TOP_K, int),
    "max_tokens": (REQUEST_MAX_TOKENS, int),
    "num_predict": (REQUEST_MAX_TOKENS, int),
    "frequency_penalty": (REQUEST_FREQUENCY_PENALTY, float),
    "presence_penalty": (REQUEST_PRESENCE_PENALTY, float),
    "seed": (REQUEST_SEED, int),
}
