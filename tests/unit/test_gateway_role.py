# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role gateway writes and decides, from facts alone: its variables and templates, without a host."""

from __future__ import annotations

import hashlib
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import filter_loader, lookup_loader
from ansible.template import Templar, trust_as_template
from ansible_collections.llmops.stack.plugins.filter.gateway import FilterModule
from ansible_collections.llmops.stack.plugins.module_utils import _stack_facts
from ansible_collections.llmops.stack.plugins.module_utils import _stack_facts_gateway as places
from ansible_collections.llmops.stack.plugins.module_utils._guard import files

ROLE = pathlib.Path(__file__).resolve().parents[2] / "roles" / "gateway"
Ask = Callable[..., Any]


@pytest.fixture
def facts(tmp_path: pathlib.Path) -> dict[str, Any]:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text('ID=debian\nVERSION_ID="13"\nVERSION_CODENAME=trixie\n')
    found = _stack_facts.StackFacts(root=str(tmp_path), run=lambda *a, **k: (127, "")).collect()
    found["python"]["requests"] = "2.32.3"
    return found


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    filters = {f"llmops.stack.{name}": function for name, function in FilterModule().filters().items()}
    find_filter, find_lookup = filter_loader.get, lookup_loader.get

    def get_filter(name: str, *args: Any, **options: Any) -> Any:
        if name in filters:
            return filter_loader._wrap_func(name, name, filters[name])
        return find_filter(name, *args, **options)

    def get_lookup(name: str, *args: Any, **options: Any) -> Any:
        return find_lookup(name.removeprefix("ansible.builtin."), *args, **options)

    loader = DataLoader()
    variables: dict[str, Any] = {}
    for part in ("defaults", "vars"):
        variables.update(loader.load_from_file(str(ROLE / part / "main.yml"), trusted_as_template=True))

    def ask(name: str, facts: dict[str, Any], **given: Any) -> Any:
        everything = {
            **variables,
            "inventory_hostname": "gateway1",
            "role_path": str(ROLE),
            "ansible_search_path": [str(ROLE)],
            **given,
            "ansible_facts": {"llmops_stack": facts},
        }
        for fact, how in (("__gateway_plan", "__gateway_planned"), ("__gateway_changes", "__gateway_compared")):
            if fact in name or fact == "__gateway_plan":
                everything[fact] = Templar(loader, everything).template(trust_as_template(f"{{{{ {how} }}}}"))
        return Templar(loader, everything).template(trust_as_template(f"{{{{ {name} }}}}"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filter_loader, "get", get_filter)
        patch.setattr(lookup_loader, "get", get_lookup)
        yield ask


def finished(ask: Ask, facts: dict[str, Any], **given: Any) -> dict[str, Any]:
    """The facts of a host on which the role has run."""
    texts = {places.UNIT: ask("__gateway_texts.unit", facts, **given)}
    plan = ask("__gateway_plan", facts, **given)
    if plan["firewall_wanted"]:
        texts.update(files(plan["guard"], [plan["given"]["port"]]))
    mark = re.findall(r"chain rules_([0-9a-f]{12}) ", texts.get(places.PLACES.rules, ""))
    done = {path: {"sha256": hashlib.sha256(text.encode()).hexdigest()} for path, text in texts.items()}
    gateway = {
        **facts["gateway"],
        "program": "/usr/sbin/haproxy",
        "files": {**{path: {"sha256": ""} for path in (places.UNIT, *places.PLACES)}, **done},
        "active": True,
        "enabled": True,
        "firewall": {"table": mark[0] if mark else "", "enabled": bool(mark)},
    }
    return {**facts, "gateway": gateway, "ollama": {**facts["ollama"], "nft": True}}


def test_a_bare_host_lacks_it_all(ask: Ask, facts: dict[str, Any]) -> None:
    plan = ask("__gateway_plan", facts)
    assert (plan["refusals"], plan["bind"], plan["firewall_wanted"]) == ([], "0.0.0.0", True)
    made = ask("__gateway_changes", facts)
    assert made["packages"] == ["haproxy", "nftables"]
    assert (made["firewall"], made["unit"], made["service"]) == (True, True, True)


def test_a_host_that_is_as_it_should_be_needs_nothing(ask: Ask, facts: dict[str, Any]) -> None:
    given: dict[str, Any] = {"gateway_clients": ["192.0.2.1"], "gateway_allow": ["10.0.0.0/8"]}
    done = finished(ask, facts, **given)
    made = ask("__gateway_changes", done, **given)
    assert (made["packages"], made["firewall"], made["unit"], made["service"], made["openings"]) == ([], *[False] * 4)
    assert ask("__gateway_changed", done, __gateway_changes=made, **given) is False
    others: list[dict[str, Any]] = [{"gateway_allow": []}, {"gateway_port": 11500}, {"gateway_containers": False}]
    for change in others:
        assert ask("__gateway_changes.firewall", done, **{**given, **change}) is True


def test_an_installation_that_was_cut_off_is_finished(ask: Ask, facts: dict[str, Any]) -> None:
    tasks = {task["name"]: task for task in yaml.safe_load((ROLE / "tasks/install.yml").read_text())}
    order = [name.removeprefix("Install | ") for name in tasks]
    names = ["Note whose package it is", "Install packages", "Leave the package's own service off",
             "Forget whose package it is"]  # fmt: skip
    assert sorted(names, key=order.index) == names

    def reached(name: str, note: bool, facts: dict[str, Any]) -> bool:
        given = {"ansible_check_mode": False, "__gateway_package": {"stat": {"exists": note}}}
        # The fixture makes what a condition names.
        return all(ask(condition, facts, **given) for condition in tasks[f"Install | {name}"]["when"])

    cut = {**facts, "gateway": {**facts["gateway"], "program": "/usr/sbin/haproxy"}}
    cut["security"] = {**facts["security"], "selinux": "enforcing"}
    assert reached("Leave the package's own service off", True, cut)
    assert not reached("Leave the package's own service off", False, cut), "it is somebody's"
    assert reached("Let HAProxy reach any port where SELinux would not", True, cut)
    done = {**finished(ask, facts), "security": cut["security"]}
    assert not reached("Let HAProxy reach any port where SELinux would not", True, done)


def test_the_rules_let_in_whom_the_variables_name(ask: Ask, facts: dict[str, Any]) -> None:
    given: dict[str, Any] = {
        "gateway_clients": ["192.0.2.1", "2001:db8::1"],
        "gateway_allow": ["10.0.0.0/8", "192.0.2.1"],
        "gateway_port": 11500,
    }
    texts = files(ask("__gateway_plan.guard", facts, **given), [11500])
    text = texts[places.PLACES.rules]
    assert "table inet llmops_gateway {" in text
    assert "tcp dport 11500 jump" in text
    sources = re.findall(r"(\S+) accept", text.partition("chain who")[2])
    assert sources == ['"lo"', '"docker0"', '"br-*"', "192.0.2.1", "2001:db8::1", "10.0.0.0/8"]
    assert text.rstrip().endswith("reject with tcp reset\n    }\n}")
    assert ask("__gateway_plan.bind", facts, **given) == "::"
    assert "Before=llmops-gateway.service" in texts[places.PLACES.unit]


def test_nobody_but_the_host_itself(ask: Ask, facts: dict[str, Any]) -> None:
    plan = ask("__gateway_plan", facts, gateway_containers=False)
    assert (plan["bind"], plan["loopback"], plan["firewall_wanted"]) == ("127.0.0.1", True, False)
    unit = ask("__gateway_texts.unit", facts, gateway_containers=False)
    assert "nft" not in unit
    done = finished(ask, facts)
    assert ask("__gateway_changes.firewall_left", done, gateway_containers=False) is True


def test_the_service_does_not_start_unguarded(ask: Ask, facts: dict[str, Any]) -> None:
    unit = ask("__gateway_texts.unit", facts)
    assert 'ExecStartPre=/bin/sh -c "exec nft list table inet llmops_gateway >/dev/null"' in unit
    assert "gateway-firewall.service" in unit


def test_the_settings_are_those_of_the_module(ask: Ask, facts: dict[str, Any]) -> None:
    from ansible_collections.llmops.stack.plugins.modules.gateway_nodes import arguments

    options = arguments()["settings"]["options"]
    settings = ask("__gateway_plan.settings", facts)
    assert sorted(settings) == sorted(options)
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    for name, option in options.items():
        assert name == "bind" or defaults[f"gateway_{name}"] == option["default"], name


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"gateway_allow": ["gpu.example.com"]}, "a firewall knows no names"),
        ({"gateway_clients": ["dify.example.com"]}, "gateway_clients holds 'dify.example.com'"),
        ({"gateway_allow": ["0.0.0.0/0"]}, "there is no gateway_key"),
        ({"gateway_clients": ["0.0.0.0/0"], "gateway_key": "s3cret"}, "gateway_clients holds 0.0.0.0/0"),
        ({"gateway_allow": ["10.0.0.7/8"]}, "an address within a network"),
        ({"gateway_allow": "10.0.0.7"}, "which is no list"),
        ({"gateway_bind": "eth0"}, "gateway_bind is eth0"),
        ({"gateway_metrics_bind": "all"}, "gateway_metrics_bind is all"),
        ({"gateway_container_interfaces": ["br 1"]}, "no name of an interface"),
        ({"gateway_key": "a b"}, "gateway_key holds spaces"),
        ({"gateway_max_queue": -1}, "gateway_max_queue is -1. Write 0 or more"),
        ({"gateway_stream_timeout": 5}, "Write 60 or more"),
        ({"gateway_port": 70000}, "is 70000, which is no port"),
        ({"gateway_stats_port": 11434}, "another of the gateway's ports"),
        ({"gateway_digests": {"speak": "newest"}}, "gateway_digests says newest for speak"),
        ({"gateway_digests": {"a b": "any"}}, "is no name of a model"),
    ],
)
def test_what_cannot_be_meant_is_refused(ask: Ask, facts: dict[str, Any], given: dict[str, Any], words: str) -> None:
    said = ask("__gateway_plan.refusals", facts, **given)
    assert any(words in one for one in said), said
    assert "s3cret" not in str(said)


def test_everybody_may_come_who_has_the_key(ask: Ask, facts: dict[str, Any]) -> None:
    assert ask("__gateway_plan.refusals", facts, gateway_allow=["0.0.0.0/0"], gateway_key="s3cret") == []


def test_a_port_that_is_taken(ask: Ask, facts: dict[str, Any]) -> None:
    other = {"pid": 7, "process": "nginx", "container": "", "unit": "nginx.service"}
    taken = {**facts, "ports": {"11434": other}}
    assert ask("__gateway_plan.refusals", taken) == [
        "Port 11434 is taken by nginx (pid 7). Stop it, or give the gateway another one (gateway_port)."
    ]
    ollama = {**facts, "ports": {"11434": {**other, "process": "ollama", "unit": "ollama.service"}}}
    assert "Port 11434 is Ollama's on this host" in ask("__gateway_plan.refusals", ollama)[0]
    moving = ask("__gateway_plan.refusals", ollama, gateway_taken_ports=[11435])
    assert "is to move to 11435" in moving[0] and "Take the host out of the group gateway for one run" in moving[0]
    # One that is still to come on the same host has the port, too.
    assert "Port 11434 is Ollama's" in ask("__gateway_plan.refusals", facts, gateway_taken_ports=[11434])[0]
    own = {**facts, "ports": {"11434": {**other, "process": "haproxy", "unit": places.SERVICE}}}
    assert ask("__gateway_plan.refusals", own) == []
