# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""What an upgrade has to do when it crosses a release of Dify, as data: steps in their order, stops, and notes.

Nothing here decides; _dify_upgrade_plan does. A step is due when the upgrade is of its kind, when it crosses the step's
C(feature) (the release had not what the new one has), and when its C(condition) holds (names of _dify_upgrade_plan).
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["COMMANDS", "KEYS", "NOTES", "RENAMED_SERVICES", "STEPS", "STOPS", "STORE_IMAGES"]
__all__ += ["Key", "Note", "Step", "Stop"]

SAME, OTHER = "same_head", "other_head"
BOTH = (SAME, OTHER)


class Step(NamedTuple):
    id: str
    phase: str  # before | outage | after
    title: str
    why: str
    kinds: tuple[str, ...] = BOTH
    feature: str = ""
    condition: str = ""


class Stop(NamedTuple):
    at: str
    below: str
    reach: str
    why: str


class Note(NamedTuple):
    feature: str
    text: str


class Key(NamedTuple):
    name: str
    first: str
    text: str


STEPS: tuple[Step, ...] = (
    Step(
        "pull",
        "before",
        "Pull the images of the new release",
        "An image that cannot be had must be known while the old release still runs untouched.",
    ),
    Step(
        "backup",
        "before",
        "Make a backup and verify it",
        "Both databases, files, settings and secrets as they are now, for restore.yml and rollback.yml.",
    ),
    Step(
        "fetch_plugins",
        "before",
        "Fetch the plugins that each workspace needs, and install them beside the old release",
        "From 1.0.0 on model providers and tools are plugins, and their environments take minutes to make.",
        feature="plugin_daemon",
    ),
    Step(
        "prepare_vectors",
        "before",
        "Fill a Weaviate of the new release beside the one that serves",
        "Weaviate 1.27, which Dify ships from 1.9.2 on, starts on what 1.19 wrote and has lost every object.",
        kinds=(OTHER,),
        feature="weaviate_1_27",
        condition="own_weaviate",
    ),
    Step(
        "prepare_storage",
        "before",
        "Give the stored files to uid 1001",
        "From 1.10.1 on the api and the worker are not root any more and must read and write them; the old ones are.",
        feature="storage_uid_1001",
        condition="local_storage",
    ),
    Step(
        "maintenance",
        "outage",
        "Answer 503 with a maintenance page",
        "Nothing may write from here until the new release is proved, so that a way back loses nothing.",
        kinds=(OTHER,),
    ),
    Step(
        "stop",
        "outage",
        "Remove the application's containers, logs saved",
        "A container with restart: always would come back at a reboot, on a schema that has moved.",
        kinds=(OTHER,),
    ),
    Step(
        "copy_databases",
        "outage",
        "Copy the databases inside PostgreSQL",
        "The way back is a rename of these copies: seconds, and every row as it was.",
        kinds=(OTHER,),
    ),
    Step(
        "keep_vectors",
        "outage",
        "Copy what has changed since, and let the two Weaviates change places",
        "The old one's files are moved, never written to, so that the way back has them as they were.",
        kinds=(OTHER,),
        feature="weaviate_1_27",
        condition="own_weaviate",
    ),
    Step(
        "storage_owner",
        "outage",
        "Give the files that were stored meanwhile to uid 1001",
        "Nobody writes any more, so these are the last ones.",
        feature="storage_uid_1001",
        condition="local_storage",
    ),
    Step(
        "sandbox_config",
        "outage",
        "Take python_path out of the sandbox's settings",
        "From 1.13.3 on the sandbox has its Python elsewhere, and the old path ends every code node with an error.",
        feature="sandbox_own_python",
        condition="old_sandbox_config",
    ),
    Step(
        "data_services",
        "outage",
        "Start the new release's databases and stores",
        "The migration and the plugin daemon need them; the ones that did not change keep running.",
        kinds=(OTHER,),
    ),
    Step(
        "start_daemon",
        "outage",
        "Start the new plugin daemon",
        "It needs the longest to bring its plugins up, and can do so while the migration runs.",
        kinds=(OTHER,),
        condition="daemon_wanted",
    ),
    Step(
        "migrate",
        "outage",
        "Migrate the database, one run with a time limit",
        "Done only with the release's own success line and the expected head, whatever the exit code says.",
        kinds=(OTHER,),
    ),
    Step(
        "start_api",
        "outage",
        "Start the new API behind the closed doors",
        "Its start is the longest part of the outage, and needs nothing of what the next steps do.",
        kinds=(OTHER,),
    ),
    Step(
        "load_vectors",
        "outage",
        "See that the new Weaviate has it all, and answers as the new release will ask",
        "An empty Weaviate is healthy, too; only counts and a search tell.",
        kinds=(OTHER,),
        feature="weaviate_1_27",
        condition="own_weaviate",
    ),
    Step(
        "vector_properties",
        "outage",
        "Give Weaviate's collections the properties that the new release asks for",
        "From 1.13.1 on each search asks for doc_type, and a collection made before fails with 'no such prop'.",
        kinds=(OTHER,),
        feature="vector_doc_type",
        condition="older_collections",
    ),
    Step(
        "install_plugins",
        "outage",
        "See that each workspace has its plugins, and that they answer",
        "Judged by the daemon's own list; the release's command reports success with nothing installed.",
        kinds=(OTHER,),
        feature="plugin_daemon",
    ),
    Step(
        "plugin_names",
        "outage",
        "Rewrite provider names to the plugins' names",
        "Rows that say 'ollama' must say 'langgenius/ollama/ollama' before the new release reads them.",
        kinds=(OTHER,),
        feature="plugin_daemon",
    ),
    Step(
        "legacy_model_types",
        "outage",
        "Rename the old names of model types",
        "Before anything writes credentials on the new release: later writes would make second rows.",
        condition="legacy_types_due",
    ),
    Step(
        "plugin_auto_upgrade",
        "outage",
        "Split the setting for plugin upgrades by category",
        "Without it the new release takes 'always the latest' for models, whatever the workspace had chosen.",
        feature="auto_upgrade_categories",
        condition="old_strategies",
    ),
    Step(
        "start",
        "outage",
        "Start the rest of the new release, and wait for its API",
        "Behind the maintenance page: the public does not reach it yet.",
        kinds=(OTHER,),
    ),
    Step(
        "handover",
        "outage",
        "Start the new api and web beside the old, hand over, let the old drain",
        "Both work on the same database, so nobody has to wait and no running answer is cut.",
        kinds=(SAME,),
    ),
    Step(
        "prove",
        "outage",
        "Prove it: version, head, data, plugins, models, a chat",
        "A login page proves nothing: an old release on a newer database serves it and fails every model call.",
    ),
    Step(
        "open",
        "outage",
        "Open the site again",
        "Only now may anything write; before this the way back loses nothing.",
        kinds=(OTHER,),
    ),
    Step(
        "forget_copies",
        "after",
        "Drop the copies of the databases",
        "The new release is proved; the verified backup stays.",
        kinds=(OTHER,),
    ),
    Step(
        "prune",
        "after",
        "Remove releases older than the previous one, and their images",
        "The previous one stays for rollback.yml.",
    ),
)

STOPS: tuple[Stop, ...] = (
    Stop(
        at="1.16.0",
        below="1.15.0",
        reach="1.17.0",
        why="1.17.0 rejects the old names of model types, and only 1.15 and 1.16 have the command that renames them "
        "while they still read them",
    ),
)

# Flask command of the new release's image that a step runs, and the first release that has it. `flask` is on the PATH
# of every image; `poetry run` of the documents exists only up to 1.2, and `uv run` only from 1.3 on.
COMMANDS: dict[str, tuple[str, list[str]]] = {
    "migrate": ("0.15.3", ["flask", "upgrade-db"]),
    "fetch_plugins": ("1.0.0", ["flask", "extract-plugins"]),
    "plugin_names": ("1.0.0", ["flask", "migrate-data-for-plugin"]),
    "legacy_model_types": ("1.15.0", ["flask", "data-migrate", "legacy-model-types", "--apply"]),
    "plugin_auto_upgrade": ("1.15.0", ["flask", "backfill-plugin-auto-upgrade"]),
}

# Old name of a service, its new name, and the feature that came with it. Both use the same files, so the old one must
# be gone before the new one starts.
RENAMED_SERVICES: tuple[tuple[str, str, str], ...] = (("db", "db_postgres", "db_profile"),)

# Vector stores whose image changed its series between two releases: store -> (after this release, by this one, what).
# The files stay where they are, and nobody recorded whether the older image reads what the newer one wrote.
STORE_IMAGES: dict[str, tuple[tuple[str, str, str], ...]] = {
    "milvus": (
        ("1.7.0", "1.7.2", "Milvus 2.5.0-beta becomes 2.5.15"),
        ("1.10.1", "1.11.0", "Milvus 2.5 becomes 2.6"),
    ),
    "oceanbase": (
        ("1.0.0", "1.3.1", "OceanBase 4.3.3 becomes 4.3.5"),
        ("1.3.1", "1.7.0", "OceanBase follows the tag 4.3.5-lts from here on"),
    ),
}

# The series of Weaviate that every known release from 1.9.2 on ships.
WEAVIATE = (1, 27)

# Keys of .env that no release sets itself, and what becomes of somebody's own value from a release on.
KEYS: tuple[Key, ...] = (
    Key(
        "CELERY_QUEUES",
        "1.16.0",
        "CELERY_QUEUES is set, and the worker listens to nothing else, while 1.16.0 sends tasks to queues that are new "
        "(api_token, dataset_summary, app_rbac, trigger_refresh_publisher, workflow_based_app_execution). Take it out "
        "of dify_env, or add them.",
    ),
)

NOTES: tuple[Note, ...] = (
    Note("plugin_daemon", "Model providers and tools become plugins, run by a new service plugin_daemon (1.0.0)."),
    Note("worker_beat", "Scheduled tasks move from the worker to a new service worker_beat (1.7.0)."),
    Note("cookie_login", "The console signs in with cookies from 1.9.2 on, so everybody signs in once more."),
    Note("db_profile", "The service db becomes db_postgres, on the same files; its name in DB_HOST follows (1.10.1)."),
    Note("base64_password", "Scripts that sign in must send the password in base64 from 1.11.2 on."),
    Note("env_layout", "Settings reach the containers through env files from 1.14.1 on; .env is rendered for that."),
    Note("agent_services", "The services agent_backend and local_sandbox come with 1.16.0."),
)
