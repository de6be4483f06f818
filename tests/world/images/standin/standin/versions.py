# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every difference between the releases, as data. No other module compares version numbers.

"since" entries hold from that release on, "until" entries up to and including it. Where a change was recorded between
two releases only (1.7.2 and 1.12.1, for instance), the entry names the later one unless the facts narrow it down;
1.12.0 is taken to be like 1.12.1.
"""

from __future__ import annotations

import os
import sys

HEADS = {
    "0.15.3": ("a91b476a53de", 118),
    "1.0.0": ("08ec4f75af5e", 120),
    "1.3.1": ("6a9f914f656c", 126),
    "1.7.0": ("8bcc02c9bd07", 136),
    "1.9.2": ("ae662b25d9bc", 147),
    "1.10.1": ("09cfdda155d1", 150),
    "1.11.0": ("d57accd375ae", 152),
    "1.11.4": ("905527cc8fd3", 155),
    "1.12.0": ("788d3099ae3a", 161),
    "1.12.1": ("788d3099ae3a", 161),
    "1.13.3": ("6b5f9f8b1a2c", 168),
    "1.14.0": ("227822d22895", 170),
    "1.14.1": ("a4f2d8c9b731", 171),
    "1.14.2": ("a4f2d8c9b731", 171),
    "1.15.0": ("d9e8f7a6b5c4", 195),
    "1.16.0": ("7a1c2d9e4b60", 200),
}

# Heads of releases that are not shipped as stand-ins but lie on the chain, and 1.7.2 (the second recorded release).
WAYPOINTS = {
    "1.0.1": ("f051706725cc", 124),
    "1.1.0": ("d20049ed0af6", 125),
    "1.4.0": ("d28f2004b072", 127),
    "1.4.1": ("2adcbe1f5dfb", 128),
    "1.4.2": ("4474872b0ee6", 129),
    "1.5.0": ("0ab65e1cc7fa", 130),
    "1.6.0": ("58eb7bdb93fe", 131),
    "1.7.2": ("532b3f888abf", 137),
    "1.8.0": ("0e154742a5fa", 140),
    "1.8.1": ("b95962a3885c", 142),
    "1.9.0": ("68519ad5cd18", 145),
    "1.10.0": ("669ffd70119c", 149),
    "1.10.1-fix.1": ("7bb281b7a422", 151),
    "1.11.2": ("03ea244985ce", 153),
    "1.13.0": ("fce013ca180e", 165),
    "1.16.0-rc1": ("c3d4e5f6a7b8", 199),
}

# Revisions inside a release's range whose names the facts give: number on the chain -> revision.
NAMED_REVISIONS = {119: "ddcc8bbef391", 156: "3334862ee907", 160: "9d77545f524e", 167: "0ec65df55790"}

# CREATE INDEX CONCURRENTLY commits what came before it and breaks "one transaction for the whole run".
COMMIT_POINTS = {
    "4474872b0ee6": ("workflow_node_executions", "workflow_node_executions_tenant_id_idx", "tenant_id", ""),
    "6b5f9f8b1a2c": (
        "workflow_draft_variables",
        "workflow_draft_variables_user_id_idx",
        "user_id",
        "ALTER TABLE workflow_draft_variables ADD COLUMN user_id VARCHAR(255)",
    ),
}

SINCE = {
    # process
    "plugins": "1.0.0",
    "clients": "1.3.1",  # of the plugin daemon; "managers" before
    "mode_migration": "1.7.1",
    "mode_job": "1.11.2",
    "runs_as_1001": "1.10.1",
    "generates_secret_key": "1.14.1",
    "redis_retries": "1.16.0",
    "access_log": "1.14.1",  # the websocket worker class logs every request
    # migrations
    "create_tenant": "0.15.3",
    "migration_fails_loudly": "1.13.0",
    "migration_lock_renewed": "1.13.1",
    # console protocol
    "cookie_login": "1.9.2",
    "logout_by_post": "1.9.2",
    "base64_password": "1.11.2",
    "login_authentication_failed": "1.9.2",
    "email_lowercase": "1.12.0",
    "workspace_current_by_post": "1.12.0",
    "typed_errors": "1.12.0",  # /setup, /init, /version: {"error": {...}} and 422
    "pydantic_payloads": "1.12.0",
    "compact_json": "1.12.0",
    "www_authenticate": "1.12.0",
    "status_in_500": "1.12.0",
    "html_500_setup": "1.12.0",
    "vary_cookie": "1.14.1",
    "setup_language": "1.12.0",
    "v1_root_gone": "1.12.0",
    "setup_at_null": "1.12.0",
    "last_opened_at": "1.16.0",
    "shipped_package_size": "1.14.0",
    "trial_features": "1.12.0",
    "app_dsl_version_feature": "1.14.0",
    "learn_app_features": "1.16.0",
    "init_absent_refused": "1.16.0",
    "auto_upgrade_table": "1.7.0",
    # plugins
    "plugin_error": "1.14.0",
    "decode_before_install": "1.12.0",
    "decode_with_query": "1.14.0",
    "meta_per_identifier": "1.16.0",
    "install_reply_task": "1.16.0",
    "auto_upgrade_routes": "1.15.0",
    "plugin_category_list": "1.16.0",
    "task_plugin_source": "1.16.0",
    "uninstall_reads_list": "1.12.0",
    "provider_cache": "1.16.0",
    "schema_cache": "1.8.0",
    "no_user_id_in_dispatch": "1.16.0",
    "old_metadata_command": "1.1.0",
    "names_by_id": "1.3.1",  # migrate-data-for-plugin goes through rows by their id, not again and again
    "category_commands": "1.15.0",
    "tells_what_is_not_installed": "1.16.0",  # install-plugins, in its file
    # knowledge
    "named_vectors": "1.9.2",
    "vector_doc_type": "1.13.1",
    # models
    "credential_routes": "1.8.0",
    "short_model_types": "1.14.0",  # llm instead of text-generation in the tables
    "non_string_credential_500": "1.14.0",
    "validate_error_null": "1.16.0",
    "provider_name_key": "1.16.0",
    "dark_icons": "1.12.0",
    "has_invalid_balancing_key": "1.8.0",
    # apps and chat
    "import_app_mode": "1.0.0",
    "older_dsl_warns": "1.0.0",
    "import_permission_keys": "1.16.0",
    "last_used_by_worker": "1.16.0",
    "dashed_end_users": "1.15.0",
    "typed_max_keys": "1.12.0",
    "retriever_resources": "1.0.0",
    "usage_timings": "1.10.0",
    "reasoning_metadata": "1.16.0",
    "empty_answer_ok": "1.16.0",
    "plugin_exception_invalid_param": "1.8.0",
    "provider_label_in_errors": "1.16.0",
    "v1_site": "1.0.0",
    "tracing_in_app": "1.12.0",
    "old_dsl_asks_marketplace": "1.7.0",
    "dependency_version": "1.12.0",
    "lean_stream_metadata": "1.16.0",
    "empty_lists_in_stream": "1.16.0",
    "title_later": "1.8.0",
    "cancels_abandoned_stream": "1.16.0",
    "stop_ends_call": "1.12.0",
    "drains_blocking": "1.12.0",
    "authorization_scheme_text": "1.16.0",
    "did_you_mean": "1.12.0",
    "blocking_title_delay": "1.8.0",
}
UNTIL = {
    "app_dsl_version_feature": "1.15.0",
    "workspace_current_by_get": "1.11.4",
    "migration_logs_traceback": "1.7.2",
    "preferences_routes": "1.14.2",
    "blocking_title_delay": "1.13.3",
    "schema_before_chat": "1.7.2",
}

LONG_MODEL_TYPES = {"llm": "text-generation", "text-embedding": "embeddings", "rerank": "reranking"}

DSL = (
    ("1.16.0", "0.7.0"),
    ("1.14.0", "0.6.0"),
    ("1.10.0", "0.5.0"),
    ("1.7.0", "0.3.1"),
    ("1.0.0", "0.1.5"),
    ("0", "0.1.5"),
)
PYDANTIC = (("1.14.0", "2.12"), ("0", "2.11"))
USER_AGENT = (("1.14.0", "python-httpx/0.28.1"), ("1.8.0", "python-httpx/0.27.2"), ("0", "python-requests/2.32.4"))
# Packages of Dify: what model calls are made of, the classes that all providers share, the clients of the daemon.
MODEL_RUNTIME = (
    ("1.14.0", "graphon.model_runtime"),
    ("1.13.0", "dify_graph.model_runtime"),
    ("0", "core.model_runtime"),
)
MODEL_BASES = (("1.14.0", "base"), ("0", "__base"))
CLIENTS = (("1.3.1", "core.plugin.impl"), ("0", "core.plugin.manager"))


def current() -> str:
    return os.environ.get("STANDIN_VERSION") or "1.12.1"


def key(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("-")[0].split("."))


def has(name: str, version: str | None = None) -> bool:
    """Whether a release (the one this process stands in for, unless another is named) has a property."""
    this = key(version or current())
    if name not in SINCE and name not in UNTIL:
        raise KeyError(name)
    return key(SINCE.get(name, "0")) <= this <= key(UNTIL.get(name, "99"))


def pick(table: tuple[tuple[str, str], ...], version: str | None = None) -> str:
    """The newest entry of a table of (since, value) that applies."""
    return next(value for since, value in table if key(since) <= key(version or current()))


def head(version: str | None = None) -> tuple[str, int]:
    wanted = version or current()
    found = HEADS.get(wanted) or WAYPOINTS.get(wanted)
    if found is None:
        raise SystemExit(f"no stand-in for Dify {wanted}; known: {', '.join(HEADS)}")
    return found


if __name__ == "__main__":
    raise SystemExit(0 if sys.argv[1] == "has" and has(sys.argv[2]) else 1)
