"""A docker command for PATH that knows one Compose project, and writes down what it was asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_SCRIPT = """#!/bin/sh
here='{folder}'
echo "$*" >>"$here/calls"
test -e "$here/broken" && {{ cat "$here/broken" >&2; exit 1; }}
case "$1" in
  ps) cat "$here/ps" ;;
  inspect) cat "$here/inspect" ;;
  compose) cat "$here/services" ;;
  logs) for last; do :; done; cat "$here/logs.$last" 2>/dev/null ;;
  exec)
    shift
    test "$1" = -i && {{ shift; cat >"$here/stdin"; }}
    cat "$here/exec.$1.out" 2>/dev/null
    cat "$here/exec.$1.err" >&2 2>/dev/null
    test ! -e "$here/exec.$1.err"
    ;;
esac
"""
SECRET = "s3cret-daemon-key-000"
DATABASE_PASSWORD = "db-pass-123456"
SERVICES = ("api", "worker", "web", "db_postgres", "redis", "plugin_daemon", "nginx", "init_permissions")


class FakeDocker:
    """A healthy project of Dify 1.12.1; tests change `containers` and write again."""

    def __init__(
        self, folder: Path, tenant: str, head: str = "788d3099ae3a", services: tuple[str, ...] = SERVICES
    ) -> None:
        self.folder = folder
        self.containers = {name: described(name) for name in services}
        self.services = list(services)
        script = folder / "docker"
        script.write_text(_SCRIPT.format(folder=folder))
        script.chmod(0o755)
        self.database(f"head={head}\ntenant={tenant}\n")
        self.write()

    def database(self, out: str, err: str | None = None) -> None:
        self.says("db_postgres", out, err)

    def says(self, service: str, out: str, err: str | None = None) -> None:
        """What a command executed in this service's container prints; one with an error text fails."""
        (self.folder / f"exec.id-{service}.out").write_text(out)
        failure = self.folder / f"exec.id-{service}.err"
        if err is None:
            failure.unlink(missing_ok=True)
        else:
            failure.write_text(err)

    def logs(self, service: str, text: str) -> None:
        (self.folder / f"logs.id-{service}").write_text(text)

    def broken(self, text: str) -> None:
        (self.folder / "broken").write_text(text)

    def write(self) -> None:
        self._put("ps", "".join(one["Id"] + "\n" for one in self.containers.values()))
        self._put("inspect", json.dumps(list(self.containers.values())))
        self._put("services", "\n".join(self.services))

    def _put(self, name: str, text: str) -> None:
        """In one step, because a check may be reading just now."""
        new = self.folder / f"{name}.new"
        new.write_text(text)
        new.replace(self.folder / name)

    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text().splitlines()


def described(service: str) -> dict[str, Any]:
    """What `docker inspect` prints about a container that is well, as far as it is looked at."""
    once = service == "init_permissions"
    env = {
        "api": [f"PLUGIN_DAEMON_KEY={SECRET}", "INNER_API_KEY_FOR_PLUGIN=inner-key-000"],
        "worker": [f"PLUGIN_DAEMON_KEY={SECRET}", "INNER_API_KEY_FOR_PLUGIN=inner-key-000"],
        "plugin_daemon": [f"SERVER_KEY={SECRET}", "DIFY_INNER_API_KEY=inner-key-000"],
        "db_postgres": [f"POSTGRES_PASSWORD={DATABASE_PASSWORD}", "POSTGRES_DB=dify"],
    }
    state: dict[str, Any] = {
        "Status": "exited" if once else "running",
        "ExitCode": 0,
        "StartedAt": "2026-01-01T00:00:00.123456789Z",
        "Error": "",
        "OOMKilled": False,
    }
    if service in ("db_postgres", "redis"):
        state["Health"] = {"Status": "healthy", "Log": [{"Output": "ok"}]}
    return {
        "Id": f"id-{service}",
        "Name": f"/dify-{service}-1",
        "RestartCount": 0,
        "State": state,
        "HostConfig": {"RestartPolicy": {"Name": "no" if once else "always"}},
        "Config": {
            "Image": "langgenius/dify-api:1.12.1" if service == "api" else service,
            "Env": env.get(service, []),
            "Labels": {
                "com.docker.compose.project": "dify",
                "com.docker.compose.service": service,
                "com.docker.compose.oneoff": "False",
                "com.docker.compose.project.working_dir": "/opt/dify/current",
                "com.docker.compose.project.config_files": "/opt/dify/current/docker-compose.yaml",
            },
        },
    }
