#!/usr/bin/python
# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ollama_model
short_description: Have models of Ollama on a node, and proved to be there
version_added: 0.1.0
description:
  - Pulls, imports, updates and deletes models of an Ollama server on the managed host, and verifies them.
  - Ollama lists a model whose files are lost or damaged, and a pull over a damaged file answers V(success). So a model
    counts as verified here when every blob that its manifest names has the sha256 that its name promises and can be
    read by the service, and, with O(verify=probe), when it has answered one token.
  - What was hashed is remembered in C(.llmops-verified.json) in the store, by size, time of change and inode, so that
    a later run does not read it again.
  - Missing, truncated and damaged blobs, manifests that are garbage or links to nothing, and files that the service
    user cannot read are put right. The store belongs to the owner of O(models_dir).
  - Runs on the host of the store, as root or as its owner.
author:
  - llmops.stack contributors (@llmops)
requirements:
  - requests (Python library)
attributes:
  check_mode:
    description:
      - Tells what would be pulled, and how many bytes. What is there is verified as in a real run, because that
        changes nothing.
    support: full
  diff_mode:
    description: Returns the digest of each model before and after.
    support: full
options:
  name:
    description:
      - The model, as Ollama writes it; without a tag it is C(latest).
      - Models that run at ollama.com (C(cloud), C(-cloud)) are refused.
    type: str
  names:
    description: Several models. Blobs that they share are counted, hashed and fetched once.
    type: list
    elements: str
  state:
    description:
      - V(present) has the model. The registry is asked only for what is missing or damaged.
      - V(latest) also compares its manifest with the one of the registry, and pulls only if they differ.
      - V(absent) deletes it.
    type: str
    choices: [present, latest, absent]
    default: present
  verify:
    description:
      - V(none) looks whether the files are there and have the right size.
      - V(digest) hashes them, too.
      - V(probe) also has the model answer some tokens, of which one must come, or embed a word.
    type: str
    choices: [none, digest, probe]
    default: digest
  url:
    description: The address of the server.
    type: str
    default: http://127.0.0.1:11434
  models_dir:
    description: The store of the server, that is C(OLLAMA_MODELS) of the service.
    type: path
    default: /usr/share/ollama/.ollama/models
  registry:
    description:
      - A mirror, C(host[:port]), from which models are pulled instead of from the host in their name. They keep that
        name and their digest.
    type: str
    default: ""
  insecure:
    description: Speak plain http with the registry.
    type: bool
    default: false
  proxy:
    description:
      - Proxy through which this module asks a registry with TLS, as a URL. The server pulls through the one in its own
        environment, and so should this.
      - Where it cannot be used, what a pull takes is not known before it; O(state=latest) fails.
    type: str
    default: ""
  no_proxy:
    description: Hosts and networks, separated by commas, that are not asked through O(proxy).
    type: str
    default: ""
  bundle:
    description:
      - A folder on the managed host that looks like a store (C(manifests) and C(blobs)). Models come from there and
        from nowhere else.
    type: path
  deadline:
    description: Seconds after which pulls and imports are given up. What arrived is kept, and the next run goes on.
    type: float
    default: 7200
  stall:
    description: Seconds without a further byte after which an attempt to pull is given up.
    type: float
    default: 120
  probe_deadline:
    description: Seconds that a model has to load and answer.
    type: float
    default: 300
  force_digest:
    description: Hash all blobs, whatever is remembered of them.
    type: bool
    default: false
  defer:
    description:
      - For the action plugin. Does what is quick, and where a model has to be fetched or much has to be hashed it
        returns RV(deferred) without having started.
    type: bool
    default: false
  progress_file:
    description:
      - For the action plugin. A file that is written anew about twice a second while something takes long, with JSON
        (model, phase, digest, completed, total, percent, speed in bytes per second, eta in seconds or -1).
    type: path
"""

EXAMPLES = r"""
- name: Have a model that answers
  llmops.stack.ollama_model:
    name: deepseek-r1:1.5b
    verify: probe

- name: Have the newest of several, from a mirror
  llmops.stack.ollama_model:
    names: [deepseek-r1:1.5b, nomic-embed-text]
    state: latest
    registry: mirror.example.com:8080
    insecure: true

- name: Bring a model to a host without a network
  llmops.stack.ollama_model:
    name: deepseek-r1:1.5b
    bundle: /srv/bundle/models

- name: Read all files again, whatever is remembered of them
  llmops.stack.ollama_model:
    name: deepseek-r1:1.5b
    force_digest: true

- name: Delete a model
  llmops.stack.ollama_model:
    name: llama3
    state: absent
"""

RETURN = r"""
models:
  description: One entry for each model, also when the module fails.
  type: list
  elements: dict
  returned: always
  contains:
    name:
      description: The name as Ollama lists it.
      type: str
      sample: deepseek-r1:1.5b
    digest:
      description: The sha256 of the manifest, as the server lists it; empty if there is none.
      type: str
    size:
      description: Bytes of all that the manifest names.
      type: int
    action:
      description: What was done, or would be in check mode; V(none), V(pulled), V(updated), V(imported) or V(deleted).
      type: str
    verified:
      description: Whether all that O(verify) asks for was proved. Never true with O(verify=none).
      type: bool
    probe:
      description: The answer of the model; empty without one.
      type: dict
      contains:
        kind:
          description: V(generate) or V(embed).
          type: str
        tokens:
          description: Tokens of the answer; of the question, for an embedding.
          type: int
        tokens_per_second:
          description: The speed of that.
          type: float
        load_seconds:
          description: How long it took to load the model.
          type: float
    capabilities:
      description:
        - What the server says that the model can do, such as V(completion), V(embedding), V(tools) and V(vision). Of an
          old server that says nothing, V(completion) or V(embedding), by the way in which the model answered.
        - Empty where the server was not asked, or there is nothing to tell.
      type: list
      elements: str
    context_length:
      description:
        - How many tokens the loaded model takes, question and answer together; the server cuts what is longer, and says
          nothing. V(0) without a probe, and where the server does not tell.
      type: int
    healed:
      description: What was found damaged and put right, or would be in check mode.
      type: list
      elements: str
    missing_bytes:
      description: What a pull of this model transfers, as known before it.
      type: int
    error:
      description: What is wrong and what to do, where the wanted state was not reached.
      type: str
  sample:
    - name: deepseek-r1:1.5b
      digest: e0979632db5a88d1a53884cb2a941772d10ff5d055aabaa6801c4e36f3a6c2d7
      size: 1117322768
      action: pulled
      verified: true
      probe: {kind: generate, tokens: 8, tokens_per_second: 61.3, load_seconds: 1.2}
      capabilities: [completion, thinking]
      context_length: 4096
      healed: []
      missing_bytes: 1117322768
healed:
  description: What was put right in the store and belongs to none of these models.
  type: list
  elements: str
  returned: always
missing_bytes:
  description: What pulls of all these models transfer, as known before them. Shared blobs count once.
  type: int
  returned: always
bytes_transferred:
  description: What pulls of this run brought over the network.
  type: int
  returned: always
bytes_hashed:
  description: What this run read to verify it.
  type: int
  returned: always
deferred:
  description: Whether O(defer) left something to be done.
  type: bool
  returned: always
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.llmops.stack.plugins.module_utils._http import HAS_REQUESTS, REQUESTS_IMPORT_ERROR
from ansible_collections.llmops.stack.plugins.module_utils._ollama_item import ModelError, Options
from ansible_collections.llmops.stack.plugins.module_utils._ollama_model import Models
from ansible_collections.llmops.stack.plugins.module_utils._urls import logins


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str"},
            "names": {"type": "list", "elements": "str"},
            "state": {"type": "str", "choices": ["present", "latest", "absent"], "default": "present"},
            "verify": {"type": "str", "choices": ["none", "digest", "probe"], "default": "digest"},
            "url": {"type": "str", "default": "http://127.0.0.1:11434"},
            "models_dir": {"type": "path", "default": "/usr/share/ollama/.ollama/models"},
            "registry": {"type": "str", "default": ""},
            "insecure": {"type": "bool", "default": False},
            "proxy": {"type": "str", "default": "", "no_log": True},
            "no_proxy": {"type": "str", "default": ""},
            "bundle": {"type": "path"},
            "deadline": {"type": "float", "default": 7200},
            "stall": {"type": "float", "default": 120},
            "probe_deadline": {"type": "float", "default": 300},
            "force_digest": {"type": "bool", "default": False},
            "defer": {"type": "bool", "default": False},
            "progress_file": {"type": "path"},
        },
        mutually_exclusive=[("name", "names")],
        required_one_of=[("name", "names")],
        supports_check_mode=True,
    )
    if not HAS_REQUESTS:
        module.fail_json(msg=missing_required_lib("requests"), exception=REQUESTS_IMPORT_ERROR)
    module.no_log_values.update(logins(module.params["url"]))
    names = module.params.pop("names") or []
    name = module.params.pop("name")
    given: dict[str, Any] = {key: value for key, value in module.params.items() if value is not None}
    options = Options(**given)
    models = Models(options, module.check_mode, module.warn)
    try:
        result = models.run(names if name is None else [name])
    except (ModelError, OSError) as exc:
        module.fail_json(msg=str(exc), models=[one.result() for one in models.items])
    failed = [one for one in result["models"] if "error" in one]
    if failed:
        listed = " ".join(f"{one['name']}: {one['error']}" for one in failed)
        some = f"{len(failed)} of {len(result['models'])} models are not as wanted. " if len(failed) > 1 else ""
        module.fail_json(msg=some + listed, **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
