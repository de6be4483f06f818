# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One Weaviate that an upgrade moves, and what the API of a release does with it."""

from __future__ import annotations

import random
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from _engine import docker
from _settings import REPO
from ansible_collections.llmops.stack.plugins.module_utils import _dify_vector_store as stores
from ansible_collections.llmops.stack.plugins.module_utils._dify_compose import Project
from ansible_collections.llmops.stack.plugins.module_utils._weaviate import Weaviate

sys.path.insert(0, str(REPO / "tests" / "world" / "images" / "standin"))
# The stand-in's modules import each other, and one of them the driver that its image brings.
dify = pytest.importorskip("standin.api.vectors", reason="the stand-in's packages are not here")

SERVERS = {"1.7.0": "1.19.0", "1.9.2": "1.27.0", "1.12.1": "1.27.0", "1.16.0": "1.27.0"}
KEY = "a-key-of-these-tests"
ENVIRONMENT = {
    "PERSISTENCE_DATA_PATH": "/var/lib/weaviate",
    "QUERY_DEFAULTS_LIMIT": "25",
    "AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED": "false",
    "AUTHENTICATION_APIKEY_ENABLED": "true",
    "AUTHENTICATION_APIKEY_ALLOWED_KEYS": KEY,
    "AUTHENTICATION_APIKEY_USERS": "hello@dify.ai",
    "AUTHORIZATION_ADMINLIST_ENABLED": "true",
    "AUTHORIZATION_ADMINLIST_USERS": "hello@dify.ai",
    "DEFAULT_VECTORIZER_MODULE": "none",
    "CLUSTER_HOSTNAME": "node1",
    "DISABLE_TELEMETRY": "true",
}


class Installation(Project):
    """A project that consists of Weaviate, and needs no compose."""

    def __init__(self, home: Path, known: dict[str, str]) -> None:
        super().__init__(str(home), f"llmops-test-{uuid.uuid4().hex[:8]}")
        self.known = known
        self.data = home / "volumes" / "weaviate"
        self.data.mkdir(parents=True)
        docker("network", "create", f"{self.name}_default")

    def settings(self, tag: str = "") -> dict[str, str]:
        return {"VECTOR_STORE": "weaviate", "WEAVIATE_API_KEY": KEY, "WEAVIATE_ENDPOINT": "http://weaviate:8080"}

    def definition(self, tag: str = "", timeout: float = 60) -> dict[str, Any]:
        service = {"image": self.known[SERVERS[tag]], "environment": ENVIRONMENT}
        return {"services": {"weaviate": service}, "networks": {"default": {"name": f"{self.name}_default"}}}

    def serve(self, tag: str) -> None:
        """What `compose up weaviate` does with another release."""
        self.remove(["weaviate"])
        labels = {"com.docker.compose.project": self.name, "com.docker.compose.service": "weaviate"}
        options = [part for pair in labels.items() for part in ("--label", "=".join(pair))]
        options += [part for pair in ENVIRONMENT.items() for part in ("-e", "=".join(pair))]
        options += ["-v", f"{self.data}:/var/lib/weaviate", "--network", f"{self.name}_default"]
        docker("run", "-d", "--name", f"{self.name}-weaviate-1", *options, self.known[SERVERS[tag]])

    def client(self) -> Weaviate:
        return stores.connect(self, seconds=60)

    def gone(self) -> None:
        for name in (f"{self.name}-weaviate-1", f"{self.name}-weaviate-next"):
            docker("rm", "-f", "-v", name, check=False)
        docker("network", "rm", f"{self.name}_default", check=False)


class Api:
    """The vector part of the API of a release."""

    def __init__(self, patch: pytest.MonkeyPatch, project: Installation, release: str) -> None:
        patch.setenv("STANDIN_VERSION", release)
        patch.setenv("VECTOR_STORE", "weaviate")
        patch.setenv("WEAVIATE_API_KEY", KEY)
        patch.setenv("WEAVIATE_ENDPOINT", f"http://{project.address('weaviate')}:8080")
        patch.setattr(dify.db, "execute", lambda *_arguments: None)

    def learn(self, dataset: dict[str, Any], number: int, first: int = 0) -> list[dict[str, Any]]:
        texts = [f'sentence {n} of {dataset["id"]}: \u00e4\u4e2d "quoted"\n' for n in range(first, first + number)]
        segments = [
            {
                "content": text,
                "document_id": str(uuid.uuid4()),
                "index_node_id": str(uuid.uuid4()),
                "index_node_hash": dify.node_hash(text),
            }
            for text in texts
        ]
        dify.add(dataset, segments, [embedding(text) for text in texts])
        return segments

    def finds(self, dataset: dict[str, Any], segment: dict[str, Any]) -> bool:
        scores = dify.search(dataset, embedding(segment["content"]), 2)
        return bool(scores) and max(scores, key=lambda one: scores[one]) == segment["index_node_id"]


def embedding(text: str) -> list[float]:
    source = random.Random(text)
    return [source.gauss(0, 1) for _ in range(64)]


def dataset() -> dict[str, Any]:
    return {"id": uuid.uuid4(), "index_struct": None}


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    found = {path: path.stat() for path in folder.rglob("*") if path.is_file()}
    return {str(path.relative_to(folder)): (seen.st_ino, seen.st_mtime_ns) for path, seen in found.items()}
