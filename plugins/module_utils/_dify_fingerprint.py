# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""What of an installation's data has to be the same after an upgrade, as one row count and one checksum for each table.

One form for every release: tables and columns that a release does not have are left out or count as NULL, and what an
upgrade writes anew without changing what it means (short provider names, old names of model types) is compared in its
new form. Ciphertexts are compared as a set, because releases keep them in different tables. The order of rows plays no
part, and nothing is written, not even a temporary table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._dify_versions import parse_version

__all__ = ["COLUMNS", "MODEL_TYPES", "columns_of", "compare", "fingerprint_of", "fingerprint_sql"]
__all__ += ["model_type_sql", "provider_sql"]

# Table -> columns that no release up to 1.16.0 drops or rewrites. A mark tells which form counts:
# * the plugin's name of a provider (ollama is langgenius/ollama/ollama), % the new names of model types,
# ~ hyphens for underscores (service_api became service-api).
TABLES: dict[str, str] = {
    "accounts": "id name email password password_salt status created_at",
    "account_integrates": "id account_id provider open_id",
    "tenants": "id name plan status encrypt_public_key created_at",
    "tenant_account_joins": "id tenant_id account_id role",
    "dify_setups": "version setup_at",
    "apps": "id tenant_id name mode status enable_site enable_api app_model_config_id workflow_id created_at",
    "app_model_configs": "id app_id pre_prompt model user_input_form agent_mode dataset_configs",
    "sites": "id app_id title code status",
    "api_tokens": "id app_id tenant_id type token",
    "installed_apps": "id tenant_id app_id",
    "workflows": "id tenant_id app_id type version graph features environment_variables conversation_variables",
    "tool_builtin_providers": "id tenant_id user_id provider* encrypted_credentials",
    "tool_api_providers": "id tenant_id name schema credentials_str",
    "tool_workflow_providers": "id tenant_id name app_id",
    "tags": "id tenant_id type name",
    "end_users": "id tenant_id app_id type~ session_id",
    "conversations": "id app_id app_model_config_id mode name status from_source from_end_user_id from_account_id"
    " is_deleted created_at",
    "messages": "id conversation_id app_id query answer message_tokens answer_tokens from_source from_end_user_id"
    " from_account_id status workflow_run_id parent_message_id created_at",
    "message_files": "id message_id type transfer_method upload_file_id url",
    "message_feedbacks": "id message_id rating content",
    "message_annotations": "id app_id question content",
    "datasets": "id tenant_id name provider permission indexing_technique index_struct embedding_model"
    " embedding_model_provider* collection_binding_id created_at",
    "dataset_process_rules": "id dataset_id mode rules",
    "documents": "id tenant_id dataset_id position name data_source_info indexing_status enabled archived doc_form"
    " word_count tokens created_at",
    "document_segments": "id document_id dataset_id position content answer index_node_id index_node_hash enabled"
    " status",
    "child_chunks": "id segment_id content index_node_id",
    "dataset_collection_bindings": "id provider_name* model_name type collection_name",
    "embeddings": "id hash model_name provider_name*",
    "app_dataset_joins": "id app_id dataset_id",
    "upload_files": "id tenant_id storage_type key name size extension hash used",
    "tool_files": "id tenant_id file_key mimetype",
    "workflow_runs": "id tenant_id app_id workflow_id status inputs outputs total_tokens total_steps created_at",
    "workflow_node_executions": "id workflow_run_id node_id node_type status inputs process_data outputs"
    " execution_metadata",
    "workflow_app_logs": "id workflow_run_id app_id created_by",
    "providers": "id tenant_id provider_name* provider_type is_valid",
    "provider_models": "id tenant_id provider_name* model_name model_type% is_valid",
    "tenant_default_models": "id tenant_id provider_name* model_name model_type%",
    "tenant_preferred_model_providers": "id tenant_id provider_name* preferred_provider_type",
    "provider_model_settings": "id tenant_id provider_name* model_name model_type% enabled load_balancing_enabled",
    "load_balancing_model_configs": "id tenant_id provider_name* model_name model_type% name enabled",
    # The plugin daemon's own database.
    "plugin_installations": "tenant_id plugin_id plugin_unique_identifier runtime_type source",
    "plugins": "plugin_id plugin_unique_identifier install_type",
    "endpoints": "id hook_id tenant_id plugin_id settings",
    "tenant_storages": "tenant_id plugin_id size",
}
# Where ciphertexts of model providers are or were.
CIPHERTEXTS = (
    "providers",
    "provider_models",
    "load_balancing_model_configs",
    "provider_credentials",
    "provider_model_credentials",
)
SECRETS = "secrets"
# Names of model types that Dify stored before 1.14.1, and wants renamed by a command of 1.15.
MODEL_TYPES = {"text-generation": "llm", "embeddings": "text-embedding", "reranking": "rerank"}
_DIGIT_SUM = "coalesce(sum(('x' || substr({}, 1, 15))::bit(60)::bigint), 0)"
# The same text for the same value, whatever the server is set to.
_SAME_TEXT = (
    "SET timezone = 'UTC'; SET datestyle = 'ISO, MDY'; SET intervalstyle = 'postgres';"
    " SET extra_float_digits = 1; SET bytea_output = 'hex'; "
)

# Every column of every table of schema public. Not from information_schema, which hides what is not allowed.
COLUMNS = (
    "SELECT c.relname, a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid"
    " WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')"
    " AND a.attnum > 0 AND NOT a.attisdropped"
)

# Changes that belong to a release: items that may have fewer rows, or other contents, once it was crossed.
_FEWER = {"1.13.0": ("tenant_default_models",)}  # the newest of each workspace and type stays
_FILLED = {"1.12.0": ("message_annotations",)}  # questions that were NULL
# `flask data-migrate legacy-model-types` keeps one of two rows that mean the same.
_LEGACY_TYPES = (
    "tenant_default_models",
    "provider_model_settings",
    "provider_models",
    "load_balancing_model_configs",
    SECRETS,
)


def columns_of(rows: Iterable[Iterable[str]]) -> dict[str, set[str]]:
    """Table -> its columns, from what COLUMNS found."""
    found: dict[str, set[str]] = {}
    for table, column in rows:
        found.setdefault(table, set()).add(column)
    return found


def fingerprint_sql(columns: Mapping[str, set[str]]) -> str:
    """One statement, so one moment for all tables: item, rows, checksum."""
    parts = [
        f"SELECT '{table}', count(*), {_DIGIT_SUM.format('md5(' + _row(wanted, columns[table]) + ')')}"
        f' FROM public."{table}"'
        for table, wanted in TABLES.items()
        if table in columns
    ]
    sources = [
        f'SELECT md5(encrypted_config) AS h FROM public."{table}" WHERE encrypted_config IS NOT NULL'
        for table in CIPHERTEXTS
        if "encrypted_config" in columns.get(table, ())
    ]
    if sources:
        distinct = " UNION ".join(sources)
        parts.append(f"SELECT '{SECRETS}', count(*), {_DIGIT_SUM.format('h')} FROM ({distinct}) AS known")
    return _SAME_TEXT + (" UNION ALL ".join(parts) or "SELECT '', 0, 0 WHERE false")


def fingerprint_of(rows: Iterable[Iterable[str]]) -> dict[str, list[Any]]:
    """{item: [rows, checksum]}; a table that does not exist is not in it."""
    return {item: [int(count), checksum] for item, count, checksum in rows}


def compare(
    before: Mapping[str, Any], after: Mapping[str, Any], old: str = "", new: str = "", legacy_types: bool = False
) -> list[str]:
    """What is not the same, one sentence each; none when everything is there.

    C(old) and C(new) are the releases between which the upgrade ran: what their migrations change on purpose is
    allowed. C(legacy_types) says that the model types were given their new names in between. Without any of them
    nothing may differ, as after a rollback or a restore.
    """
    fewer, filled = _allowed(old, new, legacy_types)
    differences = []
    for item, (rows, checksum) in sorted(before.items()):
        if item not in after:
            if rows:
                differences.append(f"{item}: {_rows(rows)} before, and the table is gone")
            continue
        rows_after, checksum_after = after[item]
        if rows_after == rows:
            if checksum_after != checksum and item not in filled:
                differences.append(f"{item}: as many rows as before ({rows}), but not the same contents")
        elif not (rows_after < rows and item in fewer):
            differences.append(f"{item}: {_rows(rows)} before, {rows_after} after")
    return differences


def _allowed(old: str, new: str, legacy_types: bool) -> tuple[set[str], set[str]]:
    def crossed(first: str) -> bool:
        return bool(old and new) and parse_version(old) < parse_version(first) <= parse_version(new)

    fewer = {item for first, items in _FEWER.items() if crossed(first) for item in items}
    filled = {item for first, items in _FILLED.items() if crossed(first) for item in items}
    return fewer | (set(_LEGACY_TYPES) if legacy_types else set()), filled


def _row(wanted: str, present: set[str]) -> str:
    """SQL for a row as one text; a column that the release does not have counts as NULL."""
    values = []
    for marked in wanted.split():
        name, mark = marked.rstrip("*%~"), marked[-1]
        column = f'"{name}"'
        text = f"{column}::text"
        if name not in present:
            values.append("'-'")
            continue
        if mark == "*":
            text = provider_sql(column)
        elif mark == "%":
            text = model_type_sql(column)
        elif mark == "~":
            text = f"replace({column}, '_', '-')"
        values.append(f"coalesce({text}, '-')")
    return " || '|' || ".join(values)


def provider_sql(column: str) -> str:
    """A provider by the name that it has since plugins."""
    long = f"'langgenius/' || {column} || '/' || {column}"
    return f"CASE WHEN {column} = '' OR {column} LIKE '%/%' THEN {column} ELSE {long} END"


def model_type_sql(column: str) -> str:
    """A model type by its present name."""
    renamed = " ".join(f"WHEN '{old}' THEN '{new}'" for old, new in MODEL_TYPES.items())
    return f"CASE {column} {renamed} ELSE {column} END"


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"
