# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.

"""The plugin daemon: from "it listens" over "it lists" to "a model answered through the plugin's process"."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._dify_daemon import NO_TENANT, Daemon, DaemonError
from ansible_collections.llmops.stack.plugins.module_utils._dify_health_engine import (
    Look,
    Result,
    failed,
    ok,
    skipped,
)
from ansible_collections.llmops.stack.plugins.module_utils._dify_health_host import (
    database,
    mismatched_keys,
    release,
)
from ansible_collections.llmops.stack.plugins.module_utils._dify_health_texts import (
    DAEMON,
    EMPTY_ANSWER,
    QUOTED,
    model_trouble,
)
from ansible_collections.llmops.stack.plugins.module_utils._dify_versions import since
from ansible_collections.llmops.stack.plugins.module_utils._docker_cli import DockerError
from ansible_collections.llmops.stack.plugins.module_utils._http import HttpError, origin

_PROMPT = "Reply with the single word: ok"
# Enough for the thoughts of a small thinking model; any other model stops after a word by itself.
_MAX_TOKENS = 256
_NOT_REACHED = {
    "refused": "Start plugin_daemon; stock compose files do not publish its port 5002, so publish it on the loopback "
    "address or set plugin_daemon_url to where it can be reached.",
    "timeout_read": "It may be overloaded, or plugin_daemon_url leads to its debugging port 5003: restart it or "
    "correct the URL.",
}


def _daemon(look: Look) -> Daemon:
    return Daemon(look.http, look.options.plugin_daemon_url, look.options.plugin_daemon_key, look.timeout)


def _not_applicable(look: Look, keyed: bool = True, probe: str = "none") -> Result | None:
    version = release(look)
    if not _has_daemon(version):
        return skipped(f"Dify {version} has no plugin daemon")
    if not look.options.wants(probe):
        return skipped(f"Not asked for (probe is {look.options.probe})")
    if keyed and not look.options.plugin_daemon_key:
        return skipped("No plugin_daemon_key was given")
    return None


def _has_daemon(version: str) -> bool:
    try:
        return since(version, "plugin_daemon")
    except ValueError:
        # An own build with a tag of its own, or none known: of today's kind.
        return True


def _error(look: Look, exc: DaemonError | HttpError, subject: str = "") -> Result:
    """A failure, told by what it means. `subject` says which plugin it is about."""
    prefix = f"{subject}: " if subject else ""
    if isinstance(exc, HttpError):
        if subject and exc.kind in ("timeout_read", "timeout_total"):
            return failed(prefix + DAEMON["hang"][0], DAEMON["hang"][1])
        advice = _NOT_REACHED.get(exc.kind, "Check the plugin_daemon container and plugin_daemon_url.")
        return failed(f"{prefix}the plugin daemon does not answer: {exc}", advice)
    detail, advice = DAEMON.get(exc.cause, DAEMON["other"])
    if exc.cause in QUOTED and exc.message:
        detail += f": {look.clean(exc.message)}"
    return failed(prefix + detail, advice)


def check_daemon(look: Look) -> Result:
    unfit = _not_applicable(look, keyed=False)
    if unfit:
        return unfit
    try:
        health = _daemon(look).health()
    except (DaemonError, HttpError) as exc:
        return _error(look, exc)
    if health["status"] != "ok":
        return failed(f"The plugin daemon says status {look.clean(str(health['status']))}", DAEMON["other"][1])
    # The version is a build argument, and many builds do without.
    version = str(health.get("version") or "").strip()
    return ok(f"Plugin daemon {look.clean(version)} listens" if version else "The plugin daemon listens")


def check_daemon_key(look: Look) -> Result:
    unfit = _not_applicable(look)
    if unfit:
        return unfit
    try:
        _daemon(look).check_key()
    except (DaemonError, HttpError) as exc:
        return _error(look, exc)
    different = mismatched_keys(look)
    if different:
        return failed(
            f"The daemon takes the given key, but {different[0]}",
            "Set PLUGIN_DAEMON_KEY and PLUGIN_DIFY_INNER_API_KEY in .env once each and recreate api, worker and "
            "plugin_daemon together.",
        )
    return ok("The plugin daemon takes the key")


def _tenant(look: Look) -> str:
    """The workspace to look at: the given one, else the oldest in the database, "" if there is none."""
    if look.options.tenant_id:
        return look.options.tenant_id
    if not look.options.project:
        return ""
    try:
        return database(look).tenant
    except DockerError:
        return ""


def _installed(look: Look) -> list[dict[str, Any]]:
    return look.once("installed", lambda: _daemon(look).installed(_tenant(look) or NO_TENANT))


def _models(look: Look) -> list[dict[str, Any]]:
    return look.once("models", lambda: _daemon(look).models(_tenant(look) or NO_TENANT))


def _no_workspace(look: Look, expected: str) -> Result:
    return failed(
        f"There is no workspace to look into, so {expected} cannot be there",
        "Create the owner account first, or give tenant_id (or project, to read it from the database).",
    )


def check_plugins(look: Look) -> Result:
    unfit = _not_applicable(look)
    if unfit:
        return unfit
    try:
        installed = _installed(look)
    except (DaemonError, HttpError) as exc:
        return _error(look, exc)
    if look.options.expect_plugins and not _tenant(look):
        return _no_workspace(look, ", ".join(look.options.expect_plugins))
    by_id = {str(one.get("plugin_id")): one for one in installed}
    for wanted in look.options.expect_plugins:
        plugin, version, checksum = split_plugin(wanted)
        found = by_id.get(plugin)
        if found is None:
            return failed(
                f"Plugin {plugin} is not installed",
                "Install it; if that was done, its install task failed or is still running.",
            )
        if version and found.get("version") != version:
            return failed(
                f"Plugin {plugin} is installed in version {found.get('version')}, expected was {version}",
                "Upgrade it with an upgrade call: installing another version over an installed one changes nothing.",
            )
        if checksum and found.get("checksum") != checksum:
            return failed(
                f"Plugin {plugin} {found.get('version')} is installed from another package than the expected one",
                "Uninstall it and install the expected package.",
            )
    names = ", ".join(sorted(f"{one.get('plugin_id')} {one.get('version')}" for one in installed))
    return ok(f"Installed: {look.clean(names)}" if names else "No plugin is installed, and none is expected")


def split_plugin(name: str) -> tuple[str, str, str]:
    """author/name[:version[@checksum]] in its parts."""
    rest, _at, checksum = name.partition("@")
    plugin, _colon, version = rest.partition(":")
    return plugin, version, checksum


def check_providers(look: Look) -> Result:
    unfit = _not_applicable(look)
    if unfit:
        return unfit
    try:
        models = _models(look)
    except (DaemonError, HttpError) as exc:
        return _error(look, exc)
    names = {str(one.get("provider")) for one in models}
    full = {f"{one.get('plugin_id')}/{one.get('provider')}" for one in models}
    missing = [one for one in look.options.expect_providers if one not in names | full]
    if missing and not _tenant(look):
        return _no_workspace(look, ", ".join(missing))
    if missing:
        return failed(
            f"No installed plugin brings the model provider {', '.join(missing)}",
            "Install the plugin of that provider, or correct the name: it is author/plugin/provider.",
        )
    return ok(
        f"Model providers: {', '.join(sorted(full))}" if full else "There is no model provider, and none is expected"
    )


def check_install_tasks(look: Look) -> Result:
    unfit = _not_applicable(look)
    if unfit:
        return unfit
    try:
        tasks, date = _daemon(look).tasks(_tenant(look) or NO_TENANT)
    except (DaemonError, HttpError) as exc:
        return _error(look, exc)
    now = parsedate_to_datetime(date) if date else datetime.now(timezone.utc)
    open_tasks = [one for one in tasks if one.get("status") in ("running", "pending")]
    oldest = max(open_tasks, key=lambda one: _age(one, now), default=None)
    if oldest is not None and _age(oldest, now) > look.options.install_limit:
        names = ", ".join(
            split_plugin(str(one.get("plugin_unique_identifier")))[0] for one in oldest.get("plugins") or []
        )
        return failed(
            f"The installation of {look.clean(names) or 'a plugin'} has been running for {_age(oldest, now):.0f} s",
            "The daemon was killed during it, or the package index does not answer: read the log of plugin_daemon, "
            "delete the task and install again (a lock may hold the same package up for 15 minutes).",
        )
    lost = sum(one.get("status") == "failed" for one in tasks)
    return ok(
        f"{len(open_tasks)} installation(s) running"
        + (f", {lost} old failed one(s) listed, which is normal" if lost else "")
    )


def _age(task: dict[str, Any], now: datetime) -> float:
    found = re.match(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)", str(task.get("created_at") or ""))
    if not found:
        return 0.0
    created = datetime.strptime(found.group(1), "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc)
    return (now - created).total_seconds()


def check_plugin_process(look: Look) -> Result:
    unfit = _not_applicable(look, probe="process")
    if unfit:
        return unfit
    try:
        found = targets(look)
    except (DaemonError, HttpError) as exc:
        return _error(look, exc)
    if not found:
        return skipped("No model plugin is installed, and no other kind can be asked for a sign of life")
    with ThreadPoolExecutor(max_workers=min(8, len(found))) as pool:
        answers = list(pool.map(lambda target: sign_of_life(look, *target), found))
    trouble = next((one for one in answers if one is not None), None)
    return trouble or ok(f"A call came back from the process of {', '.join(plugin for plugin, _provider in found)}")


def targets(look: Look) -> list[tuple[str, str]]:
    """(plugin, provider) to ask: the expected plugins and the one to probe, else every model plugin."""
    provider_of = {str(one.get("plugin_id")): str(one.get("provider")) for one in _models(look)}
    model = look.options.probe_model
    if model:
        provider_of.setdefault(model["plugin_id"], model["provider"])
    wanted = {split_plugin(one)[0] for one in look.options.expect_plugins}
    wanted |= {model["plugin_id"]} if model else set()
    return sorted((plugin, provider) for plugin, provider in provider_of.items() if plugin in wanted or not wanted)


def sign_of_life(look: Look, plugin: str, provider: str) -> Result | None:
    """None if a call came back. A plugin that refuses empty credentials has answered, too."""
    data = {"provider": provider, "credentials": {}}
    route = "model/validate_provider_credentials"
    try:
        if not list(_daemon(look).dispatch(_tenant(look) or NO_TENANT, plugin, route, data, look.timeout)):
            return _error(look, DaemonError("no_events"), plugin)
    except DaemonError as exc:
        return None if exc.cause == "plugin_raised" else _error(look, exc, plugin)
    except HttpError as exc:
        return _error(look, exc, plugin)
    return None


def check_model(look: Look) -> Result:
    unfit = _not_applicable(look, probe="model")
    if unfit:
        return unfit
    model = look.options.probe_model
    if not model:
        return skipped("No probe_model was given")
    subject = _subject(look)
    ask: Callable[[Look], Result] = _ask_embedding if model["model_type"] == "text-embedding" else _ask_llm
    try:
        return ask(look)
    except DaemonError as exc:
        if exc.cause != "plugin_raised":
            return _error(look, exc, subject)
        said = look.clean(f"{exc.plugin_error}: {exc.message}")
        detail, advice = model_trouble(f"{exc.plugin_error}: {exc.message}")
        return failed(
            f"{subject}: {detail or said}", advice or "Read the log of plugin_daemon and of the model server."
        )
    except HttpError as exc:
        if exc.kind in ("timeout_read", "timeout_total"):
            return failed(
                f"{subject}: no complete answer within {look.cap(look.options.probe_timeout):g} s",
                "The model server hangs or is still loading the model, or the plugin's process died during the call: "
                "ask the model server itself, or raise probe_timeout.",
            )
        if exc.kind == "reset":
            return failed(
                f"{subject}: the plugin daemon broke off its answer",
                "It was stopped or restarted during the call: look at the plugin_daemon container.",
            )
        return _error(look, exc, subject)


def _subject(look: Look) -> str:
    """Which model is asked, and where: most faults are about the address."""
    model = look.options.probe_model
    address = model["credentials"].get("base_url") or model["credentials"].get("endpoint_url")
    return f"{model['plugin_id']} with {model['model']}" + (f" at {look.clean(origin(address))}" if address else "")


def _dispatch_model(look: Look, route: str, more: dict[str, Any]) -> list[dict[str, Any]]:
    model = look.options.probe_model
    data = {
        "provider": model["provider"],
        "model_type": model["model_type"],
        "model": model["model"],
        "credentials": model["credentials"],
        **more,
    }
    timeout = look.cap(look.options.probe_timeout)
    events = _daemon(look).dispatch(_tenant(look) or NO_TENANT, model["plugin_id"], route, data, timeout)
    return [event for event in events if isinstance(event, dict)]


def _ask_llm(look: Look) -> Result:
    model = look.options.probe_model
    limit = "num_predict" if model["provider"] == "ollama" else "max_tokens"
    chunks = _dispatch_model(
        look,
        "llm/invoke",
        {
            "prompt_messages": [{"role": "user", "content": _PROMPT}],
            "model_parameters": model.get("parameters") or {limit: _MAX_TOKENS},
            "tools": [],
            "stop": [],
            "stream": True,
        },
    )
    return judge_llm(_subject(look), chunks)


def judge_llm(subject: str, chunks: list[dict[str, Any]]) -> Result:
    """HTTP 200, code 0 and an end of the stream are no success: only text and a usage at its end are."""
    deltas = [chunk.get("delta") or {} for chunk in chunks]
    text = "".join(_text(delta.get("message") or {}) for delta in deltas)
    usage = next((delta["usage"] for delta in reversed(deltas) if delta.get("usage")), None)
    reasons = [str(delta["finish_reason"]) for delta in deltas if delta.get("finish_reason")]
    if not chunks:
        return failed(f"{subject}: {DAEMON['no_events'][0]}", DAEMON["no_events"][1])
    if any("Non-JSON" in reason for reason in reasons):
        return failed(f"{subject}: {model_trouble('Non-JSON')[0]}", model_trouble("Non-JSON")[1])
    if usage is None:
        return failed(
            f"{subject}: the answer broke off after {len(chunks)} piece(s), without an error and without a usage",
            "The model server closed the connection or sent an error that the plugin swallowed: read its log.",
        )
    if not text.strip():
        return failed(f"{subject}: the call succeeded but its answer is empty", EMPTY_ANSWER)
    return ok(f"{subject} answered with {usage.get('completion_tokens')} tokens")


def _text(message: dict[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "".join(str(part.get("data") or "") for part in content if isinstance(part, dict))
    return str(content or "")


def _ask_embedding(look: Look) -> Result:
    events = _dispatch_model(look, "text_embedding/invoke", {"texts": ["ping"], "input_type": "document"})
    subject = _subject(look)
    vectors = [vector for event in events for vector in event.get("embeddings") or []]
    if not vectors or not any(vectors[0]):
        return failed(
            f"{subject}: the call succeeded but brought no vector",
            "Ask the model server itself for an embedding; the model may be none for embeddings.",
        )
    return ok(f"{subject} returned a vector of {len(vectors[0])} numbers")
