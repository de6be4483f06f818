#!/usr/bin/python
# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ollama_info
short_description: Say what an Ollama server is, has, and computes on
version_added: 0.1.0
author:
  - llmops.stack contributors (@llmops)
description:
  - Asks a server for its version and models, and reads from its log which settings it runs with and which devices it
    found when it started.
  - Compares what was wanted of the GPU with what the server decided. Ollama falls back to the CPU without an error, so
    this is a finding of its own, with the usual causes in the order in which they should be tried.
  - Waits for a server that is starting, or that is being replaced by another version, until O(deadline) is over. It
    does not wait for one that has failed for good.
  - A model in the list is no proof that it works. M(llmops.stack.ollama_model) proves that.
attributes:
  check_mode:
    description: Can run in C(check_mode) and return changed status prediction without modifying the target.
    support: full
    details:
      - Nothing is changed in either mode.
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
      - Address of the server.
      - It is not redirected and no proxy of the environment is used.
    type: str
    default: http://127.0.0.1:11434
  models_dir:
    description:
      - The server's model store on this host. A dangling link in it, which breaks the list of all models, is named.
      - Without it the store that the running server names in its log is taken, if it is no container.
    type: path
  unit:
    description:
      - Unit of systemd that runs the server. Its state and its journal are looked at.
      - Where there is no such unit, or no systemd, only the server itself is asked.
    type: str
    default: ollama.service
  container:
    description:
      - Container that runs the server, instead of O(unit).
    type: str
  expect_version:
    description:
      - Version that must answer, for example V(0.17.4).
    type: str
  expect_gpu:
    description:
      - What the server should compute on. V(nvidia) and V(amd) fail where it computes on the CPU, V(cpu) where it uses
        a GPU.
      - With V(auto) a GPU of the host that is not used is reported and is no failure.
    type: str
    choices: [auto, nvidia, amd, cpu]
    default: auto
  gpus:
    description:
      - The fact C(llmops_stack.gpus) of M(llmops.stack.stack_facts).
    type: list
    elements: dict
    default: []
  gpu:
    description:
      - The fact C(llmops_stack.gpu) of M(llmops.stack.stack_facts).
    type: dict
    default: {}
  deadline:
    description:
      - Seconds after which nothing is tried again. With V(0) there is exactly one look.
    type: float
    default: 30
  timeout:
    description:
      - Seconds that a single answer may take.
    type: float
    default: 5
  fail:
    description:
      - Whether the module fails where RV(ok) is false. With V(false) only RV(problems) says why.
    type: bool
    default: true
seealso:
  - module: llmops.stack.ollama_model
  - module: llmops.stack.stack_facts
"""

EXAMPLES = r"""
- name: Look at the host, for the GPUs
  llmops.stack.stack_facts:

- name: Wait for the new version and see that it uses the GPU
  llmops.stack.ollama_info:
    expect_version: "0.17.4"
    expect_gpu: nvidia
    gpus: "{{ ansible_facts['llmops_stack']['gpus'] }}"
    gpu: "{{ ansible_facts['llmops_stack']['gpu'] }}"
    models_dir: /usr/share/ollama/.ollama/models
    deadline: 60

- name: Which models are in memory, and how much of them on the GPU
  llmops.stack.ollama_info:
    container: ollama
    fail: false
  register: ollama
"""

RETURN = r"""
ok:
  description: Whether nothing is wrong.
  returned: always
  type: bool
  sample: true
problems:
  description: What is wrong and what to do about it, one sentence or two each.
  returned: always
  type: list
  elements: str
  sample: []
url:
  description: The server that was asked, without a login.
  returned: always
  type: str
  sample: http://127.0.0.1:11434
version:
  description: Version that answered, empty where none did.
  returned: always
  type: str
  sample: 0.17.4
service:
  description: The unit or container, empty where it cannot be looked at.
  returned: always
  type: dict
  contains:
    state:
      description: C(ActiveState) of the unit, or the status of the container.
      type: str
      sample: active
    sub:
      description: C(SubState) of the unit.
      type: str
      sample: running
    result:
      description: C(Result) of the unit, or the engine's error.
      type: str
      sample: success
    restarts:
      description: How often it was restarted by itself.
      type: int
      sample: 0
models:
  description: The models that the server lists or has in memory.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Name with tag.
      type: str
      sample: deepseek-r1:1.5b
    digest:
      description: Hash of the manifest, 64 digits.
      type: str
    size:
      description: Bytes of its files, as the manifest says.
      type: int
      sample: 1117322768
    loaded:
      description: Whether it is in memory.
      type: bool
      sample: true
    gpu_share:
      description: Share of its memory that is on a GPU, between 0 and 1. Null where it is not loaded.
      type: float
      sample: 1.0
    context_length:
      description: Tokens it was loaded with. Where it is not loaded, the longest it can have, or null.
      type: int
      sample: 4096
    expires_at:
      description: When it will be unloaded, empty where it is not loaded.
      type: str
      sample: "2026-11-22T20:13:36.69Z"
    capabilities:
      description: What it can do. Empty for a model whose weights the server cannot read.
      type: list
      elements: str
      sample: [completion, thinking]
settings:
  description:
    - The environment that the running server says it has, defaults included. Logins in it are masked.
    - Empty where its log is not to be had.
  returned: always
  type: dict
  sample: {OLLAMA_HOST: "http://127.0.0.1:11434", OLLAMA_KEEP_ALIVE: 5m0s}
compute:
  description: The devices that the running server found when it started. One called V(cpu) where it found no GPU.
  returned: always
  type: list
  elements: dict
  contains:
    id:
      description: The device's name for the driver.
      type: str
      sample: GPU-0aa928c0-ece6-7698-4db1-ac130bfe47b7
    library:
      description: What it computes with, V(CUDA), V(ROCm), V(Vulkan) or V(cpu), as the server writes it.
      type: str
      sample: CUDA
    name:
      description: Name of the device.
      type: str
      sample: NVIDIA GeForce RTX 5090
    driver:
      description: Version of the driver's interface.
      type: str
      sample: "12.8"
    compute:
      description: Compute capability, or the target of an AMD card.
      type: str
      sample: "12.0"
    total:
      description: Bytes of its memory, as exact as the log has them.
      type: int
      sample: 33715493273
    available:
      description: Bytes that were free.
      type: int
      sample: 33178622361
default_context:
  description: Tokens of context that the server gives a model by the memory of its GPUs. V(0) where it does not say so.
  returned: always
  type: int
  sample: 4096
gpu:
  description: The judgement about the GPU.
  returned: always
  type: dict
  contains:
    wanted:
      description: O(expect_gpu).
      type: str
      sample: nvidia
    decided:
      description: What the server computes on, one of V(nvidia), V(amd), V(vulkan), V(cpu) and V(unknown).
      type: str
      sample: cpu
    ok:
      description: Whether that is what was wanted.
      type: bool
      sample: false
    fallback:
      description: Whether it computes on the CPU although there is a GPU, or one was wanted.
      type: bool
      sample: true
    causes:
      description: Why, and what to do, the likeliest first. Also models of which only a part is on the GPU.
      type: list
      elements: str
      sample:
        - >-
          /dev/nvidia-uvm is missing, without which CUDA finds no card. Load it (modprobe nvidia_uvm; nvidia-modprobe
          -u -c 0), have it loaded at boot (/etc/modules-load.d), and restart the server.
log_tail:
  description: The last lines of the log that speak of errors, the last one last.
  returned: always
  type: list
  elements: str
  sample: []
"""

import re
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.llmops.stack.plugins.module_utils._http import HAS_REQUESTS, REQUESTS_IMPORT_ERROR, HttpError
from ansible_collections.llmops.stack.plugins.module_utils._ollama_api import ApiError, Ollama
from ansible_collections.llmops.stack.plugins.module_utils._ollama_gpu import WANTED, verdict
from ansible_collections.llmops.stack.plugins.module_utils._ollama_info import State, place
from ansible_collections.llmops.stack.plugins.module_utils._ollama_log import ServerLog, error_lines, parse_log
from ansible_collections.llmops.stack.plugins.module_utils._ollama_store import Store
from ansible_collections.llmops.stack.plugins.module_utils._urls import mask_urls

INTERVAL = 0.5
STOPPED_FOR = 3.0  # seconds for which a service must be down before nobody waits for it any more
RESTARTS = 3  # restarts during the wait that show that it will not come up


class OllamaInfo:
    """Options in, what the server is out."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params: dict[str, Any] = module.params
        self.url: str = self.params["url"].rstrip("/")
        self.expected = (self.params["expect_version"] or "").removeprefix("v")
        self.server = Ollama(self.url, timeout=self.params["timeout"])
        self.place = place(self.params["unit"], self.params["container"] or "")
        self.version = ""
        self.state = State()
        self.problems: list[str] = []

    def run(self) -> None:
        self._validate()
        problem = self._wait()
        log = self._log()
        models: list[dict[str, Any]] = []
        if self.version:
            try:
                models = self._models()
            except ApiError as exc:
                problem = problem or self._lists_fail(exc, log)
        if problem:
            self.problems.append(problem)
        gpu = self._gpu(log, models)
        if not gpu["ok"]:
            self.problems.append(_about_gpu(gpu))
        result = {
            "changed": False,
            "ok": not self.problems,
            "problems": self.problems,
            "url": mask_urls(self.url),
            "version": self.version,
            "service": self.state.public,
            "models": [{key: value for key, value in one.items() if not key.startswith("_")} for one in models],
            "settings": log.settings,
            "compute": log.compute,
            "default_context": log.default_context,
            "gpu": gpu,
            "log_tail": self._log_tail(),
        }
        if self.problems and self.params["fail"]:
            self.module.fail_json(msg=" ".join(self.problems), **result)
        self.module.exit_json(**result)

    def _log(self) -> ServerLog:
        log = parse_log(self.place.head()) if self.state.running else ServerLog()
        if self.version and log.settings and not log.compute:
            # A server answers after it has looked for GPUs; what it found may still be on its way into the journal.
            time.sleep(INTERVAL)
            log = parse_log(self.place.head())
        return log

    def _validate(self) -> None:
        if not re.match(r"^https?://[^\s/]+", self.url):
            self.module.fail_json(msg="url must begin with http:// or https:// and name a host")
        if self.params["deadline"] < 0:
            self.module.fail_json(msg="deadline must not be negative")
        if self.params["timeout"] <= 0:
            self.module.fail_json(msg="timeout must be greater than 0")

    def _wait(self) -> str:
        """Asks until the wanted version answers, or nothing more is to be hoped for; what is wrong then."""
        end = time.monotonic() + self.params["deadline"]
        down_since: float | None = None
        restarts: int | None = None
        while True:
            problem = self._ask()
            self.state = self.place.look()
            if not problem and self.state.gone and not self.state.missing:
                problem = f"Ollama {self.version} answers at {mask_urls(self.url)}, but not from where it should run."
            if not problem:
                return ""
            now = time.monotonic()
            restarts = self.state.restarts if restarts is None else min(restarts, self.state.restarts)
            down_since = (down_since or now) if self.state.gone else None
            if now >= end or self.state.restarts - restarts >= RESTARTS:
                return problem + self._because()
            if down_since is not None and now - down_since >= STOPPED_FOR:
                return problem + self._because()
            time.sleep(min(INTERVAL, max(0.0, end - now)))

    def _ask(self) -> str:
        """A sentence about what keeps the wanted version from answering, without the service's part in it."""
        self.version = ""
        try:
            self.version = self.server.version()
        except ApiError as exc:
            kind = exc.__cause__.kind if isinstance(exc.__cause__, HttpError) else ""
            if kind in ("timeout_read", "timeout_total"):
                return f"{exc} The server hangs."
            return str(exc)
        if not self.version:
            return f"What answers at {mask_urls(self.url)} is no Ollama: it names no version."
        if self.expected and self.version != self.expected:
            return f"Ollama {self.version} answers at {mask_urls(self.url)} and {self.expected} was expected."
        return ""

    def _because(self) -> str:
        """What the service is doing, what it said last, and the next step."""
        state = self.state
        sentences = [f"{state.what} {state.says}."] if state.what else []
        last = error_lines(self.place.tail(), 2, any_line=not state.running) if state.what else []
        if last and not (self.version and state.running):
            sentences.append("It said last: " + "; ".join(repr(one) for one in last) + ".")
        if self.version and state.running:
            program = self.place.program()
            runs = f" ({program})" if program else ""
            sentences.append(
                f"Either it still runs the old program{runs}: {self.place.restart()}; or another server has the port, "
                "which ss -ltnp shows."
            )
        elif self.version:
            sentences.append("So another server answers: ss -ltnp shows which. Stop it, then start the service.")
        elif state.running:
            sentences.append(
                "Look whether it listens there (OLLAMA_HOST), and for what it does: its log tells. If it hangs: "
                f"{self.place.restart()}."
            )
        elif state.missing:
            sentences.append("The role llmops.stack.ollama creates it.")
        elif last:
            sentences.append(f"Correct that, then {self.place.restart()}.")
        elif state.what:
            sentences.append(f"Start it ({self.place.restart()}); if it ends again, its log says why.")
        else:
            sentences.append("Start the server, or correct the address.")
        return " " + " ".join(sentences)

    def _lists_fail(self, exc: ApiError, log: ServerLog) -> str:
        text = f"{exc} "
        own = "" if self.params["container"] else log.settings.get("OLLAMA_MODELS", "")
        models_dir = self.params["models_dir"] or own
        dangling = Store(models_dir).dangling() if models_dir else []
        if dangling:
            several = f" and {len(dangling) - 1} more" if len(dangling) > 1 else ""
            return (
                f"{text}{dangling[0]}{several} is a link that leads nowhere, and one such link breaks the list of all "
                "models. Remove it, or bring back what it pointed to."
            )
        if exc.status == 500:
            return (
                f"{text}A link in the store's manifests that leads nowhere, or a folder that the server may not read, "
                "does that. Look there (find -xtype l), and give the store to the user of the service."
            )
        return text + f"The version came, the models did not: look into the server's log, then {self.place.restart()}."

    def _models(self) -> list[dict[str, Any]]:
        """What is listed, with what is in memory. Keys with an underscore are for the judgement alone."""
        memory = {str(one.get("name")): one for one in self.server.ps()}
        listed = {str(one.get("name")): one for one in self.server.tags()}
        names = [*listed, *(name for name in memory if name not in listed)]
        return [self._model(name, listed.get(name, {}), memory.get(name)) for name in names]

    def _model(self, name: str, tag: dict[str, Any], loaded: dict[str, Any] | None) -> dict[str, Any]:
        occupied, vram = int((loaded or {}).get("size") or 0), int((loaded or {}).get("size_vram") or 0)
        details = tag.get("details") or {}
        context = (loaded or {}).get("context_length") or details.get("context_length")
        return {
            "name": name,
            "digest": str(tag.get("digest") or (loaded or {}).get("digest") or ""),
            "size": int(tag.get("size") or 0),
            "loaded": loaded is not None,
            "gpu_share": round(min(1.0, vram / occupied), 3) if occupied else None,
            "context_length": context or None,
            "expires_at": str((loaded or {}).get("expires_at") or ""),
            "capabilities": self._capabilities(name, tag),
            "_memory": occupied,
            "_vram": vram,
        }

    def _capabilities(self, name: str, tag: dict[str, Any]) -> list[str]:
        """In the list itself in newer versions; there, and in the details, they lack where the weights do."""
        found = tag.get("capabilities")
        if found is None:
            try:
                found = (self.server.show(name) or {}).get("capabilities")
            except ApiError:
                found = None
        return [str(one) for one in found or ()]

    def _gpu(self, log: ServerLog, models: list[dict[str, Any]]) -> dict[str, Any]:
        wanted = self.params["expect_gpu"]
        evidence = {"version": self.version, "settings": log.settings, "remarks": log.remarks}
        if self.state.running:
            evidence.update(self.place.evidence(self.params["gpus"]))
        judged = [
            {"name": one["name"], "loaded": one["loaded"], "size_memory": one["_memory"], "size_vram": one["_vram"]}
            for one in models
        ]
        if not self.version:
            # A server that does not answer has decided nothing, and that is a problem of its own.
            return {"wanted": wanted, "decided": "unknown", "ok": True, "fallback": False, "causes": []}
        return verdict(wanted, self.params["gpus"], self.params["gpu"], log.compute, judged, evidence)

    def _log_tail(self) -> list[str]:
        return error_lines(self.place.tail(), any_line=not self.state.running) if self.state.what else []


def _about_gpu(gpu: dict[str, Any]) -> str:
    names = {"nvidia": "the NVIDIA GPU", "amd": "the AMD GPU", "cpu": "the CPU", "vulkan": "Vulkan"}
    where = names.get(gpu["decided"], "something unknown")
    causes = " ".join(gpu["causes"][:2])
    return f"Ollama should compute on {names[gpu['wanted']]} and computes on {where}. {causes}".strip()


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "default": "http://127.0.0.1:11434"},
            "models_dir": {"type": "path"},
            "unit": {"type": "str", "default": "ollama.service"},
            "container": {"type": "str"},
            "expect_version": {"type": "str"},
            "expect_gpu": {"type": "str", "choices": list(WANTED), "default": "auto"},
            "gpus": {"type": "list", "elements": "dict", "default": []},
            "gpu": {"type": "dict", "default": {}},
            "deadline": {"type": "float", "default": 30},
            "timeout": {"type": "float", "default": 5},
            "fail": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    if not HAS_REQUESTS:
        module.fail_json(msg=missing_required_lib("requests"), exception=REQUESTS_IMPORT_ERROR)
    OllamaInfo(module).run()


if __name__ == "__main__":
    main()
