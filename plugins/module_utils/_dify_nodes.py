# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Which model Dify asks on which Ollama, out of what this run has seen of the Ollama hosts. Pure.

A node is C({name, url, models}); each of its models is an entry of the result of M(llmops.stack.ollama_model), or has
nothing but a name where this run did not ask that Ollama.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._ollama_names import BadName, key_of, parse

__all__ = [
    "OLLAMA_PLUGIN",
    "PROVIDER",
    "asks_gateway",
    "default_models",
    "kind_of",
    "model_servers",
    "node_notes",
    "ollama_nodes",
    "url_of",
]

PROVIDER = "ollama"
OLLAMA_PLUGIN = "langgenius/ollama"
_OWN_URL = "http://host.docker.internal"
_PORT = 11434
# The registered results of role ollama: of its models, and of its verify.
_RESULTS = ("__ollama_models", "__ollama_models_checked")
_KEPT = ("name", "capabilities", "context_length", "probe")


def ollama_nodes(
    hostvars: Mapping[str, Mapping[str, Any]], hosts: Iterable[str], host: str, gateways: Iterable[str] = ()
) -> list[dict[str, Any]]:
    """The Ollama hosts as Dify on C(host) reaches them: the host's own first, then in the order of C(hosts).

    Behind a gateway they are one, with the models of all. Where a host sets C(dify_ollama_nodes) itself, that says
    which and in what order. What it leaves out about an Ollama host, or the gateway, is what this run has seen of it.
    """
    hosts = list(hosts)
    ordered = [name for name in hosts if name == host] + [name for name in hosts if name != host]
    seen = {name: _node(name, hostvars[name], own=name == host) for name in ordered}
    through = {name: _gateway(name, hostvars[name], name == host, seen.values()) for name in list(gateways)[:1]}
    given = hostvars[host].get("dify_ollama_nodes")
    if given:
        known = {**seen, **through}
        return [_merged(one, known[one["name"]]) if one.get("name") in known else dict(one) for one in given]
    return list((through or seen).values())


def asks_gateway(
    hostvars: Mapping[str, Mapping[str, Any]], hosts: Iterable[str], host: str, gateways: Iterable[str]
) -> bool:
    """Whether Dify on C(host) was told in this run to ask the gateway, and has no entry that asks a node itself.

    C(__dify_models) is what M(llmops.stack.dify_model) returned there.
    """
    found = (hostvars[host].get("__dify_models") or {}).get("models") or []
    asked = {str((one.get("credentials") or {}).get("base_url", "")).rstrip("/") for one in found}
    nodes = {_address(name, hostvars[name], own=name == host) for name in hosts}
    through = {_address(name, hostvars[name], name == host, "gateway") for name in gateways}
    return bool(asked & through) and not asked & (nodes - through)


def _gateway(name: str, found: Mapping[str, Any], own: bool, nodes: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """One address for all nodes. What several of them have is asked as the weakest of them can answer it."""
    models: dict[str, dict[str, Any]] = {}
    for model in (model for node in nodes for model in node["models"]):
        before = models.setdefault(key_of(str(model["name"])), dict(model))
        lengths = [int(one.get("context_length") or 0) for one in (before, model)]
        if before.get("capabilities") is None:
            before.update(model)
        if any(lengths):
            before["context_length"] = min(length for length in lengths if length)
    key = str(found.get("gateway_key") or "")
    return {
        "name": name,
        "url": _address(name, found, own, "gateway"),
        "models": list(models.values()),
        "gateway": True,
        **({"key": key} if key else {}),
    }


def _merged(given: Mapping[str, Any], seen: Mapping[str, Any]) -> dict[str, Any]:
    if given.get("models") is None:
        return {**seen, **given, "models": seen["models"]}
    known = {key_of(str(one["name"])): one for one in seen["models"]}
    return {
        **seen,
        **given,
        "models": [{**known.get(key_of(str(one["name"])), {}), **one} for one in given["models"]],
    }


def _node(name: str, found: Mapping[str, Any], own: bool) -> dict[str, Any]:
    results = next((found[key].get("models") for key in _RESULTS if isinstance(found.get(key), Mapping)), None) or []
    asked = {
        key_of(one["name"]): {key: one[key] for key in _KEPT if key in one} for one in results if "error" not in one
    }
    context = int(found.get("ollama_context_length") or 0)
    models = []
    for wanted in found.get("ollama_models") or []:
        model = asked.get(key_of(str(wanted)), {"name": _listed(str(wanted))})
        if model.get("capabilities") is not None and not model.get("context_length") and context:
            model = {**model, "context_length": context}
        models.append(model)
    return {"name": name, "url": _address(name, found, own), "models": models}


def _address(name: str, found: Mapping[str, Any], own: bool, role: str = "ollama") -> str:
    """As Dify's containers reach it."""
    if found.get(f"{role}_url"):
        return str(found[f"{role}_url"]).rstrip("/")
    address = (found.get("gateway_address") if role == "gateway" else "") or found.get("ansible_host") or name
    server = _OWN_URL if own else f"http://{_bracketed(str(address))}"
    return f"{server}:{int(found.get(f'{role}_port') or _PORT)}"


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address and not address.startswith("[") else address


def _listed(name: str) -> str:
    try:
        return parse(name).short
    except BadName:
        return name


def kind_of(model: Mapping[str, Any]) -> str:
    """Dify's type for a model of Ollama; empty where Ollama was not asked or does not say."""
    capabilities = model.get("capabilities") or []
    probed = (model.get("probe") or {}).get("kind")
    if "embedding" in capabilities or probed == "embed":
        return "text-embedding"
    if "completion" in capabilities or probed == "generate":
        return "llm"
    return ""


def default_models(nodes: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every model of every node, once, as M(llmops.stack.dify_model) takes them; the first of each type is its default.

    The first node that is to hold a model is the one that Dify asks, also where this run looks only at another one:
    whatever a run is limited to, the address stays. So does the default: a model that this run did not ask may be the
    first of its type, and none that comes after it is called the default.
    """
    models: list[dict[str, Any]] = []
    first_known = True
    for node, model in _first_holders(nodes):
        kind = kind_of(model)
        if not kind:
            first_known = False
            continue
        models.append(
            {
                "model": str(model["name"]),
                "provider": PROVIDER,
                "model_type": kind,
                "credentials": _credentials(node, model, kind),
                "default": first_known and all(one["model_type"] != kind for one in models),
            }
        )
    return models


def _first_holders(nodes: Iterable[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    first: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {}
    for node in nodes:
        for model in node.get("models") or []:
            first.setdefault(key_of(str(model["name"])), (node, model))
    return list(first.values())


def _credentials(node: Mapping[str, Any], model: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """What is not known is left out: Dify keeps what it has, and a new model gets what the provider's form says."""
    made: dict[str, Any] = {"base_url": str(node["url"])}
    if node.get("key"):
        made["api_key"] = str(node["key"])
    context = int(model.get("context_length") or 0)
    if context:
        made["context_size"] = context
    if kind != "llm":
        return made
    made["mode"] = "chat"
    if context:
        # Question and answer share the context, and Dify refuses a question where an answer may take all of it.
        made["max_tokens"] = max(context // 2, 1)
    capabilities = model.get("capabilities") or []
    if capabilities:
        made["vision_support"] = "vision" in capabilities
        made["function_call_support"] = "tools" in capabilities
    return made


def node_notes(nodes: Iterable[Mapping[str, Any]], models: Iterable[Mapping[str, Any]]) -> list[str]:
    """What an operator should know about models that Dify asks on one of several nodes, or does not know yet."""
    nodes, models = list(nodes), list(models)
    notes = []
    for entry in models:
        holders = [str(node["name"]) for node in nodes if _holds(node, str(entry.get("model")))]
        asked = next((str(node["name"]) for node in nodes if node["url"] == url_of(entry)), "")
        if len(holders) > 1 and asked:
            notes.append(
                f"{entry['model']} is on {_and(holders)}: Dify asks {asked}. The community edition cannot spread a "
                "model over nodes; a gateway can (role gateway), or choose another one by dify_models."
            )
    if models != default_models(nodes):
        return notes  # the operator's own list says all
    unknown = [f"{model['name']} ({node['name']})" for node, model in _first_holders(nodes) if not kind_of(model)]
    if unknown:
        notes.append(
            "Left in Dify as they are, because this run did not learn from Ollama what they can do: "
            f"{', '.join(unknown)}. No model that comes after them becomes the default or that of the last check. Run "
            "site.yml with neither --tags nor --limit and with ollama_verify: probe, or "
            "describe them in dify_models."
        )
    return notes


def _holds(node: Mapping[str, Any], name: str) -> bool:
    """Whether this run has seen it there: a node outside of the run says nothing."""
    return any(key_of(str(one["name"])) == key_of(name) and kind_of(one) for one in node.get("models") or [])


def _and(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


def url_of(entry: Mapping[str, Any]) -> str:
    """Where Dify asks for this model, if it is one of Ollama; otherwise empty."""
    if not isinstance(entry, Mapping):
        return ""  # the preflight has the words for that
    if str(entry.get("provider") or PROVIDER).rpartition("/")[2] != PROVIDER or entry.get("state") == "absent":
        return ""
    credentials = entry.get("credentials")
    return str(credentials.get("base_url") or "").rstrip("/") if isinstance(credentials, Mapping) else ""


def model_servers(
    models: Iterable[Mapping[str, Any]],
    own: bool = False,
    port: int | str = _PORT,
    nodes: Iterable[Mapping[str, Any]] = (),
) -> list[str]:
    """The base URLs that must answer from inside Dify's containers.

    C(own) adds the Ollama of the host itself, unless one of the C(nodes) is a gateway, which it lets in alone.
    """
    alone = any(node.get("gateway") for node in nodes)
    urls = [url_of(one) for one in models] + ([f"{_OWN_URL}:{int(port)}"] if own and not alone else [])
    return list(dict.fromkeys(url for url in urls if url))
