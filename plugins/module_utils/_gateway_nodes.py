# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""One task of M(llmops.stack.gateway_nodes): from what is asked to files, to HAProxy, and to what is seen of it."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils import _gateway_calls as calls
from ansible_collections.llmops.stack.plugins.module_utils import _gateway_state as rules
from ansible_collections.llmops.stack.plugins.module_utils._gateway_config import (
    ANY,
    CONFIG,
    Rendered,
    backend_of,
    place_of,
    render,
    weight_of,
)
from ansible_collections.llmops.stack.plugins.module_utils._gateway_files import Home
from ansible_collections.llmops.stack.plugins.module_utils._gateway_proof import Proof, prove
from ansible_collections.llmops.stack.plugins.module_utils._gateway_seen import described
from ansible_collections.llmops.stack.plugins.module_utils._gateway_socket import AdminSocket, Server, SocketError

__all__ = ["Gateway", "GatewayError", "Machine", "look"]

SERVICE = "llmops-gateway.service"
# Enough for a picture in a request, and for a model that is named after it.
BUFFER = 1024 * 1024
_RELOAD_SECONDS = 30


class GatewayError(Exception):
    """Something an operator must look at; the text is what they read."""


@dataclass
class Machine:
    """What a gateway is on its host."""

    socket: str = "/run/llmops-gateway/admin.sock"
    user: str = "haproxy"
    program: str = "haproxy"
    buffer: int = BUFFER
    reload: tuple[str, ...] = ("systemctl", "reload-or-restart", SERVICE)

    def command(self, *argv: str) -> str:
        """What it says where it fails, else nothing."""
        try:
            done = subprocess.run(argv, capture_output=True, text=True, timeout=90, check=False)
        except FileNotFoundError:
            return f"there is no {argv[0]} on this host"
        except subprocess.TimeoutExpired:
            return f"{' '.join(argv)} did not end within 90 s"
        return "" if done.returncode == 0 else (done.stderr or done.stdout).strip() or f"exit code {done.returncode}"


class Gateway:
    def __init__(self, params: Mapping[str, Any], check_mode: bool, machine: Machine | None = None) -> None:
        self.params = params
        self.check_mode = check_mode
        self.machine = machine or Machine()
        self.home = Home(params["home"])
        self.admin = AdminSocket(self.machine.socket)
        self.settings: dict[str, Any] = params["settings"] or {}
        self.nodes: rules.Nodes = {}
        self.found: dict[str, list[str]] = {}
        self.reloaded = False
        self.changed = False
        self.proofs: dict[str, Proof] = {}
        self.unproved: dict[str, str] = {}
        self.busy: dict[str, int] = {}

    def run(self) -> dict[str, Any]:
        """Raises: GatewayError."""
        try:
            kept = self.home.settings()
            before = self._told(kept, self.home.nodes())
            self.settings = self.settings or kept
            if not self.settings:
                raise GatewayError("There is no gateway on this host yet. Run role gateway first, as site.yml does.")
            getattr(self, f"_{self.params['state']}")()
        except (rules.StateError, SocketError) as exc:
            raise GatewayError(str(exc)) from exc
        return {
            "changed": self.changed,
            "reloaded": self.reloaded,
            "unproved": self.unproved,
            "busy": self.busy,
            **self._seen(),
            "diff": {"before": before, "after": self._told(self.settings, self.nodes)},
        }

    # -- what is asked ---------------------------------------------------------

    def _drained(self) -> None:
        self._change(lambda nodes: rules.with_state(nodes, self.params["names"], rules.DRAINED))
        if self.check_mode:
            return
        asked = {name: self.nodes[name] for name in self.params["names"] if name in self.nodes}
        ends = {name: calls.endpoints(place_of(node), node["port"]) for name, node in asked.items()}
        self.busy = calls.wait_until_none(ends, self.params["deadline"])

    def _ready(self) -> None:
        self._change(lambda nodes: rules.with_state(nodes, self.params["names"], rules.READY))

    def _absent(self) -> None:
        self._change(lambda nodes: rules.without(nodes, self.params["names"]))

    def _present(self) -> None:
        records = {str(one["name"]): rules.record(one) for one in self.params["nodes"]}
        digests = self.settings["digests"]
        stay = {*records, *self.params["names"]}
        places = {str(node["address"]) for node in (*self.home.nodes().values(), *records.values())}
        self.found = calls.resolved(place for place in places if not rules.is_address(place))
        if not self.params["prove"] or self.check_mode:
            proved = records if self.params["prove"] else ()
            self._change(
                lambda nodes: self._known(
                    rules.with_state(self._kept(nodes, stay), proved, rules.READY), records, digests
                )
            )
            return
        self._change(lambda nodes: rules.introduced(self._kept(nodes, stay), records))
        self.proofs = prove(self._url(), self.settings["key"], records, self.params["deadline"])
        self.unproved = {name: proof.error for name, proof in self.proofs.items() if proof.error}
        passed = {name: node for name, node in records.items() if name not in self.unproved}
        self._change(
            lambda nodes: rules.with_state(
                self._known(rules.with_state(nodes, passed, rules.READY), passed, digests), self.unproved, rules.DRAINED
            )
        )

    def _kept(self, nodes: rules.Nodes, stay: set[str]) -> rules.Nodes:
        return rules.without(nodes, set(nodes) - stay) if self.params["purge"] else nodes

    def _known(self, nodes: rules.Nodes, records: rules.Nodes, digests: Mapping[str, Any]) -> rules.Nodes:
        """The nodes with these records, but for those whose models are others under names that are in use."""
        made = rules.without(nodes, records)
        there = {*records, *self.params["names"]} if self.params["names"] else set(nodes)
        outdated = rules.outdated(nodes, there, self.params["outdated"])
        # Where two differ, the one that is as it was before stays.
        for name, node in sorted(records.items(), key=lambda one: rules.is_new(nodes, *one)):
            others = rules.giving_way(made, outdated, node, digests)
            clash = rules.other_digests(others, name, node, digests)
            old = nodes.get(name)
            if clash:
                self.unproved[name] = clash
                if old:
                    made[name] = old
            else:
                state = old["state"] if old else rules.READY
                made = others
                made[name] = {**node, "models": rules.allowed(node["models"], digests), "state": state}
        return dict(sorted(made.items()))

    # -- how it is done --------------------------------------------------------

    def _change(self, change: Callable[[rules.Nodes], rules.Nodes]) -> None:
        if self.check_mode:
            self._expect(self._placed(change, self.home.nodes()))
            return
        with self.home.locked():
            self._apply(self._placed(change, self.home.nodes()))

    def _placed(self, change: Callable[[rules.Nodes], rules.Nodes], before: rules.Nodes) -> rules.Nodes:
        return rules.placed(change(before), before, self.found)

    def _expect(self, nodes: rules.Nodes) -> None:
        self.nodes = nodes
        wanted = self._render(self.home.path)
        differs = self.home.differs(self.settings, nodes, wanted.files)
        self.changed = self.changed or differs or self.admin.stamp() != wanted.stamp

    def _apply(self, nodes: rules.Nodes) -> None:
        self.nodes = nodes
        wanted = self._render(self.home.path)
        if self.home.differs(self.settings, nodes, wanted.files):
            self._judge()
            self.home.keep(self.settings, nodes)
            self.home.land(wanted.files)
            self.changed = True
        if self.admin.stamp() != wanted.stamp:
            self._reload(wanted.stamp)
        else:
            self._weigh()

    def _render(self, home: str) -> Rendered:
        machine = self.machine
        own = {"socket": machine.socket, "user": machine.user, "buffer": machine.buffer}
        return render({**self.settings, **own}, self.nodes, home)

    def _judge(self) -> None:
        """Nothing lands that HAProxy would not start with."""
        with self.home.candidate() as beside:
            beside.land(self._render(beside.path).files)
            said = self.machine.command(self.machine.program, "-c", "-f", f"{beside.path}/{CONFIG}")
            if said:
                alerts = re.findall(
                    r"(?m)^\[ALERT\][^:]*: (?:config : )?(.*)$", said.replace(beside.path, self.home.path)
                )
                raise GatewayError(
                    "HAProxy does not take what the gateway is to be told, so nothing was changed: "
                    f"{alerts[0] if alerts else said}"
                )

    def _reload(self, stamp: str) -> None:
        said = self.machine.command(*self.machine.reload)
        # A master that is just starting may miss the signal.
        if not said and not self.admin.wait_for(stamp, _RELOAD_SECONDS / 2):
            said = self.machine.command(*self.machine.reload)
        if said or not self.admin.wait_for(stamp, _RELOAD_SECONDS / 2):
            raise GatewayError(
                f"HAProxy did not take over its new configuration: {said or 'the old one goes on'}. Look at "
                f"journalctl -u {SERVICE}; the next run tries it again."
            )
        self.changed = self.reloaded = True

    def _weigh(self) -> None:
        """A running process follows without a reload."""
        now = self.admin.servers()
        wanted = {}
        for name, node in self.nodes.items():
            for backend in (ANY, *map(backend_of, node["models"])):
                server = now.get((backend, name))
                if server and server.weight != weight_of(node):
                    wanted[backend, name] = weight_of(node)
        self.admin.set_weights(wanted)
        self.changed = self.changed or bool(wanted)

    def _url(self) -> str:
        bind = str(self.settings["bind"])
        asked = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bind, bind)  # noqa: S104 - compared, not bound
        return f"http://{f'[{asked}]' if ':' in asked else asked}:{self.settings['port']}"

    # -- what is seen ----------------------------------------------------------

    def _seen(self) -> dict[str, Any]:
        chosen = self.params["names"] if self.params["state"] in ("drained", "ready") else list(self.nodes)
        shown = {name: self.nodes[name] for name in chosen if name in self.nodes}
        return described(shown, self.nodes, self.proofs, _servers(self.admin))

    def _told(self, settings: Mapping[str, Any], nodes: rules.Nodes) -> str:
        shown = {name: value for name, value in settings.items() if name != "key"}
        return json.dumps({"settings": shown, "nodes": nodes}, indent=2, sort_keys=True) + "\n"


def look(home: str, machine: Machine | None = None) -> dict[str, Any]:
    """What a gateway knows and how its nodes are; changes nothing.

    Raises:
        GatewayError: its file cannot be read.
    """
    try:
        nodes = Home(home).nodes()
    except rules.StateError as exc:
        raise GatewayError(str(exc)) from exc
    return described(nodes, nodes, {}, _servers(AdminSocket((machine or Machine()).socket)))


def _servers(admin: AdminSocket) -> dict[tuple[str, str], Server]:
    """None where HAProxy does not run."""
    try:
        return admin.servers()
    except SocketError:
        return {}
