# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.

"""Spans as Arize Phoenix gives them out over its REST interface, and the address of the page that shows one."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any
from urllib.parse import quote, urlencode

from ansible_collections.llmops.stack.plugins.module_utils._http import Http, HttpError, Response
from ansible_collections.llmops.stack.plugins.module_utils._traces import Span, TracesError

PROJECT = "default"
_PAGE, _PAGES = 200, 5
_KEY = (
    "A Phoenix with logins wants a key of its own (a system key of its settings page), as the header "
    "`Authorization: Bearer KEY`."
)


def moment(text: str) -> float | None:
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return (found if found.tzinfo else found.replace(tzinfo=timezone.utc)).timestamp()


def span(data: Mapping[str, Any], page: str = "") -> Span:
    """One element of the answer; `page` is the address below which the traces of its project are shown."""
    context = data.get("context") or {}
    trace = str(context.get("trace_id") or "")
    return Span(
        trace_id=trace,
        span_id=str(context.get("span_id") or ""),
        name=str(data.get("name") or ""),
        started=moment(str(data.get("start_time") or "")),
        ended=moment(str(data.get("end_time") or "")),
        attributes=data.get("attributes") or {},
        url=f"{page}/{trace}" if page and trace else "",
    )


class Phoenix:
    """`url` is asked; `page` is the same for a browser, where that differs."""

    def __init__(
        self, http: Http, url: str, headers: Mapping[str, str] | None = None, project: str = "", page: str = ""
    ) -> None:
        self.http = http
        self.url = url.rstrip("/")
        self.headers = dict(headers or {})
        self.project = project or PROJECT
        self.page = (page or url).rstrip("/")
        self._traces_page = ""

    def spans(self, since: float, timeout: float) -> list[Span]:
        """All that began since then, none where the project does not exist: its first span makes it."""
        query = {"start_time": datetime.fromtimestamp(since, timezone.utc).isoformat(), "limit": str(_PAGE)}
        found: list[dict[str, Any]] = []
        for _page in range(_PAGES):
            data = self._get(f"/spans?{urlencode(query)}", timeout)
            if data is None:
                return []
            found += data["data"]
            query["cursor"] = str(data.get("next_cursor") or "")
            if not query["cursor"]:
                break
        page = self._shown_at(timeout) if found else ""
        return [span(one, page) for one in found]

    def _shown_at(self, timeout: float) -> str:
        """The page of the project's traces has its id in it, which does not change."""
        if not self._traces_page:
            data = self._get("", timeout) or {"data": {}}
            self._traces_page = f"{self.page}/projects/{data['data'].get('id') or self.project}/traces"
        return self._traces_page

    def _get(self, path: str, timeout: float) -> dict[str, Any] | None:
        place = f"{self.url}/v1/projects/{quote(self.project, safe='')}{path}"
        try:
            answer = self.http.request("GET", place, timeout, self.headers)
        except HttpError as exc:
            raise TracesError(
                f"Phoenix cannot be asked: {exc}",
                "See that it runs, and that its address is right and can be reached from here.",
            ) from exc
        if answer.status == 200:
            data = answer.json()
            # For an address that it does not know Phoenix sends its start page.
            if isinstance(data, dict) and isinstance(data.get("data"), (list, dict)):
                return data
        if answer.status == 404 and "project" in answer.text.lower():
            return None
        raise self._unexpected(answer)

    def _unexpected(self, answer: Response) -> TracesError:
        if answer.status in (401, 403):
            sent = "the key that it was given" if self.headers else "a question without a key"
            return TracesError(f"Phoenix at {self.url} refuses {sent} (HTTP {answer.status})", _KEY, final=True)
        if answer.status >= 500:
            return TracesError(
                f"Phoenix at {self.url} answers HTTP {answer.status}", "Read its log: mostly its database is not well."
            )
        return TracesError(
            f"{self.url} answers HTTP {answer.status}, but not as Phoenix does",
            "See that this is the address of Phoenix's pages (port 6006), of release 8 or newer.",
        )
