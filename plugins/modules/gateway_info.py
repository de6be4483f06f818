#!/usr/bin/python
# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_info
short_description: What a gateway knows about its Ollama nodes, and how they are
version_added: 0.1.0
description:
  - Reads what the gateway of role C(llmops.stack.gateway) knows about its nodes, and asks HAProxy how each of them is.
  - Runs on the host of the gateway. Changes nothing.
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target.
    support: full
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: none
options:
  home:
    description: Folder of the gateway's files.
    type: path
    default: /etc/haproxy/llmops
seealso:
  - module: llmops.stack.gateway_nodes
author:
  - llmops.stack contributors (@llmops)
"""

EXAMPLES = r"""
- name: See which nodes get calls
  llmops.stack.gateway_info:
  register: gateway
  delegate_to: gateway1
"""

RETURN = r"""
nodes:
  description:
    - What the gateway knows, by the name of the node. Nothing where no gateway was set up.
    - C(status) of a model is V(up), V(down), V(drained), or V(unknown) where HAProxy does not run.
  returned: success
  type: dict
  sample:
    gpu1:
      address: 192.0.2.11
      port: 11434
      parallel: 4
      state: ready
      status: up
      running: 2
      models:
        "llama3.2:latest": {digest: a80c4f17, proved: false, status: up, running: 2, queued: 0, error: ""}
models:
  description: Each model with the nodes that have it, the calls that wait for one, and how many nodes are up.
  returned: success
  type: dict
  sample:
    "llama3.2:latest": {nodes: [gpu1], up: 1, queued: 0}
healthy:
  description: The nodes that get calls and answer.
  returned: success
  type: list
  elements: str
  sample: [gpu1]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmops.stack.plugins.module_utils._gateway_nodes import GatewayError, look


def main() -> None:
    module = AnsibleModule(
        argument_spec={"home": {"type": "path", "default": "/etc/haproxy/llmops"}}, supports_check_mode=True
    )
    try:
        result = look(module.params["home"])
    except GatewayError as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
