# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The model store behind the upstream's model registry, laid out as Ollama's own."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import _gguf
from _engine import docker, running
from _gguf import Talk
from _settings import WORLD, WorldError, content_hash, node_container, step
from _upstream import WWW

FOLDER = WWW / "models"
LIBRARY = Path("manifests/registry.ollama.ai/library")
KIND = "application/vnd.ollama.image."
TEMPLATE = b"{{- if .System }}{{ .System }}\n{{ end }}{{ .Prompt }}"
LICENSE = b"Made by hand for tests; nothing was learned from anybody.\n"
SENTENCE = ("<think>\n", "</think>\n\n", "Hello!", " This", " node", " is", " ready.")
# What the registry on port 8081 does to them is in images/upstream/faulty_registry.py; port 80 serves them whole. Each
# has weights of its own: a blob that a node has already is not fetched.
FAULTS = ("stalls", "breaks", "gives-up", "flaky", "wrong-digest", "garbage", "slow")
# What `speak` says on a node that was given one of these instead of the registry's own, so that one sees who answered.
EDITIONS = ("first", "second", "third", "fourth")
NODE_STORE = "/usr/share/ollama/.ollama/models"
Layers = list[tuple[str, bytes]]


def ensure() -> None:
    """Writes the store where it is missing or was made by other code; the same code gives the same bytes."""
    stamp = content_hash(path.read_bytes() for path in (Path(__file__), WORLD / "_gguf.py")) + "\n"
    seal = FOLDER.with_name(".models.stamp")
    if seal.is_file() and seal.read_text() == stamp and FOLDER.is_dir():
        return
    with step("the model store"):
        seal.unlink(missing_ok=True)
        FOLDER.mkdir(parents=True, exist_ok=True)
        for folder in ("manifests", "blobs"):
            shutil.rmtree(FOLDER / folder, ignore_errors=True)
        write(FOLDER)
        seal.write_text(stamp)


def write(store: Path) -> None:
    for name, layers in models():
        model, tag = name.split(":")
        config = _config(layers)
        described = [_blob(store, f"{KIND}{kind}", data) for kind, data in layers]
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": _blob(store, "application/vnd.docker.container.image.v1+json", config),
            "layers": described,
        }
        path = store / LIBRARY / model / tag
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(manifest, separators=(",", ":")))


def models() -> Iterator[tuple[str, Layers]]:
    yield "deepseek-r1:1.5b", _spoken(Talk(SENTENCE))
    # For load on several servers of one small machine: a thread each, and not one for each core.
    yield "talker:latest", _spoken(Talk((" and", " so", " on,"), endless=True), num_thread=1)
    yield "bulky:latest", _spoken(Talk(("Heavy", " but", " here."), ballast=150))
    # The registry serves `moving:latest` until somebody puts the manifest of `moving:next` in its place.
    yield "moving:latest", _spoken(Talk(("First", " edition.")))
    yield "moving:next", _spoken(Talk(("Second", " edition.")))
    yield "speak:latest", _spoken(Talk(("Any", " node", " says", " this.")))
    for edition in EDITIONS:
        yield f"speak:{edition}", _spoken(Talk((f"The {edition}", " node", " says", " this.")))
    yield "lone:latest", _spoken(Talk(("Only", " one", " node", " has", " this.")))
    for fault in FAULTS:
        yield f"{fault}:latest", _spoken(Talk((f"After {fault},", " whole.")))
    yield "all-minilm:latest", [("model", _gguf.embedder()), ("license", LICENSE), ("params", b'{"num_ctx":256}')]


def _spoken(talk: Talk, **parameters: object) -> Layers:
    told = {"stop": ["<|User|>", "<|Assistant|>"], "temperature": 0.6, **parameters}
    return [
        ("model", _gguf.talker(talk)),
        ("template", TEMPLATE),
        ("license", LICENSE),
        ("params", json.dumps(told, separators=(",", ":")).encode()),
    ]


def _config(layers: Layers) -> bytes:
    weights = layers[0][1]
    config = {
        "model_format": "gguf",
        "model_family": "llama",
        "model_families": ["llama"],
        "model_type": f"{len(weights) / 4e6:.2f}M",
        "file_type": "F32",
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [_digest(data) for _kind, data in layers]},
    }
    return json.dumps(config, separators=(",", ":")).encode()


def _blob(store: Path, kind: str, data: bytes) -> dict[str, object]:
    digest = _digest(data)
    path = store / "blobs" / digest.replace(":", "-")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.write_bytes(data)
    return {"mediaType": kind, "digest": digest, "size": len(data)}


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def give(node: str, name: str, edition: str) -> None:
    """Puts a model of the registry into a node's own store, under another name, as somebody who brings it by hand."""
    container = node_container(node)
    if not running(container):
        raise WorldError(f"{node} is not running; world.py status shows what is")
    source, target = (LIBRARY / one.replace(":", "/") for one in (_tagged(edition), _tagged(name)))
    if not (FOLDER / source).is_file():
        raise WorldError(f"the world has no model {edition}; see models() in {Path(__file__).name}")
    manifest = json.loads((FOLDER / source).read_text())
    blobs = [Path("blobs", one["digest"].replace(":", "-")) for one in (manifest["config"], *manifest["layers"])]
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for inside, path in [*((one, one) for one in blobs), (target, source)]:  # the manifest last
            archive.add(FOLDER / path, str(inside))
    script = f"mkdir -p {NODE_STORE} && tar -xf - -C {NODE_STORE} && chown -R --reference={NODE_STORE} {NODE_STORE}"
    docker("exec", "-i", container, "sh", "-c", script, stdin=packed.getvalue())


def _tagged(name: str) -> str:
    return name if ":" in name else f"{name}:latest"
