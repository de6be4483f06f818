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
from ansible_collections.llmops.stack.plugins.module_utils._dify_connections import connections, drain
from ansible_collections.llmops.stack.plugins.module_utils._dify_database import Database
from ansible_collections.llmops.stack.plugins.module_utils._dify_front import Front
from ansible_collections.llmops.stack.plugins.module_utils._dify_handover import handover
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_files import mend_plugins
from ansible_collections.llmops.stack.plugins.module_utils._dify_release import Store
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_context import Context, StepError
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_gate import (
    await_release,
    demand_open,
    last_words,
)
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_voices import note_voices
from ansible_collections.llmops.stack.plugins.module_utils._docker_cli import Container, Docker, DockerError

__all__ = [
    "WORKERS",
    "activate",
    "back_to_old",
    "close_doors",
    "demand_closed",
    "hand_back",
    "hand_over",
    "is_writer",
    "open_doors",
    "save_logs",
    "services_of_new",
    "start_api",
    "start_daemon",
    "start_new",
    "start_workers",
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
_TASK_SECONDS = 600
_API_PORT = 5001
_KEPT_DOWN = "kept_down"  # in the journal: services and the restart policies that they get back
# For which workers must not end: before the release counts as proved, and before what a way back needs is dropped.
_SHOWN, _LIVED = 1.5, 20.0


def is_writer(service: str, image: str = "") -> bool:
    return service in _WRITER_NAMES or bool(_WRITER_IMAGE.search(image))


def activate(ctx: Context, tag: str) -> None:
    """Let the project be that of this release: its files, and the database as it is told to reach it."""
    Store(ctx.project.home).activate(tag)
    ctx.database = Database(ctx.project)


# -- the doors: nginx answers 503 from before the writers stop until the new release is proved


def close_doors(ctx: Context) -> None:
    """Nobody gets in from now on. What can be found out or ended before is found out and ended before."""
    ctx.live["services"] = ctx.project.services(ctx.new)
    ctx.live["same_stores"] = _same_stores(ctx)  # none: not all are the same
    note_voices(ctx)
    _end_tasks(ctx)
    _keep_down(ctx, [NGINX])
    Front(ctx.project).close()


def _has_doors(ctx: Context) -> bool:
    """Whether this change is one behind closed doors."""
    return any(one["id"] == "maintenance" for one in ctx.plan["steps"])


def demand_closed(ctx: Context) -> None:
    """An nginx that was started anew is open: somebody may have written what only the unproved release knows."""
    if _has_doors(ctx) and not Front(ctx.project).is_closed():
        raise StepError("nginx did not stay closed until the new release was proved: it was stopped or started anew.")


def open_doors(ctx: Context) -> None:
    due = ctx.live.get("nginx_due")
    _open(ctx, Front(ctx.project).is_due() if due is None else due)
    _watch_workers(ctx)


def _open(ctx: Context, due: bool) -> None:
    if due:  # one that a release changes comes open by itself; opened before, it would cut the first calls
        ctx.project.up([NGINX], ctx.remaining(120), extra=["--no-deps", "--timeout", "2"])
    Front(ctx.project).open()
    demand_open(ctx)
    _let_up(ctx)


def _keep_down(ctx: Context, services: Iterable[str]) -> None:
    """Docker does not start them again by itself: after a reboot nginx would be open, on a release not proved."""
    for one in ctx.project.containers():
        if one.service in services and one.restart_policy not in ("", "no"):
            ctx.journal.put(_KEPT_DOWN, one.service, one.restart_policy)
            ctx.project.docker.output(["update", "--restart=no", one.id], _STORE_SECONDS)


def _let_up(ctx: Context) -> None:
    for one in ctx.project.containers():
        policy = ctx.journal.get(_KEPT_DOWN, one.service, "")
        if policy and one.restart_policy != policy:
            ctx.project.docker.output(["update", f"--restart={policy}", one.id], _STORE_SECONDS)


# -- writers


def stop_writers(ctx: Context) -> None:
    """Stop what writes, let it end what it is doing, keep its logs, take it away.

    Taken away and not only stopped: with Dify's `restart: always` a stopped one comes back at a reboot, on a database
    that may have been moved on.
    """
    found = [one for one in ctx.project.containers() if is_writer(one.service, one.image)]
    seconds = float(ctx.options.drain_seconds)
    until = time.monotonic() + seconds
    api = next((one for one in found if one.service == "api" and one.running), None)
    # Its own patience is shorter than an operator's may be, and a stream that it cuts is a failed answer.
    if api and not drain(ctx.project.docker, api.name, _API_PORT, seconds, step=0.05):
        count = connections(ctx.project.docker, api.name, _API_PORT)
        ctx.log(f"api: {count} calls did not end within dify_drain_seconds and are cut")
    left = max(10, int(until - time.monotonic()))
    ctx.project.stop([one for one in found if one.service != DAEMON], left)
    ctx.project.stop([one for one in found if one.service == DAEMON], 10)  # calls went through it until now

    def clear_up() -> None:
        save_logs(ctx, "old", found)
        ctx.project.remove(found)

    ctx.meanwhile(clear_up)


def _end_tasks(ctx: Context) -> None:
    """Who takes tasks ends those that it has while everybody is served; the API goes on queueing for later."""
    ctx.project.stop([one for one in ctx.project.containers() if one.service in WORKERS], _TASK_SECONDS)
    for one in ctx.project.containers():
        if one.service in WORKERS and one.exit_code == 128 + 9:
            ctx.log(f"{one.service}: its tasks did not end within {_TASK_SECONDS} s and were cut; a document that was")
            ctx.log("being indexed then has to be indexed again")


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
    definition, images = ctx.project.definition().get("services") or {}, _images(ctx)
    # What neither release has is an operator's own, and what a profile brought is no store of another release.
    others = set(_images(ctx, ctx.old if tag == ctx.new else ctx.new)) - set(images)
    strange = [one.service for one in ctx.project.containers() if one.service in others]
    ctx.project.stop(strange, _STORE_SECONDS)
    ctx.project.remove(strange)
    stores = _stores(images, images)
    ctx.project.up(stores, ctx.remaining(300), extra=["--no-deps"])
    writers = [one for name, one in definition.items() if is_writer(name, images[name])]
    _await_stores(ctx, sorted({name for one in writers for name in one.get("depends_on") or ()} & set(stores)))


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


def start_api(ctx: Context) -> None:
    """The API and whatever else writes by itself read their programs: an outage lasts longest for that. Meanwhile the
    data is seen to, and start_new() replaces all else: Compose would start nothing before it has stopped that."""
    begun = [one for one in services_of_new(ctx) if is_writer(one) and one not in (*WORKERS, DAEMON)]
    ctx.meanwhile(lambda: ctx.project.up(begun, ctx.remaining(300), extra=["--no-deps"]))


def start_new(ctx: Context) -> None:
    """Everything of the new release but its workers, until its API answers behind the closed doors."""
    ctx.catch_up()
    front = Front(ctx.project)
    if not front.is_closed():  # somebody has started it anew; there has been no API that it could let anybody to
        front.close()
    services = [one for one in services_of_new(ctx) if one not in (*WORKERS, NGINX)]
    # What is replaced only now passes things on, and nobody asks it: Squid alone would use up all of the ten seconds.
    impatient = ["--remove-orphans", "--timeout", "2"]
    ctx.project.up(services, ctx.remaining(ctx.options.health_deadline), extra=impatient)
    front.reload()
    ctx.meanwhile(lambda: ctx.live.update(nginx_due=front.is_due()))
    await_release(ctx, ctx.new, ctx.options.health_deadline)
    ctx.catch_up()


def start_workers(ctx: Context) -> None:
    """They begin to work at once, so all else has been proved. Those that end right away are not well."""
    workers = [one for one in services_of_new(ctx) if one in WORKERS]
    ctx.project.up(workers, ctx.remaining(120), extra=["--no-deps"])
    if _has_doors(ctx):
        _keep_down(ctx, workers)
    _demand_running(ctx, workers, _SHOWN if _has_doors(ctx) else _LIVED)


def _watch_workers(ctx: Context) -> None:
    """Some end only when they have read all of their program. Everybody is served meanwhile, and nothing is dropped."""
    workers = [one for one in services_of_new(ctx) if one in WORKERS]
    ctx.project.up(workers, ctx.remaining(120), extra=["--no-deps"])  # after a kill, they may have ended long ago
    _demand_running(ctx, workers, _LIVED)


def _demand_running(ctx: Context, services: Iterable[str], seconds: float) -> None:
    until = time.monotonic() + seconds
    restarts: dict[str, int] = {}
    while True:
        here = {one.service: one for one in ctx.project.containers()}
        for service in services:
            one = here.get(service)
            if one is None or not one.running or one.restarts > restarts.setdefault(one.id, one.restarts):
                raise StepError(f"The container of {service} of Dify {ctx.new} does not run.", last_words(ctx, service))
        if time.monotonic() >= until:
            return
        time.sleep(0.5)


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
    _open(ctx, False)


def _up_old(ctx: Context) -> None:
    activate(ctx, ctx.old)
    ctx.project.up((), ctx.options.health_deadline, extra=["--remove-orphans"])
    Front(ctx.project).reload()
