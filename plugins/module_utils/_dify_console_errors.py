# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""What an error of Dify's console means: three shapes and the texts of all releases, read into one exception."""

from __future__ import annotations

import re
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._http import Response

__all__ = ["ADVICE", "ConsoleError", "read_error"]

ADVICE: dict[str, str] = {
    "no_answer": "See that Dify's containers run and that the address is the one that this host reaches them by.",
    "gateway": "The web server answers and Dify's API behind it does not: see the log of the container api.",
    "redirect": "Give the address that it redirects to.",
    "not_dify": "Give the address of Dify's web server, without a path.",
    "wrong_password": (
        "Correct email or password. Nothing was tried again: the seventh wrong attempt locks the account for 24 hours."
    ),
    "no_password": "Set dify_admin_password (password) to the one that the owner has. Nothing was tried.",
    "unknown_email": "Correct the email. This release tells capital letters in it from small ones.",
    "locked": (
        "Seven wrong passwords lock an account for 24 hours. Wait, or delete the key login_error_rate_limit:<email> in "
        "Dify's Redis; then run with the right password."
    ),
    "password_encoding": "The release that answers was not recognised: give its version.",
    "not_setup": "Dify has no owner yet: run dify_setup first.",
    "already_setup": "Dify has an owner already.",
    "init_required": "Dify asks for INIT_PASSWORD before its setup: give init_password or secrets_file.",
    "wrong_init_password": "It must equal INIT_PASSWORD in the environment of Dify's container api.",
    "storage": (
        "See the log of Dify's container api. Mostly it cannot write the workspace's key: from 1.10.1 on "
        "volumes/app/storage must belong to uid 1001."
    ),
    "session": "The session is not valid any more; run again.",
    "forbidden": "The account may not do this: it takes the owner or an administrator of the workspace.",
    "daemon_down": "See that the container plugin_daemon runs and that its log does not report errors.",
    "daemon_key": "PLUGIN_DAEMON_KEY must be the same for api, worker and plugin_daemon: correct it and recreate them.",
    "plugin_dead": "The plugin's process does not run: see the log of plugin_daemon, and restart that container.",
    "bad_signature": (
        "The package is not signed by a trusted key: take a signed one, or, if you trust it, have plugin_daemon know "
        "its key (dify_plugin_public_keys) or set FORCE_VERIFYING_SIGNATURE to false (dify_plugin_signatures)."
    ),
    "bad_package": "The file is no complete .difypkg: fetch it again.",
    "package_missing": "The daemon has no such package: upload it first.",
    "too_large": (
        "Raise PLUGIN_MAX_PACKAGE_SIZE for api and plugin_daemon and NGINX_CLIENT_MAX_BODY_SIZE for nginx above its "
        "size (dify_plugin_max_mb does both)."
    ),
    "marketplace": (
        "Dify's api cannot reach the marketplace: point MARKETPLACE_API_URL (dify_marketplace_url) at a mirror that it "
        "reaches."
    ),
    "provider_missing": "The plugin that brings this provider is not installed, or not up yet.",
    "not_found": "",
    "invalid": "",
    "server_error": "See the log of Dify's container api.",
}

# (status or 0, code or "", what the message must have or "", what it means); the first that fits counts.
_MEANINGS: tuple[tuple[int, str, str, str], ...] = (
    (0, "email_code_login_limit", "", "locked"),
    (0, "email_or_password_mismatch", "", "wrong_password"),
    (0, "account_not_found", "", "unknown_email"),
    (0, "authentication_failed", "encrypted data", "password_encoding"),
    (0, "authentication_failed", "", "wrong_password"),
    (0, "not_setup", "", "not_setup"),
    (0, "already_setup", "", "already_setup"),
    (0, "not_init_validated", "", "init_required"),
    (0, "init_validate_failed", "", "wrong_init_password"),
    (0, "", "Failed to request plugin daemon|Request to Plugin Daemon Service failed", "daemon_down"),
    (0, "", "'401 Unauthorized' for url|PluginDaemonUnauthorizedError", "daemon_key"),
    (0, "", "no proper instance|no available node", "plugin_dead"),
    (0, "", "bad signature", "bad_signature"),
    (0, "", "not a valid difypkg|open manifest.yaml|PluginDecodeError", "bad_package"),
    (0, "", "plugin package not found", "package_missing"),
    (413, "", "", "too_large"),
    (0, "", "package size is too large|[Ff]ile size exceed", "too_large"),
    (0, "", "Reached maximum retries", "marketplace"),
    (0, "", r"Provider \S+ does not exist", "provider_missing"),
    (401, "", "", "session"),
    (403, "", "", "forbidden"),
    (404, "", "", "not_found"),
    (502, "", "", "gateway"),
    (503, "", "", "gateway"),
    (504, "", "", "gateway"),
)


class ConsoleError(Exception):
    """The console refused, or did not answer. `kind` is a key of ADVICE; the text holds no secret."""

    def __init__(
        self, kind: str, message: str, status: int = 0, code: str = "", advice: str | None = None, what: str = ""
    ) -> None:
        self.kind = kind
        self.status = status
        self.code = code
        self.message = message.rstrip(". \n")
        self.advice = ADVICE[kind] if advice is None else advice
        # Method and route, for errors that are about one request.
        self.what = what
        super().__init__(self.message)

    def __str__(self) -> str:
        text = (
            f"{self.message}." if not self.what else f"Dify refuses {self.what} (HTTP {self.status}): {self.message}."
        )
        return f"{text} {self.advice}".rstrip()


def read_error(answer: Response, what: str) -> ConsoleError:
    """The error in a reply that is none of success."""
    code, raw = _parts(answer.json())
    kind = next(
        (
            kind
            for status, wanted, text, kind in _MEANINGS
            if status in (0, answer.status) and wanted in ("", code) and (not text or re.search(text, raw))
        ),
        "server_error" if answer.status >= 500 else "invalid",
    )
    return ConsoleError(kind, _tidy(raw) or f"HTTP {answer.status} without a word", answer.status, code, what=what)


def _parts(data: Any) -> tuple[str, str]:
    """Code and message. /setup, /init and /version have a shape of their own from 1.12 on."""
    if not isinstance(data, dict):
        return "", ""
    if isinstance(data.get("error"), dict):
        error = data["error"]
        return str(error.get("type") or ""), str(error.get("details") or error.get("message") or "")
    code = data.get("code") or data.get("custom") or ""
    # An import that failed has its text in `error`, a token that is refused in `data`.
    message = data.get("message") or data.get("error") or data.get("data") or ""
    return str(code), message if isinstance(message, str) else ""


def _tidy(message: str) -> str:
    """Without request ids, class names, addresses inside the platform and links to manuals."""
    message = re.sub(r"req_id: \w+ (?:\w+(?:Error|Exception): )?", "", message)
    message = re.sub(r",? (?:for )?url:? '?(?:https?://[^/\s']+/)?plugin/[0-9a-f-]{36}/[^\s']*'?", "", message)
    message = re.sub(r"\s*For (?:more|further) information (?:check|visit):?\s+\S+", "", message)
    return re.sub(r"\s*\n\s*", "; ", message.strip())
