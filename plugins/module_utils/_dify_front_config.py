# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.

"""What nginx is told while Dify is closed: texts in, texts out.

The whole configuration stays in force for a request that carries the header; a server only gets a first line that
answers everybody else. So the checks of a new release go the way that users will go.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["FOLDER", "HEADER", "MAIN", "MARK", "Page", "closed_files", "hosts_lines", "parse_files", "token_in"]

HEADER = "X-Llmops-Key"
MARK = "# llmops.stack"
FOLDER = "/etc/nginx/llmops"
MAIN = "/etc/nginx/nginx.conf"

_SERVER = re.compile(r"^([ \t]*)server[ \t]*\{", re.MULTILINE)
_HTTP = re.compile(r"^[ \t]*http[ \t]*\{", re.MULTILINE)
_INCLUDE = re.compile(r"^([ \t]*include[ \t]+)(?:/etc/nginx/)?conf\.d/", re.MULTILINE)
_TOKEN = re.compile(r'"~\^([0-9a-f]+)\$"')
_HOSTS = re.compile(rf"^([0-9a-fA-F.:]+) ([A-Za-z0-9_-]+) {re.escape(MARK)}$")
# What programs ask for: they get JSON in the form of Dify's own errors, people get a page.
_FOR_PROGRAMS = r"~^/(?:console/api|api|v1|files|mcp|triggers|openapi|e|socket\.io)(?:/|$)"

_STYLE = (
    "body{font:16px/1.6 system-ui,sans-serif;display:grid;place-items:center;min-height:100vh;margin:0;"
    "background:#f5f6f8;color:#1d2433}main{max-width:34rem;padding:2rem}h1{font-size:1.4rem;margin:0 0 .4rem}"
    "p{margin:0 0 1.6rem}@media(prefers-color-scheme:dark){body{background:#14171f;color:#e6e8ee}}"
)


@dataclass(frozen=True)
class Page:
    """What people are told. A browser asks again by itself, and comes back to where it was."""

    retry_after: int = 15
    title: str = "Dify is being upgraded"
    text: str = "It will be back in a few minutes. This page reloads by itself; nothing that was saved is lost."
    title_zh: str = "Dify 正在升级"
    text_zh: str = "几分钟后即可恢复使用。本页面会自动刷新，已保存的数据不会丢失。"  # noqa: RUF001 - so it is written

    def html(self) -> str:
        title, text, title_zh, text_zh = (
            html.escape(one) for one in (self.title, self.text, self.title_zh, self.text_zh)
        )
        return (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            f'<meta http-equiv="refresh" content="{self.retry_after}">'
            '<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="robots" content="noindex">'
            f"<title>{title} · {title_zh}</title><style>{_STYLE}</style></head><body><main>"
            f'<h1>{title}</h1><p>{text}</p><div lang="zh"><h1>{title_zh}</h1><p>{text_zh}</p></div>'
            "</main></body></html>"
        )

    def json(self) -> str:
        message = f"{self.title}. {self.text.split('.', maxsplit=1)[0]}. / {self.title_zh}"
        return json.dumps({"code": "service_unavailable", "message": message, "status": 503}, ensure_ascii=False)


def closed_files(files: Mapping[str, str], token: str, page: Page) -> dict[str, str]:
    """The files that close nginx: what it has now, with a first line in every server.

    Args:
        files: path and text of nginx.conf and of what it includes from conf.d.
        token: hexadecimal; a request whose header says it is let through.

    Returns:
        Path and text of each file to write; nginx.conf is the last one.

    Raises:
        ValueError: the configuration has no server, or nothing of http.
    """
    main = files.get(MAIN, "")
    if not _HTTP.search(main):
        raise ValueError("nginx.conf has no http block, so there is nothing to close")
    if not any(_SERVER.search(text) for text in files.values()):
        raise ValueError(
            "nginx's configuration has no server: its files are gone since it was started; "
            "`docker compose restart nginx` writes them anew"
        )
    written = {
        f"{FOLDER}/maintenance.conf": _maintenance(token),
        f"{FOLDER}/server.conf": _server(page),
    }
    for path, text in files.items():
        if path.startswith("/etc/nginx/conf.d/"):
            written[f"{FOLDER}/conf.d/{path.rsplit('/', 1)[1]}"] = _with_first_line(text)
    main = _INCLUDE.sub(rf"\g<1>{FOLDER}/conf.d/", main)
    main = _HTTP.sub(lambda found: f"{found[0]}\n    include {FOLDER}/maintenance.conf;", main, count=1)
    written[MAIN] = f"{MARK}: closed\n{_with_first_line(main)}"
    return written


def _with_first_line(text: str) -> str:
    return _SERVER.sub(lambda found: f"{found[0]}\n{found[1]}    include {FOLDER}/server.conf;", text)


def _maintenance(token: str) -> str:
    # A regular expression, because nginx compares plain texts of a map without regard to case and in small buckets.
    variable = HEADER.lower().replace("-", "_")
    return f"""map $http_{variable} $llmops_closed {{
    default 1;
    "~^{token}$" "";
}}
map $uri $llmops_answer {{
    default @llmops_page;
    "{_FOR_PROGRAMS}" @llmops_json;
}}
"""


def _server(page: Page) -> str:
    # Answers are given by `return`, not from a file: nginx would refuse a POST for a file with 405.
    return f"""if ($llmops_closed) {{
    return 503;
}}
error_page 503 $llmops_answer;
{_answer("page", "text/html", page.retry_after, page.html())}
{_answer("json", "application/json", page.retry_after, page.json())}
"""


def _answer(name: str, kind: str, retry_after: int, body: str) -> str:
    # nginx has no way to write a plain dollar sign in a text.
    text = body.replace("\\", "\\\\").replace("'", "\\'").replace("$", "&#36;" if kind == "text/html" else "")
    return f"""location @llmops_{name} {{
    types {{ }}
    default_type "{kind}; charset=utf-8";
    add_header Retry-After {retry_after} always;
    add_header Cache-Control no-store always;
    return 503 '{text}';
}}"""


def token_in(maintenance: str) -> str:
    """The token of a maintenance.conf, empty where there is none."""
    found = _TOKEN.search(maintenance)
    return found[1] if found else ""


def parse_files(printed: str) -> dict[str, str]:
    """Files as a script printed them: a record separator, the path, a unit separator, the text."""
    records = (record.partition("\x1f") for record in printed.split("\x1e")[1:])
    return {path: text for path, _separator, text in records}


def hosts_lines(text: str) -> dict[str, str]:
    """Names and addresses of our lines in a hosts file."""
    found = (_HOSTS.match(line.strip()) for line in text.splitlines())
    return {one[2]: one[1] for one in found if one}
