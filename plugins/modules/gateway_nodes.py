#!/usr/bin/python
# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_nodes
short_description: Say which Ollama nodes a gateway passes calls to, and prove them through it
version_added: 0.1.0
description:
  - Keeps what the gateway of role C(llmops.stack.gateway) knows about its nodes, writes the configuration of HAProxy
    from it, has C(haproxy -c) judge that before it lands, and reloads only where something but the share of a node has
    changed. Calls that run meanwhile stay with the process that has them.
  - Runs on the host of the gateway, once for any number of nodes.
  - A node gets calls while it is ready. Draining takes it out for new calls and waits for those that run.
  - What a run that was killed had written but not told HAProxy, the next one tells it.
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target.
    support: full
    details:
      - Nothing is proved then, nobody is waited for, and nodes are shown as they are.
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: full
    details:
      - Shows nodes and settings, without the key.
options:
  state:
    description:
      - V(present) adds O(nodes) or brings them up to date, and with O(settings) alone only configures the gateway.
      - V(drained) has no new calls go to O(names), and waits up to O(deadline) until none of the gateway runs there.
        C(site.yml) puts a node back once it is proved, whoever has drained it; C(--limit) leaves out one that is to
        stay out.
      - V(ready) has calls go to O(names) again.
      - V(absent) forgets O(names).
    type: str
    choices: [present, drained, ready, absent]
    default: present
  nodes:
    description: The nodes with O(state=present).
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Its name in the inventory.
        type: str
        required: true
      address:
        description:
          - Where the gateway reaches it.
          - A name is looked up on the gateway's host by every task with O(state=present), for all nodes that are known.
            HAProxy itself does that only when it starts.
        type: str
        required: true
      port:
        description: The port of Ollama there.
        type: int
        default: 11434
      parallel:
        description:
          - Calls that each of its models answers at a time (C(OLLAMA_NUM_PARALLEL)); V(0) is Ollama's own default, 1.
        type: int
        default: 0
      models:
        description: The models that are proved on it, each with its digest.
        type: dict
        default: {}
      contents:
        description:
          - Something for each of its models that is equal on nodes that have the same one.
          - Servers write manifests in their own ways, so that digests may differ and the model be the same.
        type: dict
        default: {}
  names:
    description:
      - Nodes by name for V(drained), V(ready) and V(absent). One that the gateway does not know is left out of the
        result.
      - With V(present), the other nodes that there are. What is known of any further one gives way where a node has
        another model under a name, and with O(purge) it is forgotten.
    type: list
    elements: str
    default: []
  outdated:
    description:
      - With V(present), models by the name of the node that was known to have them and has them no more, or not for
        long. Where one of O(nodes) has another model under such a name, calls go to that one alone.
    type: dict
    default: {}
  purge:
    description: Whether V(present) forgets nodes that are neither in O(nodes) nor in O(names).
    type: bool
    default: false
  prove:
    description:
      - Whether V(present) asks each of O(nodes) for each of its models, through the gateway, before it passes calls to
        it.
      - The node has to list the model with the digest of the record, and the model has to answer. A node that fails is
        drained, keeps the models that it had, and is named in RV(unproved); the task does not fail.
      - V(false) has new nodes be ready at once.
    type: bool
    default: false
  deadline:
    description: Seconds for the calls of drained nodes to end, and for each proof of a model.
    type: int
    default: 600
  settings:
    description:
      - How the gateway serves, as role C(llmops.stack.gateway) gives it. Without it, that of the last time counts.
    type: dict
    suboptions:
      bind:
        description: Address to listen at.
        type: str
        default: 0.0.0.0
      port:
        description: Port to listen at.
        type: int
        default: 11434
      key:
        description: What callers must bring as C(Authorization) with C(Bearer) before it; empty asks for nothing.
        type: str
        default: ""
      max_queue:
        description: Calls of one model that may wait for a node.
        type: int
        default: 100
      queue_timeout:
        description: Seconds that a call may wait.
        type: int
        default: 300
      stream_timeout:
        description: Seconds of silence that end a call.
        type: int
        default: 14400
      check_interval:
        description: Seconds between two looks at a node.
        type: int
        default: 2
      stats_port:
        description: Port of the statistics page on 127.0.0.1, which has the metrics, too.
        type: int
        default: 11436
      metrics_bind:
        description: Another address to show metrics at; empty for none.
        type: str
        default: ""
      metrics_port:
        description: Its port.
        type: int
        default: 11437
      digests:
        description:
          - Models that may differ between nodes, each with V(any), or with the digest that calls are passed to.
          - Every other model must be the same on all nodes, by its digest or by the node's O(nodes[].contents).
        type: dict
        default: {}
  home:
    description: Folder of the gateway's files.
    type: path
    default: /etc/haproxy/llmops
seealso:
  - module: llmops.stack.gateway_info
author:
  - llmops.stack contributors (@llmops)
"""

EXAMPLES = r"""
- name: Take a node out before its server is stopped
  llmops.stack.gateway_nodes:
    state: drained
    names: [gpu1]
    deadline: 600
  delegate_to: gateway1

- name: Prove a batch of nodes through the gateway, and have calls go to those that pass
  llmops.stack.gateway_nodes:
    state: present
    prove: true
    nodes:
      - name: gpu1
        address: 192.0.2.11
        parallel: 4
        models:
          "llama3.2:latest": a80c4f17acd55265feec403c7aef86be0c25983ab279d83f3bcd3abbcb5b8b72
  delegate_to: gateway1
  run_once: true
"""

RETURN = r"""
nodes:
  description:
    - What the gateway knows, by the name of the node. Of V(drained) and V(ready), only O(names).
    - C(status) of a model is V(up), V(down), V(drained), or V(unknown) where HAProxy does not run.
    - C(proved) says whether this task has proved the model.
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
        "llama3.2:latest": {digest: a80c4f17, proved: true, status: up, running: 2, queued: 0, error: ""}
models:
  description: Each model with the nodes that have it, the calls that wait for one, and how many nodes are up.
  returned: success
  type: dict
  sample:
    "llama3.2:latest": {nodes: [gpu1], up: 1, queued: 0}
unproved:
  description: The nodes that did not pass, each with a sentence that says why.
  returned: success
  type: dict
  sample: {gpu2: "gpu2 does not have llama3.2:latest as it was proved there: it lists 3bcd3abb, not a80c4f17."}
busy:
  description: Drained nodes that still have calls after O(deadline), each with their number.
  returned: success
  type: dict
  sample: {gpu3: 1}
healthy:
  description: The nodes that get calls and answer.
  returned: success
  type: list
  elements: str
  sample: [gpu1]
reloaded:
  description: Whether HAProxy had to read its configuration again.
  returned: success
  type: bool
  sample: false
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.llmops.stack.plugins.module_utils._gateway_nodes import Gateway, GatewayError
from ansible_collections.llmops.stack.plugins.module_utils._http import HAS_REQUESTS, REQUESTS_IMPORT_ERROR


def arguments() -> dict[str, t.Any]:
    node = {
        "name": {"type": "str", "required": True},
        "address": {"type": "str", "required": True},
        "port": {"type": "int", "default": 11434},
        "parallel": {"type": "int", "default": 0},
        "models": {"type": "dict", "default": {}},
        "contents": {"type": "dict", "default": {}},
    }
    settings = {
        "bind": {"type": "str", "default": "0.0.0.0"},  # noqa: S104 - behind the firewall table of the role
        "port": {"type": "int", "default": 11434},
        "key": {"type": "str", "default": "", "no_log": True},
        "max_queue": {"type": "int", "default": 100},
        "queue_timeout": {"type": "int", "default": 300},
        "stream_timeout": {"type": "int", "default": 14400},
        "check_interval": {"type": "int", "default": 2},
        "stats_port": {"type": "int", "default": 11436},
        "metrics_bind": {"type": "str", "default": ""},
        "metrics_port": {"type": "int", "default": 11437},
        "digests": {"type": "dict", "default": {}},
    }
    return {
        "state": {"type": "str", "default": "present", "choices": ["present", "drained", "ready", "absent"]},
        "nodes": {"type": "list", "elements": "dict", "default": [], "options": node},
        "names": {"type": "list", "elements": "str", "default": []},
        "outdated": {"type": "dict", "default": {}},
        "purge": {"type": "bool", "default": False},
        "prove": {"type": "bool", "default": False},
        "deadline": {"type": "int", "default": 600},
        "settings": {"type": "dict", "options": settings},
        "home": {"type": "path", "default": "/etc/haproxy/llmops"},
    }


def main() -> None:
    module = AnsibleModule(argument_spec=arguments(), supports_check_mode=True)
    if module.params["prove"] and not HAS_REQUESTS:
        module.fail_json(msg=missing_required_lib("requests"), exception=REQUESTS_IMPORT_ERROR)
    try:
        result = Gateway(module.params, module.check_mode).run()
    except GatewayError as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
