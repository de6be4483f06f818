# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.

"""The ladder of checks of a Dify installation, and which rung stands on which."""

from __future__ import annotations

from ansible_collections.llmops.stack.plugins.module_utils._dify_health_api import (
    check_api,
    check_llm,
    check_setup,
    check_web,
)
from ansible_collections.llmops.stack.plugins.module_utils._dify_health_daemon import (
    check_daemon,
    check_daemon_key,
    check_install_tasks,
    check_model,
    check_plugin_process,
    check_plugins,
    check_providers,
)
from ansible_collections.llmops.stack.plugins.module_utils._dify_health_engine import Check, Options, Verdict, watch
from ansible_collections.llmops.stack.plugins.module_utils._dify_health_host import (
    check_containers,
    check_database_head,
)
from ansible_collections.llmops.stack.plugins.module_utils._dify_health_models import check_model_servers
from ansible_collections.llmops.stack.plugins.module_utils._dify_health_traces import check_traces

# In the order in which they are reported; the first failed one is the message. The API's answer names the release,
# which decides whether there is a plugin daemon and what head the database must have.
CHECKS = (
    Check("api", check_api),
    Check("setup", check_setup, needs=("api",)),
    Check("web", check_web),
    Check("database_head", check_database_head, after=("api",)),
    Check("containers", check_containers),
    Check("daemon", check_daemon, after=("api",)),
    Check("daemon_key", check_daemon_key, needs=("daemon",)),
    Check("plugins", check_plugins, needs=("daemon_key",)),
    Check("providers", check_providers, needs=("daemon_key",)),
    Check("install_tasks", check_install_tasks, needs=("daemon_key",)),
    Check("model_servers", check_model_servers),
    Check("plugin_process", check_plugin_process, needs=("plugins",), after=("providers",)),
    Check("model", check_model, needs=("plugin_process",)),
    Check("llm", check_llm, needs=("setup", "model")),
    Check("traces", check_traces, needs=("llm",), after=("containers",)),
)
_COSTLY = ("model", "llm", "traces")


def check_health(options: Options) -> Verdict:
    return watch(CHECKS, options, repeatable=[check.name for check in CHECKS if check.name not in _COSTLY])
