# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""From a release, to a release, and what the host looks like: the steps of the upgrade in order, or why there are none.

Pure. What is not in C(info) is taken for the case that needs more care, so that a plan made without a look at the host
(a check run on a host that cannot be asked) says too much and never too little.
"""

from __future__ import annotations

from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._dify_migration_judge import HALF_COMMITTED
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_checks import findings
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_rules import (
    COMMANDS,
    NOTES,
    RENAMED_SERVICES,
    STEPS,
    STOPS,
    Step,
)
from ansible_collections.llmops.stack.plugins.module_utils._dify_versions import (
    HEADS,
    daemon_version,
    is_known,
    nearest,
    parse_version,
    since,
)

__all__ = ["crosses", "half_committing", "in_charge", "is_unfinished", "plan", "stops"]


def plan(
    source: str, target: str, info: dict[str, Any] | None = None, options: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The plan of an upgrade.

    Args:
        source: the release that the host has; empty for none.
        target: the release that is wanted.
        info: what M(llmops.stack.dify_info) returned of the host, as it runs now.
        options: C(accept) (words that the operator gave in dify_upgrade_accept), C(allow_unknown)
            (dify_allow_unknown_version), C(backup_storage) (dify_backup_storage), C(images_mb) (room that the images of
            a release need), C(images) (those of the new release, by service), C(last) (the fact
            C(dify.upgrade), of the last upgrade here).

    Returns:
        C(kind) (install | same | same_head | other_head), C(from), C(to), C(from_head), C(to_head), C(refusals) and
        C(warnings) and C(notes) (sentences), C(steps) ({id, title, why, phase, ...}), C(questions) ({word, question}),
        C(stops) (tags to go through first). A plan with refusals must not be carried out.
    """
    info, options = info or {}, options or {}
    result: dict[str, Any] = {
        "kind": "other_head",
        "from": source,
        "to": target,
        "from_head": HEADS.get(source) or str(info.get("head") or ""),
        "to_head": HEADS.get(target, ""),
        "refusals": [],
        "warnings": _last(options.get("last") or {}, source, target),
        "notes": [],
        "steps": [],
        "questions": [],
        "stops": [],
    }
    for tag in filter(None, (source, target)):
        try:
            parse_version(tag)
        except ValueError as error:
            result["refusals"] = [f"{error}. Set dify_version to a release tag."]
            return result
    if not source or source == target:
        result["kind"] = "same" if source else "install"
        return result
    if is_known(source) and is_known(target) and HEADS[source] == HEADS[target]:
        result["kind"] = "same_head"
    result["stops"] = stops(source, target)
    result["refusals"] = _path_refusals(source, target, result["stops"], options)
    if result["refusals"]:
        return result
    found = findings(source, target, result["kind"], info, options)
    result["refusals"] = found["refusals"]
    result["questions"] = found["questions"]
    result["warnings"] += [*_unknown_warnings(source, target), *_daemon_warning(result), *found["warnings"]]
    result["notes"] = [note.text for note in NOTES if crosses(source, target, note.feature)]
    result["notes"] += [
        f"The migration goes through revision {revision}, which commits half-way; should it die there, the copies come "
        "back."
        for revision in half_committing(source, target)
    ]
    result["steps"] = [_described(step, result, options) for step in STEPS if _due(step, result, info)]
    return result


def crosses(source: str, target: str, feature: str) -> bool:
    """Whether the upgrade brings C(feature) (a key of FEATURES)."""
    return since(target, feature) and not since(source, feature)


def stops(source: str, target: str) -> list[str]:
    """The releases that the way must go through, one run of site.yml each."""
    start, end = parse_version(source), parse_version(target)
    return [
        stop.at for stop in STOPS if start < parse_version(stop.below)[:3] and end[:3] >= parse_version(stop.reach)[:3]
    ]


def _path_refusals(source: str, target: str, via: list[str], options: dict[str, Any]) -> list[str]:
    if parse_version(target) < parse_version(source):
        return [
            f"Dify {source} is here and dify_version asks for the older {target}. An older release cannot read a newer "
            "release's database, and Dify has no way to turn a database back. To undo the last upgrade run "
            "playbooks/rollback.yml; to go further back, restore a backup of that release onto an empty host with "
            f"playbooks/restore.yml. Set dify_version to {source} to keep what is here."
        ]
    unknown = [tag for tag in (source, target) if not is_known(tag)]
    if unknown and not options.get("allow_unknown"):
        return [
            f"Dify {tag} is not among the releases this collection knows (the nearest is {nearest(tag)}), so neither "
            "its database head nor what its upgrade needs is known. Take a newer llmops.stack, choose a known release, "
            "or set dify_allow_unknown_version: true to go on with the rules of the nearest one."
            for tag in unknown
        ]
    return [
        f"Dify {source} cannot go to {target} in one step, because {stop.why}. Set dify_version to {stop.at} and run "
        f"site.yml, then set it to {target} and run it again."
        for stop in STOPS
        if stop.at in via
    ]


def _unknown_warnings(source: str, target: str) -> list[str]:
    found = []
    if not is_known(source):
        found.append(
            f"Dify {source} is not in the table of releases; the upgrade follows the rules of {nearest(source)}."
        )
    if not is_known(target):
        found.append(
            f"Dify {target} is not in the table of releases; the upgrade follows the rules of {nearest(target)}, and "
            "the head that the migration must reach is asked of the new image. Read that release's notes first: a step "
            "that it needs and that came after this collection was made is not in this plan."
        )
    return found


def _daemon_warning(result: dict[str, Any]) -> list[str]:
    before, after = daemon_version(result["from"]), daemon_version(result["to"])
    if result["kind"] != "same_head" or not before or before == after:
        return []
    return [
        f"The plugin daemon goes from {before} to {after}. It cannot run twice on one folder, so it is replaced at a "
        "moment without calls, while nginx holds new ones back; a call that is longer than dify_drain_seconds is cut, "
        "and so is one that the worker makes at that moment."
    ]


def _last(upgrade: dict[str, Any], source: str, target: str) -> list[str]:
    """What became of the last upgrade here, where that matters for this one."""
    here, there = upgrade.get("from"), upgrade.get("to")
    if upgrade.get("phase") == "rolled_back" and (here, there) == (source, target):
        return [f"This was tried before, and rolled back. {upgrade.get('message') or ''}".strip()]
    if not is_unfinished(upgrade):
        return []
    begun = f"An upgrade from {here} to {there} was begun here and stands at '{upgrade.get('step')}'"
    if upgrade.get("phase") == "proved":
        return [f"{begun}: the new release was proved, so a run finishes what is left before anything else."]
    return [
        f"{begun}. A run waits for it while it lives; if it died, it is rolled back first, then {target} is looked at."
    ]


def is_unfinished(upgrade: dict[str, Any]) -> bool:
    """Whether the fact C(dify.upgrade) is of an upgrade that is under way, or whose process died."""
    return upgrade.get("phase") in ("running", "proved", "rolling_back")


def in_charge(dify: dict[str, Any]) -> str:
    """The release that an upgrade starts from, by the fact C(dify); empty without one that has run.

    The link C(current) may point to a release that was never proved: the upgrade to it will be rolled back.
    """
    upgrade = dify.get("upgrade") or {}
    if upgrade.get("phase") in ("running", "rolling_back"):
        return str(upgrade.get("from") or "")
    current = str(dify.get("current") or "")
    return current if dify.get("containers") or dify.get("data") else ""


def _due(step: Step, result: dict[str, Any], info: dict[str, Any]) -> bool:
    source, target = result["from"], result["to"]
    if result["kind"] not in step.kinds:
        return False
    if step.feature and not crosses(source, target, step.feature):
        return False
    return not step.condition or bool(_CONDITIONS[step.condition](source, target, info))


def _described(step: Step, result: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {"id": step.id, "title": step.title, "why": step.why, "phase": step.phase}
    if step.id in COMMANDS:
        told["command"] = COMMANDS[step.id][1]
    return {**told, **_arguments(step.id, result, options)}


def _arguments(step: str, result: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """What the machine has to know for a step beyond the two releases."""
    source, target = result["from"], result["to"]
    if step == "fetch_plugins":
        return {"missing_ok": "missing_plugins" in (options.get("accept") or [])}
    if step == "data_services":
        renamed = {old: new for old, new, feature in RENAMED_SERVICES if crosses(source, target, feature)}
        return {"renamed": renamed}
    if step == "migrate":
        return {"end_foreign_sessions": "foreign_sessions" in (options.get("accept") or [])}
    return {}


def half_committing(source: str, target: str) -> list[str]:
    """The revisions on the way that commit half-way; a migration that dies inside one leaves a database between two."""
    start, end = parse_version(source), parse_version(target)
    return [half.revision for half in HALF_COMMITTED.values() if start < parse_version(half.first) <= end]


def _legacy_types(_source: str, target: str, info: dict[str, Any]) -> bool:
    return since(target, "model_type_command") and info.get("legacy_model_types", 1) > 0


def _own_weaviate(_source: str, _target: str, info: dict[str, Any]) -> bool:
    vector = info.get("vector") or {}
    return (vector.get("store") or "weaviate") == "weaviate" and bool(vector.get("internal", True))


def _older_collections(source: str, target: str, info: dict[str, Any]) -> bool:
    """Those that come over 1.9.2 in this upgrade are made with all properties."""
    return not crosses(source, target, "weaviate_1_27") and _own_weaviate(source, target, info)


_CONDITIONS = {
    "own_weaviate": _own_weaviate,
    "older_collections": _older_collections,
    "local_storage": lambda _source, _target, info: (info.get("storage") or {}).get("local", True),
    "old_sandbox_config": lambda _source, _target, info: (info.get("sandbox_config") or {"python_path": "?"}).get(
        "python_path"
    ),
    "daemon_wanted": lambda _source, target, _info: since(target, "plugin_daemon"),
    "legacy_types_due": _legacy_types,
    "old_strategies": lambda _source, _target, info: info.get("old_upgrade_strategies", 1),
}
