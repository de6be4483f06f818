# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Back to the release before the last upgrade, as a plan of the same steps that an upgrade has. Pure.

Between releases with the same database head nothing is lost and nobody notices. Between others the databases come from
the backup that the upgrade made first, and what was written since is lost: an older release cannot read a newer one's
database, whatever its login page says. The databases as they are now are kept beside until the old release is proved.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._dify_versions import parse_version

__all__ = ["plan_back"]

_SAME_HEAD = (
    ("handover", "Start the older API and web page beside the newer ones, then let them take over", "outage"),
    ("prove", "See that the older release serves, with a chat where there is an app for it", "outage"),
)
_OTHER_HEAD = (
    ("maintenance", "Let nginx answer 503 with a page that says why", "outage"),
    ("stop", "Stop and remove the containers that write", "outage"),
    ("copy_databases", "Keep the databases as they are now beside, in case this fails", "outage"),
    ("set_vectors_aside", "Give the older release's own Weaviate an empty folder", "outage"),
    ("data_services", "Bring databases, Redis and vector store to what the older release has", "outage"),
    ("restore_databases", "Restore both databases from the backup", "outage"),
    ("restore_vectors", "Fill the older release's own Weaviate from the backup", "outage"),
    ("restore_files", "Put back from the backup what files are gone since", "outage"),
    ("start_daemon", "Start the older plugin daemon, with the plugins of its database", "outage"),
    ("start_api", "Start the older API behind the closed doors", "outage"),
    ("start", "Start the rest of the older release, and wait for its API", "outage"),
    ("prove", "See that the older release serves, with a chat where there is an app for it", "outage"),
    ("open", "Open nginx", "outage"),
    ("forget_copies", "Drop the databases that were kept beside", "after"),
)


def plan_back(
    last: Mapping[str, Any],
    current: str,
    complete: Collection[str],
    backup_there: bool,
    accept_loss: bool,
    cut_off: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The plan, or why there is none.

    Args:
        last: the journal of the last upgrade; empty for none.
        current: the release that runs.
        complete: releases whose files are whole on the host.
        backup_there: whether the backup that the journal names is on the host, and whole.
        accept_loss: the operator has said that what was written since may go (dify_rollback_accept_loss).
        cut_off: the journal of an upgrade that was not brought to its end; empty for none.
    """
    newer, older = str(last.get("to", "")), str(last.get("from", ""))
    same = last.get("kind") == "same_head"
    steps = [one for one in (_SAME_HEAD if same else _OTHER_HEAD) if one[0] != "start_daemon" or has_daemon(older)]
    return {
        "kind": "same_head" if same else "other_head",
        "from": newer,
        "to": older,
        "from_head": last.get("to_head", ""),
        "to_head": last.get("from_head", ""),
        "steps": [{"id": name, "title": title, "why": "", "phase": phase} for name, title, phase in steps],
        "backup": "" if same else last.get("backup", ""),
        "warnings": [] if same else [_loss(last)],
        "refusals": [
            *_cut_off(cut_off or {}),
            *_refusals(last, current, complete, backup_there or same, accept_loss or same),
        ],
    }


def has_daemon(version: str) -> bool:
    return bool(version) and parse_version(version) >= parse_version("1.0.0")


def _cut_off(journal: Mapping[str, Any]) -> list[str]:
    """Who wants that one undone must not get the one before it undone."""
    if not journal:
        return []
    return [
        f"The change from Dify {journal['from']} to {journal['to']} was cut off at "
        f"{journal['step'] or 'its beginning'}. Run site.yml first: it brings that to its end, and says "
        "which release serves then."
    ]


def _loss(last: Mapping[str, Any]) -> str:
    return (
        f"Everything that was written since {last.get('began') or 'that upgrade'} is lost for Dify: chats, apps, "
        f"documents, accounts. The databases come from {last.get('backup') or 'the backup before the upgrade'}. "
        "Uploaded files stay. Make a backup with playbooks/backup.yml first, if you may want it again."
    )


def _refusals(
    last: Mapping[str, Any], current: str, complete: Collection[str], backup_there: bool, accepted: bool
) -> list[str]:
    older, newer = str(last.get("from", "")), str(last.get("to", ""))
    if last.get("phase") != "done":
        return [
            "There is no finished upgrade to go back from. To go to an older release all the same, restore a backup "
            "of it onto an empty host with playbooks/restore.yml."
        ]
    found = []
    if current != newer:
        found.append(f"The last upgrade was from {older} to {newer}, but Dify {current or 'of no release'} is current.")
    if older not in complete:
        found.append(
            f"The files of Dify {older} are not whole in the folder of releases. Restore a backup of it onto an empty "
            "host with playbooks/restore.yml."
        )
    if not backup_there:
        found.append(
            f"The backup that was made of {older} is not whole at {last.get('backup') or 'any place that is known'}, "
            f"and Dify {older} cannot read the database of {newer}. Restore another backup with playbooks/restore.yml."
        )
    if not accepted:
        found.append(f"{_loss(last)} Say that this may be with -e dify_rollback_accept_loss=true.")
    return found
