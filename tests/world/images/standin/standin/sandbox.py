# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The code sandbox stand-in: /health, and /v1/sandbox/run that really runs Python in a process of its own.

Faults: "sandbox": "hang" | "500" | "slow:<seconds>", and "start" as everywhere.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

from standin import faults
from standin.server import Request, Response, serve

DEFAULT_PORT = 8194


def answer(request: Request) -> Response:
    fault = faults.get("sandbox", "sandbox")
    if fault == "hang":
        time.sleep(600)
    if fault == "500":
        return _json(500, {"code": -500, "message": "internal error", "data": None})
    time.sleep(faults.seconds(fault))
    if request.method == "GET" and request.path == "/health":
        return _json(200, "ok")
    if not request.path.startswith("/v1/sandbox/"):
        return Response(404, b"404 page not found", "text/plain")
    if request.headers.get("X-Api-Key") != os.environ.get("API_KEY", "dify-sandbox"):
        return _json(401, {"code": -401, "message": "Unauthorized", "data": None})
    if request.method == "POST" and request.path == "/v1/sandbox/run":
        return _run(request.json())
    if request.method == "GET" and request.path == "/v1/sandbox/dependencies":
        return _ok({"dependencies": []})
    return Response(404, b"404 page not found", "text/plain")


def _run(parameters: Any) -> Response:
    if (
        not isinstance(parameters, dict)
        or not parameters.get("language")
        or not isinstance(parameters.get("code"), str)
    ):
        return _json(400, {"code": -400, "message": "invalid request: language and code are required", "data": None})
    if parameters["language"] != "python3":
        return _json(200, {"code": -400, "message": "unsupported language", "data": None})
    limit = float(os.environ.get("WORKER_TIMEOUT") or 15)
    code = f"{parameters.get('preload') or ''}\n{parameters['code']}"
    # Nothing of this container's environment, keys least of all, is for the code that runs here.
    with tempfile.TemporaryDirectory(prefix="sandbox-") as directory:
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-c", code],
                cwd=directory,
                env={"PATH": "/usr/bin:/bin"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=limit,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return _ok({"stdout": "", "error": "error: timeout\n"})
    error = done.stderr.decode(errors="replace")
    if done.returncode < 0:
        error += "error: signal: killed\n"
    return _ok({"stdout": done.stdout.decode(errors="replace"), "error": error})


def _ok(data: Any) -> Response:
    return _json(200, {"code": 0, "message": "success", "data": data})


def _json(status: int, content: Any) -> Response:
    return Response(status, json.dumps(content).encode(), "application/json; charset=utf-8")


if __name__ == "__main__":
    faults.at_start("sandbox")
    serve(answer, int(os.environ.get("SANDBOX_PORT") or DEFAULT_PORT))
