# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Steps of an upgrade that close and open the doors, and stop and start containers; and the way back of each.

Services are told apart by what they do to data: writers (the API, its workers, the plugin daemon, agents), stores
(databases, Redis, vector stores), and the rest, which only passes on. The containers are asked, not the files: those of
one release do not know another one's services.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from ansible_collections.llmops.stack.plugins.module_utils import _dify_vectors as vectors
from ansible_collections.llmops.stack.plugins.module_utils._dify_database import Database
from ansible_collections.llmops.stack.plugins.module_utils._dify_front import Front
from ansible_collections.llmops.stack.plugins.module_utils._dify_handover import handover
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_files import mend_plugins
from ansible_collections.llmops.stack.plugins.module_utils._dify_release import Store
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_context import Context, StepError
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_gate import await_release
from ansible_collections.llmops.stack.plugins.module_utils._docker_cli import Container, Docker, DockerError

__all__ = [
    "WORKERS",
    "activate",
    "back_to_old",
    "close_doors",
    "hand_back",
    "hand_over",
    "is_writer",
    "open_doors",
    "save_logs",
    "services_of_new",
    "start_daemon",
    "start_new",
    "stop_writers",
    "stores_of_new",
    "stores_of_old",
    "take_new_away",
    "writers_back",
]

# They take tasks from the queue by themselves, so they come last: what they do for a release that is not proved yet
# could be lost.
WORKERS = ("worker", "worker_beat")
DAEMON = "plugin_daemon"
NGINX = "nginx"
_WRITER_NAMES = {"api", "api_websocket", DAEMON, "agent_backend", "local_sandbox", *WORKERS}
_WRITER_IMAGE = re.compile(r"(^|/)dify-(api|plugin-daemon|agent)")
# What neither writes nor stores anything that an upgrade has to keep.
_PASSING = {"web", "nginx", "ssrf_proxy", "sandbox", "certbot", "init_permissions"}
_LOG_LIMIT = 16 * 1024 * 1024
_STORE_SECONDS = 60


def is_writer(service: str, image: str = "") -> bool:
    return service in _WRITER_NAMES or bool(_WRITER_IMAGE.search(image))


def activate(ctx: Context, tag: str) -> None:
    """Let the project be that of this release: its files, and the database as it is told to reach it."""
    Store(ctx.project.home).activate(tag)
    ctx.database = Database(ctx.project)


# -- the doors: nginx answers 503 from before the writers stop until the new release is proved


def close_doors(ctx: Context) -> None:
    """Nobody gets in from now on. What can be found out before is found out before."""
    ctx.live["services"] = ctx.project.services(ctx.new)
    ctx.live["same_stores"] = _same_stores(ctx)  # none: not all are the same
    Front(ctx.project).close()


def open_doors(ctx: Context) -> None:
    front = Front(ctx.project)
    front.open()
    # One that a release changes has waited until now: it comes open, so the release must have been proved before.
    if front.is_due():
        ctx.project.up([NGINX], ctx.remaining(120), extra=["--no-deps", "--timeout", "2"])


# -- writers


def stop_writers(ctx: Context) -> None:
    """Stop what writes, let it end what it is doing, keep its logs, take it away.

    Taken away and not only stopped: with Dify's `restart: always` a stopped one comes back at a reboot, on a database
    that may have been moved on.
    """
    found = [one for one in ctx.project.containers() if is_writer(one.service, one.image)]
    ctx.project.stop([one for one in found if one.service != DAEMON], int(ctx.options.drain_seconds))
    ctx.project.stop([one for one in found if one.service == DAEMON], 10)  # calls went through it until now

    def clear_up() -> None:
        save_logs(ctx, "old", found)
        ctx.project.remove(found)

    ctx.meanwhile(clear_up)


def writers_back(ctx: Context) -> None:
    """The way back: everything of the old release, and an API that answers behind the closed doors."""
    _up_old(ctx)
    await_release(ctx, ctx.old, ctx.options.health_deadline)


def save_logs(ctx: Context, word: str, containers: Iterable[Container]) -> None:
    """Put the logs among the evidence. It is no reason to fail that one cannot be read."""

    def save(one: Container) -> None:
        with contextlib.suppress(DockerError, OSError):
            text = ctx.project.docker.logs(one, 30, "--timestamps", "--tail", "20000", limit=_LOG_LIMIT)
            ctx.keep(f"{word}-{one.service or one.name}.log", text)

    with ThreadPoolExecutor(max_workers=8) as pool:
        list(pool.map(save, containers))


# -- stores


def _stores(services: Iterable[str], images: dict[str, str]) -> list[str]:
    return [one for one in services if one not in _PASSING and not is_writer(one, images.get(one, ""))]


def _images(ctx: Context, tag: str = "") -> dict[str, str]:
    services = ctx.project.definition(tag).get("services") or {}
    return {name: str(one.get("image", "")) for name, one in services.items()}


def _same_stores(ctx: Context) -> list[str]:
    """The stores, where the new release has just those that run. Compose is asked; it may not be able to say it."""
    here = {one.service: one for one in ctx.project.containers()}
    images = _images(ctx, ctx.new)
    stores = _stores(images, images)
    if set(stores) != set(_stores(here, {name: one.image for name, one in here.items()})):
        return []
    try:
        sums = ctx.project.sums(ctx.new, stores)
    except DockerError:
        return []
    same = all(
        here[name].running
        and here[name].image == images[name]
        and here[name].labels.get("com.docker.compose.config-hash") == sums.get(name)
        for name in stores
    )
    return stores if same else []


def _change_stores(ctx: Context, tag: str) -> None:
    """The stores as this release has them. One it does not know goes first: two servers must not share a folder."""
    activate(ctx, tag)
    images = _images(ctx)
    strange = [one.service for one in ctx.project.containers() if one.service not in images]
    ctx.project.stop(strange, _STORE_SECONDS)
    ctx.project.remove(strange)
    stores = _stores(images, images)
    ctx.project.up(stores, ctx.remaining(300), extra=["--no-deps"])
    _await_stores(ctx, stores)


def _await_stores(ctx: Context, services: list[str]) -> None:
    """Until the health check of each passes. It is made here, for the engine makes Redis's first one after 30 s."""
    docker, until = ctx.project.docker, time.monotonic() + ctx.remaining(300)
    waiting = {}
    for one in ctx.project.containers():
        if one.service in services and one.health not in ("", "healthy"):
            test = json.loads(docker.output(["inspect", "--format", "{{json .Config.Healthcheck.Test}}", one.id], 60))
            waiting[one.service] = [one.id, *(test[1:] if test[0] == "CMD" else ["/bin/sh", "-c", test[1]])]
    while waiting:
        waiting = {name: argv for name, argv in waiting.items() if not _passes(docker, argv)}
        if waiting and time.monotonic() > until:
            raise StepError(f"{' and '.join(sorted(waiting))} did not become healthy in time.")
        time.sleep(0.3 if waiting else 0)


def _passes(docker: Docker, argv: list[str]) -> bool:
    try:
        return docker.run(["exec", *argv], 30)[0] == 0
    except DockerError:
        return False


def stores_of_new(ctx: Context) -> None:
    ctx.catch_up()
    same = set(ctx.live.get("same_stores") or [])
    if same and same <= {one.service for one in ctx.project.containers() if one.running}:
        activate(ctx, ctx.new)
    else:
        _change_stores(ctx, ctx.new)


def stores_of_old(ctx: Context) -> None:
    vectors.unkeep(ctx)  # before a server is started on the folder
    _change_stores(ctx, ctx.old)


# -- the new release


def services_of_new(ctx: Context) -> list[str]:
    found: list[str] = ctx.live.get("services") or ctx.project.services(ctx.new)
    return found


def start_daemon(ctx: Context) -> None:
    """It brings its plugins up while the migration runs."""

    def start() -> None:
        mend_plugins(ctx)  # it starts every file that is there, so the folder must hold what is installed and no more
        ctx.project.up([DAEMON], ctx.remaining(300), extra=["--no-deps"])

    ctx.meanwhile(start)
    if any(one["id"] == "install_plugins" for one in ctx.plan["steps"]):
        ctx.catch_up()


def start_new(ctx: Context) -> None:
    """Everything of the new release but its workers, until its API answers behind the closed doors."""
    ctx.catch_up()
    here = {one.service for one in ctx.project.containers() if one.running}
    later = {*WORKERS, *(here & {NGINX})}
    services = [one for one in services_of_new(ctx) if one not in later]
    ctx.project.up(services, ctx.remaining(ctx.options.health_deadline), extra=["--remove-orphans"])
    front = Front(ctx.project)
    if not front.is_closed():  # it has been started anew meanwhile, by a reboot or by somebody
        front.close()
    front.reload()
    await_release(ctx, ctx.new, ctx.options.health_deadline)


def take_new_away(ctx: Context) -> None:
    """The way back: nothing of the new release that writes is left, and its logs are among the evidence."""
    found = [one for one in ctx.project.containers() if is_writer(one.service, one.image)]
    save_logs(ctx, "new", found)
    services = [one.service for one in found]
    ctx.project.stop(services, 5)
    ctx.project.remove(services)


# -- the same database head: no outage


def hand_over(ctx: Context) -> None:
    """API and web of the new release beside the old ones until they have taken over, and all the rest."""
    activate(ctx, ctx.new)
    handover(ctx)


def hand_back(ctx: Context) -> None:
    """The way back, over the same bridge: it ends at what C(current) says, from wherever the way forward has got."""
    save_logs(ctx, "new", [one for one in ctx.project.containers() if one.image.endswith(f":{ctx.new}")])
    activate(ctx, ctx.old)
    handover(ctx)


def back_to_old(ctx: Context) -> None:
    """The last thing of any way back between different heads: everything as the old release's files say."""
    _up_old(ctx)
    open_doors(ctx)


def _up_old(ctx: Context) -> None:
    activate(ctx, ctx.old)
    ctx.project.up((), ctx.options.health_deadline, extra=["--remove-orphans"])
    Front(ctx.project).reload()
