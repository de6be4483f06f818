# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.

"""What a client of Dify sees: the API and the web pages behind nginx, and a whole chat."""

from __future__ import annotations

import json
import time
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._dify_daemon import USER
from ansible_collections.llmops.stack.plugins.module_utils._dify_health_engine import (
    Look,
    Result,
    failed,
    ok,
    skipped,
)
from ansible_collections.llmops.stack.plugins.module_utils._dify_health_host import down
from ansible_collections.llmops.stack.plugins.module_utils._dify_health_texts import (
    EMPTY_ANSWER,
    model_trouble,
)
from ansible_collections.llmops.stack.plugins.module_utils._http import HttpError, Response, Stream, sse
from ansible_collections.llmops.stack.plugins.module_utils._traces import question

_NO_GATEWAY = {
    "dns": "Correct url, or the name's DNS entry.",
    "refused": "Start the nginx container, and see that url has the port that EXPOSE_NGINX_PORT publishes.",
    "unreachable": "Check the network and the firewall between this host and url.",
    "timeout_connect": "Check the network and the firewall between this host and url.",
    "tls": "Give ca_path, or set validate_certs to false for a certificate of your own.",
    "timeout_read": "All worker slots of the api container are taken, mostly by calls to a model server that hangs, "
    "or the api container is stuck: look at the model server, raise SERVER_WORKER_AMOUNT or "
    "SERVER_WORKER_CONNECTIONS, and restart the api container to free the slots.",
}
_OTHER_TROUBLE = "See that url leads to Dify's nginx, and read its log."
_GATEWAY = {
    502: "The api container is stopped or still starting, or nginx holds an old address of it: look at the api "
    "container, and if it is well reload nginx (`docker compose exec nginx nginx -s reload`).",
    503: "Something in front of Dify is in maintenance or overloaded: look at the proxy there.",
    504: "The api container takes connections and does not answer, or cannot be reached from nginx's network: look "
    "at the api container and at the model server that its calls may hang at.",
}
_RESTART_API = "Read `docker logs` of the api container."


def _get(look: Look, path: str) -> Response:
    return look.http.request("GET", look.options.url.rstrip("/") + path, look.timeout, look.options.headers)


def _not_running(look: Look, service: str) -> Result | None:
    """nginx before a container that is gone answers 502 at best, and for seconds nothing at all."""
    state = down(look, service)
    if not state:
        return None
    return failed(
        f"nginx gets nothing from {service}: its container is {state}",
        f"Read `docker compose logs {service}` for the reason, and start it again.",
    )


def _unreachable(exc: HttpError) -> Result:
    return failed(str(exc), _NO_GATEWAY.get(exc.kind, _OTHER_TROUBLE))


def _wrong_status(look: Look, path: str, answer: Response) -> Result:
    """An answer that is not Dify's."""
    where = look.options.url.rstrip("/") + path
    if answer.status in _GATEWAY:
        return failed(
            f"nginx answers HTTP {answer.status} for {where}: it gets nothing from api", _GATEWAY[answer.status]
        )
    if 300 <= answer.status < 400:
        target = look.clean(answer.headers.get("Location", "another place"))
        return failed(f"{where} redirects to {target}", "Set url to the address that Dify is really served at.")
    return failed(
        f"{where} answers HTTP {answer.status}, but not as Dify's API does",
        f"{_OTHER_TROUBLE} Another web server on that port is the usual reason."
        if answer.status < 500
        else _RESTART_API,
    )


def check_api(look: Look) -> Result:
    path = "/console/api/ping"
    try:
        answer = _get(look, path)
    except HttpError as exc:
        return (_not_running(look, "api") if exc.kind == "timeout_read" else None) or _unreachable(exc)
    # Any answer of Dify itself names the running release; /health does too, but nginx does not pass it on.
    look.version = answer.headers.get("X-Version", "")
    data = answer.json()
    if answer.status != 200 or not isinstance(data, dict) or data.get("result") != "pong":
        return (_not_running(look, "api") if answer.status in _GATEWAY else None) or _wrong_status(look, path, answer)
    wanted = look.options.expect_version
    if wanted and look.version != wanted:
        return failed(
            f"Dify {look.version or 'of an unknown release'} runs, expected was {wanted}",
            f"Run site.yml, which goes over to {wanted} or says why it cannot; or set dify_version to what runs.",
        )
    return ok(f"Dify {look.version} answers" if look.version else "Dify answers, but does not say its version")


def check_setup(look: Look) -> Result:
    path = "/console/api/setup"
    try:
        answer = _get(look, path)
    except HttpError as exc:
        return _unreachable(exc)
    data = answer.json()
    step = data.get("step") if isinstance(data, dict) else None
    if answer.status == 200 and step == "finished":
        return ok("The owner account exists")
    if answer.status == 200 and step == "not_started":
        return ok("Dify is ready and has no owner account yet")
    if answer.status == 500:
        return failed(
            "The API cannot read its database (HTTP 500 for /console/api/setup)",
            "Check the PostgreSQL container and DB_HOST, DB_USERNAME and DB_PASSWORD; after a restart of PostgreSQL "
            "one such failure is normal.",
        )
    return _wrong_status(look, path, answer)


def _unreachable_web(exc: HttpError) -> Result:
    if exc.kind == "timeout_read":
        return failed(str(exc), "Read `docker logs` of the web container, and restart it.")
    return _unreachable(exc)


def check_web(look: Look) -> Result:
    path = "/apps"
    try:
        answer = _get(look, path)
    except HttpError as exc:
        return (_not_running(look, "web") if exc.kind == "timeout_read" else None) or _unreachable_web(exc)
    if answer.status in (502, 504):
        return _not_running(look, "web") or failed(
            f"nginx answers HTTP {answer.status} for {look.options.url.rstrip('/')}{path}: it gets nothing from web",
            "The web container is stopped or still starting, or nginx holds an old address of it: look at the web "
            "container, and if it is well reload nginx (`docker compose exec nginx nginx -s reload`).",
        )
    if answer.status >= 400:
        return failed(
            f"{look.options.url.rstrip('/')}{path} answers HTTP {answer.status}",
            "Read `docker logs` of the web container.",
        )
    if answer.status == 200 and "text/html" not in answer.headers.get("Content-Type", ""):
        return failed(
            f"{look.options.url.rstrip('/')}{path} is no web page",
            "See that nginx passes / to the web container.",
        )
    return ok("The web pages are served")


def check_llm(look: Look) -> Result:
    if not look.options.wants("llm"):
        return skipped(f"Not asked for (probe is {look.options.probe})")
    if look.options.read_only:
        return skipped("Not asked in check mode, because a chat leaves a conversation in Dify")
    if not look.options.app_key:
        return skipped(
            f"There is no app key in {look.options.app_key_file}; dify_app makes one for a chat app and writes it "
            "there (key_file), as role dify does for its dify_probe_app"
        )
    body = {
        "inputs": {},
        "query": "Reply with the single word: ok",
        "response_mode": "streaming",
        "conversation_id": "",
        "user": USER,
        # A title would cost a second call of the model.
        "auto_generate_name": False,
    }
    url = look.options.url.rstrip("/") + "/v1/chat-messages"
    headers = {**look.options.headers, "Authorization": "Bearer " + look.options.app_key}
    began, moment = time.monotonic(), time.time()
    try:
        with look.http.stream("POST", url, look.cap(look.options.probe_timeout), headers, body) as stream:
            if "text/event-stream" not in stream.headers.get("Content-Type", ""):
                return _refused_chat(look, stream)
            return _read_chat(look, stream, began, moment)
    except HttpError as exc:
        if exc.kind in ("timeout_read", "timeout_total"):
            # The API goes on waiting for the model for 300 s and keeps a worker's slot: never ask again at once.
            return failed(
                f"The chat got no complete answer within {look.cap(look.options.probe_timeout):g} s",
                "The model server hangs or is very slow, or the plugin's process died during the call: ask the model "
                "server itself, then restart the api container if its worker slots stay taken.",
                final=True,
            )
        return _unreachable(exc)


def _refused_chat(look: Look, stream: Stream) -> Result:
    """An error before the stream: plain JSON, or a page of something in between."""
    text = "\n".join(stream.lines())
    if stream.status in _GATEWAY:
        return failed(f"nginx answers HTTP {stream.status} for /v1/chat-messages", _GATEWAY[stream.status])
    try:
        data = json.loads(text)
    except ValueError:
        data = None
    if not isinstance(data, dict):
        return failed(f"/v1/chat-messages answers HTTP {stream.status} with something that is not JSON", _OTHER_TROUBLE)
    return _chat_error(look, stream.status, data)


def _chat_error(look: Look, status: int, data: dict[str, Any]) -> Result:
    code, message = str(data.get("code") or ""), str(data.get("message") or "")
    if status == 401:
        file = look.options.app_key_file
        return failed(
            "Dify refuses the app key (HTTP 401)",
            f"Run dify_app, or role dify, again: it writes a key that is valid into {file}."
            if file
            else "Make a new API key for the app and give it as app_key.",
        )
    if status == 404:
        return failed(
            f"The chat is refused: {look.clean(message)}",
            "The app key must be of a chat app whose service API is enabled.",
        )
    detail, advice = model_trouble(message)
    if advice:
        return failed(f"The chat failed: {detail or look.clean(message)}", advice)
    if status == 500 or code in ("internal_server_error", "unknown"):
        return failed(
            f"The chat failed inside Dify (HTTP {status}, {code or 'no code'})",
            "The causes are a PLUGIN_DAEMON_KEY that differs between api and plugin_daemon, Redis, PostgreSQL or a "
            "lost private key of the workspace: the log of the api container tells which.",
        )
    return failed(f"The chat failed: {look.clean(message) or code or f'HTTP {status}'}", _RESTART_API)


def _read_chat(look: Look, stream: Stream, began: float, moment: float) -> Result:
    text, ended = "", False
    usage: dict[str, Any] = {}
    for _event, data in sse(stream.lines()):
        try:
            event = json.loads(data) if data else {}
        except ValueError:
            continue
        if event.get("event") == "error":
            return _chat_error(look, int(event.get("status") or 400), event)
        if event.get("event") in ("message", "agent_message"):
            text += str(event.get("answer") or "")
        if event.get("event") == "message_end":
            ended = True
            usage = (event.get("metadata") or {}).get("usage") or {}
    if not ended:
        return failed(
            "The chat's stream ended before its end was announced",
            "Something between this host and the api container cuts streams, or the api container was restarted.",
        )
    if not text.strip():
        return failed("The chat ended well but its answer is empty", EMPTY_ANSWER)
    if usage.get("total_tokens") == 0:
        return failed(
            "The chat's answer was cut: it has text, but no token was counted",
            "The model server failed during its answer and the plugin swallowed the error: read the model server's "
            "log; an app that asks no model cannot be used for this check.",
        )
    look.chat = question(moment, usage)
    return _measured(usage, time.monotonic() - began)


def _measured(usage: dict[str, Any], seconds: float) -> Result:
    """The speed is that of the whole answer, with all that Dify and a model that has to be loaded take."""
    said = "Dify answered a chat through its app key"
    tokens = int(usage.get("completion_tokens") or usage.get("total_tokens") or 0)
    if not tokens:
        return ok(f"{said}, in {seconds:.1f} s")
    speed = round(tokens / max(seconds, 0.001), 2)
    detail = f"{said}: {tokens} token{'s' if tokens > 1 else ''} in {seconds:.1f} s, {speed:.3g} tokens/s"
    return ok(detail, tokens=tokens, tokens_per_second=speed)
