#!/usr/bin/python
# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: dify_model
short_description: Have models in a workspace of Dify, with their credentials and defaults
version_added: 0.1.0
description:
  - Adds models by name to Dify through its console API, changes their credentials in place, makes them the default of
    their type, and removes them. For Ollama and every other provider whose models are added by name.
  - A model never gets a second copy of a credential. What was written is read back.
  - Dify tries new credentials on the model before it stores them; what the provider objects to is in the error.
  - A value that somebody changed in the browser is reported in RV(drift) and left alone unless O(overwrite) says
    otherwise. With O(record) the module knows what it wrote, and so tells such a change from one in the inventory.
author:
  - llmops.stack contributors (@llmops)
extends_documentation_fragment:
  - llmops.stack.console
attributes:
  check_mode:
    description:
      - Tells what would be done. The credentials are not tried then. A provider whose plugin is missing is a warning,
        because the same run may install it.
    support: full
  diff_mode:
    description: Returns the credentials of each model before and after, without secrets.
    support: full
options:
  timeout:
    description: Seconds that a request may take, except those in which Dify tries a model.
  model:
    description: The name of the model, as its server knows it.
    type: str
  provider:
    description: The provider, short (V(ollama)) or as Dify names it (V(langgenius/ollama/ollama)).
    type: str
    default: ollama
  model_type:
    description: What the model is for.
    type: str
    choices: [llm, text-embedding, rerank, speech2text, tts, moderation]
    default: llm
  credentials:
    description:
      - What the provider's form asks for, for Ollama C(base_url), C(api_key), C(mode), C(context_size),
        C(max_tokens), C(vision_support) and C(function_call_support).
      - C(base_url) must be an address that Dify's plugin_daemon (before Dify 1.0 its api) reaches from its container.
      - Values are sent as text. What is required and missing is taken from the form's defaults.
      - Keys that are not given are left as they are.
    type: dict
    default: {}
  credential_name:
    description:
      - The name of the credential if one has to be made, from Dify 1.8 on. A model that has one already keeps it,
        whatever its name.
    type: str
    default: llmops.stack
  default:
    description:
      - Whether this model is the workspace's default of its type. V(false) leaves that as it is.
    type: bool
    default: false
  state:
    description: Whether the model is there. V(absent) removes it with all of its credentials.
    type: str
    choices: [present, absent]
    default: present
  models:
    description: Several models in one call, with one login.
    type: list
    elements: dict
    suboptions:
      model:
        description: As O(model).
        type: str
        required: true
      provider:
        description: As O(provider).
        type: str
        default: ollama
      model_type:
        description: As O(model_type).
        type: str
        choices: [llm, text-embedding, rerank, speech2text, tts, moderation]
        default: llm
      credentials:
        description: As O(credentials).
        type: dict
        default: {}
      credential_name:
        description: As O(credential_name).
        type: str
        default: llmops.stack
      default:
        description: As O(default).
        type: bool
        default: false
      state:
        description: As O(state).
        type: str
        choices: [present, absent]
        default: present
  overwrite:
    description:
      - Whether values that were changed by hand are set back, a credential that is not in use any more is used again,
        a disabled model is enabled, and another default is replaced.
    type: bool
    default: false
  record:
    description:
      - A file on the managed host, made with mode 0600, in which the module remembers what it wrote; of secrets only
        a salted hash.
      - Without it every value that differs counts as changed by hand, and a secret whose first six and last two
        characters are equal counts as equal.
    type: path
  deadline:
    description:
      - Seconds in which Dify's plugin platform, if it is just starting, must become able to try the credentials. An
        attempt itself may take up to 310 seconds, because a large model is loaded for it.
    type: float
    default: 120
"""

EXAMPLES = r"""
- name: A chat model of Ollama on the same host, as the default
  llmops.stack.dify_model:
    url: http://dify.example.com
    email: admin@example.com
    password: "{{ dify_admin_password }}"
    model: deepseek-r1:1.5b
    credentials:
      base_url: http://host.docker.internal:11434
      context_size: 8192
      max_tokens: 4096
    default: true
    record: /opt/dify/.llmops-console.json

- name: Several models in one call
  llmops.stack.dify_model:
    email: admin@example.com
    password: "{{ dify_admin_password }}"
    models:
      - model: deepseek-r1:1.5b
        credentials: {base_url: "http://gpu1.example.com:11434"}
      - model: nomic-embed-text
        model_type: text-embedding
        credentials: {base_url: "http://gpu1.example.com:11434", context_size: 2048}
        default: true

- name: Set back what was changed in the browser
  llmops.stack.dify_model:
    email: admin@example.com
    password: "{{ dify_admin_password }}"
    model: deepseek-r1:1.5b
    credentials: {base_url: "http://host.docker.internal:11434", context_size: 8192}
    overwrite: true

- name: Remove a model and its credentials
  llmops.stack.dify_model:
    email: admin@example.com
    password: "{{ dify_admin_password }}"
    model: llama3
    state: absent
"""

RETURN = r"""
models:
  description: One entry for each model, also when the module fails.
  type: list
  elements: dict
  returned: when Dify was asked
  contains:
    provider:
      description: The provider as this release names it.
      type: str
      sample: langgenius/ollama/ollama
    model:
      description: The name of the model.
      type: str
    model_type:
      description: Its type.
      type: str
    action:
      description: >-
        What was done, or would be in check mode: V(none), V(created), V(updated), V(switched) (a stored credential is
        in use again) or V(deleted). With RV(models[].error) it is V(none) where Dify refused, and else what may have
        been done.
      type: str
    credential_id:
      description: The id of the credential in use; empty before Dify 1.8.
      type: str
    credential_name:
      description: Its name; empty before Dify 1.8.
      type: str
    credentials:
      description: The credentials after the run, without secrets.
      type: dict
    default:
      description: Whether it is the default of its type. Looked up only with O(default).
      type: bool
    drift:
      description: What differs and was changed by hand.
      type: list
      elements: dict
      contains:
        key:
          description: A key of O(credentials), or V(credential), V(enabled) or V(default).
          type: str
        wanted:
          description: What was asked for.
          type: str
        found:
          description: What was found.
          type: str
        overwritten:
          description: Whether it was changed, or would be in check mode.
          type: bool
    error:
      description: What is wrong and what to do, where the wanted state was not reached.
      type: str
  sample:
    - provider: langgenius/ollama/ollama
      model: deepseek-r1:1.5b
      model_type: llm
      action: created
      credential_id: 7f4e7f0a-5b0c-4f6e-9a51-0a4a4f0b7a11
      credential_name: llmops.stack
      credentials: {base_url: "http://host.docker.internal:11434", mode: chat, context_size: "8192", max_tokens: "4096"}
      default: true
      drift: []
drift:
  description: The names of the models with values that were changed by hand and left alone.
  type: list
  elements: str
  returned: when Dify was asked
reason:
  description: >-
    Kind of the failure, for conditions. For example V(wrong_password), V(locked) and V(no_answer).
  returned: failure, where Dify let the module do nothing
  type: str
  sample: wrong_password
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmops.stack.plugins.module_utils._dify_console import ConsoleError
from ansible_collections.llmops.stack.plugins.module_utils._dify_console_module import (
    console_arguments,
    console_of,
    fail,
)
from ansible_collections.llmops.stack.plugins.module_utils._dify_model import Options, Wish, Workspace
from ansible_collections.llmops.stack.plugins.module_utils._dify_model_plan import harmless_values
from ansible_collections.llmops.stack.plugins.module_utils._dify_model_record import Record
from ansible_collections.llmops.stack.plugins.module_utils._urls import logins

ONE: dict[str, Any] = {
    "provider": {"type": "str", "default": "ollama"},
    "model_type": {
        "type": "str",
        "choices": ["llm", "text-embedding", "rerank", "speech2text", "tts", "moderation"],
        "default": "llm",
    },
    # Hidden until Dify's form says which of them are no secret.
    "credentials": {"type": "dict", "default": {}, "no_log": True},
    "credential_name": {"type": "str", "default": "llmops.stack"},
    "default": {"type": "bool", "default": False},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **console_arguments(),
            "model": {"type": "str"},
            **ONE,
            "models": {
                "type": "list",
                "elements": "dict",
                "options": {"model": {"type": "str", "required": True}, **ONE},
            },
            "overwrite": {"type": "bool", "default": False},
            "record": {"type": "path"},
            "deadline": {"type": "float", "default": 120.0},
        },
        mutually_exclusive=[("model", "models")],
        required_one_of=[("model", "models")],
        supports_check_mode=True,
    )
    params = module.params
    single = [{name: params[name] for name in ("model", *ONE)}] if params["model"] else []
    wishes = [Wish(**one) for one in params["models"] or single]
    _refuse_contradictions(module, wishes)
    console = console_of(module)
    options = Options(params["overwrite"], module.check_mode, params["deadline"], module.warn)
    workspace = Workspace(console, Record(params["record"] or ""), options)
    try:
        results = workspace.run(wishes)
    except ConsoleError as exc:
        fail(module, console, exc)
    except OSError as exc:
        module.fail_json(msg=f"record cannot be written: {exc}")
    else:
        _show_what_is_no_secret(module, workspace, wishes)
        _finish(module, results)


def _refuse_contradictions(module: AnsibleModule, wishes: list[Wish]) -> None:
    names = [(one.provider.rpartition("/")[2], one.model, one.model_type) for one in wishes]
    for name in names:
        if names.count(name) > 1:
            module.fail_json(msg=f"The model {name[1]} ({name[2]}) of {name[0]} is given twice.")
    types = [one.model_type for one in wishes if one.default and one.state == "present"]
    for model_type in types:
        if types.count(model_type) > 1:
            module.fail_json(msg=f"More than one model is to be the default of the type {model_type}; choose one.")
    for one in wishes:
        if len(one.credential_name) > 30 or not one.credential_name:
            module.fail_json(msg="credential_name must have 1 to 30 characters; Dify takes no other.")


def _show_what_is_no_secret(module: AnsibleModule, workspace: Workspace, wishes: list[Wish]) -> None:
    """Otherwise every "4096", "chat" and "true" of a result would be blanked."""
    harmless: set[str] = set()
    secret: set[str] = set(workspace.console.secrets)
    for one in wishes:
        shown, hidden = harmless_values(one.credentials, workspace.known_form(one.provider))
        harmless |= shown
        secret |= hidden
    for value in harmless:
        secret |= logins(value)
    module.no_log_values.difference_update(harmless - secret)
    module.no_log_values.update(secret - {""})


def _finish(module: AnsibleModule, results: list[dict[str, Any]]) -> None:
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    drift: list[str] = []
    for one in results:
        name = f"{one['provider']} {one['model']} ({one['model_type']})"
        before[name], after[name] = one.pop("before"), one.pop("after")
        kept = [entry for entry in one["drift"] if not entry["overwritten"]]
        for entry in kept:
            module.warn(
                f"{one['model']}: {entry['key']} is {entry['found'] or 'not set'} in Dify, where {entry['wanted']} is "
                "wanted. It was not set by this module and is left alone; overwrite: true sets it."
            )
        drift += [one["model"]] if kept else []
    changed = [one.pop("changed") for one in results]
    result: dict[str, Any] = {"changed": any(changed), "models": results, "drift": drift}
    if module._diff:
        result["diff"] = {"before": before, "after": after}
    failed = [one for one in results if "error" in one]
    if failed:
        some = f"{len(failed)} of {len(results)} models are not as wanted. " if len(failed) > 1 else ""
        module.fail_json(msg=some + " ".join(one["error"] for one in failed), **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
