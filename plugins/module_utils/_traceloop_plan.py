# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""What role traceloop writes on a host and adds to Dify's compose project, decided from its variables. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote as percent

from ansible.module_utils.common.yaml import yaml_dump
from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.llmops.stack.plugins.module_utils import _traceloop_collector as collector
from ansible_collections.llmops.stack.plugins.module_utils import _traceloop_preflight as preflight
from ansible_collections.llmops.stack.plugins.module_utils import _traceloop_services as services
from ansible_collections.llmops.stack.plugins.module_utils import _traceloop_words as words
from ansible_collections.llmops.stack.plugins.module_utils._dify_env import quote
from ansible_collections.llmops.stack.plugins.module_utils._dify_override import through
from ansible_collections.llmops.stack.plugins.module_utils._dify_versions import release_info
from ansible_collections.llmops.stack.plugins.module_utils._traceloop_target import LGTM, PHOENIX, local, target, which

__all__ = ["plan"]

_HEAD = "# Written by llmops.stack: changes made here are lost. {}\n"
_SWITCHES = ("metrics", "trace_content", "dify_otel", "collector")
_QUEUES = "queue"
_DATA = (_QUEUES, PHOENIX, LGTM)
# Compose reads quotes in such a file, and docker run takes them for a part of the value.
_WITH_ENV = r"""sed -n -e '/^#/d' -e "s/='\(.*\)'\$/=\1/; t single" -e 's/="\(.*\)"$/=\1/; t double' -e 'p; d' \
  -e ":single; s/\\\\'/'/g; p; d" -e ':double; s/\\\([\\"$]\)/\1/g; p' "$1" |
  { shift; exec docker run --env-file /dev/stdin "$@"; }"""
_OFF: dict[str, Any] = {
    "enabled": False,
    "refusals": [],
    "notes": [],
    "files": {},
    "secret_files": {},
    "directories": [],
    "keep": [],
    "validate": [],
    "fragments": [],
    "traces": {},
    "check_image": False,
    "image": "",
    "ask": {},
    "unanswered": False,
    "no_hook": "",
    "summary": [],
}


def plan(
    variables: Mapping[str, Any],
    facts: Mapping[str, Any],
    asked: Mapping[str, Any],
    read_manifest: Callable[[Mapping[str, str]], Mapping[str, Any]],
) -> dict[str, Any]:
    """Everything that the role does, and what role dify is handed.

    Args:
        variables: the variables of the role by their names; C(host), C(address) and C(ssh) (by which it is reached),
            C(dify_version), C(registry) (C(dify_registry)); C(monitoring), C(grafana), C(prometheus), C(provision):
            texts of the role's files by their paths; C(plugins): pairs of a folder of C(traceloop_plugins) and the
            texts of its files.
        facts: C(llmops_stack) as M(llmops.stack.stack_facts) returns it, or nothing yet.
        asked: what the task that asks an unknown release returned, or nothing.
        read_manifest: what plugin.json says among the texts of a folder's files. Raises ValueError with a text for the
            operator.

    Returns:
        See the filter's documentation.
    """
    given = {name.removeprefix("traceloop_"): value for name, value in variables.items()}
    given.update({name: boolean(given[name]) for name in _SWITCHES})  # on a command line false is a text
    meant = str(given["backend"])
    given["backend"] = which(given)
    if given["backend"] == "none":
        return {**_OFF, "backend": "none", "refusals": [] if meant == "none" else _forgotten(given, facts)}
    where = target(given)
    release = _release(str(given["dify_version"]))
    plugins = preflight.own_plugins(given["plugins"], read_manifest)
    refusals = [
        *where["refusals"],
        *preflight.refusals(given, facts, where, release),
        *plugins["refusals"],
    ]
    decided: dict[str, Any] = {**_OFF, "enabled": True, "backend": given["backend"], "refusals": refusals}
    if refusals:
        return decided
    answer = _has_hook(asked)
    # An image that gave no answer is taken at its best, unless the run is to go on whatever becomes of the calls.
    lost = answer is None and bool(asked) and not boolean(given["required"])
    hooked = release["known"] or (answer is not False and not lost)
    otel = _otel(given, release)
    files = {f"monitoring/{path}": text for path, text in given["monitoring"].items()}
    files.update({f"monitoring/plugins/{path}": text for path, text in plugins["files"].items()})
    secret_files = {"dify.env": _dify_env(given, where)}
    directories: list[dict[str, Any]] = []
    validate: list[dict[str, Any]] = []
    queue = f"{_QUEUES}/{collector.queue(given, where)}"
    if given["collector"]:
        made = collector.collector(given, where)
        env = _env_text(made["env"])
        files["collector/config.yaml"] = _config_head(given, env) + yaml_dump(made["config"], sort_keys=False)
        secret_files["collector/collector.env"] = env
        directories.append(_folder(queue, collector.USER))
        validate.append({"path": "collector/config.yaml", "argv": _validation(given)})
    if where["own"] == PHOENIX:
        directories.append(_folder(PHOENIX, services.PHOENIX_USER))
    if where["own"] == LGTM:
        directories.append({"path": LGTM, "mode": "0755"})
        for folder in ("grafana", "prometheus", "provision"):
            files.update({f"{folder}/{path}": text for path, text in given[folder].items()})
    made_here = {
        "files": files,
        "secret_files": secret_files,
        "hooked": hooked,
        "own": where["own"],
        "queue": queue,
        **otel,
    }
    one = services.fragment(given, made_here)
    decided.update(
        {
            "files": files,
            "secret_files": secret_files,
            "directories": directories,
            # The queue of another backend is not kept: what waits in it is not for this one.
            "keep": [name for name in _DATA if name not in {item["path"].split("/")[0] for item in directories}],
            "validate": validate,
            "fragments": [one],
            "traces": _traces(given, where, hooked),
            "check_image": not release["known"],
            "image": _pulled(given, f"langgenius/dify-api:{given['dify_version']}"),
            "ask": dict(_below(files, "monitoring/")),
            "unanswered": not release["known"] and answer is None,
            "no_hook": "" if hooked else words.no_hook(given, lost),
            "notes": words.notes(given, where, release, otel),
            "summary": words.summary(given, where, plugins["names"], "" if hooked else words.no_hook(given, lost)),
        }
    )
    return decided


def _forgotten(given: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    """Traces and all that was collected go because somebody says so, not because nobody says anything."""
    if not (facts.get("traceloop") or {}).get("present"):
        return []
    return [
        f"{given['home']} is there from a run with traces, and now neither traceloop_api_key nor traceloop_base_url "
        "nor traceloop_backend says where they go. Set traceloop_backend: none to remove them with all that was "
        "collected there, or give what that run was given."
    ]


def _release(version: str) -> dict[str, Any]:
    """One that is no tag at all is refused by role dify, in its own words."""
    try:
        found = release_info(version)
    except ValueError:
        return {"known": True, "plugin_daemon": False, "plugin_daemon_version": "", "agent_services": False, "tag": ""}
    if not found["known"]:
        found["plugin_daemon_version"] = release_info(found["nearest"])["plugin_daemon_version"]
    return found


def _has_hook(asked: Mapping[str, Any]) -> bool | None:
    """None where nobody could be asked yet."""
    try:
        return bool(json.loads(asked["stdout"])["generation"])
    except (KeyError, TypeError, ValueError):
        return None


def _otel(given: Mapping[str, Any], release: Mapping[str, Any]) -> dict[str, bool]:
    numbers = tuple(int(part) for part in re.findall(r"\d+", release["plugin_daemon_version"]))
    wanted = bool(given["dify_otel"])
    return {
        "dify_otel": wanted and bool(release.get("own_otel")),
        "daemon_otel": wanted and bool(release["plugin_daemon"]) and numbers >= (0, 5, 4),
    }


def _below(files: Mapping[str, str], folder: str) -> list[tuple[str, str]]:
    return [(path[len(folder) :], text) for path, text in files.items() if path.startswith(folder)]


def _folder(path: str, user: int) -> dict[str, Any]:
    return {"path": path, "owner": str(user), "group": str(user), "mode": "0700"}


def _dify_env(given: Mapping[str, Any], where: Mapping[str, Any]) -> str:
    """Of api and worker. With a collector no key of the backend comes near Dify."""
    env = {
        "TRACELOOP_TRACE_CONTENT": "true" if given["trace_content"] else "false",
        "TRACELOOP_METRICS_ENABLED": "true" if where["metrics_url"] else "false",
        "LLMOPS_TRACELOOP_CONTENT_LIMIT": str(given["content_limit"]),
        "TRACELOOP_BASE_URL": services.COLLECTOR_URL if given["collector"] else where["traces_url"],
    }
    if not given["collector"]:
        env["TRACELOOP_METRICS_ENDPOINT"] = where["metrics_url"]
        env["TRACELOOP_HEADERS"] = _pairs(where["headers"])
        env["TRACELOOP_METRICS_HEADERS"] = _pairs(where["metrics_headers"])
    return _env_text({**{key: value for key, value in env.items() if value}, **collector.texts(given["plugin_env"])})


def _pairs(headers: Mapping[str, str]) -> str:
    return ",".join(f"{percent(key, safe='')}={percent(value, safe='')}" for key, value in sorted(headers.items()))


def _config_head(given: Mapping[str, Any], env: str) -> str:
    """Another image or environment may make the same file a wrong one, so it is another file then."""
    digest = hashlib.sha256(env.encode()).hexdigest()[:5]  # so little that nobody can try passwords against it
    image = _pulled(given, str(given["collector_image"]))
    return _HEAD.format("Set traceloop_collector_config instead.") + f"# Found good by {image}, environment {digest}.\n"


def _env_text(env: Mapping[str, str]) -> str:
    lines = [f"{key}={quote(value)}\n" for key, value in sorted(env.items())]
    return _HEAD.format("The variables of role traceloop say what stands here.") + "".join(lines)


def _pulled(given: Mapping[str, Any], image: str) -> str:
    """As role dify will name it."""
    return through(str(given["registry"]), image) if given["registry"] else image


def _validation(given: Mapping[str, Any]) -> list[str]:
    image = _pulled(given, str(given["collector_image"]))
    return [
        *("sh", "-c", _WITH_ENV, "validate", "%d/collector.env"),
        *("--rm", "--network", "none", "--tmpfs", f"{collector.QUEUE}:uid={collector.USER}"),
        *("--volume", f"%s:{collector.CONFIG}:ro", image, "validate", "--config", collector.CONFIG),
    ]


def _traces(given: Mapping[str, Any], where: Mapping[str, Any], hooked: bool) -> dict[str, Any]:
    """Where the health check looks for the span of its own question."""
    through_it = services.COLLECTOR if given["collector"] else ""
    found: dict[str, Any] = {
        "target": where["words"],
        "collector": through_it,
        "services": [name for name in (through_it, where["own"]) if name],
    }
    if not hooked:
        return {}  # no span will come
    if given["backend"] == PHOENIX:
        headers = {} if where["own"] else where["headers"]
        return {
            **found,
            "backend": PHOENIX,
            "url": where["page"]
            if not where["own"]
            else f"http://{local(given['bind_address'])}:{given['phoenix_port']}",
            "page": where["page"],
            "headers": headers,
        }
    return {**found, "backend": "collector" if given["collector"] else "none"}
