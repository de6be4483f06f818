# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Knowledge: a text comes in by the service API, the worker cuts and embeds it, a question finds its pieces again.

The routes are those of Dify's published API reference, not of a recording. The text lies in the storage, which api and
worker share, and the task goes through the queue `dataset`, as in Dify. Vectors go to the release's own vector store.
"""

from __future__ import annotations

import json
import secrets
import string
import sys
import time
import uuid
from pathlib import Path
from typing import Any

from standin import versions
from standin.api import (
    apps,
    cache,
    credentials,
    daemon_client,
    db,
    invoking,
    models,
    providers,
    replies,
    service,
    settings,
    vectors,
)
from standin.api.credentials import Model
from standin.api.workspaces import stamp
from standin.server import Request, Response, Router

QUEUE = "dataset"
KIND = "text-embedding"


def key_create(request: Request, account: dict[str, Any], arguments: dict[str, str]) -> Response:
    token = "dataset-" + "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(24))
    row = db.row(
        "INSERT INTO api_tokens (tenant_id, type, token) VALUES (%s, 'dataset', %s) RETURNING *",
        account["tenant_id"],
        token,
    )
    return replies.console(apps.key_data(row or {}))


def create(request: Request) -> Response:
    token = service.token_of(request, "dataset")
    data = replies.body(request, "DatasetCreatePayload", "name")
    tenant_id = str(token["tenant_id"])
    high = data.get("indexing_technique") == "high_quality"
    provider, model = (_default(tenant_id) if high else None) or (None, None)
    row = (
        db.row(
            "INSERT INTO datasets (tenant_id, name, created_by, indexing_technique, embedding_model, "
            "embedding_model_provider) SELECT %s, %s, account_id, %s, %s, %s FROM tenant_account_joins "
            "WHERE tenant_id = %s AND role = 'owner' RETURNING *",
            tenant_id,
            data["name"],
            data.get("indexing_technique"),
            model,
            provider.name if provider else None,
            tenant_id,
        )
        or {}
    )
    names = ("id", "name", "indexing_technique", "embedding_model", "embedding_model_provider", "created_by")
    more = {"document_count": 0, "word_count": 0, "created_at": stamp(row["created_at"])}
    return replies.console({**{name: row[name] for name in names}, **more})


def _default(tenant_id: str) -> tuple[providers.Provider, str]:
    try:
        found = models.default(tenant_id, KIND)
    except daemon_client.DaemonError as error:
        raise daemon_client.for_service_route(error) from error
    if found is None:
        raise replies.fail(
            400,
            "provider_not_initialize",
            "No Embedding Model available. Please configure a valid provider in the Settings -> Model Provider.",
        )
    return found


def create_by_text(request: Request, dataset_id: str) -> Response:
    token = service.token_of(request, "dataset")
    dataset = db.row("SELECT * FROM datasets WHERE id::text = %s AND tenant_id = %s", dataset_id, token["tenant_id"])
    if dataset is None:
        raise replies.fail(404, "not_found", "Dataset not found.")
    data = replies.body(request, "DocumentTextCreatePayload", "name", "text")
    technique = data.get("indexing_technique") or dataset["indexing_technique"]
    if technique is None:
        raise replies.invalid("indexing_technique is required.")
    if dataset["indexing_technique"] is None:
        provider, model = _default(str(token["tenant_id"])) if technique == "high_quality" else (None, None)
        db.execute(
            "UPDATE datasets SET indexing_technique = %s, embedding_model = %s, embedding_model_provider = %s "
            "WHERE id = %s",
            technique,
            model,
            provider.name if provider else None,
            dataset["id"],
        )
    file = uuid.uuid4()
    place = _place(str(token["tenant_id"]), str(file))
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(str(data["text"]), encoding="utf-8")
    batch = time.strftime("%Y%m%d%H%M%S") + str(100000 + secrets.randbelow(900000))
    row = (
        db.row(
            "INSERT INTO documents (tenant_id, dataset_id, name, data_source_info, batch, word_count) "
            "VALUES (%s, %s, %s, %s, %s, %s) RETURNING *",
            token["tenant_id"],
            dataset["id"],
            data["name"],
            json.dumps({"upload_file_id": str(file)}),
            batch,
            len(str(data["text"])),
        )
        or {}
    )
    cache.broker().rpush(QUEUE, json.dumps({"document": str(row["id"])}))
    return replies.console({"document": _document(row), "batch": batch})


def _place(tenant_id: str, file: str) -> Path:
    return settings.storage() / "upload_files" / tenant_id / f"{file}.txt"


def _document(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": row["id"],
        "position": 1,
        "data_source_type": "upload_file",
        "data_source_info": json.loads(row["data_source_info"]),
        "name": row["name"],
        "created_from": "api",
        "created_at": stamp(row["created_at"]),
        "tokens": row["tokens"],
        "indexing_status": row["indexing_status"],
        "error": row["error"],
        "enabled": True,
        "archived": False,
        "word_count": row["word_count"],
        "doc_form": "text_model",
    }


def indexing_status(request: Request, dataset_id: str, batch: str) -> Response:
    token = service.token_of(request, "dataset")
    found = db.rows(
        "SELECT * FROM documents WHERE dataset_id::text = %s AND batch = %s AND tenant_id = %s",
        dataset_id,
        batch,
        token["tenant_id"],
    )
    if not found:
        raise replies.fail(404, "not_found", "Documents not found.")
    data = []
    for row in found:
        counted = (
            db.row(
                "SELECT count(*) AS total, count(*) FILTER (WHERE status = 'completed') AS done FROM document_segments "
                "WHERE document_id = %s",
                row["id"],
            )
            or {}
        )
        data.append(
            {
                **{name: row[name] for name in ("id", "indexing_status", "error")},
                "completed_segments": counted["done"],
                "total_segments": counted["total"],
            }
        )
    return replies.console({"data": data})


def index(task: dict[str, str]) -> None:
    """The worker's part: segments, and for each batch of them a call of the embedding model."""
    row = db.row(
        "SELECT d.*, s.indexing_technique, s.embedding_model, s.embedding_model_provider, s.index_struct "
        "FROM documents d JOIN datasets s ON s.id = d.dataset_id WHERE d.id::text = %s",
        task["document"],
    )
    if row is None:
        return
    try:
        _set(row, "indexing")
        tokens = _index(row)
        db.execute("UPDATE documents SET indexing_status = 'completed', tokens = %s WHERE id = %s", tokens, row["id"])
    except Exception as error:  # whatever it was, the document says it
        print(f"[ERROR/MainProcess] consume document failed: {error!r}", file=sys.stderr, flush=True)
        _set(row, "error", str(error))


def _set(row: dict[str, Any], status: str, error: str | None = None) -> None:
    db.execute("UPDATE documents SET indexing_status = %s, error = %s WHERE id = %s", status, error, row["id"])


def _index(row: dict[str, Any]) -> int:
    tenant_id = str(row["tenant_id"])
    text = _place(tenant_id, json.loads(row["data_source_info"])["upload_file_id"]).read_text(encoding="utf-8")
    segments = [
        (
            db.row(
                "INSERT INTO document_segments (tenant_id, dataset_id, document_id, position, content, "
                "index_node_id, index_node_hash) VALUES (%s, %s, %s, %s, %s, %s, %s) RETURNING *",
                tenant_id,
                row["dataset_id"],
                row["id"],
                position,
                part,
                str(uuid.uuid4()),
                vectors.node_hash(part),
            )
            or {}
        )
        for position, part in enumerate((part.strip() for part in text.split("\n\n") if part.strip()), 1)
    ]
    used = 0
    size = len(segments) or 1
    embed = None
    if row["indexing_technique"] == "high_quality":
        size, embed = _embedder(tenant_id, row["embedding_model_provider"], row["embedding_model"])
    for start in range(0, len(segments), size):
        batch = segments[start : start + size]
        if embed is not None:
            result = embed([one["content"] for one in batch])
            used += result.usage.total_tokens
            if vectors.wanted():
                vectors.add({**row, "id": row["dataset_id"]}, batch, result.embeddings)
        db.execute("UPDATE document_segments SET status = 'completed' WHERE id = ANY(%s)", [one["id"] for one in batch])
    return used


def _embedder(tenant_id: str, provider_name: str, name: str) -> tuple[int, Any]:
    """How many texts the model takes at a time, and the call."""
    provider = providers.find(tenant_id, provider_name)
    current = credentials.current(tenant_id, provider, name, KIND)
    if current is None or current["encrypted_config"] is None:
        raise ValueError(f"Model {name} not exist.")
    config = credentials.decrypt(Model(tenant_id, provider, name, KIND), current["encrypted_config"])
    schema = providers.model_schema(tenant_id, provider, KIND, name, config) or {}
    model = invoking.embedding_model(tenant_id, provider)

    def embed(texts: list[str], kind: Any = None) -> Any:
        kind = kind or invoking.document()
        return model.invoke(model=name, credentials=config, texts=texts, user=None, input_type=kind)

    return int((schema.get("model_properties") or {}).get("max_chunks") or 1), embed


def retrieve(request: Request, dataset_id: str) -> Response:
    """The pieces next to a question, best first. Knowledge without vectors is not searched."""
    token = service.token_of(request, "dataset")
    dataset = db.row("SELECT * FROM datasets WHERE id::text = %s AND tenant_id = %s", dataset_id, token["tenant_id"])
    if dataset is None:
        raise replies.fail(404, "not_found", "Dataset not found.")
    data = replies.body(request, "HitTestingPayload", "query")
    records: list[dict[str, Any]] = []
    if dataset["indexing_technique"] == "high_quality":
        _size, embed = _embedder(
            str(token["tenant_id"]), dataset["embedding_model_provider"], dataset["embedding_model"]
        )
        question = embed([data["query"]], invoking.question()).embeddings[0]
        top_k = int((data.get("retrieval_model") or {}).get("top_k") or 4)
        try:
            scores = vectors.search(dataset, question, top_k)
        except ValueError as error:
            raise replies.invalid(str(error)) from error
        records = _records(str(dataset["id"]), scores)
    return replies.console({"query": {"content": data["query"]}, "records": records})


def _records(dataset_id: str, scores: dict[str, float]) -> list[dict[str, Any]]:
    found = db.rows(
        "SELECT s.*, d.name AS document_name FROM document_segments s JOIN documents d ON d.id = s.document_id "
        "WHERE s.dataset_id = %s AND s.index_node_id = ANY(%s) AND s.enabled AND s.status = 'completed'",
        dataset_id,
        list(scores),
    )
    names = ("id", "position", "document_id", "content", "answer", "index_node_id", "index_node_hash", "enabled")
    records = [
        {
            "segment": {
                **{name: row[name] for name in (*names, "status")},
                "document": {
                    "id": row["document_id"],
                    "data_source_type": "upload_file",
                    "name": row["document_name"],
                },
            },
            "score": scores[row["index_node_id"]],
            "tsne_position": None,
        }
        for row in found
    ]
    return sorted(records, key=lambda one: -one["score"])


def routes(router: Router) -> None:
    router.add("POST", "/console/api/datasets/api-keys", apps.route(key_create))
    router.add("POST", "/v1/datasets", create)
    for name in ("create-by-text", "create_by_text") if versions.has("plugins") else ("create_by_text",):
        router.add("POST", f"/v1/datasets/<dataset_id>/document/{name}", create_by_text)
    router.add("GET", "/v1/datasets/<dataset_id>/documents/<batch>/indexing-status", indexing_status)
    for name in ("retrieve", "hit-testing"):
        router.add("POST", f"/v1/datasets/<dataset_id>/{name}", retrieve)
