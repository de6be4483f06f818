# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Names of models as Ollama reads them: [scheme://][host/][namespace/]model[:tag], compared without case."""

from __future__ import annotations

import re
from typing import NamedTuple

DEFAULT_HOST = "registry.ollama.ai"
DEFAULT_NAMESPACE = "library"
DEFAULT_TAG = "latest"

# The first character of a part is a letter, a digit or an underscore; what may follow depends on the part.
_PARTS = {
    "host": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}"),
    "namespace": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}"),
    "model": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}"),
    "tag": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}"),
}


class BadName(ValueError):
    """Not a name that a node could have weights for; the text says why."""


class Name(NamedTuple):
    host: str
    namespace: str
    model: str
    tag: str

    @property
    def full(self) -> str:
        return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"

    @property
    def short(self) -> str:
        """As Ollama lists it: with its tag, and without the default host and namespace."""
        if self.host.lower() != DEFAULT_HOST:
            return self.full
        if self.namespace.lower() != DEFAULT_NAMESPACE:
            return f"{self.namespace}/{self.model}:{self.tag}"
        return f"{self.model}:{self.tag}"

    @property
    def key(self) -> str:
        """Equal for names that Ollama takes for the same model: as it lists it, in lower case."""
        return self.short.lower()

    @property
    def parts(self) -> tuple[str, str, str, str]:
        """The folders and the file of the manifest, below manifests/ of a store."""
        return (self.host, self.namespace, self.model, self.tag)

    @property
    def is_cloud(self) -> bool:
        """Whether the name stands for weights that are kept elsewhere: requests are passed on to ollama.com."""
        tag = self.tag.lower()
        return tag == "cloud" or tag.endswith("-cloud")


def is_host(text: str) -> bool:
    """Whether it can stand before the name of a model: host[:port]."""
    return re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(:\d{1,5})?", text) is not None


def parse(text: str) -> Name:
    """The name, with the defaults filled in.

    Raises:
        BadName: Ollama would refuse the name.
    """
    rest = re.sub(r"^[a-z]+://", "", text.strip())
    if "@" in rest:
        raise BadName(f"{text!r} is no name of a model: Ollama cannot pin a digest in a name. Leave out the @ part.")
    head, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        head, tag = rest, DEFAULT_TAG
    parts = head.split("/")
    if len(parts) > 3:
        raise BadName(f"{text!r} is no name of a model: it has more parts than [host/][namespace/]model[:tag].")
    defaults = [DEFAULT_HOST, DEFAULT_NAMESPACE]
    host, namespace, model = defaults[: 3 - len(parts)] + parts
    name = Name(host, namespace, model, tag)
    for kind, value in name._asdict().items():
        if not _PARTS[kind].fullmatch(value):
            hint = ""
            if kind == "namespace" and (":" in value or "." in value):
                hint = " A model of another host needs host, namespace and model."
            raise BadName(f"{text!r} is no name of a model: {value!r} cannot be its {kind}.{hint}")
    return name


def key_of(text: str) -> str:
    """Equal for names that Ollama takes for the same model; what is no name, and was refused elsewhere, is itself."""
    try:
        return parse(text).key
    except BadName:
        return text
