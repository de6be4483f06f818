# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Where traces and metrics go, with which headers, and what of that cannot be meant. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.llmops.stack.plugins.module_utils._urls import mask_urls

__all__ = ["BACKENDS", "HOSTED", "LGTM", "PHOENIX", "bracketed", "local", "target", "which"]

HOSTED = "https://api.traceloop.com"
PHOENIX, LGTM = "phoenix", "lgtm"
BACKENDS = ("auto", "traceloop", "otlp", LGTM, PHOENIX, "none")
# Where each listens inside its container, and with it inside the project's network.
_INSIDE = {PHOENIX: "http://phoenix:6006", LGTM: "http://lgtm:4318"}
_DASHBOARD = "/d/llmops-llm-calls"
_PAGES = {"traceloop": "https://app.traceloop.com"}
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # what HTTP allows as the name of a header


def which(given: Mapping[str, Any]) -> str:
    """The one that is meant, where nobody names one."""
    if given["backend"] != "auto":
        return str(given["backend"])
    return "traceloop" if given["api_key"] else "otlp" if given["base_url"] else "none"


def target(given: Mapping[str, Any]) -> dict[str, Any]:
    """Where to send.

    Args:
        given: the variables of the role, without C(traceloop_) before their names.

    Returns:
        C(own) (name of the container that is the backend, or empty), C(base), C(traces_url), C(metrics_url) (empty: no
        metrics), C(headers), C(metrics_headers), C(words) (where to, for sentences), C(page) (what a browser opens),
        C(refusals).
    """
    backend = str(given["backend"])
    base = str(given["base_url"] or "").strip()
    own = backend if backend in _INSIDE and not base else ""
    wrong = _wrong(given, backend, base)
    base = base or _INSIDE.get(own, HOSTED if backend == "traceloop" else "")
    headers = {} if own else _headers(given["headers"])
    if not headers and given["api_key"] and not own:  # as Traceloop does: with headers the key is ignored
        headers = {"authorization": f"Bearer {str(given['api_key']).strip()}"}
    traces_url = _signal(base, "traces")
    metrics = str(given["metrics_url"] or "").strip() or ("" if backend == PHOENIX else base)
    metrics_url = _signal(metrics, "metrics") if given["metrics"] and metrics else ""
    metrics_headers = _headers(given["metrics_headers"])
    if not metrics_headers and _origin(metrics_url) == _origin(traces_url):
        metrics_headers = headers  # another place gets no key of this one
    return {
        "own": own,
        "base": base,
        "traces_url": traces_url,
        "metrics_url": metrics_url,
        "headers": headers,
        "metrics_headers": metrics_headers if metrics_url else {},
        "words": _words(given, backend, own, base),
        "page": _page(given, backend, own, base),
        "refusals": wrong,
    }


def _wrong(given: Mapping[str, Any], backend: str, base: str) -> list[str]:
    if backend not in BACKENDS:
        return [f"traceloop_backend is {backend}, and there are {', '.join(BACKENDS)}."]
    wrong = []
    if backend == "traceloop" and not given["api_key"] and not given["headers"]:
        wrong.append(
            "traceloop_backend is traceloop, which takes nothing without a key. Set traceloop_api_key (or "
            "traceloop_headers), or another traceloop_backend."
        )
    if backend == "otlp" and not base:
        wrong.append(
            "traceloop_backend is otlp, and traceloop_base_url does not say where that is. Set it to the address below "
            "which the backend takes /v1/traces, such as http://tempo.example.com:4318."
        )
    for name in ("base_url", "metrics_url"):
        url = str(given[name] or "").strip()
        if url:
            wrong += _wrong_url(f"traceloop_{name}", url)
    for name in ("headers", "metrics_headers"):
        wrong += _wrong_headers(f"traceloop_{name}", _headers(given[name]), bool(given["collector"]))
    wrong += _wrong_headers(
        "traceloop_api_key", {"authorization": str(given["api_key"] or "")}, bool(given["collector"])
    )
    return wrong


def _wrong_url(name: str, url: str) -> list[str]:
    shown = mask_urls(url)
    if re.match(r"grpcs?://", url):
        return [f"{name} is {shown}, and only OTLP over HTTP is spoken here. Give the HTTP address, mostly port 4318."]
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good or re.search(r"\s", url):
        return [f"{name} is {shown}, which is no address that begins with http:// or https:// and names a host."]
    if parts.username or parts.password:
        return [f"{name} is {shown}, with a login in it. Give that as a header, in traceloop_headers."]
    if parts.query or parts.fragment:
        return [f"{name} is {shown}; what stands after ? or # would be lost. Give the address without it."]
    return []


def _wrong_headers(name: str, headers: Mapping[str, str], collector: bool) -> list[str]:
    """No value is ever quoted: they are keys."""
    odd = [key for key in headers if not _TOKEN.fullmatch(key)]
    if odd:
        return [f"{name} names {', '.join(map(repr, odd))}, which is no name of an HTTP header."]
    bad = [key for key, value in headers.items() if not (value.isascii() and value.isprintable()) and value]
    if bad:
        return [f"{name}: the value of {', '.join(bad)} holds a character that HTTP does not allow, maybe a line end."]
    if collector and any("$" in value for value in headers.values()):
        return [
            f"{name}: a value with a $ in it would be read as a variable by the collector. Set traceloop_collector: "
            "false, or have a key without one."
        ]
    return []


def _headers(given: Any) -> dict[str, str]:
    return {str(key).strip().lower(): str(value).strip() for key, value in (given or {}).items()}


def _signal(base: str, signal: str) -> str:
    """Below the address of a backend; people also give the one of either signal."""
    base = re.sub(r"(/v1/(traces|metrics))?/*$", "", base)
    return f"{base}/v1/{signal}" if base else ""


def _origin(url: str) -> tuple[str, str | None, int | None]:
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname, parts.port
    except ValueError:
        return "", None, None


def _words(given: Mapping[str, Any], backend: str, own: str, base: str) -> str:
    if own:
        name = "Arize Phoenix" if own == PHOENIX else "Grafana (otel-lgtm)"
        return f"{name} on this host"
    if backend == "traceloop" and base == HOSTED:
        return "Traceloop (api.traceloop.com)"
    name = {"traceloop": "Traceloop at ", PHOENIX: "Arize Phoenix at ", LGTM: "Grafana's stack at "}.get(backend, "")
    return f"{name}{mask_urls(base)}"


def _page(given: Mapping[str, Any], backend: str, own: str, base: str) -> str:
    if own:
        host = bracketed(given["address"] if _is_everywhere(given["bind_address"]) else given["bind_address"])
        return f"http://{host}:{given[f'{own}_port']}{_DASHBOARD if own == LGTM else ''}"
    if backend == PHOENIX:
        return re.sub(r"(/v1/traces)?/*$", "", base)
    return _PAGES.get(backend, "") if base == HOSTED else ""


def bracketed(address: Any) -> str:
    """As it stands in a URL, or before a port."""
    address = str(address).strip("[]")
    return f"[{address}]" if ":" in address else address


def local(bind_address: Any) -> str:
    """Where the host itself reaches what is published there, as it stands in a URL."""
    if not _is_everywhere(bind_address):
        return bracketed(bind_address)
    return "[::1]" if ":" in str(bind_address) else "127.0.0.1"


def _is_everywhere(bind_address: Any) -> bool:
    return str(bind_address).strip("[]") in ("", "0.0.0.0", "::")  # noqa: S104 - compared, not bound
