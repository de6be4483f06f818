# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Uploaded files: a row in the database, the bytes in the storage under the key that the row names."""

from __future__ import annotations

import hashlib
import mimetypes
import uuid
from typing import Any

from standin.api import apps, conversations, db, replies, service, settings
from standin.api.workspaces import stamp
from standin.server import Request, Response, Router

SHOWN = ("id", "name", "size", "extension", "mime_type", "created_by")


def store(tenant_id: str, author: str, name: str, content: bytes) -> dict[str, Any]:
    """Keeps a file as Dify does with its own storage, and returns the row."""
    extension = name.rpartition(".")[2].lower() if "." in name else ""
    key = f"upload_files/{tenant_id}/{uuid.uuid4()}.{extension}"
    place = settings.storage() / key
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)
    return (
        db.row(
            "INSERT INTO upload_files (tenant_id, storage_type, key, name, size, extension, mime_type, created_by, "
            "hash) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING *",
            tenant_id,
            settings.text("STORAGE_TYPE", "opendal"),
            key,
            name,
            len(content),
            extension,
            mimetypes.guess_type(name)[0] or "application/octet-stream",
            author,
            hashlib.sha3_256(content).hexdigest(),
        )
        or {}
    )


def _upload(request: Request, tenant_id: Any, author: Any) -> Response:
    name, content = request.named_files().get("file", ("", b""))
    if not name:
        raise replies.fail(400, "no_file_uploaded", "Please upload your file.")
    row = store(str(tenant_id), str(author), name, content)
    return replies.console({**{key: row[key] for key in SHOWN}, "created_at": stamp(row["created_at"])}, 201)


def from_program(request: Request) -> Response:
    app = service.app_of(request)
    user = request.files().get("user", b"").decode() or "DEFAULT-USER"
    return _upload(request, app["tenant_id"], conversations.end_user(app, user)["id"])


def from_console(request: Request, account: dict[str, Any], _: dict[str, str]) -> Response:
    return _upload(request, account["tenant_id"], account["id"])


def preview(request: Request, file_id: str) -> Response:
    app = service.app_of(request)
    row = db.row("SELECT * FROM upload_files WHERE id::text = %s AND tenant_id = %s", file_id, app["tenant_id"])
    if row is None:
        raise replies.fail(404, "file_not_found", "The requested file was not found.")
    return Response(200, (settings.storage() / row["key"]).read_bytes(), row["mime_type"])


def routes(router: Router) -> None:
    router.add("POST", "/console/api/files/upload", apps.route(from_console))
    router.add("POST", "/v1/files/upload", from_program)
    router.add("GET", "/v1/files/<file_id>/preview", preview)
