# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What nginx is told, as text; tests/world/test_front.py lets a real one read it."""

from __future__ import annotations

import json
import pathlib
import re

import pytest
from _settings import RELEASES
from ansible_collections.llmops.stack.plugins.module_utils import _dify_front_config as config

TOKEN = "0123456789abcdef0123456789abcdef"
MAIN = "/etc/nginx/nginx.conf"
DEFAULT = "/etc/nginx/conf.d/default.conf"
TEMPLATES = sorted(RELEASES.glob("*/docker/nginx"))


@pytest.fixture(params=TEMPLATES, ids=[path.parents[1].name for path in TEMPLATES])
def stock(request: pytest.FixtureRequest) -> dict[str, str]:
    """The templates of a release; their variables do not matter here."""
    folder: pathlib.Path = request.param
    return {
        MAIN: (folder / "nginx.conf.template").read_text(),
        DEFAULT: (folder / "conf.d" / "default.conf.template").read_text(),
    }


def test_every_server_of_every_release_is_closed_and_no_route_is_lost(stock: dict[str, str]) -> None:
    written = config.closed_files(stock, TOKEN, config.Page())
    copy = written[f"{config.FOLDER}/conf.d/default.conf"]
    servers = re.findall(r"^server \{\n\s*(.*)$", copy, re.MULTILINE)
    assert servers == [f"include {config.FOLDER}/server.conf;"]
    assert [line for line in copy.splitlines() if "llmops" not in line] == stock[DEFAULT].splitlines()
    assert f"include {config.FOLDER}/conf.d/*.conf;" in written[MAIN]
    assert "include /etc/nginx/conf.d/" not in written[MAIN]
    assert written[MAIN].startswith(config.MARK)
    assert list(written)[-1] == MAIN, "it names the others, so it must be written after them"


def test_servers_of_an_operators_own_are_closed_too(stock: dict[str, str]) -> None:
    stock["/etc/nginx/conf.d/other.conf"] = "# server {\nupstream api { server api:5001; }\nserver{\n  listen 81;\n}\n"
    other = config.closed_files(stock, TOKEN, config.Page())[f"{config.FOLDER}/conf.d/other.conf"]
    assert other.count("server.conf;") == 1
    assert "server{\n    include" in other


@pytest.mark.parametrize(
    ("main", "default", "word"), [("events { }", "server {\n}", "http"), ("http {\n}", "# nothing", "restart nginx")]
)
def test_what_cannot_be_closed_is_refused(main: str, default: str, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        config.closed_files({MAIN: main, DEFAULT: default}, TOKEN, config.Page())


def test_the_token_is_found_again(stock: dict[str, str]) -> None:
    written = config.closed_files(stock, TOKEN, config.Page())
    assert config.token_in(written[f"{config.FOLDER}/maintenance.conf"]) == TOKEN
    assert config.token_in("") == ""


def test_the_page_says_it_in_both_languages_and_comes_back_by_itself() -> None:
    page = config.Page(retry_after=7)
    assert "Dify is being upgraded" in page.html()
    assert "正在升级" in page.html()
    assert '<meta http-equiv="refresh" content="7">' in page.html()
    told = json.loads(page.json())
    assert told["code"] == "service_unavailable"
    assert told["status"] == 503


def test_a_page_may_say_anything() -> None:
    text = """It's $5 \\ "so" <b> ${HOME}"""
    server = config.closed_files(
        {MAIN: "http {\n}", DEFAULT: "server {\n}"}, TOKEN, config.Page(title=text, text=text)
    )[f"{config.FOLDER}/server.conf"]
    # nginx reads $name in a text as a variable, and refuses one that it does not know.
    assert "$" not in re.sub(r"\$llmops_\w+", "", server)
    assert "<b>" not in server.split("@llmops_json")[0]


def test_no_text_is_longer_than_nginx_takes() -> None:
    server = config.closed_files({MAIN: "http {\n}", DEFAULT: "server {\n}"}, TOKEN, config.Page())
    texts = re.findall(r"return 503 '(.*)';", server[f"{config.FOLDER}/server.conf"])
    assert len(texts) == 2
    assert all(len(text.encode()) < 4096 for text in texts)


def test_own_lines_of_a_hosts_file() -> None:
    hosts = f"127.0.0.1\tlocalhost\n172.20.0.9 api {config.MARK}\n172.20.0.3\tsomebody\nfe80::1 web {config.MARK}\n"
    assert config.hosts_lines(hosts) == {"api": "172.20.0.9", "web": "fe80::1"}


def test_files_as_the_container_prints_them() -> None:
    printed = "\x1e/etc/nginx/nginx.conf\x1fhttp {\n}\n\x1e/etc/nginx/conf.d/a.conf\x1f"
    assert config.parse_files(printed) == {MAIN: "http {\n}\n", "/etc/nginx/conf.d/a.conf": ""}
    assert config.parse_files("") == {}
