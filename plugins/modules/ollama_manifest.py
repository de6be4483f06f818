#!/usr/bin/python
# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ollama_manifest
short_description: What a registry has of models of Ollama, without fetching them
version_added: 0.1.0
description:
  - Asks a registry or a mirror for the manifests of models, and for the first kilobytes of their weights, in which a
    GGUF file says how many layers and heads the model has. From that follows, before a download, how much disk and
    memory it takes.
  - Needs nothing but Python, so that it runs on a host on which nothing has been installed yet.
  - A model that cannot be looked at is no failure of the module; its RV(models[].error) says why.
author:
  - llmops.stack contributors (@llmops)
attributes:
  check_mode:
    description: Changes nothing in any mode.
    support: full
  diff_mode:
    description: There is never a difference.
    support: none
options:
  names:
    description: The models, as Ollama writes them; without a tag it is C(latest).
    type: list
    elements: str
    required: true
  registry:
    description: A mirror, C(host[:port]), that is asked instead of the host in each name.
    type: str
    default: ""
  insecure:
    description: Speak plain http with the registry.
    type: bool
    default: false
  proxy:
    description: Proxy through which a registry with TLS is asked, as a URL.
    type: str
    default: ""
  no_proxy:
    description: Hosts and networks, separated by commas, that are not asked through O(proxy).
    type: str
    default: ""
  bundle:
    description: A folder on the managed host that looks like a store, which is looked at instead of a registry.
    type: path
seealso:
  - module: llmops.stack.ollama_model
"""

EXAMPLES = r"""
- name: How large is it, and what shape does it have
  llmops.stack.ollama_manifest:
    names: [deepseek-r1:14b]
  register: offered

- name: What a mirror has
  llmops.stack.ollama_manifest:
    names: [deepseek-r1:14b, nomic-embed-text]
    registry: mirror.example.com
    insecure: true
"""

RETURN = r"""
models:
  description: One entry for each name, in the order in which they were given.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Name with tag.
      type: str
      sample: deepseek-r1:14b
    digest:
      description: Hash of the manifest, 64 digits.
      type: str
    content:
      description: Equal for the same model, also where a server wrote its manifest in its own way.
      type: str
      sample: 0f0c4e1ab3d2
    size:
      description: Bytes of all its files.
      type: int
      sample: 8988124069
    weights:
      description: Bytes of those that are loaded, which are the weights with projectors and adapters.
      type: int
      sample: 8988110688
    layers:
      description: Its files, each with C(digest), C(size) and C(media_type).
      type: list
      elements: dict
    num_ctx:
      description: The context that its maker gave it, which wins over the server's own. V(0) where there is none.
      type: int
      sample: 0
    shape:
      description:
        - C(architecture), and the keys of the GGUF file that begin with it, such as C(block_count),
          C(attention.head_count_kv) and C(context_length).
        - Empty where the weights are in another format.
      type: dict
      sample: {architecture: qwen2, block_count: 48, attention.head_count: 40, attention.head_count_kv: 8}
    error:
      description: Why it could not be looked at, as a sentence. Not there where it could.
      type: str
    missing:
      description: Whether the source answered, and has no such model. Only with RV(models[].error).
      type: bool
"""

from concurrent.futures import ThreadPoolExecutor

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmops.stack.plugins.module_utils._ollama_names import parse
from ansible_collections.llmops.stack.plugins.module_utils._ollama_offer import Folder, Registry, Source, offer
from ansible_collections.llmops.stack.plugins.module_utils._ollama_registry import check_host

AT_A_TIME = 4


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "names": {"type": "list", "elements": "str", "required": True},
            "registry": {"type": "str", "default": ""},
            "insecure": {"type": "bool", "default": False},
            "proxy": {"type": "str", "default": "", "no_log": True},
            "no_proxy": {"type": "str", "default": ""},
            "bundle": {"type": "path"},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        names = [parse(one) for one in params["names"]]
        if params["registry"]:
            check_host(params["registry"])
    except ValueError as exc:
        module.fail_json(msg=str(exc))
    source: Source = (
        Folder(params["bundle"])
        if params["bundle"]
        else Registry(params["registry"], params["insecure"], params["proxy"], params["no_proxy"])
    )
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        models = list(pool.map(lambda name: offer(source, name), names))
    module.exit_json(changed=False, models=models)


if __name__ == "__main__":
    main()
