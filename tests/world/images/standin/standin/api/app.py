# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The API server: routes, the headers and error pages that all of them share, and the faults on command."""

from __future__ import annotations

import sys
import time
import traceback

from standin import faults, versions
from standin.api import (
    apps,
    basics,
    cache,
    datasets,
    dsl,
    files,
    invoking,
    models,
    plugins,
    replies,
    service,
    session,
    settings,
    workspaces,
)
from standin.server import Request, Response, Router, html_error, serve

AREAS = (basics, session, workspaces, plugins, models, dsl, apps, service, datasets, files)
TYPED_ROUTES = ("/console/api/setup", "/console/api/init", "/console/api/version")


def build() -> Router:
    router = Router()
    for area in AREAS:
        area.routes(router)
    return router


class Application:
    def __init__(self) -> None:
        self.router = build()

    def __call__(self, request: Request) -> Response:
        fault = faults.get("api")
        if fault == "hang":
            time.sleep(3600)
        time.sleep(faults.seconds(fault))
        response = html_error(500, replies.SERVER_ERROR) if fault == "500" else self._answer(request)
        response.headers += [("X-Version", versions.current()), ("X-Env", settings.text("DEPLOY_ENV", "PRODUCTION"))]
        if versions.has("vary_cookie"):
            response.headers += [("Vary", "Cookie"), ("Access-Control-Expose-Headers", "X-Env, X-Trace-Id, X-Version")]
        return response

    def _answer(self, request: Request) -> Response:
        handler, arguments, allowed = self.router.find(request.method, request.path)
        if handler is None:
            return self._no_route(allowed)
        try:
            return handler(request, **arguments)
        except replies.ApiError as error:
            return error.response
        except cache.RedisError:
            traceback.print_exc()
            return self._broken(
                request, replies.internal_server_error() if request.path.startswith("/v1") else replies.unknown_500()
            )
        except Exception:
            traceback.print_exc()
            return self._broken(request, replies.unknown_500())

    @staticmethod
    def _broken(request: Request, error: replies.ApiError) -> Response:
        return replies.typed_500() if request.path in TYPED_ROUTES else error.response

    @staticmethod
    def _no_route(allowed: list[str]) -> Response:
        if not allowed:
            return html_error(
                404,
                "The requested URL was not found on the server. If you entered the URL manually please check "
                "your spelling and try again.",
            )
        methods = ", ".join([*dict.fromkeys(allowed), "OPTIONS", *(["HEAD"] if "GET" in allowed else [])])
        return replies.fail(
            405,
            "method_not_allowed",
            "The method is not allowed for the requested URL.",
            [] if versions.has("compact_json") else [("Allow", methods)],
        ).response


def main() -> None:
    settings.prepare_storage()
    settings.secret_key()
    faults.at_start("api")
    invoking.load()
    address, port = settings.text("DIFY_BIND_ADDRESS", "0.0.0.0"), settings.number("DIFY_PORT", 5001)
    print(f"[INFO] Starting gunicorn\n[INFO] Listening at: http://{address}:{port}", file=sys.stderr, flush=True)
    serve(Application(), port, address=address, slots=settings.slots(), access_log=lambda: versions.has("access_log"))


if __name__ == "__main__":
    main()
