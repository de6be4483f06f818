# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What differs between the plugin daemon's versions: one table, read by everything else and written nowhere else.

0.0.3, 0.2.0, 0.5.3 and 0.6.3 were recorded against the real program; the versions between them take the behaviour of
their recorded neighbour, except where a change is known to belong to a release.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

BASE_TABLES = (
    "agent_strategy_installations",
    "ai_model_installations",
    "endpoints",
    "install_tasks",
    "plugin_declarations",
    "plugin_installations",
    "plugins",
    "serverless_runtimes",
    "tenant_storages",
    "tool_installations",
)
LATER_TABLES = ("datasource_installations", "plugin_readme_records", "trigger_installations")


@dataclass(frozen=True)
class Generation:
    """Behaviour of one version. Defaults are those of 0.0.3; see VERSIONS for when each changed."""

    tables: tuple[str, ...] = BASE_TABLES
    structured_log: bool = False
    logs_trace: bool = False  # the trace_id of a request that has a traceparent
    failure_exit: int = 2  # configuration, database or Redis unusable at start
    migrates_itself: bool = True  # else only `commandline migrate` makes the tables
    reads_redis_db: bool = False
    counts_requests: bool = False  # active_requests, active_dispatch_requests in /health/check
    json_not_found: bool = False
    metrics: bool = False
    category_list: bool = False
    tenantless_dispatch: bool = False  # /v2/invoke
    paged_list: bool = False  # management/list is {"list", "total"}, not an array
    dark_icons: bool = False  # icon_dark, icon_*_dark, minimum_dify_version
    plugin_kinds: tuple[str, ...] = ("tools", "models", "endpoints", "agent_strategies")
    verification: bool = False  # that key in the reply to an upload
    third_party_category: bool = False  # ... filled for a package signed with the operator's own key
    task_source: bool = False
    decode_query: str = ""  # name of the query parameter of decode/from_identifier, "" = no such route
    decode_body: bool = False
    readme: bool = False
    detailed_errors: bool = False  # "failed to get plugin declaration", the installer's output in a failed task
    task_texts: tuple[str, str, str] = ("Installing", "Installed", "Installed")  # running, installed, upgraded
    repeat_refused: bool = True  # installing what is installed is an error instead of all_installed
    other_version_fails: bool = True  # ... in another version: a failed task instead of a success without effect
    upgrade_unknown_task: bool = False  # upgrading to a package never uploaded makes a task that fails
    upgrade_drops_declaration: bool = False
    uninstall_unknown_ok: bool = False
    uninstall_waits: bool = False  # until the process is gone
    needs_plugins_row: bool = False  # a file in plugin/ is started only if table plugins knows it and
    init_lock: bool = False  # its package is in plugin_packages/; environments are built under a Redis lock
    init_pauses: tuple[float, ...] = (30.0, 30.0, 30.0, 30.0)  # between the tries to build an environment
    rebuilds_broken_venv: bool = False
    verbose_installer: bool = False  # uv is told -vvv
    installer_cache: bool = False  # ... and gets a UV_CACHE_DIR beside the environments
    installs_projects: bool = False  # pyproject.toml comes before requirements.txt
    frozen_lock: bool = False  # ... and its uv.lock is taken as it is
    dead_hangs: bool = True  # a call to a dead process gets no answer, else "no proper instance"
    unprepared: str = "hang"  # a call while the environment is not ready: hang, empty (HTTP 500), no_node
    no_node_text: str = "no available node, plugin not found"
    restart_pauses: tuple[float, ...] = ()  # further seconds before the n-th restart of a process that never came up
    caches_installation: bool = False  # in Redis: dispatch survives PostgreSQL, and does not survive Redis
    rejects_null_content: bool = False
    tool_checked_by_daemon: bool = True
    prompt_messages_second: bool = True
    size_text: str = "File size exceeds the maximum limit"
    missing_asset_empty: bool = False
    connect_error: str = "host"  # wording of a failed connection to PostgreSQL
    shows_stale_connection: bool = False  # in the first reply after PostgreSQL went away


_0_0_3 = Generation()
_0_2_0 = replace(
    _0_0_3,
    reads_redis_db=True,
    counts_requests=True,
    paged_list=True,
    dark_icons=True,
    verification=True,
    decode_query="PluginUniqueIdentifier",
    decode_body=True,
    init_pauses=(0.1, 0.1, 0.1),
    unprepared="empty",
    prompt_messages_second=False,
    size_text="file size exceeds the maximum limit",
)
_0_3_3 = replace(_0_2_0, plugin_kinds=(*_0_2_0.plugin_kinds, "datasources"), tables=(*BASE_TABLES, LATER_TABLES[0]))
_0_4_1 = replace(
    _0_3_3, plugin_kinds=(*_0_3_3.plugin_kinds, "triggers"), readme=True, tables=BASE_TABLES + LATER_TABLES
)
_0_5_1 = replace(
    _0_4_1,
    structured_log=True,
    failure_exit=1,
    detailed_errors=True,
    task_texts=("starting", "installed", "upgraded"),
    repeat_refused=False,
    other_version_fails=False,
    uninstall_waits=True,
    needs_plugins_row=True,
    verbose_installer=True,
    init_lock=True,
    init_pauses=(),
    dead_hangs=False,
    unprepared="no_node",
    no_node_text="no available node, plugin runtime not found",
    restart_pauses=(0.0, 0.0, 30.0, 60.0, 240.0),
    caches_installation=True,
    tool_checked_by_daemon=False,
)
_0_5_3 = replace(_0_5_1, json_not_found=True, installs_projects=True, logs_trace=True)
_0_6_0 = replace(
    _0_5_3,
    migrates_itself=False,
    metrics=True,
    tenantless_dispatch=True,
    third_party_category=True,
    task_source=True,
    decode_query="plugin_unique_identifier",
    decode_body=False,
    upgrade_unknown_task=True,
    upgrade_drops_declaration=True,
    uninstall_unknown_ok=True,
    rebuilds_broken_venv=True,
    installer_cache=True,
    frozen_lock=True,
    rejects_null_content=True,
    missing_asset_empty=True,
    connect_error="user",
    shows_stale_connection=True,
)

VERSIONS: dict[str, Generation] = {
    "0.0.3": _0_0_3,
    "0.0.9": _0_0_3,
    "0.2.0": _0_2_0,
    "0.3.3": _0_3_3,
    "0.4.1": _0_4_1,
    "0.5.1": _0_5_1,
    "0.5.2": _0_5_1,
    "0.5.3": _0_5_3,
    "0.6.0": _0_6_0,
    "0.6.1": _0_6_0,
    "0.6.3": replace(_0_6_0, category_list=True),
}


def generation(version: str) -> Generation:
    """The behaviour of an image tag; the tag's -local suffix does not matter."""
    name = version.removesuffix("-local")
    if name not in VERSIONS:
        raise SystemExit(
            f"plugin daemon stand-in: version {version!r} is unknown, expected one of {', '.join(VERSIONS)}"
        )
    return VERSIONS[name]
