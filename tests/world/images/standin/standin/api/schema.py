# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tables, attached to the revisions that bring them: Dify's names and the columns that the facts name."""

from __future__ import annotations

TIMES = "created_at TIMESTAMP NOT NULL DEFAULT now(), updated_at TIMESTAMP NOT NULL DEFAULT now()"
TEXT = "VARCHAR(255)"
NAME = f"{TEXT} NOT NULL"
MODEL = f"tenant_id UUID NOT NULL, provider_name {NAME}, model_name {NAME}, model_type VARCHAR(40) NOT NULL"
AUTHORS = "created_by UUID, updated_by UUID"


def table(name: str, *columns: str, times: str = TIMES) -> str:
    parts = ["id UUID PRIMARY KEY DEFAULT uuid_generate_v4()", *columns, *([times] if times else [])]
    return f"CREATE TABLE {name} ({', '.join(parts)})"


BASE = [
    'CREATE EXTENSION IF NOT EXISTS "uuid-ossp"',
    f"CREATE TABLE dify_setups (version {TEXT} PRIMARY KEY, setup_at TIMESTAMP NOT NULL DEFAULT now())",
    table(
        "accounts",
        f"name {NAME}, email {NAME}, password {TEXT}, password_salt {TEXT}, interface_language {TEXT}",
        f"interface_theme {TEXT}, timezone {TEXT}, last_login_at TIMESTAMP, last_login_ip {TEXT}",
        "status VARCHAR(16) NOT NULL DEFAULT 'active'",
    ),
    table(
        "tenants",
        f"name {NAME}, encrypt_public_key TEXT, plan {NAME} DEFAULT 'basic', status {NAME} DEFAULT 'normal'",
        "custom_config TEXT",
    ),
    table(
        "tenant_account_joins",
        "tenant_id UUID NOT NULL, account_id UUID NOT NULL, role VARCHAR(16) NOT NULL",
        "current BOOLEAN NOT NULL DEFAULT false",
    ),
    table(
        "apps",
        f"tenant_id UUID NOT NULL, name {NAME}, description TEXT NOT NULL DEFAULT '', mode {NAME}, icon_type {TEXT}",
        f"icon {TEXT}, icon_background {TEXT}, app_model_config_id UUID, workflow_id UUID",
        f"status {NAME} DEFAULT 'normal', enable_site BOOLEAN NOT NULL, enable_api BOOLEAN NOT NULL",
        "max_active_requests INTEGER, use_icon_as_answer_icon BOOLEAN NOT NULL DEFAULT false",
        AUTHORS,
    ),
    table(
        "app_model_configs",
        f"app_id UUID NOT NULL, provider {TEXT}, model_id {TEXT}, model TEXT, configs JSON",
        AUTHORS,
    ),
    table("account_integrates", f"account_id UUID NOT NULL, provider VARCHAR(16) NOT NULL, open_id {NAME}"),
    table("installed_apps", "tenant_id UUID NOT NULL, app_id UUID NOT NULL, app_owner_tenant_id UUID NOT NULL"),
    table("app_dataset_joins", "app_id UUID NOT NULL, dataset_id UUID NOT NULL"),
    table("tags", f"tenant_id UUID, type VARCHAR(16) NOT NULL, name {NAME}, created_by UUID NOT NULL"),
    table("sites", f"app_id UUID NOT NULL, title {NAME}, code {TEXT}"),
    table(
        "api_tokens",
        f"app_id UUID, tenant_id UUID, type VARCHAR(16) NOT NULL, token {NAME}, last_used_at TIMESTAMP",
        times="created_at TIMESTAMP NOT NULL DEFAULT now()",
    ),
    table("end_users", f"tenant_id UUID NOT NULL, app_id UUID, type {NAME}, session_id {NAME}"),
    table(
        "conversations",
        f"app_id UUID NOT NULL, mode {NAME}, name {NAME}, inputs JSON, introduction TEXT, status {NAME}",
        f"from_source {NAME} DEFAULT 'api', from_end_user_id UUID, from_account_id UUID, app_model_config_id UUID",
        "is_deleted BOOLEAN NOT NULL DEFAULT false",
    ),
    table(
        "messages",
        "app_id UUID NOT NULL, conversation_id UUID NOT NULL, inputs JSON, query TEXT NOT NULL, answer TEXT NOT NULL",
        "message_tokens INTEGER NOT NULL DEFAULT 0, answer_tokens INTEGER NOT NULL DEFAULT 0",
        "provider_response_latency DOUBLE PRECISION NOT NULL DEFAULT 0, parent_message_id UUID",
        f"status {NAME} DEFAULT 'normal', error TEXT, from_source {NAME} DEFAULT 'api', from_end_user_id UUID",
        "from_account_id UUID, workflow_run_id UUID",
    ),
    table(
        "message_files",
        f"message_id UUID NOT NULL, type {NAME}, transfer_method {NAME}, url TEXT, upload_file_id UUID",
    ),
    table("message_feedbacks", f"app_id UUID NOT NULL, message_id UUID NOT NULL, rating {NAME}, content TEXT"),
    table(
        "message_annotations",
        "app_id UUID NOT NULL, conversation_id UUID, message_id UUID, question TEXT, content TEXT NOT NULL",
        "account_id UUID NOT NULL",
    ),
    table(
        "upload_files",
        f"tenant_id UUID NOT NULL, storage_type {NAME}, key {NAME}, name {NAME}, size INTEGER NOT NULL",
        f"extension {NAME}, mime_type {TEXT}, created_by UUID NOT NULL, used BOOLEAN NOT NULL DEFAULT false",
        f"hash {TEXT}",
    ),
    table("tool_files", f"tenant_id UUID NOT NULL, user_id UUID NOT NULL, file_key {NAME}, mimetype {NAME}"),
    table(
        "tool_builtin_providers",
        "tenant_id UUID NOT NULL, user_id UUID NOT NULL, provider VARCHAR(40) NOT NULL, encrypted_credentials TEXT",
    ),
    table(
        "providers",
        f"tenant_id UUID NOT NULL, provider_name {NAME}, provider_type VARCHAR(40) NOT NULL DEFAULT 'custom'",
        "encrypted_config TEXT, is_valid BOOLEAN NOT NULL DEFAULT false, quota_type VARCHAR(40) DEFAULT ''",
        "CONSTRAINT unique_provider_name_type_quota UNIQUE (tenant_id, provider_name, provider_type, quota_type)",
    ),
    table("provider_orders", f"tenant_id UUID NOT NULL, provider_name {NAME}, account_id UUID NOT NULL"),
    table("provider_models", MODEL, "encrypted_config TEXT, is_valid BOOLEAN NOT NULL DEFAULT false"),
    table(
        "provider_model_settings",
        MODEL,
        "enabled BOOLEAN NOT NULL DEFAULT true, load_balancing_enabled BOOLEAN NOT NULL DEFAULT false",
    ),
    table("tenant_default_models", MODEL),
    table(
        "tenant_preferred_model_providers",
        f"tenant_id UUID NOT NULL, provider_name {NAME}, preferred_provider_type VARCHAR(40) NOT NULL",
    ),
    table(
        "load_balancing_model_configs",
        MODEL,
        f"name {NAME}, encrypted_config TEXT, enabled BOOLEAN NOT NULL DEFAULT true",
    ),
    table(
        "workflows",
        f"tenant_id UUID NOT NULL, app_id UUID NOT NULL, type {NAME}, version {NAME}, graph TEXT NOT NULL",
        "features TEXT NOT NULL, created_by UUID NOT NULL, environment_variables TEXT NOT NULL DEFAULT '{}'",
        "conversation_variables TEXT NOT NULL DEFAULT '{}'",
    ),
    table(
        "workflow_node_executions",
        f"tenant_id UUID NOT NULL, app_id UUID NOT NULL, workflow_id UUID NOT NULL, node_id {NAME}",
        f"workflow_run_id UUID, node_type {TEXT}, status {TEXT}, inputs TEXT, process_data TEXT, outputs TEXT",
        "execution_metadata TEXT",
        times="created_at TIMESTAMP NOT NULL DEFAULT now()",
    ),
    table(
        "workflow_runs",
        "tenant_id UUID NOT NULL, app_id UUID NOT NULL, workflow_id UUID NOT NULL, sequence_number INTEGER",
        f"status {NAME}, inputs TEXT, outputs TEXT, total_tokens BIGINT NOT NULL DEFAULT 0",
        "total_steps INTEGER NOT NULL DEFAULT 0",
        times="created_at TIMESTAMP NOT NULL DEFAULT now()",
    ),
    table(
        "workflow_app_logs",
        "tenant_id UUID NOT NULL, app_id UUID NOT NULL, workflow_id UUID, workflow_run_id UUID NOT NULL",
        "created_by UUID NOT NULL",
        times="created_at TIMESTAMP NOT NULL DEFAULT now()",
    ),
    table(
        "datasets",
        f"tenant_id UUID NOT NULL, name {NAME}, created_by UUID NOT NULL, indexing_technique {TEXT}",
        f"embedding_model {TEXT}, embedding_model_provider {TEXT}, provider {NAME} DEFAULT 'vendor'",
        f"permission {NAME} DEFAULT 'only_me', index_struct TEXT, collection_binding_id UUID, retrieval_model JSONB",
    ),
    table("dataset_process_rules", f"dataset_id UUID NOT NULL, mode {NAME} DEFAULT 'automatic', rules TEXT"),
    table(
        "dataset_collection_bindings",
        f"provider_name {NAME}, model_name {NAME}, type VARCHAR(40) NOT NULL DEFAULT 'dataset', collection_name {NAME}",
    ),
    table(
        "embeddings",
        f"model_name {NAME} DEFAULT 'text-embedding-ada-002', hash {NAME}, embedding BYTEA NOT NULL",
        f"provider_name {NAME} DEFAULT ''",
    ),
    table(
        "documents",
        f"tenant_id UUID NOT NULL, dataset_id UUID NOT NULL, name {NAME}, doc_metadata JSON, data_source_info TEXT",
        f"batch {TEXT}, indexing_status {NAME} DEFAULT 'waiting', error TEXT",
        "word_count INTEGER NOT NULL DEFAULT 0, tokens INTEGER NOT NULL DEFAULT 0, position INTEGER NOT NULL DEFAULT 1",
        "enabled BOOLEAN NOT NULL DEFAULT true, archived BOOLEAN NOT NULL DEFAULT false",
        f"doc_form {NAME} DEFAULT 'text_model'",
        times="created_at TIMESTAMP NOT NULL DEFAULT now()",
    ),
    table(
        "document_segments",
        "tenant_id UUID NOT NULL, dataset_id UUID NOT NULL, document_id UUID NOT NULL, position INTEGER NOT NULL",
        f"content TEXT NOT NULL, answer TEXT, status {NAME} DEFAULT 'waiting', index_node_id {TEXT}",
        f"index_node_hash {TEXT}, enabled BOOLEAN NOT NULL DEFAULT true",
    ),
    table("child_chunks", f"segment_id UUID NOT NULL, content TEXT NOT NULL, index_node_id {TEXT}"),
]

SAME_MODEL = (
    "c.tenant_id = m.tenant_id AND c.provider_name = m.provider_name AND c.model_name = m.model_name "
    "AND c.model_type = m.model_type"
)
MODEL_COLUMNS = "tenant_id, provider_name, model_name, model_type"

# Number on the chain -> statements. Numbers are those of the releases that the facts attach the change to.
CHANGES: dict[int, list[str]] = {
    1: BASE,
    119: ["ALTER TABLE tool_builtin_providers ALTER COLUMN provider TYPE VARCHAR(256)"],
    120: [
        table(
            "account_plugin_permissions",
            "tenant_id UUID NOT NULL, install_permission VARCHAR(16) NOT NULL DEFAULT 'everyone'",
            "debug_permission VARCHAR(16) NOT NULL DEFAULT 'everyone'",
            times="",
        )
    ],
    125: [
        "ALTER TABLE documents ALTER COLUMN doc_metadata TYPE JSONB USING doc_metadata::jsonb",
        "CREATE INDEX document_metadata_idx ON documents USING gin (doc_metadata)",
    ],
    126: ["CREATE INDEX document_segment_node_dataset_idx ON document_segments (index_node_id, dataset_id)"],
    128: [table("workflow_draft_variables", f"app_id UUID NOT NULL, node_id {NAME}, name {TEXT}", times="")],
    130: ["ALTER TABLE workflow_runs DROP COLUMN sequence_number"],
    136: [
        "CREATE FUNCTION uuidv7() RETURNS uuid LANGUAGE sql VOLATILE AS 'SELECT gen_random_uuid()'",
        table(
            "tenant_plugin_auto_upgrade_strategies",
            "tenant_id UUID NOT NULL, strategy_setting VARCHAR(16) NOT NULL DEFAULT 'fix_only'",
            "upgrade_time_of_day INTEGER NOT NULL DEFAULT 0, upgrade_mode VARCHAR(16) NOT NULL DEFAULT 'exclude'",
            "exclude_plugins JSON NOT NULL DEFAULT '[]', include_plugins JSON NOT NULL DEFAULT '[]'",
        ),
    ],
    140: [
        table(
            "provider_credentials",
            f"tenant_id UUID NOT NULL, provider_name {NAME}, credential_name {NAME}, encrypted_config TEXT NOT NULL",
        ),
        table("provider_model_credentials", MODEL, f"credential_name {NAME}, encrypted_config TEXT NOT NULL"),
        "ALTER TABLE provider_models ADD COLUMN credential_id UUID",
        "ALTER TABLE providers ADD COLUMN credential_id UUID",
        "ALTER TABLE load_balancing_model_configs ADD COLUMN credential_id UUID",
        f"INSERT INTO provider_model_credentials ({MODEL_COLUMNS}, credential_name, encrypted_config) "
        f"SELECT {MODEL_COLUMNS}, 'API_KEY1', encrypted_config FROM provider_models WHERE encrypted_config IS NOT NULL",
        f"UPDATE provider_models m SET credential_id = c.id FROM provider_model_credentials c WHERE {SAME_MODEL}",
        "ALTER TABLE provider_models DROP COLUMN encrypted_config",
        "ALTER TABLE providers DROP COLUMN encrypted_config",
    ],
    145: [
        f"ALTER TABLE messages ADD COLUMN app_mode {TEXT}",
        "CREATE INDEX message_app_mode_idx ON messages (app_mode)",
    ],
    147: ["CREATE INDEX workflow_app_log_workflow_run_id_idx ON workflow_app_logs (workflow_run_id)"],
    155: ["CREATE INDEX workflow_runs_created_at_id_idx ON workflow_runs (created_at, id)"],
    156: ["CREATE INDEX message_annotation_message_idx ON message_annotations (message_id)"],
    159: [
        "UPDATE message_annotations a SET question = coalesce((SELECT m.query FROM messages m "
        "WHERE m.id = a.message_id), '') WHERE question IS NULL",
        "ALTER TABLE message_annotations ALTER COLUMN question SET NOT NULL",
    ],
    161: [
        "CREATE INDEX message_created_at_id_idx ON messages (created_at, id)",
        "DROP INDEX IF EXISTS workflow_node_executions_tenant_id_idx",
        "CREATE INDEX workflow_node_executions_run_idx ON workflow_node_executions (workflow_run_id)",
        "ALTER TABLE documents ADD COLUMN need_summary BOOLEAN DEFAULT false",
    ],
    165: [
        "DELETE FROM tenant_default_models a USING tenant_default_models b WHERE a.ctid < b.ctid "
        "AND a.tenant_id = b.tenant_id AND a.model_type = b.model_type",
        "ALTER TABLE tenant_default_models ADD CONSTRAINT unique_tenant_default_model_type "
        "UNIQUE (tenant_id, model_type)",
    ],
    167: ["CREATE INDEX conversation_created_at_idx ON conversations (app_id, created_at) WHERE is_deleted IS false"],
    195: [
        "UPDATE end_users SET type = 'service-api' WHERE type = 'service_api'",
        "ALTER TABLE datasets ADD COLUMN maintainer UUID",
        "UPDATE datasets SET maintainer = created_by",
        "ALTER TABLE tenant_plugin_auto_upgrade_strategies ADD COLUMN category VARCHAR(32) NOT NULL DEFAULT 'tool'",
        "ALTER TABLE apps ADD COLUMN maintainer UUID",
        "UPDATE apps SET maintainer = created_by",
    ],
    200: [f"ALTER TABLE sites ADD COLUMN input_placeholder {TEXT}"],
}
