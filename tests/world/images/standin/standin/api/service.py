# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The service API below /v1, which apps are called by: key check, info, parameters, chats."""

from __future__ import annotations

import json
import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from standin import versions
from standin.api import apps, cache, chat, conversations, daemon_client, db, replies
from standin.api.chat import Call, ChatError
from standin.api.workspaces import stamp
from standin.server import Request, Response, Router

PING_SECONDS = 10.0
TITLE_DELAY = 1.0
EMPTY = "Input should be a valid string [type=string_type, input_value=[], input_type=list]"
LIMITS = {
    "image_file_size_limit": 10,
    "video_file_size_limit": 100,
    "audio_file_size_limit": 50,
    "file_size_limit": 15,
    "workflow_file_upload_limit": 10,
}


def token_of(request: Request, kind: str) -> dict[str, Any]:
    """The row of the request's key."""
    header = request.headers.get("Authorization") or ""
    if not request.bearer():
        if versions.has("authorization_scheme_text") and " " in header.strip():
            raise replies.fail(401, "unauthorized", "Authorization scheme must be 'Bearer'")
        raise replies.fail(401, "unauthorized", "Authorization header must be provided and start with 'Bearer'")
    token = db.row("SELECT * FROM api_tokens WHERE token = %s AND type = %s", request.bearer(), kind)
    if token is None:
        raise replies.fail(401, "unauthorized", "Access token is invalid")
    return token


def app_of(request: Request) -> dict[str, Any]:
    """The app that the key belongs to."""
    token = token_of(request, "app")
    app = db.row("SELECT * FROM apps WHERE id = %s", token["app_id"])
    if app is None or not app["enable_api"]:
        raise replies.fail(403, "forbidden", "The app's API service has been disabled.")
    if versions.has("last_used_by_worker"):
        # From here on a worker writes the time; without one it stays empty. The key check itself goes through Redis.
        cache.client().ping()
        _hand_to_worker(token["token"])
    else:
        db.execute("UPDATE api_tokens SET last_used_at = now() WHERE id = %s", token["id"])
    return app


def _hand_to_worker(token: str) -> None:
    try:
        cache.broker().rpush("api_token", json.dumps({"token": token}))
    except cache.RedisError:
        return  # a broker that is gone must not fail the call


def info(request: Request) -> Response:
    app = app_of(request)
    data = {"name": app["name"], "description": app["description"], "tags": []}
    if versions.has("plugins"):
        author = db.row("SELECT name FROM accounts WHERE id = %s", app["created_by"]) or {"name": None}
        data |= {"mode": app["mode"], "author_name": author["name"]}
    return replies.console(data)


def parameters(request: Request) -> Response:
    config = apps.config_of(app_of(request))
    names = (
        "opening_statement",
        "suggested_questions",
        "suggested_questions_after_answer",
        "speech_to_text",
        "text_to_speech",
        "retriever_resource",
        "annotation_reply",
        "more_like_this",
        "user_input_form",
        "sensitive_word_avoidance",
        "file_upload",
    )
    data = {name: config.get(name, apps.CONFIG[name]) for name in names}
    return replies.console({**data, "system_parameters": LIMITS})


def meta(request: Request) -> Response:
    app_of(request)
    return replies.console({"tool_icons": {}})


def site(request: Request) -> Response:
    app = app_of(request)
    row = db.row("SELECT * FROM sites WHERE app_id = %s", app["id"]) or {"title": app["name"]}
    return replies.console(apps.site_data(app, row))


def _user(data: dict[str, Any]) -> str:
    if not data.get("user"):
        raise replies.invalid("Arg user must be provided.")
    return str(data["user"])


def chat_messages(request: Request) -> Response:
    app = app_of(request)
    user = _user(request.json() or {})
    data = replies.body(request, "ChatRequestPayload", "inputs", "query")
    if app["mode"] in ("advanced-chat", "workflow"):
        raise replies.invalid("Workflow not published")
    tenant_id = str(app["tenant_id"])
    end_user = conversations.end_user(app, user)
    conversation_id = str(data.get("conversation_id") or "")
    conversation = conversations.find(app, end_user, conversation_id) if conversation_id else None
    if conversation_id and conversation is None:
        raise replies.fail(404, "not_found", _conversation_missing())
    config = apps.config_of(app)
    streaming = data.get("response_mode") == "streaming"
    try:
        provider, credentials = chat.prepare(tenant_id, config)
    except daemon_client.DaemonError as error:
        raise daemon_client.for_service_route(error) from error
    first = conversation is None
    conversation = conversation or conversations.create(app, end_user, data)
    history = [] if first else conversations.history(conversation)
    prompt = config.get("pre_prompt") or ""
    messages = ([{"role": "system", "content": f"{prompt}\n", "name": None}] if prompt else []) + history
    parameters_ = {
        name: value for name, value in (config["model"].get("completion_params") or {}).items() if name != "stop"
    }
    call = Call(
        tenant_id,
        provider,
        str(config["model"]["name"]),
        credentials,
        [*messages, {"role": "user", "content": data["query"], "name": None}],
        parameters_,
        str(end_user["id"]),
        str(app["id"]),
    )
    turn = Turn(app, conversation, conversations.start_message(app, conversation, end_user, data), call)
    named = first and data.get("auto_generate_name", True) is not False
    if named:
        turn.name_conversation(data["query"])
    return turn.stream() if streaming else turn.blocking()


def _conversation_missing() -> str:
    if not versions.has("did_you_mean"):
        return "Conversation Not Exists."
    return (
        "Conversation Not Exists. You have requested this URI [/v1/chat-messages] but did you mean "
        "/v1/chat-messages or /api/chat-messages or /v1/chat-messages/<string:task_id>/stop ?"
    )


class Turn:
    """One question of a conversation and its answer. The model call runs in a thread of its own, as in Dify."""

    def __init__(self, app: dict[str, Any], conversation: dict[str, Any], message: dict[str, Any], call: Call) -> None:
        self.app, self.conversation, self.message, self.call = app, conversation, message, call
        self.task_id = str(uuid.uuid4())
        self.events: queue.Queue[tuple[str, Any]] = queue.Queue()
        self.left, self.halted = threading.Event(), threading.Event()
        self.titled: threading.Thread | None = None

    def name_conversation(self, query: str) -> None:
        def run() -> None:
            if versions.has("title_later"):
                time.sleep(TITLE_DELAY)
            conversations.rename(self.conversation, chat.title(self.call, query))

        self.titled = threading.Thread(target=run, daemon=True)
        self.titled.start()

    def _run(self) -> None:
        try:
            for piece, used in chat.events(self.call):
                self.events.put(("piece", (piece, used)))
                if self._unwanted():
                    break
            self.events.put(("end", None))
        except ChatError as error:
            self.events.put(("error", error))
        except Exception as error:
            self.events.put(("error", ChatError("internal_server_error", repr(error))))

    def _unwanted(self) -> bool:
        return (self.left.is_set() and versions.has("cancels_abandoned_stream")) or (
            self.halted.is_set() and versions.has("stop_ends_call")
        )

    def _ids(self) -> dict[str, Any]:
        return {
            "conversation_id": str(self.conversation["id"]),
            "message_id": str(self.message["id"]),
            "created_at": stamp(self.message["created_at"]),
        }

    def _wait_for_title(self) -> None:
        """In these releases the first reply of a conversation waits for its title, about a second."""
        if self.titled is not None and versions.has("blocking_title_delay"):
            self.titled.join(TITLE_DELAY)

    def blocking(self) -> Response:
        try:
            text, used = chat.answer(self.call)
        except ChatError as error:
            conversations.fail_message(self.message, error.blocking)
            raise replies.fail(400, error.code, error.blocking) from error
        if text is None or (text == "" and not versions.has("empty_answer_ok")):
            url = f"https://errors.pydantic.dev/{versions.pick(versions.PYDANTIC)}/v/string_type"
            raise replies.invalid(
                f"1 validation error for Data\nanswer\n  {EMPTY}\n    For further information visit {url}"
            )
        self._wait_for_title()
        conversations.finish_message(self.message, text, used)
        ids = self._ids()
        return replies.spaced(
            {
                "event": "message",
                "task_id": self.task_id,
                "id": ids["message_id"],
                "message_id": ids["message_id"],
                "conversation_id": ids["conversation_id"],
                "mode": self.app["mode"],
                "answer": text,
                "metadata": chat.metadata(chat.usage(used, self.call.started)),
                "created_at": ids["created_at"],
            }
        )

    def stream(self) -> Response:
        threading.Thread(target=self._run, daemon=True).start()
        return Response(200, self._pieces(), "text/event-stream; charset=utf-8")

    def _event(self, kind: str, **more: Any) -> bytes:
        return f"data: {replies.dump({'event': kind, **self._ids(), **more})}\n\n".encode()

    def _pieces(self) -> Iterator[bytes]:
        ids = {"task_id": self.task_id, "id": str(self.message["id"])}
        selector: list[str] | None = [] if versions.has("empty_lists_in_stream") else None
        answer, used, done = "", None, False
        try:
            while not done:
                try:
                    kind, value = self.events.get(timeout=PING_SECONDS)
                except queue.Empty:
                    yield b"event: ping\n\n"
                    continue
                if conversations.stopped(self.task_id):
                    self.halted.set()
                    kind, used = "end", None
                if kind == "error":
                    conversations.fail_message(self.message, value.streaming)
                    yield self._event("error", code=value.code, status=400, message=value.streaming)
                    return
                if kind == "piece":
                    answer, used = answer + value[0], value[1] or used
                    yield self._event("message", **ids, answer=value[0], from_variable_selector=selector)
                done = kind == "end"
            self._wait_for_title()
            conversations.finish_message(self.message, answer, used)
            yield self._event(
                "message_end",
                **ids,
                metadata=chat.metadata(chat.usage(used, self.call.started, streaming=True), streaming=True),
                files=selector,
            )
        finally:
            self.left.set()


def stop(request: Request, task_id: str) -> Response:
    app_of(request)
    _user(request.json() or {})
    conversations.stop(task_id)
    return replies.console({"result": "success"})


def completion_messages(request: Request) -> Response:
    app = app_of(request)
    if app["mode"] != "completion":
        raise replies.fail(400, "app_unavailable", "App unavailable, please check your app configurations.")
    raise replies.unknown_500()


def conversation_list(request: Request) -> Response:
    app = app_of(request)
    end_user = conversations.end_user(app, _user(request.query))
    return replies.console(conversations.page(app, end_user, replies.number(request, "limit", 20)))


def message_list(request: Request) -> Response:
    app = app_of(request)
    end_user = conversations.end_user(app, _user(request.query))
    conversation = conversations.find(app, end_user, request.query.get("conversation_id", ""))
    if conversation is None:
        raise replies.fail(404, "not_found", "Conversation Not Exists.")
    return replies.console(conversations.messages(conversation, replies.number(request, "limit", 20)))


def routes(router: Router) -> None:
    table: list[tuple[str, str, Callable[..., Response]]] = [
        ("GET", "info", info),
        ("GET", "parameters", parameters),
        ("GET", "meta", meta),
        ("POST", "chat-messages", chat_messages),
        ("POST", "chat-messages/<task_id>/stop", stop),
        ("POST", "completion-messages", completion_messages),
        ("GET", "conversations", conversation_list),
        ("GET", "messages", message_list),
    ]
    if versions.has("v1_site"):
        table.append(("GET", "site", site))
    for method, path, handler in table:
        router.add(method, f"/v1/{path}", handler)
