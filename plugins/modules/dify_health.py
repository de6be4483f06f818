#!/usr/bin/python
# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: dify_health
short_description: Say whether a Dify installation works, and if not, why
version_added: 0.1.0
author:
  - llmops.stack contributors (@llmops)
description:
  - One call looks at everything that must work for Dify to answer a user, at once where that is possible, and again
    until all of it holds or O(deadline) is over.
  - Every check ends in time. A peer that accepts a connection and never answers is a finding of its own, because that
    is how a full API worker and a dead plugin process look.
  - The checks are, in this order, V(api), V(setup), V(web), V(database_head), V(containers), V(daemon), V(daemon_key),
    V(plugins), V(providers), V(install_tasks), V(model_servers), V(plugin_process), V(model), V(llm) and V(traces).
  - A check that was not asked for, lacks an option that it needs, or cannot say anything because another one failed, is
    V(skipped) and says so.
  - Dify before 1.0 has no plugin daemon. All checks of it are skipped there.
  - An installation without an owner account is healthy. V(setup) says so.
attributes:
  check_mode:
    description: Can run in C(check_mode) and return changed status prediction without modifying the target.
    support: full
    details:
      - Nothing is changed in either mode, so all checks run, except V(llm), whose chat leaves a conversation in Dify.
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in C(check_mode)), in diff mode.
    support: none
    details:
      - There is nothing to compare.
requirements:
  - requests
options:
  url:
    description:
      - Address under which users reach Dify. The checks go through the nginx in front of it, as users do.
      - It is not redirected and no proxy of the environment is used.
    type: str
    default: http://127.0.0.1
  plugin_daemon_url:
    description:
      - Address of the plugin daemon's port 5002. Stock compose files do not publish it.
    type: str
    default: http://127.0.0.1:5002
  plugin_daemon_key:
    description:
      - Value of E(PLUGIN_DAEMON_KEY). Without it, or O(secrets_file), the daemon is only asked whether it listens.
    type: str
  secrets_file:
    description:
      - The file on the host in which M(llmops.stack.dify_env) keeps the secrets. The key is taken from it where
        O(plugin_daemon_key) is not given, so that it never leaves the host, and none of its values is ever returned.
      - A file that does not exist counts as no key.
    type: path
  tenant_id:
    description:
      - Workspace whose plugins are looked at.
      - Without it the oldest workspace in the database of O(project) is taken.
    type: str
  expect_version:
    description:
      - Release that must be running, for example V(1.12.1).
    type: str
  expect_plugins:
    description:
      - Plugins that must be installed, as C(author/name), C(author/name:version) or a whole identifier.
    type: list
    elements: str
    default: []
  expect_providers:
    description:
      - Model providers that must be there, as C(author/plugin/provider) or by their short name.
    type: list
    elements: str
    default: []
  probe:
    description:
      - How far to go to prove that models work. Each level includes the ones before it.
      - V(none) asks no plugin anything.
      - V(process) asks each of O(expect_plugins) and the plugin of O(probe_model) for a sign of life, or every plugin
        with a model provider where none is named. With some vendors' plugins this makes one call to the vendor.
      - V(model) lets O(probe_model) answer one short question, or embed one word, through its plugin.
      - V(llm) asks through Dify itself, with O(app_key) or the one in O(app_key_file). It leaves one conversation of
        the user C(llmops-health-check), and is not repeated after it hung, because each such call keeps a slot of the
        API's worker.
    type: str
    choices: [none, process, model, llm]
    default: none
  probe_model:
    description:
      - Model that answers with O(probe=model). Needed for that, optional with the other levels.
    type: dict
    suboptions:
      plugin_id:
        description: Plugin that serves the model, as C(author/name).
        type: str
        required: true
      provider:
        description: The provider's short name in that plugin.
        type: str
        required: true
      model:
        description: Name of the model.
        type: str
        required: true
      model_type:
        description: What the model does.
        type: str
        choices: [llm, text-embedding]
        default: llm
      credentials:
        description:
          - What the plugin needs to reach the model. The daemon keeps no credentials, so they must be given here.
          - Values are sent as strings. C(base_url) is resolved inside the container of the plugin daemon.
        type: dict
        default: {}
      parameters:
        description:
          - Parameters of the model call. Without them the answer is limited to 256 tokens.
        type: dict
        default: {}
  app_key:
    description:
      - API key of a chat app in Dify. This or O(app_key_file) is needed with O(probe=llm).
    type: str
  app_key_file:
    description:
      - File on the host with that key, as the O(llmops.stack.dify_app#module:key_file) of M(llmops.stack.dify_app)
        writes it. The key never leaves the host.
      - Where the file does not exist, V(llm) is skipped and says what makes one.
    type: path
  traces:
    description:
      - Where the span of the chat that V(llm) asks must arrive. V(traces) looks for one of that moment and with the
        tokens of that answer, and says on which way it was lost where there is none.
      - Without this, and with a O(probe) below V(llm), V(traces) is skipped.
    type: dict
    suboptions:
      backend:
        description:
          - V(phoenix) is asked over its REST interface.
          - V(collector) stands for any backend that cannot be asked. The span must be in the log of
            O(traces.collector), and that must tell of no refusal.
        type: str
        choices: [none, collector, phoenix]
        default: none
      url:
        description: Address of Arize Phoenix, as this host reaches it. Needed with V(phoenix).
        type: str
      page:
        description: The same for a browser, for the address in RV(trace). By default O(traces.url).
        type: str
      headers:
        description: Headers with which Phoenix wants to be asked, such as C(Authorization).
        type: dict
        default: {}
      project:
        description: Project of Phoenix in which the spans are.
        type: str
        default: default
      collector:
        description:
          - Service of O(project) that is the OpenTelemetry Collector between Dify and the backend, whose log shows each
            span (debug exporter, verbosity normal). Needed with V(collector).
        type: str
      services:
        description:
          - Services of O(project) through which every span goes, collector and backend. One of them that is stopped is
            told at once, and nothing is waited for. By default O(traces.collector).
        type: list
        elements: str
        default: []
      target:
        description: Words for where the spans go.
        type: str
      wait:
        description: Seconds that a span may take.
        type: float
        default: 15
  project:
    description:
      - Compose project on this host whose containers must run, be healthy and not be restarting, and whose database
        must be at the head of the running release. Without it both checks are skipped.
    type: str
  services:
    description:
      - Services of O(project) that must have a container. By default those that the project's own files ask for.
    type: list
    elements: str
    default: []
  model_servers:
    description:
      - Base URLs of Ollama servers that must answer from inside the container in which O(project) calls models, which
        is C(plugin_daemon), and C(api) before Dify 1.0. Write them as they are written in Dify, for example
        C(http://host.docker.internal:11434).
    type: list
    elements: str
    default: []
  deadline:
    description:
      - Seconds after which nothing is tried again. With V(0) there is exactly one look.
    type: float
    default: 60
  interval:
    description:
      - Seconds between two looks.
    type: float
    default: 2
  successes:
    description:
      - How many looks in a row must find nothing wrong. Checks that ask a model are not repeated within such a row.
    type: int
    default: 1
  timeout:
    description:
      - Seconds that a single answer, other than a model's, may take.
    type: float
    default: 5
  probe_timeout:
    description:
      - Seconds that the whole answer of a model may take. A large model that is loaded for the first time takes
        minutes. O(deadline) cuts it short.
    type: float
    default: 120
  install_limit:
    description:
      - Seconds after which a plugin installation that is still running counts as dead.
    type: float
    default: 900
  validate_certs:
    description:
      - Whether to check the certificate of an https O(url).
    type: bool
    default: true
  ca_path:
    description:
      - File with the certificates to check it against. By default those of the Python library C(requests).
    type: path
  fail:
    description:
      - Whether the module fails when Dify is not healthy. With V(false) only RV(healthy) says so.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Wait until a fresh installation answers
  llmops.stack.dify_health:
    url: http://dify.example.com
    expect_version: "1.12.1"
    project: dify
    plugin_daemon_key: "{{ dify_secrets.PLUGIN_DAEMON_KEY }}"
    deadline: 300

- name: See that plugin and model work, down to the answer of the model
  llmops.stack.dify_health:
    url: http://dify.example.com
    project: dify
    plugin_daemon_key: "{{ dify_secrets.PLUGIN_DAEMON_KEY }}"
    expect_plugins:
      - langgenius/ollama:0.0.6
    expect_providers:
      - langgenius/ollama/ollama
    probe: model
    probe_model:
      plugin_id: langgenius/ollama
      provider: ollama
      model: deepseek-r1:1.5b
      credentials:
        base_url: http://host.docker.internal:11434
        mode: chat
        context_size: "4096"
        max_tokens: "4096"

- name: Ask Dify itself, and go on whatever it says
  llmops.stack.dify_health:
    url: http://dify.example.com
    probe: llm
    app_key_file: /opt/dify/probe.key
    fail: false
  register: health

- name: See that a call of a model leaves a span at Arize Phoenix
  llmops.stack.dify_health:
    url: http://dify.example.com
    project: dify
    probe: llm
    app_key_file: /opt/dify/probe.key
    traces:
      backend: phoenix
      url: http://127.0.0.1:6006
      collector: otel_collector
  register: health
"""

RETURN = r"""
healthy:
  description: Whether no check failed, O(successes) times in a row.
  returned: always
  type: bool
  sample: true
version:
  description: Release that answered, empty where none did.
  returned: always
  type: str
  sample: 1.12.1
checks:
  description: What was checked in the last look, in a fixed order.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Name of the check.
      type: str
      sample: daemon_key
    status:
      description: One of V(ok), V(failed) and V(skipped).
      type: str
      sample: failed
    detail:
      description: What was found, in one sentence.
      type: str
      sample: The plugin daemon refuses the key (HTTP 401).
    advice:
      description: What to do about it, empty unless it failed.
      type: str
      sample: >-
        PLUGIN_DAEMON_KEY must be the same for api, worker and plugin_daemon, and plugin_daemon_key the same as that:
        correct it and recreate these containers.
    seconds:
      description: How long it took.
      type: float
      sample: 0.012
    tokens:
      description: Tokens of the answer, of V(llm) only.
      type: int
      sample: 12
    tokens_per_second:
      description: >-
        Tokens of the answer by the seconds from the question to its end, of V(llm) only. All that Dify and a model that
        has to be loaded take counts.
      type: float
      sample: 8.4
trace:
  description: The span of the chat, empty where none was looked for or found.
  returned: always
  type: dict
  contains:
    trace_id:
      description: Id of the trace.
      type: str
      sample: 21c0fa9cd547d38dc97bcb2924942efa
    span_id:
      description: Id of the span in it.
      type: str
      sample: 5599791b0bcc15ec
    name:
      description: Name of the span.
      type: str
      sample: chat deepseek-r1:1.5b
    model:
      description: Model that was called.
      type: str
      sample: deepseek-r1:1.5b
    input_tokens:
      description: Tokens of the question.
      type: int
      sample: 11
    output_tokens:
      description: Tokens of the answer.
      type: int
      sample: 4
    time_to_first_chunk:
      description: Seconds from the call to the first piece of its answer.
      type: float
      sample: 0.214
    duration:
      description: Seconds of the whole call. A collector does not tell.
      type: float
      sample: 0.498
    outcome:
      description: One of V(ok), V(error) and V(cancelled).
      type: str
      sample: ok
    url:
      description: Page that shows the trace, empty where the backend has none that is known.
      type: str
      sample: http://127.0.0.1:6006/projects/UHJvamVjdDox/traces/21c0fa9cd547d38dc97bcb2924942efa
"""

import re
from typing import Any
from uuid import UUID

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.llmops.stack.plugins.module_utils._dify_health import check_health
from ansible_collections.llmops.stack.plugins.module_utils._dify_health_engine import PROBES, Options, explain
from ansible_collections.llmops.stack.plugins.module_utils._dify_secrets import secrets_of
from ansible_collections.llmops.stack.plugins.module_utils._http import HAS_REQUESTS, REQUESTS_IMPORT_ERROR

# Credentials that are no secrets. They would otherwise blank out words like "chat" in everything that is returned.
_PUBLIC_CREDENTIALS = re.compile(
    r"^(base_url|endpoint_url|mode|context_size|max_tokens(_to_sample)?|\w+_support|\w*model\w*|api_version|region)$"
)


class DifyHealth:
    """Options in, verdict out."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params: dict[str, Any] = module.params
        self._show_harmless_credentials()
        # A container's log may quote one of them, and the tail of a log may be part of a finding.
        self.secrets = secrets_of(module, self.params["secrets_file"])
        self.app_key = self.params["app_key"] or self._kept_key(self.params["app_key_file"])

    def _kept_key(self, path: str | None) -> str:
        if not path:
            return ""
        try:
            with open(path, encoding="utf-8") as file:
                key = file.read().strip()
        except FileNotFoundError:
            return ""
        except (OSError, ValueError) as exc:
            self.module.fail_json(msg=f"app_key_file cannot be read: {exc}")
        self.module.no_log_values.update({key} - {""})
        return key

    def _show_harmless_credentials(self) -> None:
        credentials = (self.params["probe_model"] or {}).get("credentials") or {}
        harmless = {
            str(value)
            for name, value in credentials.items()
            if _PUBLIC_CREDENTIALS.match(name) and "@" not in str(value)
        }
        secret = {str(value) for name, value in credentials.items() if not _PUBLIC_CREDENTIALS.match(name)}
        secret |= {str(self.params[name]) for name in ("plugin_daemon_key", "app_key") if self.params[name]}
        self.module.no_log_values -= harmless - secret

    def options(self) -> Options:
        params = self.params
        self._validate()
        model = dict(params["probe_model"] or {})
        if model:
            model["credentials"] = {name: _text(value) for name, value in model["credentials"].items()}
        return Options(
            url=params["url"].rstrip("/"),
            plugin_daemon_url=params["plugin_daemon_url"].rstrip("/"),
            plugin_daemon_key=params["plugin_daemon_key"] or self.secrets.get("PLUGIN_DAEMON_KEY", ""),
            tenant_id=params["tenant_id"] or "",
            expect_version=params["expect_version"] or "",
            expect_plugins=params["expect_plugins"],
            expect_providers=params["expect_providers"],
            probe=params["probe"],
            probe_model=model,
            app_key=self.app_key,
            app_key_file=params["app_key_file"] or "",
            traces=self._traces(),
            project=params["project"] or "",
            services=params["services"],
            model_servers=[url.rstrip("/") for url in params["model_servers"]],
            deadline=params["deadline"],
            interval=params["interval"],
            successes=params["successes"],
            timeout=params["timeout"],
            probe_timeout=params["probe_timeout"],
            install_limit=params["install_limit"],
            verify=(params["ca_path"] or True) if params["validate_certs"] else False,
            read_only=self.module.check_mode,
            secrets=frozenset(self.module.no_log_values),
        )

    def _traces(self) -> dict[str, Any]:
        traces = dict(self.params["traces"] or {})
        if traces:
            traces["headers"] = {str(name): str(value) for name, value in traces["headers"].items()}
        return traces

    def _validate(self) -> None:
        addresses = [(name, self.params[name]) for name in ("url", "plugin_daemon_url")]
        traces = self.params["traces"] or {}
        addresses += [(f"traces.{name}", traces[name]) for name in ("url", "page") if traces.get(name)]
        addresses += [("model_servers", address) for address in self.params["model_servers"]]
        for name, address in addresses:
            if not re.match(r"^https?://[^\s/]+", address):
                self.module.fail_json(msg=f"{name} must begin with http:// or https:// and name a host")
        if self.params["tenant_id"]:
            try:
                UUID(self.params["tenant_id"])
            except ValueError:
                self.module.fail_json(msg="tenant_id must be a UUID; it is the id of a workspace, not its name")
        for name in ("interval", "deadline"):
            if self.params[name] < 0:
                self.module.fail_json(msg=f"{name} must not be negative")
        if traces and traces["wait"] <= 0:
            self.module.fail_json(msg="traces.wait must be greater than 0")
        for name in ("timeout", "probe_timeout", "successes"):
            if self.params[name] <= 0:
                self.module.fail_json(msg=f"{name} must be greater than 0")

    def run(self) -> None:
        options = self.options()
        verdict = check_health(options)
        result = {
            "changed": False,
            "healthy": verdict.healthy,
            "version": verdict.version,
            "checks": [one.public() for one in verdict.results],
            "trace": verdict.trace,
        }
        if not verdict.healthy and self.params["fail"]:
            self.module.fail_json(msg=explain(verdict, options), **result)
        self.module.exit_json(**result)


def _text(value: Any) -> str:
    """Dify's plugins take all credentials as strings, and truth in small letters."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "default": "http://127.0.0.1"},
            "plugin_daemon_url": {"type": "str", "default": "http://127.0.0.1:5002"},
            "plugin_daemon_key": {"type": "str", "no_log": True},
            "secrets_file": {"type": "path", "no_log": False},
            "tenant_id": {"type": "str"},
            "expect_version": {"type": "str"},
            "expect_plugins": {"type": "list", "elements": "str", "default": []},
            "expect_providers": {"type": "list", "elements": "str", "default": []},
            "probe": {"type": "str", "choices": list(PROBES), "default": "none"},
            "probe_model": {
                "type": "dict",
                "options": {
                    "plugin_id": {"type": "str", "required": True},
                    "provider": {"type": "str", "required": True},
                    "model": {"type": "str", "required": True},
                    "model_type": {"type": "str", "choices": ["llm", "text-embedding"], "default": "llm"},
                    "credentials": {"type": "dict", "default": {}, "no_log": True},
                    "parameters": {"type": "dict", "default": {}},
                },
            },
            "app_key": {"type": "str", "no_log": True},
            "app_key_file": {"type": "path", "no_log": False},
            "traces": {
                "type": "dict",
                "options": {
                    "backend": {"type": "str", "choices": ["none", "collector", "phoenix"], "default": "none"},
                    "url": {"type": "str"},
                    "page": {"type": "str"},
                    "headers": {"type": "dict", "default": {}, "no_log": True},
                    "project": {"type": "str", "default": "default"},
                    "collector": {"type": "str"},
                    "services": {"type": "list", "elements": "str", "default": []},
                    "target": {"type": "str"},
                    "wait": {"type": "float", "default": 15},
                },
                "required_if": [("backend", "phoenix", ["url"]), ("backend", "collector", ["collector"])],
            },
            "project": {"type": "str"},
            "services": {"type": "list", "elements": "str", "default": []},
            "model_servers": {"type": "list", "elements": "str", "default": []},
            "deadline": {"type": "float", "default": 60},
            "interval": {"type": "float", "default": 2},
            "successes": {"type": "int", "default": 1},
            "timeout": {"type": "float", "default": 5},
            "probe_timeout": {"type": "float", "default": 120},
            "install_limit": {"type": "float", "default": 900},
            "validate_certs": {"type": "bool", "default": True},
            "ca_path": {"type": "path"},
            "fail": {"type": "bool", "default": True},
        },
        required_if=[("probe", "model", ["probe_model"]), ("probe", "llm", ["app_key", "app_key_file"], True)],
        supports_check_mode=True,
    )
    if not HAS_REQUESTS:
        module.fail_json(msg=missing_required_lib("requests"), exception=REQUESTS_IMPORT_ERROR)
    DifyHealth(module).run()


if __name__ == "__main__":
    main()
