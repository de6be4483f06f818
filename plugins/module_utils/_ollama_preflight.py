# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""What stands in the way of Ollama on a host, as sentences, and what an operator should know although it does not.

Pure: facts in (the shape that C(stack_facts) returns), sentences out. The role asks once and refuses with all of them,
so that an operator mends a host in one round and not in five.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils import _ollama_preflight_gpu as graphics
from ansible_collections.llmops.stack.plugins.module_utils import _ollama_preflight_wanted as variables
from ansible_collections.llmops.stack.plugins.module_utils._ollama_versions import (
    ARCHITECTURES,
    OLDEST,
    compare,
    release_info,
)

__all__ = ["refusals", "warnings"]

# What ProtectHome=yes of the unit makes empty for the server.
_HOMES = ("/home", "/root", "/run/user")
# What the role has decided on for more than the server's environment, with the variable that decides.
_DECIDED = {
    "OLLAMA_HOST": ("ollama_bind and ollama_port", "which the firewall follows"),
    "OLLAMA_MODELS": ("ollama_models_dir", "which is made, and looked after"),
}


def refusals(facts: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Sentences in the order in which an operator should read them; an empty list means go ahead.

    Args:
        facts: C(llmops_stack) as M(llmops.stack.stack_facts) returns it.
        wanted: C(version), C(install) (native or container), C(home), C(models_dir), C(user), C(port), C(gpu) (auto,
            nvidia, amd or cpu), C(overlays) (list), C(allow) (list), C(min_disk_mb), C(env) (the environment of the
            server), C(models) (list), C(registry), C(bundle), C(keep), C(checksums), and C(engine_expected) (false
            before the roles for engine and Compose have run). All but the first two may be left out, and are then not
            looked at.
    """
    found = [*_version(wanted), *variables.refusals(wanted), *_host(facts, wanted)]
    if wanted.get("install") == "container":
        found += [*(_engine(facts) if wanted.get("engine_expected", True) else []), *_container(facts)]
    else:
        found += [*_native(facts), *_account(facts, wanted), *_store(facts, wanted), *_overruled(facts, wanted)]
    return [*found, *_port(facts, wanted), *_disk(facts, wanted), *graphics.refusals(facts, wanted)]


def warnings(facts: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Sentences about what goes ahead, and may still not be what somebody meant. Takes what C(refusals) takes."""
    native = wanted.get("install") != "container"
    return [
        *_downgrade(facts, wanted),
        *(_left_behind(facts, wanted) if native else []),
        *(_loose_settings(facts, wanted) if native else []),
        *graphics.warnings(facts, wanted),
    ]


def _version(wanted: Mapping[str, Any]) -> list[str]:
    version = str(wanted["version"])
    try:
        if compare(version, OLDEST) < 0:
            return [
                f"Ollama {version} is older than {OLDEST}, the oldest that this role can run. Raise ollama_version."
            ]
    except ValueError as error:
        return [f"ollama_version: {error}."]
    return []


def _host(facts: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    found = []
    arch = str(facts.get("os", {}).get("arch", ""))
    if arch and arch not in ARCHITECTURES:
        found.append(f"The host is {arch}, and Ollama is made for amd64 and arm64. Take it out of the group ollama.")
    elif not _version(wanted):
        try:
            release_info(str(wanted["version"]), arch or "amd64", wanted.get("overlays") or ())
        except ValueError as error:
            found.append(f"ollama_overlays: {error}. Write what this host needs, or auto.")
    if wanted.get("install") != "container" and not facts.get("systemd"):
        found.append(
            "systemd does not run here, and a native Ollama is a service of systemd. Set ollama_install: container."
        )
    return found


# -- the two ways to run it ------------------------------------------------------------------------------------------


def _engine(facts: Mapping[str, Any]) -> list[str]:
    engine, compose = facts.get("engine", {}), facts.get("compose", {})
    if not engine.get("running"):
        return [
            f"Docker Engine does not answer ({engine.get('error') or 'it is not installed'}), and ollama_install is "
            "container. Run the role llmops.stack.docker before this one, as site.yml does."
        ]
    if not compose.get("version"):
        return [
            "Docker Compose is not installed, and ollama_install is container. Run the role llmops.stack.compose "
            "before this one, as site.yml does."
        ]
    return []


def _container(facts: Mapping[str, Any]) -> list[str]:
    if not facts.get("ollama", {}).get("active"):
        return []
    return [
        "The service ollama runs natively here, and ollama_install is container: both would want the same port. "
        "Set ollama_install: native, or stop the service first (systemctl disable --now ollama); its models stay "
        f"where they are ({_store_of_unit(facts) or 'its store'})."
    ]


def _native(facts: Mapping[str, Any]) -> list[str]:
    container = facts.get("ollama", {}).get("container", {})
    if not container.get("running"):
        return []
    home = facts.get("ollama", {}).get("home") or "/opt/ollama"
    return [
        f"Ollama runs in the container {container.get('name') or 'of this role'} here, and ollama_install is native: "
        "both would want the same port. Set ollama_install: container, or take it down first (docker compose -f "
        f"{home}/compose.yaml down); its models stay where they are."
    ]


def _account(facts: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    user = facts.get("ollama", {}).get("user", {})
    name = str(wanted.get("user") or "ollama")
    if name == "root" or user.get("name") != name or user.get("uid") != 0:
        return []
    return [f"ollama_user is {name}, which is another name of root on this host. Write one that nothing else uses."]


def _store_of_unit(facts: Mapping[str, Any]) -> str:
    return str(facts.get("ollama", {}).get("unit", {}).get("models_dir") or "")


# -- the store ---------------------------------------------------------------------------------------------------------


def _store(facts: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    path = str(wanted.get("models_dir") or "")
    if not path:
        return []
    found = []
    ollama = facts.get("ollama", {})
    unit = ollama.get("unit", {})
    other = _store_of_unit(facts)
    if not unit.get("ours") and _moves(facts, path):
        found.append(
            f"The Ollama that is here, which was not installed by this role, keeps its models in {other}, and "
            f"ollama_models_dir is {path}: they would seem lost. Set ollama_models_dir: {other}, or move them first."
        )
    real = _real_store(facts, path)
    if any(place == home or place.startswith(f"{home}/") for home in _HOMES for place in (path, real)):
        leads = "" if _same(path, real) else f", which leads to {real}"
        found.append(
            f"ollama_models_dir is {path}{leads}, and the service sees nothing of {', '.join(_HOMES)} (ProtectHome). "
            "Put the store elsewhere, such as /srv/ollama/models."
        )
    blocked = str(ollama.get("models_dir", {}).get("blocked") or "")
    if blocked and _same(str(ollama["models_dir"].get("path", path)), path):
        user = wanted.get("user") or "ollama"
        found.append(
            f"The user {user} may not pass through {blocked} to ollama_models_dir {path}, so the server would end at "
            f"every start. Let it through (chmod o+x {blocked}), or put the store elsewhere."
        )
    return found


def _moves(facts: Mapping[str, Any], path: str) -> bool:
    """Whether the service has models now, and would look for them elsewhere."""
    unit, here = facts.get("ollama", {}).get("unit", {}), _store_of_unit(facts)
    stays = any(_same(here, place) for place in (path, _real_store(facts, path)))
    return bool(unit.get("exists") and unit.get("has_models") and here and not stays)


def _real_store(facts: Mapping[str, Any], path: str) -> str:
    seen = facts.get("ollama", {}).get("models_dir", {})
    return str(seen.get("realpath") or path) if _same(str(seen.get("path") or ""), path) else path


def _same(one: str, other: str) -> bool:
    return posixpath.normpath(one) == posixpath.normpath(other)


# -- what an operator's files say --------------------------------------------------------------------------------------


def _overruled(facts: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    ours: Mapping[str, Any] = wanted.get("env") or {}
    unit = facts.get("ollama", {}).get("unit", {})
    found = []
    for name, (variable, why) in _DECIDED.items():
        said = unit.get("overrides", {}).get(name)
        if said is None or name not in ours or _means(name, said) == _means(name, str(ours[name])):
            continue
        where = unit.get("overridden_in", {}).get(name) or "a drop-in of ollama.service"
        sets = f"sets {name}={said}" if said else f"empties {name}"
        found.append(
            f"{where} {sets}, which would win over the role's {name}={ours[name]}. Take it out there, and set "
            f"{variable}, {why}."
        )
    return found


def _means(name: str, value: str) -> str:
    """What Ollama makes of it."""
    if name == "OLLAMA_MODELS":
        return posixpath.normpath(value) if value else ""
    scheme, _separator, rest = value.strip().rpartition("://")
    host = rest.partition("/")[0] or "127.0.0.1"
    host = f"0.0.0.0{host}" if host.startswith(":") else host  # noqa: S104 - compared, not bound
    port = {"http": "80", "https": "443"}.get(scheme, "11434")
    return host if re.search(r":\d+$", host) else f"{host}:{port}"


# -- the port ----------------------------------------------------------------------------------------------------------


def _port(facts: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    port = wanted.get("port")
    owner = facts.get("ports", {}).get(str(port)) if port else None
    if not owner or _is_ours(facts.get("ollama", {}), owner):
        return []
    process, pid, container = owner.get("process"), owner.get("pid"), owner.get("container")
    if container:
        who, stop = f"the container {container}", f"docker stop {container}"
    elif process == "ollama":
        who, stop = f"an ollama serve that the service does not know (pid {pid})", f"kill {pid}"
    else:
        who, stop = f"{process or 'a process'} (pid {pid or 'unknown'})", ""
    how = f" ({stop})" if stop else ""
    return [f"Port {port} is taken by {who}. Stop it{how}, or give Ollama another one (ollama_port)."]


def _is_ours(ollama: Mapping[str, Any], owner: Mapping[str, Any]) -> bool:
    if owner.get("container"):
        return owner["container"] == ollama.get("container", {}).get("name")
    if owner.get("unit") == "ollama.service" or (owner.get("pid") and owner["pid"] == ollama.get("pid")):
        return True
    return bool(ollama.get("active") and not owner.get("pid"))  # without root nobody sees whose port it is


# -- room --------------------------------------------------------------------------------------------------------------


def _disk(facts: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Only what is still to be installed asks for room; what models take is asked before each pull."""
    ollama, version = facts.get("ollama", {}), str(wanted["version"])
    if wanted.get("install") == "container":
        image = str(ollama.get("container", {}).get("image") or "")
        there = image.rpartition(":")[2] in (version, f"{version}-rocm")
        paths = [facts.get("engine", {}).get("data_root") or "/var/lib/docker"]
    else:
        there = bool(ollama.get("releases", {}).get(version, {}).get("complete"))
        paths = [wanted.get("home") or "/opt/ollama"]
    least = int(wanted.get("min_disk_mb") or 0)
    found = []
    for path in [] if there else paths:
        disk = facts.get("disks", {}).get(path, {})
        if disk and int(disk.get("free_mb") or 0) < least:
            found.append(
                f"{path} (on {disk.get('mount', '/')}) has {disk.get('free_mb')} MB free, and Ollama {version} needs "
                f"{least} MB to be installed. Make room, put it on a larger disk, or lower ollama_min_disk_mb."
            )
    return found


# -- what goes ahead ---------------------------------------------------------------------------------------------------


def _downgrade(facts: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    ollama, version = facts.get("ollama", {}), str(wanted["version"])
    here = str(ollama.get("server") or ollama.get("version") or "")
    try:
        older = bool(here) and compare(version, here) < 0
    except ValueError:
        return []
    if not older:
        return []
    return [
        f"ollama_version {version} is older than the {here} that is here. It is installed as asked, but models that "
        f"need {here} will not load with it."
    ]


def _left_behind(facts: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Models of an Ollama that is not ours are refused to be left; of ours, where to put them is for the operator."""
    path = str(wanted.get("models_dir") or "")
    ollama = facts.get("ollama", {})
    if not path or not ollama.get("unit", {}).get("ours") or not _moves(facts, path):
        return []
    old = _store_of_unit(facts)
    if ollama.get("models_dir", {}).get("exists"):
        how = f"cp -a {old}/. {path}/ && rm -r {old}"
    else:
        how = f"mkdir -p {posixpath.dirname(posixpath.normpath(path))} && mv {old} {path}"
    return [
        f"The models of this host stay in {old}, and ollama_models_dir is now {path}: those that ollama_models lists "
        "are pulled again, and others are not there any more. To keep them, before a run: systemctl stop ollama && "
        f"{how}"
    ]


def _loose_settings(facts: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Drop-ins of the operator sort after the role's own and win, in silence."""
    ours: Mapping[str, Any] = wanted.get("env") or {}
    unit = facts.get("ollama", {}).get("unit", {})
    said = unit.get("overrides", {})
    lost = sorted(key for key, value in said.items() if key in ours and ours[key] != value and key not in _DECIDED)
    if not lost:
        return []
    where = sorted({str(unit.get("overridden_in", {}).get(key) or "a drop-in of ollama.service") for key in lost})
    return [f"{', '.join(lost)}: what {' and '.join(where)} set wins over this role."]
