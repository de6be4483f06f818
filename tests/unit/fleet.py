# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The real site.yml and verify.yml, run by the real ansible-playbook over hosts that are files; most roles only say so.

What is tried is the order of things and what becomes of a failure; nothing here installs anything. A host is one file
with the version that it "has"; the gateway is one with its nodes.
"""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEAD = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}

ROLES = {
    "docker/tasks/main.yml": "- {name: 'Docker', ansible.builtin.debug: {msg: docker}}",
    "compose/tasks/main.yml": "- {name: 'Compose', ansible.builtin.debug: {msg: compose}}",
    "traceloop/tasks/preflight.yml": "- {name: 'Traceloop looks', ansible.builtin.debug: {msg: look}}",
    "traceloop/tasks/finish.yml": "- {name: 'Traceloop ends', ansible.builtin.debug: {msg: end}}",
    "traceloop/tasks/main.yml": """
        - {name: 'Traceloop', ansible.builtin.set_fact: {__traceloop_plan: {fragments: [], traces: {}}}}
    """,
    "dify/tasks/preflight.yml": """
        - name: Dify is lost early
          ansible.builtin.set_fact: {ansible_connection: ssh, ansible_port: 1}
          when: lost_early | default(false)
        - {name: 'Dify looks', ansible.builtin.raw: 'true'}
    """,
    "dify/tasks/main.yml": """
        - {name: 'Dify', ansible.builtin.debug: {msg: '{{ dify_ollama_nodes }}'}}
        - name: Dify is proved
          ansible.builtin.set_fact:
            __dify_health: {healthy: "{{ not ill | default(false) }}"}
            __dify_models: {models: [{credentials: {base_url: "{{ asked | default('http://192.0.2.9:11434') }}"}}]}
          when: not ansible_check_mode
        - {name: 'Dify fails', ansible.builtin.fail: {msg: ill}, when: ill | default(false)}
    """,
    "mirror/tasks/preflight.yml": "- {name: 'Mirror looks', ansible.builtin.debug: {msg: look}}",
    "mirror/tasks/main.yml": "- {name: 'Mirror', ansible.builtin.debug: {msg: mirror}}",
    "mirror/tasks/verify.yml": "- {name: 'Mirror is there', ansible.builtin.raw: 'true'}",
    "gateway/tasks/preflight.yml": "- {name: 'Gateway looks', ansible.builtin.debug: {msg: look}}",
    "gateway/tasks/main.yml": "- {name: 'Gateway', ansible.builtin.debug: {msg: '{{ gateway_clients }}'}}",
    "traceloop/tasks/verify.yml": "- {name: 'Traces', ansible.builtin.set_fact: {__traceloop_plan: {traces: {}}}}",
    "dify/tasks/verify.yml": "- {name: 'Dify is there', ansible.builtin.raw: 'true'}",
    "ollama/tasks/verify.yml": """
        - {name: 'Ollama is there', ansible.builtin.raw: 'true'}
        - {name: 'Ollama answers', ansible.builtin.set_fact: {__ollama_info: {version: "1", models: []}}}
    """,
    "ollama/tasks/preflight.yml": """
        - name: Ollama refuses
          ansible.builtin.assert: {that: not refused | default(false), fail_msg: not ready}
        - name: Ollama is lost early
          ansible.builtin.set_fact: {ansible_connection: ssh, ansible_port: 1}
          when: lost_early | default(false)
        - {name: 'Ollama is looked at', ansible.builtin.raw: 'true'}
        - name: Ollama looks
          ansible.builtin.set_fact:
            __ollama_bundled: {models: [{name: tiny, digest: "{{ 64 * content }}", content: "{{ content }}"}]}
            __ollama_plan: {gpu: "{{ kind }}", bind: 0.0.0.0, loopback: false, native: true, url: "http://node",
              lacking: "{{ ['more'] if lacks | default(false) else [] }}", given: {models: [tiny]}, store: /store,
              registry: "", registry_insecure: false, no_proxy: "",
              left_open: "{{ ['10.0.0.5'] if before | default(false) and ollama_leave_open else [] }}"}
            __ollama_found: {server: "1", unit: {models_dir: /store}}
            __ollama_changes:
              any: "{{ lookup('ansible.builtin.file', place) != version }}"
              differs: "{{ lookup('ansible.builtin.file', place) != version }}"
    """,
    "ollama/tasks/close.yml": """
        - {name: 'Ollama looks again', ansible.builtin.import_tasks: preflight.yml}
        - {name: 'Ollama closes', ansible.builtin.debug: {msg: '{{ __ollama_plan.left_open }}'}}
    """,
    "ollama/tasks/main.yml": """
        - {name: 'Ollama looks again', ansible.builtin.import_tasks: preflight.yml, when: ollama_look | bool}
        - {name: 'Ollama', ansible.builtin.debug: {msg: '{{ ollama_gateways }}'}}
        - name: Ollama is told
          ansible.builtin.debug: {msg: "{{ ollama_drain_seconds | int }}"}
        - name: Ollama drains
          ansible.builtin.include_tasks: drain.yml
          when: __ollama_changes.any and ollama_drain_at | length > 0 and not ansible_check_mode
        - name: Ollama is lost
          ansible.builtin.set_fact: {ansible_connection: ssh, ansible_port: 1}
          when: lost | default(false)
        - name: Ollama stops
          ansible.builtin.raw: "sleep {{ slow | default(0) }}"
        - name: Ollama fails
          ansible.builtin.fail: {msg: "{{ inventory_hostname }}: Ollama {{ version }} did not come up."}
          when: broken | default('') == version
        - name: Ollama changes
          ansible.builtin.raw: "printf %s {{ version }} > {{ place }}"
          when: __ollama_changes.any
        - name: Ollama proves
          ansible.builtin.set_fact: {__ollama_models: {models: [{name: "tiny:latest", digest: "{{ 'd' ~ version }}"}]}}
    """,
}

# They run on the control machine, and connect as the real ones do.
ACTIONS = {
    "gateway_nodes": """
        import fcntl, json, os, pathlib
        from ansible.plugins.action import ActionBase

        class ActionModule(ActionBase):
            def run(self, tmp=None, task_vars=None):
                super().run(tmp, task_vars)
                given = self._task.args
                if self._task.check_mode:
                    return {"changed": False, "nodes": {}, "healthy": [], "unproved": {}}
                self._low_level_execute_command("true")
                place = pathlib.Path(os.environ["FLEET"]) / "gateway.json"
                with open(place.with_suffix(".lock"), "w") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX)
                    nodes = json.loads(place.read_text())
                    unproved = {}
                    for node in given.get("nodes", []):
                        bad = node["name"] in os.environ.get("UNPROVED", "").split(",")
                        if bad:
                            unproved[node["name"]] = node["name"] + " does not answer."
                        nodes[node["name"]] = {"state": "drained" if bad else "ready", "models": node["models"]}
                    for name in given["names"] if given["state"] == "drained" else ():
                        if name in nodes:
                            nodes[name]["state"] = "drained"
                    if given.get("purge"):
                        nodes = {name: node for name, node in nodes.items() if name in given["names"]}
                    place.write_text(json.dumps(nodes))
                healthy = [name for name, node in nodes.items() if node["state"] == "ready"]
                left_out = os.environ.get("LEFT_OUT", "").split(",")
                models = {model: {} for node in nodes.values() for model in node["models"] if model not in left_out}
                return {"changed": False, "nodes": nodes, "models": models, "healthy": healthy, "unproved": unproved,
                        "busy": {}}
    """,
    "gateway_info": """
        import json, os, pathlib
        from ansible.plugins.action import ActionBase

        class ActionModule(ActionBase):
            def run(self, tmp=None, task_vars=None):
                self._low_level_execute_command("true")
                nodes = json.loads((pathlib.Path(os.environ["FLEET"]) / "gateway.json").read_text())
                nodes = {name: {"status": "up", **node} for name, node in nodes.items()}
                healthy = [name for name, node in nodes.items() if node["state"] == "ready"]
                models = {"tiny:latest": {"up": len(healthy)}} if nodes else {}
                return {"changed": False, "nodes": nodes, "healthy": healthy, "models": models}
    """,
    "ollama_info": """
        from ansible.plugins.action import ActionBase

        class ActionModule(ActionBase):
            def run(self, tmp=None, task_vars=None):
                return {"changed": False, "models": [{"name": "tiny:latest", "digest": "listed"}]}
    """,
    "ollama_model": """
        from ansible.plugins.action import ActionBase

        class ActionModule(ActionBase):
            def run(self, tmp=None, task_vars=None):
                return {"failed": True, "msg": "it needs a newer Ollama"}
    """,
}

CALLBACK = """
    import json, os
    from ansible.plugins.callback import CallbackBase

    class CallbackModule(CallbackBase):
        CALLBACK_VERSION = 2.0
        CALLBACK_TYPE = "aggregate"
        CALLBACK_NAME = "events"

        def write(self, result, what):
            said = result._result
            line = {"task": result._task.get_name(), "host": result._host.name, "what": what,
                    "msg": said.get("msg", ""), "args": result._task.args}
            with open(os.environ["FLEET"] + "/events", "a") as out:
                out.write(json.dumps(line, default=str) + chr(10))

        def v2_runner_on_ok(self, result): self.write(result, "ok")
        def v2_runner_on_failed(self, result, ignore_errors=False): self.write(result, "failed")
        def v2_runner_on_unreachable(self, result): self.write(result, "unreachable")
"""


class Event(NamedTuple):
    host: str
    task: str
    what: str
    msg: Any
    args: dict[str, Any]


class Run(NamedTuple):
    rc: int
    output: str
    events: list[Event]

    def hosts(self, task: str, what: str = "ok") -> list[str]:
        return [one.host for one in self.events if (one.task.split(" : ")[-1], one.what) == (task, what)]

    def said(self, task: str) -> list[Any]:
        return [one.msg for one in self.events if one.task.split(" : ")[-1] == task]


class Fleet:
    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.hosts: dict[str, dict[str, Any]] = {}
        self.groups: dict[str, list[str]] = {}
        self.variables: dict[str, Any] = {"version": "2", "ollama_models": ["tiny"], "kind": "cpu", "content": "a"}
        (folder / "gateway.json").write_text("{}")
        (folder / "ansible.cfg").write_text("")  # none that somebody has for himself
        self._collection()

    def _collection(self) -> None:
        home = self.folder / "collections/ansible_collections/llmops/stack"
        (home / "plugins/action").mkdir(parents=True)
        (home / "playbooks").mkdir()
        (home / "roles").mkdir()
        for name in ("plugins/filter", "plugins/module_utils", "roles/rollout", "roles/report"):
            (home / name).symlink_to(ROOT / name)
        for name in ("playbooks/site.yml", "playbooks/verify.yml"):
            (home / name).symlink_to(ROOT / name)
        for name, text in ROLES.items():
            (home / "roles" / name).parent.mkdir(parents=True, exist_ok=True)
            (home / "roles" / name).write_text(f"---\n{textwrap.dedent(text)}\n")
        (home / "roles/ollama/tasks/drain.yml").symlink_to(ROOT / "roles/ollama/tasks/drain.yml")
        for name in ("gateway/tasks/verify.yml", "gateway/vars", "ollama/vars"):
            (home / "roles" / name).symlink_to(ROOT / "roles" / name)
        (home / "roles/ollama/defaults").mkdir()
        (home / "roles/ollama/defaults/main.yml").write_text(
            "---\nollama_gateways: []\nollama_leave_open: false\nollama_drain_seconds: 600\n"
            "ollama_models_dir: /store\nollama_https_proxy: ''\nollama_bundle: ''\n"
            "ollama_pull_timeout: 9\nollama_pull_stall: 9\n"
        )
        for name, text in ACTIONS.items():
            (home / "plugins/action" / f"{name}.py").write_text(textwrap.dedent(text))
        (self.folder / "callback").mkdir()
        (self.folder / "callback/events.py").write_text(textwrap.dedent(CALLBACK))

    def add(self, group: str, *names: str, **variables: Any) -> None:
        for name in names:
            self.hosts.setdefault(name, {}).update(variables)
            self.groups.setdefault(group, []).append(name)
            self.place(name).write_text("1")

    def place(self, name: str) -> pathlib.Path:
        return self.folder / f"{name}.version"

    def versions(self) -> dict[str, str]:
        return {name: self.place(name).read_text() for name in self.groups["ollama"]}

    def in_service(self) -> None:
        """As a run has left it."""
        nodes = {name: {"state": "ready", "models": {}} for name in self.groups["ollama"]}
        (self.folder / "gateway.json").write_text(json.dumps(nodes))

    def gateway(self) -> dict[str, str]:
        nodes: dict[str, Any] = json.loads((self.folder / "gateway.json").read_text())
        return {name: node["state"] for name, node in nodes.items()}

    def _command(self, arguments: tuple[str, ...], playbook: str = "site.yml") -> list[str]:
        inventory = {
            "all": {
                "vars": {
                    "ansible_connection": "local",
                    "ansible_become": False,
                    "ansible_python_interpreter": sys.executable,
                    "place": f"{self.folder}/{{{{ inventory_hostname }}}}.version",
                    **self.variables,
                },
                "hosts": self.hosts,
                "children": {name: {"hosts": dict.fromkeys(hosts)} for name, hosts in self.groups.items()},
            }
        }
        (self.folder / "inventory.json").write_text(json.dumps(inventory))
        path = self.folder / "collections/ansible_collections/llmops/stack/playbooks" / playbook
        program = pathlib.Path(sys.executable).with_name("ansible-playbook")
        # An action of the control machine has no background.
        said = ["-e", "__ollama_drain_async=0"]
        return [str(program), "-i", str(self.folder / "inventory.json"), *said, str(path), *arguments]

    def _environment(self, more: dict[str, str]) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "LC_ALL": "C.UTF-8",
            "FLEET": str(self.folder),
            "ANSIBLE_CONFIG": str(self.folder / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(self.folder / "collections"),
            "ANSIBLE_CALLBACK_PLUGINS": str(self.folder / "callback"),
            "ANSIBLE_CALLBACKS_ENABLED": "events",
            "ANSIBLE_FORKS": "10",
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_INJECT_FACT_VARS": "false",
            **more,
        }

    def run(self, *arguments: str, **environment: str) -> Run:
        return self._run(self._command(arguments), environment)

    def verify(self, *arguments: str) -> Run:
        return self._run(self._command(arguments, "verify.yml"), {})

    def _run(self, command: list[str], environment: dict[str, str]) -> Run:
        (self.folder / "events").write_text("")
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
            cwd=self.folder,
            env=self._environment(environment),
        )
        return Run(done.returncode, done.stdout + done.stderr, list(self._events()))

    def killed(self, host: str, task: str) -> Run:
        """A run that is killed with all its children once a task before the long one has ended on the host."""
        (self.folder / "events").write_text("")
        process = subprocess.Popen(
            self._command(()),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self.folder,
            env=self._environment({}),
            start_new_session=True,
        )
        until = time.monotonic() + 120
        while not any((one.host, one.task.split(" : ")[-1]) == (host, task) for one in self._events()):
            assert time.monotonic() < until and process.poll() is None, list(self._events())
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)
        return Run(process.wait(), "", list(self._events()))

    def _events(self) -> Iterator[Event]:
        for line in (self.folder / "events").read_text().splitlines():
            yield Event(**json.loads(line))
