# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Why a plugin cannot be installed, out of what the plugin daemon says, and what to do about it: only words."""

from __future__ import annotations

import re

from ansible_collections.llmops.stack.plugins.module_utils._urls import mask_urls

__all__ = [
    "ALREADY",
    "PACKAGE_GONE",
    "clean",
    "explain_task",
    "fetch_advice",
    "no_plugins",
    "not_listed",
    "stuck",
    "unchanged",
]

# Longest quotation of a foreign text.
_QUOTE = 300
ALREADY = "perhaps it's already installed"
# The folder of the daemon's storage with every package that was ever uploaded.
PACKAGE_GONE = "plugin_packages/"
# (pattern, what was found ("" = quote the text), what to do); the first match wins.
_TASKS = (
    (
        r"invalid peer certificate|UnknownIssuer|self[- ]signed certificate",
        "the package index has a certificate that the installer does not trust",
        "Mount a /etc/uv/uv.toml with system-certs = true into plugin_daemon and have the CA in its system store, or "
        "add --system-certs to PIP_EXTRA_ARGS.",
    ),
    (
        r"lock timeout|env-init lock",
        "the lock of an installation that was interrupted is still held",
        "The daemon was killed during an earlier installation of this plugin: its lock lasts 15 minutes, so run this "
        "again after that.",
    ),
    (
        r"was not found in the (?:package registry|cache)|No solution found|No matching distribution",
        "",
        "The package index lacks a dependency: point PIP_MIRROR_URL (dify_plugin_index) at an index that has it, or "
        "add its wheels (dify_plugin_wheels).",
    ),
    (
        r"killed by timeout|context deadline exceeded|init process exited|failed too many times",
        "",
        "Installing the dependencies took too long or failed again and again; this daemon keeps the reason in its log: "
        "read the log of plugin_daemon, see that the index in PIP_MIRROR_URL (dify_plugin_index) is reachable and "
        "fast, and raise PLUGIN_PYTHON_ENV_INIT_TIMEOUT.",
    ),
    (
        r"[Cc]onnection refused|dns error|failed to lookup|error sending request|[Cc]onnect(?:ion)? timed out"
        r"|[Ff]ailed to fetch|operation timed out|No route to host|Network is unreachable|[Cc]ould not connect",
        "",
        "The plugin daemon cannot reach the package index: set PIP_MIRROR_URL (dify_plugin_index) to one that it "
        "reaches, or give it the wheels (dify_plugin_wheels).",
    ),
    (
        r"create virtual environment|No interpreter found|failed to find python",
        "",
        "The plugin daemon found no Python 3.12 and could not download one: use the image that belongs to the release.",
    ),
    (
        r"no heartbeat|waiting for plugin to be ready",
        "",
        "The plugin's process started and never said that it is ready: read the log of plugin_daemon; too little "
        "memory and a package for another processor look like this.",
    ),
    (
        r"signal: killed|[Oo]ut of memory|No space left",
        "",
        "The host ran out of memory or disk during the installation: make room and run this again.",
    ),
    (
        ALREADY,
        "another version of the plugin is installed, and this daemon does not replace it by an installation",
        "Somebody installed it at the same moment: run this again.",
    ),
    (
        r"plugin failed to start",
        "",
        "The plugin's own program ended at its start: its version may not fit this Dify, so try another one.",
    ),
    (
        r"plugin_packages|no such file or directory|plugin not found",
        "",
        "The package is gone from the daemon's storage: install it again from its source.",
    ),
)


_GITHUB = (
    "The api container cannot fetch the package from GitHub: see that repo, release and release_file are right and "
    "that the container reaches GitHub, or download the file and use source=package."
)
# (what Dify's API says of a package that it fetches itself, source or "" = any, what to do); the first match wins.
_FETCHES = (
    (r"Max file size reached", "", "Raise PLUGIN_MAX_PACKAGE_SIZE of api and plugin_daemon (dify_plugin_max_mb)."),
    (r"Reached maximum retries|file not found", "github", _GITHUB),
    (
        r"file not found",
        "marketplace",
        "The marketplace that api asks, MARKETPLACE_API_URL (dify_marketplace_url), has no such package: correct the "
        "version, or run playbooks/mirror.yml where it is a mirror's, and then this again.",
    ),
)


def fetch_advice(message: str, source: str) -> str:
    """What to do about a package that Dify's API did not get, "" where its own error says so."""
    return next(
        (advice for text, where, advice in _FETCHES if where in ("", source) and re.search(text, message)),
        "",
    )


def clean(text: str) -> str:
    """A foreign text in one line, without passwords in URLs."""
    return " ".join(mask_urls(text).split())


def explain_task(subject: str, text: str) -> str:
    """Why an installation failed. The reason is in the tail of the daemon's text, after a long log of the installer."""
    reason = _reason(text)
    for pattern, found, advice in _TASKS:
        if re.search(pattern, text):
            return f"The installation of {subject} failed: {found or reason}. {advice}"
    return (
        f"The installation of {subject} failed: {reason or 'the plugin daemon gives no reason'}. "
        "Read the log of plugin_daemon."
    )


def _reason(text: str) -> str:
    """The sentence that counts, out of some kilobytes of which the middle was cut out."""
    started = re.search(r"plugin failed to start:\s*(.*)", text, re.DOTALL)
    if started:
        lines = [line.strip() for line in started.group(1).splitlines() if line.strip()]
        # Of a traceback only the last line says something.
        return _shorten(clean("the plugin ended at its start" + (f" with: {lines[-1]}" if lines else "")))
    useful = [
        line
        for line in text.splitlines()
        if line.strip() and not re.match(r"\s*(DEBUG|TRACE|INFO|WARN)\b|failed to init environment$", line)
    ]
    causes = [line for line in useful if re.search(r"cause|Because|error|Caused by", line, re.IGNORECASE)]
    # The head repeats "failed to ..." and then begins to quote the log.
    picked = re.sub(r"^.*\boutput: (DEBUG\b.*)?", "", " ".join(causes[-2:] or useful[-2:]))
    return _shorten(clean(picked) or clean(text)).rstrip(".")


def _shorten(text: str) -> str:
    """The tail counts."""
    text = text.rstrip(" .")
    return text if len(text) <= _QUOTE else f"...{text[-_QUOTE:]}"


def no_plugins(version: str) -> str:
    return (
        f"Dify {version} has no plugins: they came with 1.0.0, and before that the model providers, Ollama among them, "
        "are part of Dify itself. Leave dify_plugins empty for this release, or upgrade Dify."
    )


def unchanged(subject: str, version: str) -> str:
    """A task that succeeded and changed nothing."""
    return (
        f"The installation of {subject} was reported as successful, but the workspace still lists version {version}. "
        "The plugin daemon does not replace an installed plugin by an installation; give plugin_daemon_key or "
        "secrets_file, so that its own upgrade can be used, or allow reinstall."
    )


def not_listed(subject: str) -> str:
    """A task that is gone, or succeeded, and nothing is there."""
    return (
        f"The installation of {subject} ended, but the workspace does not list the plugin. Somebody removed it, or the "
        "plugin daemon was restarted meanwhile: read its log, and run this again."
    )


def stuck(subject: str, seconds: float, status: str, message: str) -> str:
    """A task that did not end in time."""
    said = f" ({_shorten(clean(message))})" if message else ""
    return (
        f"The installation of {subject} is still {status or 'under way'}{said} after {seconds:.0f} s. It goes on in "
        "the plugin daemon, so run this again later with a longer deadline; if it never ends, the daemon cannot "
        "reach its package index (PIP_MIRROR_URL, dify_plugin_index) or was killed meanwhile: read its log."
    )
