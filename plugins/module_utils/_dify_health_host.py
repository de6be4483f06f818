# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.

"""What can only be seen on the host itself: the Compose project's containers, and the database's schema."""

from __future__ import annotations

import re
import time
from calendar import timegm
from dataclasses import dataclass

from ansible_collections.llmops.stack.plugins.module_utils._dify_health_engine import (
    Look,
    Result,
    failed,
    ok,
    skipped,
)
from ansible_collections.llmops.stack.plugins.module_utils._dify_versions import HEADS, parse_version
from ansible_collections.llmops.stack.plugins.module_utils._docker_cli import (
    Container,
    DockerError,
    last_line,
    secrets,
)

_DATABASES = ("db_postgres", "db", "db_mysql")
# The API asks these two of the daemon and the daemon these of the API: (variable of the API, of the daemon).
_PAIRS = (("PLUGIN_DAEMON_KEY", "SERVER_KEY"), ("INNER_API_KEY_FOR_PLUGIN", "DIFY_INNER_API_KEY"))
# Docker starts a crashing container ever more slowly, and begins anew once it has lived for 10 s.
_STABLE_SECONDS = 10
_NAMED = 4

_SQL_HEAD = "select concat('head=', version_num) from alembic_version"
_SQL_TENANT = "select concat('tenant=', id) from tenants order by created_at limit 1"
_POSTGRES = (
    'export PGCONNECT_TIMEOUT=3 PGPASSWORD="$POSTGRES_PASSWORD"; '
    'exec psql -X -q -A -t -U "${POSTGRES_USER:-${PGUSER:-postgres}}" -d "${POSTGRES_DB:-dify}" -c "$1" -c "$2"'
)
_MYSQL = (
    'export MYSQL_PWD="$MYSQL_ROOT_PASSWORD"; '
    'exec mysql -N -B --force --connect-timeout=3 -u root "${MYSQL_DATABASE:-dify}" -e "$1; $2"'
)
# The heads of a release that the table does not know, from its own migration files: revisions nothing follows.
_FIND_HEADS = """
import ast, glob
seen, followed = set(), set()
for path in glob.glob("/app/api/migrations/versions/*.py"):
    found = {}
    for node in ast.parse(open(path, encoding="utf-8").read()).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            if getattr(target, "id", "") in ("revision", "down_revision"):
                found[target.id] = ast.literal_eval(node.value)
    if found.get("revision"):
        seen.add(found["revision"])
        down = found.get("down_revision") or ()
        followed.update([down] if isinstance(down, str) else down)
print(" ".join(sorted(seen - followed)))
"""


@dataclass
class Database:
    heads: list[str]
    tenant: str
    error: str


def inventory(look: Look) -> list[Container]:
    """The project's containers; DockerError where they cannot be had."""

    def fetch() -> list[Container]:
        found = look.docker.project(look.options.project, look.timeout)
        look.secrets.update(secrets(found))
        return found

    return look.once("inventory", fetch)


def down(look: Look, service: str) -> str:
    """In what state a service's container is instead of running; "" if it runs or nothing is known."""
    if not look.options.project:
        return ""
    try:
        found = [one for one in inventory(look) if one.service == service]
    except DockerError:
        return ""
    return "" if not found or any(one.running for one in found) else found[0].state


def database(look: Look) -> Database:
    """What the database says about its schema and its first workspace."""
    return look.once("database", lambda: _ask_database(look, inventory(look)))


def _ask_database(look: Look, containers: list[Container]) -> Database:
    by_service = {one.service: one for one in containers}
    server = next((by_service[name] for name in _DATABASES if name in by_service), None)
    if server is None:
        return _ask_through_api(look, by_service.get("api"))
    if not server.running:
        return Database([], "", f"the container {server.name} is {server.state}")
    script = _MYSQL if server.service == "db_mysql" else _POSTGRES
    command = ["exec", server.id, "sh", "-c", script, "sh", _SQL_HEAD, _SQL_TENANT]
    code, out, err = look.docker.run(command, look.timeout)
    values = [line.split("=", 1) for line in out.split() if "=" in line]
    heads = [value for name, value in values if name == "head"]
    tenant = next((value for name, value in values if name == "tenant"), "")
    # psql shows the place of an error below it, and the second question's error below the first one's.
    told = [line for line in err.splitlines() if re.search("error|fatal", line, re.IGNORECASE)]
    error = "" if heads else ((told or [last_line(err)])[0] or f"no answer (exit code {code})")
    return Database(heads, tenant, look.clean(error))


def _ask_through_api(look: Look, api: Container | None) -> Database:
    """A database outside the project: only the API knows how to reach it. Takes some seconds."""
    if api is None or not api.running:
        return Database([], "", "the project has no database container and no running api container")
    code, out, err = look.docker.run(["exec", api.id, "flask", "db", "current"], look.cap(30.0))
    heads = re.findall(r"^([0-9a-f]{12})\b", out, re.MULTILINE)
    error = "" if heads else (last_line(err) or f"flask db current ended with code {code}")
    return Database(heads, "", look.clean(error))


def release(look: Look) -> str:
    """The release that runs; where the API does not say, the one that should run or the image is of."""
    if look.version or look.options.expect_version:
        return look.version or look.options.expect_version
    if not look.options.project:
        return ""
    try:
        api = next((one for one in inventory(look) if one.service == "api"), None)
    except DockerError:
        return ""
    return api.image.rpartition(":")[2] if api and ":" in api.image else ""


def check_database_head(look: Look) -> Result:
    if not look.options.project:
        return skipped("No project was given, so there is no way to the database.")
    try:
        found = database(look)
        version = release(look)
        if not found.heads:
            return failed(
                f"The database's alembic_version cannot be read: {found.error}",
                "If the table does not exist the migration never ran: run `flask db upgrade` in the api container; "
                "else see why the database does not answer.",
            )
        if not version:
            return skipped("The running release is not known, so there is nothing to compare the database with.")
        wanted = _heads_of(look, version)
    except DockerError as exc:
        return failed(f"The database's schema cannot be read: {look.clean(str(exc))}", "Check the Docker daemon.")
    if not wanted:
        return failed(
            f"The database head that Dify {version} needs is not known, and its api container does not tell it.",
            "Start the api container, or use a release that this collection knows.",
        )
    if sorted(found.heads) == sorted(wanted):
        return ok(f"The database is at {', '.join(found.heads)}, the head of Dify {version}.")
    known = [tag for tag, head in HEADS.items() if head in found.heads]
    of_release = f" (the head of Dify {max(known, key=parse_version)})" if known else ""
    return failed(
        f"The database is at {', '.join(found.heads)}{of_release}, but Dify {version} needs {', '.join(wanted)}.",
        "The migration did not run, was skipped or failed: stop api and workers, run `flask db upgrade` in a new api "
        "container and read its output; if the database is of a newer release, restore the dump of this one.",
    )


def _heads_of(look: Look, version: str) -> list[str]:
    if version in HEADS:
        return [HEADS[version]]
    api = next((one for one in inventory(look) if one.service == "api" and one.running), None)
    if api is None:
        return []
    code, out, _err = look.docker.run(["exec", "-i", api.id, "python3", "-"], look.cap(15.0), stdin=_FIND_HEADS)
    return [] if code else out.split()


def check_containers(look: Look) -> Result:
    name = look.options.project
    if not name:
        return skipped("No project was given.")
    try:
        found = inventory(look)
        services = look.options.services or look.docker.services(found, name, look.timeout)
    except DockerError as exc:
        return failed(
            f"The containers of project {name} cannot be listed: {look.clean(str(exc))}",
            "Check that Docker runs and that this user may use it.",
        )
    if not found:
        return failed(f"No container of the Compose project {name} exists on this host.", "Run `docker compose up -d`.")
    problems = []
    missing = sorted(set(services) - {one.service for one in found})
    if missing:
        problems.append((f"no container for {', '.join(missing)}", "Run `docker compose up -d` to create them."))
    # A container that only takes its time comes last: the first one's advice is given.
    problems += [problem for one in sorted(found, key=_only_starting) for problem in _problem(look, one)]
    look.restarts.update({one.id: one.restarts for one in found})
    if problems:
        rest = f" and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
        return failed("; ".join(text for text, _advice in problems[:_NAMED]) + rest, problems[0][1])
    running = sum(one.running for one in found)
    done = len(found) - running
    return ok(f"Running: {running}, done and ended: {done}")


def _only_starting(one: Container) -> bool:
    return one.running and one.health == "starting"


def _problem(look: Look, one: Container) -> list[tuple[str, str]]:
    """What is wrong with a container, and what to do about it; [] if nothing is."""
    logs = f"Read `docker logs {one.name}` for the cause."
    if one.state == "exited" and one.exit_code == 0 and one.restart_policy == "no":
        return []
    if one.state == "restarting" or (one.running and one.restarts and _age(one.started) < _STABLE_SECONDS):
        # While it runs between two crashes the engine does not tell how the last one ended.
        count = f"{one.restarts} times" + ("" if one.running else f", exit code {one.exit_code}")
        return [(f"{one.service} restarts again and again ({count}){_tail(look, one)}", logs)]
    if one.running and one.restarts > look.restarts.get(one.id, one.restarts):
        return [(f"{one.service} was restarted while it was watched{_tail(look, one)}", logs)]
    if one.state == "exited" and (one.exit_code == 0 or _stopped_by_hand(one)):
        return [(f"{one.service} was stopped", f"Start it again with `docker start {one.name}`.")]
    if one.state in ("exited", "dead"):
        why = "was killed for want of memory" if one.out_of_memory else f"exited with code {one.exit_code}"
        advice = "Give it more memory." if one.out_of_memory else logs
        return [(f"{one.service} {why}{_tail(look, one)}", advice)]
    if one.state == "created":
        why = f": {look.clean(one.error)}" if one.error else ""
        return [(f"{one.service} was created but never started{why}", "See why the services it waits for are not up.")]
    if not one.running:
        return [(f"{one.service} is {one.state}", f"Run `docker unpause {one.name}` or start it again.")]
    if one.health == "unhealthy":
        said = f": {look.clean(one.health_output, 160)}" if one.health_output else ""
        return [(f"{one.service} is unhealthy{said}", logs)]
    if one.health == "starting" and not look.options.starting_is_well:
        return [(f"{one.service} is still starting", "Wait, or raise deadline.")]
    return []


def _stopped_by_hand(one: Container) -> bool:
    """One that ended by itself would have been started again; this one had a signal, and stayed down."""
    kept_up = one.restart_policy in ("always", "unless-stopped")
    return kept_up and one.exit_code in (128 + 9, 128 + 15) and not one.out_of_memory


def _tail(look: Look, one: Container) -> str:
    tail = " | ".join(look.clean(line, 200) for line in look.docker.log_tail(one, look.timeout))
    return f", last words: {tail}" if tail else ""


def _age(started: str) -> float:
    """Seconds since a container's start."""
    found = re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", started)
    return time.time() - timegm(time.strptime(found.group(0), "%Y-%m-%dT%H:%M:%S")) if found else float("inf")


def mismatched_keys(look: Look) -> list[str]:
    """Pairs of variables that must be equal in the API's and the daemon's containers and are not.

    A wrong INNER_API_KEY_FOR_PLUGIN shows nowhere else: model plugins work without it.
    """
    if not look.options.project:
        return []
    try:
        containers = [one for one in inventory(look) if one.running]
    except DockerError:
        return []
    daemon = next((one for one in containers if one.service == "plugin_daemon"), None)
    callers = [one for one in containers if one.service in ("api", "worker")]
    if daemon is None:
        return []
    return [
        f"{ours} of {one.service} differs from {theirs} of plugin_daemon"
        for one in callers
        for ours, theirs in _PAIRS
        if ours in one.env and theirs in daemon.env and one.env[ours] != daemon.env[theirs]
    ]
