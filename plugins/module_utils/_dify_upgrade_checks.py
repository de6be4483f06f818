# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""What a look at an installation says about an upgrade: what stands in its way, what must be decided, what to know.

Pure. Each sentence says what was found, what is needed, and the next step; nothing is refused for want of a fact.
"""

from __future__ import annotations

import re
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._dify_migration_judge import HALF_COMMITTED
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_rules import KEYS, STORE_IMAGES, WEAVIATE
from ansible_collections.llmops.stack.plugins.module_utils._dify_versions import HEADS, parse_version, since

__all__ = ["findings"]

# The images of a release, unpacked: api 3.5 GB, plugin daemon 1.5 GB, the others about 2 GB.
_IMAGES_MB = 8000
_SHOWN = 5


def findings(
    source: str, target: str, kind: str, info: dict[str, Any], options: dict[str, Any]
) -> dict[str, list[Any]]:
    """C(refusals) and C(warnings) (sentences) and C(questions) ({word, question}); arguments as of plan().

    A question whose word is not among C(options.accept) is a refusal as well.
    """
    way = _Way(source, target, kind, info)
    accepted = set(options.get("accept") or [])
    questions = [*way.foreign_sessions(), *way.vector_store(), *way.newer_weaviate(options)]
    unanswered = [
        f"{one['question']} Add '{one['word']}' to dify_upgrade_accept to go on."
        for one in questions
        if one["word"] not in accepted
    ]
    return {
        "refusals": [*way.database(), *way.redis(), *way.head(), *way.data(), *way.room(options), *unanswered],
        "warnings": way.warnings(options),
        "questions": questions,
    }


class _Way:
    def __init__(self, source: str, target: str, kind: str, info: dict[str, Any]) -> None:
        self.source, self.target, self.info = source, target, info
        self.moves = kind == "other_head"  # the schema changes, so there is an outage and a copy
        self.db: dict[str, Any] = info.get("database") or {}

    def crosses(self, feature: str) -> bool:
        return since(self.target, feature) and not since(self.source, feature)

    def database(self) -> list[str]:
        kind = str(self.db.get("type") or "postgresql")
        if kind != "postgresql":
            return [
                f"The database is {kind} (DB_TYPE), and this collection upgrades PostgreSQL only: it could not copy "
                f"{kind} and put it back after a failure. Upgrade by hand as Dify's release notes say, then set "
                "dify_version."
            ]
        if self.db.get("error"):
            return [f"The database cannot be asked: {self.db['error']}. Mend that first; site.yml needs it to be sure."]
        if not self.moves:
            return []
        found = []
        if self.db.get("superuser") is False and self.db.get("createdb") is False:
            found.append(
                f"The database role {self._user()} may not create databases, and the upgrade copies the database "
                f"inside PostgreSQL before it migrates. As a superuser: ALTER ROLE {self._user()} CREATEDB."
            )
        tables = list(self.db.get("not_owned") or [])
        if tables and not self.db.get("superuser"):
            found.append(
                f"The database role {self._user()} does not own {_few(tables)}, and a migration may change only tables "
                f"that its role owns. As a superuser, for each of them: ALTER TABLE <table> OWNER TO {self._user()}."
            )
        return found

    def redis(self) -> list[str]:
        """A migration looks after its lock there; without it, it would fail with the doors closed."""
        error = str(self.info.get("redis_error") or "")
        if not error or not self.moves:
            return []
        return [
            f"The lock of a migration cannot be looked after: {error}. Mend that first. Where Redis is reached through "
            "sentinels or a cluster, name one server in dify_env for the time of the upgrade (REDIS_HOST, and "
            "REDIS_USE_SENTINEL or REDIS_USE_CLUSTERS false), and run site.yml with the old dify_version before."
        ]

    def _user(self) -> str:
        return str(self.db.get("user") or "(DB_USERNAME)")

    def head(self) -> list[str]:
        found, expected = str(self.info.get("head") or ""), HEADS.get(self.source, "")
        if not found or not expected or found == expected:
            return []
        said = f"The database is at head {found}, and Dify {self.source} has {expected}."
        half = HALF_COMMITTED.get(found)
        if half is not None:
            return [
                f"{said} That is what a migration leaves behind that died inside revision {half.revision}: every "
                f"further one fails on {half.what}. Restore the backup that was made before (playbooks/restore.yml), "
                f"or take that away ({half.mend};) and run the migration of the release that was being installed."
            ]
        whose = [tag for tag, head in HEADS.items() if head == found]
        if whose:
            return [
                f"{said} {found} is the head of {_few(whose)}: a migration was run outside this collection, or one did "
                f"not finish. Restore the backup of {self.source} (playbooks/restore.yml), or bring the installation "
                f"to {whose[-1]} by hand and set dify_version to that."
            ]
        return [
            f"{said} No known release has {found}, so nobody can say what a migration would do to it. Restore a backup "
            "of a released Dify, or upgrade this one by hand."
        ]

    def data(self) -> list[str]:
        found = []
        colliding = list(self.info.get("colliding_providers") or [])
        if colliding and self.crosses("plugin_daemon"):
            found.append(
                f"Some providers have a row under their old and one under their new name ({_few(colliding)}), and "
                "Dify's command that renames them never ends on that. Delete the row that is not used, or merge the "
                "two."
            )
        if self.crosses("own_secret_key") and (self.info.get("secret_key") or {}).get("set") is False:
            found.append(
                "SECRET_KEY is not set, and from 1.14.1 on Dify makes a new one then: everybody is signed out, and "
                f"links to files and OAuth clients of tools break. Write the value that Dify {self.source} uses (its "
                "compose file has the default) as SECRET_KEY into secrets.json in dify_home."
            )
        rows = int(self.info.get("legacy_model_types") or 0)
        if rows and since(self.target, "model_types_strict") and since(self.source, "model_type_command"):
            found.append(
                f"{rows} rows have a model type's old name, and Dify {self.target} rejects them. Rename them with the "
                "release that runs now: docker compose -p dify exec api flask data-migrate legacy-model-types --apply."
            )
        return found

    def room(self, options: dict[str, Any]) -> list[str]:
        """Needs that fall on one device add up. Devices that nobody named are taken for one."""
        free = {name: _mb(amount) for name, amount in (self.info.get("free_mb") or {}).items() if amount is not None}
        devices = self.info.get("devices") or {}
        needs = self._needs(options)
        places: dict[Any, list[str]] = {}
        for name in needs:
            if name in free:
                places.setdefault(devices.get(name), []).append(name)
        found = []
        for names in places.values():
            room, wanted = min(free[name] for name in names), sum(needs[name][0] for name in names)
            if wanted > room:
                parts = ", ".join(f"{needs[name][0]} MB for {needs[name][1]}" for name in names if needs[name][0])
                found.append(
                    f"{room} MB are free where {wanted} MB are needed ({parts}). Make room, put dify_backup_dir on "
                    "another file system, lower dify_backup_keep, or lower dify_min_disk_mb if the images are smaller."
                )
        return found

    def _needs(self, options: dict[str, Any]) -> dict[str, tuple[int, str]]:
        """By the place in which it is: how many MB, and for what. A backup asks for the same before it begins."""
        databases = _mb(self.db.get("size_mb")) + _mb(self.db.get("plugin_size_mb"))
        files = _mb((self.info.get("storage") or {}).get("size_mb")) if options.get("backup_storage", True) else 0
        vectors = _mb((self.info.get("vector") or {}).get("size_mb"))
        images = int(options.get("images_mb", _IMAGES_MB)) if self.info.get("images_missing", ["?"]) else 0
        return {
            "backup": (databases // 2 + files + vectors, "the backup"),
            "database": (databases if self.moves else 0, "the copies of the databases"),
            "docker": (images, "the images of the new release"),
        }

    def foreign_sessions(self) -> list[dict[str, str]]:
        sessions = list(self.db.get("foreign_sessions") or [])
        if not sessions or not self.moves:
            return []
        who = [str(one.get("application") or one.get("client") or one.get("pid") or "?") for one in sessions]
        return [
            {
                "word": "foreign_sessions",
                "question": f"Programs outside Dify are connected to its database ({_few(who)}), and a migration would "
                "wait for them without end. Disconnect them, or have the upgrade end their sessions.",
            }
        ]

    def vector_store(self) -> list[dict[str, str]]:
        vector = self.info.get("vector") or {}
        store = str(vector.get("store") or "weaviate")
        if store == "weaviate":
            if not self.crosses("weaviate_1_27") or vector.get("internal", True):
                return []
            return [
                {
                    "word": "external_weaviate",
                    "question": f"Dify {self.target} needs Weaviate 1.27 or newer, and Weaviate is not one of this "
                    "installation's services. Upgrade it first, as its own documentation says.",
                }
            ]
        start, end = parse_version(self.source), parse_version(self.target)
        changes = [
            what
            for after, by, what in STORE_IMAGES.get(store, ())
            if start < parse_version(by) and end > parse_version(after)
        ]
        if not changes or not vector.get("internal", True):
            return []
        return [
            {
                "word": "vector_store",
                "question": f"{'; '.join(changes)} on the way, on the same files, and nobody has recorded whether the "
                f"older one reads them after a rollback. Copy volumes/{store} while Dify is stopped, or be ready to "
                "index again.",
            }
        ]

    def newer_weaviate(self, options: dict[str, Any]) -> list[dict[str, str]]:
        """On the same files; across 1.9.2 the new one is filled anew, whatever it is."""
        vector = self.info.get("vector") or {}
        found = re.search(r":v?(\d+)\.(\d+)[.\d]*$", str((options.get("images") or {}).get("weaviate") or ""))
        own = (vector.get("store") or "weaviate") == "weaviate" and vector.get("internal", True)
        if not own or found is None or self.crosses("weaviate_1_27") or not since(self.target, "weaviate_1_27"):
            return []
        series = int(found[1]), int(found[2])
        if series <= WEAVIATE:
            return []
        new, old = (".".join(str(part) for part in one) for one in (series, WEAVIATE))
        return [
            {
                "word": "newer_weaviate",
                "question": f"Dify {self.target} comes with Weaviate {new}, this collection knows {old}, and Weaviate "
                "goes from one minor version to the next only. Take it there step by step as its own documentation "
                "says, or be ready to index again.",
            }
        ]

    def warnings(self, options: dict[str, Any]) -> list[str]:
        found = []
        if (self.info.get("secret_key") or {}).get("public"):
            found.append(
                "SECRET_KEY is the default that everybody can read in Dify's repository, so sessions and links to "
                "files can be forged. Put another one into secrets.json in dify_home when everybody may be signed out."
            )
        if _mb(self.info.get("lock_ttl_ms")):
            found.append(
                "The lock of a migration is still held in Redis: one runs now, or one died in the last minute."
            )
        missing = list((self.info.get("private_keys") or {}).get("missing") or [])
        if missing:
            found.append(
                f"Workspaces without their private key: {_few(missing)}. Their credentials cannot be read by the "
                "release that runs now either."
            )
        foreign = list((self.info.get("private_keys") or {}).get("foreign") or [])
        if foreign:
            found.append(
                f"Workspaces whose private key belongs to another pair: {_few(foreign)}. What they encrypted before "
                "cannot be read by the release that runs now either."
            )
        extra = list(self.info.get("plugin_files_without_row") or [])
        if extra:
            found.append(f"Plugin packages that no workspace has installed: {_few(extra)}. They are moved aside.")
        lost = [str(one.get("id")) for one in self.info.get("plugins") or [] if one.get("file") is False]
        if lost:
            found.append(f"Installed plugins whose package is not on the disk: {_few(lost)}. They are fetched again.")
        vector = self.info.get("vector") or {}
        if self.crosses("vector_doc_type") and vector.get("store") == "weaviate" and not vector.get("internal", True):
            found.append(
                f"Dify {self.target} asks for the property doc_type (text) in each search, and collections in a "
                "Weaviate of your own get it from nobody: add it to each, or searches fail with 'no such prop "
                "doc_type'."
            )
        needed = sorted({plugin for plugins in (self.info.get("plugins_needed") or {}).values() for plugin in plugins})
        if needed and self.crosses("plugin_daemon"):
            found.append(
                f"The workspaces' providers become plugins: {', '.join(needed)}. Each comes from dify_plugins or from "
                "the marketplace; one that cannot be had ends the run before anything stops, unless "
                "dify_upgrade_accept has 'missing_plugins'."
            )
        invalid = list(self.db.get("invalid_indexes") or [])
        if invalid:
            found.append(f"The database has invalid indexes, left by a build that was ended: {_few(invalid)}.")
        start, end = parse_version(self.source), parse_version(self.target)
        own = set(self.info.get("set_keys") or [])
        found += [key.text for key in KEYS if key.name in own and start < parse_version(key.first) <= end]
        found += [f"Not found out: {one}" for one in list(self.info.get("errors") or [])]
        if not options.get("backup_storage", True):
            found.append(
                "dify_backup_storage is false: the backup has no uploaded files, only the private keys among them."
            )
        return found


def _few(names: list[Any]) -> str:
    shown = ", ".join(str(one) for one in names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def _mb(value: Any) -> int:
    return int(value or 0)
