# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dify's web: a page for whatever a browser asks. It knows nothing of the API, so it answers when all else is down."""

from __future__ import annotations

import os
import time

from standin import faults, versions
from standin.server import Request, Response, html_error, serve

PAGES = (
    "/signin",
    "/apps",
    "/install",
    "/init",
    "/datasets",
    "/explore",
    "/tools",
    "/plugins",
    "/account",
    "/forgot-password",
)


def answer(request: Request) -> Response:
    fault = faults.get("web")
    if fault == "hang":
        time.sleep(600)
    if fault == "500":
        return html_error(500)
    time.sleep(faults.seconds(fault))
    if request.path == "/":
        return Response(307, b"", "text/html; charset=utf-8", [("Location", "/apps")])
    if not request.path.startswith(PAGES):
        return html_error(404)
    page = (
        f'<!DOCTYPE html><html lang="en-US"><head><title>Dify</title></head>'
        f'<body data-version="{versions.current()}">{request.path}</body></html>'
    )
    return Response(200, page.encode(), "text/html; charset=utf-8")


if __name__ == "__main__":
    faults.at_start("web")
    serve(answer, int(os.environ.get("PORT") or 3000))
