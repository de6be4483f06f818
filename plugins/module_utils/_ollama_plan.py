# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""What role ollama wants of a host, decided once per run from its variables and the facts of the host.

Pure. Tasks and templates read the result; a decision that Jinja makes is made again at every place that names it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils import _guard
from ansible_collections.llmops.stack.plugins.module_utils import _ollama_fit as room
from ansible_collections.llmops.stack.plugins.module_utils import _ollama_plan_metrics as metrics
from ansible_collections.llmops.stack.plugins.module_utils import _ollama_plan_unit as unit
from ansible_collections.llmops.stack.plugins.module_utils import _ollama_preflight as preflight
from ansible_collections.llmops.stack.plugins.module_utils import _stack_facts_ollama as places
from ansible_collections.llmops.stack.plugins.module_utils._ollama_names import BadName, parse
from ansible_collections.llmops.stack.plugins.module_utils._ollama_settings import settings
from ansible_collections.llmops.stack.plugins.module_utils._ollama_systemd import environment_lines
from ansible_collections.llmops.stack.plugins.module_utils._urls import mask_urls

__all__ = ["plan"]

USER_HOME = "/usr/share/ollama"
CONTAINER = "llmops-ollama-ollama-1"
# Variables that the preflight looks at as they are; the others of the role reach it decided.
_LOOKED_AT = (
    "version", "install", "home", "models_dir", "user", "port", "gpu", "allow", "gateways", "min_disk_mb", "models",
    "registry", "bundle", "keep", "checksums",
)  # fmt: skip


def plan(variables: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """What holds for the whole run, whatever is on the host already.

    Args:
        variables: the variables of the role by their names, C(host), which sentences begin with, and
            C(engine_expected): whether the roles that bring engine and Compose have run.
        facts: C(llmops_stack) as M(llmops.stack.stack_facts) returns it.

    Returns:
        C(refusals) and C(warnings) are sentences. C(given) are the variables, without C(ollama_) before their names.
        C(env) is the environment of the server, C(secrets) the part of it that is for root alone, and C(environment)
        the rest as lines of a unit. The others are named after what they decide.
    """
    given = {name.removeprefix("ollama_"): value for name, value in variables.items()}
    given.update({name: str(given[name]) for name in ("version", "home", "models_dir")})
    native = given["install"] == "native"
    registry = re.sub(r"/+$", "", re.sub(r"^[a-z]+://", "", str(given["registry"])))
    made = settings({**dict(variables.items()), "ollama_registry": registry}, facts.get("gpus") or [])
    env, shown = made["env"], made["shown"]
    secrets = {name: value for name, value in env.items() if value != shown[name]}
    bind = re.sub(r":[0-9]+$", "", env["OLLAMA_HOST"])
    asked = "127.0.0.1" if bind in ("0.0.0.0", "[::]") else bind  # noqa: S104 - compared, not bound
    loopback = bool(re.match(r"127[.]|localhost$|\[::1\]$", bind))
    gpu = _gpu(str(given["gpu"]), facts)
    overlays = _overlays(given["overlays"], gpu, facts)
    image = f"{given['image']}:{given['version']}{'-rocm' if gpu == 'amd' else ''}"
    store = _store(given["models_dir"], facts)
    let_in = _let_in(given)
    # Behind a gateway nobody else is let in, so whoever is came before there was one.
    leave = given["leave_open"] and given["gateways"]
    left_open = _guard.left_open(facts["ollama"]["firewall"]["let_in"] if leave else let_in, let_in)
    wanted: dict[str, Any] = {
        **{name: given[name] for name in _LOOKED_AT},
        "engine_expected": given["engine_expected"],
        "overlays": overlays,
        "env": shown,
    }
    decided: dict[str, Any] = {
        "given": given,
        "native": native,
        "store": store,
        "writes": [USER_HOME, *([] if store.startswith(f"{USER_HOME}/") else [store])],
        "gpu": gpu,
        "render_group": facts["gpu"]["render_group"] if gpu == "amd" else -1,
        "overlays": overlays,
        "image": image,
        "env": env,
        "environment": environment_lines({name: value for name, value in env.items() if name not in secrets}),
        "secrets": secrets,
        "no_proxy": env.get("NO_PROXY", ""),
        "registry": registry,
        "registry_insecure": str(given["registry"]).startswith("http://"),
        "bind": bind,
        "loopback": loopback,
        "url": f"http://{asked}:{given['port']}",
        "guard": {
            "name": "ollama",
            "what": "Ollama",
            "services": "ollama.service docker.service",
            "home": places.HOME,
            "let_in": {kind: [*let_in[kind], *left_open[kind]] for kind in let_in},
        },
        "left_open": [*left_open["addresses"], *left_open["interfaces"]],
        "firewall_wanted": given["firewall"] == "auto" and not loopback,
        "look_at": "journalctl -u ollama" if native else f"docker logs {CONTAINER}",
        "product": f"Ollama {given['version']} from {mask_urls(str(given['archive_url']))}"
        if native
        else f"the image {image}",
    }
    decided["lacking"] = _lacking(given["models"], facts)
    decided["unit"] = unit.state(given, facts["ollama"])
    found = preflight.refusals(facts, wanted)
    fit = {"refusals": [], "warnings": []} if made["refusals"] or found else room.fit_present(decided, facts)
    decided["refusals"] = [
        *made["refusals"],
        *found,
        *fit["refusals"],
        *unit.refusals(given, facts["ollama"], decided),
        *metrics.refusals(given, facts),
    ]
    decided["warnings"] = [*preflight.warnings(facts, wanted), *fit["warnings"], *_said(decided["left_open"])]
    return decided


def _lacking(models: Any, facts: Mapping[str, Any]) -> list[str]:
    """Models of which not all files are there. What is none of a name, or no list, the preflight has words for."""
    there = {_key(name) for name, seen in facts["ollama"]["store"]["models"].items() if seen["whole"]}
    wanted = models if isinstance(models, list) else []
    return [str(one) for one in wanted if _key(str(one)) not in there | {""}]


def _key(name: str) -> str:
    try:
        return parse(name).key
    except BadName:
        return ""


def _let_in(given: Mapping[str, Any]) -> dict[str, list[str]]:
    """Besides the host itself. Before a gateway nobody else has any business at its nodes."""
    if given["gateways"]:
        return {"addresses": list(given["gateways"]), "interfaces": []}
    return {
        "addresses": list(given["allow"]),
        "interfaces": list(given["container_interfaces"]) if given["containers"] else [],
    }


def _said(left_open: list[str]) -> list[str]:
    if not left_open:
        return []
    return [
        f"{', '.join(left_open)} may go on asking Ollama here until every Dify asks the gateway. Run site.yml with "
        "neither --limit nor --tags; where dify_models names nodes, write the gateway's address instead."
    ]


def _store(path: str, facts: Mapping[str, Any]) -> str:
    """Where the store really is: neither mounts nor what a service may write are looked up through a link."""
    seen = facts["ollama"]["models_dir"]
    return str(seen["realpath"] if seen["path"] == path else path)


def _gpu(wanted: str, facts: Mapping[str, Any]) -> str:
    """A card that the kernel has no driver for is no GPU yet."""
    there = {gpu["vendor"] for gpu in facts.get("gpus") or [] if gpu.get("driver")}
    if wanted != "auto":
        return wanted
    if "nvidia" in there or facts["gpu"]["jetpack"]:
        return "nvidia"
    return "amd" if "amd" in there and facts["gpu"]["kfd"] else "cpu"


def _overlays(wanted: Any, gpu: str, facts: Mapping[str, Any]) -> list[str]:
    if not isinstance(wanted, str):
        return list(wanted)
    if gpu == "amd" and facts["os"]["arch"] == "amd64":
        return ["rocm"]
    jetpack = facts["gpu"]["jetpack"]
    return [f"jetpack{jetpack}"] if gpu == "nvidia" and jetpack else []
