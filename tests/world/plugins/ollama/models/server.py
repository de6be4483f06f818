# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests to an Ollama server, shared by the model types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import requests
from dify_plugin.entities.model import AIModelEntity, FetchFrom, I18nObject, ModelType, PriceConfig
from dify_plugin.errors.model import (
    CredentialsValidateFailedError,
    InvokeAuthorizationError,
    InvokeBadRequestError,
    InvokeConnectionError,
    InvokeError,
    InvokeRateLimitError,
    InvokeServerUnavailableError,
)

CONNECT_SECONDS = 10
READ_SECONDS = 300  # a server loads the model before it says anything


class RequestFailed(Exception):
    """The server answered with another status than 200."""


def post(credentials: Mapping[str, Any], path: str, body: Mapping[str, Any], stream: bool = False) -> requests.Response:
    headers = {"Content-Type": "application/json"}
    if credentials.get("api_key"):
        headers["Authorization"] = f"Bearer {credentials['api_key']}"
    response = requests.post(
        f"{str(credentials['base_url']).rstrip('/')}/{path}",
        headers=headers,
        json=body,
        stream=stream,
        timeout=(CONNECT_SECONDS, READ_SECONDS),
    )
    if response.status_code != 200:
        raise RequestFailed(f"API request failed with status code {response.status_code}: {response.text}")
    return response


def rough_tokens(text: str) -> int:
    """About the number of tokens: the server counts for itself, and no vocabulary has to be downloaded for this."""
    return len(text.split()) or 1


def refused(error: Exception) -> CredentialsValidateFailedError:
    return CredentialsValidateFailedError(f"An error occurred during credentials validation: {error}")


def schema(
    model: str, kind: ModelType, credentials: Mapping[str, Any], properties: Mapping[Any, Any], **more: Any
) -> AIModelEntity:
    """What Dify shows and checks for a model that somebody has added by its name."""
    return AIModelEntity(
        model=model,
        label=I18nObject(en_US=model, zh_Hans=model),
        model_type=kind,
        fetch_from=FetchFrom.CUSTOMIZABLE_MODEL,
        model_properties={"context_size": int(credentials.get("context_size") or 4096), **properties},
        pricing=PriceConfig(input=0, output=0 if kind == ModelType.LLM else None, unit=0, currency="USD"),
        **more,
    )


# The first class that fits wins, and connection errors are a kind of request error.
ERRORS: dict[type[InvokeError], list[type[Exception]]] = {
    InvokeAuthorizationError: [],
    InvokeBadRequestError: [requests.exceptions.InvalidURL, requests.exceptions.MissingSchema],
    InvokeRateLimitError: [],
    InvokeConnectionError: [requests.exceptions.ReadTimeout],
    InvokeServerUnavailableError: [requests.exceptions.ConnectionError],
}
