# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tables, attached to the revisions that bring them: Dify's names and the columns that the facts name."""
from __future__ import annotations

ID = "id UUID PRIMARY KEY DEFAULT uuid_generate_v4()"
TIMES = "created_at TIMESTAMP NOT NULL DEFAULT now(), updated_at TIMESTAMP NOT NULL DEFAULT now()"
MODEL = "tenant_id UUID NOT NULL, provider_name VARCHAR(255) NOT NULL, model_name VARCHAR(255) NOT NULL, model_type VARCHAR(40) NOT NULL"

BASE = [
    'CREATE EXTENSION IF NOT EXISTS "uuid-ossp"',
    f"""CREATE TABLE accounts ({ID}, name VARCHAR(255) NOT NULL, email VARCHAR(255) NOT NULL, password VARCHAR(255),
        password_salt VARCHAR(255), interface_language VARCHAR(255), interface_theme VARCHAR(255), timezone VARCHAR(255),
        last_login_at TIMESTAMP, last_login_ip VARCHAR(255), status VARCHAR(16) NOT NULL DEFAULT 'active', {TIMES})""",
    f"""CREATE TABLE tenants ({ID}, name VARCHAR(255) NOT NULL, encrypt_public_key TEXT,
        plan VARCHAR(255) NOT NULL DEFAULT 'basic', status VARCHAR(255) NOT NULL DEFAULT 'normal', custom_config TEXT, {TIMES})""",
    f"""CREATE TABLE tenant_account_joins ({ID}, tenant_id UUID NOT NULL, account_id UUID NOT NULL, role VARCHAR(16) NOT NULL,
        current BOOLEAN NOT NULL DEFAULT false, {TIMES})""",
    "CREATE TABLE dify_setups (version VARCHAR(255) PRIMARY KEY, setup_at TIMESTAMP NOT NULL DEFAULT now())",
    f"""CREATE TABLE apps ({ID}, tenant_id UUID NOT NULL, name VARCHAR(255) NOT NULL, description TEXT NOT NULL DEFAULT '',
        mode VARCHAR(255) NOT NULL, icon_type VARCHAR(255), icon VARCHAR(255), icon_background VARCHAR(255),
        app_model_config_id UUID, workflow_id UUID, status VARCHAR(255) NOT NULL DEFAULT 'normal',
        enable_site BOOLEAN NOT NULL, enable_api BOOLEAN NOT NULL, max_active_requests INTEGER,
        use_icon_as_answer_icon BOOLEAN NOT NULL DEFAULT false, created_by UUID, updated_by UUID, {TIMES})""",
    f"""CREATE TABLE app_model_configs ({ID}, app_id UUID NOT NULL, provider VARCHAR(255), model_id VARCHAR(255), model TEXT,
        configs JSON, created_by UUID, updated_by UUID, {TIMES})""",
    f"""CREATE TABLE sites ({ID}, app_id UUID NOT NULL, title VARCHAR(255) NOT NULL, code VARCHAR(255), {TIMES})""",
    f"""CREATE TABLE api_tokens ({ID}, app_id UUID, tenant_id UUID, type VARCHAR(16) NOT NULL, token VARCHAR(255) NOT NULL,
        last_used_at TIMESTAMP, created_at TIMESTAMP NOT NULL DEFAULT now())""",
    f"""CREATE TABLE end_users ({ID}, tenant_id UUID NOT NULL, app_id UUID, type VARCHAR(255) NOT NULL, session_id VARCHAR(255)
        NOT NULL, {TIMES})""",
    f"""CREATE TABLE conversations ({ID}, app_id UUID NOT NULL, mode VARCHAR(255) NOT NULL, name VARCHAR(255) NOT NULL,
        inputs JSON, introduction TEXT, status VARCHAR(255) NOT NULL, from_end_user_id UUID, {TIMES})""",
    f"""CREATE TABLE messages ({ID}, app_id UUID NOT NULL, conversation_id UUID NOT NULL, inputs JSON, query TEXT NOT NULL,
        answer TEXT NOT NULL, message_tokens INTEGER NOT NULL DEFAULT 0, answer_tokens INTEGER NOT NULL DEFAULT 0,
        provider_response_latency DOUBLE PRECISION NOT NULL DEFAULT 0, parent_message_id UUID,
        status VARCHAR(255) NOT NULL DEFAULT 'normal', error TEXT, from_end_user_id UUID, {TIMES})""",
    f"""CREATE TABLE providers ({ID}, tenant_id UUID NOT NULL, provider_name VARCHAR(255) NOT NULL, provider_type VARCHAR(40)
        NOT NULL DEFAULT 'custom', encrypted_config TEXT, is_valid BOOLEAN NOT NULL DEFAULT false, {TIMES})""",
    f"CREATE TABLE provider_models ({ID}, {MODEL}, encrypted_config TEXT, is_valid BOOLEAN NOT NULL DEFAULT false, {TIMES})",
    f"""CREATE TABLE provider_model_settings ({ID}, {MODEL}, enabled BOOLEAN NOT NULL DEFAULT true,
        load_balancing_enabled BOOLEAN NOT NULL DEFAULT false, {TIMES})""",
    f"CREATE TABLE tenant_default_models ({ID}, {MODEL}, {TIMES})",
    f"""CREATE TABLE tenant_preferred_model_providers ({ID}, tenant_id UUID NOT NULL, provider_name VARCHAR(255) NOT NULL,
        preferred_provider_type VARCHAR(40) NOT NULL, {TIMES})""",
    f"""CREATE TABLE load_balancing_model_configs ({ID}, {MODEL}, name VARCHAR(255) NOT NULL, encrypted_config TEXT,
        enabled BOOLEAN NOT NULL DEFAULT true, {TIMES})""",
    f"""CREATE TABLE workflows ({ID}, tenant_id UUID NOT NULL, app_id UUID NOT NULL, type VARCHAR(255) NOT NULL,
        version VARCHAR(255) NOT NULL, graph TEXT NOT NULL, features TEXT NOT NULL, created_by UUID NOT NULL, {TIMES})""",
    f"""CREATE TABLE workflow_node_executions ({ID}, tenant_id UUID NOT NULL, app_id UUID NOT NULL, workflow_id UUID NOT NULL,
        node_id VARCHAR(255) NOT NULL, created_at TIMESTAMP NOT NULL DEFAULT now())""",
    f"CREATE TABLE datasets ({ID}, tenant_id UUID NOT NULL, name VARCHAR(255) NOT NULL, created_by UUID NOT NULL, {TIMES})",
    f"CREATE TABLE documents ({ID}, tenant_id UUID NOT NULL, dataset_id UUID NOT NULL, name VARCHAR(255) NOT NULL, doc_metadata JSON)",
]

# Number on the chain -> statements. Numbers are those of the releases that the facts attach the change to.
CHANGES: dict[int, list[str]] = {
    1: BASE,
    120: [f"""CREATE TABLE account_plugin_permissions ({ID}, tenant_id UUID NOT NULL,
        install_permission VARCHAR(16) NOT NULL DEFAULT 'everyone', debug_permission VARCHAR(16) NOT NULL DEFAULT 'everyone')"""],
    125: ["ALTER TABLE documents ALTER COLUMN doc_metadata TYPE JSONB USING doc_metadata::jsonb"],
    128: [f"CREATE TABLE workflow_draft_variables ({ID}, app_id UUID NOT NULL, node_id VARCHAR(255) NOT NULL, name VARCHAR(255))"],
    136: [f"""CREATE TABLE tenant_plugin_auto_upgrade_strategies ({ID}, tenant_id UUID NOT NULL,
        strategy_setting VARCHAR(16) NOT NULL DEFAULT 'fix_only', upgrade_time_of_day INTEGER NOT NULL DEFAULT 0,
        upgrade_mode VARCHAR(16) NOT NULL DEFAULT 'exclude', exclude_plugins JSON NOT NULL DEFAULT '[]',
        include_plugins JSON NOT NULL DEFAULT '[]', {TIMES})"""],
    140: [
        f"""CREATE TABLE provider_credentials ({ID}, tenant_id UUID NOT NULL, provider_name VARCHAR(255) NOT NULL,
            credential_name VARCHAR(255) NOT NULL, encrypted_config TEXT NOT NULL, {TIMES})""",
        f"CREATE TABLE provider_model_credentials ({ID}, {MODEL}, credential_name VARCHAR(255) NOT NULL, encrypted_config TEXT NOT NULL, {TIMES})",
        "ALTER TABLE provider_models ADD COLUMN credential_id UUID",
        "ALTER TABLE providers ADD COLUMN credential_id UUID",
        "ALTER TABLE load_balancing_model_configs ADD COLUMN credential_id UUID",
        """INSERT INTO provider_model_credentials (tenant_id, provider_name, model_name, model_type, credential_name, encrypted_config)
            SELECT tenant_id, provider_name, model_name, model_type, 'API_KEY1', encrypted_config FROM provider_models
            WHERE encrypted_config IS NOT NULL""",
        """UPDATE provider_models m SET credential_id = c.id FROM provider_model_credentials c WHERE c.tenant_id = m.tenant_id
            AND c.provider_name = m.provider_name AND c.model_name = m.model_name AND c.model_type = m.model_type""",
        "ALTER TABLE provider_models DROP COLUMN encrypted_config",
        "ALTER TABLE providers DROP COLUMN encrypted_config",
    ],
    145: ["ALTER TABLE messages ADD COLUMN app_mode VARCHAR(255)", "CREATE INDEX message_app_mode_idx ON messages (app_mode)"],
    161: ["CREATE INDEX message_created_at_id_idx ON messages (created_at, id)"],
    166: ["""DELETE FROM tenant_default_models a USING tenant_default_models b WHERE a.ctid < b.ctid AND a.tenant_id = b.tenant_id
            AND a.model_type = b.model_type""",
          "ALTER TABLE tenant_default_models ADD CONSTRAINT unique_tenant_default_model_type UNIQUE (tenant_id, model_type)"],
    195: ["ALTER TABLE tenant_plugin_auto_upgrade_strategies ADD COLUMN category VARCHAR(32) NOT NULL DEFAULT 'tool'",
          "ALTER TABLE apps ADD COLUMN maintainer UUID", "UPDATE apps SET maintainer = created_by"],
    200: ["ALTER TABLE sites ADD COLUMN input_placeholder VARCHAR(255)"],
}
