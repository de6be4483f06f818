#!/usr/bin/python3
# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The marketplace of plugins and the index of Python packages, behind nginx, and the trouble that a node has with them.

What has to be worked out is answered here; files are nginx's again (X-Accel-Redirect). A node's trouble is in
/srv/switches/<node>.<marketplace|index>.json, written by `world.py switch`; every other client is served well.

    status=503     answers with this status
    drop=true      ends the connection without an answer
    wait=20        seconds before every answer
    rate=50000     bytes a second, for every file
    portal=true    a page that wants a login, with status 200
    lacks=NAME     the index does not have this package
    package=cut    the marketplace's packages end in the middle; package=altered: they are not what was signed
    versions=all   the marketplace lists the packages that are no good, too
"""

from __future__ import annotations

import http.server
import json
import re
import socket
import time
import urllib.parse
from pathlib import Path
from typing import Any

WWW = Path("/srv/www")
SWITCHES = Path("/srv/switches")
CONTAINER = "llmops-{}"
API = "/marketplace/api/v1/"
PORTAL = b"<html><body>Please log in to the network.</body></html>\n"
ZIP = "application/octet-stream"


def trouble(service: str, client: str) -> dict[str, Any]:
    """What the node with this address is to suffer."""
    for path in SWITCHES.glob(f"*.{service}.json"):
        try:
            if socket.gethostbyname(CONTAINER.format(path.name.split(".")[0])) == client:
                return dict(json.loads(path.read_text()))
        except OSError:
            continue  # a node that is no more
    return {}


def catalogue(everything: bool = False) -> list[dict[str, Any]]:
    """The packages, newest first."""
    try:
        packages = json.loads((WWW / "plugins" / "index.json").read_text())
    except OSError:
        return []
    return [one for one in packages if everything or one["good"]]


def card(versions: list[dict[str, Any]]) -> dict[str, Any]:
    """A plugin as the marketplace describes it."""
    newest = versions[0]
    plugin_id = newest["plugin_id"]
    org, name = plugin_id.split("/")
    return {
        "type": "plugin",
        "org": org,
        "name": name,
        "plugin_id": plugin_id,
        "icon": f"{plugin_id}/icon",
        "label": {"en_US": name.capitalize()},
        "brief": {"en_US": name.capitalize()},
        "introduction": "",
        "category": "model",
        "resource": {"memory": 268435456, "permission": None},
        "endpoint": None,
        "model": None,
        "tool": None,
        "latest_version": newest["version"],
        "version": newest["version"],
        "latest_package_identifier": newest["identifier"],
        "install_count": 0,
        "status": "active",
        "deprecated_reason": "",
        "alternative_plugin_id": "",
        "verification": {"authorized_category": org},
    }


def cards(packages: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    names = dict.fromkeys(one["plugin_id"] for one in packages)
    return {name: card([one for one in packages if one["plugin_id"] == name]) for name in names}


def answer(method: str, path: str, query: dict[str, str], body: dict[str, Any], told: dict[str, Any]) -> Any:
    """The data of the marketplace's answer to a request; None where it has none."""
    packages = catalogue(told.get("versions") == "all")
    plugins = cards(packages)
    if method == "POST":
        if path == "plugins/batch":
            return {"plugins": [plugins[name] for name in body.get("plugin_ids", []) if name in plugins]}
        if path in ("plugins/search/advanced", "plugins/search/basic"):
            words = str(body.get("query", "")).lower()
            hits = [one for one in plugins.values() if words in one["plugin_id"]]
            return {"plugins": hits, "total": len(hits)}
        return {} if path.startswith("stats/plugins/") else None
    if path == "dist/plugins/manifest.json":
        return {"plugins": list(plugins.values())}
    found = re.fullmatch(r"plugins/([\w-]+/[\w-]+)(/versions)?", path)
    if not found or found[1] not in plugins:
        return None
    if not found[2]:
        return {"plugin": plugins[found[1]]}
    listed = [
        {"version": one["version"], "unique_identifier": one["identifier"], "created_at": one["created_at"]}
        for one in packages
        if one["plugin_id"] == found[1]
    ]
    size = int(query.get("page_size", "100"))
    first = (int(query.get("page", "1")) - 1) * size
    return {"versions": listed[first : first + size], "total": len(listed)}


class Shelves(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        market = url.path.startswith("/marketplace/")
        length = int(self.headers.get("Content-Length") or 0)
        sent = self.rfile.read(length)
        told = trouble("marketplace" if market else "index", self.headers.get("X-Real-IP", ""))
        time.sleep(float(told.get("wait", 0)))
        if told.get("drop"):
            return self._send(200, b"", "text/plain", **{"X-Accel-Redirect": "/drop"})
        if told.get("status"):
            return self._json(int(told["status"]), {"code": -1, "msg": "out of order", "data": None})
        if told.get("portal"):
            return self._send(200, PORTAL, "text/html")
        if not market:
            name = re.sub(r"[-_.]+", "-", str(told.get("lacks", ""))).lower()
            if name and url.path.rstrip("/") == f"/pypi/simple/{name}":
                return self._json(404, {"message": "not found"})
            return self._file(url.path, told)
        query = dict(urllib.parse.parse_qsl(url.query))
        if self.command in ("GET", "HEAD") and url.path == f"{API}plugins/download":
            return self._package(query.get("unique_identifier", ""), told)
        return self._market(url.path.removeprefix(API), query, sent, told)

    do_HEAD = do_POST = do_GET

    def _market(self, path: str, query: dict[str, str], sent: bytes, told: dict[str, Any]) -> None:
        try:
            body = json.loads(sent or b"{}")
            data = answer("POST" if self.command == "POST" else "GET", path, query, body, told)
        except (ValueError, AttributeError):
            return self._json(400, {"code": -1, "msg": "invalid request", "data": None})
        if data is None:
            return self._json(404, {"code": -1, "msg": "not found", "data": None})
        if path.startswith("dist/"):
            return self._json(200, data)
        return self._json(200, {"code": 0, "msg": "success", "data": data})

    def _package(self, identifier: str, told: dict[str, Any]) -> None:
        found = next((one for one in catalogue(everything=True) if one["identifier"] == identifier), None)
        if not found:
            return self._json(404, {"code": -1, "msg": "plugin not found", "data": None})
        kind = told.get("package")
        if not kind:
            return self._file(f"/plugins/{found['file']}", told)
        data = (WWW / "plugins" / found["file"]).read_bytes()
        # The end of a package is its signature.
        return self._send(200, data[: len(data) // 2] if kind == "cut" else data[:-8] + b'000000"}', ZIP)

    def _file(self, path: str, told: dict[str, Any]) -> None:
        extra = {"X-Accel-Redirect": f"/served{urllib.parse.quote(urllib.parse.unquote(path))}"}
        if told.get("rate"):
            extra["X-Accel-Limit-Rate"] = str(int(told["rate"]))
        self._send(200, b"", "", **extra)

    def _json(self, status: int, content: Any) -> None:
        self._send(status, json.dumps(content).encode(), "application/json")

    def _send(self, status: int, body: bytes, kind: str, **headers: str) -> None:
        self.send_response(status)
        if kind:
            self.send_header("Content-Type", kind)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass  # nginx writes down what was asked


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


if __name__ == "__main__":
    SWITCHES.mkdir(parents=True, exist_ok=True)
    Server(("127.0.0.1", 8082), Shelves).serve_forever()
