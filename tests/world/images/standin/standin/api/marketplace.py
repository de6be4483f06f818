# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The marketplace as the API uses it: three tries, then 400; a list of versions that is empty when in doubt."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from standin.api import replies, settings

TRIES = 3
PAUSES = (0.5, 1.0, 2.0)
RETRIED = (429, 500, 502, 503, 504)


def base() -> str:
    return settings.text("MARKETPLACE_API_URL", "https://marketplace.dify.ai").rstrip("/")


def fetch(url: str) -> bytes:
    """A package. What a proxy answers in its place, but for these statuses, is taken for one."""
    limit = settings.number("PLUGIN_MAX_PACKAGE_SIZE", 15 * 1024 * 1024)
    for pause in PAUSES:
        try:
            with urllib.request.urlopen(url, timeout=30) as reply:
                content = bytes(reply.read(limit + 1))
        except urllib.error.HTTPError as error:
            if error.code == 404:
                raise replies.invalid("file not found") from None
            if error.code not in RETRIED:
                return bytes(error.read(limit))
        except (OSError, ValueError):
            pass
        else:
            if len(content) > limit:
                raise replies.invalid("Max file size reached")
            return content
        time.sleep(pause)
    raise replies.invalid(f"Reached maximum retries ({TRIES}) for URL {url}")


def github(repo: str, release: str, package: str) -> bytes:
    """A file of a release. Dify's address of GitHub is fixed; only a stand-in can be told another one."""
    address = settings.text("STANDIN_GITHUB_URL", "https://github.com").rstrip("/")
    return fetch(f"{address}/{repo}/releases/download/{release}/{package}")


def download(identifier: str) -> bytes:
    return fetch(f"{base()}/api/v1/plugins/download?" + urllib.parse.urlencode({"unique_identifier": identifier}))


def post(path: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(f"{base()}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as reply:
        return json.loads(reply.read())


def latest_versions(plugin_ids: list[str]) -> dict[str, Any]:
    """An answer that cannot be had or read is an empty map, which proves nothing."""
    if not settings.flag("MARKETPLACE_ENABLED", True):
        return {}
    try:
        found = post("/api/v1/plugins/batch", {"plugin_ids": plugin_ids})["data"]["plugins"]
        return {
            f"{item['org']}/{item['name']}": {
                "plugin_id": f"{item['org']}/{item['name']}",
                "version": item["latest_version"],
                "unique_identifier": item["latest_package_identifier"],
                "status": item.get("status", "active"),
                "deprecated_reason": item.get("deprecated_reason", ""),
                "alternative_plugin_id": item.get("alternative_plugin_id", ""),
            }
            for item in found
        }
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def count_install(identifier: str) -> bool:
    """Tells the marketplace of an upgrade; False means the package must be downloaded instead."""
    try:
        post("/api/v1/stats/plugins/install_count", {"unique_identifier": identifier})
    except (OSError, ValueError):
        return False
    return True
