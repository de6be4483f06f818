# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""What the gateway is told about a batch of Ollama hosts, and whether the run may go on after it. Pure.

Host variables are C(hostvars), in which tasks of this run have left what they found: C(__ollama_models) the proof of
role ollama, C(__rollout_listed) what the server of a host lists where that role failed, and C(__rollout_failure) why.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.llmops.stack.plugins.module_utils._ollama_fleet import contents
from ansible_collections.llmops.stack.plugins.module_utils._ollama_names import key_of
from ansible_collections.llmops.stack.plugins.module_utils._stack_rollout import Vars, listed

__all__ = ["announcement", "outdated", "proof_seconds", "records", "unrouted", "verdict"]

_PORT = 11434
_SOON = 20  # seconds of loading that need no word in between
_PROOF = 600  # seconds for each model, as M(llmops.stack.gateway_nodes) has it
_EVERYWHERE = ("0.0.0.0", "::", "[::]", "auto", "")  # noqa: S104 - compared, not bound
_LOCAL = ("127.0.0.1", "::1", "localhost")
_AGAIN = "Correct the cause and run the same command again: it goes on with what is left."


# -- what the gateway is told ----------------------------------------------------------------------------------------


def records(hostvars: Vars, hosts: Iterable[str], gateway: str) -> list[dict[str, Any]]:
    """One for each host whose server was asked in this run, with the models that it has as they should be."""
    found = []
    for host in hosts:
        seen = hostvars[host]
        models = _models(seen)
        if models is None:
            continue
        found.append(
            {
                "name": host,
                **_place(seen, host, gateway),
                "parallel": _parallel(seen),
                "models": models,
                "contents": {key_of(name): content for name, content in contents(hostvars, host, models).items()},
            }
        )
    return found


def outdated(hostvars: Vars, hosts: Iterable[str]) -> dict[str, list[str]]:
    """The models that a look of this run has not found on a host whose turn is still to come, where it has some."""
    lacking = {
        host: [key_of(str(name)) for name in (hostvars[host].get("__ollama_plan") or {}).get("lacking") or ()]
        for host in hosts
        if "__ollama_models" not in hostvars[host]
    }
    return {host: models for host, models in lacking.items() if models}


def unrouted(hostvars: Vars, hosts: Iterable[str], routes: Iterable[str]) -> list[str]:
    """The models that hosts have proved in this run and that no call is passed to, as gateway_digests names others.

    Args:
        routes: the models that the gateway knows.

    Returns:
        A model, a digest of it that there is, and the hosts that have it, each as the gateway's operator reads it.
    """
    known = set(routes)
    found: dict[tuple[str, str], list[str]] = {}
    for host in hosts:
        seen = hostvars[host]
        for model, digest in ((_models(seen) if seen.get("__ollama_models") else None) or {}).items():
            if model not in known:
                found.setdefault((model, digest), []).append(host)
    return [f"{model} {digest} on {', '.join(names)}" for (model, digest), names in sorted(found.items())]


def proof_seconds(hostvars: Vars, hosts: Iterable[str]) -> int:
    """What a proof through the gateway may take: nothing where it is over soon, as role ollama found the models loaded.

    Returns:
        Seconds, with those that HAProxy may need to be told.
    """
    most, loading = 0, 0.0
    for host in hosts:
        models = (hostvars[host].get("__ollama_models") or {}).get("models") or []
        most = max(most, len(models))
        loading = max(loading, sum((model.get("probe") or {}).get("load_seconds") or 0.0 for model in models))
    return most * _PROOF + 300 if loading > _SOON else 0


def _parallel(seen: Mapping[str, Any]) -> int:
    """As its server is told, also by C(ollama_env)."""
    env = (seen.get("__ollama_plan") or {}).get("env") or {}
    told = str(env.get("OLLAMA_NUM_PARALLEL", seen.get("ollama_num_parallel") or "")).strip()
    return int(told) if told.isdecimal() else 0


def _models(seen: Mapping[str, Any]) -> dict[str, str] | None:
    """Nothing where nobody asked this server; of a failed host, what it lists and should have."""
    wanted = {key_of(str(name)) for name in seen.get("ollama_models") or ()}
    for result in (seen.get("__ollama_models"), seen.get("__rollout_listed")):
        if (
            isinstance(result, Mapping)
            and isinstance(result.get("models"), (list, tuple))
            and result.get("version", "?")
        ):
            return {
                key_of(str(model["name"])): str(model["digest"])
                for model in result["models"]
                if model.get("digest") and not model.get("error") and key_of(str(model["name"])) in wanted
            }
    return None if wanted else {}


def _place(seen: Mapping[str, Any], host: str, gateway: str) -> dict[str, Any]:
    """How the gateway reaches it: as C(ollama_url) says it, or where it listens."""
    bind, port = _listens(seen)
    if host == gateway:
        return {"address": bind or "127.0.0.1", "port": port}
    if seen.get("ollama_url"):
        url = urlsplit(str(seen["ollama_url"]))
        return {"address": url.hostname or host, "port": url.port or (443 if url.scheme == "https" else 80)}
    return {"address": bind or str(seen.get("ansible_host") or host), "port": port}


def _listens(seen: Mapping[str, Any]) -> tuple[str, int]:
    """The one address, where it has one that others reach, and the port: as planned, or of what came back instead."""
    plan = seen.get("__ollama_plan") or {}
    bind, port = str(plan.get("bind") or "").strip("[]"), int(seen.get("ollama_port") or _PORT)
    local = bool(plan.get("loopback"))
    back = urlsplit(str((seen.get("__rollout_listed") or {}).get("url") or ""))
    if back.hostname:
        bind, port, local = back.hostname, back.port or 80, back.hostname in _LOCAL
    return ("" if local or bind in _EVERYWHERE else bind), port


# -- what is said ----------------------------------------------------------------------------------------------------


def announcement(plan: Mapping[str, Any], host: str) -> str:
    """Said before a batch, as nobody may be left after it to say what was not reached."""
    if plan["would"]:
        return f"A run would change {'; then '.join(', '.join(batch) for batch in plan['would'])}."
    number, batch, later = _where(plan, host)
    changed = [name for name in batch if name not in plan["settled"]]
    said = [f"Batch {number} of {len(plan['batches'])}: {', '.join(changed)}."]
    if later:
        who = "they have proved themselves" if len(changed) > 1 else "it has proved itself"
        said.append(f"Untouched until {who}: {', '.join(later)}.")
    if len(changed) < len(batch):
        said.append(f"As they should be already: {', '.join(name for name in batch if name not in changed)}.")
    for name in changed:
        if name in plan["alone"]:
            said.append(
                f"No other host has {listed(plan['alone'][name])}: calls fail while {name} is drained and restarts."
            )
    return " ".join(said)


def verdict(
    hostvars: Vars, plan: Mapping[str, Any], alive: Sequence[str], gateway: str = "", proof: Any = None
) -> dict[str, Any]:
    """Whether the run may go on after a batch.

    Args:
        hostvars: see above.
        plan: what C(rollout) returned.
        alive: the hosts of the batch that can still be reached.
        gateway: the host of the gateway, if there is one.
        proof: the result of M(llmops.stack.gateway_nodes) for the batch; nothing where it was not asked.

    Returns:
        C(failed) are the hosts with the reason of each, C(speaker) is the host that fails for those that cannot, and
        C(message) says it all; empty where everything is well.
    """
    _number, batch, later = _where(plan, alive[0]) if plan else (1, list(alive), [])
    answer, trouble = _answer(proof, gateway)
    nodes, unproved = answer.get("nodes") or {}, answer.get("unproved") or {}
    failed: dict[str, str] = {}
    for host in batch:
        reason = str(hostvars[host].get("__rollout_failure") or "")
        if host not in alive:
            reason = "it could not be reached any more, in the middle of its changes."
        elif not reason and answer:
            reason = str(unproved.get(host) or "")
            if not reason and host not in nodes and _models(hostvars[host]) is not None:
                reason = f"the gateway on {gateway} does not know it after it was told."
        if reason:
            failed[host] = f"{_ended(reason)}{_service(nodes.get(host), hostvars[host])}"
    if not failed and not trouble:
        return {"failed": {}, "speaker": "", "message": ""}
    speaker = next((host for host in alive if host in failed), alive[0])
    return {"failed": failed, "speaker": speaker, "message": _message(failed, trouble, batch, later)}


def _where(plan: Mapping[str, Any], host: str) -> tuple[int, list[str], list[str]]:
    """Number and hosts of the batch that a host is in, and the hosts that come after it."""
    batches = plan["batches"]
    index = next(number for number, batch in enumerate(batches) if host in batch)
    return index + 1, list(batches[index]), [name for batch in batches[index + 1 :] for name in batch]


def _answer(proof: Any, gateway: str) -> tuple[Mapping[str, Any], str]:
    if not proof or proof.get("skipped"):
        return {}, ""
    if proof.get("unreachable") or not isinstance(proof.get("nodes"), Mapping):
        said = str(proof.get("msg") or "it gave no reason").removeprefix("Task failed: ")
        return {}, f"The gateway on {gateway} could not be asked for a proof: {_ended(said)}"
    return proof, ""


def _service(node: Mapping[str, Any] | None, seen: Mapping[str, Any]) -> str:
    if node is None:
        return ""
    if node.get("state") != "ready":
        return " The gateway sends it no calls."
    known = node.get("models")
    wanted = sorted({key_of(str(name)) for name in seen.get("ollama_models") or ()})
    without = [] if known is None else [name for name in wanted if name not in known]
    return f" The gateway has it in service{f', but not for {listed(without)}' if without else ''}."


def _message(failed: Mapping[str, str], trouble: str, batch: list[str], later: list[str]) -> str:
    well = [host for host in batch if host not in failed]
    parts = [f"{host}: {reason.removeprefix(f'{host}: ')}" for host, reason in failed.items()]
    parts += [trouble] if trouble else []
    parts += [f"Done: {listed(well)}."] if well and not trouble else []
    parts += [f"Not reached and untouched: {listed(later)}." if later else "No other Ollama host was left."]
    left = f" To go on without: --limit 'all:!{':!'.join(failed)}'." if failed else ""
    return " ".join([*parts, f"{_AGAIN}{left}"])


def _ended(text: str) -> str:
    text = " ".join(text.split())
    return text if text.endswith((".", "!", "?")) else f"{text}."
