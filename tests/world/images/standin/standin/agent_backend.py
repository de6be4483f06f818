# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent backend of 1.16.0: needs its Redis, has no health route; nothing more of it was recorded."""

from __future__ import annotations

import os

import redis

from standin import faults
from standin.server import Request, Response, html_error, serve


def answer(request: Request) -> Response:
    if request.path.startswith("/agent-stub"):
        return Response(401, b'{"detail":"Not authenticated"}')
    return html_error(404)


if __name__ == "__main__":
    faults.at_start("agent_backend")
    # A wrong password or an unreachable Redis ends the process: the container restarts until Redis is there.
    redis.Redis.from_url(os.environ["DIFY_AGENT_REDIS_URL"]).ping()
    serve(answer, 5050)
