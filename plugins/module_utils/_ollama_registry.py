# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""What a registry of models offers: the manifest of a name, fetched without pulling anything."""

from __future__ import annotations

import os
from urllib.parse import urljoin

from ansible_collections.llmops.stack.plugins.module_utils._http import Http, HttpError
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


def manifest_of(name: Name, insecure: bool, proxy: str = "", no_proxy: str = "") -> Manifest:
    """The manifest that the name's own host has for it.

    Raises:
        RegistryError: It cannot be had.
    """
    authorities = next((path for path in _AUTHORITIES if os.path.exists(path)), True)
    client = Http(verify=authorities, proxy=proxy, no_proxy=no_proxy)
    scheme = "http" if insecure else "https"
    url = f"{scheme}://{name.host}/v2/{name.namespace}/{name.model}/manifests/{name.tag}"
    for _hop in range(4):
        try:
            answer = client.request("GET", url, SECONDS, headers=_ACCEPT)
        except HttpError as exc:
            raise RegistryError(f"{exc}.") from exc
        if answer.status not in (301, 302, 307, 308):
            break
        url = urljoin(url, answer.headers.get("Location", ""))
    if answer.status == 404:
        raise RegistryError(f"{name.host} has no model {name.namespace}/{name.model}:{name.tag}.", missing=True)
    if answer.status != 200:
        raise RegistryError(f"{name.host} answers HTTP {answer.status} to a question for {name.full}.")
    try:
        return Manifest(answer.text.encode())
    except ValueError as exc:
        message = f"what {name.host} sends as the manifest of {name.full} {exc}."
        raise RegistryError(message, missing=isinstance(exc, WeightlessError)) from exc
