# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows of end users, conversations and messages, and the stop flag of a running answer."""

from __future__ import annotations

import json
import uuid
from typing import Any

from standin import versions
from standin.api import cache, db
from standin.api.workspaces import stamp

NO_PARENT = "00000000-0000-0000-0000-000000000000"
STOP_SECONDS = 600


def end_user(app: dict[str, Any], user: str) -> dict[str, Any]:
    found = db.row("SELECT * FROM end_users WHERE app_id = %s AND session_id = %s", app["id"], user)
    if found is None:
        found = db.row(
            "INSERT INTO end_users (tenant_id, app_id, type, session_id) VALUES (%s, %s, %s, %s) RETURNING *",
            app["tenant_id"],
            app["id"],
            "service-api" if versions.has("dashed_end_users") else "service_api",
            user,
        )
    return found or {}


def find(app: dict[str, Any], user: dict[str, Any], conversation_id: str) -> dict[str, Any] | None:
    return db.row(
        "SELECT * FROM conversations WHERE id::text = %s AND app_id = %s AND from_end_user_id = %s",
        conversation_id,
        app["id"],
        user["id"],
    )


def create(app: dict[str, Any], user: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    return (
        db.row(
            "INSERT INTO conversations (app_id, mode, name, inputs, introduction, status, from_end_user_id) "
            "VALUES (%s, %s, 'New conversation', %s, '', 'normal', %s) RETURNING *",
            app["id"],
            app["mode"],
            json.dumps(data.get("inputs") or {}),
            user["id"],
        )
        or {}
    )


def rename(conversation: dict[str, Any], name: str) -> None:
    db.execute("UPDATE conversations SET name = %s, updated_at = now() WHERE id = %s", name, conversation["id"])


def history(conversation: dict[str, Any]) -> list[dict[str, Any]]:
    found = db.rows(
        "SELECT query, answer FROM messages WHERE conversation_id = %s AND status = 'normal' AND answer <> '' "
        "ORDER BY created_at",
        conversation["id"],
    )
    return [
        part
        for row in found
        for part in (
            {"role": "user", "content": row["query"], "name": None},
            {"role": "assistant", "content": row["answer"], "name": None},
        )
    ]


def start_message(
    app: dict[str, Any], conversation: dict[str, Any], user: dict[str, Any], data: dict[str, Any]
) -> dict[str, Any]:
    """A row from the first moment: a client that leaves leaves it with an empty answer and no tokens."""
    return (
        db.row(
            "INSERT INTO messages (id, app_id, conversation_id, inputs, query, answer, parent_message_id, "
            "from_end_user_id) VALUES (%s, %s, %s, %s, %s, '', %s, %s) RETURNING *",
            uuid.uuid4(),
            app["id"],
            conversation["id"],
            json.dumps(data.get("inputs") or {}),
            data["query"],
            NO_PARENT,
            user["id"],
        )
        or {}
    )


def finish_message(message: dict[str, Any], answer: str, used: dict[str, Any] | None) -> None:
    used = used or {}
    db.execute(
        "UPDATE messages SET answer = %s, message_tokens = %s, answer_tokens = %s, updated_at = now() WHERE id = %s",
        answer,
        used.get("prompt_tokens", 0),
        used.get("completion_tokens", 0),
        message["id"],
    )


def fail_message(message: dict[str, Any], text: str) -> None:
    db.execute(
        "UPDATE messages SET status = 'error', error = %s, updated_at = now() WHERE id = %s", text, message["id"]
    )


def page(app: dict[str, Any], user: dict[str, Any], limit: int) -> dict[str, Any]:
    found = db.rows(
        "SELECT * FROM conversations WHERE app_id = %s AND from_end_user_id = %s ORDER BY updated_at DESC LIMIT %s",
        app["id"],
        user["id"],
        limit + 1,
    )
    return {
        "limit": limit,
        "has_more": len(found) > limit,
        "data": [
            {
                "id": row["id"],
                "name": row["name"],
                "inputs": row["inputs"] or {},
                "status": row["status"],
                "introduction": row["introduction"] or "",
                "created_at": stamp(row["created_at"]),
                "updated_at": stamp(row["updated_at"]),
            }
            for row in found[:limit]
        ],
    }


def messages(conversation: dict[str, Any], limit: int) -> dict[str, Any]:
    found = db.rows(
        "SELECT * FROM messages WHERE conversation_id = %s ORDER BY created_at DESC LIMIT %s",
        conversation["id"],
        limit + 1,
    )
    return {
        "limit": limit,
        "has_more": len(found) > limit,
        "data": [
            {
                "id": row["id"],
                "conversation_id": row["conversation_id"],
                "parent_message_id": row["parent_message_id"],
                "inputs": row["inputs"] or {},
                "query": row["query"],
                "answer": row["answer"],
                "message_files": [],
                "feedback": None,
                "retriever_resources": [],
                "created_at": stamp(row["created_at"]),
                "agent_thoughts": [],
                "status": row["status"],
                "error": row["error"],
            }
            for row in found[:limit]
        ],
    }


def stop(task_id: str) -> None:
    cache.client().setex(f"generate_task_stopped:{task_id}", STOP_SECONDS, 1)


def stopped(task_id: str) -> bool:
    return cache.get(f"generate_task_stopped:{task_id}") is not None
