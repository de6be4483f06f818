# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module util is PRIVATE to the collection; it may change without notice.

"""The mirror as a host sees it: whether it answers, what it offers, and what of that the host has made its own.

One request, with the standard library alone: what would bring another one may have to come from this mirror.
"""

from __future__ import annotations

import base64
import http.client
import json
import socket
import typing as t
from urllib.parse import unquote, urlsplit

from ansible_collections.llmops.stack.plugins.module_utils._http import HttpError, classify, origin
from ansible_collections.llmops.stack.plugins.module_utils._stack_facts_host import Host
from ansible_collections.llmops.stack.plugins.module_utils._stack_mirror import APT_FILE, OFFER, SIGN, apt_text
from ansible_collections.llmops.stack.plugins.module_utils._urls import mask_urls

# Of the role mirror: the host that has it is the mirror.
SERVED_FROM = "etc/llmops-mirror/nginx.conf"
_LONGEST = 65536


class MirrorFacts:
    def __init__(self, host: Host, url: str, deadline: float) -> None:
        self.host = host
        self.url = url.strip().rstrip("/")
        self.deadline = deadline

    def ask(self) -> dict[str, t.Any]:
        """What the mirror offers, or why it cannot be used (C(error)), and whether that is for good (C(wrong))."""
        state: dict[str, t.Any] = {"offer": {}, "error": "", "wrong": False}
        if not self.url:
            return state
        if not _is_address(self.url):
            state["error"] = (
                f"stack_mirror is {mask_urls(self.url)}, and it has to be the address of the mirror with its scheme, "
                "such as http://mirror.internal."
            )
            return {**state, "wrong": True}
        try:
            status, signed, body = self._get()
        except HttpError as exc:
            state["error"] = (
                f"The mirror, from which this host is to get everything (stack_mirror), cannot be reached: {exc}. "
                "Start it, let this host through to it, or have it made by playbooks/mirror.yml, and run again."
            )
            return state
        if status == 403 and signed:
            state["error"] = (
                f"The mirror {origin(self.url)} (stack_mirror) refuses this host: add its address to mirror_allow, and "
                "run site.yml for the mirror."
            )
        elif status >= 500:
            state["error"] = (
                f"The mirror {origin(self.url)} (stack_mirror) answers HTTP {status}: look on it what is wrong "
                "(journalctl -u 'llmops-mirror-*'), and run again."
            )
        elif status == 200:
            state["offer"] = _object(body)
        return state

    def describe(self, asked: t.Mapping[str, t.Any], apt: bool) -> dict[str, t.Any]:
        """The fact. Where nobody could be asked, what the host has made its own stays as it is."""
        found = self.host.read(APT_FILE)
        here = self.host.exists(SERVED_FROM)
        if asked["error"]:
            wanted = found
        elif here and asked["offer"].get("offline") is not True:
            wanted = ""  # the mirror itself gets its packages from where it gets all others
        else:
            wanted = apt_text(self.url, asked["offer"]) if apt else ""
        return {
            "url": mask_urls(self.url),
            "here": here,
            "error": asked["error"],
            "wrong": asked["wrong"],
            "apt": {"path": APT_FILE, "wanted": wanted, "due": wanted != found},
        }

    def _get(self) -> tuple[int, bool, bytes]:
        parts = urlsplit(self.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        headers = {"Connection": "close", "User-Agent": "llmops.stack"}
        if parts.username is not None:
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
        stage = "timeout_connect"
        try:
            connection = kind(parts.hostname or "", parts.port, timeout=self.deadline)
            try:
                connection.connect()
                stage = "timeout_read"
                connection.request("GET", f"{parts.path}/{OFFER}", headers=headers)
                answer = connection.getresponse()
                return answer.status, bool(answer.getheader(SIGN)), answer.read(_LONGEST)
            finally:
                connection.close()
        except (socket.timeout, TimeoutError) as exc:
            raise HttpError(stage, self.url, self.deadline) from exc
        except (OSError, ValueError, http.client.HTTPException) as exc:
            raise HttpError(classify(exc), self.url) from exc


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _object(body: bytes) -> dict[str, t.Any]:
    """A web server of another kind may answer anything, and is a mirror all the same."""
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) and found.get("role") == "llmops.stack.mirror" else {}
