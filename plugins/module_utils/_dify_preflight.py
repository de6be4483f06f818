# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""What stands in the way of a Dify release on a host, as sentences.

Pure: facts in (the shape that C(stack_facts) returns), sentences out. The role asks once and refuses with all of them,
so that an operator mends a host in one round and not in five.
"""

from __future__ import annotations

import re
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._dify_preflight_console import console_refusals
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_plan import in_charge, plan

__all__ = ["refusals"]

_VARIABLES = {"EXPOSE_NGINX_PORT": "dify_http_port", "EXPOSE_NGINX_SSL_PORT": "dify_https_port"}


def refusals(facts: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Sentences in the order in which an operator should read them; an empty list means go ahead.

    Args:
        facts: C(llmops_stack) as M(llmops.stack.stack_facts) returns it.
        wanted: C(version), C(known) (the tag is in the table), C(error) (why it cannot be one), C(allow_unknown),
            C(nearest), C(ports) (list of int), C(paths) (directories that need the room), C(min_cpus),
            C(min_memory_mb), C(min_disk_mb), C(env_keys) (keys of the operator's dify_env), C(compose_min) (empty
            before the roles for engine and Compose have run), C(console) (see console_refusals()), C(adopt) (what
            M(llmops.stack.dify_adopt) found; its containers give their ports and its data is in use already),
            C(restoring) (this is the run that puts a backup back).
    """
    if wanted.get("error"):
        return [f"{wanted['error']}. Set dify_version to one of them, such as {wanted['nearest']}."]
    return [
        *_version(wanted),
        *_names(wanted),
        *_engine(facts, wanted),
        *_size(facts, wanted),
        *_disk(facts, wanted),
        *_ports(facts, wanted),
        *_way(facts, wanted),
        *_restore(facts, wanted),
        *((wanted.get("adopt") or {}).get("refusals") or []),
        *console_refusals(wanted.get("console") or {}),
    ]


def _version(wanted: dict[str, Any]) -> list[str]:
    version = str(wanted["version"])
    if wanted["known"] or wanted.get("allow_unknown"):
        return []
    return [
        f"Dify {version} is not among the releases this collection knows, so its database head and its settings "
        f"cannot be checked. Choose a known one ({wanted.get('nearest', '')}), take a newer llmops.stack, or set "
        "dify_allow_unknown_version: true to go on with the rules of the nearest one."
    ]


def _names(wanted: dict[str, Any]) -> list[str]:
    """Keys of .env that a variable of the role stands for: the health check has to know the port, too."""
    return [
        f"dify_env holds {key}; set {variable} instead, so that the health check asks there, too."
        for key, variable in _VARIABLES.items()
        if key in wanted.get("env_keys", [])
    ]


def _engine(facts: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    least = str(wanted.get("compose_min") or "")
    if not least:
        return []
    engine = facts.get("engine", {})
    if not engine.get("running"):
        return [
            f"Docker Engine does not answer ({engine.get('error') or 'it is not installed'}). Run the role "
            "llmops.stack.docker before this one, as site.yml does."
        ]
    compose = str(facts.get("compose", {}).get("version") or "")
    if not compose or _numbers(compose) < _numbers(least):
        found = f"is {compose}" if compose else "is not installed"
        return [
            f"Docker Compose {found} and Dify {wanted['version']} needs {least}. Run the role llmops.stack.compose "
            "before this one, as site.yml does."
        ]
    return []


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _size(facts: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    found = []
    cpus = int(facts.get("cpu", {}).get("count", 0))
    if cpus and cpus < int(wanted["min_cpus"]):
        found.append(
            f"The host has {cpus} CPU and Dify needs {wanted['min_cpus']}. Give it more, or lower dify_min_cpus to try."
        )
    memory = int(facts.get("memory", {}).get("total_mb", 0))
    if memory and memory < int(wanted["min_memory_mb"]):
        found.append(
            f"The host has {memory} MB of memory and Dify needs {wanted['min_memory_mb']} MB. Give it more, or lower "
            "dify_min_memory_mb to try."
        )
    return found


def _disk(facts: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """A finished host has its images already, so only the first start asks for the room that they need."""
    if facts.get("dify", {}).get("containers") or (wanted.get("adopt") or {}).get("containers"):
        return []
    found = []
    seen: set[str] = set()
    for path in wanted["paths"]:
        disk = facts.get("disks", {}).get(path)
        if not disk:
            continue
        mount = str(disk.get("mount", path))
        if mount in seen:
            continue
        seen.add(mount)
        free = int(disk.get("free_mb", 0))
        if free < int(wanted["min_disk_mb"]):
            found.append(
                f"{path} (on {mount}) has {free} MB free and a first install needs {wanted['min_disk_mb']} MB. "
                "Make room, put dify_home or docker_data_root on a larger disk, or lower dify_min_disk_mb."
            )
    return found


def _ports(facts: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    found = []
    own = {one["name"] for one in facts.get("dify", {}).get("containers", [])}
    own |= set((wanted.get("adopt") or {}).get("containers") or [])
    for port in wanted["ports"]:
        owner = facts.get("ports", {}).get(str(port))
        if not owner:
            continue
        container = str(owner.get("container") or "")
        if container in own:
            continue
        if container:
            who = f"the container {container}"
        else:
            who = f"{owner.get('process') or 'a process'} (pid {owner.get('pid') or 'unknown'})"
        hint = " A Dify that was set up by hand is taken over with dify_adopt." if "nginx" in container else ""
        found.append(
            f"Port {port} is taken by {who}. Stop it, or give Dify another port (dify_http_port, dify_https_port, "
            f"dify_plugin_daemon_port).{hint}"
        )
    return found


def _restore(facts: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """What lies there is a part of a backup, and the next restore of it begins anew."""
    backup = facts.get("dify", {}).get("restore")
    if not backup or wanted.get("restoring"):
        return []
    return [
        f"The restore of {backup} was begun here and is not finished, so Dify must not be started on what is there. "
        f"Run restore.yml with dify_restore_from: {backup} again."
    ]


def _way(facts: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """What the release that is here says to the one that is wanted; the rest of the plan needs a look at its data."""
    here, version, allowed = in_charge(facts.get("dify", {})), str(wanted["version"]), wanted.get("allow_unknown")
    if not (wanted["known"] or allowed):  # said already
        return []
    return list(plan(here, version, None, {"allow_unknown": allowed})["refusals"])
