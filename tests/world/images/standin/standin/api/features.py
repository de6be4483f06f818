# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fixed objects of /system-features and /features, one step per recorded release."""

from __future__ import annotations

from typing import Any

from standin import versions

SIZE = {"enabled": False, "size": 0, "limit": 0}


def system_features() -> dict[str, Any]:
    if not versions.has("plugins"):
        return {
            "sso_enforced_for_signin": False,
            "sso_enforced_for_signin_protocol": "",
            "sso_enforced_for_web": False,
            "sso_enforced_for_web_protocol": "",
            "enable_web_sso_switch_component": False,
            **_sign_in(),
            "license": {"status": "none", "expired_at": ""},
        }
    size = 52428800 if versions.has("shipped_package_size") else 15728640
    data = {
        "sso_enforced_for_signin": False,
        "sso_enforced_for_signin_protocol": "",
        "enable_marketplace": True,
        "max_plugin_package_size": size,
        **_sign_in(),
        "license": {"status": "none", "expired_at": "", "workspaces": dict(SIZE)},
        "branding": {
            "enabled": False,
            "application_title": "",
            "login_page_logo": "",
            "workspace_logo": "",
            "favicon": "",
        },
        "webapp_auth": {
            "enabled": False,
            "allow_sso": False,
            "sso_config": {"protocol": ""},
            "allow_email_code_login": False,
            "allow_email_password_login": False,
        },
        "plugin_installation_permission": {"plugin_installation_scope": "all", "restrict_to_marketplace_only": False},
        "enable_change_email": True,
    }
    if versions.has("trial_features"):
        data |= {
            "plugin_manager": {"enabled": False},
            "trial_models": [],
            "enable_trial_app": False,
            "enable_explore_banner": False,
        }
    if versions.has("app_dsl_version_feature"):
        data["app_dsl_version"] = versions.pick(versions.DSL)
    if versions.has("learn_app_features"):
        data |= {
            "enable_app_deploy": False,
            "enable_collaboration_mode": True,
            "enable_creators_platform": True,
            "enable_learn_app": True,
            "rbac_enabled": False,
        }
        data["license"]["seats"] = dict(SIZE)
        del data["trial_models"]
    return data


def _sign_in() -> dict[str, Any]:
    return {
        "enable_email_code_login": False,
        "enable_email_password_login": True,
        "enable_social_oauth_login": False,
        "is_allow_register": False,
        "is_allow_create_workspace": False,
        "is_email_setup": False,
    }


def features() -> dict[str, Any]:
    data: dict[str, Any] = {
        "billing": {"enabled": False, "subscription": {"plan": "sandbox", "interval": ""}},
        "members": {"size": 0, "limit": 1},
        "apps": {"size": 0, "limit": 10},
        "vector_space": {"size": 0, "limit": 5},
        "annotation_quota_limit": {"size": 0, "limit": 10},
        "documents_upload_quota": {"size": 0, "limit": 50},
        "docs_processing": "standard",
        "can_replace_logo": False,
        "model_load_balancing_enabled": False,
        "dataset_operator_enabled": False,
    }
    if versions.has("plugins"):
        data |= {
            "education": {"enabled": False, "activated": False},
            "knowledge_rate_limit": 10,
            "webapp_copyright_enabled": False,
            "workspace_members": dict(SIZE),
            "is_allow_transfer_workspace": True,
        }
    if versions.has("trial_features"):
        data |= {
            "trigger_event": {"usage": 0, "limit": 3000, "reset_date": 0},
            "api_rate_limit": {"usage": 0, "limit": 5000, "reset_date": 0},
            "knowledge_pipeline": {"publish_enabled": False},
            "next_credit_reset_date": 0,
        }
    if versions.has("learn_app_features"):
        data["human_input_email_delivery_enabled"] = False
        del data["vector_space"]
    return data
