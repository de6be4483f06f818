# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""What a registry of models offers: the manifest of a name, fetched without pulling anything."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urljoin

from ansible_collections.llmops.stack.plugins.module_utils._http import Http, HttpError, Response
from ansible_collections.llmops.stack.plugins.module_utils._ollama_names import Name, is_host
from ansible_collections.llmops.stack.plugins.module_utils._ollama_store import Manifest, WeightlessError

SECONDS = 20.0

_ACCEPT = {"Accept": "application/vnd.docker.distribution.manifest.v2+json"}
# The server trusts the system's authorities, so that the module does too where requests brings its own list.
_AUTHORITIES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")


class RegistryError(Exception):
    """No manifest, in a sentence. `missing` says that the registry answered, and has no weights by that name."""

    def __init__(self, message: str, missing: bool = False) -> None:
        super().__init__(message)
        self.missing = missing


def check_host(registry: str) -> None:
    """Refuse what cannot stand before a model's name.

    Raises:
        ValueError: Not host[:port]; the text says why.
    """
    if not is_host(registry):
        raise ValueError(
            f"registry must be host[:port], as it stands before the name of a model, and {registry!r} is not. "
            "Leave out a scheme or path; a registry without TLS needs insecure: true."
        )


def manifest_of(name: Name, insecure: bool, proxy: str = "", no_proxy: str = "", client: Any = None) -> Manifest:
    """The manifest that the name's own host has for it.

    Raises:
        RegistryError: It cannot be had.
    """
    authorities = next((path for path in _AUTHORITIES if os.path.exists(path)), True)
    client = client or Http(verify=authorities, proxy=proxy, no_proxy=no_proxy)
    answer = _ask(client, f"{_place(name, insecure)}/manifests/{name.tag}", _ACCEPT)
    if answer.status == 404:
        raise RegistryError(f"{name.host} has no model {name.namespace}/{name.model}:{name.tag}.", missing=True)
    if answer.status != 200:
        raise RegistryError(f"{name.host} answers HTTP {answer.status} to a question for {name.full}.")
    try:
        return Manifest(answer.body)
    except ValueError as exc:
        message = f"what {name.host} sends as the manifest of {name.full} {exc}."
        raise RegistryError(message, missing=isinstance(exc, WeightlessError)) from exc


def first_bytes(name: Name, sha: str, start: int, count: int, insecure: bool, client: Any) -> bytes:
    """A piece of a blob. A server that knows no ranges is read from the beginning, as far as that is needed.

    Raises:
        RegistryError: It cannot be had.
    """
    headers = {"Range": f"bytes={start}-{start + count - 1}"}
    answer = _ask(client, f"{_place(name, insecure)}/blobs/sha256:{sha}", headers, limit=start + count)
    if answer.status not in (200, 206):
        raise RegistryError(
            f"{name.host} answers HTTP {answer.status} to a question for blob {sha[:12]} of {name.full}."
        )
    return answer.body[start : start + count] if answer.status == 200 else answer.body[:count]


def _place(name: Name, insecure: bool) -> str:
    return f"{'http' if insecure else 'https'}://{name.host}/v2/{name.namespace}/{name.model}"


def _ask(client: Any, url: str, headers: dict[str, str], **more: Any) -> Response:
    for _hop in range(4):
        try:
            answer: Response = client.request("GET", url, SECONDS, headers=headers, **more)
        except HttpError as exc:
            raise RegistryError(f"{exc}.") from exc
        if answer.status not in (301, 302, 303, 307, 308):
            break
        url = urljoin(url, answer.headers.get("Location", ""))
    return answer
