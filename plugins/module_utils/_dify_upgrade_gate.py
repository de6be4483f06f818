# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Whether a release serves as it has to: by a chat and the routes of models, never by a login page.

Older code on a newer database serves logins and lists, and fails every call of a model.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._dify_front import Front
from ansible_collections.llmops.stack.plugins.module_utils._dify_health import check_health
from ansible_collections.llmops.stack.plugins.module_utils._dify_health_engine import Options as HealthOptions
from ansible_collections.llmops.stack.plugins.module_utils._dify_health_engine import explain
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_context import Context, StepError
from ansible_collections.llmops.stack.plugins.module_utils._docker_cli import last_line
from ansible_collections.llmops.stack.plugins.module_utils._http import Http, HttpError

__all__ = ["await_release", "demand_health", "demand_open", "last_words"]

_PAUSE = 0.15
_OPENING = 15.0


def await_release(ctx: Context, version: str, seconds: float) -> None:
    """Until the API of this release answers through nginx, also through one that is closed to everybody else."""
    until = time.monotonic() + ctx.remaining(seconds)
    http = Http(connect=2.0)
    headers = Front(ctx.project).headers()
    found, looked = "nobody answered", time.monotonic()
    while True:
        try:
            answer = http.request("GET", f"{ctx.options.url}/console/api/ping", 3.0, headers)
            found = f"HTTP {answer.status} from release {answer.headers.get('X-Version') or 'unknown'}"
            if answer.status == 200 and answer.headers.get("X-Version") == version:
                return
        except HttpError as exc:
            found = str(exc)
        now = time.monotonic()
        if now - looked > 5:
            looked = now
            _refuse_a_dead_api(ctx, version)
        if now > until:
            raise StepError(
                f"The API of Dify {version} did not answer within {seconds:g} s ({found}).", last_words(ctx, "api")
            )
        time.sleep(_PAUSE)


def demand_open(ctx: Context) -> None:
    """Until somebody without the key is let in: what was proved before was proved with it."""
    until = time.monotonic() + _OPENING
    http = Http(connect=2.0)
    while True:
        try:
            answer = http.request("GET", f"{ctx.options.url}/console/api/ping", 3.0)
            found = f"HTTP {answer.status}"
            if answer.status != 503:
                return
        except HttpError as exc:
            found = str(exc)
        if time.monotonic() > until:
            raise StepError(
                f"nginx was opened, and still lets nobody in ({found}).",
                "`docker compose restart nginx` opens it; look at its log and at the room on its disk.",
            )
        time.sleep(_PAUSE)


def _refuse_a_dead_api(ctx: Context, version: str) -> None:
    """A container that comes and goes will not answer; nobody has to wait for it in an outage."""
    one = ctx.project.container("api")
    if one is not None and one.restarts >= 3:
        raise StepError(
            f"The API of Dify {version} starts and ends again: {one.restarts} restarts, exit code {one.exit_code}.",
            last_words(ctx, "api"),
        )


def last_words(ctx: Context, service: str) -> str:
    one = ctx.project.container(service)
    if one is None:
        return f"There is no container of {service}."
    said = last_line("\n".join(ctx.project.docker.log_tail(one, 15)))
    return (
        f"Its last words: {ctx.mask(said)}" if said else f"The container of {service} is {one.state} and said nothing."
    )


def demand_health(ctx: Context, version: str, seconds: float, services: Iterable[str] = (), **more: Any) -> None:
    """The whole ladder of health checks, up to a chat where the installation has an app for it.

    Raises:
        StepError: with the first check that failed, and its advice.
    """
    key = ctx.app_key()
    if ctx.options.app_key_file and not key:
        ctx.log(f"there is no app key in {ctx.options.app_key_file}, so no chat is asked for")
    options = HealthOptions(
        url=ctx.options.url,
        headers=Front(ctx.project).headers(),
        plugin_daemon_url=ctx.options.plugin_daemon_url,
        plugin_daemon_key=ctx.secret("PLUGIN_DAEMON_KEY"),
        expect_version=version,
        project=ctx.project.name,
        services=list(services),
        probe="llm" if key else "none",
        app_key=key,
        app_key_file=ctx.options.app_key_file,
        model_servers=list(ctx.options.model_servers),
        deadline=ctx.remaining(seconds),
        interval=0.5,
        # The API has just been asked itself; Docker's own first look at it comes up to 30 s later.
        starting_is_well=True,
        secrets=ctx.secrets,
        **more,
    )
    verdict = check_health(options)
    if not verdict.healthy:
        raise StepError(explain(verdict, options))
