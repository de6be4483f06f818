# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.

"""What a state of the plugin daemon, a plugin or a model server means, and what to do about it: only words."""

from __future__ import annotations

import re

from ansible_collections.llmops.stack.plugins.module_utils._dify_daemon import cause_of_text

# cause -> (what was found, what to do)
DAEMON: dict[str, tuple[str, str]] = {
    "unauthorized": (
        "the plugin daemon refuses the key (HTTP 401)",
        "PLUGIN_DAEMON_KEY must be the same for api, worker and plugin_daemon, and plugin_daemon_key the same as that: "
        "correct it and recreate these containers.",
    ),
    "not_a_daemon": (
        "something answers there, but not as a plugin daemon",
        "plugin_daemon_url must lead to the daemon's port 5002; 5003 is its debugging port.",
    ),
    "empty": (
        "the plugin daemon broke during the call (HTTP 500 without a body)",
        "A daemon 0.2 does so while the plugin's Python environment is not ready: wait a minute, then restart "
        "plugin_daemon, and if it stays delete the plugin's folder in PLUGIN_WORKING_PATH before that.",
    ),
    "no_events": (
        "the plugin ended its answer without saying anything",
        "Read the log of plugin_daemon for what the plugin wrote, and restart it.",
    ),
    "not_installed": (
        "the plugin daemon does not know the plugin in this workspace",
        "Its installation is still running or has failed, or it is installed in another workspace: look at the newest "
        "install task, then install it again.",
    ),
    "no_node": (
        "the plugin is installed but its process was never started (no available node)",
        "For some seconds after a start of the daemon this is normal; if it lasts, the log of plugin_daemon names the "
        "cause: a package index that cannot be reached, or a package missing from plugin/ or plugin_packages/ in its "
        "storage, which only restoring both folders, or uninstalling and installing, repairs.",
    ),
    "no_instance": (
        "the plugin's process is dead or crashes again and again (no proper instance)",
        "After one crash it is back within 5 s; if it lasts, read the log of plugin_daemon for the plugin's own error, "
        "correct it and restart plugin_daemon, because a repaired plugin is not picked up by itself; a daemon without "
        "an init process (PID 1) kills its plugins all the time.",
    ),
    "hang": (
        "the plugin daemon took the call and never answered it",
        "The plugin's process is dead, stopped or crash-looping (daemons before 0.5 say nothing then), or died during "
        "the call: read the log of plugin_daemon and restart it.",
    ),
    "killed": (
        "the call ran into PLUGIN_MAX_EXECUTION_TIMEOUT (killed by timeout)",
        "The plugin's process died during the call, often for want of memory, or the model was too slow: look at both "
        "and try again.",
    ),
    "redirect": (
        "the plugin daemon passes calls on to a node that is gone",
        "Restart plugin_daemon, and see that no other daemon uses the same Redis database.",
    ),
    "no_tables": (
        "the plugin daemon's database has no tables",
        "Run `docker compose exec plugin_daemon /app/commandline migrate`; no restart is needed.",
    ),
    "bad_tenant": ("the plugin daemon takes tenant_id for no UUID", "Give the workspace's id as tenant_id."),
    "database": (
        "the plugin daemon cannot use PostgreSQL",
        "Check the PostgreSQL container and the daemon's DB_HOST, DB_USERNAME, DB_PASSWORD and DB_PLUGIN_DATABASE.",
    ),
    "redis": (
        "the plugin daemon cannot use Redis",
        "Check the Redis container and REDIS_HOST, REDIS_PORT and REDIS_PASSWORD.",
    ),
    "refused_request": (
        "the plugin daemon refuses the request",
        "See that provider, model and model_type in probe_model are what the plugin's own files say.",
    ),
    "other": ("the plugin daemon failed", "Read the log of plugin_daemon."),
}
# States in which the daemon's own words tell the operator more than ours.
QUOTED = ("database", "redis", "redirect", "refused_request", "other", "bad_tenant")

EMPTY_ANSWER = (
    "Ask the model server itself for an answer; a thinking model may need more tokens than the probe allows "
    "(probe_model.parameters), and a proxy's page in front of the model server looks like this too."
)

_REACH = (
    "Model addresses are resolved inside the plugin_daemon container (before Dify 1.0 the api container): use "
    "host.docker.internal or a service name in base_url, never localhost, and see that the model server listens there."
)
# (pattern, what was found ("" = quote the text), what to do); the first match wins.
_MODEL = (
    (
        r"Failed to request plugin daemon|Request to Plugin Daemon Service failed",
        "the API cannot reach its plugin daemon",
        "Start plugin_daemon, and see that PLUGIN_DAEMON_URL of api and worker is http://plugin_daemon:5002.",
    ),
    (
        r"PluginDaemonUnauthorizedError|401 Unauthorized",
        "the plugin daemon refuses the key of the API",
        "PLUGIN_DAEMON_KEY must be the same for api, worker and plugin_daemon: correct it and recreate them.",
    ),
    (
        r"gpt-2|tiktoken|vocab\.bpe|encoder\.json|tokenizer-data",
        "the plugin cannot load its token vocabulary",
        "TIKTOKEN_CACHE_DIR of plugin_daemon must point at the vocabulary that its image ships (/app/.tiktoken); no "
        "volume may hide it.",
    ),
    (
        r"No module named",
        "",
        "The plugin's Python environment is damaged: restart plugin_daemon, which builds it again.",
    ),
    (
        r"not found for provider|Provider `[^`]*` not found|Provider \S+ does not exist",
        "",
        "provider must be the short name in the plugin's own files (ollama, not langgenius/ollama/ollama), and its "
        "plugin must be installed.",
    ),
    (r"Name or service not known|NameResolutionError|failed to lookup", "the model server's name is unknown", _REACH),
    (
        r"No connection adapters|Invalid URL|No scheme supplied",
        "the model server's base_url is no URL",
        "Write base_url with its scheme, as in http://host.docker.internal:11434.",
    ),
    (
        r"status code:? 404|model .*not found",
        "",
        "The model server does not have this model, or base_url has a path too many: pull the model there.",
    ),
    (
        r"status code:? 40[13]|InvokeAuthorizationError",
        "the model server refuses the credentials",
        "Correct the api_key of the model.",
    ),
    (r"status code:? 5\d\d", "", "The model server, or a proxy before it, is in trouble: read its log."),
    (r"Connection refused|NewConnectionError|No route to host", "the model server cannot be reached", _REACH),
    (
        r"Read timed out|ReadTimeout",
        "the model server does not answer",
        "Look at the load of the model server; a model that is loaded for the first time can take minutes.",
    ),
    (
        r"Connection aborted|Connection reset|ended prematurely|ChunkedEncodingError",
        "the model server closed the connection during its answer",
        "Read the model server's log; a killed model process is the usual reason.",
    ),
    (
        r"KeyError.*done|'done'",
        "the model server failed during its answer",
        "Read the model server's log; this plugin loses the real error text.",
    ),
    (
        r"Expecting value|Non-JSON",
        "the model server's address answers with something that is not JSON",
        "base_url leads to a proxy or a web page: correct it, or the proxy.",
    ),
    (
        r"Input should be a valid string.*input_value=\[\]",
        "the answer is empty",
        EMPTY_ANSWER,
    ),
)


def model_trouble(text: str) -> tuple[str, str]:
    """What an error text of a model call means and what to do; ("", "") if it says nothing known.

    An empty first part means that the text itself is the best description.
    """
    cause = cause_of_text(text)
    # Texts about Redis and PostgreSQL are only recognisable where the daemon itself speaks.
    if cause in ("no_node", "no_instance", "killed", "redirect", "no_tables"):
        return DAEMON[cause]
    return next(((found, advice) for pattern, found, advice in _MODEL if re.search(pattern, text, re.DOTALL)), ("", ""))
