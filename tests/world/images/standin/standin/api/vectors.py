# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The release's own way with Weaviate, as Dify's source has it (read, not recorded): classes, objects and searches.

Up to 1.9.1 a class is made with one property, Weaviate adds the others as they come, and an object has one vector and
the id of its chunk. From 1.9.2 on the vector is called `default`, and every search names it: a class of the other form
cannot be searched. From 1.13.1 on every search also asks for doc_type, which older classes may lack. Dify talks gRPC
from 1.9.2 on; over REST and GraphQL Weaviate says the same in other words.
"""

from __future__ import annotations

import hashlib
import json
import math
import urllib.error
import urllib.request
import uuid
from typing import Any

from standin import versions
from standin.api import db, settings

_TEXTS = ("document_id", "doc_id")


def wanted() -> bool:
    """Without a store in the environment (tests of the API alone) nothing is kept."""
    return settings.text("VECTOR_STORE") == "weaviate"


def collection(dataset: dict[str, Any]) -> str:
    if dataset["index_struct"]:
        return str(json.loads(dataset["index_struct"])["vector_store"]["class_prefix"])
    prefix = settings.text("VECTOR_INDEX_NAME_PREFIX", "Vector_index") or "Vector_index"
    return f"{prefix}_{str(dataset['id']).replace('-', '_')}_Node"


def node_hash(text: str) -> str:
    return hashlib.sha256(f"{text}None".encode()).hexdigest()


def add(dataset: dict[str, Any], segments: list[dict[str, Any]], embeddings: list[list[float]]) -> None:
    """Segments with their vectors; the first ones make the class."""
    name = collection(dataset)
    if name not in _classes():
        _ask("POST", "/v1/schema", _described(name))
        index = {"type": "weaviate", "vector_store": {"class_prefix": name}}
        db.execute("UPDATE datasets SET index_struct = %s WHERE id = %s", json.dumps(index), dataset["id"])
    objects = [_made(name, dataset, *pair) for pair in zip(segments, map(_unit, embeddings))]
    for one in _ask("POST", "/v1/batch/objects", {"objects": objects}):
        if (one.get("result") or {}).get("errors"):
            raise ValueError(str(one["result"]["errors"]))


def _made(name: str, dataset: dict[str, Any], segment: dict[str, Any], vector: list[float]) -> dict[str, Any]:
    text = segment["content"]
    properties = {
        "text": text,
        "doc_id": segment["index_node_id"],
        "doc_hash": segment["index_node_hash"],
        "document_id": str(segment["document_id"]),
        "dataset_id": str(dataset["id"]),
    }
    if versions.has("vector_doc_type"):
        properties["doc_type"] = "text"
    if not versions.has("named_vectors"):
        return {"class": name, "id": segment["index_node_id"], "properties": properties, "vector": vector}
    identifier = str(uuid.uuid5(uuid.NAMESPACE_URL, text))
    return {"class": name, "id": identifier, "properties": properties, "vectors": {"default": vector}}


def _described(name: str) -> dict[str, Any]:
    properties: list[dict[str, Any]] = [{"name": "text", "dataType": ["text"]}]
    if not versions.has("named_vectors"):
        return {"class": name, "properties": properties}
    texts = [*_TEXTS, *(["doc_type"] if versions.has("vector_doc_type") else [])]
    properties += [{"name": one, "dataType": ["text"]} for one in texts]
    properties.append({"name": "chunk_index", "dataType": ["int"]})
    vectors = {"default": {"vectorizer": {"none": {}}, "vectorIndexType": "hnsw"}}
    return {"class": name, "properties": properties, "vectorConfig": vectors}


def search(dataset: dict[str, Any], vector: list[float], top_k: int) -> dict[str, float]:
    """The chunks next to a vector: index_node_id -> score. ValueError with Weaviate's own words where it refuses."""
    name = collection(dataset)
    if name not in _classes():
        return {}
    fields = ["text", "doc_id", "dataset_id", "document_id", "doc_hash"]
    fields += ["doc_type"] if versions.has("vector_doc_type") else []
    target = ' targetVectors:["default"]' if versions.has("named_vectors") else ""
    near = f"nearVector:{{vector:{json.dumps(_unit(vector))}{target}}}"
    query = f"{{Get{{{name}(limit:{top_k} {near}){{{' '.join(fields)} _additional{{distance}}}}}}}}"
    answer = _ask("POST", "/v1/graphql", {"query": query})
    if answer.get("errors"):
        raise ValueError(f"Error during query: {answer['errors']}")
    found = answer["data"]["Get"][name] or []
    return {one["doc_id"]: 1 - one["_additional"]["distance"] for one in found}


def _unit(vector: list[float]) -> list[float]:
    """Dify stores vectors of length one."""
    length = math.sqrt(sum(value * value for value in vector)) or 1.0
    return [value / length for value in vector]


def _classes() -> set[str]:
    return {one["class"] for one in _ask("GET", "/v1/schema")["classes"] or []}


def _ask(method: str, path: str, body: Any = None) -> Any:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {settings.text('WEAVIATE_API_KEY')}"}
    data = None if body is None else json.dumps(body).encode()
    place = settings.text("WEAVIATE_ENDPOINT", "http://weaviate:8080").rstrip("/")
    request = urllib.request.Request(place + path, data, headers, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=60) as answer:
            return json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        text = error.read().decode("utf-8", "replace").strip()
        raise ValueError(f"Unexpected status code: {error.code}, with response body: {text}.") from error
    except OSError as error:
        raise ConnectionError("Vector database connection error") from error
