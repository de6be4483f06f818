"""An image that the world's registry serves no more, for as long as a test asks."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator

import requests
from node import on_node

FORMS = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json"


def _url(repository: str, reference: str) -> str:
    command = ["docker", "port", "llmops-upstream", "5000/tcp"]
    place = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()[0]
    return f"http://{place.replace('0.0.0.0', '127.0.0.1')}/v2/{repository}/manifests/{reference}"


@contextlib.contextmanager
def without(repository: str, tag: str) -> Iterator[None]:
    """Its manifest is taken away and put back; the layers stay."""
    on_node(f"docker image rm --force {repository}:{tag} 2>&1 || true")
    answer = requests.get(_url(repository, tag), headers={"Accept": FORMS}, timeout=30)
    answer.raise_for_status()
    requests.delete(_url(repository, answer.headers["Docker-Content-Digest"]), timeout=30).raise_for_status()
    try:
        yield
    finally:
        form = {"Content-Type": answer.headers["Content-Type"]}
        requests.put(_url(repository, tag), data=answer.content, headers=form, timeout=30).raise_for_status()
