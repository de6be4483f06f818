# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent's local sandbox of 1.16.0: /healthz is open, everything else wants the shared token."""

from __future__ import annotations

import os

from standin import faults
from standin.server import Request, Response, html_error, serve


def answer(request: Request) -> Response:
    if request.path == "/healthz":
        return Response(200, b'{"status":"ok"}')
    token = os.environ.get("SHELLCTL_AUTH_TOKEN", "")
    if token and request.bearer() != token:
        return Response(401, b'{"detail":"Unauthorized"}')
    return html_error(404)


if __name__ == "__main__":
    faults.at_start("local_sandbox")
    serve(answer, 5004)
